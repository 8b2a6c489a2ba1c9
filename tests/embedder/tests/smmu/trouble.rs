//! What the hardware may do to a driver that did nothing wrong.

use super::*;

#[test]
fn a_sync_that_never_comes_loses_the_stream_and_nothing_else() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, 7);
    let memory = page(&host);
    map(&mut stage2, IPA, memory.base());
    smmu.publish(&[STREAM], &stage2.walk())
        .expect("it is published");
    let wires = host.machine().smmu(0);
    wires.set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    let change = stage2.unmap(IPA, 0x1000).expect("it is unmapped in memory");
    let refused = invalidate(&[&smmu], change).expect_err("nobody confirms");
    assert_eq!(refused.smmu, 0);
    assert!(
        matches!(refused.error, CommandError::SyncTimeout { waited_us } if waited_us >= 1_000_000)
    );
    let pages = stage2.table_pages();
    stage2.lose(refused.change).expect("its own");
    assert_eq!(stage2.table_pages(), pages, "the tables stay out of use");
    let lost = smmu.retract(&[STREAM]);
    assert!(matches!(
        lost,
        Err(StreamError::NotConfirmed(CommandError::SyncTimeout { .. }))
    ));
    wires.set_faults(Faults::default());
    host.machine().advance(10);
    let stream = STREAM;
    assert_eq!(
        smmu.publish(&[STREAM], &stage2.walk()),
        Err(StreamError::Lost { stream }),
        "a late completion changes nothing by itself"
    );
    smmu.publish(&[StreamId::new(1)], &stage2.walk())
        .expect("others go on");
    let tables = invalidate(&[&smmu], stage2.recover()).expect("it is proven now");
    stage2.reclaim(tables).expect("its own");
    assert_eq!(stage2.lost_pages(), 0);
    assert_clean(&host, "a SYNC that never comes");
}

#[test]
fn the_issuer_of_an_illegal_command_is_told_and_nobody_else() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let harmless = Command::tlbi_s12_vmall(Vmid::new(1));
        let before = smmu.submit(&[&[harmless]]).expect("there is room");
        let bad = smmu
            .submit(&[&[harmless, Command::reserved()], &[harmless]])
            .expect("there is room");
        let after = smmu.submit(&[&[harmless]]).expect("there is room");
        assert_eq!(smmu.wait(after), Ok(()), "{mode:?}");
        let words = Command::reserved().words();
        assert_eq!(
            smmu.wait(bad),
            Err(CommandError::Illegal { words }),
            "{mode:?}"
        );
        assert_eq!(smmu.wait(before), Ok(()), "{mode:?}");
    }
}

#[test]
fn a_ticket_is_good_for_the_smmu_that_gave_it() {
    let both = [Identity::full(); 2].map(|it| smmu_model::Settings::new(it, Mode::Polite));
    let host = Hypervisor::with_smmus(&both);
    let [first, second] = [0, 1].map(|smmu| {
        let settings = Settings::new(LAST);
        Smmu::take_over(&host, host.registers(smmu), FIRMWARE, settings).expect("taken over")
    });
    let ticket = first.submit(&[&[]]).expect("there is room");
    assert_eq!(second.wait(ticket), Err(CommandError::ForeignTicket));
}

#[test]
fn a_queue_that_the_smmu_cannot_read_is_dead() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    host.machine().smmu(0).set_faults(Faults {
        aborts: vec![Fetch::Command],
        ..Faults::default()
    });
    let ticket = smmu.submit(&[&[]]).expect("there is room");
    let dead = CommandError::Dead(Death::FetchAborted);
    assert_eq!(smmu.wait(ticket), Err(dead));
    assert_eq!(
        smmu.submit(&[&[]]).err(),
        Some(dead),
        "nobody waits for it again"
    );
    assert_eq!(smmu.service(1, |_| {}).death, Some(Death::FetchAborted));
}

#[test]
fn an_smmu_that_stopped_fails_every_waiter_at_once() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    host.machine().smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    let tickets = [(); 3].map(|()| smmu.submit(&[&[]]).expect("there is room"));
    host.machine().smmu(0).raise_sfm();
    let before_us = host.machine().record().now_us();
    for ticket in tickets {
        assert_eq!(
            smmu.wait(ticket),
            Err(CommandError::Dead(Death::ServiceFailure))
        );
    }
    let waited_us = host.machine().record().now_us() - before_us;
    assert!(waited_us < 1000, "model time: {waited_us} us");
}

/// Found by sabotage: it used to go on for ever.
#[test]
fn an_entry_that_does_not_hold_is_given_up() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let stage2 = stage2(&host, 7);
    // The third word of a stage-2 STE loses S2R, by its bits 58, 54 and 51 (§5.2).
    host.alter_stores(Some(|value| {
        let third = 1 << 58 | 1 << 54 | 1 << 51;
        Some(if value & third == third {
            value & !(1 << 58)
        } else {
            value
        })
    }));
    assert_eq!(
        smmu.publish(&[STREAM], &stage2.walk()),
        Err(StreamError::NotHeld)
    );
    host.alter_stores(None);
    let stream = STREAM;
    assert_eq!(
        smmu.publish(&[STREAM], &stage2.walk()),
        Err(StreamError::Lost { stream })
    );
    assert!(!writes(&host, STREAM, IPA));
}
