//! Portcullis owns a machine's Arm SMMUv3s from EL2: every guest gets a stage 2, every guest
//! address space a PASID, and either can be taken away while devices are still firing DMA.
//!
//! # The rooms
//!
//! An arrow means "may name"; `tests/rooms.rs` holds them.
//!
//! ```text
//! main, image ──► all            the image alone
//!          guest ──► pci, discover, space, smmu, hw, spec
//!          check ──► pci, discover, space, smmu, hw, spec
//!          arch ───► hw          this CPU at EL2: the image's platform
//!                    space ──► smmu ──► hw ──► spec ──► addr, id
//! ```
//!
//! | room | speaks of | its language |
//! |---|---|---|
//! | [`addr`], [`id`] | physical, intermediate and I/O addresses; StreamID, SubstreamID, PASID, ASID, VMID | types |
//! | [`spec`] | entries, commands, events, registers, descriptors | Arm's, bit by bit |
//! | [`hw`] | registers, shared memory, barriers, frames | promises |
//! | [`smmu`] | one SMMU | effects: publish, retract, invalidate, sync |
//! | [`space`] | guests' memory | the user's: map, unmap, bind, release |
//! | `discover`, `pci` | what firmware and devices say | facts, or a refusal |
//! | `guest` | what EL2 does for guests at EL1 | calls, refused by name |
//! | `check` | whether this machine does what all this relies upon | one line a check |
//!
//! The library for other hypervisors is [`addr`], [`id`], [`spec`], [`hw`], [`smmu`] and [`space`],
//! with no feature turned on: values and no statics, no allocator, one platform trait
//! ([`hw::Platform`]), no third-party type, safe Rust above `hw`. `tests/embedder` is a host that
//! uses it.
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | stream | one StreamID of one SMMU |
//! | publish, retract | make an entry let traffic through, and stop it; the only ways an entry changes |
//! | train | commands in groups, a CMD_SYNC behind each group |
//! | debt | a change that an SMMU has not yet confirmed: [`smmu::Unsynced`], [`smmu::PendingChange`], [`smmu::Ticket`] |
//! | lost | not confirmed in time: out of use until it is proven |
//! | gate | GBPA.ABORT with SMMUEN off: nothing gets through |
//! | knock | an attempt of a stream that nobody published |
//!
//! # Sections
//!
//! § is of IHI 0070 G.b (SMMUv3) unless it says DDI 0487 (the PE).
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

#[cfg(test)]
extern crate std;

pub mod addr;
#[cfg(any(
    test,
    all(feature = "image", target_os = "none", target_arch = "aarch64")
))]
pub mod arch;
#[cfg(feature = "discover")]
pub mod check;
#[cfg(feature = "discover")]
pub mod discover;
#[cfg(feature = "discover")]
pub mod guest;
pub mod hw;
pub mod id;
#[cfg(feature = "discover")]
pub mod pci;
pub mod smmu;
pub mod space;
pub mod spec;
