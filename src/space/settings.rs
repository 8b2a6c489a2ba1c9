//! What the host and its guests say of what they want.

use super::ids::{GuestId, SmmuId};
use super::numbers::Ask;
use crate::addr::Ipa;
use crate::hw::{DeviceTag, PoolShape};
use crate::id::StreamId;
use crate::spec::stage1::Stage1Walk;
use crate::spec::ste::Ats;
use crate::spec::vmsa::{BbmLevel, Granule, WalkCoherency};

/// What the host chooses for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IommuSettings {
    /// How long a number that nobody holds any more must not be heard of before it is given to
    /// another space, in microseconds. Time counts as far as events have been read to the end, by
    /// [`service`](super::Iommu::service) or one of its kind: unread ones may be of that number. None passes
    /// while an SMMU is down that a device of the guest's was attached to.
    pub quarantine_us: u64,
    /// How long a stalled transaction waits for the guest's answer before it is aborted.
    pub stall_deadline_us: u64,
    /// How long one operation waits for another CPU's on the same object: to be more than the few
    /// CMD_SYNCs that such an operation waits for.
    pub wait_us: u64,
}

impl Default for IommuSettings {
    /// 10 ms of silence, 100 ms for an answer, 10 s for another CPU.
    fn default() -> Self {
        Self {
            quarantine_us: 10_000,
            stall_deadline_us: 100_000,
            wait_us: 10_000_000,
        }
    }
}

/// A device, as the host describes it.
#[derive(Clone, Copy, Debug)]
pub struct DeviceDescription<'a> {
    /// The host's own number for it.
    pub tag: DeviceTag,
    /// The SMMU that it is behind, which may be added later; `None`: behind none, so that no guest
    /// can have it.
    pub smmu: Option<SmmuId>,
    /// Its StreamIDs there, 1 to 16: its own and its aliases. None if it is behind no SMMU.
    pub streams: &'a [StreamId],
    /// How many bits of PASID it issues; 0: none.
    pub pasid_bits: u8,
    /// It declares that its transactions bear to wait (`dma-can-stall`).
    pub can_stall: bool,
    /// What it may do with ATS. [`Ats::Full`] is for devices that the board names trusted: stage 2
    /// does not check what they translated.
    pub ats: Ats,
    /// What happens to it between two owners.
    pub reset: ResetPolicy,
}

/// What must happen to a device between two owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetPolicy {
    /// It is reset, or it does not change hands.
    Needed,
    /// The board allows that it changes hands as its former owner left it, where it cannot be reset.
    MayBeOmitted {
        /// The board's reason, for the report.
        because: &'static str,
    },
}

/// Who can own a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// The host: its streams abort until it gives them to a guest.
    Host,
    /// A guest.
    Guest(GuestId),
}

/// How much a guest may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// Spaces, parked and draining ones too.
    pub spaces: u32,
    /// Bindings.
    pub bindings: u32,
    /// Handles.
    pub handles: u32,
    /// Transactions that are stalled at a time; more are aborted at once.
    pub stalls: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            spaces: 1024,
            bindings: 4096,
            handles: 4096,
            stalls: 16,
        }
    }
}

/// What a guest is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestConfig {
    /// The size of its stage 2's pages.
    pub granule: Granule,
    /// How wide its addresses are (IPA).
    pub ipa_bits: u8,
    /// How wide a CPU's physical addresses are.
    pub oas_bits: u8,
    /// What CPUs that walk its stage 2 can bear; the SMMUs' part is known.
    pub bbm: BbmLevel,
    /// Whether all walkers see the CPU's caches.
    pub coherency: WalkCoherency,
    /// How its stage-2 tables take memory.
    pub tables: PoolShape,
    /// Where the window of CDs is: outside of its memory, MMIO and doorbells.
    pub window: Ipa,
    /// How large it is.
    pub window_bytes: u64,
    /// Its PASIDs have so many bits: 1 to 20.
    pub pasid_bits: u8,
    /// What else it may have.
    pub quota: Quota,
}

/// What a space is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceConfig {
    /// Where the guest's stage 1 starts. The ASID in it is not looked at: the space gets one.
    pub walk: Stage1Walk,
    /// Which PASID it asks for.
    pub pasid: Ask,
    /// The guest promises to mark no entry of it global. What it marks all the same is its own
    /// loss: its devices may then reach by this space what they reached before its release.
    pub promises_no_global: bool,
}

/// By what a device reaches a space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// By the space's PASID.
    Pasid,
    /// By all its traffic, none of which has a PASID.
    WholeStream,
}
