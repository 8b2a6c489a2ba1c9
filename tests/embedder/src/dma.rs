//! A device with PASIDs and an ATC of its own, wired to the model.

use std::sync::Arc;

use portcullis::addr::Pa;
use portcullis::hw::DeviceTag;
use portcullis::id::StreamId;
use smmu_model::device::{Device, Wiring, frame};

use crate::Hypervisor;

/// A device that is allowed to talk.
pub struct Dma<'h> {
    host: &'h Hypervisor,
    device: Arc<Device>,
    controls: u32,
}

impl<'h> Dma<'h> {
    /// A device of `stream` behind the first SMMU, that asks for no translation.
    pub fn new(host: &'h Hypervisor, stream: StreamId) -> Self {
        Self::with_controls(host, stream, frame::control::ENABLE)
    }

    /// One that asks for translations, and keeps what it was granted until it is told to forget.
    pub fn with_ats(host: &'h Hypervisor, stream: StreamId) -> Self {
        let controls = frame::control::ENABLE | frame::control::ATS;
        Self::with_controls(host, stream, controls)
    }

    fn with_controls(host: &'h Hypervisor, stream: StreamId, controls: u32) -> Self {
        let wiring = Wiring::full(stream.as_u32());
        let device = Device::new(host.machine().smmu(0), wiring);
        device.write32(frame::CONTROL, controls);
        Self {
            host,
            device,
            controls,
        }
    }

    /// Lets the host reset it, by this tag.
    pub fn wire(&self, tag: DeviceTag) {
        self.host.wire(tag, Arc::clone(&self.device));
    }

    /// Turns it on again, as its driver does after a reset.
    pub fn turn_on(&self) {
        self.device.write32(frame::CONTROL, self.controls);
    }

    /// The device itself.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Writes 8 bytes; where they land, if they do.
    pub fn write(&self, pasid: Option<u32>, at: u64) -> Option<Pa> {
        let record = self.host.machine().record();
        let mark = record.mark();
        let tag = pasid.map_or(0, |pasid| pasid | 1 << 31);
        self.device.write32(frame::PASID, tag);
        self.device.write64(frame::IOVA, at);
        self.device.write32(frame::LENGTH, 8);
        self.device.write32(frame::FLAGS, frame::flags::WRITE);
        self.device.write32(frame::COMMAND, frame::command::START);
        let landed = record.landed_since(mark);
        landed.first().map(|landing| Pa::new(landing.pa))
    }

    /// Tells the device which of its stalled accesses have ended.
    pub fn settle(&self) {
        for finished in self.host.machine().smmu(0).take_finished() {
            self.device.finish(&finished);
        }
    }

    /// How many of its accesses were done, aborted, ignored, and are stalled now.
    pub fn ends(&self) -> [u32; 4] {
        [frame::DONE, frame::ABORTED, frame::IGNORED, frame::PENDING]
            .map(|counter| self.device.read32(counter))
    }

    /// How many translations it holds.
    pub fn cached(&self) -> u32 {
        self.device.read32(frame::ATC_ENTRIES)
    }
}
