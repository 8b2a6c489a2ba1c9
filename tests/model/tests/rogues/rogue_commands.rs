//! Rogues that use the command queue wrongly.

use smmu_model::bench::SYNC;
use smmu_model::{Rule, offset};

use super::driver::{Driver, Trouble};
use super::gallery::{Mark, Rogue, Story, Where, full, incoherent, short_queue};
use super::step::{Edit, Operation, Step, barrier, claim, clean, command, store, write_to};
use super::stories;

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
fn announces_commands_without_a_barrier() {
    caught(
        stories::streams::a_stream_comes,
        || Edit::forget(Operation::Submit, barrier),
        Rule::CommandNotPublished,
    );
}

#[test]
fn announces_commands_before_the_barrier() {
    caught(
        stories::streams::a_stream_comes,
        || {
            Edit::advance(
                Operation::Submit,
                |step| matches!(step, Step::Announce(_)),
                barrier,
            )
        },
        Rule::CommandNotPublished,
    );
}

#[test]
fn does_not_clean_its_commands_where_the_smmu_does_not_snoop() {
    let rogue = Rogue {
        setup: incoherent,
        story: stories::streams::a_stream_comes,
        edit: || Edit::forget(Operation::Submit, clean),
        mark: Mark::Breaks(Rule::CommandNotPublished),
    };
    rogue.is_caught_in(Where::Hoarding);
}

/// Room for four, by the indices alone: a full queue looks like an empty one.
fn free_by_index(driver: &Driver) -> bool {
    let mask = driver.entries() - 1;
    let used = driver
        .announced()
        .wrapping_sub(driver.read(offset::CMDQ_CONS))
        & mask;
    driver.entries() - used >= 3
}

#[test]
fn takes_a_full_queue_for_an_empty_one() {
    let rogue = Rogue {
        setup: short_queue,
        story: stories::machine::a_train_overfills_the_queue,
        edit: || {
            Edit::replace(
                Operation::Submit,
                |step| matches!(step, Step::AwaitRoom(_)),
                |_| Step::Await(free_by_index),
            )
        },
        mark: Mark::Breaks(Rule::QueueOverrun),
    };
    rogue.is_caught_in(Where::Hoarding);
}

#[test]
fn waits_for_the_index_without_the_wrap_bit() {
    let rogue = Rogue {
        setup: short_queue,
        story: stories::machine::a_train_fills_the_queue,
        edit: || {
            Edit::replace(
                Operation::Finish,
                |step| matches!(step, Step::AwaitConsumed),
                |_| {
                    Step::Await(|driver| {
                        let difference = driver.announced() ^ driver.read(offset::CMDQ_CONS);
                        difference & (driver.entries() - 1) == 0
                    })
                },
            )
        },
        mark: Mark::Breaks(Rule::FrameStillCached),
    };
    rogue.is_caught_in(Where::Hoarding);
}

#[test]
fn does_not_wait_for_its_commands() {
    let edit = || {
        Edit::new(Operation::RetractSte, |steps| {
            let given_back = steps.iter().position(claim);
            given_back.is_some_and(|at| {
                steps.splice(at - 1..at, [Step::Command(SYNC), Step::Submit]);
                true
            })
        })
    };
    caught(
        stories::streams::a_stream_goes,
        edit,
        Rule::FrameStillCached,
    );
}

#[test]
fn changes_a_command_that_it_announced() {
    let edit = || {
        Edit::new(Operation::Submit, |steps| {
            let last = steps.iter().rfind(|step| matches!(step, Step::Enter(..)));
            let Some(Step::Enter(at, words)) = last.copied() else {
                return false;
            };
            // A SYNC that is to signal after all.
            steps.push(Step::Enter(at, [words[0] | 2 << 12, words[1]]));
            true
        })
    };
    caught(
        stories::streams::a_stream_comes,
        edit,
        Rule::QueueEntryTouched,
    );
}

#[test]
fn takes_an_announced_command_back() {
    let edit = || {
        Edit::new(Operation::Submit, |steps| {
            let Some(Step::Announce(producer)) = steps.last().copied() else {
                return false;
            };
            if producer == 0 {
                return false;
            }
            steps.push(Step::Write(offset::CMDQ_PROD, producer - 1));
            true
        })
    };
    caught(
        stories::streams::a_stream_comes,
        edit,
        Rule::ProducerMovedBack,
    );
}

#[test]
fn waits_for_ever() {
    let edit = || {
        Edit::replace(
            Operation::Finish,
            |step| matches!(step, Step::AwaitConsumed),
            |_| {
                Step::Do(|driver| {
                    // For ever is two minutes here.
                    for _ in 0..120 {
                        if driver.outstanding() == 0 {
                            return;
                        }
                        driver.machine.advance(1_000_000);
                    }
                })
            },
        )
    };
    caught(
        stories::machine::a_sync_never_comes,
        edit,
        Rule::WaitUnbounded,
    );
}

#[test]
fn terminates_stalls_of_a_stream_that_still_works() {
    caught(
        stories::streams::a_stream_with_a_stall_goes,
        || Edit::advance(Operation::EndStalls, command(0x45), store),
        Rule::StallTermWhileLive,
    );
}

#[test]
fn never_answers_a_stall() {
    caught_by_surprise(
        stories::streams::a_stall_is_answered,
        || Edit::forget(Operation::EndStalls, command(0x44)),
        "an access is still stalled",
    );
}

#[test]
fn answers_a_stall_under_another_tag() {
    caught_by_surprise(
        stories::streams::a_stall_is_answered,
        || exchange(Operation::EndStalls, 0x44, |words| [words[0], words[1] ^ 1]),
        "an access is still stalled",
    );
}

#[test]
fn retries_a_stall_that_it_means_to_end() {
    caught_by_surprise(
        stories::streams::a_stall_is_answered,
        || {
            exchange(Operation::EndStalls, 0x44, |words| {
                [words[0] & !(1 << 13) | 1 << 12, words[1]]
            })
        },
        "an access is still stalled",
    );
}

#[test]
fn does_not_acknowledge_the_error_that_stopped_the_queue() {
    let rogue = Rogue {
        setup: full,
        story: stories::machine::a_command_error_is_acknowledged,
        edit: || {
            Edit::replace(Operation::Acknowledge, write_to(offset::GERRORN), |_| {
                Step::Write(offset::GERRORN, 0)
            })
        },
        mark: Mark::Ends(Trouble::CommandError(2)),
    };
    rogue.is_caught_in(Where::Hoarding);
}

fn caught_by_surprise(story: Story, edit: fn() -> Edit, surprise: &'static str) {
    let rogue = Rogue {
        setup: full,
        story,
        edit,
        mark: Mark::Surprises(surprise),
    };
    rogue.is_caught_in(Where::Hoarding);
}

/// Writes `words` in place of commands with `opcode`.
fn exchange(operation: Operation, opcode: u64, by: fn([u64; 2]) -> [u64; 2]) -> Edit {
    Edit::replace(operation, command(opcode), move |step| match step {
        Step::Command(words) => Step::Command(by(*words)),
        step => *step,
    })
}

#[test]
fn leaves_ones_in_reserved_bits_of_a_command() {
    caught(
        stories::streams::a_stream_comes,
        || {
            exchange(Operation::PublishSte, 0x03, |words| {
                [words[0] | 1 << 8, words[1]]
            })
        },
        Rule::CommandReservedBits,
    );
}

#[test]
fn invalidates_a_range_of_one_page_without_a_level() {
    // TG without NUM, SCALE and TTL is CERROR_ILL.
    caught(
        stories::tables::stage_2_pages_go,
        || {
            exchange(Operation::Stage2Unmap, 0x2a, |words| {
                [words[0] & !0x1f_f000, words[1] & !0x300]
            })
        },
        Rule::CommandIllegal,
    );
}

#[test]
fn names_a_stream_beyond_those_there_are() {
    caught(
        stories::streams::a_stream_comes,
        || {
            exchange(Operation::PublishSte, 0x03, |words| {
                [words[0] | 1 << 63, words[1]]
            })
        },
        Rule::CommandOutOfRange,
    );
}

#[test]
fn invalidates_on_the_secure_side() {
    caught(
        stories::streams::a_stream_comes,
        || {
            exchange(Operation::PublishSte, 0x03, |words| {
                [words[0] | 1 << 10, words[1]]
            })
        },
        Rule::CommandIllegal,
    );
}
