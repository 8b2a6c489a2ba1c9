//! Unbind arrives after the space was released.

use portcullis::space::SpaceError;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "unbind-after-release",
    "a driver unbinds after the space was released",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    let first = world.bind(&process, &device);
    let second = world.bind(&process, &device);
    assert_eq!(world.has(guest.id), [2, 1, 1], "handles, bindings, numbers");
    world.release(&process);
    assert_eq!(
        world.has(guest.id),
        [2, 1, 1],
        "a release drops nobody's handle"
    );

    // Not the last: nothing is to be done.
    let before = world.syncs();
    world.close(&guest, first);
    assert_eq!(world.syncs(), before);
    world.is_parked(&process);

    // The last: the CD is retracted, once. What devices cached went with the release.
    world.close(&guest, second);
    assert_eq!(world.syncs(), before + 1);
    assert_eq!(world.has(guest.id), [0, 0, 1]);
    for handle in [first, second] {
        assert_eq!(
            world.try_close(&guest, handle),
            Err(SpaceError::NoSuchHandle)
        );
    }
    assert_eq!(world.syncs(), before + 1);
    world.blocked(&device, &process);

    world.becomes_free(&process);
    assert_eq!(world.has(guest.id), [0, 0, 0]);
    let heirs = [world.process(&guest), world.process(&guest)];
    let count = heirs.iter().filter(|it| it.pasid == process.pasid).count();
    assert_eq!(count, 1, "the number comes round once");
}
