//! Who stands beside a host's machine: sees what is done to it, and has gates above devices.

use portcullis::hw::{Barrier, DeviceTag, NotDone};

/// What the library is about to do to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// A store to shared memory.
    Store {
        /// Where.
        pa: u64,
        /// What.
        value: u64,
    },
    /// A load from memory that the SMMU may write.
    Load {
        /// Where from.
        pa: u64,
    },
    /// A barrier.
    Barrier(Barrier),
    /// Cache lines are cleaned.
    Clean {
        /// The first byte.
        pa: u64,
        /// How many.
        bytes: u64,
    },
    /// A register is read.
    RegisterRead {
        /// Of which SMMU.
        smmu: usize,
        /// Where.
        offset: u64,
    },
    /// A register is written.
    RegisterWrite {
        /// Of which SMMU.
        smmu: usize,
        /// Where.
        offset: u64,
        /// With what.
        value: u64,
    },
    /// One turn of a wait is over: for hardware, for a lock, or for another CPU's operation.
    Relax,
}

/// Hears of each [`Deed`] before it is done, and may hold the CPU there; has gates above devices.
///
/// No lock of the host's is held while it is called, so other CPUs may go on meanwhile.
pub trait Bystander: Send + Sync {
    /// `deed` is about to be done by this CPU; a turn of a wait has just been.
    fn before(&self, deed: Deed) {
        let _ = deed;
    }

    /// How long one turn of a wait is, in microseconds.
    fn turn_us(&self) -> u64 {
        1
    }

    /// Whether the reset of a device, which is about to be tried, works.
    ///
    /// # Errors
    ///
    /// [`NotDone`]: it does not.
    fn may_reset(&self, device: DeviceTag) -> Result<(), NotDone> {
        let _ = device;
        Ok(())
    }

    /// As [`Platform::fence_port`](portcullis::hw::Platform::fence_port).
    ///
    /// # Errors
    ///
    /// [`NotDone`].
    fn fence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        let _ = device;
        Err(NotDone {
            because: "the host has no gate above it",
        })
    }

    /// As [`Platform::unfence_port`](portcullis::hw::Platform::unfence_port).
    ///
    /// # Errors
    ///
    /// [`NotDone`].
    fn unfence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        let _ = device;
        Err(NotDone {
            because: "the host has no gate above it",
        })
    }
}

/// Nobody is there.
pub(crate) struct Nobody;

impl Bystander for Nobody {}
