//! A handle is given to an unrelated process whose sender dies.

use portcullis::space::SpaceError;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "handle-passed-on",
    "a handle is sent to an unrelated process, and its sender dies",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let sender = world.process(&guest);
    let receiver = world.process(&guest);
    let passed_on = world.bind(&sender, &device);
    let own = world.bind(&receiver, &device);
    world.reaches(&device, &sender);

    world.release(&sender);
    // The receiver drives the queue that it was sent: nothing of it translates.
    world.blocked(&device, &sender);
    world.reaches(&device, &receiver);
    assert_eq!(world.try_bind(&sender, &device), Err(SpaceError::Released));
    let invalidated = world.iommu.invalidate(
        guest.id,
        sender.space,
        portcullis::addr::Iova::new(crate::VA),
        0x1000,
    );
    assert_eq!(invalidated, Err(SpaceError::Released));
    world.is_parked(&sender);

    // Another guest that got hold of its name can do nothing with it.
    let stranger = world.guest();
    assert_eq!(
        world.try_close(&stranger, passed_on),
        Err(SpaceError::ForeignHandle)
    );
    world.is_parked(&sender);

    world.close(&guest, passed_on);
    world.becomes_free(&sender);
    world.reaches(&device, &receiver);
    world.close(&guest, own);
}
