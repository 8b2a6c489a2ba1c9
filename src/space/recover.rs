//! Recovery: what was lost is given back on proof, and nothing else is.

use super::books::BindingState;
use super::error::{Fence, SpaceError};
use super::guest::GuestLife;
use super::ids::{SmmuId, SpaceId};
use super::iommu::Iommu;
use super::settings::By;
use crate::hw::Platform;
use crate::smmu::{Context, RecoverError};

impl<P: Platform> Iommu<'_, P> {
    /// Brings an SMMU back that did not confirm something, or was stopped.
    ///
    /// The proof is the SMMU's: every entry in memory is one that somebody owns or one that aborts,
    /// all configuration and all translations were invalidated, and that was confirmed, by its queue
    /// or, if that was dead, by one that was initialised anew while the gate was shut. Other guests
    /// behind it lose what was cached of them, and find it again.
    ///
    /// Then what was lost on it is given back: spaces go on to drain, guests that ended give back
    /// their memory. What a device kept, and what is fenced, waits for
    /// [`restore`](Self::restore) of that device.
    ///
    /// # Errors
    ///
    /// [`NoSuchSmmu`](SpaceError::NoSuchSmmu). [`NotConfirmed`](SpaceError::NotConfirmed): nothing is
    /// given back; call it again later.
    pub fn recover(&self, id: SmmuId) -> Result<(), SpaceError> {
        let smmu = self.smmu(id)?;
        smmu.recover().map_err(|error| self.not_recovered(id, error))?;
        self.books().down.remove(id);
        self.settle_lost_bindings(id);
        let now_us = self.now_us();
        let mut slot = 0;
        loop {
            let mut books = self.books();
            if slot >= books.spaces.slots() {
                break;
            }
            if let Some(key) = books.spaces.key_at(slot) {
                if let Some(space) = books.spaces.get_mut(key) {
                    space.unproven.remove(id);
                }
                books.settle_space(SpaceId::of(key), now_us);
            }
            slot += 1;
        }
        let mut slot = 0;
        while let Some(guest) = self.guest_from(&mut slot) {
            if let Ok(record) = self.books().guest(guest) {
                record.unproven.remove(id);
                if record.life != GuestLife::Lost {
                    continue;
                }
            }
            self.bury_if_proven(guest);
        }
        Ok(())
    }

    fn not_recovered(&self, smmu: SmmuId, error: RecoverError) -> SpaceError {
        let mut books = self.books();
        books.down.insert(smmu);
        SpaceError::NotRecovered { smmu, error }
    }

    /// CDs that were lost are not valid in memory, and no SMMU has anything of them: they are free.
    fn settle_lost_bindings(&self, id: SmmuId) {
        let mut slot = 0;
        loop {
            let lost = {
                let books = self.books();
                if slot >= books.bindings.slots() {
                    return;
                }
                let key = books.bindings.key_at(slot);
                slot += 1;
                key.and_then(|key| {
                    let binding = books.bindings.get(key)?;
                    let device = books.devices.get(binding.device.key())?;
                    let space = books.spaces.get(binding.space.key())?;
                    let is_meant =
                        binding.state == BindingState::Lost && device.smmu == Some(id);
                    let context = match binding.by {
                        By::Pasid => Context::Substream(space.pasid.substream()),
                        By::WholeStream => Context::WholeStream,
                    };
                    is_meant.then(|| (key, binding.space, device.contexts.clone(), context))
                })
            };
            let Some((key, space, contexts, context)) = lost else {
                continue;
            };
            if let (Some(contexts), Ok(smmu)) = (contexts, self.smmu(id)) {
                smmu.settle_context(&contexts, context);
            }
            let now_us = self.now_us();
            let mut books = self.books();
            if let Some(binding) = books.bindings.get_mut(key) {
                binding.state = BindingState::Ended;
                if binding.handles.is_empty() && !binding.kept_caches {
                    books.remove_binding(key);
                }
            }
            books.settle_space(space, now_us);
        }
    }
}
