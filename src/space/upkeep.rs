//! What must be done from time to time: events, deadlines, quarantines, dead SMMUs, and memory that
//! nobody needs any more.

use super::error::SpaceError;
use super::faults::Taken;
use super::ids::{GuestId, SmmuId, SmmuSet};
use super::iommu::Iommu;
use crate::hw::Platform;

/// What one [`Iommu::service`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Serviced {
    /// Events that were taken.
    pub events: u32,
    /// More are waiting: the budget was used up.
    pub has_more: bool,
    /// Some events were lost: their queue was full, or could not be written.
    pub has_lost: bool,
    /// SMMUs that are stopped, or whose command queue is dead.
    pub down: SmmuSet,
}

impl<P: Platform> Iommu<'_, P> {
    /// Serves all SMMUs: for a poll, or for an interrupt of any of them.
    ///
    /// Takes at most `budget` events of each and tells the guests; aborts stalled transactions whose
    /// time is up; gives numbers back whose quarantine is over; stops an SMMU whose command queue
    /// died. Waits for nothing but room in a queue, at most the time-out of a CMD_SYNC each.
    pub fn service(&self, budget: u32) -> Serviced {
        let mut serviced = Serviced::default();
        for (id, _) in self.all() {
            let taken = self.take_events(id, budget);
            serviced.events += taken.events;
            serviced.has_more |= taken.has_more;
            serviced.has_lost |= taken.has_lost;
            self.heed(id, &taken);
        }
        let quarantine_us = self.settings().quarantine_us;
        let mut slot = 0;
        while let Some(guest) = self.guest_from(&mut slot) {
            self.abort_late_stalls(guest);
            self.books().end_quarantines(guest, quarantine_us);
        }
        serviced.down = self.books().down;
        serviced
    }

    /// As [`service`](Self::service), for the events of one SMMU alone: for its interrupt.
    ///
    /// # Errors
    ///
    /// [`NoSuchSmmu`](SpaceError::NoSuchSmmu).
    pub fn service_smmu(&self, id: SmmuId, budget: u32) -> Result<Serviced, SpaceError> {
        self.smmu(id)?;
        let taken = self.take_events(id, budget);
        self.heed(id, &taken);
        Ok(Serviced {
            events: taken.events,
            has_more: taken.has_more,
            has_lost: taken.has_lost,
            down: self.books().down,
        })
    }

    /// Does what follows from what an SMMU reported of itself.
    pub(super) fn heed(&self, id: SmmuId, taken: &Taken) {
        if taken.has_lost {
            // A number that drains may have been heard of: nobody knows.
            self.books().restart_quarantines_on(id, self.now_us());
        }
        if taken.has_lost_stalls {
            self.end_unknown_stalls(id);
        }
        if taken.death.is_some() && !self.books().down.has(id) {
            // It takes no command any more, so nothing behind it can be stopped one by one.
            self.stop_smmu(id);
        }
    }

    /// The next guest from place `slot` on, which moves past it.
    pub(super) fn guest_from(&self, slot: &mut u32) -> Option<GuestId> {
        let books = self.books();
        while *slot < books.guests.slots() {
            let key = books.guests.key_at(*slot);
            *slot += 1;
            if let Some(key) = key {
                return Some(GuestId::of(key));
            }
        }
        None
    }

    /// Gives back memory that a guest's devices need no more: leaves of CDs that are all free, and
    /// contexts of devices that were detached. 3 SYNCs for each piece on its SMMU. Nothing while
    /// something of the guest's memory is not proven.
    ///
    /// To be called when there is time; [`destroy_guest`](Self::destroy_guest) gives back all.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Busy`](SpaceError::Busy). [`NotConfirmed`](SpaceError::NotConfirmed): the guest's devices
    /// there are fenced; what left the window comes back when the guest ends.
    pub fn tidy(&self, guest: GuestId) -> Result<(), SpaceError> {
        let ((), _visit) = self.alone(guest, |books| books.running(guest).map(|_| ()))?;
        if self.is_unproven(guest) {
            return Ok(());
        }
        let mut leftovers = self.books().running(guest)?.leftovers.take();
        while let Some(contexts) = leftovers.pop() {
            if let Err(contexts) = self.discard(guest, contexts) {
                // Of a stream that is lost: until that is proven, or the guest ends.
                self.books().keep_leftover(guest, contexts);
            }
        }
        for device in self.devices_of_guest(guest) {
            let (contexts, smmu) = {
                let mut books = self.books();
                let record = books.device(device)?;
                (record.contexts.clone(), record.smmu)
            };
            let (Some(contexts), Some(id)) = (contexts, smmu) else {
                continue;
            };
            let smmu = self.smmu(id)?;
            while !self.is_unproven(guest)
                && let Some(context) = contexts.first_empty_leaf()
            {
                let Ok(leaf) = smmu.give_back_leaf(&contexts, context) else {
                    break;
                };
                self.unseal(guest, leaf);
            }
        }
        let mut books = self.books();
        let record = books.running(guest)?;
        match record.lost_by.filter(|_| !record.unproven.is_empty()) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}
