//! What is known of one function.

use core::fmt;

use super::aliases::Aliases;
use super::refusal::Refusal;
use crate::addr::{Extent, Pa};
use crate::discover::{Machine, Rid, Streams, StreamsOf};

/// One function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Function {
    /// The segment its bus is in.
    pub segment: u16,
    /// Where it is there.
    pub rid: Rid,
    /// What bridges above put in the place of its RID.
    pub aliases: Aliases,
    /// Who made it.
    pub vendor: u16,
    /// What its maker calls it.
    pub device: u16,
    /// What it does.
    pub class: Class,
    /// Whether anything is behind it.
    pub kind: Kind,
    /// Its memory BARs by number; a 64-bit one has the number of its lower half. I/O BARs are left
    /// out, and stay off.
    pub bars: [Option<Bar>; 6],
    /// It can be reset by itself ([`Ecam::reset`](super::Ecam::reset)).
    pub can_reset: bool,
    /// Why it, or what is behind it, cannot be used.
    pub refused: Option<Refusal>,
}

impl Function {
    /// The RIDs that what it does may come with: its own first.
    ///
    /// Functions that have one in common cannot be told apart, and go to one owner together.
    pub fn rids(&self) -> impl Iterator<Item = Rid> {
        let aliases = self.aliases.as_slice().iter().copied();
        core::iter::once(self.rid).chain(aliases.filter(|alias| *alias != self.rid))
    }

    /// The streams that what it does may come as: all of them are its owner's, or none.
    pub fn streams(&self, machine: &Machine) -> StreamsOf<Streams> {
        machine.streams_of_all(self.segment, self.rids())
    }
}

/// Whether anything is behind a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nothing.
    Endpoint,
    /// The buses from `secondary` to `subordinate`.
    Bridge {
        /// The bus right behind it.
        secondary: u8,
        /// The last bus behind it.
        subordinate: u8,
    },
    /// A bus that has no number, or something unknown.
    Closed,
}

/// What a function does: base class, subclass, interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// The base class, such as 0x01 for storage.
    pub base: u8,
    /// The subclass, such as 0x08 for NVM.
    pub sub: u8,
    /// The programming interface.
    pub interface: u8,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            base,
            sub,
            interface,
        } = self;
        write!(f, "{base:02x}{sub:02x}{interface:02x}")
    }
}

/// A memory BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// How many bytes it decodes: a power of two, at least 16.
    pub size_bytes: u64,
    /// How large its address may be.
    pub width: BarWidth,
    /// Whether reads have no side effects.
    pub is_prefetchable: bool,
    /// Where the CPU sees it; `None` if it was given no place.
    pub at: Option<Extent<Pa>>,
}

/// How large a BAR's address may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarWidth {
    /// Below 4 GiB.
    Bits32,
    /// Anywhere; it takes two BARs' registers.
    Bits64,
}
