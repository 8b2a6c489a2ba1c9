//! What can go wrong with one SMMU, and what is true afterwards.

use core::fmt;

use super::misfit::Misfit;
use super::sealed::Sealed;
use crate::id::StreamId;

/// A register did not take a new value in time.
///
/// Both the old and the new value may be in effect for any transaction (§6.3.9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandshakeTimeout {
    /// The register, as the manual names it.
    pub register: &'static str,
    /// How long it was waited for, in microseconds.
    pub waited_us: u64,
}

/// Why a command queue takes no commands, until [`Smmu::recover`](super::Smmu::recover).
///
/// What the SMMU caches is unknown meanwhile: nothing that it may have reached can be freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// The SMMU could not read the queue's memory (CERROR_ABT).
    FetchAborted,
    /// The SMMU reported an error that the architecture does not define.
    UnknownError {
        /// CMDQ_CONS.ERR.
        code: u8,
    },
    /// CMDQ_CONS is past what was written.
    IndexCorrupt {
        /// What CMDQ_CONS read.
        cons: u32,
    },
    /// The SMMU stopped for good (GERROR.SFM_ERR).
    ServiceFailure,
    /// The gate was let fall ([`Smmu::slam`](super::Smmu::slam)): nothing gets through.
    GateClosed,
    /// Another CPU is setting the queue up anew at this moment
    /// ([`Smmu::recover`](super::Smmu::recover)).
    Recovering,
}

/// Why a train of commands was not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommandError {
    /// The SMMU refused one of the commands (CERROR_ILL).
    ///
    /// It was replaced by a CMD_SYNC and had no effect; the others took effect.
    Illegal {
        /// The first command refused.
        words: [u64; 2],
    },
    /// A device did not answer an ATC invalidation (CERROR_ATC_INV_SYNC).
    ///
    /// Some device still holds translations; the other commands took effect.
    AtcTimeout,
    /// One of the commands failed, and by the time that was asked for, which and why was no longer
    /// kept: more trains failed than are remembered.
    Forgotten,
    /// The last CMD_SYNC was not consumed in time.
    ///
    /// Nothing in the train may be relied upon. It may still complete later.
    SyncTimeout {
        /// How long it was waited for, in microseconds.
        waited_us: u64,
    },
    /// The queue stayed full.
    ///
    /// The train is not in the queue, or only its beginning, without a CMD_SYNC to confirm it.
    NoRoom {
        /// How long it was waited for, in microseconds.
        waited_us: u64,
    },
    /// The queue was set up anew since the train was submitted, or while it was.
    ///
    /// What of it took effect is unknown, and will stay so: the recovery's own proof, if there was
    /// one, is what counts.
    Restarted,
    /// The ticket is another SMMU's. Nothing is known of its train here.
    ForeignTicket,
    /// The queue is dead.
    Dead(Death),
}

/// Why a stream's entry was not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamError {
    /// The SMMU's table has no entry for it. Nothing was changed.
    OutOfRange {
        /// The stream.
        stream: StreamId,
        /// How many StreamIDs the table has.
        streams: u64,
    },
    /// The stream is in use: publishing over it would be two owners. Nothing was changed.
    InUse {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is not in use: there is nothing to retract. Nothing was changed.
    NotInUse {
        /// The stream.
        stream: StreamId,
    },
    /// Another CPU is changing it at this moment. Nothing was changed.
    Changing {
        /// The stream.
        stream: StreamId,
    },
    /// An earlier change was never confirmed; it stays out of use. Nothing was changed.
    Lost {
        /// The stream.
        stream: StreamId,
    },
    /// The same stream is named twice. Nothing was changed.
    NamedTwice {
        /// The stream.
        stream: StreamId,
    },
    /// This SMMU cannot walk that stage 2. Nothing was changed.
    Unwalkable(Unwalkable),
    /// This SMMU has not that kind of ATS. Nothing was changed.
    Misfit(Misfit),
    /// ATS goes from split stages to full ones, or back, by way of none, with the device's cache
    /// emptied in between (§5.2, `EATS`). Nothing was changed.
    AtsAtOnce {
        /// The stream.
        stream: StreamId,
    },
    /// The contexts are another SMMU's, or their memory is in another VM's stage 2. Nothing was
    /// changed.
    ForeignContexts,
    /// No memory for the part of the table that the stream lies in. Nothing was changed.
    NoFrames {
        /// How many bytes were asked for, as a power of two.
        log2_bytes: u8,
    },
    /// All the parts that the table may have are there already. Nothing was changed.
    TooManyArrays {
        /// How many it may have.
        limit: usize,
    },
    /// The entries do not hold what was stored: somebody else writes there, or memory fails.
    ///
    /// The streams are lost.
    NotHeld,
    /// The SMMU did not confirm the change.
    ///
    /// The old entry, the new one and an abort are all possible from now on; the streams are lost.
    NotConfirmed(CommandError),
}

/// Why a device's contexts were not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextsError {
    /// The SMMU cannot have such contexts.
    Misfit(Misfit),
    /// A device has 1 to [`MAX_DEVICE_STREAMS`](super::MAX_DEVICE_STREAMS) streams.
    Streams {
        /// How many there were to be.
        count: usize,
    },
    /// The memory for their table is too small, or not aligned to what it must be.
    RootTooSmall {
        /// How many bytes it takes, as a power of two.
        log2_bytes: u8,
    },
    /// No memory for their books.
    NoFrames,
}

/// Contexts that were not made, and the memory that was to hold them.
#[must_use = "dropping it leaks the memory; give it back to the window"]
#[derive(Debug)]
pub struct Unmade {
    /// Why.
    pub why: ContextsError,
    /// The memory.
    pub root: Sealed,
}

/// Why a context was not changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextError {
    /// The contexts are another SMMU's, or the leaf another VM's. Nothing was changed.
    Foreign,
    /// The device has no such context. Nothing was changed.
    NoSuchContext,
    /// The context was not retracted: publishing over it would be two owners. Nothing was changed.
    InUse,
    /// The context is nobody's: there is nothing to end. Nothing was changed.
    NotInUse,
    /// Another CPU is changing it at this moment. Nothing was changed.
    Changing,
    /// An earlier change was never confirmed; it stays out of use. Nothing was changed.
    Lost,
    /// The SMMU cannot translate so. Nothing was changed.
    Misfit(Misfit),
    /// No memory for the leaf that the context lies in. Nothing was changed.
    NoLeaf {
        /// How many bytes were asked for, as a power of two.
        log2_bytes: u8,
    },
    /// The entry does not hold what was stored: somebody else writes there, or memory fails.
    ///
    /// The context is lost.
    NotHeld,
    /// The SMMU did not confirm the change.
    ///
    /// The context is not valid in memory, save one that was being quieted, which is quiet; to the
    /// SMMU it may be what it was, or what it was to be.
    NotConfirmed(CommandError),
    /// The context is free, and the SMMU has forgotten it; devices are not confirmed to have.
    ///
    /// With [`CommandError::AtcTimeout`] ask each alone
    /// ([`Smmu::atc_invalidate_singly`](super::Smmu::atc_invalidate_singly)). Its number is not to be
    /// used again before they have.
    DeviceCaches(CommandError),
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("the contexts are of another SMMU or another VM"),
            Self::NoSuchContext => f.write_str("the device has no such context"),
            Self::InUse => f.write_str("the context is in use"),
            Self::NotInUse => f.write_str("the context is not in use"),
            Self::Changing => f.write_str("the context is being changed"),
            Self::Lost => f.write_str("the context is lost: a change was never confirmed"),
            Self::Misfit(misfit) => misfit.fmt(f),
            Self::NoLeaf { log2_bytes } => write!(f, "no memory for a leaf: 2^{log2_bytes} bytes"),
            Self::NotHeld => f.write_str("the context does not hold what was stored"),
            Self::NotConfirmed(error) => write!(f, "not confirmed: {error}"),
            Self::DeviceCaches(error) => {
                write!(
                    f,
                    "translations in devices are not confirmed to be gone: {error}"
                )
            }
        }
    }
}

impl fmt::Display for ContextsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Misfit(misfit) => misfit.fmt(f),
            Self::Streams { count } => write!(f, "a device cannot have {count} streams"),
            Self::RootTooSmall { log2_bytes } => {
                write!(
                    f,
                    "the table of contexts takes 2^{log2_bytes} bytes, aligned"
                )
            }
            Self::NoFrames => f.write_str("no memory for the books of the contexts"),
        }
    }
}

/// Why an SMMU cannot walk a stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unwalkable {
    /// It does not have the granule.
    Granule {
        /// The granule, as a power of two.
        log2_granule: u8,
    },
    /// Output addresses are wider than the SMMU's.
    OutputSize {
        /// Bits of an output address of the stage 2.
        bits: u8,
        /// Bits that the SMMU has.
        smmu_bits: u8,
    },
    /// The VMID has 16 bits and the SMMU's have 8.
    VmidSize,
}

/// Why an SMMU cannot be driven at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// AIDR names an architecture that is not SMMUv3.
    NotVersion3 {
        /// AIDR.ArchMajorRev.
        major: u8,
    },
    /// It has no stage 2 (IDR0.S2P).
    NoStage2,
    /// It walks no AArch64 tables (IDR0.TTF).
    NoAArch64Tables,
    /// It walks big-endian tables alone (IDR0.TTENDIAN).
    BigEndianTables,
    /// It has no 4 KiB granule (IDR5.GRAN4K).
    No4KiBGranule,
    /// It does not snoop caches, and nothing here cleans them.
    NotCoherent,
    /// Firmware has fixed where its queues or tables are (IDR1.QUEUES_PRESET, TABLES_PRESET).
    Preset,
    /// A size or model field has a reserved value.
    Reserved {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
}

/// Why an SMMU was not taken over.
///
/// Whatever the reason, GBPA.ABORT is on and SMMUEN off, unless the reason is that these very
/// registers did not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeOverError {
    /// It cannot be driven.
    Refused(Refusal),
    /// A register did not answer.
    Handshake(HandshakeTimeout),
    /// It stopped for good before it was taken over (GERROR.SFM_ERR).
    ServiceFailure,
    /// No memory for a queue or table.
    NoFrames {
        /// How many bytes were asked for, as a power of two.
        log2_bytes: u8,
    },
    /// It did not confirm that its caches are empty.
    Command(CommandError),
}

/// Why an SMMU did not shut down.
///
/// What could be closed is closed. Its memory stays lost: it may still read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShutDownError {
    /// A register did not answer.
    Handshake(HandshakeTimeout),
    /// It did not confirm that its caches are empty.
    Command(CommandError),
}

impl From<HandshakeTimeout> for ShutDownError {
    fn from(timeout: HandshakeTimeout) -> Self {
        Self::Handshake(timeout)
    }
}

impl From<CommandError> for ShutDownError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl From<HandshakeTimeout> for TakeOverError {
    fn from(timeout: HandshakeTimeout) -> Self {
        Self::Handshake(timeout)
    }
}

impl From<CommandError> for TakeOverError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl fmt::Display for HandshakeTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} did not take its value within {} us",
            self.register, self.waited_us
        )
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FetchAborted => f.write_str("the SMMU cannot read its command queue"),
            Self::UnknownError { code } => write!(f, "command error {code:#x} is not defined"),
            Self::IndexCorrupt { cons } => {
                write!(f, "CMDQ_CONS {cons:#x} is past what was written")
            }
            Self::ServiceFailure => f.write_str("the SMMU stopped (SFM_ERR)"),
            Self::GateClosed => f.write_str("the gate is closed"),
            Self::Recovering => f.write_str("it is being set up anew"),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Illegal { words: [low, high] } => {
                write!(f, "command {low:#018x} {high:#018x} was refused as illegal")
            }
            Self::AtcTimeout => f.write_str("a device did not answer an ATC invalidation"),
            Self::Forgotten => f.write_str("a command failed, and why is no longer kept"),
            Self::SyncTimeout { waited_us } => {
                write!(f, "CMD_SYNC did not complete within {waited_us} us")
            }
            Self::NoRoom { waited_us } => {
                write!(f, "the command queue stayed full for {waited_us} us")
            }
            Self::Restarted => f.write_str("the command queue was set up anew since"),
            Self::ForeignTicket => f.write_str("the ticket is another SMMU's"),
            Self::Dead(death) => write!(f, "the command queue is dead: {death}"),
        }
    }
}

impl fmt::Display for Unwalkable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granule { log2_granule } => {
                write!(f, "the SMMU has no granule of 2^{log2_granule} bytes")
            }
            Self::OutputSize { bits, smmu_bits } => {
                write!(
                    f,
                    "the stage 2 has {bits}-bit outputs, the SMMU {smmu_bits}-bit ones"
                )
            }
            Self::VmidSize => f.write_str("the VMID has 16 bits, the SMMU's have 8"),
        }
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfRange { stream, streams } => {
                write!(f, "stream {stream} is not one of the table's {streams:#x}")
            }
            Self::InUse { stream } => write!(f, "stream {stream} is in use"),
            Self::NotInUse { stream } => write!(f, "stream {stream} is not in use"),
            Self::Changing { stream } => write!(f, "stream {stream} is being changed"),
            Self::Lost { stream } => {
                write!(f, "stream {stream} is lost: a change was never confirmed")
            }
            Self::NamedTwice { stream } => write!(f, "stream {stream} is named twice"),
            Self::Unwalkable(why) => why.fmt(f),
            Self::Misfit(misfit) => misfit.fmt(f),
            Self::AtsAtOnce { stream } => {
                write!(
                    f,
                    "stream {stream} has another kind of ATS, which is to be off before"
                )
            }
            Self::ForeignContexts => f.write_str("the contexts are of another SMMU or another VM"),
            Self::NoFrames { log2_bytes } => write!(f, "no memory: 2^{log2_bytes} bytes"),
            Self::TooManyArrays { limit } => {
                write!(f, "the stream table has its {limit} arrays already")
            }
            Self::NotHeld => f.write_str("the entries do not hold what was stored"),
            Self::NotConfirmed(error) => write!(f, "not confirmed: {error}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotVersion3 { major } => write!(f, "architecture revision {major} is not SMMUv3"),
            Self::NoStage2 => f.write_str("no stage 2"),
            Self::NoAArch64Tables => f.write_str("no AArch64 translation tables"),
            Self::BigEndianTables => f.write_str("big-endian tables alone"),
            Self::No4KiBGranule => f.write_str("no 4 KiB granule"),
            Self::NotCoherent => f.write_str("table walks are not coherent"),
            Self::Preset => f.write_str("queues or tables are fixed by firmware"),
            Self::Reserved { field, value } => {
                write!(f, "{field} has the reserved value {value:#x}")
            }
        }
    }
}

impl fmt::Display for TakeOverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Handshake(timeout) => timeout.fmt(f),
            Self::ServiceFailure => f.write_str("the SMMU stopped (SFM_ERR)"),
            Self::NoFrames { log2_bytes } => write!(f, "no memory: 2^{log2_bytes} bytes"),
            Self::Command(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for ShutDownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(timeout) => timeout.fmt(f),
            Self::Command(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for HandshakeTimeout {}
impl core::error::Error for ShutDownError {}
impl core::error::Error for CommandError {}
impl core::error::Error for StreamError {}
impl core::error::Error for ContextError {}
impl core::error::Error for ContextsError {}
impl core::error::Error for TakeOverError {}
