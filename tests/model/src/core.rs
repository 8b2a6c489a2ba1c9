//! The state of one SMMU, and the passing of time.

use std::sync::Arc;

use crate::ats::Message;
use crate::cache::Caches;
use crate::claims::Claims;
use crate::entry::Entries;
use crate::event_queue::Events;
use crate::execute::Commands;
use crate::fault::{Faults, Fetch};
use crate::hostile::Choices;
use crate::ids::Identity;
use crate::interrupt::Interrupt;
use crate::memory::{Abort, Memory};
use crate::prefetch::Ahead;
use crate::record::Record;
use crate::registers::Registers;
use crate::route::Resolved;
use crate::stall::Stalls;
use crate::story::Origin;
use crate::transaction::Transaction;
use crate::violation::Rule;
use crate::watch::Uses;

/// One SMMU. Every room of the crate adds its part to this type in an `impl` block of its own.
pub(crate) struct Core {
    /// Which SMMU of the machine this is.
    pub(crate) index: usize,
    pub(crate) id: Identity,
    pub(crate) memory: Arc<dyn Memory>,
    pub(crate) record: Arc<Record>,
    pub(crate) claims: Arc<Claims>,
    pub(crate) choices: Choices,
    pub(crate) faults: Faults,
    pub(crate) registers: Registers,
    pub(crate) updates: crate::update::Updates,
    pub(crate) commands: Commands,
    pub(crate) caches: Caches,
    pub(crate) uses: Uses,
    pub(crate) entries: Entries,
    pub(crate) ahead: Ahead,
    pub(crate) events: Events,
    pub(crate) reads: crate::strict::Reads,
    pub(crate) grants: crate::grants::Grants,
    pub(crate) settled: crate::unknown::Settled,
    pub(crate) stalls: Stalls,
    /// Posted writes that are still on their way.
    pub(crate) posted: Vec<(Transaction, Resolved, Option<Origin>)>,
    pub(crate) interrupts: Vec<Interrupt>,
    pub(crate) outbox: Vec<Message>,
    /// Since when the driver waits for what is pending, and whether that was told.
    pub(crate) waits: Option<(u64, bool)>,
    /// No driver may wait longer for one answer.
    pub(crate) wait_limit_us: u64,
    /// How long a device may take to answer an invalidation.
    pub(crate) atc_timeout_us: u64,
}

impl Core {
    pub(crate) fn now_us(&self) -> u64 {
        self.record.now_us()
    }

    /// Does what has become due: acknowledgements, then commands.
    pub(crate) fn tick(&mut self) {
        self.acknowledge();
        self.perform_some();
        self.run_commands();
    }

    /// Goes on after time has passed.
    pub(crate) fn elapse(&mut self) {
        self.tick();
        if self.choices.is_chaotic() {
            self.evict_some();
        }
        if self.choices.one_in(2) {
            self.land_posted();
        }
        self.flush_events();
        self.run_stalls();
        self.check_waits();
    }

    /// Complains, once for each, of an answer that the driver has waited for beyond all bounds.
    fn check_waits(&mut self) {
        let now = self.now_us();
        let Some(since) = self.pending_since() else {
            self.waits = None;
            return;
        };
        let (start, is_told) = self
            .waits
            .filter(|(start, _)| *start == since)
            .unwrap_or((since, false));
        let is_over = now.saturating_sub(start) > self.wait_limit_us;
        if is_over && !is_told {
            self.violate(
                Rule::WaitUnbounded,
                format!("{} us for one answer", now - start),
            );
        }
        self.waits = Some((start, is_told || is_over));
    }

    pub(crate) fn violate(&self, rule: Rule, what: String) {
        self.record.violate(rule, what, &[]);
    }

    /// The SMMU's own read of a word, for a structure.
    pub(crate) fn fetch(&self, pa: u64, fetch: Fetch) -> Result<u64, Abort> {
        if self.faults.abort(fetch, pa) {
            return Err(Abort);
        }
        if self.claims.is_free(pa) {
            self.violate(
                Rule::FreedFrameFetched,
                format!(
                    "SMMU {} read a {fetch:?} at {pa:#x}, in a frame given back",
                    self.index
                ),
            );
        }
        self.memory.read64(pa)
    }
}
