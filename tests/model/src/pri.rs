//! Page requests and their answers (§8).

use crate::ats::Message;
use crate::core::Core;
use crate::event_queue::OVERFLOW;
use crate::fault::Fetch;
use crate::interrupt::Line;
use crate::queue::Queue;
use crate::registers::{cr0, gerror, offset};
use crate::route::{Fault, Seen};
use crate::transaction::Transaction;
use crate::violation::Rule;

/// A page request of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRequest {
    /// StreamID.
    pub stream: u32,
    /// SubstreamID, if any.
    pub substream: Option<u32>,
    /// The page, low 12 bits ignored.
    pub address: u64,
    /// Page request group, 9 bits.
    pub group: u16,
    /// Asks for reading.
    pub wants_read: bool,
    /// Asks for writing.
    pub wants_write: bool,
    /// Asks for execution; ignored without SubstreamID.
    pub wants_execute: bool,
    /// Asks for privileged access; ignored without SubstreamID.
    pub is_privileged: bool,
    /// The last of its group. With neither read nor write and with a SubstreamID it is a stop
    /// marker.
    pub is_last: bool,
}

/// What a group of page requests is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseCode {
    /// The pages are there, or retrying is worth it.
    Success,
    /// There is no such page.
    InvalidRequest,
    /// The device is not to ask again.
    Failure,
}

/// The answer to a page request group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageResponse {
    /// StreamID.
    pub stream: u32,
    /// SubstreamID, where the response carries one.
    pub substream: Option<u32>,
    /// Page request group.
    pub group: u16,
    /// What is answered.
    pub code: ResponseCode,
    /// Whether the SMMU answered by itself, not the driver by a command.
    pub is_automatic: bool,
}

/// PRIQ_IRQ_CFG2.LO: interrupt at a request with Last.
const LAST_ONLY: u32 = 1 << 31;

impl PageRequest {
    fn is_stop_marker(&self) -> bool {
        self.is_last && !self.wants_read && !self.wants_write && self.substream.is_some()
    }

    /// The record's two words (§8.1).
    fn encode(&self) -> [u64; 2] {
        let mut word = u64::from(self.stream)
            | u64::from(self.wants_read) << 60
            | u64::from(self.wants_write) << 61
            | u64::from(self.is_last) << 62;
        if let Some(substream) = self.substream {
            word |= u64::from(substream & 0xf_ffff) << 32
                | u64::from(self.is_privileged) << 58
                | u64::from(self.wants_execute) << 59
                | 1 << 63;
        }
        [word, self.address & !0xfff | u64::from(self.group & 0x1ff)]
    }
}

impl Core {
    pub(crate) fn pri_queue(&self) -> Queue {
        Queue::new(self.registers.priq_base, self.id.priq_log2, 4)
    }

    pub(crate) fn write_priq_cons(&mut self, value: u32) {
        self.check_given_back(Line::PriQueue);
        let value = self.reserved(offset::PRIQ_CONS, value, 0x800f_ffff);
        let prod = self.registers.priq_prod;
        if self.is_on(cr0::PRIQEN) && !self.pri_queue().is_consistent(prod, value) {
            self.violate(
                Rule::QueueInconsistent,
                format!("PRIQ_CONS {value:#x} with PROD {prod:#x}"),
            );
        }
        self.registers.priq_cons = value;
    }

    /// A device's page request has arrived.
    pub(crate) fn page_request(&mut self, request: PageRequest) {
        if !self.id.has_pri() {
            return;
        }
        let is_on = self.is_on(cr0::PRIQEN | cr0::SMMUEN)
            && !self.is_active(gerror::PRIQ_ABT_ERR | gerror::SFM_ERR);
        if !is_on {
            self.respond_alone(&request, ResponseCode::Failure);
            return;
        }
        let (prod, cons) = (self.registers.priq_prod, self.registers.priq_cons);
        let queue = self.pri_queue();
        let has_overflowed = (prod ^ cons) & OVERFLOW != 0;
        let is_full = self.faults.pri_queue_full || queue.is_full(prod, cons);
        if has_overflowed || is_full {
            if !has_overflowed {
                self.registers.priq_prod ^= OVERFLOW;
            }
            self.drop_request(&request);
            return;
        }
        let at = queue.address(queue.position(prod));
        for (word, value) in request.encode().into_iter().enumerate() {
            let pa = at + 8 * word as u64;
            self.check_written(pa);
            let aborted = self.faults.abort(Fetch::PageRequest, pa);
            if aborted || self.memory.write64_for_driver(pa, value).is_err() {
                self.raise(gerror::PRIQ_ABT_ERR);
                self.respond_alone(&request, ResponseCode::Failure);
                return;
            }
        }
        let was_empty = queue.used(prod, cons) == 0;
        self.registers.priq_prod = prod & OVERFLOW | queue.next(queue.position(prod));
        self.interrupt_priq(&request, was_empty);
    }

    fn interrupt_priq(&mut self, request: &PageRequest, was_empty: bool) {
        let by_last = self.registers.priq_irq.cfg2 & LAST_ONLY != 0;
        if if by_last { request.is_last } else { was_empty } {
            self.interrupt(Line::PriQueue);
        }
    }

    /// No room: the last of a group is answered, the others vanish.
    fn drop_request(&mut self, request: &PageRequest) {
        if request.is_last {
            self.interrupt_priq(request, false);
            self.respond_alone(request, ResponseCode::Success);
        }
    }

    /// The SMMU's own answer; a stop marker has none.
    fn respond_alone(&mut self, request: &PageRequest, code: ResponseCode) {
        if request.is_stop_marker() {
            return;
        }
        let (code, has_substream) = match code {
            _ if request.substream.is_none() => (code, false),
            ResponseCode::Failure => (code, false),
            _ if self.id.pps => (code, true),
            _ => match self.stream_entry(request.stream) {
                Ok((ste, _)) => (code, ste.ppar),
                Err(fault) => {
                    self.report_unchecked(request, &fault);
                    (ResponseCode::Failure, false)
                }
            },
        };
        self.outbox.push(Message::Respond(PageResponse {
            stream: request.stream,
            substream: request.substream.filter(|_| has_substream),
            group: request.group,
            code,
            is_automatic: true,
        }));
    }

    /// STE.PPAR could not be looked at: recorded where such errors of ATS traffic are (§8.1).
    fn report_unchecked(&mut self, request: &PageRequest, fault: &Fault) {
        if self.records_ats() {
            let transaction = Transaction {
                substream: request.substream,
                ..Transaction::read(request.stream, request.address, 0)
            };
            self.report_fault(&transaction, Seen::raw(&transaction), fault);
        }
    }
}
