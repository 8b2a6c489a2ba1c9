//! Telling CPUs to forget translations.

use crate::addr::{Extent, Ipa};
pub use crate::spec::vmsa::CpuWalk;

/// What a host supplies whose CPUs walk the stage 2 of its devices.
///
/// There is no default, and a stage 2 without one does not say how a CPU would walk it: a host
/// that does nothing here would leave its guests with memory that was taken away.
pub trait CpuTlb: Sync {
    /// Makes all CPUs forget what they cached of `stale`, everything of the VMID if it is `None`,
    /// under the VMID in `walk`: leaves of any size, pointers to tables, and what combines them
    /// with a stage 1.
    ///
    /// The tables were changed before the call. On return no CPU uses what they said before, and
    /// accesses that did are complete. `log2_page` is the size of a page, as a power of two.
    ///
    /// On Arm, with the VMID in `VTTBR_EL2`: `DSB ISHST`, `TLBI IPAS2E1IS` (or `RIPAS2E1IS`) for
    /// the stale addresses, `DSB ISH`, `TLBI VMALLE1IS`, `DSB ISH`, `ISB`; for everything `TLBI
    /// VMALLS12E1IS` in their place (DDI 0487, D8.16).
    fn forget(&self, walk: &CpuWalk, stale: Option<&[Extent<Ipa>]>, log2_page: u8);
}
