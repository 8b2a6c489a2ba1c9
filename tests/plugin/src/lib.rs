//! SMMUv3s with SubstreamIDs for any guest of QEMU: the model as a TCG plugin.
//!
//! QEMU's own SMMUv3 has no SubstreamIDs. This plugin puts [`smmu_model`] beside it: register
//! frames of SMMUs, and of devices that do DMA through them, are words of guest RAM that the device
//! tree keeps from the guest. QEMU tells the plugin of every store of every CPU, right after it; a
//! store to a frame is a register write, and a store to memory that an SMMU has read is a change
//! that the SMMU may look at at once. The guest cannot tell, and needs no change.
//!
//! `README.md` beside this crate tells how to attach it to a hypervisor, how to read what it says,
//! and what it cannot show.
//!
//! | module | idea |
//! |---|---|
//! | [`options`] | the plugin's arguments |
//! | [`ram`] | guest RAM, and what the SMMUs have read of it |
//! | [`world`] | the SMMUs and devices over it: stores, time, what comes of them |
//! | [`verdict`] | what is told of a run |
//! | [`witness`] | what reached memory while somebody watched |
//! | `qemu` | QEMU's side: its functions, its callbacks, where it keeps the RAM |

pub mod options;
mod qemu;
pub mod ram;
pub mod verdict;
pub mod witness;
pub mod world;
