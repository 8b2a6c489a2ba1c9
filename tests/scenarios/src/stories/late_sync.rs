//! A SYNC that was given up completes afterwards; later the queue is re-initialised.

use portcullis::space::{Fence, SpaceError};
use portcullis::spec::ste::Ats;
use smmu_model::Rule;

use crate::world::smmu_id;
use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "late-sync",
    "a SYNC that was given up completes afterwards; later the queue is set up anew",
    play,
);

fn play(world: &World<'_>) {
    // The last fence takes ATS with it: there is no queue by which devices could be told first.
    world.bear(Rule::DisabledWithAts);
    for has_ports in [true, false] {
        late(world, has_ports);
    }
}

fn late(world: &World<'_>, has_ports: bool) {
    world.stage.set_ports(has_ports);
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    let handle = world.bind(&process, &device);
    world.reaches(&device, &process);

    world.silence(0);
    let expected = if has_ports { Fence::Port } else { Fence::Smmu };
    match world.try_release(&process) {
        Err(SpaceError::NotConfirmed { smmu, fence, .. }) => {
            assert_eq!((smmu, fence), (smmu_id(0), expected));
        }
        other => panic!("nothing was confirmed: {other:?}"),
    }
    let lost = || world.iommu.counts(guest.id).expect("it runs").lost;
    assert_eq!(lost(), 1);
    world.blocked(&device, &process);

    // It completes after all, and nothing changes by that.
    let before = world.syncs();
    world.cure(0);
    for _ in 0..8 {
        world.pass(100);
    }
    if has_ports {
        assert_ne!(world.syncs(), before, "the SMMU goes on");
    }
    assert_eq!(lost(), 1);
    // The handle is dropped all the same where nothing is confirmed any more.
    let closed = world.try_close(&guest, handle);
    assert!(closed.is_ok() || !has_ports, "{closed:?}");
    assert_eq!(world.has(guest.id)[0], 0);
    world.pass(100_000);
    world.is_parked(&process);
    let other = world.process(&guest);
    assert_ne!(
        other.pasid, process.pasid,
        "a number that is lost is not given out"
    );
    world.blocked(&device, &process);
    assert!(world.is_fenced(&device) || !has_ports);

    // `recover` gives back what is proven: what a device may have cached is not, nor is the device.
    world.iommu.recover(smmu_id(0)).expect("it answers");
    let waits_for_reset = world.configuration.ats != Ats::Off;
    assert_eq!(lost(), u32::from(waits_for_reset));
    if waits_for_reset {
        world.pass(100_000);
        world.is_parked(&process);
    } else {
        world.becomes_free(&process);
    }
    assert!(world.is_fenced(&device));
    world.blocked(&device, &other);
    world.iommu.restore(device.id).expect("it is reset");
    assert_eq!(lost(), 0);
    if waits_for_reset {
        world.becomes_free(&process);
    }
    world.attach(&device, &guest);
    world.bind(&other, &device);
    world.reaches(&device, &other);
    world.kill(&guest);
}
