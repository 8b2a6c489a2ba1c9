//! Rogues that change stream table entries and context descriptors wrongly.

use smmu_model::Rule;
use smmu_model::bench::{cfgi_cd, cfgi_ste, nh_all, s12_vmall};

use super::driver::Setup;
use super::gallery::{Mark, Rogue, Story, Where, arrays, full};
use super::step::{Edit, Operation, Step, claim, command, store, sync};
use super::stories::{self, PASID, STREAM, VMID};

const CFGI_STE: u64 = 0x03;
const CFGI_RANGE: u64 = 0x04;
const CFGI_CD: u64 = 0x05;
const CFGI_CD_ALL: u64 = 0x06;
const NH_ALL: u64 = 0x10;
const S12_VMALL: u64 = 0x28;

fn caught_on(
    setup: fn(smmu_model::Mode) -> Setup,
    story: Story,
    edit: fn() -> Edit,
    mark: Mark,
    place: Where,
) {
    let rogue = Rogue {
        setup,
        story,
        edit,
        mark,
    };
    rogue.is_caught_in(place);
}

fn caught(story: Story, edit: fn() -> Edit, rule: Rule) {
    caught_on(full, story, edit, Mark::Breaks(rule), Where::Hoarding);
}

/// Exchanges commands with this opcode.
fn instead(operation: Operation, opcode: u64, by: [u64; 2]) -> Edit {
    Edit::replace(operation, command(opcode), move |_| Step::Command(by))
}

// Something is forgotten.

#[test]
fn forgets_cfgi_ste_when_a_stream_goes() {
    caught(
        stories::streams::a_stream_goes,
        || Edit::forget(Operation::RetractSte, command(CFGI_STE)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_the_tlb_when_a_stream_goes() {
    caught(
        stories::streams::a_stream_goes,
        || Edit::forget(Operation::RetractSte, command(S12_VMALL)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_every_sync_when_a_stream_goes() {
    caught(
        stories::streams::a_stream_goes,
        || Edit::replace(Operation::RetractSte, sync, |_| Step::Submit),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_cfgi_cd_when_a_context_goes() {
    caught(
        stories::contexts::a_context_goes,
        || Edit::forget(Operation::RetractCd, command(CFGI_CD)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_the_tlb_when_a_context_goes() {
    caught(
        stories::contexts::a_context_goes,
        || Edit::forget(Operation::RetractCd, command(NH_ALL)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_the_level_1_descriptor_when_a_leaf_goes() {
    caught(
        stories::contexts::a_leaf_goes,
        || instead(Operation::RemoveLeaf, CFGI_CD_ALL, cfgi_cd(STREAM, PASID)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_the_level_1_descriptor_when_an_array_goes() {
    caught_on(
        arrays,
        stories::streams::an_array_goes,
        || instead(Operation::RemoveArray, CFGI_RANGE, cfgi_ste(STREAM)),
        Mark::Breaks(Rule::FrameStillCached),
        Where::Hoarding,
    );
}

#[test]
fn forgets_the_other_stream_of_a_shared_context_table() {
    caught(
        stories::contexts::a_shared_context_goes,
        || {
            Edit::new(Operation::RetractCd, |steps| {
                let cfgi = steps.iter().rposition(command(CFGI_CD));
                cfgi.is_some_and(|at| {
                    steps.remove(at);
                    true
                })
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn invalidates_the_stream_next_to_the_one_that_goes() {
    caught(
        stories::streams::a_stream_goes,
        || instead(Operation::RetractSte, CFGI_STE, cfgi_ste(STREAM + 1)),
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_the_vmid_next_to_the_one_that_goes() {
    caught(
        stories::streams::a_stream_goes,
        || instead(Operation::RetractSte, S12_VMALL, s12_vmall(VMID + 1)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_the_old_vmid_when_a_stream_moves() {
    caught(
        stories::streams::a_stream_moves,
        || Edit::forget(Operation::RetractSte, command(S12_VMALL)),
        Rule::FrameStillCached,
    );
}

// Something is done in the wrong order.

#[test]
fn invalidates_an_entry_before_it_changes_it() {
    caught(
        stories::streams::a_stream_goes,
        || {
            Edit::new(Operation::RetractSte, |steps| {
                // Store, clean and barrier after CFGI and SYNC.
                steps.rotate_left(3);
                let given_back = steps.iter().position(claim).unwrap_or(steps.len());
                let tail: Vec<Step> = steps.drain(steps.len() - 3..).collect();
                steps.splice(given_back..given_back, tail);
                true
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_the_tlb_before_the_context() {
    caught(
        stories::contexts::a_context_goes,
        || {
            Edit::replace(
                Operation::RetractCd,
                |step| command(CFGI_CD)(step) || command(NH_ALL)(step),
                |step| {
                    if command(NH_ALL)(step) {
                        Step::Command(cfgi_cd(STREAM, PASID))
                    } else {
                        Step::Command(nh_all(VMID))
                    }
                },
            )
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_the_tlb_without_a_sync_after_the_context() {
    caught(
        stories::contexts::a_context_goes,
        || Edit::forget_after(Operation::RetractCd, command(CFGI_CD), sync),
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_the_tlb_without_a_sync_after_the_entry() {
    caught(
        stories::streams::a_stream_goes,
        || Edit::forget_after(Operation::RetractSte, command(CFGI_STE), sync),
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_the_tlb_before_the_entry() {
    caught(
        stories::streams::a_stream_goes,
        || {
            Edit::replace(
                Operation::RetractSte,
                |step| command(CFGI_STE)(step) || command(S12_VMALL)(step),
                |step| {
                    if command(S12_VMALL)(step) {
                        Step::Command(cfgi_ste(STREAM))
                    } else {
                        Step::Command(s12_vmall(VMID))
                    }
                },
            )
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn gives_frames_back_before_the_sync() {
    caught(
        stories::streams::a_stream_goes,
        || {
            Edit::new(Operation::RetractSte, |steps| {
                let last = steps.iter().rposition(sync);
                last.is_some_and(|at| {
                    let sync = steps.remove(at);
                    steps.push(sync);
                    true
                })
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn gives_a_context_leaf_back_before_the_sync() {
    caught(
        stories::contexts::a_leaf_goes,
        || Edit::advance(Operation::RemoveLeaf, claim, sync),
        Rule::FrameStillCached,
    );
}

#[test]
fn gives_a_context_table_back_before_its_stream_goes() {
    caught(
        stories::streams::a_stream_with_contexts_goes,
        || Edit::advance(Operation::RetractSte, claim, store),
        Rule::FrameStillReachable,
    );
}

#[test]
fn sets_v_before_the_body() {
    caught(
        stories::streams::a_stream_comes,
        || {
            Edit::new(Operation::PublishSte, |steps| {
                let last = steps.iter().rposition(store);
                last.is_some_and(|at| {
                    let word0 = steps.remove(at);
                    steps.insert(0, word0);
                    true
                })
            })
        },
        Rule::LiveEntryTorn,
    );
}

#[test]
fn sets_v_with_the_body() {
    // One CFGI and one SYNC for all eight words.
    caught(
        stories::streams::a_stream_comes,
        || {
            Edit::forget_after(
                Operation::PublishSte,
                |_| true,
                |step| command(CFGI_STE)(step),
            )
        },
        Rule::LiveEntryTorn,
    );
}

#[test]
fn sets_v_of_a_context_with_the_body() {
    caught(
        stories::contexts::a_context_goes,
        || {
            Edit::new(Operation::PublishCd, |steps| {
                let first = steps.iter().position(command(CFGI_CD));
                first.is_some_and(|at| {
                    steps.drain(at..at + 2);
                    true
                })
            })
        },
        Rule::LiveEntryTorn,
    );
}

#[test]
fn changes_two_words_of_a_live_entry() {
    caught(
        stories::streams::a_stream_changes,
        || {
            Edit::new(Operation::ChangeSte, |steps| {
                let Some(Step::Store(at, _)) = steps.first().copied() else {
                    return false;
                };
                // Word 3, the root of stage 2: the frame after it holds no table.
                steps.insert(1, Step::Store(at + 16, super::driver::BASE + 0x7_f000));
                true
            })
        },
        Rule::LiveEntryTorn,
    );
}

#[test]
fn changes_two_words_of_a_live_context() {
    caught(
        stories::contexts::a_context_changes,
        || {
            Edit::new(Operation::ChangeCd, |steps| {
                let Some(Step::Store(at, _)) = steps.first().copied() else {
                    return false;
                };
                // Word 3: MAIR0.
                steps.insert(1, Step::Store(at + 24, 0x44));
                true
            })
        },
        Rule::LiveEntryTorn,
    );
}

#[test]
fn moves_a_context_that_it_did_not_retract() {
    caught(
        stories::contexts::a_context_moves,
        || {
            Edit::new(Operation::RetractCd, |steps| {
                steps.clear();
                true
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn ors_into_an_entry_that_was_used() {
    // The new root, ORed into the old one, is the old one.
    caught(
        stories::streams::a_stream_moves,
        || {
            Edit::new(Operation::PublishSte, |steps| {
                let root = steps.iter_mut().find_map(|step| match step {
                    Step::Store(at, root) if *at & 63 == 24 => Some(root),
                    _ => None,
                });
                let [new, old] = stories::ROOTS;
                root.filter(|root| **root == new).is_some_and(|root| {
                    *root |= old;
                    true
                })
            })
        },
        Rule::FrameStillReachable,
    );
}
