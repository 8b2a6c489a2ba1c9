//! Stream table entries: decoding and legality (§5.2).

use crate::attributes::{MemoryType, Shareability};
use crate::bits::{bit, field, keep};
use crate::format::{Granule, Stage2Shape};
use crate::ids::{Identity, StallModel};

/// Which translation regime a stream's stage 1 belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum World {
    /// Non-secure EL1.
    El1,
    /// Non-secure EL2 without VHE.
    El2,
    /// Non-secure EL2 with VHE.
    El2E2h,
}

/// The part of an entry that concerns stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage2 {
    pub(crate) vmid: u16,
    pub(crate) root: u64,
    pub(crate) shape: Stage2Shape,
    /// Bits of an output address.
    pub(crate) output_bits: u32,
    pub(crate) is_big_endian: bool,
    /// S2AFFD: access flags are taken as set.
    pub(crate) ignores_access_flag: bool,
    /// S2PTW: walks through Device memory fault.
    pub(crate) protects_walks: bool,
    pub(crate) forces_write_back: bool,
    pub(crate) stalls: bool,
    pub(crate) records: bool,
}

/// The part of an entry that concerns stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage1Pointer {
    pub(crate) format: u8,
    pub(crate) context_pointer: u64,
    /// S1CDMax where SubstreamIDs are there, else 0.
    pub(crate) log2_contexts: u32,
    pub(crate) dss: u8,
    pub(crate) forbids_stalls: bool,
}

/// What a legal, valid entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ste {
    pub(crate) words: [u64; 8],
    /// Config = 0b0xx.
    pub(crate) aborts: bool,
    pub(crate) world: World,
    pub(crate) stage1: Option<Stage1Pointer>,
    pub(crate) stage2: Option<Stage2>,
    /// The VMID that tags EL1 entries; 0 without stage 2 in the SMMU.
    pub(crate) vmid: u16,
    /// EATS as written; see [`Ste::effective_eats`].
    pub(crate) eats: u8,
    /// ATSCHK when the entry was fetched: an SMMU may keep it with the entry.
    pub(crate) was_checked: bool,
    pub(crate) merges_events: bool,
    pub(crate) ppar: bool,
    priv_config: u8,
    inst_config: u8,
    type_override: Option<MemoryType>,
    share_config: u8,
}

/// Why an entry is not used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Illegal;

pub(crate) const fn is_valid(words: &[u64; 8]) -> bool {
    bit(words[0], 0)
}

impl Ste {
    /// Decodes `words`; `e2h` is CR2.E2H.
    ///
    /// # Errors
    ///
    /// [`Illegal`] if V is 0 or the entry breaks a rule of §5.2.2 (C_BAD_STE).
    pub(crate) fn decode(words: &[u64; 8], id: &Identity, e2h: Vhe) -> Result<Self, Illegal> {
        if !is_valid(words) {
            return Err(Illegal);
        }
        let config = field(words[0], 3, 1);
        let mut ste = Self {
            words: *words,
            aborts: config & 4 == 0,
            world: World::El1,
            stage1: None,
            stage2: None,
            vmid: 0,
            eats: 0,
            was_checked: true,
            merges_events: bit(words[1], 19),
            ppar: bit(words[1], 18),
            priv_config: if id.attr_perms_ovr {
                field(words[1], 49, 48) as u8
            } else {
                0
            },
            inst_config: if id.attr_perms_ovr {
                field(words[1], 51, 50) as u8
            } else {
                0
            },
            type_override: None,
            share_config: if id.attr_types_ovr {
                field(words[1], 45, 44) as u8
            } else {
                1
            },
        };
        if ste.aborts {
            return Ok(ste);
        }
        if id.attr_types_ovr && bit(words[1], 36) {
            ste.type_override = Some(MemoryType::from_stage2(field(words[1], 35, 32) as u8));
        }
        let (s1, s2) = (config & 1 == 1, config & 2 == 2);
        require((!s1 || id.stage1) && (!s2 || id.stage2))?;
        let used_strw = if id.has_hyp() && s1 && !s2 {
            field(words[1], 31, 30)
        } else {
            0
        };
        require(used_strw & 1 == 0)?;
        if used_strw == 2 {
            ste.world = match e2h {
                Vhe::Off => World::El2,
                Vhe::On => World::El2E2h,
            };
        }
        ste.decode_eats(id, s1, s2, used_strw)?;
        if s1 {
            ste.stage1 = Some(Stage1Pointer::decode(words, id, s2)?);
        }
        if s2 {
            ste.stage2 = Some(Stage2::decode(words, id)?);
        }
        if id.stage2 && (s1 || s2) && ste.world == World::El1 {
            ste.vmid = field(words[2], 15, 0) as u16;
            require(id.vmid16 || ste.vmid <= 0xff)?;
        }
        Ok(ste)
    }

    fn decode_eats(
        &mut self,
        id: &Identity,
        s1: bool,
        s2: bool,
        used_strw: u64,
    ) -> Result<(), Illegal> {
        let _ = used_strw;
        if !id.ats || !(s1 || s2) {
            return Ok(());
        }
        self.eats = field(self.words[1], 29, 28) as u8;
        let stalls2 = bit(self.words[2], 57);
        match self.eats {
            1 => require(!(s2 && stalls2)),
            2 => require(s1 && s2 && !stalls2 && !id.ns1ats),
            // 3 needs a device permission table, which is not there: it acts as 0.
            _ => Ok(()),
        }
    }

    /// The same, fetched while ATSCHK had this value.
    pub(crate) fn fetched_under(self, is_checked: bool) -> Self {
        Self {
            was_checked: is_checked,
            ..self
        }
    }

    /// EATS as it acts: split needs ATSCHK; 3 needs a device permission table, which is not there.
    pub(crate) const fn effective_eats(&self, is_checked: bool) -> u8 {
        match self.eats {
            1 => 1,
            2 if is_checked => 2,
            _ => 0,
        }
    }

    /// Whether the transaction counts as privileged.
    pub(crate) const fn privileged(&self, incoming: bool) -> bool {
        match self.priv_config {
            2 => false,
            3 => true,
            _ => incoming,
        }
    }

    /// Whether a read counts as an instruction fetch.
    pub(crate) const fn instruction(&self, incoming: bool) -> bool {
        match self.inst_config {
            2 => false,
            3 => true,
            _ => incoming,
        }
    }

    /// INSTCFG: `Some(true)` for instruction, `Some(false)` for data, `None` for incoming.
    pub(crate) const fn instruction_override(&self) -> Option<bool> {
        match self.inst_config {
            2 => Some(false),
            3 => Some(true),
            _ => None,
        }
    }

    /// The memory type that replaces the incoming one, if one does.
    pub(crate) const fn type_override(&self) -> Option<MemoryType> {
        self.type_override
    }

    /// The shareability that replaces the incoming one, if one does.
    pub(crate) const fn share_override(&self) -> Option<Shareability> {
        match self.share_config {
            0 => Some(Shareability::Non),
            2 => Some(Shareability::Outer),
            3 => Some(Shareability::Inner),
            _ => None,
        }
    }
}

/// CR2.E2H.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Vhe {
    Off,
    On,
}

const fn require(holds: bool) -> Result<(), Illegal> {
    if holds { Ok(()) } else { Err(Illegal) }
}

impl Stage1Pointer {
    fn decode(words: &[u64; 8], id: &Identity, nested: bool) -> Result<Self, Illegal> {
        let format = field(words[0], 5, 4) as u8;
        let log2_contexts = field(words[0], 63, 59) as u32;
        let pointer = keep(words[0], 55, 6);
        let forbids_stalls = bit(words[1], 27);
        require(!forbids_stalls || id.stall_model == StallModel::StallAndTerminate)?;
        let has_substreams = id.ssid_bits != 0;
        require(!has_substreams || log2_contexts <= u32::from(id.ssid_bits))?;
        if has_substreams && log2_contexts != 0 {
            require(id.cd2l || !matches!(format, 1 | 2))?;
        }
        let limit = if nested {
            id.ias_bits()
        } else {
            u32::from(id.oas_bits)
        };
        require(pointer >> limit == 0)?;
        Ok(Self {
            format: if !has_substreams || log2_contexts == 0 || format == 3 {
                0
            } else {
                format
            },
            context_pointer: pointer,
            log2_contexts: if has_substreams { log2_contexts } else { 0 },
            dss: field(words[1], 1, 0) as u8,
            forbids_stalls,
        })
    }
}

impl Stage2 {
    fn decode(words: &[u64; 8], id: &Identity) -> Result<Self, Illegal> {
        let word = words[2];
        let stalls = bit(word, 57);
        require(!(stalls && id.stall_model == StallModel::TerminateOnly))?;
        require(stalls || id.stall_model != StallModel::StallForced)?;
        // Only AArch64 tables are there (TTF = 2), and nothing updates them (HTTU = 0).
        require(bit(word, 51))?;
        require(!bit(word, 55) && !bit(word, 56))?;
        let is_big_endian = bit(word, 52);
        require(match id.ttendian {
            2 => !is_big_endian,
            3 => is_big_endian,
            _ => true,
        })?;
        let granule = Granule::stage2(field(word, 47, 46), id).ok_or(Illegal)?;
        let shape = Stage2Shape::new(
            granule,
            field(word, 37, 32) as u32,
            field(word, 39, 38) as u32,
            id,
        )
        .ok_or(Illegal)?;
        let output_bits = id.address_bits(field(word, 50, 48));
        let output_bits = if granule == Granule::K64 {
            output_bits
        } else {
            output_bits.min(48)
        };
        let root = keep(words[3], 51, 4);
        require(root >> output_bits == 0)?;
        Ok(Self {
            vmid: field(word, 15, 0) as u16,
            root: root & !(shape.root_bytes() - 1),
            shape,
            output_bits,
            is_big_endian,
            ignores_access_flag: bit(word, 53),
            protects_walks: bit(word, 54),
            forces_write_back: id.fwb && bit(words[1], 25),
            stalls,
            records: bit(word, 58),
        })
    }
}
