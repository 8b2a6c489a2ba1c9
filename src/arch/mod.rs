//! This CPU at EL2: entry, vectors, system registers, the map of its own memory, console, power.
//!
//! The other room with `unsafe` beside `hw`, and part of the image alone. The CPU that
//! firmware starts comes first; the others stay in PSCI's hands until [`Stacks::start`].
//!
//! In the order in which things happen: [`entry!`] names what runs once the CPU is settled and the
//! image mapped, a [`Start`] says what the loader handed over, [`Host`] is the machine's memory and
//! time for the library, and [`end`] is the only way out.
//!
//! What is no instruction of this CPU is compiled, and tested, on a host too.
#![cfg_attr(
    target_os = "none",
    expect(unsafe_code, reason = "one of the rooms whose purpose it is")
)]

pub mod gic;
pub mod image;
pub mod one_line;
pub mod ram;
pub mod syndrome;
pub mod tables;
pub mod tlbi;
pub mod tree;
pub mod uart;

#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
mod death;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
mod host;
#[cfg(target_os = "none")]
mod level;
#[cfg(target_os = "none")]
pub mod mmu;
#[cfg(target_os = "none")]
mod others;
#[cfg(target_os = "none")]
pub mod probe_el1;
#[cfg(target_os = "none")]
pub mod psci;
#[cfg(all(target_os = "none", feature = "sabotage"))]
pub mod sabotage;
#[cfg(target_os = "none")]
mod start;
#[cfg(target_os = "none")]
pub mod vcpu;
#[cfg(target_os = "none")]
mod vectors;

#[cfg(target_os = "none")]
pub use cpu::Timer;
#[cfg(target_os = "none")]
pub use death::{Hook, end, on_death, panicked};
#[cfg(target_os = "none")]
pub use host::{Devices, Host, HostError, Registers, map_registers};
#[cfg(target_os = "none")]
pub use others::{Main, Stacks, StartError};
#[cfg(target_os = "none")]
pub use start::{DeviceTree, Start, bytes_at};

#[cfg(target_os = "none")]
pub use super::{__arch_end as end, __arch_entry as entry, __arch_println as println};

/// The board that the image is built for (`boards/`).
#[cfg(target_os = "none")]
pub mod board {
    include!(env!("PORTCULLIS_BOARD_RS"));
}
