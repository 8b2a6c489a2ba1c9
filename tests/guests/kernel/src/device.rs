//! The test device (`tests/model/src/device/frame.rs`), and what is claimed of it.

use portcullis_guest::{DeviceInfo, Error};

use crate::arch::{self, Mmio};
use crate::calls::EL2;
use crate::pages::PAGE;
use crate::story::{Told, Trouble};
use crate::{ensure, say};

const STREAM: u64 = 0x008;
const CONTROL: u64 = 0x010;
const STATUS: u64 = 0x014;
const COMMAND: u64 = 0x018;
const IOVA: u64 = 0x020;
const PASID: u64 = 0x028;
const LENGTH: u64 = 0x02c;
const FLAGS: u64 = 0x030;
const SHOTS: u64 = 0x034;
const PATTERN: u64 = 0x038;
const STRIDE: u64 = 0x040;
const RATE: u64 = 0x048;
const MISCONDUCT: u64 = 0x050;
const LATENESS_US: u64 = 0x054;
const RESET_US: u64 = 0x058;
const SMMU_FAULT: u64 = 0x060;
const SMMU_FAULT_US: u64 = 0x064;
const SMMU_FAULT_SKIP: u64 = 0x068;
const SMMU_FAULT_COUNT: u64 = 0x06c;
const DONE: u64 = 0x080;
const PENDING: u64 = 0x090;
const ATC_ENTRIES: u64 = 0x09c;
const LAST_END: u64 = 0x0ac;
const STORY: u64 = 0x0c0;
const WITNESS: u64 = 0x0c4;

const MAY_ISSUE: u32 = 1;
const WITH_ATS: u32 = 1 << 1;
const REFUSED: u32 = 1 << 3;
const WRITE: u32 = 1;
const REPEAT: u32 = 1 << 4;
const WITH_PASID: u32 = 1 << 31;
const BEGIN: u32 = 1 << 30;

/// Devices this close have an SMMU in common: xtask lays them out so.
const UNIT: u64 = 0x8_0000;
/// A job takes microseconds where it takes time at all.
const TIMEOUT_US: u64 = 1_000_000;

/// How an access ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Done,
    Aborted,
    Ignored,
    Stalled,
    NotTranslated,
}

/// A fault of the SMMU that a device is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SmmuFault {
    None,
    /// After so many SYNCs none completes.
    SyncNever {
        after: u32,
    },
    /// After so many SYNCs one completes so much later.
    SyncLate {
        after: u32,
        us: u32,
    },
    /// It stops for good.
    Stop,
    /// Records of events meet an abort.
    EventAbort,
}

/// How an ATC behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Atc {
    Right = 0,
    Silent = 1,
    Late = 2,
    Unsupported = 3,
}

/// One device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Device {
    /// EL2's number for it.
    pub(crate) id: portcullis_guest::Device,
    /// Its StreamID.
    pub(crate) stream: u32,
    pub(crate) pasid_bits: u8,
    pub(crate) can_stall: bool,
    pub(crate) has_ats: bool,
    /// Which SMMU it is behind, as a number that only serves to compare.
    pub(crate) unit: u64,
    at: Mmio,
}

impl Device {
    /// Number `number`, whose registers are at `base`.
    pub(crate) fn new(number: u32, base: u64) -> Result<Self, Error> {
        let id = portcullis_guest::Device(number);
        let DeviceInfo {
            pasid_bits,
            can_stall,
            has_ats,
            ..
        } = EL2.device_info(id)?;
        let at = Mmio::new(base);
        Ok(Self {
            id,
            stream: at.read32(STREAM),
            pasid_bits,
            can_stall,
            has_ats,
            unit: base / UNIT,
            at,
        })
    }

    /// Says what the witnesses from now on are part of.
    pub(crate) fn note_story(&self, number: u32) {
        self.at.write32(STORY, number);
    }

    fn put_job(&self, pasid: Option<u32>, va: u64, flags: u32, value: u64) {
        let control = self.at.read32(CONTROL) | MAY_ISSUE;
        self.at.write32(CONTROL, control);
        self.at.write64(IOVA, va);
        self.at
            .write32(PASID, pasid.map_or(0, |pasid| pasid | WITH_PASID));
        self.at.write32(LENGTH, 8);
        self.at.write32(FLAGS, flags);
        self.at.write32(SHOTS, 1);
        self.at.write64(PATTERN, value);
        self.at.write64(STRIDE, 0);
    }

    fn start(&self) -> Told {
        self.at.write32(COMMAND, 1);
        let is_taken = self.at.read32(STATUS) & REFUSED == 0;
        ensure!(is_taken, "device {} refused a job", self.id.0);
        Ok(())
    }

    fn ended(&self) -> u32 {
        let counters = [0, 1, 2, 3, 5].map(|n| self.at.read32(DONE + 4 * n));
        counters.into_iter().fold(0, u32::wrapping_add)
    }

    fn last_end(&self) -> Option<End> {
        Some(match self.at.read32(LAST_END) {
            1 => End::Done,
            2 => End::Aborted,
            3 => End::Ignored,
            4 => End::Stalled,
            5..=7 => End::NotTranslated,
            _ => return None,
        })
    }

    fn run(&self) -> Result<End, Trouble> {
        let before = self.ended();
        self.start()?;
        let is_over = arch::within(TIMEOUT_US, || self.ended() != before);
        ensure!(is_over, "device {}: an access does not end", self.id.0);
        arch::barrier();
        self.last_end()
            .ok_or_else(|| Trouble::failed(format_args!("device {}: no end", self.id.0)))
    }

    /// Writes eight bytes.
    pub(crate) fn write(&self, pasid: u32, va: u64, value: u64) -> Result<End, Trouble> {
        self.put_job(Some(pasid), va, WRITE, value);
        self.run()
    }

    /// Goes on writing at `va` until it is stopped, `rate` times at a tick.
    pub(crate) fn fire(&self, pasid: u32, va: u64, value: u64, rate: u32) -> Told {
        self.put_job(Some(pasid), va, WRITE | REPEAT, value);
        self.at.write32(RATE, rate);
        self.start()
    }

    /// Writes at `count` pages from `va` on, whatever becomes of each.
    pub(crate) fn burst(&self, pasid: u32, va: u64, count: u32) -> Told {
        self.put_job(Some(pasid), va, WRITE, 1);
        self.at.write32(SHOTS, count);
        self.at.write64(STRIDE, PAGE);
        self.start()
    }

    /// Ends what [`fire`](Self::fire) began.
    pub(crate) fn stop(&self) {
        self.at.write32(COMMAND, 2);
    }

    /// Waits until so many accesses more have ended, in whatever way.
    pub(crate) fn fires(&self, count: u32) -> Told {
        let before = self.ended();
        // 64 ticks of 1 µs each pass where nothing happens.
        let us = TIMEOUT_US + u64::from(count) * 100;
        let is_firing = arch::within(us, || self.ended().wrapping_sub(before) >= count);
        ensure!(is_firing, "device {} does not go on firing", self.id.0);
        Ok(())
    }

    /// How many accesses reached memory, since its last reset.
    pub(crate) fn done(&self) -> u32 {
        self.at.read32(DONE)
    }

    /// How many translations it caches.
    pub(crate) fn cached(&self) -> u32 {
        self.at.read32(ATC_ENTRIES)
    }

    /// How many are stalled.
    pub(crate) fn pending(&self) -> u32 {
        self.at.read32(PENDING)
    }

    /// Waits until none of its accesses is stalled.
    pub(crate) fn has_none_pending(&self) -> Told {
        let is_free = arch::within(TIMEOUT_US, || self.pending() == 0);
        ensure!(is_free, "device {}: accesses stay stalled", self.id.0);
        Ok(())
    }

    /// Uses ATS from now on, or not.
    pub(crate) fn use_ats(&self, is_on: bool) {
        self.at
            .write32(CONTROL, if is_on { MAY_ISSUE | WITH_ATS } else { 0 });
    }

    /// How its ATC behaves from now on.
    pub(crate) fn behave(&self, how: Atc, late_us: u32) {
        self.at.write32(LATENESS_US, late_us);
        self.at.write32(MISCONDUCT, how as u32);
    }

    /// A reset takes so long from now on; for ever if all bits are ones.
    pub(crate) fn reset_takes(&self, us: u32) {
        self.at.write32(RESET_US, us);
    }

    /// Puts a fault into its SMMU, in place of the one before.
    pub(crate) fn put_in(&self, fault: SmmuFault) {
        let (kind, after, us) = match fault {
            SmmuFault::None => (0, 0, 0),
            SmmuFault::SyncNever { after } => (1, after, 0),
            SmmuFault::SyncLate { after, us } => (2, after, us),
            SmmuFault::Stop => (3, 0, 0),
            SmmuFault::EventAbort => (5, 0, 0),
        };
        self.at.write32(SMMU_FAULT_US, us);
        self.at.write32(SMMU_FAULT_SKIP, after);
        self.at.write32(SMMU_FAULT_COUNT, 1);
        self.at.write32(SMMU_FAULT, kind);
    }

    /// Of what the witnesses are part, since the machine was turned on.
    pub(crate) fn story(&self) -> u32 {
        self.at.read32(STORY)
    }

    /// Ends a watch that was begun in an earlier life, if there is one.
    pub(crate) fn end_watch(&self, pasid: u32) {
        self.at.write32(WITNESS, pasid | WITH_PASID);
    }

    /// Has the model watch what the device reaches with `pasid`, until the watch says what is
    /// claimed of it.
    pub(crate) fn watch(&self, pasid: u32) -> Watch<'_> {
        self.at.write32(WITNESS, pasid | WITH_PASID | BEGIN);
        Watch {
            device: self,
            pasid,
            done: self.done(),
        }
    }
}

/// A watch of the model's over a PASID of a device. What is claimed is printed, and xtask compares it
/// with what the model has seen.
#[must_use = "nothing is claimed"]
pub(crate) struct Watch<'d> {
    device: &'d Device,
    pasid: u32,
    done: u32,
}

impl Watch<'_> {
    fn end(&self, story: u32, claim: core::fmt::Arguments<'_>) {
        let Device { at, stream, .. } = self.device;
        at.write32(WITNESS, self.pasid | WITH_PASID);
        say!("claim {story} {stream:#x} {:#x} {claim}", self.pasid);
    }

    /// Nothing reached memory, although at least so many accesses were tried.
    pub(crate) fn quiet(self, story: u32, tried: u32) {
        self.end(story, format_args!("quiet {tried}"));
    }

    /// The guest dies, and ends the watch in its next life: the device tries to the last, and from some
    /// moment on reaches nothing.
    pub(crate) fn dies(self, story: u32) {
        say!(
            "claim {story} {:#x} {:#x} dies",
            self.device.stream,
            self.pasid
        );
    }

    /// As many reached memory as the device counted. Nothing else may have been done with it, and
    /// nothing may be under way.
    pub(crate) fn landed(self, story: u32) -> u32 {
        let count = self.device.done().wrapping_sub(self.done);
        self.end(story, format_args!("landed {count}"));
        count
    }
}
