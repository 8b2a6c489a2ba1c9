//! The heart.
#![forbid(unsafe_code)]

pub mod handover;
pub mod nesting;
pub mod stage2;
pub mod window;
