//! For which VMs an SMMU may hold translations that combine both stages.

use core::sync::atomic::{AtomicU64, Ordering};

use super::io::Io;
use crate::hw::{Barrier, Platform};
use crate::id::Vmid;

/// VMIDs below this are told apart; one above counts as nested always, which costs a SYNC.
const TOLD_APART: usize = 1024;

/// The VMIDs that streams with both stages have had.
///
/// CMD_TLBI_S2_IPA need not reach an entry that combines stage 1 and 2 (§4.4.3). Whether there can
/// be any is asked after a SYNC, when what stage 2 alone had is gone: who asked before could miss a
/// stream that began to nest meanwhile, by way of the entry that was about to go.
pub(super) struct NestedVmids([AtomicU64; TOLD_APART / 64]);

impl NestedVmids {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; TOLD_APART / 64])
    }

    /// Notes `vmid`, before the first entry with both stages is stored.
    pub(super) fn note<P: Platform>(&self, io: &Io<'_, P>, vmid: Vmid) {
        let Some((word, bit)) = self.place(vmid) else {
            return;
        };
        if word.fetch_or(bit, Ordering::SeqCst) & bit == 0 {
            // Seen by every CPU before the SMMU can see the entry.
            io.barrier(Barrier::Publish);
        }
    }

    /// Whether entries of `vmid` can combine both stages.
    pub(super) fn has(&self, vmid: Vmid) -> bool {
        self.place(vmid)
            .is_none_or(|(word, bit)| word.load(Ordering::SeqCst) & bit != 0)
    }

    /// Forgets `vmid`: no stream has it, and nothing tagged with it is cached.
    pub(super) fn forget(&self, vmid: Vmid) {
        if let Some((word, bit)) = self.place(vmid) {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    fn place(&self, vmid: Vmid) -> Option<(&AtomicU64, u64)> {
        let number = usize::from(vmid.as_u16());
        Some((self.0.get(number / 64)?, 1 << (number % 64)))
    }
}
