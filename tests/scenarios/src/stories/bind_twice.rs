//! The same space and device are bound twice.

use portcullis::space::SpaceError;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "bind-twice",
    "the same space and device are bound twice, and a handle is dropped twice",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    let first = world.bind(&process, &device);
    let before = world.syncs();
    let second = world.bind(&process, &device);
    assert_eq!(world.syncs(), before, "it counts, and sends nothing");
    assert_ne!(first, second);
    assert_eq!(world.has(guest.id), [2, 1, 1], "handles, bindings, numbers");

    world.close(&guest, first);
    assert_eq!(world.syncs(), before);
    world.reaches(&device, &process);
    // Dropped twice: it does not take the other's count.
    assert_eq!(
        world.try_close(&guest, first),
        Err(SpaceError::NoSuchHandle)
    );
    world.reaches(&device, &process);
    assert_eq!(world.has(guest.id), [1, 1, 1]);

    world.close(&guest, second);
    assert_ne!(world.syncs(), before);
    world.blocked(&device, &process);
    assert_eq!(world.has(guest.id), [0, 0, 1], "the space lives");
}
