//! The three kinds of address, which must never be mistaken for one another.
//!
//! | type | who says it | what it means |
//! |---|---|---|
//! | [`Pa`] | EL2, hardware | a physical address |
//! | [`Ipa`] | a guest's stage 1, a device behind stage 2 alone | an input of stage 2 |
//! | [`Iova`] | a device | what the device puts on the bus, whatever then translates it |
//!
//! Converting one into another is a decision, so there is no `From` between them: the room that
//! decides says `Pa::new(ipa.as_u64())` and why.
//!
//! ```compile_fail,E0308
//! # use portcullis::addr::{Ipa, Pa};
//! fn page_to_give_back(ipa: Ipa, pa: Pa) -> Pa {
//!     ipa
//! }
//! ```
//!
//! ```
//! # use portcullis::addr::{Ipa, Pa};
//! fn page_to_give_back(ipa: Ipa, pa: Pa) -> Pa {
//!     pa
//! }
//! ```

use core::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        impl $name {
            /// The address `value`.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The bare number.
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// Whether the address is a multiple of `2^log2_bytes`.
            pub const fn is_aligned(self, log2_bytes: u8) -> bool {
                log2_bytes < 64 && self.0 & ((1 << log2_bytes) - 1) == 0
            }

            /// The address `bytes` further on, or `None` past the top.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, ":{:#x}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A physical address: what reaches memory.
    Pa, "pa"
}
address! {
    /// An intermediate physical address: what stage 2 translates.
    Ipa, "ipa"
}
address! {
    /// An I/O virtual address: what a device puts on the bus.
    Iova, "iova"
}

/// A run of bytes at addresses of kind `A`; never empty past the top of the address space.
///
/// `base + size_bytes` does not overflow: [`Extent::new`] refuses what would.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Extent<A> {
    base: A,
    size_bytes: u64,
}

macro_rules! extent {
    ($name:ident) => {
        impl Extent<$name> {
            /// `size_bytes` bytes from `base`; `None` if they run past the top.
            pub const fn new(base: $name, size_bytes: u64) -> Option<Self> {
                match base.as_u64().checked_add(size_bytes) {
                    Some(_) => Some(Self { base, size_bytes }),
                    None => None,
                }
            }

            /// The first address.
            pub const fn base(&self) -> $name {
                self.base
            }

            /// How many bytes it has.
            pub const fn size_bytes(&self) -> u64 {
                self.size_bytes
            }

            /// The first address behind it.
            pub const fn end(&self) -> $name {
                // Cannot wrap: `new` refused that.
                $name::new(self.base.as_u64() + self.size_bytes)
            }

            /// Whether `address` lies in it.
            pub const fn contains(&self, address: $name) -> bool {
                self.base.as_u64() <= address.as_u64() && address.as_u64() < self.end().as_u64()
            }

            /// Whether the two share a byte.
            pub const fn overlaps(&self, other: &Self) -> bool {
                self.base.as_u64() < other.end().as_u64()
                    && other.base.as_u64() < self.end().as_u64()
                    && self.size_bytes != 0
                    && other.size_bytes != 0
            }
        }
    };
}

extent!(Pa);
extent!(Ipa);
extent!(Iova);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_is_asked_in_powers_of_two() {
        assert!(Pa::new(0x1000).is_aligned(12));
        assert!(!Pa::new(0x1800).is_aligned(12));
        assert!(Pa::new(0).is_aligned(63));
        assert!(!Pa::new(0).is_aligned(64));
    }

    #[test]
    fn an_extent_never_runs_past_the_top() {
        assert!(Extent::<Pa>::new(Pa::new(u64::MAX), 1).is_none());
        let top = Extent::<Pa>::new(Pa::new(u64::MAX - 0xfff), 0xfff).expect("it fits");
        assert_eq!(top.end(), Pa::new(u64::MAX));
    }

    #[test]
    fn neighbours_do_not_overlap_and_empty_extents_overlap_nothing() {
        let at = |base, size| Extent::<Ipa>::new(Ipa::new(base), size).expect("it fits");
        assert!(!at(0x1000, 0x1000).overlaps(&at(0x2000, 0x1000)));
        assert!(at(0x1000, 0x1001).overlaps(&at(0x2000, 0x1000)));
        assert!(!at(0x1800, 0).overlaps(&at(0x1000, 0x1000)));
    }
}
