//! What devices did wrong, told to the guest that they are of; and stalled transactions, answered.
//!
//! An event becomes a [`Fault`]: never with a physical address, and with a PASID and its generation,
//! so that a late one is not taken for the number's next owner's. Each guest has a ring of its own;
//! when that is full it loses its own faults and is told how many.
//!
//! A stalled transaction is kept until the guest answers, its time is up, or its space is released,
//! and is answered once. One of a space that is not live, or above the guest's share, is aborted at
//! once.

use super::bind::PasidOf;
use super::books::{Books, OfGuest, SpaceState};
use super::device::Reach;
use super::error::SpaceError;
use super::ids::{DeviceId, FaultId, GuestId, SmmuId, SpaceId};
use super::iommu::Iommu;
use super::list::{Link, linked};
use crate::addr::{Iova, Ipa};
use crate::hw::{Key, Platform};
use crate::id::{Pasid, StreamId};
use crate::spec::command::ResumeAction;
use crate::spec::event::{Access, Event, EventKind};

/// What a device of a guest did, or what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What to answer, if the transaction is stalled and waits.
    pub id: Option<FaultId>,
    /// Whose transaction it was; none if it is about an SMMU.
    pub device: Option<DeviceId>,
    /// The PASID it had, if that is a space's now.
    pub pasid: Option<PasidOf>,
    /// What happened.
    pub kind: FaultKind,
    /// The address that the device gave, if it is known.
    pub address: Option<Iova>,
    /// The guest's own address that was not mapped for it, to the page, if stage 2 refused.
    pub ipa: Option<Ipa>,
    /// What it wanted to do there.
    pub access: Option<Access>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Nothing is mapped at the address.
    Translation,
    /// The address, or one in a table, is out of range.
    AddressSize,
    /// The access flag is clear.
    AccessFlag,
    /// The access is not permitted.
    Permission,
    /// A table of the guest's could not be read.
    TableUnreadable,
    /// The PASID is no space's that is bound to the device.
    BadPasid,
    /// Traffic without a PASID, where there is to be none.
    Untagged,
    /// ATS that was not granted.
    AtsRefused,
    /// The device asked for something that the SMMU does not support.
    Unsupported,
    /// The SMMU stopped, or was stopped: nothing behind it translates until it is recovered.
    SmmuStopped(SmmuId),
    /// Something else, by the number of its event.
    Other(u8),
}

/// A transaction that waits for an answer.
pub(super) struct Stall {
    guest: GuestId,
    smmu: SmmuId,
    stream: StreamId,
    tag: u16,
    space: Option<SpaceId>,
    since_us: u64,
    in_guest: Link<Stall>,
}
linked!(Stall, OfGuest, in_guest);

/// What a guest makes of a stalled transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is tried again: what it needs is there now.
    Retry,
    /// It is aborted.
    Abort,
}

/// An answer that is to be given.
type Due = (StreamId, u16, ResumeAction);

/// How many events are taken before what they ask for is answered.
const BATCH: usize = 16;

/// Answers to one SMMU, at most one for each event of a batch.
struct Answers {
    due: [Option<Due>; BATCH],
    count: usize,
}

impl Answers {
    const fn new() -> Self {
        Self {
            due: [None; BATCH],
            count: 0,
        }
    }

    fn push(&mut self, due: Due) {
        if let Some(slot) = self.due.get_mut(self.count) {
            *slot = Some(due);
            self.count += 1;
        }
    }
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// The next fault of a guest, oldest first.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest).
    pub fn next_fault(&self, guest: GuestId) -> Result<Option<Fault>, SpaceError> {
        Ok(self.books().guest(guest)?.faults.pop())
    }

    /// How many faults of a guest were not kept, ever: it did not read them in time.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest).
    pub fn lost_faults(&self, guest: GuestId) -> Result<u64, SpaceError> {
        Ok(self.books().guest(guest)?.lost_faults)
    }

    /// Answers a stalled transaction.
    ///
    /// Waits for room in the SMMU's queue, at most the time-out of a CMD_SYNC.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`ForeignFault`](SpaceError::ForeignFault),
    /// [`NoSuchFault`](SpaceError::NoSuchFault).
    /// [`NotConfirmed`](SpaceError::NotConfirmed): the SMMU takes no command; the transaction stays
    /// stalled, and reaches nothing.
    pub fn answer(&self, guest: GuestId, fault: FaultId, answer: Answer) -> Result<(), SpaceError> {
        let stall = {
            let mut books = self.books();
            books.guest(guest)?;
            let stall = books
                .stalls
                .get(fault.key())
                .ok_or(SpaceError::NoSuchFault)?;
            if stall.guest != guest {
                return Err(SpaceError::ForeignFault);
            }
            books
                .take_stall(fault.key())
                .ok_or(SpaceError::NoSuchFault)?
        };
        let action = match answer {
            Answer::Retry => ResumeAction::Retry,
            Answer::Abort => ResumeAction::Abort,
        };
        self.smmu(stall.smmu)?
            .resume([(stall.stream, stall.tag, action)].into_iter())
            .map_err(|error| SpaceError::NotConfirmed {
                smmu: stall.smmu,
                error,
                fence: super::error::Fence::NotNeeded,
            })
    }

    /// Takes what an SMMU reports, at most `budget` events, and tells the guests; answers at once
    /// what is not for a guest to answer.
    pub(super) fn take_events(&self, id: SmmuId, budget: u32) -> Taken {
        let mut taken = Taken::default();
        let Ok(smmu) = self.smmu(id) else {
            return taken;
        };
        let mut left = budget;
        loop {
            let mut answers = Answers::new();
            // Of this batch: a quarantine that an event restarts must not be as old as a long turn.
            let now_us = self.now_us();
            let found = smmu.service(left.min(BATCH as u32), |event| {
                let mut books = self.books();
                if let Some(due) = books.note_event(id, &event, now_us) {
                    answers.push(due);
                }
            });
            // What does not go in keeps its transaction stalled: it reaches nothing.
            let _ = smmu.resume(answers.due.into_iter().flatten());
            left = left.saturating_sub(found.events.events);
            taken.events += found.events.events;
            taken.has_lost |= found.events.lost_events || found.events.was_corrupt;
            taken.has_lost_stalls |= found.events.was_aborted || found.events.was_corrupt;
            taken.death = found.death;
            taken.has_more = found.events.has_more;
            let knows_all = !found.events.lost_events && !found.events.was_corrupt;
            if !found.events.has_more && knows_all {
                self.books().note_heard(id, now_us);
            }
            if !found.events.has_more || left == 0 || found.events.events == 0 {
                break;
            }
        }
        taken
    }

    /// Aborts every stalled transaction of a space that was released, those that the guest has
    /// read of too, and forgets the faults that tell of them.
    pub(super) fn abort_stalls_of(&self, guest: GuestId, space: SpaceId) {
        self.abort_stalls(guest, |stall| stall.space == Some(space));
        let mut books = self.books();
        let books = &mut *books;
        if let Some(guest) = books.guests.get_mut(guest.key()) {
            let stalls = &books.stalls;
            guest
                .faults
                .retain(|fault| fault.id.is_none_or(|id| stalls.get(id.key()).is_some()));
        }
    }

    /// Aborts every stalled transaction of a guest that starts over, and forgets all faults.
    pub(super) fn abort_stalls_of_guest(&self, guest: GuestId) {
        self.abort_stalls(guest, |_| true);
        if let Ok(record) = self.books().guest(guest) {
            record.faults.retain(|_| false);
        }
    }

    /// Records of stalled transactions were lost with an SMMU's event queue: nobody can answer them
    /// by name, so the streams that can stall are stopped, which ends all of theirs (§4.7.2).
    pub(super) fn end_unknown_stalls(&self, id: SmmuId) {
        let mut slot = 0;
        while let Some(device) = self.stalling_from(&mut slot, id) {
            self.fence_stalling(id, device);
        }
    }

    /// The next attached device behind an SMMU that can stall, from place `slot` on.
    fn stalling_from(&self, slot: &mut u32, id: SmmuId) -> Option<DeviceId> {
        let books = self.books();
        while *slot < books.devices.slots() {
            let key = books.devices.key_at(*slot);
            *slot += 1;
            if let Some(key) = key
                && let Some(device) = books.devices.get(key)
                && device.smmu == Some(id)
                && device.can_stall
                && device.guest.is_some()
            {
                return Some(DeviceId::of(key));
            }
        }
        None
    }

    /// Aborts a guest's stalled transactions that wait for too long.
    pub(super) fn abort_late_stalls(&self, guest: GuestId) {
        let now_us = self.now_us();
        let deadline_us = self.settings().stall_deadline_us;
        self.abort_stalls(guest, |stall| {
            now_us.saturating_sub(stall.since_us) >= deadline_us
        });
    }

    fn abort_stalls(&self, guest: GuestId, is_meant: impl Fn(&Stall) -> bool) {
        loop {
            let stall = {
                let mut books = self.books();
                let Some(record) = books.guests.get(guest.key()) else {
                    return;
                };
                let found = record
                    .stalls
                    .iter(&books.stalls)
                    .find_map(|(key, stall)| is_meant(stall).then_some(key));
                let Some(key) = found else {
                    return;
                };
                books.take_stall(key)
            };
            if let Some(stall) = stall
                && let Ok(smmu) = self.smmu(stall.smmu)
            {
                // As above.
                let _ = smmu.resume([(stall.stream, stall.tag, ResumeAction::Abort)].into_iter());
            }
        }
    }
}

/// What [`Iommu::take_events`] found.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) events: u32,
    pub(super) has_more: bool,
    /// Some were not recorded.
    pub(super) has_lost: bool,
    /// Records of stalled transactions may have been lost with the queue (§7.2.2).
    pub(super) has_lost_stalls: bool,
    pub(super) death: Option<crate::smmu::Death>,
}

impl<'p, P: Platform> Books<'p, P> {
    /// Takes a stall out, to answer it: who takes it answers it, and nobody else.
    fn take_stall(&mut self, key: Key<Stall>) -> Option<Stall> {
        let guest = self.stalls.get(key)?.guest;
        if let Some(guest) = self.guests.get_mut(guest.key()) {
            guest.stalls.remove(&mut self.stalls, key);
        }
        self.stalls.remove(key)
    }

    /// Forgets all stalls of a guest whose streams were terminated.
    pub(super) fn forget_stalls(&mut self, guest: GuestId) {
        while let Some(record) = self.guests.get(guest.key())
            && let Some(key) = record.stalls.first()
        {
            self.take_stall(key);
        }
    }

    /// Notes an event for the guest that it is about; what is to be answered at once.
    fn note_event(&mut self, smmu: SmmuId, event: &Event, now_us: u64) -> Option<Due> {
        let abort = |tag| (event.stream, tag, ResumeAction::Abort);
        let tag = event.stall_tag();
        let nobody = tag.map(abort);
        let Some(slot) = self.streams.get(smmu.as_u8(), event.stream) else {
            return nobody;
        };
        let Some(device) = self.devices.key_at(slot) else {
            return nobody;
        };
        let Some(record) = self.devices.get(device) else {
            return nobody;
        };
        let Some(guest) = record.guest else {
            return nobody;
        };
        let device = DeviceId::of(device);
        let space = self.space_of(guest, device, event);
        if let Some(space) = space {
            self.restart_quarantine(space, now_us);
        }
        let is_live = space.is_none_or(|space| {
            self.spaces
                .get(space.key())
                .is_some_and(|space| space.state == SpaceState::Live)
        });
        let id = match tag {
            Some(tag) if is_live => self.keep_stall(Stall {
                guest,
                smmu,
                stream: event.stream,
                tag,
                space,
                since_us: now_us,
                in_guest: Link::default(),
            }),
            _ => None,
        };
        let pasid = space.and_then(|space| self.number_of(space));
        let fault = Fault {
            id: id.map(FaultId::of),
            device: Some(device),
            pasid,
            ..Fault::of(&event.kind)
        };
        let is_told = self.tell(guest, fault);
        match (tag, id) {
            (Some(_), Some(key)) if !is_told => {
                // Nobody will ever answer what nobody can read.
                self.take_stall(key);
                nobody
            }
            (Some(_), Some(_)) => None,
            _ => nobody,
        }
    }

    /// The space that an event of a guest's device is about.
    fn space_of(&self, guest: GuestId, device: DeviceId, event: &Event) -> Option<SpaceId> {
        let record = self.devices.get(device.key())?;
        if record.reach == Reach::Whole {
            let (_, binding) = record.bindings.iter(&self.bindings).next()?;
            return Some(binding.space);
        }
        let number = Pasid::new(event.substream?.as_u32())?;
        let pasids = &self.guests.get(guest.key())?.pasids;
        let slot = u32::try_from(pasids.note(number.as_u32())).ok()?;
        let key = self.spaces.key_at(slot)?;
        let space = self.spaces.get(key)?;
        (space.guest == guest && space.pasid == number).then(|| SpaceId::of(key))
    }

    fn number_of(&self, space: SpaceId) -> Option<PasidOf> {
        let space = self.spaces.get(space.key())?;
        let guest = self.guests.get(space.guest.key())?;
        Some(PasidOf {
            pasid: space.pasid,
            generation: guest.pasids.generation(space.pasid.as_u32()),
        })
    }

    fn keep_stall(&mut self, stall: Stall) -> Option<Key<Stall>> {
        let guest = self.guests.get(stall.guest.key())?;
        if guest.stalls.count() >= guest.quota.stalls {
            return None;
        }
        let guest = stall.guest;
        let key = self.stalls.insert(stall).ok()?;
        let guest = self.guests.get_mut(guest.key())?;
        guest.stalls.push(&mut self.stalls, key);
        Some(key)
    }

    /// Puts a fault into a guest's ring; counts it as lost if that is full.
    pub(super) fn tell(&mut self, guest: GuestId, fault: Fault) -> bool {
        let Some(guest) = self.guests.get_mut(guest.key()) else {
            return false;
        };
        let is_told = guest.faults.push(fault).is_ok();
        if !is_told {
            guest.lost_faults += 1;
        }
        is_told
    }

    /// Tells every guest that has used an SMMU that it stopped.
    pub(super) fn tell_stopped(&mut self, smmu: SmmuId) {
        for slot in 0..self.guests.slots() {
            let Some(key) = self.guests.key_at(slot) else {
                continue;
            };
            if self
                .guests
                .get(key)
                .is_some_and(|guest| guest.live_on.has(smmu))
            {
                let fault = Fault {
                    kind: FaultKind::SmmuStopped(smmu),
                    ..Fault::NOTHING
                };
                self.tell(GuestId::of(key), fault);
            }
        }
    }
}

impl Fault {
    const NOTHING: Self = Self {
        id: None,
        device: None,
        pasid: None,
        kind: FaultKind::Other(0),
        address: None,
        ipa: None,
        access: None,
    };

    /// What a guest may know of an event.
    fn of(kind: &EventKind) -> Self {
        let of_fault = |kind, fault: &crate::spec::event::Fault| Self {
            kind,
            address: Some(fault.address),
            ipa: fault.stage2_ipa,
            access: Some(fault.access),
            ..Self::NOTHING
        };
        let at = |kind, address| Self {
            kind,
            address,
            ..Self::NOTHING
        };
        match kind {
            EventKind::Translation(fault) => of_fault(FaultKind::Translation, fault),
            EventKind::AddrSize(fault) => of_fault(FaultKind::AddressSize, fault),
            EventKind::Access(fault) => of_fault(FaultKind::AccessFlag, fault),
            EventKind::Permission { fault, .. } => of_fault(FaultKind::Permission, fault),
            EventKind::WalkEabt {
                access, address, ..
            } => Self {
                access: Some(*access),
                ..at(FaultKind::TableUnreadable, Some(*address))
            },
            EventKind::BadSubstreamid | EventKind::BadCd => at(FaultKind::BadPasid, None),
            EventKind::StreamDisabled => at(FaultKind::Untagged, None),
            EventKind::BadAtsTreq { address } | EventKind::TranslForbidden { address, .. } => {
                at(FaultKind::AtsRefused, Some(*address))
            }
            EventKind::Uut {
                access, address, ..
            } => Self {
                access: Some(*access),
                ..at(FaultKind::Unsupported, Some(*address))
            },
            EventKind::BadStreamid => at(FaultKind::Other(0x02), None),
            EventKind::SteFetch(_) => at(FaultKind::Other(0x03), None),
            EventKind::BadSte => at(FaultKind::Other(0x04), None),
            EventKind::CdFetch(_) => at(FaultKind::Other(0x09), None),
            EventKind::TlbConflict { address, .. } => at(FaultKind::Other(0x20), Some(*address)),
            EventKind::CfgConflict { .. } => at(FaultKind::Other(0x21), None),
            EventKind::PageRequest { address, .. } => at(FaultKind::Other(0x24), Some(*address)),
            EventKind::VmsFetch(_) => at(FaultKind::Other(0x25), None),
            EventKind::ImplementationDefined(number) | EventKind::Unknown(number) => {
                at(FaultKind::Other(*number), None)
            }
        }
    }
}
