//! Devices that cache translations of their own, against the hostile model.

use portcullis::addr::Iova;
use portcullis::hw::Barrier;
use portcullis::hw::Platform;
use portcullis::id::{StreamId, SubstreamId};
use portcullis::smmu::{Assignment, CommandError, Misfit, Smmu, StreamError, probe};
use portcullis::spec::cd::Faults;
use portcullis::spec::command::Command;
use portcullis::spec::ste::Ats;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::dma::Dma;
use portcullis_embedder::guest::{
    ALIAS, DATA, Guest, OTHER, SMALL, STREAM, VA, assert_clean, modes, substream, syncs, take_over,
};
use smmu_model::device::Misconduct;
use smmu_model::{Identity, Mode, StallModel};

fn wait(smmu: &Smmu<'_, Hypervisor>, commands: &[Command]) -> Result<(), CommandError> {
    smmu.wait(smmu.submit_then_sync(commands.iter().copied())?)
}

/// §5.2, `EATS`, `S2S`: what is legal where.
#[test]
fn ats_that_an_entry_cannot_have_is_refused_by_name_and_changes_nothing() {
    let full = Identity::full();
    let (off, split, whole) = (Ats::Off, Ats::Split, Ats::Full);
    let none = Identity {
        ats: false,
        pri: false,
        ..full
    };
    let unsplit = Identity {
        ns1ats: true,
        ..full
    };
    let forced = Identity::with_stalls(StallModel::StallForced);
    let rows = [
        (full, off, Ok(()), Ok(())),
        (full, whole, Ok(()), Ok(())),
        (full, split, Ok(()), Err(Misfit::SplitAtsOfOneStage)),
        (none, off, Ok(()), Ok(())),
        (none, whole, Err(Misfit::NoAts), Err(Misfit::NoAts)),
        (none, split, Err(Misfit::NoAts), Err(Misfit::NoAts)),
        (unsplit, whole, Ok(()), Ok(())),
        (
            unsplit,
            split,
            Err(Misfit::NoSplitAts),
            Err(Misfit::NoSplitAts),
        ),
        (forced, off, Ok(()), Ok(())),
        (
            forced,
            whole,
            Err(Misfit::AtsWithStalls),
            Err(Misfit::AtsWithStalls),
        ),
        (
            forced,
            split,
            Err(Misfit::AtsWithStalls),
            Err(Misfit::AtsWithStalls),
        ),
    ];
    for (identity, ats, nested, alone) in rows {
        let host = Hypervisor::new(identity, Mode::Hoarding);
        let smmu = take_over(&host);
        assert_eq!(smmu.features().can_ats(ats, true), nested, "{ats:?}");
        assert_eq!(smmu.features().can_ats(ats, false), alone, "{ats:?}");
        let mut guest = Guest::new(&host, 7);
        let walk = guest.stage2.walk();
        let contexts = guest
            .nesting(&[&smmu])
            .contexts(&smmu, &[STREAM], &SMALL)
            .expect("made");
        let two = Assignment::Nested {
            contexts: &contexts,
            walk,
            ats,
        };
        let one = Assignment::Stage2 {
            streams: &[OTHER],
            walk,
            ats,
        };
        for (assignment, expected) in [(two, nested), (one, alone)] {
            let (count, published) = syncs(&host, || smmu.publish_all(&[assignment]));
            assert_eq!(published, expected.map_err(StreamError::Misfit), "{ats:?}");
            assert_eq!(count, if expected.is_ok() { 2 } else { 0 });
        }
        // The entries that were published are legal: nothing of them is C_BAD_STE.
        let dma = Dma::new(&host, OTHER);
        assert_eq!(dma.write(None, DATA.as_u64()).is_some(), alone.is_ok());
        assert_clean(&host, (identity, ats));
    }
}

#[test]
fn what_an_smmu_says_of_ats_and_stalls_is_read() {
    let read = |identity: Identity| {
        let host = Hypervisor::new(identity, Mode::Polite);
        let firmware = portcullis::smmu::Firmware {
            is_coherent: true,
            queue_indices: portcullis::smmu::QueueIndices::Page1,
        };
        let features = probe(&host.registers(0), firmware).expect("it can be driven");
        (
            features.has_ats,
            features.has_split_ats,
            features.can_stall(),
            features.can_quiet(),
            features.aborts_only,
        )
    };
    let full = Identity::full();
    assert_eq!(read(full), (true, true, true, true, false));
    let unsplit = Identity {
        ns1ats: true,
        term_abort_only: true,
        ..full
    };
    assert_eq!(read(unsplit), (true, false, true, true, true));
    let none = Identity {
        ats: false,
        pri: false,
        ..Identity::with_stalls(StallModel::TerminateOnly)
    };
    assert_eq!(read(none), (false, false, false, true, false));
    let forced = Identity::with_stalls(StallModel::StallForced);
    assert_eq!(read(forced), (true, true, true, false, false));
}

/// A device with split stages keeps what it was granted, however the SMMU is told to forget, until
/// the device itself is told.
#[test]
fn a_device_forgets_what_a_command_names_and_no_more() {
    for ats in [Ats::Split, Ats::Full] {
        for mode in modes() {
            let host = Hypervisor::new(Identity::full(), mode);
            let smmu = take_over(&host);
            let mut guest = Guest::new(&host, 7);
            let (one, two) = (guest.space(1), guest.space(2));
            let (walk, data) = (guest.stage2.walk(), Some(guest.data()));
            let smmus = [&smmu];
            let mut nesting = guest.nesting(&smmus);
            let contexts = nesting
                .contexts(&smmu, &[STREAM, ALIAS], &SMALL)
                .expect("made");
            let nested = Assignment::Nested {
                contexts: &contexts,
                walk,
                ats,
            };
            smmu.publish_all(&[nested]).expect("published");
            for (number, space) in [(1, &one), (2, &two)] {
                nesting
                    .publish_context(&smmu, &contexts, substream(number), (space, Faults::Abort))
                    .expect("published");
            }
            let dma = Dma::with_ats(&host, STREAM);
            let fill = || {
                for pasid in [1, 2] {
                    assert_eq!(dma.write(Some(pasid), VA), data, "{mode:?} {ats:?}");
                }
                assert_eq!(dma.cached(), 2);
            };
            let one = SubstreamId::new(1);
            let (page, beside) = (Iova::new(VA), Iova::new(VA + 0x1000));
            let rows = [
                (Command::atc_inv_all(STREAM), 2),
                (Command::atc_inv_all(ALIAS), 2),
                (Command::atc_inv_range(STREAM, one, beside, beside), 2),
                (Command::atc_inv_range(STREAM, None, page, page), 2),
                (Command::atc_inv_range(STREAM, one, page, page), 1),
                (Command::atc_inv_substream(STREAM, one.expect("20 bits")), 1),
                (Command::atc_inv_all_substreams(STREAM), 0),
            ];
            for (command, left) in rows {
                fill();
                wait(&smmu, &[command]).expect("it answers");
                assert_eq!(dma.cached(), left, "{mode:?} {command:x?}");
            }
            fill();
            let everything: Vec<_> = smmu.atc_inv_everything(STREAM).collect();
            wait(&smmu, &everything).expect("it answers");
            assert_eq!(dma.cached(), 0);
            assert_clean(&host, (mode, ats));
        }
    }
}

/// §5.2, `EATS`: from none to one kind and back is one word; from one kind to the other is two
/// changes, with the device's cache emptied between.
#[test]
fn ats_comes_and_goes_by_one_word_and_never_changes_its_kind() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut guest = Guest::new(&host, 7);
    let walk = guest.stage2.walk();
    let contexts = guest
        .nesting(&[&smmu])
        .contexts(&smmu, &[STREAM], &SMALL)
        .expect("made");
    let to = |ats| Assignment::Nested {
        contexts: &contexts,
        walk,
        ats,
    };
    smmu.publish_all(&[to(Ats::Off)]).expect("published");
    for ats in [Ats::Full, Ats::Off, Ats::Split] {
        assert_eq!(
            syncs(&host, || smmu.amend(&[to(ats)])),
            (1, Ok(())),
            "{ats:?}"
        );
    }
    let refused = StreamError::AtsAtOnce { stream: STREAM };
    assert_eq!(
        syncs(&host, || smmu.amend(&[to(Ats::Full)])),
        (0, Err(refused))
    );
    smmu.amend(&[to(Ats::Off)]).expect("amended");
    smmu.amend(&[to(Ats::Full)]).expect("amended");
    assert_eq!(smmu.amend(&[to(Ats::Split)]), Err(refused));
    assert_clean(&host, "EATS");
}

/// CERROR_ATC_INV_SYNC names nobody (§4.7.3): asked alone, the silent one is told from the others.
#[test]
fn a_device_that_keeps_silent_is_found_by_asking_each_alone() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let streams = [STREAM, ALIAS, OTHER];
        let dmas = streams.map(|stream| Dma::with_ats(&host, stream));
        dmas[1].device().misbehave(Misconduct::Silent);
        let all = streams.map(Command::atc_inv_all);
        assert_eq!(wait(&smmu, &all), Err(CommandError::AtcTimeout), "{mode:?}");
        let mut silent: Vec<StreamId> = Vec::new();
        let before = host.machine().smmu(0).syncs();
        smmu.atc_invalidate_singly(all.into_iter(), |stream| silent.push(stream))
            .expect("the SMMU itself is well");
        assert_eq!(silent, [ALIAS], "{mode:?}");
        assert_eq!(host.machine().smmu(0).syncs() - before, 3);
        dmas[1].device().misbehave(Misconduct::None);
        silent.clear();
        smmu.atc_invalidate_singly(all.into_iter(), |stream| silent.push(stream))
            .expect("the SMMU itself is well");
        assert_eq!(silent, []);
        // Another CPU's trains are not blamed for it.
        host.barrier(Barrier::Publish);
        wait(&smmu, &[Command::tlbi_nsnh_all()]).expect("it is confirmed");
        assert_clean(&host, mode);
    }
}
