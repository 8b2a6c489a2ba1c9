//! Stage 2: what a guest's memory is, for devices (and, where a host wants, for its CPUs).
//!
//! Changes come in two steps. A call changes the tables in memory and returns; what it took away
//! is held in an [`Unsynced`] until the SMMUs confirm that they forgot it. Adding takes one step:
//! what is invalid is never cached (§3.17; `smmuv3.md` 7.1), a barrier is enough.
//!
//! Every call either does all it says or refuses by name and leaves the tables as they were: it
//! looks first, then takes the tables it will need, and only then writes. No table is kept empty:
//! the last leaf takes its table with it.
//!
//! # Why a leaf is not split under a walker
//!
//! Removing or protecting a part of a block would take break-before-make, that is a moment in
//! which the rest of the block faults, or hardware that promises more (BBML 1 and 2). While
//! walkers are [`Live`](Walkers::Live) it is refused: map pages where parts will go.

mod change;
mod map;
mod range;
mod words;

use range::{Range, find};

use core::fmt;

use crate::addr::{Ipa, Pa};
use crate::hw::{Chain, NoTables, Platform, PoolShape, Tree};
use crate::id::Vmid;
use crate::smmu::{Gathered, Unsynced};
use crate::spec::vmsa::{
    Attributes, Decoded, Geometry, GeometryError, Granule, Permissions, Stage2Walk, WalkCoherency,
};

/// Which leaves a mapping is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSizes {
    /// The largest that size and alignment allow.
    Largest,
    /// Pages of the granule only, so that any of them can go alone.
    PagesOnly,
}

/// Who may walk the tables, now and until the next change is confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walkers {
    /// An SMMU or a CPU may, at any time.
    Live,
    /// Nobody: no STE and no CPU points here, and every SMMU has been told so.
    Absent,
}

/// What a stage 2 is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Config {
    /// The size of its pages.
    pub granule: Granule,
    /// How wide its input addresses are.
    pub ipa_bits: u8,
    /// How wide output addresses are, the least of all walkers.
    pub oas_bits: u8,
    /// Whether all walkers see the CPU's caches.
    pub coherency: WalkCoherency,
    /// How its tables take memory.
    pub tables: PoolShape,
    /// The tag of its TLB entries.
    pub vmid: Vmid,
}

/// Why a stage 2 was not made or not changed. The tables are as they were, and nothing was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage2Error {
    /// There are no tables of this shape.
    Shape(GeometryError),
    /// An address or size is not a multiple of the granule, or the size is 0.
    NotWholePages {
        /// The input address given.
        ipa: Ipa,
        /// The size given.
        size_bytes: u64,
    },
    /// The memory does not begin where a page could.
    NotAPage {
        /// The output address given.
        pa: Pa,
    },
    /// The range runs past the input addresses.
    PastInput {
        /// How wide they are.
        ipa_bits: u8,
    },
    /// The memory runs past the output addresses.
    PastOutput {
        /// How wide they are.
        output_bits: u8,
    },
    /// Something in the range is mapped already.
    AlreadyMapped {
        /// The first address that is.
        ipa: Ipa,
    },
    /// Something in the range is not mapped.
    NotMapped {
        /// The first address that is not.
        ipa: Ipa,
    },
    /// The range ends within a leaf that walkers may be using.
    SplitNeeded {
        /// Where the leaf begins.
        ipa: Ipa,
        /// How large it is, as a power of two.
        log2_bytes: u8,
    },
    /// The change to be continued is another stage 2's.
    ForeignChange,
    /// There are no pages for the tables.
    NoTables(NoTables),
}

/// What one input address translates to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The output address.
    pub pa: Pa,
    /// The size of the leaf that says so, as a power of two.
    pub log2_bytes: u8,
    /// How the leaf maps it.
    pub attributes: Attributes,
}

/// Tables that were removed, and that nobody walks any more.
#[must_use = "dropping it leaks the tables; give them back with `Stage2::reclaim`"]
pub struct Reclaim<'p, P>(Chain<'p, P>);

impl<P: Platform> Reclaim<'_, P> {
    /// How many pages there are.
    pub const fn pages(&self) -> u64 {
        self.0.count()
    }
}

impl<P: Platform> Unsynced<Reclaim<'_, P>> {
    /// Makes `other` part of this change, so that one invalidation serves both.
    ///
    /// # Errors
    ///
    /// `other`, if it is not of the same stage 2; this one is as it was.
    pub fn absorb(&mut self, other: Self) -> Result<(), Self> {
        self.absorb_with(other, |mine, more| mine.0.append(more.0).map_err(Reclaim))
    }
}

/// The stage-2 tables of one guest.
///
/// Dropping it leaks the tables; [`dismantle`](Self::dismantle) gives them back.
pub struct Stage2<'p, P> {
    tree: Tree<'p, P>,
    vmid: Vmid,
    walkers: Walkers,
    lost: Chain<'p, P>,
}

impl<'p, P: Platform> Stage2<'p, P> {
    /// Tables that map nothing; walkers are taken to be [`Live`](Walkers::Live).
    ///
    /// Takes the root from `platform`: `2^`[`log2_root_bytes`](Geometry::log2_root_bytes) bytes.
    ///
    /// # Errors
    ///
    /// [`Stage2Error::Shape`], [`Stage2Error::NoTables`].
    pub fn new(platform: &'p P, config: Stage2Config) -> Result<Self, Stage2Error> {
        let geometry = Geometry::new(config.granule, config.ipa_bits, config.oas_bits)
            .map_err(Stage2Error::Shape)?;
        let tree = Tree::new(platform, geometry, config.coherency, config.tables)
            .map_err(Stage2Error::NoTables)?;
        let lost = tree.chain();
        Ok(Self {
            tree,
            vmid: config.vmid,
            walkers: Walkers::Live,
            lost,
        })
    }

    /// What an STE must say to walk these tables.
    pub const fn walk(&self) -> Stage2Walk {
        Stage2Walk {
            root: self.tree.root_address(),
            geometry: *self.tree.geometry(),
            vmid: self.vmid,
            coherency: self.tree.coherency(),
        }
    }

    /// The shape of the tables.
    pub const fn geometry(&self) -> &Geometry {
        self.tree.geometry()
    }

    /// The tag of its TLB entries.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// Declares who walks the tables from now on.
    ///
    /// It decides only whether leaves may be split; who is wrong about it breaks
    /// break-before-make, which a device may answer with a TLB conflict.
    pub const fn declare(&mut self, walkers: Walkers) {
        self.walkers = walkers;
    }

    /// How many table pages are in use, the root not: in the tree, unconfirmed, or lost.
    pub const fn table_pages(&self) -> u64 {
        self.tree.used_pages()
    }

    /// How many table pages are lost: out of use until [`recover`](Self::recover) is confirmed.
    pub const fn lost_pages(&self) -> u64 {
        self.lost.count()
    }

    /// Maps `size_bytes` bytes at `ipa` to the memory at `pa`.
    ///
    /// All three are multiples of the granule. When it returns, walkers find the mapping; no
    /// invalidation is owed.
    ///
    /// # Errors
    ///
    /// [`NotWholePages`](Stage2Error::NotWholePages), [`NotAPage`](Stage2Error::NotAPage),
    /// [`PastInput`](Stage2Error::PastInput), [`PastOutput`](Stage2Error::PastOutput); [`AlreadyMapped`](Stage2Error::AlreadyMapped) if
    /// anything in the range is, to whatever; [`NoTables`](Stage2Error::NoTables).
    pub fn map(
        &mut self,
        ipa: Ipa,
        pa: Pa,
        size_bytes: u64,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<(), Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        let geometry = self.geometry();
        if !pa.is_aligned(geometry.granule().log2_bytes()) {
            return Err(Stage2Error::NotAPage { pa });
        }
        if !geometry.holds_output(pa, size_bytes) {
            let output_bits = geometry.output_bits();
            return Err(Stage2Error::PastOutput { output_bits });
        }
        map::map(&mut self.tree, range, pa, attributes, sizes)
    }

    /// Maps nothing at `[ipa, ipa + size_bytes)` any more, whatever was mapped there, holes or not.
    ///
    /// Walkers may go on with what they cached until the value is opened by an invalidation; what
    /// it then gives goes to [`reclaim`](Self::reclaim).
    ///
    /// # Errors
    ///
    /// [`NotWholePages`](Stage2Error::NotWholePages), [`PastInput`](Stage2Error::PastInput);
    /// [`SplitNeeded`](Stage2Error::SplitNeeded) if an end of the range lies within a leaf and
    /// walkers are [`Live`](Walkers::Live); if they are not, the leaf is split, which may give
    /// [`NoTables`](Stage2Error::NoTables).
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
        Unsynced::new(self.nothing(), Reclaim(self.tree.chain()))
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
        let tag = (self.vmid, self.geometry().granule());
        let (gathered, Reclaim(chain)) = change.parts();
        if !self.tree.owns(chain) || (gathered.vmid(), gathered.granule()) != tag {
            return Err(Stage2Error::ForeignChange);
        }
        if !change::clear_in_one_table(&mut self.tree, range, gathered, chain) {
            change::divide(&mut self.tree, range, self.walkers, gathered)?;
            change::clear(&mut self.tree, range, gathered, chain);
        }
        Ok(())
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
        change::expect_mapped(self.tree.root(), range)?;
        let mut gathered = self.nothing();
        change::divide(&mut self.tree, range, self.walkers, &mut gathered)?;
        change::protect(&mut self.tree, range, permissions, &mut gathered);
        Ok(Unsynced::new(gathered, ()))
    }

    /// What `ipa` translates to in memory now; `None` if to nothing.
    pub fn query(&self, ipa: Ipa) -> Option<Mapping> {
        if !self.geometry().holds_input(ipa, 1) {
            return None;
        }
        let (node, index) = find(self.tree.root(), ipa);
        let Decoded::Leaf { pa, attributes } =
            node.descriptor(index).decode(self.geometry(), node.level())
        else {
            return None;
        };
        let log2_bytes = self.geometry().granule().log2_span(node.level());
        let offset = ipa.as_u64() & ((1 << log2_bytes) - 1);
        Some(Mapping {
            pa: Pa::new(pa.as_u64() | offset),
            log2_bytes,
            attributes,
        })
    }

    /// Takes back tables that nobody walks any more.
    ///
    /// # Errors
    ///
    /// The tables, if they are another stage 2's.
    pub fn reclaim(&mut self, tables: Reclaim<'p, P>) -> Result<(), Reclaim<'p, P>> {
        self.tree.reclaim(tables.0).map_err(Reclaim)
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
        self.lost
            .append(tables.open().0)
            .map_err(|chain| Unsynced::new(gathered, Reclaim(chain)))
    }

    /// All lost tables, to be tried again: everything of the VMID must be invalidated for them.
    pub fn recover(&mut self) -> Unsynced<Reclaim<'p, P>> {
        let everything = Gathered::everything(self.vmid, self.geometry().granule());
        let lost = core::mem::replace(&mut self.lost, self.tree.chain());
        Unsynced::new(everything, Reclaim(lost))
    }

    /// Ends the stage 2: no STE points to it any more.
    ///
    /// Its memory goes back through [`Dismantled::free`] once everything of the VMID is
    /// invalidated.
    pub fn dismantle(self) -> Unsynced<Dismantled<'p, P>> {
        let everything = Gathered::everything(self.vmid, self.geometry().granule());
        Unsynced::new(everything, Dismantled(self))
    }

    fn nothing(&self) -> Gathered {
        Gathered::nothing(self.vmid, self.geometry().granule())
    }

    fn range(&self, ipa: Ipa, size_bytes: u64) -> Result<Range, Stage2Error> {
        let geometry = self.geometry();
        let log2_page = geometry.granule().log2_bytes();
        if size_bytes == 0 || !Ipa::new(ipa.as_u64() | size_bytes).is_aligned(log2_page) {
            return Err(Stage2Error::NotWholePages { ipa, size_bytes });
        }
        if !geometry.holds_input(ipa, size_bytes) {
            let ipa_bits = geometry.ipa_bits();
            return Err(Stage2Error::PastInput { ipa_bits });
        }
        Ok(Range {
            first: ipa.as_u64(),
            end: ipa.as_u64() + size_bytes,
        })
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
        let pages = self.0.count();
        f.debug_struct("Reclaim").field("pages", &pages).finish()
    }
}

impl<P: Platform> fmt::Debug for Stage2<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage2")
            .field("walk", &self.walk())
            .field("walkers", &self.walkers)
            .field("table_pages", &self.table_pages())
            .field("lost_pages", &self.lost_pages())
            .finish()
    }
}

impl<P: Platform> fmt::Debug for Dismantled<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dismantled").field(&self.0).finish()
    }
}
