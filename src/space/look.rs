//! Looking: how much there is, and what it takes; and the end of it all.

use super::books::{BindingState, SpaceState};
use super::device::Reach;
use super::error::SpaceError;
use super::ids::{DeviceId, GuestId};
use super::iommu::Iommu;
use crate::hw::Platform;

/// How much of everything a guest has. All zeros: nothing.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Spaces, in whatever state.
    pub spaces: u32,
    /// Of these: released, with a handle open, or something unconfirmed.
    pub parked: u32,
    /// Of these: their numbers wait until they were not heard of for long enough.
    pub draining: u32,
    /// Of these: something of them was not confirmed.
    pub lost: u32,
    /// Bindings.
    pub bindings: u32,
    /// Handles.
    pub handles: u32,
    /// Devices that are attached.
    pub devices: u32,
    /// Transactions that are stalled, and wait for the guest.
    pub stalls: u32,
    /// Faults that the guest has not read yet.
    pub faults: u32,
    /// PASIDs that are not free: live, parked, draining or lost.
    pub pasids: u32,
    /// ASIDs that are not free.
    pub asids: u32,
}

/// Where a device stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceState {
    /// Its streams abort, and it is nobody's.
    Detached,
    /// It is a guest's. Its traffic goes by stage 2, by its spaces, or nowhere.
    Attached(GuestId),
    /// It is cut off after misbehaviour, until it is reset.
    Fenced,
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// How much of everything a guest has.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest).
    pub fn counts(&self, guest: GuestId) -> Result<Counts, SpaceError> {
        let mut books = self.books();
        let record = books.guest(guest)?;
        let mut counts = Counts {
            spaces: record.spaces.count(),
            draining: record.draining.count(),
            bindings: record.bindings,
            handles: record.handles,
            devices: record.devices.count(),
            stalls: record.stalls.count(),
            faults: record.faults.len() as u32,
            pasids: record.pasids.taken(),
            asids: record.asids.taken(),
            ..Counts::default()
        };
        let Some(record) = books.guests.get(guest.key()) else {
            return Ok(counts);
        };
        for (_, space) in record.spaces.iter(&books.spaces) {
            counts.parked += u32::from(space.state == SpaceState::Parked);
            let mut bindings = space.bindings.iter(&books.bindings);
            let is_lost = !space.unproven.is_empty()
                || space.kept_caches != 0
                || bindings.any(|(_, binding)| binding.state == BindingState::Lost);
            counts.lost += u32::from(is_lost);
        }
        Ok(counts)
    }

    /// Where a device stands.
    ///
    /// # Errors
    ///
    /// [`NoSuchDevice`](SpaceError::NoSuchDevice).
    pub fn device_state(&self, device: DeviceId) -> Result<DeviceState, SpaceError> {
        let mut books = self.books();
        let record = books.device(device)?;
        Ok(match (record.is_fenced, record.guest) {
            (true, _) => DeviceState::Fenced,
            (false, Some(guest)) => DeviceState::Attached(guest),
            (false, None) => DeviceState::Detached,
        })
    }

    /// Whether a device can be bound by PASID as it is attached now.
    ///
    /// # Errors
    ///
    /// [`NoSuchDevice`](SpaceError::NoSuchDevice).
    pub fn has_pasids(&self, device: DeviceId) -> Result<bool, SpaceError> {
        Ok(self.books().device(device)?.reach == Reach::Pasids)
    }

    /// Bytes of memory that a guest's window of CDs shows now: tables of CDs and their leaves.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Busy`](SpaceError::Busy).
    pub fn sealed_bytes(&self, guest: GuestId) -> Result<u64, SpaceError> {
        let (memory, _visit) = self.join(guest, None, |books| {
            Ok(books.running(guest)?.memory.clone())
        })?;
        let bytes = memory.lock(self.platform()).sealed_bytes();
        Ok(bytes)
    }

    /// Bytes of memory that the books take: records of everything there is, and the number spaces and
    /// fault rings of guests; their stage 2 and their windows not.
    pub fn size_bytes(&self) -> u64 {
        let books = self.books();
        books.guests.size_bytes()
            + books.groups.size_bytes()
            + books.devices.size_bytes()
            + books.spaces.size_bytes()
            + books.bindings.size_bytes()
            + books.handles.size_bytes()
            + books.stalls.size_bytes()
            + books.vmids.size_bytes()
            + books.streams.size_bytes()
            + books.guests_bytes()
    }

    /// Gives the memory of the books back, when there are no guests any more. The SMMUs go on with
    /// the tables that they have, in which every stream aborts.
    ///
    /// # Errors
    ///
    /// The value as it was, if there is a guest, or a lost one.
    #[expect(clippy::result_large_err, reason = "that it comes back is the point")]
    pub fn dismantle(self) -> Result<(), Self> {
        if self.books().guests.len() != 0 {
            return Err(self);
        }
        let devices = self.books().devices.slots();
        for slot in 0..devices {
            let mut books = self.books();
            if let Some(key) = books.devices.key_at(slot) {
                books.remove_device(DeviceId::of(key));
            }
        }
        let groups = self.books().groups.slots();
        for slot in 0..groups {
            let mut books = self.books();
            if let Some(key) = books.groups.key_at(slot) {
                books.groups.remove(key);
            }
        }
        self.into_books().free();
        Ok(())
    }
}
