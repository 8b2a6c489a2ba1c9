//! Descriptors by hand and against `aarch64-paging`; every refusal.

use std::boxed::Box;
use std::vec::Vec;

use aarch64_paging::descriptor::{El23Attributes, PhysicalAddress};
use aarch64_paging::paging::{Constraints, El2, MemoryRegion, RootTable};
use aarch64_paging::target::TargetAllocator;
use proptest::prelude::*;

use super::*;

const BASE: u64 = 0x4025_0000;

fn pool(count: usize) -> Box<[Table]> {
    (0..count).map(|_| Table::empty()).collect()
}

fn over(pool: &[Table]) -> Tables<'_> {
    Tables::new(pool, Pa::new(BASE), 48).expect("a pool with a root")
}

fn range(base: u64, size_bytes: u64) -> Extent<Pa> {
    Extent::<Pa>::new(Pa::new(base), size_bytes).expect("it fits")
}

fn words(pool: &[Table]) -> Vec<u64> {
    let words = pool.iter().flat_map(|table| &table.0);
    words.map(|word| word.load(Ordering::Relaxed)).collect()
}

/// Every word that is not 0: table, index, value.
fn set(pool: &[Table]) -> Vec<(usize, usize, u64)> {
    let words = words(pool);
    let all = words.iter().enumerate();
    all.filter(|(_, word)| **word != 0)
        .map(|(at, word)| (at / 512, at % 512, *word))
        .collect()
}

/// By hand from DDI 0487, D8.3: AF 10, SH 9:8, AP[2] 7, AP[1] 6, AttrIndx 4:2, page or table 1,
/// valid 0; XN 54.
#[test]
fn each_kind_has_its_bits() {
    let pool = pool(4);
    let mut tables = over(&pool);
    let kinds = [Kind::Text, Kind::ReadOnly, Kind::Data, Kind::Device];
    for (page, kind) in (0..).zip(kinds) {
        let page = range(0x4020_0000 + page * 0x1000, 0x1000);
        tables.map(page, kind).expect("it is mapped");
    }
    assert_eq!(
        set(&pool),
        [
            (0, 0, 0x0000_0000_4025_1003),
            (1, 1, 0x0000_0000_4025_2003),
            (2, 1, 0x0000_0000_4025_3003),
            (3, 0, 0x0000_0000_4020_07c7),
            (3, 1, 0x0040_0000_4020_17c7),
            (3, 2, 0x0040_0000_4020_2747),
            (3, 3, 0x0040_0000_4020_3443),
        ]
    );
}

#[test]
fn whole_entries_become_blocks_of_two_mebibytes_and_of_one_gibibyte() {
    let pool = pool(4);
    let mut tables = over(&pool);
    let memory = range(0x3fe0_0000, 0x4020_0000);
    tables.map(memory, Kind::Data).expect("it is mapped");
    assert_eq!(
        set(&pool),
        [
            (0, 0, 0x0000_0000_4025_1003),
            (1, 0, 0x0000_0000_4025_2003),
            (1, 1, 0x0040_0000_4000_0745),
            (2, 511, 0x0040_0000_3fe0_0745),
        ]
    );
}

#[test]
fn a_refusal_changes_nothing() {
    let pool = pool(5);
    let mut tables = over(&pool);
    let mapped = range(0x4020_0000, 0x3000);
    tables.map(mapped, Kind::Data).expect("it is mapped");
    let block = range(0x8000_0000, 0x4000_0000);
    tables.map(block, Kind::Data).expect("it is mapped");
    let before = words(&pool);
    let at = |at| MapError::AlreadyMapped { at: Pa::new(at) };
    let not_pages = |base, size_bytes| MapError::NotPages {
        base: Pa::new(base),
        size_bytes,
    };
    let out_of_reach = |base, size_bytes| MapError::OutOfReach {
        base: Pa::new(base),
        size_bytes,
        pa_bits: 48,
    };
    let refusals = [
        (range(0x4000_0000, 0x20_1000), at(0x4020_0000)),
        (range(0x4020_2000, 0x2000), at(0x4020_2000)),
        (range(0x4000_0000, 0x4000_0000), at(0x4000_0000)),
        (range(0x8000_1000, 0x1000), at(0x8000_1000)),
        (range(0x5000_0800, 0x1000), not_pages(0x5000_0800, 0x1000)),
        (range(0x5000_0000, 0x800), not_pages(0x5000_0000, 0x800)),
        (range(0x5000_0000, 0), not_pages(0x5000_0000, 0)),
        (
            range(0xffff_ffff_f000, 0x2000),
            out_of_reach(0xffff_ffff_f000, 0x2000),
        ),
        (
            range(0xc000_1000, 0x1000),
            MapError::OutOfTables { needed: 2, left: 1 },
        ),
        (
            range(0x80_0000_1000, 0x1000),
            MapError::OutOfTables { needed: 3, left: 1 },
        ),
    ];
    for (range, refusal) in refusals {
        assert_eq!(tables.map(range, Kind::Device), Err(refusal), "{range:?}");
        assert_eq!(words(&pool), before, "{range:?}");
    }
    let last = range(0xffff_ffff_f000, 0x1000);
    assert_eq!(
        tables.map(last, Kind::Data),
        Err(MapError::OutOfTables { needed: 3, left: 1 })
    );
}

#[test]
fn a_root_alone_is_the_least() {
    assert!(Tables::new(&[], Pa::new(BASE), 48).is_none());
    assert_eq!(over(&pool(1)).root(), Pa::new(BASE));
}

fn oracle_attributes(kind: Kind) -> El23Attributes {
    let common = El23Attributes::VALID | El23Attributes::USER_RES1 | El23Attributes::ACCESSED;
    let normal = El23Attributes::ATTRIBUTE_INDEX_1 | El23Attributes::INNER_SHAREABLE;
    common
        | match kind {
            Kind::Text => normal | El23Attributes::READ_ONLY,
            Kind::ReadOnly => normal | El23Attributes::READ_ONLY | El23Attributes::XN,
            Kind::Data => normal | El23Attributes::XN,
            Kind::Device => El23Attributes::XN,
        }
}

fn some_range() -> impl Strategy<Value = (Extent<Pa>, Kind)> {
    // Near the borders of tables and blocks of every level.
    let border = prop_oneof![
        Just(1u64 << 30),
        Just(1 << 39),
        Just(1 << 31),
        Just(0x60_0000)
    ];
    let size_pages = prop_oneof![1u64..20, 500u64..1600, 0x3_fff0u64..0x6_0000];
    let kind = prop_oneof![
        Just(Kind::Text),
        Just(Kind::ReadOnly),
        Just(Kind::Data),
        Just(Kind::Device)
    ];
    (border, 0u64..1000, size_pages, kind).prop_map(|(border, below, size_pages, kind)| {
        (range(border - below * 4096, size_pages * 4096), kind)
    })
}

proptest! {
    /// The whole tables, byte for byte, for every range that overlaps no earlier one.
    #[test]
    fn the_tables_are_those_of_aarch64_paging(ranges in prop::collection::vec(some_range(), 1..8)) {
        let pool = pool(64);
        let mut tables = over(&pool);
        let mut oracle = RootTable::new(TargetAllocator::new(BASE), 0, El2);
        let mut mapped: Vec<Extent<Pa>> = Vec::new();
        for (range, kind) in ranges {
            let overlaps = mapped.iter().any(|other| other.overlaps(&range));
            prop_assert_eq!(tables.map(range, kind).is_err(), overlaps);
            if overlaps {
                continue;
            }
            mapped.push(range);
            let base = range.base().as_u64() as usize;
            let region = MemoryRegion::new(base, range.end().as_u64() as usize);
            let (to, attributes) = (PhysicalAddress(base), oracle_attributes(kind));
            oracle
                .map_range(&region, to, attributes, Constraints::empty())
                .expect("the oracle maps it");
        }
        let expected = oracle.translation().as_bytes();
        let found: Vec<u8> = words(&pool).into_iter().flat_map(u64::to_le_bytes).collect();
        prop_assert_eq!(&found[..expected.len()], &expected[..]);
        prop_assert!(found[expected.len()..].iter().all(|byte| *byte == 0));
    }
}
