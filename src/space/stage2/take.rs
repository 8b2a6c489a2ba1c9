//! Taking away: ranges and permissions, and what of groups an SMMU may still hold meanwhile.

use super::change;
use super::range::Range;
use super::split::{Cuts, Hints, Purpose};
use super::{Reclaim, Stage2, Stage2Error};
use crate::addr::Ipa;
use crate::hw::{Chain, Platform};
use crate::smmu::{Gathered, Unsynced};
use crate::spec::vmsa::{BbmLevel, Permissions};

impl<'p, P: Platform> Stage2<'p, P> {
    /// Maps nothing at `[ipa, ipa + size_bytes)` any more, whatever was mapped there, holes or not.
    ///
    /// Walkers may go on with what they cached until the value is opened by an invalidation; what
    /// it then gives goes to [`reclaim`](Self::reclaim).
    ///
    /// # Errors
    ///
    /// [`NotWholePages`](Stage2Error::NotWholePages), [`PastInput`](Stage2Error::PastInput),
    /// [`InWindow`](Stage2Error::InWindow). If an end of the range lies within a block, and walkers are
    /// [`Live`](super::Walkers::Live),
    /// [`SplitNeeded`](Stage2Error::SplitNeeded) or [`BreakNeeded`](Stage2Error::BreakNeeded), as
    /// the module's text says; where the block is split, [`NoTables`](Stage2Error::NoTables).
    #[inline]
    pub fn unmap(
        &mut self,
        ipa: Ipa,
        size_bytes: u64,
    ) -> Result<Unsynced<Reclaim<'p, P>>, Stage2Error> {
        let mut change = self.nothing_owed();
        self.unmap_into(&mut change, ipa, size_bytes)?;
        Ok(change)
    }

    /// A change that changes nothing, for [`unmap_into`](Self::unmap_into).
    #[inline]
    pub fn nothing_owed(&self) -> Unsynced<Reclaim<'p, P>> {
        let reclaim = Reclaim {
            chain: self.tree.chain(),
            covers: 0,
        };
        Unsynced::new(self.nothing(), reclaim)
    }

    /// As [`unmap`](Self::unmap), as part of a change that is already there: what is unmapped
    /// piece by piece is invalidated once.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap), and [`ForeignChange`](Stage2Error::ForeignChange).
    pub fn unmap_into(
        &mut self,
        change: &mut Unsynced<Reclaim<'p, P>>,
        ipa: Ipa,
        size_bytes: u64,
    ) -> Result<(), Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        self.unmap_range_into(change, range)
    }

    #[inline]
    pub(super) fn unmap_range_into(
        &mut self,
        change: &mut Unsynced<Reclaim<'p, P>>,
        range: Range,
    ) -> Result<(), Stage2Error> {
        let (gathered, reclaim) = self.parts_of(change)?;
        if !self.owed.is_nothing() {
            gathered.absorb(&self.owed);
        }
        if !self.pending.is_nothing() {
            gathered.absorb(&self.pending);
        }
        if self.cpus.is_none() {
            self.clear(range, gathered, &mut reclaim.chain)?;
        } else {
            // The CPUs are told of this piece alone: they know of the others already.
            let mut piece = Gathered::nothing(self.vmid, self.geometry().granule());
            self.clear(range, &mut piece, &mut reclaim.chain)?;
            self.tell_cpus(&piece);
            gathered.absorb(&piece);
        }
        reclaim.covers = self.ungroupings;
        Ok(())
    }

    #[inline]
    fn clear(
        &mut self,
        range: Range,
        gathered: &mut Gathered,
        chain: &mut Chain<'p, P>,
    ) -> Result<(), Stage2Error> {
        let is_done = match self.hints() {
            Hints::Never => {
                change::clear_in_one_table(&mut self.tree, range, gathered, None, chain)
            }
            Hints::Set => {
                let mut noted = Gathered::nothing(self.vmid, self.geometry().granule());
                let (tree, ungrouped) = (&mut self.tree, Some(&mut noted));
                let is_done = change::clear_in_one_table(tree, range, gathered, ungrouped, chain);
                self.note_ungrouped(&noted);
                is_done
            }
        };
        if !is_done {
            self.cut(range, Purpose::Removal, gathered)?;
            change::clear(&mut self.tree, range, gathered, chain);
        }
        Ok(())
    }

    /// Remembers groups that are none any more, until a change that covers them is confirmed.
    #[inline]
    pub(super) fn note_ungrouped(&mut self, ungrouped: &Gathered) {
        if !ungrouped.is_nothing() && self.bearable() == BbmLevel::Level1 {
            self.pending.absorb(ungrouped);
            self.ungroupings += 1;
        }
    }

    /// A change that covers so many ungroupings was confirmed.
    pub(super) fn end_pending(&mut self, covers: u64) {
        if covers >= self.ungroupings {
            self.pending = Gathered::nothing(self.vmid, self.geometry().granule());
        }
    }

    /// Makes both ends of the range ends of leaves and groups at once, or refuses.
    fn cut(
        &mut self,
        range: Range,
        purpose: Purpose,
        gathered: &mut Gathered,
    ) -> Result<(), Stage2Error> {
        let cuts = Cuts::find(&self.tree, range);
        cuts.expect_direct(self.bearable(), purpose)?;
        if purpose == Purpose::Permissions {
            self.expect_none_pending(range)?;
        }
        cuts.reserve(&mut self.tree)
            .map_err(Stage2Error::NoTables)?;
        let hints = self.hints();
        let mut ungrouped = Gathered::nothing(self.vmid, self.geometry().granule());
        cuts.perform(&mut self.tree, hints, gathered, &mut ungrouped);
        self.note_ungrouped(&ungrouped);
        if self.flushes_new_tables {
            cuts.note_tables(gathered);
        }
        Ok(())
    }

    /// Refuses a range of which an SMMU may still hold a group that is none any more: it would hold
    /// members with other permissions beside that (§3.21.1.2).
    fn expect_none_pending(&self, range: Range) -> Result<(), Stage2Error> {
        let pending = match self.bearable() {
            BbmLevel::Level1 => self.pending.ranges().unwrap_or(&[]),
            BbmLevel::Level0 | BbmLevel::Level2 => &[],
        };
        let meets = pending.iter().find(|stale| {
            range.meets(Range {
                first: stale.base().as_u64(),
                end: stale.base().as_u64() + stale.size_bytes(),
            })
        });
        match meets {
            None => Ok(()),
            Some(stale) => Err(Stage2Error::SplitNeeded {
                ipa: stale.base(),
                log2_bytes: (stale.base().as_u64() | stale.size_bytes()).trailing_zeros() as u8,
            }),
        }
    }

    /// Gives what is mapped at `[ipa, ipa + size_bytes)` these permissions.
    ///
    /// What was taken away may still be used from caches until the value is opened by an
    /// invalidation; what was added may still fault.
    ///
    /// # Errors
    ///
    /// As [`unmap`](Self::unmap), and [`NotMapped`](Stage2Error::NotMapped) if there is a hole: it
    /// cannot get permissions.
    pub fn protect(
        &mut self,
        ipa: Ipa,
        size_bytes: u64,
        permissions: Permissions,
    ) -> Result<Unsynced<()>, Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        let mut gathered = self.nothing();
        self.grant(range, permissions, &mut gathered)?;
        self.tell_cpus(&gathered);
        Ok(Unsynced::new(gathered, ()))
    }

    /// As [`protect`](Self::protect), as part of a change that is already there: what is unmapped
    /// and protected piece by piece is invalidated once.
    ///
    /// # Errors
    ///
    /// As [`protect`](Self::protect), and [`ForeignChange`](Stage2Error::ForeignChange).
    pub fn protect_into(
        &mut self,
        change: &mut Unsynced<Reclaim<'p, P>>,
        ipa: Ipa,
        size_bytes: u64,
        permissions: Permissions,
    ) -> Result<(), Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        let (gathered, _) = self.parts_of(change)?;
        let mut piece = self.nothing();
        self.grant(range, permissions, &mut piece)?;
        self.tell_cpus(&piece);
        gathered.absorb(&piece);
        Ok(())
    }

    fn grant(
        &mut self,
        range: Range,
        permissions: Permissions,
        gathered: &mut Gathered,
    ) -> Result<(), Stage2Error> {
        let may_be_quick = self.pending.is_nothing();
        if may_be_quick
            && change::protect_in_one_table(&mut self.tree, range, permissions, gathered)
        {
            return Ok(());
        }
        change::expect_mapped(self.tree.root(), range)?;
        self.cut(range, Purpose::Permissions, gathered)?;
        change::protect(&mut self.tree, range, permissions, gathered);
        Ok(())
    }

    /// What `change` has gathered and removed, if it is this stage 2's.
    #[inline]
    fn parts_of<'c>(
        &self,
        change: &'c mut Unsynced<Reclaim<'p, P>>,
    ) -> Result<(&'c mut Gathered, &'c mut Reclaim<'p, P>), Stage2Error> {
        let tag = (self.vmid, self.geometry().granule());
        let (gathered, reclaim) = change.parts();
        if !self.tree.owns(&reclaim.chain) || (gathered.vmid(), gathered.granule()) != tag {
            return Err(Stage2Error::ForeignChange);
        }
        Ok((gathered, reclaim))
    }
}
