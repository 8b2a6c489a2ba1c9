//! A device that does DMA: for tests at EL2, at EL1 and on the host alike.
//!
//! It is a register [`frame`] of 64 KiB, wired to one StreamID of one SMMU. A program fills the
//! job registers and rings [`frame::COMMAND`]; the device issues the accesses with or without
//! PASID, straight or through its ATC, once, in bursts, or for as long as it is not stopped, and
//! counts what became of them.
//!
//! ```
//! use smmu_model::bench::{Bench, s2_page, ste_stage2, table};
//! use smmu_model::device::{Device, Wiring, frame};
//! use smmu_model::{Identity, Mode};
//!
//! let mut bench = Bench::up(Identity::full(), Mode::Polite);
//! let (root, level2, level3, page) =
//!     (bench.frames(12), bench.frames(12), bench.frames(12), bench.frames(12));
//! bench.store(root + 8, table(level2));
//! bench.store(level2, table(level3));
//! bench.store(level3, s2_page(page));
//! bench.publish_ste(3, &ste_stage2(7, root));
//!
//! let device = Device::new(bench.machine.smmu(0), Wiring::plain(3));
//! device.write32(frame::CONTROL, frame::control::ENABLE);
//! device.write64(frame::IOVA, 0x4000_0000);
//! device.write32(frame::LENGTH, 64);
//! device.write64(frame::PATTERN, 0x1122_3344_5566_7788);
//! device.write32(frame::FLAGS, frame::flags::WRITE);
//! device.write32(frame::COMMAND, frame::command::START);
//! assert_eq!(device.read32(frame::DONE), 1);
//! assert_eq!(bench.machine.load(page + 56), Ok(0x1122_3344_5566_7788));
//! ```
//!
//! # How it is driven
//!
//! On the host the test calls [`Device::read32`] and the others directly, and [`Device::tick`]
//! when time has passed. In an emulator whose plugin notices stores after the fact the frame is
//! plain memory: after every store to it the plugin calls [`Device::write32`] or
//! [`Device::write64`] and then [`Device::export`], which gives the words that memory must hold
//! from then on, also where the store hit something read-only. Nothing depends on noticing a read.
//!
//! # The ATC
//!
//! With [`frame::control::ATS`] every access looks into the ATC first; without a fitting
//! translation it asks for one (§3.9) and keeps what is granted until it is invalidated or the
//! device is reset: it never evicts. [`Misconduct`] makes it break that law.

mod atc;
pub mod frame;
mod job;
mod state;
mod witness;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::ats::{AtcInvalidation, Endpoint, InvalidationAnswer};
use crate::pri::PageResponse;
use crate::smmu::Smmu;
use crate::stall::Finished;
use state::State;
pub use witness::{Mark, MarkKind};

/// How a device is built and connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wiring {
    /// Its StreamID.
    pub stream: u32,
    /// How many bits of PASID it can issue, at most 20; 0: none.
    pub pasid_bits: u8,
    /// It has an ATC and can ask for translations.
    pub has_atc: bool,
    /// It can send page requests.
    pub has_pri: bool,
}

impl Wiring {
    /// No PASID, no ATC, no page requests.
    pub const fn plain(stream: u32) -> Self {
        Self {
            stream,
            pasid_bits: 0,
            has_atc: false,
            has_pri: false,
        }
    }

    /// 20 bits of PASID, an ATC, page requests.
    pub const fn full(stream: u32) -> Self {
        Self {
            stream,
            pasid_bits: 20,
            has_atc: true,
            has_pri: true,
        }
    }

    fn features(&self) -> u32 {
        u32::from(self.has_atc) | u32::from(self.has_pri) << 1 | u32::from(self.pasid_bits) << 8
    }

    fn controls(&self) -> u32 {
        let without_atc = if self.has_atc {
            0
        } else {
            frame::control::ATS | frame::control::EAGER
        };
        let without_pri = if self.has_pri { 0 } else { frame::control::PRI };
        frame::control::ALL & !without_atc & !without_pri
    }
}

/// How an ATC breaks the law of invalidations; numbers are those of [`frame::MISCONDUCT`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misconduct {
    /// It does not: it forgets, then answers.
    None = 0,
    /// It never answers, and forgets nothing.
    Silent = 1,
    /// It forgets and answers only after [`frame::LATENESS_US`].
    Late = 2,
    /// It answers Unsupported Request, and forgets nothing.
    Unsupported = 3,
    /// It says that it has forgotten, and has not.
    Lies = 4,
}

impl Misconduct {
    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Silent,
            2 => Self::Late,
            3 => Self::Unsupported,
            4 => Self::Lies,
            _ => Self::None,
        }
    }
}

/// How an access ended; numbers are those of [`frame::LAST_END`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// There was none yet.
    None = 0,
    /// It reached memory.
    Done = 1,
    /// It was answered with an abort.
    Aborted = 2,
    /// It was completed without effect (reads as zero, write ignored).
    Ignored = 3,
    /// It is stalled.
    Stalled = 4,
    /// It was not issued: the translation request granted too little.
    NotGranted = 5,
    /// It was not issued: the translation request was answered Unsupported Request.
    UnsupportedRequest = 6,
    /// It was not issued: the translation request was answered Completer Abort.
    CompleterAbort = 7,
}

/// One device. Shared by all who drive it; no method holds a lock while it talks to the SMMU.
#[derive(Debug)]
pub struct Device {
    smmu: Smmu,
    stream: u32,
    state: Mutex<State>,
}

impl Device {
    /// A device after reset, attached to its SMMU for invalidations and page responses.
    pub fn new(smmu: &Smmu, wiring: Wiring) -> Arc<Self> {
        let device = Arc::new(Self {
            smmu: smmu.clone(),
            stream: wiring.stream,
            state: Mutex::new(State::new(wiring)),
        });
        let port = Port(Arc::downgrade(&device));
        smmu.attach_endpoint(wiring.stream, Arc::new(port));
        device
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the 32-bit register at `offset`; 0 if that is not a multiple of 4.
    pub fn read32(&self, offset: u64) -> u32 {
        if offset.is_multiple_of(4) {
            self.state().register(offset)
        } else {
            0
        }
    }

    /// Reads the 64-bit register at `offset`; 0 if that is not a multiple of 8.
    pub fn read64(&self, offset: u64) -> u64 {
        if offset.is_multiple_of(8) {
            read_pair(&self.state(), offset)
        } else {
            0
        }
    }

    /// Writes the 32-bit register at `offset`; without effect if that is not a multiple of 4.
    ///
    /// A write to [`frame::COMMAND`] returns when the shots of a job that does not repeat have been
    /// issued.
    pub fn write32(&self, offset: u64, value: u32) {
        if !offset.is_multiple_of(4) {
            return;
        }
        if offset == frame::COMMAND {
            return self.command(value);
        }
        self.state().set_register(offset, value);
        if offset == frame::SMMU_FAULT {
            self.put_fault_in();
        }
    }

    /// Writes the 64-bit register at `offset`: the lower half, then the upper half.
    pub fn write64(&self, offset: u64, value: u64) {
        if offset.is_multiple_of(8) {
            self.write32(offset, value as u32);
            self.write32(offset + 4, (value >> 32) as u32);
        }
    }

    /// Gives every word that differs from what a plain memory behind the frame may hold: offset and
    /// value, 64 bits each. Buffer and log are given only where they changed since the last call.
    pub fn export(&self, mut show: impl FnMut(u64, u64)) {
        let mut state = self.state();
        let changed = std::mem::take(&mut state.changed);
        let registers = (0..frame::REGISTERS_BYTES).step_by(8).chain([frame::PORT]);
        for offset in registers.chain(changed) {
            show(offset, read_pair(&state, offset));
        }
    }

    /// Lets the device go on at model time `now_us`: a repeating job fires its rate, a reset ends,
    /// a late ATC answers.
    pub fn tick(&self, now_us: u64) {
        let due = {
            let mut state = self.state();
            state.now_us = state.now_us.max(now_us);
            state.end_reset();
            let now = state.now_us;
            let (due, later) = std::mem::take(&mut state.late)
                .into_iter()
                .partition::<Vec<_>, _>(|late| late.due_us <= now);
            state.late = later;
            due
        };
        for late in due {
            self.forget(&late.invalidation);
            self.smmu.answer_invalidation(late.invalidation.id);
        }
        self.fire_repeating();
    }

    /// Tells the device that a stalled access has ended; ignored if it is another device's.
    ///
    /// Whoever calls [`Smmu::take_finished`] hands each to every device behind that SMMU.
    pub fn finish(&self, finished: &Finished) {
        self.take_finished(finished);
    }

    /// Chooses how the ATC behaves, as a store to [`frame::MISCONDUCT`] does.
    pub fn misbehave(&self, misconduct: Misconduct) {
        self.state().misconduct = misconduct;
    }
}

fn read_pair(state: &State, offset: u64) -> u64 {
    u64::from(state.register(offset)) | u64::from(state.register(offset + 4)) << 32
}

/// What the SMMU holds of a device: not the device itself, which holds the SMMU.
struct Port(Weak<Device>);

impl Endpoint for Port {
    fn invalidate(&self, invalidation: AtcInvalidation) -> InvalidationAnswer {
        match self.0.upgrade() {
            Some(device) => device.invalidate(&invalidation),
            // A device that was unplugged: nobody answers.
            None => InvalidationAnswer::Later,
        }
    }

    fn page_response(&self, response: PageResponse) {
        if let Some(device) = self.0.upgrade() {
            device.state().respond(&response);
        }
    }
}
