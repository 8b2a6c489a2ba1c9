//! Several holders let go of a released space in every order.

use portcullis::space::SpaceError;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "park-in-any-order",
    "several holders let go of a released space, in every order",
    play,
);

/// All orders of three holders.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

fn play(world: &World<'_>) {
    let guest = world.guest();
    let last_smmu = world.configuration.smmus - 1;
    let devices = [world.device(&guest), world.device_on(&guest, last_smmu)];
    for order in ORDERS {
        let process = world.process(&guest);
        // Two holders of one device, one of the other.
        let handles = [0, 0, 1].map(|device: usize| world.bind(&process, &devices[device]));
        world.release(&process);
        for (gone, holder) in order.into_iter().enumerate() {
            world.is_parked(&process);
            assert_eq!(
                world.try_release(&process),
                Err(SpaceError::AlreadyReleased)
            );
            assert_eq!(world.has(guest.id)[0], 3 - gone as u32);
            for device in &devices {
                world.blocked(device, &process);
            }
            world.close(&guest, handles[holder]);
        }
        world.becomes_free(&process);
        assert_eq!(world.has(guest.id), [0, 0, 0], "recycled once, at the last");
        assert_eq!(world.try_release(&process), Err(SpaceError::NoSuchSpace));
    }
}
