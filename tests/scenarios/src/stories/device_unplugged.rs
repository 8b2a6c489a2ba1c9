//! A device goes away with live and parked bindings.

use portcullis::space::SpaceError;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "device-unplugged",
    "a device is pulled out with live and parked bindings, and never answers again",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let (device, other) = (world.device(&guest), world.device(&guest));
    let (parked, live) = (world.process(&guest), world.process(&guest));
    let handles = [&parked, &live].map(|process| world.bind(process, &device));
    world.bind(&live, &other);
    world.release(&parked);
    world.reaches(&device, &live);

    world.unplug(&device);
    world
        .iommu
        .remove_device(device.id)
        .expect("nothing waits for the device");

    // All of its bindings have ended, wherever they stood; handles are still there to be dropped.
    for process in [&parked, &live] {
        world.blocked(&device, process);
        let bound = world.try_bind(process, &device);
        assert!(bound.is_err(), "{bound:?}");
    }
    world.reaches(&other, &live);
    world.is_parked(&parked);
    assert_eq!(world.has(guest.id)[0], 3);
    world.close(&guest, handles[0]);
    world.becomes_free(&parked);
    world.close(&guest, handles[1]);
    assert_eq!(world.has(guest.id), [1, 1, 1]);
    assert_eq!(
        world.try_close(&guest, handles[1]),
        Err(SpaceError::NoSuchHandle)
    );
    let gone = world.iommu.device_state(device.id);
    assert_eq!(
        gone,
        Err(SpaceError::NoSuchDevice),
        "its record went with the last handle"
    );
    world.reaches(&other, &live);
    world.release(&live);
    world.blocked(&other, &live);
}
