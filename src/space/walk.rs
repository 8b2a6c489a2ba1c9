//! Walking the books without holding them: each step looks anew.
//!
//! For trains of any length, made while commands go into a queue that may be full. What is walked
//! stands still meanwhile: a space's bindings while the space is busy, a guest's devices and spaces
//! while the guest is visited.

use super::books::{Binding, BindingState, OfGuest, OfSpace, Space};
use super::device::Device;
use super::ids::{DeviceId, GuestId, SmmuId, SpaceId};
use super::iommu::Iommu;
use super::leftovers::SharedContexts;
use super::list::Linked;
use super::settings::By;
use crate::hw::{Key, Platform};
use crate::id::StreamId;
use crate::smmu::{Context, MAX_DEVICE_STREAMS, Releasing};
use crate::spec::ste::Ats;

/// A device's streams.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    list: [StreamId; MAX_DEVICE_STREAMS],
    count: usize,
}

impl Streams {
    /// Those of `streams`, which are at most [`MAX_DEVICE_STREAMS`].
    pub(super) fn new(streams: &[StreamId]) -> Self {
        let mut list = [StreamId::new(0); MAX_DEVICE_STREAMS];
        for (to, from) in list.iter_mut().zip(streams) {
            *to = *from;
        }
        Self {
            list,
            count: streams.len().min(MAX_DEVICE_STREAMS),
        }
    }

    pub(super) fn as_slice(&self) -> &[StreamId] {
        self.list.get(..self.count).unwrap_or(&[])
    }
}

impl IntoIterator for Streams {
    type Item = StreamId;
    type IntoIter = core::iter::Take<core::array::IntoIter<StreamId, MAX_DEVICE_STREAMS>>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter().take(self.count)
    }
}

/// A live CD behind one SMMU, with what it takes to end it.
pub(super) struct BoundCd<'p, P: Platform> {
    pub(super) contexts: SharedContexts<'p, P>,
    pub(super) context: Context,
    pub(super) has_ats: bool,
    pub(super) device: DeviceId,
    pub(super) binding: Key<Binding>,
}

impl<'p, P: Platform> BoundCd<'p, P> {
    pub(super) fn releasing(self) -> Releasing<SharedContexts<'p, P>> {
        Releasing {
            contexts: self.contexts,
            context: self.context,
            has_ats: self.has_ats,
        }
    }
}

/// Which spaces are meant.
#[derive(Clone, Copy)]
pub(super) enum Spaces {
    One(SpaceId),
    /// All that a guest has.
    AllOf(GuestId),
}

/// The CDs of some spaces behind one SMMU that hardware may use.
pub(super) struct Cds<'a, 'p, P: Platform> {
    iommu: &'a Iommu<'p, P>,
    smmu: SmmuId,
    spaces: SpaceWalk<'a, 'p, P>,
    binding: Option<Key<Binding>>,
}

impl<P: Platform> Clone for Cds<'_, '_, P> {
    fn clone(&self) -> Self {
        Self {
            spaces: self.spaces.clone(),
            ..*self
        }
    }
}

impl<'p, P: Platform> Iterator for Cds<'_, 'p, P> {
    type Item = BoundCd<'p, P>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(key) = self.binding else {
                let space = self.spaces.next()?;
                let books = self.iommu.books();
                self.binding = books.spaces.get(space.key())?.bindings.first();
                continue;
            };
            let books = self.iommu.books();
            let binding = books.bindings.get(key)?;
            self.binding = Linked::<OfSpace>::next(binding);
            let device = books.devices.get(binding.device.key());
            let space = books.spaces.get(binding.space.key());
            if binding.state == BindingState::Bound
                && let (Some(device), Some(space)) = (device, space)
                && device.smmu == Some(self.smmu)
                && let Some(contexts) = &device.contexts
            {
                let context = match binding.by {
                    By::Pasid => Context::Substream(space.pasid.substream()),
                    By::WholeStream => Context::WholeStream,
                };
                return Some(BoundCd {
                    contexts: contexts.clone(),
                    context,
                    has_ats: device.ats_now != Ats::Off,
                    device: binding.device,
                    binding: key,
                });
            }
        }
    }
}

/// Spaces, one after the other.
pub(super) struct SpaceWalk<'a, 'p, P: Platform> {
    iommu: &'a Iommu<'p, P>,
    next: Option<Key<Space>>,
    is_one: bool,
}

impl<P: Platform> Clone for SpaceWalk<'_, '_, P> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<P: Platform> Iterator for SpaceWalk<'_, '_, P> {
    type Item = SpaceId;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.next?;
        self.next = if self.is_one {
            None
        } else {
            let books = self.iommu.books();
            Linked::<OfGuest>::next(books.spaces.get(key)?)
        };
        Some(SpaceId::of(key))
    }
}

/// A guest's devices, one after the other.
pub(super) struct DeviceWalk<'a, 'p, P: Platform> {
    iommu: &'a Iommu<'p, P>,
    next: Option<Key<Device<'p, P>>>,
}

impl<P: Platform> Clone for DeviceWalk<'_, '_, P> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<P: Platform> Iterator for DeviceWalk<'_, '_, P> {
    type Item = DeviceId;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.next?;
        let books = self.iommu.books();
        self.next = Linked::<OfGuest>::next(books.devices.get(key)?);
        Some(DeviceId::of(key))
    }
}

impl<'p, P: Platform> Iommu<'p, P> {
    pub(super) fn spaces(&self, spaces: Spaces) -> SpaceWalk<'_, 'p, P> {
        let (next, is_one) = match spaces {
            Spaces::One(space) => (Some(space.key()), true),
            Spaces::AllOf(guest) => {
                let books = self.books();
                let guest = books.guests.get(guest.key());
                (guest.and_then(|guest| guest.spaces.first()), false)
            }
        };
        SpaceWalk {
            iommu: self,
            next,
            is_one,
        }
    }

    pub(super) fn cds(&self, spaces: Spaces, smmu: SmmuId) -> Cds<'_, 'p, P> {
        Cds {
            iommu: self,
            smmu,
            spaces: self.spaces(spaces),
            binding: None,
        }
    }

    pub(super) fn devices_of_guest(&self, guest: GuestId) -> DeviceWalk<'_, 'p, P> {
        let books = self.books();
        let guest = books.guests.get(guest.key());
        DeviceWalk {
            iommu: self,
            next: guest.and_then(|guest| guest.devices.first()),
        }
    }
}
