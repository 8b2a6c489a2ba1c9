//! The event queue and global errors (§3.5.3, §7.2, §7.5).

use crate::core::Core;
use crate::event::Event;
use crate::fault::Fetch;
use crate::interrupt::{Interrupt, Line};
use crate::queue::Queue;
use crate::registers::{cr0, gerror, irq_ctrl};

const OVERFLOW: u32 = 1 << 31;

impl Core {
    pub(crate) fn event_queue(&self) -> Queue {
        Queue::new(self.registers.eventq_base, self.id.eventq_log2, 5)
    }

    pub(crate) fn write_eventq_cons(&mut self, value: u32) {
        self.registers.eventq_cons = value & 0x800f_ffff;
    }

    /// Whether an error is active.
    pub(crate) fn is_active(&self, error: u32) -> bool {
        (self.registers.gerror ^ self.registers.gerrorn) & error != 0
    }

    /// Makes an error active, and raises its interrupt.
    pub(crate) fn raise(&mut self, error: u32) {
        if self.is_active(error) {
            return;
        }
        self.registers.gerror ^= error;
        if error != gerror::MSI_GERROR_ABT_ERR
            && self.registers.irq_ctrlack & irq_ctrl::GERROR_IRQEN != 0
        {
            self.interrupts.push(Interrupt::Wired(Line::GlobalError));
        }
    }

    /// Records an event, or drops it as the rules say.
    pub(crate) fn report(&mut self, event: Event) {
        if !self.is_on(cr0::EVENTQEN) || self.is_active(gerror::EVENTQ_ABT_ERR) {
            return;
        }
        let queue = self.event_queue();
        let (prod, cons) = (self.registers.eventq_prod, self.registers.eventq_cons);
        if self.faults.event_queue_full || queue.is_full(prod, cons) {
            if (prod ^ cons) & OVERFLOW == 0 {
                self.registers.eventq_prod ^= OVERFLOW;
            }
            return;
        }
        let at = queue.address(queue.position(prod));
        for (word, value) in event.encode().into_iter().enumerate() {
            let pa = at + 8 * word as u64;
            let aborted = self.faults.abort(Fetch::Event, pa);
            if aborted || self.memory.write64_for_driver(pa, value).is_err() {
                self.raise(gerror::EVENTQ_ABT_ERR);
                return;
            }
        }
        let was_empty = queue.used(prod, cons) == 0;
        self.registers.eventq_prod = prod & OVERFLOW | queue.next(queue.position(prod));
        if was_empty && self.registers.irq_ctrlack & irq_ctrl::EVENTQ_IRQEN != 0 {
            self.interrupts.push(Interrupt::Wired(Line::EventQueue));
        }
    }
}
