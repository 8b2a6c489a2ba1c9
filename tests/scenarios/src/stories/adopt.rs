//! A child takes the inherited queue over: unbinds the parent's space, binds its own.

use crate::{Process, Story, World};

pub(super) const STORY: Story = Story::new(
    "adopt",
    "a child takes the inherited queue over, while its parent lives and after it died",
    play,
);

fn play(world: &World<'_>) {
    for parent_dies_first in [false, true] {
        let guest = world.guest();
        let device = world.device(&guest);
        let parent = world.process(&guest);
        let child = world.process(&guest);
        let inherited = world.bind(&parent, &device);
        let not_both = |one: &Process, other: &Process| {
            world.reaches(&device, one);
            world.blocked(&device, other);
        };
        not_both(&parent, &child);
        if parent_dies_first {
            world.release(&parent);
            world.blocked(&device, &parent);
        }
        // The child lets go of what it inherited, and binds what is its own.
        world.close(&guest, inherited);
        world.blocked(&device, &parent);
        world.blocked(&device, &child);
        let own = world.bind(&child, &device);
        not_both(&child, &parent);
        if parent_dies_first {
            world.becomes_free(&parent);
        } else {
            // The parent lives on with its number, and may open a queue of its own.
            let again = world.bind(&parent, &device);
            world.reaches(&device, &parent);
            world.close(&guest, again);
            world.release(&parent);
            world.becomes_free(&parent);
        }
        not_both(&child, &parent);
        world.close(&guest, own);
        world.blocked(&device, &child);
    }
}
