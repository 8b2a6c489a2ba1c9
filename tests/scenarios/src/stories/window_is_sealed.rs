//! Guest CPUs and devices try to write the CD window, and to map it through their own stage 1.

use portcullis::addr::Ipa;
use portcullis::space::SpaceError;
use portcullis::space::stage2::PageSizes;
use portcullis::spec::ste::Untagged;
use portcullis::spec::vmsa::{Access, Attributes, Permissions};

use crate::{Ends, Story, VA, World};

pub(super) const STORY: Story = Story::new(
    "window-is-sealed",
    "a guest's devices try to write the window of CDs, straight and through their own tables",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let (process, sibling) = (world.process(&guest), world.process(&guest));
    world.bind(&process, &device);
    world.bind(&sibling, &device);
    world.reaches(&device, &process);
    let window = world.guest_config().window.as_u64();
    let sealed = world.iommu.sealed_bytes(guest.id).expect("it runs");
    assert_ne!(sealed, 0);

    // A process maps the window into its own space: reads find CDs, writes find nothing.
    let mut descriptors = 0;
    for page in (0..sealed).step_by(0x1000) {
        world.remap(&process, None);
        world.invalidate(&process);
        world.map_ipa(&process, VA, Ipa::new(window + page));
        let ends = world.fire(&device, &process);
        assert!(!matches!(ends, Ends::Landed(_)), "it was written: {ends:?}");
        world.answer_all(&guest);
        for line in (0..0x1000).step_by(64) {
            let word = world
                .read(&device, process.pasid, VA + line)
                .expect("it can be read");
            // A CD that is valid, or a word that leads to a leaf of them, or nothing.
            let is_context = word >> 31 & 1 != 0 || word & 1 != 0;
            assert!(
                word == 0 || is_context,
                "{word:#x} at {:#x}",
                window + page + line
            );
            descriptors += u32::from(word >> 31 & 1 != 0);
        }
    }
    assert_eq!(descriptors, 2, "the guest's own two spaces, and no more");

    // A device that goes by stage 2 alone writes there.
    let plain = world.spare_device(world.usual());
    let _token = world.acquire(&plain, &guest);
    world
        .iommu
        .attach(guest.id, plain.id, Untagged::Stage2)
        .expect("it is the guest's");
    let memory = world.ipa_of_page(&sibling).as_u64();
    assert_eq!(
        world.shoot(&plain, None, memory),
        Ends::Landed(sibling.page)
    );
    for page in (0..sealed).step_by(0x1000) {
        let ends = world.shoot(&plain, None, window + page);
        assert!(!matches!(ends, Ends::Landed(_)), "it was written: {ends:?}");
        world.answer_all(&guest);
    }

    // And nothing makes it writable, or anything else, for whoever walks the guest's tables.
    let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
    let window = Ipa::new(window);
    let changes = [
        world
            .iommu
            .map(guest.id, window, sibling.page, 0x1000, attributes, sizes),
        world.iommu.unmap(guest.id, window, 0x1000),
        world.iommu.protect(
            guest.id,
            window,
            0x1000,
            Permissions {
                access: Access::ReadWrite,
                ..attributes.permissions
            },
        ),
    ];
    for change in changes {
        assert!(matches!(change, Err(SpaceError::Stage2(_))), "{change:?}");
    }
    world.reaches(&device, &sibling);
}
