//! A reader of stage-2 tables, written from the fact sheet on VMSAv8-64 and from nothing else:
//! it sees the fields of an STE and raw words.

use portcullis::addr::Pa;
use portcullis::hw::testing::HostPlatform;
use portcullis::spec::vmsa::Stage2Walk;

/// A leaf as found in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) ipa: u64,
    pub(crate) log2_bytes: u32,
    pub(crate) level: u32,
    /// The descriptor.
    pub(crate) word: u64,
}

/// A table below the root as found in memory: the input addresses it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FoundTable {
    pub(crate) ipa: u64,
    pub(crate) log2_bytes: u32,
    pub(crate) at: u64,
}

#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) leaves: Vec<Found>,
    pub(crate) tables: Vec<FoundTable>,
}

/// Bits of a page, and bits resolved by a level, from `S2TG`.
fn granule(tg: u8) -> (u32, u32) {
    match tg {
        0b00 => (12, 9),
        0b01 => (16, 13),
        0b10 => (14, 11),
        _ => panic!("S2TG is reserved"),
    }
}

fn start_level(tg: u8, sl0: u8) -> u32 {
    match (tg, sl0) {
        (0b00, 0) => 2,
        (0b00, 1) => 1,
        (0b00, 2) => 0,
        (_, 0) => 3,
        (_, 1) => 2,
        (_, 2) => 1,
        _ => panic!("S2SL0 is reserved"),
    }
}

struct Walker<'a> {
    platform: &'a HostPlatform,
    page_bits: u32,
    level_bits: u32,
    ps_bits: u32,
}

impl Walker<'_> {
    fn next_table(&self, word: u64) -> u64 {
        let at = match self.page_bits {
            16 => (word & 0x0000_ffff_ffff_0000) | (word & 0xf000) << 36,
            bits => word & 0x0000_ffff_ffff_ffff & !((1 << bits) - 1),
        };
        assert_eq!(
            at >> self.ps_bits,
            0,
            "a table above S2PS is an address size fault"
        );
        at
    }

    fn table(&self, at: u64, entries: usize, level: u32, ipa: u64, found: &mut Contents) {
        let log2_span = self.page_bits + self.level_bits * (3 - level);
        let words = self.platform.read(Pa::new(at), entries);
        for (index, word) in words
            .expect("a table lies in frames that are out")
            .into_iter()
            .enumerate()
        {
            let ipa = ipa + ((index as u64) << log2_span);
            match word & 0b11 {
                0b11 if level < 3 => {
                    let next = self.next_table(word);
                    assert_eq!(word & !0x0000_ffff_ffff_f003, 0, "bits beside the address");
                    found.tables.push(FoundTable {
                        ipa,
                        log2_bytes: log2_span,
                        at: next,
                    });
                    self.table(next, 1 << self.level_bits, level + 1, ipa, found);
                }
                0b11 | 0b01 => {
                    assert_eq!(word & 2 == 0, level < 3, "a block at level 3 is invalid");
                    found.leaves.push(Found {
                        ipa,
                        log2_bytes: log2_span,
                        level,
                        word,
                    });
                }
                _ => assert_eq!(word, 0, "what is not mapped is all zero"),
            }
        }
    }
}

/// Everything that a walk of these tables can find.
pub(crate) fn contents(platform: &HostPlatform, walk: &Stage2Walk) -> Contents {
    let shape = &walk.geometry;
    let (page_bits, level_bits) = granule(shape.tg());
    let start = start_level(shape.tg(), shape.sl0());
    let ipa_bits = 64 - u32::from(shape.t0sz());
    let root_bits = ipa_bits - page_bits - level_bits * (3 - start);
    assert!((1..=level_bits + 4).contains(&root_bits), "C_BAD_STE");
    let size = (8u64 << root_bits).max(64);
    assert_eq!(
        walk.root.as_u64() % size,
        0,
        "the root is aligned to its size"
    );
    let walker = Walker {
        platform,
        page_bits,
        level_bits,
        ps_bits: [32, 36, 40, 42, 44, 48, 52, 56][usize::from(shape.ps())],
    };
    let mut found = Contents::default();
    walker.table(walk.root.as_u64(), 1 << root_bits, start, 0, &mut found);
    found
}

/// What a walk from memory alone finds for one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Step {
    pub(crate) found: Found,
    /// How many members a contiguous group has there, as a power of two.
    pub(crate) log2_group: u32,
}

/// The leaf that translates `ipa`, by words that `read` gives for their addresses; `None` if there
/// is none.
pub(crate) fn translate(
    walk: &Stage2Walk,
    ipa: u64,
    read: &mut dyn FnMut(u64) -> u64,
) -> Option<Step> {
    let (page_bits, level_bits) = granule(walk.geometry.tg());
    let mut level = start_level(walk.geometry.tg(), walk.geometry.sl0());
    let mut table = walk.root.as_u64();
    let mut mask = u64::MAX;
    loop {
        let log2_span = page_bits + level_bits * (3 - level);
        let word = read(table + 8 * (ipa >> log2_span & mask));
        match word & 0b11 {
            0b11 if level < 3 => {
                table = word & 0x0000_ffff_ffff_ffff & !((1 << page_bits) - 1);
                mask = (1 << level_bits) - 1;
                level += 1;
            }
            0b11 | 0b01 => {
                assert_eq!(word & 2 == 0, level < 3, "a block at level 3 is invalid");
                let found = Found {
                    ipa: ipa >> log2_span << log2_span,
                    log2_bytes: log2_span,
                    level,
                    word,
                };
                let log2_group = log2_group(page_bits, level);
                return Some(Step { found, log2_group });
            }
            _ => return None,
        }
    }
}

/// The table of contiguous groups, by page and level.
pub(crate) fn log2_group(page_bits: u32, level: u32) -> u32 {
    match (page_bits, level) {
        (12, 1..=3) => 4,
        (14, 2) => 5,
        (14, 3) => 7,
        (16, 2 | 3) => 5,
        _ => 0,
    }
}
