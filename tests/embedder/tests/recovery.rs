//! What was lost comes back on proof, against the hostile model with faults put in.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::{
    CommandError, ContextError, Death, Firmware, HandshakeTimeout, QueueIndices, RecoverError,
    Settings, Smmu, StreamError, invalidate,
};
use portcullis::spec::cd::{CdState, Faults};
use portcullis::spec::command::Command;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::guest::{
    DATA, Guest, OTHER, SMALL, STREAM, assert_clean, modes, substream, syncs, tagged, untagged,
};
use smmu_model::{Faults as ModelFaults, Identity, Mode};

fn take_over_with(
    host: &Hypervisor,
    which: usize,
    (log2_commands, sync_timeout_us): (u8, u64),
) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(0xffff));
    settings.log2_commands = log2_commands;
    settings.sync_timeout_us = sync_timeout_us;
    Smmu::take_over(host, host.registers(which), firmware, settings).expect("taken over")
}

/// A SYNC may take a millisecond, so that the model need not count far.
fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    take_over_with(host, 0, (8, 1000))
}

fn set(host: &Hypervisor, faults: ModelFaults) {
    host.machine().smmu(0).set_faults(faults);
}

fn never() -> ModelFaults {
    ModelFaults {
        sync_never: true,
        ..ModelFaults::default()
    }
}

fn well() -> ModelFaults {
    ModelFaults::default()
}

fn harmless() -> Command {
    Command::tlbi_s12_vmall(Vmid::new(1))
}

fn passes(host: &Hypervisor, stream: StreamId) -> bool {
    untagged(host, stream, DATA.as_u64()).is_some()
}

/// How the queue is before it is recovered.
#[derive(Clone, Copy, Debug)]
enum Before {
    Lives,
    Slammed,
    Dead,
}

/// Loses a stream and two contexts, recovers, and uses all of them again; what was not lost is as it
/// was, and memory that lost translations led to goes back.
#[test]
fn what_was_lost_comes_back_on_proof_in_every_mode() {
    let all = [Before::Lives, Before::Slammed, Before::Dead];
    for (mode, before) in modes().flat_map(|mode| all.map(|before| (mode, before))) {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let (mut guest, other) = (Guest::new(&host, 7), Guest::new(&host, 8));
        let (one, two) = (guest.space(1), guest.space(2));
        let smmus = [&smmu];
        let mut nesting = guest.nesting(&smmus);
        let contexts = nesting.attach(&smmu, &[STREAM], &SMALL).expect("attached");
        nesting
            .publish_context(&smmu, &contexts, substream(1), (&one, Faults::Abort))
            .expect("published");
        let kept = StreamId::new(0x300);
        smmu.publish(&[OTHER, kept], &other.stage2.walk())
            .expect("published");
        assert!(tagged(&host, STREAM, 1).is_some() && passes(&host, OTHER) && passes(&host, kept));

        set(&host, never());
        let lost = smmu.retract_context(&contexts, substream(1));
        assert!(
            matches!(lost, Err(ContextError::NotConfirmed(_))),
            "{lost:?}"
        );
        let how = (&two, Faults::Abort);
        let lost = smmu.publish_context(&contexts, substream(2), how, |_| None);
        assert!(
            matches!(lost, Err(ContextError::NotConfirmed(_))),
            "{lost:?}"
        );
        let lost = smmu.retract(&[OTHER]);
        assert!(
            matches!(lost, Err(StreamError::NotConfirmed(_))),
            "{lost:?}"
        );
        let change = guest.stage2.unmap(DATA, 0x1000).expect("it is mapped");
        let refused = invalidate(&[&smmu], change).expect_err("nobody confirms");
        guest.stage2.lose(refused.change).expect("its own");
        assert_eq!(smmu.lost_streams(), 1);
        match before {
            Before::Lives => {}
            Before::Slammed => smmu.slam().expect("it shuts"),
            Before::Dead => set(
                &host,
                ModelFaults {
                    abort_after: Some(0),
                    ..well()
                },
            ),
        }
        if !matches!(before, Before::Dead) {
            set(&host, well());
        } else {
            let ticket = smmu.submit(&[&[]]).expect("there may be room");
            let dead = CommandError::Dead(Death::FetchAborted);
            assert_eq!(smmu.wait(ticket), Err(dead));
        }
        host.machine().advance(10);
        assert_eq!(smmu.death().is_some(), !matches!(before, Before::Lives));

        let (count, proof) = syncs(&host, || smmu.recover());
        let proof = proof.expect("it is proven");
        // A queue that lives completes what was given up, too.
        if !matches!(before, Before::Lives) {
            assert_eq!(count, 2, "{mode:?} {before:?}");
        }
        assert_eq!((smmu.death(), smmu.lost_streams()), (None, 0));
        assert!(passes(&host, kept), "{mode:?} {before:?}: it was not lost");
        assert!(!passes(&host, OTHER));
        assert_eq!(tagged(&host, STREAM, 1), None);
        for number in [1, 2] {
            assert_eq!(contexts.state_of(substream(number)), Some(CdState::Lost));
            smmu.reclaim_context(&contexts, substream(number), &proof)
                .expect("covered");
            let again = smmu.reclaim_context(&contexts, substream(number), &proof);
            assert_eq!(again, Err(ContextError::NotInUse));
        }
        smmu.publish(&[OTHER], &other.stage2.walk()).expect("free");
        let tables = invalidate(&[&smmu], guest.stage2.recover()).expect("proven");
        guest.stage2.reclaim(tables).expect("its own");
        smmu.publish_context(&contexts, substream(1), how, |_| None)
            .expect("free");
        // The guest's page was taken away under it, so nothing is there; but it is walked.
        assert_eq!(tagged(&host, STREAM, 1), None);
        assert!(passes(&host, OTHER) && passes(&host, kept));
        smmu.retract(&[OTHER, kept]).expect("in use");
        guest
            .nesting(&[&smmu])
            .detach(&smmu, contexts)
            .expect("detached");
        guest.end(&smmu);
        other.end(&smmu);
        smmu.shut_down().expect("it shuts");
        assert_eq!(host.bytes_out(), 0, "{mode:?} {before:?}");
        assert_clean(&host, (mode, before));
    }
}

#[test]
fn a_fallen_gate_fails_everybody_at_once_until_it_is_recovered() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let guest = Guest::new(&host, 7);
        smmu.publish(&[STREAM], &guest.stage2.walk())
            .expect("published");
        set(&host, never());
        let waiting = smmu.submit(&[&[harmless()]]).expect("there is room");
        smmu.slam().expect("it shuts");
        let before_us = host.machine().record().now_us();
        let closed = CommandError::Dead(Death::GateClosed);
        assert_eq!(smmu.wait(waiting), Err(closed));
        assert_eq!(smmu.submit(&[&[harmless()]]).err(), Some(closed));
        assert_eq!(smmu.service(9, |_| {}).death, Some(Death::GateClosed));
        let waited_us = host.machine().record().now_us() - before_us;
        assert!(waited_us < 10, "model time: {waited_us} us");
        assert!(!passes(&host, STREAM));
        set(&host, well());
        let _proof = smmu.recover().expect("proven");
        assert!(passes(&host, STREAM), "{mode:?}: the entry is as it was");
        let ticket = smmu.submit(&[&[harmless()]]).expect("there is room");
        assert_eq!(smmu.wait(ticket), Ok(()));
        smmu.slam().expect("it shuts");
        smmu.shut_down().expect("what is closed can be shut down");
        assert_clean(&host, mode);
    }
}

/// The index that CMDQ_CONS shows after a recovery says nothing of a train from before it.
#[test]
fn a_ticket_from_before_is_never_answered_by_what_came_after() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    for length in 0..40 {
        set(&host, never());
        let group = vec![harmless(); length];
        let before = smmu.submit(&[&group]).expect("there is room");
        smmu.slam().expect("it shuts");
        set(&host, well());
        let _proof = smmu.recover().expect("proven");
        for _ in 0..3 {
            let ticket = smmu.submit(&[&group, &group]).expect("there is room");
            assert_eq!(smmu.wait(ticket), Ok(()));
        }
        assert_eq!(smmu.wait(before), Err(CommandError::Restarted), "{length}");
    }
    assert_clean(&host, "tickets");
}

/// A SYNC that still never completes gives no proof; nothing comes back, and it can be tried again.
#[test]
fn without_proof_everything_stays_lost() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let guest = Guest::new(&host, 7);
    let walk = guest.stage2.walk();
    smmu.publish(&[STREAM, OTHER], &walk).expect("published");
    set(&host, never());
    assert!(smmu.retract(&[STREAM]).is_err());
    let lost = StreamError::Lost { stream: STREAM };
    for is_closed in [false, true] {
        if is_closed {
            smmu.slam().expect("it shuts");
        }
        let refused = smmu.recover().err();
        assert!(
            matches!(
                refused,
                Some(RecoverError::NotConfirmed(CommandError::SyncTimeout { .. }))
            ),
            "{refused:?}"
        );
        assert_eq!(smmu.lost_streams(), 1);
        let death = is_closed.then_some(Death::GateClosed);
        assert_eq!(smmu.death(), death);
        assert_eq!(passes(&host, OTHER), !is_closed);
        if !is_closed {
            assert_eq!(smmu.publish(&[STREAM], &walk), Err(lost));
        }
    }
    // What was given up completes late, and changes nothing by itself.
    set(&host, well());
    host.machine().advance(100);
    assert_eq!(smmu.lost_streams(), 1);
    assert!(!passes(&host, OTHER) && !passes(&host, STREAM));
    let _proof = smmu.recover().expect("proven");
    assert_eq!(smmu.lost_streams(), 0);
    assert!(passes(&host, OTHER));
    smmu.publish(&[STREAM], &walk).expect("free");
    assert_clean(&host, "no proof");
}

#[test]
fn an_smmu_that_does_not_answer_is_named_and_stays_closed() {
    let host = Hypervisor::new(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let guest = Guest::new(&host, 7);
    smmu.publish(&[STREAM], &guest.stage2.walk())
        .expect("published");
    smmu.slam().expect("it shuts");
    let silent = ModelFaults {
        acknowledge_late_us: 500_000,
        ..well()
    };
    set(&host, silent);
    let refused = smmu.recover().err();
    assert!(
        matches!(
            refused,
            Some(RecoverError::Handshake(HandshakeTimeout {
                register: "GBPA",
                ..
            }))
        ),
        "{refused:?}"
    );
    assert_eq!(smmu.death(), Some(Death::GateClosed));
    set(&host, well());
    host.machine().advance(500_000);
    let _proof = smmu.recover().expect("proven");
    assert!(passes(&host, STREAM));
    host.machine().smmu(0).raise_sfm();
    assert_eq!(smmu.recover().err(), Some(RecoverError::ServiceFailure));
    assert_eq!(smmu.death(), Some(Death::ServiceFailure));
}

/// What is lost after a recovery began is not covered by it, nor by that of another SMMU.
#[test]
fn a_proof_covers_what_was_lost_before_it_on_its_own_smmu() {
    let both = [Identity::full(); 2].map(|it| smmu_model::Settings::new(it, Mode::Hoarding));
    let host = Hypervisor::with_smmus(&both);
    let smmu = take_over(&host);
    let second = take_over_with(&host, 1, (8, 1000));
    let mut guest = Guest::new(&host, 7);
    let one = guest.space(1);
    let smmus = [&smmu];
    let mut nesting = guest.nesting(&smmus);
    let contexts = nesting.attach(&smmu, &[STREAM], &SMALL).expect("attached");
    nesting
        .publish_context(&smmu, &contexts, substream(1), (&one, Faults::Abort))
        .expect("published");
    let before = smmu.loss();
    let early = smmu.recover().expect("proven");
    assert!(early.covers(&smmu, before));
    assert!(!early.covers(&smmu, smmu.loss()));
    set(&host, never());
    assert!(smmu.retract_context(&contexts, substream(1)).is_err());
    set(&host, well());
    host.machine().advance(10);
    let foreign = second.recover().expect("proven");
    for proof in [&early, &foreign] {
        let refused = smmu.reclaim_context(&contexts, substream(1), proof);
        assert_eq!(refused, Err(ContextError::Lost));
    }
    let proof = smmu.recover().expect("proven");
    smmu.reclaim_context(&contexts, substream(1), &proof)
        .expect("covered");
    // A leaf that nobody confirmed to be forgotten, too.
    set(&host, never());
    let leaf = smmu.give_back_leaf(&contexts, substream(1));
    assert!(matches!(leaf, Err(ContextError::NotConfirmed(_))));
    set(&host, well());
    host.machine().advance(10);
    let refused = smmu.reclaim_leaf(&contexts, substream(1), &proof);
    assert_eq!(refused, Err(ContextError::Lost));
    let proof = smmu.recover().expect("proven");
    let leaf = smmu
        .reclaim_leaf(&contexts, substream(1), &proof)
        .expect("covered");
    let again = smmu.reclaim_leaf(&contexts, substream(1), &proof);
    assert_eq!(again, Err(ContextError::NotInUse));
    let change = guest.window.unseal(&mut guest.stage2, leaf);
    let gone = invalidate(&[&smmu], change.expect("its own")).expect("confirmed");
    assert!(guest.window.give_back(&mut guest.stage2, gone).is_ok());
    assert_clean(&host, "proofs");
}

/// A stream that had ATS when it was lost may be cached in its device, which the SMMU cannot prove.
#[test]
fn a_lost_stream_with_ats_awaits_the_reset_of_its_device() {
    use portcullis::smmu::Assignment;
    use portcullis::spec::ste::Ats;
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let guest = Guest::new(&host, 7);
    let walk = guest.stage2.walk();
    let streams = [STREAM];
    let full = [Assignment::Stage2 {
        streams: &streams,
        walk,
        ats: Ats::Full,
    }];
    smmu.publish_all(&full).expect("published");
    set(&host, never());
    assert!(smmu.retract(&streams).is_err());
    set(&host, well());
    host.machine().advance(10);
    let _proof = smmu.recover().expect("proven");
    let lost = StreamError::Lost { stream: STREAM };
    assert_eq!(smmu.publish(&streams, &walk), Err(lost));
    assert_eq!(smmu.lost_streams(), 1);
    smmu.devices_were_reset([OTHER].into_iter());
    assert_eq!(smmu.publish(&streams, &walk), Err(lost));
    smmu.devices_were_reset(streams.into_iter());
    assert_eq!(smmu.lost_streams(), 0);
    smmu.publish(&streams, &walk).expect("free");
    assert_clean(&host, "ATS");
}

/// CPUs publish, retract and submit while another lets the gate fall and recovers, again and again:
/// each is told the truth, and what was told to be stopped is.
#[test]
fn others_meanwhile_succeed_or_are_told_by_name() {
    for (round, log2_commands) in [(0, 1), (1, 3), (2, 8)] {
        let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
        // Model time passes while any thread waits, and a thread may be held up for long.
        let smmu = take_over_with(&host, 0, (log2_commands, 10_000_000));
        let guest = Guest::new(&host, 7);
        let walk = guest.stage2.walk();
        let is_over = AtomicBool::new(false);
        let [done, told] = [AtomicU32::new(0), AtomicU32::new(0)];
        std::thread::scope(|scope| {
            for cpu in 0..3 {
                let (smmu, host, walk) = (&smmu, &host, &walk);
                let (is_over, done, told) = (&is_over, &done, &told);
                scope.spawn(move || {
                    let stream = StreamId::new(0x100 * cpu + 9);
                    let group = [harmless(); 5];
                    while !is_over.load(Ordering::SeqCst) {
                        let told = |error| match error {
                            CommandError::Dead(Death::GateClosed | Death::Recovering)
                            | CommandError::Restarted => {
                                told.fetch_add(1, Ordering::SeqCst);
                            }
                            error => panic!("{error:?}"),
                        };
                        match smmu.publish(&[stream], walk) {
                            Ok(()) => {
                                done.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(StreamError::NotConfirmed(error)) => told(error),
                            Err(StreamError::Lost { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                        match smmu.retract(&[stream]) {
                            Ok(()) => assert!(!passes(host, stream)),
                            Err(StreamError::NotConfirmed(error)) => told(error),
                            Err(StreamError::NotInUse { .. } | StreamError::Lost { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                        let ticket = smmu.submit(&[&group, &group]);
                        if let Err(error) = ticket.and_then(|ticket| smmu.wait(ticket)) {
                            told(error);
                        }
                    }
                });
            }
            let mut times = 0;
            while times < 60 {
                if done.load(Ordering::SeqCst) > 2 * times {
                    smmu.slam().expect("it shuts");
                    let _proof = smmu.recover().expect("proven");
                    times += 1;
                } else {
                    std::thread::yield_now();
                }
            }
            is_over.store(true, Ordering::SeqCst);
        });
        assert_ne!(told.load(Ordering::SeqCst), 0, "nobody was disturbed");
        let _proof = smmu.recover().expect("proven");
        assert_eq!(smmu.lost_streams(), 0);
        let ticket = smmu.submit(&[&[harmless(); 20]]).expect("there is room");
        assert_eq!(smmu.wait(ticket), Ok(()));
        assert_clean(&host, round);
    }
}
