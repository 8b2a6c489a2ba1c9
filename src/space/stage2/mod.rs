//! Stage 2: what a guest's memory is, for devices (and, where a host wants, for its CPUs).
//!
//! Changes come in two steps. A call changes the tables in memory and returns; what it took away
//! is held in an [`Unsynced`](crate::smmu::Unsynced) until the SMMUs confirm that they forgot it. Adding takes one step:
//! what is invalid is never cached (§3.17; `smmuv3.md` 7.1), a barrier is enough.
//!
//! Every call either does all it says or refuses by name and leaves the tables as they were: it
//! looks first, then takes the tables it will need, and only then writes. No table is kept empty:
//! the last leaf takes its table with it.
//!
//! # Leaves that change their size under walkers
//!
//! No page that stays mapped may fault because another goes. Where a range ends within a block, the
//! block becomes a table that does the same, and then the range goes. What that takes depends on
//! the lowest [`BbmLevel`] of all walkers (§3.21.1):
//!
//! | level | [`unmap`](Stage2::unmap), [`protect`](Stage2::protect) of a part | [`split`](Stage2::split), [`join`](Stage2::join) |
//! |---|---|---|
//! | 2 | at once, 1 invalidation | 1 invalidation |
//! | 1 | [`SplitNeeded`](Stage2Error::SplitNeeded), until `split` was finished | 2 invalidations |
//! | 0 | [`BreakNeeded`](Stage2Error::BreakNeeded) | [`BreakNeeded`](Stage2Error::BreakNeeded) |
//!
//! While walkers are [`Absent`](Walkers::Absent) every level does what 2 does. The contiguous hint
//! is given at levels 1 and 2 only, where it may go while walkers use it; at level 1 a *protect* of
//! a part of a group takes the same two steps as one of a part of a block, or a cache could hold
//! the group beside a member with other permissions. So does one of members whose group went by a
//! change that was not confirmed yet, or never.
//!
//! # CPUs
//!
//! CPUs walk the same stage 2 if they were provided for ([`Stage2::with_cpus`]): each change tells
//! them through [`CpuTlb`] before it returns, so that what an [`Unsynced`](crate::smmu::Unsynced) still owes is the SMMUs'
//! alone. They share the root with the devices, or have one of their own ([`CpuRoot::Own`]) that
//! shares the tables below: then what one entry of the root covers can be for devices alone, as a
//! window of CDs is, or for CPUs alone ([`View`]). Entries of the root are kept in step: one store
//! more for each entry that changes, and `2^`[`log2_root_bytes`](Geometry::log2_root_bytes) bytes.

mod change;
mod config;
mod cpus;
mod debt;
mod join;
mod map;
mod new_tables;
mod range;
mod resize;
mod sealed;
mod split;
mod take;
mod words;

pub use crate::hw::{CpuTlb, View};
pub use config::{Mapping, PageSizes, Stage2Config, Stage2Error, Walkers};
pub use cpus::CpuRoot;
pub use debt::{Dismantled, Reclaim};
pub use resize::{Joining, Splitting};

use range::{Range, find};
use split::Hints;

use core::fmt;

use crate::addr::{Ipa, Pa};
use crate::hw::{Chain, Platform, Roots, Tree};
use crate::id::Vmid;
use crate::smmu::Gathered;
use crate::spec::vmsa::{Attributes, BbmLevel, Decoded, Geometry, Stage2Walk};

/// The stage-2 tables of one guest.
///
/// Dropping it leaks the tables; [`dismantle`](Self::dismantle) gives them back.
pub struct Stage2<'p, P> {
    tree: Tree<'p, P>,
    vmid: Vmid,
    walkers: Walkers,
    bbm: BbmLevel,
    cpus: Option<&'p dyn CpuTlb>,
    lost: Chain<'p, P>,
    /// What abandoned joins left stale, and every change invalidates too until the lost tables are
    /// recovered: smaller leaves than there are now, which a change of these would step over.
    owed: Gathered,
    /// At BBML 1: groups that are none any more, where an SMMU may still hold the group. Their
    /// members' permissions must not change before that is confirmed; every change invalidates them
    /// too until then.
    pending: Gathered,
    /// How often something was added to `pending`: a change that covers the last of it ends it all.
    ungroupings: u64,
    /// What is set apart for a window of CDs.
    window: Option<Range>,
    /// Some SMMU must be told of new tables.
    flushes_new_tables: bool,
}

impl<'p, P: Platform> Stage2<'p, P> {
    /// Tables that map nothing, for devices alone; walkers are taken to be
    /// [`Live`](Walkers::Live).
    ///
    /// Takes the root from `platform`: `2^`[`log2_root_bytes`](Geometry::log2_root_bytes) bytes.
    ///
    /// # Errors
    ///
    /// [`Stage2Error::Shape`], [`Stage2Error::NoTables`].
    pub fn new(platform: &'p P, config: Stage2Config) -> Result<Self, Stage2Error> {
        Self::make(platform, config, Roots::One, None)
    }

    fn make(
        platform: &'p P,
        config: Stage2Config,
        roots: Roots,
        cpus: Option<&'p dyn CpuTlb>,
    ) -> Result<Self, Stage2Error> {
        let geometry = Geometry::new(config.granule, config.ipa_bits, config.oas_bits)
            .map_err(Stage2Error::Shape)?;
        let tree = Tree::new(platform, geometry, config.coherency, config.tables, roots)
            .map_err(Stage2Error::NoTables)?;
        let lost = tree.chain();
        Ok(Self {
            tree,
            vmid: config.vmid,
            walkers: Walkers::Live,
            bbm: config.bbm,
            cpus,
            lost,
            owed: Gathered::nothing(config.vmid, config.granule),
            pending: Gathered::nothing(config.vmid, config.granule),
            ungroupings: 0,
            window: None,
            flushes_new_tables: false,
        })
    }

    /// What an STE must say to walk these tables, from the devices' root.
    pub const fn walk(&self) -> Stage2Walk {
        Stage2Walk {
            root: self.tree.root_address(),
            geometry: *self.tree.geometry(),
            vmid: self.vmid,
            coherency: self.tree.coherency(),
            flushes_new_tables: self.flushes_new_tables,
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
    /// It decides only how leaves may change their size; who is wrong about it breaks
    /// break-before-make, which a device may answer with a TLB conflict.
    pub const fn declare(&mut self, walkers: Walkers) {
        self.walkers = walkers;
    }

    /// What the walkers that there are can bear.
    const fn bearable(&self) -> BbmLevel {
        match self.walkers {
            Walkers::Live => self.bbm,
            Walkers::Absent => BbmLevel::Level2,
        }
    }

    /// Whether leaves get the contiguous hint: walkers that are absent now may be live later.
    const fn hints(&self) -> Hints {
        match self.bbm {
            BbmLevel::Level0 => Hints::Never,
            BbmLevel::Level1 | BbmLevel::Level2 => Hints::Set,
        }
    }

    /// How many table pages are in use, the root not: in the tree, unconfirmed, or lost.
    pub const fn table_pages(&self) -> u64 {
        self.tree.used_pages()
    }

    /// How many table pages are lost: out of use until [`recover`](Self::recover) is confirmed.
    pub const fn lost_pages(&self) -> u64 {
        self.lost.count()
    }

    /// Maps `size_bytes` bytes at `ipa` to the memory at `pa`, for all walkers.
    ///
    /// All three are multiples of the granule. When it returns, walkers find the mapping; no
    /// invalidation is owed.
    ///
    /// # Errors
    ///
    /// [`NotWholePages`](Stage2Error::NotWholePages), [`NotAPage`](Stage2Error::NotAPage),
    /// [`PastInput`](Stage2Error::PastInput), [`PastOutput`](Stage2Error::PastOutput),
    /// [`InWindow`](Stage2Error::InWindow);
    /// [`OtherView`](Stage2Error::OtherView) if something within the same entry of a root is for
    /// devices or CPUs alone; [`AlreadyMapped`](Stage2Error::AlreadyMapped) if anything in the
    /// range is, to whatever; [`NoTables`](Stage2Error::NoTables);
    /// [`FlushNeeded`](Stage2Error::FlushNeeded).
    pub fn map(
        &mut self,
        ipa: Ipa,
        pa: Pa,
        size_bytes: u64,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<(), Stage2Error> {
        self.map_for(View::Both, ipa, pa, size_bytes, attributes, sizes)
    }

    /// As [`map`](Self::map), for the walkers in `view`.
    ///
    /// An entry of a root, which covers `2^`[`log2_span`](crate::spec::vmsa::Granule::log2_span)
    /// bytes of the [`start`](Geometry::start) level, is for all of them or for some, with all that
    /// it covers; the first mapping decides, until the last is gone. Everything else of a stage 2
    /// (`unmap`, `protect`, `split`, `join`, `query`) takes what is there for whomever it is.
    ///
    /// # Errors
    ///
    /// As [`map`](Self::map), and [`OneRoot`](Stage2Error::OneRoot) if the walkers in `view` are
    /// not all and the CPUs have no root of their own.
    pub fn map_for(
        &mut self,
        view: View,
        ipa: Ipa,
        pa: Pa,
        size_bytes: u64,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<(), Stage2Error> {
        let range = self.range(ipa, size_bytes)?;
        self.map_range(view, range, pa, attributes, sizes)
    }

    fn map_range(
        &mut self,
        view: View,
        range: Range,
        pa: Pa,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<(), Stage2Error> {
        if self.flushes_new_tables {
            return Err(Stage2Error::FlushNeeded);
        }
        self.map_unflushed(view, range, pa, attributes, sizes)
    }

    #[inline]
    fn map_unflushed(
        &mut self,
        view: View,
        range: Range,
        pa: Pa,
        attributes: Attributes,
        sizes: PageSizes,
    ) -> Result<(), Stage2Error> {
        let size_bytes = range.size_bytes();
        let geometry = self.geometry();
        if !pa.is_aligned(geometry.granule().log2_bytes()) {
            return Err(Stage2Error::NotAPage { pa });
        }
        if !geometry.holds_output(pa, size_bytes) {
            let output_bits = geometry.output_bits();
            return Err(Stage2Error::PastOutput { output_bits });
        }
        self.expect_view(view, range)?;
        let hints = self.hints();
        map::map(&mut self.tree, view, range, pa, attributes, sizes, hints)
    }

    /// Refuses a range of which a part is for other walkers.
    fn expect_view(&self, view: View, range: Range) -> Result<(), Stage2Error> {
        if self.tree.roots() == Roots::One {
            return match view {
                View::Both => Ok(()),
                View::Devices | View::Cpus => Err(Stage2Error::OneRoot),
            };
        }
        let root = self.tree.root();
        let mut parts = range.entries(root.log2_span());
        let is_other = |part: &Range| {
            let found = root.view(root.index(part.base()));
            found.is_some_and(|found| found != view)
        };
        match parts.find(is_other) {
            Some(part) => Err(Stage2Error::OtherView { ipa: part.base() }),
            None => Ok(()),
        }
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

    /// What a change owes that changes nothing.
    #[inline]
    const fn nothing(&self) -> Gathered {
        self.owed
    }

    /// Whole pages, none of them in the window.
    fn range(&self, ipa: Ipa, size_bytes: u64) -> Result<Range, Stage2Error> {
        let range = self.any_range(ipa, size_bytes)?;
        match self.window {
            Some(window) if range.meets(window) => {
                let window = window.base();
                Err(Stage2Error::InWindow { window })
            }
            _ => Ok(range),
        }
    }

    fn any_range(&self, ipa: Ipa, size_bytes: u64) -> Result<Range, Stage2Error> {
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
