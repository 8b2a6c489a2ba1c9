//! A space loses its last binding, and is bound again later.

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "number-for-life",
    "a space loses its last binding, and is bound again later",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    let number = world
        .iommu
        .pasid_of(guest.id, process.space)
        .expect("it lives");
    for _ in 0..3 {
        let handle = world.bind(&process, &device);
        world.reaches(&device, &process);
        world.close(&guest, handle);
        world.blocked(&device, &process);
        // Others come and go; nobody is given the number of a space that lives.
        world.pass(50_000);
        let other = world.process(&guest);
        assert_ne!(other.pasid, process.pasid);
        world.release(&other);
        let now = world
            .iommu
            .pasid_of(guest.id, process.space)
            .expect("it lives");
        assert_eq!(now, number, "the number, and how many had it before");
    }
    world.bind(&process, &device);
    world.reaches(&device, &process);
}
