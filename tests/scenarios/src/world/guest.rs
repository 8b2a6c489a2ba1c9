//! Guests: a kernel with little memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, Frames, Platform, PoolShape};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{GuestConfig, GuestId, Quota};
use portcullis::spec::stage1::{PageAccess, Stage1Descriptor};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, WalkCoherency};
use smmu_model::Claim;

use super::process::VA;
use super::{World, lock};

/// Where the window of CDs is.
pub(super) const WINDOW: Ipa = Ipa::new(0x7000_0000);
/// Where a guest's memory starts; a slot of 16 KiB for each thing in it.
const MEMORY: u64 = 0x4000_0000;
const LOG2_SLOT: u8 = 14;
/// PASIDs have 7 bits: two leaves of CDs.
const PASID_BITS: u8 = 7;

/// A guest, and its name in the trace.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The library's name for it.
    pub id: GuestId,
    /// Its VMID.
    pub vmid: u16,
    /// Its name in the trace.
    pub name: String,
    slots: Arc<AtomicU64>,
}

/// So many pages, in bytes.
const fn pages(count: u64) -> u64 {
    count << 12
}

impl<'h> World<'h> {
    /// What guests are made with, if the story does not ask for something else.
    pub fn guest_config(&self) -> GuestConfig {
        GuestConfig {
            granule: Granule::Kib4,
            ipa_bits: 32,
            oas_bits: 40,
            bbm: BbmLevel::Level2,
            coherency: WalkCoherency::Coherent,
            tables: PoolShape {
                quota_pages: 64,
                log2_pages_per_chunk: 3,
            },
            window: WINDOW,
            window_bytes: pages(64),
            pasid_bits: PASID_BITS,
            quota: Quota::default(),
        }
    }

    /// A new guest.
    pub fn guest(&self) -> Guest {
        self.guest_with(&self.guest_config())
    }

    /// A new guest that is made so.
    pub fn guest_with(&self, config: &GuestConfig) -> Guest {
        let id = self.iommu.create_guest(config).expect("there is memory");
        let vmid = self.iommu.stage2_of(id).expect("it runs").vmid.as_u16();
        self.host.machine().claim(Claim::VmidTaken { vmid });
        let guest = Guest {
            id,
            vmid,
            name: format!("guest {vmid}"),
            slots: Arc::new(AtomicU64::new(1)),
        };
        self.say(|| format!("{} starts", guest.name));
        self.lay_trap(&guest);
        lock(&self.guests).push(guest.clone());
        guest
    }

    /// Memory of a guest that nobody has yet: 16 KiB, zeros; where the guest sees it.
    pub(super) fn slot(&self, guest: &Guest) -> (Ipa, Pa) {
        let slot = guest.slots.fetch_add(1, Ordering::Relaxed);
        let ipa = Ipa::new(MEMORY + (slot << LOG2_SLOT));
        (ipa, self.give(guest, ipa))
    }

    /// Gives a guest 16 KiB of memory at `ipa`, full of zeros.
    pub(super) fn give(&self, guest: &Guest, ipa: Ipa) -> Pa {
        let frames = self.host.allocate(LOG2_SLOT).expect("there is memory");
        let base = frames.base();
        // Nothing of its former life is on its way any more.
        self.host.barrier(Barrier::Release);
        for at in (0..frames.size_bytes()).step_by(8) {
            let cleared = self.host.machine().memory().set(base.as_u64() + at, 0);
            cleared.expect("it is memory");
        }
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        self.iommu
            .map(guest.id, ipa, base, 1 << LOG2_SLOT, attributes, sizes)
            .expect("it is mapped");
        lock(&self.memory).push((guest.id, frames));
        base
    }

    /// Gives a guest 2 MiB of memory at `ipa`, in one block.
    pub fn block(&self, guest: &Guest, ipa: Ipa) -> Pa {
        let frames = self.host.allocate(21).expect("there is memory");
        let base = frames.base();
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::Largest);
        self.iommu
            .map(guest.id, ipa, base, 1 << 21, attributes, sizes)
            .expect("it is mapped");
        lock(&self.memory).push((guest.id, frames));
        base
    }

    /// Tables that lead to a page of nobody's, where a root is that was not written yet: at 0. Who
    /// walks by half a CD lands there, and the model keeps it.
    fn lay_trap(&self, guest: &Guest) {
        let at = self.give(guest, Ipa::new(0));
        self.write_tables(Ipa::new(0), at, Ipa::new(0x2000));
    }

    /// The guest writes two tables at `root`, which lie at `at`, that map [`VA`] to `page`.
    pub(super) fn write_tables(&self, root: Ipa, at: Pa, page: Ipa) {
        let leaf = Ipa::new(root.as_u64() + 0x1000);
        let page = Stage1Descriptor::page(page, PageAccess::ReadWrite);
        self.write(at, VA >> 21 & 511, Stage1Descriptor::table(leaf));
        self.write(Pa::new(at.as_u64() + 0x1000), VA >> 12 & 511, page);
        self.host.barrier(Barrier::Publish);
    }

    /// The guest writes one descriptor of a table.
    pub(super) fn write(&self, table: Pa, index: u64, descriptor: Stage1Descriptor) {
        let at = table.as_u64() + index * 8;
        let stored = self.host.machine().store(at, descriptor.as_u64());
        stored.expect("it is memory");
    }

    /// Gives the memory of a guest that is no more back to the host. Where an SMMU still keeps
    /// something of it, the model objects.
    pub(crate) fn take_memory_of(&self, guest: &Guest) {
        let is_its = |(of, _): &mut (GuestId, Frames)| *of == guest.id;
        let memory: Vec<_> = lock(&self.memory).extract_if(.., is_its).collect();
        for (_, frames) in memory {
            self.host.free(frames);
        }
    }

    /// A guest dies, as it stands: its streams abort, and all it had is the host's again.
    pub fn kill(&self, guest: &Guest) {
        self.say(|| format!("{} dies", guest.name));
        let ended = self.iommu.destroy_guest(guest.id);
        ended.expect("hardware confirms");
        self.take_memory_of(guest);
    }
}
