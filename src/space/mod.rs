//! The heart.
#![forbid(unsafe_code)]

pub mod handover;
pub mod stage2;
