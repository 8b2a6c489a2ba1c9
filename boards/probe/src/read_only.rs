//! Registers that are only read.

use portcullis::hw::Registers;

/// Registers of which no write is carried out.
#[derive(Debug)]
pub struct ReadOnly<R>(R);

impl<R> ReadOnly<R> {
    /// `registers`, read alone from now on.
    pub const fn new(registers: R) -> Self {
        Self(registers)
    }
}

impl<R: Registers> Registers for ReadOnly<R> {
    fn read32(&self, offset: usize) -> u32 {
        self.0.read32(offset)
    }

    fn write32(&self, _: usize, _: u32) {}

    fn read64(&self, offset: usize) -> u64 {
        self.0.read64(offset)
    }

    fn write64(&self, _: usize, _: u64) {}
}
