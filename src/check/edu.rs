//! QEMU's `edu`: a PCI function that writes and reads memory when told to.
//!
//! Its message-signalled interrupt is the tool: a DMA write of four bytes to any address, done when
//! the register write that raised it returns. Its DMA engine proper can read, and takes 100 ms.

use super::Failure;
use super::dma::{Dma, Place};
use crate::addr::Iova;
use crate::discover::Rid;
use crate::hw::{Clock, Mmio, Platform, Registers, wait_until};
use crate::id::StreamId;
use crate::pci::{Ecam, Msi};

/// What configuration space says it is.
pub const VENDOR: u16 = 0x1234;
/// What configuration space says it is.
pub const DEVICE: u16 = 0x11e8;

const RAISE: usize = 0x60;
const ACKNOWLEDGE: usize = 0x64;
const SOURCE: usize = 0x80;
const DESTINATION: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
const RUN: u64 = 1;
const TO_MEMORY: u64 = 2;
/// Where its own buffer is, as its DMA engine sees it.
const BUFFER: u64 = 0x4_0000;

const TIMEOUT_US: u64 = 5_000_000;

/// One of them.
pub struct Edu<'m> {
    ecam: &'m Ecam<Mmio>,
    rid: Rid,
    registers: &'m Mmio,
    stream: StreamId,
    without_reset: Option<&'static str>,
}

impl<'m> Edu<'m> {
    /// The function at `rid`, with BAR 0 at `registers`; `without_reset` is why the board lets it
    /// change owners without a reset, which it does not have.
    pub const fn new(
        ecam: &'m Ecam<Mmio>,
        rid: Rid,
        registers: &'m Mmio,
        stream: StreamId,
        without_reset: Option<&'static str>,
    ) -> Self {
        Self {
            ecam,
            rid,
            registers,
            stream,
            without_reset,
        }
    }

    fn run(
        &self,
        clock: &impl Clock,
        source: u64,
        destination: u64,
        bytes: u64,
        command: u64,
    ) -> Result<(), Failure> {
        self.registers.write64(SOURCE, source);
        self.registers.write64(DESTINATION, destination);
        self.registers.write64(COUNT, bytes);
        self.registers.write64(COMMAND, command);
        wait_until(clock, TIMEOUT_US, || {
            (self.registers.read64(COMMAND) & RUN == 0).then_some(())
        })
        .map_err(|_| Failure::Not("the device's DMA engine comes to an end"))
    }
}

impl<P: Platform> Dma<P> for Edu<'_> {
    fn stream(&self) -> StreamId {
        self.stream
    }

    fn write(&self, _: &P, place: Place, value: u16) -> Result<(), Failure> {
        if place.pasid.is_some() {
            return Err(Failure::Missing("PASID of an edu function"));
        }
        let message = Msi {
            address: place.iova,
            data: value,
        };
        self.ecam.set_msi(self.rid, message)?;
        self.registers.write32(RAISE, 1);
        // A read behind the write: what was posted on the way has arrived.
        let raised = self.registers.read32(RAISE);
        self.registers.write32(ACKNOWLEDGE, raised | 1);
        Ok(())
    }

    fn copy(&self, platform: &P, from: Iova, to: Iova, bytes: u64) -> Result<(), Failure> {
        self.run(platform, from.as_u64(), BUFFER, bytes, RUN)?;
        self.run(platform, BUFFER, to.as_u64(), bytes, RUN | TO_MEMORY)
    }

    fn without_reset(&self) -> Option<&'static str> {
        self.without_reset
    }

    fn reset(&self, _: &P) -> Result<(), Failure> {
        Err(Failure::Missing("leave of the board for edu"))
    }
}
