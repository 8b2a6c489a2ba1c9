//! Invalidating what a guest changed in its own tables.

use core::fmt;

use super::Smmu;
use super::error::CommandError;
use super::ranges::Parts;
use super::steps::{Step, Steps, Stopped};
use crate::addr::Iova;
use crate::hw::Platform;
use crate::id::{Asid, Vmid};
use crate::spec::command::{Command, TlbiRange, TlbiScope};
use crate::spec::vmsa::Granule;

/// More commands than this, and all of the address space is invalidated instead: reading a command
/// costs the SMMU about what a miss costs, and the queue is everybody's.
const MAX_COMMANDS: usize = 32;

/// What a guest changed in the tables of one address space.
#[derive(Clone, Debug)]
pub struct Stage1Stale<R> {
    /// The VM.
    pub vmid: Vmid,
    /// The address space.
    pub asid: Asid,
    /// Where: the first address of each run and its length in bytes, whatever the guest says. What
    /// is empty is passed over, what runs past the top ends there.
    pub ranges: R,
    /// The size of its pages.
    pub granule: Granule,
    /// Whether tables went as well.
    pub scope: TlbiScope,
    /// The guest may have marked entries global. By address they are reached all the same (§4.4.2.4);
    /// where that takes too many commands, all of the VM goes instead of the address space.
    pub has_globals: bool,
}

/// An invalidation that is under way, from [`Smmu::begin_invalidate_stage1`].
#[must_use = "nothing is confirmed until the invalidation was finished"]
pub struct PendingStage1<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    steps: Steps,
}

/// What of an invalidation the SMMU did not confirm; the first of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage1Error {
    /// That it forgot the translations.
    Translations(CommandError),
    /// It did, but not that devices forgot theirs: with [`CommandError::AtcTimeout`] ask each alone
    /// ([`Smmu::atc_invalidate_singly`]).
    DeviceCaches(CommandError),
}

impl fmt::Display for Stage1Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Translations(error) => {
                write!(f, "translations are not confirmed to be gone: {error}")
            }
            Self::DeviceCaches(error) => {
                write!(
                    f,
                    "translations in devices are not confirmed to be gone: {error}"
                )
            }
        }
    }
}

impl core::error::Error for Stage1Error {}

/// What makes an SMMU forget it: by range where there are ranges (IDR3.RIL), else one by one;
/// everything if that takes too many. One small value, since trains copy it often.
#[derive(Clone)]
struct Commands<R> {
    vmid: Vmid,
    asid: Asid,
    scope: TlbiScope,
    log2_granule: u8,
    has_ranges: bool,
    ranges: R,
    /// What is left of the run that is being said.
    run: Parts,
    /// Says everything, in the place of all runs.
    everything: Option<Command>,
}

impl<R: Iterator<Item = (Iova, u64)> + Clone> Stage1Stale<R> {
    fn commands(&self, has_ranges: bool) -> Commands<R> {
        let log2_granule = self.granule.log2_bytes();
        let precise = Commands {
            vmid: self.vmid,
            asid: self.asid,
            scope: self.scope,
            log2_granule,
            has_ranges,
            ranges: self.ranges.clone(),
            run: Parts::new(0, 0, log2_granule),
            everything: None,
        };
        if precise.clone().nth(MAX_COMMANDS).is_none() {
            return precise;
        }
        let everything = if self.has_globals {
            Command::tlbi_nh_all(self.vmid)
        } else {
            Command::tlbi_nh_asid(self.vmid, self.asid)
        };
        Commands {
            everything: Some(everything),
            ..precise
        }
    }
}

impl<R: Iterator<Item = (Iova, u64)>> Commands<R> {
    /// The next piece of the run: as much as one command says.
    fn piece(&mut self) -> Option<Command> {
        let (vmid, asid, scope) = (self.vmid, Some(self.asid), self.scope);
        if !self.has_ranges {
            // A command for each granule: what size leaves have only the guest knows.
            let base = self.run.take_one()?;
            return Some(Command::tlbi_nh_va(vmid, asid, Iova::new(base), scope));
        }
        let part = self.run.next()?;
        let range = TlbiRange {
            base: Iova::new(part.base),
            num: part.num,
            scale: part.scale,
            log2_granule: self.log2_granule,
        };
        // One granule at scale 0 is the reserved range; the plain command says the same.
        let by_range = Command::tlbi_nh_va_range(vmid, asid, range, scope);
        Some(by_range.unwrap_or(Command::tlbi_nh_va(vmid, asid, range.base, scope)))
    }
}

impl<R: Iterator<Item = (Iova, u64)>> Iterator for Commands<R> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        if let Some(everything) = self.everything.take() {
            // Nothing is left to say.
            self.ranges.by_ref().for_each(drop);
            return Some(everything);
        }
        loop {
            if let Some(command) = self.piece() {
                return Some(command);
            }
            // In whole granules.
            let (first, size_bytes) = self.ranges.next()?;
            if size_bytes != 0 {
                let last = first.as_u64().saturating_add(size_bytes - 1) >> self.log2_granule;
                let first = first.as_u64() >> self.log2_granule;
                let base = first << self.log2_granule;
                self.run = Parts::new(base, last - first + 1, self.log2_granule);
            }
        }
    }
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Has the SMMU forget what a guest changed in its tables, and then devices, with the commands
    /// that `devices` says ([`Command::atc_inv_range`] and its like): 1 SYNC, and 1 more with
    /// devices, whatever the number of ranges.
    ///
    /// Waits only for room in the queue. Both lists are asked several times, and say the same each
    /// time.
    pub fn begin_invalidate_stage1<R>(
        &self,
        stale: &Stage1Stale<R>,
        devices: impl Iterator<Item = Command> + Clone,
    ) -> PendingStage1<'_, 'p, P>
    where
        R: Iterator<Item = (Iova, u64)> + Clone,
    {
        let commands = stale.commands(self.features.has_range_invalidation);
        PendingStage1 {
            smmu: self,
            steps: self.begin_steps([].into_iter(), commands, devices),
        }
    }
}

impl<P: Platform> PendingStage1<'_, '_, P> {
    /// Waits for the last SYNC, at most [`sync_timeout_us`](super::Settings::sync_timeout_us).
    ///
    /// On success no transaction of the address space uses what was there before, here or in devices
    /// that answered, and those that did are complete.
    ///
    /// # Errors
    ///
    /// Both [`Stage1Error`]s.
    pub fn finish(self) -> Result<(), Stage1Error> {
        self.smmu
            .finish_steps(self.steps)
            .map_err(|Stopped { at, error }| match at {
                Step::Configuration | Step::Translations => Stage1Error::Translations(error),
                Step::DeviceCaches => Stage1Error::DeviceCaches(error),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// The words for these runs, of VMID 7 and ASID 5.
    fn words(has_ranges: bool, runs: &[(u64, u64)], granule: Granule) -> Vec<[u64; 2]> {
        let stale = Stage1Stale {
            vmid: Vmid::new(7),
            asid: Asid::new(5),
            ranges: runs.iter().map(|&(at, size)| (Iova::new(at), size)),
            granule,
            scope: TlbiScope::Walk,
            has_globals: false,
        };
        stale.commands(has_ranges).map(|it| it.words()).collect()
    }

    const VA: u64 = 0x0005_0007_0000_0012;

    /// By hand from §4.4.2.4: opcode 0x12, VMID at [47:32], ASID at [63:48].
    #[test]
    fn without_ranges_each_granule_has_a_command_until_everything_is_cheaper() {
        let run = |runs: &[(u64, u64)]| words(false, runs, Granule::Kib4);
        assert_eq!(run(&[(0x5000, 1)]), [[VA, 0x5000]]);
        assert_eq!(run(&[(0x5fff, 2)]), [[VA, 0x5000], [VA, 0x6000]]);
        assert_eq!(run(&[(0x5000, 0), (0x9000, 4)]), [[VA, 0x9000]]);
        assert_eq!(run(&[(0, 0x1000), (0x8000, 0x1_f000)]).len(), 32);
        assert_eq!(
            run(&[(0, 0x1000), (0x8000, 0x2_0000)]),
            [[0x0005_0007_0000_0011, 0]]
        );
        assert_eq!(run(&[(0, u64::MAX)]), [[0x0005_0007_0000_0011, 0]]);
        assert_eq!(run(&[]), Vec::<[u64; 2]>::new());
        let top = 0xffff_ffff_ffff_f000;
        assert_eq!(run(&[(top, u64::MAX)]), [[VA, top]], "it ends at the top");
    }

    /// By hand from §4.4.1.1: NUM at [16:12], SCALE at [24:20], TG at [11:10] of the second word.
    #[test]
    fn with_ranges_a_run_of_any_length_is_a_few_commands() {
        let range =
            |at: u64, num: u64, scale: u64, tg: u64| [VA | num << 12 | scale << 20, at | tg << 10];
        let run = |size, granule| words(true, &[(0x1_0000, size)], granule);
        assert_eq!(run(0x1000, Granule::Kib4), [[VA, 0x1_0000]]);
        assert_eq!(run(0x2000, Granule::Kib4), [range(0x1_0000, 1, 0, 1)]);
        // 1 + 2 * 32 pages.
        assert_eq!(
            run(65 << 12, Granule::Kib4),
            [[VA, 0x1_0000], range(0x1_1000, 1, 5, 1)]
        );
        assert_eq!(run(32 << 14, Granule::Kib16), [range(0x1_0000, 0, 5, 2)]);
        assert_eq!(run(3 << 16, Granule::Kib64), [range(0x1_0000, 2, 0, 3)]);
        // All there is takes more commands than it is worth.
        let all = words(true, &[(0, u64::MAX)], Granule::Kib4);
        assert_eq!(all, [[0x0005_0007_0000_0011, 0]]);
        assert_eq!(words(true, &[(0, 1 << 48)], Granule::Kib4).len(), 2);
    }
}
