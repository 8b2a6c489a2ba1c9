//! Contexts are released and streams stopped, any number in one train, against the hostile model.

use portcullis::id::{Asid, StreamId, Vmid};
use portcullis::smmu::{
    AssignmentOf, CommandError, ContextError, Contexts, Firmware, Flush, NotStopped, QueueIndices,
    ReleaseError, Releasing, Settings, Smmu, Stopping, StreamError,
};
use portcullis::spec::cd::{CdState, Faults};
use portcullis::spec::stage1::Stage1Walk;
use portcullis::spec::ste::Ats;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::dma::Dma;
use portcullis_embedder::guest::{
    ALIAS, DATA, Guest, OTHER, SMALL, STREAM, VA, assert_clean, events, modes, substream, syncs,
    tagged, take_over, untagged,
};
use smmu_model::device::Misconduct;
use smmu_model::{Claim, Faults as ModelFaults, Identity, Mode, StallModel};

const VMID: Vmid = Vmid::new(7);

/// Contexts of some devices, each with the same space under some numbers.
struct Devices<'p> {
    all: Vec<Contexts<'p, Hypervisor>>,
    numbers: std::ops::Range<u32>,
}

impl<'p> Devices<'p> {
    fn attach(
        guest: &mut Guest<'p>,
        smmu: &Smmu<'p, Hypervisor>,
        devices: &[&[StreamId]],
        (walk, numbers): (&Stage1Walk, std::ops::Range<u32>),
        ats: Ats,
    ) -> Self {
        let stage2 = guest.stage2.walk();
        let smmus = [smmu];
        let mut nesting = guest.nesting(&smmus);
        let all: Vec<_> = devices
            .iter()
            .map(|streams| nesting.contexts(smmu, streams, &SMALL).expect("made"))
            .collect();
        let each = all.iter().map(|contexts| AssignmentOf::Nested {
            contexts,
            walk: stage2,
            ats,
        });
        smmu.begin_publish_each(each)
            .expect("free")
            .finish()
            .expect("published");
        for contexts in &all {
            for number in numbers.clone() {
                nesting
                    .publish_context(smmu, contexts, substream(number), (walk, Faults::Abort))
                    .expect("published");
            }
        }
        Self { all, numbers }
    }

    fn releasing(
        &self,
        has_ats: bool,
    ) -> impl Iterator<Item = Releasing<&Contexts<'p, Hypervisor>>> + Clone {
        self.all.iter().flat_map(move |contexts| {
            self.numbers.clone().map(move |number| Releasing {
                contexts,
                context: substream(number),
                has_ats,
            })
        })
    }
}

fn begins(host: &Hypervisor, asid: u16) {
    let vmid = VMID.as_u16();
    host.machine().claim(Claim::ReleaseBegins { vmid, asid });
}

fn ends(host: &Hypervisor, asid: u16) {
    let vmid = VMID.as_u16();
    host.machine().claim(Claim::ReleaseEnds { vmid, asid });
}

/// The whole life: nothing of the space is cached, live or reaches memory afterwards, which the
/// model looks after; the guest's tables go back at once; other spaces are not disturbed.
#[test]
fn a_space_is_gone_when_its_release_returns_in_every_mode() {
    let flushes = [Flush::Vmid(VMID), Flush::Asid(VMID, Asid::new(1))];
    for (mode, flush) in modes().flat_map(|mode| flushes.map(|flush| (mode, flush))) {
        for model in [StallModel::StallAndTerminate, StallModel::StallForced] {
            let host = Hypervisor::new(Identity::with_stalls(model), mode);
            let smmu = take_over(&host);
            let mut guest = Guest::new(&host, 7);
            let (walk, other) = (guest.space(1), guest.space(2));
            let data = Some(guest.data());
            let list: [&[StreamId]; 2] = [&[STREAM, ALIAS], &[OTHER]];
            let devices = Devices::attach(&mut guest, &smmu, &list, (&walk, 3..6), Ats::Off);
            guest
                .nesting(&[&smmu])
                .publish_context(
                    &smmu,
                    &devices.all[0],
                    substream(9),
                    (&other, Faults::Abort),
                )
                .expect("published");
            for stream in [STREAM, ALIAS, OTHER] {
                for number in 3..6 {
                    assert_eq!(tagged(&host, stream, number), data, "{mode:?}");
                }
            }
            begins(&host, 1);
            smmu.quiet_stores(devices.releasing(false));
            let allocations = host.allocations();
            let (count, released) = syncs(&host, || {
                smmu.begin_release(devices.releasing(false), flush).finish()
            });
            assert_eq!((count, released), (2, Ok(())), "{mode:?}");
            assert_eq!(host.allocations(), allocations);
            ends(&host, 1);
            let _ = events(&smmu);
            for stream in [STREAM, ALIAS, OTHER] {
                assert_eq!(tagged(&host, stream, 4), None, "{mode:?}");
            }
            assert_eq!(tagged(&host, ALIAS, 9), data, "the other space lives");
            match model {
                StallModel::StallForced => assert_ne!(events(&smmu), 0),
                _ => assert_eq!(events(&smmu), 0, "{mode:?}: late DMA says nothing"),
            }
            // The space's two tables go back: whatever still led there objects.
            guest.forget_space(1, &smmu);
            // A second time there is nothing live, and it costs as much.
            let again = smmu.begin_release(devices.releasing(false), flush);
            assert_eq!(again.finish(), Ok(()));
            for contexts in devices.all {
                for number in 3..6 {
                    smmu.retract_context(&contexts, substream(number))
                        .expect("retracted");
                }
                guest
                    .nesting(&[&smmu])
                    .detach(&smmu, contexts)
                    .expect("detached");
            }
            guest.end(&smmu);
            smmu.shut_down().expect("it shuts");
            assert_eq!(host.bytes_out(), 0, "{mode:?}");
            assert_clean(&host, (mode, model));
        }
    }
}

/// Design, section 8: whatever the number of bindings, and however short the queue.
#[test]
fn a_release_takes_2_syncs_3_with_ats_and_1_of_nothing() {
    for (numbers, log2_commands) in [(1..2, 8), (1..9, 3), (1..65, 8), (1..65, 2), (1..513, 8)] {
        for (ats, expected) in [(Ats::Off, 2), (Ats::Split, 3)] {
            let numbers = numbers.clone();
            let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
            let mut settings = Settings::new(StreamId::new(0xffff));
            settings.log2_commands = log2_commands;
            let smmu =
                Smmu::take_over(&host, host.registers(0), FIRMWARE, settings).expect("taken");
            let mut guest = Guest::new(&host, 7);
            let walk = guest.space(1);
            let dmas = [STREAM, ALIAS].map(|stream| Dma::with_ats(&host, stream));
            let what = (&walk, numbers.clone());
            let list: [&[StreamId]; 1] = [&[STREAM, ALIAS]];
            let devices = Devices::attach(&mut guest, &smmu, &list, what, ats);
            let has_ats = ats != Ats::Off;
            if has_ats {
                for dma in &dmas {
                    assert!(dma.write(Some(1), VA).is_some());
                    assert_eq!(dma.cached(), 1);
                }
            }
            begins(&host, 1);
            let allocations = host.allocations();
            let flush = Flush::Vmid(VMID);
            let release = || {
                smmu.begin_release(devices.releasing(has_ats), flush)
                    .finish()
            };
            assert_eq!(syncs(&host, release), (expected, Ok(())), "{numbers:?}");
            assert_eq!(host.allocations(), allocations, "it asks for no memory");
            ends(&host, 1);
            for dma in &dmas {
                assert_eq!(dma.cached(), 0);
                assert_eq!(dma.write(Some(1), VA), None);
            }
            let nothing = devices.releasing(has_ats).take(0);
            let release = || smmu.begin_release(nothing, flush).finish();
            assert_eq!(syncs(&host, release), (1, Ok(())));
            assert_clean(&host, numbers);
        }
    }
}

const FIRMWARE: Firmware = Firmware {
    is_coherent: true,
    queue_indices: QueueIndices::Page1,
};

/// One list does for all SMMUs: each takes its own, and all are told before any is waited for.
#[test]
fn two_smmus_are_told_by_one_list_and_one_does_not_wait_for_the_other() {
    let both = [Identity::full(); 2].map(|it| smmu_model::Settings::new(it, Mode::Hoarding));
    let host = Hypervisor::with_smmus(&both);
    let [first, second] = [0, 1].map(|smmu| {
        let settings = Settings::new(StreamId::new(0xffff));
        Smmu::take_over(&host, host.registers(smmu), FIRMWARE, settings).expect("taken over")
    });
    let mut guest = Guest::new(&host, 7);
    let walk = guest.space(1);
    let list: [&[StreamId]; 1] = [&[STREAM]];
    let mut devices = Devices::attach(&mut guest, &first, &list, (&walk, 1..3), Ats::Off);
    let more = Devices::attach(&mut guest, &second, &list, (&walk, 1..3), Ats::Off);
    devices.all.extend(more.all);
    let count = |smmu| host.machine().smmu(smmu).syncs();
    let before = [count(0), count(1)];
    begins(&host, 1);
    first.quiet_stores(devices.releasing(false));
    second.quiet_stores(devices.releasing(false));
    host.machine().smmu(0).set_faults(never());
    let flush = Flush::Vmid(VMID);
    let pending = [&first, &second].map(|smmu| smmu.begin_release(devices.releasing(false), flush));
    let [one, two] = pending;
    assert_eq!(two.finish(), Ok(()), "the first never answers");
    assert_eq!(count(1) - before[1], 2);
    let refused = one.finish();
    assert!(matches!(
        refused,
        Err(ReleaseError::Contexts(CommandError::SyncTimeout { .. }))
    ));
    assert_eq!(count(0) - before[0], 0);
}

fn never() -> ModelFaults {
    ModelFaults {
        sync_never: true,
        ..ModelFaults::default()
    }
}

/// Which step failed is told, and what comes before it holds: `CFGI_CD × 2, SYNC, TLBI, SYNC,
/// ATC_INV × 2, SYNC`, with the error at each of its commands in turn.
#[test]
fn a_release_says_which_step_was_not_confirmed() {
    let step = |error: ReleaseError| match error {
        ReleaseError::Contexts(error) => (0, error),
        ReleaseError::Translations(error) => (1, error),
        ReleaseError::DeviceCaches(error) => (2, error),
    };
    for (at, expected) in [0, 0, 0, 1, 1, 2, 2, 2].into_iter().enumerate() {
        for aborts in [false, true] {
            let host = Hypervisor::new(Identity::full(), Mode::Polite);
            let smmu = take_over(&host);
            let mut guest = Guest::new(&host, 7);
            let walk = guest.space(1);
            let list: [&[StreamId]; 1] = [&[STREAM, ALIAS]];
            let devices = Devices::attach(&mut guest, &smmu, &list, (&walk, 1..2), Ats::Split);
            let after = Some(at as u32);
            host.machine().smmu(0).set_faults(ModelFaults {
                illegal_after: after.filter(|_| !aborts),
                abort_after: after.filter(|_| aborts),
                ..ModelFaults::default()
            });
            let release = smmu.begin_release(devices.releasing(true), Flush::Vmid(VMID));
            let (found, error) = step(release.finish().expect_err("one was refused"));
            assert_eq!(found, expected, "{at} {error:?}");
            assert_eq!(matches!(error, CommandError::Dead(_)), aborts, "{at}");
            assert_eq!(devices.all[0].state_of(substream(1)), Some(CdState::Quiet));
        }
    }
}

/// CERROR_ATC_INV_SYNC is of devices alone: the rest is confirmed; a train without ATS is not
/// blamed for what another left behind.
#[test]
fn a_silent_device_fails_its_own_step_alone() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut guest = Guest::new(&host, 7);
    let (walk, other) = (guest.space(1), guest.space(2));
    let dmas = [STREAM, ALIAS].map(|stream| Dma::with_ats(&host, stream));
    let list: [&[StreamId]; 1] = [&[STREAM, ALIAS]];
    let devices = Devices::attach(&mut guest, &smmu, &list, (&walk, 1..2), Ats::Split);
    let contexts = &devices.all[0];
    guest
        .nesting(&[&smmu])
        .publish_context(&smmu, contexts, substream(2), (&other, Faults::Abort))
        .expect("published");
    dmas[1].device().misbehave(Misconduct::Silent);
    let flush = Flush::Vmid(VMID);
    let silent = ReleaseError::DeviceCaches(CommandError::AtcTimeout);
    let release = smmu.begin_release(devices.releasing(true), flush).finish();
    assert_eq!(release, Err(silent));
    let fault = ModelFaults {
        atc_sync_errors: 1,
        ..ModelFaults::default()
    };
    host.machine().smmu(0).set_faults(fault);
    let release = smmu.begin_release(devices.releasing(false), flush).finish();
    assert_eq!(release, Ok(()));
    // A context is free though its device is silent, and the caller knows.
    let retract = smmu
        .begin_retract_context(contexts, substream(2), true)
        .expect("live");
    let silent = ContextError::DeviceCaches(CommandError::AtcTimeout);
    assert_eq!(retract.finish(), Err(silent));
    assert_eq!(contexts.state_of(substream(2)), Some(CdState::Free));
    dmas[1].device().misbehave(Misconduct::None);
}

/// A space that lives on loses one device: `CFGI_CD, SYNC, ATC_INV, SYNC`.
#[test]
fn a_live_context_is_retracted_and_its_device_forgets_it() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut guest = Guest::new(&host, 7);
        let walk = guest.space(1);
        let dma = Dma::with_ats(&host, STREAM);
        let list: [&[StreamId]; 2] = [&[STREAM], &[OTHER]];
        let devices = Devices::attach(&mut guest, &smmu, &list, (&walk, 1..3), Ats::Split);
        for number in [1, 2] {
            assert!(dma.write(Some(number), VA).is_some());
        }
        let contexts = &devices.all[0];
        for (number, has_ats, expected, left) in [(1, true, 2, 1), (2, false, 1, 1)] {
            let (count, done) = syncs(&host, || {
                smmu.begin_retract_context(contexts, substream(number), has_ats)
                    .expect("live")
                    .finish()
            });
            assert_eq!((count, done), (expected, Ok(())), "{mode:?}");
            assert_eq!(dma.cached(), left);
            assert_eq!(contexts.state_of(substream(number)), Some(CdState::Free));
        }
        assert_eq!(dma.write(Some(1), VA), None, "{mode:?}");
        assert_eq!(tagged(&host, OTHER, 1), Some(guest.data()), "it lives on");
        assert_clean(&host, mode);
    }
}

fn stopping(streams: &[StreamId]) -> impl Iterator<Item = Stopping> + Clone + '_ {
    streams.iter().map(|&stream| Stopping {
        stream,
        has_ats: false,
        can_stall: false,
    })
}

/// A guest dies: constant SYNCs for any number of streams.
#[test]
fn any_number_of_streams_stops_in_1_sync_and_1_more_for_each_thing_that_is_forgotten() {
    for count in [1, 2, 300] {
        for (flush, has_ats, can_stall, expected) in [
            (None, false, false, 1),
            (Some(VMID), false, false, 2),
            (Some(VMID), false, true, 2),
            (None, false, true, 2),
            (None, true, false, 2),
            (Some(VMID), true, true, 3),
        ] {
            let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
            let smmu = take_over(&host);
            let guest = Guest::new(&host, 7);
            let streams: Vec<_> = (0..count).map(|i| StreamId::new(0x80 + i)).collect();
            let walk = guest.stage2.walk();
            smmu.publish(&streams, &walk).expect("published");
            let allocations = host.allocations();
            let list = stopping(&streams).map(|it| Stopping {
                has_ats,
                can_stall,
                ..it
            });
            let (syncs, stopped) = syncs(&host, || {
                smmu.begin_stop(list.clone(), flush).expect("ours").finish()
            });
            assert_eq!((syncs, stopped), (expected, Ok(())), "{count} {flush:?}");
            assert_eq!(host.allocations(), allocations);
            for &stream in &streams {
                assert_eq!(untagged(&host, stream, DATA.as_u64()), None);
            }
            // Twice is once; and they are nobody's.
            smmu.begin_stop(list, flush)
                .expect("nobody's")
                .finish()
                .expect("confirmed");
            smmu.publish(&streams, &walk).expect("free");
            assert_clean(&host, count);
        }
    }
}

#[test]
fn a_dying_guest_leaves_nothing_in_every_mode() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut guest = Guest::new(&host, 7);
        let walk = guest.space(1);
        let list: [&[StreamId]; 2] = [&[STREAM, ALIAS], &[OTHER]];
        let devices = Devices::attach(&mut guest, &smmu, &list, (&walk, 1..3), Ats::Split);
        let dma = Dma::with_ats(&host, STREAM);
        for number in [1, 2] {
            assert!(dma.write(Some(number), VA).is_some(), "{mode:?}");
        }
        let streams = [STREAM, ALIAS, OTHER].map(|stream| Stopping {
            stream,
            has_ats: true,
            can_stall: true,
        });
        let (count, stopped) = syncs(&host, || {
            smmu.begin_stop(streams.into_iter(), Some(VMID))
                .expect("ours")
                .finish()
        });
        assert_eq!((count, stopped), (3, Ok(())), "{mode:?}");
        assert_eq!(dma.cached(), 0);
        for number in [1, 2] {
            assert_eq!(dma.write(Some(number), VA), None);
            assert_eq!(tagged(&host, OTHER, number), None);
        }
        // Its memory goes back; the model objects to whatever still leads there.
        for contexts in devices.all {
            guest.unseal(&smmu, contexts);
        }
        guest.end(&smmu);
        smmu.shut_down().expect("it shuts");
        assert_eq!(host.bytes_out(), 0, "{mode:?}");
        assert_clean(&host, mode);
    }
}

/// What cannot begin changes nothing; what is lost stays lost, and is closed.
#[test]
fn streams_that_cannot_be_stopped_are_named_and_lost_ones_are_closed() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let guest = Guest::new(&host, 7);
    let walk = guest.stage2.walk();
    smmu.publish(&[STREAM, OTHER], &walk).expect("published");
    let begin = |streams: &[StreamId]| smmu.begin_stop(stopping(streams), None).err();
    let passes = |stream| untagged(&host, stream, DATA.as_u64()).is_some();
    let twice = StreamError::NamedTwice { stream: STREAM };
    assert_eq!(begin(&[STREAM, OTHER, STREAM]), Some(twice));
    let far = StreamId::new(0x1_0000);
    assert!(matches!(
        begin(&[STREAM, far]),
        Some(StreamError::OutOfRange { .. })
    ));
    let both = [OTHER];
    let pending = smmu.begin_stop(stopping(&both), None).expect("in use");
    let changing = StreamError::Changing { stream: OTHER };
    assert_eq!(begin(&[STREAM, OTHER]), Some(changing));
    assert!(passes(STREAM), "nothing was changed");
    pending.finish().expect("confirmed");

    host.machine().smmu(0).set_faults(never());
    let stopped = smmu.begin_stop(stopping(&[STREAM]), None).expect("in use");
    assert!(matches!(
        stopped.finish(),
        Err(NotStopped::Streams(CommandError::SyncTimeout { .. }))
    ));
    host.machine().smmu(0).set_faults(ModelFaults::default());
    let lost = StreamError::Lost { stream: STREAM };
    assert_eq!(smmu.publish(&[STREAM], &walk), Err(lost));
    smmu.begin_stop(stopping(&[STREAM]), Some(VMID))
        .expect("whatever it is")
        .finish()
        .expect("confirmed");
    assert!(!passes(STREAM));
    assert_eq!(smmu.publish(&[STREAM], &walk), Err(lost), "it stays lost");
    smmu.publish(&[OTHER], &walk).expect("free");
    assert_clean(&host, "lost");
}

/// §4.7.2: only behind the SYNC of the entry, or the model objects.
#[test]
fn stalled_transactions_end_with_their_stream() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut guest = Guest::new(&host, 7);
        let walk = guest.space(1);
        let smmus = [&smmu];
        let mut nesting = guest.nesting(&smmus);
        let contexts = nesting.attach(&smmu, &[STREAM], &SMALL).expect("attached");
        nesting
            .publish_context(&smmu, &contexts, substream(1), (&walk, Faults::Stall))
            .expect("published");
        let dma = Dma::new(&host, STREAM);
        for page in 1..4 {
            assert_eq!(dma.write(Some(1), VA + page * 0x1000), None);
        }
        assert_eq!(dma.ends(), [0, 0, 0, 3]);
        let stream = Stopping {
            stream: STREAM,
            has_ats: false,
            can_stall: true,
        };
        smmu.begin_stop([stream].into_iter(), Some(VMID))
            .expect("in use")
            .finish()
            .expect("confirmed");
        for _ in 0..20 {
            host.machine().advance(1);
        }
        dma.settle();
        assert_eq!(dma.ends(), [0, 3, 0, 0], "{mode:?}");
        assert_eq!(host.machine().smmu(0).stalled(), 0);
        assert_clean(&host, mode);
    }
}

/// Publishing one by one is publishing all: the same checks, the same SYNCs.
#[test]
fn streams_that_come_one_by_one_move_together() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut guest = Guest::new(&host, 7);
    let walk = guest.stage2.walk();
    let contexts = guest
        .nesting(&[&smmu])
        .contexts(&smmu, &[STREAM, ALIAS], &SMALL)
        .expect("made");
    let many = |ats| {
        let alone = (0x300..0x420).map(move |stream| AssignmentOf::Stage2 {
            stream: StreamId::new(stream),
            walk,
            ats: Ats::Off,
        });
        alone.chain([AssignmentOf::Nested {
            contexts: &contexts,
            walk,
            ats,
        }])
    };
    let (count, done) = syncs(&host, || {
        smmu.begin_publish_each(many(Ats::Off))
            .expect("free")
            .finish()
    });
    assert_eq!((count, done), (2, Ok(())));
    assert!(untagged(&host, StreamId::new(0x41f), DATA.as_u64()).is_some());
    let (count, done) = syncs(&host, || {
        smmu.begin_amend_each(many(Ats::Split))
            .expect("ours")
            .finish()
    });
    assert_eq!((count, done), (1, Ok(())));
    let taken = smmu.begin_publish_each(many(Ats::Off)).err();
    let stream = StreamId::new(0x300);
    assert_eq!(taken, Some(StreamError::InUse { stream }));
    let twice = many(Ats::Off)
        .chain(many(Ats::Off))
        .filter(|it| matches!(it, AssignmentOf::Nested { .. }));
    smmu.retract(&[STREAM, ALIAS]).expect("in use");
    let named = smmu.begin_publish_each(twice).err();
    assert_eq!(named, Some(StreamError::NamedTwice { stream: STREAM }));
    let once = many(Ats::Off).skip(0x120);
    smmu.begin_publish_each(once)
        .expect("none was claimed")
        .finish()
        .expect("published");
    assert_clean(&host, "one by one");
}
