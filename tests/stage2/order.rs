//! What a walker can see, and when.

use std::collections::BTreeMap;
use std::ops::Range;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::Barrier;
use portcullis::hw::testing::{Access, HostPlatform};
use portcullis::space::stage2::{PageSizes, Stage2};
use portcullis::spec::vmsa::{Attributes, Granule, Permissions, WalkCoherency};

use super::walker::contents;
use super::{GIB, KIB4, MIB2, config, stage2};

fn map(tables: &mut Stage2<'_, HostPlatform>, ipa: u64, size: u64) {
    let (ipa, pa) = (Ipa::new(ipa), Pa::new(0x10_0000_0000 + ipa));
    tables
        .map(ipa, pa, size, Attributes::MEMORY, PageSizes::Largest)
        .expect("it is free");
}

fn barriers(log: &[Access]) -> usize {
    let is_barrier = |access: &&Access| matches!(access, Access::Barrier(Barrier::Publish));
    log.iter().filter(is_barrier).count()
}

/// For a walker that sees the stores between two barriers in any order: every table that it can
/// be led to from `root` was written whole before the barrier before that.
///
/// Says how many tables it was led to.
fn expect_complete_before_reachable(log: &[Access], root: Range<u64>) -> usize {
    let mut epoch = 0;
    let mut written: BTreeMap<u64, usize> = BTreeMap::new();
    let mut links = Vec::new();
    for access in log {
        match access {
            Access::Barrier(_) => epoch += 1,
            Access::Clean(..) => {}
            Access::Store(at, value) => {
                let _ = written.insert(at.as_u64(), epoch);
                // A page has AF set, a table descriptor has not.
                if value & 0b11 == 0b11 && value & 1 << 10 == 0 {
                    links.push((epoch, at.as_u64(), value & 0x0000_ffff_ffff_f000));
                }
            }
        }
    }
    // Each table, and the epoch from which on a walker may be there.
    let mut reachable = vec![(root, 0)];
    let mut at = 0;
    while let Some((table, since)) = reachable.get(at).cloned() {
        for (stored, _, to) in links.iter().filter(|(_, place, _)| table.contains(place)) {
            let from = since.max(*stored);
            for word in (*to..to + KIB4).step_by(8) {
                let when = written.get(&word);
                assert!(
                    when.is_some_and(|when| *when < from),
                    "{word:#x} may be seen after its link"
                );
            }
            reachable.push((*to..to + KIB4, from));
        }
        at += 1;
    }
    reachable.len() - 1
}

#[test]
fn a_table_is_complete_before_a_walker_can_reach_it() {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, 40);
    let root = tables.walk().root.as_u64();
    let ((), log) = platform.logged(|| map(&mut tables, 0x3fff_f000, GIB + 2 * KIB4));
    let tables_found = expect_complete_before_reachable(&log, root..root + 2 * KIB4);
    assert_eq!(tables_found as u64, tables.table_pages());
    assert_eq!(barriers(&log), 2, "one before the links, one after");
    assert_eq!(log.last(), Some(&Access::Barrier(Barrier::Publish)));
}

#[test]
fn a_change_costs_one_barrier_and_only_if_something_changed() {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, 40);
    map(&mut tables, 0, KIB4);
    let ((), log) = platform.logged(|| map(&mut tables, KIB4, 8 * KIB4));
    assert_eq!(
        (barriers(&log), log.len()),
        (1, 9),
        "8 stores to a table that is there"
    );
    let (change, log) = platform.logged(|| tables.unmap(Ipa::new(0), KIB4));
    let change = change.expect("it is mapped");
    assert_eq!((barriers(&log), log.len()), (1, 2));
    assert_eq!(change.without_any_smmu().pages(), 0);
    let (change, log) = platform.logged(|| tables.unmap(Ipa::new(0), KIB4));
    assert!(
        change
            .expect("a hole is nothing to refuse")
            .gathered()
            .is_nothing()
    );
    assert_eq!(log, []);
    let protect = |permissions| {
        let change = tables.protect(Ipa::new(KIB4), 8 * KIB4, permissions);
        change.expect("it is mapped").gathered().is_nothing()
    };
    let mut protect = protect;
    let (is_nothing, log) = platform.logged(|| protect(Permissions::READ_WRITE));
    assert_eq!((is_nothing, log.len()), (true, 0), "they had these already");
    let (is_nothing, log) = platform.logged(|| protect(Permissions::READ_ONLY));
    assert_eq!((is_nothing, log.len()), (false, 9));
}

#[test]
fn a_removed_table_is_not_written_before_it_is_reclaimed_and_used_again() {
    let platform = HostPlatform::new();
    let mut tables = stage2(&platform, Granule::Kib4, 40);
    map(&mut tables, KIB4, 3 * KIB4);
    let found = contents(&platform, &tables.walk());
    let (change, log) = platform.logged(|| tables.unmap(Ipa::new(0), GIB).expect("no leaf is cut"));
    let root = tables.walk().root;
    let expected = [Access::Store(root, 0), Access::Barrier(Barrier::Publish)];
    assert_eq!(log, expected, "the link is cut, and nothing else touched");
    let before: Vec<_> = found
        .tables
        .iter()
        .map(|table| platform.read(Pa::new(table.at), 512))
        .collect();
    map(&mut tables, 5 * MIB2, KIB4);
    let after: Vec<_> = found
        .tables
        .iter()
        .map(|table| platform.read(Pa::new(table.at), 512))
        .collect();
    assert_eq!(before, after, "an SMMU may still walk there");
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
}

/// Every word stored is cleaned before the next barrier, and nothing is where walks are coherent.
#[test]
fn tables_are_cleaned_for_walkers_that_do_not_snoop() {
    for coherency in [WalkCoherency::Coherent, WalkCoherency::Clean] {
        let platform = HostPlatform::new();
        let mut shape = config(Granule::Kib4, 40);
        shape.coherency = coherency;
        let (tables, mut log) = platform.logged(|| Stage2::new(&platform, shape));
        let mut tables = tables.expect("a legal shape, and memory");
        let ((), more) = platform.logged(|| {
            map(&mut tables, 0x3fff_f000, GIB + 2 * KIB4);
            map(&mut tables, 0x3fff_e000, KIB4);
            let change = tables.protect(
                Ipa::new(0x3fff_e000),
                GIB + 2 * KIB4,
                Permissions::READ_ONLY,
            );
            change.expect("it is mapped").without_any_smmu();
            let change = tables.unmap(Ipa::new(0x3fff_e000), GIB + 2 * KIB4);
            let _ = change.expect("no leaf is cut").without_any_smmu();
        });
        log.extend(more);
        let mut dirty = BTreeMap::new();
        let mut cleans = 0;
        for access in log {
            match access {
                Access::Store(at, value) => drop(dirty.insert(at.as_u64(), value)),
                Access::Clean(at, count) => {
                    cleans += 1;
                    let end = at.as_u64() + 8 * count as u64;
                    dirty.retain(|word, _| !(at.as_u64()..end).contains(word));
                }
                Access::Barrier(_) if coherency == WalkCoherency::Clean => {
                    assert_eq!(dirty, BTreeMap::new(), "stored and not cleaned");
                }
                Access::Barrier(_) => {}
            }
        }
        assert_eq!(cleans == 0, coherency == WalkCoherency::Coherent);
    }
}
