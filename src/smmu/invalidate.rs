//! Invalidating translations, on every SMMU that may hold them.

use super::Smmu;
use super::error::CommandError;
use super::gather::{Gathered, StaleRange, Unsynced};
use super::probe::Features;
use super::ranges::Parts;
use super::steps::{Steps, Stopped};
use crate::addr::Ipa;
use crate::hw::{Barrier, Platform};
use crate::id::Vmid;
use crate::spec::command::{Command, TlbiRange, TlbiScope};

/// How many SMMUs are told of an invalidation before the first is waited for; more follow in lots.
pub const MAX_SMMUS: usize = 16;

/// More commands than this, and the whole VMID is invalidated instead: reading a command costs the
/// SMMU about what a miss costs, and the queue is everybody's.
const MAX_COMMANDS: usize = 32;

/// A change that some SMMU did not confirm.
#[must_use = "what the change set free may still be in use"]
#[derive(Debug)]
pub struct NotConfirmed<T> {
    /// The change, still to be confirmed.
    pub change: Unsynced<T>,
    /// Which of the SMMUs, by its place in the list; the first of several.
    pub smmu: usize,
    /// Why.
    pub error: CommandError,
}

/// Makes every one of `smmus` forget what `change` made stale, and gives what it set free.
///
/// 1 SYNC each. Where streams nest stage 1 in this stage 2, what combines both goes too, in the same
/// train: 2 SYNCs, or 1 that takes everything of the VMID. `smmus` are all those on which the VMID
/// has been used since it was last clean there. All are told before any is waited for, in lots of
/// [`MAX_SMMUS`]. On success no transaction uses what was removed, and those that did are complete
/// (§4.7.3). No device may have cached translations: else [`invalidate_with`].
///
/// # Errors
///
/// [`NotConfirmed`], with the change in it: nothing that it set free may be used. The other SMMUs
/// were told and waited for all the same.
pub fn invalidate<P: Platform, T>(
    smmus: &[&Smmu<'_, P>],
    change: Unsynced<T>,
) -> Result<T, NotConfirmed<T>> {
    invalidate_with(smmus.iter().copied(), change, |_| [].into_iter())
}

/// As [`invalidate`], and has devices forget what they cached, with the commands that `devices` says
/// for each SMMU: 1 SYNC more where there are any, in the same train (§4.5.1: behind the SYNC of the
/// translations, or a device could be granted again what is going).
///
/// They are [`Smmu::atc_inv_everything`] of each stream that nests in this stage 2, for which inputs
/// led there only its guest knows; and of one with stage 2 alone at least the ranges. Asked several
/// times, they are the same each time.
///
/// # Errors
///
/// [`NotConfirmed`]; with [`CommandError::AtcTimeout`] some device did not answer: the others may be
/// found by asking each alone ([`Smmu::atc_invalidate_singly`]), and the change is to be confirmed
/// once more without those that were fenced.
pub fn invalidate_with<'s, 'p: 's, P: Platform + 'p, T, D>(
    smmus: impl Iterator<Item = &'s Smmu<'p, P>>,
    change: Unsynced<T>,
    devices: impl Fn(&'s Smmu<'p, P>) -> D,
) -> Result<T, NotConfirmed<T>>
where
    D: Iterator<Item = Command> + Clone,
{
    if change.gathered().is_nothing() {
        return Ok(change.open());
    }
    let mut smmus = smmus.enumerate().fuse();
    let mut failed = None;
    loop {
        let mut trains = [const { None }; MAX_SMMUS];
        for (slot, (place, smmu)) in trains.iter_mut().zip(&mut smmus) {
            let train = Train::submit(smmu, change.gathered(), devices(smmu));
            *slot = Some((place, smmu, train));
        }
        let is_last = trains.iter().any(Option::is_none);
        for (place, smmu, train) in trains.into_iter().flatten() {
            if let Err(error) = train.wait(smmu, || devices(smmu)) {
                failed = failed.or(Some((place, error)));
            }
        }
        if is_last {
            break;
        }
    }
    match failed {
        None => Ok(change.open()),
        Some((smmu, error)) => Err(NotConfirmed {
            change,
            smmu,
            error,
        }),
    }
}

/// What one SMMU was told.
#[must_use = "nothing is confirmed until it was waited for"]
pub(crate) struct Train {
    steps: Steps,
    vmid: Vmid,
    /// Entries that combine both stages may be left.
    leaves_combined: bool,
    is_retired: bool,
}

impl Train {
    pub(super) fn submit<P: Platform>(
        smmu: &Smmu<'_, P>,
        gathered: &Gathered,
        devices: impl Iterator<Item = Command> + Clone,
    ) -> Self {
        let vmid = gathered.vmid();
        let batch = Batch::new(gathered, smmu.features());
        let has_more = !batch.takes_everything && smmu.can_combine(vmid);
        // A SYNC between: a walk in the middle of the two could combine what is going with what
        // stays (`smmuv3.md` 7.4).
        let combined = has_more.then(|| Command::tlbi_nh_all(vmid));
        Self {
            steps: smmu.begin_steps(
                batch.commands().iter().copied(),
                combined.into_iter(),
                devices,
            ),
            vmid,
            leaves_combined: !batch.takes_everything && !has_more,
            is_retired: gathered.is_retired(),
        }
    }

    /// Waits for the SMMU; `devices` are those that it was told with.
    ///
    /// # Errors
    ///
    /// Every [`CommandError`].
    pub(crate) fn wait<P: Platform, D: Iterator<Item = Command> + Clone>(
        self,
        smmu: &Smmu<'_, P>,
        devices: impl Fn() -> D,
    ) -> Result<(), CommandError> {
        let told = |Stopped { error, .. }| error;
        smmu.finish_steps(self.steps).map_err(told)?;
        if self.leaves_combined {
            // Asked again now that what stage 2 alone had is gone: a stream may have begun to nest
            // meanwhile, and combined it. The look comes after the SYNC was seen.
            smmu.io.barrier(Barrier::Observe);
            if smmu.can_combine(self.vmid) {
                let combined = [Command::tlbi_nh_all(self.vmid)].into_iter();
                let steps = smmu.begin_steps([].into_iter(), combined, devices());
                smmu.finish_steps(steps).map_err(told)?;
            }
        }
        if self.is_retired {
            smmu.nested.forget(self.vmid);
        }
        Ok(())
    }
}

impl<P: Platform> Smmu<'_, P> {
    /// Whether it may hold translations of `vmid` that combine both stages.
    fn can_combine(&self, vmid: Vmid) -> bool {
        self.features.has_stage1 && self.nested.has(vmid)
    }
}

/// The commands of one invalidation.
struct Batch {
    commands: [Command; MAX_COMMANDS],
    count: usize,
    takes_everything: bool,
}

/// The batch is full.
struct Full;

impl Batch {
    /// What makes an SMMU with `features` forget all of `gathered`, and as little else as it can.
    fn new(gathered: &Gathered, features: &Features) -> Self {
        let all = Command::tlbi_s12_vmall(gathered.vmid());
        let mut batch = Self {
            commands: [all; MAX_COMMANDS],
            count: 0,
            takes_everything: false,
        };
        let precise = match gathered.ranges() {
            Some(ranges) => ranges
                .iter()
                .try_for_each(|range| batch.add(gathered, range, features)),
            None => Err(Full),
        };
        if let Err(Full) = precise {
            batch.commands[0] = all;
            batch.count = 1;
            batch.takes_everything = true;
        }
        batch
    }

    fn commands(&self) -> &[Command] {
        &self.commands[..self.count]
    }

    fn push(&mut self, command: Command) -> Result<(), Full> {
        let slot = self.commands.get_mut(self.count).ok_or(Full)?;
        *slot = command;
        self.count += 1;
        Ok(())
    }

    fn add(
        &mut self,
        gathered: &Gathered,
        range: &StaleRange,
        features: &Features,
    ) -> Result<(), Full> {
        let scope = if range.removed_tables() {
            TlbiScope::Walk
        } else {
            TlbiScope::Leaf
        };
        if features.has_range_invalidation {
            let log2_granule = gathered.granule().log2_bytes();
            self.add_ranges(gathered.vmid(), range, scope, log2_granule)
        } else {
            self.add_singles(
                gathered.vmid(),
                range,
                scope,
                range.log2_step(gathered.granule()),
            )
        }
    }

    /// One command for each leaf that there may be.
    fn add_singles(
        &mut self,
        vmid: Vmid,
        range: &StaleRange,
        scope: TlbiScope,
        log2_step: u8,
    ) -> Result<(), Full> {
        let first = range.base().as_u64() >> log2_step;
        let last = (range.base().as_u64() + (range.size_bytes() - 1)) >> log2_step;
        if last - first >= MAX_COMMANDS as u64 {
            return Err(Full);
        }
        for step in first..=last {
            self.push(Command::tlbi_s2_ipa(
                vmid,
                Ipa::new(step << log2_step),
                scope,
            ))?;
        }
        Ok(())
    }

    fn add_ranges(
        &mut self,
        vmid: Vmid,
        range: &StaleRange,
        scope: TlbiScope,
        log2_granule: u8,
    ) -> Result<(), Full> {
        let granules = range.size_bytes() >> log2_granule;
        for part in Parts::new(range.base().as_u64(), granules, log2_granule) {
            let range = TlbiRange {
                base: Ipa::new(part.base),
                num: part.num,
                scale: part.scale,
                log2_granule,
            };
            // One granule at scale 0 is the reserved range; the plain command says the same.
            let command = Command::tlbi_s2_ipa_range(vmid, range, scope)
                .unwrap_or(Command::tlbi_s2_ipa(vmid, range.base, scope));
            self.push(command)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smmu::Removed;
    use crate::smmu::probe::{Implementation, StallModel};
    use crate::spec::vmsa::Granule;
    use std::vec::Vec;

    const VMID: Vmid = Vmid::new(7);

    fn features(has_range_invalidation: bool) -> Features {
        Features {
            has_stage1: true,
            says_coherent: true,
            has_ats: false,
            has_split_ats: false,
            records_ats_errors: false,
            has_pri: false,
            has_el2: false,
            has_two_level_streams: true,
            has_two_level_cds: false,
            has_range_invalidation,
            has_msi: false,
            stalls: StallModel::Terminate,
            aborts_only: true,
            asid_bits: 16,
            vmid_bits: 16,
            stream_bits: 16,
            substream_bits: 0,
            log2_max_commands: 8,
            log2_max_events: 8,
            bbm_level: 2,
            output_bits: 48,
            needs_flush_of_new_tables: false,
            has_16k_granule: true,
            has_64k_granule: true,
            stall_max: 0,
            minor_revision: 2,
            implementation: Implementation {
                implementer: 0,
                product: 0,
                variant: 0,
                revision: 0,
            },
        }
    }

    /// The words of the commands for `pages` pages of 4 KiB from `base`.
    fn commands(has_ranges: bool, base: u64, pages: u64, removed: Removed) -> Vec<[u64; 2]> {
        const PAGES: u8 = 1 << 3;
        let mut gathered = Gathered::nothing(VMID, Granule::Kib4);
        gathered.add(Ipa::new(base), pages << 12, PAGES, removed);
        let batch = Batch::new(&gathered, &features(has_ranges));
        batch.commands().iter().map(Command::words).collect()
    }

    /// By hand from §4.4: opcode 0x2a, VMID at [47:32], Leaf bit 0 of the second word.
    #[test]
    fn without_ranges_each_page_has_a_command_until_the_whole_vmid_is_cheaper() {
        let page = |at: u64| [0x7_0000_002a, at | 1];
        assert_eq!(commands(false, 0x5000, 1, Removed::Leaves), [page(0x5000)]);
        assert_eq!(
            commands(false, 0x5000, 3, Removed::Leaves),
            [page(0x5000), page(0x6000), page(0x7000)]
        );
        assert_eq!(commands(false, 0, 32, Removed::Leaves).len(), 32);
        assert_eq!(
            commands(false, 0, 33, Removed::Leaves),
            [[0x7_0000_0028, 0]]
        );
    }

    #[test]
    fn where_tables_went_the_walk_caches_are_dropped_too() {
        assert_eq!(
            commands(false, 0x5000, 1, Removed::Tables),
            [[0x7_0000_002a, 0x5000]]
        );
    }

    /// By hand from §4.4.1.1: TG 1 at [11:10] of the second word; NUM at [16:12], SCALE at [24:20].
    #[test]
    fn with_ranges_a_number_of_pages_is_told_in_digits_of_five_bits() {
        let range = |at: u64, num: u64, scale: u64| {
            [0x7_0000_002a | num << 12 | scale << 20, at | 1 << 10 | 1]
        };
        // One page is the plain command: the range would be the reserved one.
        assert_eq!(
            commands(true, 0x5000, 1, Removed::Leaves),
            [[0x7_0000_002a, 0x5001]]
        );
        assert_eq!(
            commands(true, 0x5000, 31, Removed::Leaves),
            [range(0x5000, 30, 0)]
        );
        assert_eq!(commands(true, 0, 32, Removed::Leaves), [range(0, 0, 5)]);
        // 1 + 2 * 32 + 3 * 1024 pages.
        assert_eq!(
            commands(true, 0, 1 + 64 + 3072, Removed::Leaves),
            [
                [0x7_0000_002a, 1],
                range(0x1000, 1, 5),
                range(0x4_1000, 2, 10)
            ]
        );
    }

    /// Every page of the range, and none behind it, for every number of pages.
    #[test]
    fn ranges_cover_what_they_are_for_and_no_more() {
        for pages in 1..3000_u64 {
            let mut next = 0x10_0000_u64;
            for [low, high] in commands(true, next, pages, Removed::Leaves) {
                assert_eq!(high & !0xfff, next, "{pages} pages");
                let (num, scale) = (low >> 12 & 0x1f, low >> 20 & 0x1f);
                next += ((num + 1) << scale) << 12;
            }
            assert_eq!(next, 0x10_0000 + (pages << 12), "{pages} pages");
        }
    }
}
