//! Event records (§7.3).

use core::fmt;

use super::bits::Field;
use crate::addr::{Iova, Ipa, Pa};
use crate::id::{StreamId, SubstreamId};

const TYPE: Field = Field::bits(7, 0);
const SSV: Field = Field::bit(11);
const SSID: Field = Field::bits(31, 12);
const SID: Field = Field::bits(63, 32);
const STAG: Field = Field::bits(79, 64);
/// In the place of STAG, in records that cannot stall.
const REASON: Field = Field::bits(79, 64);
const REASON_LONG: Field = Field::bits(95, 64);
const GPCF: Field = Field::bit(80);
const STALL: Field = Field::bit(95);
const PNU: Field = Field::bit(97);
const IND: Field = Field::bit(98);
const RNW: Field = Field::bit(99);
const S2: Field = Field::bit(103);
const CLASS: Field = Field::bits(105, 104);
const TTRNW: Field = Field::bit(108);
const SPAN: Field = Field::bits(115, 108);
const WANTED: Field = Field::bits(102, 97);
const INPUT_ADDR: Field = Field::bits(191, 128);
const INPUT_PAGE: Field = Field::bits(191, 140);
const IPA: Field = Field::bits(247, 204);
const FETCH_ADDR: Field = Field::bits(247, 195);

/// What a client asked for when it faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// It read (RnW).
    pub is_read: bool,
    /// It fetched instructions (InD); never together with a write.
    pub is_instruction: bool,
    /// It was privileged (PnU).
    pub is_privileged: bool,
}

/// For what an address was being translated (CLASS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// To fetch a CD or L1CD.
    Cd,
    /// To fetch a stage-1 descriptor.
    Tt,
    /// For the client's own access.
    In,
    /// The reserved value.
    Reserved,
}

/// A fault of a translation: the payload that F_TRANSLATION to F_PERMISSION share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What the client asked for.
    pub access: Access,
    /// The address that the client gave, whole.
    pub address: Iova,
    /// What was being translated.
    pub class: Class,
    /// Set if stage 2 faulted: the IPA, to the page.
    pub stage2_ipa: Option<Ipa>,
    /// Set if the transaction is stalled and waits for an answer that names this tag.
    pub stall_tag: Option<u16>,
}

/// An abort that the SMMU met when it read memory itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchAbort {
    /// Where it read.
    pub address: Pa,
    /// Whether a granule protection check refused it (GPCF).
    pub is_granule_protection: bool,
    /// An implementation defined reason.
    pub reason: u16,
}

/// What happened. Names and numbers are those of §7.3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// F_UUT (0x01): a transaction of a kind that the SMMU does not support.
    Uut {
        /// What the client asked for.
        access: Access,
        /// The address that it gave.
        address: Iova,
        /// An implementation defined reason.
        reason: u16,
    },
    /// C_BAD_STREAMID (0x02): no STE for this StreamID.
    BadStreamid,
    /// F_STE_FETCH (0x03): reading the STE or L1STD was aborted.
    SteFetch(FetchAbort),
    /// C_BAD_STE (0x04): the STE is not valid, or ILLEGAL.
    BadSte,
    /// F_BAD_ATS_TREQ (0x05): a translation request that is not allowed.
    BadAtsTreq {
        /// The page that was asked for.
        address: Iova,
    },
    /// F_STREAM_DISABLED (0x06): traffic of this kind, with or without a SubstreamID, is off.
    StreamDisabled,
    /// F_TRANSL_FORBIDDEN (0x07): translated traffic that is not allowed.
    TranslForbidden {
        /// Whether it read.
        is_read: bool,
        /// The address that the client gave.
        address: Iova,
    },
    /// C_BAD_SUBSTREAMID (0x08): no CD for this SubstreamID.
    BadSubstreamid,
    /// F_CD_FETCH (0x09): reading the CD or L1CD was aborted.
    CdFetch(FetchAbort),
    /// C_BAD_CD (0x0A): the CD is not valid, or ILLEGAL.
    BadCd,
    /// F_WALK_EABT (0x0B): reading a translation table was aborted.
    WalkEabt {
        /// What the client asked for.
        access: Access,
        /// The address that it gave.
        address: Iova,
        /// What was being translated.
        class: Class,
        /// Whether the table was one of stage 2.
        is_stage2: bool,
        /// The abort.
        abort: FetchAbort,
    },
    /// F_TRANSLATION (0x10): no translation for the address.
    Translation(Fault),
    /// F_ADDR_SIZE (0x11): an address out of range.
    AddrSize(Fault),
    /// F_ACCESS (0x12): the access flag is clear.
    Access(Fault),
    /// F_PERMISSION (0x13): the access is not permitted.
    Permission {
        /// The fault.
        fault: Fault,
        /// Whether the refused access was a descriptor's read, where `class` is [`Class::Tt`].
        is_table_read: bool,
    },
    /// F_TLB_CONFLICT (0x20): two entries of the TLB answered.
    TlbConflict {
        /// What the client asked for.
        access: Access,
        /// The address that it gave.
        address: Iova,
        /// Set if the entries were of stage 2: the IPA, to the page.
        stage2_ipa: Option<Ipa>,
        /// An implementation defined reason.
        reason: u16,
    },
    /// F_CFG_CONFLICT (0x21): two cached STEs answered.
    CfgConflict {
        /// An implementation defined reason.
        reason: u32,
    },
    /// E_PAGE_REQUEST (0x24): a hint that pages will be wanted.
    PageRequest {
        /// The first page.
        address: Iova,
        /// How many 4 KiB pages.
        span: u8,
        /// What is expected, from bit 0: uX, uW, uR, pX, pW, pR.
        wanted: u8,
    },
    /// F_VMS_FETCH (0x25): reading the VMS was aborted.
    VmsFetch(FetchAbort),
    /// 0xE0 to 0xEF: defined by the implementation.
    ImplementationDefined(u8),
    /// A number that the architecture does not define.
    Unknown(u8),
}

/// One event: 32 bytes that the SMMU wrote.
///
/// Any 32 bytes decode to something; nothing in it is to be trusted further than the SMMU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Whose transaction it was.
    pub stream: StreamId,
    /// The SubstreamID, if the transaction had one.
    pub substream: Option<SubstreamId>,
    /// What happened.
    pub kind: EventKind,
}

impl Event {
    /// Decodes the four words of a record.
    pub const fn decode(words: [u64; 4]) -> Self {
        let w = &words;
        let number = TYPE.get(w) as u8;
        let kind = match number {
            0x01 => EventKind::Uut {
                access: access(w),
                address: input(w),
                reason: reason(w),
            },
            0x02 => EventKind::BadStreamid,
            0x03 => EventKind::SteFetch(abort(w)),
            0x04 => EventKind::BadSte,
            0x05 => EventKind::BadAtsTreq {
                address: input_page(w),
            },
            0x06 => EventKind::StreamDisabled,
            0x07 => EventKind::TranslForbidden {
                is_read: RNW.get(w) == 1,
                address: input(w),
            },
            0x08 => EventKind::BadSubstreamid,
            0x09 => EventKind::CdFetch(abort(w)),
            0x0a => EventKind::BadCd,
            0x0b => EventKind::WalkEabt {
                access: access(w),
                address: input(w),
                class: class(w),
                is_stage2: S2.get(w) == 1,
                abort: abort(w),
            },
            0x10 => EventKind::Translation(fault(w)),
            0x11 => EventKind::AddrSize(fault(w)),
            0x12 => EventKind::Access(fault(w)),
            0x13 => EventKind::Permission {
                fault: fault(w),
                is_table_read: TTRNW.get(w) == 1,
            },
            0x20 => EventKind::TlbConflict {
                access: access(w),
                address: input(w),
                stage2_ipa: stage2_ipa(w),
                reason: reason(w),
            },
            0x21 => EventKind::CfgConflict {
                reason: REASON_LONG.get(w) as u32,
            },
            0x24 => EventKind::PageRequest {
                address: input_page(w),
                span: SPAN.get(w) as u8,
                wanted: WANTED.get(w) as u8,
            },
            0x25 => EventKind::VmsFetch(abort(w)),
            0xe0..=0xef => EventKind::ImplementationDefined(number),
            _ => EventKind::Unknown(number),
        };
        Self {
            stream: StreamId::new(SID.get(w) as u32),
            substream: substream(w, &kind),
            kind,
        }
    }

    /// The tag by which a stalled transaction is to be answered, if this one is stalled.
    pub const fn stall_tag(&self) -> Option<u16> {
        match self.kind {
            EventKind::Translation(fault)
            | EventKind::AddrSize(fault)
            | EventKind::Access(fault)
            | EventKind::Permission { fault, .. } => fault.stall_tag,
            _ => None,
        }
    }
}

const fn access(w: &[u64; 4]) -> Access {
    Access {
        is_read: RNW.get(w) == 1,
        is_instruction: IND.get(w) == 1,
        is_privileged: PNU.get(w) == 1,
    }
}

const fn input(w: &[u64; 4]) -> Iova {
    Iova::new(INPUT_ADDR.get(w))
}

const fn input_page(w: &[u64; 4]) -> Iova {
    Iova::new(INPUT_PAGE.get_address(w))
}

const fn reason(w: &[u64; 4]) -> u16 {
    REASON.get(w) as u16
}

const fn class(w: &[u64; 4]) -> Class {
    match CLASS.get(w) {
        0 => Class::Cd,
        1 => Class::Tt,
        2 => Class::In,
        _ => Class::Reserved,
    }
}

const fn stage2_ipa(w: &[u64; 4]) -> Option<Ipa> {
    if S2.get(w) == 1 {
        Some(Ipa::new(IPA.get_address(w)))
    } else {
        None
    }
}

const fn fault(w: &[u64; 4]) -> Fault {
    Fault {
        access: access(w),
        address: input(w),
        class: class(w),
        stage2_ipa: stage2_ipa(w),
        stall_tag: if STALL.get(w) == 1 {
            Some(STAG.get(w) as u16)
        } else {
            None
        },
    }
}

const fn abort(w: &[u64; 4]) -> FetchAbort {
    FetchAbort {
        address: Pa::new(FETCH_ADDR.get_address(w)),
        is_granule_protection: GPCF.get(w) == 1,
        reason: reason(w),
    }
}

/// §7.3: three records carry none, and C_BAD_SUBSTREAMID carries one without saying so.
const fn substream(w: &[u64; 4], kind: &EventKind) -> Option<SubstreamId> {
    match kind {
        EventKind::StreamDisabled | EventKind::TranslForbidden { .. } => None,
        EventKind::BadSubstreamid => SubstreamId::new(SSID.get(w) as u32),
        _ if SSV.get(w) == 1 => SubstreamId::new(SSID.get(w) as u32),
        _ => None,
    }
}

impl EventKind {
    /// The name that the architecture gives it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Uut { .. } => "F_UUT",
            Self::BadStreamid => "C_BAD_STREAMID",
            Self::SteFetch(_) => "F_STE_FETCH",
            Self::BadSte => "C_BAD_STE",
            Self::BadAtsTreq { .. } => "F_BAD_ATS_TREQ",
            Self::StreamDisabled => "F_STREAM_DISABLED",
            Self::TranslForbidden { .. } => "F_TRANSL_FORBIDDEN",
            Self::BadSubstreamid => "C_BAD_SUBSTREAMID",
            Self::CdFetch(_) => "F_CD_FETCH",
            Self::BadCd => "C_BAD_CD",
            Self::WalkEabt { .. } => "F_WALK_EABT",
            Self::Translation(_) => "F_TRANSLATION",
            Self::AddrSize(_) => "F_ADDR_SIZE",
            Self::Access(_) => "F_ACCESS",
            Self::Permission { .. } => "F_PERMISSION",
            Self::TlbConflict { .. } => "F_TLB_CONFLICT",
            Self::CfgConflict { .. } => "F_CFG_CONFLICT",
            Self::PageRequest { .. } => "E_PAGE_REQUEST",
            Self::VmsFetch(_) => "F_VMS_FETCH",
            Self::ImplementationDefined(_) => "an implementation defined event",
            Self::Unknown(_) => "an unknown event",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.is_read, self.is_instruction) {
            (true, true) => "instruction fetch",
            (true, false) => "read",
            (false, _) => "write",
        })?;
        if self.is_privileged {
            f.write_str(", privileged")
        } else {
            Ok(())
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.access, self.address)?;
        if let Some(ipa) = self.stage2_ipa {
            write!(f, ", by stage 2 at IPA {ipa}")?;
        }
        match self.class {
            Class::Cd => f.write_str(" (fetching a CD)")?,
            Class::Tt => f.write_str(" (fetching a stage-1 table)")?,
            Class::In | Class::Reserved => {}
        }
        match self.stall_tag {
            Some(tag) => write!(f, ", stalled with tag {tag:#x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for FetchAbort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "abort reading {}", self.address)?;
        if self.is_granule_protection {
            f.write_str(", refused by granule protection")?;
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of stream {}", self.kind.name(), self.stream)?;
        if let Some(substream) = self.substream {
            write!(f, " substream {:#x}", substream.as_u32())?;
        }
        match self.kind {
            EventKind::Translation(fault)
            | EventKind::AddrSize(fault)
            | EventKind::Access(fault)
            | EventKind::Permission { fault, .. } => write!(f, ": {fault}"),
            EventKind::SteFetch(abort) | EventKind::CdFetch(abort) | EventKind::VmsFetch(abort) => {
                write!(f, ": {abort}")
            }
            EventKind::WalkEabt {
                access,
                address,
                abort,
                ..
            } => {
                write!(f, ": {access} at {address}, {abort}")
            }
            EventKind::Uut {
                access, address, ..
            }
            | EventKind::TlbConflict {
                access, address, ..
            } => {
                write!(f, ": {access} at {address}")
            }
            EventKind::TranslForbidden { address, .. }
            | EventKind::BadAtsTreq { address }
            | EventKind::PageRequest { address, .. } => write!(f, ": at {address}"),
            EventKind::ImplementationDefined(number) | EventKind::Unknown(number) => {
                write!(f, ": number {number:#x}")
            }
            EventKind::BadStreamid
            | EventKind::BadSte
            | EventKind::StreamDisabled
            | EventKind::BadSubstreamid
            | EventKind::BadCd
            | EventKind::CfgConflict { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
