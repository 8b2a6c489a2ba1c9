//! What translation works on: requests, faults, and the way that an access takes.

use crate::attributes::Attributes;
use crate::cache::tlb::VaEntry;
use crate::event::{Class, EventType};
use crate::stage1::Stage1Leaf;
use crate::stage2::{Need, Stage2Leaf};
use crate::ste::{Stage2, Ste};
use crate::story::Origin;
use crate::transaction::Transaction;

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
    pub(crate) fn at_stage1(self, aborts: bool, records: bool, stalls: bool) -> Self {
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
    /// VMID and ASID, where a context descriptor was used.
    pub(crate) tags: Option<(u16, u16)>,
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
            tags: None,
        }
    }

    /// The last descriptor that was used.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.stage1
            .map(|leaf| leaf.origin)
            .or_else(|| self.stage2.map(|leaf| leaf.origin))
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

pub(crate) fn combined(address: u64, entry: &VaEntry, cd: Origin) -> Resolved {
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
        tags: None,
    }
}
