//! What EL2 does for guests at EL1, as far as it needs no instruction of EL2's own: it runs on the
//! host too.
//!
//! | room | what |
//! |---|---|
//! | [`description`] | who the guests are, or why they cannot be |
//! | [`tree`] | the device tree that a guest sees |
//! | [`traps`], [`features`] | what a guest's CPU came back for, and what it is told of itself |
//! | [`psci`] | a guest's own power |
//! | [`config_space`] | what it sees of PCI functions |
//! | [`monitor`] | a console for people |
//! | [`calls`] | hypercalls (`ABI.md`): hostile words in, the user's verbs, words out |
#![forbid(unsafe_code)]

pub mod calls;
pub mod config_space;
pub mod description;
pub mod features;
pub mod monitor;
pub mod psci;
pub mod traps;
pub mod tree;
