//! Portcullis owns a machine's Arm SMMUv3s from EL2: every guest gets a stage 2, every guest
//! address space a PASID, and either can be taken away while devices are still firing DMA.
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
pub mod hw;
pub mod id;
#[cfg(feature = "discover")]
pub mod pci;
pub mod smmu;
pub mod space;
pub mod spec;
