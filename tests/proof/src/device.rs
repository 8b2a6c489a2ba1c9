//! A device with PASIDs and an ATC, that fires where it is told.

use std::sync::Arc;

use portcullis::addr::Pa;
use smmu_model::device::{Device, Wiring, frame};
use smmu_model::{Landing, Record, Smmu};

/// A device of one stream, that is allowed to talk.
pub struct Gun<'h> {
    record: &'h Record,
    device: Arc<Device>,
}

impl<'h> Gun<'h> {
    /// A device of `stream` behind `smmu`; `with_ats`: it asks for translations and keeps them.
    pub fn new(record: &'h Record, smmu: &Smmu, stream: u32, with_ats: bool) -> Self {
        let device = Device::new(smmu, Wiring::full(stream));
        // Asks again at once for what it is told to forget, as it may.
        let ats = if with_ats {
            frame::control::ATS | frame::control::EAGER
        } else {
            0
        };
        device.write32(frame::CONTROL, frame::control::ENABLE | ats);
        Self { record, device }
    }

    /// The device itself.
    pub const fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Writes 8 bytes; how they landed, if they did.
    pub fn fire(&self, pasid: Option<u32>, at: u64) -> Option<Landing> {
        self.shoot(pasid, at, frame::flags::WRITE)
    }

    /// Reads 8 bytes; from where, if from anywhere.
    pub fn reads(&self, pasid: Option<u32>, at: u64) -> Option<Pa> {
        let landing = self.shoot(pasid, at, 0);
        landing.map(|landing| Pa::new(landing.pa))
    }

    /// How many translations the device holds.
    pub fn cached(&self) -> u32 {
        self.device.read32(frame::ATC_ENTRIES)
    }

    /// How many of its transactions are stalled, were aborted and went through, in this order.
    pub fn ends(&self) -> [u32; 3] {
        [frame::PENDING, frame::ABORTED, frame::LANDED].map(|at| self.device.read32(at))
    }

    fn shoot(&self, pasid: Option<u32>, at: u64, flags: u32) -> Option<Landing> {
        let mark = self.record.mark();
        let tag = pasid.map_or(0, |pasid| pasid | 1 << 31);
        self.device.write32(frame::PASID, tag);
        self.device.write64(frame::IOVA, at);
        self.device.write32(frame::LENGTH, 8);
        self.device.write32(frame::FLAGS, flags);
        self.device.write32(frame::COMMAND, frame::command::START);
        self.record.landed_since(mark).first().copied()
    }

    /// As [`hits`](Self::hits), asking for no translation first, as a device may though it can.
    pub fn hits_unasked(&self, pasid: Option<u32>, at: u64) -> Option<Pa> {
        let control = self.device.read32(frame::CONTROL);
        let without = control & !(frame::control::ATS | frame::control::EAGER);
        self.device.write32(frame::CONTROL, without);
        let found = self.hits(pasid, at);
        self.device.write32(frame::CONTROL, control);
        found
    }

    /// Writes 8 bytes; where they land, if they do.
    pub fn hits(&self, pasid: Option<u32>, at: u64) -> Option<Pa> {
        self.fire(pasid, at).map(|landing| Pa::new(landing.pa))
    }
}
