//! One way to name the bits of a structure in memory.

/// A field of a structure of 64-bit words, by the bit numbers that the manual prints.
///
/// `bits(247, 196)` is bits 247 to 196 of the whole structure, that is bits 55 to 4 of word 3.
/// Positions are checked when the constant is made, values when they are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    word: usize,
    shift: u32,
    width: u32,
}

impl Field {
    /// Bits `high` down to `low` of the structure.
    ///
    /// # Panics
    ///
    /// When the constant is made, if the field straddles two words or is upside down.
    pub const fn bits(high: u32, low: u32) -> Self {
        assert!(high >= low, "a field is written bits(high, low)");
        assert!(high / 64 == low / 64, "a field lies within one 64-bit word");
        Self {
            word: (low / 64) as usize,
            shift: low % 64,
            width: high - low + 1,
        }
    }

    /// The single bit `position`.
    pub const fn bit(position: u32) -> Self {
        Self::bits(position, position)
    }

    /// The word of the structure that the field lies in.
    pub const fn word(self) -> usize {
        self.word
    }

    /// The bits of the field, in place in its word.
    pub const fn mask(self) -> u64 {
        (u64::MAX >> (64 - self.width)) << self.shift
    }

    /// The field's value in `words`.
    pub const fn get(self, words: &[u64]) -> u64 {
        (words[self.word] & self.mask()) >> self.shift
    }

    /// Sets the field in `words` to `value`.
    ///
    /// # Panics
    ///
    /// If `value` is wider than the field: the caller's types are to exclude it.
    pub const fn set(self, words: &mut [u64], value: u64) {
        assert!(
            value <= u64::MAX >> (64 - self.width),
            "the value is wider than its field"
        );
        words[self.word] = (words[self.word] & !self.mask()) | (value << self.shift);
    }

    /// Puts an address into a field that holds its bits in place: bit n of the address is bit n of
    /// the word.
    ///
    /// # Panics
    ///
    /// If the address has a bit outside of the field (misaligned, or too large).
    pub const fn set_address(self, words: &mut [u64], address: u64) {
        assert!(
            address & !self.mask() == 0,
            "the address does not fit its field"
        );
        words[self.word] = (words[self.word] & !self.mask()) | address;
    }

    /// The address that [`set_address`](Self::set_address) put there.
    pub const fn get_address(self, words: &[u64]) -> u64 {
        words[self.word] & self.mask()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_keeps_its_top_bit_and_leaves_its_neighbours() {
        let mut words = [u64::MAX, 0];
        Field::bits(63, 59).set(&mut words, 0b10000);
        assert_eq!(words[0], 0x87ff_ffff_ffff_ffff);
        Field::bits(127, 64).set(&mut words, u64::MAX);
        assert_eq!(words[1], u64::MAX);
        assert_eq!(Field::bits(63, 59).get(&words), 0b10000);
    }

    #[test]
    fn an_address_stays_where_its_bits_are() {
        let mut words = [0, 0, 0, 0];
        Field::bits(247, 196).set_address(&mut words, 0x8_0000_1000);
        assert_eq!(words[3], 0x8_0000_1000);
    }

    #[test]
    #[should_panic(expected = "wider than its field")]
    fn a_value_that_is_too_wide_is_a_bug() {
        Field::bits(3, 1).set(&mut [0], 8);
    }

    #[test]
    #[should_panic(expected = "does not fit its field")]
    fn a_misaligned_address_is_a_bug() {
        Field::bits(55, 6).set_address(&mut [0], 0x20);
    }

    #[test]
    #[should_panic(expected = "within one 64-bit word")]
    fn a_field_does_not_straddle_words() {
        let _ = Field::bits(64, 63);
    }
}
