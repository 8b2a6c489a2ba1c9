//! Leaves that change their size: two steps, each a value that must be spent.

use core::fmt;
use core::mem;

use super::range::Range;
use super::split::Cuts;
use super::{Reclaim, Stage2, Stage2Error, join};
use crate::addr::Ipa;
use crate::hw::{Chain, Mark, Platform};
use crate::smmu::{Gathered, Unsynced};
use crate::spec::vmsa::BbmLevel;

impl<'p, P: Platform> Stage2<'p, P> {
    /// Begins to cut `[ipa, ipa + size_bytes)` out of the leaves and contiguous groups that it ends
    /// in, so that a change of it is a change of whole leaves; nothing that is mapped changes.
    ///
    /// Open the value by an invalidation, [`finish`](Splitting::finish) what it gives, and open
    /// that. Only at BBML 1 does the first step owe anything. All tables are taken here:
    /// `finish` cannot fail.
    ///
    /// # Errors
    ///
    /// [`NotWholePages`](Stage2Error::NotWholePages), [`PastInput`](Stage2Error::PastInput),
    /// [`InWindow`](Stage2Error::InWindow); [`BreakNeeded`](Stage2Error::BreakNeeded) at BBML 0, if there is anything to cut and walkers
    /// are live; [`NoTables`](Stage2Error::NoTables).
    pub fn split(
        &mut self,
        ipa: Ipa,
        size_bytes: u64,
    ) -> Result<Unsynced<Splitting<'_, 'p, P>>, Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        let cuts = Cuts::find(&self.tree, range);
        cuts.expect_possible(self.bearable())?;
        cuts.reserve(&mut self.tree)
            .map_err(Stage2Error::NoTables)?;
        let mut gathered = self.nothing();
        let mut covers = 0;
        if self.bearable() == BbmLevel::Level1 {
            let mut ungrouped = Gathered::nothing(self.vmid, self.geometry().granule());
            cuts.mark(&mut self.tree, &mut gathered, &mut ungrouped);
            self.tell_cpus(&gathered);
            gathered.absorb(&self.pending);
            self.note_ungrouped(&ungrouped);
            covers = self.ungroupings;
        }
        let splitting = Splitting {
            stage2: self,
            range,
            covers,
        };
        Ok(Unsynced::new(gathered, splitting))
    }

    /// Begins to make `[ipa, ipa + size_bytes)` one of fewer, larger leaves: of every table in it
    /// all of whose leaves map consecutive memory alike, one block; nothing that is mapped changes.
    ///
    /// Open the value by an invalidation, [`finish`](Joining::finish) what it gives, and open that.
    /// The second step settles what blocks there are (also those that an abandoned
    /// [`split`](Self::split) left slow) and gives the contiguous hint to groups.
    ///
    /// # Errors
    ///
    /// [`NotWholePages`](Stage2Error::NotWholePages), [`PastInput`](Stage2Error::PastInput),
    /// [`InWindow`](Stage2Error::InWindow); [`BreakNeeded`](Stage2Error::BreakNeeded) at BBML 0, if there is anything to join and
    /// walkers are live.
    pub fn join(
        &mut self,
        ipa: Ipa,
        size_bytes: u64,
    ) -> Result<Unsynced<Joining<'_, 'p, P>>, Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        let mut gathered = self.nothing();
        let mut chain = self.tree.chain();
        if let Some((ipa, log2_bytes)) = join::first(self.tree.root(), range) {
            let mark = match self.bearable() {
                BbmLevel::Level0 => return Err(Stage2Error::BreakNeeded { ipa, log2_bytes }),
                BbmLevel::Level1 => Mark::Set,
                BbmLevel::Level2 => Mark::Clear,
            };
            join::join(self.tree.edit(), range, mark, &mut gathered, &mut chain);
            self.tree.publish();
            self.tell_cpus(&gathered);
        }
        let stage2 = self;
        let joining = Joining {
            stage2,
            range,
            chain,
            stale: gathered,
        };
        Ok(Unsynced::new(gathered, joining))
    }
}

/// A split of which the first step is confirmed.
///
/// Dropping it before [`finish`](Self::finish) leaves the leaves as large as they were; at BBML 1
/// SMMUs may be slow on them until a [`join`](Stage2::join) there, or another split.
#[must_use = "nothing is split until it is finished"]
pub struct Splitting<'s, 'p, P: Platform> {
    stage2: &'s mut Stage2<'p, P>,
    range: Range,
    /// The first step covers so many ungroupings.
    covers: u64,
}

impl<'p, P: Platform> Splitting<'_, 'p, P> {
    /// The second step: the leaves are cut.
    ///
    /// The change may be gone on with, so that one invalidation serves both:
    /// [`unmap_into`](Stage2::unmap_into).
    pub fn finish(self) -> Unsynced<Reclaim<'p, P>> {
        // That the first step was confirmed is what led here.
        self.stage2.end_pending(self.covers);
        let mut change = self.stage2.nothing_owed();
        let (gathered, _) = change.parts();
        let hints = self.stage2.hints();
        let cuts = Cuts::find(&self.stage2.tree, self.range);
        let mut ungrouped = *gathered;
        cuts.perform(&mut self.stage2.tree, hints, gathered, &mut ungrouped);
        if self.stage2.flushes_new_tables {
            cuts.note_tables(gathered);
        }
        self.stage2.tree.publish();
        self.stage2.tell_cpus(gathered);
        change
    }
}

impl<P: Platform> Drop for Splitting<'_, '_, P> {
    fn drop(&mut self) {
        self.stage2.tree.release_reserve();
    }
}

/// A join of which the first step is confirmed.
///
/// Dropping it before [`finish`](Self::finish), or what holds it before it was opened, leaves the
/// blocks joined, at BBML 1 slow for SMMUs, and the tables that they stood for
/// [lost](Stage2::lost_pages) until they are recovered; until then every change invalidates them
/// too.
#[must_use = "the tables that were joined come back when it is finished"]
pub struct Joining<'s, 'p, P: Platform> {
    stage2: &'s mut Stage2<'p, P>,
    range: Range,
    chain: Chain<'p, P>,
    stale: Gathered,
}

impl<'p, P: Platform> Joining<'_, 'p, P> {
    /// The second step: the blocks are ordinary ones. Gives the tables that they stood for.
    pub fn finish(mut self) -> Unsynced<Reclaim<'p, P>> {
        let mut gathered = self.stage2.nothing();
        let hints = self.stage2.hints();
        join::settle(self.stage2.tree.edit(), self.range, hints, &mut gathered);
        if !gathered.is_nothing() {
            self.stage2.tree.publish();
            self.stage2.tell_cpus(&gathered);
        }
        let chain = mem::replace(&mut self.chain, self.stage2.tree.chain());
        Unsynced::new(gathered, Reclaim { chain, covers: 0 })
    }
}

impl<P: Platform> Drop for Joining<'_, '_, P> {
    fn drop(&mut self) {
        let chain = mem::replace(&mut self.chain, self.stage2.tree.chain());
        if chain.count() != 0 {
            // Nobody knows whether the first step was ever confirmed.
            self.stage2.owed.absorb(&self.stale);
        }
        // Its own pages: it cannot refuse them.
        let _ = self.stage2.lost.append(chain);
    }
}

impl<P: Platform> fmt::Debug for Splitting<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Splitting")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

impl<P: Platform> fmt::Debug for Joining<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joining")
            .field("range", &self.range)
            .field("tables", &self.chain.count())
            .finish_non_exhaustive()
    }
}
