//! One SMMU, driven by the library against the hostile model.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Frames, Platform, PoolShape};
use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::{
    CommandError, Death, Firmware, HandshakeTimeout, QueueIndices, Refusal, Settings, Smmu,
    StreamError, TakeOverError, Unpublished, Unwalkable, invalidate, probe,
};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Config};
use portcullis::spec::command::Command;
use portcullis::spec::event::EventKind;
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};
use portcullis_embedder::Hypervisor;
use smmu_model::{Faults, Fetch, Identity, Mode, Outcome, Transaction};

const FIRMWARE: Firmware = Firmware {
    is_coherent: true,
    queue_indices: QueueIndices::Page1,
};
const STREAM: StreamId = StreamId::new(0x110);
const IPA: Ipa = Ipa::new(0x4_0000_3000);
const LAST: StreamId = StreamId::new(0xffff);

/// Every way of being hostile, and as many seeds as are quick.
fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..24).map(|seed| Mode::Chaotic { seed });
    [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(seeds)
}

fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    take_over_with(host, |_| {})
}

fn take_over_with(host: &Hypervisor, adjust: impl FnOnce(&mut Settings)) -> Smmu<'_, Hypervisor> {
    let mut settings = Settings::new(LAST);
    adjust(&mut settings);
    Smmu::take_over(host, host.registers(0), FIRMWARE, settings).expect("it is taken over")
}

fn stage2(host: &Hypervisor, vmid: u16) -> Stage2<'_, Hypervisor> {
    let config = Stage2Config {
        granule: Granule::Kib4,
        ipa_bits: 40,
        oas_bits: 40,
        bbm: BbmLevel::Level0,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 64,
            log2_pages_per_chunk: 3,
        },
        vmid: Vmid::new(vmid),
    };
    Stage2::new(host, config).expect("there is memory")
}

fn page(host: &Hypervisor) -> Frames {
    host.allocate(12).expect("there is memory")
}

fn map(stage2: &mut Stage2<'_, Hypervisor>, ipa: Ipa, pa: Pa) {
    let mapped = stage2.map(ipa, pa, 0x1000, Attributes::MEMORY, PageSizes::PagesOnly);
    mapped.expect("it is mapped");
}

/// A device writes; whether it got through.
fn writes(host: &Hypervisor, stream: StreamId, at: Ipa) -> bool {
    let write = Transaction::write(stream.as_u32(), at.as_u64(), b"portcull");
    matches!(host.machine().smmu(0).transact(write), Outcome::Done { .. })
}

fn assert_clean(host: &Hypervisor, what: impl std::fmt::Debug) {
    let violations = host.machine().record().violations();
    assert!(violations.is_empty(), "{what:?}: {}", violations[0]);
}

fn syncs(host: &Hypervisor) -> u64 {
    host.machine().smmu(0).syncs()
}

/// The whole life of a stream: published, used, unmapped under it, retracted; everything back.
#[test]
fn a_stream_lives_and_ends_without_a_violation_in_every_mode() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        let memory = page(&host);
        assert!(!writes(&host, STREAM, IPA), "nobody published it");
        map(&mut stage2, IPA, memory.base());
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        assert!(
            writes(&host, STREAM, IPA),
            "{mode:?}: it is published and mapped"
        );
        let change = stage2.unmap(IPA, 0x1000).expect("it is unmapped");
        let tables = invalidate(&[&smmu], change).expect("it is confirmed");
        stage2.reclaim(tables).expect("its own");
        assert!(!writes(&host, STREAM, IPA), "{mode:?}: it is unmapped");
        host.free(memory);
        smmu.retract(&[STREAM]).expect("it is retracted");
        let over = invalidate(&[&smmu], stage2.dismantle()).expect("it is confirmed");
        assert_eq!(over.free(), 0);
        smmu.shut_down().expect("it shuts");
        assert_eq!(host.bytes_out(), 0, "{mode:?}: everything came back");
        assert!(!writes(&host, STREAM, IPA), "it is shut");
        assert_clean(&host, mode);
    }
}

/// What stays mapped never faults while its neighbour goes.
#[test]
fn a_neighbour_that_goes_disturbs_nobody() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        let (memory, other) = (page(&host), page(&host));
        let neighbour = Ipa::new(IPA.as_u64() + 0x1000);
        map(&mut stage2, IPA, memory.base());
        map(&mut stage2, neighbour, other.base());
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        assert!(writes(&host, STREAM, neighbour) && writes(&host, STREAM, IPA));
        let change = stage2.unmap(neighbour, 0x1000).expect("it is unmapped");
        assert!(
            writes(&host, STREAM, IPA),
            "{mode:?}: before it is confirmed"
        );
        stage2
            .reclaim(invalidate(&[&smmu], change).expect("confirmed"))
            .expect("its own");
        assert!(writes(&host, STREAM, IPA), "{mode:?}: and after");
        assert!(!writes(&host, STREAM, neighbour));
        assert_clean(&host, mode);
    }
}

/// Design section 8: a group moves in the SYNCs of one.
#[test]
fn any_number_of_streams_takes_two_syncs_to_publish_and_one_to_retract() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let stage2 = stage2(&host, 7);
    for count in [1, 8, 300] {
        let streams: Vec<_> = (0..count).map(|i| StreamId::new(0x80 + i)).collect();
        let before = syncs(&host);
        smmu.publish(&streams, &stage2.walk())
            .expect("they are published");
        assert_eq!(syncs(&host) - before, 2, "{count} streams");
        smmu.retract(&streams).expect("they are retracted");
        assert_eq!(syncs(&host) - before, 3, "{count} streams");
    }
    assert_clean(&host, "groups");
}

#[test]
fn an_unmap_of_any_range_takes_one_sync() {
    for identity in [Identity::full(), Identity::kunpeng_920()] {
        let host = Hypervisor::new(identity, Mode::Hoarding);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        let memory = host.allocate(22).expect("there is memory");
        for log2_bytes in 12..=22_u8 {
            let bytes = 1 << log2_bytes;
            stage2
                .map(
                    IPA,
                    memory.base(),
                    bytes,
                    Attributes::MEMORY,
                    PageSizes::PagesOnly,
                )
                .expect("it is mapped");
            assert!(writes(&host, STREAM, IPA));
            let before = syncs(&host);
            let change = stage2.unmap(IPA, bytes).expect("it is unmapped");
            stage2
                .reclaim(invalidate(&[&smmu], change).expect("confirmed"))
                .expect("its own");
            assert_eq!(syncs(&host) - before, 1, "2^{log2_bytes} bytes");
            assert!(!writes(&host, STREAM, IPA));
        }
        assert_clean(&host, identity);
    }
}

#[test]
fn an_smmu_at_rest_takes_less_than_256_kib() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    assert_eq!(smmu.size_bytes(), host.bytes_out());
    assert!(smmu.size_bytes() < 256 << 10, "{} bytes", smmu.size_bytes());
}

/// Whatever was left on: translation, queues, an error, an update under way.
#[test]
fn it_is_taken_over_from_any_state() {
    use smmu_model::offset;
    let leavings: [&[(u64, u32)]; 4] = [
        &[(offset::CR0, 0b1)],
        &[
            (offset::CMDQ_PROD, 0),
            (offset::CMDQ_CONS, 0),
            (offset::CR0, 0b1101),
        ],
        &[(offset::IRQ_CTRL, 0b111)],
        &[(offset::GBPA, 0x8000_0000)],
    ];
    for mode in modes() {
        for leaving in leavings {
            let host = Hypervisor::new(Identity::full(), mode);
            let wires = host.machine().smmu(0);
            leaving
                .iter()
                .for_each(|(register, value)| wires.write32(*register, *value));
            wires.raise_error(0b101);
            let smmu = take_over(&host);
            assert!(!writes(&host, STREAM, Ipa::new(0x8000_0000)));
            let mut stage2 = stage2(&host, 7);
            map(&mut stage2, IPA, page(&host).base());
            smmu.publish(&[STREAM], &stage2.walk())
                .expect("it is published");
            assert!(writes(&host, STREAM, IPA), "{mode:?} {leaving:x?}");
        }
    }
}

#[test]
fn a_linear_table_serves_where_there_are_no_two_levels() {
    let identity = Identity {
        st_level2: false,
        sid_bits: 6,
        ..Identity::full()
    };
    for mode in modes() {
        let host = Hypervisor::new(identity, mode);
        let smmu = take_over(&host);
        let mut stage2 = stage2(&host, 7);
        map(&mut stage2, IPA, page(&host).base());
        let stream = StreamId::new(63);
        smmu.publish(&[stream], &stage2.walk())
            .expect("it is published");
        assert!(writes(&host, stream, IPA));
        let past = StreamError::OutOfRange {
            stream: StreamId::new(64),
            streams: 64,
        };
        assert_eq!(
            smmu.publish(&[StreamId::new(64)], &stage2.walk()),
            Err(past)
        );
        assert_clean(&host, mode);
    }
}

#[test]
fn what_is_not_so_is_refused_and_changes_nothing() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let stage2 = stage2(&host, 7);
    let other = StreamId::new(5);
    smmu.publish(&[STREAM], &stage2.walk())
        .expect("it is published");
    let before = syncs(&host);
    let stream = STREAM;
    let walk = stage2.walk();
    assert_eq!(
        smmu.publish(&[other, STREAM], &walk),
        Err(StreamError::InUse { stream })
    );
    assert_eq!(
        smmu.retract(&[STREAM, other]),
        Err(StreamError::NotInUse { stream: other })
    );
    assert_eq!(
        smmu.publish(&[other, other], &walk),
        Err(StreamError::NamedTwice { stream: other })
    );
    assert_eq!(syncs(&host), before, "the SMMU heard nothing of it");
    smmu.publish(&[other], &walk)
        .expect("it is as free as before");
    assert_clean(&host, "refusals");
}

#[test]
fn a_stage_2_that_the_smmu_cannot_walk_is_refused() {
    let narrow = Identity {
        oas_bits: 36,
        ..Identity::narrow_tags()
    };
    let host = Hypervisor::new(narrow, Mode::Polite);
    let smmu = take_over(&host);
    let wide = Unwalkable::OutputSize {
        bits: 40,
        smmu_bits: 36,
    };
    let walk = stage2(&host, 7).walk();
    assert_eq!(
        smmu.publish(&[STREAM], &walk),
        Err(StreamError::Unwalkable(wide))
    );
    let host = Hypervisor::new(Identity::narrow_tags(), Mode::Polite);
    let smmu = take_over(&host);
    let walk = stage2(&host, 0x100).walk();
    let vmid = StreamError::Unwalkable(Unwalkable::VmidSize);
    assert_eq!(smmu.publish(&[STREAM], &walk), Err(vmid));
}

/// Each refusal of `probe`, by the ID registers that call for it.
#[test]
fn an_smmu_that_cannot_be_driven_is_refused_by_name() {
    let full = Identity::full();
    let rows = [
        (
            Identity {
                stage2: false,
                ..full
            },
            Refusal::NoStage2,
        ),
        (
            Identity {
                granule_4k: false,
                ..full
            },
            Refusal::No4KiBGranule,
        ),
        (
            Identity {
                ttendian: 3,
                ..full
            },
            Refusal::BigEndianTables,
        ),
    ];
    for (identity, refusal) in rows {
        let host = Hypervisor::new(identity, Mode::Polite);
        assert_eq!(probe(&host.registers(0), FIRMWARE), Err(refusal));
        let taken = Smmu::take_over(&host, host.registers(0), FIRMWARE, Settings::new(LAST));
        assert_eq!(taken.err(), Some(TakeOverError::Refused(refusal)));
        assert!(
            !writes(&host, STREAM, Ipa::new(0x8000_0000)),
            "the gate is shut"
        );
        assert_eq!(host.bytes_out(), 0);
    }
    let host = Hypervisor::new(full, Mode::Polite);
    let apart = Firmware {
        is_coherent: false,
        ..FIRMWARE
    };
    assert_eq!(probe(&host.registers(0), apart), Err(Refusal::NotCoherent));
}

#[test]
fn a_take_over_without_memory_gives_back_what_it_took() {
    for successes in 0..3 {
        let host = Hypervisor::new(Identity::full(), Mode::Polite);
        host.fail_after(Some(successes));
        let taken = Smmu::take_over(&host, host.registers(0), FIRMWARE, Settings::new(LAST));
        assert!(matches!(taken.err(), Some(TakeOverError::NoFrames { .. })));
        assert_eq!(host.bytes_out(), 0);
        assert!(
            !writes(&host, STREAM, Ipa::new(0x8000_0000)),
            "the gate is shut"
        );
    }
}

#[test]
fn a_stream_without_memory_for_its_array_stays_free() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let stage2 = stage2(&host, 7);
    host.fail_after(Some(0));
    let none = StreamError::NoFrames { log2_bytes: 14 };
    assert_eq!(smmu.publish(&[STREAM], &stage2.walk()), Err(none));
    host.fail_after(None);
    smmu.publish(&[STREAM], &stage2.walk())
        .expect("there is memory again");
}

#[test]
fn registers_that_do_not_answer_end_in_a_named_error() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    host.machine().smmu(0).set_faults(Faults {
        acknowledge_never: true,
        ..Faults::default()
    });
    let taken = Smmu::take_over(&host, host.registers(0), FIRMWARE, Settings::new(LAST));
    let Some(TakeOverError::Handshake(HandshakeTimeout { register, .. })) = taken.err() else {
        panic!("GBPA never answers");
    };
    assert_eq!(register, "GBPA");
}

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

#[test]
fn trains_of_any_length_pass_through_a_queue_of_any_size() {
    for log2_commands in 1..=4 {
        for mode in modes() {
            let host = Hypervisor::new(Identity::full(), mode);
            let smmu = take_over_with(&host, |settings| settings.log2_commands = log2_commands);
            let harmless = Command::tlbi_s12_vmall(Vmid::new(1));
            for length in 0..50 {
                let group = vec![harmless; length];
                let before = syncs(&host);
                let ticket = smmu
                    .submit(&[&group, &group])
                    .expect("there is room in time");
                smmu.wait(ticket).expect("it is confirmed");
                assert_eq!(syncs(&host) - before, 2);
            }
            assert_clean(&host, (log2_commands, mode));
        }
    }
}

/// In a queue of two no train fits whole; in one of eight most do.
#[test]
fn many_cpus_share_one_queue_and_each_gets_its_own_answer() {
    for log2_commands in [1, 3] {
        share_one_queue(log2_commands);
    }
}

fn share_one_queue(log2_commands: u8) {
    const CPUS: usize = 4;
    const TRAINS: usize = 200;
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over_with(&host, |settings| settings.log2_commands = log2_commands);
    let before = syncs(&host);
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let smmu = &smmu;
            scope.spawn(move || {
                let good = Command::tlbi_s12_vmall(Vmid::new(cpu as u16));
                let bad = Command::reserved();
                for train in 0..TRAINS {
                    let is_bad = train % 7 == cpu;
                    let group = if is_bad { [good, bad, good] } else { [good; 3] };
                    let ticket = smmu.submit(&[&group]).expect("there is room in time");
                    let told = smmu.wait(ticket);
                    let words = bad.words();
                    let right = if is_bad {
                        Err(CommandError::Illegal { words })
                    } else {
                        Ok(())
                    };
                    assert_eq!(told, right, "cpu {cpu}, train {train}");
                }
            });
        }
    });
    // Each illegal command was replaced by a SYNC of its own.
    let illegal = (0..TRAINS * CPUS)
        .filter(|i| i % TRAINS % 7 == i / TRAINS)
        .count();
    assert_eq!(syncs(&host) - before, (CPUS * TRAINS + illegal) as u64);
}

#[test]
fn a_queue_that_stays_full_is_given_up_and_serves_others_later() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over_with(&host, |settings| settings.log2_commands = 1);
    host.machine().smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    let harmless = [Command::tlbi_s12_vmall(Vmid::new(1)); 8];
    let refused = smmu.submit(&[&[], &harmless]).err();
    assert!(matches!(refused, Some(CommandError::NoRoom { waited_us }) if waited_us >= 1_000_000));
    host.machine().smmu(0).set_faults(Faults::default());
    host.machine().advance(10);
    let ticket = smmu.submit(&[&harmless]).expect("there is room in time");
    assert_eq!(smmu.wait(ticket), Ok(()));
}

#[test]
fn many_cpus_publish_and_retract_streams_of_their_own() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut stage2 = stage2(&host, 7);
    map(&mut stage2, IPA, page(&host).base());
    let walk = stage2.walk();
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let (smmu, host, walk) = (&smmu, &host, &walk);
            scope.spawn(move || {
                let stream = StreamId::new(0x100 * cpu + 9);
                for _ in 0..50 {
                    smmu.publish(&[stream], walk).expect("it is its own");
                    assert!(writes(host, stream, IPA));
                    smmu.retract(&[stream]).expect("it is its own");
                    assert!(!writes(host, stream, IPA));
                }
            });
        }
    });
    assert_clean(&host, "four CPUs");
}

#[test]
fn knocks_are_named_where_they_are_asked_for_and_silent_where_not() {
    for unpublished in [Unpublished::Recorded, Unpublished::Silent] {
        let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
        let smmu = take_over_with(&host, |settings| settings.unpublished = unpublished);
        let stage2 = stage2(&host, 7);
        smmu.publish(&[STREAM], &stage2.walk())
            .expect("it is published");
        let neighbour = StreamId::new(STREAM.as_u32() + 1);
        let stranger = StreamId::new(0x4400);
        let mut kinds = Vec::new();
        for stream in [neighbour, stranger, neighbour] {
            assert!(!writes(&host, stream, IPA));
            // A SYNC brings what is still on its way (§4.7.3).
            let ticket = smmu.submit(&[&[]]).expect("there is room");
            smmu.wait(ticket).expect("it is confirmed");
            smmu.service(u32::MAX, |event| kinds.push(event.kind));
        }
        let knocks = smmu.knocks();
        let named: Vec<_> = knocks.streams().map(|knock| knock.stream).collect();
        match unpublished {
            Unpublished::Recorded => {
                assert_eq!(named, [neighbour, stranger]);
                let (ste, id) = (EventKind::BadSte, EventKind::BadStreamid);
                assert_eq!(kinds, [ste, id, ste]);
            }
            Unpublished::Silent => assert!(named.is_empty() && kinds.is_empty()),
        }
    }
}

#[test]
fn a_full_event_queue_is_noticed_acknowledged_and_used_again() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over_with(&host, |settings| settings.log2_events = 2);
    let stage2 = stage2(&host, 7);
    smmu.publish(&[STREAM], &stage2.walk())
        .expect("it is published");
    for round in 0..5 {
        for page in 0..9 {
            assert!(!writes(&host, STREAM, Ipa::new(0x10_0000 + page * 0x1000)));
        }
        let first = smmu.service(3, |_| {}).events;
        assert!(first.lost_events && first.has_more, "round {round}");
        assert_eq!(first.events, 3);
        let rest = smmu.service(u32::MAX, |_| {}).events;
        assert!(!rest.lost_events && !rest.has_more);
        assert_eq!(rest.events, 1);
    }
    assert_clean(&host, "overflow");
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
