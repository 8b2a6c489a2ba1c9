//! Firmware's device tree.
//!
//! [`smmus`] first, which believes nothing; then [`DeviceTree::new`] looks the whole tree through;
//! then [`Machine::read_device_tree`](super::Machine::read_device_tree) reads it. Properties are
//! read as the Devicetree Specification and the bindings have them, and where these leave a choice
//! the one that fails closed is taken.

mod cells;
mod devices;
mod first;
mod guests;
mod node;
mod pci;
mod platform;
mod read;
mod smmu;
mod tokens;
mod tree;

pub use first::{Search, smmus};
pub use tokens::tree_bytes;
pub use tree::DeviceTree;
