//! Spaces are made, bound to devices, and let go by those who hold them.
//!
//! Hardware is touched when the first handle of a binding is given out and when the last is dropped,
//! and not in between:
//!
//! ```text
//! 0 ─bind─► 1 ─bind─► 2 …     publish the CD: 2 SYNCs, 1 in a fresh leaf; then nothing
//! 0 ◄unbind─ 1 ◄unbind─ 2     nothing; then retract the CD: 1 SYNC, with ATS 2
//! ```
//!
//! A handle is dropped by [`Iommu::unbind`], before its space is released or after: it is one call,
//! and it reserves the number, never the space's memory.

use super::books::{Binding, BindingState, Books, SpaceState};
use super::device::Reach;
use super::error::{Fence, SpaceError};
use super::guest::SharedMemory;
use super::ids::{DeviceId, GuestId, Handle, SmmuId, SpaceId};
use super::iommu::Iommu;
use super::leftovers::SharedContexts;
use super::settings::{By, SpaceConfig};
use super::walk::Streams;
use crate::hw::{Key, Platform};
use crate::id::Pasid;
use crate::smmu::{
    Assignment, CommandError, Context, ContextError, ContextShape, Smmu, StallModel, StreamError,
};
use crate::spec::cd::Faults;
use crate::spec::stage1::Stage1Walk;
use crate::spec::ste::Ats;

/// A number, and the how-manieth space it is for: no two spaces ever have both in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PasidOf {
    /// The number.
    pub pasid: Pasid,
    /// How many spaces had it before.
    pub generation: u64,
}

/// What a bind has to do.
enum Plan<'p, P: Platform> {
    /// The pair is bound: one handle more.
    Again(Handle),
    /// Nothing of the pair is in hardware.
    First(First<'p, P>),
}

struct First<'p, P: Platform> {
    binding: Key<Binding>,
    handle: Handle,
    smmu: SmmuId,
    walk: Stage1Walk,
    pasid: Pasid,
    faults: Faults,
    contexts: Option<SharedContexts<'p, P>>,
    memory: SharedMemory<'p, P>,
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// Makes a space, with a PASID and an ASID for its life. Touches no hardware.
    ///
    /// Whether an SMMU can walk it is asked when it is bound there.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Quota`](SpaceError::Quota), [`NoPasid`](SpaceError::NoPasid),
    /// [`PasidTaken`](SpaceError::PasidTaken), [`PasidOutOfRange`](SpaceError::PasidOutOfRange),
    /// [`NoAsid`](SpaceError::NoAsid), [`NoFrames`](SpaceError::NoFrames),
    /// [`Full`](SpaceError::Full), [`Busy`](SpaceError::Busy).
    pub fn create_space(
        &self,
        guest: GuestId,
        config: &SpaceConfig,
    ) -> Result<SpaceId, SpaceError> {
        let asid_bits = self.least(|features| features.asid_bits).min(16);
        let quarantine_us = self.settings().quarantine_us;
        let (space, _visit) = self.join(guest, None, |books| {
            books.end_quarantines(guest, quarantine_us);
            books.create_space(guest, config, asid_bits)
        })?;
        Ok(space)
    }

    /// The number of a guest's space, which is the same all its life.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`NoSuchSpace`](SpaceError::NoSuchSpace),
    /// [`ForeignSpace`](SpaceError::ForeignSpace).
    pub fn pasid_of(&self, guest: GuestId, space: SpaceId) -> Result<PasidOf, SpaceError> {
        let mut books = self.books();
        let pasid = books.space(guest, space)?.pasid;
        let generation = books.guest(guest)?.pasids.generation(pasid.as_u32());
        Ok(PasidOf { pasid, generation })
    }

    /// Where a guest's space is in its life.
    ///
    /// # Errors
    ///
    /// [`ForeignSpace`](SpaceError::ForeignSpace); [`NoSuchSpace`](SpaceError::NoSuchSpace): its
    /// number is free, or another space's.
    pub fn space_state(&self, guest: GuestId, space: SpaceId) -> Result<SpaceState, SpaceError> {
        let books = self.books();
        let record = books
            .spaces
            .get(space.key())
            .ok_or(SpaceError::NoSuchSpace)?;
        if record.guest == guest {
            Ok(record.state)
        } else {
            Err(SpaceError::ForeignSpace)
        }
    }

    /// Lets a device reach a space; every call gives a handle of its own.
    ///
    /// The first bind of a pair publishes a CD: 2 SYNCs, 1 for the first CD of a leaf. A further one
    /// counts, and sends no command. By the whole stream, all traffic of the device goes to the
    /// space; nothing else may be bound to the device then.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`NoSuchSpace`](SpaceError::NoSuchSpace), [`ForeignSpace`](SpaceError::ForeignSpace),
    /// [`Released`](SpaceError::Released), [`NoSuchDevice`](SpaceError::NoSuchDevice),
    /// [`NotOwner`](SpaceError::NotOwner), [`NotAttached`](SpaceError::NotAttached),
    /// [`Fenced`](SpaceError::Fenced), [`SmmuDown`](SpaceError::SmmuDown),
    /// [`NoPasids`](SpaceError::NoPasids), [`PasidTooWide`](SpaceError::PasidTooWide),
    /// [`BoundOtherwise`](SpaceError::BoundOtherwise),
    /// [`PublishOverLive`](SpaceError::PublishOverLive), [`Misfit`](SpaceError::Misfit),
    /// [`Quota`](SpaceError::Quota), [`NoFrames`](SpaceError::NoFrames),
    /// [`Window`](SpaceError::Window), [`Full`](SpaceError::Full), [`Busy`](SpaceError::Busy).
    /// [`NotConfirmed`](SpaceError::NotConfirmed): the space's number is lost on that SMMU, and the
    /// device is fenced. [`CachesKept`](SpaceError::CachesKept), of a whole stream: the device kept
    /// what it had cached of the guest's memory before; it is fenced, and the space's number lost,
    /// until it was reset.
    pub fn bind(
        &self,
        guest: GuestId,
        space: SpaceId,
        device: DeviceId,
        by: By,
    ) -> Result<Handle, SpaceError> {
        match by {
            By::Pasid => {
                let (plan, _visit) = self.join(guest, Some(space), |books| {
                    self.plan_bind(books, guest, space, device, by)
                })?;
                self.carry_out(guest, space, plan, |first| self.publish_pasid(guest, first))
            }
            By::WholeStream => {
                let (plan, _visit) = self.alone(guest, |books| {
                    books.running(guest)?;
                    self.plan_bind(books, guest, space, device, by)
                })?;
                self.carry_out(guest, space, plan, |first| {
                    self.publish_whole(guest, device, first)
                })
            }
        }
    }

    fn plan_bind(
        &self,
        books: &mut Books<'p, P>,
        guest: GuestId,
        space: SpaceId,
        device: DeviceId,
        by: By,
    ) -> Result<Plan<'p, P>, SpaceError> {
        let live = books.live(guest, space)?;
        let (walk, pasid) = (live.walk, live.pasid);
        let record = books.attached(guest, device)?;
        let id = record.smmu.ok_or(SpaceError::Unprotected { device })?;
        let (can_stall, reach) = (record.can_stall, record.reach);
        let contexts = record.contexts.clone();
        let is_bound = !record.bindings.is_empty();
        if let Some(binding) = books.binding_of(space, device) {
            return books.bind_again(guest, binding, by).map(Plan::Again);
        }
        if books.down.has(id) {
            return Err(SpaceError::SmmuDown { smmu: id });
        }
        match (by, reach) {
            (By::Pasid, Reach::Pasids) => {
                let bits = contexts.as_ref().map_or(0, |it| it.log2_contexts());
                if pasid.as_u32() >> bits != 0 {
                    return Err(SpaceError::PasidTooWide { pasid, bits });
                }
            }
            (By::Pasid, Reach::Whole) => return Err(SpaceError::BoundOtherwise),
            (By::Pasid, Reach::Nothing | Reach::Stage2) => return Err(SpaceError::NoPasids),
            (By::WholeStream, _) if is_bound => return Err(SpaceError::BoundOtherwise),
            (By::WholeStream, _) => {}
        }
        let smmu = self.smmu(id)?;
        let faults = match (can_stall, smmu.features().stalls) {
            (true, StallModel::Either | StallModel::Forced) => Faults::Stall,
            _ => Faults::Abort,
        };
        smmu.features()
            .can_translate(&walk, faults)
            .map_err(|why| SpaceError::Misfit { smmu: id, why })?;
        // The handle too before hardware is touched: what is refused then has changed nothing.
        let binding = books.add_binding(guest, space, device, by)?;
        let handle = match books.add_handle(guest, binding) {
            Ok(handle) => handle,
            Err(error) => {
                books.remove_binding(binding);
                return Err(error);
            }
        };
        Ok(Plan::First(First {
            binding,
            handle,
            smmu: id,
            walk,
            pasid,
            faults,
            contexts,
            memory: books.guest(guest)?.memory.clone(),
        }))
    }

    /// Does what was planned, and notes what came of it.
    fn carry_out(
        &self,
        guest: GuestId,
        space: SpaceId,
        plan: Plan<'p, P>,
        publish: impl FnOnce(&First<'p, P>) -> Result<(), Failed>,
    ) -> Result<Handle, SpaceError> {
        let first = match plan {
            Plan::Again(handle) => return Ok(handle),
            Plan::First(first) => first,
        };
        let smmu = first.smmu;
        let before = {
            let mut books = self.books();
            let space = books.space(guest, space)?;
            let before = (space.live_on, space.was_bound);
            // Before the SMMU can see the CD: who releases the space from here on reaches it.
            space.live_on.insert(smmu);
            space.was_bound = true;
            before
        };
        let outcome = publish(&first);
        let mut books = self.books();
        match outcome {
            Ok(()) => {
                if let Some(binding) = books.bindings.get_mut(first.binding) {
                    binding.state = BindingState::Bound;
                }
                Ok(first.handle)
            }
            Err(Failed::Refused(error)) => {
                books.remove_handle(first.handle);
                books.remove_binding(first.binding);
                let space = books.space(guest, space)?;
                (space.live_on, space.was_bound) = before;
                Err(error)
            }
            Err(Failed::Kept { device, error }) => {
                // Its CD is live and confirmed, for a device that is cut off.
                books.remove_handle(first.handle);
                if let Some(binding) = books.bindings.get_mut(first.binding) {
                    binding.state = BindingState::Bound;
                }
                books.keep_caches(first.binding);
                drop(books);
                if error == CommandError::AtcTimeout {
                    let fence = self.fence_silent(smmu, device);
                    return Err(SpaceError::CachesKept { device, fence });
                }
                let fence = self.fence_devices(smmu, [device].into_iter());
                Err(SpaceError::NotConfirmed { smmu, error, fence })
            }
            Err(lost) => {
                books.remove_handle(first.handle);
                let device = books.lose_binding(first.binding, smmu);
                let by = books.bindings.get(first.binding).map(|it| it.by);
                drop(books);
                let fence = self.fence_devices(smmu, device.into_iter());
                let error = lost.fenced(smmu, fence);
                if let (Some(device), Some(By::WholeStream)) = (device, by) {
                    self.books().lose_streams_of(device, smmu, error);
                }
                Err(error)
            }
        }
    }

    fn publish_pasid(&self, guest: GuestId, first: &First<'p, P>) -> Result<(), Failed> {
        let smmu = self.smmu(first.smmu).map_err(Failed::Refused)?;
        let Some(contexts) = &first.contexts else {
            return Err(Failed::Refused(SpaceError::NoPasids));
        };
        let context = Context::Substream(first.pasid.substream());
        let wanted = contexts.lacks_leaf(context);
        let mut leaf = match wanted.map(|log2_bytes| self.seal(guest, log2_bytes)) {
            Some(Ok(leaf)) => Some(leaf),
            Some(Err(error)) => return Err(Failed::Refused(error)),
            None => None,
        };
        let walk = (&first.walk, first.faults);
        let outcome = smmu.publish_context(contexts, context, walk, |_| leaf.take());
        if let Some(leaf) = leaf {
            // Another CPU's bind brought one meanwhile.
            self.unseal(guest, leaf);
        }
        outcome.map_err(|error| Failed::of_context(first.smmu, error))
    }

    /// Makes a context for all of a device's traffic, and leads its streams there.
    fn publish_whole(
        &self,
        guest: GuestId,
        device: DeviceId,
        first: &First<'p, P>,
    ) -> Result<(), Failed> {
        let id = first.smmu;
        let smmu = self.smmu(id).map_err(Failed::Refused)?;
        let (streams, ats) = self.streams_of(device).map_err(Failed::Refused)?;
        let shape = ContextShape::Single {
            walk: first.walk,
            faults: first.faults,
        };
        let contexts = self
            .contexts(guest, id, streams.as_slice(), &shape)
            .map_err(Failed::Refused)?;
        let walk = first.memory.lock(self.platform()).walk();
        let assignment = [Assignment::Nested {
            contexts: &contexts,
            walk,
            ats,
        }];
        let (reach, had_ats) = match self.books().device(device) {
            Ok(record) => (record.reach, record.ats_now != Ats::Off),
            Err(error) => return Err(Failed::Refused(error)),
        };
        let outcome = match reach {
            Reach::Nothing => smmu.publish_all(&assignment),
            Reach::Stage2 | Reach::Pasids | Reach::Whole => smmu.amend(&assignment),
        };
        let outcome = outcome.map_err(|error| match error {
            StreamError::NotConfirmed(error) => Failed::Lost(Some(error)),
            StreamError::NotHeld => Failed::Lost(None),
            error => Failed::Refused(SpaceError::of_stream(id, error, Fence::NotNeeded)),
        });
        if let Err(Failed::Refused(_)) = outcome {
            if let Err(contexts) = self.discard(guest, contexts) {
                self.books().keep_leftover(guest, contexts);
            }
            return outcome;
        }
        let outcome = match outcome {
            // What went through stage 2 alone before may be cached (§3.9.1).
            Ok(()) if had_ats => self.forget_all(smmu, device, streams),
            outcome => outcome,
        };
        let mut books = self.books();
        let record = books.device(device).map_err(Failed::Refused)?;
        record.reach = Reach::Whole;
        record.ats_now = ats;
        if let Some(former) = record.contexts.replace(contexts) {
            books.keep_leftover(guest, former);
        }
        outcome
    }

    /// Has a device drop everything that it cached.
    fn forget_all(
        &self,
        smmu: &Smmu<'p, P>,
        device: DeviceId,
        streams: Streams,
    ) -> Result<(), Failed> {
        let commands = streams
            .into_iter()
            .flat_map(|stream| smmu.atc_inv_everything(stream));
        let ticket = smmu.submit_then_sync(commands.clone());
        let kept = |error| Failed::Kept { device, error };
        match ticket.and_then(|ticket| smmu.wait(ticket)) {
            Ok(()) => return Ok(()),
            Err(CommandError::AtcTimeout) => {}
            Err(error) => return Err(kept(error)),
        }
        // It may have been another's (§4.7.3).
        let mut is_silent = false;
        smmu.atc_invalidate_singly(commands, |_| is_silent = true)
            .map_err(kept)?;
        if is_silent {
            return Err(kept(CommandError::AtcTimeout));
        }
        Ok(())
    }

    /// Drops a handle: one call, before the space was released or after.
    ///
    /// The last handle of a pair retracts its CD: 1 SYNC, with ATS 2 if the space lives; others send
    /// no command. When a released space has no handle left, its number drains.
    ///
    /// After the last handle of a whole stream its streams abort until the device is attached again.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`NoSuchHandle`](SpaceError::NoSuchHandle),
    /// [`ForeignHandle`](SpaceError::ForeignHandle), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Busy`](SpaceError::Busy).
    /// [`NotConfirmed`](SpaceError::NotConfirmed), [`CachesKept`](SpaceError::CachesKept): the
    /// handle is dropped, the space's number is lost, the device is fenced.
    pub fn unbind(&self, guest: GuestId, handle: Handle) -> Result<(), SpaceError> {
        let (space, by) = {
            let mut books = self.books();
            books.guest(guest)?;
            let binding = books.held(guest, handle)?;
            let binding = books
                .bindings
                .get(binding)
                .ok_or(SpaceError::NoSuchHandle)?;
            (binding.space, binding.by)
        };
        match by {
            By::Pasid => {
                let (last, _visit) =
                    self.join(guest, Some(space), |books| books.drop_handle(guest, handle))?;
                match last {
                    Some(binding) => self.retract(guest, space, binding),
                    None => Ok(()),
                }
            }
            By::WholeStream => {
                let (last, _visit) = self.alone(guest, |books| {
                    books.running(guest)?;
                    books.drop_handle(guest, handle)
                })?;
                match last {
                    Some(binding) => self.retract_whole(space, binding),
                    None => Ok(()),
                }
            }
        }
    }

    /// Ends a binding that nobody holds any more.
    fn retract(&self, guest: GuestId, space: SpaceId, key: Key<Binding>) -> Result<(), SpaceError> {
        let found = {
            let mut books = self.books();
            let is_live = books.space(guest, space)?.state == SpaceState::Live;
            let pasid = books.space(guest, space)?.pasid;
            books.begin_retract(key).map(|at| {
                let has_ats = books.device(at.0).is_ok_and(|it| it.ats_now != Ats::Off);
                (at, is_live, pasid, has_ats)
            })
        };
        let Some(((device, smmu, contexts), is_live, pasid, has_ats)) = found else {
            self.books().settle_space(space, self.now_us());
            return Ok(());
        };
        let context = Context::Substream(pasid.substream());
        // After a release the device has dropped what it cached already.
        let atc = is_live && has_ats;
        let outcome = self
            .smmu(smmu)?
            .begin_retract_context(&contexts, context, atc)
            .and_then(|change| change.finish());
        let mut books = self.books();
        match outcome {
            Ok(()) => {
                books.remove_binding(key);
                books.settle_space(space, self.now_us());
                Ok(())
            }
            Err(ContextError::DeviceCaches(error)) => {
                // The CD is retracted and confirmed; what the device kept alone is unknown.
                books.keep_caches(key);
                drop(books);
                if error == CommandError::AtcTimeout {
                    let fence = self.fence_silent(smmu, device);
                    return Err(SpaceError::CachesKept { device, fence });
                }
                let fence = self.fence_devices(smmu, [device].into_iter());
                Err(SpaceError::NotConfirmed { smmu, error, fence })
            }
            Err(error) => {
                books.lose_binding(key, smmu);
                drop(books);
                let fence = self.fence_devices(smmu, [device].into_iter());
                Err(Failed::of_context(smmu, error).fenced(smmu, fence))
            }
        }
    }

    /// Ends the binding of a whole stream that nobody holds any more: its streams abort, and the
    /// device is not attached any more.
    fn retract_whole(&self, space: SpaceId, key: Key<Binding>) -> Result<(), SpaceError> {
        let device = {
            let mut books = self.books();
            let binding = books.bindings.get(key).ok_or(SpaceError::NoSuchHandle)?;
            let device = binding.device;
            if binding.state == BindingState::Ended {
                books.remove_binding(key);
                books.settle_space(space, self.now_us());
                return Ok(());
            }
            device
        };
        let smmus = self.books().device(device)?.smmus();
        self.end_device(device, smmus)
    }
}

/// How a change of a context or of streams failed.
enum Failed {
    /// Nothing was changed.
    Refused(SpaceError),
    /// The SMMU did not confirm, or memory did not hold what was stored.
    Lost(Option<CommandError>),
    /// The device did not confirm that it forgot what it had cached of before.
    Kept {
        device: DeviceId,
        error: CommandError,
    },
}

impl Failed {
    fn of_context(smmu: SmmuId, error: ContextError) -> Self {
        match error {
            ContextError::NotConfirmed(error) | ContextError::DeviceCaches(error) => {
                Self::Lost(Some(error))
            }
            ContextError::NotHeld => Self::Lost(None),
            ContextError::Misfit(why) => Self::Refused(SpaceError::Misfit { smmu, why }),
            ContextError::NoLeaf { log2_bytes } => {
                Self::Refused(SpaceError::NoFrames { log2_bytes })
            }
            ContextError::Foreign
            | ContextError::NoSuchContext
            | ContextError::InUse
            | ContextError::NotInUse
            | ContextError::Changing
            | ContextError::Lost => Self::Refused(SpaceError::PublishOverLive),
        }
    }

    /// What it is to the user, once what could be was fenced so.
    fn fenced(self, smmu: SmmuId, fence: Fence) -> SpaceError {
        match self {
            Self::Refused(error) => error,
            Self::Lost(Some(error)) => SpaceError::NotConfirmed { smmu, error, fence },
            Self::Lost(None) => SpaceError::NotHeld { smmu, fence },
            Self::Kept { device, .. } => SpaceError::CachesKept { device, fence },
        }
    }
}
