//! PCI configuration space: which functions there are, and how they are reached.
//!
//! 1. [`Ecam::new`] takes the registers of one host bridge of the
//!    [`Machine`](crate::discover::Machine);
//! 2. [`scan()`] turns every function off, gives out bus numbers where firmware has not, sizes the
//!    BARs, places them in the bridge's windows, and lists what is there;
//! 3. [`Ecam::enable_memory`], [`Ecam::enable_bus_master`] and [`Ecam::set_msi`] bring one function
//!    to life, which is somebody else's decision;
//! 4. [`Ecam::reset`] takes from one function all that its owner left in it.
//!
//! [`Function::streams`] says which streams what it does may come as: more than one behind a bridge
//! that puts another RID in the place of its own.
//!
//! A function is hostile: every number it gives is checked, every walk through it is bounded, and
//! one that lies stays off and is listed with its [`Refusal`], while the others go on.
//!
//! # Why BARs are placed anew
//!
//! At take-over every function is turned off anyway, so nothing can still be using the places that
//! firmware chose, and one rule holds for boards with firmware and without. Bus numbers are kept
//! where they make sense, because what firmware says of streams it says by bus number.
//!
//! Sections are those of the PCI Local Bus Specification 3.0 ("PCI"), the PCI-to-PCI Bridge
//! Architecture Specification 1.2 ("Bridge") and the PCI Express Base Specification 4.0 ("PCIe").

mod aliases;
mod assign;
mod bar;
mod config;
mod function;
mod refusal;
mod reset;
mod scan;

pub use aliases::Aliases;
pub use config::{Ecam, Msi};
pub use function::{Bar, BarWidth, Class, Function, Kind};
pub use refusal::Refusal;
pub use scan::scan;
