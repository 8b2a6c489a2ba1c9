//! Errata of SMMUs, and who has which.

/// What an SMMU cannot do although its registers say so, and what it needs done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quirks {
    /// `CMD_PREFETCH_*` must never be sent (HiSilicon erratum 161010701).
    pub has_broken_prefetch: bool,
    /// Page 1 is not there: its registers answer at the same offsets of page 0 (Cavium CN99xx).
    pub has_broken_page1: bool,
    /// The PCIe in front of it needs MSIs that are written where they are meant: the page with
    /// `GITS_TRANSLATER` must be mapped to itself (HiSilicon errata 161010801 and 161010803).
    pub needs_fixed_msi_address: bool,
    /// A table descriptor that was invalid and becomes valid at level 0, 1 or 2 must be followed by
    /// an invalidation of its range (HiSilicon erratum 162100602). It is for the
    /// [`Settings`](crate::smmu::Settings) of the SMMU.
    pub needs_flush_of_new_tables: bool,
}

/// HiSilicon's number in IIDR.Implementer (JEP106).
const HISILICON: u32 = 0x736;
/// What the monitor of a HIP08's SMMU has in its IIDR.
const HIP08_IIDR: u32 = 0x0003_0736;

impl Quirks {
    pub(super) const NONE: Self = Self {
        has_broken_prefetch: false,
        has_broken_page1: false,
        needs_fixed_msi_address: false,
        needs_flush_of_new_tables: false,
    };
    /// What IORT calls `HISILICON_HI161X`: HIP06 and HIP07, which is Kunpeng 916.
    pub(super) const HI161X: Self = Self {
        has_broken_prefetch: true,
        needs_fixed_msi_address: true,
        ..Self::NONE
    };
    /// What IORT calls `CAVIUM_CN99XX`.
    pub(super) const CN99XX: Self = Self {
        has_broken_page1: true,
        ..Self::NONE
    };
    /// HIP09, which is Kunpeng 920B, and later ones, which have the same SMMU.
    pub(super) const HIP09: Self = Self {
        needs_flush_of_new_tables: true,
        ..Self::NONE
    };

    /// Both these and `others`.
    pub const fn and(self, others: Self) -> Self {
        Self {
            has_broken_prefetch: self.has_broken_prefetch || others.has_broken_prefetch,
            has_broken_page1: self.has_broken_page1 || others.has_broken_page1,
            needs_fixed_msi_address: self.needs_fixed_msi_address || others.needs_fixed_msi_address,
            needs_flush_of_new_tables: self.needs_flush_of_new_tables
                || others.needs_flush_of_new_tables,
        }
    }

    /// These, which firmware says, and those of an SMMU whose SMMU_IIDR reads `iidr`.
    ///
    /// HiSilicon does not publish what its parts have there. One that is not known to be older than
    /// HIP09, by its number or by what only older ones have, gets what HIP09 needs, which costs an
    /// invalidation and is never wrong.
    pub const fn with_iidr(self, iidr: u32) -> Self {
        let is_older = iidr == HIP08_IIDR || self.has_broken_prefetch;
        if iidr & 0xfff == HISILICON && !is_older {
            self.and(Self::HIP09)
        } else {
            self
        }
    }

    /// Those of the SMMUs on a HiSilicon board of generation `hip`, as its OEM table id says: 8 for
    /// `HIP08`.
    pub(super) const fn of_hip(hip: u8) -> Self {
        match hip {
            6 | 7 => Self::HI161X,
            9.. => Self::HIP09,
            _ => Self::NONE,
        }
    }

    /// Those of a model in IORT's SMMUv3 node.
    pub(super) const fn of_model(model: u32) -> Self {
        match model {
            1 => Self::HI161X,
            2 => Self::CN99XX,
            _ => Self::NONE,
        }
    }
}
