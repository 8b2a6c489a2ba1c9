//! Random changes under a walker that never rests, against a plain map of intervals.

use std::collections::BTreeMap;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::NoTables;
use portcullis::hw::testing::{Access as Stored, HostPlatform};
use portcullis::smmu::{Gathered, Unsynced};
use portcullis::space::stage2::{PageSizes, Reclaim, Stage2, Stage2Error};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, Permissions};
use proptest::prelude::*;

use super::config;
use super::model::cases;
use super::tlb::{Observer, Says};
use super::walker::{contents, log2_group};

/// By hand: MemAttr 1111, S2AP 11, SH 11, AF, XN; and the same with S2AP 01.
const READ_WRITE: u64 = 0x0040_0000_0000_07fc;
const READ_ONLY: u64 = 0x0040_0000_0000_077c;

/// What is mapped: from where, how much, to where and how.
#[derive(Clone, Default)]
struct Intervals(BTreeMap<u64, (u64, Says)>);

impl Intervals {
    fn at(&self, ipa: u64) -> Option<Says> {
        let (base, (size, says)) = self.0.range(..=ipa).next_back()?;
        let pa = says.pa + (ipa - base);
        (ipa - base < *size).then_some(Says { pa, ..*says })
    }

    fn cut(&mut self, at: u64) {
        let Some((&base, &(size, says))) = self.0.range(..at).next_back() else {
            return;
        };
        if at - base < size {
            let rest = Says {
                pa: says.pa + (at - base),
                ..says
            };
            self.0.insert(base, (at - base, says));
            self.0.insert(at, (size - (at - base), rest));
        }
    }

    fn unmap(&mut self, from: u64, to: u64) {
        self.cut(from);
        self.cut(to);
        self.0.retain(|base, _| *base < from || *base >= to);
    }

    fn protect(&mut self, from: u64, to: u64, bits: u64) {
        self.cut(from);
        self.cut(to);
        for (_, (_, says)) in self.0.range_mut(from..to) {
            says.bits = bits;
        }
    }

    fn first_mapped(&self, from: u64, to: u64) -> Option<u64> {
        match self.at(from) {
            Some(_) => Some(from),
            None => self.0.range(from..to).next().map(|(base, _)| *base),
        }
    }

    fn has_hole(&self, from: u64, to: u64) -> bool {
        let mut at = from;
        while at < to {
            match self.0.range(..=at).next_back() {
                Some((base, (size, _))) if base + size > at => at = base + size,
                _ => return true,
            }
        }
        false
    }

    fn bytes(&self) -> u64 {
        self.0.values().map(|(size, _)| size).sum()
    }
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Map {
        from: u64,
        pages: u64,
        /// To the place where leaves can be joined, or to one where they cannot.
        delta: u64,
        sizes: PageSizes,
    },
    Unmap {
        from: u64,
        pages: u64,
    },
    Protect {
        from: u64,
        pages: u64,
    },
    Allow {
        from: u64,
        pages: u64,
    },
    Split {
        from: u64,
        pages: u64,
        end: End,
    },
    Join {
        from: u64,
        pages: u64,
        end: End,
    },
    Recover,
}

/// What becomes of the second step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Finished,
    /// After the first was confirmed.
    Dropped,
    /// Before.
    Unconfirmed,
}

/// What a step stored, what it owed, and what it was.
type Taken<'p> = (
    Vec<Stored>,
    Option<Gathered>,
    Option<Unsynced<Reclaim<'p, HostPlatform>>>,
);

struct Live<'p> {
    platform: &'p HostPlatform,
    tables: Stage2<'p, HostPlatform>,
    level: BbmLevel,
    page: u64,
    map: Intervals,
    observer: Observer<'p>,
}

/// What a step does to the map, as far as a walker in between is concerned.
#[derive(Clone, Copy)]
enum Effect {
    Nothing,
    Unmaps(u64, u64),
    Gives(u64, u64, u64),
}

impl<'p> Live<'p> {
    fn new(platform: &'p HostPlatform, granule: Granule, ipa_bits: u8, level: BbmLevel) -> Self {
        let mut shape = config(granule, ipa_bits);
        shape.bbm = level;
        shape.tables.log2_pages_per_chunk = 1;
        Self {
            platform,
            tables: Stage2::new(platform, shape).expect("a legal shape, and memory"),
            level,
            page: granule.size_bytes(),
            map: Intervals::default(),
            observer: Observer::new(platform, level),
        }
    }

    /// Addresses to look at: around the ends of the range and of what is mapped.
    fn places(&self, from: u64, to: u64) -> Vec<u64> {
        let last = (1 << self.tables.geometry().ipa_bits()) - 1;
        let ends = self
            .map
            .0
            .iter()
            .flat_map(|(base, (size, _))| [*base, base + size]);
        let near = ends.filter(|at| at.abs_diff(from) < 1 << 31).take(12);
        let large = self.page * (self.page / 8);
        let around = [from, to]
            .into_iter()
            .flat_map(|at| [at, at / large * large, at.next_multiple_of(large)]);
        let mut places: Vec<u64> = around
            .chain(near)
            .chain([from + (to - from) / 2])
            .flat_map(|at| [at.saturating_sub(self.page), at, at + 17 * self.page])
            .filter(|at| *at <= last)
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Runs `change`, with the walker looking on.
    fn watched<R>(
        &mut self,
        (from, to): (u64, u64),
        effect: Effect,
        change: impl FnOnce(&mut Stage2<'p, HostPlatform>) -> R,
    ) -> R {
        let walk = self.tables.walk();
        let mut words = self.observer.snapshot(&walk);
        let (tables, platform) = (&mut self.tables, self.platform);
        let (result, log) = platform.logged(|| change(tables));
        self.observe((from, to), effect, &mut words, &log);
        result
    }

    fn observe(
        &mut self,
        (from, to): (u64, u64),
        effect: Effect,
        words: &mut std::collections::HashMap<u64, u64>,
        log: &[Stored],
    ) {
        let places = self.places(from, to);
        let map = &self.map;
        let allowed = |ipa: u64| {
            let old = map.at(ipa);
            let mut allowed = vec![old];
            match (effect, old) {
                (Effect::Unmaps(from, to), _) if (from..to).contains(&ipa) => allowed.push(None),
                (Effect::Gives(from, to, bits), Some(old)) if (from..to).contains(&ipa) => {
                    allowed.push(Some(Says { bits, ..old }));
                }
                _ => {}
            }
            allowed
        };
        let walk = self.tables.walk();
        self.observer.watch(&walk, words, log, &places, &allowed);
    }

    /// What the walker had cached before it was told goes, and nothing of it was needed.
    fn confirm(&mut self, gathered: &Gathered, at: (u64, u64)) {
        self.observer.invalidate(gathered);
        self.watched(at, Effect::Nothing, |_| {});
    }

    fn settle(&mut self, change: Unsynced<Reclaim<'p, HostPlatform>>, at: (u64, u64)) {
        self.confirm(&change.gathered().clone(), at);
        let tables = change.without_any_smmu();
        self.tables.reclaim(tables).expect("they are its own");
    }

    fn map(&mut self, from: u64, size: u64, delta: u64, sizes: PageSizes) {
        let (ipa, pa) = (Ipa::new(from), Pa::new(from + delta));
        let refusal = self.map.first_mapped(from, from + size);
        let result = self.tables.map(ipa, pa, size, Attributes::MEMORY, sizes);
        match refusal {
            Some(at) => assert_eq!(
                result,
                Err(Stage2Error::AlreadyMapped { ipa: Ipa::new(at) })
            ),
            None => {
                result.expect("it is free");
                let says = Says {
                    pa: from + delta,
                    bits: READ_WRITE,
                };
                self.map.0.insert(from, (size, says));
            }
        }
    }

    /// Splits in the steps that there are; says whether it came to its end.
    fn split(&mut self, from: u64, size: u64, end: End) -> bool {
        let taken = |tables: &mut Stage2<'p, _>, platform: &HostPlatform| {
            let (split, first) = platform.logged(|| tables.split(Ipa::new(from), size));
            let split = split?;
            if end == End::Unconfirmed {
                drop(split);
                return Ok([(first, None, None), (Vec::new(), None, None)]);
            }
            let owed = *split.gathered();
            let splitting = split.without_any_smmu();
            let (change, second) = platform.logged(|| match end {
                End::Finished => Some(splitting.finish()),
                End::Dropped | End::Unconfirmed => None,
            });
            Ok([(first, Some(owed), None), (second, None, change)])
        };
        let is_done = self.two_steps((from, from + size), taken);
        is_done && end == End::Finished
    }

    fn join(&mut self, from: u64, size: u64, end: End) {
        let taken = |tables: &mut Stage2<'p, _>, platform: &HostPlatform| {
            let (join, first) = platform.logged(|| tables.join(Ipa::new(from), size));
            let join = join?;
            if end == End::Unconfirmed {
                drop(join);
                return Ok([(first, None, None), (Vec::new(), None, None)]);
            }
            let owed = *join.gathered();
            let joining = join.without_any_smmu();
            let (change, second) = platform.logged(|| match end {
                End::Finished => Some(joining.finish()),
                End::Dropped | End::Unconfirmed => None,
            });
            Ok([(first, Some(owed), None), (second, None, change)])
        };
        self.two_steps((from, from + size), taken);
    }

    /// Shows the walker both steps, the first confirmed before the second begins.
    fn two_steps(
        &mut self,
        at: (u64, u64),
        take: impl FnOnce(
            &mut Stage2<'p, HostPlatform>,
            &HostPlatform,
        ) -> Result<[Taken<'p>; 2], Stage2Error>,
    ) -> bool {
        let mut words = self.observer.snapshot(&self.tables.walk());
        let steps = match take(&mut self.tables, self.platform) {
            Ok(steps) => steps,
            Err(error) => {
                assert!(
                    matches!(error, Stage2Error::BreakNeeded { .. }),
                    "{error:?}"
                );
                assert_eq!(self.level, BbmLevel::Level0);
                return false;
            }
        };
        for (log, owed, change) in steps {
            self.observe(at, Effect::Nothing, &mut words, &log);
            if let Some(owed) = owed {
                self.observer.invalidate(&owed);
            }
            if let Some(change) = change {
                self.settle(change, at);
            }
        }
        true
    }

    fn unmap(&mut self, from: u64, size: u64) {
        let at = (from, from + size);
        self.fail_to_take_tables(from, size);
        let effect = Effect::Unmaps(from, from + size);
        let change = self.watched(at, effect, |tables| tables.unmap(Ipa::new(from), size));
        match change {
            Ok(change) => {
                self.map.unmap(from, from + size);
                self.settle(change, at);
            }
            Err(Stage2Error::SplitNeeded { .. }) => {
                assert_eq!(self.level, BbmLevel::Level1);
                assert!(self.split(from, size, End::Finished));
                self.unmap(from, size);
            }
            Err(error) => {
                assert!(
                    matches!(error, Stage2Error::BreakNeeded { .. }),
                    "{error:?}"
                );
                assert_eq!(self.level, BbmLevel::Level0);
            }
        }
    }

    fn protect(&mut self, from: u64, size: u64, bits: u64, permissions: Permissions) {
        let at = (from, from + size);
        let effect = Effect::Gives(from, from + size, bits);
        let change = self.watched(at, effect, |tables| {
            tables.protect(Ipa::new(from), size, permissions)
        });
        match change {
            Ok(change) => {
                self.map.protect(from, from + size, bits);
                self.confirm(change.gathered(), at);
                change.without_any_smmu();
            }
            Err(Stage2Error::NotMapped { .. }) => assert!(self.map.has_hole(from, from + size)),
            Err(Stage2Error::SplitNeeded { .. }) => {
                assert_eq!(self.level, BbmLevel::Level1);
                assert!(self.split(from, size, End::Finished));
                self.protect(from, size, bits, permissions);
            }
            Err(error) => {
                assert!(
                    matches!(error, Stage2Error::BreakNeeded { .. }),
                    "{error:?}"
                );
                assert_eq!(self.level, BbmLevel::Level0);
            }
        }
    }

    /// Without memory a split is refused and nothing is different.
    fn fail_to_take_tables(&mut self, from: u64, size: u64) {
        let out = (self.platform.bytes_out(), self.tables.table_pages());
        self.platform.fail_after(Some(0));
        let result = self.tables.split(Ipa::new(from), size).map(drop);
        self.platform.fail_after(None);
        if let Err(Stage2Error::NoTables(refusal)) = result {
            assert!(matches!(refusal, NoTables::NoFrames { .. }));
            assert_eq!((self.platform.bytes_out(), self.tables.table_pages()), out);
            self.check();
        }
    }

    fn step(&mut self, op: Op) {
        let page = self.page;
        match op {
            Op::Map {
                from,
                pages,
                delta,
                sizes,
            } => self.map(from * page, pages * page, delta * page, sizes),
            Op::Unmap { from, pages } => self.unmap(from * page, pages * page),
            Op::Protect { from, pages } => {
                self.protect(from * page, pages * page, READ_ONLY, Permissions::READ_ONLY);
            }
            Op::Allow { from, pages } => {
                self.protect(
                    from * page,
                    pages * page,
                    READ_WRITE,
                    Permissions::READ_WRITE,
                );
            }
            Op::Split { from, pages, end } => {
                self.split(from * page, pages * page, end);
            }
            Op::Join { from, pages, end } => self.join(from * page, pages * page, end),
            Op::Recover => {
                let change = self.tables.recover();
                self.settle(change, (0, page));
            }
        }
        self.check();
    }

    /// Memory says what the map says, and groups are groups.
    fn check(&self) {
        let found = contents(self.platform, &self.tables.walk());
        let page_bits = self.page.trailing_zeros();
        let mut bytes = 0;
        let mut grouped: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        for leaf in &found.leaves {
            let size = 1 << leaf.log2_bytes;
            bytes += size;
            let address = leaf.word & 0x0000_ffff_ffff_f000 & !(size - 1);
            for offset in [0, size / 2 / self.page * self.page, size - self.page] {
                let says = self.map.at(leaf.ipa + offset).expect("it is mapped");
                assert_eq!(says.pa, address + offset);
                assert_eq!(says.bits, leaf.word & 0x0060_0000_0000_0ffc);
            }
            if leaf.word & 1 << 52 != 0 {
                let log2 = leaf.log2_bytes + log2_group(page_bits, leaf.level);
                assert_eq!(address % (1 << log2), leaf.ipa % (1 << log2));
                *grouped.entry((leaf.ipa >> log2, leaf.level)).or_default() += 1;
            }
        }
        assert_eq!(bytes, self.map.bytes());
        for ((_, level), members) in &grouped {
            assert_eq!(
                *members,
                1 << log2_group(page_bits, *level),
                "a whole group"
            );
        }
        assert!(grouped.is_empty() || self.level != BbmLevel::Level0);
        assert_eq!(
            self.tables.table_pages(),
            found.tables.len() as u64 + self.tables.lost_pages()
        );
    }

    fn finish(mut self) {
        let all = 1 << self.tables.geometry().ipa_bits();
        self.unmap(0, all);
        self.step(Op::Recover);
        assert_eq!(self.tables.table_pages(), 0);
        assert_eq!(self.tables.dismantle().without_any_smmu().free(), 0);
        assert_eq!(self.platform.bytes_out(), 0);
        assert!(self.observer.looks > 0);
    }
}

/// Ranges of whole blocks, of whole groups, of a few pages, and of anything.
fn range(block: u64, group: u64) -> impl Strategy<Value = (u64, u64)> {
    let blocks = (0..3u64, 1..3u64).prop_map(move |(at, many)| (at * block, many * block));
    let groups = (0..2u64, 0..3u64, 1..4u64)
        .prop_map(move |(large, at, many)| (large * block + at * group, many * group));
    let pages = (0..2u64, 0..3 * group, 1..5u64)
        .prop_map(move |(large, at, many)| (large * block + at, many));
    let any = (0..3 * block, 1..block + 2 * group);
    prop_oneof![4 => blocks, 3 => groups, 4 => pages, 1 => any]
}

fn op(block: u64, group: u64) -> impl Strategy<Value = Op> {
    let delta = prop_oneof![
        5 => Just(block * 1024),
        2 => Just(block * 1024 + group),
        1 => Just(block * 1024 + 1),
    ];
    let sizes = prop_oneof![Just(PageSizes::Largest), Just(PageSizes::PagesOnly)];
    let end =
        prop_oneof![4 => Just(End::Finished), 1 => Just(End::Dropped), 1 => Just(End::Unconfirmed)];
    let what = 0..20u32;
    (range(block, group), delta, sizes, end, what).prop_map(
        |((from, pages), delta, sizes, end, what)| match what {
            0..6 => Op::Map {
                from,
                pages,
                delta,
                sizes,
            },
            6..9 => Op::Unmap { from, pages },
            9..12 => Op::Protect { from, pages },
            12 => Op::Allow { from, pages },
            13..15 => Op::Split { from, pages, end },
            15..19 => Op::Join { from, pages, end },
            _ => Op::Recover,
        },
    )
}

fn level() -> impl Strategy<Value = BbmLevel> {
    prop_oneof![
        1 => Just(BbmLevel::Level0),
        3 => Just(BbmLevel::Level1),
        3 => Just(BbmLevel::Level2),
    ]
}

fn run(granule: Granule, ipa_bits: u8, level: BbmLevel, ops: &[Op]) {
    let platform = HostPlatform::new();
    let mut live = Live::new(&platform, granule, ipa_bits, level);
    for op in ops {
        live.step(*op);
    }
    live.finish();
}

/// Bug: a split that was given up took a group apart, and what was then protected met the group in a
/// cache (§3.21.1.2).
#[test]
fn a_group_that_an_unconfirmed_split_left_cached_is_beside_no_member_with_other_permissions() {
    let group = Op::Map {
        from: 0,
        pages: 1024,
        delta: 512 * 1024 + 16,
        sizes: PageSizes::Largest,
    };
    let split = Op::Split {
        from: 0,
        pages: 1,
        end: End::Unconfirmed,
    };
    let protect = Op::Protect {
        from: 0,
        pages: 512,
    };
    run(
        Granule::Kib4,
        32,
        BbmLevel::Level1,
        &[group, split, protect],
    );
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn no_page_that_stays_mapped_faults_or_conflicts_at_any_store(
        ops in prop::collection::vec(op(512, 16), 1..24),
        ipa_bits in 32..=40u8,
        level in level(),
    ) {
        run(Granule::Kib4, ipa_bits, level, &ops);
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn nor_do_pages_of_16_kib(
        ops in prop::collection::vec(op(2048, 128), 1..10),
        ipa_bits in 34..=42u8,
        level in level(),
    ) {
        run(Granule::Kib16, ipa_bits, level, &ops);
    }

    #[test]
    fn nor_do_pages_of_64_kib(
        ops in prop::collection::vec(op(8192, 32), 1..10),
        ipa_bits in 34..=42u8,
        level in level(),
    ) {
        run(Granule::Kib64, ipa_bits, level, &ops);
    }
}
