//! Atomics that owners and locks rest on: the compiler's, or loom's where its tests are built.
//!
//! Not those of memory that a device sees: these are words of [`Frames`](super::Frames).

#[cfg(not(all(test, loom)))]
pub(super) use core::sync::atomic::{AtomicUsize, Ordering, fence};
#[cfg(all(test, loom))]
pub(super) use loom::sync::atomic::{AtomicUsize, Ordering, fence};
