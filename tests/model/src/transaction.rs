//! What a device submits, and what becomes of it.

use crate::ats::AtsAnswer;
use crate::attributes::Attributes;

/// The data side of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads so many bytes.
    Read(usize),
    /// Writes these bytes.
    Write(Vec<u8>),
}

impl Access {
    /// How many bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Read(bytes) => *bytes,
            Self::Write(data) => data.len(),
        }
    }

    /// Whether it is a write.
    pub const fn is_write(&self) -> bool {
        matches!(self, Self::Write(_))
    }
}

/// What sort of transaction it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An untranslated access.
    Ordinary,
    /// An ordinary write whose device does not wait for it: it may still be on its way when it is
    /// called done, and ends no later than the next `CMD_SYNC`.
    Posted,
    /// An untranslated access that the device does not need; it never faults visibly.
    Speculative,
    /// An ATS translation request. A read access asks with NW=1, a write access with NW=0; the
    /// data is ignored.
    AtsRequest,
    /// An access with an address that ATS translated.
    Translated,
}

/// One access of one device. It lies within one 4 KiB page; anything else is unsupported (`F_UUT`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// Its StreamID.
    pub stream: u32,
    /// Its SubstreamID (PCIe: PASID), if it has one.
    pub substream: Option<u32>,
    /// Where to.
    pub address: u64,
    /// What.
    pub access: Access,
    /// Privileged; PCIe without PASID is not.
    pub is_privileged: bool,
    /// An instruction fetch; ignored for writes.
    pub is_instruction: bool,
    /// What sort.
    pub kind: Kind,
}

impl Transaction {
    /// An ordinary, unprivileged data write without SubstreamID.
    pub fn write(stream: u32, address: u64, data: &[u8]) -> Self {
        Self::new(stream, address, Access::Write(data.to_vec()))
    }

    /// An ordinary, unprivileged data read without SubstreamID.
    pub fn read(stream: u32, address: u64, bytes: usize) -> Self {
        Self::new(stream, address, Access::Read(bytes))
    }

    fn new(stream: u32, address: u64, access: Access) -> Self {
        Self {
            stream,
            substream: None,
            address,
            access,
            is_privileged: false,
            is_instruction: false,
            kind: Kind::Ordinary,
        }
    }

    /// The same with a SubstreamID.
    pub fn with_substream(self, substream: u32) -> Self {
        Self {
            substream: Some(substream),
            ..self
        }
    }

    /// The same, privileged.
    pub fn privileged(self) -> Self {
        Self {
            is_privileged: true,
            ..self
        }
    }

    /// The same as an instruction fetch.
    pub fn instruction(self) -> Self {
        Self {
            is_instruction: true,
            ..self
        }
    }

    /// The same of another kind.
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn is_write(&self) -> bool {
        self.access.is_write()
    }
}

/// What became of a transaction, as its device sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It reached memory.
    Done {
        /// Where.
        pa: u64,
        /// What was read; empty for a write.
        data: Vec<u8>,
        /// With which memory attributes it left the SMMU.
        attributes: Attributes,
    },
    /// It was answered with an abort, by the SMMU or by memory.
    Aborted,
    /// It was completed as if it had succeeded, reading zeros or writing nothing.
    RazWi,
    /// It waits for a RESUME; what becomes of it is told by
    /// [`Smmu::take_finished`](crate::Smmu::take_finished).
    Stalled {
        /// Names the transaction among all of this SMMU.
        ticket: u64,
    },
    /// The answer to an ATS translation request.
    Ats(AtsAnswer),
}
