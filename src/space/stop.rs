//! Streams of any number are stopped together, and what their devices leave behind is taken care of.

use super::books::Books;
use super::device::Reach;
use super::error::{Fence, SpaceError};
use super::ids::{DeviceId, GuestId, MAX_SMMUS, SmmuId, SmmuSet};
use super::iommu::Iommu;
use super::leftovers::SharedContexts;
use super::walk::Streams;
use crate::hw::Platform;
use crate::id::Vmid;
use crate::smmu::{CommandError, NotStopped, Smmu, Stopping};
use crate::spec::ste::Ats;

/// What [`Iommu::stop`] could not do.
pub(super) struct Unstopped {
    /// The first of it.
    pub(super) error: SpaceError,
    /// SMMUs that did not confirm.
    pub(super) unconfirmed: SmmuSet,
}

impl Unstopped {
    /// Whether a device is of what could not be done: it was not stopped, or kept what it cached.
    pub(super) fn keeps<P: Platform>(&self, books: &mut Books<'_, P>, device: DeviceId) -> bool {
        books.device(device).is_ok_and(|it| {
            it.kept_caches || it.smmu.is_some_and(|smmu| self.unconfirmed.has(smmu))
        })
    }
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// A device's streams, and the ATS that it may have with both stages.
    pub(super) fn streams_of(&self, device: DeviceId) -> Result<(Streams, Ats), SpaceError> {
        let mut books = self.books();
        let record = books.device(device)?;
        Ok((record.streams, record.ats))
    }

    /// Stops the streams of `devices` on every SMMU of `smmus`: each entry aborts by one store.
    ///
    /// With `flush`, everything of a VMID goes in the same train. All SMMUs are told before any is
    /// waited for: 1 SYNC, one more with `flush` or where transactions may be stalled, one more with
    /// ATS. What does not confirm is fenced, and marked in the books.
    pub(super) fn stop<I: Iterator<Item = DeviceId> + Clone>(
        &self,
        smmus: SmmuSet,
        devices: I,
        flush: Option<Vmid>,
    ) -> Result<(), Unstopped> {
        let mut pending = [const { None }; MAX_SMMUS];
        for (id, smmu) in self.each(smmus) {
            let train = smmu.begin_stop(self.stopping(id, devices.clone()), flush);
            pending[id.index()] = Some(train);
        }
        let mut unstopped: Option<Unstopped> = None;
        let mut note = |error, unconfirmed: Option<SmmuId>| {
            let all = unstopped.get_or_insert(Unstopped {
                error,
                unconfirmed: SmmuSet::EMPTY,
            });
            if let Some(smmu) = unconfirmed {
                all.unconfirmed.insert(smmu);
            }
        };
        for (id, smmu) in self.each(smmus) {
            let outcome = match pending[id.index()].take() {
                Some(Ok(train)) => train.finish(),
                Some(Err(error)) => {
                    note(SpaceError::of_stream(id, error, Fence::NotNeeded), Some(id));
                    continue;
                }
                None => continue,
            };
            match outcome {
                Ok(()) => {}
                Err(NotStopped::DeviceCaches(CommandError::AtcTimeout)) => {
                    if let Err((error, is_smmu)) = self.ask_singly(id, smmu, devices.clone()) {
                        note(error, is_smmu.then_some(id));
                    }
                }
                Err(
                    NotStopped::Streams(error)
                    | NotStopped::Translations(error)
                    | NotStopped::DeviceCaches(error),
                ) => {
                    let fence = self.fence_devices(id, self.behind(id, devices.clone()));
                    let error = SpaceError::NotConfirmed {
                        smmu: id,
                        error,
                        fence,
                    };
                    for device in self.behind(id, devices.clone()) {
                        self.books().lose_streams_of(device, id, error);
                    }
                    note(error, Some(id));
                }
            }
        }
        unstopped.map_or(Ok(()), Err)
    }

    /// Those of `devices` that are behind an SMMU.
    pub(super) fn behind(
        &self,
        smmu: SmmuId,
        devices: impl Iterator<Item = DeviceId> + Clone,
    ) -> impl Iterator<Item = DeviceId> + Clone {
        devices.filter(move |device| {
            let mut books = self.books();
            books.device(*device).is_ok_and(|it| it.smmu == Some(smmu))
        })
    }

    pub(super) fn stopping<I: Iterator<Item = DeviceId> + Clone>(
        &self,
        smmu: SmmuId,
        devices: I,
    ) -> impl Iterator<Item = Stopping> + Clone + use<'_, 'p, P, I> {
        devices.flat_map(move |device| {
            let mut books = self.books();
            let found = books.device(device).ok().filter(|it| it.smmu == Some(smmu));
            let found = found.map(|it| {
                let can_stall = it.can_stall && it.reach != Reach::Nothing;
                (it.streams, it.ats_now != Ats::Off, can_stall)
            });
            found.into_iter().flat_map(|(streams, has_ats, can_stall)| {
                streams.into_iter().map(move |stream| Stopping {
                    stream,
                    has_ats,
                    can_stall,
                })
            })
        })
    }

    /// A device did not drop its translations, and the SMMU does not say which (§4.7.3): each is
    /// asked alone. Who is silent again is marked; its entry aborts already, and with it what it
    /// translated before (CR0.ATSCHK).
    pub(super) fn ask_singly(
        &self,
        id: SmmuId,
        smmu: &Smmu<'p, P>,
        devices: impl Iterator<Item = DeviceId> + Clone,
    ) -> Result<(), (SpaceError, bool)> {
        let mut outcome = Ok(());
        for device in self.behind(id, devices) {
            let (streams, has_ats) = {
                let mut books = self.books();
                let Ok(record) = books.device(device) else {
                    continue;
                };
                (record.streams, record.ats_now != Ats::Off)
            };
            if !has_ats {
                continue;
            }
            let mut is_silent = false;
            let commands = streams
                .into_iter()
                .flat_map(|stream| smmu.atc_inv_everything(stream));
            if let Err(error) = smmu.atc_invalidate_singly(commands, |_| is_silent = true) {
                let fence = self.fence_devices(id, [device].into_iter());
                let error = SpaceError::NotConfirmed {
                    smmu: id,
                    error,
                    fence,
                };
                return Err((error, true));
            }
            if is_silent {
                let mut books = self.books();
                if let Ok(record) = books.device(device) {
                    record.is_fenced = true;
                    record.kept_caches = true;
                }
                let fence = Fence::Stream;
                outcome = outcome.and(Err((SpaceError::CachesKept { device, fence }, false)));
            }
        }
        outcome
    }
}

impl<'p, P: Platform> Books<'p, P> {
    /// Fences a device that could not be stopped, or kept what it cached, with all of its bindings.
    pub(super) fn keep_unstopped(&mut self, unstopped: &Unstopped, id: DeviceId) {
        if !unstopped.keeps(self, id) {
            return;
        }
        let Ok(record) = self.device(id) else { return };
        record.is_fenced = true;
        let lost = record.smmu.filter(|smmu| unstopped.unconfirmed.has(*smmu));
        self.each_binding_of(id, |books, key| match lost {
            Some(smmu) => {
                books.lose_binding(key, smmu);
            }
            None => books.keep_caches(key),
        });
    }

    /// An SMMU did not confirm a change of a device's streams, as `error` says: nothing of its guest
    /// may be given back before that is proven, and what the device cached not before its reset.
    pub(super) fn lose_streams_of(&mut self, id: DeviceId, smmu: SmmuId, error: SpaceError) {
        let Some(device) = self.devices.get_mut(id.key()) else {
            return;
        };
        device.kept_caches |= device.ats_now != Ats::Off;
        if let Some(guest) = device.guest {
            self.lose_memory(guest, smmu, error);
        }
    }

    /// Detaches a device whose streams were stopped, and keeps what is left of its contexts.
    pub(super) fn take_from_guest(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(id.key()) else {
            return;
        };
        let guest = device.guest.take();
        device.reach = Reach::Nothing;
        device.ats_now = Ats::Off;
        let contexts = device.contexts.take();
        let Some(guest) = guest else { return };
        if let Some(record) = self.guests.get_mut(guest.key()) {
            record.devices.remove(&mut self.devices, id.key());
        }
        if let Some(contexts) = contexts {
            self.keep_leftover(guest, contexts);
        }
    }

    /// Keeps contexts that no stream leads to, until their memory is taken out of the window.
    pub(super) fn keep_leftover(&mut self, guest: GuestId, contexts: SharedContexts<'p, P>) {
        if let Some(guest) = self.guests.get_mut(guest.key()) {
            guest.leftovers.push(contexts);
        }
    }
}
