//! Level 1 Stream Table Descriptor (§5.1).

use super::bits::Field;
use crate::addr::Pa;

const SPAN: Field = Field::bits(4, 0);
const L2_PTR: Field = Field::bits(55, 6);

/// Level 1 Stream Table Descriptor: where the STEs of a run of StreamIDs are. 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct L1Std(u64);

impl L1Std {
    /// No STEs: every StreamID below it is C_BAD_STREAMID (`Span == 0`).
    pub const fn invalid() -> Self {
        Self(0)
    }

    /// `2^log2_stes` STEs at `l2`, which is aligned to their size.
    ///
    /// # Panics
    ///
    /// If there are more than 2^10 STEs or `l2` has bits below bit 6 or above bit 55.
    pub const fn table(l2: Pa, log2_stes: u8) -> Self {
        assert!(log2_stes <= 10, "an L1STD spans at most 1024 STEs");
        let mut words = [0];
        SPAN.set(&mut words, log2_stes as u64 + 1);
        L2_PTR.set_address(&mut words, l2.as_u64());
        Self(words[0])
    }

    /// The word in memory.
    pub const fn word(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §5.1: Span n means 2^(n-1) STEs.
    #[test]
    fn span_is_one_more_than_the_logarithm() {
        assert_eq!(L1Std::invalid().word(), 0);
        assert_eq!(
            L1Std::table(Pa::new(0x8_1234_4000), 8).word(),
            0x8_1234_4009
        );
        assert_eq!(L1Std::table(Pa::new(0x1_0000), 10).word(), 0x1_000b);
    }
}
