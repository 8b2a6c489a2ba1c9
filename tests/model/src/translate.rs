//! The translation procedure: from a transaction to memory, or to a fault (§3.12, §15).

use crate::attributes::{Attributes, MemoryType, Shareability};
use crate::bits::{bit, field};
use crate::cache::tlb::VaEntry;
use crate::core::Core;
use crate::event::{Class, EventType};
use crate::record::Landing;
use crate::registers::{cr0, gbpa};
use crate::stage1::{Space, Stage1Leaf};
use crate::stage2::{Need, Stage2Leaf, stage2_check};
use crate::ste::{Stage2, Ste};
use crate::story::Origin;
use crate::substream::{Way, decide};
use crate::transaction::{Access, Kind, Outcome, Transaction};
use crate::violation::Rule;

/// Why a transaction does not go on; what its record would say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) event_type: EventType,
    pub(crate) is_stage2: bool,
    pub(crate) class: Class,
    /// IPA or FetchAddr.
    pub(crate) second_address: u64,
    pub(crate) policy: Policy,
}

/// What decides how a fault ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    /// Abort, and record.
    Record,
    /// A, R and S of the stage that faulted.
    Stage {
        aborts: bool,
        records: bool,
        stalls: bool,
    },
}

impl Fault {
    pub(crate) const fn new(event_type: EventType) -> Self {
        Self {
            event_type,
            is_stage2: false,
            class: Class::Input,
            second_address: 0,
            policy: Policy::Record,
        }
    }

    /// The SMMU's own read at `pa` met an external abort.
    pub(crate) const fn fetch(event_type: EventType, pa: u64) -> Self {
        Self {
            second_address: pa,
            ..Self::new(event_type)
        }
    }

    /// The same, from stage 2 translating `ipa` for `class`.
    pub(crate) const fn at_stage2(self, s2: &Stage2, class: Class, ipa: u64) -> Self {
        let is_abort = matches!(self.event_type, EventType::WalkAbort);
        let policy = if is_abort {
            Policy::Record
        } else {
            Policy::Stage {
                aborts: true,
                records: s2.records,
                stalls: s2.stalls,
            }
        };
        Self {
            is_stage2: true,
            class,
            second_address: if is_abort { self.second_address } else { ipa },
            policy,
            ..self
        }
    }

    /// The same under the policy of a context descriptor, if it is of stage 1.
    fn at_stage1(self, aborts: bool, records: bool, stalls: bool) -> Self {
        if self.is_stage2 || !self.event_type.is_translation_related() {
            return self;
        }
        Self {
            policy: Policy::Stage {
                aborts,
                records,
                stalls,
            },
            ..self
        }
    }
}

/// What a record tells of a transaction, and whether it may be merged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) is_privileged: bool,
    pub(crate) is_instruction: bool,
    pub(crate) may_merge: bool,
}

impl Seen {
    /// Before any entry was found.
    pub(crate) const fn raw(transaction: &Transaction) -> Self {
        Self {
            is_privileged: transaction.is_privileged,
            is_instruction: transaction.is_instruction,
            may_merge: false,
        }
    }

    /// After the overrides of its entry.
    pub(crate) const fn through(transaction: &Transaction, ste: &Ste) -> Self {
        Self {
            is_privileged: ste.privileged(transaction.is_privileged),
            is_instruction: ste.instruction(transaction.is_instruction),
            may_merge: ste.merges_events,
        }
    }
}

/// What is to be translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) stream: u32,
    pub(crate) substream: Option<u32>,
    pub(crate) address: u64,
    pub(crate) need: Need,
}

/// Where an access goes, and through what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Resolved {
    pub(crate) pa: u64,
    /// The address after stage 1.
    pub(crate) ipa: u64,
    /// log2 of the range that the answer holds for.
    pub(crate) log2: u32,
    pub(crate) stage1: Option<Stage1Leaf>,
    pub(crate) stage2: Option<Stage2Leaf>,
    pub(crate) attributes: Attributes,
    pub(crate) cd: Option<Origin>,
}

impl Resolved {
    pub(crate) const fn identity(address: u64, attributes: Attributes) -> Self {
        Self {
            pa: address,
            ipa: address,
            log2: 64,
            stage1: None,
            stage2: None,
            attributes,
            cd: None,
        }
    }

    /// The last descriptor that was used.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.stage1
            .map(|leaf| leaf.origin)
            .or_else(|| self.stage2.map(|leaf| leaf.origin))
    }
}

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

    /// The attributes of bypassing traffic while SMMUEN is 0 (§6.3.14).
    fn bypass_attributes(&self) -> Attributes {
        let value = u64::from(self.registers.gbpa);
        let mut attributes = Attributes::INCOMING;
        if !self.id.attr_types_ovr {
            return attributes;
        }
        if bit(value, 4) {
            attributes.memory = MemoryType::from_stage2(field(value, 3, 0) as u8);
        }
        if field(value, 13, 12) != 1 {
            attributes.shareability = Shareability::from_bits(field(value, 13, 12));
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
        Ok(combined(request.address, &entry, origin))
    }

    /// The access itself.
    pub(crate) fn forward(
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

    /// Complains if the access reaches a frame that was given back.
    fn check_landing(&self, transaction: &Transaction, route: &Resolved, ste: Option<Origin>) {
        if !self.claims.is_free(route.pa) {
            return;
        }
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
        self.record.violate(Rule::FreedFrameReached, what, &items);
    }
}

/// What the transaction needs, after the overrides of the entry.
pub(crate) fn need(transaction: &Transaction, ste: &Ste) -> Need {
    let execute = !transaction.is_write() && ste.instruction(transaction.is_instruction);
    Need {
        read: !transaction.is_write() && !execute,
        write: transaction.is_write(),
        execute,
        is_privileged: ste.privileged(transaction.is_privileged),
    }
}

/// The attributes of a transaction that stage 1 does not give any.
pub(crate) fn incoming(ste: &Ste) -> Attributes {
    let incoming = Attributes::INCOMING;
    Attributes {
        memory: ste.type_override().unwrap_or(incoming.memory),
        shareability: ste.share_override().unwrap_or(incoming.shareability),
    }
    .settled()
}

fn combined(address: u64, entry: &VaEntry, cd: Origin) -> Resolved {
    let ipa = entry.stage1.translate(address);
    let attributes = entry.stage1.attributes;
    Resolved {
        pa: entry.stage2.map_or(ipa, |leaf| leaf.translate(ipa)),
        ipa,
        log2: entry.log2(),
        stage1: Some(entry.stage1),
        stage2: entry.stage2,
        attributes: entry
            .stage2
            .map_or(attributes, |leaf| leaf.attributes(attributes)),
        cd: Some(cd),
    }
}
