//! Translation tables of stage 2, VMSAv8-64 (DDI 0487, chapter D8; IHI 0070 §3.4, §5.2).
//!
//! What differs between the granules is data, one row each ([`Granule`]); nothing else here asks
//! which granule it is. Not there, because nothing needs them: small tables (FEAT_TTST, start at
//! level 3 of 4 KiB), 52-bit addresses of 4 KiB and 16 KiB granules (FEAT_LPA2, `DS`), 128-bit
//! descriptors, `S2FWB`.

mod cpu;
mod descriptor;
#[cfg(test)]
mod tests;

pub use cpu::CpuWalk;

pub use descriptor::{
    Access, Attributes, Cacheability, Decoded, Descriptor, DeviceKind, Execute, Leaves, MemoryType,
    Permissions, Run, Shareability,
};

use crate::addr::{Ipa, Pa};
use crate::id::Vmid;

/// The fewest input address bits: `T0SZ` is at most 39 without small tables (§5.2, `S2T0SZ`).
const IPA_BITS_MIN: u8 = 64 - 39;

/// A level of the tables; a larger number is nearer to the page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Level {
    /// The outermost, with the 4 KiB granule only.
    L0 = 0,
    /// The first of three.
    L1 = 1,
    /// The second of three.
    L2 = 2,
    /// The last: its leaves are pages.
    L3 = 3,
}

impl Level {
    /// All of them, outermost first.
    pub const ALL: [Self; 4] = [Self::L0, Self::L1, Self::L2, Self::L3];

    /// The number that the manual and `TTL` give it.
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// The level that a table descriptor of this one leads to; `None` at the last.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::L0 => Some(Self::L1),
            Self::L1 => Some(Self::L2),
            Self::L2 => Some(Self::L3),
            Self::L3 => None,
        }
    }
}

/// The size of a page, and of a table; the number of each is the address bits within one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Granule {
    /// 4 KiB pages; tables of 512 entries.
    Kib4 = 12,
    /// 16 KiB pages; tables of 2048 entries.
    Kib16 = 14,
    /// 64 KiB pages; tables of 8192 entries.
    Kib64 = 16,
}

/// What there is to know about a granule.
#[derive(Clone, Copy)]
struct Row {
    /// The outermost level there is.
    outermost: Level,
    /// The widest addresses, in and out, without `DS`.
    address_bits: u8,
    /// The outermost level with block descriptors, with addresses of at most 48 bits.
    outermost_block: Level,
    /// The same with 52-bit addresses.
    outermost_block_52: Level,
    /// How many entries of each level make a contiguous group, as a power of two; 0: none.
    log2_contiguous: [u8; 4],
    /// `STE.S2TG` (§5.2), which is `VTCR_EL2.TG0`.
    tg: u8,
    /// `TG` of the TLBI commands (§4.4.1.1), another encoding.
    tlbi_tg: u8,
}

impl Granule {
    const fn row(self) -> Row {
        match self {
            Self::Kib4 => Row {
                outermost: Level::L0,
                address_bits: 48,
                outermost_block: Level::L1,
                outermost_block_52: Level::L1,
                log2_contiguous: [0, 4, 4, 4],
                tg: 0b00,
                tlbi_tg: 1,
            },
            Self::Kib16 => Row {
                outermost: Level::L1,
                address_bits: 48,
                outermost_block: Level::L2,
                outermost_block_52: Level::L2,
                log2_contiguous: [0, 0, 5, 7],
                tg: 0b10,
                tlbi_tg: 2,
            },
            Self::Kib64 => Row {
                outermost: Level::L1,
                address_bits: 52,
                outermost_block: Level::L2,
                outermost_block_52: Level::L1,
                log2_contiguous: [0, 0, 5, 5],
                tg: 0b01,
                tlbi_tg: 3,
            },
        }
    }

    /// How many bytes a page and a table have, as a power of two.
    #[inline]
    pub const fn log2_bytes(self) -> u8 {
        self as u8
    }

    /// How many bytes a page and a table have.
    #[inline]
    pub const fn size_bytes(self) -> u64 {
        1 << self.log2_bytes()
    }

    /// How many address bits one level resolves; a table has `2^bits` entries of 8 bytes.
    #[inline]
    pub const fn bits_per_level(self) -> u8 {
        self.log2_bytes() - 3
    }

    /// How many bytes one entry of `level` covers, as a power of two.
    #[inline]
    pub const fn log2_span(self, level: Level) -> u8 {
        self.log2_bytes() + self.bits_per_level() * (3 - level.as_u8())
    }

    /// How many entries of `level` one contiguous group has, as a power of two; `None` where the
    /// Contiguous bit is reserved (DDI 0487, D8.7.1).
    pub const fn log2_contiguous(self, level: Level) -> Option<u8> {
        match self.row().log2_contiguous[level.as_u8() as usize] {
            0 => None,
            log2 => Some(log2),
        }
    }

    /// `TG` of a range TLBI command (§4.4.1.1): not the encoding of `S2TG`.
    pub const fn tlbi_tg(self) -> u8 {
        self.row().tlbi_tg
    }
}

/// Why there are no stage-2 tables of such a shape. Nothing was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GeometryError {
    /// No output address size has this many bits (32, 36, 40, 42, 44, 48, 52 and 56 are).
    NoSuchOutputSize {
        /// What was asked for.
        oas_bits: u8,
    },
    /// The input addresses are wider than the output addresses that the granule can give.
    InputTooWide {
        /// What was asked for.
        ipa_bits: u8,
        /// What there is.
        at_most: u8,
    },
    /// The input addresses are narrower than `T0SZ` can say.
    InputTooNarrow {
        /// What was asked for.
        ipa_bits: u8,
        /// What there is.
        at_least: u8,
    },
    /// Tables of this input size cannot start there: fewer than 2 entries, more than 16
    /// concatenated tables, or a level that the granule has not.
    NoSuchStart {
        /// The level asked for.
        start: Level,
    },
}

/// The shape of one stage 2: how wide its addresses are and where a walk starts.
///
/// Of the legal start levels (DDI 0487, D8.2.1; `smmuv3.md` 8.4 as a table), [`new`](Self::new)
/// takes the innermost, so a walk is as short as it can be: up to 16 concatenated tables make the
/// root. A CPU may walk the same tables: the rules of `VTCR_EL2` about narrow machines hold for
/// what `new` chooses, because the input is never wider than the output.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    granule: Granule,
    ipa_bits: u8,
    output_bits: u8,
    start: Level,
    /// The input bits resolved by the root.
    root_bits: u8,
}

impl Geometry {
    /// Tables for input addresses of `ipa_bits` bits on a machine with output addresses of
    /// `oas_bits` bits (the least of `IDR5.OAS` of all SMMUs and of the CPU's `PARange`).
    ///
    /// # Errors
    ///
    /// Any [`GeometryError`] but `NoSuchStart`.
    pub const fn new(granule: Granule, ipa_bits: u8, oas_bits: u8) -> Result<Self, GeometryError> {
        let mut at = 3;
        loop {
            match Self::starting_at(granule, ipa_bits, oas_bits, Level::ALL[at]) {
                Err(GeometryError::NoSuchStart { .. }) if at > 0 => at -= 1,
                found => return found,
            }
        }
    }

    /// The same, starting at a level that was chosen elsewhere.
    ///
    /// # Errors
    ///
    /// Any [`GeometryError`].
    pub const fn starting_at(
        granule: Granule,
        ipa_bits: u8,
        oas_bits: u8,
        start: Level,
    ) -> Result<Self, GeometryError> {
        if ps(oas_bits).is_none() {
            return Err(GeometryError::NoSuchOutputSize { oas_bits });
        }
        let row = granule.row();
        let output_bits = if oas_bits < row.address_bits {
            oas_bits
        } else {
            row.address_bits
        };
        if ipa_bits > output_bits {
            return Err(GeometryError::InputTooWide {
                ipa_bits,
                at_most: output_bits,
            });
        }
        if ipa_bits < IPA_BITS_MIN {
            return Err(GeometryError::InputTooNarrow {
                ipa_bits,
                at_least: IPA_BITS_MIN,
            });
        }
        match root_bits(granule, ipa_bits, start) {
            Some(root_bits) => Ok(Self {
                granule,
                ipa_bits,
                output_bits,
                start,
                root_bits,
            }),
            None => Err(GeometryError::NoSuchStart { start }),
        }
    }

    /// The size of its pages and tables.
    #[inline]
    pub const fn granule(&self) -> Granule {
        self.granule
    }

    /// How wide an input address is.
    pub const fn ipa_bits(&self) -> u8 {
        self.ipa_bits
    }

    /// How wide an output address is.
    pub const fn output_bits(&self) -> u8 {
        self.output_bits
    }

    /// The level of the root.
    pub const fn start(&self) -> Level {
        self.start
    }

    /// How many tables stand one behind the other as the root, 1 to 16.
    pub const fn root_tables(&self) -> u32 {
        1 << self.root_bits.saturating_sub(self.granule.bits_per_level())
    }

    /// How many entries the root has, all its tables together.
    pub const fn root_entries(&self) -> usize {
        1 << self.root_bits
    }

    /// How many bytes the root takes, and is aligned to, as a power of two; at least a 4 KiB frame.
    pub const fn log2_root_bytes(&self) -> u8 {
        if self.root_bits + 3 < 12 {
            12
        } else {
            self.root_bits + 3
        }
    }

    /// Whether a descriptor of `level` can be a leaf: a page, or a block where there are any.
    #[inline]
    pub const fn has_leaves(&self, level: Level) -> bool {
        let row = self.granule.row();
        let outermost = if self.output_bits > 48 {
            row.outermost_block_52
        } else {
            row.outermost_block
        };
        level.as_u8() >= outermost.as_u8()
    }

    /// `S2T0SZ` (§5.2).
    pub const fn t0sz(&self) -> u8 {
        64 - self.ipa_bits
    }

    /// `S2SL0` (§5.2): which level it means depends on the granule.
    pub const fn sl0(&self) -> u8 {
        match self.granule {
            Granule::Kib4 => 2 - self.start.as_u8(),
            Granule::Kib16 | Granule::Kib64 => 3 - self.start.as_u8(),
        }
    }

    /// `S2TG` (§5.2).
    pub const fn tg(&self) -> u8 {
        self.granule.row().tg
    }

    /// `S2PS` (§5.2).
    pub const fn ps(&self) -> u8 {
        match ps(self.output_bits) {
            Some(ps) => ps,
            // `starting_at` took the width from the list that `ps` knows.
            None => unreachable!(),
        }
    }
}

/// How a size of output addresses is written (`IDR5.OAS`, `S2PS`, `IPS`, `PARange`).
pub(super) const fn ps(bits: u8) -> Option<u8> {
    match bits {
        32 => Some(0),
        36 => Some(1),
        40 => Some(2),
        42 => Some(3),
        44 => Some(4),
        48 => Some(5),
        52 => Some(6),
        56 => Some(7),
        _ => None,
    }
}

/// How many input bits a root at `start` resolves; `None` if there cannot be one.
const fn root_bits(granule: Granule, ipa_bits: u8, start: Level) -> Option<u8> {
    let row = granule.row();
    // The level 3 of 4 KiB is a start only with small tables.
    let small = matches!((granule, start), (Granule::Kib4, Level::L3));
    let below = granule.log2_span(start);
    if small || start.as_u8() < row.outermost.as_u8() || ipa_bits <= below {
        return None;
    }
    let bits = ipa_bits - below;
    // At most 16 tables; the outermost level is never concatenated past the address width, which
    // the caller has checked.
    if bits > granule.bits_per_level() + 4 {
        return None;
    }
    Some(bits)
}

/// How the size of a leaf may change under a walker (`IDR3.BBML`, §3.21.1; FEAT_BBM,
/// `ID_AA64MMFR2_EL1.BBM`). What counts is the lowest of all walkers of the tables.
///
/// A CPU promises less than an SMMU of the same level: at level 1 it may fault on a block with `nT`,
/// at level 2 it may report a TLB conflict, both to EL2. Whoever lets CPUs walk retries these; a
/// device could not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum BbmLevel {
    /// Not at all: what was there goes, and is forgotten, before what comes.
    Level0 = 0,
    /// With `nT` in the block, and the contiguous hint freely.
    Level1 = 1,
    /// In one store.
    Level2 = 2,
}

impl BbmLevel {
    /// The level that an identification field says; `None` if it is reserved.
    pub const fn from_field(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Level0),
            1 => Some(Self::Level1),
            2 => Some(Self::Level2),
            _ => None,
        }
    }
}

/// Whether the walker of tables sees the CPU's caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum WalkCoherency {
    /// It does (`IDR0.COHACC` = 1): a store and a barrier are enough.
    Coherent,
    /// It does not: every word written is cleaned to the point of coherency as well.
    Clean,
}

/// What an STE (or `VTCR_EL2`, `VTTBR_EL2`) must say to walk one stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stage2Walk {
    /// `S2TTB`: where the root is.
    pub root: Pa,
    /// The shape, with the encodings of `S2T0SZ`, `S2SL0`, `S2TG` and `S2PS`.
    pub geometry: Geometry,
    /// `S2VMID`.
    pub vmid: Vmid,
    /// What `S2IR0`, `S2OR0` and `S2SH0` must be chosen for.
    pub coherency: WalkCoherency,
    /// Nothing that is written anywhere: whether walkers that do not find new tables by themselves,
    /// against the architecture, are told of them.
    pub flushes_new_tables: bool,
}

impl Geometry {
    /// Whether all of `[ipa, ipa + size_bytes)` are input addresses.
    pub const fn holds_input(&self, ipa: Ipa, size_bytes: u64) -> bool {
        fits(ipa.as_u64(), size_bytes, self.ipa_bits)
    }

    /// Whether all of `[pa, pa + size_bytes)` are output addresses.
    pub const fn holds_output(&self, pa: Pa, size_bytes: u64) -> bool {
        fits(pa.as_u64(), size_bytes, self.output_bits)
    }
}

const fn fits(base: u64, size_bytes: u64, bits: u8) -> bool {
    match base.checked_add(size_bytes) {
        Some(end) => end <= 1 << bits,
        None => false,
    }
}
