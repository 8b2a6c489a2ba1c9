//! ATS: translation requests, translated traffic, invalidation of devices' caches (§3.9).

use crate::core::Core;
use crate::event::{Class, EventType};
use crate::registers::{cr0, cr2};
use crate::route::{Fault, Policy, Request, Resolved, Seen};
use crate::stage2::{Need, Stage2Leaf};
use crate::ste::Ste;
use crate::substream::{Way, decide};
use crate::transaction::{Outcome, Transaction};

/// What a successful translation request grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtsGrant {
    /// The translated address (PA, or IPA with split stages), aligned to its size.
    pub address: u64,
    /// log2 of the bytes that it covers.
    pub log2_bytes: u32,
    /// Reads are permitted.
    pub can_read: bool,
    /// Writes are permitted.
    pub can_write: bool,
    /// Instruction fetches are permitted; only if asked for.
    pub can_execute: bool,
}

/// The answer to a translation request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtsAnswer {
    /// Success; with neither read nor write there is no translation.
    Success(AtsGrant),
    /// Unsupported Request: ATS is off for this stream.
    UnsupportedRequest,
    /// Completer Abort: the configuration is broken.
    CompleterAbort,
}

/// An invalidation that the SMMU sends to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AtcInvalidation {
    /// Names this invalidation in [`Smmu::answer_invalidation`](crate::Smmu::answer_invalidation).
    pub id: u64,
    /// The StreamID that the command named.
    pub stream: u32,
    /// The SubstreamID, where SSV was 1.
    pub substream: Option<u32>,
    /// G: all SubstreamIDs.
    pub is_global: bool,
    /// The first byte, aligned to the size.
    pub address: u64,
    /// log2 of the bytes covered, at least 12; 64: everything.
    pub log2_bytes: u32,
}

/// How a device answers an invalidation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvalidationAnswer {
    /// It is done.
    Done,
    /// Unsupported Request: completes the command without error and without guarantee.
    UnsupportedRequest,
    /// It will be answered later, by [`Smmu::answer_invalidation`](crate::Smmu::answer_invalidation),
    /// or never.
    Later,
}

/// A device behind the SMMU, as far as the SMMU talks to it.
///
/// Called with no lock of the model held, so it may call the [`Smmu`](crate::Smmu) back.
pub trait Endpoint: Send + Sync {
    /// An invalidation has arrived.
    fn invalidate(&self, invalidation: AtcInvalidation) -> InvalidationAnswer;

    /// An answer to a page request has arrived.
    fn page_response(&self, response: crate::pri::PageResponse) {
        let _ = response;
    }
}

/// The smallest translation unit.
const UNIT_LOG2: u32 = 12;

/// An invalidation that a device has not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Outstanding {
    pub(crate) invalidation: AtcInvalidation,
    /// The step in which it was sent.
    pub(crate) sent: u64,
    /// When the SMMU gives up waiting.
    pub(crate) due_us: u64,
}

/// The permissions that a request is granted.
#[derive(Clone, Copy)]
struct Rights {
    read: bool,
    write: bool,
    execute: bool,
}

impl Rights {
    const ALL: Self = Self {
        read: true,
        write: true,
        execute: true,
    };
    const NONE: Self = Self {
        read: false,
        write: false,
        execute: false,
    };

    const fn and(self, other: Self) -> Self {
        Self {
            read: self.read && other.read,
            write: self.write && other.write,
            execute: self.execute && other.execute,
        }
    }

    const fn of_stage2(leaf: &Stage2Leaf, is_privileged: bool) -> Self {
        let permission = leaf.permission;
        Self {
            read: permission.read,
            write: permission.write,
            execute: if is_privileged {
                permission.execute_privileged
            } else {
                permission.execute_unprivileged
            },
        }
    }
}

impl Core {
    fn is_checked(&self) -> bool {
        self.is_on(cr0::ATSCHK)
    }

    /// ATSCHK as it acts for a stream: what was kept with its entry may be older than CR0 (§6.3.9).
    fn checks(&self, ste: &Ste) -> bool {
        self.is_checked() && (ste.was_checked || !self.choices.looks_ahead())
    }

    /// Whether configuration errors of ATS traffic are recorded.
    pub(crate) fn records_ats(&self) -> bool {
        self.id.atsrecerr && self.registers.cr2 & cr2::REC_CFG_ATS != 0
    }

    fn refuse_request(&mut self, transaction: &Transaction) -> Outcome {
        let fault = Fault::new(EventType::BadAtsRequest);
        self.report_fault(transaction, Seen::raw(transaction), &fault);
        Outcome::Ats(AtsAnswer::UnsupportedRequest)
    }

    /// A translation request (§3.9.1).
    pub(crate) fn ats_request(&mut self, transaction: &Transaction) -> Outcome {
        if !self.id.ats || !self.is_on(cr0::SMMUEN) {
            return self.refuse_request(transaction);
        }
        let (ste, _) = match self.stream_entry(transaction.stream) {
            Ok(found) => found,
            Err(fault) => return self.complete_abort(transaction, &fault),
        };
        if ste.aborts {
            return Outcome::Ats(AtsAnswer::UnsupportedRequest);
        }
        if ste.effective_eats(self.checks(&ste)) == 0 {
            return self.refuse_request(transaction);
        }
        match self.grant(transaction, &ste) {
            Ok(grant) => {
                let is_split = ste.effective_eats(self.checks(&ste)) == 2;
                self.note_grant(transaction, grant, is_split);
                Outcome::Ats(AtsAnswer::Success(grant))
            }
            Err(fault) if fault.event_type.is_translation_related() => {
                Outcome::Ats(AtsAnswer::Success(no_grant(transaction)))
            }
            Err(fault) => self.complete_abort(transaction, &fault),
        }
    }

    fn complete_abort(&mut self, transaction: &Transaction, fault: &Fault) -> Outcome {
        if self.records_ats() {
            self.report_fault(transaction, Seen::raw(transaction), fault);
        }
        Outcome::Ats(AtsAnswer::CompleterAbort)
    }

    fn grant(&mut self, transaction: &Transaction, ste: &Ste) -> Result<AtsGrant, Fault> {
        let has_substream = transaction.substream.is_some();
        let is_privileged = ste.privileged(transaction.is_privileged && has_substream);
        let request = Request {
            stream: transaction.stream,
            substream: transaction.substream,
            address: transaction.address,
            need: Need {
                read: false,
                write: false,
                execute: false,
                is_privileged,
            },
        };
        let is_bypass = decide(ste, transaction.substream)? == Way::Bypass;
        let route = self.resolve(ste, &request)?;
        let rights1 = route.stage1.map_or(Rights::ALL, |leaf| {
            let (read, write, execute) = leaf.permission.at(is_privileged);
            Rights {
                read,
                write,
                execute,
            }
        });
        let rights2 = route
            .stage2
            .map_or(Rights::ALL, |leaf| Rights::of_stage2(&leaf, is_privileged));
        let both = rights1.and(rights2);
        let rights = match ste.instruction_override() {
            Some(true) => Rights {
                read: both.execute,
                ..both
            },
            Some(false) => Rights {
                execute: both.read,
                ..both
            },
            None => both,
        };
        let is_split = ste.effective_eats(self.checks(ste)) == 2;
        let address = if is_split { route.ipa } else { route.pa };
        let wants_execute = transaction.is_instruction && has_substream;
        Ok(granted(
            transaction,
            &route,
            address,
            rights,
            wants_execute,
            is_bypass && is_split,
        ))
    }

    /// A transaction with a translated address (§3.9.1.2).
    pub(crate) fn translated(&mut self, transaction: &Transaction) -> Outcome {
        if !self.is_on(cr0::SMMUEN) {
            return self.forbid(transaction);
        }
        self.check_granted(transaction);
        let too_far = transaction.address >> self.id.oas_bits != 0;
        let route = Resolved::identity(transaction.address, crate::Attributes::INCOMING);
        if !self.is_checked() {
            return if too_far {
                Outcome::Aborted
            } else {
                self.forward(transaction, &route, None)
            };
        }
        let (ste, origin) = match self.stream_entry(transaction.stream) {
            Ok(found) => found,
            Err(fault) => return self.abort_translated(transaction, &fault),
        };
        if ste.aborts {
            return Outcome::Aborted;
        }
        if !self.checks(&ste) {
            return self.forward(transaction, &route, Some(origin));
        }
        let eats = ste.effective_eats(true);
        if eats == 0 {
            return self.forbid(transaction);
        }
        if let Err(fault) = self.check_translated_substream(transaction, &ste) {
            return self.abort_translated(transaction, &fault);
        }
        if eats == 1 {
            return if too_far {
                Outcome::Aborted
            } else {
                self.forward(transaction, &route, Some(origin))
            };
        }
        let request = Request {
            stream: transaction.stream,
            substream: None,
            address: transaction.address,
            need: crate::route::need(transaction, &ste),
        };
        match self.resolve_stage2(&ste, &request) {
            Ok(route) => self.forward(transaction, &route, Some(origin)),
            Err(fault) => self.fail(transaction, Seen::through(transaction, &ste), fault, None),
        }
    }

    fn check_translated_substream(
        &mut self,
        transaction: &Transaction,
        ste: &Ste,
    ) -> Result<(), Fault> {
        if !self.id.pasidtt || transaction.substream.is_none() {
            return Ok(());
        }
        if let Way::Context(index) = decide(ste, transaction.substream)? {
            self.context(transaction.stream, ste, index)?;
        }
        Ok(())
    }

    fn forbid(&mut self, transaction: &Transaction) -> Outcome {
        let fault = Fault::new(EventType::TranslationForbidden);
        self.report_fault(transaction, Seen::raw(transaction), &fault);
        Outcome::Aborted
    }

    fn abort_translated(&mut self, transaction: &Transaction, fault: &Fault) -> Outcome {
        let is_stage =
            matches!(fault.policy, Policy::Stage { records: true, .. }) && fault.class == Class::Cd;
        if self.records_ats() || is_stage {
            self.report_fault(transaction, Seen::raw(transaction), fault);
        }
        Outcome::Aborted
    }

    /// CMD_ATC_INV: sends it to the device.
    pub(crate) fn send_invalidation(&mut self, invalidation: AtcInvalidation) {
        if !self.is_on(cr0::SMMUEN) {
            return;
        }
        self.commands.next_invalidation += 1;
        let id = self.commands.next_invalidation;
        let due_us = self.now_us() + self.atc_timeout_us;
        let invalidation = AtcInvalidation { id, ..invalidation };
        self.commands.outstanding.push(Outstanding {
            invalidation,
            sent: self.record.step(),
            due_us,
        });
        self.outbox.push(Message::Invalidate(invalidation));
    }

    /// A device has answered an invalidation.
    pub(crate) fn answer_invalidation(&mut self, id: u64) {
        let outstanding = &mut self.commands.outstanding;
        let found = outstanding.iter().position(|of| of.invalidation.id == id);
        if let Some(at) = found {
            let answered = outstanding.remove(at);
            self.grants_invalidated(&answered.invalidation, answered.sent);
        }
    }
}

/// What the SMMU has to tell a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Invalidate(AtcInvalidation),
    Respond(crate::pri::PageResponse),
}

fn no_grant(transaction: &Transaction) -> AtsGrant {
    AtsGrant {
        address: transaction.address & !0xfff,
        log2_bytes: UNIT_LOG2,
        can_read: false,
        can_write: false,
        can_execute: false,
    }
}

fn granted(
    transaction: &Transaction,
    route: &Resolved,
    address: u64,
    rights: Rights,
    wants_execute: bool,
    is_identity: bool,
) -> AtsGrant {
    let log2_bytes = if route.log2 >= 64 || is_identity {
        UNIT_LOG2
    } else {
        route.log2.max(UNIT_LOG2)
    };
    let rights = if rights.read || rights.write {
        rights
    } else {
        Rights::NONE
    };
    AtsGrant {
        address: address >> log2_bytes << log2_bytes,
        log2_bytes,
        can_read: rights.read,
        // The request says by its direction whether it may write (NW = 0).
        can_write: rights.write && transaction.is_write(),
        can_execute: rights.execute && rights.read && wants_execute,
    }
}
