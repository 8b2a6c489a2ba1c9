//! Which memory is free: what the machine has, less what is somebody's already.

use core::fmt;

use crate::addr::{Extent, Pa};

/// How many separate extents of free memory are kept apart at most.
pub const EXTENTS_MAX: usize = 128;

const PAGE_MASK: u64 = 0xfff;

/// Free memory: whole pages, ascending, with a gap between any two extents.
#[derive(Clone, Debug)]
pub struct FreeRam {
    extents: [Extent<Pa>; EXTENTS_MAX],
    count: usize,
}

/// Memory is in more than [`EXTENTS_MAX`] pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooManyPieces;

impl fmt::Display for TooManyPieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "free memory is in more than {EXTENTS_MAX} pieces")
    }
}

impl FreeRam {
    /// What of `memory` nobody has `taken`, below `2^pa_bits`.
    ///
    /// Both may overlap among themselves and come in any order. A page counts as memory when all
    /// of it is, and as taken when a byte of it is. The page at 0 is never free: to Rust it would
    /// be a null pointer.
    ///
    /// # Errors
    ///
    /// [`TooManyPieces`].
    pub fn carve(
        memory: impl IntoIterator<Item = Extent<Pa>>,
        taken: impl IntoIterator<Item = Extent<Pa>>,
        pa_bits: u8,
    ) -> Result<Self, TooManyPieces> {
        let nothing = extent(0, 0).ok_or(TooManyPieces)?;
        let mut free = Self {
            extents: [nothing; EXTENTS_MAX],
            count: 0,
        };
        let top = 1 << pa_bits.min(48);
        for piece in memory {
            let first = round_up(piece.base().as_u64()).max(PAGE_MASK + 1);
            let end = (piece.end().as_u64() & !PAGE_MASK).min(top);
            free.add(first, end)?;
        }
        for piece in taken {
            if piece.size_bytes() != 0 {
                let first = piece.base().as_u64() & !PAGE_MASK;
                free.take(first, round_up(piece.end().as_u64()))?;
            }
        }
        Ok(free)
    }

    /// The extents.
    pub fn extents(&self) -> &[Extent<Pa>] {
        &self.extents[..self.count]
    }

    /// How many bytes are free.
    pub fn free_bytes(&self) -> u64 {
        self.extents().iter().map(Extent::<Pa>::size_bytes).sum()
    }

    /// Adds `first` to `end`, joined with every extent that it overlaps or touches.
    fn add(&mut self, first: u64, end: u64) -> Result<(), TooManyPieces> {
        if first >= end {
            return Ok(());
        }
        let (mut first, mut end) = (first, end);
        let mut at = 0;
        while let Some(other) = self.extents().get(at) {
            let (other_first, other_end) = (other.base().as_u64(), other.end().as_u64());
            if other_end < first {
                at += 1;
            } else if other_first <= end {
                first = first.min(other_first);
                end = end.max(other_end);
                self.remove(at);
            } else {
                break;
            }
        }
        self.insert(at, first, end)
    }

    /// Takes `first` to `end` away.
    fn take(&mut self, first: u64, end: u64) -> Result<(), TooManyPieces> {
        let mut at = 0;
        while let Some(other) = self.extents().get(at) {
            let (other_first, other_end) = (other.base().as_u64(), other.end().as_u64());
            if other_end <= first || end <= other_first {
                at += 1;
                continue;
            }
            self.remove(at);
            if other_first < first {
                self.insert(at, other_first, first)?;
                at += 1;
            }
            if end < other_end {
                self.insert(at, end, other_end)?;
                at += 1;
            }
        }
        Ok(())
    }

    fn insert(&mut self, at: usize, first: u64, end: u64) -> Result<(), TooManyPieces> {
        if self.count == EXTENTS_MAX {
            return Err(TooManyPieces);
        }
        self.extents.copy_within(at..self.count, at + 1);
        self.extents[at] = extent(first, end).ok_or(TooManyPieces)?;
        self.count += 1;
        Ok(())
    }

    fn remove(&mut self, at: usize) {
        self.extents.copy_within(at + 1..self.count, at);
        self.count -= 1;
    }
}

/// `None` if `end` is below `first`.
fn extent(first: u64, end: u64) -> Option<Extent<Pa>> {
    Extent::<Pa>::new(Pa::new(first), end.checked_sub(first)?)
}

/// The page boundary at or above `address`; the last one that there is, near the top.
const fn round_up(address: u64) -> u64 {
    match address.checked_add(PAGE_MASK) {
        Some(sum) => sum & !PAGE_MASK,
        None => !PAGE_MASK,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn at(first: u64, end: u64) -> Extent<Pa> {
        extent(first, end).expect("an extent of the test")
    }

    fn carved(memory: &[Extent<Pa>], taken: &[Extent<Pa>]) -> Vec<(u64, u64)> {
        FreeRam::carve(memory.iter().copied(), taken.iter().copied(), 48)
            .expect("few pieces")
            .extents()
            .iter()
            .map(|extent| (extent.base().as_u64(), extent.end().as_u64()))
            .collect()
    }

    #[test]
    fn what_is_taken_leaves_a_hole() {
        let memory = [at(0x4000_0000, 0x6000_0000)];
        let taken = [at(0x4020_0000, 0x4028_0000), at(0x4800_0000, 0x4810_0001)];
        assert_eq!(
            carved(&memory, &taken),
            [
                (0x4000_0000, 0x4020_0000),
                (0x4028_0000, 0x4800_0000),
                (0x4810_1000, 0x6000_0000)
            ]
        );
    }

    #[test]
    fn neighbours_become_one_in_any_order() {
        let memory = [at(0x3000, 0x5000), at(0x8000, 0x9000), at(0x5000, 0x8000)];
        assert_eq!(carved(&memory, &[]), [(0x3000, 0x9000)]);
    }

    #[test]
    fn the_page_at_zero_and_parts_of_pages_are_not_free() {
        assert_eq!(carved(&[at(0, 0x3fff)], &[]), [(0x1000, 0x3000)]);
        assert_eq!(carved(&[at(0x1001, 0x1fff)], &[]), []);
        assert_eq!(
            carved(&[at(0x1000, 0x3000)], &[at(0x1fff, 0x1fff)]),
            [(0x1000, 0x3000)]
        );
    }

    #[test]
    fn memory_past_the_reach_of_the_cpu_is_not_free() {
        let memory = [at(0xffff_0000, 0x1_0001_0000), at(!0xffff, u64::MAX)];
        let free = FreeRam::carve(memory, [], 32).expect("few pieces");
        assert_eq!(free.extents(), [at(0xffff_0000, 0x1_0000_0000)]);
        assert_eq!(free.free_bytes(), 0x1_0000);
    }

    #[test]
    fn more_pieces_than_there_is_room_for_are_refused() {
        let holes =
            |count| (0..count).map(|hole| at(0x2000 * hole + 0x2000, 0x2000 * hole + 0x2001));
        let memory = [at(0x1000, 0x100_0000)];
        assert!(FreeRam::carve(memory, holes(EXTENTS_MAX as u64 - 1), 48).is_ok());
        assert_eq!(
            FreeRam::carve(memory, holes(EXTENTS_MAX as u64), 48).err(),
            Some(TooManyPieces)
        );
    }

    fn some_extents() -> impl Strategy<Value = Vec<Extent<Pa>>> {
        let one = (0u64..0x2_0000, 0u64..0x8000).prop_map(|(base, size)| at(base, base + size));
        prop::collection::vec(one, 0..8)
    }

    proptest! {
        /// Against a set of pages.
        #[test]
        fn free_is_memory_less_taken(memory in some_extents(), taken in some_extents()) {
            let mut pages = BTreeSet::new();
            for extent in &memory {
                let last = extent.end().as_u64() / 4096;
                pages.extend(extent.base().as_u64().div_ceil(4096)..last);
            }
            // Pages that only two touching extents make whole are a matter of order; none here.
            for extent in taken.iter().filter(|extent| extent.size_bytes() != 0) {
                for page in extent.base().as_u64() / 4096..extent.end().as_u64().div_ceil(4096) {
                    pages.remove(&page);
                }
            }
            pages.remove(&0);
            let found: Vec<u64> = carved(&memory, &taken)
                .into_iter()
                .flat_map(|(first, end)| first / 4096..end / 4096)
                .collect();
            prop_assert_eq!(found, pages.into_iter().collect::<Vec<_>>());
        }
    }
}
