//! The translation procedure: from a transaction to memory, or to a fault (§3.12, §15).

use crate::ats::AtsAnswer;
use crate::attributes::{Attributes, MemoryType, Shareability};
use crate::bits::{bit, field};
use crate::core::Core;
use crate::event::{Class, EventType};
use crate::record::Landing;
use crate::registers::{cr0, gbpa, gerror};
use crate::route::{Fault, Request, Resolved, Seen, combined, incoming, need};
use crate::stage1::Space;
use crate::stage2::stage2_check;
use crate::ste::Ste;
use crate::story::Origin;
use crate::substream::{Way, decide};
use crate::transaction::{Access, Kind, Outcome, Transaction};
use crate::violation::Rule;

impl Core {
    pub(crate) fn transact(&mut self, transaction: Transaction) -> Outcome {
        self.tick();
        self.notice_stream(transaction.stream);
        let outcome = self.submit(&transaction, None);
        self.look_around();
        outcome
    }

    /// Runs a transaction; `ticket` is that of a stalled one that is tried again.
    pub(crate) fn submit(&mut self, transaction: &Transaction, ticket: Option<u64>) -> Outcome {
        let bytes = transaction.access.bytes() as u64;
        let is_access = transaction.kind != Kind::AtsRequest;
        if is_access && (bytes == 0 || (transaction.address & 0xfff) + bytes > 0x1000) {
            let fault = Fault::new(EventType::UnsupportedTransaction);
            return self.fail(transaction, Seen::raw(transaction), fault, ticket);
        }
        if self.is_active(gerror::SFM_ERR) {
            return match transaction.kind {
                Kind::AtsRequest => Outcome::Ats(AtsAnswer::CompleterAbort),
                _ => Outcome::Aborted,
            };
        }
        match transaction.kind {
            Kind::AtsRequest => self.ats_request(transaction),
            Kind::Translated => self.translated(transaction),
            _ if !self.is_on(cr0::SMMUEN) => self.bypass(transaction),
            Kind::Speculative if transaction.is_write() => Outcome::Aborted,
            _ => self.ordinary(transaction, ticket),
        }
    }

    fn bypass(&mut self, transaction: &Transaction) -> Outcome {
        let too_far = transaction.address >> self.id.oas_bits != 0;
        if self.registers.gbpa & gbpa::ABORT != 0 || too_far {
            return Outcome::Aborted;
        }
        let route = Resolved::identity(transaction.address, self.bypass_attributes());
        self.forward(transaction, &route, None)
    }

    /// What GBPA makes of a transaction's attributes (§6.3.14).
    fn bypass_attributes(&self) -> Attributes {
        let mut attributes = Attributes::INCOMING;
        let overrides = u64::from(self.registers.gbpa);
        if self.id.attr_types_ovr {
            if bit(overrides, 4) {
                attributes.memory = MemoryType::from_stage2(field(overrides, 3, 0) as u8);
            }
            match field(overrides, 13, 12) {
                1 => {}
                share => attributes.shareability = Shareability::from_bits(share),
            }
        }
        attributes.settled()
    }

    fn ordinary(&mut self, transaction: &Transaction, ticket: Option<u64>) -> Outcome {
        match self.attempt(transaction) {
            Ok(outcome) => outcome,
            Err((seen, fault)) => self.fail(transaction, seen, fault, ticket),
        }
    }

    /// Translates and forwards; a fault is only told, with what its record shows.
    pub(crate) fn attempt(&mut self, transaction: &Transaction) -> Result<Outcome, (Seen, Fault)> {
        let raw = Seen::raw(transaction);
        if let Some(event_type) = self.faults.conflict {
            return Err((raw, Fault::new(event_type)));
        }
        let (ste, origin) = self
            .stream_entry(transaction.stream)
            .map_err(|fault| (raw, fault))?;
        if ste.aborts {
            return Ok(Outcome::Aborted);
        }
        let request = Request {
            stream: transaction.stream,
            substream: transaction.substream,
            address: transaction.address,
            need: need(transaction, &ste),
        };
        match self.resolve(&ste, &request) {
            Ok(route) => Ok(self.forward(transaction, &route, Some(origin))),
            Err(fault) => Err((Seen::through(transaction, &ste), fault)),
        }
    }

    /// Both stages, as the entry and the SubstreamID say, with permissions checked.
    pub(crate) fn resolve(&mut self, ste: &Ste, request: &Request) -> Result<Resolved, Fault> {
        match decide(ste, request.substream)? {
            Way::Bypass => self.resolve_stage2(ste, request),
            Way::Context(index) => self.resolve_both(ste, request, index),
        }
    }

    /// Stage 1 bypassed; stage 2 if it is on.
    pub(crate) fn resolve_stage2(
        &mut self,
        ste: &Ste,
        request: &Request,
    ) -> Result<Resolved, Fault> {
        let address = request.address;
        if address >> self.id.ias_bits() != 0 {
            return Err(Fault::new(EventType::AddressSize));
        }
        let mut route = Resolved::identity(address, incoming(ste));
        let Some(s2) = &ste.stage2 else {
            return Ok(route);
        };
        let leaf = self.stage2(request.stream, s2, address, request.need, Class::Input)?;
        route.pa = leaf.translate(address);
        route.log2 = leaf.log2;
        route.attributes = leaf.attributes(route.attributes);
        route.stage2 = Some(leaf);
        Ok(route)
    }

    fn resolve_both(
        &mut self,
        ste: &Ste,
        request: &Request,
        index: u32,
    ) -> Result<Resolved, Fault> {
        let (cd, origin) = self.context(request.stream, ste, index)?;
        let space = Space {
            stream: request.stream,
            substream: index,
            ste,
            cd: &cd,
        };
        let policy = |fault: Fault| fault.at_stage1(cd.aborts, cd.records, cd.stalls);
        let (mut entry, is_kept) = self
            .stage1(&space, request.address, request.need)
            .map_err(policy)?;
        if !entry.stage1.permission.permits(request.need) {
            return Err(policy(Fault::new(EventType::Permission)));
        }
        let ipa = entry.stage1.translate(request.address);
        if let (Some(s2), None) = (&ste.stage2, &entry.stage2) {
            entry.stage2 = Some(self.stage2_leaf(request.stream, s2, ipa, Class::Input)?);
        }
        if !is_kept && self.choices.remembers() {
            self.keep_va(&space, request.address, entry);
        }
        if let (Some(s2), Some(leaf)) = (&ste.stage2, &entry.stage2) {
            stage2_check(s2, leaf, ipa, request.need, Class::Input)?;
        }
        Ok(Resolved {
            tags: Some((ste.vmid, cd.asid)),
            ..combined(request.address, &entry, origin)
        })
    }

    /// The access itself, or its beginning.
    pub(crate) fn forward(
        &mut self,
        transaction: &Transaction,
        route: &Resolved,
        ste: Option<Origin>,
    ) -> Outcome {
        if transaction.kind == Kind::Posted && transaction.is_write() && self.choices.lingers() {
            self.posted.push((transaction.clone(), *route, ste));
            return Outcome::Done {
                pa: route.pa,
                data: Vec::new(),
                attributes: route.attributes,
            };
        }
        self.land(transaction, route, ste)
    }

    /// Ends the posted writes that are still on their way.
    pub(crate) fn land_posted(&mut self) {
        for (transaction, route, ste) in std::mem::take(&mut self.posted) {
            let _ = self.land(&transaction, &route, ste);
        }
    }

    /// The access reaches memory.
    fn land(
        &mut self,
        transaction: &Transaction,
        route: &Resolved,
        ste: Option<Origin>,
    ) -> Outcome {
        self.check_landing(transaction, route, ste);
        let mut data = Vec::new();
        let done = match &transaction.access {
            Access::Read(bytes) => {
                data.resize(*bytes, 0);
                self.memory.read(route.pa, &mut data)
            }
            Access::Write(bytes) => self.memory.write(route.pa, bytes),
        };
        if done.is_err() {
            return Outcome::Aborted;
        }
        self.record.land(Landing {
            step: self.record.step(),
            smmu: self.index,
            stream: transaction.stream,
            substream: transaction.substream,
            address: transaction.address,
            pa: route.pa,
            bytes: transaction.access.bytes(),
            is_write: transaction.is_write(),
            ste,
            cd: route.cd,
            translation: route.origin(),
        });
        Outcome::Done {
            pa: route.pa,
            data,
            attributes: route.attributes,
        }
    }

    /// Complains if the access reaches a frame that was given back, or is of a space that is gone.
    fn check_landing(&self, transaction: &Transaction, route: &Resolved, ste: Option<Origin>) {
        let is_released = route
            .tags
            .is_some_and(|(vmid, asid)| self.claims.is_released(vmid, asid));
        let rule = if self.claims.is_free(route.pa) {
            Rule::FreedFrameReached
        } else if is_released {
            Rule::ReleasedSpaceReached
        } else {
            return;
        };
        let kept = [
            (
                format!("the entry of stream {:#x}", transaction.stream),
                ste,
            ),
            (
                format!("the context descriptor of {:?}", transaction.substream),
                route.cd,
            ),
            (
                format!("the translation of {:#x}", transaction.address),
                route.origin(),
            ),
        ];
        let items: Vec<_> = kept
            .into_iter()
            .filter_map(|(item, origin)| Some((item, origin?)))
            .collect();
        let what = format!(
            "stream {:#x}, SubstreamID {:?}, reached {:#x} by {:#x}",
            transaction.stream, transaction.substream, route.pa, transaction.address
        );
        self.record.violate(rule, what, &items);
    }
}
