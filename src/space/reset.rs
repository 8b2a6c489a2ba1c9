//! Devices are reset: for their guest, or to bring them back after a fence.

use super::error::SpaceError;
use super::guest::GuestLife;
use super::ids::{DeviceId, GuestId, SmmuSet};
use super::iommu::Iommu;
use crate::hw::{NotDone, Platform};

impl<P: Platform> Iommu<'_, P> {
    /// Resets a device of a guest, within the host's bound.
    ///
    /// As [`restore`](Self::restore).
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`NotOwner`](SpaceError::NotOwner), and those of [`restore`](Self::restore).
    pub fn reset_device(&self, guest: GuestId, device: DeviceId) -> Result<(), SpaceError> {
        {
            let mut books = self.books();
            books.running(guest)?;
            let group = books.device(device)?.group;
            if !books.group(group)?.is_owned_by(guest) {
                return Err(SpaceError::NotOwner);
            }
        }
        self.restore(device)
    }

    /// Resets a device, and brings it back if it was fenced.
    ///
    /// A device that was not fenced stays attached, with all of its bindings: what is parked stays
    /// parked. One that was is first stopped, confirmed: its bindings end, their handles stay, and
    /// it is attached to nobody then. What it kept in caches of its own is proven gone by the reset.
    ///
    /// # Errors
    ///
    /// [`NoSuchDevice`](SpaceError::NoSuchDevice), [`Busy`](SpaceError::Busy). [`NotReset`](SpaceError::NotReset): it is fenced, its
    /// streams abort, its bindings have ended. [`NotConfirmed`](SpaceError::NotConfirmed): it is
    /// fenced, and was not reset.
    pub fn restore(&self, device: DeviceId) -> Result<(), SpaceError> {
        let guest = self.books().device(device)?.guest;
        let Some(guest) = guest else {
            return self.restore_alone(device, SmmuSet::EMPTY);
        };
        let (smmus, visit) = self.alone(guest, |books| Ok(books.device(device)?.smmus()))?;
        let outcome = self.restore_alone(device, smmus);
        drop(visit);
        self.bury_if_proven(guest);
        outcome
    }

    /// `smmus`: where its streams are, if it is attached.
    fn restore_alone(&self, device: DeviceId, smmus: SmmuSet) -> Result<(), SpaceError> {
        let (tag, is_fenced, is_port_fenced) = {
            let mut books = self.books();
            let record = books.device(device)?;
            (record.tag, record.is_fenced, record.is_port_fenced)
        };
        if is_fenced {
            self.stop_fenced(device, smmus)?;
        }
        if let Err(NotDone { because }) = self.platform().reset_device(tag) {
            self.books().device(device)?.is_fenced = true;
            if !is_fenced {
                self.stop_fenced(device, smmus)?;
            }
            return Err(SpaceError::NotReset { device, because });
        }
        let now_us = self.now_us();
        let (smmu, streams) = {
            let mut books = self.books();
            books.forgive_caches_of(device, now_us);
            if is_fenced {
                // It stayed the guest's for what it kept.
                books.take_from_guest(device);
            }
            let record = books.device(device)?;
            (record.smmu, record.streams)
        };
        if let Some(smmu) = smmu.and_then(|smmu| self.smmu(smmu).ok()) {
            smmu.devices_were_reset(streams.into_iter());
        }
        if is_port_fenced && let Err(NotDone { because }) = self.platform().unfence_port(tag) {
            return Err(SpaceError::NotReset { device, because });
        }
        let mut books = self.books();
        let group = books.device(device)?.group;
        let is_owned = books.group(group)?.is_owned();
        let record = books.device(device)?;
        record.is_fenced = false;
        record.is_port_fenced = false;
        // Whoever has it may give it work again.
        record.is_dirty = is_owned;
        Ok(())
    }

    /// Stops a device whose caches are about to be emptied by a reset, so that they need not answer.
    fn stop_fenced(&self, device: DeviceId, smmus: SmmuSet) -> Result<(), SpaceError> {
        if smmus.is_empty() {
            return Ok(());
        }
        match self.end_device(device, smmus) {
            // The reset is the proof.
            Err(SpaceError::CachesKept { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// Ends the end of a guest that was lost, if nothing of it is unproven any more.
    pub(super) fn bury_if_proven(&self, guest: GuestId) {
        let is_proven = {
            let mut books = self.books();
            let Ok(record) = books.guest(guest) else {
                return;
            };
            let is_idle = record.gate.users == 0 && !record.gate.is_alone;
            let (life, unproven) = (record.life, record.unproven);
            let mut devices = books
                .guests
                .get(guest.key())
                .into_iter()
                .flat_map(|it| it.devices.iter(&books.devices));
            life == GuestLife::Lost
                && is_idle
                && unproven.is_empty()
                && devices.all(|(_, device)| !device.kept_caches)
        };
        if is_proven {
            self.bury(guest);
        }
    }
}
