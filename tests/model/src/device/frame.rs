//! The register frame of the device: where is what, bit by bit.
//!
//! 64 KiB. 32-bit accesses reach every register, 64-bit accesses reach every aligned pair and act
//! as the lower half first, then the upper half. No read has a side effect. What is not listed
//! reads 0 and takes no writes; a write to a read-only register changes nothing.
//!
//! | offset | bits | name | access | meaning |
//! |---|---|---|---|---|
//! | 0x000 | 32 | [`ID`] | RO | [`ID_VALUE`] |
//! | 0x004 | 32 | [`FEATURES`] | RO | \[0\] ATC, \[1\] page requests, \[12:8\] PASID bits (0: none) |
//! | 0x008 | 32 | [`STREAM`] | RO | the StreamID, fixed by wiring |
//! | 0x010 | 32 | [`CONTROL`] | RW | [`control`] |
//! | 0x014 | 32 | [`STATUS`] | RO | [`status`] |
//! | 0x018 | 32 | [`COMMAND`] | WO | [`command`]; anything else is refused |
//! | 0x020 | 64 | [`IOVA`] | RW | where the job starts |
//! | 0x028 | 32 | [`PASID`] | RW | \[19:0\] PASID, \[31\] there is one |
//! | 0x02c | 32 | [`LENGTH`] | RW | bytes of one shot, 1 to [`MOST_BYTES`]; split at every 4 KiB |
//! | 0x030 | 32 | [`FLAGS`] | RW | [`flags`] |
//! | 0x034 | 32 | [`SHOTS`] | RW | how many shots a job has; 0 acts as 1 |
//! | 0x038 | 64 | [`PATTERN`] | RW | what a write repeats, as bytes from the lowest |
//! | 0x040 | 64 | [`STRIDE`] | RW | added to the address after each shot, wrapping |
//! | 0x048 | 32 | [`RATE`] | RW | shots at each tick while a job repeats; 0 acts as 1 |
//! | 0x04c | 32 | [`GROUP`] | RW | of page requests: \[8:0\] group, \[16\] R, \[17\] W, \[18\] X, \[19\] privileged, \[20\] last |
//! | 0x050 | 32 | [`MISCONDUCT`] | RW | [`Misconduct`](super::Misconduct) of the ATC; kept by a reset |
//! | 0x054 | 32 | [`LATENESS_US`] | RW | how late a late ATC answers; kept by a reset |
//! | 0x058 | 32 | [`RESET_US`] | RW | how long a reset takes, from now on one that is under way; all ones: for ever. Kept by a reset |
//! | 0x060 | 32 | [`SMMU_FAULT`] | RW | [`smmu_fault`]: puts a fault into the SMMU, in place of the one before; kept by a reset |
//! | 0x064 | 32 | [`SMMU_FAULT_US`] | RW | how late a late SYNC is; kept by a reset |
//! | 0x068 | 32 | [`SMMU_FAULT_SKIP`] | RW | so many SYNCs (of [`smmu_fault::QUEUE_ABORT`]: commands) pass first; kept by a reset |
//! | 0x06c | 32 | [`SMMU_FAULT_COUNT`] | RW | so many SYNCs are late; 0: all. Kept by a reset |
//! | 0x080 | 32 | [`DONE`] | RO | accesses that were completed |
//! | 0x084 | 32 | [`ABORTED`] | RO | accesses that were aborted |
//! | 0x088 | 32 | [`IGNORED`] | RO | accesses that read as zero or were ignored (RAZ/WI) |
//! | 0x08c | 32 | [`STALLED`] | RO | accesses that stalled, ever |
//! | 0x090 | 32 | [`PENDING`] | RO | accesses that are stalled now; a reset does not end them |
//! | 0x094 | 32 | [`UNTRANSLATED`] | RO | accesses not issued: ATS granted no translation |
//! | 0x098 | 32 | [`ATC_HITS`] | RO | accesses that the ATC translated |
//! | 0x09c | 32 | [`ATC_ENTRIES`] | RO | translations in the ATC now |
//! | 0x0a0 | 32 | [`INVALIDATIONS`] | RO | invalidations received |
//! | 0x0a4 | 32 | [`RESPONSES`] | RO | page responses received |
//! | 0x0a8 | 32 | [`LAST_RESPONSE`] | RO | \[8:0\] group, \[17:16\] code (0 success, 1 invalid, 2 failure), \[31\] there was one |
//! | 0x0ac | 32 | [`LAST_END`] | RO | [`End`](super::End) of the newest access |
//! | 0x0b0 | 64 | [`LAST_IOVA`] | RO | of the newest access |
//! | 0x0b8 | 32 | [`LANDED`] | RO | entries of the log ever written |
//! | 0x0c0 | 32 | [`STORY`] | RW | of what the witnesses from now on are part; kept by a reset |
//! | 0x0c4 | 32 | [`WITNESS`] | WO | \[19:0\] PASID, \[31\] there is one, \[30\] begin, else end: see [`Mark`](super::Mark) |
//! | 0x1000 | 4096 B | [`BUFFER`] | RW | what a buffered write sends and a read receives, modulo its size |
//! | 0x4000 | 256 × 32 B | [`LOG`] | RO | what reached memory: entry `LANDED % 256` is written next |
//! | 0xf000 | 32 | [`PORT`] | RW | \[0\] the port above the device is closed; kept by a reset |
//!
//! The last page, with [`PORT`], is not the device's but of the port above it: who gives the device
//! away keeps that page.
//!
//! Counters wrap. A log entry is four words: IOVA; PA; bytes \[31:0\], PASID \[51:32\], PASID
//! there \[52\], write \[53\], translated by the ATC \[54\]; the entry's number from 0.

/// Identification.
pub const ID: u64 = 0x000;
/// What [`ID`] reads.
pub const ID_VALUE: u32 = 0x646d_6131;
/// Features.
pub const FEATURES: u64 = 0x004;
/// StreamID.
pub const STREAM: u64 = 0x008;
/// Enables.
pub const CONTROL: u64 = 0x010;
/// What it is doing.
pub const STATUS: u64 = 0x014;
/// Doorbell.
pub const COMMAND: u64 = 0x018;
/// First address.
pub const IOVA: u64 = 0x020;
/// PASID and its validity.
pub const PASID: u64 = 0x028;
/// Bytes of a shot.
pub const LENGTH: u64 = 0x02c;
/// What sort of access.
pub const FLAGS: u64 = 0x030;
/// Shots of a job.
pub const SHOTS: u64 = 0x034;
/// Pattern to write.
pub const PATTERN: u64 = 0x038;
/// Step from shot to shot.
pub const STRIDE: u64 = 0x040;
/// Shots a tick.
pub const RATE: u64 = 0x048;
/// Page request.
pub const GROUP: u64 = 0x04c;
/// How the ATC misbehaves.
pub const MISCONDUCT: u64 = 0x050;
/// How late a late ATC is.
pub const LATENESS_US: u64 = 0x054;
/// How long a reset takes.
pub const RESET_US: u64 = 0x058;
/// The fault of the SMMU.
pub const SMMU_FAULT: u64 = 0x060;
/// How late a late SYNC is.
pub const SMMU_FAULT_US: u64 = 0x064;
/// What passes before the fault.
pub const SMMU_FAULT_SKIP: u64 = 0x068;
/// How many SYNCs are late.
pub const SMMU_FAULT_COUNT: u64 = 0x06c;
/// Completed accesses.
pub const DONE: u64 = 0x080;
/// Aborted accesses.
pub const ABORTED: u64 = 0x084;
/// Accesses completed without effect.
pub const IGNORED: u64 = 0x088;
/// Accesses that stalled.
pub const STALLED: u64 = 0x08c;
/// Accesses that are stalled.
pub const PENDING: u64 = 0x090;
/// Accesses without translation.
pub const UNTRANSLATED: u64 = 0x094;
/// Accesses translated by the ATC.
pub const ATC_HITS: u64 = 0x098;
/// Translations held.
pub const ATC_ENTRIES: u64 = 0x09c;
/// Invalidations received.
pub const INVALIDATIONS: u64 = 0x0a0;
/// Page responses received.
pub const RESPONSES: u64 = 0x0a4;
/// The newest page response.
pub const LAST_RESPONSE: u64 = 0x0a8;
/// How the newest access ended.
pub const LAST_END: u64 = 0x0ac;
/// Where the newest access went.
pub const LAST_IOVA: u64 = 0x0b0;
/// Log entries ever written.
pub const LANDED: u64 = 0x0b8;
/// Of what a witness is part.
pub const STORY: u64 = 0x0c0;
/// Begins and ends the watch over a PASID.
pub const WITNESS: u64 = 0x0c4;
/// First byte of the buffer.
pub const BUFFER: u64 = 0x1000;
/// Bytes of the buffer.
pub const BUFFER_BYTES: u64 = 0x1000;
/// First byte of the log.
pub const LOG: u64 = 0x4000;
/// Entries of the log.
pub const LOG_ENTRIES: u64 = 256;
/// The port above the device, on a page of its own.
pub const PORT: u64 = 0xf000;
/// Bytes of the frame.
pub const FRAME_BYTES: u64 = 0x1_0000;
/// The longest shot.
pub const MOST_BYTES: u32 = 1 << 20;
/// Bytes of the registers that every export shows.
pub(super) const REGISTERS_BYTES: u64 = 0x100;

/// Bits of [`CONTROL`]. A reset clears all.
pub mod control {
    /// May issue transactions (a PCIe bus master).
    pub const ENABLE: u32 = 1 << 0;
    /// Asks for translations (ATS) and uses its ATC; only with an ATC.
    pub const ATS: u32 = 1 << 1;
    /// May issue page requests; only with that feature.
    pub const PRI: u32 = 1 << 2;
    /// Asks again at once for a translation that was invalidated, as a lawful ATC may.
    pub const EAGER: u32 = 1 << 3;
    /// All of them.
    pub const ALL: u32 = 0xf;
}

/// Bits of [`STATUS`].
pub mod status {
    /// A job has shots left, or repeats.
    pub const BUSY: u32 = 1 << 0;
    /// Accesses are stalled.
    pub const HAS_PENDING: u32 = 1 << 1;
    /// A reset is going on; no command is taken.
    pub const RESETTING: u32 = 1 << 2;
    /// The newest command was refused: unknown, not enabled, or the job is not possible.
    pub const REFUSED: u32 = 1 << 3;
}

/// Values of [`COMMAND`].
pub mod command {
    /// Starts the job that the registers describe: all shots now, or, if it repeats, some at each
    /// tick until stopped. Replaces a running job.
    pub const START: u32 = 1;
    /// Stops the running job.
    pub const STOP: u32 = 2;
    /// Resets the device: job, enables, ATC, job registers, counters and log.
    pub const RESET: u32 = 3;
    /// Asks for the translation of IOVA and keeps it; no access.
    pub const TRANSLATE: u32 = 4;
    /// Sends the page request of IOVA and GROUP.
    pub const REQUEST_PAGE: u32 = 5;
}

/// Bits of [`FLAGS`].
pub mod flags {
    /// Writes; else reads.
    pub const WRITE: u32 = 1 << 0;
    /// Privileged.
    pub const PRIVILEGED: u32 = 1 << 1;
    /// Instruction fetches, for reads.
    pub const INSTRUCTION: u32 = 1 << 2;
    /// Writes the buffer, not the pattern.
    pub const FROM_BUFFER: u32 = 1 << 3;
    /// Keeps firing until stopped or reset.
    pub const REPEAT: u32 = 1 << 4;
    /// Accesses that the device can do without.
    pub const SPECULATIVE: u32 = 1 << 5;
    /// All of them.
    pub const ALL: u32 = 0x3f;
}

/// Values of [`SMMU_FAULT`].
pub mod smmu_fault {
    /// None; what [`STOP`] and [`QUEUE_ABORT`] did stays done.
    pub const NONE: u32 = 0;
    /// No CMD_SYNC completes.
    pub const SYNC_NEVER: u32 = 1;
    /// CMD_SYNCs complete late.
    pub const SYNC_LATE: u32 = 2;
    /// The SMMU stops for good (service failure mode).
    pub const STOP: u32 = 3;
    /// The fetch of a command ends in CERROR_ABT: the queue stops.
    pub const QUEUE_ABORT: u32 = 4;
    /// Records of events meet an external abort.
    pub const EVENT_ABORT: u32 = 5;
}

/// Bits of [`WITNESS`].
pub mod witness {
    /// There is a PASID.
    pub const WITH_PASID: u32 = 1 << 31;
    /// Begins; else ends.
    pub const BEGIN: u32 = 1 << 30;
}

/// Bits of [`PORT`].
pub mod port {
    /// Nothing of the device passes; it is answered as if aborted.
    pub const CLOSED: u32 = 1;
}
