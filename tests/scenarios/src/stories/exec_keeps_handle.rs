//! A process replaces its address space (exec) and keeps the open handle.

use portcullis::space::SpaceError;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "exec-keeps-handle",
    "a process replaces its address space and keeps the open handle",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let before = world.process(&guest);
    let handle = world.bind(&before, &device);
    world.reaches(&device, &before);

    // exec: the old space goes, the new one comes, the file stays open.
    world.release(&before);
    let after = world.process(&guest);
    world.is_parked(&before);
    assert_ne!(after.pasid, before.pasid, "the handle reserves the number");
    world.blocked(&device, &before);
    world.blocked(&device, &after);

    // It reserves the number and nothing else: what was there cannot be bound again by it.
    assert_eq!(world.try_bind(&before, &device), Err(SpaceError::Released));
    let anew = world.bind(&after, &device);
    assert_ne!(anew, handle);
    world.reaches(&device, &after);
    world.blocked(&device, &before);

    world.close(&guest, handle);
    world.becomes_free(&before);
    world.reaches(&device, &after);
    world.close(&guest, anew);
    world.blocked(&device, &after);
}
