//! The words of the calls.

/// A device, by the number that the guest's tree and `device_info` use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Device(pub u32);

/// A space, as calls name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SpaceId {
    /// Its place.
    pub place: u64,
    /// Its generation.
    pub generation: u64,
}

/// What a holder has of a binding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Handle {
    /// Its place.
    pub place: u64,
    /// Its generation.
    pub generation: u64,
}

/// A PASID, and how many spaces had it before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pasid {
    /// The number that devices issue.
    pub number: u32,
    /// How many spaces had it before.
    pub generation: u64,
}

/// A space that was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Space {
    /// How calls name it.
    pub id: SpaceId,
    /// Its PASID, for its life.
    pub pasid: Pasid,
}

/// An address space as the registers of a CPU that uses it say (DDI 0487).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct TableRegisters {
    /// `TTBR0_EL1` without an ASID.
    pub ttbr0: u64,
    /// `TTBR1_EL1` without an ASID.
    pub ttbr1: u64,
    /// `TCR_EL1`.
    pub tcr: u64,
    /// `MAIR_EL1`.
    pub mair: u64,
}

/// Which PASID is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Any.
    Any,
    /// One of at most so many bits.
    AtMostBits(u8),
    /// This one.
    Exactly(u32),
}

/// Whether entries of a space are global (`nG` = 0).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Globals {
    /// Some may be.
    MayBe,
    /// None is, by the guest's word: its release leaves other spaces' cached entries alone.
    None,
}

/// By what a device reaches a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// By the space's PASID.
    Pasid,
    /// By all its traffic, none of which has a PASID.
    WholeStream,
}

/// What traffic without a PASID does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Untagged {
    /// It aborts.
    Abort,
    /// It goes through the guest's stage 2.
    Stage2,
}

/// What becomes of a stalled transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is tried again.
    Retry,
    /// It is aborted.
    Abort,
}

/// A range of addresses, as a list for EL2 has it in memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[repr(C)]
pub struct Range {
    /// Where it starts.
    pub address: u64,
    /// How many bytes it has; not 0.
    pub bytes: u64,
}

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// The version of the interface: major, minor.
    pub version: (u16, u16),
    /// A bit for each call that there is.
    pub calls: u64,
    /// How many devices the guest has.
    pub devices: u32,
    /// How many CPUs it has.
    pub cpus: u32,
}

/// How much a guest may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quotas {
    /// Spaces.
    pub spaces: u32,
    /// Bindings.
    pub bindings: u32,
    /// Handles.
    pub handles: u32,
    /// Stalled transactions at a time.
    pub stalls: u32,
    /// Bits of a PASID.
    pub pasid_bits: u8,
}

/// How long things take at most, in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Until a stalled transaction is aborted.
    pub stall_deadline_us: u64,
    /// How long a freed number is kept.
    pub quarantine_us: u64,
    /// How long a call waits for another CPU's.
    pub wait_us: u64,
}

/// What a device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Where the guest finds it.
    pub place: Place,
    /// Its PASIDs have so many bits; 0: it has none.
    pub pasid_bits: u8,
    /// Its transactions can stall.
    pub can_stall: bool,
    /// It may cache translations.
    pub has_ats: bool,
    /// It is attached.
    pub is_attached: bool,
    /// It is cut off until it is reset.
    pub is_fenced: bool,
    /// It is attached so that spaces can be bound to it by PASID.
    pub takes_pasids: bool,
}

/// Where a guest finds a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At this address.
    Mmio(u64),
    /// On PCI.
    Pci {
        /// The segment.
        segment: u16,
        /// The bus.
        bus: u8,
        /// The device.
        device: u8,
        /// The function.
        function: u8,
    },
    /// In a way that version 1.0 does not know.
    Unknown,
}

/// A counter of `stats`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Counter {
    /// Spaces, in whatever state.
    Spaces = 0,
    /// Of these: released, and held.
    Parked = 1,
    /// Of these: their numbers are kept for a while.
    Draining = 2,
    /// Of these: something of them was not confirmed.
    Lost = 3,
    /// Bindings.
    Bindings = 4,
    /// Handles.
    Handles = 5,
    /// Devices that are attached.
    Devices = 6,
    /// Stalled transactions.
    Stalls = 7,
    /// Faults to be read.
    Faults = 8,
    /// PASIDs taken.
    Pasids = 9,
    /// ASIDs taken.
    Asids = 10,
    /// Faults that nobody read in time.
    LostFaults = 11,
}

/// How many bytes of text one call carries.
pub const TEXT_BYTES: usize = 128;

/// Bytes that a call brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    pub(crate) bytes: [u8; TEXT_BYTES],
    pub(crate) count: usize,
}

impl Text {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.count]
    }
}
