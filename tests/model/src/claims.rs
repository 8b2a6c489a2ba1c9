//! What only the driver knows: which frames and tags are free (§3.17, §3.21).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// What has been claimed and still holds.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// How many claims were made: none, and no lock is taken.
    count: AtomicUsize,
    /// Free ranges: byte after the last, by first byte.
    free: Mutex<BTreeMap<u64, u64>>,
    releasing: Mutex<BTreeSet<(u16, u16)>>,
    /// Released, and not given out again.
    released: Mutex<BTreeSet<(u16, u16)>>,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Claims {
    /// Whether `pa` lies in a frame that was given back.
    pub(crate) fn is_free(&self, pa: u64) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let free = lock(&self.free);
        !free.is_empty()
            && free
                .range(..=pa)
                .next_back()
                .is_some_and(|(_, end)| *end > pa)
    }

    /// Whether the space with these tags is being released.
    pub(crate) fn is_releasing(&self, vmid: u16, asid: u16) -> bool {
        lock(&self.releasing).contains(&(vmid, asid))
    }

    /// Whether the space with these tags was released, and they were not given out again.
    pub(crate) fn is_released(&self, vmid: u16, asid: u16) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        lock(&self.released).contains(&(vmid, asid))
    }

    /// Takes the claim down.
    pub(crate) fn note(&self, claim: Claim) {
        self.count.fetch_add(1, Ordering::Relaxed);
        match claim {
            Claim::FrameFreed { pa, bytes } => {
                let mut free = lock(&self.free);
                carve(&mut free, pa, pa.saturating_add(bytes));
                free.insert(pa, pa.saturating_add(bytes));
            }
            Claim::FrameTaken { pa, bytes } => {
                carve(&mut lock(&self.free), pa, pa.saturating_add(bytes))
            }
            Claim::ReleaseBegins { vmid, asid } => {
                lock(&self.releasing).insert((vmid, asid));
            }
            Claim::ReleaseEnds { vmid, asid } => {
                lock(&self.releasing).remove(&(vmid, asid));
                lock(&self.released).insert((vmid, asid));
            }
            Claim::AsidTaken { vmid, asid } => {
                lock(&self.released).remove(&(vmid, asid));
            }
            Claim::VmidTaken { vmid } => lock(&self.released).retain(|(of, _)| *of != vmid),
            Claim::PasidTaken { .. } => {}
        }
    }
}

/// Takes `start..end` out of the ranges.
fn carve(free: &mut BTreeMap<u64, u64>, start: u64, end: u64) {
    let touched: Vec<(u64, u64)> = free
        .range(..end)
        .rev()
        .take_while(|(_, other_end)| **other_end > start)
        .map(|(first, last)| (*first, *last))
        .collect();
    for (first, last) in touched {
        free.remove(&first);
        if first < start {
            free.insert(first, start);
        }
        if last > end {
            free.insert(end, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_free_from_the_claim_until_they_are_taken() {
        let claims = Claims::default();
        claims.note(Claim::FrameFreed {
            pa: 0x1000,
            bytes: 0x3000,
        });
        claims.note(Claim::FrameTaken {
            pa: 0x2000,
            bytes: 0x1000,
        });
        assert!(claims.is_free(0x1fff) && !claims.is_free(0x2000) && claims.is_free(0x3000));
        assert!(!claims.is_free(0x4000) && !claims.is_free(0xfff));
        claims.note(Claim::FrameFreed {
            pa: 0x2000,
            bytes: 0x1000,
        });
        assert!(claims.is_free(0x2fff));
    }
}
