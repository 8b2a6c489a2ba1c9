//! Refusals by name, and who may give back what.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::NoTables;
use portcullis::hw::testing::HostPlatform;
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Error, Walkers};
use portcullis::spec::vmsa::{Attributes, GeometryError, Granule, Permissions};

use super::model::expect_gathered;
use super::walker::contents;
use super::{config, stage2};

#[test]
fn the_quota_refuses_by_name_and_changes_nothing() {
    let platform = HostPlatform::new();
    let mut shape = config(Granule::Kib4, 39);
    shape.tables.quota_pages = 3;
    let mut tables = Stage2::new(&platform, shape).expect("a legal shape, and memory");
    let map = |tables: &mut Stage2<'_, _>, ipa| {
        let (ipa, pa) = (Ipa::new(ipa), Pa::new(0x8000_0000));
        tables.map(ipa, pa, 0x1000, Attributes::MEMORY, PageSizes::Largest)
    };
    map(&mut tables, 0).expect("two tables of three");
    let refused = NoTables::OverQuota {
        pages: 4,
        quota_pages: 3,
    };
    assert_eq!(
        map(&mut tables, 0x4000_0000),
        Err(Stage2Error::NoTables(refused))
    );
    assert_eq!(tables.table_pages(), 2);
    map(&mut tables, 0x20_0000).expect("the third table");
    // A table that is not confirmed to be unused still counts.
    let change = tables
        .unmap(Ipa::new(0x20_0000), 0x1000)
        .expect("it is mapped");
    assert!(map(&mut tables, 0x40_0000).is_err());
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    map(&mut tables, 0x40_0000).expect("the third table again");
}

#[test]
fn tables_of_another_stage_2_are_not_taken() {
    let platform = HostPlatform::new();
    let mut one = stage2(&platform, Granule::Kib4, 39);
    let mut two = stage2(&platform, Granule::Kib4, 39);
    one.map(
        Ipa::new(0),
        Pa::new(0),
        0x1000,
        Attributes::MEMORY,
        PageSizes::Largest,
    )
    .expect("it is free");
    let change = one.unmap(Ipa::new(0), 0x1000).expect("it is mapped");
    let change = two.lose(change).expect_err("they are not its own");
    let tables = change.without_any_smmu();
    assert_eq!(tables.pages(), 2);
    let tables = two.reclaim(tables).expect_err("they are not its own");
    assert_eq!((one.table_pages(), two.table_pages()), (2, 0));
    one.reclaim(tables).expect("they are its own");
    assert_eq!(one.table_pages(), 0);
}

#[test]
fn what_a_holder_still_has_stays_out_of_use_when_the_stage_2_goes() {
    for log2_pages_per_chunk in [1, 4] {
        let platform = HostPlatform::new();
        let mut shape = config(Granule::Kib4, 39);
        shape.tables.log2_pages_per_chunk = log2_pages_per_chunk;
        let new = || Stage2::new(&platform, shape).expect("a legal shape, and memory");
        let mut one = new();
        let at = Ipa::new(0);
        one.map(
            at,
            Pa::new(0),
            0x1000,
            Attributes::MEMORY,
            PageSizes::Largest,
        )
        .expect("it is free");
        let change = one.unmap(at, 0x1000).expect("it is mapped");
        let held = change.without_any_smmu();
        assert_eq!(one.dismantle().without_any_smmu().free(), 2);
        let out = platform.bytes_out();
        assert_eq!(
            out,
            [0x5000, 0x1_1000][usize::from(log2_pages_per_chunk == 4)]
        );
        // The next one cannot be mistaken for the last one, wherever frames that come back go.
        let mut next = new();
        let held = next.reclaim(held).expect_err("they are not its own");
        assert_eq!(held.pages(), 2);
        assert_eq!(next.dismantle().without_any_smmu().free(), 0);
        assert_eq!(platform.bytes_out(), out);
    }
}

#[test]
fn an_unmap_of_many_islands_stays_a_bounded_value() {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, 39);
    for island in 0..20u64 {
        let at = island * 0x4000_0000;
        tables
            .map(
                Ipa::new(at),
                Pa::new(at),
                0x1000,
                Attributes::MEMORY,
                PageSizes::Largest,
            )
            .expect("it is free");
    }
    let before = contents(&platform, &tables.walk());
    let change = tables
        .unmap(Ipa::new(0), 20 * 0x4000_0000)
        .expect("no leaf is cut");
    expect_gathered(
        change.gathered(),
        &before,
        &contents(&platform, &tables.walk()),
    );
    assert_eq!(change.without_any_smmu().pages(), 40);
}

#[test]
fn two_changes_become_one_debt() {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, 39);
    for at in [0, 0x8000_0000] {
        tables
            .map(
                Ipa::new(at),
                Pa::new(at),
                0x1000,
                Attributes::MEMORY,
                PageSizes::Largest,
            )
            .expect("it is free");
    }
    let before = contents(&platform, &tables.walk());
    let mut change = tables
        .unmap(Ipa::new(0x8000_0000), 0x1000)
        .expect("it is mapped");
    let more = tables.unmap(Ipa::new(0), 0x1000).expect("it is mapped");
    change.absorb(more).expect("they are of one stage 2");
    expect_gathered(
        change.gathered(),
        &before,
        &contents(&platform, &tables.walk()),
    );
    assert_eq!(change.gathered().ranges().map(<[_]>::len), Some(2));
    let removed = change.without_any_smmu();
    assert_eq!(removed.pages(), 4);
    tables.reclaim(removed).expect("they are its own");
    assert_eq!(tables.table_pages(), 0);
}

/// The range of an emptied table is noted in whole blocks, which single commands step by.
#[test]
fn blocks_that_go_with_their_table_are_noted_as_whole_blocks() {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, 39);
    let at = 0x4020_0000;
    tables
        .map(
            Ipa::new(at),
            Pa::new(at),
            0x20_0000,
            Attributes::MEMORY,
            PageSizes::Largest,
        )
        .expect("it is free");
    let before = contents(&platform, &tables.walk());
    let change = tables
        .unmap(Ipa::new(at - 0x1000), 0x20_2000)
        .expect("no leaf is cut");
    expect_gathered(
        change.gathered(),
        &before,
        &contents(&platform, &tables.walk()),
    );
    let ranges = change.gathered().ranges().expect("not everything");
    let [range] = ranges else {
        panic!("one range: {ranges:?}");
    };
    assert_eq!(
        (range.base(), range.size_bytes()),
        (Ipa::new(0x4000_0000), 0x60_0000)
    );
    assert_eq!(range.log2_step(Granule::Kib4), 21);
    assert!(range.removed_tables());
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    assert_eq!(tables.table_pages(), 0);
}

#[test]
fn a_change_of_another_stage_2_is_not_continued() {
    let platform = HostPlatform::new();
    let one = stage2(&platform, Granule::Kib4, 39);
    let mut two = stage2(&platform, Granule::Kib4, 39);
    two.map(
        Ipa::new(0),
        Pa::new(0),
        0x1000,
        Attributes::MEMORY,
        PageSizes::Largest,
    )
    .expect("it is free");
    let mut change = one.nothing_owed();
    let result = two.unmap_into(&mut change, Ipa::new(0), 0x1000);
    assert_eq!(result, Err(Stage2Error::ForeignChange));
    assert!(two.query(Ipa::new(0)).is_some());
}

#[test]
fn what_is_no_range_of_pages_is_refused_by_name() {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, 39);
    let ipa_bits = 39;
    for (ipa, size_bytes) in [(0x800, 0x1000), (0x1000, 0x800), (0x1000, 0)] {
        let ipa = Ipa::new(ipa);
        let refusal = Stage2Error::NotWholePages { ipa, size_bytes };
        let map = tables.map(
            ipa,
            Pa::new(0),
            size_bytes,
            Attributes::MEMORY,
            PageSizes::Largest,
        );
        assert_eq!(map, Err(refusal));
        assert_eq!(tables.unmap(ipa, size_bytes).err(), Some(refusal));
        let protect = tables.protect(ipa, size_bytes, Permissions::READ_ONLY);
        assert_eq!(protect.err(), Some(refusal));
    }
    let mut map = |ipa, pa, size| {
        let (ipa, pa) = (Ipa::new(ipa), Pa::new(pa));
        tables.map(ipa, pa, size, Attributes::MEMORY, PageSizes::Largest)
    };
    let past_input = Err(Stage2Error::PastInput { ipa_bits });
    assert_eq!(map((1 << 39) - 0x1000, 0, 0x2000), past_input);
    assert_eq!(map(u64::MAX - 0xfff, 0, 0x1000), past_input);
    let pa = Pa::new(0x800);
    assert_eq!(map(0, 0x800, 0x1000), Err(Stage2Error::NotAPage { pa }));
    let past_output = Err(Stage2Error::PastOutput { output_bits: 48 });
    assert_eq!(map(0, (1 << 48) - 0x1000, 0x2000), past_output);
    assert_eq!(map((1 << 39) - 0x1000, (1 << 48) - 0x1000, 0x1000), Ok(()));
    assert!(tables.query(Ipa::new((1 << 39) - 1)).is_some());
    assert_eq!(tables.query(Ipa::new(1 << 39)), None);
    assert_eq!(tables.query(Ipa::new(u64::MAX)), None);
}

#[test]
fn a_shape_that_cannot_be_takes_no_memory() {
    let platform = HostPlatform::new();
    let refused = Stage2::new(&platform, config(Granule::Kib4, 49)).err();
    let error = GeometryError::InputTooWide {
        ipa_bits: 49,
        at_most: 48,
    };
    assert_eq!(refused, Some(Stage2Error::Shape(error)));
    platform.fail_after(Some(0));
    let refused = Stage2::new(&platform, config(Granule::Kib4, 48)).err();
    let error = NoTables::NoFrames { log2_bytes: 12 };
    assert_eq!(refused, Some(Stage2Error::NoTables(error)));
    platform.fail_after(None);
    // The host's memory lies above 32 bits.
    let mut shape = config(Granule::Kib4, 32);
    shape.oas_bits = 32;
    let refused = Stage2::new(&platform, shape).err();
    assert!(matches!(
        refused,
        Some(Stage2Error::NoTables(NoTables::FramesTooHigh { .. }))
    ));
    assert_eq!(platform.bytes_out(), 0);
}

#[test]
fn splitting_takes_as_many_tables_as_there_are_levels_to_split_and_no_more() {
    // What is mapped, what is unmapped of it, how many tables there are then.
    let cases = [
        // A page out of a 2 MiB block.
        (0x20_0000, 0x1000, 0x2000, 2),
        // From the middle of one block to the middle of the next.
        (0x40_0000, 0x10_0000, 0x30_0000, 3),
        // A page out of a 1 GiB block.
        (0x4000_0000, 0x1000, 0x2000, 2),
        // From the first 2 MiB of a 1 GiB block to its last.
        (0x4000_0000, 0x1000, 0x3fff_f000, 3),
        // The head of one 1 GiB block stays whole in blocks of 2 MiB; so does the tail of the next.
        (0x8000_0000, 0x3fe0_0000, 0x4020_0000, 2),
        (0x8000_0000, 0x3fe0_1000, 0x401f_f000, 4),
    ];
    for (mapped, first, end, tables_after) in cases {
        let platform = HostPlatform::new();
        let mut shape = config(Granule::Kib4, 39);
        shape.tables.quota_pages = tables_after;
        let mut tables = Stage2::new(&platform, shape).expect("a legal shape, and memory");
        tables
            .map(
                Ipa::new(0),
                Pa::new(0),
                mapped,
                Attributes::MEMORY,
                PageSizes::Largest,
            )
            .expect("it is free");
        let refused = tables.unmap(Ipa::new(first), end - first).err();
        assert!(
            matches!(refused, Some(Stage2Error::BreakNeeded { .. })),
            "{refused:?}"
        );
        tables.declare(Walkers::Absent);
        let change = tables
            .unmap(Ipa::new(first), end - first)
            .expect("enough tables");
        let unconfirmed = change.without_any_smmu();
        assert_eq!(tables.table_pages(), tables_after);
        tables.reclaim(unconfirmed).expect("they are its own");
        for (at, is_mapped) in [
            (first - 1, true),
            (first, false),
            (end - 1, false),
            (end, true),
        ] {
            let found = tables.query(Ipa::new(at)).map(|mapping| mapping.pa);
            assert_eq!(found, is_mapped.then_some(Pa::new(at)), "{at:#x}");
        }
    }
}

#[test]
fn a_stage_2_and_what_it_owes_may_go_to_another_cpu() {
    fn moves<T: Send + Sync>(_: &T) {}
    let platform = HostPlatform::new();
    let tables = stage2(&platform, Granule::Kib4, 39);
    moves(&tables);
    moves(&tables.nothing_owed());
}
