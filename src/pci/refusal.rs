//! Why a function, or a whole bus, was refused.

use core::fmt;

use crate::addr::Iova;
use crate::discover::Rid;

/// Why something could not be done with a function.
///
/// After any of these from [`scan`](super::scan()) the function's memory and bus mastering are off;
/// after one from a method of [`Ecam`](super::Ecam) what had been asked for is not in effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The bus is not one of this host bridge's.
    NoSuchBus {
        /// The bus.
        bus: u8,
    },
    /// No function answers.
    Absent {
        /// Where it should be.
        rid: Rid,
    },
    /// Its header is neither an endpoint's nor a bridge's.
    Header {
        /// The function.
        rid: Rid,
        /// The type of its header.
        header: u8,
    },
    /// A capability lies where none may.
    CapabilityPlace {
        /// The function.
        rid: Rid,
        /// Where it says the capability is.
        offset: u8,
    },
    /// Its list of capabilities does not end.
    CapabilityLoop {
        /// The function.
        rid: Rid,
    },
    /// It has no such capability.
    NoCapability {
        /// The function.
        rid: Rid,
        /// The capability.
        id: u8,
    },
    /// A BAR has a size or a type that there is not.
    BarMakesNoSense {
        /// The function.
        rid: Rid,
        /// Which BAR, 0 to 5.
        bar: u8,
        /// What it answered to being sized.
        answer: u64,
    },
    /// A BAR fits in no window that reaches it.
    NoRoom {
        /// The function.
        rid: Rid,
        /// Which BAR, 0 to 5.
        bar: u8,
        /// How many bytes it wants.
        size_bytes: u64,
    },
    /// There is no bus number left for the bus behind a bridge: what is there stays out of reach.
    NoBusNumber {
        /// The bridge.
        rid: Rid,
    },
    /// Bridges are nested more than 16 deep: what is behind this one stays out of reach.
    TooDeep {
        /// The bridge.
        rid: Rid,
    },
    /// It is behind a bridge that is refused, and out of reach.
    Behind {
        /// The bridge.
        bridge: Rid,
    },
    /// A register does not hold what was written to it.
    Forgets {
        /// The function.
        rid: Rid,
        /// The register.
        offset: u16,
        /// What was written, in the bits that matter.
        wrote: u32,
        /// What it holds.
        found: u32,
    },
    /// An MSI cannot be sent to this address: it is no multiple of 4, or has bits that the
    /// function cannot hold.
    MsiAddress {
        /// The function.
        rid: Rid,
        /// The address.
        address: Iova,
    },
    /// It cannot be reset by itself. Nothing was changed.
    NoReset {
        /// The function.
        rid: Rid,
    },
    /// It waits for answers to what it asked: before a reset, which is then not begun, or after.
    /// Its bus mastering is off.
    Pending {
        /// The function.
        rid: Rid,
        /// How long it was waited for, in microseconds.
        waited_us: u64,
    },
    /// It does not answer after a reset, or as another function than before.
    NotBack {
        /// The function.
        rid: Rid,
        /// How long it was waited for, in microseconds, after the time that it may take.
        waited_us: u64,
    },
    /// There are more functions than there is room for; the ones listed are complete.
    TooMany {
        /// How many there is room for.
        limit: usize,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoSuchBus { bus } => write!(f, "the host bridge has no bus {bus:02x}"),
            Self::Absent { rid } => write!(f, "nothing answers at {rid}"),
            Self::Header { rid, header } => write!(f, "{rid} has a header of type {header:#x}"),
            Self::CapabilityPlace { rid, offset } => {
                write!(f, "{rid} has a capability at {offset:#x}")
            }
            Self::CapabilityLoop { rid } => write!(f, "the capabilities of {rid} do not end"),
            Self::NoCapability { rid, id } => write!(f, "{rid} has no capability {id:#x}"),
            Self::BarMakesNoSense { rid, bar, answer } => {
                write!(f, "BAR {bar} of {rid} answers {answer:#x} to being sized")
            }
            Self::NoRoom {
                rid,
                bar,
                size_bytes,
            } => write!(
                f,
                "no window has room for BAR {bar} of {rid}: {size_bytes:#x}"
            ),
            Self::NoBusNumber { rid } => write!(f, "no bus number is left for {rid}"),
            Self::TooDeep { rid } => write!(f, "{rid} is a bridge behind 16 others"),
            Self::Behind { bridge } => write!(f, "{bridge} above it is refused"),
            Self::Forgets {
                rid,
                offset,
                wrote,
                found,
            } => write!(
                f,
                "register {offset:#x} of {rid} holds {found:#x} where {wrote:#x} was written"
            ),
            Self::MsiAddress { rid, address } => write!(f, "{rid} sends no MSI to {address}"),
            Self::NoReset { rid } => write!(f, "{rid} cannot be reset by itself"),
            Self::Pending { rid, waited_us } => {
                write!(f, "{rid} has transactions pending after {waited_us} us")
            }
            Self::NotBack { rid, waited_us } => {
                write!(f, "{rid} is not back from its reset after {waited_us} us")
            }
            Self::TooMany { limit } => write!(f, "there are more than {limit} functions"),
        }
    }
}

impl core::error::Error for Refusal {}
