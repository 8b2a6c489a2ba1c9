//! Words of memory, commands and addresses, part of which may depend on where the arena is.

use core::fmt;

/// A 64-bit number: `bits`, plus a part of the arena's address.
///
/// A structure in memory that points into the arena is such a word, and so is an IOVA that a block
/// larger than the arena maps onto it.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    bits: u64,
    plus: Plus,
}

#[derive(Clone, Copy, Debug)]
enum Plus {
    Nothing,
    Arena,
    Above(u32),
    Below(u32),
}

/// The number `bits`, wherever the arena is.
pub const fn plain(bits: u64) -> Word {
    Word {
        bits,
        plus: Plus::Nothing,
    }
}

/// `bits` and the arena's address, such as a descriptor of something in it.
pub const fn arena(bits: u64) -> Word {
    Word {
        bits,
        plus: Plus::Arena,
    }
}

/// `bits` and the arena's address without its bits below `log2`: a block that the arena lies in.
pub const fn block_of_arena(log2: u32, bits: u64) -> Word {
    Word {
        bits,
        plus: Plus::Above(log2),
    }
}

/// `bits` and the arena's address without its bits from `log2` on: the way into such a block.
pub const fn into_block(log2: u32, bits: u64) -> Word {
    Word {
        bits,
        plus: Plus::Below(log2),
    }
}

impl Word {
    /// The number, for an arena at `arena`.
    pub const fn at(self, arena: u64) -> u64 {
        let plus = match self.plus {
            Plus::Nothing => 0,
            Plus::Arena => arena,
            Plus::Above(log2) => arena & !low(log2),
            Plus::Below(log2) => arena & low(log2),
        };
        self.bits.wrapping_add(plus)
    }

    /// The word with `add` more in its bits.
    pub const fn plus(self, add: u64) -> Self {
        Self {
            bits: self.bits.wrapping_add(add),
            ..self
        }
    }
}

const fn low(log2: u32) -> u64 {
    (1 << log2) - 1
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits)?;
        match self.plus {
            Plus::Nothing => Ok(()),
            Plus::Arena => f.write_str("+arena"),
            Plus::Above(log2) => write!(f, "+arena[63:{log2}]"),
            Plus::Below(log2) => write!(f, "+arena[{}:0]", log2 - 1),
        }
    }
}

/// `word` with the bits from `high` down to `low` set to `value`, which must fit.
pub(crate) const fn put(word: u64, high: u32, low: u32, value: u64) -> u64 {
    let mask = u64::MAX >> (63 - (high - low));
    assert!(value <= mask, "the value does not fit its field");
    word & !(mask << low) | value << low
}
