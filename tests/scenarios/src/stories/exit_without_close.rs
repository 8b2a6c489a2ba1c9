//! A process binds, starts DMA, and dies without closing anything; later another gets its number.

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "exit-without-close",
    "a process dies with its queue open; later another is given its number",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let dead = world.process(&guest);
    let handle = world.bind(&dead, &device);
    world.reaches(&device, &dead);

    // It dies. The device goes on, and its pages and tables are somebody's at once.
    world.release(&dead);
    world.blocked(&device, &dead);

    // While the handle is open nobody is given the number.
    let other = world.process(&guest);
    assert_ne!(other.pasid, dead.pasid);
    world.is_parked(&dead);
    world.blocked(&device, &dead);

    // Somebody closes the file at last; the device has stopped.
    world.close(&guest, handle);
    world.becomes_free(&dead);

    // The number comes round, and with it nothing of its former owner.
    let heir = world.process(&guest);
    assert_eq!(
        heir.pasid, dead.pasid,
        "oldest first, and before fresh ones"
    );
    world.blocked(&device, &heir);
    world.bind(&heir, &device);
    world.reaches(&device, &heir);
    world.blocked(&device, &other);
}
