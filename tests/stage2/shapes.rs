//! Every start level and every concatenation of every granule, walked from the fields of an STE.

use std::collections::BTreeSet;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::testing::HostPlatform;
use portcullis::space::stage2::{PageSizes, Stage2};
use portcullis::spec::vmsa::{Attributes, Granule};

use super::config;
use super::walker::translate;

/// Maps a page at both ends and in the middle, and lets the walker find them and nothing else.
///
/// Says where it started, by `S2SL0`, and with how many tables.
fn walk_both_ends(granule: Granule, ipa_bits: u8, oas_bits: u8) -> (u8, u32) {
    let platform = HostPlatform::new();
    let mut shape = config(granule, ipa_bits);
    shape.oas_bits = oas_bits;
    let mut tables = Stage2::new(&platform, shape).expect("a legal shape, and memory");
    let page = granule.size_bytes();
    let places = [0, (1 << (ipa_bits - 1)) + 3 * page, (1 << ipa_bits) - page];
    let memory = |ipa: u64| ipa ^ (7 * page);
    for ipa in places {
        let (at, pa) = (Ipa::new(ipa), Pa::new(memory(ipa)));
        tables
            .map(at, pa, page, Attributes::MEMORY, PageSizes::Largest)
            .expect("it is free");
    }
    let walk = tables.walk();
    let mut read = |at: u64| {
        platform
            .read(Pa::new(at), 1)
            .expect("the walker stays inside")[0]
    };
    for ipa in places {
        let step = translate(&walk, ipa + 5, &mut read).expect("it is mapped");
        assert_eq!((step.found.ipa, step.found.level), (ipa, 3));
        let found = step.found.word & 0x0000_ffff_ffff_f000 & !(page - 1);
        let high = if granule == Granule::Kib64 {
            (step.found.word >> 12 & 0xf) << 48
        } else {
            0
        };
        assert_eq!(found | high, memory(ipa), "{granule:?} {ipa_bits} bits");
        assert!(translate(&walk, ipa ^ page, &mut read).is_none());
    }
    let change = tables.unmap(Ipa::new(0), 1 << ipa_bits);
    let change = change.expect("no leaf is cut").without_any_smmu();
    tables.reclaim(change).expect("they are its own");
    assert_eq!(tables.table_pages(), 0);
    let start = (walk.geometry.sl0(), walk.geometry.root_tables());
    assert_eq!(tables.dismantle().without_any_smmu().free(), 0);
    assert_eq!(platform.bytes_out(), 0);
    start
}

/// The starts that all widths of a granule lead to, and with how many tables each.
fn starts(granule: Granule, oas_bits: u8) -> BTreeSet<(u8, u32)> {
    // `S2T0SZ` is at most 39.
    (25..=oas_bits)
        .map(|ipa_bits| walk_both_ends(granule, ipa_bits, oas_bits))
        .collect()
}

fn all(starts: &[(u8, &[u32])]) -> BTreeSet<(u8, u32)> {
    let each = starts
        .iter()
        .flat_map(|(sl0, tables)| tables.iter().map(|count| (*sl0, *count)));
    each.collect()
}

const MANY: &[u32] = &[1, 2, 4, 8, 16];

#[test]
fn all_starts_and_concatenations_of_4_kib_are_walked() {
    // Levels 2, 1 and 0; there are no addresses wide enough for two tables of level 0.
    let expected = all(&[(0, MANY), (1, MANY), (2, &[1])]);
    assert_eq!(starts(Granule::Kib4, 48), expected);
}

#[test]
fn all_starts_and_concatenations_of_16_kib_are_walked() {
    // Levels 3, 2 and 1; 48 bits take two tables of level 1.
    let expected = all(&[(0, MANY), (1, MANY), (2, &[1, 2])]);
    let found = starts(Granule::Kib16, 48);
    assert_eq!(found, expected);
}

#[test]
fn all_starts_and_concatenations_of_64_kib_are_walked() {
    let expected = all(&[(0, MANY), (1, MANY), (2, &[1])]);
    assert_eq!(starts(Granule::Kib64, 48), expected);
    assert_eq!(starts(Granule::Kib64, 52), expected);
}
