//! The rules a driver can break, by name.

use std::fmt;

use crate::hostile::Mode;
use crate::story::Story;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $why:literal,)*) => {
        /// A rule that a driver broke.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Rule {
            $(#[doc = $why] $name,)*
        }

        impl Rule {
            /// Why this is wrong, with the section of IHI 0070 that says so.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $why,)* }
            }
        }
    };
}

rules! {
    UnknownRegister = "A write to an offset that holds no register (§6.1).",
    RegisterAccessSize = "An unaligned access, or one of a size that the register does not have (§6.2).",
    ReadOnlyWritten = "A write to a read-only register (§6.2).",
    GuardedWrittenWhileOn = "A register was written while the enable that guards it was on or in transition (§6.2).",
    ChangedDuringUpdate = "A field was changed again before its earlier change was acknowledged (§6.2.1).",
    ReservedRegisterBits = "Reserved bits of a register were written with ones (§6.2).",
    ReservedEncoding = "A field of a register was given a reserved encoding (§6.3).",
    UnknownAtReset = "A register or cache whose state after reset is unknown was used before it was set (§3.11, §6.3).",
    GbpaWithoutUpdate = "GBPA was written without Update, or while an update was in progress (§6.3.14).",
    InactiveErrorToggled = "GERRORN was toggled for an error that is not active (§6.3.18).",
    TableMisaligned = "A table or queue is not aligned to its size; low address bits are ignored (§3.4.3, §6.3.24).",
    QueueInconsistent = "PROD and CONS of a queue do not describe a possible state (§3.5.1).",
    QueueOverrun = "More commands were announced than the queue has free entries (§3.5.1).",
    QueueEntryTouched = "A command was changed while the SMMU owned it (§3.5.1).",
    ProducerMovedBack = "CMDQ_PROD moved backwards while commands were being consumed (§3.5.1).",
    CommandNotPublished = "A command was announced before the store of it had to be visible (§3.5.3).",
    InvalidatedBeforeVisible = "A configuration was invalidated while the store that changed it was still unseen (§3.21.3).",
    GivenBackWithoutBarrier = "A record was given back by CONS with no barrier after reading it (§3.5.2).",
    ReadWithoutBarrier = "A record was read with no barrier after PROD was read (§3.5.2).",
    CommandReservedBits = "A command has ones in reserved bits (§4.1.3).",
    CommandIllegal = "A command that the SMMU must refuse (CERROR_ILL, §7.1).",
    CommandOutOfRange = "A command's StreamID, SubstreamID, ASID, VMID or range is beyond what is implemented (§4.1).",
    RangeMisaligned = "The address of a range invalidation is not aligned as its TTL and granule ask (§4.4.1).",
    StallTermWhileLive = "STALL_TERM for a stream whose entry still lets transactions through (§4.6.2).",
    EntryReservedBits = "A live STE, L1STD, CD or L1CD has ones in reserved bits (§5).",
    LiveEntryTorn = "A live entry was changed in a way that lets the SMMU see a mix of old and new words (§3.21.3).",
    BreakBeforeMake = "A live translation was replaced by a different one without being broken first (§3.21.1).",
    TranslationConflict = "Two translations for one address were cached at once (§3.17.4).",
    FrameStillCached = "A frame was given back that a cached item still leads to (§3.21).",
    FrameStillReachable = "A frame was given back that a table still leads to (§3.21).",
    FreedFrameReached = "A transaction reached a frame that had been given back.",
    FreedFrameFetched = "The SMMU read a structure in a frame that had been given back (§3.21).",
    TagReusedTooEarly = "An ASID, VMID or PASID was given out again before its invalidation was synced (§3.17).",
    TagsDisagree = "Two live context descriptors, or stage 2s, with the same tags differ in what the TLB may cache (§3.17, §5.4).",
    ReleasedSpaceCached = "After its release something of a space is still cached.",
    ReleasedSpaceReachable = "After its release a context descriptor of a space is still live.",
    ReleasedSpaceReached = "After its release a transaction of a space still reached memory.",
    AtsWithoutCheck = "A stream was allowed split or full ATS with ATSCHK off (§6.3.9).",
    DisabledWithAts = "SMMUEN was cleared while streams still had ATS enabled (§3.9.1).",
    AtcStale = "A device used a translation from its ATC that was no longer valid although its invalidation was synced (§3.9).",
    WaitUnbounded = "The driver waited longer than any bounded wait may.",
}

/// One rule, broken once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// How it was broken here.
    pub what: String,
    /// Model time in microseconds.
    pub at_us: u64,
    /// The mode, and with it the seed, of the run; of the first SMMU where there are several.
    pub mode: Mode,
    /// What led to it.
    pub story: Story,
}

impl fmt::Display for Violation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rule,
            what,
            at_us,
            mode,
            ..
        } = self;
        writeln!(to, "{rule:?} at {at_us} us, {mode:?}: {what}")?;
        writeln!(to, "{}", self.rule.explanation())?;
        write!(to, "{}", self.story)
    }
}
