//! A walker that looks at every moment and forgets nothing by itself.
//!
//! It replays what was stored, seeing the stores between two barriers in more than one order, and
//! keeps every translation it ever found until an invalidation says that it must go.

use std::collections::{HashMap, HashSet};

use portcullis::hw::Barrier;
use portcullis::hw::testing::{Access, HostPlatform};
use portcullis::smmu::{Gathered, StaleRange};
use portcullis::spec::vmsa::{BbmLevel, Stage2Walk};

use super::walker::{Found, contents, translate};

/// What a translation says: where to, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Says {
    pub(crate) pa: u64,
    pub(crate) bits: u64,
}

const CONTIGUOUS: u64 = 1 << 52;
const NT: u64 = 1 << 16;
/// `XN`, `AF`, `SH`, `S2AP`, `MemAttr`.
const BITS: u64 = 0x0060_0000_0000_0ffc;

/// A translation as a TLB may hold it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    base: u64,
    log2_bytes: u32,
    /// The size of the leaf itself; less than the entry's if that is of a group.
    log2_leaf: u32,
    /// Where its base leads.
    says: Says,
    is_marked: bool,
}

impl Entry {
    fn new(found: &Found, log2_group: u32) -> Self {
        let is_grouped = found.word & CONTIGUOUS != 0;
        assert!(!is_grouped || log2_group != 0, "the hint is reserved there");
        let log2_bytes = found.log2_bytes + if is_grouped { log2_group } else { 0 };
        let address = found.word & 0x0000_ffff_ffff_f000 & !((1 << found.log2_bytes) - 1);
        let base = found.ipa >> log2_bytes << log2_bytes;
        let says = Says {
            pa: address - (found.ipa - base),
            bits: found.word & BITS,
        };
        assert!(
            says.pa.is_multiple_of(1 << log2_bytes),
            "aligned in memory too"
        );
        Self {
            base,
            log2_bytes,
            log2_leaf: found.log2_bytes,
            says,
            is_marked: found.level < 3 && found.word & NT != 0,
        }
    }

    fn at(&self, ipa: u64) -> Option<Says> {
        let offset = ipa.checked_sub(self.base)?;
        let pa = self.says.pa + offset;
        (offset < 1 << self.log2_bytes).then_some(Says { pa, ..self.says })
    }
}

/// A walker that finds the hint may take any member for any other, as long as this one stays.
fn expect_group(walk: &Stage2Walk, group: &Entry, read: &mut dyn FnMut(u64) -> u64) {
    for offset in (0..1 << group.log2_bytes).step_by(1 << group.log2_leaf) {
        let ipa = group.base + offset;
        let member = translate(walk, ipa, read).expect("a member of a group is valid");
        let member = Entry::new(&member.found, member.log2_group);
        assert_eq!(member.log2_leaf, group.log2_leaf);
        assert_eq!(member.at(ipa), group.at(ipa), "members say the same");
    }
}

/// Memory as the walker sees it, and what it has cached.
pub(crate) struct Observer<'p> {
    platform: &'p HostPlatform,
    level: BbmLevel,
    entries: Vec<Entry>,
    /// How many looks at memory were taken.
    pub(crate) looks: u64,
}

/// For an address, what a transaction may be told at this moment; an empty list: nothing is known
/// of it. `None` among them is a fault.
pub(crate) type Allowed<'a> = &'a dyn Fn(u64) -> Vec<Option<Says>>;

impl<'p> Observer<'p> {
    pub(crate) fn new(platform: &'p HostPlatform, level: BbmLevel) -> Self {
        Self {
            platform,
            level,
            entries: Vec::new(),
            looks: 0,
        }
    }

    /// The words of all tables of `walk`.
    pub(crate) fn snapshot(&self, walk: &Stage2Walk) -> HashMap<u64, u64> {
        let log2_table = u32::from(walk.geometry.granule().log2_bytes());
        let root = (walk.root.as_u64(), walk.geometry.root_entries());
        let below = contents(self.platform, walk).tables;
        let below = below.iter().map(|table| (table.at, 1 << (log2_table - 3)));
        let mut words = HashMap::new();
        for (at, entries) in core::iter::once(root).chain(below) {
            let table = self.platform.read(portcullis::addr::Pa::new(at), entries);
            let table = table.expect("a table is in frames that are out");
            words.extend((at..).step_by(8).zip(table));
        }
        words
    }

    /// Looks at `at` before, between and after the stores in `log`, which change `words`.
    pub(crate) fn watch(
        &mut self,
        walk: &Stage2Walk,
        words: &mut HashMap<u64, u64>,
        log: &[Access],
        at: &[u64],
        allowed: Allowed<'_>,
    ) {
        let mut visited = self.look(walk, words, at, allowed);
        for epoch in log.split(|access| *access == Access::Barrier(Barrier::Publish)) {
            let stores = || {
                epoch.iter().filter_map(|access| match access {
                    Access::Store(at, value) => Some((at.as_u64(), *value)),
                    _ => None,
                })
            };
            // Any of them may be seen before all others.
            for (word, value) in stores().filter(|(word, _)| visited.contains(word)) {
                let old = words.insert(word, value);
                let _ = self.look(walk, words, at, allowed);
                words.insert(word, old.expect("it was visited"));
            }
            for (word, value) in stores() {
                words.insert(word, value);
                if visited.contains(&word) {
                    visited = self.look(walk, words, at, allowed);
                }
            }
        }
    }

    /// Translates, caches and judges; says which words that depends upon.
    fn look(
        &mut self,
        walk: &Stage2Walk,
        words: &HashMap<u64, u64>,
        at: &[u64],
        allowed: Allowed<'_>,
    ) -> HashSet<u64> {
        let mut visited = HashSet::new();
        self.looks += 1;
        for &ipa in at {
            let mut read = |word| {
                visited.insert(word);
                *words
                    .get(&word)
                    .expect("a walker was led to a word that was never stored")
            };
            let step = translate(walk, ipa, &mut read);
            let entry = step.map(|step| Entry::new(&step.found, step.log2_group));
            let wanted = allowed(ipa);
            if wanted.len() == 1
                && let Some(step) = step.filter(|step| step.found.word & CONTIGUOUS != 0)
            {
                let entry = Entry::new(&step.found, step.log2_group);
                expect_group(walk, &entry, &mut read);
            }
            let now = entry.and_then(|entry| entry.at(ipa));
            assert!(wanted.contains(&now), "{ipa:#x}: {now:x?}, not {wanted:x?}");
            if let Some(entry) = entry
                && !self.entries.contains(&entry)
            {
                self.entries.push(entry);
            }
            self.judge(ipa, &wanted);
        }
        visited
    }

    /// What is cached for `ipa` is allowed too, and does not conflict.
    fn judge(&self, ipa: u64, wanted: &[Option<Says>]) {
        let hits: Vec<_> = self
            .entries
            .iter()
            .filter(|entry| entry.at(ipa).is_some())
            .collect();
        for hit in &hits {
            assert!(
                wanted.contains(&hit.at(ipa)),
                "{ipa:#x}: {hit:x?} is cached, not {wanted:x?}"
            );
        }
        if self.level == BbmLevel::Level2 {
            return;
        }
        // §3.21.1.2: what is marked conflicts with nothing, the contiguous hint alone with nothing.
        for one in hits.iter().filter(|entry| !entry.is_marked) {
            for two in hits.iter().filter(|entry| !entry.is_marked) {
                let same_leaf = one.log2_leaf == two.log2_leaf;
                let same_size = one.log2_bytes == two.log2_bytes;
                assert!(
                    same_leaf && (same_size || one.says.bits == two.says.bits),
                    "F_TLB_CONFLICT at {ipa:#x}: {one:x?} and {two:x?}"
                );
            }
        }
    }

    /// Forgets what an invalidation of `gathered` reaches by single commands, and no more: what
    /// holds one of the addresses that they step through.
    pub(crate) fn invalidate(&mut self, gathered: &Gathered) {
        let Some(ranges) = gathered.ranges() else {
            return self.entries.clear();
        };
        let steps = |range: &StaleRange, entry: &Entry| {
            let log2_step = range.log2_step(gathered.granule());
            let base = range.base().as_u64() >> log2_step << log2_step;
            let end = range.base().as_u64() + range.size_bytes();
            let first = base.max(entry.base).next_multiple_of(1 << log2_step);
            first < end && first < entry.base + (1 << entry.log2_bytes)
        };
        self.entries
            .retain(|entry| !ranges.iter().any(|range| steps(range, entry)));
    }
}
