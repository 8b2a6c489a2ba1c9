//! What every story must have left behind.

use crate::world::{Ends, World};

/// How many numbers every device tries at the end.
const NUMBERS: u32 = 8;

/// Ends what is left of a story and looks at the whole of it.
///
/// # Panics
///
/// If the model objected to anything, if a device reaches anything with everybody gone, or if
/// memory is missing.
pub(crate) fn close(world: World<'_>) {
    world.say(|| "everybody who is left ends".into());
    let is_whole = !world.is_beyond_repair();
    if is_whole {
        world.end_all_guests();
    }
    for device in world.all_devices() {
        let tries = (1..NUMBERS).map(Some).chain([None]);
        for pasid in tries {
            let ends = world.shoot(&device, pasid, crate::world::VA);
            assert_eq!(ends, Ends::Blocked, "{} when all is over", device.name);
        }
    }
    let host = world.host;
    objects_to_nothing(&world);
    if !is_whole {
        // What an SMMU that stopped for good may hold is nobody's any more.
        return;
    }
    let held: u64 = world.smmus.iter().map(|smmu| smmu.size_bytes()).sum();
    world.let_go();
    assert_eq!(host.bytes_out(), held, "memory is out that no SMMU holds");
}

/// # Panics
///
/// If the model objected to anything but what the story bears.
fn objects_to_nothing(world: &World<'_>) {
    let violations = world.host.machine().record().violations();
    let borne = world.borne();
    let mut found = violations.iter().filter(|it| !borne.contains(&it.rule));
    if let Some(first) = found.next() {
        panic!("{} rules were broken, first:\n{first}", 1 + found.count());
    }
}
