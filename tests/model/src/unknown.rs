//! What is unknown after reset, and so has to be set before it is used (§6.3, §3.11).
//!
//! A polite SMMU resets to zeros and empty caches; a hostile one objects to trust in that.

use std::collections::BTreeSet;

use crate::command::{Command, Tlbi};
use crate::core::Core;
use crate::registers::{cr0, offset};
use crate::violation::Rule;

/// What the driver has set since reset.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    /// Registers that were written, by their lower half.
    registers: BTreeSet<u64>,
    /// The configuration caches were emptied, and that was synced.
    has_config: bool,
    /// The TLBs were.
    has_tlb: bool,
}

/// The registers of unknown reset value that an enable makes use of, and their names.
const fn users(field: u32) -> &'static [(u64, &'static str)] {
    match field {
        cr0::SMMUEN => &[
            (offset::CR1, "CR1"),
            (offset::CR2, "CR2"),
            (offset::STRTAB_BASE, "STRTAB_BASE"),
            (offset::STRTAB_BASE_CFG, "STRTAB_BASE_CFG"),
        ],
        cr0::CMDQEN => &[
            (offset::CR1, "CR1"),
            (offset::CMDQ_BASE, "CMDQ_BASE"),
            (offset::CMDQ_PROD, "CMDQ_PROD"),
            (offset::CMDQ_CONS, "CMDQ_CONS"),
        ],
        cr0::EVENTQEN => &[
            (offset::CR1, "CR1"),
            (offset::EVENTQ_BASE, "EVENTQ_BASE"),
            (offset::EVENTQ_PROD, "EVENTQ_PROD"),
            (offset::EVENTQ_CONS, "EVENTQ_CONS"),
        ],
        cr0::PRIQEN => &[
            (offset::CR1, "CR1"),
            (offset::PRIQ_BASE, "PRIQ_BASE"),
            (offset::PRIQ_PROD, "PRIQ_PROD"),
            (offset::PRIQ_CONS, "PRIQ_CONS"),
        ],
        _ => &[],
    }
}

impl Core {
    /// The driver has written a register.
    pub(crate) fn settle_register(&mut self, at: u64) {
        self.settled.registers.insert(at);
    }

    /// A SYNC has completed after these commands.
    pub(crate) fn settle_caches(&mut self, commands: &[(Command, u64)]) {
        for (command, _) in commands {
            match command {
                Command::CfgiRange { log2: 32, .. } => self.settled.has_config = true,
                Command::Tlbi(Tlbi::NsnhAll) => self.settled.has_tlb = true,
                _ => {}
            }
        }
    }

    /// An enable of CR0 takes effect: what it makes use of must have been set.
    pub(crate) fn check_settled(&mut self, field: u32) {
        if !self.choices.looks_ahead() {
            return;
        }
        let settled = &self.settled;
        let mut unknown: Vec<&str> = users(field)
            .iter()
            .filter(|(at, _)| !settled.registers.contains(at))
            .map(|(_, name)| *name)
            .collect();
        if field == cr0::SMMUEN {
            unknown.extend((!settled.has_config).then_some("the configuration caches"));
            unknown.extend((!settled.has_tlb).then_some("the TLBs"));
        }
        if !unknown.is_empty() {
            let what = format!("CR0 bit {field:#x} with {}", unknown.join(", "));
            self.violate(Rule::UnknownAtReset, what);
        }
    }
}
