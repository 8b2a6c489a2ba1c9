//! Why the image ends before its work is done: what stands behind `end:`.

use core::fmt;

use portcullis::addr::Pa;
use portcullis::arch::gic::GicError;
use portcullis::arch::ram::TooManyPieces;
use portcullis::arch::tables::MapError;
use portcullis::arch::tree::TreeError;
use portcullis::arch::{HostError, StartError};
use portcullis::discover::Text;
use portcullis::guest::description::{Name, Wrong};
use portcullis::smmu::{self, HandshakeTimeout, TakeOverError};
use portcullis::space::SpaceError;
use portcullis::{discover, pci};

/// Why the image ends before its work is done. Every SMMU known by then is left in abort.
pub(crate) enum Refusal {
    /// There is no device tree to read.
    Tree(TreeError),
    /// The device tree is damaged or makes no sense.
    Machine(discover::Refusal),
    /// The device tree has no SMMUv3 that may be used.
    NoSmmu,
    /// An SMMU's registers cannot be mapped.
    Registers { at: Pa, why: MapError },
    /// An SMMU does not answer.
    Gate { at: Pa, why: HandshakeTimeout },
    /// An SMMU cannot be driven.
    Smmu { at: Pa, why: smmu::Refusal },
    /// An SMMU has an erratum about new tables that the self-check does not work round.
    NewTables { at: Pa },
    /// Memory is in too many pieces.
    Memory(TooManyPieces),
    /// There is too little memory, or it cannot be mapped.
    Host(HostError),
    /// Configuration space cannot be mapped.
    Ecam(MapError),
    /// A device's registers cannot be mapped.
    Device(MapError),
    /// There are more PCI functions than fit.
    Pci(pci::Refusal),
    /// There is no device that the self-check has a driver for.
    NothingToCheckWith,
    /// The boot arguments ask for a fault that this image cannot put in.
    Sabotage(Text<48>),
    /// Checks failed.
    SelfCheck { failed: u32 },
    /// There is no memory for the stacks of other CPUs.
    Stacks(StartError),
    /// A guest's description is wrong.
    Plan(Wrong),
    /// A guest's part is refused by the library.
    Guest { name: Name, why: SpaceError },
    /// There is too little memory for a guest.
    GuestMemory { name: Name, size_bytes: u64 },
    /// A guest's device tree is too large.
    GuestTree { name: Name },
    /// The library refuses a part of the machine.
    Space(SpaceError),
    /// An SMMU cannot be taken over.
    TakeOver { at: Pa, why: TakeOverError },
    /// There is no memory for what guests must not reach.
    NoExam,
    /// There is no GICv3: guests could not be stopped.
    NoGic,
    /// The interrupt controller does not obey.
    Gic(GicError),
    /// A CPU does not start.
    Cpu { affinity: u64, why: StartError },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(why) => why.fmt(f),
            Self::Machine(why) => write!(f, "device tree: {why}"),
            Self::NoSmmu => f.write_str("no SMMUv3 in the device tree"),
            Self::Registers { at, why } => write!(f, "SMMU at {at}: {why}"),
            Self::Gate { at, why } => write!(f, "SMMU at {at}: {why}"),
            Self::Smmu { at, why } => write!(f, "SMMU at {at}: {why}"),
            Self::NewTables { at } => write!(
                f,
                "SMMU at {at}: the self-check does not flush new tables (HiSilicon 162100602)"
            ),
            Self::Memory(why) => why.fmt(f),
            Self::Host(why) => why.fmt(f),
            Self::Ecam(why) => write!(f, "PCI configuration space: {why}"),
            Self::Device(why) => write!(f, "a device's registers: {why}"),
            Self::Pci(why) => write!(f, "PCI: {why}"),
            Self::NothingToCheckWith => {
                f.write_str("no device behind an SMMU that the self-check has a driver for")
            }
            Self::Sabotage(name) if cfg!(feature = "sabotage") => {
                write!(f, "sabotage={name}: there is no such check")
            }
            Self::Sabotage(name) => {
                write!(f, "sabotage={name}: this image is not built for it")
            }
            Self::SelfCheck { failed } => write!(f, "{failed} checks failed"),
            Self::Stacks(why) => why.fmt(f),
            Self::Plan(why) => why.fmt(f),
            Self::Guest { name, why } => write!(f, "guest {name}: {why}"),
            Self::GuestMemory { name, size_bytes } => {
                write!(
                    f,
                    "guest {name}: {size_bytes:#x} bytes of memory are not free"
                )
            }
            Self::GuestTree { name } => write!(f, "guest {name}: its device tree is too large"),
            Self::Space(why) => why.fmt(f),
            Self::TakeOver { at, why } => write!(f, "SMMU at {at}: {why}"),
            Self::NoExam => f.write_str("no memory for what guests must not reach"),
            Self::NoGic => f.write_str("no GICv3 in the device tree, which guests need"),
            Self::Gic(why) => why.fmt(f),
            Self::Cpu { affinity, why } => write!(f, "CPU {affinity:#x}: {why}"),
        }
    }
}
