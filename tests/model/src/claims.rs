//! What only the driver knows: which frames and tags are free.

/// A statement of the driver that the model holds against what the SMMUs keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// The frames from `pa` on are given back: nothing may lead to them or be read from them.
    FrameFreed {
        /// First byte.
        pa: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The frames are in use again.
    FrameTaken {
        /// First byte.
        pa: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The ASID is given to a new space: nothing of an older one may be left.
    AsidTaken {
        /// Of which guest.
        vmid: u16,
        /// Which.
        asid: u16,
    },
    /// The VMID is given to a new guest.
    VmidTaken {
        /// Which.
        vmid: u16,
    },
    /// The SubstreamID of a stream is given to a new space.
    PasidTaken {
        /// Of which stream, on the SMMU with this index.
        smmu: usize,
        /// The StreamID.
        stream: u32,
        /// The SubstreamID.
        substream: u32,
    },
    /// A space is being released: its context descriptors may differ from each other from now on.
    ReleaseBegins {
        /// Of which guest.
        vmid: u16,
        /// Whose.
        asid: u16,
    },
    /// The release has returned: nothing of the space may be cached, live, or reach memory.
    ReleaseEnds {
        /// Of which guest.
        vmid: u16,
        /// Whose.
        asid: u16,
    },
}

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What has been claimed and still holds.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// Free ranges: last byte by first byte.
    free: Mutex<BTreeMap<u64, u64>>,
}

impl Claims {
    /// Whether `pa` lies in a frame that was given back.
    pub(crate) fn is_free(&self, pa: u64) -> bool {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        !free.is_empty()
            && free
                .range(..=pa)
                .next_back()
                .is_some_and(|(_, last)| *last >= pa)
    }
}
