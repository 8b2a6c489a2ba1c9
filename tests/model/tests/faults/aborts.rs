//! External aborts.

use super::*;

#[test]
fn an_external_abort_on_any_fetch_is_recorded_as_what_it_is() {
    // Type, S2, CLASS of the record.
    let cases = [
        (Fetch::Stream, 0x03, 0),
        (Fetch::Context, 0x09, 0),
        (Fetch::Stage1, 0x0b, 1 << 40),
        (Fetch::Stage2, 0x0b, 1 << 39),
    ];
    for (fetch, number, flags) in cases {
        let mut driver = up(Mode::Polite);
        let world = stories::nested(&mut driver).expect("nothing is wrong yet");
        // What was used is forgotten, so that everything is fetched again.
        let flush = [
            smmu_model::bench::CFGI_ALL,
            SYNC,
            smmu_model::bench::NSNH_ALL,
        ];
        let mut steps: Vec<Step> = flush.map(Step::Command).to_vec();
        steps.push(Step::Sync);
        assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
        put_in(
            &driver,
            Faults {
                aborts: vec![fetch],
                ..Faults::default()
            },
        );
        assert_eq!(fire(&world.device, Some(PASID), VA), End::Aborted);
        let event = driver.take_event().expect("a record");
        assert_eq!(event[0] & 0xff, number, "{fetch:?}");
        assert_eq!(event[0] >> 32, u64::from(STREAM), "{fetch:?}");
        let seen = event[1] & (1 << 39 | 1 << 40);
        assert_eq!(seen & flags, flags, "{fetch:?}: {:#x}", event[1]);
        put_in(&driver, Faults::default());
        // A failed fetch is not remembered.
        assert_eq!(fire(&world.device, Some(PASID), VA), End::Done, "{fetch:?}");
        assert_clean(&driver);
    }
}

#[test]
fn an_external_abort_on_one_word_is_met_there_alone() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    let flush = [
        smmu_model::bench::CFGI_ALL,
        SYNC,
        smmu_model::bench::NSNH_ALL,
    ];
    let mut steps: Vec<Step> = flush.map(Step::Command).to_vec();
    steps.push(Step::Sync);
    assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
    let word = driver::stage2_slot(&world.guest, world.pages + PAGE);
    put_in(
        &driver,
        Faults {
            abort_at: Some(word),
            ..Faults::default()
        },
    );
    assert_eq!(fire(&world.device, None, world.pages), End::Done);
    assert_eq!(fire(&world.device, None, world.pages + PAGE), End::Aborted);
    let event = driver.take_event().expect("a record");
    // F_WALK_EABT tells the physical address of the descriptor.
    assert_eq!((event[0] & 0xff, event[3]), (0x0b, word));
}

#[test]
fn an_event_queue_that_aborts_stops_until_it_is_acknowledged() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            aborts: vec![Fetch::Event],
            ..Faults::default()
        },
    );
    assert_eq!(fire(&world.device, None, 0x1000), End::Aborted);
    assert_eq!(active(&driver), EVENTQ_ABT_ERR);
    put_in(&driver, Faults::default());
    assert_eq!(fire(&world.device, None, 0x2000), End::Aborted);
    assert_eq!(driver.take_event(), None);
    driver.acknowledge();
    assert_eq!(fire(&world.device, None, 0x3000), End::Aborted);
    assert_eq!(driver.take_event().map(|event| event[2]), Some(0x3000));
    // It was not full: nothing overflowed.
    assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 0);
}

#[test]
fn a_pri_queue_that_aborts_fails_every_request() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            aborts: vec![Fetch::PageRequest],
            ..Faults::default()
        },
    );
    for group in [3, 4] {
        request_page(&world.device, group, 1 << 20 | 1 << 16);
        assert_eq!(active(&driver), PRIQ_ABT_ERR);
        // Failure.
        let expected = group | 2 << 16 | 1 << 31;
        assert_eq!(world.device.read32(frame::LAST_RESPONSE), expected);
    }
    driver.acknowledge();
}
