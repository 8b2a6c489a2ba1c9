//! Transactions that stall, and their answers, against the hostile model.

use portcullis::id::StreamId;
use portcullis::smmu::ContextOf;
use portcullis::smmu::{CommandError, Contexts, Smmu};
use portcullis::spec::cd::{CdState, Faults};
use portcullis::spec::command::{Command, ResumeAction};
use portcullis::spec::event::EventKind;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::dma::Dma;
use portcullis_embedder::guest::{
    Guest, SMALL, STREAM, VA, assert_clean, events, modes, substream, syncs, take_over,
};
use smmu_model::{Identity, Mode, StallModel};

/// Within the guest's tables, and not mapped.
const HOLE: u64 = VA + 0x1000;

/// The tags of all events that wait for an answer; a SYNC brings those on their way.
fn tags(smmu: &Smmu<'_, Hypervisor>) -> Vec<(StreamId, u16)> {
    let ticket = smmu.submit(&[&[]]).expect("there is room");
    smmu.wait(ticket).expect("it is confirmed");
    let mut tags = Vec::new();
    smmu.service(u32::MAX, |event| {
        if let Some(tag) = event.stall_tag() {
            assert!(matches!(event.kind, EventKind::Translation(_)));
            tags.push((event.stream, tag));
        }
    });
    tags
}

/// A device with one live context, number 1, whose faults stall.
fn stalling<'p>(
    guest: &mut Guest<'p>,
    smmu: &Smmu<'p, Hypervisor>,
    faults: Faults,
) -> Contexts<'p, Hypervisor> {
    let walk = guest.space(1);
    let smmus = [smmu];
    let mut nesting = guest.nesting(&smmus);
    let contexts = nesting.attach(smmu, &[STREAM], &SMALL).expect("attached");
    nesting
        .publish_context(smmu, &contexts, substream(1), (&walk, faults))
        .expect("published");
    contexts
}

/// Lets time pass until what was told to end has ended.
fn settle(host: &Hypervisor, dma: &Dma<'_>) {
    for _ in 0..20 {
        host.machine().advance(1);
    }
    dma.settle();
}

#[test]
fn each_answer_ends_a_stalled_transaction_in_its_way() {
    for aborts_only in [false, true] {
        for mode in modes() {
            let identity = Identity {
                term_abort_only: aborts_only,
                ..Identity::full()
            };
            let host = Hypervisor::new(identity, mode);
            let smmu = take_over(&host);
            let mut guest = Guest::new(&host, 7);
            let _contexts = stalling(&mut guest, &smmu, Faults::Stall);
            let dma = Dma::new(&host, STREAM);
            let answer = |action, expected: [u32; 4]| {
                assert_eq!(dma.write(Some(1), HOLE), None);
                let tags = tags(&smmu);
                assert_eq!(tags.len(), 1, "{mode:?}");
                let answers = tags.into_iter().map(|(stream, tag)| (stream, tag, action));
                let (count, given) = syncs(&host, || smmu.resume(answers));
                assert_eq!((count, given), (0, Ok(())));
                settle(&host, &dma);
                assert_eq!(dma.ends(), expected, "{mode:?} {action:?}");
            };
            answer(ResumeAction::Abort, [0, 1, 0, 0]);
            if aborts_only {
                answer(ResumeAction::Terminate, [0, 2, 0, 0]);
            } else {
                answer(ResumeAction::Terminate, [0, 1, 1, 0]);
            }
            // Tried again it stalls again, under another record.
            assert_eq!(dma.write(Some(1), HOLE), None);
            let [(stream, tag)] = tags(&smmu)[..] else {
                panic!("one stalls")
            };
            smmu.resume([(stream, tag, ResumeAction::Retry)].into_iter())
                .expect("there is room");
            let again = tags(&smmu);
            assert_eq!(again.len(), 1, "{mode:?}");
            assert_eq!(dma.ends()[3], 1);
            let answers = again
                .into_iter()
                .map(|(it, tag)| (it, tag, ResumeAction::Abort));
            smmu.resume(answers).expect("there is room");
            settle(&host, &dma);
            assert_eq!(dma.ends()[3], 0);
            // A tag that nobody has, and no answers at all.
            smmu.resume([(STREAM, 0x7777, ResumeAction::Retry)].into_iter())
                .expect("there is room");
            smmu.resume([].into_iter()).expect("nothing to do");
            assert_clean(&host, mode);
        }
    }
}

#[test]
fn where_nothing_stalls_an_answer_is_refused_and_not_sent() {
    let host = Hypervisor::new(
        Identity::with_stalls(StallModel::TerminateOnly),
        Mode::Polite,
    );
    let smmu = take_over(&host);
    let answer = (STREAM, 5, ResumeAction::Abort);
    let words = Command::resume(STREAM, 5, ResumeAction::Abort).words();
    let refused = smmu.resume([answer].into_iter());
    assert_eq!(refused, Err(CommandError::Illegal { words }));
    let ticket = smmu.submit(&[&[]]).expect("there is room");
    assert_eq!(smmu.wait(ticket), Ok(()));
    assert_clean(&host, "CERROR_ILL would be a violation");
}

/// IDR0.STALL_MODEL 2: whatever faults stalls, entries that say otherwise are ILLEGAL, and what
/// stands for quiet is not valid.
#[test]
fn where_stalls_are_forced_entries_stall_and_contexts_are_parked() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::with_stalls(StallModel::StallForced), mode);
        let smmu = take_over(&host);
        let mut guest = Guest::new(&host, 7);
        let contexts = stalling(&mut guest, &smmu, Faults::Abort);
        let dma = Dma::new(&host, STREAM);
        assert_eq!(dma.write(Some(1), VA), Some(guest.data()), "{mode:?}");
        assert_eq!(dma.write(Some(1), HOLE), None);
        // And by stage 2: the guest maps no such page to its device.
        let outside = guest.space_to(2, portcullis::addr::Ipa::new(0x20_0000_0000));
        guest
            .nesting(&[&smmu])
            .publish_context(&smmu, &contexts, substream(2), (&outside, Faults::Abort))
            .expect("published");
        assert_eq!(dma.write(Some(2), VA), None);
        let stalled = tags(&smmu);
        assert_eq!(stalled.len(), 2, "{mode:?}");
        assert_eq!(dma.ends(), [1, 0, 0, 2], "{mode:?}");

        let both = [1, 2].map(|number| ContextOf {
            contexts: &contexts,
            context: substream(number),
        });
        let (count, parked) = syncs(&host, || smmu.quiet(&both));
        assert_eq!((count, parked), (1, Ok(())));
        for number in [1, 2] {
            assert_eq!(contexts.state_of(substream(number)), Some(CdState::Parked));
            assert_eq!(dma.write(Some(number), VA), None, "{mode:?}");
        }
        // Late ones abort, and those before are answered.
        let answers = stalled
            .into_iter()
            .map(|(it, tag)| (it, tag, ResumeAction::Abort));
        smmu.resume(answers).expect("there is room");
        settle(&host, &dma);
        assert_eq!(dma.ends(), [1, 4, 0, 0], "{mode:?}");
        assert_ne!(events(&smmu), 0, "a parked context is not quiet");
        smmu.quiet(&both).expect("parked already");
        for number in [1, 2] {
            smmu.retract_context(&contexts, substream(number))
                .expect("retracted");
            assert_eq!(contexts.state_of(substream(number)), Some(CdState::Free));
        }
        guest
            .nesting(&[&smmu])
            .detach(&smmu, contexts)
            .expect("detached");
        guest.end(&smmu);
        smmu.shut_down().expect("it shuts");
        assert_clean(&host, mode);
    }
}
