//! Memory for CDs, as a value.

use crate::addr::Ipa;
use crate::hw::Frames;
use crate::id::Vmid;

/// Frames of EL2's own that a VM's stage 2 shows, read-only, at an IPA: for CDs and L1CDs alone.
///
/// They were all zeros when they were mapped, and only the contexts that take them write to them.
/// Made by the window of a stage 2 (`space::window`), and taken back by it. Dropping it gives
/// nothing back, as with [`Frames`].
#[must_use = "dropping it leaks the frames; give them back to the window"]
#[derive(PartialEq, Eq, Debug)]
pub struct Sealed {
    frames: Frames,
    ipa: Ipa,
    vmid: Vmid,
}

impl Sealed {
    /// `frames`, which the stage 2 of `vmid` shows at `ipa`, aligned to their size.
    pub(crate) const fn new(frames: Frames, ipa: Ipa, vmid: Vmid) -> Self {
        Self { frames, ipa, vmid }
    }

    /// Where a stream of the VM sees them.
    pub const fn ipa(&self) -> Ipa {
        self.ipa
    }

    /// The VM's tag.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// How many bytes there are, as a power of two.
    pub const fn log2_bytes(&self) -> u8 {
        self.frames.log2_bytes()
    }

    pub(super) const fn frames(&self) -> &Frames {
        &self.frames
    }

    /// The frames, for the window that takes them out of the stage 2.
    pub(crate) fn into_frames(self) -> Frames {
        self.frames
    }
}
