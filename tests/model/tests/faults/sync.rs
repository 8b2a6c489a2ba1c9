//! CMD_SYNC that does not complete, or late.

use super::*;

#[test]
fn a_sync_that_never_completes_ends_in_a_named_error() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 1 }] {
        let mut driver = up(mode);
        let world = stories::plain(&mut driver).expect("nothing is wrong yet");
        let syncs = driver.machine.smmu(0).syncs();
        put_in(
            &driver,
            Faults {
                sync_never: true,
                ..Faults::default()
            },
        );
        let end = driver.retract_ste(STREAM, VMID, &[(world.pages, 4 * PAGE)]);
        assert_eq!(end, Err(Trouble::NotConsumed));
        assert_eq!(driver.machine.smmu(0).syncs(), syncs);
        // Nothing was given back, so nothing was reached that should not have been.
        assert_clean(&driver);
    }
}

#[test]
fn a_sync_that_was_given_up_may_complete_later() {
    let mut driver = up(Mode::Hoarding);
    stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            sync_never: true,
            ..Faults::default()
        },
    );
    assert_eq!(driver.retract_ste_only(STREAM), Err(Trouble::NotConsumed));
    let (before, syncs) = (consumer(&driver), driver.machine.smmu(0).syncs());
    put_in(&driver, Faults::default());
    for _ in 0..10 {
        driver.pass();
    }
    assert_eq!(driver.outstanding(), 0);
    assert_ne!(consumer(&driver), before);
    assert_eq!(driver.machine.smmu(0).syncs(), syncs + 1);
}

#[test]
fn a_late_sync_is_waited_for() {
    let mut driver = up(Mode::Polite);
    put_in(
        &driver,
        Faults {
            sync_late_us: 500,
            ..Faults::default()
        },
    );
    let before = driver.machine.record().now_us();
    assert_eq!(driver.retract_ste_only(STREAM), Ok(()));
    assert!(driver.machine.record().now_us() - before >= 500);
    assert_clean(&driver);
}
