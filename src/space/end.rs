//! Ends: of a guest, of a device, and of all that a guest has when it starts over.
//!
//! | | for any number of devices, spaces and bindings |
//! |---|---|
//! | a guest ends | `CFGI_STE × n, SYNC, S12_VMALL, SYNC [, ATC_INV × m, SYNC]` on each SMMU, all at once |
//! | a device is removed | `CFGI_STE, SYNC [, ATC_INV, SYNC]` |
//! | a guest starts over | `CFGI_CD × n, SYNC, NH_ALL, SYNC [, ATC_INV × m, SYNC]`, then `CFGI_CD × n, SYNC` |
//!
//! Every stream aborts first; then its guest's translations go; then memory and numbers come back.

use super::books::Books;
use super::error::{Fence, SpaceError};
use super::guest::GuestLife;
use super::ids::{DeviceId, GuestId, SmmuSet};
use super::iommu::Iommu;
use super::stop::Unstopped;
use crate::hw::Platform;
use crate::spec::ste::Ats;

impl<'p, P: Platform> Iommu<'p, P> {
    /// Ends a guest: every stream of it aborts, everything of its VMID is flushed once, then all of
    /// its spaces, handles, numbers and tables are gone, and its groups are nobody's.
    ///
    /// In any order with releases and unbinds, which are waited for. Other guests notice nothing.
    /// The guest's own memory is the host's to give to somebody when this returns.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding) if it was
    /// ended before and is lost; [`Busy`](SpaceError::Busy): it is dying, end it again.
    /// [`NotConfirmed`](SpaceError::NotConfirmed), [`CachesKept`](SpaceError::CachesKept): its
    /// streams are stopped as the fence says; its memory, tables, VMID and numbers stay out of use
    /// until [`recover`](Self::recover), and for kept caches a reset of the device, proves them.
    pub fn destroy_guest(&self, guest: GuestId) -> Result<(), SpaceError> {
        {
            let mut books = self.books();
            let record = books.guest(guest)?;
            match record.life {
                GuestLife::Lost => return Err(SpaceError::GuestEnding),
                GuestLife::Running | GuestLife::Dying => record.life = GuestLife::Dying,
            }
        }
        let ((smmus, vmid), visit) = self.alone(guest, |books| {
            let record = books.guest(guest)?;
            Ok((record.live_on, record.vmid))
        })?;
        let outcome = self.stop(smmus, self.devices_of_guest(guest), Some(vmid));
        // What was stalled of streams that abort was ended with them (CMD_STALL_TERM).
        self.books().forget_stalls(guest);
        match outcome {
            Ok(()) => {
                let mut books = self.books();
                if let Some(error) = books.unproven(guest) {
                    // Of before: what was lost then is given back on proof, and on nothing else.
                    books.guest(guest)?.life = GuestLife::Lost;
                    return Err(error);
                }
                drop(books);
                self.bury(guest);
                drop(visit);
                Ok(())
            }
            Err(Unstopped { error, unconfirmed }) => {
                let mut books = self.books();
                let recoveries = books.recoveries;
                let record = books.guest(guest)?;
                record.life = GuestLife::Lost;
                if !unconfirmed.is_empty() {
                    record.unproven.absorb(unconfirmed);
                    record.lost_at = recoveries;
                    record.lost_by = Some(error);
                }
                Err(error)
            }
        }
    }

    /// Gives back all that a guest had: every SMMU has confirmed that it forgot its VMID, and no
    /// stream leads to anything of it.
    pub(super) fn bury(&self, guest: GuestId) {
        let mut books = self.books();
        let Ok(record) = books.guest(guest) else {
            return;
        };
        let (vmid, live_on) = (record.vmid, record.live_on);
        let memory = record.memory.clone();
        while let Some(device) = books.guest(guest).ok().and_then(|it| it.devices.first()) {
            books.take_from_guest(DeviceId::of(device));
        }
        while let Ok(Some(leftover)) = books.guest(guest).map(|it| it.leftovers.pop()) {
            if let Ok((id, contexts)) = leftover.try_into_inner()
                && let Ok(smmu) = self.smmu(id)
                && let Ok(detached) = smmu.dismantle(contexts)
            {
                let mut memory = memory.lock(self.platform());
                if let Some(change) = memory.unseal_all(detached) {
                    // The VMID was flushed as a whole after the streams were stopped.
                    memory.give_back(change.open());
                }
            }
        }
        books.drop_spaces_of(guest);
        books.orphan_groups_of(guest);
        drop(memory);
        for (_, smmu) in self.each(live_on) {
            smmu.forget_nesting(vmid);
        }
        if let Some(record) = books.guests.remove(guest.key()) {
            record.free(self.platform());
            // It was taken when the guest was made.
            let _ = books.vmids.put_back(vmid.as_u16().into());
        }
    }

    /// Takes a device out that went away, or is about to: its streams abort, all of its bindings
    /// end, and it leaves its group. Handles stay, and can be dropped at any time.
    ///
    /// The device itself is not waited for: what it cached went with it, and should it still be
    /// there, its entry aborts what it translated before (CR0.ATSCHK, §3.9.2).
    ///
    /// # Errors
    ///
    /// [`NoSuchDevice`](SpaceError::NoSuchDevice), [`Busy`](SpaceError::Busy).
    /// [`NotConfirmed`](SpaceError::NotConfirmed): it is fenced and stays in the books.
    pub fn remove_device(&self, device: DeviceId) -> Result<(), SpaceError> {
        let guest = self.books().device(device)?.guest;
        if let Some(guest) = guest {
            let (smmus, visit) = self.alone(guest, |books| {
                let record = books.device(device)?;
                // Nobody asks it to forget.
                record.ats_now = Ats::Off;
                Ok(record.smmus())
            })?;
            self.end_device(device, smmus)?;
            // What it cached went with it.
            self.books().forgive_caches_of(device, self.now_us());
            drop(visit);
            self.bury_if_proven(guest);
        }
        let mut books = self.books();
        if books.device(device)?.bindings.is_empty() {
            books.remove_device(device);
        } else {
            books.device(device)?.is_gone = true;
        }
        Ok(())
    }

    /// Stops a device of a guest that the caller has to itself, ends its bindings and detaches it.
    ///
    /// If it kept translations it is stopped, and its bindings have ended, but it stays attached.
    pub(super) fn end_device(&self, device: DeviceId, smmus: SmmuSet) -> Result<(), SpaceError> {
        let outcome = self.stop(smmus, [device].into_iter(), None);
        let now_us = self.now_us();
        let mut books = self.books();
        match outcome {
            Ok(()) => {
                books.end_bindings_of(device, now_us);
                books.take_from_guest(device);
                Ok(())
            }
            Err(Unstopped { error, unconfirmed }) if unconfirmed.is_empty() => {
                // It aborts, but kept translations: its numbers wait for its reset, and so does all
                // that they lead to, for which it stays the guest's.
                books.each_binding_of(device, |books, key| books.keep_caches(key));
                books.end_bindings_of(device, now_us);
                Err(error)
            }
            Err(Unstopped { error, unconfirmed }) => {
                for smmu in unconfirmed.iter() {
                    books.each_binding_of(device, |books, key| {
                        books.lose_binding(key, smmu);
                    });
                }
                Err(error)
            }
        }
    }

    /// Releases all spaces of a guest that starts over, and drops all of its handles.
    ///
    /// As if one by one, in a constant number of SYNCs on each SMMU: 3, with ATS 4; with devices of
    /// whole streams 1 more, with ATS 2. The new kernel starts from nothing; its devices stay
    /// attached, save those of whole streams, which abort.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Busy`](SpaceError::Busy). [`NotConfirmed`](SpaceError::NotConfirmed),
    /// [`CachesKept`](SpaceError::CachesKept): all spaces are released and all handles dropped; what
    /// was involved is lost and fenced, and stays attached until it is [restored](Self::restore).
    pub fn release_all(&self, guest: GuestId) -> Result<(), SpaceError> {
        let (_, _visit) = self.alone(guest, |books| {
            books.running(guest)?;
            Ok(())
        })?;
        self.release_everything(guest)
    }
}

impl<P: Platform> Books<'_, P> {
    /// What of a guest was lost and is not proven yet, save by its end.
    fn unproven(&self, guest: GuestId) -> Option<SpaceError> {
        let record = self.guests.get(guest.key())?;
        let mut devices = record.devices.iter(&self.devices);
        match devices.find(|(_, device)| device.kept_caches) {
            Some((device, _)) => Some(SpaceError::CachesKept {
                device: DeviceId::of(device),
                fence: Fence::Stream,
            }),
            None if record.unproven.is_empty() => None,
            None => record.lost_by,
        }
    }

    /// Forgets all spaces, bindings and handles of a guest of which nothing is in hardware.
    pub(super) fn drop_spaces_of(&mut self, guest: GuestId) {
        while let Some(key) = self
            .guests
            .get(guest.key())
            .and_then(|it| it.spaces.first())
        {
            while let Some(binding) = self.spaces.get(key).and_then(|it| it.bindings.first()) {
                self.drop_handles_of(binding);
                self.remove_binding(binding);
            }
            self.remove_space(super::SpaceId::of(key));
        }
    }
}
