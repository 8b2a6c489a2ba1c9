//! What a guest's memory is changes, and what its spaces' tables say changes, while devices use both.

use super::books::Books;
use super::error::{Fence, SpaceError};
use super::ids::{GuestId, MAX_SMMUS, SmmuId, SmmuSet, SpaceId};
use super::iommu::Iommu;
use super::stage2::{PageSizes, Stage2Error, View};
use super::walk::{BoundCd, Spaces};
use crate::addr::{Iova, Ipa, Pa};
use crate::hw::Platform;
use crate::smmu::{CommandError, Smmu, Stage1Error, Stage1Stale, Unsynced};
use crate::spec::command::{Command, TlbiScope};
use crate::spec::vmsa::{Attributes, Granule, Permissions};

/// How often a change of permissions is made ready before it is refused: other CPUs undid it.
const MAX_SPLITS: u32 = 8;

/// How many ranges one [`Iommu::invalidate_list`] takes.
pub const MAX_RANGES: usize = 64;

impl<'p, P: Platform> Iommu<'p, P> {
    /// Maps memory of the host's into a guest, for devices (and CPUs that walk the same tables).
    ///
    /// As [`Stage2::map`](super::stage2::Stage2::map): when it returns, walkers find it.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`HostsTables`](SpaceError::HostsTables), [`Stage2`](SpaceError::Stage2),
    /// [`NoFrames`](SpaceError::NoFrames), [`Quota`](SpaceError::Quota), [`Busy`](SpaceError::Busy);
    /// [`SmmuDown`](SpaceError::SmmuDown) where something was unmapped that an SMMU did not confirm.
    pub fn map(
        &self,
        guest: GuestId,
        ipa: Ipa,
        pa: Pa,
        size_bytes: u64,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<(), SpaceError> {
        self.map_for(guest, View::Both, ipa, pa, size_bytes, attributes, sizes)
    }

    /// As [`map`](Self::map), for the walkers in `view`, as
    /// [`Stage2::map_for`](super::stage2::Stage2::map_for).
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map).
    #[expect(
        clippy::too_many_arguments,
        reason = "those of `map`, and whose view it is"
    )]
    pub fn map_for(
        &self,
        guest: GuestId,
        view: View,
        ipa: Ipa,
        pa: Pa,
        size_bytes: u64,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<(), SpaceError> {
        let (memory, _visit) = self.join(guest, None, |books| {
            books.refuse_lost(guest, ipa, size_bytes)?;
            Ok(books.running(guest)?.memory.clone())
        })?;
        let change = memory
            .lock(self.platform())
            .stage2()?
            .map_flushed(view, ipa, pa, size_bytes, attributes, sizes)
            .map_err(SpaceError::of_stage2)?;
        // Nothing is owed, and nothing sent, save where SMMUs must be told of new tables.
        self.confirm(guest, change).map_err(|(error, _)| error)
    }

    /// Takes memory away from a guest: on return no device reaches it, by whatever it cached.
    ///
    /// 1 SYNC on each SMMU on which the guest's tag is live, 2 where streams of it nest, one more
    /// with ATS, for any range; all at once. Where it ends within a block, at BBML 1, the block is
    /// split first, which takes as many again twice; nothing that stays mapped faults.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map). [`NotConfirmed`](SpaceError::NotConfirmed),
    /// [`CachesKept`](SpaceError::CachesKept): it is unmapped in memory, the tables that led to it
    /// stay out of use, and what could still reach it is fenced as it says. After
    /// [`NotConfirmed`](SpaceError::NotConfirmed) nothing is mapped there, and no device of the guest
    /// attached behind that SMMU, until it is [recovered](Self::recover).
    pub fn unmap(&self, guest: GuestId, ipa: Ipa, size_bytes: u64) -> Result<(), SpaceError> {
        let (memory, visit) = self.join(guest, None, |books| {
            Ok(books.running(guest)?.memory.clone())
        })?;
        let unmapped = memory
            .lock(self.platform())
            .stage2()?
            .unmap(ipa, size_bytes);
        let change = match unmapped {
            Ok(change) => change,
            Err(Stage2Error::SplitNeeded { .. }) => {
                drop(visit);
                drop(memory);
                self.split(guest, ipa, size_bytes)?;
                return self.unmap(guest, ipa, size_bytes);
            }
            Err(why) => return Err(SpaceError::of_stage2(why)),
        };
        match self.confirm(guest, change) {
            Ok(tables) => {
                memory.lock(self.platform()).reclaim(tables);
                drop(visit);
                Ok(())
            }
            Err((error, change)) => {
                memory.lock(self.platform()).lose(change);
                self.books().lose_range(guest, ipa, size_bytes);
                drop(visit);
                Err(error)
            }
        }
    }

    /// Makes the ends of a range ends of leaves, while devices use them: two invalidations, between
    /// which nothing else of the guest's memory changes (§3.21.1, BBML 1).
    fn split(&self, guest: GuestId, ipa: Ipa, size_bytes: u64) -> Result<(), SpaceError> {
        let (memory, _visit) =
            self.alone(guest, |books| Ok(books.running(guest)?.memory.clone()))?;
        let mut memory = memory.lock(self.platform());
        let splitting = memory
            .stage2()?
            .split(ipa, size_bytes)
            .map_err(SpaceError::of_stage2)?;
        // An abandoned split leaves blocks that are slow, and as they were mapped.
        let splitting = self.confirm(guest, splitting).map_err(|(error, _)| error)?;
        match self.confirm(guest, splitting.finish()) {
            Ok(tables) => {
                memory.reclaim(tables);
                Ok(())
            }
            Err((error, change)) => {
                memory.lose(change);
                Err(error)
            }
        }
    }

    /// Gives mapped memory other permissions; on return no device uses those it had.
    ///
    /// SYNCs as [`unmap`](Self::unmap); at BBML 1 the split is needed for parts of groups too.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap).
    pub fn protect(
        &self,
        guest: GuestId,
        ipa: Ipa,
        size_bytes: u64,
        permissions: Permissions,
    ) -> Result<(), SpaceError> {
        let mut splits = 0;
        loop {
            let (memory, visit) = self.join(guest, None, |books| {
                Ok(books.running(guest)?.memory.clone())
            })?;
            let protected =
                memory
                    .lock(self.platform())
                    .stage2()?
                    .protect(ipa, size_bytes, permissions);
            match protected {
                Ok(change) => return self.confirm(guest, change).map_err(|(error, _)| error),
                // Another CPU may take a group apart between a split and this.
                Err(Stage2Error::SplitNeeded { .. }) if splits < MAX_SPLITS => {
                    drop(visit);
                    drop(memory);
                    splits += 1;
                    self.split(guest, ipa, size_bytes)?;
                }
                Err(why) => return Err(SpaceError::of_stage2(why)),
            }
        }
    }

    /// Has every SMMU on which a guest's tag is live forget what a change made stale, and its
    /// devices too; gives what the change set free, or what was not confirmed.
    pub(super) fn confirm<T>(
        &self,
        guest: GuestId,
        change: Unsynced<T>,
    ) -> Result<T, (SpaceError, Unsynced<T>)> {
        let live_on = self.books().guests.get(guest.key()).map(|it| it.live_on);
        let live_on = live_on.unwrap_or(SmmuSet::EMPTY);
        if change.gathered().is_nothing() {
            return Ok(change.open());
        }
        let mut trains = [const { None }; MAX_SMMUS];
        for (id, smmu) in self.each(live_on) {
            let devices = self.device_caches(guest, id, smmu);
            trains[id.index()] = Some(smmu.begin_invalidate(change.gathered(), devices));
        }
        let mut failed = None;
        for (id, smmu) in self.each(live_on) {
            let Some(train) = trains[id.index()].take() else {
                continue;
            };
            let outcome = match train.wait(smmu, || self.device_caches(guest, id, smmu)) {
                Ok(()) => Ok(()),
                Err(CommandError::AtcTimeout) => self.ask_guest_singly(guest, id, smmu),
                Err(error) => Err(self.lose_guest_on(guest, id, error)),
            };
            if let Err(error) = outcome {
                failed.get_or_insert(error);
            }
        }
        match failed {
            None => Ok(change.open()),
            Some(error) => Err((error, change)),
        }
    }

    /// What has a guest's devices behind an SMMU drop what they cached.
    fn device_caches(
        &self,
        guest: GuestId,
        id: SmmuId,
        smmu: &'p Smmu<'p, P>,
    ) -> impl Iterator<Item = Command> + Clone + use<'_, 'p, P> {
        let devices = self.devices_of_guest(guest);
        self.stopping(id, devices)
            .filter(|it| it.has_ats)
            .flat_map(|it| smmu.atc_inv_everything(it.stream))
    }

    /// A device did not drop its translations: who is silent again is fenced.
    fn ask_guest_singly(
        &self,
        guest: GuestId,
        id: SmmuId,
        smmu: &Smmu<'p, P>,
    ) -> Result<(), SpaceError> {
        let found = self.ask_singly(id, smmu, self.devices_of_guest(guest));
        match found {
            Ok(()) => Ok(()),
            Err((SpaceError::CachesKept { device, .. }, _)) => {
                let mut fence = Fence::NotNeeded;
                for device in self.behind(id, self.devices_of_guest(guest)) {
                    let has_kept = self.books().device(device)?.kept_caches;
                    if has_kept {
                        fence = fence.and(self.fence_silent(id, device));
                    }
                }
                Err(SpaceError::CachesKept { device, fence })
            }
            Err((error, _)) => Err(error),
        }
    }

    /// An SMMU did not confirm that it forgot something of a guest's memory.
    fn lose_guest_on(&self, guest: GuestId, id: SmmuId, error: CommandError) -> SpaceError {
        let fence = self.fence_devices(id, self.behind(id, self.devices_of_guest(guest)));
        let error = SpaceError::NotConfirmed {
            smmu: id,
            error,
            fence,
        };
        self.books().lose_memory(guest, id, error);
        error
    }

    /// Says that the guest changed its own tables of a space: on return no device uses what it had
    /// cached of `[va, va + size_bytes)`.
    ///
    /// # Errors
    ///
    /// As [`invalidate_list`](Self::invalidate_list).
    pub fn invalidate(
        &self,
        guest: GuestId,
        space: SpaceId,
        va: Iova,
        size_bytes: u64,
    ) -> Result<(), SpaceError> {
        self.invalidate_list(guest, space, &[(va, size_bytes)])
    }

    /// As [`invalidate`](Self::invalidate), for several ranges: 1 SYNC on each SMMU on which the
    /// space's tag is live, 2 with ATS, for any number of them.
    ///
    /// Other ranges and other spaces keep what is cached of them, save where the list is so long
    /// that it costs more than it keeps.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`NoSuchSpace`](SpaceError::NoSuchSpace), [`ForeignSpace`](SpaceError::ForeignSpace),
    /// [`Released`](SpaceError::Released), [`Full`](SpaceError::Full) for more than
    /// [`MAX_RANGES`], [`Busy`](SpaceError::Busy). [`NotConfirmed`](SpaceError::NotConfirmed),
    /// [`CachesKept`](SpaceError::CachesKept): the guest must not reuse what it unmapped; the space
    /// is as before, its devices there are fenced.
    pub fn invalidate_list(
        &self,
        guest: GuestId,
        space: SpaceId,
        ranges: &[(Iova, u64)],
    ) -> Result<(), SpaceError> {
        if ranges.len() > MAX_RANGES {
            return Err(SpaceError::Full);
        }
        let ((stale, live_on), _visit) = self.join(guest, Some(space), |books| {
            let vmid = books.running(guest)?.vmid;
            let space = books.live(guest, space)?;
            // Of two halves with granules of their own, the smaller one reaches both.
            let granules = space.walk.halves().map(|half| half.granule);
            let stale = Stage1Stale {
                vmid,
                asid: space.walk.asid,
                ranges: ranges.iter().copied(),
                granule: granules
                    .min_by_key(|granule| granule.log2_bytes())
                    .unwrap_or(Granule::Kib4),
                // The guest does not say whether tables went.
                scope: TlbiScope::Walk,
                has_globals: !space.promises_no_global,
            };
            Ok((stale, space.live_on))
        })?;
        let spaces = Spaces::One(space);
        let mut trains = [const { None }; MAX_SMMUS];
        for (id, smmu) in self.each(live_on) {
            let devices = smmu.atc_invalidations(self.cds(spaces, id).map(BoundCd::releasing));
            trains[id.index()] = Some(smmu.begin_invalidate_stage1(&stale, devices));
        }
        let mut outcome = Ok(());
        for (id, _) in self.each(live_on) {
            let Some(train) = trains[id.index()].take() else {
                continue;
            };
            let found = match train.finish() {
                Ok(()) => continue,
                Err(Stage1Error::DeviceCaches(CommandError::AtcTimeout)) => {
                    self.find_silent(spaces, id)
                }
                Err(Stage1Error::Translations(error) | Stage1Error::DeviceCaches(error)) => {
                    Err(error)
                }
            };
            let error = match found {
                Ok(None) => continue,
                Ok(Some((device, fence))) => SpaceError::CachesKept { device, fence },
                Err(error) => SpaceError::NotConfirmed {
                    smmu: id,
                    error,
                    fence: self.fence_devices(id, self.cds(spaces, id).map(|cd| cd.device)),
                },
            };
            outcome = outcome.and(Err(error));
        }
        outcome
    }
}

impl<P: Platform> Books<'_, P> {
    /// An SMMU did not confirm that it forgot something of a guest's memory, as `error` says.
    pub(super) fn lose_memory(&mut self, guest: GuestId, smmu: SmmuId, error: SpaceError) {
        let recoveries = self.recoveries;
        if let Ok(guest) = self.guest(guest) {
            guest.unproven.insert(smmu);
            guest.lost_at = recoveries;
            guest.lost_by = Some(error);
        }
    }

    /// Notes that memory was unmapped, if an SMMU did not confirm that.
    fn lose_range(&mut self, guest: GuestId, ipa: Ipa, size_bytes: u64) {
        let Ok(guest) = self.guest(guest) else { return };
        if guest.unproven.is_empty() {
            // Devices kept it, which are fenced until they are reset.
            return;
        }
        let (first, end) = (ipa.as_u64(), ipa.as_u64().saturating_add(size_bytes));
        let (low, high) = guest.lost_range.unwrap_or((first, end));
        guest.lost_range = Some((low.min(first), high.max(end)));
    }

    /// Refuses to map over what an SMMU may still translate to something else (§3.21.1).
    fn refuse_lost(&mut self, guest: GuestId, ipa: Ipa, size_bytes: u64) -> Result<(), SpaceError> {
        let guest = self.running(guest)?;
        let end = ipa.as_u64().saturating_add(size_bytes);
        let is_lost = guest
            .lost_range
            .is_some_and(|(low, high)| ipa.as_u64() < high && low < end);
        match guest.unproven.iter().next() {
            Some(smmu) if is_lost => Err(SpaceError::SmmuDown { smmu }),
            _ => Ok(()),
        }
    }
}
