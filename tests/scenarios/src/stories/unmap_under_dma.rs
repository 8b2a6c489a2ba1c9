//! Stage 2 loses and gains pages, blocks are split, while nested DMA runs in the same blocks.

use portcullis::addr::{Ipa, Pa};
use portcullis::space::stage2::PageSizes;
use portcullis::spec::vmsa::Attributes;

use crate::{Ends, Story, Task, VA, World};

pub(super) const STORY: Story = Story::new(
    "unmap-under-dma",
    "a guest loses and gains pages of a block in which its devices are at work",
    play,
)
.with_bytes(5 << 20);

/// Where the guest has a block of 2 MiB.
const BLOCK: u64 = 0x6000_0000;
/// Pages of it that its process maps, from [`VA`] on; the second one comes and goes.
const PAGES: [u64; 4] = [0x10, 0x11, 0x12, 0x1f0];
const GOES: usize = 1;

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    let base = world.block(&guest, Ipa::new(BLOCK));
    let page = |number: u64| Pa::new(base.as_u64() + (number << 12));
    let ipa = |number: u64| Ipa::new(BLOCK + (number << 12));
    for (at, number) in (0..).zip(PAGES) {
        world.map_ipa(&process, VA + (at << 12), ipa(number));
    }
    world.bind(&process, &device);
    let shoot = |at: usize| {
        let address = VA + ((at as u64) << 12);
        world.shoot(&device, Some(process.pasid), address)
    };
    for (at, number) in PAGES.into_iter().enumerate() {
        assert_eq!(shoot(at), Ends::Landed(page(number)));
    }

    for _ in 0..2 {
        let unmap: Task<'_> = Box::new(|| {
            world.say(|| "the host takes a page of the block away".into());
            world
                .iommu
                .unmap(guest.id, ipa(PAGES[GOES]), 0x1000)
                .expect("confirmed");
        });
        let fire: Task<'_> = Box::new(|| {
            for _ in 0..3 {
                for at in [0, 2, 3] {
                    assert_eq!(shoot(at), Ends::Landed(page(PAGES[at])), "it stays mapped");
                }
            }
        });
        world.race(vec![unmap, fire]);
        let ends = shoot(GOES);
        assert!(!matches!(ends, Ends::Landed(_)), "{ends:?}");
        world.answer_all(&guest);
        for at in [0, 2, 3] {
            assert_eq!(shoot(at), Ends::Landed(page(PAGES[at])));
        }
        // It comes back while the device is at work.
        let back: Task<'_> = Box::new(|| {
            let (attributes, sizes) = (Attributes::MEMORY, PageSizes::Largest);
            world
                .iommu
                .map(
                    guest.id,
                    ipa(PAGES[GOES]),
                    page(PAGES[GOES]),
                    0x1000,
                    attributes,
                    sizes,
                )
                .expect("it is free");
        });
        let fire: Task<'_> = Box::new(|| {
            for at in [0, 2, 3] {
                assert_eq!(shoot(at), Ends::Landed(page(PAGES[at])), "it stays mapped");
            }
        });
        world.race(vec![back, fire]);
        assert_eq!(shoot(GOES), Ends::Landed(page(PAGES[GOES])));
    }
}
