//! Fences: what hardware does not confirm is stopped by the smallest thing that works.
//!
//! 1. the device's port (bus mastering off, or the link down), which the host has or has not;
//! 2. the stream's entry, where the SMMU still obeys and a device alone does not;
//! 3. the SMMU: SMMUEN off under GBPA.ABORT. Every guest behind it is told, every waiter fails at
//!    its next look, and it stays so until it is [recovered](super::Iommu::recover).
//!
//! If even that is not acknowledged, every port behind the SMMU is closed, and what cannot be is
//! said loudly ([`Fence::Failed`]).

use super::error::{Fence, SpaceError};
use super::ids::{DeviceId, SmmuId, SmmuSet};
use super::iommu::Iommu;
use crate::hw::Platform;
use crate::smmu::{NotStopped, StreamError};

impl<P: Platform> Iommu<'_, P> {
    /// Stops devices of which their SMMU did not confirm something: each is fenced, until it was
    /// reset, whether its port could be closed or the SMMU was stopped.
    pub(super) fn fence_devices(
        &self,
        smmu: SmmuId,
        devices: impl Iterator<Item = DeviceId> + Clone,
    ) -> Fence {
        let mut fence = Fence::NotNeeded;
        let mut are_all_closed = true;
        for device in devices.clone() {
            // All of them, also where the SMMU is down already: it will be recovered, and what a
            // device cached meanwhile is not the SMMU's to prove.
            are_all_closed &= self.close_port(device);
            fence = Fence::Port;
        }
        if are_all_closed {
            return fence;
        }
        let fence = self.stop_smmu(smmu);
        for device in devices {
            self.close_streams(smmu, device, fence);
        }
        fence
    }

    /// Has the entries of a fenced device abort that has no port, behind an SMMU that was stopped:
    /// or its recovery would let the device through again.
    fn close_streams(&self, smmu: SmmuId, device: DeviceId, fence: Fence) {
        let is_open = self
            .books()
            .device(device)
            .is_ok_and(|it| !it.is_port_fenced);
        let Ok(driven) = self.smmu(smmu) else { return };
        if !is_open {
            return;
        }
        let stopping = self.stopping(smmu, [device].into_iter());
        // Another CPU that changes them now is told the same as is said here.
        if let Ok(pending) = driven.begin_stop(stopping, None)
            && let Err(
                NotStopped::Streams(error)
                | NotStopped::Translations(error)
                | NotStopped::DeviceCaches(error),
            ) = pending.finish()
        {
            let error = SpaceError::NotConfirmed { smmu, error, fence };
            self.books().lose_streams_of(device, smmu, error);
        }
    }

    /// Stops a device that does not obey, behind an SMMU that does.
    pub(super) fn fence_silent(&self, smmu: SmmuId, device: DeviceId) -> Fence {
        if self.close_port(device) {
            return Fence::Port;
        }
        let (Ok(driven), Ok((streams, _))) = (self.smmu(smmu), self.streams_of(device)) else {
            return self.stop_smmu(smmu);
        };
        match driven.retract(streams.as_slice()) {
            // Translated traffic too: CR0.ATSCHK has it checked against the entry (§3.9.2).
            Ok(()) | Err(StreamError::NotInUse { .. }) => Fence::Stream,
            Err(error) => {
                let fence = self.stop_smmu(smmu);
                let error = SpaceError::of_stream(smmu, error, fence);
                self.books().lose_streams_of(device, smmu, error);
                fence
            }
        }
    }

    /// Stops a device of which stalled transactions can not be answered any more: its streams abort,
    /// and all that is stalled of them ends.
    pub(super) fn fence_stalling(&self, smmu: SmmuId, device: DeviceId) {
        if let Ok(record) = self.books().device(device) {
            record.is_fenced = true;
        }
        let mut smmus = SmmuSet::EMPTY;
        smmus.insert(smmu);
        // What does not confirm is fenced by that.
        let _ = self.stop(smmus, [device].into_iter(), None);
    }

    /// Marks a device as fenced, and closes its port if the host can.
    fn close_port(&self, device: DeviceId) -> bool {
        let tag = {
            let mut books = self.books();
            let Ok(record) = books.device(device) else {
                // It is gone.
                return true;
            };
            record.is_fenced = true;
            record.tag
        };
        let is_closed = self.platform().fence_port(tag).is_ok();
        if is_closed && let Ok(record) = self.books().device(device) {
            record.is_port_fenced = true;
        }
        is_closed
    }

    /// Stops an SMMU with everything behind it, and tells the guests.
    pub(super) fn stop_smmu(&self, id: SmmuId) -> Fence {
        let Ok(smmu) = self.smmu(id) else {
            return Fence::NotNeeded;
        };
        let is_new = {
            let mut books = self.books();
            let is_new = !books.down.has(id);
            books.down.insert(id);
            if is_new {
                books.tell_stopped(id);
            }
            is_new
        };
        if smmu.slam().is_ok() {
            return Fence::Smmu;
        }
        if !is_new {
            return Fence::Failed;
        }
        let mut are_all_closed = true;
        let mut slot = 0;
        loop {
            let device = {
                let books = self.books();
                if slot >= books.devices.slots() {
                    break;
                }
                let key = books.devices.key_at(slot);
                key.filter(|key| {
                    books
                        .devices
                        .get(*key)
                        .is_some_and(|it| it.smmu == Some(id))
                })
                .map(DeviceId::of)
            };
            if let Some(device) = device {
                are_all_closed &= self.close_port(device);
            }
            slot += 1;
        }
        if are_all_closed {
            Fence::Port
        } else {
            Fence::Failed
        }
    }
}
