//! The one way in which this room reaches its SMMU: registers, shared words, bounded waits.

use core::sync::atomic::AtomicU64;

use super::error::HandshakeTimeout;
use crate::hw::{Barrier, Clock, Lock, Platform, Registers, TimedOut, wait_until};
use crate::spec::registers::{GERROR, offset};

/// One SMMU's registers and the platform that it is reached through.
pub(super) struct Io<'p, P: Platform> {
    platform: &'p P,
    registers: P::Registers,
    /// Held while GERRORN is read, changed and written: a bit that is not active must never be
    /// toggled (§6.3.20), so two acknowledgements may not overlap.
    acknowledging: Lock<()>,
}

impl<'p, P: Platform> Io<'p, P> {
    pub(super) fn new(platform: &'p P, registers: P::Registers) -> Self {
        Self {
            platform,
            registers,
            acknowledging: Lock::new(()),
        }
    }

    pub(super) const fn platform(&self) -> &'p P {
        self.platform
    }

    pub(super) const fn registers(&self) -> &P::Registers {
        &self.registers
    }

    pub(super) fn read32(&self, offset: usize) -> u32 {
        self.registers.read32(offset)
    }

    pub(super) fn write32(&self, offset: usize, value: u32) {
        self.registers.write32(offset, value);
    }

    pub(super) fn write64(&self, offset: usize, value: u64) {
        self.registers.write64(offset, value);
    }

    pub(super) fn load(&self, word: &AtomicU64) -> u64 {
        self.platform.load(word)
    }

    pub(super) fn store(&self, word: &AtomicU64, value: u64) {
        self.platform.store(word, value);
    }

    pub(super) fn barrier(&self, kind: Barrier) {
        self.platform.barrier(kind);
    }

    pub(super) fn wait<T>(
        &self,
        timeout_us: u64,
        poll: impl FnMut() -> Option<T>,
    ) -> Result<T, TimedOut> {
        wait_until(self.platform, timeout_us, poll)
    }

    /// The errors that are active now (GERROR differs from GERRORN), as bits of GERROR.
    pub(super) fn active_errors(&self) -> u32 {
        self.read32(offset::GERROR) ^ self.read32(offset::GERRORN)
    }

    /// Acknowledges those of `errors` that are active; others stay as they are.
    pub(super) fn acknowledge(&self, errors: u32) {
        let _one_at_a_time = self.acknowledging.lock(self.platform);
        let acknowledged = self.read32(offset::GERRORN);
        let active = self.read32(offset::GERROR) ^ acknowledged;
        let handled = active & errors;
        if handled != 0 {
            self.write32(offset::GERRORN, acknowledged ^ handled);
        }
    }

    pub(super) fn has_failed_for_good(&self) -> bool {
        self.active_errors() & GERROR::SFM_ERR::SET.value != 0
    }

    /// Writes `value` to a register and waits until `ack`, under `mask`, says the same.
    pub(super) fn handshake(
        &self,
        name: &'static str,
        (register, ack): (usize, usize),
        value: u32,
        timeout_us: u64,
    ) -> Result<(), HandshakeTimeout> {
        handshake(
            self.platform,
            &self.registers,
            name,
            (register, ack),
            value,
            timeout_us,
        )
    }
}

/// Writes `value` to `register` and waits until `ack` reads the same (§6.3.9: a field is in
/// transition until then, and may not be changed again).
pub(super) fn handshake<R: Registers>(
    clock: &impl Clock,
    registers: &R,
    name: &'static str,
    (register, ack): (usize, usize),
    value: u32,
    timeout_us: u64,
) -> Result<(), HandshakeTimeout> {
    registers.write32(register, value);
    wait_until(clock, timeout_us, || {
        (registers.read32(ack) == value).then_some(())
    })
    .map_err(|TimedOut { waited_us }| HandshakeTimeout {
        register: name,
        waited_us,
    })
}
