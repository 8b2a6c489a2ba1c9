//! Recovery: what was lost is given back on proof, and nothing else is.

use super::books::{Binding, BindingState, Books};
use super::device::Reach;
use super::error::{Fence, SpaceError};
use super::guest::GuestLife;
use super::ids::{GuestId, SmmuId, SmmuSet, SpaceId};
use super::iommu::Iommu;
use super::settings::By;
use crate::hw::{Key, Platform};
use crate::smmu::{Context, Proof};
use crate::spec::cd::CdState;

impl<'p, P: Platform> Iommu<'p, P> {
    /// Brings an SMMU back that did not confirm something, or was stopped.
    ///
    /// The proof is the SMMU's: every entry in memory is one that somebody owns or one that aborts,
    /// all configuration and all translations were invalidated, and that was confirmed, by its queue
    /// or, if that was dead, by one that was initialised anew while the gate was shut. Other guests
    /// behind it lose what was cached of them, and find it again.
    ///
    /// Then what was lost on it before is given back: spaces go on to drain, guests that ended give
    /// back their memory. What a device kept, and what is fenced, waits for
    /// [`restore`](Self::restore) of that device. Bounded as [`Smmu::recover`](crate::smmu::Smmu::recover).
    ///
    /// # Errors
    ///
    /// [`NoSuchSmmu`](SpaceError::NoSuchSmmu). [`NotRecovered`](SpaceError::NotRecovered): nothing is
    /// given back. A queue that lives and never completes can only be set up anew after
    /// [`halt`](Self::halt), which stops every guest behind it.
    pub fn recover(&self, id: SmmuId) -> Result<(), SpaceError> {
        let smmu = self.smmu(id)?;
        let begun = {
            let mut books = self.books();
            books.recoveries += 1;
            books.recoveries
        };
        let proof = smmu
            .recover()
            .map_err(|error| SpaceError::NotRecovered { smmu: id, error })?;
        let now_us = self.now_us();
        {
            let mut books = self.books();
            books.down.remove(id);
            // What was not heard meanwhile was not recorded.
            books.restart_quarantines_on(id, now_us);
        }
        self.reclaim_bindings(id, &proof);
        let slots = self.books().spaces.slots();
        for slot in 0..slots {
            let mut books = self.books();
            if let Some(key) = books.spaces.key_at(slot) {
                books.prove_space(SpaceId::of(key), id, begun, now_us);
            }
        }
        let mut slot = 0;
        while let Some(guest) = self.guest_from(&mut slot) {
            let is_lost = {
                let mut books = self.books();
                let Ok(record) = books.guest(guest) else {
                    continue;
                };
                if record.lost_at < begun {
                    record.unproven.remove(id);
                }
                if record.unproven.is_empty() {
                    record.lost_range = None;
                }
                record.life == GuestLife::Lost
            };
            if is_lost {
                self.bury_if_proven(guest);
            }
        }
        Ok(())
    }

    /// The SMMUs that something was lost on, or that are down: those for which
    /// [`recover`](Self::recover) has something to give back.
    pub fn unproven(&self) -> SmmuSet {
        let mut found = self.books().down;
        self.each_loss(|_, smmus| found.absorb(smmus));
        found
    }

    /// As [`unproven`](Self::unproven), of a guest: where something of its own was lost, and what is
    /// down of those that its devices are behind. Nothing for a guest that there is not.
    pub fn unproven_of(&self, guest: GuestId) -> SmmuSet {
        let mut found = {
            let mut books = self.books();
            let down = books.down;
            books
                .guest(guest)
                .map_or(SmmuSet::EMPTY, |it| it.live_on.and(down))
        };
        self.each_loss(|of, smmus| {
            if of == guest {
                found.absorb(smmus);
            }
        });
        found
    }

    /// Has `with` see whose something was lost, and where; one look at the books each.
    fn each_loss(&self, mut with: impl FnMut(GuestId, SmmuSet)) {
        let slots = self.books().spaces.slots();
        for slot in 0..slots {
            let books = self.books();
            if let Some(key) = books.spaces.key_at(slot)
                && let Some(space) = books.spaces.get(key)
            {
                with(space.guest, space.unproven);
            }
        }
        let slots = self.books().bindings.slots();
        for slot in 0..slots {
            let books = self.books();
            if let Some(key) = books.bindings.key_at(slot)
                && let Some(binding) = books.bindings.get(key)
                && binding.state == BindingState::Lost
                && let Some(device) = books.devices.get(binding.device.key())
                && let Some(space) = books.spaces.get(binding.space.key())
            {
                // Its device may be nobody's by now.
                with(space.guest, device.smmus());
            }
        }
        let mut slot = 0;
        while let Some(guest) = self.guest_from(&mut slot) {
            let unproven = self.books().guest(guest).map(|it| it.unproven);
            with(guest, unproven.unwrap_or(SmmuSet::EMPTY));
        }
    }

    /// Stops an SMMU, with every guest behind it, each of which is told: nothing translates there
    /// until [`recover`](Self::recover), and every waiter fails at its next look.
    ///
    /// # Errors
    ///
    /// [`NoSuchSmmu`](SpaceError::NoSuchSmmu).
    pub fn halt(&self, id: SmmuId) -> Result<Fence, SpaceError> {
        self.smmu(id)?;
        Ok(self.stop_smmu(id))
    }

    /// CDs that were lost are not valid in memory, and the SMMU has nothing of them: they are free.
    fn reclaim_bindings(&self, id: SmmuId, proof: &Proof) {
        let Ok(smmu) = self.smmu(id) else { return };
        let slots = self.books().bindings.slots();
        for slot in 0..slots {
            let found = self.books().lost_binding(slot, id);
            let Some((key, contexts, context)) = found else {
                continue;
            };
            let is_free = match (contexts, context) {
                (Some(contexts), Context::Substream(_)) => {
                    // It is free already if its device's streams were lost and not the CD itself.
                    smmu.reclaim_context(&contexts, context, proof).is_ok()
                        || contexts.state_of(context) == Some(CdState::Free)
                }
                // Its streams were lost with it, and are free.
                (_, Context::WholeStream) | (None, _) => true,
            };
            if is_free {
                let now_us = self.now_us();
                self.books().free_lost_binding(key, now_us);
            }
        }
    }
}

impl<'p, P: Platform> Books<'p, P> {
    /// The binding in a place, if it was lost on an SMMU.
    fn lost_binding(
        &self,
        slot: u32,
        smmu: SmmuId,
    ) -> Option<(
        Key<Binding>,
        Option<super::leftovers::SharedContexts<'p, P>>,
        Context,
    )> {
        let key = self.bindings.key_at(slot)?;
        let binding = self.bindings.get(key)?;
        let device = self.devices.get(binding.device.key())?;
        let space = self.spaces.get(binding.space.key())?;
        if binding.state != BindingState::Lost || device.smmu != Some(smmu) {
            return None;
        }
        let context = match binding.by {
            By::Pasid => Context::Substream(space.pasid.substream()),
            By::WholeStream => Context::WholeStream,
        };
        Some((key, device.contexts.clone(), context))
    }

    /// A binding that was lost is proven to be gone.
    fn free_lost_binding(&mut self, key: Key<Binding>, now_us: u64) {
        let Some(binding) = self.bindings.get_mut(key) else {
            return;
        };
        binding.state = BindingState::Ended;
        let (space, device) = (binding.space, binding.device);
        let is_over = binding.handles.is_empty() && !binding.kept_caches;
        let is_whole = self
            .devices
            .get(device.key())
            .is_some_and(|it| it.reach == Reach::Whole);
        if is_whole {
            self.take_from_guest(device);
        }
        if is_over {
            self.remove_binding(key);
        }
        self.settle_space(space, now_us);
    }

    /// An SMMU has proven that it holds nothing of what was lost before its recovery `begun`.
    fn prove_space(&mut self, space: SpaceId, smmu: SmmuId, begun: u64, now_us: u64) {
        if let Some(record) = self.spaces.get_mut(space.key())
            && record.lost_at < begun
        {
            record.unproven.remove(smmu);
            if record.state != super::SpaceState::Live {
                record.live_on.remove(smmu);
            }
        }
        self.settle_space(space, now_us);
    }
}
