//! Devices are attached to a guest and detached: whose stage 2 their traffic goes through.
//!
//! A device that issues PASIDs gets a table of CDs, all empty; what has no PASID aborts, or goes
//! through stage 2 alone, as the guest asked. One that issues none goes through stage 2 alone, or
//! aborts, until a space is bound to the whole stream.
//!
//! | verb | SYNCs for any number of devices and streams |
//! |---|---|
//! | attach | 2 |
//! | detach | 1, with ATS 2 |
//!
//! With a reset between, that is the hand-over of a group: 3, or 4 with ATS.

use super::books::Books;
use super::device::Reach;
use super::error::{Fence, SpaceError};
use super::group::MAX_GROUP_DEVICES;
use super::ids::{DeviceId, GroupId, GuestId, SmmuId, SmmuSet};
use super::iommu::Iommu;
use super::leftovers::SharedContexts;
use super::walk::Streams;
use crate::hw::{NoFrames, Platform};
use crate::id::StreamId;
use crate::smmu::{Assignment, ContextShape, Contexts, ContextsError, Sealed, StreamError, Unmade};
use crate::spec::ste::{Ats, CdFormat, Untagged};
use crate::spec::vmsa::Stage2Walk;

/// Up to so many contexts, as a power of two, tables have leaves of 4 KiB: their root is then at
/// most 8 KiB.
const LOG2_SMALL_LEAVES_MAX: u8 = 16;
/// With no more contexts than a leaf of 4 KiB has, leaves save nothing.
const LOG2_LEAF: u8 = 6;

/// A device that is about to be attached.
struct Plan<'p, P: Platform> {
    device: DeviceId,
    smmu: SmmuId,
    streams: Streams,
    ats: Ats,
    shape: Option<ContextShape>,
    reach: Reach,
    contexts: Option<SharedContexts<'p, P>>,
    /// Why its SMMU did not confirm it.
    failed: Option<StreamError>,
}

impl<'p, P: Platform> Plan<'p, P> {
    /// What its streams' entries become; nothing if they go on aborting.
    fn assignment(&self, walk: Stage2Walk) -> Assignment<'_, 'p, P> {
        match &self.contexts {
            Some(contexts) => Assignment::Nested {
                contexts,
                walk,
                ats: self.ats,
            },
            None if self.reach == Reach::Stage2 => Assignment::Stage2 {
                streams: self.streams.as_slice(),
                walk,
                ats: self.ats,
            },
            None => Assignment::Stage2 {
                streams: &[],
                walk,
                ats: Ats::Off,
            },
        }
    }
}

type Plans<'p, P> = [Option<Plan<'p, P>>; MAX_GROUP_DEVICES];

/// The devices of a call: one, or a whole group.
type Members = [Option<DeviceId>; MAX_GROUP_DEVICES];

fn one(device: DeviceId) -> Members {
    let mut members = [None; MAX_GROUP_DEVICES];
    members[0] = Some(device);
    members
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// Lets a device's traffic through the guest's stage 2, and makes it ready for spaces: 2 SYNCs.
    ///
    /// # Errors
    ///
    /// As [`attach_group`](Self::attach_group).
    pub fn attach(
        &self,
        guest: GuestId,
        device: DeviceId,
        untagged: Untagged,
    ) -> Result<(), SpaceError> {
        self.attach_all(guest, |_| Ok(one(device)), untagged)
    }

    /// As [`attach`](Self::attach), for all devices of a group, in as many SYNCs on each SMMU.
    ///
    /// Each SMMU is told before any is waited for.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`NoSuchGroup`](SpaceError::NoSuchGroup), [`NoSuchDevice`](SpaceError::NoSuchDevice),
    /// [`NotOwner`](SpaceError::NotOwner), [`Attached`](SpaceError::Attached),
    /// [`Fenced`](SpaceError::Fenced), [`SmmuDown`](SpaceError::SmmuDown),
    /// [`NotYet`](SpaceError::NotYet), [`Unwalkable`](SpaceError::Unwalkable),
    /// [`WindowNotMapped`](SpaceError::WindowNotMapped),
    /// [`Misfit`](SpaceError::Misfit) if the SMMU has not the ATS that the device is to have,
    /// [`Contexts`](SpaceError::Contexts), [`Window`](SpaceError::Window),
    /// [`NoFrames`](SpaceError::NoFrames), [`Quota`](SpaceError::Quota),
    /// [`Stream`](SpaceError::Stream), [`Busy`](SpaceError::Busy).
    /// [`NotConfirmed`](SpaceError::NotConfirmed): the devices behind that SMMU are fenced, those
    /// behind others are attached.
    pub fn attach_group(
        &self,
        guest: GuestId,
        group: GroupId,
        untagged: Untagged,
    ) -> Result<(), SpaceError> {
        let members = |books: &mut Books<'p, P>| {
            books.group(group)?;
            Ok(books.members(group))
        };
        self.attach_all(guest, members, untagged)
    }

    fn attach_all(
        &self,
        guest: GuestId,
        members: impl Fn(&mut Books<'p, P>) -> Result<Members, SpaceError>,
        untagged: Untagged,
    ) -> Result<(), SpaceError> {
        let ((mut plans, memory), _visit) = self.alone(guest, |books| {
            let pasid_bits = books.running(guest)?.pasid_bits;
            let mut plans = [const { None }; MAX_GROUP_DEVICES];
            for (plan, device) in plans.iter_mut().zip(members(books)?.into_iter().flatten()) {
                *plan = Some(self.plan(books, guest, device, pasid_bits, untagged)?);
            }
            Ok((plans, books.guest(guest)?.memory.clone()))
        })?;
        plans.sort_unstable_by_key(|plan| plan.as_ref().map_or(u8::MAX, |plan| plan.smmu.as_u8()));
        let walk = {
            let memory = memory.lock(self.platform());
            memory.expect_window()?;
            memory.walk()
        };
        let outcome = self
            .make_contexts(guest, &mut plans)
            .and_then(|()| self.publish(guest, &mut plans, walk));
        if let Err(error) = outcome {
            for plan in plans.into_iter().flatten() {
                if plan.failed.as_ref().is_some_and(is_lost) {
                    // Nobody knows what its streams are: they are fenced, and the guest's.
                    let _ = self.note_attached(guest, plan);
                } else if let Some(contexts) = plan.contexts {
                    // Nobody else has them.
                    if let Err(contexts) = self.discard(guest, contexts) {
                        self.books().keep_leftover(guest, contexts);
                    }
                }
            }
            return Err(error);
        }
        let mut outcome = Ok(());
        for plan in plans.into_iter().flatten() {
            outcome = self.note_attached(guest, plan).and(outcome);
        }
        outcome
    }

    /// What is to become of one device, if nothing speaks against it.
    fn plan(
        &self,
        books: &mut Books<'p, P>,
        guest: GuestId,
        device: DeviceId,
        guest_bits: u8,
        untagged: Untagged,
    ) -> Result<Plan<'p, P>, SpaceError> {
        let group = books.device(device)?.group;
        if !books.group(group)?.is_owned_by(guest) {
            return Err(SpaceError::NotOwner);
        }
        let unproven = books.guest(guest)?.unproven;
        let down = books.down;
        let record = books.device(device)?;
        let id = record.smmu.ok_or(SpaceError::Unprotected { device })?;
        let smmu = self.smmu(id).map_err(|_| SpaceError::NotYet { smmu: id })?;
        let refusals = [
            (record.is_fenced, SpaceError::Fenced),
            (record.guest.is_some(), SpaceError::Attached),
            // What it did not confirm of the guest's memory it may still translate by.
            (
                down.has(id) || unproven.has(id),
                SpaceError::SmmuDown { smmu: id },
            ),
        ];
        if let Some((_, refusal)) = refusals.iter().find(|(holds, _)| *holds) {
            return Err(*refusal);
        }
        let features = smmu.features();
        let bits = record
            .pasid_bits
            .min(features.substream_bits)
            .min(guest_bits);
        let (shape, reach) = if bits != 0 && features.has_stage1 {
            let is_two_level = features.has_two_level_cds && bits > LOG2_LEAF;
            let format = match (is_two_level, bits <= LOG2_SMALL_LEAVES_MAX) {
                (false, _) => CdFormat::Linear,
                (true, true) => CdFormat::Leaves4K,
                (true, false) => CdFormat::Leaves64K,
            };
            let shape = ContextShape::BySubstream {
                log2_contexts: bits,
                format,
                untagged,
            };
            (Some(shape), Reach::Pasids)
        } else {
            let reach = match untagged {
                Untagged::Abort => Reach::Nothing,
                Untagged::Stage2 => Reach::Stage2,
            };
            (None, reach)
        };
        // Split stages are for streams with both; a stream with stage 2 alone goes without.
        let ats = match reach {
            Reach::Pasids | Reach::Whole => record.ats,
            Reach::Stage2 if record.ats == Ats::Full => Ats::Full,
            Reach::Stage2 | Reach::Nothing => Ats::Off,
        };
        features
            .can_ats(ats, shape.is_some())
            .map_err(|why| SpaceError::Misfit { smmu: id, why })?;
        Ok(Plan {
            device,
            smmu: id,
            streams: record.streams,
            ats,
            shape,
            reach,
            contexts: None,
            failed: None,
        })
    }

    fn make_contexts(&self, guest: GuestId, plans: &mut Plans<'p, P>) -> Result<(), SpaceError> {
        for plan in plans.iter_mut().flatten() {
            if let Some(shape) = plan.shape {
                let streams = plan.streams.as_slice();
                plan.contexts = Some(self.contexts(guest, plan.smmu, streams, &shape)?);
            }
        }
        Ok(())
    }

    /// The contexts of a device, in the window of its guest; no stream leads to them yet.
    pub(super) fn contexts(
        &self,
        guest: GuestId,
        smmu: SmmuId,
        streams: &[StreamId],
        shape: &ContextShape,
    ) -> Result<SharedContexts<'p, P>, SpaceError> {
        let root = self.seal(guest, shape.log2_root_bytes())?;
        let made = self.smmu(smmu)?.contexts(streams, shape, root);
        let contexts = match made {
            Ok(contexts) => contexts,
            Err(Unmade { why, root }) => {
                self.unseal(guest, root);
                return Err(match why {
                    ContextsError::Misfit(why) => SpaceError::Misfit { smmu, why },
                    ContextsError::NoFrames => SpaceError::NoFrames { log2_bytes: 12 },
                    why => SpaceError::Contexts(why),
                });
            }
        };
        match SharedContexts::new(self.platform(), smmu, contexts) {
            Ok(contexts) => Ok(contexts),
            Err((contexts, NoFrames { log2_bytes })) => {
                self.discard_unshared(guest, smmu, contexts);
                Err(SpaceError::NoFrames { log2_bytes })
            }
        }
    }

    /// Publishes all streams, every SMMU told before any is waited for.
    fn publish(
        &self,
        guest: GuestId,
        plans: &mut Plans<'p, P>,
        walk: Stage2Walk,
    ) -> Result<(), SpaceError> {
        let nothing = || Assignment::Stage2 {
            streams: &[],
            walk,
            ats: Ats::Off,
        };
        let mut smmus = SmmuSet::EMPTY;
        for plan in plans.iter().flatten() {
            smmus.insert(plan.smmu);
        }
        // The tag may be used there from the first entry on.
        self.books().guest(guest)?.live_on.absorb(smmus);
        let mut failures: [Option<StreamError>; super::MAX_SMMUS] = [None; super::MAX_SMMUS];
        {
            let assignments: [_; MAX_GROUP_DEVICES] = core::array::from_fn(|i| {
                plans[i]
                    .as_ref()
                    .map_or_else(nothing, |plan| plan.assignment(walk))
            });
            let part = |id: SmmuId| {
                let is_here =
                    |plan: &&Option<Plan<'p, P>>| plan.as_ref().is_some_and(|plan| plan.smmu == id);
                let first = plans.iter().take_while(|plan| !is_here(plan)).count();
                let count = plans.iter().filter(is_here).count();
                &assignments[first..first + count]
            };
            let mut pending = [const { None }; super::MAX_SMMUS];
            for (id, smmu) in self.each(smmus) {
                match smmu.begin_publish_all(part(id)) {
                    Ok(change) => pending[id.index()] = Some(change),
                    Err(error) => failures[id.index()] = Some(error),
                }
            }
            for (change, failure) in pending.into_iter().zip(&mut failures) {
                if let Some(Err(error)) = change.map(|change| change.finish()) {
                    *failure = Some(error);
                }
            }
        }
        let mut refused = None;
        for plan in plans.iter_mut().flatten() {
            plan.failed = failures[plan.smmu.index()];
            if let Some(error) = plan.failed
                && !is_lost(&error)
            {
                refused = Some(SpaceError::Stream(error));
            }
        }
        match refused {
            None => Ok(()),
            Some(error) => {
                self.take_back(plans);
                Err(error)
            }
        }
    }

    /// One SMMU refused: the streams that others published are retracted again.
    fn take_back(&self, plans: &mut Plans<'p, P>) {
        for plan in plans.iter_mut().flatten() {
            if plan.failed.is_none()
                && plan.reach != Reach::Nothing
                && let Ok(smmu) = self.smmu(plan.smmu)
                && let Err(error) = smmu.retract(plan.streams.as_slice())
            {
                plan.failed = Some(error);
            }
        }
    }

    /// Notes a device as attached; fenced, if its SMMU did not confirm it.
    fn note_attached(&self, guest: GuestId, plan: Plan<'p, P>) -> Result<(), SpaceError> {
        {
            let mut books = self.books();
            let books = &mut *books;
            let record = books.device(plan.device)?;
            record.guest = Some(guest);
            record.reach = plan.reach;
            record.contexts = plan.contexts;
            record.is_dirty = true;
            record.ats_now = plan.ats;
            if let Some(guest) = books.guests.get_mut(guest.key()) {
                guest.devices.push(&mut books.devices, plan.device.key());
            }
        }
        let Some(error) = plan.failed else {
            return Ok(());
        };
        let fence = self.fence_devices(plan.smmu, [plan.device].into_iter());
        let error = SpaceError::of_stream(plan.smmu, error, fence);
        self.books().lose_streams_of(plan.device, plan.smmu, error);
        Err(error)
    }

    /// Stops a device's traffic for its guest: 1 SYNC, with ATS 2.
    ///
    /// # Errors
    ///
    /// As [`detach_group`](Self::detach_group).
    pub fn detach(&self, guest: GuestId, device: DeviceId) -> Result<(), SpaceError> {
        self.detach_all(guest, |_| Ok(one(device)))
    }

    /// As [`detach`](Self::detach), for all devices of a group, in as many SYNCs on each SMMU.
    ///
    /// On success no transaction of theirs is translated any more, and devices with ATS have
    /// dropped what they cached. The memory of their contexts comes back with
    /// [`tidy`](Self::tidy), or when the guest ends.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`NoSuchGroup`](SpaceError::NoSuchGroup), [`NoSuchDevice`](SpaceError::NoSuchDevice),
    /// [`NotOwner`](SpaceError::NotOwner), [`NotAttached`](SpaceError::NotAttached),
    /// [`Bound`](SpaceError::Bound), [`Fenced`](SpaceError::Fenced), [`Busy`](SpaceError::Busy).
    /// [`NotConfirmed`](SpaceError::NotConfirmed),
    /// [`CachesKept`](SpaceError::CachesKept): the devices that it is about are fenced, and the
    /// guest's until they are [restored](Self::restore); the others are detached.
    pub fn detach_group(&self, guest: GuestId, group: GroupId) -> Result<(), SpaceError> {
        self.detach_all(guest, |books| {
            books.group(group)?;
            Ok(books.members(group))
        })
    }

    fn detach_all(
        &self,
        guest: GuestId,
        members: impl Fn(&mut Books<'p, P>) -> Result<Members, SpaceError>,
    ) -> Result<(), SpaceError> {
        let (members, _visit) = self.alone(guest, |books| {
            books.running(guest)?;
            let members = members(books)?;
            for device in members.into_iter().flatten() {
                if !books.attached(guest, device)?.bindings.is_empty() {
                    return Err(SpaceError::Bound);
                }
            }
            Ok(members)
        })?;
        self.stop_devices(members)
    }

    /// Stops devices of a guest that the caller has to itself, and takes them from it.
    fn stop_devices(&self, members: Members) -> Result<(), SpaceError> {
        let mut smmus = SmmuSet::EMPTY;
        for device in members.into_iter().flatten() {
            smmus.absorb(self.books().device(device)?.smmus());
        }
        let outcome = self.stop(smmus, members.into_iter().flatten(), None);
        let mut books = self.books();
        for device in members.into_iter().flatten() {
            if !outcome
                .as_ref()
                .is_err_and(|it| it.keeps(&mut books, device))
            {
                books.take_from_guest(device);
            }
        }
        outcome.map_err(|unstopped| unstopped.error)
    }

    /// Takes the memory of contexts that no stream leads to out of the window, and gives it back.
    ///
    /// What an SMMU does not confirm stays sealed until the guest ends.
    ///
    /// # Errors
    ///
    /// The contexts, if somebody else is at work on them, a stream of theirs is lost, or something of
    /// the guest's memory.
    pub(super) fn discard(
        &self,
        guest: GuestId,
        contexts: SharedContexts<'p, P>,
    ) -> Result<(), SharedContexts<'p, P>> {
        let Ok(smmu) = self.smmu(contexts.smmu()) else {
            return Err(contexts);
        };
        // While something of the guest's memory is not proven, nothing more is lost.
        if !smmu.is_clear_of(&contexts) || self.is_unproven(guest) {
            return Err(contexts);
        }
        let (id, contexts) = contexts.try_into_inner()?;
        self.discard_unshared(guest, id, contexts);
        Ok(())
    }

    fn discard_unshared(&self, guest: GuestId, smmu: SmmuId, contexts: Contexts<'p, P>) {
        let Ok(smmu) = self.smmu(smmu) else { return };
        let Ok(detached) = smmu.dismantle(contexts) else {
            return;
        };
        let Ok(memory) = self.memory_of(guest) else {
            return;
        };
        let Some(change) = memory.lock(self.platform()).unseal_all(detached) else {
            return;
        };
        match self.confirm(guest, change) {
            Ok(unsealed) => memory.lock(self.platform()).give_back(unsealed),
            Err((_, change)) => memory.lock(self.platform()).keep_unconfirmed(change),
        }
    }

    /// Whether an SMMU did not confirm something of a guest's memory.
    pub(super) fn is_unproven(&self, guest: GuestId) -> bool {
        let mut books = self.books();
        books
            .guest(guest)
            .is_ok_and(|guest| !guest.unproven.is_empty())
    }

    /// Memory of the window, the tables that lead there known to every SMMU.
    pub(super) fn seal(&self, guest: GuestId, log2_bytes: u8) -> Result<Sealed, SpaceError> {
        let memory = self.memory_of(guest)?;
        let change = memory.lock(self.platform()).seal(log2_bytes)?;
        // What is not confirmed stays sealed, and unused.
        self.confirm(guest, change).map_err(|(error, _)| error)
    }

    /// Gives back memory of the window in which nothing is, and which devices may have read.
    pub(super) fn unseal(&self, guest: GuestId, sealed: Sealed) {
        let Ok(memory) = self.memory_of(guest) else {
            return;
        };
        let Some(change) = memory.lock(self.platform()).unseal(sealed) else {
            return;
        };
        match self.confirm(guest, change) {
            Ok(unsealed) => memory.lock(self.platform()).give_back(unsealed),
            Err((_, change)) => memory.lock(self.platform()).keep_unconfirmed(change),
        }
    }
}

/// Whether after this error nobody knows what the entries are to the SMMU.
pub(super) const fn is_lost(error: &StreamError) -> bool {
    matches!(error, StreamError::NotConfirmed(_) | StreamError::NotHeld)
}

impl SpaceError {
    /// What a stream's error is to the user, once it was fenced so.
    pub(super) const fn of_stream(smmu: SmmuId, error: StreamError, fence: Fence) -> Self {
        match error {
            StreamError::NotConfirmed(error) => Self::NotConfirmed { smmu, error, fence },
            StreamError::Unwalkable(why) => Self::Unwalkable { smmu, why },
            StreamError::Misfit(why) => Self::Misfit { smmu, why },
            error => Self::Stream(error),
        }
    }
}
