//! The numbers of every operation, by equality: `cargo test -p portcullis-proof --test numbers --
//! --nocapture` prints them.
//!
//! Counts of all SMMUs together, in the polite mode, in which an SMMU is done as soon as it is told,
//! so that no access to a register is one of waiting longer.

mod scenes;

use portcullis_proof::Counts;
use scenes::{Scene, bystander_loses, measure};
use smmu_model::Mode;

/// What an operation costs.
struct Row {
    what: Scene,
    /// Bindings, devices, streams, ranges: what there are many of.
    n: usize,
    /// SMMUs.
    k: usize,
    ats: bool,
    cost: Counts,
}

const fn row(what: Scene, n: usize, k: usize, ats: bool, cost: [u64; 6]) -> Row {
    let [syncs, waits, commands, accesses, allocations, evictions] = cost;
    Row {
        what,
        n,
        k,
        ats,
        cost: Counts {
            syncs,
            waits,
            commands,
            accesses,
            allocations,
            evictions,
        },
    }
}

/// In the order of [`Counts`]: SYNCs, waits, commands, register accesses, allocations, evictions.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(Scene::Attach, 1, 1, false, [2, 2, 4, 6, 5, 0]),
    row(Scene::Attach, 8, 1, false, [2, 2, 18, 6, 26, 0]),
    row(Scene::Attach, 8, 4, false, [8, 8, 24, 24, 29, 0]),
    row(Scene::Attach, 8, 8, false, [16, 16, 32, 48, 33, 0]),
    row(Scene::BindFirst, 1, 1, false, [1, 1, 2, 3, 1, 0]),
    row(Scene::BindFurther, 1, 1, false, [2, 2, 4, 6, 0, 0]),
    row(Scene::BindAgain, 1, 1, false, [0, 0, 0, 0, 0, 0]),
    row(Scene::UnbindNotLast, 1, 1, false, [0, 0, 0, 0, 0, 0]),
    row(Scene::UnbindLast, 1, 1, false, [1, 1, 2, 3, 0, 0]),
    row(Scene::UnbindLast, 1, 1, true, [2, 1, 4, 3, 0, 0]),
    row(Scene::UnbindReleased, 1, 1, true, [1, 1, 2, 3, 0, 0]),
    row(Scene::Release, 1, 1, false, [2, 1, 4, 11, 0, 0]),
    row(Scene::Release, 8, 1, false, [2, 1, 11, 11, 0, 0]),
    row(Scene::Release, 64, 1, false, [2, 1, 67, 11, 0, 0]),
    row(Scene::Release, 512, 1, false, [2, 3, 515, 17, 0, 0]),
    row(Scene::Release, 8, 4, false, [8, 4, 20, 44, 0, 0]),
    row(Scene::Release, 64, 4, false, [8, 4, 76, 44, 0, 0]),
    row(Scene::Release, 512, 4, false, [8, 4, 524, 44, 0, 0]),
    row(Scene::Release, 8, 8, false, [16, 8, 32, 88, 0, 0]),
    row(Scene::Release, 64, 8, false, [16, 8, 88, 88, 0, 0]),
    row(Scene::Release, 512, 8, false, [16, 8, 536, 88, 0, 0]),
    row(Scene::Release, 8, 1, true, [3, 1, 20, 11, 0, 0]),
    row(Scene::Release, 64, 8, true, [24, 8, 160, 88, 0, 0]),
    row(Scene::ReleaseAll, 8, 1, false, [3, 2, 20, 14, 0, 0]),
    row(Scene::ReleaseAll, 64, 1, false, [3, 2, 132, 14, 0, 0]),
    row(Scene::ReleaseAll, 64, 4, true, [16, 8, 788, 56, 0, 0]),
    row(Scene::Detach, 1, 1, false, [1, 1, 2, 3, 0, 0]),
    row(Scene::Detach, 8, 1, false, [1, 1, 9, 3, 0, 0]),
    row(Scene::Detach, 8, 4, true, [8, 4, 32, 12, 0, 0]),
    row(Scene::GuestDeath, 1, 1, false, [2, 1, 4, 3, 0, 0]),
    row(Scene::GuestDeath, 8, 1, false, [2, 1, 11, 3, 0, 0]),
    row(Scene::GuestDeath, 64, 1, false, [2, 1, 67, 3, 0, 0]),
    row(Scene::GuestDeath, 64, 4, false, [8, 4, 76, 12, 0, 0]),
    row(Scene::GuestDeath, 64, 8, false, [16, 8, 88, 24, 0, 0]),
    row(Scene::GuestDeath, 64, 8, true, [24, 8, 224, 24, 0, 0]),
    row(Scene::GuestDeath, 512, 8, false, [16, 8, 536, 24, 0, 0]),
    row(Scene::HandOver, 1, 1, false, [3, 3, 6, 9, 0, 0]),
    row(Scene::HandOver, 8, 1, false, [3, 3, 27, 9, 0, 0]),
    row(Scene::HandOver, 8, 1, true, [4, 4, 44, 12, 0, 0]),
    row(Scene::ChangeHands, 1, 1, false, [3, 3, 6, 9, 4, 0]),
    row(Scene::ChangeHands, 8, 1, false, [3, 3, 27, 9, 25, 0]),
    row(Scene::ChangeHands, 8, 1, true, [4, 3, 44, 9, 25, 0]),
    row(Scene::Map, 1, 1, false, [0, 0, 0, 0, 0, 0]),
    row(Scene::Unmap, 1, 1, false, [2, 1, 4, 3, 0, 0]),
    row(Scene::Unmap, 64, 1, false, [2, 1, 4, 3, 0, 0]),
    row(Scene::Unmap, 64, 8, false, [16, 8, 32, 24, 0, 0]),
    row(Scene::Unmap, 64, 1, true, [3, 1, 7, 3, 0, 0]),
    row(Scene::UnmapStage2, 1, 1, false, [1, 1, 2, 3, 0, 0]),
    row(Scene::UnmapStage2, 64, 8, false, [8, 8, 16, 24, 0, 0]),
    row(Scene::Protect, 64, 1, false, [2, 1, 4, 3, 0, 0]),
    row(Scene::Invalidate, 1, 1, false, [1, 1, 2, 3, 0, 0]),
    row(Scene::Invalidate, 8, 1, false, [1, 1, 9, 3, 0, 0]),
    row(Scene::Invalidate, 64, 1, false, [1, 1, 2, 3, 0, 0]),
    row(Scene::Invalidate, 64, 8, true, [16, 8, 32, 24, 0, 0]),
];

#[test]
fn numbers_are_these() {
    println!(
        "{:<46} {:>4} {:>2} {:<4} {:>6} {:>6} {:>9} {:>9} {:>12} {:>10}",
        "what",
        "n",
        "k",
        "ATS",
        "SYNCs",
        "waits",
        "commands",
        "accesses",
        "allocations",
        "evictions"
    );
    let mut wrong = Vec::new();
    for Row {
        what,
        n,
        k,
        ats,
        cost,
    } in ROWS
    {
        let found = measure(*what, (*n, *k, *ats), Mode::Polite);
        let ats_name = if *ats { "ATS" } else { "" };
        println!("{what:<46} {n:>4} {k:>2} {ats_name:<4} {found}");
        if found != *cost {
            wrong.push(format!(
                "{what} n={n} k={k} ATS={ats}: {found:?}, not {cost:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is sent and asked for does not depend on how an SMMU takes it; and one that hoards keeps
/// what it has of others.
#[test]
fn numbers_are_the_same_where_the_smmu_hoards_and_where_it_forgets() {
    for row in ROWS.iter().filter(|row| row.n <= 64) {
        let Row {
            what,
            n,
            k,
            ats,
            cost,
        } = row;
        let sent = |counts: &Counts| (counts.syncs, counts.commands, counts.allocations);
        let found = measure(*what, (*n, *k, *ats), Mode::Forgetful);
        assert_eq!(sent(&found), sent(cost), "{what} n={n} k={k} ATS={ats}");
        let found = measure(*what, (*n, *k, *ats), Mode::Hoarding);
        assert_eq!(sent(&found), sent(cost), "{what} n={n} k={k} ATS={ats}");
        assert_eq!(found.evictions, 0, "{what} n={n} k={k} ATS={ats}");
    }
}

/// Section 8 of the design: SYNCs on each SMMU do not depend on how many there are of anything, each
/// SMMU is waited for once, and nobody else loses anything.
#[test]
fn the_numbers_are_those_that_were_to_be_reached() {
    for row in ROWS {
        let Row {
            what, k, ats, cost, ..
        } = row;
        let more = u64::from(*ats);
        let syncs = match what {
            Scene::BindAgain | Scene::UnbindNotLast | Scene::Map => 0,
            Scene::BindFirst | Scene::UnbindReleased | Scene::UnmapStage2 => 1,
            Scene::UnbindLast | Scene::Detach | Scene::Invalidate => 1 + more,
            Scene::Attach | Scene::BindFurther => 2,
            Scene::Release | Scene::GuestDeath | Scene::Unmap | Scene::Protect => 2 + more,
            Scene::ReleaseAll | Scene::HandOver | Scene::ChangeHands => 3 + more,
        };
        let on_each = *k as u64;
        assert_eq!(cost.syncs, syncs * on_each, "{what}");
        assert_eq!(cost.evictions, 0, "{what}");
        // A train is longer than the queue, of 256 commands, in one row: 3 pieces.
        let is_long = cost.commands / on_each > 256;
        let one_wait = matches!(
            what,
            Scene::Release | Scene::GuestDeath | Scene::Unmap | Scene::Invalidate
        );
        if one_wait && !is_long {
            assert_eq!(cost.waits, on_each, "{what}");
        }
        // Nothing that ends asks for memory.
        let begins = matches!(
            what,
            Scene::Attach | Scene::BindFirst | Scene::BindFurther | Scene::ChangeHands
        );
        assert!(begins || cost.allocations == 0, "{what}");
    }
}

/// What the bystander loses is seen: its entry and what was cached through it, and its translation.
#[test]
fn what_a_bystander_loses_is_counted() {
    assert_eq!(bystander_loses(), [0, 2, 1, 3]);
}
