//! What the user names things by: keys that are never reused, and the numbers of SMMUs.

use core::fmt;

use crate::hw::Key;

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// A place and a generation of 48 bits; a place whose generations are used up retires. Two
        /// numbers, so that a host can hand it to a guest; whatever a guest makes of them, it names
        /// what it always named, or nothing.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            slot: u32,
            generation: u64,
        }

        impl $name {
            /// Its place and its generation.
            pub const fn parts(self) -> (u32, u64) {
                (self.slot, self.generation)
            }

            /// The key with these parts, which may be anybody's words.
            pub const fn from_parts(slot: u32, generation: u64) -> Self {
                Self { slot, generation }
            }

            pub(super) fn key<T>(self) -> Key<T> {
                Key::from_parts(self.slot, self.generation)
            }

            pub(super) fn of<T>(key: Key<T>) -> Self {
                Self {
                    slot: key.slot(),
                    generation: key.generation(),
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}.{})"), self.slot, self.generation)
            }
        }
    };
}

public_key! {
    /// A guest.
    GuestId
}
public_key! {
    /// A group of devices that can only be owned together.
    GroupId
}
public_key! {
    /// A device.
    DeviceId
}
public_key! {
    /// A space: one guest address space.
    SpaceId
}
public_key! {
    /// What a holder has of a binding. Every bind gives a new one.
    ///
    /// It is no space's name, nor is that a handle:
    ///
    /// ```compile_fail,E0308
    /// # use portcullis::{hw::Platform, space::{GuestId, Handle, Iommu, SpaceId}};
    /// fn let_go<P: Platform>(
    ///     iommu: &Iommu<'_, P>, guest: GuestId, space: SpaceId, handle: Handle,
    /// ) {
    ///     let _ = iommu.unbind(guest, space);
    /// }
    /// ```
    ///
    /// ```
    /// # use portcullis::{hw::Platform, space::{GuestId, Handle, Iommu, SpaceId}};
    /// fn let_go<P: Platform>(
    ///     iommu: &Iommu<'_, P>, guest: GuestId, space: SpaceId, handle: Handle,
    /// ) {
    ///     let _ = iommu.unbind(guest, handle);
    /// }
    /// ```
    Handle
}
public_key! {
    /// A fault that waits for an answer.
    FaultId
}

/// How many SMMUs there can be.
pub const MAX_SMMUS: usize = 16;

/// One of the machine's SMMUs, as the host numbers them: below [`MAX_SMMUS`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SmmuId(u8);

impl SmmuId {
    /// The SMMU with this number; `None` from [`MAX_SMMUS`] up.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < MAX_SMMUS {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The bare number.
    pub const fn as_u8(self) -> u8 {
        self.0
    }

    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for SmmuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Some of the machine's SMMUs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SmmuSet(u16);

impl SmmuSet {
    /// None of them.
    pub const EMPTY: Self = Self(0);

    pub(super) const ALL: Self = Self(u16::MAX);

    /// Whether `smmu` is one of them.
    pub const fn has(self, smmu: SmmuId) -> bool {
        self.0 >> smmu.0 & 1 != 0
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Each of them, by number.
    pub fn iter(self) -> impl Iterator<Item = SmmuId> {
        (0..MAX_SMMUS as u8)
            .map(SmmuId)
            .filter(move |smmu| self.has(*smmu))
    }

    /// Those that are in both.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn insert(&mut self, smmu: SmmuId) {
        self.0 |= 1 << smmu.0;
    }

    pub(super) const fn remove(&mut self, smmu: SmmuId) {
        self.0 &= !(1 << smmu.0);
    }

    pub(super) const fn absorb(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
