//! Leaves that change their size, step by step and word by word.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::testing::{Access, HostPlatform};
use portcullis::hw::{Barrier, NoTables};
use portcullis::smmu::{Features, Implementation, StallModel, Unwalkable};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Error, Walkers};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, Permissions};

use super::walker::{Found, contents, translate};
use super::{GIB, KIB4, MIB2, config};

const NT: u64 = 1 << 16;
const CONTIGUOUS: u64 = 1 << 52;
/// Ordinary memory: XN, AF, SH 11, S2AP 11, MemAttr 1111; then 01 for a block, 11 for a page.
const BLOCK: u64 = 0x0040_0000_0000_07fd;
const PAGE: u64 = 0x0040_0000_0000_07ff;

fn at_level(platform: &HostPlatform, level: BbmLevel) -> Stage2<'_, HostPlatform> {
    let mut shape = config(Granule::Kib4, 39);
    shape.bbm = level;
    Stage2::new(platform, shape).expect("a legal shape, and memory")
}

/// Maps one to one.
fn map(tables: &mut Stage2<'_, HostPlatform>, at: u64, size: u64, sizes: PageSizes) {
    let (ipa, pa) = (Ipa::new(at), Pa::new(at));
    tables
        .map(ipa, pa, size, Attributes::MEMORY, sizes)
        .expect("it is free");
}

fn word_at(platform: &HostPlatform, tables: &Stage2<'_, HostPlatform>, at: u64) -> u64 {
    leaf_at(platform, tables, at).word
}

fn leaf_at(platform: &HostPlatform, tables: &Stage2<'_, HostPlatform>, at: u64) -> Found {
    let mut read = |word| platform.read(Pa::new(word), 1).expect("it is out")[0];
    let step = translate(&tables.walk(), at, &mut read);
    step.expect("it is mapped").found
}

fn stores(log: &[Access]) -> Vec<u64> {
    let value = |access: &Access| match access {
        Access::Store(_, value) => Some(*value),
        _ => None,
    };
    log.iter().filter_map(value).collect()
}

#[test]
fn at_level_1_a_block_is_marked_and_confirmed_before_it_is_a_table() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level1);
    map(&mut tables, MIB2, MIB2, PageSizes::Largest);
    assert_eq!(word_at(&platform, &tables, MIB2), MIB2 | BLOCK);
    let walk = tables.walk();
    let (split, log) = platform.logged(|| tables.split(Ipa::new(MIB2 + KIB4), KIB4));
    let split = split.expect("level 1");
    assert_eq!(stores(&log), [MIB2 | BLOCK | NT]);
    assert_eq!(log.last(), Some(&Access::Barrier(Barrier::Publish)));
    let owed = split.gathered().ranges().expect("not everything").to_vec();
    assert_eq!(owed.len(), 1);
    assert_eq!(
        (owed[0].base().as_u64(), owed[0].size_bytes()),
        (MIB2, MIB2)
    );
    let splitting = split.without_any_smmu();
    let (change, log) = platform.logged(|| splitting.finish());
    let stores = stores(&log);
    assert_eq!(
        stores.len(),
        512 + 1 + 16,
        "a table, its link, one group without the hint"
    );
    assert_eq!(stores[511], (2 * MIB2 - KIB4) | PAGE | CONTIGUOUS);
    // Page 1 is cut out: its group of 16 is none, the others are.
    let word = |page: u64| {
        let mut read = |word| platform.read(Pa::new(word), 1).expect("it is out")[0];
        translate(&walk, MIB2 + page * KIB4, &mut read)
            .expect("mapped")
            .found
            .word
    };
    for page in 0..512 {
        let hint = if page < 16 { 0 } else { CONTIGUOUS };
        assert_eq!(word(page), (MIB2 + page * KIB4) | PAGE | hint);
    }
    let owed = change.gathered().ranges().expect("not everything");
    assert_eq!(
        (owed[0].base().as_u64(), owed[0].size_bytes()),
        (MIB2, MIB2)
    );
    assert_eq!(change.without_any_smmu().pages(), 0);
}

#[test]
fn at_level_1_a_joined_block_is_marked_until_its_pages_are_forgotten() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level1);
    map(&mut tables, MIB2, MIB2, PageSizes::PagesOnly);
    assert_eq!(word_at(&platform, &tables, MIB2), MIB2 | PAGE);
    let (join, log) = platform.logged(|| tables.join(Ipa::new(MIB2), MIB2));
    let join = join.expect("level 1");
    assert_eq!(stores(&log), [MIB2 | BLOCK | NT]);
    assert_eq!(log.last(), Some(&Access::Barrier(Barrier::Publish)));
    let owed = join.gathered().ranges().expect("not everything").to_vec();
    assert_eq!(
        (owed[0].base().as_u64(), owed[0].size_bytes()),
        (MIB2, MIB2)
    );
    assert!(owed[0].removed_tables(), "the pointer is cached too");
    assert_eq!(owed[0].log2_step(Granule::Kib4), 12, "every page of it");
    let joining = join.without_any_smmu();
    let (change, log) = platform.logged(|| joining.finish());
    assert_eq!(stores(&log), [MIB2 | BLOCK]);
    assert_eq!(log.last(), Some(&Access::Barrier(Barrier::Publish)));
    let owed = change.gathered().ranges().expect("not everything");
    assert_eq!(
        (owed[0].base().as_u64(), owed[0].size_bytes()),
        (MIB2, MIB2)
    );
    let removed = change.without_any_smmu();
    assert_eq!(removed.pages(), 1);
    tables.reclaim(removed).expect("it is its own");
    assert_eq!(tables.table_pages(), 1);
}

#[test]
fn at_level_2_one_store_and_one_invalidation_do_it() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level2);
    map(&mut tables, GIB, GIB, PageSizes::Largest);
    // A page out of 1 GiB: two tables, one link.
    let (change, log) = platform.logged(|| tables.unmap(Ipa::new(GIB + KIB4), KIB4));
    let change = change.expect("level 2");
    let barriers = log
        .iter()
        .filter(|access| matches!(access, Access::Barrier(_)));
    assert_eq!(barriers.count(), 2, "before the link, and after all");
    let owed = change.gathered().ranges().expect("not everything");
    assert_eq!(owed.len(), 1);
    assert_eq!((owed[0].base().as_u64(), owed[0].size_bytes()), (GIB, GIB));
    assert!(!owed[0].removed_tables());
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    assert_eq!(tables.query(Ipa::new(GIB + KIB4)), None);
    assert_eq!(leaf_at(&platform, &tables, GIB).log2_bytes, 12);
    assert_eq!(leaf_at(&platform, &tables, GIB + MIB2).log2_bytes, 21);
    map(&mut tables, GIB + KIB4, KIB4, PageSizes::Largest);
    let join = tables.join(Ipa::new(0), 3 * GIB).expect("level 2");
    assert!(!join.gathered().is_nothing());
    let change = join.without_any_smmu().finish();
    assert!(change.gathered().is_nothing(), "the first step was all");
    let removed = change.without_any_smmu();
    assert_eq!(removed.pages(), 2);
    tables.reclaim(removed).expect("they are its own");
    assert_eq!(word_at(&platform, &tables, GIB), GIB | BLOCK);
    assert_eq!(tables.table_pages(), 0);
}

#[test]
fn at_level_0_nothing_changes_its_size_under_walkers() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level0);
    map(&mut tables, MIB2, MIB2, PageSizes::Largest);
    map(&mut tables, 2 * MIB2, MIB2, PageSizes::PagesOnly);
    let before = contents(&platform, &tables.walk()).leaves;
    let refusal = Stage2Error::BreakNeeded {
        ipa: Ipa::new(MIB2),
        log2_bytes: 21,
    };
    let page = Ipa::new(MIB2 + KIB4);
    assert_eq!(tables.unmap(page, KIB4).err(), Some(refusal));
    let refused = tables.protect(page, KIB4, Permissions::READ_ONLY).err();
    assert_eq!(refused, Some(refusal));
    assert_eq!(tables.split(page, KIB4).err(), Some(refusal));
    let refusal = Stage2Error::BreakNeeded {
        ipa: Ipa::new(2 * MIB2),
        log2_bytes: 21,
    };
    assert_eq!(tables.join(Ipa::new(0), GIB).err(), Some(refusal));
    assert_eq!(contents(&platform, &tables.walk()).leaves, before);
    // Nobody walks: then it may.
    tables.declare(Walkers::Absent);
    let join = tables.join(Ipa::new(0), GIB).expect("nobody walks");
    let change = join.without_any_smmu().finish().without_any_smmu();
    tables.reclaim(change).expect("they are its own");
    assert_eq!(word_at(&platform, &tables, 2 * MIB2), (2 * MIB2) | BLOCK);
    let change = tables.unmap(page, KIB4).expect("nobody walks");
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    assert_eq!(word_at(&platform, &tables, MIB2), MIB2 | PAGE, "no hint");
}

#[test]
fn at_level_1_a_part_is_refused_until_it_was_split() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level1);
    map(&mut tables, MIB2, MIB2, PageSizes::Largest);
    let page = Ipa::new(MIB2 + KIB4);
    let refusal = Stage2Error::SplitNeeded {
        ipa: Ipa::new(MIB2),
        log2_bytes: 21,
    };
    assert_eq!(tables.unmap(page, KIB4).err(), Some(refusal));
    let refused = tables.protect(page, KIB4, Permissions::READ_ONLY).err();
    assert_eq!(refused, Some(refusal));
    // A split that was begun and dropped is none: what it marked was never confirmed.
    drop(tables.split(page, KIB4).expect("level 1"));
    assert_eq!(word_at(&platform, &tables, MIB2), MIB2 | BLOCK | NT);
    assert_eq!(tables.unmap(page, KIB4).err(), Some(refusal));
    let split = tables.split(page, KIB4).expect("level 1");
    assert!(!split.gathered().is_nothing(), "owed again");
    let mut change = split.without_any_smmu().finish();
    tables
        .unmap_into(&mut change, page, KIB4)
        .expect("it was split");
    assert_eq!(
        change.gathered().ranges().map(<[_]>::len),
        Some(1),
        "one debt"
    );
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    assert_eq!(tables.query(page), None);
}

#[test]
fn a_join_makes_an_abandoned_split_whole_again() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level1);
    map(&mut tables, MIB2, MIB2, PageSizes::Largest);
    drop(tables.split(Ipa::new(MIB2), KIB4).expect("level 1"));
    assert_eq!(word_at(&platform, &tables, MIB2), MIB2 | BLOCK | NT);
    let join = tables.join(Ipa::new(MIB2), MIB2).expect("level 1");
    assert!(join.gathered().is_nothing(), "there is no table to join");
    let change = join.without_any_smmu().finish();
    assert!(!change.gathered().is_nothing());
    assert_eq!(change.without_any_smmu().pages(), 0);
    assert_eq!(word_at(&platform, &tables, MIB2), MIB2 | BLOCK);
}

#[test]
fn a_table_is_joined_only_if_one_leaf_can_say_the_same() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level2);
    let at = |block: u64| block * MIB2;
    // 1: whole. 2: a page is read-only. 3: a page is missing. 4: memory lies across. 5: two
    // halves are swapped. 6: whole but for memory that is not aligned.
    map(&mut tables, at(1), MIB2, PageSizes::PagesOnly);
    map(&mut tables, at(2), MIB2, PageSizes::PagesOnly);
    let change = tables.protect(Ipa::new(at(3) - KIB4), KIB4, Permissions::READ_ONLY);
    change.expect("it is mapped").without_any_smmu();
    map(&mut tables, at(3), MIB2 - KIB4, PageSizes::PagesOnly);
    let mut to = |ipa: u64, pa: u64, size: u64| {
        let (ipa, pa) = (Ipa::new(ipa), Pa::new(pa));
        let attributes = Attributes::MEMORY;
        tables
            .map(ipa, pa, size, attributes, PageSizes::PagesOnly)
            .expect("it is free");
    };
    to(at(4), at(4), MIB2 - KIB4);
    to(at(5) - KIB4, GIB, KIB4);
    to(at(5), at(5) + MIB2 / 2, MIB2 / 2);
    to(at(5) + MIB2 / 2, at(5), MIB2 / 2);
    to(at(6), at(6) + KIB4, MIB2);
    let join = tables.join(Ipa::new(0), GIB).expect("level 2");
    let change = join.without_any_smmu().finish().without_any_smmu();
    assert_eq!(change.pages(), 1);
    tables.reclaim(change).expect("they are its own");
    let sizes = (1..7).map(|block| leaf_at(&platform, &tables, at(block)).log2_bytes);
    assert_eq!(sizes.collect::<Vec<_>>(), [21, 12, 12, 12, 12, 12]);
    let hint = |at: u64| word_at(&platform, &tables, at) & CONTIGUOUS != 0;
    // Groups that are whole get the hint all the same.
    assert!(hint(at(2)) && hint(at(3)) && hint(at(5)));
    assert!(!hint(at(3) - KIB4) && !hint(at(4) - 2 * KIB4) && !hint(at(6)));
}

/// Group sizes from the table of the fact sheet: page size, what is mapped, how many have the hint.
#[test]
fn whole_groups_have_the_hint_where_it_may_go_again() {
    const KIB16: u64 = 0x4000;
    const KIB64: u64 = 0x1_0000;
    // Granule, from, size, memory off by, leaves, leaves with the hint.
    let cases = [
        (Granule::Kib4, 0, 16 * KIB4, 0, 16, 16),
        (Granule::Kib4, KIB4, 16 * KIB4, 0, 16, 0),
        (Granule::Kib4, KIB4, 31 * KIB4, 0, 31, 16),
        (Granule::Kib4, 0, 16 * KIB4, KIB4, 16, 0),
        (Granule::Kib4, 0, 33 * KIB4, 16 * KIB4, 33, 32),
        (Granule::Kib4, 0, 16 * MIB2, 0, 16, 16),
        (Granule::Kib4, MIB2, 31 * MIB2, 0, 31, 16),
        (Granule::Kib4, 0, 16 * GIB, 0, 16, 16),
        (Granule::Kib16, 0, 128 * KIB16, 0, 128, 128),
        (Granule::Kib16, 0, 127 * KIB16, 0, 127, 0),
        (Granule::Kib16, 0, 32 << 25, 0, 32, 32),
        (Granule::Kib64, 0, 32 * KIB64, 0, 32, 32),
        (Granule::Kib64, KIB64, 32 * KIB64, 0, 32, 0),
        (Granule::Kib64, 0, 32 << 29, 0, 32, 32),
    ];
    for level in [BbmLevel::Level0, BbmLevel::Level1, BbmLevel::Level2] {
        for (granule, from, size, off, leaves, hints) in cases {
            let platform = HostPlatform::new();
            let mut shape = config(granule, 40);
            shape.bbm = level;
            let mut tables = Stage2::new(&platform, shape).expect("a legal shape, and memory");
            let (ipa, pa) = (Ipa::new(from), Pa::new((1 << 36) + from + off));
            tables
                .map(ipa, pa, size, Attributes::MEMORY, PageSizes::Largest)
                .expect("it is free");
            let found = contents(&platform, &tables.walk()).leaves;
            let with_hint = found
                .iter()
                .filter(|leaf| leaf.word & CONTIGUOUS != 0)
                .count();
            let expected = if level == BbmLevel::Level0 { 0 } else { hints };
            assert_eq!(
                (found.len(), with_hint),
                (leaves, expected),
                "{granule:?} {from:#x} {size:#x}"
            );
        }
    }
}

#[test]
fn pages_that_are_to_go_alone_have_no_hint() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level2);
    map(&mut tables, 0, 16 * KIB4, PageSizes::PagesOnly);
    assert_eq!(word_at(&platform, &tables, 0), PAGE);
}

/// A member goes: first the hint of all, then a barrier, then the member; all of the group is owed.
#[test]
fn a_group_is_broken_before_a_member_goes() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level1);
    map(&mut tables, 0, 32 * KIB4, PageSizes::Largest);
    let (change, log) = platform.logged(|| tables.unmap(Ipa::new(5 * KIB4), KIB4));
    let change = change.expect("the hint may go at once");
    let expected: Vec<u64> = (0..16)
        .map(|page| (page * KIB4) | PAGE)
        .chain([0])
        .collect();
    assert_eq!(stores(&log), expected);
    assert_eq!(log[16], Access::Barrier(Barrier::Publish));
    assert_eq!(log[18], Access::Barrier(Barrier::Publish));
    let owed = change.gathered().ranges().expect("not everything");
    assert_eq!(owed.len(), 1);
    assert_eq!(
        (owed[0].base().as_u64(), owed[0].size_bytes()),
        (0, 16 * KIB4)
    );
    assert_eq!(change.without_any_smmu().pages(), 0);
    let hints = contents(&platform, &tables.walk()).leaves;
    let hints = hints
        .iter()
        .filter(|leaf| leaf.word & CONTIGUOUS != 0)
        .count();
    assert_eq!(hints, 16, "the other group is as it was");
}

#[test]
fn at_level_1_a_member_changes_its_permissions_only_after_its_group_was_forgotten() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level1);
    map(&mut tables, 0, 16 * KIB4, PageSizes::Largest);
    let refusal = Stage2Error::SplitNeeded {
        ipa: Ipa::new(0),
        log2_bytes: 16,
    };
    let page = Ipa::new(5 * KIB4);
    let refused = tables.protect(page, KIB4, Permissions::READ_ONLY).err();
    assert_eq!(refused, Some(refusal));
    let split = tables.split(page, KIB4).expect("level 1");
    let owed = split.gathered().ranges().expect("not everything");
    assert_eq!(
        (owed[0].base().as_u64(), owed[0].size_bytes()),
        (0, 16 * KIB4)
    );
    let change = split.without_any_smmu().finish();
    assert!(change.gathered().is_nothing(), "no block was cut");
    assert_eq!(change.without_any_smmu().pages(), 0);
    let change = tables.protect(page, KIB4, Permissions::READ_ONLY);
    change.expect("it stands alone").without_any_smmu();
    // S2AP 01 of one, and all others as they were.
    for page in 0..16 {
        let bits = if page == 5 { PAGE & !(1 << 7) } else { PAGE };
        assert_eq!(
            word_at(&platform, &tables, page * KIB4),
            (page * KIB4) | bits
        );
    }
    // All of a group goes at once, with its hints.
    map(&mut tables, 16 * KIB4, 16 * KIB4, PageSizes::Largest);
    let group = Ipa::new(16 * KIB4);
    let change = tables.protect(group, 16 * KIB4, Permissions::READ_ONLY);
    change.expect("no group is cut").without_any_smmu();
    let expected = (16 * KIB4) | PAGE & !(1 << 7) | CONTIGUOUS;
    assert_eq!(word_at(&platform, &tables, 16 * KIB4), expected);
}

#[test]
fn a_block_of_a_group_is_split_with_its_group() {
    for level in [BbmLevel::Level1, BbmLevel::Level2] {
        let platform = HostPlatform::new();
        let mut tables = at_level(&platform, level);
        map(&mut tables, 0, 16 * MIB2, PageSizes::Largest);
        assert_eq!(word_at(&platform, &tables, 0), BLOCK | CONTIGUOUS);
        let split = tables
            .split(Ipa::new(MIB2), 16 * KIB4)
            .expect("a level that can");
        let change = split.without_any_smmu().finish().without_any_smmu();
        tables.reclaim(change).expect("they are its own");
        assert_eq!(word_at(&platform, &tables, 0), BLOCK);
        let first = word_at(&platform, &tables, MIB2);
        assert_eq!(
            first,
            MIB2 | PAGE | CONTIGUOUS,
            "16 pages are a group again"
        );
        let change = tables.unmap(Ipa::new(MIB2), 16 * KIB4);
        assert_eq!(change.expect("it was split").without_any_smmu().pages(), 0);
    }
}

#[test]
fn a_split_without_tables_changes_nothing() {
    let platform = HostPlatform::new();
    let mut shape = config(Granule::Kib4, 39);
    shape.bbm = BbmLevel::Level1;
    shape.tables.quota_pages = 1;
    let mut tables = Stage2::new(&platform, shape).expect("a legal shape, and memory");
    map(&mut tables, MIB2, MIB2, PageSizes::Largest);
    let refused = tables.split(Ipa::new(MIB2), KIB4).err();
    let refusal = NoTables::OverQuota {
        pages: 2,
        quota_pages: 1,
    };
    assert_eq!(refused, Some(Stage2Error::NoTables(refusal)));
    assert_eq!(
        word_at(&platform, &tables, MIB2),
        MIB2 | BLOCK,
        "not marked"
    );
}

/// What an abandoned join left stale is owed by every change, until the lost tables come back.
#[test]
fn an_abandoned_join_is_owed_by_whatever_comes_next() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level2);
    map(&mut tables, MIB2, MIB2, PageSizes::PagesOnly);
    map(&mut tables, GIB, KIB4, PageSizes::Largest);
    let mut change = tables.nothing_owed();
    drop(tables.join(Ipa::new(MIB2), MIB2).expect("level 2"));
    assert_eq!(tables.lost_pages(), 1);
    let page_of_it = |change: &portcullis::smmu::Gathered| {
        let ranges = change.ranges().expect("not everything").iter();
        let mut of_it = ranges.filter(|range| range.base().as_u64() == MIB2);
        of_it.any(|range| range.log2_step(Granule::Kib4) == 12 && range.removed_tables())
    };
    tables
        .unmap_into(&mut change, Ipa::new(GIB), KIB4)
        .expect("it is mapped");
    assert!(page_of_it(change.gathered()));
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    let change = tables.protect(Ipa::new(MIB2), MIB2, Permissions::READ_ONLY);
    assert!(page_of_it(change.expect("it is mapped").gathered()));
    let lost = tables.recover().without_any_smmu();
    tables.reclaim(lost).expect("they are its own");
    let change = tables.unmap(Ipa::new(MIB2), MIB2).expect("it is mapped");
    assert!(!page_of_it(change.gathered()));
}

fn features() -> Features {
    Features {
        has_stage1: true,
        says_coherent: true,
        has_ats: false,
        has_split_ats: false,
        records_ats_errors: false,
        has_pri: false,
        has_el2: false,
        has_two_level_streams: true,
        has_two_level_cds: true,
        has_range_invalidation: true,
        has_msi: false,
        stalls: StallModel::Terminate,
        aborts_only: true,
        asid_bits: 16,
        vmid_bits: 16,
        stream_bits: 16,
        substream_bits: 0,
        log2_max_commands: 8,
        log2_max_events: 8,
        bbm_level: 2,
        output_bits: 48,
        needs_flush_of_new_tables: false,
        has_16k_granule: true,
        has_64k_granule: true,
        stall_max: 0,
        minor_revision: 2,
        implementation: Implementation {
            implementer: 0,
            product: 0,
            variant: 0,
            revision: 0,
        },
    }
}

#[test]
fn what_several_smmus_can_walk_is_the_least_of_them() {
    let mut shape = config(Granule::Kib16, 40);
    shape.bbm = BbmLevel::Level2;
    shape.vmid = portcullis::id::Vmid::new(0x100);
    let mut narrow = features();
    (narrow.output_bits, narrow.bbm_level) = (44, 1);
    for one in [features(), narrow, features()] {
        shape.fit(&one).expect("it can");
    }
    assert_eq!((shape.oas_bits, shape.bbm), (44, BbmLevel::Level1));
    let fitted = shape;
    let mut poor = features();
    (poor.has_16k_granule, poor.bbm_level) = (false, 0);
    let refusal = Unwalkable::Granule { log2_granule: 14 };
    assert_eq!(shape.fit(&poor), Err(refusal));
    let mut small = features();
    (small.vmid_bits, small.bbm_level) = (8, 0);
    assert_eq!(shape.fit(&small), Err(Unwalkable::VmidSize));
    assert_eq!(shape, fitted, "a refusal changes nothing");
}

/// A split, an unmap and a protect, and one invalidation for all three.
#[test]
fn what_is_split_unmapped_and_protected_is_invalidated_once() {
    let platform = HostPlatform::new();
    let mut tables = at_level(&platform, BbmLevel::Level1);
    let other = at_level(&platform, BbmLevel::Level1);
    map(&mut tables, MIB2, MIB2, PageSizes::Largest);
    let (gone, kept) = (Ipa::new(MIB2), Ipa::new(MIB2 + 32 * KIB4));
    let split = tables.split(gone, 33 * KIB4).expect("level 1");
    let mut change = split.without_any_smmu().finish();
    tables
        .unmap_into(&mut change, gone, 16 * KIB4)
        .expect("it was split");
    let read_only = Permissions::READ_ONLY;
    let refusal = Stage2Error::SplitNeeded {
        ipa: Ipa::new(MIB2 + 48 * KIB4),
        log2_bytes: 16,
    };
    let refused = tables.protect_into(&mut change, kept, 17 * KIB4, read_only);
    assert_eq!(refused, Err(refusal), "the next group was not cut");
    tables
        .protect_into(&mut change, kept, KIB4, read_only)
        .expect("it was split");
    let refused = tables.protect_into(&mut other.nothing_owed(), kept, KIB4, read_only);
    assert_eq!(refused, Err(Stage2Error::ForeignChange));
    let owed = change.gathered().ranges().expect("not everything");
    assert_eq!(owed.len(), 1);
    assert_eq!(
        (owed[0].base().as_u64(), owed[0].size_bytes()),
        (MIB2, MIB2)
    );
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    assert_eq!(tables.query(gone), None);
    let found = tables.query(kept).expect("it is mapped");
    assert_eq!(found.attributes.permissions, read_only);
}
