//! One fault below the driver, on purpose: for the tests that show that a check can fail.

use super::cpu::Mutex;
use crate::addr::Pa;
use crate::hw::{self, Mmio};

/// Is shown every store to memory that an SMMU may read, and every write of one of its registers:
/// where, and which value. Says what is stored in its place, or `None`: nothing.
///
/// Barriers are not shown: nothing in QEMU misses one.
pub type Hook = fn(at: Pa, value: u64) -> Option<u64>;

static HOOK: Mutex<Option<Hook>> = Mutex::new(None);

/// Has `hook` decide from now on.
pub fn arm(hook: Hook) {
    *HOOK.lock() = Some(hook);
}

/// Everything is stored as it is again.
pub fn disarm() {
    *HOOK.lock() = None;
}

/// What is stored at `at` in place of `value`.
pub(super) fn altered(at: Pa, value: u64) -> Option<u64> {
    // Copied out, so that the hook itself may call `disarm`.
    let hook = *HOOK.lock();
    hook.map_or(Some(value), |hook| hook(at, value))
}

/// [`Mmio`] whose writes go through the hook.
#[derive(Debug)]
pub struct Registers {
    mmio: Mmio,
    base: Pa,
}

impl Registers {
    pub(super) const fn new(mmio: Mmio, base: Pa) -> Self {
        Self { mmio, base }
    }

    fn altered(&self, offset: usize, value: u64) -> Option<u64> {
        let at = Pa::new(self.base.as_u64().wrapping_add(offset as u64));
        altered(at, value)
    }
}

impl hw::Registers for Registers {
    fn read32(&self, offset: usize) -> u32 {
        self.mmio.read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Some(value) = self.altered(offset, value.into()) {
            self.mmio.write32(offset, value as u32);
        }
    }

    fn read64(&self, offset: usize) -> u64 {
        self.mmio.read64(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        if let Some(value) = self.altered(offset, value) {
            self.mmio.write64(offset, value);
        }
    }
}
