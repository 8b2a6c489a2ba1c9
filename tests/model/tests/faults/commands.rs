//! CMDQ_CONS.ERR.

use super::*;

#[test]
fn an_illegal_command_stops_the_queue_until_it_is_replaced() {
    let mut driver = up(Mode::Polite);
    let first = consumer(&driver);
    put_in(
        &driver,
        Faults {
            illegal_after: Some(0),
            ..Faults::default()
        },
    );
    assert_eq!(
        driver.retract_ste_only(STREAM),
        Err(Trouble::CommandError(1))
    );
    // CONS points at the command that failed.
    assert_eq!(consumer(&driver), first);
    assert_eq!(
        driver.read(offset::GERROR) ^ driver.read(offset::GERRORN),
        1
    );
    let slot = CMDQ + u64::from(first & (driver.entries() - 1)) * 16;
    let steps = vec![
        Step::Enter(slot, SYNC),
        Step::Clean(slot, 16),
        Step::Barrier,
        Step::Write(offset::GERRORN, driver.read(offset::GERROR)),
        Step::AwaitConsumed,
    ];
    assert_eq!(driver.run(Operation::Acknowledge, steps), Ok(()));
    assert_clean(&driver);
}

#[test]
fn an_aborted_fetch_of_a_command_is_tried_again_after_the_acknowledgement() {
    let mut driver = up(Mode::Hoarding);
    put_in(
        &driver,
        Faults {
            abort_after: Some(1),
            ..Faults::default()
        },
    );
    assert_eq!(
        driver.retract_ste_only(STREAM),
        Err(Trouble::CommandError(2))
    );
    assert_eq!(driver.outstanding(), 1);
    driver.acknowledge();
    assert_eq!(driver.finish(), Ok(()));
    assert_clean(&driver);
}

#[test]
fn a_queue_in_memory_that_does_not_answer_aborts_every_time() {
    let mut driver = up(Mode::Polite);
    put_in(
        &driver,
        Faults {
            aborts: vec![Fetch::Command],
            ..Faults::default()
        },
    );
    for _ in 0..2 {
        let end = driver.run(Operation::Finish, vec![Step::Command(SYNC), Step::Submit]);
        assert_eq!(end, Ok(()));
        let end = driver.finish();
        assert_eq!(end, Err(Trouble::CommandError(2)));
        driver.acknowledge();
    }
}

#[test]
fn a_sync_after_a_failed_invalidation_is_executed_again() {
    let mut driver = up(Mode::Hoarding);
    put_in(
        &driver,
        Faults {
            atc_sync_errors: 1,
            ..Faults::default()
        },
    );
    let syncs = driver.machine.smmu(0).syncs();
    assert_eq!(
        driver.retract_ste_only(STREAM),
        Err(Trouble::CommandError(3))
    );
    assert_eq!(driver.outstanding(), 1);
    assert_eq!(driver.machine.smmu(0).syncs(), syncs);
    driver.acknowledge();
    assert_eq!(driver.finish(), Ok(()));
    assert_eq!(driver.machine.smmu(0).syncs(), syncs + 1);
}
