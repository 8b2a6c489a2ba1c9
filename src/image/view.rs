//! The world as the calls of one guest see it.

use core::sync::atomic::Ordering;

use portcullis::addr::{Ipa, Pa};
use portcullis::arch::Host;
use portcullis::guest::calls::{GuestDevice, GuestWorld, Limits, NotItsMemory, guest_memory};
use portcullis::guest::description::Planned;
use portcullis::space::{GuestId, Iommu};

use super::build;
use super::world::{Slot, World};

/// The world as one guest's calls see it.
pub(crate) struct View<'w> {
    pub(crate) world: &'w World,
    pub(crate) planned: &'w Planned,
    pub(crate) slot: &'w Slot,
}

impl GuestWorld<'static, Host> for View<'_> {
    fn iommu(&self) -> &Iommu<'static, Host> {
        &self.world.iommu
    }

    fn limits(&self, _: GuestId) -> Limits {
        let settings = &self.world.settings;
        Limits {
            vcpus: self.planned.cpus.len() as u32,
            quota: build::quota(self.planned),
            pasid_bits: build::PASID_BITS,
            stall_deadline_us: settings.stall_deadline_us,
            quarantine_us: settings.quarantine_us,
            wait_us: settings.wait_us,
        }
    }

    fn device(&self, _: GuestId, number: u32) -> Option<GuestDevice> {
        let state = self.slot.state.lock();
        state.built.as_ref()?.devices.get(number as usize).copied()
    }

    fn read(&self, _: GuestId, from: Ipa, into: &mut [u8]) -> Result<(), NotItsMemory> {
        let state = self.slot.state.lock();
        let built = state.built.as_ref().ok_or(NotItsMemory { at: from })?;
        let bytes = into.len() as u64;
        guest_memory::pieces(&built.ram, from, bytes, |piece, before| {
            let into = into.iter_mut().skip(before as usize);
            let mut word = 0;
            for (byte, at) in into.zip(piece.base().as_u64()..piece.end().as_u64()) {
                if at & 7 == 0 || at == piece.base().as_u64() {
                    let found = self.world.host.word(Pa::new(at & !7));
                    word = found.map_or(0, |word| word.load(Ordering::Relaxed));
                }
                *byte = (word >> (8 * (at & 7))) as u8;
            }
        })
    }

    fn console(&self, _: GuestId, vcpu: u32, bytes: &[u8]) {
        self.slot.lines.put(self.planned.name.as_str(), vcpu, bytes);
    }

    fn log(&self, _: GuestId, into: &mut [u8]) -> usize {
        self.slot.lines.take(into)
    }
}
