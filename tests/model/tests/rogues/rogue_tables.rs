//! Rogues that unmap, exchange and free translations wrongly.

use smmu_model::Rule;

use super::gallery::{Mark, Rogue, Story, Where, full};
use super::step::{Edit, Operation, Step, claim, command, sync};
use super::stories;

const NH_VA: u64 = 0x12;
const NH_ALL: u64 = 0x10;
const S2_IPA: u64 = 0x2a;
const ATC_INV: u64 = 0x40;

fn caught(story: Story, edit: fn() -> Edit, rule: Rule) {
    caught_in(story, edit, Mark::Breaks(rule), Where::Hoarding);
}

fn caught_in(story: Story, edit: fn() -> Edit, mark: Mark, place: Where) {
    let rogue = Rogue {
        setup: full,
        story,
        edit,
        mark,
    };
    rogue.is_caught_in(place);
}

/// Changes the words of commands with this opcode.
fn alter(operation: Operation, opcode: u64, by: fn([u64; 2]) -> [u64; 2]) -> Edit {
    Edit::replace(operation, command(opcode), move |step| match step {
        Step::Command(words) => Step::Command(by(*words)),
        step => *step,
    })
}

const LANDED: Mark = Mark::Surprises("a write that was not allowed landed");

#[test]
fn unmaps_without_flushing_the_tlb() {
    caught(
        stories::tables::pages_of_a_space_go,
        || Edit::forget(Operation::Unmap, command(NH_VA)),
        Rule::FrameStillCached,
    );
}

#[test]
fn unmaps_without_a_sync() {
    caught(
        stories::tables::pages_of_a_space_go,
        || Edit::replace(Operation::Unmap, sync, |_| Step::Submit),
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_under_the_wrong_asid() {
    caught(
        stories::tables::pages_of_a_space_go,
        || {
            alter(Operation::Unmap, NH_VA, |words| {
                [words[0] ^ 3 << 48, words[1]]
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn gives_a_page_back_before_the_sync() {
    caught(
        stories::tables::pages_of_a_space_go,
        || Edit::advance(Operation::Unmap, claim, sync),
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_before_it_unmaps() {
    caught(
        stories::tables::pages_of_a_space_go,
        || {
            Edit::new(Operation::Unmap, |steps| {
                let given_back = steps.iter().position(claim).unwrap_or(steps.len());
                steps[..given_back].rotate_left(6);
                true
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn exchanges_a_page_without_breaking_it_first() {
    caught(
        stories::tables::a_page_is_exchanged,
        || {
            Edit::new(Operation::Exchange, |steps| {
                steps.drain(..5);
                true
            })
        },
        Rule::BreakBeforeMake,
    );
}

#[test]
fn exchanges_a_page_without_flushing_the_old_one() {
    caught_in(
        stories::tables::a_page_is_exchanged,
        || Edit::forget(Operation::Exchange, command(NH_VA)),
        Mark::Surprises("a write went to the old page"),
        Where::Hoarding,
    );
}

#[test]
fn frees_a_table_by_flushing_leaves_alone() {
    caught(
        stories::tables::a_table_goes,
        || {
            alter(Operation::FreeTable, NH_VA, |words| {
                [words[0], words[1] | 1]
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn frees_a_table_without_flushing() {
    caught(
        stories::tables::a_table_goes,
        || Edit::forget(Operation::FreeTable, command(NH_VA)),
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_a_range_that_is_one_page_short() {
    caught(
        stories::tables::stage_2_pages_go,
        || {
            alter(Operation::Stage2Unmap, S2_IPA, |words| {
                [words[0] - (1 << 12), words[1]]
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_a_range_that_begins_one_page_late() {
    caught(
        stories::tables::stage_2_pages_go,
        || {
            alter(Operation::Stage2Unmap, S2_IPA, |words| {
                [words[0], words[1] + 0x1000]
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_a_range_of_another_level() {
    // TTL = 2: leaves of level 3 may stay.
    caught(
        stories::tables::aligned_stage_2_pages_go,
        || {
            alter(Operation::Stage2Unmap, S2_IPA, |words| {
                [words[0], words[1] & !0x300 | 2 << 8]
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_a_range_of_another_granule() {
    caught(
        stories::tables::aligned_stage_2_pages_go,
        || {
            alter(Operation::Stage2Unmap, S2_IPA, |words| {
                [words[0], words[1] & !0xc00 | 3 << 10]
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_a_range_at_an_address_that_its_level_does_not_have() {
    caught(
        stories::tables::stage_2_pages_go,
        || {
            alter(Operation::Stage2Unmap, S2_IPA, |words| {
                [words[0], words[1] & !0x300 | 2 << 8]
            })
        },
        Rule::RangeMisaligned,
    );
}

#[test]
fn forgets_nh_all_after_s2_ipa() {
    caught(
        stories::tables::nested_pages_go,
        || Edit::forget(Operation::Stage2Unmap, command(NH_ALL)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_s2_ipa_before_nh_all() {
    caught(
        stories::tables::nested_pages_go,
        || Edit::forget(Operation::Stage2Unmap, command(S2_IPA)),
        Rule::FrameStillCached,
    );
}

#[test]
fn forgets_the_sync_between_s2_ipa_and_nh_all() {
    caught(
        stories::tables::nested_pages_go,
        || Edit::forget_after(Operation::Stage2Unmap, command(S2_IPA), sync),
        Rule::FrameStillCached,
    );
}

#[test]
fn flushes_stage_1_before_stage_2() {
    caught(
        stories::tables::nested_pages_go,
        || {
            Edit::new(Operation::Stage2Unmap, |steps| {
                let s2 = steps.iter().position(command(S2_IPA));
                let nh = steps.iter().position(command(NH_ALL));
                if let (Some(s2), Some(nh)) = (s2, nh) {
                    steps.swap(s2, nh);
                }
                s2.is_some() && nh.is_some()
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn gives_a_stage_2_page_back_before_the_last_sync() {
    caught(
        stories::tables::nested_pages_go,
        || {
            Edit::new(Operation::Stage2Unmap, |steps| {
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
fn unmaps_without_emptying_the_atc() {
    caught_in(
        stories::tables::pages_in_an_atc_go,
        || Edit::forget(Operation::Unmap, command(ATC_INV)),
        LANDED,
        Where::Hoarding,
    );
}

#[test]
fn gives_pages_back_without_emptying_the_atc() {
    caught(
        stories::tables::pages_in_an_atc_are_given_back,
        || Edit::forget(Operation::Unmap, command(ATC_INV)),
        Rule::FrameStillCached,
    );
}

#[test]
fn gives_pages_back_before_the_atc_has_answered() {
    caught(
        stories::tables::pages_in_an_atc_are_given_back,
        || Edit::forget_after(Operation::Unmap, command(ATC_INV), sync),
        Rule::FrameStillCached,
    );
}

#[test]
fn empties_the_atc_of_everyone_without_pasid() {
    // SSV = 0 does not reach what was translated with a PASID.
    caught_in(
        stories::tables::pages_in_an_atc_go,
        || {
            alter(Operation::Unmap, ATC_INV, |words| {
                [words[0] & !(0x1f_ffff << 11), 52]
            })
        },
        LANDED,
        Where::Hoarding,
    );
}

#[test]
fn counts_the_pages_of_an_atc_span_instead_of_covering_them() {
    // Two pages from 0x5000 on: 8 KiB aligned down begin at 0x4000 and end before the second.
    caught_in(
        stories::tables::pages_in_an_atc_go,
        || {
            alter(Operation::Unmap, ATC_INV, |words| {
                [words[0], stories::VA | 1]
            })
        },
        LANDED,
        Where::Hoarding,
    );
}

#[test]
fn empties_the_atc_before_the_tlb_is_flushed() {
    caught_in(
        stories::tables::pages_in_an_eager_atc_go,
        || {
            Edit::new(Operation::Unmap, |steps| {
                let inv = steps.iter().position(command(ATC_INV));
                let tlbi = steps.iter().position(command(NH_VA));
                match (inv, tlbi) {
                    (Some(inv), Some(tlbi)) if tlbi < inv => {
                        // ATC_INV, SYNC, then TLBI, SYNC.
                        let atc: Vec<Step> = steps.drain(inv..inv + 2).collect();
                        steps.splice(tlbi..tlbi, atc);
                        true
                    }
                    _ => false,
                }
            })
        },
        LANDED,
        Where::Hoarding,
    );
}

#[test]
fn empties_the_atc_before_the_sync_of_the_tlb() {
    caught_in(
        stories::tables::pages_in_an_eager_atc_go,
        || Edit::forget_after(Operation::Unmap, command(NH_VA), sync),
        LANDED,
        Where::Seeds(32),
    );
}
