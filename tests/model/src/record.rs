//! What happened: stores, transactions that reached memory, violations.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::hostile::Mode;
use crate::story::{Origin, Story, StoryLine};
use crate::violation::{Rule, Violation};

/// How many of the newest stores and landings are kept.
const KEPT: usize = 1 << 16;

/// A point in the run, to ask what happened after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark(u64);

/// A transaction's access that reached memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Landing {
    /// The step in which it did.
    pub step: u64,
    /// Which SMMU it came through, in the order they were made.
    pub smmu: usize,
    /// Whose it was.
    pub stream: u32,
    /// With which SubstreamID, if any.
    pub substream: Option<u32>,
    /// The address that the device put out.
    pub address: u64,
    /// The physical address reached.
    pub pa: u64,
    /// How many bytes.
    pub bytes: usize,
    /// Whether it was a write.
    pub is_write: bool,
    /// The copy of the stream table entry that was used, if one was.
    pub ste: Option<Origin>,
    /// The copy of the context descriptor that was used, if one was.
    pub cd: Option<Origin>,
    /// The translation that was used, if one was: its last descriptor.
    pub translation: Option<Origin>,
}

/// The shared record of a run, of all SMMUs over one memory.
#[derive(Debug, Default)]
pub struct Record {
    step: AtomicU64,
    now_us: AtomicU64,
    panics: AtomicBool,
    mode: OnceLock<Mode>,
    landings: Mutex<VecDeque<Landing>>,
    landings_lost: AtomicU64,
    stores: Mutex<VecDeque<(u64, u64, u64)>>,
    violations: Mutex<Vec<Violation>>,
    foreign_evictions: AtomicU64,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked elsewhere must not hide what was recorded.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// An empty record at time 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every further violation a panic that tells its story.
    pub fn panic_on_violation(&self) {
        self.panics.store(true, Ordering::Relaxed);
    }

    /// Notes how hostile the run is; the first call counts.
    pub(crate) fn note_mode(&self, mode: Mode) {
        let _ = self.mode.set(mode);
    }

    /// The number of the current step; each store, register write and transaction is one.
    pub fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    pub(crate) fn next_step(&self) -> u64 {
        self.step.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Model time in microseconds.
    pub fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }

    /// Lets `us` microseconds pass. The SMMUs act upon it when they are next asked to do anything;
    /// [`Smmu::tick`](crate::Smmu::tick) asks for nothing else.
    pub fn pass(&self, us: u64) {
        self.now_us.fetch_add(us, Ordering::Relaxed);
    }

    /// This moment.
    pub fn mark(&self) -> Mark {
        Mark(self.step())
    }

    /// What reached memory after `mark`, oldest first (of the newest 65536).
    pub fn landed_since(&self, mark: Mark) -> Vec<Landing> {
        lock(&self.landings)
            .iter()
            .filter(|landing| landing.step > mark.0)
            .copied()
            .collect()
    }

    /// Takes what reached memory since the last call, oldest first.
    ///
    /// What is taken is no longer in [`landed_since`](Self::landed_since).
    pub fn take_landings(&self) -> Vec<Landing> {
        std::mem::take(&mut *lock(&self.landings)).into()
    }

    /// How many landings were neither taken in time nor are among the newest 65536.
    pub fn landings_lost(&self) -> u64 {
        self.landings_lost.load(Ordering::Relaxed)
    }

    /// All violations so far, oldest first.
    pub fn violations(&self) -> Vec<Violation> {
        lock(&self.violations).clone()
    }

    /// All violations but the first `told`, oldest first.
    pub fn violations_after(&self, told: usize) -> Vec<Violation> {
        let violations = lock(&self.violations);
        violations.get(told..).unwrap_or_default().to_vec()
    }

    /// How often `rule` was broken.
    pub fn count(&self, rule: Rule) -> usize {
        lock(&self.violations)
            .iter()
            .filter(|violation| violation.rule == rule)
            .count()
    }

    /// Entries that an invalidation removed although nothing asked for it to touch that VMID.
    ///
    /// Counted when `CFGI_ALL` or `TLBI_NSNH_ALL` run while an SMMU translates.
    pub fn foreign_evictions(&self) -> u64 {
        self.foreign_evictions.load(Ordering::Relaxed)
    }

    pub(crate) fn count_foreign_evictions(&self, count: usize) {
        self.foreign_evictions
            .fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn land(&self, landing: Landing) {
        let mut landings = lock(&self.landings);
        if landings.len() == KEPT {
            landings.pop_front();
            self.landings_lost.fetch_add(1, Ordering::Relaxed);
        }
        landings.push_back(landing);
    }

    pub(crate) fn stored(&self, step: u64, pa: u64, value: u64) {
        let mut stores = lock(&self.stores);
        if stores.len() == KEPT {
            stores.pop_front();
        }
        stores.push_back((step, pa, value));
    }

    /// The newest driver's store to the 64 bytes around `pa`, no later than `step`.
    fn store_behind(&self, pa: u64, step: u64) -> Option<StoryLine> {
        let stores = lock(&self.stores);
        let newest = |mask: u64| {
            let is_it = |store: &&(u64, u64, u64)| store.0 <= step && store.1 & mask == pa & mask;
            stores.iter().rev().find(is_it)
        };
        let line = newest(u64::MAX).or_else(|| newest(!63))?;
        Some(StoryLine::Stored {
            step: line.0,
            pa: line.1,
            value: line.2,
        })
    }

    /// Records that `rule` was broken: `what` says how, `items` are the cached items involved.
    pub(crate) fn violate(&self, rule: Rule, what: String, items: &[(String, Origin)]) {
        let step = self.step();
        let mut lines = Vec::new();
        for (item, origin) in items {
            lines.extend(self.store_behind(origin.pa, origin.step));
            lines.push(StoryLine::Cached {
                item: item.clone(),
                origin: *origin,
            });
        }
        lines.push(StoryLine::Happened {
            step,
            what: what.clone(),
        });
        let violation = Violation {
            rule,
            what,
            at_us: self.now_us(),
            mode: self.mode.get().copied().unwrap_or(Mode::Polite),
            story: Story(lines),
        };
        let panics = self.panics.load(Ordering::Relaxed);
        let told = panics.then(|| violation.to_string());
        lock(&self.violations).push(violation);
        if let Some(told) = told {
            panic!("{told}");
        }
    }
}
