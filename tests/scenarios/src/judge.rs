//! What every story must have left behind.

use portcullis_embedder::Hypervisor;

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
    world.end_all_guests();
    for device in world.all_devices() {
        let tries = (1..NUMBERS).map(Some).chain([None]);
        for pasid in tries {
            let ends = world.shoot(&device, pasid, crate::world::VA);
            assert_eq!(ends, Ends::Blocked, "{} when all is over", device.name);
        }
    }
    let host = world.host;
    objects_to_nothing(host);
    let held: u64 = world.smmus.iter().map(|smmu| smmu.size_bytes()).sum();
    assert!(world.iommu.dismantle().is_ok(), "a guest is left");
    assert_eq!(host.bytes_out(), held, "memory is out that no SMMU holds");
    objects_to_nothing(host);
}

/// # Panics
///
/// If the model objected to anything.
pub(crate) fn objects_to_nothing(host: &Hypervisor) {
    let violations = host.machine().record().violations();
    if let Some(first) = violations.first() {
        panic!("{} rules were broken, first:\n{first}", violations.len());
    }
}
