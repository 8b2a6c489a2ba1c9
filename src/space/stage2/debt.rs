//! What a change leaves to be paid: removed tables, lost ones, and a stage 2 that is no more.

use core::fmt;

use super::Stage2;
use crate::hw::{Chain, Platform};
use crate::smmu::{Gathered, Unsynced};

/// Tables that were removed, and that nobody walks any more.
#[must_use = "dropping it leaks the tables; give them back with `Stage2::reclaim`"]
pub struct Reclaim<'p, P> {
    pub(super) chain: Chain<'p, P>,
    /// The change invalidates all that was ungrouped up to then: see `Stage2::pending`.
    pub(super) covers: u64,
}

impl<P: Platform> Reclaim<'_, P> {
    /// How many pages there are.
    pub const fn pages(&self) -> u64 {
        self.chain.count()
    }
}

impl<P: Platform> Unsynced<Reclaim<'_, P>> {
    /// Makes `other` part of this change, so that one invalidation serves both.
    ///
    /// # Errors
    ///
    /// `other`, if it is not of the same stage 2; this one is as it was.
    pub fn absorb(&mut self, other: Self) -> Result<(), Self> {
        self.absorb_with(other, |mine, more| {
            let Reclaim { chain, covers } = more;
            mine.chain
                .append(chain)
                .map_err(|chain| Reclaim { chain, covers })?;
            mine.covers = mine.covers.max(covers);
            Ok(())
        })
    }
}

impl<'p, P: Platform> Stage2<'p, P> {
    /// Takes back tables that nobody walks any more.
    ///
    /// # Errors
    ///
    /// The tables, if they are another stage 2's.
    pub fn reclaim(&mut self, tables: Reclaim<'p, P>) -> Result<(), Reclaim<'p, P>> {
        let Reclaim { chain, covers } = tables;
        self.tree
            .reclaim(chain)
            .map_err(|chain| Reclaim { chain, covers })?;
        self.end_pending(covers);
        Ok(())
    }

    /// Keeps tables whose invalidation was not confirmed, out of use and within the quota.
    ///
    /// # Errors
    ///
    /// The value, if it is another stage 2's.
    pub fn lose(
        &mut self,
        tables: Unsynced<Reclaim<'p, P>>,
    ) -> Result<(), Unsynced<Reclaim<'p, P>>> {
        let gathered = *tables.gathered();
        let Reclaim { chain, covers } = tables.open();
        self.lost
            .append(chain)
            .map_err(|chain| Unsynced::new(gathered, Reclaim { chain, covers }))
    }

    /// All lost tables, to be tried again: everything of the VMID must be invalidated for them.
    pub fn recover(&mut self) -> Unsynced<Reclaim<'p, P>> {
        let everything = Gathered::everything(self.vmid, self.geometry().granule());
        self.tell_cpus(&everything);
        self.owed = Gathered::nothing(self.vmid, self.geometry().granule());
        let lost = core::mem::replace(&mut self.lost, self.tree.chain());
        let reclaim = Reclaim {
            chain: lost,
            covers: self.ungroupings,
        };
        Unsynced::new(everything, reclaim)
    }

    /// Ends the stage 2: no STE and no CPU points to it any more.
    ///
    /// Its memory goes back through [`Dismantled::free`] once everything of the VMID is
    /// invalidated.
    pub fn dismantle(self) -> Unsynced<Dismantled<'p, P>> {
        let everything = Gathered::retired(self.vmid, self.geometry().granule());
        self.tell_cpus(&everything);
        Unsynced::new(everything, Dismantled(self))
    }
}

/// A stage 2 that is no more, and that nobody walks.
#[must_use = "dropping it leaks the tables; give them back with `free`"]
pub struct Dismantled<'p, P>(Stage2<'p, P>);

impl<P: Platform> Dismantled<'_, P> {
    /// Gives all memory back to the platform, lost tables too.
    ///
    /// Says how many table pages are still held in values that were never reclaimed; the frames
    /// around these stay out of use, and the root.
    pub fn free(self) -> u64 {
        let Stage2 { mut tree, lost, .. } = self.0;
        // They are its own: `lose` refused others.
        let _ = tree.reclaim(lost);
        tree.destroy()
    }
}

impl<P> fmt::Debug for Reclaim<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.chain.count();
        f.debug_struct("Reclaim").field("pages", &pages).finish()
    }
}

impl<P: Platform> fmt::Debug for Dismantled<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dismantled").field(&self.0).finish()
    }
}
