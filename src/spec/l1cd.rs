//! Level 1 Context Descriptor (§5.3).

use super::bits::Field;
use crate::addr::Ipa;

const V: Field = Field::bit(0);
const L2_PTR: Field = Field::bits(55, 12);

/// Level 1 Context Descriptor: where the CDs of a run of SubstreamIDs are. 8 bytes.
///
/// With stage 2 on, as always here, the pointer is an IPA (§5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct L1Cd(u64);

impl L1Cd {
    /// No CDs: every SubstreamID below it is C_BAD_SUBSTREAMID.
    pub const fn invalid() -> Self {
        Self(0)
    }

    /// The CDs at `l2`, which is aligned to the size of a leaf: 4 KiB or 64 KiB.
    ///
    /// # Panics
    ///
    /// If `l2` is not a multiple of 4 KiB, or has bits above bit 55.
    pub const fn table(l2: Ipa) -> Self {
        let mut words = [0];
        V.set(&mut words, 1);
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

    /// §5.3: V is bit 0, L2Ptr bits 55 to 12.
    #[test]
    fn a_pointer_is_valid_and_in_place() {
        assert_eq!(L1Cd::invalid().word(), 0);
        assert_eq!(L1Cd::table(Ipa::new(0x7f_1234_5000)).word(), 0x7f_1234_5001);
    }
}
