//! What is done, once.

use std::cell::Cell;

use portcullis::addr::{Extent, Iova, Ipa};
use portcullis::hw::{CpuTlb, CpuWalk, DeviceTag, Frames, View};
use portcullis::id::StreamId;
use portcullis::space::stage2::PageSizes;
use portcullis::space::{DeviceDescription, ResetPolicy, SmmuId, SpaceError};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{Attributes, Permissions};
use portcullis_life::operation::Op;
use portcullis_life::reference::Reference;
use portcullis_life::world::{World, guest_config};

use super::extra::Extra;
use super::{DATA, DEVICE, EMPTY, GUEST, SMMU};

/// More than the first page of records holds, and fewer than two do.
const GROUPS: usize = 60;

/// CPUs that keep nothing.
struct NoCpus;

impl CpuTlb for NoCpus {
    fn forget(&self, _: &CpuWalk, _: Option<&[Extent<Ipa>]>, _: u8) {}
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    /// An operation that the reference knows.
    Do(Op),
    /// A guest is made, and goes again.
    MakeGuest,
    /// A group is made, and gets a device, which is removed again.
    AddDevice,
    /// The device goes for ever.
    RemoveDevice,
    Map,
    Unmap,
    Protect,
    Tidy,
    /// A guest with CPUs is made, and goes again.
    MakeGuestWithCpus,
    /// A guest of the host's is taken in, and goes again.
    AdoptGuest,
    /// As many groups as need a page more.
    AddGroups,
    MapFor,
    InvalidateList,
    /// A release is begun, and finished.
    TwoPhases,
    /// A release is begun, and dropped.
    DropRelease,
    /// The group of two is attached.
    AttachGroup,
    DetachGroup,
    /// The host takes a page away, and has that confirmed.
    HostChange,
    /// The device is fenced.
    Restore,
}

/// The page that is mapped, or unmapped, by hand.
pub(super) struct Hands {
    pub(super) page: Frames,
    pub(super) reference: Reference,
    pub(super) is_removed: Cell<bool>,
    pub(super) extra: Extra,
}

impl Act {
    /// The operations of [`Iommu`](portcullis::space::Iommu) that it is.
    pub(super) const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Do(Op::Acquire { .. }) => &["acquire"],
            Self::Do(Op::Attach { .. }) => &["attach"],
            Self::Do(Op::CreateSpace { .. }) => &["create_space"],
            Self::Do(Op::Bind { .. }) => &["bind"],
            Self::Do(Op::Unbind { .. }) => &["unbind"],
            Self::Do(Op::Release { .. }) => &["release"],
            Self::Do(Op::ReleaseAll { .. }) => &["release_all"],
            Self::Do(Op::Invalidate { .. }) => &["invalidate"],
            Self::Do(Op::Detach { .. }) => &["detach"],
            Self::Do(Op::Reset { .. }) => &["reset_device"],
            Self::Do(Op::DestroyGuest { .. }) => &["destroy_guest"],
            Self::Do(Op::Recover { .. }) => &["recover"],
            Self::Do(_) => &[],
            Self::MakeGuest => &["create_guest"],
            Self::AddDevice => &["add_device"],
            Self::RemoveDevice => &["remove_device"],
            Self::Map => &["map"],
            Self::Unmap => &["unmap"],
            Self::Protect => &["protect"],
            Self::Tidy => &["tidy"],
            Self::MakeGuestWithCpus => &["create_guest_with_cpus"],
            Self::AdoptGuest => &["adopt_guest"],
            Self::AddGroups => &["add_group"],
            Self::MapFor => &["map_for"],
            Self::InvalidateList => &["invalidate_list"],
            Self::TwoPhases | Self::DropRelease => &["begin_release"],
            Self::AttachGroup => &["attach_group"],
            Self::DetachGroup => &["detach_group"],
            Self::HostChange => &["host_unmapped", "confirm_host_change"],
            Self::Restore => &["restore"],
        }
    }

    pub(super) fn go(self, world: &mut World<'_>, hands: &Hands) -> Result<(), SpaceError> {
        let guest = world.guest(GUEST);
        let iommu = &world.iommu;
        let (at, bytes) = (hands.page.base(), hands.page.size_bytes());
        match self {
            Self::Do(op) => world.apply(op, &hands.reference),
            Self::MakeGuest => {
                let made = iommu.create_guest(&guest_config())?;
                iommu.destroy_guest(made)
            }
            Self::AddDevice => {
                let group = iommu.add_group()?;
                let streams = [StreamId::new(1), StreamId::new(2)];
                let description = description(&streams);
                let device = iommu.add_device(group, &description)?;
                iommu.remove_device(device)
            }
            Self::RemoveDevice => {
                let removed = iommu.remove_device(world.device(DEVICE));
                hands.is_removed.set(removed.is_ok());
                removed
            }
            Self::Map => {
                let sizes = PageSizes::PagesOnly;
                iommu.map(guest, EMPTY, at, bytes, Attributes::MEMORY, sizes)
            }
            Self::Unmap => iommu.unmap(guest, DATA, 0x1000),
            Self::Protect => iommu.protect(guest, DATA, 0x1000, Permissions::READ_ONLY),
            Self::Tidy => iommu.tidy(guest),
            Self::MakeGuestWithCpus => {
                let made = iommu.create_guest_with_cpus(&guest_config(), &NoCpus)?;
                iommu.destroy_guest(made)
            }
            Self::AdoptGuest => {
                let tables = hands.extra.tables.as_ref().expect("they are made");
                let (made, _wanted) = iommu.adopt_guest(&tables.config())?;
                iommu.destroy_guest(made)
            }
            Self::AddGroups => (0..GROUPS).try_for_each(|_| iommu.add_group().map(|_| ())),
            Self::MapFor => {
                let (sizes, view) = (PageSizes::PagesOnly, View::Both);
                iommu.map_for(guest, view, EMPTY, at, bytes, Attributes::MEMORY, sizes)
            }
            Self::InvalidateList => {
                let ranges =
                    [0x1234_5000, 0x2000_0000, 0x3000_0000].map(|va| (Iova::new(va), 0x1000));
                iommu.invalidate_list(guest, world.space(0), &ranges)
            }
            Self::TwoPhases => iommu.begin_release(guest, world.space(0))?.finish(),
            Self::DropRelease => {
                drop(iommu.begin_release(guest, world.space(0))?);
                Ok(())
            }
            Self::AttachGroup => iommu.attach_group(guest, hands.extra.group(), Untagged::Stage2),
            Self::DetachGroup => iommu.detach_group(guest, hands.extra.group()),
            Self::HostChange => hands.extra.take_away(iommu),
            Self::Restore => iommu.restore(world.device(DEVICE)),
        }
    }
}

/// A device of these streams.
pub(super) fn description(streams: &[StreamId]) -> DeviceDescription<'_> {
    DeviceDescription {
        tag: DeviceTag(DEVICE as u64),
        smmu: SmmuId::new(SMMU as u8),
        streams,
        pasid_bits: 16,
        can_stall: false,
        ats: Ats::Off,
        reset: ResetPolicy::Needed,
    }
}
