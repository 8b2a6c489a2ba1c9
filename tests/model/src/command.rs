//! Commands: decoding and what makes them illegal (§4).

use crate::format::Granule;
use crate::pri::ResponseCode;
use crate::ste::World;

/// Which addresses a TLB invalidation by address covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) first: u64,
    /// The last byte.
    pub(crate) last: u64,
    /// Only entries of this granule must go; any, without range fields.
    pub(crate) granule: Option<Granule>,
    /// Only leaf entries of this level must go; any, if 0.
    pub(crate) level: u32,
    /// Only last-level entries must go.
    pub(crate) is_leaf: bool,
}

/// What a TLB invalidation removes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tlbi {
    /// All stage-1 and combined entries of a VMID.
    NhAll { vmid: u16 },
    /// Those that are not global, of one ASID.
    Asid { world: World, vmid: u16, asid: u16 },
    /// One address range of one ASID, and global entries there.
    Va {
        world: World,
        vmid: u16,
        asid: u16,
        span: Span,
    },
    /// One address range of any ASID.
    Vaa { world: World, vmid: u16, span: Span },
    /// Everything of EL2's worlds.
    El2All,
    /// Everything of a VMID at both stages.
    S12Vmall { vmid: u16 },
    /// Stage-2 entries of an address range.
    S2Ipa { vmid: u16, span: Span },
    /// Everything that is not EL2's.
    NsnhAll,
}

/// How a CMD_SYNC tells that it is complete, beside CONS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    None,
    Interrupt { address: u64, data: u32 },
    Event,
}

/// A decoded, legal command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    PrefetchConfig {
        stream: u32,
        substream: Option<u32>,
    },
    PrefetchAddress {
        stream: u32,
        substream: Option<u32>,
        address: u64,
        log2_pages: u32,
    },
    CfgiSte {
        stream: u32,
        is_leaf: bool,
    },
    /// The aligned block of `2^log2` StreamIDs around `stream`; 32: all.
    CfgiRange {
        stream: u32,
        log2: u32,
    },
    CfgiCd {
        stream: u32,
        substream: u32,
        is_leaf: bool,
    },
    CfgiCdAll {
        stream: u32,
    },
    Tlbi(Tlbi),
    AtcInv {
        stream: u32,
        substream: Option<u32>,
        is_global: bool,
        address: u64,
        log2_bytes: u32,
    },
    PriResp {
        stream: u32,
        substream: Option<u32>,
        group: u16,
        code: ResponseCode,
    },
    Resume {
        stream: u32,
        stag: u16,
        retries: bool,
        aborts: bool,
    },
    StallTerm {
        stream: u32,
    },
    Sync(Signal),
}

/// What is wrong with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The SMMU refuses it: CERROR_ILL.
    Illegal,
}

/// A decoded command, and whether reserved bits had ones.
pub(crate) struct Decoded {
    pub(crate) command: Command,
    pub(crate) has_reserved_ones: bool,
    /// A range whose address is not aligned as TTL and granule ask.
    pub(crate) is_misaligned: bool,
}
