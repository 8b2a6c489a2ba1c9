//! PCIe host bridges, and which streams the functions below them are.

use core::fmt;

use super::list::List;
use super::machine::{Stream, StreamsOf};
use crate::addr::{Extent, Pa};
use crate::id::StreamId;

/// A PCIe host bridge: one ECAM window, or the whole of what firmware says about one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bridge {
    /// The segment, which device trees call domain.
    pub segment: u16,
    /// The configuration space of the buses below, 1 MiB a bus, the first bus first; `None` where
    /// it is not ECAM, so that nobody can look what is there.
    pub ecam: Option<Extent<Pa>>,
    /// The first bus.
    pub first_bus: u8,
    /// The last bus.
    pub last_bus: u8,
    /// Addresses that reach the devices' memory BARs; I/O windows are left out. Empty with ACPI,
    /// where only AML says them.
    pub windows: List<Window, 8>,
    /// Whether the devices' DMA snoops the CPUs' caches.
    pub is_coherent: bool,
    /// Which bits of a RID are looked up in `streams`.
    pub rid_mask: u16,
    /// Which RIDs are which streams; no two of them share a RID.
    pub streams: List<StreamMap, 32>,
}

/// A run of addresses that a host bridge passes on to PCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Where the CPU sees it.
    pub cpu: Extent<Pa>,
    /// The same first byte as PCI sees it, which is what BARs hold.
    pub pci_base: u64,
    /// Which BARs may lie in it.
    pub kind: WindowKind,
}

/// Which BARs may lie in a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowKind {
    /// 32-bit ones and 64-bit ones, none of them prefetchable if they are below a bridge.
    Memory32,
    /// 64-bit ones.
    Memory64,
}

/// `count` RIDs in a row that are as many streams in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamMap {
    /// The first RID, after the mask.
    pub rid_base: u16,
    /// How many, 1 to 65536.
    pub count: u32,
    /// The stream of the first.
    pub first: Stream,
}

/// A PCI function's requester id: bus, device, function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rid(u16);

impl Rid {
    /// Function `function` (0 to 7) of device `device` (0 to 31) on `bus`; `None` out of range.
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self(
                (bus as u16) << 8 | (device as u16) << 3 | function as u16,
            ))
        } else {
            None
        }
    }

    /// The requester id with this number.
    pub const fn from_u16(value: u16) -> Self {
        Self(value)
    }

    /// The bare number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }

    /// The bus.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device, 0 to 31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3 & 31) as u8
    }

    /// The function, 0 to 7.
    pub const fn function(self) -> u8 {
        (self.0 & 7) as u8
    }
}

impl fmt::Display for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bus, device, function) = (self.bus(), self.device(), self.function());
        write!(f, "{bus:02x}:{device:02x}.{function}")
    }
}

impl fmt::Debug for Rid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rid({self})")
    }
}

impl Bridge {
    /// The stream of the function `rid` below this bridge.
    pub fn stream_of(&self, rid: Rid) -> StreamsOf<Stream> {
        let masked = rid.as_u16() & self.rid_mask;
        self.streams
            .iter()
            .find_map(|map| map.stream_of(masked))
            .map_or(StreamsOf::Unprotected, StreamsOf::Behind)
    }
}

impl StreamMap {
    /// The stream of `masked`, a RID after the mask, if it is one of these.
    pub(super) fn stream_of(&self, masked: u16) -> Option<Stream> {
        let further = u32::from(masked).checked_sub(u32::from(self.rid_base))?;
        if further >= self.count {
            return None;
        }
        // Whoever made the map checked that its last stream has 32 bits.
        let id = self.first.id.as_u32().checked_add(further)?;
        Some(Stream {
            smmu: self.first.smmu,
            id: StreamId::new(id),
        })
    }
}
