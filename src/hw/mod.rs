//! What the compiler cannot check: register access, memory that a device reads, barriers, frames.
//!
//! One of the two rooms with `unsafe` (the other is the image's `arch`). Everything above it is
//! safe Rust that rests on two promises, each made once, by the host:
//!
//! - [`Platform`]: the frames it hands out are memory, ours alone, until they are given back;
//! - [`Mmio::new`]: that is where the register frame is.
//!
//! On the first rests the one structure that leads from an address in memory to a pointer: a tree
//! of tables whose nodes safe code reads and changes (`Tree`).
//!
//! Everything an SMMU can see goes through [`Platform::store`], [`Platform::barrier`],
//! [`Platform::clean`] and [`Registers`]. That is one seam for three purposes: the image uses the
//! instructions, the tests put a hostile SMMU behind it, and the necessity test drops one step at
//! a time.
#![expect(unsafe_code, reason = "the room whose purpose it is")]

pub(crate) mod atomic;
mod carve;
mod cpu_tlb;
mod frame;
mod lock;
#[cfg(all(test, loom))]
pub(crate) mod loom_cpu;
mod mmio;
mod page_map;
mod platform;
mod pool;
mod ring;
mod shared;
mod shelf;
mod slab;
mod sparse;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tree;
mod wait;

pub(crate) use carve::Carve;
pub use cpu_tlb::{CpuTlb, CpuWalk};
pub use frame::Frames;
pub(crate) use frame::NoFrames;
pub(crate) use lock::{Guard, Lock};
pub use mmio::{Mmio, Registers};
pub(crate) use page_map::{MAX_PAGES, PageMap};
pub use platform::{Barrier, Clock, DeviceTag, NotDone, Platform};
pub(crate) use pool::Chain;
pub use pool::{NoTables, PoolShape};
pub(crate) use ring::Ring;
pub(crate) use shared::Shared;
pub(crate) use shelf::Shelf;
pub(crate) use slab::{Key, NoRoom, Slab};
pub(crate) use sparse::Sparse;
pub use tree::View;
pub(crate) use tree::{EditNode, Mark, Node, Orphan, Roots, Tree};
pub use wait::{TimedOut, wait_until};
