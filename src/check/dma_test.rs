//! The test device: a frame of registers that makes it write or read anywhere, as any PASID.
//!
//! Found by [`COMPATIBLE`] in a device tree. 60 KiB of registers, of which these are used, and behind
//! them a page of the port above it, where bit 0 of the first 32 bits closes it:
//!
//! | offset | bits | what |
//! |---|---|---|
//! | 0x000 | 32 | identification: "dma1", the first letter in the top byte |
//! | 0x004 | 32 | bit 0: has an ATC; bits 12 to 8: bits of a PASID, 0 for none |
//! | 0x008 | 32 | its StreamID |
//! | 0x010 | 32 | bit 0: may issue; bit 1: asks for translations and keeps them |
//! | 0x014 | 32 | bit 2: in reset; bit 3: the last command was refused |
//! | 0x018 | 32 | command: 1 starts the job, 2 stops it, 3 resets |
//! | 0x020 | 64 | the job's address |
//! | 0x028 | 32 | bit 31: with a PASID; bits 19 to 0: which |
//! | 0x02c | 32 | the job's bytes; of a job that crosses pages each page counts as an access |
//! | 0x030 | 32 | bit 0: writes; bit 3: what its buffer holds; bit 4: again and again, until stopped |
//! | 0x034 | 32 | how often the job is done; 0 is once |
//! | 0x038 | 64 | what it writes otherwise |
//! | 0x080 to 0x094 | 32 each | accesses by their end: see [`Tally`] |
//! | 0x09c | 32 | how many translations its ATC holds |
//! | 0x0ac | 32 | how the last access ended: see [`Ended`] |
//! | 0x1000 | 4 KiB | the buffer, into which it reads |

use core::fmt;

use super::Failure;
use super::dma::{Dma, Place};
use crate::addr::Iova;
use crate::hw::{Barrier, Clock, Platform, Registers, TimedOut, wait_until};
use crate::id::{Pasid, StreamId};

/// What its node in a device tree is `compatible` with.
pub const COMPATIBLE: &str = "portcullis,dma-test";
/// How many bytes its frame has.
pub const FRAME_BYTES: u64 = 0xf000;
/// How many bytes follow it that are the port's above the device, and not for who has the device.
pub const PORT_BYTES: u64 = 0x1000;

const ID: usize = 0x000;
const ID_VALUE: u32 = u32::from_be_bytes(*b"dma1");
const FEATURES: usize = 0x004;
const STREAM: usize = 0x008;
const CONTROL: usize = 0x010;
const STATUS: usize = 0x014;
const COMMAND: usize = 0x018;
const IOVA: usize = 0x020;
const PASID: usize = 0x028;
const LENGTH: usize = 0x02c;
const FLAGS: usize = 0x030;
const SHOTS: usize = 0x034;
const PATTERN: usize = 0x038;
/// The first of six counters, each 4 bytes behind the other.
const TALLY: usize = 0x080;
const ATC_ENTRIES: usize = 0x09c;
const LAST_END: usize = 0x0ac;

const HAS_ATC: u32 = 1;
const MAY_ISSUE: u32 = 1;
const MAY_TRANSLATE: u32 = 1 << 1;
const IN_RESET: u32 = 1 << 2;
const REFUSED: u32 = 1 << 3;
const START: u32 = 1;
const STOP: u32 = 2;
const RESET: u32 = 3;
const WITH_PASID: u32 = 1 << 31;
const WRITE: u32 = 1;
const FROM_BUFFER: u32 = 1 << 3;
const REPEAT: u32 = 1 << 4;

/// A job takes microseconds where it takes time at all.
const TIMEOUT_US: u64 = 1_000_000;
/// A reset takes at most so long, as a function level reset does (PCIe 6.6.2).
const RESET_TIMEOUT_US: u64 = 100_000;

/// Why what the device tree calls a test device is not used as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotOne {
    /// It identifies itself as something else.
    Id {
        /// As this.
        found: u32,
    },
    /// Its traffic has another StreamID than the tree says.
    Stream {
        /// What it says itself.
        found: StreamId,
    },
    /// It has fewer bits of PASID than the tree says.
    PasidBits {
        /// What it says itself.
        found: u8,
    },
}

impl fmt::Display for NotOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id { found } => write!(f, "it identifies itself as {found:#010x}"),
            Self::Stream { found } => write!(f, "it says that its StreamID is {found}"),
            Self::PasidBits { found } => write!(f, "it says that it has {found} PASID bits"),
        }
    }
}

/// How an access ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// It reached memory.
    Done,
    /// It was answered with an abort.
    Aborted,
    /// It reached nothing, and was answered as if it had.
    Ignored,
    /// It is stalled: it has not ended.
    Stalled,
    /// It was never issued: no translation was granted.
    NotTranslated,
}

/// How many accesses ended in which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    /// Reached memory.
    pub(super) done: u32,
    /// Were aborted.
    pub(super) aborted: u32,
    /// Were ignored.
    pub(super) ignored: u32,
    /// Stalled, ever.
    pub(super) stalled: u32,
    /// Are stalled now.
    pub(super) pending: u32,
    /// Were never issued.
    pub(super) untranslated: u32,
}

/// What firmware says of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Declared {
    /// The StreamID of its traffic.
    pub stream: StreamId,
    /// How many bits of PASID it sends.
    pub pasid_bits: u8,
    /// Whether it waits for the answer to a stalled transaction.
    pub can_stall: bool,
}

/// Makes the device behind `registers` as it was at power-on: nothing pending, nothing kept.
///
/// # Errors
///
/// [`TimedOut`]: it is still at it.
pub fn reset(registers: &dyn Registers, clock: &impl Clock) -> Result<(), TimedOut> {
    registers.write32(COMMAND, RESET);
    wait_until(clock, RESET_TIMEOUT_US, || {
        (registers.read32(STATUS) & IN_RESET == 0).then_some(())
    })
}

/// Closes the port above a device, by the registers of its page, or opens it: while it is closed
/// nothing of the device passes.
pub fn set_port(port: &dyn Registers, is_closed: bool) {
    port.write32(0, u32::from(is_closed));
}

/// One of them.
pub struct DmaTest<'m> {
    registers: &'m dyn Registers,
    declared: Declared,
    has_atc: bool,
}

impl<'m> DmaTest<'m> {
    /// The device behind `registers`, [`FRAME_BYTES`] of them, which is as firmware `declared`.
    ///
    /// # Errors
    ///
    /// Every [`NotOne`]; nothing was written then.
    pub fn new(registers: &'m dyn Registers, declared: Declared) -> Result<Self, NotOne> {
        let id = registers.read32(ID);
        if id != ID_VALUE {
            return Err(NotOne::Id { found: id });
        }
        let stream = StreamId::new(registers.read32(STREAM));
        if stream != declared.stream {
            return Err(NotOne::Stream { found: stream });
        }
        let features = registers.read32(FEATURES);
        let pasid_bits = (features >> 8 & 0x1f) as u8;
        if pasid_bits < declared.pasid_bits {
            return Err(NotOne::PasidBits { found: pasid_bits });
        }
        Ok(Self {
            registers,
            declared,
            has_atc: features & HAS_ATC != 0,
        })
    }

    /// The StreamID of its traffic.
    pub(super) const fn stream(&self) -> StreamId {
        self.declared.stream
    }

    /// How many bits of PASID it sends; 0 for none.
    pub(super) const fn pasid_bits(&self) -> u8 {
        self.declared.pasid_bits
    }

    /// Whether it can keep translations of its own.
    pub(super) const fn has_atc(&self) -> bool {
        self.has_atc
    }

    /// Whether it waits for the answer to a stalled transaction.
    pub(super) const fn can_stall(&self) -> bool {
        self.declared.can_stall
    }

    /// Has it write `value` to the four bytes at `place`, a multiple of 4, and waits until that has
    /// ended or stalled.
    pub(super) fn send<P: Platform>(
        &self,
        platform: &P,
        place: Place,
        value: u16,
    ) -> Result<Ended, Failure> {
        self.registers.write32(CONTROL, MAY_ISSUE);
        self.put_job(place, 4, WRITE, value);
        self.run(platform)
    }

    /// As [`send`](Self::send), by a translation that it asks for if it holds none.
    pub(super) fn send_translated<P: Platform>(
        &self,
        platform: &P,
        place: Place,
        value: u16,
    ) -> Result<Ended, Failure> {
        self.registers.write32(CONTROL, MAY_ISSUE | MAY_TRANSLATE);
        self.put_job(place, 4, WRITE, value);
        self.run(platform)
    }

    /// Has it go on writing `value` at `place`, whatever becomes of it, until it is
    /// [stopped](Self::stop_firing).
    pub(super) fn keep_firing<P: Platform>(
        &self,
        platform: &P,
        place: Place,
        value: u16,
    ) -> Result<(), Failure> {
        self.registers.write32(CONTROL, MAY_ISSUE);
        self.put_job(place, 4, WRITE | REPEAT, value);
        platform.barrier(Barrier::Publish);
        self.registers.write32(COMMAND, START);
        self.expect_taken()
    }

    /// Ends what [`keep_firing`](Self::keep_firing) began.
    pub(super) fn stop_firing(&self) -> Result<(), Failure> {
        self.registers.write32(COMMAND, STOP);
        self.expect_taken()
    }

    /// Waits until `count` accesses more have ended in any way.
    pub(super) fn wait_for_more<P: Platform>(
        &self,
        platform: &P,
        count: u32,
    ) -> Result<(), Failure> {
        let before = self.ended();
        wait_until(platform, TIMEOUT_US, || {
            (self.ended().wrapping_sub(before) >= count).then_some(())
        })
        .map_err(|_| Failure::Not("the device goes on firing"))
    }

    /// How its accesses ended so far, since the last reset.
    pub(super) fn tally(&self) -> Tally {
        let [done, aborted, ignored, stalled, pending, untranslated] =
            [0, 1, 2, 3, 4, 5].map(|i| self.registers.read32(TALLY + 4 * i));
        Tally {
            done,
            aborted,
            ignored,
            stalled,
            pending,
            untranslated,
        }
    }

    /// How many translations it holds.
    pub(super) fn held(&self) -> u32 {
        self.registers.read32(ATC_ENTRIES)
    }

    fn put_job(&self, place: Place, bytes: u32, flags: u32, value: u16) {
        let pasid = place.pasid.map(Pasid::as_u32);
        self.registers.write64(IOVA, place.iova.as_u64());
        self.registers
            .write32(PASID, pasid.map_or(0, |pasid| pasid | WITH_PASID));
        self.registers.write32(LENGTH, bytes);
        self.registers.write32(FLAGS, flags);
        self.registers.write32(SHOTS, 1);
        self.registers.write64(PATTERN, value.into());
    }

    /// How many accesses have ended or stalled, ever.
    fn ended(&self) -> u32 {
        let tally = self.tally();
        [
            tally.done,
            tally.aborted,
            tally.ignored,
            tally.stalled,
            tally.untranslated,
        ]
        .into_iter()
        .fold(0, u32::wrapping_add)
    }

    fn expect_taken(&self) -> Result<(), Failure> {
        if self.registers.read32(STATUS) & REFUSED == 0 {
            Ok(())
        } else {
            Err(Failure::Not("the device takes the job"))
        }
    }

    /// Starts the job that the registers describe, one access, and waits for its end.
    fn run<P: Platform>(&self, platform: &P) -> Result<Ended, Failure> {
        let before = self.ended();
        // What it is to read, and the tables on the way, come before the doorbell.
        platform.barrier(Barrier::Publish);
        self.registers.write32(COMMAND, START);
        wait_until(platform, TIMEOUT_US, || {
            let refused = self.registers.read32(STATUS) & REFUSED != 0;
            (refused || self.ended() != before).then_some(())
        })
        .map_err(|_| Failure::Not("the device's job comes to an end"))?;
        self.expect_taken()?;
        // The counter said that it is over: what it wrote is seen by loads from here on.
        platform.barrier(Barrier::Observe);
        self.last_end()
            .ok_or(Failure::Not("the device says how its access ended"))
    }

    /// How its last access ended, if there was one.
    pub(super) fn last_end(&self) -> Option<Ended> {
        match self.registers.read32(LAST_END) {
            1 => Some(Ended::Done),
            2 => Some(Ended::Aborted),
            3 => Some(Ended::Ignored),
            4 => Some(Ended::Stalled),
            5..=7 => Some(Ended::NotTranslated),
            _ => None,
        }
    }
}

impl<P: Platform> Dma<P> for DmaTest<'_> {
    fn stream(&self) -> StreamId {
        self.declared.stream
    }

    fn write(&self, platform: &P, place: Place, value: u16) -> Result<(), Failure> {
        self.send(platform, place, value).map(drop)
    }

    fn copy(&self, platform: &P, from: Iova, to: Iova, bytes: u64) -> Result<(), Failure> {
        self.registers.write32(CONTROL, MAY_ISSUE);
        self.put_job(from.into(), bytes as u32, 0, 0);
        self.run(platform)?;
        self.put_job(to.into(), bytes as u32, WRITE | FROM_BUFFER, 0);
        self.run(platform).map(drop)
    }

    fn without_reset(&self) -> Option<&'static str> {
        None
    }

    fn reset(&self, platform: &P) -> Result<(), Failure> {
        reset(self.registers, platform)
            .map_err(|TimedOut { .. }| Failure::Not("the device's reset comes to an end"))
    }
}
