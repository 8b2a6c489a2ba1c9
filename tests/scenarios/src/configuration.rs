//! Which machine a story is played on.

use std::fmt;

use portcullis::spec::ste::Ats;
use smmu_model::{Identity, StallModel};

/// A machine, as far as stories tell machines apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// One SMMU, or two.
    pub smmus: usize,
    /// What devices do with ATS.
    pub ats: Ats,
    /// What the SMMUs do with faults (IDR0.STALL_MODEL).
    pub stalls: StallModel,
    /// Whether CD tables have two levels (IDR0.CD2L).
    pub has_two_levels: bool,
    /// Whether ASIDs and VMIDs have 16 bits, or 8.
    pub has_wide_tags: bool,
    /// Whether there is range invalidation (IDR3.RIL).
    pub has_ranges: bool,
}

const SMMUS: [usize; 2] = [1, 2];
const ATS: [Ats; 3] = [Ats::Off, Ats::Split, Ats::Full];
const STALLS: [StallModel; 3] = [
    StallModel::StallAndTerminate,
    StallModel::TerminateOnly,
    StallModel::StallForced,
];
const EITHER: [bool; 2] = [false, true];

impl Configuration {
    /// All that there are: 112.
    ///
    /// ATS where everything stalls is none of them: a translation request cannot stall, and the
    /// library refuses the pair by name (`tests/embedder/tests/ats.rs`).
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for smmus in SMMUS {
            for (ats, stalls) in ATS
                .iter()
                .flat_map(|ats| STALLS.map(|stalls| (*ats, stalls)))
            {
                if ats != Ats::Off && stalls == StallModel::StallForced {
                    continue;
                }
                for has_two_levels in EITHER {
                    for has_wide_tags in EITHER {
                        for has_ranges in EITHER {
                            all.push(Self {
                                smmus,
                                ats,
                                stalls,
                                has_two_levels,
                                has_wide_tags,
                                has_ranges,
                            });
                        }
                    }
                }
            }
        }
        all
    }

    /// Its place among [`all`](Self::all).
    ///
    /// # Panics
    ///
    /// If it is none of them.
    pub fn number(&self) -> usize {
        let mut all = Self::all().into_iter();
        all.position(|it| it == *self).expect("it is one of all")
    }

    /// The SMMUs that a machine of this configuration has.
    pub fn identity(&self) -> Identity {
        Identity {
            cd2l: self.has_two_levels,
            asid16: self.has_wide_tags,
            vmid16: self.has_wide_tags,
            ril: self.has_ranges,
            ..Identity::with_stalls(self.stalls)
        }
    }

    /// Whether a device may declare that it bears to wait: not one with ATS, which is PCIe.
    pub fn has_stalls(&self) -> bool {
        self.ats == Ats::Off && self.stalls != StallModel::TerminateOnly
    }

    /// Whether late traffic of a space that is parked raises events, because nothing can be quiet.
    pub fn is_loud(&self) -> bool {
        self.stalls == StallModel::StallForced
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ats = match self.ats {
            Ats::Off => "no ATS",
            Ats::Split => "split ATS",
            Ats::Full => "full ATS",
        };
        let stalls = match self.stalls {
            StallModel::StallAndTerminate => 0,
            StallModel::TerminateOnly => 1,
            StallModel::StallForced => 2,
        };
        let levels = if self.has_two_levels { 2 } else { 1 };
        let tags = if self.has_wide_tags { 16 } else { 8 };
        let ranges = if self.has_ranges { "RIL" } else { "no RIL" };
        write!(
            f,
            "{} SMMU, {ats}, STALL_MODEL {stalls}, {levels}-level CDs, {tags}-bit tags, {ranges}",
            self.smmus
        )
    }
}

/// Numbers that a seed decides: splitmix64.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// The draws of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `end`, which is not 0.
    pub const fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_the_issue_asks_for_and_no_two_alike() {
        let all = Configuration::all();
        // 2 numbers of SMMUs; ATS off with 3 stall models, split and full with 2; 2 × 2 × 2.
        assert_eq!(all.len(), 2 * (3 + 2 * 2) * 8);
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{one}");
        }
    }

    #[test]
    fn draws_differ_and_come_again() {
        let draw = |seed| {
            let mut draws = Draws::new(seed);
            [draws.below(112), draws.below(112), draws.below(112)]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
