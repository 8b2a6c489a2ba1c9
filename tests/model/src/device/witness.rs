//! What a test puts into the SMMU by the device, and what it wants watched.

use super::Device;
use super::frame::{smmu_fault, witness};
use super::state::State;
use crate::fault::{Faults, Fetch};

/// More marks than these, which nobody took, are not kept.
const MOST_MARKS: usize = 1 << 12;

/// What a mark does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkKind {
    /// The watch over the PASID begins.
    Begin,
    /// It ends.
    End,
}

/// A store to [`WITNESS`](super::frame::WITNESS): from where to where somebody counts what the device
/// reached with a PASID. The device alone does not know what reached memory; it tells what it tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// What it does.
    pub kind: MarkKind,
    /// What [`STORY`](super::frame::STORY) said.
    pub story: u32,
    /// The PASID, or none for what has none.
    pub pasid: Option<u32>,
    /// How many accesses with it the device had tried by then, whatever became of them.
    pub tried: u64,
}

impl State {
    /// A store to WITNESS.
    pub(super) fn mark(&mut self, value: u32) {
        if self.marks.len() == MOST_MARKS {
            return;
        }
        let pasid = (value & witness::WITH_PASID != 0).then_some(value & 0xf_ffff);
        self.marks.push(Mark {
            kind: if value & witness::BEGIN != 0 {
                MarkKind::Begin
            } else {
                MarkKind::End
            },
            story: self.story,
            pasid,
            tried: self.tried.get(&pasid).copied().unwrap_or(0),
        });
    }

    /// Counts an access that is tried.
    pub(super) fn try_one(&mut self, pasid: Option<u32>) {
        *self.tried.entry(pasid).or_default() += 1;
    }
}

impl Device {
    /// The marks since the last call, oldest first.
    pub fn take_marks(&self) -> Vec<Mark> {
        std::mem::take(&mut self.state().marks)
    }

    /// How many accesses with `pasid` the device has tried.
    pub fn tried(&self, pasid: Option<u32>) -> u64 {
        self.state().tried.get(&pasid).copied().unwrap_or(0)
    }

    /// A store to SMMU_FAULT.
    pub(super) fn put_fault_in(&self) {
        let fault = self.state().smmu_fault;
        let mut faults = Faults {
            sync_skip: fault.skip,
            ..Faults::default()
        };
        match fault.kind {
            smmu_fault::SYNC_NEVER => faults.sync_never = true,
            smmu_fault::SYNC_LATE => {
                faults.sync_late_us = fault.late_us.into();
                faults.sync_late_count = (fault.count != 0).then_some(fault.count);
            }
            smmu_fault::QUEUE_ABORT => faults.abort_after = Some(fault.skip),
            smmu_fault::EVENT_ABORT => faults.aborts.push(Fetch::Event),
            smmu_fault::STOP => self.smmu.raise_sfm(),
            _ => {}
        }
        self.smmu.set_faults(faults);
    }
}
