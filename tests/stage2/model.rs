//! Random changes against a plain list of leaves.

use std::collections::BTreeMap;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::NoTables;
use portcullis::hw::testing::HostPlatform;
use portcullis::smmu::{Gathered, Unsynced};
use portcullis::space::stage2::{PageSizes, Stage2, Stage2Error, Walkers};
use portcullis::spec::vmsa::{
    Access, Attributes, DeviceKind, Execute, Granule, MemoryType, Permissions, Shareability,
};
use proptest::prelude::*;

use super::config;
use super::walker::{Contents, contents};

/// What a leaf must say, but its address and type: (name of the bits by hand, attributes).
fn attributes(kind: u8) -> (u64, Attributes) {
    // MemAttr 1111 at [5:2], S2AP 11 at [7:6], SH 11 at [9:8], AF at 10, XN at 54.
    let memory = (0x0040_0000_0000_07fc, Attributes::MEMORY);
    let device = Attributes {
        permissions: Permissions {
            access: Access::ReadOnly,
            execute: Execute::Allowed,
        },
        memory: MemoryType::Device(DeviceKind::NGnRE),
        shareability: Shareability::Outer,
    };
    match kind {
        0 => memory,
        // MemAttr 0001, S2AP 01, SH 10, AF.
        _ => (0x0000_0000_0000_0644, device),
    }
}

fn permissions(kind: u8) -> (u64, Permissions) {
    let make = |access, execute| Permissions { access, execute };
    match kind {
        0 => (0x0040_0000_0000_0000, make(Access::None, Execute::Never)),
        1 => (
            0x0040_0000_0000_0040,
            make(Access::ReadOnly, Execute::Never),
        ),
        2 => (
            0x0000_0000_0000_0080,
            make(Access::WriteOnly, Execute::Allowed),
        ),
        _ => (
            0x0040_0000_0000_00c0,
            make(Access::ReadWrite, Execute::Never),
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leaf {
    log2_bytes: u32,
    pa: u64,
    bits: u64,
}

impl Leaf {
    fn size(&self) -> u64 {
        1 << self.log2_bytes
    }
}

/// The spans of leaves by level, from the table of block sizes.
///
/// Up to 34 bits, 4 KiB tables have no level 1: 16 tables of level 2 are the root.
fn spans(granule: Granule, ipa_bits: u8) -> &'static [u32] {
    match granule {
        Granule::Kib4 if ipa_bits > 34 => &[30, 21, 12],
        Granule::Kib4 => &[21, 12],
        Granule::Kib16 => &[25, 14],
        Granule::Kib64 => &[29, 16],
    }
}

struct Model {
    granule: Granule,
    ipa_bits: u8,
    leaves: BTreeMap<u64, Leaf>,
}

impl Model {
    fn leaf_at(&self, ipa: u64) -> Option<(u64, Leaf)> {
        let (base, leaf) = self.leaves.range(..=ipa).next_back()?;
        (ipa < base + leaf.size()).then_some((*base, *leaf))
    }

    fn first_mapped(&self, from: u64, to: u64) -> Option<u64> {
        match self.leaf_at(from) {
            Some(_) => Some(from),
            None => self.leaves.range(from..to).next().map(|(base, _)| *base),
        }
    }

    fn first_hole(&self, from: u64, to: u64) -> Option<u64> {
        let mut at = from;
        while at < to {
            match self.leaf_at(at) {
                Some((base, leaf)) => at = base + leaf.size(),
                None => return Some(at),
            }
        }
        None
    }

    fn map(&mut self, ipa: u64, pa: u64, size: u64, bits: u64, sizes: PageSizes) {
        let page = *spans(self.granule, self.ipa_bits).last().expect("a page");
        let mut done = 0;
        while done < size {
            let fits = |log2: u32| {
                let span = 1 << log2;
                (ipa + done).is_multiple_of(span)
                    && (pa + done).is_multiple_of(span)
                    && size - done >= span
            };
            let largest = spans(self.granule, self.ipa_bits)
                .iter()
                .copied()
                .find(|log2| fits(*log2));
            let log2_bytes = match sizes {
                PageSizes::Largest => largest.expect("whole pages"),
                PageSizes::PagesOnly => page,
            };
            let pa = pa + done;
            self.leaves.insert(
                ipa + done,
                Leaf {
                    log2_bytes,
                    pa,
                    bits,
                },
            );
            done += 1 << log2_bytes;
        }
    }

    fn straddled(&self, at: u64) -> Option<(u64, Leaf)> {
        self.leaf_at(at).filter(|(base, _)| *base != at)
    }

    fn split(&mut self, at: u64) {
        while let Some((base, leaf)) = self.straddled(at) {
            self.leaves.remove(&base);
            let smaller = spans(self.granule, self.ipa_bits)
                .iter()
                .copied()
                .find(|log2| *log2 < leaf.log2_bytes);
            let log2_bytes = smaller.expect("a page is not split");
            for offset in (0..leaf.size()).step_by(1 << log2_bytes) {
                let pa = leaf.pa + offset;
                self.leaves.insert(
                    base + offset,
                    Leaf {
                        log2_bytes,
                        pa,
                        ..leaf
                    },
                );
            }
        }
    }

    fn expected_words(&self) -> Vec<(u64, u32, u64)> {
        let page = *spans(self.granule, self.ipa_bits).last().expect("a page");
        let word = |leaf: &Leaf| {
            let kind = if leaf.log2_bytes == page { 0b11 } else { 0b01 };
            leaf.pa | leaf.bits | kind
        };
        let row = |(base, leaf): (&u64, &Leaf)| (*base, leaf.log2_bytes, word(leaf));
        self.leaves.iter().map(row).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Map {
        ipa: u64,
        pa: u64,
        pages: u64,
        kind: u8,
        sizes: PageSizes,
    },
    Unmap {
        ipa: u64,
        pages: u64,
        then: Then,
    },
    Protect {
        ipa: u64,
        pages: u64,
        kind: u8,
    },
    Declare(Walkers),
    Recover,
}

#[derive(Clone, Copy, Debug)]
enum Then {
    Reclaim,
    Lose,
    Keep,
}

/// Page numbers that like to be near each other and near the borders of blocks of `block` pages.
fn page_number(block: u64) -> impl Strategy<Value = u64> {
    let near = move |(large, small, page): (u64, u64, u64)| {
        (large * block * 512 + small * block + page).saturating_sub(3)
    };
    prop_oneof![
        3 => 0..40u64,
        3 => (Just(0u64), 0..4u64, 0..6u64).prop_map(near),
        3 => (0..3u64, 0..4u64, 0..6u64).prop_map(near),
        1 => Just(0x1ff_ffff),
    ]
}

fn page_count(block: u64) -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => 1..10u64,
        1 => Just(block),
        1 => block - 12..2 * block + 80,
        1 => Just(block * 512),
        1 => block * 511..block * 1024 + 2,
    ]
}

fn step(block: u64) -> impl Strategy<Value = Step> {
    let sizes = prop_oneof![4 => Just(PageSizes::Largest), 1 => Just(PageSizes::PagesOnly)];
    let then = prop_oneof![3 => Just(Then::Reclaim), 1 => Just(Then::Lose), 1 => Just(Then::Keep)];
    let delta = prop_oneof![
        Just(block * 1024),
        Just(block * 1025),
        Just(block * 1024 + 1),
        Just((1 << 36) / block * block - 512 * block),
    ];
    let map = (page_number(block), delta, page_count(block), 0..2u8, sizes);
    prop_oneof![
        4 => map.prop_map(move |(ipa, delta, pages, kind, sizes)| {
            // What takes pages takes not so many that a case takes a second.
            let takes_pages = sizes == PageSizes::PagesOnly || delta % block != 0;
            let pages = if takes_pages { pages % (block + 600) } else { pages };
            Step::Map { ipa, pa: ipa + delta, pages, kind, sizes }
        }),
        3 => (page_number(block), page_count(block), then)
            .prop_map(|(ipa, pages, then)| Step::Unmap { ipa, pages, then }),
        2 => (page_number(block), page_count(block), 0..4u8)
            .prop_map(|(ipa, pages, kind)| Step::Protect { ipa, pages, kind }),
        1 => prop_oneof![Just(Walkers::Live), Just(Walkers::Absent)].prop_map(Step::Declare),
        1 => Just(Step::Recover),
    ]
}

struct Run<'p> {
    platform: &'p HostPlatform,
    tables: Stage2<'p, HostPlatform>,
    model: Model,
    walkers: Walkers,
    /// Removed tables that a holder has kept.
    kept: Vec<portcullis::space::stage2::Reclaim<'p, HostPlatform>>,
}

impl Run<'_> {
    fn page(&self) -> u64 {
        1 << spans(self.model.granule, self.model.ipa_bits)
            .last()
            .expect("a page")
    }

    fn contents(&self) -> Contents {
        contents(self.platform, &self.tables.walk())
    }

    fn check(&self) {
        let found = self.contents();
        let words: Vec<_> = found
            .leaves
            .iter()
            .map(|leaf| (leaf.ipa, leaf.log2_bytes, leaf.word))
            .collect();
        assert_eq!(words, self.model.expected_words());
        let out: u64 = self.kept.iter().map(|tables| tables.pages()).sum();
        let linked = found.tables.len() as u64;
        assert_eq!(
            self.tables.table_pages(),
            linked + out + self.tables.lost_pages()
        );
        for (base, leaf) in &self.model.leaves {
            let last = self
                .tables
                .query(Ipa::new(base + leaf.size() - 1))
                .expect("it is mapped");
            assert_eq!(last.pa, Pa::new(leaf.pa + leaf.size() - 1));
            assert_eq!(u32::from(last.log2_bytes), leaf.log2_bytes);
            let behind = base + leaf.size();
            assert_eq!(
                self.tables.query(Ipa::new(behind)).is_some(),
                self.model.leaf_at(behind).is_some()
            );
        }
        assert_eq!(
            self.tables.query(Ipa::new(0)).is_some(),
            self.model.leaf_at(0).is_some()
        );
    }

    /// What `range` must be refused with, if it must.
    fn bad_range(&self, ipa: u64, size: u64) -> Option<Stage2Error> {
        if size == 0 {
            let (ipa, size_bytes) = (Ipa::new(ipa), size);
            return Some(Stage2Error::NotWholePages { ipa, size_bytes });
        }
        let ipa_bits = self.model.ipa_bits;
        (ipa + size > 1 << ipa_bits).then_some(Stage2Error::PastInput { ipa_bits })
    }

    fn map(&mut self, ipa: u64, pa: u64, size: u64, kind: u8, sizes: PageSizes) {
        let (bits, attributes) = attributes(kind);
        let refusal = self
            .bad_range(ipa, size)
            .or_else(|| {
                (pa + size > 1 << 48).then_some(Stage2Error::PastOutput { output_bits: 48 })
            })
            .or_else(|| {
                let first = self.model.first_mapped(ipa, ipa + size)?;
                Some(Stage2Error::AlreadyMapped {
                    ipa: Ipa::new(first),
                })
            });
        let out = self.platform.bytes_out();
        let tables = self.tables.table_pages();
        // The first allocations fail, then one that comes late.
        for successes in [0, 1, 2, 5, u64::MAX] {
            self.platform
                .fail_after((successes != u64::MAX).then_some(successes));
            let result = self
                .tables
                .map(Ipa::new(ipa), Pa::new(pa), size, attributes, sizes);
            match result {
                Err(Stage2Error::NoTables(NoTables::NoFrames { .. })) if refusal.is_none() => {
                    assert_eq!(
                        self.platform.bytes_out(),
                        out,
                        "what a failure took it gives back"
                    );
                    assert_eq!(self.tables.table_pages(), tables);
                    self.check();
                    continue;
                }
                result => assert_eq!(result.err(), refusal),
            }
            break;
        }
        self.platform.fail_after(None);
        if refusal.is_none() {
            self.model.map(ipa, pa, size, bits, sizes);
        }
    }

    /// The refusal, or the model with both ends split.
    fn divide(&mut self, from: u64, to: u64) -> Option<Stage2Error> {
        let leaf = self
            .model
            .straddled(from)
            .or_else(|| self.model.straddled(to));
        if let Some((base, leaf)) = leaf
            && self.walkers == Walkers::Live
        {
            return Some(Stage2Error::BreakNeeded {
                ipa: Ipa::new(base),
                log2_bytes: leaf.log2_bytes as u8,
            });
        }
        self.model.split(from);
        self.model.split(to);
        None
    }

    /// Splitting takes tables before anything changes.
    fn fail_to_split(&mut self, ipa: u64, size: u64) {
        let ends = [ipa, ipa + size];
        let splits = ends.iter().any(|at| self.model.straddled(*at).is_some());
        if self.walkers == Walkers::Absent && splits && self.bad_range(ipa, size).is_none() {
            let out = self.platform.bytes_out();
            self.platform.fail_after(Some(0));
            let result = self.tables.unmap(Ipa::new(ipa), size);
            self.platform.fail_after(None);
            if let Ok(change) = result {
                // One table was at hand.
                let change = change.without_any_smmu();
                self.tables.reclaim(change).expect("they are its own");
                self.model.split(ipa);
                self.model.split(ipa + size);
                self.model
                    .leaves
                    .retain(|base, _| *base < ipa || *base >= ipa + size);
            } else {
                assert_eq!(self.platform.bytes_out(), out);
            }
            self.check();
        }
    }

    fn unmap(&mut self, ipa: u64, size: u64, then: Then) {
        self.fail_to_split(ipa, size);
        let before = self.contents();
        let refusal = self
            .bad_range(ipa, size)
            .or_else(|| self.divide(ipa, ipa + size));
        let change = match self.tables.unmap(Ipa::new(ipa), size) {
            Ok(change) => change,
            Err(error) => return assert_eq!(Some(error), refusal),
        };
        assert_eq!(refusal, None);
        self.model
            .leaves
            .retain(|base, _| *base < ipa || *base >= ipa + size);
        expect_gathered(change.gathered(), &before, &self.contents());
        match then {
            Then::Reclaim => {
                let tables = change.without_any_smmu();
                self.tables.reclaim(tables).expect("they are its own");
            }
            Then::Lose => self.tables.lose(change).expect("they are its own"),
            Then::Keep => self.kept.push(change.without_any_smmu()),
        }
    }

    fn protect(&mut self, ipa: u64, size: u64, kind: u8) {
        let before = self.contents();
        let (bits, permissions) = permissions(kind);
        let refusal = self
            .bad_range(ipa, size)
            .or_else(|| {
                let hole = self.model.first_hole(ipa, ipa + size)?;
                Some(Stage2Error::NotMapped {
                    ipa: Ipa::new(hole),
                })
            })
            .or_else(|| self.divide(ipa, ipa + size));
        let change: Unsynced<()> = match self.tables.protect(Ipa::new(ipa), size, permissions) {
            Ok(change) => change,
            Err(error) => return assert_eq!(Some(error), refusal),
        };
        assert_eq!(refusal, None);
        for (_, leaf) in self.model.leaves.range_mut(ipa..ipa + size) {
            leaf.bits = leaf.bits & !0x0040_0000_0000_00c0 | bits;
        }
        expect_gathered(change.gathered(), &before, &self.contents());
    }

    fn step(&mut self, step: Step) {
        let page = self.page();
        match step {
            Step::Map {
                ipa,
                pa,
                pages,
                kind,
                sizes,
            } => {
                self.map(ipa * page, pa * page, pages * page, kind, sizes);
            }
            Step::Unmap { ipa, pages, then } => self.unmap(ipa * page, pages * page, then),
            Step::Protect { ipa, pages, kind } => self.protect(ipa * page, pages * page, kind),
            Step::Declare(walkers) => {
                self.walkers = walkers;
                self.tables.declare(walkers);
            }
            Step::Recover => {
                let recovered = self.tables.recover();
                assert_eq!(
                    recovered.gathered().ranges(),
                    None,
                    "everything of the VMID"
                );
                let recovered = recovered.without_any_smmu();
                self.tables.reclaim(recovered).expect("they are its own");
                for kept in self.kept.drain(..) {
                    self.tables.reclaim(kept).expect("they are its own");
                }
            }
        }
        self.check();
    }

    fn finish(mut self) {
        self.tables.declare(Walkers::Absent);
        let all = 1 << self.model.ipa_bits;
        self.unmap(0, all, Then::Reclaim);
        self.step(Step::Recover);
        assert_eq!(self.tables.table_pages(), 0);
        assert_eq!(self.tables.dismantle().without_any_smmu().free(), 0);
        assert_eq!(self.platform.bytes_out(), 0);
    }
}

/// Whatever a walker could have cached and is no longer true lies in a gathered range that says
/// enough about it.
pub(crate) fn expect_gathered(gathered: &Gathered, before: &Contents, after: &Contents) {
    let ranges = gathered.ranges().expect("one change is never everything");
    let covers = |ipa: u64, log2_bytes: u32| {
        move |range: &&portcullis::smmu::StaleRange| {
            range.base().as_u64() <= ipa
                && ipa + (1 << log2_bytes) <= range.base().as_u64() + range.size_bytes()
        }
    };
    for leaf in before
        .leaves
        .iter()
        .filter(|leaf| !after.leaves.contains(leaf))
    {
        let range = ranges.iter().find(covers(leaf.ipa, leaf.log2_bytes));
        let range = range.unwrap_or_else(|| panic!("{leaf:?} is not in {ranges:?}"));
        let step = range.log2_step(gathered.granule());
        assert!(
            u32::from(step) <= leaf.log2_bytes,
            "single commands step over {leaf:?}"
        );
    }
    for table in before
        .tables
        .iter()
        .filter(|table| !after.tables.contains(table))
    {
        let end = table.ipa + (1 << table.log2_bytes);
        let hit = ranges.iter().any(|range| {
            range.removed_tables()
                && range.base().as_u64() < end
                && table.ipa < range.base().as_u64() + range.size_bytes()
        });
        assert!(hit, "the pointer to {table:?} stays cached: {ranges:?}");
    }
    if before.leaves == after.leaves {
        assert!(gathered.is_nothing(), "nothing to invalidate: {ranges:?}");
    }
}

fn run(granule: Granule, ipa_bits: u8, steps: &[Step]) {
    let platform = HostPlatform::new();
    let mut shape = config(granule, ipa_bits);
    shape.tables.log2_pages_per_chunk = 1;
    let mut run = Run {
        platform: &platform,
        tables: Stage2::new(&platform, shape).expect("a legal shape, and memory"),
        model: Model {
            granule,
            ipa_bits,
            leaves: BTreeMap::new(),
        },
        walkers: Walkers::Live,
        kept: Vec::new(),
    };
    for step in steps {
        run.step(*step);
    }
    run.finish();
}

/// A failure prints the shortest case; nothing is written to the source tree.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn any_changes_leave_what_a_plain_list_would(
        steps in prop::collection::vec(step(512), 1..20),
        ipa_bits in 32..=40u8,
    ) {
        run(Granule::Kib4, ipa_bits, &steps);
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn the_same_holds_for_16_kib_pages(
        steps in prop::collection::vec(step(2048), 1..10),
        ipa_bits in 34..=42u8,
    ) {
        run(Granule::Kib16, ipa_bits, &steps);
    }

    #[test]
    fn the_same_holds_for_64_kib_pages(
        steps in prop::collection::vec(step(8192), 1..10),
        ipa_bits in 34..=42u8,
    ) {
        run(Granule::Kib64, ipa_bits, &steps);
    }
}
