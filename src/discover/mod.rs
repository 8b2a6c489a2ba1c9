//! Finding the machine: what firmware says, turned into one [`Machine`] value.
//!
//! The way of an image that was handed a device tree, before it has a heap or a console:
//!
//! 1. [`tree_bytes`] of the first eight bytes says how long the tree is;
//! 2. [`smmus`] says where the SMMUs are, so that they can be set to abort;
//! 3. [`DeviceTree::new`] looks the whole tree through;
//! 4. [`Machine::read_device_tree`] fills a [`Machine`], which nothing above this room tells apart
//!    from one that ACPI filled.
//!
//! All of it is hostile input: a damaged or senseless description is refused by a [`Refusal`] that
//! says which node and why. Nothing here allocates, writes memory other than what it is given, or
//! touches a device.

mod bridge;
mod device_tree;
mod list;
mod machine;
mod refusal;

pub use bridge::{Bridge, Rid, StreamMap, Window, WindowKind};
pub use device_tree::{DeviceTree, FoundSmmu, Search, smmus, tree_bytes};
pub use list::{Full, List, Text};
pub use machine::{
    Conduit, Console, ConsoleKind, Cpu, Device, Gic, Interrupt, Kept, Machine, Mpidr, Quirks,
    Reserved, Smmu, SmmuIndex, SmmuInterrupts, Start, Stream, StreamsOf, Trigger,
};
pub use refusal::{Block, Fault, NodeName, Refusal};
