//! Numbers, memory and quotas run out.

use portcullis::space::{Ask, GuestConfig, Quantity, Quota, SpaceConfig, SpaceError};

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
