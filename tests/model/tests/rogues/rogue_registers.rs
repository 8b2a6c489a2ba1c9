//! Rogues that access registers wrongly.

use smmu_model::{Rule, offset};

use super::driver::STREAMS;
use super::gallery::{Mark, Rogue, Where, arrays, full};
use super::step::{Edit, Operation, Step, write_to};
use super::stories;

fn caught(story: super::gallery::Story, edit: fn() -> Edit, rule: Rule) {
    let rogue = Rogue {
        setup: full,
        story,
        edit,
        mark: Mark::Breaks(rule),
    };
    rogue.is_caught_in(Where::Hoarding);
}

/// Adds `step` after the last one.
fn append(operation: Operation, step: Step) -> Edit {
    Edit::new(operation, move |steps| {
        steps.push(step);
        true
    })
}

#[test]
fn chooses_the_stream_table_while_the_smmu_is_on() {
    caught(
        stories::streams::nothing,
        || {
            append(
                Operation::BringUp,
                Step::Write64(offset::STRTAB_BASE, STREAMS),
            )
        },
        Rule::GuardedWrittenWhileOn,
    );
}

#[test]
fn enables_the_command_queue_before_it_says_where_it_is() {
    let edit = || {
        Edit::advance(
            Operation::BringUp,
            |step| matches!(step, Step::Write(offset::CR0, 0x8)),
            write_to(offset::CMDQ_BASE),
        )
    };
    caught(stories::streams::nothing, edit, Rule::GuardedWrittenWhileOn);
}

#[test]
fn changes_cr0_again_before_the_acknowledgement() {
    let edit = || {
        Edit::new(Operation::BringUp, |steps| {
            // SMMUEN on, off and on, without waiting in between.
            steps.extend([0xc, 0xd].map(|value| Step::Write(offset::CR0, value | 0x12)));
            true
        })
    };
    caught(stories::streams::nothing, edit, Rule::ChangedDuringUpdate);
}

#[test]
fn writes_gbpa_without_update() {
    let edit = || {
        Edit::replace(Operation::BringUp, write_to(offset::GBPA), |_| {
            Step::Write(offset::GBPA, 1 << 20 | 1 << 12)
        })
    };
    caught(stories::streams::nothing, edit, Rule::GbpaWithoutUpdate);
}

#[test]
fn writes_gbpa_during_an_update() {
    let edit = || {
        Edit::new(Operation::BringUp, |steps| {
            let at = steps.iter().position(write_to(offset::GBPA));
            at.is_some_and(|at| {
                steps.insert(at, steps[at]);
                true
            })
        })
    };
    caught(stories::streams::nothing, edit, Rule::GbpaWithoutUpdate);
}

#[test]
fn acknowledges_errors_that_are_not_there() {
    caught(
        stories::streams::nothing,
        || append(Operation::BringUp, Step::Write(offset::GERRORN, 0x1fd)),
        Rule::InactiveErrorToggled,
    );
}

#[test]
fn writes_ones_to_reserved_bits_of_cr0() {
    caught(
        stories::streams::nothing,
        || append(Operation::BringUp, Step::Write(offset::CR0, 0x21f)),
        Rule::ReservedRegisterBits,
    );
}

#[test]
fn writes_an_identification_register() {
    caught(
        stories::streams::nothing,
        || append(Operation::BringUp, Step::Write(offset::IDR1, 0)),
        Rule::ReadOnlyWritten,
    );
}

#[test]
fn places_the_event_queue_in_page_0() {
    let edit = || {
        Edit::replace(Operation::BringUp, write_to(offset::EVENTQ_PROD), |_| {
            Step::Write(0xa8, 0)
        })
    };
    caught(stories::streams::nothing, edit, Rule::UnknownRegister);
}

#[test]
fn has_its_command_queue_at_an_unaligned_base() {
    let edit = || {
        Edit::replace(Operation::BringUp, write_to(offset::CMDQ_BASE), |step| {
            match step {
                // 32 entries want 512 bytes.
                Step::Write64(at, value) => Step::Write64(*at, value + 0x40),
                step => *step,
            }
        })
    };
    caught(stories::streams::nothing, edit, Rule::TableMisaligned);
}

#[test]
fn has_its_stream_table_at_an_unaligned_base() {
    let edit = || {
        Edit::replace(Operation::BringUp, write_to(offset::STRTAB_BASE), |step| {
            match step {
                // 64 entries want 4 KiB.
                Step::Write64(at, value) => Step::Write64(*at, value + 0x400),
                step => *step,
            }
        })
    };
    caught(stories::streams::nothing, edit, Rule::TableMisaligned);
}

#[test]
fn starts_with_a_producer_that_cannot_be() {
    let edit = || {
        Edit::replace(Operation::BringUp, write_to(offset::CMDQ_CONS), |_| {
            // With PROD = 0 there would be 63 of 32 entries in use.
            Step::Write(offset::CMDQ_CONS, 1)
        })
    };
    caught(stories::streams::nothing, edit, Rule::QueueInconsistent);
}

#[test]
fn switches_off_while_a_stream_has_ats() {
    let edit = || {
        // Neither the device nor the stream is told.
        Edit::forget(
            Operation::ChangeAts,
            |step| matches!(step, Step::Store(_, value) if value >> 28 & 3 == 0),
        )
    };
    caught(
        stories::machine::the_smmu_goes_off,
        edit,
        Rule::DisabledWithAts,
    );
}

#[test]
fn allows_ats_while_translated_traffic_is_not_checked() {
    let rogue = Rogue {
        setup: full,
        story: stories::machine::ats_comes_and_goes,
        edit: || {
            Edit::replace(
                Operation::BringUp,
                |step| {
                    matches!(step, Step::Write(offset::CR0, value)
                        | Step::AwaitRegister(offset::CR0ACK, _, value) if value & 0x10 != 0)
                },
                |step| match step {
                    Step::Write(at, value) => Step::Write(*at, value & !0x10),
                    Step::AwaitRegister(at, mask, value) => {
                        Step::AwaitRegister(*at, *mask, value & !0x10)
                    }
                    step => *step,
                },
            )
        },
        mark: Mark::Breaks(Rule::AtsWithoutCheck),
    };
    rogue.is_caught_in(Where::Hoarding);
}

#[test]
fn reads_a_record_without_a_barrier() {
    caught(
        stories::machine::a_fault_is_read,
        || Edit::forget(Operation::TakeEvent, |step| matches!(step, Step::Observe)),
        Rule::ReadWithoutBarrier,
    );
}

#[test]
fn gives_a_record_back_without_a_barrier() {
    caught(
        stories::machine::a_fault_is_read,
        || Edit::forget(Operation::TakeEvent, |step| matches!(step, Step::Release)),
        Rule::GivenBackWithoutBarrier,
    );
}

#[test]
fn does_not_acknowledge_an_overflow() {
    let rogue = Rogue {
        setup: full,
        story: stories::machine::an_event_queue_overflows,
        edit: || {
            Edit::replace(
                Operation::TakeEvent,
                write_to(offset::EVENTQ_CONS),
                |step| match step {
                    Step::Write(at, value) => Step::Write(*at, value & !(1 << 31)),
                    step => *step,
                },
            )
        },
        mark: Mark::Surprises("an overflow is told that is over"),
    };
    rogue.is_caught_in(Where::Hoarding);
}

#[test]
fn writes_two_registers_at_once() {
    let edit = || {
        Edit::replace(Operation::BringUp, write_to(offset::CMDQ_PROD), |_| {
            Step::Write64(offset::CMDQ_PROD, 0)
        })
    };
    caught(stories::streams::nothing, edit, Rule::RegisterAccessSize);
}

#[test]
fn chooses_a_reserved_cacheability() {
    let edit = || {
        Edit::replace(Operation::BringUp, write_to(offset::CR1), |_| {
            Step::Write(offset::CR1, 0xd77)
        })
    };
    caught(stories::streams::nothing, edit, Rule::ReservedEncoding);
}

#[test]
fn splits_the_stream_table_where_no_table_is_split() {
    let rogue = Rogue {
        setup: arrays,
        story: stories::streams::nothing,
        edit: || {
            Edit::replace(
                Operation::BringUp,
                write_to(offset::STRTAB_BASE_CFG),
                |_| {
                    // SPLIT = 7.
                    Step::Write(offset::STRTAB_BASE_CFG, 1 << 16 | 7 << 6 | 8)
                },
            )
        },
        mark: Mark::Breaks(Rule::ReservedEncoding),
    };
    rogue.is_caught_in(Where::Hoarding);
}

#[test]
fn does_not_say_how_queues_and_tables_are_cached() {
    caught(
        stories::streams::nothing,
        || Edit::forget(Operation::BringUp, write_to(offset::CR1)),
        Rule::UnknownAtReset,
    );
}

#[test]
fn trusts_the_consumer_index_of_the_reset() {
    caught(
        stories::streams::nothing,
        || Edit::forget(Operation::BringUp, write_to(offset::CMDQ_CONS)),
        Rule::UnknownAtReset,
    );
}

#[test]
fn trusts_the_caches_of_the_reset() {
    caught(
        stories::streams::nothing,
        || {
            Edit::forget(Operation::BringUp, |step| {
                matches!(step, Step::Command([0x04, 31]))
            })
        },
        Rule::UnknownAtReset,
    );
}

#[test]
fn trusts_the_tlb_of_the_reset() {
    caught(
        stories::streams::nothing,
        || {
            Edit::forget(Operation::BringUp, |step| {
                matches!(step, Step::Command([0x30, 0]))
            })
        },
        Rule::UnknownAtReset,
    );
}

#[test]
fn leaves_the_gate_open_while_the_smmu_is_off() {
    let rogue = Rogue {
        setup: full,
        story: stories::machine::the_smmu_of_a_plain_stream_goes_off,
        edit: || Edit::forget(Operation::BringUp, write_to(offset::GBPA)),
        mark: Mark::Surprises("a write that was not allowed landed"),
    };
    rogue.is_caught_in(Where::Hoarding);
}

#[test]
fn takes_over_without_forgetting_the_entries() {
    caught(
        stories::machine::the_smmu_is_taken_over,
        || {
            Edit::forget(Operation::BringUp, |step| {
                matches!(step, Step::Command([0x04, 31]))
            })
        },
        Rule::FrameStillCached,
    );
}

#[test]
fn takes_over_without_flushing_the_tlb() {
    caught(
        stories::machine::the_smmu_is_taken_over,
        || {
            Edit::forget(Operation::BringUp, |step| {
                matches!(step, Step::Command([0x30, 0]))
            })
        },
        Rule::FrameStillCached,
    );
}
