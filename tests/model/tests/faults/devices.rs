//! Devices that answer late, wrongly or not at all.

use super::*;

#[test]
fn a_silent_atc_blocks_the_sync_until_its_time_is_over() {
    let mut driver = up(Mode::Hoarding);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    world.device.misbehave(Misconduct::Silent);
    let end = driver.release(&world.space, Atc::Used, &[]);
    assert_eq!(end, Err(Trouble::NotConsumed));
    assert_eq!(active(&driver), 0);
    driver.machine.advance(100_000);
    let end = driver.finish();
    assert_eq!(end, Err(Trouble::CommandError(3)));
    // The SYNC is executed again, and has nothing left to wait for.
    driver.acknowledge();
    let end = driver.finish();
    assert_eq!(end, Ok(()));
    // The device still has the translation: the stream has to be fenced.
    assert_eq!(fire(&world.device, Some(PASID), VA), End::Done);
}

#[test]
fn a_silent_device_is_found_among_others_by_single_invalidations() {
    let mut driver = up(Mode::Hoarding);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    let good = driver.device(stories::OTHER_STREAM);
    world.device.misbehave(Misconduct::Silent);
    let mut ends = Vec::new();
    for stream in [STREAM, stories::OTHER_STREAM] {
        let inv = words::atc_inv_all(stream, Some(PASID));
        let steps = vec![Step::Command(inv), Step::Command(SYNC), Step::Submit];
        assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
        driver.machine.advance(10);
        driver.machine.advance(100_000);
        let end = driver.finish();
        ends.push(end);
        if end.is_err() {
            driver.acknowledge();
        }
    }
    assert_eq!(ends, [Err(Trouble::CommandError(3)), Ok(())]);
    assert_eq!(good.read32(frame::INVALIDATIONS), 1);
}

#[test]
fn a_late_atc_delays_the_sync_and_is_empty_after_it() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 3 }] {
        let mut driver = up(mode);
        let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
        world.device.misbehave(Misconduct::Late);
        world.device.write32(frame::LATENESS_US, 700);
        let before = driver.machine.record().now_us();
        assert_eq!(driver.release(&world.space, Atc::Used, &[]), Ok(()));
        assert!(driver.machine.record().now_us() - before >= 700);
        assert_eq!(world.device.read32(frame::ATC_ENTRIES), 0);
        assert_ne!(fire(&world.device, Some(PASID), VA), End::Done);
        assert_clean(&driver);
    }
}

#[test]
fn an_unsupported_request_completes_an_invalidation_and_proves_nothing() {
    for misconduct in [Misconduct::Unsupported, Misconduct::Lies] {
        let mut driver = up(Mode::Polite);
        let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
        world.device.misbehave(misconduct);
        // No error: the driver cannot know.
        assert_eq!(driver.release(&world.space, Atc::Used, &[]), Ok(()));
        assert_eq!(active(&driver), 0);
        assert_clean(&driver);
        // The model does.
        assert_eq!(fire(&world.device, Some(PASID), VA), End::Done);
        assert_eq!(driver.machine.record().count(Rule::AtcStale), 1);
        // Split ATS: it reached only what stage 2 of its own guest maps.
        let landed = driver.machine.record().violations();
        assert!(landed.iter().all(|of| of.rule == Rule::AtcStale));
    }
}

#[test]
fn a_reset_empties_the_atc_of_a_device_that_lied() {
    let mut driver = up(Mode::Polite);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    world.device.misbehave(Misconduct::Lies);
    assert_eq!(driver.release(&world.space, Atc::Used, &[]), Ok(()));
    world.device.write32(frame::COMMAND, frame::command::RESET);
    use frame::control::{ATS, ENABLE};
    world.device.write32(frame::CONTROL, ENABLE | ATS);
    assert_eq!(fire(&world.device, Some(PASID), VA), End::NotGranted);
    assert_clean(&driver);
}

#[test]
fn a_device_that_was_unplugged_answers_nothing() {
    let mut driver = up(Mode::Polite);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    driver.devices.clear();
    drop(world.device);
    let end = driver.release(&world.space, Atc::Used, &[]);
    assert_eq!(end, Err(Trouble::NotConsumed));
}
