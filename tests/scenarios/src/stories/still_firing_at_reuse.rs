//! The last handle is dropped while the device still issues the number.

use portcullis::space::{SpaceError, SpaceState};

use crate::world::QUARANTINE_US;
use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "still-firing-at-reuse",
    "the last handle is dropped while the device still issues the number",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let former = world.process(&guest);
    let before = world
        .iommu
        .pasid_of(guest.id, former.space)
        .expect("it lives");
    let handle = world.bind(&former, &device);
    world.reaches(&device, &former);
    world.release(&former);
    world.close(&guest, handle);

    // The number drains, and is heard of again and again.
    for _ in 0..5 {
        world.blocked(&device, &former);
        world.pass(QUARANTINE_US / 2);
        assert_eq!(
            world.state(&former),
            Ok(SpaceState::Draining),
            "it was heard of"
        );
        let other = world.process(&guest);
        assert_ne!(other.pasid, former.pasid);
    }
    let told = world.faults(&guest);
    assert!(told.iter().any(|it| it.pasid == Some(before)), "{told:?}");

    // The device stops: after its silence the number is free.
    world.becomes_free(&former);
    world.faults(&guest);
    let heir = world.process(&guest);
    assert_eq!(heir.pasid, former.pasid);
    let now = world
        .iommu
        .pasid_of(guest.id, heir.space)
        .expect("it lives");
    assert_eq!(
        (now.pasid, now.generation),
        (before.pasid, before.generation + 1)
    );
    world.bind(&heir, &device);
    world.reaches(&device, &heir);
    assert!(world.faults(&guest).is_empty(), "the heir sees none of it");
    assert_eq!(world.state(&former), Err(SpaceError::NoSuchSpace));
}
