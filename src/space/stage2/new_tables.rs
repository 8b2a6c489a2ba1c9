//! New tables that an SMMU must be told of.
//!
//! No walk may cache that a descriptor was invalid (§3.17; `smmuv3.md` 7.1), so adding a mapping owes
//! no invalidation. HiSilicon's HIP09 and later do not keep to that (erratum 162100602): where a
//! descriptor of level 0, 1 or 2 becomes that of a table, an invalidation of its range must follow,
//! with `Leaf` = 0. A stage 2 that [flushes new tables](Stage2::flushing_new_tables) hands that out
//! as part of the mapping.

use super::range::{Range, level_bit};
use super::{PageSizes, Stage2, Stage2Error, View};
use crate::addr::{Ipa, Pa};
use crate::hw::Platform;
use crate::smmu::{Gathered, Removed, Unsynced};
use crate::spec::vmsa::{Attributes, Level};

impl<P: Platform> Stage2<'_, P> {
    /// The same tables, for SMMUs some of which must be told of every new one
    /// (`needs_flush_of_new_tables` of `discover::Quirks`); to be said before anything is mapped.
    ///
    /// What may make a table is refused from now on ([`FlushNeeded`](Stage2Error::FlushNeeded)) but
    /// for [`map_flushed`](Self::map_flushed); what replaces a block by a table invalidates what
    /// walks cached too.
    #[must_use]
    pub const fn flushing_new_tables(mut self) -> Self {
        self.flushes_new_tables = true;
        self
    }

    /// As [`map_for`](Self::map_for), with what the new tables owe.
    ///
    /// Walkers that obey the architecture find the mapping at once. The others may fault there until
    /// the value is opened by an invalidation: 1 SYNC on each SMMU. Without
    /// [`flushing_new_tables`](Self::flushing_new_tables), and where no table was new, nothing is
    /// owed and opening it takes no command.
    ///
    /// # Errors
    ///
    /// As [`map_for`](Self::map_for).
    pub fn map_flushed(
        &mut self,
        view: View,
        ipa: Ipa,
        pa: Pa,
        size_bytes: u64,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<Unsynced<()>, Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        self.flush_after(range, |stage2| {
            stage2.map_unflushed(view, range, pa, attributes, sizes)
        })
    }

    /// What `map`, which maps `range`, owes for the tables that it made.
    pub(super) fn flush_after(
        &mut self,
        range: Range,
        map: impl FnOnce(&mut Self) -> Result<(), Stage2Error>,
    ) -> Result<Unsynced<()>, Stage2Error> {
        let before = self.table_pages();
        map(self)?;
        let mut gathered = Gathered::nothing(self.vmid, self.geometry().granule());
        if self.flushes_new_tables && self.table_pages() > before {
            // An address for each table of the last level reaches it and all tables above.
            let (base, size_bytes) = (range.base(), range.size_bytes());
            gathered.add(base, size_bytes, level_bit(Level::L2), Removed::Tables);
        }
        Ok(Unsynced::new(gathered, ()))
    }
}
