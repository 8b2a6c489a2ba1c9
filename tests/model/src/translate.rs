//! The translation procedure: from a transaction to memory, or to a fault (§3.12, §15).

use crate::attributes::Attributes;
use crate::core::Core;
use crate::event::{Class, Event, EventType};
use crate::record::Landing;
use crate::registers::{cr0, cr2, gbpa};
use crate::stage2::Need;
use crate::ste::Ste;
use crate::story::Origin;
use crate::transaction::{Access, Outcome, Transaction};

/// Why a transaction does not go on; what its record would say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub(crate) event_type: EventType,
    pub(crate) is_stage2: bool,
    pub(crate) class: Class,
    /// IPA or FetchAddr.
    pub(crate) second_address: u64,
    /// Whether it comes from a stage that translates, so that A, R and S speak about it.
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
    pub(crate) const fn at_stage2(self, class: Class, ipa: u64) -> Self {
        let second_address = if matches!(self.event_type, EventType::WalkAbort) {
            self.second_address
        } else {
            ipa
        };
        Self {
            is_stage2: true,
            class,
            second_address,
            ..self
        }
    }
}

/// Where an access goes, and through what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Route {
    pub(crate) pa: u64,
    pub(crate) attributes: Attributes,
    pub(crate) ste: Option<Origin>,
    pub(crate) cd: Option<Origin>,
    pub(crate) translation: Option<Origin>,
}

impl Core {
    pub(crate) fn transact(&mut self, transaction: Transaction) -> Outcome {
        self.tick();
        let bytes = transaction.access.bytes() as u64;
        let in_page = transaction.address & 0xfff;
        if bytes == 0 || in_page + bytes > 0x1000 {
            return self.fail(&transaction, Fault::new(EventType::UnsupportedTransaction));
        }
        if !self.is_on(cr0::SMMUEN) {
            return self.bypass(&transaction);
        }
        match self.route(&transaction) {
            Ok(Some(route)) => self.forward(&transaction, route),
            Ok(None) => Outcome::Aborted,
            Err(fault) => self.fail(&transaction, fault),
        }
    }

    fn bypass(&mut self, transaction: &Transaction) -> Outcome {
        let too_far = transaction.address >> self.id.oas_bits != 0;
        if self.registers.gbpa & gbpa::ABORT != 0 || too_far {
            return Outcome::Aborted;
        }
        let route = Route {
            pa: transaction.address,
            attributes: Attributes::INCOMING,
            ste: None,
            cd: None,
            translation: None,
        };
        self.forward(transaction, route)
    }

    /// The way of an ordinary transaction; `None`: it is aborted without a record.
    fn route(&mut self, transaction: &Transaction) -> Result<Option<Route>, Fault> {
        let (ste, origin) = self.stream_entry(transaction.stream)?;
        if ste.aborts {
            return Ok(None);
        }
        self.stage2_route(transaction, &ste, origin).map(Some)
    }

    fn stage2_route(
        &mut self,
        transaction: &Transaction,
        ste: &Ste,
        origin: Origin,
    ) -> Result<Route, Fault> {
        if transaction.substream.is_some() {
            return Err(Fault::new(EventType::BadSubstreamId));
        }
        let mut route = Route {
            pa: transaction.address,
            attributes: Attributes::INCOMING,
            ste: Some(origin),
            cd: None,
            translation: None,
        };
        if transaction.address >> self.id.ias_bits() != 0 {
            return Err(Fault::new(EventType::AddressSize));
        }
        let Some(s2) = ste.stage2 else {
            return Ok(route);
        };
        let need = Need {
            read: !transaction.is_write() && !transaction.fetches_instruction(),
            write: transaction.is_write(),
            execute: transaction.fetches_instruction(),
            is_privileged: ste.privileged(transaction.is_privileged),
        };
        let leaf = self
            .stage2(&s2, transaction.address, need, Class::Input)
            .map_err(|fault| Fault {
                policy: Policy::Stage {
                    aborts: true,
                    records: s2.records,
                    stalls: s2.stalls,
                },
                ..fault
            })?;
        route.pa = leaf.translate(transaction.address);
        route.attributes = leaf.attributes(route.attributes);
        route.translation = Some(leaf.origin);
        Ok(route)
    }

    /// The access itself.
    fn forward(&mut self, transaction: &Transaction, route: Route) -> Outcome {
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
            ste: route.ste,
            cd: route.cd,
            translation: route.translation,
        });
        Outcome::Done {
            pa: route.pa,
            data,
            attributes: route.attributes,
        }
    }

    fn fail(&mut self, transaction: &Transaction, fault: Fault) -> Outcome {
        let needs_recinvsid = fault.event_type == EventType::BadStreamId;
        let records = match fault.policy {
            Policy::Record => !needs_recinvsid || self.registers.cr2 & cr2::RECINVSID != 0,
            Policy::Stage { records, .. } => records,
        };
        if records {
            self.report(Event {
                substream: transaction.substream,
                is_read: !transaction.is_write(),
                is_instruction: transaction.fetches_instruction(),
                is_privileged: transaction.is_privileged,
                is_stage2: fault.is_stage2,
                class: fault.class,
                address: transaction.address,
                second_address: fault.second_address,
                ..Event::new(fault.event_type, transaction.stream)
            });
        }
        Outcome::Aborted
    }
}
