//! The event queue and global errors (§3.5.3, §7.2, §7.5).

use std::collections::VecDeque;

use crate::core::Core;
use crate::event::{Event, EventType};
use crate::fault::Fetch;
use crate::interrupt::Line;
use crate::queue::Queue;
use crate::registers::{cr0, cr2, gerror, offset};
use crate::route::{Fault, Policy, Seen};
use crate::transaction::{Kind, Outcome, Transaction};
use crate::violation::Rule;

/// OVFLG of PROD, OVACKFLG of CONS.
pub(crate) const OVERFLOW: u32 = 1 << 31;

/// How many events may wait to be written.
const MOST_WAITING: usize = 32;

/// Events on their way to the queue.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Events of terminated transactions that the model takes its time with.
    waiting: VecDeque<(Event, Merging)>,
    /// The newest record that was written and that nothing was written after.
    newest: Option<Event>,
}

/// Whether an event may be merged with an identical record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Merging {
    Forbidden,
    Allowed,
}

impl Core {
    pub(crate) fn event_queue(&self) -> Queue {
        Queue::new(self.registers.eventq_base, self.id.eventq_log2, 5)
    }

    pub(crate) fn write_eventq_cons(&mut self, value: u32) {
        self.check_given_back(Line::EventQueue);
        let value = self.reserved(offset::EVENTQ_CONS, value, 0x800f_ffff);
        let queue = self.event_queue();
        if self.is_on(cr0::EVENTQEN) && !queue.is_consistent(self.registers.eventq_prod, value) {
            let prod = self.registers.eventq_prod;
            self.violate(
                Rule::QueueInconsistent,
                format!("EVENTQ_CONS {value:#x} with PROD {prod:#x}"),
            );
        }
        self.registers.eventq_cons = value;
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
        if error != gerror::MSI_GERROR_ABT_ERR {
            self.interrupt(Line::GlobalError);
        }
    }

    /// Ends a transaction that met `fault`, as the fault's policy says.
    pub(crate) fn fail(
        &mut self,
        transaction: &Transaction,
        seen: Seen,
        fault: Fault,
        ticket: Option<u64>,
    ) -> Outcome {
        if transaction.kind == Kind::Speculative {
            return Outcome::Aborted;
        }
        let (aborts, records, stalls) = match fault.policy {
            Policy::Record => (true, true, false),
            Policy::Stage {
                aborts,
                records,
                stalls,
            } => (aborts, records, stalls),
        };
        if stalls && matches!(transaction.kind, Kind::Ordinary | Kind::Posted) {
            let event = event_of(transaction, seen, &fault);
            return self.stall(transaction, event, ticket);
        }
        if records {
            self.report_fault(transaction, seen, &fault);
        }
        if aborts {
            Outcome::Aborted
        } else {
            Outcome::RazWi
        }
    }

    /// Reports a fault that has no stall.
    pub(crate) fn report_fault(&mut self, transaction: &Transaction, seen: Seen, fault: &Fault) {
        if fault.event_type == EventType::BadStreamId && self.registers.cr2 & cr2::RECINVSID == 0 {
            return;
        }
        let merges = seen.may_merge || (fault.event_type as u8) <= 4;
        let merging = if merges {
            Merging::Allowed
        } else {
            Merging::Forbidden
        };
        self.report(event_of(transaction, seen, fault), merging);
    }

    /// Records an event that is not of a stall, now or a little later.
    fn report(&mut self, event: Event, merging: Merging) {
        self.events.waiting.push_back((event, merging));
        if self.choices.reports_at_once() || self.events.waiting.len() > MOST_WAITING {
            self.flush_events();
        }
    }

    /// Writes all events that wait; those that cannot be written are dropped.
    pub(crate) fn flush_events(&mut self) {
        while let Some((event, merging)) = self.events.waiting.pop_front() {
            if merging == Merging::Allowed && self.is_repeated(&event) && self.choices.merges() {
                continue;
            }
            if !self.is_event_queue_on() {
                continue;
            }
            if self.is_event_queue_full() {
                let (prod, cons) = (self.registers.eventq_prod, self.registers.eventq_cons);
                if (prod ^ cons) & OVERFLOW == 0 {
                    self.registers.eventq_prod ^= OVERFLOW;
                }
                continue;
            }
            self.write_event(&event);
        }
    }

    fn is_event_queue_on(&self) -> bool {
        self.is_on(cr0::EVENTQEN)
            && !self.is_active(gerror::EVENTQ_ABT_ERR | gerror::SFM_ERR)
            && self
                .event_queue()
                .is_consistent(self.registers.eventq_prod, self.registers.eventq_cons)
    }

    fn is_event_queue_full(&self) -> bool {
        let (prod, cons) = (self.registers.eventq_prod, self.registers.eventq_cons);
        self.faults.event_queue_full || self.event_queue().is_full(prod, cons)
    }

    /// Whether a record of a stall could be written now.
    pub(crate) fn can_write_event(&self) -> bool {
        self.is_event_queue_on() && !self.is_event_queue_full()
    }

    /// Whether the newest record is unread and says the same.
    fn is_repeated(&self, event: &Event) -> bool {
        let (prod, cons) = (self.registers.eventq_prod, self.registers.eventq_cons);
        let is_unread = self.event_queue().used(prod, cons) != 0;
        let same = |newest: &Event| {
            let mask = if newest.merges_within_page() {
                !0xfff
            } else {
                u64::MAX
            };
            let page = |event: &Event| Event {
                address: event.address & mask,
                ..*event
            };
            newest.stag.is_none() && page(newest) == page(event)
        };
        is_unread && self.events.newest.as_ref().is_some_and(same)
    }

    /// Writes one record; `false` if that met an external abort.
    pub(crate) fn write_event(&mut self, event: &Event) -> bool {
        let queue = self.event_queue();
        let (prod, cons) = (self.registers.eventq_prod, self.registers.eventq_cons);
        let at = queue.address(queue.position(prod));
        for (word, value) in event.encode().into_iter().enumerate() {
            let pa = at + 8 * word as u64;
            self.check_written(pa);
            let aborted = self.faults.abort(Fetch::Event, pa);
            if aborted || self.memory.write64_for_driver(pa, value).is_err() {
                self.raise(gerror::EVENTQ_ABT_ERR);
                return false;
            }
        }
        let was_empty = queue.used(prod, cons) == 0;
        self.registers.eventq_prod = prod & OVERFLOW | queue.next(queue.position(prod));
        self.events.newest = Some(*event);
        if was_empty {
            self.interrupt(Line::EventQueue);
        }
        true
    }

    /// EVENTQEN has become 0: what was not written is dropped.
    pub(crate) fn drop_events(&mut self) {
        self.events.waiting.clear();
    }
}

/// The record of a fault.
pub(crate) fn event_of(transaction: &Transaction, seen: Seen, fault: &Fault) -> Event {
    let is_raw = matches!(
        fault.event_type,
        EventType::UnsupportedTransaction | EventType::BadAtsRequest
    );
    let seen = if is_raw { Seen::raw(transaction) } else { seen };
    let is_read = !transaction.is_write();
    let substream = match fault.event_type {
        // Its SubstreamID is always valid; a transaction without one used context 0.
        EventType::BadSubstreamId => Some(transaction.substream.unwrap_or(0)),
        _ => transaction.substream,
    };
    Event {
        substream,
        is_read,
        is_instruction: is_read && seen.is_instruction,
        is_privileged: seen.is_privileged,
        is_stage2: fault.is_stage2,
        class: fault.class,
        address: transaction.address,
        second_address: fault.second_address,
        ..Event::new(fault.event_type, transaction.stream)
    }
}
