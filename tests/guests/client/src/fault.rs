//! What devices did wrong.

use super::Registers;
use super::types::{Device, Pasid};

/// A fault that waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FaultId {
    /// Its place.
    pub place: u64,
    /// Its generation.
    pub generation: u64,
}

/// What a device did, or what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What to answer, if the transaction is stalled and waits.
    pub id: Option<FaultId>,
    /// What happened.
    pub kind: FaultKind,
    /// Whose transaction it was.
    pub device: Option<Device>,
    /// The PASID it had, if that is a space's now.
    pub pasid: Option<Pasid>,
    /// The address that the device gave.
    pub address: Option<u64>,
    /// The guest's own address that stage 2 does not let it reach, to the page.
    pub ipa: Option<u64>,
    /// What it wanted to do there.
    pub access: Option<Access>,
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Nothing is mapped at the address.
    Translation,
    /// The address, or one in a table, is out of range.
    AddressSize,
    /// The access flag is clear.
    AccessFlag,
    /// The access is not permitted.
    Permission,
    /// A table could not be read.
    TableUnreadable,
    /// The PASID is not bound to the device.
    BadPasid,
    /// Traffic without a PASID, where there is to be none.
    Untagged,
    /// ATS that was not granted.
    AtsRefused,
    /// The SMMU does not support what the device asked for.
    Unsupported,
    /// The SMMU of this number stopped.
    SmmuStopped(u8),
    /// The event of this number.
    Event(u8),
    /// A kind that version 1.0 does not know.
    Unknown(u64),
}

/// What a device wanted to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Write.
    pub is_write: bool,
    /// Fetch instructions.
    pub is_instruction: bool,
    /// As a privileged one.
    pub is_privileged: bool,
}

impl Fault {
    /// What `x1` to `x9` say; `None`: there is none.
    pub(crate) fn of(registers: &Registers) -> Option<Self> {
        let flags = registers[2];
        let has = |bit: u32| flags >> bit & 1 != 0;
        let number = (flags >> 16) as u8;
        let kind = match registers[1] {
            0 => return None,
            1 => FaultKind::Translation,
            2 => FaultKind::AddressSize,
            3 => FaultKind::AccessFlag,
            4 => FaultKind::Permission,
            5 => FaultKind::TableUnreadable,
            6 => FaultKind::BadPasid,
            7 => FaultKind::Untagged,
            8 => FaultKind::AtsRefused,
            9 => FaultKind::Unsupported,
            10 => FaultKind::SmmuStopped(number),
            11 => FaultKind::Event(number),
            kind => FaultKind::Unknown(kind),
        };
        let device = u32::try_from(registers[3]).ok().map(Device);
        Some(Self {
            id: has(0).then_some(FaultId {
                place: registers[8],
                generation: registers[9],
            }),
            kind,
            device: device.filter(|_| has(1)),
            pasid: has(2).then_some(Pasid {
                number: registers[4] as u32,
                generation: registers[5],
            }),
            address: has(3).then_some(registers[6]),
            ipa: has(4).then_some(registers[7]),
            access: has(5).then_some(Access {
                is_write: has(6),
                is_instruction: has(7),
                is_privileged: has(8),
            }),
        })
    }
}
