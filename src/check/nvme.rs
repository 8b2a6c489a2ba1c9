//! The least of an NVMe controller: one admin queue pair, one Identify (NVMe base 1.4).

use core::fmt;

use crate::addr::Iova;
use crate::discover::Rid;
use crate::hw::{Frames, Mmio, Platform, Registers, TimedOut, wait_until};
use crate::id::StreamId;
use crate::pci::Ecam;

const CC: usize = 0x14;
const CSTS: usize = 0x1c;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const SQ0_TAIL: usize = 0x1000;
const CQ0_HEAD: usize = 0x1004;

/// CC: 64-byte submission entries, 16-byte completion entries, 4 KiB pages, enabled.
const CC_ENABLED: u32 = 6 << 16 | 4 << 20 | 1;
const CSTS_READY: u32 = 1;
const CSTS_FATAL: u32 = 1 << 1;
/// Entries of each admin queue, less one, in both halves.
const AQA_16_AND_16: u32 = 15 << 16 | 15;

const OPCODE_IDENTIFY: u64 = 0x06;
const CNS_CONTROLLER: u64 = 0x01;
const COMMAND_ID: u64 = 0x5a5a;

/// How long the controller may take for each step; a virtual one takes microseconds.
const TIMEOUT_US: u64 = 2_000_000;

/// Why an Identify did not come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NvmeError {
    /// CSTS.RDY did not follow CC.EN.
    NotReady {
        /// CSTS.
        status: u32,
    },
    /// No completion was written.
    NoCompletion,
    /// The completion is not that of the command, or not a success.
    Completion {
        /// The second half of the entry: status, phase, command id, queue.
        word: u64,
    },
    /// The data is not a controller's: its first two bytes are not the PCI vendor.
    NotIdentified {
        /// The first eight bytes of it.
        word: u64,
    },
}

impl fmt::Display for NvmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { status } => write!(f, "the controller's CSTS stays {status:#x}"),
            Self::NoCompletion => f.write_str("no completion was written"),
            Self::Completion { word } => write!(f, "the completion reads {word:#018x}"),
            Self::NotIdentified { word } => write!(f, "the data begins {word:#018x}"),
        }
    }
}

/// A piece of memory for the controller: where it lies, and where the controller sees it.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) frames: &'a Frames,
    pub(super) iova: Iova,
}

/// The three pages of one Identify.
#[derive(Clone, Copy)]
pub(super) struct Pages<'a> {
    pub(super) submission: Shared<'a>,
    pub(super) completion: Shared<'a>,
    pub(super) data: Shared<'a>,
}

/// A controller as a PCI function.
pub struct NvmeFunction<'m> {
    /// Its driver.
    pub driver: Nvme<&'m Mmio>,
    /// The StreamID of its traffic.
    pub stream: StreamId,
    /// Where its configuration space is.
    pub ecam: &'m Ecam<Mmio>,
    /// Which it is there.
    pub rid: Rid,
}

/// A controller.
pub struct Nvme<R> {
    registers: R,
    vendor: u16,
}

impl<R: Registers> Nvme<R> {
    /// The controller behind BAR 0, and the vendor that its configuration space names.
    pub const fn new(registers: R, vendor: u16) -> Self {
        Self { registers, vendor }
    }

    /// Enables the controller on queues in `pages`, identifies it, and disables it again.
    ///
    /// Reads the submission entry by DMA, writes the data and the completion by DMA: all three are
    /// seen by success. The controller is disabled afterwards, whatever the outcome.
    pub(super) fn identify<P: Platform>(
        &self,
        platform: &P,
        pages: Pages<'_>,
    ) -> Result<(), NvmeError> {
        let outcome = self.identify_and_stay(platform, pages);
        outcome.and(self.disable(platform))
    }

    /// As [`identify`](Self::identify), and the controller stays enabled.
    pub(super) fn identify_and_stay<P: Platform>(
        &self,
        platform: &P,
        pages: Pages<'_>,
    ) -> Result<(), NvmeError> {
        self.disable(platform)?;
        for shared in [pages.submission, pages.completion, pages.data] {
            shared.frames.fill(platform, 0);
        }
        self.registers.write32(AQA, AQA_16_AND_16);
        self.registers.write64(ASQ, pages.submission.iova.as_u64());
        self.registers.write64(ACQ, pages.completion.iova.as_u64());
        self.registers.write32(CC, CC_ENABLED);
        self.until_status(platform, CSTS_READY)
            .and_then(|()| self.run(platform, pages))
    }

    /// Whether it has queues and serves them.
    pub(super) fn is_enabled(&self) -> bool {
        self.registers.read32(CC) & 1 != 0 || self.registers.read32(CSTS) & CSTS_READY != 0
    }

    fn run<P: Platform>(&self, platform: &P, pages: Pages<'_>) -> Result<(), NvmeError> {
        let entry = pages.submission.frames.words(platform);
        platform.store(&entry[0], OPCODE_IDENTIFY | COMMAND_ID << 16);
        platform.store(&entry[3], pages.data.iova.as_u64());
        platform.store(&entry[5], CNS_CONTROLLER);
        platform.barrier(crate::hw::Barrier::Publish);
        self.registers.write32(SQ0_TAIL, 1);
        let completion = &pages.completion.frames.words(platform)[1];
        let phase = 1 << 48;
        let word = wait_until(platform, TIMEOUT_US, || {
            Some(platform.load(completion)).filter(|word| word & phase != 0)
        })
        .map_err(|TimedOut { .. }| NvmeError::NoCompletion)?;
        platform.barrier(crate::hw::Barrier::Observe);
        self.registers.write32(CQ0_HEAD, 1);
        let (status, id) = (word >> 49, word >> 32 & 0xffff);
        if status != 0 || id != COMMAND_ID {
            return Err(NvmeError::Completion { word });
        }
        let word = platform.load(&pages.data.frames.words(platform)[0]);
        if word & 0xffff == u64::from(self.vendor) {
            Ok(())
        } else {
            Err(NvmeError::NotIdentified { word })
        }
    }

    fn disable<P: Platform>(&self, platform: &P) -> Result<(), NvmeError> {
        self.registers.write32(CC, 0);
        self.until_status(platform, 0)
    }

    fn until_status<P: Platform>(&self, platform: &P, ready: u32) -> Result<(), NvmeError> {
        wait_until(platform, TIMEOUT_US, || {
            let status = self.registers.read32(CSTS);
            (status & CSTS_READY == ready || status & CSTS_FATAL != 0).then_some(status)
        })
        .map_err(|TimedOut { .. }| self.registers.read32(CSTS))
        .and_then(|status| {
            if status & CSTS_FATAL == 0 {
                Ok(())
            } else {
                Err(status)
            }
        })
        .map_err(|status| NvmeError::NotReady { status })
    }
}
