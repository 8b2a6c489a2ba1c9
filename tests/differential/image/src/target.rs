//! The machine's SMMU, the arena, and the devices.

use core::fmt;
use core::sync::atomic::AtomicU64;

use differential_programs::Target;
use portcullis::addr::Iova;
use portcullis::arch::Host;
use portcullis::hw::{Barrier, Clock, Frames, Platform, Registers, wait_until};
use portcullis::pci::{self, Msi};

use crate::devices::Edu;

// edu's registers.
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
/// Its DMA engine takes 100 ms.
const DMA_TIMEOUT_US: u64 = 5_000_000;

const CR0: u64 = 0x20;
const GBPA: u64 = 0x44;
const GBPA_BYPASS: u32 = 1 << 31 | 1 << 12;
/// A word of the arena that no program uses.
const MAILBOX: u64 = differential_programs::ARENA_BYTES - 8;

/// Why a device did not do as it was told.
pub(crate) enum Trouble {
    /// No edu has this StreamID.
    NoDevice { stream: u32 },
    /// It does not take its message's address.
    Pci(pci::Refusal),
    /// Its DMA engine does not come to an end.
    Endless { stream: u32 },
    /// It does not write to memory with the SMMU off either.
    Silent { stream: u32 },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice { stream } => write!(f, "no edu function has StreamID {stream:#x}"),
            Self::Pci(why) => why.fmt(f),
            Self::Endless { stream } => write!(
                f,
                "the DMA engine of stream {stream:#x} does not come to an end"
            ),
            Self::Silent { stream } => write!(
                f,
                "stream {stream:#x} does not reach memory with the SMMU in bypass"
            ),
        }
    }
}

/// The machine's own SMMU.
pub(crate) struct Native<'a, R> {
    host: &'a Host,
    registers: &'a R,
    arena: u64,
    words: &'a [AtomicU64],
    edus: &'a [Edu<'a>],
}

impl<'a, R: Registers> Native<'a, R> {
    pub(crate) fn new(
        host: &'a Host,
        registers: &'a R,
        frames: &'a Frames,
        edus: &'a [Edu<'a>],
    ) -> Self {
        Self {
            host,
            registers,
            arena: frames.base().as_u64(),
            words: frames.words(host),
            edus,
        }
    }

    fn edu(&self, stream: u32) -> Result<&'a Edu<'a>, Trouble> {
        let found = self.edus.iter().find(|edu| edu.stream == stream);
        found.ok_or(Trouble::NoDevice { stream })
    }

    /// Runs an edu's DMA engine for 4 bytes.
    fn engine(
        &self,
        edu: &Edu<'_>,
        source: u64,
        destination: u64,
        command: u64,
    ) -> Result<(), Trouble> {
        edu.registers.write64(SOURCE, source);
        edu.registers.write64(DESTINATION, destination);
        edu.registers.write64(COUNT, 4);
        edu.registers.write64(COMMAND, command);
        let stream = edu.stream;
        wait_until(self.host, DMA_TIMEOUT_US, || {
            (edu.registers.read64(COMMAND) & RUN == 0).then_some(())
        })
        .map_err(|_| Trouble::Endless { stream })
    }

    /// What an edu has in its buffer: written to memory with the SMMU off, which leaves its caches
    /// as they are.
    fn buffer(&mut self, edu: &Edu<'_>) -> Result<u32, Trouble> {
        /// Nothing that a program has a device read.
        const UNTOUCHED: u64 = 0x6e6f_7468_6e6f_7468;
        self.store(MAILBOX, UNTOUCHED);
        self.publish();
        let enables = self.read32(CR0);
        let bypass = self.read32(GBPA);
        self.write32(GBPA, GBPA_BYPASS);
        self.write32(CR0, enables & !1);
        let done = self.engine(edu, BUFFER, self.arena + MAILBOX, RUN | TO_MEMORY);
        self.write32(CR0, enables);
        self.write32(GBPA, bypass | 1 << 31);
        done?;
        self.observe();
        let found = self.load(MAILBOX);
        self.store(MAILBOX, 0);
        if found as u32 == UNTOUCHED as u32 {
            return Err(Trouble::Silent { stream: edu.stream });
        }
        Ok(found as u32)
    }
}

impl<R: Registers> Target for Native<'_, R> {
    type Trouble = Trouble;

    fn arena(&self) -> u64 {
        self.arena
    }

    fn clear(&mut self) {
        self.words.iter().for_each(|word| self.host.store(word, 0));
    }

    fn store(&mut self, at: u64, value: u64) {
        if let Some(word) = self.words.get(at as usize / 8) {
            self.host.store(word, value);
        }
    }

    fn load(&self, at: u64) -> u64 {
        let word = self.words.get(at as usize / 8);
        word.map_or(0, |word| self.host.load(word))
    }

    fn publish(&mut self) {
        self.host.barrier(Barrier::Publish);
    }

    fn observe(&mut self) {
        self.host.barrier(Barrier::Observe);
    }

    fn read32(&self, register: u64) -> u32 {
        self.registers.read32(register as usize)
    }

    fn write32(&mut self, register: u64, value: u32) {
        self.registers.write32(register as usize, value);
    }

    fn write64(&mut self, register: u64, value: u64) {
        self.registers.write64(register as usize, value);
    }

    fn relax(&mut self) {
        self.host.relax();
    }

    fn device_writes(&mut self, stream: u32, to: u64, value: u16) -> Result<(), Trouble> {
        let edu = self.edu(stream)?;
        let message = Msi {
            address: Iova::new(to),
            data: value,
        };
        edu.ecam.set_msi(edu.rid, message).map_err(Trouble::Pci)?;
        edu.registers.write32(RAISE, 1);
        // A read behind the write: what was posted on the way has arrived.
        let raised = edu.registers.read32(RAISE);
        edu.registers.write32(ACKNOWLEDGE, raised | 1);
        Ok(())
    }

    fn device_reads(&mut self, stream: u32, from: u64) -> Result<u32, Trouble> {
        let edu = self.edu(stream)?;
        self.engine(edu, from, BUFFER, RUN)?;
        self.buffer(edu)
    }
}
