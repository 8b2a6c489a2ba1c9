//! Queues that are full.

use super::*;

#[test]
fn a_full_event_queue_drops_records_and_says_so_once() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 9 }] {
        let mut driver = up(mode);
        let world = stories::plain(&mut driver).expect("nothing is wrong yet");
        for fault in 0..40 {
            assert_eq!(fire(&world.device, None, fault * PAGE), End::Aborted);
        }
        driver.pass();
        assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 1);
        let mut read = 0;
        while let Some(event) = driver.take_event() {
            assert_eq!(event[2], read * PAGE);
            read += 1;
        }
        assert_eq!(read, 32);
        // Acknowledged, and recording again.
        assert_eq!(driver.read(offset::EVENTQ_CONS) >> 31, 1);
        assert_eq!(fire(&world.device, None, 0x77_7000), End::Aborted);
        driver.pass();
        assert_eq!(driver.take_event().map(|event| event[2]), Some(0x77_7000));
        assert_clean(&driver);
    }
}

#[test]
fn an_event_queue_can_be_made_full() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            event_queue_full: true,
            ..Faults::default()
        },
    );
    assert_eq!(fire(&world.device, None, 0x1000), End::Aborted);
    assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 1);
    assert_eq!(driver.take_event(), None);
}

#[test]
fn a_full_event_queue_keeps_the_record_of_a_stall() {
    for mode in [Mode::Polite, Mode::Hoarding] {
        let mut driver = up(mode);
        let guest = driver.guest(VMID);
        let mut ste = ste_stage2(VMID, guest.root);
        // S2S.
        ste[2] |= 1 << 57;
        driver.publish_ste(STREAM, &ste).expect("nothing is wrong");
        let device = driver.device(STREAM);
        put_in(
            &driver,
            Faults {
                event_queue_full: true,
                ..Faults::default()
            },
        );
        assert_eq!(fire(&device, None, 0x1000), End::Stalled);
        driver.pass();
        assert_eq!(driver.take_event(), None);
        assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 0);
        put_in(&driver, Faults::default());
        driver.pass();
        let event = driver.take_event().expect("the record was kept");
        // F_TRANSLATION with Stall.
        assert_eq!((event[0] & 0xff, event[1] >> 31 & 1), (0x10, 1));
        let stag = event[1] as u16;
        let abort = words::resume_abort(STREAM, stag);
        let steps = vec![Step::Command(abort), Step::Sync];
        assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
        for _ in 0..10 {
            driver.pass();
        }
        assert_eq!(device.read32(frame::PENDING), 0);
        assert_eq!(device.read32(frame::LAST_END), End::Aborted as u32);
        assert_clean(&driver);
    }
}

#[test]
fn a_full_pri_queue_answers_the_last_request_of_a_group_by_itself() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    for group in 0..32 {
        request_page(&world.device, group, 1 << 16);
    }
    assert_eq!(driver.read(offset::PRIQ_PROD) & 0x3f, 32);
    assert_eq!(driver.read(offset::PRIQ_PROD) >> 31, 0);
    // One more without Last, one with.
    request_page(&world.device, 40, 1 << 16);
    assert_eq!(driver.read(offset::PRIQ_PROD) >> 31, 1);
    assert_eq!(world.device.read32(frame::RESPONSES), 0);
    request_page(&world.device, 41, 1 << 20 | 1 << 16);
    assert_eq!(world.device.read32(frame::RESPONSES), 1);
    assert_eq!(world.device.read32(frame::LAST_RESPONSE), 41 | 1 << 31);
    assert_clean(&driver);
    assert_eq!(
        ResponseCode::Success as u32,
        world.device.read32(frame::LAST_RESPONSE) >> 16 & 3
    );
    driver.pass();
}
