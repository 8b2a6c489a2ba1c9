//! The handle is kept alive by a mapping inside the very space that it binds.

use portcullis::space::{Handle, SpaceError};

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "self-mapped-handle",
    "a queue is kept open by a mapping of it in the very space that it binds",
    play,
);

/// A kernel's mapping of a device's queue: while it stands, the file is open.
struct Mapping(Handle);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    // The process closes its file, and its mapping of the queue is all that keeps the handle.
    let mapping = Mapping(world.bind(&process, &device));
    world.reaches(&device, &process);

    // The space goes before its mappings: it does not wait for the handle that one of them holds.
    world.release(&process);
    world.blocked(&device, &process);
    world.is_parked(&process);
    assert_eq!(
        world.try_release(&process),
        Err(SpaceError::AlreadyReleased)
    );

    // Only then the mapping is torn down.
    let Mapping(handle) = mapping;
    world.close(&guest, handle);
    world.becomes_free(&process);
    assert_eq!(world.has(guest.id), [0, 0, 0]);
}
