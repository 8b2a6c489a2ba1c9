//! The guest unmaps and remaps pages of a living space while DMA runs, and calls invalidate.

use portcullis::addr::Iova;

use crate::{Ends, HOLE, Story, Task, VA, World};

pub(super) const STORY: Story = Story::new(
    "stage1-unmap-under-dma",
    "a guest unmaps and remaps pages of a living space while a device uses it",
    play,
);

/// What would take more than the range: `NH_ALL`, `NH_ASID`, `S12_VMALL`, `NSNH_ALL`.
const FLUSHES: [u8; 4] = [0x10, 0x11, 0x28, 0x30];

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let (process, sibling) = (world.process(&guest), world.process(&guest));
    world.map(&process, HOLE, process.spare, |descriptor| descriptor);
    world.bind(&process, &device);
    world.bind(&sibling, &device);
    let at = |address| world.shoot(&device, Some(process.pasid), address);
    assert_eq!(at(VA), Ends::Landed(process.page));
    assert_eq!(at(HOLE), Ends::Landed(process.spare));
    world.reaches(&device, &sibling);
    let sent = || FLUSHES.map(|opcode| world.stage.sent(opcode));
    let before = sent();

    let invalidate = || {
        world
            .iommu
            .invalidate(guest.id, process.space, Iova::new(VA), 0x1000)
            .expect("confirmed");
    };
    for _ in 0..3 {
        // Meanwhile the device goes on, there and elsewhere.
        let unmap: Task<'_> = Box::new(|| {
            world.remap(&process, None);
            invalidate();
        });
        let fire: Task<'_> = Box::new(|| {
            for _ in 0..4 {
                assert_eq!(at(HOLE), Ends::Landed(process.spare), "it stays mapped");
                world.reaches(&device, &sibling);
            }
        });
        world.race(vec![unmap, fire]);
        let ends = at(VA);
        assert!(!matches!(ends, Ends::Landed(_)), "{ends:?}");
        world.answer_all(&guest);

        // It comes back, first read-only to nobody: another page at the same address.
        world.remap(&process, Some(process.page));
        invalidate();
        assert_eq!(at(VA), Ends::Landed(process.page));
        assert_eq!(at(HOLE), Ends::Landed(process.spare));
    }
    assert_eq!(sent(), before, "other ranges keep their entries");
}
