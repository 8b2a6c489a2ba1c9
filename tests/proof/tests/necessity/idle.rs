//! The steps that nobody misses in this test, and why they are there.

use portcullis_proof::{Kind, Step};

/// Steps of one kind that are idle in some plays.
pub(crate) struct Idle {
    /// In which plays; none: in all but those that take events.
    pub(crate) plays: &'static [&'static str],
    pub(crate) kind: Kind,
    /// The how-manieth of their kind, from 1; none: each.
    pub(crate) nths: &'static [u32],
    /// What needs them.
    pub(crate) why: &'static str,
}

impl Idle {
    /// Whether it is about a step of a play.
    pub(crate) fn is_about(&self, play: &str, step: Step) -> bool {
        let is_play = if self.plays.is_empty() {
            play != "take an event"
        } else {
            self.plays.contains(&play)
        };
        let is_nth = self.nths.is_empty() || self.nths.contains(&(step.nth + 1));
        assert!(!self.why.is_empty());
        is_play && step.kind == self.kind && is_nth
    }
}

const fn idle(
    plays: &'static [&'static str],
    kind: Kind,
    nths: &'static [u32],
    why: &'static str,
) -> Idle {
    Idle {
        plays,
        kind,
        nths,
        why,
    }
}

const ATC_INV: Kind = Kind::Command(0x40);
const CFGI_STE: Kind = Kind::Command(0x03);
const EL2_ALL: Kind = Kind::Command(0x20);
const S2_IPA: Kind = Kind::Command(0x2a);
const NH_ALL: Kind = Kind::Command(0x10);

const TABLE_FIRST: &str = "A table, or a CD, is seen whole before what leads to it (§3.21.3). It takes a \
    walk between two stores of one CPU; the orders of those are held by tests/stage2/order.rs.";
const CPUS: &str = "CPUs walk the same tables: their stores are ordered before what the host tells \
    them. The SMMU is served by the barrier before CMDQ_PROD.";
const BEGUN: &str = "Commands have no order but by a CMD_SYNC (§4.7.3), and a stale entry would refill \
    the TLB; while SMMUEN is 0 the model fills nothing, and an SMMU need not either.";
const SPLIT: &str = "\"Any modification to stage 1 or stage 2 requires an invalidation of ATC entries\", with \
    EATS = 0b10 too (§3.9.1, note on nested translation): an ATC entry is derived from both stages. \
    The model keeps what comes of stage 1 alone, and has stage 2 checked at each use.";
const RESTORED: &str = "Its fence had its streams abort, confirmed. One whose port was closed instead has \
    them open until then, and there it is noticed.";
const RESET: &str = "The reset that follows empties the device, and the books do not wait for its answer \
    (CachesKept is forgiven there). It is the train of a detach, whose device is not reset.";
const NT: &str = "At BBML 1 a block and its pages may be cached at once unless the block was seen with nT \
    (§3.21.1.3); the model holds both only where a draw lets it.";

pub(crate) const IDLE: &[Idle] = &[
    idle(
        &[],
        Kind::Observe,
        &[],
        "What devices wrote before a CMD_SYNC was complete is what a CPU loads after it saw that \
         (§4.7.3): a CPU may load early. The library loads nothing of theirs here; its user may.",
    ),
    idle(
        &[
            "take over",
            "shut down",
            "recover",
            "recover after a halt",
            "recover a dead queue",
        ],
        Kind::Sync,
        &[1],
        BEGUN,
    ),
    idle(
        &[
            "take over",
            "shut down",
            "recover",
            "recover after a halt",
            "recover a dead queue",
        ],
        EL2_ALL,
        &[1],
        "What another hypervisor had cached of its own regime serves none of our streams (STRW is \
         NS-EL1 in all): for who comes after us.",
    ),
    idle(
        &["attach", "attach, full ATS", "bind the whole stream"],
        Kind::Publish,
        &[1],
        TABLE_FIRST,
    ),
    idle(
        &["attach", "attach, full ATS", "bind the whole stream"],
        Kind::Publish,
        &[2],
        "The window is mapped when it says so, to whoever walks it; the barrier before CMDQ_PROD \
         covers the streams of this device.",
    ),
    idle(
        &["attach", "attach, full ATS", "bind the whole stream"],
        Kind::Publish,
        &[3],
        "That a VMID nests is seen by every CPU before the SMMU can see the entry: an unmap on \
         another CPU must not miss it. One CPU misses nothing.",
    ),
    idle(
        &["bind, first of its leaf"],
        Kind::Publish,
        &[1, 2],
        TABLE_FIRST,
    ),
    idle(
        &["change hands", "change hands, full ATS"],
        Kind::Publish,
        &[2],
        CPUS,
    ),
    idle(
        &["release all"],
        Kind::Sync,
        &[2],
        "The CMD_SYNC behind the retracts would complete it as well. What was not confirmed is not \
         retracted, so it is asked for before.",
    ),
    idle(
        &["release all, full ATS"],
        Kind::Sync,
        &[3],
        "As in a release without ATS: the CMD_SYNC behind the retracts comes after it.",
    ),
    idle(
        &["detach, full ATS", "change hands, full ATS"],
        ATC_INV,
        &[2, 4],
        "Those with a PASID: the bindings have ended, so devices have dropped them. The same train \
         ends guests, whose bindings stand.",
    ),
    idle(
        &["change hands, full ATS"],
        Kind::Sync,
        &[2],
        "The attach to the next owner has a CMD_SYNC before its streams open; a detach alone has not.",
    ),
    idle(
        &[
            "destroy a guest, full ATS",
            "destroy a guest, host's tables, full ATS",
        ],
        Kind::Sync,
        &[2],
        "\"Software must ensure that the SMMU TLB invalidation is complete before initiating the ATS \
         Invalidation\" (§3.9.1). The streams abort by then, so the model grants nothing anew; it tells \
         as well which of translations and devices did not confirm.",
    ),
    idle(
        &["destroy a guest", "destroy a guest, full ATS"],
        Kind::Publish,
        &[2, 3, 4, 5],
        "Tables that nobody walks any more are taken apart by the verb that takes apart live ones.",
    ),
    idle(&["map"], Kind::Publish, &[1], TABLE_FIRST),
    idle(
        &[
            "unmap, stage 2 alone",
            "unmap, nested",
            "unmap, split ATS",
            "unmap, full ATS",
            "unmap a table",
            "protect",
        ],
        Kind::Publish,
        &[1],
        CPUS,
    ),
    idle(&["unmap, split ATS"], Kind::Sync, &[2, 3], SPLIT),
    idle(&["unmap, split ATS"], ATC_INV, &[1, 2, 3, 4, 5, 6], SPLIT),
    idle(&["unmap in a block"], Kind::Publish, &[1, 3, 4, 6], CPUS),
    idle(&["unmap in a block"], S2_IPA, &[1, 2], NT),
    idle(&["unmap in a block"], Kind::Sync, &[1, 2, 3, 4], NT),
    idle(&["unmap in a block"], NH_ALL, &[1, 2], NT),
    idle(
        &["tidy a leaf"],
        Kind::Sync,
        &[1],
        "Where the host keeps the tables, a leaf goes back with no change of them: nothing follows. \
         Here the CMD_SYNC of the unmap does.",
    ),
    idle(&["tidy a leaf"], Kind::Publish, &[2], CPUS),
    idle(
        &["tidy a leaf"],
        Kind::Sync,
        &[2],
        "A walk between the two commands would combine again what is going (as in an unmap, where \
         it is noticed); no device reads the window meanwhile.",
    ),
    idle(&["tidy a device"], Kind::Publish, &[1, 2], CPUS),
    idle(
        &["map, cleaned"],
        Kind::Clean,
        &[4],
        "The mark of a place where a table is about to be; it is not valid, and is cleaned again with \
         the link.",
    ),
    idle(
        &["abort what was released"],
        Kind::Sync,
        &[1],
        "As in a release of what is not stalled, where it is noticed; here too little is in flight.",
    ),
    idle(&["restore a fenced device"], CFGI_STE, &[1, 2], RESTORED),
    idle(&["restore a fenced device"], Kind::Sync, &[1], RESTORED),
    idle(
        &[
            "restore a fenced device",
            "restore behind its port",
            "restore behind its port, split ATS",
        ],
        ATC_INV,
        &[1, 2, 3, 4],
        RESET,
    ),
    idle(
        &[
            "restore a fenced device",
            "restore behind its port",
            "restore behind its port, split ATS",
        ],
        Kind::Sync,
        &[2],
        RESET,
    ),
    idle(
        &["attach, host's tables", "attach, host's tables, full ATS"],
        Kind::Publish,
        &[1],
        TABLE_FIRST,
    ),
    idle(
        &["confirm a host's change, split ATS"],
        Kind::Sync,
        &[2, 3],
        SPLIT,
    ),
    idle(
        &["confirm a host's change, split ATS"],
        ATC_INV,
        &[1, 2],
        SPLIT,
    ),
    idle(
        &[
            "restore behind its port",
            "restore behind its port, split ATS",
        ],
        Kind::Sync,
        &[1],
        "The CMD_SYNC behind the train completes the CMD_CFGI_STEs as well, and what a device asks \
         anew until then goes with its reset. In a detach it is noticed (§3.9.1).",
    ),
];
