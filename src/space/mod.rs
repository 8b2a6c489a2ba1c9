//! The heart.
#![forbid(unsafe_code)]

pub mod handover;
pub mod nesting;
#[cfg_attr(not(test), expect(dead_code, reason = "the spaces come next"))]
mod numbers;
pub mod stage2;
#[cfg_attr(not(test), expect(dead_code, reason = "the spaces come next"))]
mod streams;
pub mod window;

pub use numbers::{Ask, NoNumber};
#[expect(unused_imports, reason = "the spaces come next")]
pub(crate) use numbers::{NotTaken, Numbers};
#[expect(unused_imports, reason = "the spaces come next")]
pub(crate) use streams::{NotInserted, StreamMap};
