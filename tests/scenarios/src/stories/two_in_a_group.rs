//! Two functions that cannot be isolated from each other, one of them found late.

use portcullis::hw::DeviceTag;
use portcullis::id::StreamId;
use portcullis::space::{DeviceDescription, GroupState, Owner, ResetPolicy, SpaceError};
use portcullis::spec::ste::{Ats, Untagged};

use crate::world::smmu_id;
use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "two-in-a-group",
    "two functions that reach each other; one of them is found late",
    play,
);

fn play(world: &World<'_>) {
    let (owner, stranger) = (world.guest(), world.guest());
    let first = world.spare_device(world.usual());
    let token = world.acquire(&first, &owner);
    world.attach(&first, &owner);

    // The late one joins its group's owner: nobody else can have it.
    let late = world.device_in(first.group, world.usual());
    let acquired = world.iommu.acquire(late.group, Owner::Guest(stranger.id));
    let refused = acquired.map(|_| ()).expect_err("it has an owner");
    assert_eq!(refused, SpaceError::Owned);
    let attached = world.iommu.attach(stranger.id, late.id, Untagged::Abort);
    assert_eq!(attached, Err(SpaceError::NotOwner));
    world.attach(&late, &owner);
    let process = world.process(&owner);
    let handles = [world.bind(&process, &first), world.bind(&process, &late)];
    for device in [&first, &late] {
        world.reaches(device, &process);
    }

    // One that claims a stream of another's is kept off.
    let impostor = DeviceDescription {
        tag: DeviceTag(99),
        smmu: Some(smmu_id(0)),
        streams: &[StreamId::new(first.stream)],
        pasid_bits: 0,
        can_stall: false,
        ats: Ats::Off,
        reset: ResetPolicy::Needed,
    };
    let elsewhere = world.iommu.add_group().expect("there is room");
    for group in [elsewhere, first.group] {
        let added = world.iommu.add_device(group, &impostor);
        let stream = StreamId::new(first.stream);
        assert_eq!(added, Err(SpaceError::StreamTaken { stream }));
    }

    // The group goes as one: not while either is attached.
    world.close(&owner, handles[0]);
    world.detach(&first, &owner);
    let kept = world
        .iommu
        .disown(token)
        .expect_err("the late one is attached");
    assert_eq!(kept.error, SpaceError::GroupAttached { device: late.id });
    world.reaches(&late, &process);
    world.close(&owner, handles[1]);
    world.detach(&late, &owner);
    world.iommu.disown(kept.token).expect("nothing is attached");
    assert_eq!(
        world.iommu.group_state(first.group),
        Ok(GroupState::Unowned)
    );

    let _token = world.acquire(&first, &stranger);
    for device in [&first, &late] {
        world.attach(device, &stranger);
        let theirs = world.process(&stranger);
        world.bind(&theirs, device);
        world.reaches(device, &theirs);
    }
}
