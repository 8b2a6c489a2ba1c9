//! CPUs beside devices: told of every change, and shown what is theirs.

use std::sync::Mutex;

use portcullis::addr::{Extent, Ipa, Pa};
use portcullis::hw::testing::{Access, HostPlatform};
use portcullis::hw::{CpuTlb, CpuWalk};
use portcullis::id::Vmid;
use portcullis::space::stage2::{CpuRoot, PageSizes, Stage2, Stage2Error, View};
use portcullis::spec::vmsa::{
    Attributes, BbmLevel, Granule, Permissions, Stage2Walk, WalkCoherency,
};

use super::walker::{Contents, contents};
use super::{GIB, KIB4, MIB2, config};

/// CPUs that write down what they are told.
#[derive(Default)]
struct Cpus(Mutex<Vec<Told>>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Told {
    walk: CpuWalk,
    /// Base and size; `None` is everything.
    stale: Option<Vec<(u64, u64)>>,
    log2_page: u8,
}

impl CpuTlb for Cpus {
    fn forget(&self, walk: &CpuWalk, stale: Option<&[Extent<Ipa>]>, log2_page: u8) {
        let numbers = |extent: &Extent<Ipa>| (extent.base().as_u64(), extent.size_bytes());
        self.0.lock().expect("nobody panics there").push(Told {
            walk: *walk,
            stale: stale.map(|stale| stale.iter().map(numbers).collect()),
            log2_page,
        });
    }
}

impl Cpus {
    fn told(&self) -> Vec<Option<Vec<(u64, u64)>>> {
        let told = core::mem::take(&mut *self.0.lock().expect("nobody panics there"));
        told.into_iter().map(|told| told.stale).collect()
    }
}

/// Tables of 1 GiB an entry of the root, which has 1024: two tables.
fn tables<'p>(
    platform: &'p HostPlatform,
    cpus: &'p Cpus,
    root: CpuRoot,
) -> Stage2<'p, HostPlatform> {
    let mut shape = config(Granule::Kib4, 40);
    shape.bbm = BbmLevel::Level2;
    Stage2::with_cpus(platform, shape, cpus, root).expect("a legal shape, and memory")
}

/// What a CPU finds, by the fields of its registers alone.
fn cpu_contents(platform: &HostPlatform, tables: &Stage2<'_, HostPlatform>) -> Contents {
    let walk = tables.cpu_walk().expect("CPUs are told");
    assert_eq!(walk.vttbr >> 48, 7, "the VMID");
    let root = Pa::new(walk.vttbr & 0x0000_ffff_ffff_fffe);
    let walk = Stage2Walk {
        root,
        ..tables.walk()
    };
    contents(platform, &walk)
}

fn map(tables: &mut Stage2<'_, HostPlatform>, view: View, ipa: u64, size: u64) {
    let result = try_map(tables, view, ipa, size);
    result.expect("it is free");
}

fn try_map(
    tables: &mut Stage2<'_, HostPlatform>,
    view: View,
    ipa: u64,
    size: u64,
) -> Result<(), Stage2Error> {
    let (ipa, pa) = (Ipa::new(ipa), Pa::new(0x10_0000_0000 + ipa));
    let (attributes, sizes) = (Attributes::MEMORY, PageSizes::Largest);
    tables.map_for(view, ipa, pa, size, attributes, sizes)
}

fn both(platform: &HostPlatform, tables: &Stage2<'_, HostPlatform>) -> [Vec<(u64, u32)>; 2] {
    let leaves = |found: Contents| {
        let place = |leaf: &super::walker::Found| (leaf.ipa, leaf.log2_bytes);
        found.leaves.iter().map(place).collect()
    };
    [
        leaves(contents(platform, &tables.walk())),
        leaves(cpu_contents(platform, tables)),
    ]
}

#[test]
fn a_window_is_seen_by_devices_alone_and_registers_by_cpus_alone() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let mut tables = tables(&platform, &cpus, CpuRoot::Own);
    map(&mut tables, View::Both, 0, MIB2);
    map(&mut tables, View::Devices, 5 * GIB + KIB4, KIB4);
    map(&mut tables, View::Cpus, 7 * GIB, GIB);
    let [devices, cpu] = both(&platform, &tables);
    assert_eq!(devices, [(0, 21), (5 * GIB + KIB4, 12)]);
    assert_eq!(cpu, [(0, 21), (7 * GIB, 30)]);
    // What is shared is one set of tables.
    let tables_of = |found: Contents| found.tables.iter().map(|table| table.at).collect();
    let of_devices: Vec<u64> = tables_of(contents(&platform, &tables.walk()));
    let of_cpus: Vec<u64> = tables_of(cpu_contents(&platform, &tables));
    assert_eq!(
        (of_devices.len(), of_cpus.len()),
        (3, 1),
        "two for the window"
    );
    assert_eq!(of_devices[0], of_cpus[0]);
    assert_eq!(tables.table_pages(), 3);
    for at in [0, 5 * GIB + KIB4, 7 * GIB] {
        assert!(tables.query(Ipa::new(at)).is_some());
    }
    let change = tables.unmap(Ipa::new(0), 8 * GIB).expect("no leaf is cut");
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    assert_eq!(both(&platform, &tables), [vec![], vec![]]);
    assert_eq!(tables.table_pages(), 0);
    assert_eq!(tables.dismantle().without_any_smmu().free(), 0);
    assert_eq!(platform.bytes_out(), 0);
}

#[test]
fn an_entry_of_the_root_is_for_one_kind_of_walker_until_it_is_empty() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let mut tables = tables(&platform, &cpus, CpuRoot::Own);
    map(&mut tables, View::Devices, 5 * GIB, KIB4);
    let before = both(&platform, &tables);
    for view in [View::Both, View::Cpus] {
        let ipa = Ipa::new(5 * GIB + MIB2);
        let refused = try_map(&mut tables, view, ipa.as_u64(), KIB4);
        assert_eq!(refused, Err(Stage2Error::OtherView { ipa }));
        let refused = try_map(&mut tables, view, 4 * GIB, 2 * GIB);
        let ipa = Ipa::new(5 * GIB);
        assert_eq!(refused, Err(Stage2Error::OtherView { ipa }));
    }
    assert_eq!(both(&platform, &tables), before);
    map(&mut tables, View::Devices, 5 * GIB + MIB2, KIB4);
    let change = tables
        .unmap(Ipa::new(5 * GIB), GIB)
        .expect("no leaf is cut");
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    map(&mut tables, View::Both, 5 * GIB, KIB4);
    assert_eq!(both(&platform, &tables)[1], [(5 * GIB, 12)]);
}

#[test]
fn one_root_is_for_all_walkers_or_for_none() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let mut tables = tables(&platform, &cpus, CpuRoot::Shared);
    for view in [View::Devices, View::Cpus] {
        let refused = try_map(&mut tables, view, 0, KIB4);
        assert_eq!(refused, Err(Stage2Error::OneRoot));
    }
    map(&mut tables, View::Both, 0, KIB4);
    let [devices, cpu] = both(&platform, &tables);
    assert_eq!(devices, cpu);
    let walk = tables.cpu_walk().expect("CPUs are told");
    assert_eq!(walk.vttbr & 0xffff_ffff_ffff, tables.walk().root.as_u64());
}

#[test]
fn who_cannot_tell_cpus_is_not_told_how_they_would_walk() {
    let platform = HostPlatform::new();
    let tables = super::stage2(&platform, Granule::Kib4, 40);
    assert_eq!(tables.cpu_walk(), None);
}

/// One store more for an entry of the root, none for anything below.
#[test]
fn two_roots_cost_one_store_for_each_of_their_entries() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let stores = |log: &[Access]| {
        let is_store = |access: &&Access| matches!(access, Access::Store(..));
        log.iter().filter(is_store).count()
    };
    let count = |root| {
        let mut tables = tables(&platform, &cpus, root);
        map(&mut tables, View::Both, 3 * GIB, MIB2);
        let ((), below) = platform.logged(|| map(&mut tables, View::Both, 3 * GIB + MIB2, MIB2));
        let ((), entry) = platform.logged(|| map(&mut tables, View::Both, 4 * GIB, 2 * GIB));
        let (change, cleared) = platform.logged(|| tables.unmap(Ipa::new(3 * GIB), 3 * GIB));
        let change = change.expect("no leaf is cut").without_any_smmu();
        tables.reclaim(change).expect("they are its own");
        assert_eq!(tables.dismantle().without_any_smmu().free(), 0);
        [below, entry, cleared].map(|log| stores(&log))
    };
    assert_eq!(count(CpuRoot::Shared), [1, 2, 3]);
    assert_eq!(count(CpuRoot::Own), [1, 4, 6]);
}

#[test]
fn a_second_root_that_there_is_no_memory_for_leaves_no_first() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    platform.fail_after(Some(1));
    let refused = Stage2::with_cpus(&platform, config(Granule::Kib4, 40), &cpus, CpuRoot::Own);
    assert!(matches!(refused.err(), Some(Stage2Error::NoTables(_))));
    assert_eq!(platform.bytes_out(), 0);
}

#[test]
fn cpus_are_told_of_each_change_once_and_of_nothing_that_is_added() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let mut tables = tables(&platform, &cpus, CpuRoot::Own);
    map(&mut tables, View::Both, 0, 4 * MIB2);
    assert_eq!(cpus.told(), []);
    let mut change = tables.unmap(Ipa::new(0), MIB2).expect("no leaf is cut");
    assert_eq!(cpus.told(), [Some(vec![(0, MIB2)])]);
    tables
        .unmap_into(&mut change, Ipa::new(2 * MIB2), MIB2)
        .expect("no leaf is cut");
    assert_eq!(
        cpus.told(),
        [Some(vec![(2 * MIB2, MIB2)])],
        "the first is known"
    );
    assert_eq!(change.gathered().ranges().map(<[_]>::len), Some(2));
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
    let at = Ipa::new(MIB2 + KIB4);
    let change = tables.protect(at, KIB4, Permissions::READ_ONLY);
    assert_eq!(
        cpus.told(),
        [Some(vec![(MIB2, MIB2)])],
        "the block was split"
    );
    change.expect("it is mapped").without_any_smmu();
    let change = tables.protect(at, KIB4, Permissions::READ_ONLY);
    assert_eq!(cpus.told(), [], "it had these already");
    change.expect("it is mapped").without_any_smmu();
    let everything = tables.recover();
    assert_eq!(cpus.told(), [None]);
    let nothing = everything.without_any_smmu();
    tables.reclaim(nothing).expect("they are its own");
}

/// The CPUs are told of the first step before the second is possible.
#[test]
fn at_level_1_cpus_are_told_of_both_steps() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let mut shape = config(Granule::Kib4, 40);
    shape.bbm = BbmLevel::Level1;
    let tables = Stage2::with_cpus(&platform, shape, &cpus, CpuRoot::Own);
    let mut tables = tables.expect("a legal shape, and memory");
    map(&mut tables, View::Both, MIB2, MIB2);
    let root = tables.walk().root.as_u64();
    let cpu_root = tables.cpu_walk().expect("CPUs are told").vttbr & 0xffff_ffff_ffff;
    assert_ne!(root, cpu_root);
    let split = tables.split(Ipa::new(MIB2), KIB4).expect("level 1");
    assert_eq!(cpus.told(), [Some(vec![(MIB2, MIB2)])]);
    let change = split.without_any_smmu().finish();
    assert_eq!(cpus.told(), [Some(vec![(MIB2, MIB2)])]);
    tables
        .reclaim(change.without_any_smmu())
        .expect("they are its own");
}

/// A block in the root itself changes its size in both roots.
#[test]
fn blocks_of_the_root_are_split_and_joined_in_both_roots() {
    for level in [BbmLevel::Level1, BbmLevel::Level2] {
        let platform = HostPlatform::new();
        let cpus = Cpus::default();
        let mut shape = config(Granule::Kib4, 40);
        shape.bbm = level;
        let tables = Stage2::with_cpus(&platform, shape, &cpus, CpuRoot::Own);
        let mut tables = tables.expect("a legal shape, and memory");
        map(&mut tables, View::Both, GIB, GIB);
        map(&mut tables, View::Cpus, 2 * GIB, GIB);
        let split = tables.split(Ipa::new(GIB), MIB2).expect("level 1");
        let marked = |at: u64| platform.read(Pa::new(at), 1).expect("it is out")[0] & 1 << 16 != 0;
        drop(split);
        let (root, cpu_root) = (
            tables.walk().root.as_u64(),
            tables.cpu_walk().expect("CPUs are told").vttbr & 0xffff_ffff_ffff,
        );
        assert_eq!(marked(root + 8), level == BbmLevel::Level1);
        assert_eq!(marked(cpu_root + 8), level == BbmLevel::Level1);
        let split = tables.split(Ipa::new(GIB), MIB2).expect("again");
        let change = split.without_any_smmu().finish().without_any_smmu();
        tables.reclaim(change).expect("they are its own");
        let [devices, cpu] = both(&platform, &tables);
        assert_eq!((devices.len(), cpu.len()), (512, 513));
        assert_eq!(devices, cpu[..512]);
        let join = tables.join(Ipa::new(GIB), 2 * GIB).expect("level 1");
        let change = join.without_any_smmu().finish().without_any_smmu();
        tables.reclaim(change).expect("they are its own");
        let expected = [vec![(GIB, 30)], vec![(GIB, 30), (2 * GIB, 30)]];
        assert_eq!(both(&platform, &tables), expected);
        assert!(!marked(root + 8) && !marked(cpu_root + 8));
    }
}

/// Leaves of the root that are next to each other and for different walkers make no group.
#[test]
fn a_group_is_for_one_kind_of_walker() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let mut tables = tables(&platform, &cpus, CpuRoot::Own);
    map(&mut tables, View::Both, 0, 15 * GIB);
    map(&mut tables, View::Devices, 15 * GIB, GIB);
    let join = tables.join(Ipa::new(0), 16 * GIB).expect("level 2");
    let change = join.without_any_smmu().finish().without_any_smmu();
    tables.reclaim(change).expect("they are its own");
    let hints = |found: Contents| {
        let is_grouped = |leaf: &&super::walker::Found| leaf.word & 1 << 52 != 0;
        found.leaves.iter().filter(is_grouped).count()
    };
    assert_eq!(hints(contents(&platform, &tables.walk())), 0);
    assert_eq!(hints(cpu_contents(&platform, &tables)), 0);
}

#[test]
fn the_registers_of_a_cpu_are_those_of_the_manual() {
    // T0SZ, SL0, IRGN0 and ORGN0 write-back, SH0 inner, TG0, PS, VS, RES1.
    let cases = [
        (Granule::Kib4, 40, 7, 24 | 1 << 6 | 5 << 16),
        (Granule::Kib4, 48, 7, 16 | 2 << 6 | 5 << 16),
        (Granule::Kib16, 40, 7, 24 | 1 << 6 | 2 << 14 | 5 << 16),
        (
            Granule::Kib64,
            40,
            0x1234,
            24 | 1 << 6 | 1 << 14 | 5 << 16 | 1 << 19,
        ),
    ];
    for (granule, ipa_bits, vmid, fields) in cases {
        let platform = HostPlatform::new();
        let cpus = Cpus::default();
        let mut shape = config(granule, ipa_bits);
        shape.vmid = Vmid::new(vmid);
        let tables = Stage2::with_cpus(&platform, shape, &cpus, CpuRoot::Shared);
        let walk = tables.expect("a legal shape, and memory").cpu_walk();
        let walk = walk.expect("CPUs are told");
        assert_eq!(walk.vtcr, fields | 1 << 31 | 0b11_01_01 << 8, "{granule:?}");
        assert_eq!(walk.vttbr >> 48, u64::from(vmid));
    }
}

/// Every word stored to either root is cleaned before the next barrier.
#[test]
fn both_roots_are_cleaned_for_walkers_that_do_not_snoop() {
    let platform = HostPlatform::new();
    let cpus = Cpus::default();
    let mut shape = config(Granule::Kib4, 40);
    (shape.bbm, shape.coherency) = (BbmLevel::Level1, WalkCoherency::Clean);
    let (tables, mut log) =
        platform.logged(|| Stage2::with_cpus(&platform, shape, &cpus, CpuRoot::Own));
    let mut tables = tables.expect("a legal shape, and memory");
    let ((), more) = platform.logged(|| {
        map(&mut tables, View::Both, GIB, 17 * GIB);
        map(&mut tables, View::Cpus, 20 * GIB, KIB4);
        let at = Ipa::new(17 * GIB + KIB4);
        let change = tables.split(at, KIB4).expect("level 1").without_any_smmu();
        let mut change = change.finish();
        tables
            .unmap_into(&mut change, at, KIB4)
            .expect("it was split");
        tables
            .reclaim(change.without_any_smmu())
            .expect("they are its own");
        map(&mut tables, View::Both, at.as_u64(), KIB4);
        let join = tables.join(Ipa::new(0), 32 * GIB).expect("level 1");
        let change = join.without_any_smmu().finish().without_any_smmu();
        tables.reclaim(change).expect("they are its own");
        let change = tables.unmap(Ipa::new(0), 32 * GIB).expect("no leaf is cut");
        tables
            .reclaim(change.without_any_smmu())
            .expect("they are its own");
    });
    log.extend(more);
    let mut dirty = std::collections::BTreeSet::new();
    for access in log {
        match access {
            Access::Store(at, _) => drop(dirty.insert(at.as_u64())),
            Access::Clean(at, count) => {
                let end = at.as_u64() + 8 * count as u64;
                dirty.retain(|word| !(at.as_u64()..end).contains(word));
            }
            Access::Barrier(_) => assert_eq!(dirty.first(), None, "stored and not cleaned"),
        }
    }
    assert_eq!(dirty.first(), None);
}
