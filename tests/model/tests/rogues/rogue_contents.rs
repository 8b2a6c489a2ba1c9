//! Rogues whose entries are not visible, malformed, or at odds with others of the same tags.

use smmu_model::Rule;
use smmu_model::bench::{self, ste_stage2};

use super::driver::Setup;
use super::gallery::{Mark, Rogue, Story, Where, full, incoherent};
use super::step::{Edit, Operation, Step, barrier, clean, store};
use super::stories::{self, VMID};
use super::words::cd;

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

// Something is not visible.

#[test]
fn changes_an_entry_after_the_barrier() {
    caught(
        stories::streams::a_stream_goes_by_one_barrier,
        || Edit::advance(Operation::RetractSte, barrier, store),
        Rule::InvalidatedBeforeVisible,
    );
}

#[test]
fn does_not_clean_an_entry_where_the_smmu_does_not_snoop() {
    caught_on(
        incoherent,
        stories::streams::a_stream_goes,
        || Edit::forget(Operation::RetractSte, clean),
        Mark::Breaks(Rule::InvalidatedBeforeVisible),
        Where::Hoarding,
    );
}

#[test]
fn does_not_clean_a_context_where_the_smmu_does_not_snoop() {
    caught_on(
        incoherent,
        stories::contexts::a_context_goes,
        || Edit::forget(Operation::PublishCd, clean),
        Mark::Breaks(Rule::InvalidatedBeforeVisible),
        Where::Hoarding,
    );
}

// Something is malformed.

#[test]
fn has_ones_in_reserved_bits_of_an_entry() {
    caught(
        stories::streams::a_stream_comes,
        || {
            Edit::replace(
                Operation::PublishSte,
                |step| matches!(step, Step::Store(at, _) if at & 63 == 56),
                |step| match step {
                    Step::Store(at, _) => Step::Store(*at, 1 << 63),
                    step => *step,
                },
            )
        },
        Rule::EntryReservedBits,
    );
}

#[test]
fn has_its_context_table_at_an_unaligned_address() {
    // 16 contexts want 1 KiB; S1ContextPtr is 64 bytes on.
    caught(
        stories::contexts::a_context_goes,
        || {
            Edit::replace(
                Operation::PublishSte,
                |step| matches!(step, Step::Store(at, _) if at & 63 == 0),
                |step| match step {
                    Step::Store(at, word0) => Step::Store(*at, word0 + 0x40),
                    step => *step,
                },
            )
        },
        Rule::TableMisaligned,
    );
}

// Spaces with the same tags.

#[test]
fn quiets_one_of_two_contexts_of_a_living_space() {
    caught(
        stories::contexts::one_of_two_bindings_goes,
        || {
            Edit::replace(Operation::RetractCd, store, |step| match step {
                Step::Store(at, _) => Step::Store(*at, bench::quiet_word0(1)),
                step => *step,
            })
        },
        Rule::TagsDisagree,
    );
}

#[test]
fn gives_two_streams_of_one_vmid_different_stage_2s() {
    caught(
        stories::streams::two_guests_come,
        || {
            Edit::replace(
                Operation::PublishSte,
                |step| matches!(step, Step::Store(at, _) if at & 63 == 16),
                |step| match step {
                    Step::Store(at, _) => Step::Store(*at, ste_stage2(VMID, 0)[2]),
                    step => *step,
                },
            )
        },
        Rule::TagsDisagree,
    );
}

#[test]
fn gives_a_stream_of_stage_1_the_vmid_of_a_guest() {
    caught(
        stories::streams::a_guest_and_the_host_come,
        || {
            Edit::replace(
                Operation::PublishSte,
                |step| matches!(step, Step::Store(at, value) if at & 63 == 16 && *value == u64::from(VMID + 1)),
                |step| match step {
                    Step::Store(at, _) => Step::Store(*at, u64::from(VMID)),
                    step => *step,
                },
            )
        },
        Rule::TagsDisagree,
    );
}

#[test]
fn gives_two_spaces_one_asid() {
    caught(
        stories::contexts::two_spaces_come,
        || {
            Edit::replace(
                Operation::PublishCd,
                |step| matches!(step, Step::Store(at, value) if at & 63 == 0 && value & cd::V != 0),
                |step| match step {
                    Step::Store(at, word0) => Step::Store(*at, word0 & !(0xffff << 48) | 1 << 48),
                    step => *step,
                },
            )
        },
        Rule::TagsDisagree,
    );
}
