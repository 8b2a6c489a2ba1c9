//! The state of one SMMU, and the passing of time.

use std::sync::Arc;

use crate::claims::Claims;
use crate::execute::Commands;
use crate::fault::{Faults, Fetch};
use crate::hostile::Choices;
use crate::ids::Identity;
use crate::interrupt::Interrupt;
use crate::memory::{Abort, Memory};
use crate::record::Record;
use crate::registers::Registers;
use crate::violation::Rule;

/// One SMMU. Every room of the crate adds its part to this type in an `impl` block of its own.
pub(crate) struct Core {
    /// Which SMMU of the machine this is.
    pub(crate) index: usize,
    pub(crate) id: Identity,
    pub(crate) memory: Arc<dyn Memory>,
    pub(crate) record: Arc<Record>,
    pub(crate) claims: Arc<Claims>,
    pub(crate) choices: Choices,
    pub(crate) faults: Faults,
    pub(crate) registers: Registers,
    pub(crate) updates: crate::control::Updates,
    pub(crate) commands: Commands,
    pub(crate) interrupts: Vec<Interrupt>,
}

impl Core {
    pub(crate) fn now_us(&self) -> u64 {
        self.record.now_us()
    }

    /// Does what has become due: acknowledgements, then commands.
    pub(crate) fn tick(&mut self) {
        self.acknowledge();
        self.run_commands();
    }

    pub(crate) fn violate(&self, rule: Rule, what: String) {
        self.record.violate(rule, what, &[]);
    }

    /// The SMMU's own read of a word, for a structure.
    pub(crate) fn fetch(&self, pa: u64, fetch: Fetch) -> Result<u64, Abort> {
        if self.faults.abort(fetch, pa) {
            return Err(Abort);
        }
        if self.claims.is_free(pa) {
            self.violate(
                Rule::FreedFrameFetched,
                format!(
                    "SMMU {} read a {fetch:?} at {pa:#x}, in a frame given back",
                    self.index
                ),
            );
        }
        self.memory.read64(pa)
    }
}
