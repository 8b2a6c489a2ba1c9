//! What a stage 2 is made with, and why it may refuse.

use crate::addr::{Ipa, Pa};
use crate::hw::{NoTables, PoolShape};
use crate::id::Vmid;
use crate::smmu::{Features, Unwalkable};
use crate::spec::vmsa::{Attributes, BbmLevel, GeometryError, Granule, WalkCoherency};

/// Which leaves a mapping is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSizes {
    /// The largest that size and alignment allow, and contiguous groups of them where all walkers
    /// can bear such to be broken (BBML 1).
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
    /// What all walkers can bear of a leaf that changes its size, the least of them.
    pub bbm: BbmLevel,
    /// Whether all walkers see the CPU's caches.
    pub coherency: WalkCoherency,
    /// How its tables take memory.
    pub tables: PoolShape,
    /// The tag of its TLB entries.
    pub vmid: Vmid,
}

impl Stage2Config {
    /// Lowers what is asked so that an SMMU with `features` can walk the tables too: call it for
    /// each that is to.
    ///
    /// The width of output addresses and the break-before-make level become the least of both.
    ///
    /// # Errors
    ///
    /// [`Unwalkable::Granule`] and [`Unwalkable::VmidSize`]: that SMMU cannot, and nothing was
    /// changed.
    pub fn fit(&mut self, features: &Features) -> Result<(), Unwalkable> {
        let has_granule = match self.granule {
            Granule::Kib4 => true,
            Granule::Kib16 => features.has_16k_granule,
            Granule::Kib64 => features.has_64k_granule,
        };
        if !has_granule {
            return Err(Unwalkable::Granule {
                log2_granule: self.granule.log2_bytes(),
            });
        }
        if features.vmid_bits == 8 && self.vmid.as_u16() > 0xff {
            return Err(Unwalkable::VmidSize);
        }
        self.oas_bits = self.oas_bits.min(features.output_bits);
        // The probe lets no other level pass; one that it did would be none to rely upon.
        let bbm = BbmLevel::from_field(features.bbm_level).unwrap_or(BbmLevel::Level0);
        self.bbm = self.bbm.min(bbm);
        Ok(())
    }
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
    /// The range ends within a leaf or a contiguous group that walkers may be using, and that takes
    /// two steps to cut: [`Stage2::split`](super::Stage2::split) comes first.
    SplitNeeded {
        /// Where the leaf or group begins.
        ipa: Ipa,
        /// How large it is, as a power of two.
        log2_bytes: u8,
    },
    /// A leaf would have to change its size, and some walker can bear that only if all of the leaf
    /// faults for a moment (BBML 0): it is not done under walkers.
    BreakNeeded {
        /// Where the leaf begins, or would.
        ipa: Ipa,
        /// How large it is, or would be, as a power of two.
        log2_bytes: u8,
    },
    /// What one entry of the root covers is for other walkers than the mapping is to be.
    OtherView {
        /// The first such address in the range.
        ipa: Ipa,
    },
    /// Devices and CPUs have one root: nothing can be for one of them alone.
    OneRoot,
    /// The range has a part in the window of CDs, which only the window changes
    /// ([`space::window`](crate::space::window)).
    InWindow {
        /// Where the window begins.
        window: Ipa,
    },
    /// The change to be continued is another stage 2's.
    ForeignChange,
    /// Some SMMU must be told of tables that this may make:
    /// [`Stage2::map_flushed`](super::Stage2::map_flushed).
    FlushNeeded,
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
