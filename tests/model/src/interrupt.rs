//! Interrupts: wired pulses and messages (§3.18).

use crate::bits::keep;
use crate::core::Core;
use crate::fault::Fetch;
use crate::registers::{IrqConfig, gerror, irq_ctrl};

/// A wired interrupt output; all are edges.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Line {
    /// The event queue became non-empty.
    EventQueue,
    /// The PRI queue became non-empty (or, with LO, a request with Last arrived).
    PriQueue,
    /// A `CMD_SYNC` with CS = 1 completed.
    CommandSync,
    /// An error in GERROR became active.
    GlobalError,
}

/// One interrupt, as it left the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// A pulse on a wire.
    Wired(Line),
    /// A message written to memory.
    Message {
        /// Whose.
        line: Line,
        /// Where to.
        pa: u64,
        /// What.
        data: u32,
    },
    /// An event for processors that wait (SEV).
    Event,
}

impl Core {
    /// Raises an interrupt, if it is enabled.
    pub(crate) fn interrupt(&mut self, line: Line) {
        let (enable, config, error) = match line {
            Line::EventQueue => (
                irq_ctrl::EVENTQ_IRQEN,
                self.registers.eventq_irq,
                gerror::MSI_EVENTQ_ABT_ERR,
            ),
            Line::PriQueue => (
                irq_ctrl::PRIQ_IRQEN,
                self.registers.priq_irq,
                gerror::MSI_PRIQ_ABT_ERR,
            ),
            Line::GlobalError => (
                irq_ctrl::GERROR_IRQEN,
                self.registers.gerror_irq,
                gerror::MSI_GERROR_ABT_ERR,
            ),
            Line::CommandSync => (0, IrqConfig::default(), gerror::MSI_CMDQ_ABT_ERR),
        };
        if enable == 0 || self.registers.irq_ctrlack & enable != 0 {
            self.send(line, keep(config.cfg0, 55, 2), config.cfg1, error);
        }
    }

    /// Pulses the wire, and sends `data` to `pa` unless that is 0 or there are no messages.
    pub(crate) fn send(&mut self, line: Line, pa: u64, data: u32, error: u32) {
        self.interrupts.push(Interrupt::Wired(line));
        if !self.id.msi || pa == 0 {
            return;
        }
        let aborted = self.faults.abort(Fetch::Msi, pa);
        if aborted || self.memory.write32_for_driver(pa, data).is_err() {
            self.raise(error);
            return;
        }
        self.interrupts.push(Interrupt::Message { line, pa, data });
    }
}
