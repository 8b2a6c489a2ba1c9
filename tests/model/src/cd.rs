//! Context descriptors: decoding and legality (§5.4).

use crate::bits::{align_down, bit, field, keep};
use crate::format::{Granule, Root, stage1_root};
use crate::ids::{Identity, StallModel};
use crate::ste::{Illegal, World};

/// One of the two translation table bases.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Half {
    /// The table, unless walks through it are off (EPD = 1).
    pub(crate) table: Option<(Root, u64)>,
    /// Bits of an input address, or 0 where the size was not looked at.
    pub(crate) input_bits: u32,
    pub(crate) ignores_top_byte: bool,
    /// HAD: attributes of table descriptors are ignored.
    pub(crate) is_flat: bool,
    /// E0PD: unprivileged accesses fault.
    pub(crate) is_privileged_only: bool,
}

/// What a legal, valid descriptor says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Cd {
    pub(crate) lower: Half,
    pub(crate) upper: Option<Half>,
    pub(crate) world: World,
    pub(crate) asid: u16,
    pub(crate) aset: bool,
    pub(crate) output_bits: u32,
    pub(crate) mair: u64,
    pub(crate) is_big_endian: bool,
    pub(crate) ignores_access_flag: bool,
    pub(crate) wxn: bool,
    pub(crate) pan: bool,
    pub(crate) epan: bool,
    pub(crate) aborts: bool,
    pub(crate) records: bool,
    pub(crate) stalls: bool,
}

pub(crate) const fn is_valid(words: &[u64; 8]) -> bool {
    bit(words[0], 31)
}

const fn require(holds: bool) -> Result<(), Illegal> {
    if holds { Ok(()) } else { Err(Illegal) }
}

impl Cd {
    /// Decodes `words`, reached through a stream of `world`; `may_stall` is STE.S1STALLD = 0.
    ///
    /// # Errors
    ///
    /// [`Illegal`] if V is 0 or the descriptor breaks a rule of §5.4.1 (C_BAD_CD).
    pub(crate) fn decode(
        words: &[u64; 8],
        id: &Identity,
        world: World,
        forbids_stalls: bool,
    ) -> Result<Self, Illegal> {
        let word = words[0];
        require(is_valid(words))?;
        let stalls = bit(word, 44);
        require(!(forbids_stalls && stalls))?;
        require(!id.term_abort_only || bit(word, 46))?;
        require(match id.stall_model {
            StallModel::StallAndTerminate => true,
            StallModel::TerminateOnly => !stalls,
            StallModel::StallForced => stalls,
        })?;
        // Only AArch64 tables are there (TTF = 2), and nothing updates them (HTTU = 0).
        require(bit(word, 41))?;
        require(!bit(word, 42) && !bit(word, 43))?;
        let has_upper = world != World::El2;
        let (epd0, epd1) = (has_upper && bit(word, 14), !has_upper || bit(word, 30));
        let is_big_endian = bit(word, 15);
        let endian_fits = match id.ttendian {
            2 => !is_big_endian,
            3 => is_big_endian,
            _ => true,
        };
        require(endian_fits || (epd0 && epd1))?;
        let asid = if has_upper {
            field(word, 63, 48) as u16
        } else {
            0
        };
        require(id.asid16 || asid <= 0xff)?;
        let output_bits = id.address_bits(field(word, 34, 32));
        let lower = Half::decode(words, id, 0, epd0, output_bits)?;
        let upper = if has_upper {
            Some(Half::decode(words, id, 1, epd1, output_bits)?)
        } else {
            None
        };
        Ok(Self {
            lower,
            upper,
            world,
            asid,
            aset: bit(word, 47),
            output_bits,
            mair: words[3],
            is_big_endian,
            ignores_access_flag: bit(word, 35),
            wxn: bit(word, 36),
            pan: has_upper && bit(word, 40),
            epan: id.epan && bit(words[1], 59),
            aborts: bit(word, 46) || id.term_abort_only,
            records: bit(word, 45),
            stalls,
        })
    }
}

impl Half {
    fn decode(
        words: &[u64; 8],
        id: &Identity,
        which: u32,
        is_off: bool,
        output_bits: u32,
    ) -> Result<Self, Illegal> {
        let shift = 16 * which;
        let word = words[0];
        let pointer = words[1 + which as usize];
        let tsz = field(word, 5 + shift, shift) as u32;
        let mut half = Self {
            table: None,
            input_bits: 64 - tsz.clamp(12, 48),
            ignores_top_byte: bit(word, 38 + which),
            is_flat: id.had && bit(pointer, 1),
            is_privileged_only: id.e0pd && bit(pointer, 2),
        };
        if is_off {
            return Ok(half);
        }
        let encoding = field(word, 7 + shift, 6 + shift);
        let granule = if which == 0 {
            Granule::stage2(encoding, id)
        } else {
            Granule::upper(encoding, id)
        };
        let root = stage1_root(granule.ok_or(Illegal)?, tsz, id).ok_or(Illegal)?;
        let limit = if root.granule == Granule::K64 {
            output_bits
        } else {
            output_bits.min(48)
        };
        let table = keep(pointer, 51, 4);
        require(table >> limit == 0)?;
        let least = if limit > 48 { 6 } else { 4 };
        half.table = Some((root, align_down(table, (root.index_bits() + 3).max(least))));
        half.input_bits = root.input_bits;
        Ok(half)
    }

    /// Whether `va` lies in this half's range, and what of it a walk uses.
    pub(crate) fn canonical(&self, va: u64, is_upper: bool) -> Option<u64> {
        let fill = if is_upper { u64::MAX } else { 0 };
        let va = if self.ignores_top_byte {
            va & (u64::MAX >> 8) | fill << 56
        } else {
            va
        };
        let high = crate::bits::align_down(u64::MAX, self.input_bits);
        (va & high == fill & high).then_some(va)
    }
}

/// The words of a descriptor without what no TLB entry may hold: two live descriptors with the
/// same tags must agree in the rest (§5.4, §3.17).
pub(crate) fn cacheable(words: &[u64; 8]) -> [u64; 5] {
    // A, R and S are not in the TLB; V is not a field of the space.
    let word0 = words[0] & !(1 << 31 | 7 << 44);
    [word0, words[1], words[2], words[3], words[4]]
}

impl Cd {
    /// Whether any walk is possible through it.
    pub(crate) fn can_walk(&self) -> bool {
        self.lower.table.is_some() || self.upper.is_some_and(|upper| upper.table.is_some())
    }
}
