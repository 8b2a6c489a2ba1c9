//! Why firmware's description was refused.

use core::fmt;

use super::list::{Full, Text};
use crate::addr::Pa;

/// The name of a node or a table, for a person: the first 48 bytes.
pub type NodeName = Text<48>;

/// Why firmware's description of the machine was refused.
///
/// After any of these the [`Machine`](super::Machine) that was being filled is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It does not start as a device tree does.
    NotATree {
        /// What stands where `0xd00dfeed` should.
        magic: u32,
    },
    /// There is less of it than there must be.
    Short {
        /// How many bytes there are.
        size_bytes: usize,
        /// How many there must be.
        needed_bytes: usize,
    },
    /// It says that it is larger than any device tree may be (2 MiB).
    Large {
        /// How many bytes it says it has.
        size_bytes: usize,
    },
    /// It is not of version 17, nor readable as if it were.
    Version {
        /// Its version.
        version: u32,
        /// The oldest version it can be read as.
        compatible: u32,
    },
    /// One of its blocks does not lie within it, or is not aligned.
    Block {
        /// Which.
        block: Block,
        /// Where it starts.
        offset: u32,
        /// How many bytes it has; 0 where the header does not say.
        size_bytes: u32,
    },
    /// The structure block has no sense.
    Structure {
        /// What was found.
        fault: Fault,
        /// Where in the structure block, in bytes.
        offset: usize,
    },
    /// A property has the wrong length.
    Length {
        /// The node.
        node: NodeName,
        /// The property.
        property: &'static str,
        /// How many bytes it has.
        found_bytes: usize,
        /// How many it must have, or be a multiple of.
        needed_bytes: usize,
    },
    /// A property that must be there is not.
    Missing {
        /// The node.
        node: NodeName,
        /// The property.
        property: &'static str,
    },
    /// A property has a value that makes no sense.
    Value {
        /// The node.
        node: NodeName,
        /// The property.
        property: &'static str,
        /// The value, or as much of it as makes it senseless.
        found: u64,
    },
    /// An address that the CPU cannot reach, because a bus above does not pass it on.
    Unreachable {
        /// The node.
        node: NodeName,
        /// The address, as the node has it.
        address: u64,
    },
    /// Two things that must be apart are not.
    Overlap {
        /// The node of the second.
        node: NodeName,
        /// What they are.
        what: &'static str,
        /// Where the second starts.
        at: u64,
    },
    /// Nothing can be read where firmware says that a table is.
    Unreadable {
        /// The table.
        table: NodeName,
        /// Its physical address.
        at: Pa,
        /// How many bytes were wanted.
        size_bytes: usize,
    },
    /// The bytes of a table do not add up to 0.
    Checksum {
        /// The table.
        table: NodeName,
        /// What they add up to.
        sum: u8,
    },
    /// Ids are led to where none can go on to memory: to no node, back, or round in a circle.
    Reference {
        /// The node that leads there.
        node: NodeName,
        /// The offset in the table that it leads to.
        to: u32,
    },
    /// More than there is room for.
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most there may be.
        limit: usize,
    },
}

/// A part of a device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Block {
    /// The memory reservations.
    Reservations,
    /// The nodes and properties.
    Structure,
    /// The names of the properties.
    Strings,
}

/// What makes a structure block senseless.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It ends before the tree does.
    Ends,
    /// A word that is no token stands where a token should.
    NoToken,
    /// A token stands where it may not: a property after a child, a second root.
    Misplaced,
    /// A name is empty, not printable ASCII, or longer than 255 bytes.
    Name,
    /// Nodes are nested more than 32 deep.
    TooDeep,
}

impl Refusal {
    /// A list of `what` was full.
    pub(super) fn too_many(what: &'static str) -> impl Fn(Full) -> Self {
        move |full| Self::TooMany {
            what,
            limit: full.limit,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotATree { magic } => write!(f, "no device tree: it starts with {magic:#010x}"),
            Self::Short {
                size_bytes,
                needed_bytes,
            } => write!(f, "{size_bytes} bytes are there, {needed_bytes} needed"),
            Self::Large { size_bytes } => write!(f, "{size_bytes} bytes are too many for a tree"),
            Self::Version {
                version,
                compatible,
            } => write!(f, "version {version} (like {compatible}) is not 17"),
            Self::Block {
                block,
                offset,
                size_bytes,
            } => write!(
                f,
                "the block of {block} ({size_bytes} bytes at {offset:#x}) is not in its place"
            ),
            Self::Structure { fault, offset } => write!(f, "{fault} at {offset:#x} of its nodes"),
            Self::Length {
                node,
                property,
                found_bytes,
                needed_bytes,
            } => write!(
                f,
                "{property} of {node} is {found_bytes} bytes, {needed_bytes} needed"
            ),
            Self::Missing { node, property } => write!(f, "{node} has no {property}"),
            Self::Value {
                node,
                property,
                found,
            } => write!(f, "{property} of {node} makes no sense: {found:#x}"),
            Self::Unreachable { node, address } => {
                write!(f, "no bus passes address {address:#x} of {node} on")
            }
            Self::Overlap { node, what, at } => {
                write!(f, "{what} of {node} overlaps another at {at:#x}")
            }
            Self::Unreadable {
                table,
                at,
                size_bytes,
            } => write!(f, "{size_bytes} bytes of {table} cannot be read at {at}"),
            Self::Checksum { table, sum } => write!(f, "{table} adds up to {sum:#04x}, not to 0"),
            Self::Reference { node, to } => {
                write!(f, "{node} leads to {to:#x}, which leads nowhere")
            }
            Self::TooMany { what, limit } => write!(f, "there are more than {limit} {what}"),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reservations => "memory reservations",
            Self::Structure => "nodes",
            Self::Strings => "property names",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ends => "the tree is cut off",
            Self::NoToken => "there is no token",
            Self::Misplaced => "a token is out of place",
            Self::Name => "a name is no name",
            Self::TooDeep => "nodes are nested too deep",
        })
    }
}

impl core::error::Error for Refusal {}
