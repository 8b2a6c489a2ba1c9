//! What Portcullis would find on a machine with UEFI and ACPI, as a report for a person.
//!
//! 1. [`Survey::take`] looks at the tables, at the SMMUs' registers and at PCI configuration space;
//! 2. [`report()`] puts that into words, at most [`COLUMNS`] wide.
//!
//! Nothing is changed: [`ReadOnly`] carries no write out, and nothing else here reaches a register.
//! How memory and registers are reached is the caller's: the EFI application's, or a test's.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod cpu;
mod functions;
mod layout;
mod pager;
mod read_only;
mod registers;
mod report;
mod survey;
mod translation;
mod verdict;
mod words;

pub use cpu::{Cpu, ExceptionLevel};
pub use functions::{Function, FunctionKind, Roots};
pub use layout::COLUMNS;
pub use pager::{Patience, Terminal, show};
pub use read_only::ReadOnly;
pub use registers::SmmuRegisters;
pub use report::report;
pub use survey::{Firmware, Found, Survey, SurveyedSmmu};
pub use translation::Translation;
