//! Hypercalls: what a guest asks for, as `ABI.md` has it.
//!
//! Every word of a guest is hostile. All of a call's arguments are looked at before anything is
//! done; what is refused has changed nothing, and says why by a code of its own ([`Code`]).
//!
//! | piece | what |
//! |---|---|
//! | [`dispatch()`] | one call |
//! | [`GuestWorld`] | what a call needs of the hypervisor around it |
//! | [`Code`], [`Refused`] | why not |
//! | [`number`] | the functions |
//! | [`guest_memory`] | guest addresses that are the guest's own memory |

mod arguments;
mod code;
mod dispatch;
pub mod guest_memory;
pub mod number;
mod results;
mod tcr;
mod world;

pub use code::{Code, Refused};
pub use dispatch::{ABI_VERSION, Registers, UID, dispatch};
pub use world::{GuestDevice, GuestWorld, Limits, NotItsMemory, Place};
