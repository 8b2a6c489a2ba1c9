//! Rogues that release spaces and reuse tags wrongly.

use smmu_model::Rule;
use smmu_model::bench::nh_asid;

use super::gallery::{Mark, Rogue, Story, Where, full};
use super::step::{Edit, Operation, Step, claim, command, store, sync};
use super::stories::{self, VMID};
use super::words::cd;

const CFGI_CD: u64 = 0x05;
const NH_ALL: u64 = 0x10;
const S12_VMALL: u64 = 0x28;
const ATC_INV: u64 = 0x40;

fn caught(story: Story, edit: fn() -> Edit, rule: Rule) {
    let rogue = Rogue {
        setup: full,
        story,
        edit,
        mark: Mark::Breaks(rule),
    };
    rogue.is_caught_in(Where::Hoarding);
}

#[test]
fn releases_without_invalidating_the_contexts() {
    caught(
        stories::contexts::a_space_is_released,
        || Edit::forget(Operation::Release, command(CFGI_CD)),
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn releases_without_flushing_the_tlb() {
    caught(
        stories::contexts::a_space_is_released,
        || Edit::forget(Operation::Release, command(NH_ALL)),
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn releases_without_a_sync_between_contexts_and_tlb() {
    caught(
        stories::contexts::a_space_is_released,
        || Edit::forget_after(Operation::Release, command(CFGI_CD), sync),
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn returns_from_release_before_the_last_sync() {
    caught(
        stories::contexts::a_space_is_released,
        || {
            Edit::new(Operation::Release, |steps| {
                let last = steps.iter().rposition(sync);
                last.is_some_and(|at| {
                    let sync = steps.remove(at);
                    steps.push(sync);
                    true
                })
            })
        },
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn releases_only_one_of_two_bindings() {
    caught(
        stories::contexts::a_space_of_two_streams_is_released,
        || {
            Edit::new(Operation::Release, |steps| {
                let last = steps.iter().rposition(store);
                last.is_some_and(|at| {
                    steps.drain(at..at + 2);
                    true
                })
            })
        },
        Rule::ReleasedSpaceReachable,
    );
}

#[test]
fn invalidates_only_one_of_two_bindings() {
    caught(
        stories::contexts::a_space_of_two_streams_is_released,
        || {
            Edit::new(Operation::Release, |steps| {
                let last = steps.iter().rposition(command(CFGI_CD));
                last.is_some_and(|at| {
                    steps.remove(at);
                    true
                })
            })
        },
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn does_not_say_that_it_releases_when_it_quiets_one_after_another() {
    caught(
        stories::contexts::a_space_of_two_streams_is_released,
        || {
            Edit::new(Operation::Release, |steps| {
                // Each context with its own SYNC, and no release announced: a living space
                // whose contexts differ.
                steps.retain(|step| !claim(step));
                let first = steps.iter().position(store);
                first.is_some_and(|at| {
                    steps.splice(at + 2..at + 2, [Step::Barrier, Step::Sync]);
                    true
                })
            })
        },
        Rule::TagsDisagree,
    );
}

#[test]
fn flushes_by_asid_although_pages_are_global() {
    caught(
        stories::contexts::a_space_with_global_pages_is_released,
        || {
            Edit::replace(Operation::Release, command(NH_ALL), |_| {
                Step::Command(nh_asid(VMID, 1))
            })
        },
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn keeps_aset_in_a_quiet_context() {
    // A sibling's global page serves the parked SubstreamID.
    caught(
        stories::contexts::a_space_beside_global_pages_is_released,
        || {
            Edit::replace(Operation::Release, store, |step| match step {
                Step::Store(at, word0) => Step::Store(*at, word0 | cd::ASET),
                step => *step,
            })
        },
        Rule::ReleasedSpaceReached,
    );
}

#[test]
fn quiets_a_context_by_halves() {
    // EPD1 alone: the lower half still walks.
    caught(
        stories::contexts::a_space_is_released,
        || {
            Edit::replace(Operation::Release, store, |step| match step {
                Step::Store(at, word0) => Step::Store(*at, word0 & !cd::EPD0),
                step => *step,
            })
        },
        Rule::ReleasedSpaceReachable,
    );
}

#[test]
fn releases_without_emptying_the_atc() {
    caught(
        stories::contexts::a_space_in_an_atc_is_released,
        || Edit::forget(Operation::Release, command(ATC_INV)),
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn empties_the_atc_of_another_pasid() {
    caught(
        stories::contexts::a_space_in_an_atc_is_released,
        || {
            Edit::replace(Operation::Release, command(ATC_INV), |step| match step {
                Step::Command(words) => Step::Command([words[0] ^ 1 << 12, words[1]]),
                step => *step,
            })
        },
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn returns_from_release_before_the_atc_is_empty() {
    caught(
        stories::contexts::a_space_in_an_atc_is_released,
        || Edit::forget_after(Operation::Release, command(ATC_INV), sync),
        Rule::ReleasedSpaceCached,
    );
}

#[test]
fn empties_the_atc_before_the_sync_of_the_tlb() {
    // EPD0 stops walks, not hits: a device that asks again is granted what is still in the TLB.
    let rogue = Rogue {
        setup: full,
        story: stories::contexts::a_space_in_an_eager_atc_is_released,
        edit: || Edit::forget_after(Operation::Release, command(NH_ALL), sync),
        mark: Mark::Breaks(Rule::ReleasedSpaceCached),
    };
    rogue.is_caught_in(Where::Seeds(40));
}

#[test]
fn reuses_an_asid_without_flushing_it() {
    caught(
        stories::contexts::an_asid_is_used_again,
        || Edit::forget(Operation::TakeTag, command(NH_ALL)),
        Rule::TagReusedTooEarly,
    );
}

#[test]
fn reuses_an_asid_before_the_sync() {
    caught(
        stories::contexts::an_asid_is_used_again,
        || Edit::advance(Operation::TakeTag, claim, sync),
        Rule::TagReusedTooEarly,
    );
}

#[test]
fn reuses_an_asid_that_a_context_still_has() {
    caught(
        stories::contexts::an_asid_is_used_again,
        || Edit::forget(Operation::RetractCd, store),
        Rule::TagReusedTooEarly,
    );
}

#[test]
fn reuses_a_vmid_without_flushing_it() {
    caught(
        stories::contexts::a_vmid_is_used_again,
        || Edit::forget(Operation::TakeTag, command(S12_VMALL)),
        Rule::TagReusedTooEarly,
    );
}

#[test]
fn reuses_a_vmid_before_the_sync() {
    caught(
        stories::contexts::a_vmid_is_used_again,
        || Edit::advance(Operation::TakeTag, claim, sync),
        Rule::TagReusedTooEarly,
    );
}

#[test]
fn flushes_stage_1_alone_before_it_reuses_a_vmid() {
    caught(
        stories::contexts::a_vmid_is_used_again,
        || {
            Edit::replace(Operation::TakeTag, command(S12_VMALL), |_| {
                Step::Command(smmu_model::bench::nh_all(VMID))
            })
        },
        Rule::TagReusedTooEarly,
    );
}

#[test]
fn reuses_a_pasid_whose_context_is_still_cached() {
    caught(
        stories::contexts::a_pasid_is_used_again,
        || Edit::forget(Operation::RetractCd, command(CFGI_CD)),
        Rule::TagReusedTooEarly,
    );
}

#[test]
fn reuses_a_pasid_before_the_atc_was_synced() {
    caught(
        stories::contexts::a_pasid_is_used_again,
        || Edit::advance(Operation::TakeTag, claim, sync),
        Rule::TagReusedTooEarly,
    );
}
