//! An SMMU stops under several guests.

use portcullis::space::{FaultKind, GuestLife, SpaceError};
use smmu_model::{Faults, Rule};

use crate::world::smmu_id;
use crate::{Device, Guest, Process, Story, World};

pub(super) const STORY: Story = Story::new(
    "shared-smmu-dies",
    "an SMMU stops under several guests: halted, by its queue, or for good",
    play,
);

/// A guest with one device and one process that is bound to it.
struct Tenant {
    guest: Guest,
    device: std::sync::Arc<Device>,
    process: Process,
}

fn tenant(world: &World<'_>, smmu: usize) -> Tenant {
    let guest = world.guest();
    let device = world.device_on(&guest, smmu);
    let process = world.process(&guest);
    world.bind(&process, &device);
    world.reaches(&device, &process);
    Tenant {
        guest,
        device,
        process,
    }
}

fn play(world: &World<'_>) {
    // The last fence takes ATS with it: there is no queue by which devices could be told first.
    world.bear(Rule::DisabledWithAts);
    let (one, two) = (tenant(world, 0), tenant(world, 0));
    let last = world.configuration.smmus - 1;
    let elsewhere = (last != 0).then(|| tenant(world, last));
    let goes_on = || {
        if let Some(it) = &elsewhere {
            world.reaches(&it.device, &it.process);
            assert!(
                world.faults(&it.guest).is_empty(),
                "it is none of its business"
            );
        }
    };
    let way = world.draw(3);
    match way {
        0 => {
            world.iommu.halt(smmu_id(0)).expect("it is there");
        }
        1 => {
            // A command that it cannot read: its queue stops.
            world.set_faults(
                0,
                Faults {
                    abort_after: Some(0),
                    ..Faults::default()
                },
            );
            world.stage.set_turn_us(200);
            let other = world.process(&one.guest);
            assert!(world.try_bind(&other, &one.device).is_err());
        }
        _ => {
            world.say(|| "SMMU 0 stops for good (SFM_ERR)".into());
            world.host.machine().smmu(0).raise_sfm();
            world.give_up();
        }
    }
    world.stage.set_turn_us(200);
    world.pass(10);
    let served = world.iommu.service(1000);
    assert!(served.down.has(smmu_id(0)));

    // Every guest behind it is told, nothing translates there, and every call fails at once.
    for it in [&one, &two] {
        let told = world.faults(&it.guest);
        let stopped = FaultKind::SmmuStopped(smmu_id(0));
        let count = told.iter().filter(|fault| fault.kind == stopped).count();
        assert_eq!(count, 1, "{told:?}");
        world.blocked(&it.device, &it.process);
    }
    goes_on();
    let other = world.process(&two.guest);
    let refused = world.try_bind(&other, &two.device);
    let is_named = matches!(
        refused,
        Err(SpaceError::SmmuDown { .. } | SpaceError::Fenced)
    );
    assert!(is_named, "{refused:?}");

    // Nothing is freed early: a guest that ends now is lost, with its memory.
    let out = world.host.bytes_out();
    let ended = world.iommu.destroy_guest(one.guest.id);
    assert!(ended.is_err(), "nobody confirms it");
    assert_eq!(world.iommu.life_of(one.guest.id), Ok(GuestLife::Lost));
    assert_eq!(world.host.bytes_out(), out);
    goes_on();
    world.stage.set_turn_us(1);
    if way == 2 {
        let recovered = world.iommu.recover(smmu_id(0));
        assert!(
            matches!(recovered, Err(SpaceError::NotRecovered { .. })),
            "{recovered:?}"
        );
        world.blocked(&two.device, &two.process);
        goes_on();
        // What it may still hold never comes back; the others end as ever.
        elsewhere.iter().for_each(|it| world.kill(&it.guest));
        return;
    }
    world.mend();
    assert_eq!(
        world.iommu.life_of(one.guest.id),
        Err(SpaceError::NoSuchGuest)
    );
    assert!(world.host.bytes_out() < out);
    world.blocked(&one.device, &one.process);
    let process = world.process(&two.guest);
    if world.is_detached(&two.device) {
        world.attach(&two.device, &two.guest);
    }
    world.bind(&process, &two.device);
    world.reaches(&two.device, &process);
    goes_on();
}
