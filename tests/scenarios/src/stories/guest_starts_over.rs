//! A guest kernel is replaced with everything still bound, then says `release_all`.

use portcullis::space::SpaceError;
use portcullis::spec::ste::Ats;

use crate::{Story, World};

pub(super) const STORY: Story = Story::new(
    "guest-starts-over",
    "a guest kernel is replaced with everything still bound",
    play,
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let bystander = world.guest();
    let last = world.configuration.smmus - 1;
    let devices = [world.device(&guest), world.device_on(&guest, last)];
    let theirs = world.device(&bystander);
    let neighbour = world.process(&bystander);
    world.bind(&neighbour, &theirs);
    world.reaches(&theirs, &neighbour);

    let mut counts = Vec::new();
    for many in [2, 6] {
        let processes: Vec<_> = (0..many).map(|_| world.process(&guest)).collect();
        let mut handles = Vec::new();
        for process in &processes {
            for device in &devices {
                handles.push(world.bind(process, device));
                world.reaches(device, process);
            }
        }
        // One is parked already, with its handles open.
        world.release(&processes[0]);

        let before = world.syncs();
        world.start_over(&guest);
        counts.push(world.syncs() - before);
        for process in &processes {
            for device in &devices {
                world.blocked(device, process);
            }
            assert!(world.try_release(process).is_err());
        }
        // The old kernel's handles are nobody's.
        assert_eq!(world.has(guest.id)[..2], [0, 0]);
        for handle in handles {
            assert_eq!(
                world.try_close(&guest, handle),
                Err(SpaceError::NoSuchHandle)
            );
        }
        for process in &processes {
            world.becomes_gone(process);
        }
        assert_eq!(
            world.has(guest.id),
            [0, 0, 0],
            "the new kernel starts from nothing"
        );
        world.reaches(&theirs, &neighbour);
    }
    let each = if world.configuration.ats == Ats::Off {
        3
    } else {
        4
    };
    let expected = each * world.configuration.smmus as u64;
    assert_eq!(counts, [expected; 2], "SYNCs do not grow with spaces");

    // And goes on with its devices as they are.
    let process = world.process(&guest);
    world.bind(&process, &devices[0]);
    world.reaches(&devices[0], &process);
}
