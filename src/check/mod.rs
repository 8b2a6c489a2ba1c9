//! The self-check: does this machine's SMMU do what Portcullis relies upon, under real devices?
//!
//! Each check takes the SMMU over afresh, moves real data, and leaves it shut. It does so with every
//! device that can play its part, on every SMMU that such a device is behind; a check that no device
//! of the machine can play a part in is not run, and not listed. A check that fails says with which
//! device and why, and the others go on. That each *can* fail is shown with one fault put in
//! below the driver ([`sabotage`]).
//!
//! | device | how it is found | what it can play |
//! |---|---|---|
//! | [`Edu`] | PCI vendor and device | writes and reads anywhere, without a PASID |
//! | [`Nvme`] | PCI class | a controller with queues in memory, and a function level reset |
//! | [`DmaTest`] | `compatible` in a device tree | writes and reads anywhere, with PASIDs, stalls and ATS; a reset |
//!
//! What QEMU's SMMU cannot miss is not shown on it: a CMD_SYNC left out, a break before a make, a
//! register changed before it was acknowledged (it acts at once). The model objects to these, under the
//! image in QEMU and on the host (`tests/self-check`); to a barrier or a clean left out it can object
//! on the host alone, for TCG has no caches.
#![expect(
    clippy::result_large_err,
    reason = "a failure carries its explanation, nothing here allocates, and failures are few"
)]

mod address_space;
mod ats;
mod bench;
mod dma;
mod dma_test;
pub mod edu;
mod failure;
mod guest;
mod handover;
mod list;
mod nested;
pub mod nvme;
mod page;
mod pasid;
mod pasid_guest;
mod queues;
mod release;
mod run;
pub mod sabotage;
mod split;
mod stage2;
mod stalls;
mod streams;

pub use dma_test::{
    COMPATIBLE, Declared, DmaTest, FRAME_BYTES, NotOne, PORT_BYTES, reset as reset_dma_test,
    set_port as set_dma_test_port,
};
pub use edu::Edu;
pub use failure::Failure;
pub use nvme::{Nvme, NvmeFunction};
pub use run::{Summary, run};

use crate::addr::Ipa;
use crate::hw::{CpuTlb, Platform};
use crate::id::StreamId;
use crate::smmu::Firmware;
use crate::spec::vmsa::Stage2Walk;
use run::Rig;

/// How many edu functions, and how many test devices, are used behind one SMMU.
pub const MAX_DEVICES: usize = 4;

/// What the checks have to work with.
pub struct Devices<'m, 'p, P: Platform> {
    /// The platform.
    pub platform: &'p P,
    /// The SMMUs that have a device to work with.
    pub sites: &'m [Site<'m, P>],
    /// Bits of a physical address that the CPU has.
    pub cpu_output_bits: u8,
    /// How the CPUs are told to forget a stage 2.
    pub cpu_tlb: &'p dyn CpuTlb,
    /// This CPU, to stand in for a guest's; `None` where it cannot.
    pub cpu: Option<Cpu>,
    /// Where faults can be put in, if the image was built for it.
    pub saboteur: Option<Saboteur>,
}

/// An SMMU and the devices behind it, all with bus mastering on.
pub struct Site<'m, P: Platform> {
    /// Which SMMU of the machine it is, for reports.
    pub place: usize,
    /// The SMMU's registers; the SMMU itself is shut.
    pub registers: P::Registers,
    /// What firmware says of the SMMU.
    pub firmware: Firmware,
    /// The highest StreamID there is.
    pub last_stream: StreamId,
    /// The edu functions, by StreamID.
    pub edus: [Option<Edu<'m>>; MAX_DEVICES],
    /// The test devices.
    pub tests: [Option<DmaTest<'m>>; MAX_DEVICES],
    /// An NVMe controller.
    pub nvme: Option<NvmeFunction<'m>>,
}

/// A CPU that can be at EL1, behind a stage 2, for one access.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// Its instructions, for a page that EL1 may execute: a word to read, and one to write.
    pub code: [u64; 2],
    /// Runs the word at the second address, with the third as what it accesses; stage 1 is off.
    pub run: fn(&Stage2Walk, Ipa, Ipa) -> CpuAnswer,
}

/// How the access ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuAnswer {
    /// `ESR_EL2`: an HVC if the access was done, else an abort.
    pub syndrome: u64,
    /// Where the abort was.
    pub at: Ipa,
}

/// How a fault is put in below the driver.
#[derive(Clone, Copy)]
pub struct Saboteur {
    /// Lets the hook look at every store to shared memory and SMMU register from now on.
    pub arm: fn(sabotage::Hook),
    /// Ends that.
    pub disarm: fn(),
}

/// Whether `name` is a check that a fault can be put in for.
pub fn can_sabotage(name: &str) -> bool {
    sabotage::hook_for(name).is_some()
}
