//! The lives of spaces, bindings and numbers: each arrow a function, none of which touches hardware.
//!
//! ```text
//! space    Live ──release──► Parked ──last handle──► gone
//! number   Reserved ⇄ Bound ──release──► Parked ──last handle──► Draining ──silence──► Free, generation + 1
//! binding  Binding ──► Bound ──last handle──► Unbinding ──► gone
//!                        └──its device goes──► Ended ──last handle──► gone
//! ```
//!
//! What hardware does not confirm keeps its number: a binding is `Lost`, a space has `unproven`
//! SMMUs or devices that `kept_caches`; nothing that has any of these moves on.

use super::books::{
    Binding, BindingState, Books, NewSpace, OfDevice, OfGuest, OfSpace, SpaceState,
};
use super::device::Reach;
use super::error::{Quantity, SpaceError};
use super::ids::{DeviceId, GuestId, Handle, SmmuId, SmmuSet, SpaceId};
use super::leftovers::SharedContexts;
use super::list::Linked;
use super::numbers::Ask;
use super::settings::{By, SpaceConfig};
use crate::hw::{Key, Platform};
use crate::id::{Asid, Pasid};
use crate::smmu::Flush;
use crate::spec::stage1::Stage1Walk;
use crate::spec::ste::Ats;

impl<'p, P: Platform> Books<'p, P> {
    /// Gives a new space its numbers; takes none if there is not both.
    pub(super) fn create_space(
        &mut self,
        guest: GuestId,
        config: &SpaceConfig,
        asid_bits: u8,
    ) -> Result<SpaceId, SpaceError> {
        let record = self.running(guest)?;
        if record.spaces.count() >= record.quota.spaces {
            return Err(SpaceError::Quota(Quantity::Spaces));
        }
        self.spaces.reserve()?;
        let record = self.guest(guest)?;
        let asid = record
            .asids
            .take(Ask::AtMostBits(asid_bits))
            .map_err(SpaceError::of_asid)?;
        let pasid = match record.pasids.take(config.pasid) {
            Ok(number) => Pasid::new(number).ok_or(SpaceError::PasidOutOfRange),
            Err(why) => Err(SpaceError::of_pasid(why)),
        };
        let pasid = match pasid {
            Ok(pasid) => pasid,
            Err(error) => {
                // It was taken just now, and nothing had it.
                let _ = record.asids.put_back(asid);
                return Err(error);
            }
        };
        self.add_space(NewSpace {
            guest,
            pasid,
            walk: Stage1Walk {
                // At most 16 bits, as the guest's numbers were made.
                asid: Asid::new(asid as u16),
                ..config.walk
            },
            promises_no_global: config.promises_no_global,
        })
    }

    /// One handle more of a binding that stands.
    pub(super) fn bind_again(
        &mut self,
        guest: GuestId,
        key: Key<Binding>,
        by: By,
    ) -> Result<Handle, SpaceError> {
        let binding = self.bindings.get(key).ok_or(SpaceError::NoSuchHandle)?;
        match (binding.state, binding.by == by) {
            (BindingState::Bound, true) => self.add_handle(guest, key),
            (BindingState::Bound, false) => Err(SpaceError::BoundOtherwise),
            // Of an earlier life of the device, or not confirmed: its CD was not retracted.
            _ => Err(SpaceError::PublishOverLive),
        }
    }

    /// Takes a handle back; the binding, if it was its last and something is to be done for it.
    pub(super) fn drop_handle(
        &mut self,
        guest: GuestId,
        handle: Handle,
    ) -> Result<Option<Key<Binding>>, SpaceError> {
        let key = self.held(guest, handle)?;
        let left = self.remove_handle(handle);
        let binding = self.bindings.get(key).ok_or(SpaceError::NoSuchHandle)?;
        let is_lost = binding.state == BindingState::Lost || binding.kept_caches;
        Ok((left == 0 && !is_lost).then_some(key))
    }

    /// Begins to retract a binding without handles, if something of it is in hardware; forgets it
    /// otherwise.
    pub(super) fn begin_retract(
        &mut self,
        key: Key<Binding>,
    ) -> Option<(DeviceId, SmmuId, SharedContexts<'p, P>)> {
        let binding = self.bindings.get(key)?;
        let (device, state) = (binding.device, binding.state);
        let found = self
            .devices
            .get(device.key())
            .and_then(|record| Some((device, record.smmu?, record.contexts.clone()?)));
        match (state, found) {
            (BindingState::Bound, Some(found)) => {
                self.bindings.get_mut(key)?.state = BindingState::Unbinding;
                Some(found)
            }
            (BindingState::Bound | BindingState::Ended, _) => {
                self.remove_binding(key);
                None
            }
            (BindingState::Binding | BindingState::Unbinding | BindingState::Lost, _) => None,
        }
    }

    /// Hardware did not confirm a change of the binding: its number stays out of use. Its device.
    pub(super) fn lose_binding(&mut self, key: Key<Binding>, smmu: SmmuId) -> Option<DeviceId> {
        let binding = self.bindings.get_mut(key)?;
        binding.state = BindingState::Lost;
        let (space, device) = (binding.space, binding.device);
        self.lose_space(space, smmu);
        let record = self.devices.get(device.key());
        if record.is_some_and(|it| it.ats_now != Ats::Off) {
            // Nobody told the device, or nobody knows what it was told.
            self.keep_caches(key);
        }
        Some(device)
    }

    /// An SMMU did not confirm something of a space.
    pub(super) fn lose_space(&mut self, space: SpaceId, smmu: SmmuId) {
        if let Some(space) = self.spaces.get_mut(space.key()) {
            space.unproven.insert(smmu);
            space.lost_at = self.recoveries;
        }
    }

    /// The binding's device kept translations that it was told to drop; its CD is retracted, or
    /// quiet.
    pub(super) fn keep_caches(&mut self, key: Key<Binding>) {
        let Some(binding) = self.bindings.get_mut(key) else {
            return;
        };
        if binding.kept_caches {
            return;
        }
        binding.kept_caches = true;
        if binding.state == BindingState::Unbinding {
            binding.state = BindingState::Ended;
        }
        let (space, device) = (binding.space, binding.device);
        if let Some(space) = self.spaces.get_mut(space.key()) {
            space.kept_caches += 1;
        }
        if let Some(device) = self.devices.get_mut(device.key()) {
            device.kept_caches = true;
        }
    }

    /// Does `with` to each binding of a device.
    pub(super) fn each_binding_of(
        &mut self,
        device: DeviceId,
        mut with: impl FnMut(&mut Self, Key<Binding>),
    ) {
        let mut next = self
            .devices
            .get(device.key())
            .and_then(|it| it.bindings.first());
        while let Some(key) = next {
            next = self.bindings.get(key).and_then(Linked::<OfDevice>::next);
            with(self, key);
        }
    }

    /// Ends every binding of a device whose streams abort, confirmed: no CD of theirs is looked at
    /// any more, lost or not (CMD_CFGI_STE takes what is cached of them, §4.3.1). Handles stay, to be
    /// dropped; so do bindings of which the device kept translations.
    pub(super) fn end_bindings_of(&mut self, device: DeviceId, now_us: u64) {
        self.each_binding_of(device, |books, key| {
            let Some(binding) = books.bindings.get_mut(key) else {
                return;
            };
            binding.state = BindingState::Ended;
            let space = binding.space;
            if binding.handles.is_empty() && !binding.kept_caches {
                books.remove_binding(key);
            }
            books.settle_space(space, now_us);
        });
    }

    /// A device was reset: what it kept is gone.
    pub(super) fn forgive_caches_of(&mut self, device: DeviceId, now_us: u64) {
        if let Some(device) = self.devices.get_mut(device.key()) {
            device.kept_caches = false;
        }
        self.each_binding_of(device, |books, key| {
            let Some(binding) = books.bindings.get_mut(key) else {
                return;
            };
            let (space, state) = (binding.space, binding.state);
            let handles = binding.handles.count();
            if core::mem::take(&mut binding.kept_caches) {
                if let Some(space) = books.spaces.get_mut(space.key()) {
                    space.kept_caches = space.kept_caches.saturating_sub(1);
                }
                if handles == 0 && state == BindingState::Ended {
                    books.remove_binding(key);
                }
                books.settle_space(space, now_us);
            }
        });
    }

    /// Marks a space as being released: what must be flushed for it, and where.
    pub(super) fn begin_release(
        &mut self,
        guest: GuestId,
        space: SpaceId,
    ) -> Result<(Flush, SmmuSet), SpaceError> {
        let vmid = self.running(guest)?.vmid;
        let record = self.space(guest, space)?;
        if record.state != SpaceState::Live {
            return Err(SpaceError::AlreadyReleased);
        }
        record.state = SpaceState::Releasing;
        let flush = if record.promises_no_global {
            Flush::Asid(vmid, record.asid)
        } else {
            Flush::Vmid(vmid)
        };
        Ok((flush, record.live_on))
    }

    /// A space was released: its tag is clean wherever that was confirmed.
    pub(super) fn end_release(&mut self, space: SpaceId, now_us: u64) {
        if let Some(record) = self.spaces.get_mut(space.key()) {
            record.state = SpaceState::Parked;
            record.live_on = record.unproven;
        }
        self.settle_space(space, now_us);
    }

    /// Marks all of a guest's spaces as being released: what must be flushed for them, and where. That
    /// is wherever a tag is live, or a binding stands, be it of a space that was released before.
    pub(super) fn begin_release_all(
        &mut self,
        guest: GuestId,
    ) -> Result<(Flush, SmmuSet), SpaceError> {
        let record = self.guest(guest)?;
        let flush = Flush::Vmid(record.vmid);
        let mut live_on = SmmuSet::EMPTY;
        let mut device = record.devices.first();
        while let Some(key) = device {
            let Some(device_record) = self.devices.get(key) else {
                break;
            };
            device = Linked::<OfGuest>::next(device_record);
            if !device_record.bindings.is_empty() || device_record.reach == Reach::Whole {
                live_on.absorb(device_record.smmus());
            }
        }
        let mut next = self.guest(guest)?.spaces.first();
        while let Some(key) = next {
            let Some(space) = self.spaces.get_mut(key) else {
                break;
            };
            next = Linked::<OfGuest>::next(space);
            space.is_closing = true;
            live_on.absorb(space.live_on);
            if space.state == SpaceState::Live {
                space.state = SpaceState::Releasing;
            }
        }
        Ok((flush, live_on))
    }

    /// All of a guest's spaces were released, their CDs retracted: their handles and bindings go,
    /// save what hardware did not confirm.
    pub(super) fn end_release_all(&mut self, guest: GuestId, now_us: u64) {
        let mut next = self
            .guests
            .get(guest.key())
            .and_then(|it| it.spaces.first());
        while let Some(key) = next {
            let Some(space) = self.spaces.get_mut(key) else {
                return;
            };
            next = Linked::<OfGuest>::next(space);
            if space.state == SpaceState::Draining {
                continue;
            }
            space.state = SpaceState::Parked;
            space.live_on = space.unproven;
            let unproven = space.unproven;
            let mut binding = space.bindings.first();
            while let Some(at) = binding {
                self.drop_handles_of(at);
                let Some(record) = self.bindings.get_mut(at) else {
                    break;
                };
                binding = Linked::<OfSpace>::next(record);
                let smmu = self.devices.get(record.device.key()).and_then(|it| it.smmu);
                if smmu.is_some_and(|smmu| unproven.has(smmu)) {
                    record.state = BindingState::Lost;
                } else if record.state != BindingState::Lost {
                    record.state = BindingState::Ended;
                    if !record.kept_caches {
                        self.remove_binding(at);
                    }
                }
            }
            self.settle_space(SpaceId::of(key), now_us);
        }
    }
}
