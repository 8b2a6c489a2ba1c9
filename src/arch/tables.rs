//! Stage 1 of EL2: an identity map that only grows.
//!
//! 4 KiB granule, 48 bits, four levels (DDI 0487, D8.2). What is mapped is what was asked for;
//! asking for it twice is refused.
//!
//! # Why not `aarch64-paging`
//!
//! Its tables come from a hook that cannot fail, so firmware that describes more than the pool
//! holds would end in a panic, and most of it is for changing and taking down live maps. Here
//! nothing is ever unmapped, so no invalidation exists to get wrong, and the whole is small. The
//! tests compare every descriptor with that crate's.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::addr::{Extent, Pa};

/// One translation table, aligned to its size as the hardware needs it.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct Table([AtomicU64; 512]);

impl Table {
    /// A table that maps nothing.
    pub const fn empty() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }
}

/// What a range is mapped as. Nothing is both writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Normal write-back memory: read and execute.
    Text,
    /// Normal write-back memory: read.
    ReadOnly,
    /// Normal write-back memory: read and write.
    Data,
    /// Device-nGnRE: read and write.
    Device,
}

/// `MAIR_EL2` for the indices below: 0 Device-nGnRE, 1 Normal write-back, read and write allocate.
pub const MAIR: u64 = 0xff04;
const NORMAL: u64 = 1 << 2;

const VALID: u64 = 1;
/// A table at levels 0 to 2, a page at level 3; clear in a block.
const TABLE_OR_PAGE: u64 = 1 << 1;
/// `AP[1]`, RES1 in a regime with one exception level.
const AP1: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const EXECUTE_NEVER: u64 = 1 << 54;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

impl Kind {
    const fn attributes(self) -> u64 {
        let common = VALID | AP1 | ACCESSED;
        common
            | match self {
                Self::Text => NORMAL | INNER_SHAREABLE | READ_ONLY,
                Self::ReadOnly => NORMAL | INNER_SHAREABLE | READ_ONLY | EXECUTE_NEVER,
                Self::Data => NORMAL | INNER_SHAREABLE | EXECUTE_NEVER,
                Self::Device => EXECUTE_NEVER,
            }
    }
}

/// Why a range was not mapped. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// The base or the size is not a multiple of 4 KiB, or the size is 0.
    NotPages {
        /// Where the range begins.
        base: Pa,
        /// How many bytes it has.
        size_bytes: u64,
    },
    /// The range goes past the CPU's `pa_bits` bits of physical address.
    OutOfReach {
        /// Where the range begins.
        base: Pa,
        /// How many bytes it has.
        size_bytes: u64,
        /// How many bits there are.
        pa_bits: u8,
    },
    /// Something is mapped already.
    AlreadyMapped {
        /// Where, or the start of the 2 MiB or 1 GiB in which it is.
        at: Pa,
    },
    /// The range needs more tables than are left.
    OutOfTables {
        /// How many it needs.
        needed: usize,
        /// How many are left.
        left: usize,
    },
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPages { base, size_bytes } => {
                write!(f, "{base} + {size_bytes:#x} is not whole pages")
            }
            Self::OutOfReach {
                base,
                size_bytes,
                pa_bits,
            } => write!(
                f,
                "{base} + {size_bytes:#x} is past this CPU's {pa_bits} bits of physical address"
            ),
            Self::AlreadyMapped { at } => write!(f, "{at} is mapped already"),
            Self::OutOfTables { needed, left } => {
                write!(
                    f,
                    "{needed} tables for EL2's own map are needed, {left} are left"
                )
            }
        }
    }
}

/// The map: tables out of a pool that never moves, the first of which is the root.
#[derive(Debug)]
pub struct Tables<'a> {
    pool: &'a [Table],
    /// Where the pool is.
    base: Pa,
    used: usize,
    pa_bits: u8,
}

impl<'a> Tables<'a> {
    /// An empty map in `pool`, at `base`, every table of which is empty; `None` without a table.
    ///
    /// Only addresses of up to `pa_bits` bits (at most 48) can be mapped.
    pub fn new(pool: &'a [Table], base: Pa, pa_bits: u8) -> Option<Self> {
        let pa_bits = pa_bits.min(48);
        (!pool.is_empty()).then_some(Self {
            pool,
            base,
            used: 1,
            pa_bits,
        })
    }

    /// Where the root is, for `TTBR0_EL2`.
    pub fn root(&self) -> Pa {
        self.base
    }

    /// Maps `range` one to one, with the largest blocks that fit.
    ///
    /// The walker may already use the table: each entry goes from invalid to valid in one store.
    /// The caller still owes it a barrier.
    ///
    /// # Errors
    ///
    /// Each [`MapError`]; nothing has changed then.
    pub fn map(&mut self, range: Extent<Pa>, kind: Kind) -> Result<(), MapError> {
        let (base, size_bytes) = (range.base(), range.size_bytes());
        if !base.is_aligned(12) || size_bytes % 4096 != 0 || size_bytes == 0 {
            return Err(MapError::NotPages { base, size_bytes });
        }
        if range.end().as_u64() > 1 << self.pa_bits {
            let pa_bits = self.pa_bits;
            return Err(MapError::OutOfReach {
                base,
                size_bytes,
                pa_bits,
            });
        }
        let needed = self.survey(Some(0), Step::whole(range))?;
        let left = self.pool.len() - self.used;
        if needed > left {
            return Err(MapError::OutOfTables { needed, left });
        }
        self.fill(0, Step::whole(range), kind.attributes());
        Ok(())
    }

    /// How many tables `step` needs below `table`; `None` is one that is yet to be made.
    fn survey(&self, table: Option<usize>, step: Step) -> Result<usize, MapError> {
        let mut needed = 0;
        for piece in step.pieces() {
            let entry = table.map_or(0, |table| self.entry(table, piece.index()));
            let below = self.table_of(entry, piece.level);
            if entry & VALID != 0 && (below.is_none() || piece.is_leaf()) {
                let at = Pa::new(piece.start);
                return Err(MapError::AlreadyMapped { at });
            }
            if !piece.is_leaf() {
                needed += usize::from(below.is_none()) + self.survey(below, piece.down())?;
            }
        }
        Ok(needed)
    }

    /// Writes what `survey` has found to fit.
    fn fill(&mut self, table: usize, step: Step, attributes: u64) {
        for piece in step.pieces() {
            let index = piece.index();
            if piece.is_leaf() {
                let page = if piece.level == 3 { TABLE_OR_PAGE } else { 0 };
                self.set(table, index, piece.start | attributes | page);
                continue;
            }
            let below = match self.table_of(self.entry(table, index), piece.level) {
                Some(below) => below,
                None => {
                    let fresh = self.used;
                    self.used += 1;
                    let at = self.base.as_u64() + fresh as u64 * size_of::<Table>() as u64;
                    self.set(table, index, at | VALID | TABLE_OR_PAGE);
                    fresh
                }
            };
            self.fill(below, piece.down(), attributes);
        }
    }

    /// The table that `entry` of `level` points to.
    fn table_of(&self, entry: u64, level: u8) -> Option<usize> {
        let is_table = level < 3 && entry & (VALID | TABLE_OR_PAGE) == VALID | TABLE_OR_PAGE;
        is_table.then(|| ((entry & ADDRESS) - self.base.as_u64()) as usize / size_of::<Table>())
    }

    fn entry(&self, table: usize, index: usize) -> u64 {
        self.pool[table].0[index].load(Ordering::Relaxed)
    }

    fn set(&self, table: usize, index: usize, value: u64) {
        self.pool[table].0[index].store(value, Ordering::Relaxed);
    }
}

/// The part from `start` to `end` of what the table at hand covers, or of one of its entries.
#[derive(Clone, Copy)]
struct Step {
    level: u8,
    start: u64,
    end: u64,
}

impl Step {
    fn whole(range: Extent<Pa>) -> Self {
        Self {
            level: 0,
            start: range.base().as_u64(),
            end: range.end().as_u64(),
        }
    }

    /// The bytes that one entry covers.
    const fn entry_bytes(self) -> u64 {
        1 << (39 - 9 * self.level as u32)
    }

    const fn index(self) -> usize {
        (self.start / self.entry_bytes() % 512) as usize
    }

    /// One piece for each entry that is touched.
    fn pieces(self) -> impl Iterator<Item = Self> {
        let mut start = self.start;
        core::iter::from_fn(move || {
            let piece_start = start;
            let entry_end = (start | (self.entry_bytes() - 1)) + 1;
            start = entry_end.min(self.end);
            (piece_start < self.end).then_some(Self {
                start: piece_start,
                end: start,
                ..self
            })
        })
    }

    /// Whether the piece is a whole entry, at a level that has blocks or pages.
    const fn is_leaf(self) -> bool {
        self.level > 0 && self.end - self.start == self.entry_bytes()
    }

    const fn down(self) -> Self {
        Self {
            level: self.level + 1,
            ..self
        }
    }
}

#[cfg(test)]
#[path = "tables_tests.rs"]
mod tests;
