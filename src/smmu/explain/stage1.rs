//! Stage 1 as a context and the guest's tables say it (§5.4; DDI 0487 D8).

use super::stage2::{Tables, address_bits};
use super::{
    Ended, Found, Outcome, Purpose, Reason, Stage, Stop, Structure, View, aborts, aligned,
};
use crate::spec::bits::Field;

/// How many words of a CD are looked at.
type Cd = [u64; 3];

const OUTPUT_SIZE: Field = Field::bits(34, 32);
const NO_ACCESS_FLAG: Field = Field::bit(35);
const AA64: Field = Field::bit(41);

/// The fields that there are once for each half: TxSZ, TGx, EPDx, TBIx, TTBx, HADx.
const LOW: [Field; 6] = [
    Field::bits(5, 0),
    Field::bits(7, 6),
    Field::bit(14),
    Field::bit(38),
    Field::bits(115, 68),
    Field::bit(65),
];
const HIGH: [Field; 6] = [
    Field::bits(21, 16),
    Field::bits(23, 22),
    Field::bit(30),
    Field::bit(39),
    Field::bits(179, 132),
    Field::bit(129),
];

const VALID: Field = Field::bit(0);
const NOT_BLOCK: Field = Field::bit(1);
const USER: Field = Field::bit(6);
const READ_ONLY: Field = Field::bit(7);
const ACCESSED: Field = Field::bit(10);
/// Of a table: what leaves below it lose.
const NOT_FOR_USER: Field = Field::bit(61);
const NOT_TO_WRITE: Field = Field::bit(62);

/// The half of a context that translates an address.
pub(super) struct Half {
    root: u64,
    /// Bits of an input address, of a page and of an output address.
    bits: u8,
    log2_page: u8,
    output_bits: u8,
    walks_off: bool,
    ignores_top: bool,
    needs_access_flag: bool,
    ignores_table_attributes: bool,
}

/// What stage 1 makes of an address.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    pub(super) output: u64,
    pub(super) can_read: bool,
    pub(super) can_write: bool,
}

impl Half {
    pub(super) fn decode(cd: &Cd, address: u64, output_bits: u8) -> Ended<Self> {
        let illegal = |what| Outcome::Aborts(Reason::ContextIllegal(what));
        if AA64.get(cd) == 0 {
            return Err(illegal("AA64 is 0"));
        }
        let is_high = address >> 55 & 1 == 1;
        let [size, granule, off, top, root, no_table] = if is_high { HIGH } else { LOW };
        let walks_off = off.get(cd) == 1;
        let size = size.get(cd) as u8;
        // TG0 and TG1 say it differently.
        let log2_page = match (is_high, granule.get(cd)) {
            (false, 0) | (true, 2) => 12,
            (false, 2) | (true, 1) => 14,
            (false, 1) | (true, 3) => 16,
            _ if walks_off => 12,
            _ => return Err(illegal("TG is reserved")),
        };
        if !(16..=39).contains(&size) && !walks_off {
            return Err(illegal("TSZ is out of range"));
        }
        Ok(Self {
            root: root.get_address(cd),
            bits: 64 - size,
            log2_page,
            output_bits: address_bits(OUTPUT_SIZE.get(cd), output_bits),
            walks_off,
            ignores_top: top.get(cd) == 1,
            needs_access_flag: NO_ACCESS_FLAG.get(cd) == 0,
            ignores_table_attributes: no_table.get(cd) == 1,
        })
    }

    /// Whether the bits above those that the tables resolve are all as bit 55.
    fn takes(&self, address: u64) -> bool {
        let kept = if self.ignores_top { 56 } else { 64 };
        let above = address << (64 - kept) >> (64 - kept) >> self.bits;
        let ones = u64::MAX << (64 - kept) >> (64 - kept) >> self.bits;
        above == if address >> 55 & 1 == 1 { ones } else { 0 }
    }

    const fn span(&self, level: u8) -> u8 {
        self.log2_page + (self.log2_page - 3) * (3 - level)
    }

    /// The level of the root: as few as resolve all bits.
    const fn start(&self) -> u8 {
        4 - (self.bits - self.log2_page).div_ceil(self.log2_page - 3)
    }

    const fn output(&self, word: u64) -> u64 {
        let low = word & 0x0000_ffff_ffff_f000;
        match self.log2_page {
            16 => aligned(low, 16) | (word & 0xf000) << 36,
            log2_page => aligned(low, log2_page),
        }
    }

    fn has_block(&self, level: u8) -> bool {
        level == 2 || (level == 1 && (self.log2_page == 12 || self.output_bits > 48))
    }
}

/// What tables on the way take away.
#[derive(Clone, Copy, Default)]
struct Taken {
    user: bool,
    write: bool,
}

impl View<'_> {
    /// What stage 1 makes of `input`: four levels at the most.
    pub(super) fn walk_stage1(
        &self,
        half: &Half,
        second: Option<&Tables>,
        input: u64,
        is_privileged: bool,
    ) -> Ended<Leaf> {
        let stops = |stop| {
            aborts(Reason::Stage {
                stage: Stage::One,
                input,
                purpose: Purpose::Input,
                stop,
            })
        };
        if half.walks_off {
            return stops(Stop::WalksOff);
        }
        if !half.takes(input) {
            return stops(Stop::OutOfRange { bits: half.bits });
        }
        let start = half.start();
        let root_bits = half.bits - half.span(start);
        let mut table = aligned(half.root, root_bits + 3);
        let mut index_bits = root_bits;
        let mut taken = Taken::default();
        for level in start..4 {
            let index = input >> half.span(level) & ((1 << index_bits) - 1);
            let at = table + index * 8;
            let pa = self.physical(second, at, Purpose::Table)?;
            let word = self.read(Structure::Descriptor(Stage::One), pa)?;
            let found = Found { level, at, word };
            let is_table = NOT_BLOCK.get(&[word]) == 1 && level < 3;
            let is_leaf = match level {
                3 => NOT_BLOCK.get(&[word]) == 1,
                _ => !is_table && half.has_block(level),
            };
            if VALID.get(&[word]) == 0 || !(is_table || is_leaf) {
                return stops(Stop::Invalid(found));
            }
            if half.output(word) >> half.output_bits != 0 {
                return stops(Stop::OutputSize(found));
            }
            if is_leaf {
                return self.leaf1(half, found, taken, input, is_privileged);
            }
            if !half.ignores_table_attributes {
                taken.user |= NOT_FOR_USER.get(&[word]) == 1;
                taken.write |= NOT_TO_WRITE.get(&[word]) == 1;
            }
            table = half.output(word);
            index_bits = half.log2_page - 3;
        }
        stops(Stop::OutOfRange { bits: half.bits })
    }

    fn leaf1(
        &self,
        half: &Half,
        found: Found,
        taken: Taken,
        input: u64,
        is_privileged: bool,
    ) -> Ended<Leaf> {
        let stops = |stop| {
            aborts(Reason::Stage {
                stage: Stage::One,
                input,
                purpose: Purpose::Input,
                stop,
            })
        };
        let word = [found.word];
        if half.needs_access_flag && ACCESSED.get(&word) == 0 {
            return stops(Stop::AccessFlag(found));
        }
        let can_read = is_privileged || (USER.get(&word) == 1 && !taken.user);
        if !can_read {
            return stops(Stop::Permission(found));
        }
        let span = half.span(found.level);
        let inside = input & ((1 << span) - 1);
        Ok(Leaf {
            output: aligned(half.output(found.word), span) | inside,
            can_read,
            can_write: READ_ONLY.get(&word) == 0 && !taken.write,
        })
    }
}
