//! A guest marks stage-1 entries global, in the dying space and in a living one.

use portcullis::spec::stage1::Stage1Descriptor;

use crate::{Ends, HOLE, Story, World};

pub(super) const STORY: Story = Story::new(
    "global-entries",
    "a guest marks entries global, in a space that dies and in one that lives",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let (dying, living) = (world.process(&guest), world.process(&guest));
    // The dying one has its page for everybody; the living one another page, elsewhere, too.
    world.remap_as(&dying, dying.page, Stage1Descriptor::global);
    world.map(&living, HOLE, living.spare, Stage1Descriptor::global);
    world.remap(&living, None);
    let handle = world.bind(&dying, &device);
    let other = world.bind(&living, &device);
    world.reaches(&device, &dying);
    let at_spare = Ends::Landed(living.spare);
    assert_eq!(world.shoot(&device, Some(living.pasid), HOLE), at_spare);

    world.release(&dying);
    // Nobody translates by the dead one's entries, not the living one either.
    world.blocked(&device, &dying);
    let ends = world.fire(&device, &living);
    assert!(!matches!(ends, Ends::Landed(_)), "{ends:?}");
    world.answer_all(&guest);
    // The living one's global entries do not serve the parked number.
    assert_eq!(world.shoot(&device, Some(living.pasid), HOLE), at_spare);
    assert_eq!(world.shoot(&device, Some(dying.pasid), HOLE), Ends::Blocked);

    world.close(&guest, handle);
    world.becomes_free(&dying);
    assert_eq!(world.shoot(&device, Some(living.pasid), HOLE), at_spare);
    world.close(&guest, other);
    assert_eq!(
        world.shoot(&device, Some(living.pasid), HOLE),
        Ends::Blocked
    );
}
