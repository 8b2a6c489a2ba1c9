//! Firmware's ACPI tables.
//!
//! | table | what it gives |
//! |---|---|
//! | FADT | how PSCI is called |
//! | MADT | CPUs, the interrupt controller |
//! | SPCR, else DBG2 | the console |
//! | MCFG | PCI segments and their configuration space |
//! | IORT | SMMUs, which ids are which streams, addresses that firmware keeps for devices |
//! | GTDT | timers, for a report |
//!
//! Sections are those of the ACPI Specification 6.5 ("ACPI"), of IO Remapping Table, DEN0049E.e
//! ("IORT"), and of the PCI Firmware Specification 3.2 ("PCIFW"). What only AML says is not read:
//! the windows of host bridges, and what a named component is.

mod console;
mod first;
mod iort;
mod madt;
mod maps;
mod msi;
mod oem;
mod part;
mod platform;
mod read;
mod segments;
mod streams;
mod tables;

pub use first::AcpiSearch;
pub use msi::Msis;
pub use oem::Oem;
pub use platform::{Timer, Timers};
pub use tables::{AcpiTables, ListedTable, ReadMemory};
