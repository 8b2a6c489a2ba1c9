//! A device goes from the host to a guest, to another guest, and back, also when a step fails.

use portcullis::space::{Acquired, GroupState, Owner, SpaceError};

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "hand-over",
    "a device goes from the host to a guest, to another, and back; a step fails half-way",
    play,
);

fn play(world: &World<'_>) {
    let (one, two) = (world.guest(), world.guest());
    let device = world.spare_device(world.usual());
    let state = || world.iommu.group_state(device.group).expect("it is there");
    let host = || match world.iommu.acquire(device.group, Owner::Host) {
        Ok(Acquired::Owned(token)) => token,
        Ok(Acquired::Deferred(_)) => panic!("its SMMU is there"),
        Err(error) => panic!("it is free: {error}"),
    };
    let token = host();
    assert_eq!(state(), GroupState::Owned(Owner::Host));
    world.iommu.disown(token).expect("it is the host's");

    // The first guest uses it, under a number that the second will have too.
    let token = world.acquire(&device, &one);
    world.attach(&device, &one);
    let (former, heir) = (world.process(&one), world.process(&two));
    assert_eq!(former.pasid, heir.pasid);
    let handle = world.bind(&former, &device);
    world.reaches(&device, &former);

    // It cannot be given up while it is used; the token comes back.
    let kept = world.iommu.disown(token).expect_err("it is attached");
    assert_eq!(kept.error, SpaceError::GroupAttached { device: device.id });
    let refused = world.iommu.detach(one.id, device.id);
    assert_eq!(refused, Err(SpaceError::Bound));
    world.reaches(&device, &former);
    world.close(&one, handle);
    world.detach(&device, &one);
    world.blocked(&device, &former);
    world.iommu.disown(kept.token).expect("nothing is attached");

    // Half-way to the second guest the reset fails: it is nobody's, and cut off.
    world.stage.fail_resets(true);
    let acquired = world.iommu.acquire(device.group, Owner::Guest(two.id));
    let failed = acquired.map(|_| ()).expect_err("it is not reset");
    assert!(matches!(failed, SpaceError::NotReset { .. }), "{failed}");
    assert_eq!(state(), GroupState::Unowned);
    assert!(world.is_fenced(&device));
    let acquired = world.iommu.acquire(device.group, Owner::Guest(two.id));
    let refused = acquired.map(|_| ()).expect_err("it is fenced");
    assert_eq!(refused, SpaceError::Fenced);
    world.blocked(&device, &heir);
    world.stage.fail_resets(false);
    world.iommu.restore(device.id).expect("it comes back");

    // The second guest has it, and nothing of the first is reached by it.
    let token = world.acquire(&device, &two);
    world.blocked(&device, &heir);
    world.attach(&device, &two);
    world.blocked(&device, &heir);
    let handle = world.bind(&heir, &device);
    world.reaches(&device, &heir);
    world.kill(&one);
    world.reaches(&device, &heir);

    // And back to the host.
    world.close(&two, handle);
    world.detach(&device, &two);
    world.iommu.disown(token).expect("nothing is attached");
    let token = host();
    world.blocked(&device, &heir);
    world.iommu.disown(token).expect("it is the host's");
    assert_eq!(state(), GroupState::Unowned);
}
