//! The five identifiers, which are never integers past the parser that read them.
//!
//! | type | who gives it out | what it selects |
//! |---|---|---|
//! | [`StreamId`] | the board's wiring | an STE of one SMMU |
//! | [`SubstreamId`] | a device, with a transaction | a CD of a stream |
//! | [`Pasid`] | Portcullis, for the life of a space | the same number, in the user's words |
//! | [`Asid`] | Portcullis | the TLB entries of one address space of a VM |
//! | [`Vmid`] | Portcullis | the TLB entries of one VM |
//!
//! One is not taken for another, not even a PASID for the SubstreamID of the same number:
//!
//! ```compile_fail,E0308
//! # use portcullis::id::{Pasid, SubstreamId};
//! fn what_the_device_issues(pasid: Pasid) -> SubstreamId {
//!     pasid
//! }
//! ```
//!
//! ```
//! # use portcullis::id::{Pasid, SubstreamId};
//! fn what_the_device_issues(pasid: Pasid) -> SubstreamId {
//!     pasid.substream()
//! }
//! ```

use core::fmt;

macro_rules! plain_id {
    ($(#[$doc:meta])* $name:ident, $raw:ty, $accessor:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            /// The identifier with this number.
            pub const fn new(value: $raw) -> Self {
                Self(value)
            }

            /// The bare number.
            pub const fn $accessor(self) -> $raw {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

plain_id! {
    /// StreamID: which device talks, as one SMMU numbers them. Two SMMUs number apart.
    StreamId, u32, as_u32
}
plain_id! {
    /// Tags the TLB entries of one address space within a VM.
    Asid, u16, as_u16
}
plain_id! {
    /// Tags the TLB entries of one VM.
    Vmid, u16, as_u16
}

/// SubstreamID: which of a stream's contexts a transaction names; 20 bits (§3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubstreamId(u32);

impl SubstreamId {
    /// The SubstreamID with this number; `None` above 20 bits.
    pub const fn new(value: u32) -> Option<Self> {
        if value < 1 << 20 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The bare number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// PASID: the number of a guest address space, 1 to 2^20 - 1; 0 is never given.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pasid(u32);

impl Pasid {
    /// The PASID with this number; `None` for 0 and above 20 bits.
    pub const fn new(value: u32) -> Option<Self> {
        if value != 0 && value < 1 << 20 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The bare number.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// The SubstreamID that carries this number on the bus.
    pub const fn substream(self) -> SubstreamId {
        SubstreamId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasid_is_never_zero_and_has_twenty_bits() {
        assert_eq!(Pasid::new(0), None);
        assert_eq!(Pasid::new(1 << 20), None);
        assert_eq!(Pasid::new(0xf_ffff).map(Pasid::as_u32), Some(0xf_ffff));
        assert_eq!(SubstreamId::new(0).map(SubstreamId::as_u32), Some(0));
        assert_eq!(SubstreamId::new(1 << 20), None);
    }
}
