//! One SMMU.
#![forbid(unsafe_code)]

mod gather;

pub(crate) use gather::Removed;
pub use gather::{Gathered, StaleRange, Unsynced};
