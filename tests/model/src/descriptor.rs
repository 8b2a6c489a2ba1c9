//! Translation table descriptors: what one says (DDI 0487, D8.3).

use crate::bits::{bit, field};
use crate::format::{Granule, leaf_address, table_address};

/// A descriptor's shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Descriptor {
    Invalid,
    /// A table at the next level.
    Table {
        address: u64,
    },
    /// A block or page.
    Leaf(Leaf),
}

/// A block or page, or a contiguous group of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    /// The descriptor.
    pub(crate) word: u64,
    /// The address of the first byte of what this one descriptor maps.
    pub(crate) address: u64,
    /// log2 of what this one descriptor maps.
    pub(crate) log2: u32,
    /// log2 of the contiguous group that it belongs to, or the same.
    pub(crate) group_log2: u32,
    pub(crate) level: u32,
}

impl Descriptor {
    /// Reads `word`, found at `level` of a table of `granule`.
    pub(crate) fn new(word: u64, granule: Granule, level: u32, output_bits: u32) -> Self {
        let is_page = level == 3;
        match (word & 3, is_page) {
            (3, false) => Self::Table {
                address: table_address(granule, word, output_bits),
            },
            (3, true) => Self::leaf(word, granule, level, output_bits),
            (1, false) if granule.has_block(level, output_bits) => {
                Self::leaf(word, granule, level, output_bits)
            }
            _ => Self::Invalid,
        }
    }

    fn leaf(word: u64, granule: Granule, level: u32, output_bits: u32) -> Self {
        let log2 = granule.level_log2(level);
        let group = if bit(word, 52) {
            granule.contiguous_log2(level)
        } else {
            0
        };
        Self::Leaf(Leaf {
            word,
            address: leaf_address(granule, level, word, output_bits),
            log2,
            group_log2: log2 + group,
            level,
        })
    }
}

/// What a stage-2 leaf permits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage2Permission {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute_privileged: bool,
    pub(crate) execute_unprivileged: bool,
}

impl Stage2Permission {
    /// From S2AP and XN; `xnx` is IDR3.XNX.
    pub(crate) fn new(word: u64, xnx: bool) -> Self {
        let (privileged, unprivileged) = match (xnx, field(word, 54, 53)) {
            (false, xn) => (xn & 2 == 0, xn & 2 == 0),
            (true, 0) => (true, true),
            (true, 1) => (false, true),
            (true, 2) => (false, false),
            (true, _) => (true, false),
        };
        Self {
            read: bit(word, 6),
            write: bit(word, 7),
            execute_privileged: privileged,
            execute_unprivileged: unprivileged,
        }
    }
}
