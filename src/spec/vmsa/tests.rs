//! Golden words, assembled by hand from `smmuv3.md` 8.1 to 8.7, and its table of start levels.

use super::*;

/// Granule, level, T0SZ range with a single table, T0SZ with 2, 4, 8 and 16 tables: table 8.4
/// without small tables (STT) and 52-bit addresses of small granules (DS).
type Row = (Granule, Level, (u8, u8), [Option<u8>; 4]);
const STARTS: [Row; 9] = [
    (Granule::Kib4, Level::L0, (16, 24), [None; 4]),
    (
        Granule::Kib4,
        Level::L1,
        (25, 33),
        [Some(24), Some(23), Some(22), Some(21)],
    ),
    (
        Granule::Kib4,
        Level::L2,
        (34, 39),
        [Some(33), Some(32), Some(31), Some(30)],
    ),
    (
        Granule::Kib16,
        Level::L1,
        (17, 27),
        [Some(16), None, None, None],
    ),
    (
        Granule::Kib16,
        Level::L2,
        (28, 38),
        [Some(27), Some(26), Some(25), Some(24)],
    ),
    (
        Granule::Kib16,
        Level::L3,
        (39, 39),
        [Some(38), Some(37), Some(36), Some(35)],
    ),
    (Granule::Kib64, Level::L1, (12, 21), [None; 4]),
    (
        Granule::Kib64,
        Level::L2,
        (22, 34),
        [Some(21), Some(20), Some(19), Some(18)],
    ),
    (
        Granule::Kib64,
        Level::L3,
        (35, 39),
        [Some(34), Some(33), Some(32), Some(31)],
    ),
];

/// How many tables the row says there are for this T0SZ; `None` if it is illegal.
fn tables_of(row: &Row, t0sz: u8) -> Option<u32> {
    let (_, _, (least, most), concatenated) = row;
    if (*least..=*most).contains(&t0sz) {
        return Some(1);
    }
    let at = concatenated.iter().position(|entry| *entry == Some(t0sz))?;
    Some(2 << at)
}

const GRANULES: [Granule; 3] = [Granule::Kib4, Granule::Kib16, Granule::Kib64];

#[test]
fn every_start_level_of_the_table_is_there_and_no_other() {
    for granule in GRANULES {
        for level in Level::ALL {
            let row = STARTS.iter().find(|row| (row.0, row.1) == (granule, level));
            for t0sz in 0..64 {
                let expected = row.and_then(|row| tables_of(row, t0sz));
                let found = Geometry::starting_at(granule, 64 - t0sz, 52, level);
                let tables = found.as_ref().ok().map(Geometry::root_tables);
                assert_eq!(
                    tables, expected,
                    "{granule:?} {level:?} T0SZ {t0sz}: {found:?}"
                );
                if let Ok(shape) = found {
                    assert_eq!((shape.t0sz(), shape.start()), (t0sz, level));
                }
            }
        }
    }
}

#[test]
fn the_shortest_legal_walk_is_taken() {
    for granule in GRANULES {
        for t0sz in 12..=39 {
            let legal = |row: &&Row| row.0 == granule && tables_of(row, t0sz).is_some();
            let innermost = STARTS.iter().filter(legal).map(|row| row.1).max();
            let found = Geometry::new(granule, 64 - t0sz, 52).ok();
            assert_eq!(
                found.map(|shape| shape.start()),
                innermost,
                "{granule:?} {t0sz}"
            );
        }
    }
}

/// The typical ones of 8.4, with all the encodings of an STE.
#[test]
fn typical_shapes_are_encoded_as_the_manual_says() {
    let of = |granule, ipa_bits, oas_bits| {
        let shape = Geometry::new(granule, ipa_bits, oas_bits).expect("a typical shape");
        let encodings = [shape.t0sz(), shape.sl0(), shape.tg(), shape.ps()];
        (encodings, shape.root_tables(), shape.log2_root_bytes())
    };
    assert_eq!(of(Granule::Kib4, 40, 44), ([24, 1, 0, 4], 2, 13));
    assert_eq!(of(Granule::Kib4, 48, 48), ([16, 2, 0, 5], 1, 12));
    assert_eq!(of(Granule::Kib4, 44, 44), ([20, 2, 0, 4], 1, 12));
    assert_eq!(of(Granule::Kib4, 39, 40), ([25, 1, 0, 2], 1, 12));
    assert_eq!(of(Granule::Kib4, 34, 36), ([30, 0, 0, 1], 16, 16));
    assert_eq!(of(Granule::Kib16, 48, 48), ([16, 2, 2, 5], 2, 15));
    assert_eq!(of(Granule::Kib16, 36, 42), ([28, 1, 2, 3], 1, 14));
    assert_eq!(of(Granule::Kib64, 52, 52), ([12, 2, 1, 6], 1, 13));
    assert_eq!(of(Granule::Kib64, 32, 32), ([32, 0, 1, 0], 8, 19));
    // 4 KiB addresses end at 48 bits, whatever the machine has.
    assert_eq!(of(Granule::Kib4, 48, 56), ([16, 2, 0, 5], 1, 12));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let new = |ipa_bits, oas_bits| Geometry::new(Granule::Kib4, ipa_bits, oas_bits);
    let oas_bits = 46;
    assert_eq!(
        new(40, 46),
        Err(GeometryError::NoSuchOutputSize { oas_bits })
    );
    let (ipa_bits, at_most) = (41, 40);
    assert_eq!(
        new(41, 40),
        Err(GeometryError::InputTooWide { ipa_bits, at_most })
    );
    let (ipa_bits, at_most) = (49, 48);
    assert_eq!(
        new(49, 52),
        Err(GeometryError::InputTooWide { ipa_bits, at_most })
    );
    let (ipa_bits, at_least) = (24, 25);
    assert_eq!(
        new(24, 40),
        Err(GeometryError::InputTooNarrow { ipa_bits, at_least })
    );
    let start = Level::L2;
    let refused = Geometry::starting_at(Granule::Kib4, 40, 40, start);
    assert_eq!(refused, Err(GeometryError::NoSuchStart { start }));
}

fn shape(granule: Granule, bits: u8) -> Geometry {
    Geometry::new(granule, bits, bits).expect("a legal shape")
}

fn leaf(granule: Granule, bits: u8, level: Level, pa: u64, attributes: Attributes) -> Option<u64> {
    let leaves = Leaves::new(&shape(granule, bits), level, Pa::new(pa), attributes)?;
    Some(leaves.at(0).as_u64())
}

const REGISTERS: Attributes = Attributes {
    permissions: Permissions {
        access: Access::WriteOnly,
        execute: Execute::Allowed,
    },
    memory: MemoryType::Device(DeviceKind::NGnRE),
    shareability: Shareability::Outer,
};
const UNCACHED: Attributes = Attributes {
    permissions: Permissions::READ_ONLY,
    memory: MemoryType::NON_CACHEABLE,
    shareability: Shareability::Non,
};

#[test]
fn leaves_are_the_words_that_the_manual_describes() {
    let (k4, k16, k64) = (Granule::Kib4, Granule::Kib16, Granule::Kib64);
    // Page: valid, page, MemAttr 1111, S2AP 11, SH 11, AF; XN.
    let word = leaf(k4, 48, Level::L3, 0x8765_4321_f000, Attributes::MEMORY);
    assert_eq!(word, Some(0x0040_8765_4321_f7ff));
    // The same as a 2 MiB block: bit 1 clear.
    let word = leaf(k4, 48, Level::L2, 0x8765_4320_0000, Attributes::MEMORY);
    assert_eq!(word, Some(0x0040_8765_4320_07fd));
    let word = leaf(k4, 48, Level::L1, 0x8765_4000_0000, Attributes::MEMORY);
    assert_eq!(word, Some(0x0040_8765_4000_07fd));
    // MemAttr 0001, S2AP 10, SH 10, AF, no XN.
    let word = leaf(k4, 40, Level::L3, 0x900_0000, REGISTERS);
    assert_eq!(word, Some(0x0000_0000_0900_0687));
    // MemAttr 0101, S2AP 01, SH 00, AF, XN.
    let word = leaf(k16, 40, Level::L2, 0x4200_0000, UNCACHED);
    assert_eq!(word, Some(0x0040_0000_4200_0455));
    let word = leaf(k16, 48, Level::L3, 0xffff_ffff_c000, UNCACHED);
    assert_eq!(word, Some(0x0040_ffff_ffff_c457));
    // Bits 51 to 48 of the address stand in bits 15 to 12.
    let word = leaf(k64, 52, Level::L3, 0x000a_8765_4321_0000, UNCACHED);
    assert_eq!(word, Some(0x0040_8765_4321_a457));
    let word = leaf(k64, 52, Level::L2, 0x000f_8765_4000_0000, UNCACHED);
    assert_eq!(word, Some(0x0040_8765_4000_f455));
    let word = leaf(k64, 52, Level::L1, 0x0005_8400_0000_0000, UNCACHED);
    assert_eq!(word, Some(0x0040_8400_0000_5455));
}

#[test]
fn the_second_leaf_is_one_span_further_on() {
    let shape = shape(Granule::Kib64, 52);
    let pa = Pa::new(0x0000_ffff_ffff_0000);
    let leaves = Leaves::new(&shape, Level::L3, pa, UNCACHED).expect("pages");
    assert_eq!(leaves.at(0).as_u64(), 0x0040_ffff_ffff_0457);
    assert_eq!(leaves.at(1).as_u64(), 0x0040_0000_0000_1457);
}

#[test]
fn there_is_no_leaf_where_the_manual_has_none_or_the_address_is_not_aligned() {
    let memory = Attributes::MEMORY;
    assert_eq!(leaf(Granule::Kib4, 48, Level::L0, 0, memory), None);
    assert_eq!(leaf(Granule::Kib16, 48, Level::L1, 0, memory), None);
    assert_eq!(leaf(Granule::Kib64, 48, Level::L1, 0, memory), None);
    assert_eq!(leaf(Granule::Kib4, 48, Level::L2, 0x10_0000, memory), None);
    assert_eq!(leaf(Granule::Kib16, 48, Level::L3, 0x1000, memory), None);
}

#[test]
fn table_descriptors_hold_an_address_and_nothing_else() {
    assert_eq!(
        Descriptor::table(Pa::new(0x8765_4321_f000)).as_u64(),
        0x0000_8765_4321_f003
    );
    assert_eq!(
        Descriptor::table(Pa::new(0x000c_0000_0001_0000)).as_u64(),
        0x0000_0000_0001_c003
    );
    let table = Descriptor::table(Pa::new(0x4000));
    assert_eq!(table.disarmed().as_u64(), 0x4002);
    assert_eq!(table.disarmed().rearmed(), Some(table));
    assert_eq!(Descriptor::INVALID.rearmed(), None);
    assert_eq!(table.rearmed(), None);
}

#[test]
fn words_are_read_as_the_manual_says() {
    let read = |granule, bits, level, word| {
        Descriptor::from_u64(word).decode(&shape(granule, bits), level)
    };
    let (k4, k64) = (Granule::Kib4, Granule::Kib64);
    let memory = |pa| Decoded::Leaf {
        pa: Pa::new(pa),
        attributes: Attributes::MEMORY,
    };
    assert_eq!(
        read(k4, 48, Level::L3, 0x0040_8765_4321_f7ff),
        memory(0x8765_4321_f000)
    );
    // In a block, nT (bit 16) is no part of the address; software's bits and the contiguous hint
    // never are.
    assert_eq!(
        read(k4, 48, Level::L2, 0x07d0_8765_4321_07fd),
        memory(0x8765_4320_0000)
    );
    assert_eq!(
        read(k64, 52, Level::L2, 0x0040_8765_4000_f7fd),
        memory(0x000f_8765_4000_0000)
    );
    let at = Pa::new(0x000c_0000_0001_0000);
    assert_eq!(read(k64, 52, Level::L2, 0x1_c003), Decoded::Table(at));
    // 4 KiB tables have ignored bits there.
    assert_eq!(
        read(k4, 48, Level::L2, 0x1_c003),
        Decoded::Table(Pa::new(0x1_c000))
    );
    assert_eq!(read(k4, 48, Level::L3, 0x8765_4321_f7fd), Decoded::Invalid);
    assert_eq!(
        read(k4, 48, Level::L0, 0x0040_8000_0000_07fd),
        Decoded::Invalid
    );
    assert_eq!(
        read(k64, 48, Level::L1, 0x0040_8400_0000_07fd),
        Decoded::Invalid
    );
    assert_eq!(read(k4, 48, Level::L3, 0x8765_4321_f7fe), Decoded::Invalid);
    // SH 01, and MemAttr 0100, are reserved.
    assert_eq!(
        read(k4, 48, Level::L3, 0x0000_0000_0000_15ff),
        Decoded::Reserved
    );
    assert_eq!(
        read(k4, 48, Level::L3, 0x0000_0000_0000_17d3),
        Decoded::Reserved
    );
}

#[test]
fn permissions_change_four_bits_and_no_other() {
    let page = Descriptor::from_u64(0x0040_8765_4321_f7ff);
    let none = Permissions {
        access: Access::None,
        execute: Execute::Allowed,
    };
    assert_eq!(page.with_permissions(none).as_u64(), 0x0000_8765_4321_f73f);
    assert_eq!(
        page.with_permissions(Permissions::READ_ONLY).as_u64(),
        0x0040_8765_4321_f77f
    );
}

/// Span in bytes of a contiguous group, from table 8.7.
#[test]
fn contiguous_groups_have_the_sizes_of_the_manual() {
    let span = |granule: Granule, level| {
        let entries = granule.log2_contiguous(level)?;
        Some(1u64 << (entries + granule.log2_span(level)))
    };
    let groups = |granule| Level::ALL.map(|level| span(granule, level));
    let (kib, mib, gib) = (1 << 10, 1 << 20, 1 << 30);
    let k4 = [None, Some(16 * gib), Some(32 * mib), Some(64 * kib)];
    assert_eq!(groups(Granule::Kib4), k4);
    assert_eq!(
        groups(Granule::Kib16),
        [None, None, Some(gib), Some(2 * mib)]
    );
    assert_eq!(
        groups(Granule::Kib64),
        [None, None, Some(16 * gib), Some(2 * mib)]
    );
}

#[test]
fn the_three_encodings_of_a_granule_are_kept_apart() {
    let encodings = |granule| (shape(granule, 40).tg(), granule.tlbi_tg());
    assert_eq!(encodings(Granule::Kib4), (0, 1));
    assert_eq!(encodings(Granule::Kib16), (2, 2));
    assert_eq!(encodings(Granule::Kib64), (1, 3));
}
