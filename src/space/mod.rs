//! The heart.
#![forbid(unsafe_code)]

pub mod stage2;
