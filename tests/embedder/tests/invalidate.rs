//! Translations are invalidated, and what devices cached of them, against the hostile model.

use portcullis::addr::{Iova, Ipa};
use portcullis::hw::{Barrier, Platform};
use portcullis::id::{Asid, StreamId, SubstreamId, Vmid};
use portcullis::smmu::{
    Assignment, CommandError, Firmware, MAX_SMMUS, QueueIndices, Settings, Smmu, Stage1Error,
    Stage1Stale, invalidate, invalidate_with,
};
use portcullis::spec::cd::Faults;
use portcullis::spec::command::{Command, TlbiScope};
use portcullis::spec::ste::Ats;
use portcullis::spec::vmsa::Granule;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::dma::Dma;
use portcullis_embedder::guest::{
    ALIAS, DATA, Guest, OTHER, SMALL, STREAM, VA, assert_clean, modes, substream, syncs, tagged,
    take_over, untagged,
};
use smmu_model::device::Misconduct;
use smmu_model::{Faults as ModelFaults, Identity, Mode};

const VMID: Vmid = Vmid::new(7);

/// Design, section 8: 2 SYNCs for what nests, 1 for what does not, and 1 more with ATS; the page goes
/// back at once, and the model objects to whatever still leads there.
#[test]
fn a_page_that_devices_cached_is_unmapped_in_one_train() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let (mut nested, mut alone) = (Guest::new(&host, 7), Guest::new(&host, 8));
        let walk = nested.space(1);
        let stage2 = nested.stage2.walk();
        let smmus = [&smmu];
        let mut nesting = nested.nesting(&smmus);
        let contexts = nesting.contexts(&smmu, &[STREAM], &SMALL).expect("made");
        let split = Assignment::Nested {
            contexts: &contexts,
            walk: stage2,
            ats: Ats::Split,
        };
        let streams = [OTHER];
        let walk2 = alone.stage2.walk();
        let full = Assignment::Stage2 {
            streams: &streams,
            walk: walk2,
            ats: Ats::Full,
        };
        smmu.publish_all(&[split, full]).expect("published");
        nesting
            .publish_context(&smmu, &contexts, substream(5), (&walk, Faults::Abort))
            .expect("published");
        let dmas = [STREAM, OTHER].map(|stream| Dma::with_ats(&host, stream));
        let touch = || {
            [
                dmas[0].write(Some(5), VA),
                dmas[1].write(None, DATA.as_u64()),
            ]
        };
        assert!(touch().iter().all(Option::is_some), "{mode:?}");
        let everything = |smmu: &Smmu<'_, Hypervisor>| -> Vec<Command> {
            smmu.atc_inv_everything(STREAM).collect()
        };
        let last = Iova::new(DATA.as_u64() + 0xfff);
        let range = |_: &Smmu<'_, Hypervisor>| {
            vec![Command::atc_inv_range(
                OTHER,
                None,
                Iova::new(DATA.as_u64()),
                last,
            )]
        };
        let change = nested.stage2.unmap(DATA, 0x1000).expect("mapped");
        let (count, tables) = syncs(&host, || {
            let smmus = [&smmu].into_iter();
            invalidate_with(smmus, change, |smmu| everything(smmu).into_iter())
        });
        assert_eq!(count, 3, "{mode:?}");
        nested
            .stage2
            .reclaim(tables.expect("confirmed"))
            .expect("its own");
        let change = alone.stage2.unmap(DATA, 0x1000).expect("mapped");
        let (count, tables) = syncs(&host, || {
            let smmus = [&smmu].into_iter();
            invalidate_with(smmus, change, |smmu| range(smmu).into_iter())
        });
        assert_eq!(count, 2, "{mode:?}");
        alone
            .stage2
            .reclaim(tables.expect("confirmed"))
            .expect("its own");
        assert_eq!([dmas[0].cached(), dmas[1].cached()], [0, 0]);
        host.free(nested.memory.remove(0).1);
        host.free(alone.memory.remove(0).1);
        assert_eq!(touch(), [None, None], "{mode:?}");
        assert_clean(&host, mode);
    }
}

/// A device that keeps silent holds the change back, and it is confirmed once that is fenced.
#[test]
fn a_silent_device_holds_back_what_a_change_set_free() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut guest = Guest::new(&host, 7);
    let streams = [STREAM, OTHER];
    let walk = guest.stage2.walk();
    let full = Assignment::Stage2 {
        streams: &streams,
        walk,
        ats: Ats::Full,
    };
    smmu.publish_all(&[full]).expect("published");
    let dmas = streams.map(|stream| Dma::with_ats(&host, stream));
    dmas.iter()
        .for_each(|dma| assert!(dma.write(None, DATA.as_u64()).is_some()));
    dmas[1].device().misbehave(Misconduct::Silent);
    let change = guest.stage2.unmap(DATA, 0x1000).expect("mapped");
    let all = |_: &Smmu<'_, Hypervisor>| streams.map(Command::atc_inv_all).into_iter();
    let refused = invalidate_with([&smmu].into_iter(), change, all).expect_err("one is silent");
    assert_eq!(refused.error, CommandError::AtcTimeout);
    let mut silent = Vec::new();
    smmu.atc_invalidate_singly(streams.map(Command::atc_inv_all).into_iter(), |stream| {
        silent.push(stream)
    })
    .expect("the SMMU is well");
    assert_eq!(silent, [OTHER]);
    // Fenced, by its entry; and reset.
    smmu.retract(&[OTHER]).expect("in use");
    host.machine().smmu(0).endpoint_reset(OTHER.as_u32());
    let one = |_: &Smmu<'_, Hypervisor>| [Command::atc_inv_all(STREAM)].into_iter();
    let tables = invalidate_with([&smmu].into_iter(), refused.change, one).expect("confirmed");
    guest.stage2.reclaim(tables).expect("its own");
    host.free(guest.memory.remove(0).1);
    assert_clean(&host, "a silent device");
}

/// It used to panic for more than 16.
#[test]
fn more_smmus_than_one_lot_are_all_told() {
    let count = MAX_SMMUS + 2;
    let settings = vec![smmu_model::Settings::new(Identity::full(), Mode::Hoarding); count];
    let host = Hypervisor::with_smmus(&settings);
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let smmus: Vec<_> = (0..count)
        .map(|smmu| {
            let mut settings = Settings::new(StreamId::new(0xff));
            settings.sync_timeout_us = 1000;
            Smmu::take_over(&host, host.registers(smmu), firmware, settings).expect("taken over")
        })
        .collect();
    let all: Vec<_> = smmus.iter().collect();
    let mut guest = Guest::new(&host, 7);
    let syncs = || -> Vec<_> { (0..count).map(|i| host.machine().smmu(i).syncs()).collect() };
    let before = syncs();
    let change = guest.stage2.unmap(DATA, 0x1000).expect("mapped");
    let tables = invalidate(&all, change).expect("confirmed");
    guest.stage2.reclaim(tables).expect("its own");
    let after = syncs();
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| after - before == 1)
    );
    // The one that never answers is named, and the others were told.
    let never = ModelFaults {
        sync_never: true,
        ..ModelFaults::default()
    };
    host.machine().smmu(MAX_SMMUS).set_faults(never);
    guest.give(Ipa::new(DATA.as_u64() + 0x5000));
    let change = guest
        .stage2
        .unmap(Ipa::new(DATA.as_u64() + 0x5000), 0x1000)
        .expect("mapped");
    let refused = invalidate(&all, change).expect_err("one never answers");
    assert_eq!(refused.smmu, MAX_SMMUS);
    let told = syncs()
        .iter()
        .zip(&after)
        .filter(|(now, before)| now > before)
        .count();
    assert_eq!(told, count - 1);
}

/// The guest takes a page out of its tables and says so: no device reaches it there any more, and
/// what is beside it does not suffer; global or not, by range, one by one, or all at once.
#[test]
fn what_a_guest_unmapped_is_reached_no_more_in_every_mode() {
    for (mode, is_global) in modes().flat_map(|mode| [false, true].map(|it| (mode, it))) {
        for (ril, pages) in [(true, 1), (true, 3), (false, 1), (false, 3), (false, 300)] {
            let host = Hypervisor::new(
                Identity {
                    ril,
                    ..Identity::full()
                },
                mode,
            );
            let smmu = take_over(&host);
            let mut guest = Guest::new(&host, 7);
            let beside = Ipa::new(DATA.as_u64() + 0x8000);
            guest.give(beside);
            let walk = guest.space(1);
            let stage2 = guest.stage2.walk();
            // The table of leaves is the last that was given.
            let leaf = |at: u64| (at >> 12 & 511) as usize;
            let (_, leaves) = guest.memory.last().expect("its tables");
            let words = leaves.words(&host);
            let first = host.load(&words[leaf(VA)]);
            let first = if is_global { first & !(1 << 11) } else { first };
            let far = VA - 0x1000;
            host.store(&words[leaf(VA)], first);
            host.store(&words[leaf(far)], first - DATA.as_u64() + beside.as_u64());
            host.barrier(Barrier::Publish);
            let table = leaves.base();
            let smmus = [&smmu];
            let mut nesting = guest.nesting(&smmus);
            let contexts = nesting
                .contexts(&smmu, &[STREAM, ALIAS], &SMALL)
                .expect("made");
            let split = Assignment::Nested {
                contexts: &contexts,
                walk: stage2,
                ats: Ats::Split,
            };
            smmu.publish_all(&[split]).expect("published");
            nesting
                .publish_context(&smmu, &contexts, substream(5), (&walk, Faults::Abort))
                .expect("published");
            let dma = Dma::with_ats(&host, STREAM);
            for at in [VA, far] {
                assert!(dma.write(Some(5), at).is_some());
            }
            assert!(tagged(&host, ALIAS, 5).is_some());
            // The guest's own store, which only its words are for.
            let (_, leaves) = guest
                .memory
                .iter()
                .find(|(_, page)| page.base() == table)
                .expect("its own");
            host.store(&leaves.words(&host)[leaf(VA)], 0);
            host.barrier(Barrier::Publish);
            let stale = Stage1Stale {
                vmid: VMID,
                asid: Asid::new(1),
                ranges: [(Iova::new(VA), pages << 12)].into_iter(),
                granule: Granule::Kib4,
                scope: TlbiScope::Leaf,
                has_globals: is_global,
            };
            let pasid = SubstreamId::new(5);
            let page = Iova::new(VA);
            let devices = [STREAM, ALIAS]
                .map(|stream| Command::atc_inv_range(stream, pasid, page, page))
                .into_iter();
            let (count, done) = syncs(&host, || {
                smmu.begin_invalidate_stage1(&stale, devices).finish()
            });
            assert_eq!((count, done), (2, Ok(())), "{mode:?}");
            assert_eq!(
                dma.write(Some(5), VA),
                None,
                "{mode:?} {ril} {pages} {is_global}"
            );
            assert_eq!(
                tagged(&host, ALIAS, 5),
                None,
                "{mode:?} {ril} {pages} {is_global}"
            );
            assert!(dma.write(Some(5), far).is_some());
            assert_eq!(untagged(&host, STREAM, VA), None);
            // Nothing to say is nothing to do.
            let nothing = Stage1Stale {
                ranges: [].into_iter(),
                ..with_ranges(&stale)
            };
            let (count, done) = syncs(&host, || {
                smmu.begin_invalidate_stage1(&nothing, [].into_iter())
                    .finish()
            });
            assert_eq!((count, done), (0, Ok(())));
            assert_clean(&host, (mode, ril, pages));
        }
    }
}

fn with_ranges<R>(stale: &Stage1Stale<R>) -> Stage1Stale<std::array::IntoIter<(Iova, u64), 0>> {
    Stage1Stale {
        vmid: stale.vmid,
        asid: stale.asid,
        ranges: [].into_iter(),
        granule: stale.granule,
        scope: stale.scope,
        has_globals: stale.has_globals,
    }
}

#[test]
fn an_invalidation_says_which_of_its_two_was_not_confirmed() {
    for (at, expected) in [0, 0, 1, 1].into_iter().enumerate() {
        let host = Hypervisor::new(Identity::full(), Mode::Polite);
        let smmu = take_over(&host);
        host.machine().smmu(0).set_faults(ModelFaults {
            illegal_after: Some(at as u32),
            ..ModelFaults::default()
        });
        let stale = Stage1Stale {
            vmid: VMID,
            asid: Asid::new(1),
            ranges: [(Iova::new(VA), 1)].into_iter(),
            granule: Granule::Kib4,
            scope: TlbiScope::Walk,
            has_globals: true,
        };
        let devices = [Command::atc_inv_all(STREAM)].into_iter();
        let error = smmu.begin_invalidate_stage1(&stale, devices).finish();
        let found = match error.expect_err("one was refused") {
            Stage1Error::Translations(CommandError::Illegal { .. }) => 0,
            Stage1Error::DeviceCaches(CommandError::Illegal { .. }) => 1,
            error => panic!("{error:?}"),
        };
        assert_eq!(found, expected, "{at}");
    }
}
