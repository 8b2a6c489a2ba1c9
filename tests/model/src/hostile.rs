//! What the model chooses where the architecture leaves a choice.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// How hostile the model is, always within the law.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Caches only what was used, acts at once, sees every store at once.
    Polite,
    /// Caches nothing at all, otherwise polite.
    Forgetful,
    /// Prefetches whatever is reachable, never forgets what was not exactly invalidated, performs
    /// commands only at the SYNC and in the reverse order; a store stays unseen until its barrier.
    Hoarding,
    /// Draws every choice, from this seed.
    Chaotic {
        /// Decides every choice; the same seed and the same driver give the same run.
        seed: u64,
    },
}

/// The choices of one SMMU or one memory.
#[derive(Debug)]
pub(crate) struct Choices {
    mode: Mode,
    random: Pcg64Mcg,
}

impl Choices {
    /// Choices in `mode`; `stream` keeps the draws of several SMMUs apart.
    pub(crate) fn new(mode: Mode, stream: u64) -> Self {
        let seed = match mode {
            Mode::Chaotic { seed } => seed,
            _ => 0,
        };
        let mixed = seed
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self {
            mode,
            random: Pcg64Mcg::seed_from_u64(mixed),
        }
    }

    pub(crate) const fn is_chaotic(&self) -> bool {
        matches!(self.mode, Mode::Chaotic { .. })
    }

    /// Whether anything is done ahead of need.
    pub(crate) const fn looks_ahead(&self) -> bool {
        matches!(self.mode, Mode::Hoarding | Mode::Chaotic { .. })
    }

    /// Whether what was just used is remembered.
    pub(crate) fn remembers(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Hoarding => true,
            Mode::Forgetful => false,
            Mode::Chaotic { .. } => self.one_in(2),
        }
    }

    /// Whether something reachable is fetched ahead of need.
    pub(crate) fn prefetches(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Forgetful => false,
            Mode::Hoarding => true,
            Mode::Chaotic { .. } => self.one_in(2),
        }
    }

    /// Whether a consumed command is performed at once.
    pub(crate) fn acts_at_once(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Forgetful => true,
            Mode::Hoarding => false,
            Mode::Chaotic { .. } => self.one_in(4),
        }
    }

    /// Which of `count` commands in progress, oldest first, is performed next.
    pub(crate) fn next_of(&mut self, count: usize) -> Option<usize> {
        let last = count.checked_sub(1)?;
        Some(match self.mode {
            Mode::Polite | Mode::Forgetful => 0,
            Mode::Hoarding => last,
            Mode::Chaotic { .. } => self.below(count as u64) as usize,
        })
    }

    /// The order in which `count` unordered things are done: indices, first to last.
    pub(crate) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        match self.mode {
            Mode::Polite | Mode::Forgetful => {}
            Mode::Hoarding => order.reverse(),
            Mode::Chaotic { .. } => {
                for last in (1..count).rev() {
                    let other = self.below(last as u64 + 1) as usize;
                    order.swap(last, other);
                }
            }
        }
        order
    }

    /// How long an acknowledgement takes, in microseconds.
    pub(crate) fn acknowledge_us(&mut self) -> u64 {
        match self.mode {
            Mode::Polite | Mode::Forgetful => 0,
            Mode::Hoarding => 2,
            Mode::Chaotic { .. } => self.below(8),
        }
    }

    /// How long a SYNC takes at least, in microseconds.
    pub(crate) fn sync_us(&mut self) -> u64 {
        self.acknowledge_us()
    }

    /// How long a stalled transaction that was told to end may still linger, in microseconds.
    pub(crate) fn termination_us(&mut self) -> u64 {
        self.acknowledge_us()
    }

    /// Whether a stalled transaction is tried again before it is answered.
    pub(crate) fn retries_early(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Forgetful => false,
            Mode::Hoarding => true,
            Mode::Chaotic { .. } => self.one_in(2),
        }
    }

    /// Whether an event is written with the abort that it tells of; else by the next SYNC at the
    /// latest.
    pub(crate) fn reports_at_once(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Forgetful => true,
            Mode::Hoarding => false,
            Mode::Chaotic { .. } => self.one_in(2),
        }
    }

    /// Whether the SMMU stops consuming commands for a while.
    pub(crate) fn pauses(&mut self) -> bool {
        self.one_in(8)
    }

    /// Whether a posted write lingers on its way, until the next SYNC at the latest.
    pub(crate) fn lingers(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Forgetful => false,
            Mode::Hoarding => true,
            Mode::Chaotic { .. } => self.one_in(2),
        }
    }

    /// Whether a lookup that hits two entries ends in F_TLB_CONFLICT, where it may.
    pub(crate) fn reports_conflict(&mut self) -> bool {
        self.one_in(2)
    }

    /// Whether an event is merged with an identical unread record, where it may be.
    pub(crate) fn merges(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Forgetful => false,
            Mode::Hoarding => true,
            Mode::Chaotic { .. } => self.one_in(2),
        }
    }

    /// Whether a table descriptor is kept with its stage 2 combined in.
    pub(crate) fn combines(&mut self) -> bool {
        match self.mode {
            Mode::Polite | Mode::Forgetful => false,
            Mode::Hoarding => true,
            Mode::Chaotic { .. } => self.one_in(2),
        }
    }

    /// Whether a draw with chance one in `count` came out; only the chaotic mode draws.
    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.is_chaotic() && self.below(count) == 0
    }

    /// A number below `end`, which is not 0; always 0 outside the chaotic mode.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        if self.is_chaotic() {
            // The bias of a remainder of 64 bits is far below what a test could notice.
            self.random.next_u64() % end
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_choices() {
        let draw = |seed| {
            let mut choices = Choices::new(Mode::Chaotic { seed }, 1);
            (0..32).map(|_| choices.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn an_order_is_a_permutation() {
        let mut choices = Choices::new(Mode::Chaotic { seed: 3 }, 0);
        let mut order = choices.order(20);
        order.sort_unstable();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
        let mut hoarding = Choices::new(Mode::Hoarding, 0);
        assert_eq!(hoarding.order(3), [2, 1, 0]);
    }
}
