//! The embedder's host, with devices that it can reset.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis::addr::Pa;
use portcullis::hw::{Barrier, Clock, DeviceTag, Frames, NotDone, Platform};
use portcullis_embedder::{Hypervisor, Wires};
use smmu_model::device::{Device, frame};
use smmu_model::{Machine, Settings};

/// A host on a machine with some SMMUs, and devices behind them.
pub struct Host {
    inner: Hypervisor,
    devices: Mutex<Vec<Arc<Device>>>,
}

impl Host {
    pub(crate) fn new(settings: &[Settings]) -> Self {
        Self {
            inner: Hypervisor::with_smmus(settings),
            devices: Mutex::new(Vec::new()),
        }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        self.inner.machine()
    }

    /// The registers of an SMMU.
    pub(crate) fn registers(&self, smmu: usize) -> Wires {
        self.inner.registers(smmu)
    }

    /// How many bytes of memory are out.
    pub fn bytes_out(&self) -> u64 {
        self.inner.bytes_out()
    }

    /// Adds a device; the tag that it has.
    pub(crate) fn add(&self, device: Arc<Device>) -> DeviceTag {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.push(device);
        DeviceTag(devices.len() as u64 - 1)
    }

    fn device(&self, tag: DeviceTag) -> Option<Arc<Device>> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices.get(tag.0 as usize).cloned()
    }
}

impl Clock for Host {
    fn now_us(&self) -> u64 {
        self.inner.now_us()
    }

    fn relax(&self) {
        self.inner.relax();
    }
}

// SAFETY: all of it is the embedder's, which keeps the promise; a reset touches no memory.
unsafe impl Platform for Host {
    type Registers = Wires;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        self.inner.allocate(log2_bytes)
    }

    fn free(&self, frames: Frames) {
        self.inner.free(frames);
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        self.inner.pointer(at)
    }

    fn clean(&self, words: &[AtomicU64]) {
        self.inner.clean(words);
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        self.inner.store(word, value);
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        self.inner.load(word)
    }

    fn peek(&self, at: Pa) -> Option<u64> {
        self.inner.peek(at)
    }

    fn reset_device(&self, device: DeviceTag) -> Result<(), NotDone> {
        let because = "there is no such device";
        let device = self.device(device).ok_or(NotDone { because })?;
        device.write32(frame::COMMAND, frame::command::RESET);
        Ok(())
    }

    fn barrier(&self, kind: Barrier) {
        self.inner.barrier(kind);
    }
}
