//! One space on devices of one SMMU and of several.

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "one-space-many-devices",
    "one space on several devices, some of which it has left before its release",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let last = world.configuration.smmus - 1;
    let devices = [0, 0, last, last].map(|smmu| world.device_on(&guest, smmu));
    let process = world.process(&guest);
    let sibling = world.process(&guest);
    let handles = devices
        .each_ref()
        .map(|device| world.bind(&process, device));
    world.bind(&sibling, &devices[0]);
    for device in &devices {
        world.reaches(device, &process);
    }

    // One device is let go, and on the last SMMU both: the others are not disturbed.
    world.close(&guest, handles[0]);
    world.blocked(&devices[0], &process);
    world.reaches(&devices[0], &sibling);
    world.reaches(&devices[1], &process);
    for at in [2, 3] {
        world.close(&guest, handles[at]);
        world.blocked(&devices[at], &process);
    }
    world.reaches(&devices[1], &process);

    // Its tag is flushed also where it was bound before and no longer is: the model is told that
    // nothing of it is cached anywhere now.
    let before = world.syncs();
    world.release(&process);
    let has_ats = world.configuration.ats != portcullis::spec::ste::Ats::Off;
    // On the last of two there is nothing left but the tag.
    let (on_first, on_last) = (if has_ats { 3 } else { 2 }, last as u64);
    assert_eq!(
        world.syncs() - before,
        on_first + on_last,
        "at once on each SMMU"
    );
    for device in &devices {
        world.blocked(device, &process);
    }
    world.reaches(&devices[0], &sibling);
    world.close(&guest, handles[1]);
    world.becomes_free(&process);
}
