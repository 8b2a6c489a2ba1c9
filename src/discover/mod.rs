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
//! The way of an EFI application on a machine with ACPI:
//!
//! 1. [`AcpiTables::new`] finds the tables from the RSDP on;
//! 2. [`AcpiTables::smmus`] says where the SMMUs are, so that they can be set to abort;
//! 3. [`Machine::read_acpi`] fills a [`Machine`] with them and with the memory that UEFI lists;
//! 4. [`Machine::survey_acpi`] is for a report: it goes on behind what makes no sense, and names it.
//!
//! All of it is hostile input: a damaged or senseless description is refused by a [`Refusal`] that
//! says which node and why. Nothing here allocates, writes memory other than what it is given, or
//! touches a device.

mod acpi;
mod bridge;
mod device_tree;
mod found;
mod list;
mod machine;
mod quirks;
mod refusal;

pub use acpi::{AcpiSearch, AcpiTables, ListedTable, Msis, Oem, ReadMemory, Timer, Timers};
pub use bridge::{Bridge, Rid, StreamMap, Window, WindowKind};
pub use device_tree::{DeviceTree, Search, smmus, tree_bytes};
pub use found::FoundSmmu;
pub use list::{Full, List, Text};
pub use machine::{
    Caching, Conduit, Console, ConsoleKind, Cpu, Device, Gic, GuestNode, Interrupt, Kept, Machine,
    Mpidr, Reserved, Smmu, SmmuIndex, SmmuInterrupts, Start, Stream, Streams, StreamsOf, Trigger,
};
pub use quirks::Quirks;
pub use refusal::{Block, Fault, NodeName, Refusal};
