//! Looking: how much there is, and what it takes; and the end of it all.

use super::bind::PasidOf;
use super::books::{BindingState, Books, Space, SpaceState};
use super::device::Reach;
use super::error::SpaceError;
use super::ids::{DeviceId, GuestId, SmmuId, SpaceId};
use super::iommu::Iommu;
use crate::hw::{DeviceTag, Platform};
use crate::id::{Asid, StreamId};

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

/// A space, for who looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceSeen {
    /// Which.
    pub id: SpaceId,
    /// Where it is in its life.
    pub state: SpaceState,
    /// Its PASID.
    pub pasid: PasidOf,
    /// Its ASID.
    pub asid: Asid,
    /// How many devices it is bound to.
    pub bindings: u32,
    /// How many handles are open.
    pub handles: u32,
    /// Something of it was not confirmed.
    pub is_lost: bool,
}

/// A device, for who looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceSeen {
    /// Which.
    pub id: DeviceId,
    /// The host's number for it.
    pub tag: DeviceTag,
    /// The SMMU that it is behind.
    pub smmu: Option<SmmuId>,
    /// Its first StreamID there.
    pub stream: Option<StreamId>,
    /// How many StreamIDs it has.
    pub streams: u32,
    /// Where it stands.
    pub state: DeviceState,
    /// What its traffic goes to.
    pub reach: Reached,
    /// How many spaces are bound to it.
    pub bindings: u32,
}

/// What a device's traffic goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// It aborts.
    Nothing,
    /// Its guest's stage 2.
    Stage2,
    /// Spaces, by PASID.
    Pasids,
    /// One space, whole.
    Whole,
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// The next space of a guest, from place `from` on, which moves past it; `None`: no more.
    ///
    /// Starts at 0. What comes and goes meanwhile may be seen or not.
    pub fn next_space(&self, guest: GuestId, from: &mut u32) -> Option<SpaceSeen> {
        let books = self.books();
        while *from < books.spaces.slots() {
            let key = books.spaces.key_at(*from);
            *from += 1;
            let Some(key) = key else { continue };
            let Some(space) = books.spaces.get(key) else {
                continue;
            };
            if space.guest != guest {
                continue;
            }
            let pasids = books.guests.get(guest.key()).map(|it| &it.pasids);
            let pasid = space.pasid;
            let generation = pasids.map_or(0, |it| it.generation(pasid.as_u32()));
            return Some(SpaceSeen {
                id: SpaceId::of(key),
                state: space.state,
                pasid: PasidOf { pasid, generation },
                asid: space.asid,
                bindings: space.bindings.count(),
                handles: space.handles,
                is_lost: books.is_lost(space),
            });
        }
        None
    }

    /// As [`next_space`](Self::next_space), for devices, whoever's they are.
    pub fn next_device(&self, from: &mut u32) -> Option<DeviceSeen> {
        let books = self.books();
        while *from < books.devices.slots() {
            let key = books.devices.key_at(*from);
            *from += 1;
            let Some(key) = key else { continue };
            let Some(device) = books.devices.get(key) else {
                continue;
            };
            let streams = device.streams.as_slice();
            return Some(DeviceSeen {
                id: DeviceId::of(key),
                tag: device.tag,
                smmu: device.smmu,
                stream: streams.first().copied(),
                streams: streams.len() as u32,
                state: state_of(device.is_fenced, device.guest),
                reach: match device.reach {
                    Reach::Nothing => Reached::Nothing,
                    Reach::Stage2 => Reached::Stage2,
                    Reach::Pasids => Reached::Pasids,
                    Reach::Whole => Reached::Whole,
                },
                bindings: device.bindings.count(),
            });
        }
        None
    }

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
            counts.lost += u32::from(books.is_lost(space));
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
        Ok(state_of(record.is_fenced, record.guest))
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

const fn state_of(is_fenced: bool, guest: Option<GuestId>) -> DeviceState {
    match (is_fenced, guest) {
        (true, _) => DeviceState::Fenced,
        (false, Some(guest)) => DeviceState::Attached(guest),
        (false, None) => DeviceState::Detached,
    }
}

impl<P: Platform> Books<'_, P> {
    /// Whether something of a space was not confirmed.
    fn is_lost(&self, space: &Space) -> bool {
        let mut bindings = space.bindings.iter(&self.bindings);
        !space.unproven.is_empty()
            || space.kept_caches != 0
            || bindings.any(|(_, binding)| binding.state == BindingState::Lost)
    }
}
