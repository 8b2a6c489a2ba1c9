//! Numbers, memory and quotas run out.

use std::sync::Arc;

use portcullis::id::Vmid;
use portcullis::space::{
    Ask, GuestConfig, HostedConfig, Iommu, IommuSettings, Quantity, Quota, SpaceConfig, SpaceError,
};
use portcullis::spec::vmsa::Stage2Walk;
use portcullis_embedder::Hypervisor;
use smmu_model::Mode;

use crate::stage::Stage;
use crate::{Guest, Story, Wanted, World};

pub(super) const STORY: Story = Story::new(
    "too-many",
    "PASIDs, ASIDs, frames and quotas run out; a device has fewer PASID bits than the number",
    play,
);

fn play(world: &World<'_>) {
    pasids(world);
    if !world.configuration.has_wide_tags {
        asids(world);
        // It takes 10 MiB and as many guests as there are VMIDs: now and then.
        if world.draw(16) == 0 {
            vmids(world);
        }
    }
    bits_of_a_device(world);
    quotas(world);
    frames(world);
}

/// A guest with PASIDs of two bits has three; parked ones count.
fn pasids(world: &World<'_>) {
    let guest = world.guest_with(&GuestConfig {
        pasid_bits: 2,
        ..world.guest_config()
    });
    let device = world.device(&guest);
    let processes = [0, 1, 2].map(|_| world.process(&guest));
    let handle = world.bind(&processes[0], &device);
    world.reaches(&device, &processes[0]);
    let refused = |expected: [u32; 3]| {
        assert_eq!(another(world, &guest), Err(SpaceError::NoPasid));
        assert_eq!(world.has(guest.id), expected, "nothing has changed");
    };
    refused([1, 1, 3]);
    world.reaches(&device, &processes[0]);
    world.release(&processes[0]);
    refused([1, 1, 3]);
    world.close(&guest, handle);
    refused([0, 0, 3]);
    world.becomes_free(&processes[0]);
    assert_eq!(another(world, &guest), Ok(processes[0].pasid));
    world.kill(&guest);
}

/// One more space; its number.
fn another(world: &World<'_>, guest: &Guest) -> Result<u32, SpaceError> {
    let config = |walk| SpaceConfig {
        walk,
        pasid: Ask::Any,
        promises_no_global: false,
    };
    world.process_with(guest, config).map(|it| it.pasid)
}

/// With 8-bit tags a guest has 255 ASIDs, whatever its PASIDs are.
fn asids(world: &World<'_>) {
    let guest = world.guest_with(&GuestConfig {
        pasid_bits: 9,
        ..world.guest_config()
    });
    let process = world.process(&guest);
    let config = SpaceConfig {
        walk: world.walk_of(&process),
        pasid: Ask::Any,
        promises_no_global: false,
    };
    let create = || world.iommu.create_space(guest.id, &config);
    let spaces: Vec<_> = (1..255).map(|_| create().expect("there is one")).collect();
    let counts = world.iommu.counts(guest.id);
    assert_eq!(create(), Err(SpaceError::NoAsid));
    assert_eq!(world.iommu.counts(guest.id), counts, "no PASID is taken");
    // It was bound nowhere: its numbers are free at once.
    world.iommu.release(guest.id, spaces[7]).expect("it lives");
    assert!(create().is_ok());
    assert_eq!(create(), Err(SpaceError::NoAsid));
    world.kill(&guest);
}

/// With 8-bit tags there are 255 guests, on a machine with memory for so many.
fn vmids(world: &World<'_>) {
    let settings = [crate::world::model(
        world.configuration.identity(),
        Mode::Forgetful,
    )];
    let beside = Arc::new(Stage::new(false, None));
    let host = Hypervisor::with_bystander(&settings, 14 << 20, beside);
    let smmu = crate::world::take_over(&host, 0);
    let iommu = Iommu::new(&host, IommuSettings::default()).expect("there is memory");
    iommu
        .add_smmu(crate::world::smmu_id(0), &smmu)
        .expect("it is new");
    let first = iommu
        .create_guest(&world.guest_config())
        .expect("there is room");
    let walk = iommu.stage2_of(first).expect("it runs");
    assert_eq!(walk.vmid, Vmid::new(1));
    // Guests whose stage 2 the host has take little.
    let adopt = |vmid| {
        let config = HostedConfig {
            walk: Stage2Walk {
                vmid: Vmid::new(vmid),
                ..walk
            },
            window: world.guest_config().window,
            log2_window_bytes: 12,
            pasid_bits: 4,
            quota: Quota::default(),
        };
        iommu.adopt_guest(&config).map(|(guest, _)| guest)
    };
    let guests: Vec<_> = (2..=255)
        .map(|vmid| adopt(vmid).expect("it is free"))
        .collect();
    let out = host.bytes_out();
    let another = || iommu.create_guest(&world.guest_config());
    assert_eq!(another(), Err(SpaceError::NoVmid));
    assert_eq!(adopt(77), Err(SpaceError::VmidTaken));
    assert_eq!(host.bytes_out(), out, "nothing has changed");
    iommu.destroy_guest(guests[40]).expect("it has no devices");
    let heir = another().expect("one is free");
    assert_eq!(iommu.stage2_of(heir).expect("it runs").vmid, Vmid::new(42));
    assert_eq!(another(), Err(SpaceError::NoVmid));
}

/// A device that issues two bits of PASID cannot have the number 4.
fn bits_of_a_device(world: &World<'_>) {
    let guest = world.guest();
    let narrow = Wanted {
        pasid_bits: 2,
        ..world.usual()
    };
    let (narrow, wide) = (world.device_with(&guest, narrow), world.device(&guest));
    let processes = [0, 1, 2, 3].map(|_| world.process(&guest));
    let last = &processes[3];
    assert_eq!(last.pasid, 4);
    let stores = world.stage.stores();
    let refused = world.try_bind(last, &narrow);
    assert!(
        matches!(refused, Err(SpaceError::PasidTooWide { bits: 2, .. })),
        "{refused:?}"
    );
    assert_eq!(world.stage.stores(), stores);
    world.bind(last, &wide);
    world.bind(&processes[2], &narrow);
    world.reaches(&wide, last);
    world.reaches(&narrow, &processes[2]);
    world.kill(&guest);
}

fn quotas(world: &World<'_>) {
    let guest = world.guest_with(&GuestConfig {
        quota: Quota {
            spaces: 3,
            bindings: 2,
            handles: 3,
            stalls: 1,
        },
        ..world.guest_config()
    });
    let device = world.device(&guest);
    let processes = [0, 1, 2].map(|_| world.process(&guest));
    let over = |what| Err(SpaceError::Quota(what));
    assert_eq!(another(world, &guest), over(Quantity::Spaces));
    let handle = world.bind(&processes[0], &device);
    world.bind(&processes[1], &device);
    let bound = world.try_bind(&processes[2], &device).map(|_| ());
    assert_eq!(bound, Err(SpaceError::Quota(Quantity::Bindings)));
    world.bind(&processes[0], &device);
    let bound = world.try_bind(&processes[0], &device).map(|_| ());
    assert_eq!(bound, Err(SpaceError::Quota(Quantity::Handles)));
    assert_eq!(world.has(guest.id), [3, 2, 3]);
    // A handle of a space that is no more counts until it is dropped.
    world.release(&processes[0]);
    let bound = world.try_bind(&processes[1], &device).map(|_| ());
    assert_eq!(bound, Err(SpaceError::Quota(Quantity::Handles)));
    world.close(&guest, handle);
    world.bind(&processes[1], &device);
    world.reaches(&device, &processes[1]);
    world.kill(&guest);
}

/// No memory, at each allocation that making a guest and using a device takes.
fn frames(world: &World<'_>) {
    let guest = world.guest();
    let process = world.process(&guest);
    let refusals = |what: &str, attempt: &dyn Fn() -> Result<(), SpaceError>| {
        for successes in 0..64 {
            let out = world.host.bytes_out();
            world.host.fail_after(Some(successes));
            let outcome = attempt();
            world.host.fail_after(None);
            match outcome {
                Ok(()) => return successes,
                Err(SpaceError::NoFrames { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
            }
            // Records may have got a page that stays theirs; nothing else does.
            assert!(world.host.bytes_out() <= out + (1 << 15), "{what} leaks");
        }
        panic!("{what} never succeeds")
    };
    let made = refusals("a guest", &|| {
        let made = world.iommu.create_guest(&world.guest_config())?;
        world.iommu.destroy_guest(made)
    });
    assert_ne!(made, 0, "it takes memory");
    let device = world.spare_device(world.usual());
    let _token = world.acquire(&device, &guest);
    let attached = refusals("attach", &|| {
        let untagged = portcullis::spec::ste::Untagged::Abort;
        world.iommu.attach(guest.id, device.id, untagged)
    });
    assert_ne!(attached, 0);
    world.note_attached(&device, Some(&guest));
    refusals("bind", &|| world.try_bind(&process, &device).map(|_| ()));
    world.reaches(&device, &process);
    world.kill(&guest);
}
