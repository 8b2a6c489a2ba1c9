//! What an explanation is made of.

use crate::addr::{Iova, Pa};
use crate::id::{Asid, StreamId, SubstreamId, Vmid};

/// What one transaction would meet; a plain value. [`Display`](core::fmt::Display) says it in a few
/// lines of English.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// Whose transaction.
    pub stream: StreamId,
    /// With which SubstreamID.
    pub substream: Option<SubstreamId>,
    /// At which address.
    pub address: Iova,
    /// The stream's entry, if the walk came that far.
    pub entry: Option<EntrySeen>,
    /// The context, if stage 1 is on and the walk came that far.
    pub context: Option<ContextSeen>,
    /// What stage 1 makes of the address, if it makes anything of it.
    pub intermediate: Option<u64>,
    /// How it ends.
    pub outcome: Outcome,
}

/// A stream table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntrySeen {
    /// Where it lies.
    pub at: Pa,
    /// Its first word.
    pub word: u64,
    /// S2VMID.
    pub vmid: Vmid,
    /// S2TTB.
    pub root: Pa,
}

/// A context descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextSeen {
    /// Where it lies: an IPA where stage 2 is on.
    pub at: u64,
    /// Its first word.
    pub word: u64,
    /// Its ASID.
    pub asid: Asid,
}

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It reaches memory.
    Reaches {
        /// Where.
        pa: Pa,
        /// A read does.
        can_read: bool,
        /// A write does; the other faults with F_PERMISSION.
        can_write: bool,
    },
    /// It passes untranslated.
    Bypasses,
    /// It aborts.
    Aborts(Reason),
    /// Not to be told: this cannot be read from here, and the SMMU may well read it.
    Unreadable {
        /// What lies there.
        what: Structure,
        /// Where.
        at: Pa,
    },
}

/// What the SMMU reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Structure {
    /// A level 1 stream table descriptor.
    L1Std,
    /// A stream table entry.
    Ste,
    /// A level 1 context descriptor.
    L1Cd,
    /// A context descriptor.
    Cd,
    /// A descriptor of a translation table of this stage.
    Descriptor(Stage),
}

/// A stage of translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The guest's.
    One,
    /// EL2's.
    Two,
}

/// What an address was translated for (`CLASS`, §7.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The transaction itself.
    Input,
    /// A descriptor of stage 1.
    Table,
    /// A context descriptor, or one that leads to it.
    Context,
}

/// A descriptor of a translation table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Of which level.
    pub level: u8,
    /// Where it lies: an IPA if it is one of stage 1 and stage 2 is on.
    pub at: u64,
    /// What it is.
    pub word: u64,
}

/// Why a stage makes nothing of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The address has more bits than the tables resolve.
    OutOfRange {
        /// How many they do.
        bits: u8,
    },
    /// Walks of this half are off (EPD).
    WalksOff,
    /// The descriptor is not valid.
    Invalid(Found),
    /// The descriptor leads past the output addresses.
    OutputSize(Found),
    /// The leaf was never accessed (AF).
    AccessFlag(Found),
    /// The leaf permits neither to read nor to write; or not to read, where that is the purpose.
    Permission(Found),
    /// The leaf is Device memory, where tables and contexts may not be (S2PTW).
    DeviceMemory(Found),
}

/// Why a transaction aborts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Translation is off, and GBPA.ABORT on.
    GateShut,
    /// The table has no entry for the StreamID.
    StreamTooLarge {
        /// It has this many, as a power of two.
        log2_streams: u8,
    },
    /// The level 1 descriptor has no entry for the StreamID.
    NoEntry {
        /// Where the descriptor lies.
        at: Pa,
        /// What it is.
        word: u64,
    },
    /// The entry is not valid.
    EntryInvalid,
    /// The entry says so (Config 0b0xx).
    EntryAborts,
    /// The entry is ILLEGAL, or nothing that is known here.
    EntryIllegal(&'static str),
    /// The stream has no SubstreamIDs.
    NoSubstreams,
    /// The stream has fewer SubstreamIDs.
    SubstreamTooLarge {
        /// It has this many, as a power of two.
        log2_contexts: u8,
    },
    /// Traffic without a SubstreamID is refused (S1DSS).
    SubstreamMissing,
    /// SubstreamID 0 stands for traffic without one (S1DSS).
    SubstreamZero,
    /// The level 1 context descriptor leads nowhere.
    NoContext {
        /// Where it lies.
        at: u64,
        /// What it is.
        word: u64,
    },
    /// The context is not valid.
    ContextInvalid,
    /// The context is ILLEGAL, or nothing that is known here.
    ContextIllegal(&'static str),
    /// The address is wider than what stage 2 can take.
    InputTooWide {
        /// Bits of an address that the SMMU passes on.
        bits: u8,
    },
    /// A stage makes nothing of an address.
    Stage {
        /// Which.
        stage: Stage,
        /// Of which address.
        input: u64,
        /// What for.
        purpose: Purpose,
        /// Why.
        stop: Stop,
    },
}
