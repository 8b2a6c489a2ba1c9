//! The device is reset, or its reset fails, while spaces on it are parked.

use portcullis::space::SpaceError;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "device-resets-while-parked",
    "a device is reset while spaces on it are parked; later its reset fails",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let other = world.device(&guest);
    let (parked, live) = (world.process(&guest), world.process(&guest));
    let handles = [&parked, &live].map(|process| world.bind(process, &device));
    let elsewhere = world.bind(&live, &other);
    world.release(&parked);
    world.reaches(&device, &live);

    // A reset changes nothing of what anybody holds.
    world
        .iommu
        .reset_device(guest.id, device.id)
        .expect("it is reset");
    assert_eq!(world.has(guest.id), [3, 3, 2]);
    world.is_parked(&parked);
    world.blocked(&device, &parked);
    world.reaches(&device, &live);

    // One that fails fences the device: its bindings have ended, its handles stay.
    world.stage.fail_resets(true);
    let failed = world.iommu.reset_device(guest.id, device.id);
    assert!(
        matches!(failed, Err(SpaceError::NotReset { .. })),
        "{failed:?}"
    );
    assert!(world.is_fenced(&device));
    for process in [&parked, &live] {
        world.blocked(&device, process);
    }
    world.reaches(&other, &live);
    world.is_parked(&parked);
    assert_eq!(world.has(guest.id)[0], 3);
    assert_eq!(world.try_bind(&live, &device), Err(SpaceError::Fenced));

    // Handles are dropped in the meantime, and numbers go their way.
    world.close(&guest, handles[0]);
    world.becomes_free(&parked);
    world.close(&guest, handles[1]);
    assert_eq!(world.has(guest.id), [1, 1, 1]);

    // It comes back, and is attached and bound anew.
    world.stage.fail_resets(false);
    world.iommu.restore(device.id).expect("it comes back");
    assert!(!world.is_fenced(&device));
    world.blocked(&device, &live);
    world.attach(&device, &guest);
    world.bind(&live, &device);
    world.reaches(&device, &live);
    world.close(&guest, elsewhere);
    world.blocked(&other, &live);
    world.reaches(&device, &live);
}
