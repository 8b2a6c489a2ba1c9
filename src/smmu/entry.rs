//! How an entry that the SMMU may be reading is changed: word by word, never showing a mix.
//!
//! An STE or CD is eight 64-bit words. The SMMU reads each word whole, but the words in any order
//! and at any distance in time (§3.21.3), so a change of two words that both count can be seen half
//! done. Which bits count depends on the entry itself (*used bits*): an entry that aborts uses none
//! but those that say so. That gives the shortest safe path between any two entries:
//!
//! 1. store what the current entry does not look at;
//! 2. if one word is left that differs in what counts, store it: this is the switch;
//!    if several are, store a word 0 that aborts first, and everything becomes step 1.
//!
//! After each step: barrier, CFGI, SYNC, by the caller, before the next (§3.21.3.1: whatever the
//! SMMU cached before, also of an entry that was not valid, is gone then).
//!
//! No path is shorter: what counts in the target and is not there yet takes a step that is not the
//! switch, unless it is all in the word of the switch; and with two such words that count now, no
//! first store can leave the entry meaning either of the two.
//!
//! Each step follows from what is in memory and the goal alone. So several entries that start alike
//! move together, one SYNC a step, and nothing need be remembered in between.
//!
//! Words that neither entry looks at keep their contents: clearing them would cost a SYNC and
//! change nothing.

use crate::spec::cd::{Cd, CdState};
use crate::spec::ste::Ste;

/// An entry of eight words whose meaning decides which of its bits count.
pub(super) trait Entry: Copy {
    /// The entry that lies in memory as `words`.
    fn from_words(words: [u64; 8]) -> Self;

    /// The entry as it lies in memory.
    fn words(&self) -> &[u64; 8];

    /// For each word, the bits that the SMMU may look at, given the rest of the entry.
    fn used_bits(&self) -> [u64; 8];

    /// A word 0 that makes it abort, whatever the other words say.
    const INTERRUPTED: u64;
}

impl Entry for Ste {
    fn from_words(words: [u64; 8]) -> Self {
        Self::from_words(words)
    }

    fn words(&self) -> &[u64; 8] {
        self.words()
    }

    fn used_bits(&self) -> [u64; 8] {
        self.used_bits()
    }

    /// Without an event: that nothing gets through meanwhile is no fault of the device.
    const INTERRUPTED: u64 = Self::ABORT_WORD;
}

impl Entry for Cd {
    fn from_words(words: [u64; 8]) -> Self {
        Self::from_words(words)
    }

    fn words(&self) -> &[u64; 8] {
        self.words()
    }

    fn used_bits(&self) -> [u64; 8] {
        self.used_bits()
    }

    const INTERRUPTED: u64 = Self::invalid_word(CdState::Changing);
}

/// What it takes to change entries, asked before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Path {
    /// How many CMD_SYNCs, each waited for before the next step.
    pub syncs: u8,
    /// Traffic of at least one entry aborts in between, that neither the old entry nor the new one
    /// aborts.
    pub interrupts: bool,
}

impl Path {
    /// Both changes at once, a step of each before every CMD_SYNC.
    pub(super) const fn beside(self, other: Self) -> Self {
        Self {
            syncs: if self.syncs > other.syncs {
                self.syncs
            } else {
                other.syncs
            },
            interrupts: self.interrupts || other.interrupts,
        }
    }
}

/// The path from `current` to `target`.
pub(super) fn path<E: Entry>(mut current: E, target: E) -> Path {
    let mut path = Path::default();
    for _ in 0..MAX_STEPS {
        let mut words = *current.words();
        match next_step(current, target) {
            Step::Done => break,
            Step::Prepare { words: new, .. } => words = new,
            Step::Switch { index, value } => words[index] = value,
            Step::Interrupt { value } => {
                words[0] = value;
                path.interrupts = true;
            }
        }
        path.syncs += 1;
        current = E::from_words(words);
    }
    path
}

/// The most steps that there are between any two entries: interrupt, prepare, switch.
pub(super) const MAX_STEPS: usize = 3;

/// What to store next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing: the entry is the target in all that counts.
    Done,
    /// These words, each by one store, in any order; the entry means what it meant.
    Prepare {
        /// The new contents.
        words: [u64; 8],
        /// Bit n: store word n.
        mask: u8,
    },
    /// This one word: the entry means the target from then on.
    Switch {
        /// Which word.
        index: usize,
        /// Its new contents.
        value: u64,
    },
    /// A word 0 that aborts, until the switch.
    Interrupt {
        /// The new word 0.
        value: u64,
    },
}

/// The next step from `current`, which is in memory, to `target`.
pub(super) fn next_step<E: Entry>(current: E, target: E) -> Step {
    let (now, goal) = (current.words(), target.words());
    let now_used = current.used_bits();
    let goal_used = target.used_bits();
    // What each word would be if every bit that the current entry ignores were the target's.
    let prepared: [u64; 8] =
        core::array::from_fn(|i| (now[i] & now_used[i]) | (goal[i] & !now_used[i]));
    let mut differing = (0..8).filter(|&i| (prepared[i] ^ goal[i]) & goal_used[i] != 0);
    let critical = differing.next();
    if differing.next().is_some() {
        return Step::Interrupt {
            value: E::INTERRUPTED,
        };
    }
    let mask = (0..8)
        .filter(|&i| Some(i) != critical && (now[i] ^ prepared[i]) & goal_used[i] != 0)
        .fold(0, |mask, i| mask | 1 << i);
    match (mask, critical) {
        (0, None) => Step::Done,
        (0, Some(index)) => Step::Switch {
            index,
            value: goal[index],
        },
        _ => Step::Prepare {
            words: prepared,
            mask,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// An entry made for the tests: bit 0 of word 0 is V, bit 1 says whether words 1 and 2 count.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Toy([u64; 8]);

    impl Entry for Toy {
        const INTERRUPTED: u64 = 0;

        fn from_words(words: [u64; 8]) -> Self {
            Self(words)
        }

        fn words(&self) -> &[u64; 8] {
            &self.0
        }

        fn used_bits(&self) -> [u64; 8] {
            match self.0[0] & 0b11 {
                0b01 => [0b11, 0, 0, 0, 0, 0, 0, 0],
                0b11 => [0b11, u64::MAX, u64::MAX, 0, 0, 0, 0, 0],
                _ => [1, 0, 0, 0, 0, 0, 0, 0],
            }
        }
    }

    const OFF: Toy = Toy([0; 8]);
    const ABORT: Toy = Toy([0b01, 0, 0, 0, 0, 0, 0, 0]);

    fn open(a: u64, b: u64) -> Toy {
        Toy([0b11, a, b, 0, 0, 0, 0, 0])
    }

    /// What the hardware makes of an entry: its used bits and nothing else.
    fn meaning(entry: Toy) -> [u64; 8] {
        let used = entry.used_bits();
        core::array::from_fn(|i| entry.0[i] & used[i])
    }

    /// Walks to `target`, and asserts that every mix of the words before and after a step means
    /// either of the two. Answers how many steps it took and whether it was interrupted.
    fn walk(mut current: Toy, target: Toy) -> (usize, bool) {
        let mut was_interrupted = false;
        for steps in 0..=MAX_STEPS {
            let before = current;
            match next_step(current, target) {
                Step::Done => {
                    assert_eq!(meaning(current), meaning(target));
                    return (steps, was_interrupted);
                }
                Step::Prepare { words, mask } => {
                    for (i, word) in words.iter().enumerate() {
                        if mask & 1 << i != 0 {
                            current.0[i] = *word;
                        }
                    }
                    assert_eq!(
                        meaning(before),
                        meaning(current),
                        "preparing changes nothing"
                    );
                }
                Step::Switch { index, value } => current.0[index] = value,
                Step::Interrupt { value } => {
                    current.0[0] = value;
                    was_interrupted = true;
                }
            }
            for mix in 0..=u8::MAX {
                let seen = Toy(core::array::from_fn(|i| {
                    if mix & 1 << i == 0 {
                        before.0[i]
                    } else {
                        current.0[i]
                    }
                }));
                let seen = meaning(seen);
                assert!(
                    seen == meaning(before) || seen == meaning(current),
                    "a mix was shown"
                );
            }
        }
        panic!("it never arrives");
    }

    #[test]
    fn opening_takes_two_steps_and_closing_one() {
        for closed in [OFF, ABORT] {
            assert_eq!(walk(closed, open(5, 6)), (2, false));
            assert_eq!(walk(open(5, 6), closed), (1, false));
        }
    }

    #[test]
    fn what_needs_no_preparation_is_one_step() {
        assert_eq!(walk(OFF, ABORT), (1, false));
        assert_eq!(walk(ABORT, open(0, 0)), (1, false));
        assert_eq!(walk(open(1, 2), open(9, 2)), (1, false));
        assert_eq!(walk(open(1, 2), open(1, 2)), (0, false));
    }

    #[test]
    fn two_words_that_count_take_the_way_round() {
        assert_eq!(walk(open(1, 2), open(3, 4)), (3, true));
    }

    #[test]
    fn every_pair_is_walked_without_a_mix() {
        let values = [0, 1, u64::MAX];
        let mut all: Vec<Toy> = [OFF, ABORT].into();
        for a in values {
            for b in values {
                all.push(open(a, b));
                // Leftovers behind an entry that ignores them.
                all.push(Toy([0b01, a, b, 0, 0, 0, 0, 0]));
                all.push(Toy([0b10, a, b, 0, 0, 0, 0, 0]));
            }
        }
        for &from in &all {
            for &to in &all {
                let (steps, was_interrupted) = walk(from, to);
                assert!(
                    steps <= if was_interrupted { 3 } else { 2 },
                    "{from:?} to {to:?}"
                );
            }
        }
    }
}
