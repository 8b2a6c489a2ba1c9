//! A device asks for ownership before its SMMU is known; a second asks too.

use portcullis::hw::DeviceTag;
use portcullis::id::StreamId;
use portcullis::space::{
    Acquired, Claim, DeviceDescription, GroupId, GroupState, Owner, ResetPolicy, Settled,
    SpaceError,
};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis_embedder::Hypervisor;

use crate::world::smmu_id;
use crate::{Guest, Story, Wanted, World};

pub(super) const STORY: Story = Story::new(
    "owner-before-probe",
    "ownership is asked for before the SMMU is known; it comes, or never comes",
    play,
)
.with_late_smmu();

fn claim<'a, 'h>(world: &'a World<'h>, group: GroupId, guest: &Guest) -> Claim<'a, 'h, Hypervisor> {
    match world.iommu.acquire(group, Owner::Guest(guest.id)) {
        Ok(Acquired::Deferred(claim)) => claim,
        Ok(Acquired::Owned(_)) => panic!("nothing is silently counted as success"),
        Err(error) => panic!("it is the first: {error}"),
    }
}

fn play(world: &World<'_>) {
    let (first, second) = (world.guest(), world.guest());
    let device = world.spare_device(Wanted {
        smmu: world.late_smmu(),
        ..world.usual()
    });
    let state = || world.iommu.group_state(device.group).expect("it is there");
    let refused = |guest: &Guest| {
        let acquired = world.iommu.acquire(device.group, Owner::Guest(guest.id));
        acquired.map(|_| ()).expect_err("somebody else was first")
    };

    // The first wins, and has nothing yet.
    let withdrawn = claim(world, device.group, &first);
    assert_eq!(state(), GroupState::Deferred(Owner::Guest(first.id)));
    assert_eq!(refused(&second), SpaceError::Owned);
    assert_eq!(refused(&first), SpaceError::Owned, "once more is not twice");
    let attached = world.iommu.attach(first.id, device.id, Untagged::Abort);
    assert_eq!(attached, Err(SpaceError::NotOwner));
    // Withdrawn, it is nobody's; and no count went below nothing.
    drop(withdrawn);
    assert_eq!(state(), GroupState::Unowned);
    let claimed = claim(world, device.group, &second);
    let Ok(Settled::Waiting(claimed)) = claimed.settle() else {
        panic!("its SMMU is not there");
    };

    // Beside it, one whose SMMU never comes.
    let lonely = world.iommu.add_group().expect("there is room");
    let never = smmu_id(9);
    let description = DeviceDescription {
        tag: DeviceTag(99),
        smmu: Some(never),
        streams: &[StreamId::new(0x30)],
        pasid_bits: 8,
        can_stall: false,
        ats: Ats::Off,
        reset: ResetPolicy::Needed,
    };
    world
        .iommu
        .add_device(lonely, &description)
        .expect("it may come");
    let in_vain = claim(world, lonely, &first);

    world.find_late_smmu();
    let Ok(Settled::Owned(token)) = claimed.settle() else {
        panic!("its SMMU came");
    };
    assert_eq!(token.owner(), Owner::Guest(second.id));
    assert_eq!(refused(&first), SpaceError::Owned);
    world.attach(&device, &second);
    let process = world.process(&second);
    world.bind(&process, &device);
    world.reaches(&device, &process);

    world.iommu.end_discovery();
    let came = in_vain.settle().map(|_| ());
    assert_eq!(came, Err(SpaceError::NeverCame { smmu: never }));
    assert_eq!(world.iommu.group_state(lonely), Ok(GroupState::Unowned));
    let again = world.iommu.acquire(lonely, Owner::Guest(first.id));
    let again = again.map(|_| ()).expect_err("it never came");
    assert_eq!(again, SpaceError::NeverCame { smmu: never });
    let late = world.iommu.add_device(
        lonely,
        &DeviceDescription {
            streams: &[StreamId::new(0x31)],
            ..description
        },
    );
    assert_eq!(late, Err(SpaceError::NeverCame { smmu: never }));
    world.reaches(&device, &process);

    // What was acquired is given back once, by its token.
    let attached = world.iommu.disown(token).expect_err("it is attached");
    assert_eq!(
        attached.error,
        SpaceError::GroupAttached { device: device.id }
    );
    world.kill(&second);
    let stale = world
        .iommu
        .disown(attached.token)
        .expect_err("its owner is gone");
    assert_eq!(stale.error, SpaceError::StaleOwnership);
    assert_eq!(state(), GroupState::Unowned);
}
