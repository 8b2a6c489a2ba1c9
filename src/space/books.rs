//! The books: what there is, whose it is, and where it stands in its life.
//!
//! Plain records under one lock, which is held for a few of them at a time and never across a wait.
//! What hardware does with an object is decided here, then done outside with the object marked as
//! busy, then noted here.
//!
//! ```text
//! guest ─┬─ spaces ──── bindings ─┐
//!        │                        ├─ a binding is of one space and one device, and counts its handles
//!        └─ devices ─── bindings ─┘
//! group ─── devices
//! ```
//!
//! # Who may do what at the same time
//!
//! | operation | guest | space |
//! |---|---|---|
//! | bind and unbind by PASID, release, invalidate, unmap | one of many | alone |
//! | attach, detach, bind and unbind of a whole stream, reset, release all, death | alone | – |
//!
//! Who wants a guest alone keeps others from beginning and waits for those who began. All waits are
//! bounded: what is waited for is itself bounded by the SMMUs' time-outs.

use super::device::Device;
use super::error::{Quantity, SpaceError};
use super::faults::Stall;
use super::group::Group;
use super::guest::{Guest, GuestLife};
use super::ids::{DeviceId, GroupId, GuestId, Handle, MAX_SMMUS, SmmuId, SmmuSet, SpaceId};
use super::list::{Link, Linked, List, linked};
use super::numbers::Numbers;
use super::settings::By;
use super::streams::StreamMap;
use crate::hw::{Key, Platform, Slab};
use crate::id::{Asid, Pasid};
use crate::spec::stage1::Stage1Walk;

/// The rows that a record can stand in.
pub(super) struct OfGuest;
pub(super) struct OfGroup;
pub(super) struct OfSpace;
pub(super) struct OfDevice;
pub(super) struct OfBinding;
pub(super) struct Drains;

/// All records.
pub(super) struct Books<'p, P: Platform> {
    pub(super) guests: Slab<'p, P, Guest<'p, P>>,
    pub(super) groups: Slab<'p, P, Group<'p, P>>,
    pub(super) devices: Slab<'p, P, Device<'p, P>>,
    pub(super) spaces: Slab<'p, P, Space>,
    pub(super) bindings: Slab<'p, P, Binding>,
    pub(super) handles: Slab<'p, P, Held>,
    pub(super) stalls: Slab<'p, P, Stall>,
    pub(super) vmids: Numbers<'p, P>,
    pub(super) streams: StreamMap<'p, P>,
    /// SMMUs that stopped, or were stopped as a fence.
    pub(super) down: SmmuSet,
    /// By SMMU: all that it recorded before this time has been read.
    pub(super) heard_to_us: [u64; MAX_SMMUS],
    pub(super) is_discovery_over: bool,
    /// Goes up with each recovery that begins: what was lost before is covered by it.
    pub(super) recoveries: u64,
}

/// Where a space is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceState {
    /// It can be bound, and what is bound translates.
    Live,
    /// It is being released.
    Releasing,
    /// Released: nothing translates by it. Its number is reserved by open handles, or because
    /// hardware did not confirm.
    Parked,
    /// Nobody holds it; its number waits until it was not heard of for long enough.
    Draining,
}

/// One guest address space.
pub(super) struct Space {
    pub(super) guest: GuestId,
    pub(super) pasid: Pasid,
    pub(super) asid: Asid,
    pub(super) walk: Stage1Walk,
    pub(super) promises_no_global: bool,
    pub(super) state: SpaceState,
    /// Its lock: one operation at a time.
    pub(super) is_busy: bool,
    /// Somebody has begun to release it: nothing new begins.
    pub(super) is_closing: bool,
    /// It was bound once, so its number drains before it is given out again.
    pub(super) was_bound: bool,
    /// SMMUs on which its tag has been used since it was last clean there.
    pub(super) live_on: SmmuSet,
    /// SMMUs that did not confirm something of it.
    pub(super) unproven: SmmuSet,
    /// How many recoveries had begun when one of them did not, last.
    pub(super) lost_at: u64,
    /// Its bindings whose devices kept translations.
    pub(super) kept_caches: u32,
    pub(super) bindings: List<Binding, OfSpace>,
    pub(super) handles: u32,
    pub(super) silent_since_us: u64,
    in_guest: Link<Space>,
    in_draining: Link<Space>,
}
linked!(Space, OfGuest, in_guest);
linked!(Space, Drains, in_draining);

/// Where a binding is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BindingState {
    /// Its CD is being published.
    Binding,
    /// Its CD is live or, once the space was released, quiet; not valid where stalls are forced.
    Bound,
    /// Its CD is being retracted.
    Unbinding,
    /// Its device went away, or forgot it: nothing of it is in hardware. Handles may be open.
    Ended,
    /// Hardware did not confirm: its CD is not valid in memory, and may be anything to the SMMU.
    Lost,
}

/// A space that is reachable by a device.
pub(super) struct Binding {
    pub(super) space: SpaceId,
    pub(super) device: DeviceId,
    pub(super) by: By,
    pub(super) state: BindingState,
    pub(super) handles: List<Held, OfBinding>,
    /// The device kept translations of it.
    pub(super) kept_caches: bool,
    in_space: Link<Binding>,
    in_device: Link<Binding>,
}
linked!(Binding, OfSpace, in_space);
linked!(Binding, OfDevice, in_device);

/// What a handle stands for.
pub(super) struct Held {
    pub(super) guest: GuestId,
    pub(super) binding: Key<Binding>,
    in_binding: Link<Held>,
}
linked!(Held, OfBinding, in_binding);

impl<'p, P: Platform> Books<'p, P> {
    /// Gives all memory back. There are no records any more, save in slabs that keep theirs.
    pub(super) fn free(self) {
        let _ = self.guests.free();
        let _ = self.groups.free();
        let _ = self.devices.free();
        let _ = self.spaces.free();
        let _ = self.bindings.free();
        let _ = self.handles.free();
        let _ = self.stalls.free();
        self.vmids.free();
        self.streams.free();
    }

    /// What guests take beside their records and their stage 2.
    pub(super) fn guests_bytes(&self) -> u64 {
        let guests = self.guests.iter();
        guests
            .map(|(_, it)| it.pasids.size_bytes() + it.asids.size_bytes() + it.faults.size_bytes())
            .sum()
    }

    pub(super) fn guest(&mut self, id: GuestId) -> Result<&mut Guest<'p, P>, SpaceError> {
        self.guests.get_mut(id.key()).ok_or(SpaceError::NoSuchGuest)
    }

    /// The guest, if it is not on its way out.
    pub(super) fn running(&mut self, id: GuestId) -> Result<&mut Guest<'p, P>, SpaceError> {
        let guest = self.guest(id)?;
        match guest.life {
            GuestLife::Running => Ok(guest),
            GuestLife::Dying | GuestLife::Lost => Err(SpaceError::GuestEnding),
        }
    }

    pub(super) fn group(&mut self, id: GroupId) -> Result<&mut Group<'p, P>, SpaceError> {
        self.groups.get_mut(id.key()).ok_or(SpaceError::NoSuchGroup)
    }

    pub(super) fn device(&mut self, id: DeviceId) -> Result<&mut Device<'p, P>, SpaceError> {
        self.devices
            .get_mut(id.key())
            .ok_or(SpaceError::NoSuchDevice)
    }

    /// The device, if it is attached to the guest.
    pub(super) fn attached(
        &mut self,
        guest: GuestId,
        id: DeviceId,
    ) -> Result<&mut Device<'p, P>, SpaceError> {
        let group = self.device(id)?.group;
        if !self.group(group)?.is_owned_by(guest) {
            return Err(SpaceError::NotOwner);
        }
        let device = self.device(id)?;
        if device.is_fenced {
            return Err(SpaceError::Fenced);
        }
        if device.guest != Some(guest) {
            return Err(SpaceError::NotAttached);
        }
        Ok(device)
    }

    /// The guest's space, in whatever state, save those that only their number remembers.
    pub(super) fn space(&mut self, guest: GuestId, id: SpaceId) -> Result<&mut Space, SpaceError> {
        let space = self
            .spaces
            .get_mut(id.key())
            .ok_or(SpaceError::NoSuchSpace)?;
        if space.guest != guest {
            return Err(SpaceError::ForeignSpace);
        }
        match space.state {
            SpaceState::Draining => Err(SpaceError::NoSuchSpace),
            SpaceState::Live | SpaceState::Releasing | SpaceState::Parked => Ok(space),
        }
    }

    /// The guest's space, if it was not released.
    pub(super) fn live(&mut self, guest: GuestId, id: SpaceId) -> Result<&mut Space, SpaceError> {
        let space = self.space(guest, id)?;
        if space.state != SpaceState::Live || space.is_closing {
            return Err(SpaceError::Released);
        }
        Ok(space)
    }

    /// The binding that a guest's handle stands for.
    pub(super) fn held(&self, guest: GuestId, id: Handle) -> Result<Key<Binding>, SpaceError> {
        let held = self.handles.get(id.key()).ok_or(SpaceError::NoSuchHandle)?;
        if held.guest != guest {
            return Err(SpaceError::ForeignHandle);
        }
        Ok(held.binding)
    }

    /// The binding of a space and a device, if there is one.
    pub(super) fn binding_of(&self, space: SpaceId, device: DeviceId) -> Option<Key<Binding>> {
        let space = self.spaces.get(space.key())?;
        let mut bindings = space.bindings.iter(&self.bindings);
        let (key, _) = bindings.find(|(_, binding)| binding.device == device)?;
        Some(key)
    }

    /// Adds a space, of which nothing is in hardware yet.
    pub(super) fn add_space(&mut self, space: NewSpace) -> Result<SpaceId, SpaceError> {
        let guest = space.guest;
        let record = Space {
            guest,
            pasid: space.pasid,
            asid: space.walk.asid,
            walk: space.walk,
            promises_no_global: space.promises_no_global,
            state: SpaceState::Live,
            is_busy: false,
            is_closing: false,
            was_bound: false,
            live_on: SmmuSet::EMPTY,
            unproven: SmmuSet::EMPTY,
            lost_at: 0,
            kept_caches: 0,
            bindings: List::default(),
            handles: 0,
            silent_since_us: 0,
            in_guest: Link::default(),
            in_draining: Link::default(),
        };
        let key = self.spaces.insert(record).map_err(|(_, why)| why)?;
        if let Some(guest) = self.guests.get_mut(guest.key()) {
            guest.spaces.push(&mut self.spaces, key);
            guest
                .pasids
                .set_note(space.pasid.as_u32(), key.slot().into());
        }
        Ok(SpaceId::of(key))
    }

    /// Adds a binding, whose CD is about to be published; without handles yet.
    pub(super) fn add_binding(
        &mut self,
        guest: GuestId,
        space: SpaceId,
        device: DeviceId,
        by: By,
    ) -> Result<Key<Binding>, SpaceError> {
        let quota = self.guest(guest)?.quota;
        if self.guest(guest)?.bindings >= quota.bindings {
            return Err(SpaceError::Quota(Quantity::Bindings));
        }
        let record = Binding {
            space,
            device,
            by,
            state: BindingState::Binding,
            handles: List::default(),
            kept_caches: false,
            in_space: Link::default(),
            in_device: Link::default(),
        };
        let key = self.bindings.insert(record).map_err(|(_, why)| why)?;
        if let Some(space) = self.spaces.get_mut(space.key()) {
            space.bindings.push(&mut self.bindings, key);
        }
        if let Some(device) = self.devices.get_mut(device.key()) {
            device.bindings.push(&mut self.bindings, key);
        }
        self.guest(guest)?.bindings += 1;
        Ok(key)
    }

    /// Forgets a binding that has no handles and of which nothing is in hardware.
    pub(super) fn remove_binding(&mut self, key: Key<Binding>) {
        let Some(binding) = self.bindings.get(key) else {
            return;
        };
        let (space, device) = (binding.space, binding.device);
        if let Some(space) = self.spaces.get_mut(space.key()) {
            space.bindings.remove(&mut self.bindings, key);
            let guest = space.guest;
            if let Some(guest) = self.guests.get_mut(guest.key()) {
                guest.bindings = guest.bindings.saturating_sub(1);
            }
        }
        let mut is_over = false;
        if let Some(device) = self.devices.get_mut(device.key()) {
            device.bindings.remove(&mut self.bindings, key);
            is_over = device.is_gone && device.bindings.is_empty();
        }
        self.bindings.remove(key);
        if is_over {
            self.remove_device(device);
        }
    }

    /// Gives out a handle of a binding.
    pub(super) fn add_handle(
        &mut self,
        guest: GuestId,
        binding: Key<Binding>,
    ) -> Result<Handle, SpaceError> {
        let holder = self.guest(guest)?;
        if holder.handles >= holder.quota.handles {
            return Err(SpaceError::Quota(Quantity::Handles));
        }
        let key = self
            .handles
            .insert(Held {
                guest,
                binding,
                in_binding: Link::default(),
            })
            .map_err(|(_, why)| why)?;
        self.guest(guest)?.handles += 1;
        if let Some(binding) = self.bindings.get_mut(binding) {
            binding.handles.push(&mut self.handles, key);
            if let Some(space) = self.spaces.get_mut(binding.space.key()) {
                space.handles += 1;
            }
        }
        Ok(Handle::of(key))
    }

    /// Takes a handle back; what is left of its binding's.
    pub(super) fn remove_handle(&mut self, id: Handle) -> u32 {
        let Some(held) = self.handles.get(id.key()) else {
            return 0;
        };
        let (guest, binding) = (held.guest, held.binding);
        if let Some(guest) = self.guests.get_mut(guest.key()) {
            guest.handles = guest.handles.saturating_sub(1);
        }
        let Some(binding) = self.bindings.get_mut(binding) else {
            return 0;
        };
        binding.handles.remove(&mut self.handles, id.key());
        self.handles.remove(id.key());
        let left = binding.handles.count();
        if let Some(space) = self.spaces.get_mut(binding.space.key()) {
            space.handles = space.handles.saturating_sub(1);
        }
        left
    }

    /// Moves a space on, if it was released and nothing keeps it: to draining, or out.
    ///
    /// What keeps it is an open handle, a binding whose CD is not retracted, and whatever hardware
    /// did not confirm.
    pub(super) fn settle_space(&mut self, id: SpaceId, now_us: u64) {
        let Some(space) = self.spaces.get_mut(id.key()) else {
            return;
        };
        let is_kept = space.handles != 0
            || !space.bindings.is_empty()
            || !space.unproven.is_empty()
            || space.kept_caches != 0;
        if space.state != SpaceState::Parked || is_kept {
            return;
        }
        if space.was_bound {
            space.state = SpaceState::Draining;
            space.silent_since_us = now_us;
            let guest = space.guest;
            if let Some(guest) = self.guests.get_mut(guest.key()) {
                guest.draining.push(&mut self.spaces, id.key());
            }
        } else {
            self.remove_space(id);
        }
    }

    /// Gives a space's numbers back and forgets it.
    pub(super) fn remove_space(&mut self, id: SpaceId) {
        let Some(space) = self.spaces.get(id.key()) else {
            return;
        };
        let (guest, pasid, asid) = (space.guest, space.pasid, space.asid);
        let is_draining = space.state == SpaceState::Draining;
        if let Some(guest) = self.guests.get_mut(guest.key()) {
            if is_draining {
                guest.draining.remove(&mut self.spaces, id.key());
            }
            guest.spaces.remove(&mut self.spaces, id.key());
            // Both are taken, by this space.
            let _ = guest.pasids.put_back(pasid.as_u32());
            let _ = guest.asids.put_back(asid.as_u16().into());
        }
        self.spaces.remove(id.key());
    }

    /// All that an SMMU recorded before `at_us` has been read. One that is down records nothing: its
    /// silence says nothing either.
    pub(super) fn note_heard(&mut self, smmu: SmmuId, at_us: u64) {
        if let Some(heard_to_us) = self.heard_to_us.get_mut(smmu.index())
            && !self.down.has(smmu)
        {
            *heard_to_us = at_us.max(*heard_to_us);
        }
    }

    /// Gives back the numbers of spaces that were not heard of for `quarantine_us`: as far as the
    /// records of every SMMU that the guest was ever attached to have been read, for what waits
    /// there unread may be of such a number.
    pub(super) fn end_quarantines(&mut self, guest: GuestId, quarantine_us: u64) {
        let Some(record) = self.guests.get(guest.key()) else {
            return;
        };
        let heard = record.live_on.iter().map(|it| self.heard_to_us[it.index()]);
        let heard_to_us = heard.min().unwrap_or(0);
        while let Some(guest) = self.guests.get(guest.key())
            && let Some(key) = guest.draining.first()
            && let Some(space) = self.spaces.get(key)
            && heard_to_us.saturating_sub(space.silent_since_us) >= quarantine_us
        {
            self.remove_space(SpaceId::of(key));
        }
    }

    /// Events of an SMMU were lost, any draining number's among them: quarantines begin again.
    pub(super) fn restart_quarantines_on(&mut self, smmu: SmmuId, now_us: u64) {
        for slot in 0..self.guests.slots() {
            let Some(key) = self.guests.key_at(slot) else {
                continue;
            };
            let Some(guest) = self.guests.get(key).filter(|it| it.live_on.has(smmu)) else {
                continue;
            };
            let mut next = guest.draining.first();
            while let Some(key) = next {
                let Some(space) = self.spaces.get_mut(key) else {
                    break;
                };
                space.silent_since_us = now_us;
                next = Linked::<Drains>::next(space);
            }
        }
    }

    /// A number that drains was heard of: its quarantine begins again.
    pub(super) fn restart_quarantine(&mut self, id: SpaceId, now_us: u64) {
        let Some(space) = self.spaces.get_mut(id.key()) else {
            return;
        };
        if space.state != SpaceState::Draining {
            return;
        }
        space.silent_since_us = now_us;
        let guest = space.guest;
        if let Some(guest) = self.guests.get_mut(guest.key()) {
            guest.draining.remove(&mut self.spaces, id.key());
            guest.draining.push(&mut self.spaces, id.key());
        }
    }

    /// Takes all handles of a binding back.
    pub(super) fn drop_handles_of(&mut self, key: Key<Binding>) {
        while let Some(handle) = self.bindings.get(key).and_then(|it| it.handles.first()) {
            self.remove_handle(Handle::of(handle));
        }
    }
}

/// A space to be.
pub(super) struct NewSpace {
    pub(super) guest: GuestId,
    pub(super) pasid: Pasid,
    pub(super) walk: Stage1Walk,
    pub(super) promises_no_global: bool,
}
