//! What a driver does that can be left out.

use std::fmt;

use portcullis::hw::Barrier;

/// One step, of those that can be left out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A command other than CMD_SYNC, by its opcode (§4.1.2).
    Command(u8),
    /// CMD_SYNC.
    Sync,
    /// A barrier between stores and what makes them known to an SMMU.
    Publish,
    /// A barrier between a register that vouches for a record and the loads of it.
    Observe,
    /// A barrier between the loads of a record and the register that gives it back.
    Release,
    /// Caches cleaned to memory.
    Clean,
}

impl Kind {
    pub(crate) const SYNC: u8 = 0x46;

    pub(crate) const fn of_command(word: u64) -> Self {
        match word as u8 {
            Self::SYNC => Self::Sync,
            opcode => Self::Command(opcode),
        }
    }

    pub(crate) const fn of_barrier(kind: Barrier) -> Self {
        match kind {
            Barrier::Publish => Self::Publish,
            Barrier::Observe => Self::Observe,
            Barrier::Release => Self::Release,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Command(0x03) => "CFGI_STE",
            Self::Command(0x04) => "CFGI_ALL",
            Self::Command(0x05) => "CFGI_CD",
            Self::Command(0x06) => "CFGI_CD_ALL",
            Self::Command(0x10) => "NH_ALL",
            Self::Command(0x11) => "NH_ASID",
            Self::Command(0x12) => "NH_VA",
            Self::Command(0x13) => "NH_VAA",
            Self::Command(0x20) => "EL2_ALL",
            Self::Command(0x28) => "S12_VMALL",
            Self::Command(0x2a) => "S2_IPA",
            Self::Command(0x30) => "NSNH_ALL",
            Self::Command(0x40) => "ATC_INV",
            Self::Command(0x44) => "RESUME",
            Self::Command(0x45) => "STALL_TERM",
            Self::Command(opcode) => return write!(f, "command {opcode:#04x}"),
            Self::Sync => "SYNC",
            Self::Publish => "publish",
            Self::Observe => "observe",
            Self::Release => "give back",
            Self::Clean => "clean",
        };
        f.write_str(name)
    }
}

/// A step of an operation: the how-manieth of its kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Step {
    /// Which kind.
    pub kind: Kind,
    /// How many of the kind came before it, in the operation.
    pub nth: u32,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.nth + 1)
    }
}
