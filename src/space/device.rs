//! Devices: what the host says of them, and how much of them a guest reaches.

use super::books::{Binding, Books, OfDevice, OfGroup, OfGuest};
use super::error::SpaceError;
use super::group::{Group, MAX_GROUP_DEVICES};
use super::ids::{DeviceId, GroupId, GuestId, SmmuId, SmmuSet};
use super::iommu::Iommu;
use super::leftovers::SharedContexts;
use super::list::{Link, Linked, List};
use super::settings::{DeviceDescription, ResetPolicy};
use super::streams::NotInserted;
use super::walk::Streams;
use crate::hw::{DeviceTag, Key, Platform};
use crate::smmu::MAX_DEVICE_STREAMS;
use crate::spec::ste::Ats;

/// What the traffic of an attached device meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Its streams abort.
    Nothing,
    /// Stage 2 alone.
    Stage2,
    /// A CD for each PASID.
    Pasids,
    /// One CD for all of it.
    Whole,
}

/// One device.
pub(super) struct Device<'p, P: Platform> {
    pub(super) group: GroupId,
    pub(super) tag: DeviceTag,
    pub(super) smmu: Option<SmmuId>,
    pub(super) streams: Streams,
    pub(super) pasid_bits: u8,
    pub(super) can_stall: bool,
    /// The most that it may have.
    pub(super) ats: Ats,
    /// What it has now.
    pub(super) ats_now: Ats,
    pub(super) reset: ResetPolicy,
    /// The guest that it is attached to.
    pub(super) guest: Option<GuestId>,
    pub(super) reach: Reach,
    pub(super) contexts: Option<SharedContexts<'p, P>>,
    pub(super) bindings: List<Binding, OfDevice>,
    /// Cut off, until it is reset.
    pub(super) is_fenced: bool,
    /// Cut off at its port, so that after a reset the port must be opened.
    pub(super) is_port_fenced: bool,
    /// Somebody has had it since it was last reset.
    pub(super) is_dirty: bool,
    /// It kept translations that it was told to drop, and was not reset since.
    pub(super) kept_caches: bool,
    /// It went away; its record goes with the last handle of its bindings.
    pub(super) is_gone: bool,
    in_group: Link<Device<'p, P>>,
    in_guest: Link<Device<'p, P>>,
}

impl<'p, P: Platform> Linked<OfGroup> for Device<'p, P> {
    fn link(&mut self) -> &mut Link<Self> {
        &mut self.in_group
    }
    fn next(&self) -> Option<Key<Self>> {
        self.in_group.following()
    }
}

impl<'p, P: Platform> Linked<OfGuest> for Device<'p, P> {
    fn link(&mut self) -> &mut Link<Self> {
        &mut self.in_guest
    }
    fn next(&self) -> Option<Key<Self>> {
        self.in_guest.following()
    }
}

impl<P: Platform> Device<'_, P> {
    /// Where its streams are.
    pub(super) fn smmus(&self) -> SmmuSet {
        let mut smmus = SmmuSet::EMPTY;
        if let Some(smmu) = self.smmu {
            smmus.insert(smmu);
        }
        smmus
    }
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// Adds a device to a group. Its streams abort until it is attached.
    ///
    /// A device that is found late joins its group, whoever owns that; one of another group, or of
    /// a stream that is another device's, is kept off.
    ///
    /// # Errors
    ///
    /// [`NoSuchGroup`](SpaceError::NoSuchGroup), [`GroupFull`](SpaceError::GroupFull),
    /// [`Streams`](SpaceError::Streams), [`StreamTaken`](SpaceError::StreamTaken),
    /// [`NeverCame`](SpaceError::NeverCame) if discovery is over and its SMMU is not there,
    /// [`Full`](SpaceError::Full), [`NoFrames`](SpaceError::NoFrames).
    pub fn add_device(
        &self,
        group: GroupId,
        description: &DeviceDescription<'_>,
    ) -> Result<DeviceId, SpaceError> {
        let count = description.streams.len();
        let is_fit = match description.smmu {
            Some(_) => (1..=MAX_DEVICE_STREAMS).contains(&count),
            None => count <= MAX_DEVICE_STREAMS,
        };
        if !is_fit {
            return Err(SpaceError::Streams { count });
        }
        if let Some(smmu) = description.smmu
            && self.smmu(smmu).is_err()
            && self.books().is_discovery_over
        {
            return Err(SpaceError::NeverCame { smmu });
        }
        self.books().add_device(group, description)
    }

    /// Which devices are in a group, in the order in which they were added; at most 16.
    ///
    /// # Errors
    ///
    /// [`NoSuchGroup`](SpaceError::NoSuchGroup).
    pub fn devices_of(
        &self,
        group: GroupId,
    ) -> Result<impl Iterator<Item = DeviceId> + use<'p, P>, SpaceError> {
        let mut books = self.books();
        books.group(group)?;
        Ok(books.members(group).into_iter().flatten())
    }
}

impl<'p, P: Platform> Books<'p, P> {
    fn add_device(
        &mut self,
        group: GroupId,
        description: &DeviceDescription<'_>,
    ) -> Result<DeviceId, SpaceError> {
        let is_owned = self.group(group)?.is_owned();
        if self.group(group)?.devices.count() as usize >= MAX_GROUP_DEVICES {
            return Err(SpaceError::GroupFull);
        }
        if let Some(smmu) = description.smmu {
            for (i, &stream) in description.streams.iter().enumerate() {
                let is_twice = description
                    .streams
                    .iter()
                    .take(i)
                    .any(|other| *other == stream);
                if is_twice || self.streams.get(smmu.as_u8(), stream).is_some() {
                    return Err(SpaceError::StreamTaken { stream });
                }
            }
        }
        let key = self
            .devices
            .insert(Device {
                group,
                tag: description.tag,
                smmu: description.smmu,
                streams: Streams::new(description.streams),
                pasid_bits: description.pasid_bits.min(20),
                can_stall: description.can_stall,
                ats: description.ats,
                ats_now: Ats::Off,
                reset: description.reset,
                guest: None,
                reach: Reach::Nothing,
                contexts: None,
                bindings: List::default(),
                is_fenced: false,
                is_port_fenced: false,
                is_dirty: is_owned,
                kept_caches: false,
                is_gone: false,
                in_group: Link::default(),
                in_guest: Link::default(),
            })
            .map_err(|(_, why)| why)?;
        if let Some(smmu) = description.smmu {
            for (i, &stream) in description.streams.iter().enumerate() {
                if let Err(why) = self.streams.insert(smmu.as_u8(), stream, key.slot()) {
                    for &stream in description.streams.iter().take(i) {
                        self.streams.remove(smmu.as_u8(), stream);
                    }
                    self.devices.remove(key);
                    return Err(match why {
                        NotInserted::NoFrames { log2_bytes } => SpaceError::NoFrames { log2_bytes },
                        NotInserted::Crowded => SpaceError::Full,
                        NotInserted::Present { .. } => SpaceError::StreamTaken { stream },
                    });
                }
            }
        }
        if let Some(Group { devices, .. }) = self.groups.get_mut(group.key()) {
            devices.push(&mut self.devices, key);
        }
        Ok(DeviceId::of(key))
    }

    /// The devices of a group.
    pub(super) fn members(&self, group: GroupId) -> [Option<DeviceId>; MAX_GROUP_DEVICES] {
        let mut members = [None; MAX_GROUP_DEVICES];
        if let Some(group) = self.groups.get(group.key()) {
            let devices = group.devices.iter(&self.devices);
            for (slot, (key, _)) in members.iter_mut().zip(devices) {
                *slot = Some(DeviceId::of(key));
            }
        }
        members
    }

    /// Forgets a device that is attached to nobody and has no bindings.
    pub(super) fn remove_device(&mut self, id: DeviceId) {
        let Some(device) = self.devices.get(id.key()) else {
            return;
        };
        let (group, smmu, streams) = (device.group, device.smmu, device.streams);
        if let Some(smmu) = smmu {
            for stream in streams {
                self.streams.remove(smmu.as_u8(), stream);
            }
        }
        if let Some(Group { devices, .. }) = self.groups.get_mut(group.key()) {
            devices.remove(&mut self.devices, id.key());
        }
        self.devices.remove(id.key());
    }
}
