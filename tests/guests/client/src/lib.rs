//! What a guest of Portcullis asks of EL2, in types: the hypercalls of `ABI.md`.
//!
//! ```text
//! let portcullis = Portcullis::new(Hvc);
//! let space = portcullis.space_create(&tables, Ask::Any, Globals::MayBe)?;
//! let handle = portcullis.bind(space.id, Device(0), By::Pasid)?;
//! // the device does DMA with `space.pasid`
//! portcullis.release(space.id)?; // from here on it reaches nothing
//! portcullis.unbind(handle)?; // the device issues the PASID no longer
//! ```
//!
//! No allocation, no statics, no panics. `Hvc` is there on AArch64; [`Conduit`] lets tests answer.
#![no_std]

mod calls;
mod error;
mod fault;
#[cfg(target_arch = "aarch64")]
mod hvc;
mod numbers;
mod types;

pub use calls::Portcullis;
pub use error::{Code, Error, Fence, Reason};
pub use fault::{Access, Fault, FaultId, FaultKind};
#[cfg(target_arch = "aarch64")]
pub use hvc::Hvc;
pub use numbers::Call;
pub use types::{
    Answer, Ask, Bounds, By, Counter, Device, DeviceInfo, Features, Globals, Handle, Pasid, Place,
    Quotas, Range, Space, SpaceId, TEXT_BYTES, TableRegisters, Text, Untagged,
};

/// `x0` to `x17`.
pub type Registers = [u64; 18];

/// How a call reaches EL2.
pub trait Conduit {
    /// Makes a call with these registers; they hold the answer then.
    fn call(&self, registers: &mut Registers);
}

impl<F: Fn(&mut Registers)> Conduit for F {
    fn call(&self, registers: &mut Registers) {
        self(registers);
    }
}
