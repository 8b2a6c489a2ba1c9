//! A device keeps firing after release.

use portcullis::addr::Iova;
use portcullis::space::SpaceError;

use crate::{Story, VA, World};

pub(super) const STORY: Story = Story::new(
    "quiet-after-release",
    "a device keeps firing for long after the release of what it fires at",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    let handle = world.bind(&process, &device);
    world.reaches(&device, &process);
    world.release(&process);
    world.pass(100);
    world.faults(&guest);

    let (bursts, shots) = if world.is_chaotic() {
        (10, 100)
    } else {
        (100, 1000)
    };
    let mut events = 0;
    for _ in 0..bursts {
        let landed = world.burst(&device, process.pasid, VA, shots);
        assert_eq!(landed, 0, "none reaches memory");
        world.host.machine().advance(10);
        let served = world.iommu.service(1000);
        assert!(!served.has_more, "the queue is drained");
        events += served.events;
    }
    let told = world.faults(&guest).len() as u64;
    let lost = world.iommu.lost_faults(guest.id).expect("it runs");
    if world.configuration.is_loud() {
        // Nothing can be quiet there: but the guest's ring has an end, and it is told so.
        assert_ne!(events, 0);
        assert!(told <= 4096 / 64, "the ring is a page: {told}");
        assert!(told + lost <= u64::from(events));
    } else if world.configuration.ats == portcullis::spec::ste::Ats::Off {
        assert_eq!((events, told, lost), (0, 0, 0), "no flood");
    }

    // The guest goes on using what it has, and is told by name each time.
    assert_eq!(world.try_bind(&process, &device), Err(SpaceError::Released));
    assert_eq!(
        world.try_release(&process),
        Err(SpaceError::AlreadyReleased)
    );
    let invalidated = world
        .iommu
        .invalidate(guest.id, process.space, Iova::new(VA), 0x1000);
    assert_eq!(invalidated, Err(SpaceError::Released));
    world.is_parked(&process);
    world.close(&guest, handle);
    world.becomes_free(&process);
}
