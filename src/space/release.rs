//! Release: the gate falls.
//!
//! ```text
//! nothing new begins
//! every CD is made quiet: one 64-bit store each       (V=0 where stalls are forced)
//! to every SMMU on which the tag is live, one train, and only then the first wait:
//!     CFGI_CD × N, SYNC, TLBI, SYNC [, ATC_INV × M, SYNC]
//! stalled transactions are answered with abort, queued events are taken
//! parked
//! ```
//!
//! On return no transaction of the PASID reaches memory, and the guest may reuse its pages and
//! tables. Why it takes each step, and no more:
//!
//! - The store is one, so no SMMU sees half a CD (§3.21.3). It is before the commands that make the
//!   SMMU read it afresh (§3.21.3.1); the barrier before CMDQ_PROD pairs with that read.
//! - CFGI_CD completes before the TLBI begins: a walk by the old CD could refill the TLB (§3.21.1).
//! - The TLBI takes everything of the VMID's stage 1, since entries that the guest marked global
//!   carry no ASID (§3.17.1) and EL2 cannot see which are; of the ASID alone where the guest
//!   promised to have none. Other VMIDs lose nothing.
//! - The TLBI completes before ATC_INV: a device that asks again at once would be answered from the
//!   TLB (§3.9.1).
//! - It goes to every SMMU on which the tag has been used since it was clean there, not only where
//!   a binding stands now: what was unbound may have left entries that serve an ASID used again.
//!
//! What holders do does not matter: a handle reserves the number and nothing else.

use super::device::{Device, Reach};
use super::error::{Fence, SpaceError};
use super::ids::{DeviceId, GuestId, MAX_SMMUS, SmmuId, SmmuSet, SpaceId};
use super::iommu::{Iommu, Visit};
use super::walk::{BoundCd, Spaces};
use crate::hw::Platform;
use crate::smmu::{CommandError, Context, Flush, PendingRelease as Train, ReleaseError};

/// A release that was submitted to every SMMU, from [`Iommu::begin_release`].
///
/// Dropping it finishes it, and loses what it says. It is finished once:
///
/// ```compile_fail,E0382
/// # use portcullis::{hw::Platform, space::PendingRelease};
/// fn finish<P: Platform>(pending: PendingRelease<'_, '_, P>, other: PendingRelease<'_, '_, P>) {
///     let _ = pending.finish();
///     let _ = pending.finish();
/// }
/// ```
///
/// ```
/// # use portcullis::{hw::Platform, space::PendingRelease};
/// fn finish<P: Platform>(pending: PendingRelease<'_, '_, P>, other: PendingRelease<'_, '_, P>) {
///     let _ = pending.finish();
///     let _ = other.finish();
/// }
/// ```
///
/// and it is not let go unseen, where the compiler's warning is heeded:
///
/// ```compile_fail
/// # #![deny(unused_must_use)]
/// # use portcullis::{hw::Platform, space::{GuestId, Iommu, SpaceError, SpaceId}};
/// # type Done = Result<(), SpaceError>;
/// fn end<P: Platform>(iommu: &Iommu<'_, P>, guest: GuestId, space: SpaceId) -> Done {
///     iommu.begin_release(guest, space)?;
///     Ok(())
/// }
/// ```
///
/// ```
/// # #![deny(unused_must_use)]
/// # use portcullis::{hw::Platform, space::{GuestId, Iommu, SpaceError, SpaceId}};
/// # type Done = Result<(), SpaceError>;
/// fn end<P: Platform>(iommu: &Iommu<'_, P>, guest: GuestId, space: SpaceId) -> Done {
///     iommu.begin_release(guest, space)?.finish()?;
///     Ok(())
/// }
/// ```
#[must_use = "nothing is confirmed until the release was finished"]
pub struct PendingRelease<'a, 'p, P: Platform> {
    iommu: &'a Iommu<'p, P>,
    space: SpaceId,
    guest: GuestId,
    smmus: SmmuSet,
    trains: Trains<'p, P>,
    visit: Option<Visit<'a, 'p, P>>,
}

type Trains<'p, P> = [Option<Train<'p, 'p, P>>; MAX_SMMUS];

impl<'p, P: Platform> Iommu<'p, P> {
    /// Takes a space away from all devices, whatever its holders do.
    ///
    /// 2 SYNCs on each SMMU on which it was used, 3 with ATS, for any number of bindings; all SMMUs
    /// at once. On return nothing of it reaches memory, and the guest may reuse its pages and
    /// tables; it is parked until the last handle is dropped. Allocates nothing, waits for no
    /// holder, calls nobody back; takes at most the time-out of a CMD_SYNC for each SMMU, and what
    /// another CPU's operation on the same space takes.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`NoSuchSpace`](SpaceError::NoSuchSpace), [`ForeignSpace`](SpaceError::ForeignSpace);
    /// [`AlreadyReleased`](SpaceError::AlreadyReleased) once that release is done;
    /// [`Busy`](SpaceError::Busy): nothing new begins on the space, release it again.
    /// [`NotConfirmed`](SpaceError::NotConfirmed), [`CachesKept`](SpaceError::CachesKept): it is
    /// parked all the same, and its number is lost. Where the fence is
    /// [`Failed`](Fence::Failed), and only there, devices may still reach its pages.
    pub fn release(&self, guest: GuestId, space: SpaceId) -> Result<(), SpaceError> {
        self.begin_release(guest, space)?.finish()
    }

    /// The first phase of [`release`](Self::release): up to the first wait.
    ///
    /// # Errors
    ///
    /// As [`release`](Self::release), save those that [`PendingRelease::finish`] tells.
    pub fn begin_release(
        &self,
        guest: GuestId,
        space: SpaceId,
    ) -> Result<PendingRelease<'_, 'p, P>, SpaceError> {
        self.close(guest, space)?;
        let ((flush, live_on), visit) = self.join(guest, Some(space), |books| {
            books.begin_release(guest, space)
        })?;
        Ok(PendingRelease {
            iommu: self,
            space,
            guest,
            smmus: live_on,
            trains: self.submit_release(Spaces::One(space), live_on, flush),
            visit: Some(visit),
        })
    }

    /// From here on nothing new begins on the space.
    fn close(&self, guest: GuestId, space: SpaceId) -> Result<(), SpaceError> {
        let mut books = self.books();
        books.running(guest)?;
        let record = books.space(guest, space)?;
        record.is_closing = true;
        Ok(())
    }

    /// Makes every CD quiet, and submits the train of each SMMU.
    pub(super) fn submit_release(
        &self,
        spaces: Spaces,
        live_on: SmmuSet,
        flush: Flush,
    ) -> Trains<'p, P> {
        for (id, smmu) in self.each(live_on) {
            smmu.quiet_stores(self.cds(spaces, id).map(BoundCd::releasing));
        }
        let mut trains = [const { None }; MAX_SMMUS];
        for (id, smmu) in self.each(live_on) {
            let cds = self.cds(spaces, id).map(BoundCd::releasing);
            trains[id.index()] = Some(smmu.begin_release(cds, flush));
        }
        trains
    }

    /// Waits for every train; what did not confirm is fenced and lost.
    pub(super) fn finish_release(
        &self,
        spaces: Spaces,
        trains: &mut Trains<'p, P>,
    ) -> Result<(), SpaceError> {
        let mut outcome = Ok(());
        for (id, train) in trains.iter_mut().enumerate() {
            let (Some(train), Some(id)) = (train.take(), SmmuId::new(id as u8)) else {
                continue;
            };
            let found = match train.finish() {
                Ok(()) => continue,
                Err(ReleaseError::DeviceCaches(CommandError::AtcTimeout)) => {
                    self.find_silent(spaces, id)
                }
                Err(
                    ReleaseError::Contexts(error)
                    | ReleaseError::Translations(error)
                    | ReleaseError::DeviceCaches(error),
                ) => Err(error),
            };
            let error = match found {
                Ok(None) => continue,
                Ok(Some((device, fence))) => SpaceError::CachesKept { device, fence },
                Err(error) => {
                    let fence = self.lose_spaces(spaces, id);
                    SpaceError::NotConfirmed {
                        smmu: id,
                        error,
                        fence,
                    }
                }
            };
            outcome = outcome.and(Err(error));
        }
        outcome
    }

    /// A device did not drop its translations, and the SMMU does not say which (§4.7.3): each is
    /// asked alone, and who is silent again is fenced. The first of them.
    pub(super) fn find_silent(
        &self,
        spaces: Spaces,
        id: SmmuId,
    ) -> Result<Option<(DeviceId, Fence)>, CommandError> {
        let Ok(smmu) = self.smmu(id) else {
            return Ok(None);
        };
        let mut first = None;
        for cd in self.cds(spaces, id).filter(|cd| cd.has_ats) {
            let mut is_silent = false;
            smmu.atc_invalidate_context_singly(&cd.contexts, cd.context, |_| is_silent = true)?;
            if is_silent {
                self.books().keep_caches(cd.binding);
                let fence = self.fence_silent(id, cd.device);
                first.get_or_insert((cd.device, fence));
            }
        }
        Ok(first)
    }

    /// An SMMU did not confirm a release: the spaces' numbers are lost, and what could still reach
    /// them is fenced.
    fn lose_spaces(&self, spaces: Spaces, id: SmmuId) -> Fence {
        for space in self.spaces(spaces) {
            let mut books = self.books();
            if books
                .spaces
                .get(space.key())
                .is_some_and(|it| it.live_on.has(id))
            {
                books.lose_space(space, id);
            }
        }
        for cd in self.cds(spaces, id).filter(|cd| cd.has_ats) {
            // Devices are told last: nobody knows whether they were.
            self.books().keep_caches(cd.binding);
        }
        // Where no CD leads to the tag, what is cached under it serves nobody.
        self.fence_devices(id, self.cds(spaces, id).map(|cd| cd.device))
    }

    /// Releases all spaces of a guest that the caller has to itself, and forgets all of its handles.
    pub(super) fn release_everything(&self, guest: GuestId) -> Result<(), SpaceError> {
        let (flush, live_on) = self.books().begin_release_all(guest)?;
        let spaces = Spaces::AllOf(guest);
        let mut trains = self.submit_release(spaces, live_on, flush);
        let mut outcome = self.finish_release(spaces, &mut trains);
        for (id, smmu) in self.each(live_on) {
            let by_pasid = self
                .cds(spaces, id)
                .filter(|cd| cd.context != Context::WholeStream);
            let retracted = smmu.retract_all(by_pasid.map(BoundCd::releasing));
            if let Err(error) = retracted {
                let fence = self.lose_spaces(spaces, id);
                outcome = outcome.and(Err(SpaceError::NotConfirmed {
                    smmu: id,
                    error,
                    fence,
                }));
            }
        }
        outcome = outcome.and(self.end_whole_streams(guest, live_on));
        for (id, smmu) in self.each(live_on) {
            let taken = self.take_events(id, smmu.events_at_most());
            self.heed(id, &taken);
        }
        self.abort_stalls_of_guest(guest);
        self.books().end_release_all(guest, self.now_us());
        outcome
    }

    /// Ends what is bound by whole streams, of a guest that the caller has to itself: they abort, and
    /// their devices are detached, save those that could not be stopped or kept what they cached.
    fn end_whole_streams(&self, guest: GuestId, smmus: SmmuSet) -> Result<(), SpaceError> {
        let is = |device: &DeviceId, want: fn(&Device<'p, P>) -> bool| {
            let mut books = self.books();
            books.device(*device).is_ok_and(|it| want(it))
        };
        let whole = self
            .devices_of_guest(guest)
            .filter(|device| is(device, |it| it.reach == Reach::Whole));
        let outcome = self.stop(smmus, whole.clone(), None);
        if let Err(unstopped) = &outcome {
            for device in whole.clone() {
                self.books().keep_unstopped(unstopped, device);
            }
        }
        // From the end, so that who leaves is not looked for again.
        let obeyed = whole.filter(|device| is(device, |it| !it.is_fenced));
        while let Some(device) = obeyed.clone().last() {
            self.books().take_from_guest(device);
        }
        outcome.map_err(|unstopped| unstopped.error)
    }

    /// Takes what the SMMUs had recorded of a space by the time its release was confirmed, and
    /// aborts what is stalled of it: also what is recorded only when there is room again (§7.2.1).
    fn drain(&self, guest: GuestId, space: SpaceId, smmus: SmmuSet) {
        for (id, smmu) in self.each(smmus) {
            // At most a queue full, twice: records that waited for room come after the first.
            let most = smmu.events_at_most();
            for _ in 0..2 {
                let taken = self.take_events(id, most);
                self.heed(id, &taken);
                if taken.events < most {
                    break;
                }
            }
        }
        self.abort_stalls_of(guest, space);
    }
}

impl<P: Platform> PendingRelease<'_, '_, P> {
    /// Waits until every SMMU has confirmed, all at once, and parks the space.
    ///
    /// # Errors
    ///
    /// [`NotConfirmed`](SpaceError::NotConfirmed), [`CachesKept`](SpaceError::CachesKept); see
    /// [`Iommu::release`].
    pub fn finish(mut self) -> Result<(), SpaceError> {
        self.run()
    }

    fn run(&mut self) -> Result<(), SpaceError> {
        let Some(visit) = self.visit.take() else {
            return Ok(());
        };
        let iommu = self.iommu;
        let spaces = Spaces::One(self.space);
        let outcome = iommu.finish_release(spaces, &mut self.trains);
        iommu.drain(self.guest, self.space, self.smmus);
        iommu.books().end_release(self.space, iommu.now_us());
        drop(visit);
        outcome
    }
}

impl<P: Platform> Drop for PendingRelease<'_, '_, P> {
    fn drop(&mut self) {
        // Whatever it says is in the books: what was not confirmed is lost and fenced.
        let _ = self.run();
    }
}
