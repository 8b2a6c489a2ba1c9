//! A master opens a queue, forks a daemon and exits; the daemon keeps the inherited handle.

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "daemon-fork",
    "a master opens a queue, forks a daemon, exits; workers come and go beside the inherited handle",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let master = world.process(&guest);
    // After the fork the daemon has it too; it is one handle, and it says nothing of a space.
    let inherited = world.bind(&master, &device);
    world.release(&master);
    world.is_parked(&master);

    let worker = world.process(&guest);
    let own = world.bind(&worker, &device);
    for _ in 0..3 {
        let another = world.process(&guest);
        assert_ne!(
            another.pasid, master.pasid,
            "a number that is reserved is not given out"
        );
        assert_ne!(another.pasid, worker.pasid);
        let handle = world.bind(&another, &device);
        world.reaches(&device, &another);
        world.reaches(&device, &worker);
        world.blocked(&device, &master);
        world.release(&another);
        world.blocked(&device, &another);
        world.close(&guest, handle);
        world.becomes_free(&another);
    }

    world.is_parked(&master);
    world.close(&guest, inherited);
    world.becomes_free(&master);
    world.reaches(&device, &worker);
    world.close(&guest, own);
    world.blocked(&device, &worker);
}
