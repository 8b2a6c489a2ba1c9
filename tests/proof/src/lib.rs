//! What the operations of Portcullis cost, in exact counts, and that none of their steps is idle.
//!
//! [`Tap`] is a host that stands between the library and the hostile model: it counts what passes,
//! and can leave out one command, CMD_SYNC, barrier or clean. [`World`] is a machine with guests,
//! spaces and devices on top of it.
//!
//! | test | what it holds |
//! |---|---|
//! | `numbers` | CMD_SYNCs, waits, commands, register accesses, allocations and evictions of every operation |
//! | `memory` | what spaces, bindings, handles, devices and guests take, and that it comes back; quotas |
//! | `stalls` | a guest holds its share of stalled transactions, and nobody else's is aborted for it |
//! | `overlap` | an SMMU that never answers delays nobody on another |
//! | `necessity` | each step of each operation is objected to when it is left out, or explained |
#![expect(
    unsafe_code,
    reason = "implementing `Platform` is the one promise that a host makes"
)]

mod count;
mod device;
mod step;
mod tap;
mod world;

pub use count::Counts;
pub use device::Gun;
pub use step::{Kind, Step};
pub use tap::{Tap, Wires};
pub use world::{
    Board, DATA, Space, VA, WINDOW, Wanted, World, config, smmu_id, take_over, take_over_for,
    try_take_over, walk,
};
