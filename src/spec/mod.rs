//! Arm's document as values: bit layouts and the rules that hold within one structure.
//!
//! No pointers, no registers, no time, no policy: making one of these values changes nothing. A §
//! is of IHI 0070 G.b unless it says DDI 0487.
#![forbid(unsafe_code)]

pub mod bits;
pub mod cd;
pub mod command;
pub mod event;
pub mod l1cd;
pub mod l1std;
pub(crate) mod registers;
pub mod stage1;
pub mod ste;
pub mod vmsa;
