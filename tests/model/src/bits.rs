//! Fields of 64-bit words.

/// Bits `high:low` of `word`.
#[inline]
pub(crate) const fn field(word: u64, high: u32, low: u32) -> u64 {
    (word >> low) & ones(high - low + 1)
}

/// Bit `at` of `word`.
#[inline]
pub(crate) const fn bit(word: u64, at: u32) -> bool {
    (word >> at) & 1 == 1
}

/// `count` ones, at most 64.
#[inline]
pub(crate) const fn ones(count: u32) -> u64 {
    if count >= 64 {
        u64::MAX
    } else {
        (1 << count) - 1
    }
}

/// Bits `high:low` of `word` where they are, the rest zero.
#[inline]
pub(crate) const fn keep(word: u64, high: u32, low: u32) -> u64 {
    word & mask(high, low)
}

/// Ones in bits `high:low`.
#[inline]
pub(crate) const fn mask(high: u32, low: u32) -> u64 {
    ones(high - low + 1) << low
}

/// `value` with its low `count` bits zero.
#[inline]
pub(crate) const fn align_down(value: u64, count: u32) -> u64 {
    value & !ones(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_reach_both_ends_of_a_word() {
        assert_eq!(field(0x8000_0000_0000_0001, 63, 63), 1);
        assert_eq!(field(0x8000_0000_0000_0001, 0, 0), 1);
        assert_eq!(field(u64::MAX, 63, 0), u64::MAX);
        assert_eq!(mask(55, 12), 0x00ff_ffff_ffff_f000);
        assert_eq!(keep(u64::MAX, 7, 4), 0xf0);
        assert_eq!(align_down(0x1fff, 12), 0x1000);
    }
}
