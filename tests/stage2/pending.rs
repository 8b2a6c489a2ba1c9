//! At BBML 1, members of a group that is none any more keep their permissions until no SMMU can hold
//! the group (§3.21.1.2).

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::testing::HostPlatform;
use portcullis::smmu::Unsynced;
use portcullis::space::stage2::{PageSizes, Reclaim, Stage2, Stage2Error, Walkers};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, Permissions};

use super::config;

const PAGE: u64 = 0x1000;
const GROUP: u64 = 16 * PAGE;
const READ_ONLY: Permissions = Permissions::READ_ONLY;

/// Four groups of pages, from address 0 on.
fn groups(platform: &HostPlatform, level: BbmLevel) -> Stage2<'_, HostPlatform> {
    let mut shape = config(Granule::Kib4, 32);
    shape.bbm = level;
    let mut tables = Stage2::new(platform, shape).expect("a legal shape, and memory");
    let (ipa, pa) = (Ipa::new(0), Pa::new(0x4001_0000));
    tables
        .map(ipa, pa, 4 * GROUP, Attributes::MEMORY, PageSizes::Largest)
        .expect("it is free");
    tables
}

fn confirm<'p>(tables: &mut Stage2<'p, HostPlatform>, change: Unsynced<Reclaim<'p, HostPlatform>>) {
    let freed = change.without_any_smmu();
    tables.reclaim(freed).expect("its own");
}

fn refusal(ipa: u64) -> Stage2Error {
    Stage2Error::SplitNeeded {
        ipa: Ipa::new(ipa),
        log2_bytes: 16,
    }
}

fn first_page_of(group: u64) -> Ipa {
    Ipa::new(group * GROUP)
}

/// The pages of a group but the first.
fn protect_rest(tables: &mut Stage2<'_, HostPlatform>, group: u64) -> Result<(), Stage2Error> {
    let rest = Ipa::new(group * GROUP + PAGE);
    let change = tables.protect(rest, GROUP - PAGE, READ_ONLY);
    change.map(Unsynced::without_any_smmu)
}

#[test]
fn an_unmap_ends_it_when_it_is_confirmed_and_not_before() {
    let platform = HostPlatform::new();
    let mut tables = groups(&platform, BbmLevel::Level1);
    let change = tables.unmap(first_page_of(1), PAGE).expect("a removal");
    assert_eq!(protect_rest(&mut tables, 1), Err(refusal(GROUP)));
    let whole = tables.protect(Ipa::new(2 * GROUP), GROUP, READ_ONLY);
    assert!(whole.is_ok(), "another group");
    confirm(&mut tables, change);
    assert_eq!(protect_rest(&mut tables, 1), Ok(()));
}

#[test]
fn a_later_change_covers_an_earlier_one_and_not_the_other_way_round() {
    let platform = HostPlatform::new();
    let mut tables = groups(&platform, BbmLevel::Level1);
    let first = tables.unmap(first_page_of(0), PAGE).expect("a removal");
    let second = tables.unmap(first_page_of(2), PAGE).expect("a removal");
    let covered = second.gathered().ranges().expect("few");
    assert!(
        covered
            .iter()
            .any(|range| range.base() == Ipa::new(0) && range.size_bytes() >= GROUP)
    );
    confirm(&mut tables, first);
    assert_eq!(protect_rest(&mut tables, 2), Err(refusal(2 * GROUP)));
    confirm(&mut tables, second);
    assert_eq!(protect_rest(&mut tables, 0), Ok(()));
    assert_eq!(protect_rest(&mut tables, 2), Ok(()));
}

#[test]
fn what_was_never_confirmed_waits_for_a_split_or_a_recovery() {
    let platform = HostPlatform::new();
    let mut tables = groups(&platform, BbmLevel::Level1);
    for group in [1, 2] {
        let change = tables.unmap(first_page_of(group), PAGE).expect("a removal");
        tables.lose(change).expect("its own");
        assert_eq!(
            protect_rest(&mut tables, group),
            Err(refusal(group * GROUP))
        );
        if group == 1 {
            let rest = Ipa::new(GROUP + PAGE);
            let split = tables.split(rest, GROUP - PAGE).expect("there is memory");
            let owed = split.gathered().ranges().expect("few");
            assert!(owed.iter().any(|range| range.base() == Ipa::new(GROUP)));
            let cut = split.without_any_smmu().finish();
            confirm(&mut tables, cut);
        } else {
            let recovery = tables.recover();
            confirm(&mut tables, recovery);
        }
        assert_eq!(protect_rest(&mut tables, group), Ok(()));
    }
}

#[test]
fn walkers_that_bear_it_and_walkers_that_are_not_there_wait_for_nothing() {
    for (level, walkers) in [
        (BbmLevel::Level2, Walkers::Live),
        (BbmLevel::Level1, Walkers::Absent),
    ] {
        let platform = HostPlatform::new();
        let mut tables = groups(&platform, level);
        tables.declare(walkers);
        let change = tables.unmap(first_page_of(1), PAGE).expect("a removal");
        assert_eq!(protect_rest(&mut tables, 1), Ok(()));
        confirm(&mut tables, change);
    }
}
