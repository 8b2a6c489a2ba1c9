//! What the device holds, and what its registers read.

use std::collections::{BTreeMap, BTreeSet};

use super::atc::Atc;
use super::frame;
use super::witness::Mark;
use super::{End, Misconduct, Wiring};
use crate::ats::AtcInvalidation;
use crate::pri::{PageRequest, PageResponse, ResponseCode};

/// One access as the job describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shot {
    pub(super) iova: u64,
    pub(super) bytes: usize,
    /// Where in the shot it lies, and so in pattern and buffer.
    pub(super) offset: u64,
    pub(super) pasid: Option<u32>,
    pub(super) flags: u32,
}

impl Shot {
    pub(super) const fn is_write(&self) -> bool {
        self.flags & frame::flags::WRITE != 0
    }

    pub(super) const fn is_instruction(&self) -> bool {
        self.flags & (frame::flags::INSTRUCTION | frame::flags::WRITE) == frame::flags::INSTRUCTION
    }
}

/// A job that has shots left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) next: u64,
    /// `None`: until stopped.
    pub(super) left: Option<u32>,
    pub(super) pasid: Option<u32>,
    pub(super) length: u64,
    pub(super) flags: u32,
    pub(super) stride: u64,
}

/// The registers that only say what to do next. A reset clears them.
#[derive(Clone, Default, Debug)]
pub(super) struct JobRegisters {
    pub(super) iova: u64,
    pub(super) pasid: u32,
    pub(super) length: u32,
    pub(super) flags: u32,
    pub(super) shots: u32,
    pub(super) pattern: u64,
    pub(super) stride: u64,
    pub(super) rate: u32,
    pub(super) group: u32,
}

/// What the fault registers say.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct SmmuFault {
    pub(super) kind: u32,
    pub(super) late_us: u32,
    pub(super) skip: u32,
    pub(super) count: u32,
}

/// What was counted since the last reset.
#[derive(Clone, Default, Debug)]
pub(super) struct Counters {
    pub(super) done: u32,
    pub(super) aborted: u32,
    pub(super) ignored: u32,
    pub(super) stalled: u32,
    pub(super) untranslated: u32,
    pub(super) atc_hits: u32,
    pub(super) invalidations: u32,
    pub(super) responses: u32,
    pub(super) last_response: u32,
    pub(super) last_end: u32,
    pub(super) last_iova: u64,
    pub(super) landed: u32,
}

/// An invalidation that a late ATC has not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Late {
    pub(super) due_us: u64,
    pub(super) invalidation: AtcInvalidation,
}

/// The state of a device.
#[derive(Debug)]
pub(super) struct State {
    pub(super) wiring: Wiring,
    pub(super) now_us: u64,
    pub(super) control: u32,
    pub(super) job_registers: JobRegisters,
    pub(super) misconduct: Misconduct,
    pub(super) lateness_us: u32,
    pub(super) reset_us: u32,
    pub(super) smmu_fault: SmmuFault,
    pub(super) is_port_closed: bool,
    pub(super) story: u32,
    /// Accesses that were tried, whatever became of them, by PASID; kept by a reset.
    pub(super) tried: BTreeMap<Option<u32>, u64>,
    /// Marks that nobody took yet.
    pub(super) marks: Vec<Mark>,
    pub(super) counters: Counters,
    pub(super) job: Option<Job>,
    pub(super) is_refused: bool,
    /// When the reset ends; `u64::MAX`: never.
    pub(super) reset_until_us: Option<u64>,
    pub(super) atc: Atc,
    /// Stalled accesses; `None`: from before a reset.
    pub(super) pending: Vec<(u64, Option<Shot>)>,
    pub(super) late: Vec<Late>,
    pub(super) buffer: Vec<u64>,
    pub(super) log: Vec<[u64; 4]>,
    /// Words of the buffer and the log that an export has to show.
    pub(super) changed: BTreeSet<u64>,
}

impl State {
    pub(super) fn new(wiring: Wiring) -> Self {
        Self {
            wiring,
            now_us: 0,
            control: 0,
            job_registers: JobRegisters::default(),
            misconduct: Misconduct::None,
            lateness_us: 0,
            reset_us: 0,
            smmu_fault: SmmuFault::default(),
            is_port_closed: false,
            story: 0,
            tried: BTreeMap::new(),
            marks: Vec::new(),
            counters: Counters::default(),
            job: None,
            is_refused: false,
            reset_until_us: None,
            atc: Atc::default(),
            pending: Vec::new(),
            late: Vec::new(),
            buffer: vec![0; (frame::BUFFER_BYTES / 8) as usize],
            log: vec![[0; 4]; frame::LOG_ENTRIES as usize],
            changed: BTreeSet::new(),
        }
    }

    /// A store to RESET_US.
    fn set_reset_us(&mut self, us: u32) {
        self.reset_us = us;
        if self.reset_until_us.is_some() {
            self.reset_until_us = Some(self.reset_end_us());
            self.end_reset();
        }
    }

    /// When a reset ends that begins now.
    fn reset_end_us(&self) -> u64 {
        match self.reset_us {
            u32::MAX => u64::MAX,
            us => self.now_us.saturating_add(u64::from(us)),
        }
    }

    /// What a reset leaves: nothing but the wiring, what tests put in, and stalled accesses.
    pub(super) fn reset(&mut self) {
        let until = self.reset_end_us();
        let pending = std::mem::take(&mut self.pending);
        let all = (frame::BUFFER..frame::BUFFER + frame::BUFFER_BYTES)
            .chain(frame::LOG..frame::LOG + frame::LOG_ENTRIES * 32)
            .step_by(8);
        *self = Self {
            now_us: self.now_us,
            misconduct: self.misconduct,
            lateness_us: self.lateness_us,
            reset_us: self.reset_us,
            smmu_fault: self.smmu_fault,
            is_port_closed: self.is_port_closed,
            story: self.story,
            tried: std::mem::take(&mut self.tried),
            marks: std::mem::take(&mut self.marks),
            reset_until_us: Some(until),
            pending: pending
                .into_iter()
                .map(|(ticket, _)| (ticket, None))
                .collect(),
            changed: all.collect(),
            ..Self::new(self.wiring)
        };
        self.end_reset();
    }

    /// Ends the reset if its time has come.
    pub(super) fn end_reset(&mut self) {
        if self
            .reset_until_us
            .is_some_and(|until| until <= self.now_us)
        {
            self.reset_until_us = None;
        }
    }

    pub(super) fn is_on(&self, bit: u32) -> bool {
        self.control & bit != 0
    }

    /// The 32-bit register at `at`, which is a multiple of 4.
    pub(super) fn register(&self, at: u64) -> u32 {
        match at {
            frame::PORT => u32::from(self.is_port_closed),
            frame::BUFFER.. => self.window(at),
            frame::DONE..=frame::LANDED => self.counter(at),
            _ => self.setting(at),
        }
    }

    fn setting(&self, at: u64) -> u32 {
        const IOVA_HIGH: u64 = frame::IOVA + 4;
        const PATTERN_HIGH: u64 = frame::PATTERN + 4;
        const STRIDE_HIGH: u64 = frame::STRIDE + 4;
        let job = &self.job_registers;
        match at {
            frame::ID => frame::ID_VALUE,
            frame::FEATURES => self.wiring.features(),
            frame::STREAM => self.wiring.stream,
            frame::CONTROL => self.control,
            frame::STATUS => self.status(),
            frame::IOVA => job.iova as u32,
            IOVA_HIGH => (job.iova >> 32) as u32,
            frame::PASID => job.pasid,
            frame::LENGTH => job.length,
            frame::FLAGS => job.flags,
            frame::SHOTS => job.shots,
            frame::PATTERN => job.pattern as u32,
            PATTERN_HIGH => (job.pattern >> 32) as u32,
            frame::STRIDE => job.stride as u32,
            STRIDE_HIGH => (job.stride >> 32) as u32,
            frame::RATE => job.rate,
            frame::GROUP => job.group,
            frame::MISCONDUCT => self.misconduct as u32,
            frame::LATENESS_US => self.lateness_us,
            frame::RESET_US => self.reset_us,
            frame::SMMU_FAULT => self.smmu_fault.kind,
            frame::SMMU_FAULT_US => self.smmu_fault.late_us,
            frame::SMMU_FAULT_SKIP => self.smmu_fault.skip,
            frame::SMMU_FAULT_COUNT => self.smmu_fault.count,
            frame::STORY => self.story,
            _ => 0,
        }
    }

    fn counter(&self, at: u64) -> u32 {
        const LAST_IOVA_HIGH: u64 = frame::LAST_IOVA + 4;
        let counters = &self.counters;
        match at {
            frame::DONE => counters.done,
            frame::ABORTED => counters.aborted,
            frame::IGNORED => counters.ignored,
            frame::STALLED => counters.stalled,
            frame::PENDING => self.pending.len() as u32,
            frame::UNTRANSLATED => counters.untranslated,
            frame::ATC_HITS => counters.atc_hits,
            frame::ATC_ENTRIES => self.atc.len() as u32,
            frame::INVALIDATIONS => counters.invalidations,
            frame::RESPONSES => counters.responses,
            frame::LAST_RESPONSE => counters.last_response,
            frame::LAST_END => counters.last_end,
            frame::LAST_IOVA => counters.last_iova as u32,
            LAST_IOVA_HIGH => (counters.last_iova >> 32) as u32,
            frame::LANDED => counters.landed,
            _ => 0,
        }
    }

    fn window(&self, at: u64) -> u32 {
        let buffer = at.wrapping_sub(frame::BUFFER) / 8;
        let log = at.wrapping_sub(frame::LOG) / 8;
        let word = self
            .buffer
            .get(buffer as usize)
            .or_else(|| self.log.get((log / 4) as usize)?.get((log % 4) as usize))
            .copied()
            .unwrap_or(0);
        (word >> ((at & 4) * 8)) as u32
    }

    fn status(&self) -> u32 {
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        flag(self.job.is_some(), frame::status::BUSY)
            | flag(!self.pending.is_empty(), frame::status::HAS_PENDING)
            | flag(self.reset_until_us.is_some(), frame::status::RESETTING)
            | flag(self.is_refused, frame::status::REFUSED)
    }

    /// A store to a register other than COMMAND.
    pub(super) fn set_register(&mut self, at: u64, value: u32) {
        const IOVA_HIGH: u64 = frame::IOVA + 4;
        const PATTERN_HIGH: u64 = frame::PATTERN + 4;
        const STRIDE_HIGH: u64 = frame::STRIDE + 4;
        let job = &mut self.job_registers;
        match at {
            frame::CONTROL => self.control = value & self.wiring.controls(),
            frame::IOVA | IOVA_HIGH => set_half(&mut job.iova, at, value),
            frame::PASID => job.pasid = value & 0x800f_ffff,
            frame::LENGTH => job.length = value,
            frame::FLAGS => job.flags = value & frame::flags::ALL,
            frame::SHOTS => job.shots = value,
            frame::PATTERN | PATTERN_HIGH => set_half(&mut job.pattern, at, value),
            frame::STRIDE | STRIDE_HIGH => set_half(&mut job.stride, at, value),
            frame::RATE => job.rate = value,
            frame::GROUP => job.group = value & 0x1f_01ff,
            frame::MISCONDUCT => self.misconduct = Misconduct::from_number(value),
            frame::LATENESS_US => self.lateness_us = value,
            frame::RESET_US => self.set_reset_us(value),
            frame::SMMU_FAULT => self.smmu_fault.kind = value,
            frame::SMMU_FAULT_US => self.smmu_fault.late_us = value,
            frame::SMMU_FAULT_SKIP => self.smmu_fault.skip = value,
            frame::SMMU_FAULT_COUNT => self.smmu_fault.count = value,
            frame::STORY => self.story = value,
            frame::WITNESS => self.mark(value),
            frame::PORT => self.is_port_closed = value & frame::port::CLOSED != 0,
            frame::REGISTERS_BYTES..frame::FRAME_BYTES => self.set_window(at, value),
            _ => {}
        }
    }

    /// A store beyond the registers: to the buffer, or to what an export has to put right.
    fn set_window(&mut self, at: u64, value: u32) {
        self.changed.insert(at & !7);
        let index = at.wrapping_sub(frame::BUFFER) / 8;
        if let Some(word) = self.buffer.get_mut(index as usize) {
            set_half(word, at, value);
        }
    }

    /// What a write of `shot` sends.
    pub(super) fn outgoing(&self, shot: &Shot) -> Vec<u8> {
        let from_buffer = shot.flags & frame::flags::FROM_BUFFER != 0;
        let byte = |at: u64| {
            let word = if from_buffer {
                self.buffer[(at % frame::BUFFER_BYTES / 8) as usize]
            } else {
                self.job_registers.pattern
            };
            word.to_le_bytes()[(at % 8) as usize]
        };
        (shot.offset..).take(shot.bytes).map(byte).collect()
    }

    /// Keeps what a read brought.
    fn incoming(&mut self, shot: &Shot, data: &[u8]) {
        for (at, byte) in (shot.offset..).zip(data) {
            let at = at % frame::BUFFER_BYTES;
            let word = &mut self.buffer[(at / 8) as usize];
            let mut bytes = word.to_le_bytes();
            bytes[(at % 8) as usize] = *byte;
            *word = u64::from_le_bytes(bytes);
            self.changed.insert(frame::BUFFER + (at & !7));
        }
    }

    /// An access has ended.
    pub(super) fn end(&mut self, shot: &Shot, end: End) {
        let counters = &mut self.counters;
        let counter = match end {
            End::None => return,
            End::Done => &mut counters.done,
            End::Aborted => &mut counters.aborted,
            End::Ignored => &mut counters.ignored,
            End::Stalled => &mut counters.stalled,
            End::NotGranted | End::UnsupportedRequest | End::CompleterAbort => {
                &mut counters.untranslated
            }
        };
        *counter = counter.wrapping_add(1);
        counters.last_end = end as u32;
        counters.last_iova = shot.iova;
    }

    /// An access has reached memory.
    pub(super) fn land(&mut self, shot: &Shot, pa: u64, data: &[u8], is_translated: bool) {
        self.incoming(shot, data);
        let number = u64::from(self.counters.landed);
        let slot = number % frame::LOG_ENTRIES;
        let pasid = shot
            .pasid
            .map_or(0, |pasid| u64::from(pasid) << 32 | 1 << 52);
        self.log[slot as usize] = [
            shot.iova,
            pa,
            shot.bytes as u64
                | pasid
                | u64::from(shot.is_write()) << 53
                | u64::from(is_translated) << 54,
            number,
        ];
        self.changed
            .extend((0..4).map(|word| frame::LOG + slot * 32 + word * 8));
        self.counters.landed = self.counters.landed.wrapping_add(1);
        self.end(shot, End::Done);
    }

    pub(super) fn respond(&mut self, response: &PageResponse) {
        let code = match response.code {
            ResponseCode::Success => 0,
            ResponseCode::InvalidRequest => 1,
            ResponseCode::Failure => 2,
        };
        self.counters.responses = self.counters.responses.wrapping_add(1);
        self.counters.last_response = u32::from(response.group) | code << 16 | 1 << 31;
    }

    /// The PASID register, if the device can issue what it says.
    ///
    /// # Errors
    ///
    /// `()` if the PASID is wider than the device's.
    pub(super) fn pasid(&self) -> Result<Option<u32>, ()> {
        if self.job_registers.pasid >> 31 == 0 {
            return Ok(None);
        }
        let pasid = self.job_registers.pasid & 0xf_ffff;
        let fits = u64::from(pasid) < 1 << self.wiring.pasid_bits && self.wiring.pasid_bits != 0;
        if fits { Ok(Some(pasid)) } else { Err(()) }
    }

    /// The page request that the registers describe.
    pub(super) fn page_request(&self, pasid: Option<u32>) -> PageRequest {
        let group = self.job_registers.group;
        PageRequest {
            stream: self.wiring.stream,
            substream: pasid,
            address: self.job_registers.iova,
            group: (group & 0x1ff) as u16,
            wants_read: group >> 16 & 1 != 0,
            wants_write: group >> 17 & 1 != 0,
            wants_execute: group >> 18 & 1 != 0,
            is_privileged: group >> 19 & 1 != 0,
            is_last: group >> 20 & 1 != 0,
        }
    }
}

fn set_half(word: &mut u64, at: u64, value: u32) {
    let shift = (at & 4) * 8;
    *word = *word & !(0xffff_ffff << shift) | u64::from(value) << shift;
}
