//! Devices with a stage 1 of the guest's, driven by the library against the hostile model.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::Platform;
use portcullis::id::{Asid, Vmid};
use portcullis::smmu::{
    Assignment, CommandError, Context, ContextError, ContextOf, ContextShape, ContextsError,
    Misfit, Path, StreamError, invalidate,
};
use portcullis::space::nesting::NestingError;
use portcullis::space::stage2::{PageSizes, Stage2Error};
use portcullis::space::window::{Window, WindowError};
use portcullis::spec::cd::{CdState, Faults};
use portcullis::spec::stage1::{Half, Stage1Walk};
use portcullis::spec::ste::{Ats, CdFormat, Untagged};
use portcullis::spec::vmsa::{Attributes, Permissions};
use portcullis_embedder::Hypervisor;
use portcullis_embedder::guest::{
    ALIAS, DATA, Guest, OTHER, SMALL, STREAM, VA, WINDOW, WINDOW_BYTES, assert_clean, by_substream,
    events, flush, modes, substream, syncs, tagged, take_over, untagged,
};
use smmu_model::{Faults as ModelFaults, Identity, Mode};

/// The whole life of contexts in every kind of table, with everything given back at the end: the
/// model objects if a frame goes that it can still reach.
#[test]
fn contexts_live_and_end_without_a_violation_in_every_mode() {
    let formats = [CdFormat::Linear, CdFormat::Leaves4K, CdFormat::Leaves64K];
    for (mode, format) in modes().flat_map(|mode| formats.map(|format| (mode, format))) {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut guest = Guest::new(&host, 7);
        let (one, two) = (guest.space(1), guest.space(2));
        let data = Some(guest.data());
        let shape = by_substream(11, format, Untagged::Abort);
        let smmus = [&smmu];
        let mut nesting = guest.nesting(&smmus);
        let contexts = nesting
            .attach(&smmu, &[STREAM, ALIAS], &shape)
            .expect("attached");
        for (number, walk) in [(1, &one), (2, &two)] {
            assert_eq!(tagged(&host, STREAM, number), None);
            nesting
                .publish_context(&smmu, &contexts, substream(number), (walk, Faults::Abort))
                .expect("published");
            for stream in [STREAM, ALIAS] {
                assert_eq!(tagged(&host, stream, number), data, "{mode:?} {format:?}");
                assert_eq!(untagged(&host, stream, VA), None);
            }
        }
        let both = [1, 2].map(|number| ContextOf {
            contexts: &contexts,
            context: substream(number),
        });
        smmu.quiet(&both[..1]).expect("quiet");
        flush(&smmu, Vmid::new(7));
        events(&smmu);
        assert_eq!(tagged(&host, STREAM, 1), None);
        assert_eq!(tagged(&host, ALIAS, 1), None);
        assert_eq!(events(&smmu), 0, "{mode:?}: a quiet context says nothing");
        assert_eq!(tagged(&host, STREAM, 2), data, "the other one lives");
        for number in [1, 2] {
            smmu.retract_context(&contexts, substream(number))
                .expect("retracted");
            assert_eq!(tagged(&host, STREAM, number), None);
        }
        if format != CdFormat::Linear {
            nesting
                .give_back_leaf(&smmu, &contexts, substream(1))
                .expect("empty");
            assert_eq!(tagged(&host, STREAM, 1), None);
        }
        flush(&smmu, Vmid::new(7));
        // The number is another's now.
        nesting
            .publish_context(&smmu, &contexts, substream(1), (&two, Faults::Abort))
            .expect("published");
        assert_eq!(tagged(&host, STREAM, 1), data, "{mode:?} {format:?}");
        nesting.detach(&smmu, contexts).expect("detached");
        assert_eq!(tagged(&host, STREAM, 1), None);
        guest.end(&smmu);
        smmu.shut_down().expect("it shuts");
        assert_eq!(host.bytes_out(), 0, "{mode:?} {format:?}");
        assert_clean(&host, (mode, format));
    }
}

/// Design, section 8; and what it says of leaves.
#[test]
fn a_context_takes_2_syncs_and_1_if_its_leaf_is_new() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut guest = Guest::new(&host, 7);
    let walks: Vec<_> = (1..6).map(|asid| guest.space(asid)).collect();
    let smmus = [&smmu];
    let mut nesting = guest.nesting(&smmus);
    let (count, contexts) = syncs(&host, || nesting.attach(&smmu, &[STREAM, ALIAS], &SMALL));
    let contexts = contexts.expect("attached");
    assert_eq!(count, 2, "to attach");
    for (number, walk, expected) in [
        (3, &walks[0], 1),
        (4, &walks[1], 2),
        (64, &walks[2], 1),
        (127, &walks[3], 2),
    ] {
        let how = (walk, Faults::Abort);
        let publish = || nesting.publish_context(&smmu, &contexts, substream(number), how);
        assert_eq!(syncs(&host, publish), (expected, Ok(())), "{number}");
    }
    let list = [3, 4, 64, 127].map(|number| ContextOf {
        contexts: &contexts,
        context: substream(number),
    });
    assert_eq!(
        syncs(&host, || smmu.quiet(&list)),
        (1, Ok(())),
        "any number"
    );
    let retract = || smmu.retract_context(&contexts, substream(64));
    assert_eq!(syncs(&host, retract), (1, Ok(())));
    let in_use = Err(NestingError::Context(ContextError::InUse));
    let mut give_back = || nesting.give_back_leaf(&smmu, &contexts, substream(64));
    assert_eq!(give_back(), in_use, "127 is in it too");
    smmu.retract_context(&contexts, substream(127))
        .expect("retracted");
    let before = host.bytes_out();
    // CFGI_CD_ALL; then the stage 2's, and what combined both stages.
    assert_eq!(syncs(&host, give_back), (3, Ok(())));
    assert_eq!(host.bytes_out(), before - 4096);
    nesting.detach(&smmu, contexts).expect("detached");
    guest.end(&smmu);
    assert_clean(&host, "counts");
}

/// A page that a device reached through both stages is reached no more, in one train; streams with
/// stage 2 alone pay nothing for it.
#[test]
fn unmapping_under_nesting_takes_what_combines_both_stages_too() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let (mut nested, mut alone) = (Guest::new(&host, 7), Guest::new(&host, 8));
        let walk = nested.space(1);
        let data = nested.data();
        let smmus = [&smmu];
        let mut nesting = nested.nesting(&smmus);
        let contexts = nesting.attach(&smmu, &[STREAM], &SMALL).expect("attached");
        nesting
            .publish_context(&smmu, &contexts, substream(5), (&walk, Faults::Abort))
            .expect("published");
        smmu.publish(&[OTHER], &alone.stage2.walk())
            .expect("published");
        assert_eq!(tagged(&host, STREAM, 5), Some(data));
        assert!(untagged(&host, OTHER, DATA.as_u64()).is_some());
        for (guest, expected) in [(&mut nested, 2), (&mut alone, 1)] {
            let change = guest.stage2.unmap(DATA, 0x1000).expect("it is mapped");
            let (count, tables) = syncs(&host, || invalidate(&[&smmu], change).expect("confirmed"));
            assert_eq!(count, expected, "{mode:?}");
            guest.stage2.reclaim(tables).expect("its own");
            host.free(guest.memory.remove(0).1);
        }
        assert_eq!(tagged(&host, STREAM, 5), None, "{mode:?}");
        assert_eq!(untagged(&host, OTHER, DATA.as_u64()), None);
        nested
            .nesting(&[&smmu])
            .detach(&smmu, contexts)
            .expect("detached");
        smmu.retract(&[OTHER]).expect("retracted");
        nested.end(&smmu);
        alone.end(&smmu);
        assert_clean(&host, mode);
    }
}

/// Within one owner: from stage 2 alone to contexts and back, while the device never stops.
#[test]
fn a_stream_gets_contexts_and_loses_them_without_a_gap() {
    const NO_GAP: Path = Path {
        syncs: 2,
        interrupts: false,
    };
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut guest = Guest::new(&host, 7);
        let walk = guest.stage2.walk();
        let data = Some(guest.data());
        let alone = Assignment::Stage2 {
            streams: &[STREAM],
            walk,
            ats: Ats::Off,
        };
        smmu.publish_all(&[alone]).expect("published");
        let passes = || untagged(&host, STREAM, DATA.as_u64()) == data;
        assert!(passes());
        let shape = by_substream(10, CdFormat::Leaves4K, Untagged::Stage2);
        let contexts = guest
            .nesting(&[&smmu])
            .contexts(&smmu, &[STREAM], &shape)
            .expect("made");
        let nested = Assignment::Nested {
            contexts: &contexts,
            walk,
            ats: Ats::Off,
        };
        assert_eq!(smmu.path_of(&[nested]), Ok(NO_GAP));
        for (to, expected) in [(nested, 2), (alone, 1)] {
            let assignments = [to];
            let (count, done) = syncs(&host, || {
                let change = smmu.begin_amend(&assignments).expect("its own");
                assert!(passes(), "{mode:?}: in between");
                change.finish()
            });
            assert_eq!((done, count), (Ok(()), expected), "{mode:?}");
            assert!(passes(), "{mode:?}: afterwards");
        }
        let over = Assignment::Stage2 {
            streams: &[STREAM],
            walk: Guest::new(&host, 8).stage2.walk(),
            ats: Ats::Off,
        };
        let in_use = StreamError::InUse { stream: STREAM };
        assert_eq!(smmu.amend(&[over]), Err(in_use), "another owner's");
        assert_eq!(smmu.publish_all(&[over]), Err(in_use));
        assert!(passes());
        assert_clean(&host, mode);
    }
}

/// A device without SubstreamIDs has one context for all of its traffic.
#[test]
fn a_whole_stream_is_one_context() {
    for mode in modes() {
        let identity = Identity {
            ssid_bits: 0,
            ..Identity::full()
        };
        let host = Hypervisor::new(identity, mode);
        let smmu = take_over(&host);
        let mut guest = Guest::new(&host, 7);
        let (one, two) = (guest.space(1), guest.space(2));
        let data = Some(guest.data());
        let smmus = [&smmu];
        let mut nesting = guest.nesting(&smmus);
        let refused = nesting.attach(&smmu, &[STREAM], &SMALL).err();
        let misfit = ContextsError::Misfit(Misfit::SubstreamSize {
            bits: 12,
            smmu_bits: 0,
        });
        assert_eq!(refused, Some(NestingError::Contexts(misfit)));
        let shape = ContextShape::Single {
            walk: one,
            faults: Faults::Abort,
        };
        let (count, contexts) = syncs(&host, || nesting.attach(&smmu, &[STREAM], &shape));
        let contexts = contexts.expect("attached");
        assert_eq!((count, untagged(&host, STREAM, VA)), (2, data), "{mode:?}");
        assert_eq!(tagged(&host, STREAM, 1), None);
        smmu.retract_context(&contexts, Context::WholeStream)
            .expect("retracted");
        assert_eq!(untagged(&host, STREAM, VA), None, "{mode:?}");
        assert_eq!(untagged(&host, STREAM, DATA.as_u64()), None, "no stage 2");
        let how = (&two, Faults::Abort);
        nesting
            .publish_context(&smmu, &contexts, Context::WholeStream, how)
            .expect("published");
        assert_eq!(untagged(&host, STREAM, VA), data, "{mode:?}");
        nesting.detach(&smmu, contexts).expect("detached");
        guest.end(&smmu);
        assert_clean(&host, mode);
    }
}

/// Everything that a context refuses, each by its own name, with nothing stored.
#[test]
fn what_is_refused_changes_nothing() {
    let host = Hypervisor::new(Identity::narrow_tags(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut guest = Guest::new(&host, 7);
    let walk = guest.space(1);
    let smmus = [&smmu];
    let mut nesting = guest.nesting(&smmus);
    let contexts = nesting.attach(&smmu, &[STREAM], &SMALL).expect("attached");
    let mut publish = |number, walk: &Stage1Walk| {
        let how = (walk, Faults::Abort);
        nesting.publish_context(&smmu, &contexts, substream(number), how)
    };
    let context = |error| Err(NestingError::Context(error));
    let misfit = |misfit| context(ContextError::Misfit(misfit));
    publish(1, &walk).expect("published");
    assert_eq!(publish(1, &walk), context(ContextError::InUse));
    assert_eq!(
        publish(1 << 12, &walk),
        context(ContextError::NoSuchContext)
    );
    let half = walk.low.expect("it has one");
    let with = |half| Stage1Walk {
        low: Some(half),
        ..walk
    };
    let wide = Stage1Walk {
        asid: Asid::new(0x100),
        ..walk
    };
    assert_eq!(publish(2, &wide), misfit(Misfit::AsidSize));
    for va_bits in [0, 24, 49, 64, 255] {
        let strange = with(Half { va_bits, ..half });
        assert_eq!(publish(2, &strange), misfit(Misfit::InputSize { va_bits }));
    }
    for root in [0x4_0010_0008, 1 << 40, u64::MAX << 12] {
        let root = Ipa::new(root);
        let strange = with(Half { root, ..half });
        assert_eq!(publish(2, &strange), misfit(Misfit::Root { root }));
    }
    let strange = Stage1Walk {
        output_bits: 41,
        ..walk
    };
    assert_eq!(
        publish(2, &strange),
        misfit(Misfit::OutputSize { output_bits: 41 })
    );
    let not_in_use = Err(ContextError::NotInUse);
    assert_eq!(smmu.retract_context(&contexts, substream(2)), not_in_use);
    assert_eq!(smmu.retract_context(&contexts, substream(99)), not_in_use);
    let whole = smmu.retract_context(&contexts, Context::WholeStream);
    assert_eq!(whole, Err(ContextError::NoSuchContext));
    let both = [1, 2].map(|number| ContextOf {
        contexts: &contexts,
        context: substream(number),
    });
    assert_eq!(smmu.quiet(&both), not_in_use);
    assert_eq!(contexts.state_of(substream(1)), Some(CdState::Live));
    host.fail_after(Some(0));
    let no_leaf = NestingError::Window(WindowError::NoFrames { log2_bytes: 12 });
    assert_eq!(publish(64, &walk), Err(no_leaf));
    host.fail_after(None);
    assert_eq!(contexts.state_of(substream(64)), Some(CdState::Free));
    assert!(tagged(&host, STREAM, 1).is_some(), "it lives on");
    let Err(contexts) = smmu.dismantle(contexts) else {
        panic!("its stream still leads there")
    };
    assert!(tagged(&host, STREAM, 1).is_some());
    assert_eq!(contexts.state_of(substream(1)), Some(CdState::Live));
    assert_clean(&host, "refusals");
}

/// Contexts of one VM are not assigned with the stage 2 of another, nor the window opened.
#[test]
fn what_is_another_vms_is_refused() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let (mut guest, mut other) = (Guest::new(&host, 7), Guest::new(&host, 8));
    let contexts = guest
        .nesting(&[&smmu])
        .contexts(&smmu, &[STREAM], &SMALL)
        .expect("made");
    let foreign = Assignment::Nested {
        contexts: &contexts,
        walk: other.stage2.walk(),
        ats: Ats::Off,
    };
    assert_eq!(
        smmu.publish_all(&[foreign]),
        Err(StreamError::ForeignContexts)
    );
    let sealed = guest.window.seal(&mut other.stage2, 12);
    assert_eq!(sealed, Err(WindowError::Foreign));
    let in_window = Stage2Error::InWindow { window: WINDOW };
    let stage2 = &mut guest.stage2;
    let writable = Permissions::READ_WRITE;
    assert_eq!(
        stage2.protect(WINDOW, 0x1000, writable).err(),
        Some(in_window)
    );
    assert_eq!(stage2.unmap(WINDOW, 0x1000).err(), Some(in_window));
    let last = Ipa::new(WINDOW.as_u64() + WINDOW_BYTES - 0x1000);
    let sizes = PageSizes::PagesOnly;
    let mapped = stage2.map(last, Pa::new(0), 0x2000, Attributes::MEMORY, sizes);
    assert_eq!(mapped, Err(in_window));
    assert_eq!(stage2.join(WINDOW, 0x20_0000).err(), Some(in_window));
    let again = Window::new(&host, stage2, Ipa::new(0x60_0000_0000), 0x1000).err();
    assert_eq!(again, Some(WindowError::Stage2(in_window)));
    let over = Window::new(&host, &mut other.stage2, DATA, 0x1000).err();
    assert_eq!(
        over,
        Some(WindowError::Stage2(in_window)),
        "it has one as well"
    );
    assert_clean(&host, "foreign");
}

/// Where a SYNC never comes, the context is lost: not valid, and out of use.
#[test]
fn a_context_that_is_not_confirmed_is_lost() {
    let never = ModelFaults {
        sync_never: true,
        ..ModelFaults::default()
    };
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let mut guest = Guest::new(&host, 7);
    let (one, two) = (guest.space(1), guest.space(2));
    let smmus = [&smmu];
    let mut nesting = guest.nesting(&smmus);
    let contexts = nesting.attach(&smmu, &[STREAM], &SMALL).expect("attached");
    nesting
        .publish_context(&smmu, &contexts, substream(1), (&one, Faults::Abort))
        .expect("published");
    host.machine().smmu(0).set_faults(never);
    let timed_out = |outcome: Result<(), ContextError>| {
        let timeout = CommandError::SyncTimeout {
            waited_us: 1_000_000,
        };
        matches!(outcome, Err(ContextError::NotConfirmed(found))
            if std::mem::discriminant(&found) == std::mem::discriminant(&timeout))
    };
    let how = (&two, Faults::Abort);
    let published = smmu.publish_context(&contexts, substream(2), how, |_| None);
    assert!(timed_out(published), "{published:?}");
    assert!(timed_out(smmu.retract_context(&contexts, substream(1))));
    host.machine().smmu(0).set_faults(ModelFaults::default());
    for number in [1, 2] {
        assert_eq!(contexts.state_of(substream(number)), Some(CdState::Lost));
        let again = smmu.publish_context(&contexts, substream(number), how, |_| None);
        assert_eq!(again, Err(ContextError::Lost));
        let ended = smmu.retract_context(&contexts, substream(number));
        assert_eq!(ended, Err(ContextError::Lost));
        let leaf = smmu.give_back_leaf(&contexts, substream(number));
        assert_eq!(leaf, Err(ContextError::InUse), "what is lost is in use");
    }
}
