//! A whole guest dies with devices running.

use portcullis::space::SpaceError;
use portcullis::spec::ste::Ats;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "guest-dies",
    "a whole guest dies with devices running, spaces live, parked and draining",
    play,
);

/// `S12_VMALL`.
const FLUSH_OF_A_VMID: u8 = 0x28;

fn play(world: &World<'_>) {
    let survivor = world.guest();
    let theirs = world.device(&survivor);
    let neighbour = world.process(&survivor);
    world.bind(&neighbour, &theirs);
    world.reaches(&theirs, &neighbour);

    let last = world.configuration.smmus - 1;
    let mut counts = Vec::new();
    for many in [1, 4] {
        let guest = world.guest();
        let devices: Vec<_> = (0..many)
            .map(|at| world.device_on(&guest, if at % 2 == 0 { 0 } else { last }))
            .collect();
        let [live, parked, draining] = [0, 1, 2].map(|_| world.process(&guest));
        for device in &devices {
            world.bind(&live, device);
            let left = world.bind(&draining, device);
            world.bind(&parked, device);
            world.reaches(device, &live);
            world.reaches(device, &parked);
            world.close(&guest, left);
        }
        world.release(&parked);
        world.release(&draining);
        let on_both = last != 0 && many > 1;

        let (syncs, flushes) = (world.syncs(), world.stage.sent(FLUSH_OF_A_VMID));
        world.kill(&guest);
        let smmus = if on_both { 2 } else { 1 };
        assert_eq!(
            world.stage.sent(FLUSH_OF_A_VMID) - flushes,
            smmus,
            "one flush each"
        );
        counts.push((world.syncs() - syncs) / smmus);
        for device in &devices {
            for process in [&live, &parked, &draining] {
                world.blocked(device, process);
            }
        }
        // Others notice nothing.
        world.reaches(&theirs, &neighbour);
        assert_eq!(world.host.machine().record().foreign_evictions(), 0);
        assert_eq!(world.iommu.counts(guest.id), Err(SpaceError::NoSuchGuest));
        assert_eq!(world.try_release(&live), Err(SpaceError::NoSuchGuest));
        // Its devices are free for the next.
        let _token = world.acquire(&devices[0], &survivor);
        world.attach(&devices[0], &survivor);
        world.bind(&neighbour, &devices[0]);
        world.reaches(&devices[0], &neighbour);
    }
    let expected = if world.configuration.ats == Ats::Off {
        2
    } else {
        3
    };
    assert_eq!(counts, [expected; 2], "SYNCs do not grow with devices");
}
