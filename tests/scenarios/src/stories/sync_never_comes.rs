//! CMD_SYNC is never completed at any one step of any operation.

use std::sync::Arc;

use portcullis::addr::Iova;
use portcullis::space::{By, FaultKind, Fence, GuestLife, Handle, SpaceError};
use portcullis::spec::ste::Untagged;
use smmu_model::{Faults, Rule};

use crate::world::smmu_id;
use crate::{Device, Guest, Process, Story, VA, World};

pub(super) const STORY: Story = Story::new(
    "sync-never-comes",
    "a CMD_SYNC is never completed: each one of each operation",
    play,
);

/// No operation has as many.
const MOST_SYNCS: u32 = 12;

/// Who an operation is about.
struct Scene {
    guest: Guest,
    device: Arc<Device>,
    /// Owned, and not attached.
    spare: Arc<Device>,
    /// Attached, and bound to nothing.
    idle: Arc<Device>,
    bound: Process,
    unbound: Process,
    handle: Handle,
}

type Operation = fn(&World<'_>, &Scene) -> Result<(), SpaceError>;

/// The operations that wait for an SMMU.
const OPERATIONS: [(&str, Operation); 9] = [
    ("attach", |world, it| {
        world
            .iommu
            .attach(it.guest.id, it.spare.id, Untagged::Abort)
    }),
    ("bind", |world, it| {
        let (guest, space) = (it.guest.id, it.unbound.space);
        world
            .iommu
            .bind(guest, space, it.device.id, By::Pasid)
            .map(|_| ())
    }),
    ("unbind", |world, it| {
        world.iommu.unbind(it.guest.id, it.handle)
    }),
    ("invalidate", |world, it| {
        let (guest, space) = (it.guest.id, it.bound.space);
        world.iommu.invalidate(guest, space, Iova::new(VA), 0x1000)
    }),
    ("unmap", |world, it| {
        let page = world.ipa_of_page(&it.unbound);
        world.iommu.unmap(it.guest.id, page, 0x1000)
    }),
    ("release", |world, it| world.try_release(&it.bound)),
    ("release_all", |world, it| {
        world.iommu.release_all(it.guest.id)
    }),
    ("detach", |world, it| {
        world.iommu.detach(it.guest.id, it.idle.id)
    }),
    ("destroy_guest", |world, it| {
        world.iommu.destroy_guest(it.guest.id)
    }),
];

fn scene(world: &World<'_>, devices: &[Arc<Device>; 3]) -> Scene {
    let guest = world.guest();
    let [device, spare, idle] = devices.each_ref().map(Arc::clone);
    for it in [&device, &spare, &idle] {
        // They go with the guest.
        let _token = world.acquire(it, &guest);
    }
    world.attach(&device, &guest);
    world.attach(&idle, &guest);
    let (bound, unbound) = (world.process(&guest), world.process(&guest));
    let handle = world.bind(&bound, &device);
    world.reaches(&device, &bound);
    Scene {
        guest,
        device,
        spare,
        idle,
        bound,
        unbound,
        handle,
    }
}

/// Others who must be able to go on.
struct Witness {
    guest: Guest,
    device: Arc<Device>,
    process: Process,
}

fn witness(world: &World<'_>, smmu: usize) -> Witness {
    let guest = world.guest();
    let device = world.device_on(&guest, smmu);
    let process = world.process(&guest);
    world.bind(&process, &device);
    world.reaches(&device, &process);
    Witness {
        guest,
        device,
        process,
    }
}

fn play(world: &World<'_>) {
    // The last fence takes ATS with it: there is no queue by which devices could be told first.
    world.bear(Rule::DisabledWithAts);
    let last = world.configuration.smmus - 1;
    let here = witness(world, 0);
    let elsewhere = (last != 0).then(|| witness(world, last));
    let devices = [0, 1, 2].map(|_| world.spare_device(world.usual()));
    // A seed plays one, a machine all.
    let drawn = world.is_chaotic().then(|| world.draw(OPERATIONS.len()));
    for (at, (name, operation)) in OPERATIONS.iter().enumerate() {
        if drawn.is_some_and(|it| it != at) {
            continue;
        }
        let has_ports = world.draw(2) == 0;
        world.stage.set_ports(has_ports);
        let mut failures = 0;
        for number in 0..MOST_SYNCS {
            let it = scene(world, &devices);
            world.say(|| format!("{name}, and the SYNC after {number} more never completes"));
            world.stage.set_turn_us(200);
            world.set_faults(
                0,
                Faults {
                    sync_never: true,
                    sync_skip: number,
                    ..Faults::default()
                },
            );
            let outcome = operation(world, &it);
            if outcome.is_ok() {
                world.cure(0);
                end(world, &it);
                break;
            }
            failures += 1;
            fails(
                world,
                (name, &it),
                outcome,
                (&here, elsewhere.as_ref(), has_ports),
            );
        }
        assert_ne!(failures, 0, "{name} waits for something");
        assert_ne!(failures, MOST_SYNCS, "{name} never succeeds");
        world.reaches(&here.device, &here.process);
    }
    world.stage.set_ports(false);
}

/// An operation was not confirmed: what is true then, and after it is mended.
fn fails(
    world: &World<'_>,
    (name, it): (&str, &Scene),
    outcome: Result<(), SpaceError>,
    (here, elsewhere, has_ports): (&Witness, Option<&Witness>, bool),
) {
    let Err(SpaceError::NotConfirmed { smmu, fence, .. }) = outcome else {
        panic!("{name} has a name for it: {outcome:?}");
    };
    assert_eq!(smmu, smmu_id(0), "{name}");
    assert_ne!(fence, Fence::Failed, "{name}");
    if let Some(elsewhere) = elsewhere {
        world.reaches(&elsewhere.device, &elsewhere.process);
        assert!(world.faults(&elsewhere.guest).is_empty());
    }
    let told = world.faults(&here.guest);
    let stopped = FaultKind::SmmuStopped(smmu_id(0));
    let is_told = told.iter().any(|fault| fault.kind == stopped);
    assert_eq!(
        is_told,
        fence == Fence::Smmu,
        "{name}: who shares it is told"
    );
    if fence == Fence::Smmu {
        assert!(!has_ports, "{name}: there was a smaller fence");
        world.blocked(&here.device, &here.process);
    } else {
        world.reaches(&here.device, &here.process);
    }
    if matches!(name, "unbind" | "release" | "release_all" | "destroy_guest") {
        world.blocked(&it.device, &it.bound);
    }
    let was_lost = world.iommu.life_of(it.guest.id) == Ok(GuestLife::Lost);
    assert_eq!(was_lost, name == "destroy_guest");
    world.mend();
    if was_lost {
        let life = world.iommu.life_of(it.guest.id);
        assert_eq!(life, Err(SpaceError::NoSuchGuest), "it is proven, and gone");
    }
    let lost = world.iommu.counts(it.guest.id).map_or(0, |it| it.lost);
    assert_eq!(lost, 0, "{name}: all is proven");
    end(world, it);
    world.reaches(&here.device, &here.process);
}

/// The guest of a scene ends, if it has not.
fn end(world: &World<'_>, it: &Scene) {
    if world.iommu.life_of(it.guest.id).is_ok() {
        world.kill(&it.guest);
    } else {
        world.take_memory_of(&it.guest);
    }
    for device in [&it.device, &it.spare, &it.idle] {
        world.blocked(device, &it.bound);
    }
}
