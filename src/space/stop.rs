//! Streams of any number are stopped together, and what their devices leave behind is taken care of.

use super::attach::SharedContexts;
use super::books::{BindingState, Books, OfGuest};
use super::device::Reach;
use super::error::{Fence, SpaceError};
use super::ids::{DeviceId, GuestId, MAX_SMMUS, SmmuId, SmmuSet};
use super::iommu::Iommu;
use super::list::{Link, linked};
use super::walk::Streams;
use crate::hw::Platform;
use crate::id::{StreamId, Vmid};
use crate::smmu::{Ats, CommandError, Smmu};
use crate::spec::command::Command;

/// Contexts that no stream leads to, whose memory is still sealed in a guest's window.
pub(super) struct Leftover<'p, P: Platform> {
    pub(super) smmu: SmmuId,
    pub(super) contexts: SharedContexts<'p, P>,
    in_guest: Link<Leftover<'p, P>>,
}

impl<'p, P: Platform> super::list::Linked<OfGuest> for Leftover<'p, P> {
    fn link(&mut self) -> &mut Link<Self> {
        &mut self.in_guest
    }
    fn next(&self) -> Option<crate::hw::Key<Self>> {
        self.in_guest.following()
    }
}

/// A stream behind one SMMU, with what else it takes to stop it.
#[derive(Clone, Copy)]
struct Stopping {
    stream: StreamId,
    device: DeviceId,
    has_ats: bool,
    can_stall: bool,
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
    /// waited for: 1 SYNC, one more with `flush`, one more with ATS, one more where transactions of
    /// theirs may be stalled. What does not confirm is fenced.
    pub(super) fn stop<I: Iterator<Item = DeviceId> + Clone>(
        &self,
        smmus: SmmuSet,
        devices: I,
        flush: Option<Vmid>,
    ) -> Result<(), SpaceError> {
        let mut pending = [const { None }; MAX_SMMUS];
        for (id, smmu) in self.each(smmus) {
            let streams = self.stopping(id, devices.clone());
            let caches = streams.clone().filter(|it| it.has_ats);
            let train = smmu.begin_stop(
                streams.map(|it| it.stream),
                flush,
                caches.map(|it| it.stream),
            );
            pending[id.index()] = Some(train);
        }
        let mut outcome = Ok(());
        for (id, smmu) in self.each(smmus) {
            let Some(train) = pending[id.index()].take() else {
                continue;
            };
            let streams = self.stopping(id, devices.clone());
            let stopped = train.and_then(|train| train.finish());
            let stopped = match stopped {
                Err(CommandError::AtcTimeout) => self.ask_singly(id, smmu, streams.clone()),
                Ok(()) => Ok(()),
                Err(error) => Err(self.not_stopped(id, error, devices.clone())),
            };
            let ended = stopped.and_then(|()| self.end_stalls(id, smmu, streams, devices.clone()));
            outcome = outcome.and(ended);
        }
        outcome
    }

    fn not_stopped(
        &self,
        smmu: SmmuId,
        error: CommandError,
        devices: impl Iterator<Item = DeviceId>,
    ) -> SpaceError {
        let behind = devices.filter(|device| {
            let mut books = self.books();
            books.device(*device).is_ok_and(|it| it.smmu == Some(smmu))
        });
        let fence = self.fence_devices(smmu, behind);
        SpaceError::NotConfirmed { smmu, error, fence }
    }

    fn stopping<I: Iterator<Item = DeviceId> + Clone>(
        &self,
        smmu: SmmuId,
        devices: I,
    ) -> impl Iterator<Item = Stopping> + Clone + use<'_, 'p, P, I> {
        devices.flat_map(move |device| {
            let mut books = self.books();
            let found = books.device(device).ok().filter(|it| it.smmu == Some(smmu));
            let found = found.map(|it| {
                let has_ats = it.ats_now != Ats::Off;
                (it.streams, has_ats, it.can_stall && it.reach != Reach::Nothing)
            });
            found.into_iter().flat_map(move |(streams, has_ats, can_stall)| {
                streams.into_iter().map(move |stream| Stopping {
                    stream,
                    device,
                    has_ats,
                    can_stall,
                })
            })
        })
    }

    /// A device did not drop its translations, and the SMMU does not say which: each is asked alone.
    fn ask_singly(
        &self,
        id: SmmuId,
        smmu: &Smmu<'p, P>,
        streams: impl Iterator<Item = Stopping> + Clone,
    ) -> Result<(), SpaceError> {
        let mut outcome = Ok(());
        for it in streams.filter(|it| it.has_ats) {
            let mut is_silent = false;
            let asked = smmu
                .atc_invalidate_singly(smmu.atc_inv_everything(it.stream), |_| is_silent = true);
            if let Err(error) = asked {
                let fence = self.fence_devices(id, [it.device].into_iter());
                return Err(SpaceError::NotConfirmed { smmu: id, error, fence });
            }
            if is_silent {
                // Its entry aborts already, and with it what it translated before (ATSCHK).
                let mut books = self.books();
                if let Ok(device) = books.device(it.device) {
                    device.is_fenced = true;
                    device.is_dirty = true;
                }
                let device = it.device;
                let fence = Fence::Stream;
                outcome = outcome.and(Err(SpaceError::CachesKept { device, fence }));
            }
        }
        outcome
    }

    /// Ends what is stalled of streams that abort, confirmed: the one moment at which
    /// CMD_STALL_TERM is legal (§4.7.2).
    fn end_stalls<I: Iterator<Item = DeviceId> + Clone>(
        &self,
        id: SmmuId,
        smmu: &Smmu<'p, P>,
        streams: impl Iterator<Item = Stopping> + Clone,
        devices: I,
    ) -> Result<(), SpaceError> {
        let stalling = streams.filter(|it| it.can_stall);
        if !smmu.features().can_stall() || stalling.clone().next().is_none() {
            return Ok(());
        }
        smmu.submit_then_sync(stalling.map(|it| Command::stall_term(it.stream)))
            .and_then(|ticket| smmu.wait(ticket))
            .map_err(|error| self.not_stopped(id, error, devices))
    }
}

impl<'p, P: Platform> Books<'p, P> {
    /// Detaches a device whose streams were stopped, and keeps what is left of its contexts.
    pub(super) fn take_from_guest(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get_mut(id.key()) else {
            return;
        };
        let (guest, smmu) = (device.guest.take(), device.smmu);
        device.reach = Reach::Nothing;
        device.ats_now = Ats::Off;
        let contexts = device.contexts.take();
        if let Some(guest) = guest {
            if let Some(guest) = self.guests.get_mut(guest.key()) {
                guest.devices.remove(&mut self.devices, id.key());
            }
            if let (Some(smmu), Some(contexts)) = (smmu, contexts) {
                self.keep_leftover(guest, smmu, contexts);
            }
        }
    }

    /// Keeps contexts that no stream leads to, until their memory is taken out of the window.
    pub(super) fn keep_leftover(
        &mut self,
        guest: GuestId,
        smmu: SmmuId,
        contexts: SharedContexts<'p, P>,
    ) {
        let leftover = Leftover {
            smmu,
            contexts,
            in_guest: Link::default(),
        };
        // There is room: it was reserved before the streams were touched. If there were none, the
        // memory would stay sealed until the guest ends, and then be given back with its window.
        if let Ok(key) = self.leftovers.insert(leftover)
            && let Some(guest) = self.guests.get_mut(guest.key())
        {
            guest.leftovers.push(&mut self.leftovers, key);
        }
    }

    pub(super) fn pop_leftover(&mut self, guest: GuestId) -> Option<Leftover<'p, P>> {
        let guest = self.guests.get_mut(guest.key())?;
        let key = guest.leftovers.first()?;
        guest.leftovers.remove(&mut self.leftovers, key);
        self.leftovers.remove(key)
    }
}
