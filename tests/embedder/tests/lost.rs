//! What was lost, and what devices kept: when it comes back, and when it must not.

use portcullis::space::{
    Acquired, By, Counts, DeviceState, Fence, GuestLife, Owner, SpaceError, SpaceState,
};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis_embedder::Hypervisor;
use portcullis_embedder::world::{SMMU, VA, World, config, host, modes, take_over};
use smmu_model::device::{Misconduct, frame};
use smmu_model::{Faults, Identity, Mode, Rule};

const KINDS: [Ats; 3] = [Ats::Off, Ats::Split, Ats::Full];

fn never(host: &Hypervisor) {
    host.machine().smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
}

fn well(host: &Hypervisor) {
    host.machine().smmu(0).set_faults(Faults::default());
    host.machine().advance(10);
}

fn assert_clean(host: &Hypervisor, what: impl std::fmt::Debug) {
    // Whoever stops an SMMU as the last fence cannot take ATS from its streams first (§3.9.1).
    let violations = host.machine().record().violations();
    let mut rest = violations.iter();
    let found = rest.find(|it| it.rule != Rule::DisabledWithAts);
    assert_eq!(found, None, "{what:?}");
}

fn is_unconfirmed(outcome: Result<(), SpaceError>) -> bool {
    matches!(
        outcome,
        Err(SpaceError::NotConfirmed {
            smmu: SMMU,
            fence: Fence::Smmu,
            ..
        })
    )
}

/// All numbers and records of the guest come back, once quarantines are over.
fn assert_all_back(world: &World<'_>, host: &Hypervisor, what: impl std::fmt::Debug) {
    host.machine().advance(20_000);
    world.iommu.service(1000);
    let counts = world.iommu.counts(world.guest).expect("it lives");
    let devices = counts.devices;
    let nothing = Counts {
        devices,
        faults: counts.faults,
        ..Counts::default()
    };
    assert_eq!(counts, nothing, "{what:?}");
}

/// Bug: a recovery held the books while it looked into them.
#[test]
fn a_recovery_gives_back_the_numbers_of_spaces_and_does_not_wait_for_itself() {
    for (mode, ats) in modes().flat_map(|mode| KINDS.map(|ats| (mode, ats))) {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, ats);
        let dma = world.dma(ats);
        let (space, at) = world.space();
        let (handle, pasid) = world.bind(space);
        assert_eq!(dma.write(Some(pasid), VA), Some(at));
        let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
        never(&host);
        assert!(is_unconfirmed(iommu.release(guest, space)), "{mode:?}");
        assert_eq!(dma.write(Some(pasid), VA), None);
        match (ats, iommu.unbind(guest, handle)) {
            // It is dropped all the same.
            (Ats::Off, outcome) => assert!(is_unconfirmed(outcome), "{mode:?}"),
            // Its CD waits for the device's reset.
            (_, outcome) => assert_eq!(outcome, Ok(())),
        }
        assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Parked));
        well(&host);
        iommu.recover(SMMU).expect("it is proven");
        // What a device cached is not the SMMU's to prove.
        let state = match ats {
            Ats::Off => SpaceState::Draining,
            Ats::Split | Ats::Full => SpaceState::Parked,
        };
        assert_eq!(
            iommu.space_state(guest, space),
            Ok(state),
            "{mode:?} {ats:?}"
        );
        iommu.restore(device).expect("it is reset");
        assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Draining));
        assert_all_back(&world, &host, (mode, ats));
        world.end();
        assert_clean(&host, (mode, ats));
    }
}

/// Bug: where the SMMU was down already nobody was fenced, so memory that a device with ATS still
/// cached was given back when the SMMU was well again.
#[test]
fn a_guest_that_ends_on_a_halted_smmu_is_lost_until_its_devices_caches_are_proven() {
    for (mode, ats) in modes().flat_map(|mode| KINDS.map(|ats| (mode, ats))) {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, ats);
        let dma = world.dma(ats);
        let (space, at) = world.space();
        let (_, pasid) = world.bind(space);
        assert_eq!(dma.write(Some(pasid), VA), Some(at));
        let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
        assert_eq!(iommu.halt(SMMU), Ok(Fence::Smmu));
        assert!(is_unconfirmed(iommu.destroy_guest(guest)), "{mode:?}");
        assert_eq!(iommu.device_state(device), Ok(DeviceState::Fenced));
        assert_eq!(iommu.life_of(guest), Ok(GuestLife::Lost));
        iommu.recover(SMMU).expect("it is proven");
        let life = match ats {
            Ats::Off => Err(SpaceError::NoSuchGuest),
            Ats::Split | Ats::Full => Ok(GuestLife::Lost),
        };
        assert_eq!(iommu.life_of(guest), life, "{mode:?} {ats:?}");
        iommu.restore(device).expect("it is reset");
        assert_eq!(iommu.life_of(guest), Err(SpaceError::NoSuchGuest));
        world.free_memory();
        assert_clean(&host, (mode, ats));
    }
}

/// Bug: a guest whose device was lost while it was attached ended as if nothing had been lost, and
/// the window of its CDs never came back.
#[test]
fn a_guest_that_ends_with_a_lost_stream_waits_for_the_proof() {
    for (mode, ats) in modes().flat_map(|mode| KINDS.map(|ats| (mode, ats))) {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let world = World::new(&host, &smmu, ats);
        let _dma = world.dma(ats);
        let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
        iommu.detach(guest, device).expect("detached");
        iommu.tidy(guest).expect("tidied");
        let before = host.bytes_out();
        never(&host);
        let refused = iommu.attach(guest, device, Untagged::Abort);
        assert!(is_unconfirmed(refused), "{mode:?}: {refused:?}");
        well(&host);
        iommu.recover(SMMU).expect("it is proven");
        iommu.restore(device).expect("it is reset");
        iommu.tidy(guest).expect("tidied");
        assert_eq!(host.bytes_out(), before, "{mode:?} {ats:?}");

        iommu.attach(guest, device, Untagged::Abort).expect("again");
        never(&host);
        assert!(is_unconfirmed(iommu.detach(guest, device)), "{mode:?}");
        well(&host);
        assert!(iommu.destroy_guest(guest).is_err(), "nothing is proven");
        iommu.recover(SMMU).expect("it is proven");
        if ats != Ats::Off {
            assert_eq!(iommu.life_of(guest), Ok(GuestLife::Lost));
        }
        iommu.restore(device).expect("it is reset");
        assert_eq!(iommu.life_of(guest), Err(SpaceError::NoSuchGuest));
        assert!(host.bytes_out() < before);
        world.free_memory();
        assert_clean(&host, (mode, ats));
    }
}

/// Bug: a binding whose device had kept translations was never given back, reset or not.
#[test]
fn what_a_device_kept_is_forgiven_after_its_reset() {
    let orders = [false, true];
    for (mode, is_dropped_first) in modes().flat_map(|mode| orders.map(|order| (mode, order))) {
        for ats in [Ats::Split, Ats::Full] {
            let host = host(Identity::full(), mode);
            let smmu = take_over(&host);
            let mut world = World::new(&host, &smmu, ats);
            let dma = world.dma(ats);
            let (space, at) = world.space();
            let (handle, pasid) = world.bind(space);
            assert_eq!(dma.write(Some(pasid), VA), Some(at));
            let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
            dma.device().misbehave(Misconduct::Silent);
            let fence = Fence::Stream;
            assert_eq!(
                iommu.release(guest, space),
                Err(SpaceError::CachesKept { device, fence }),
                "{mode:?}"
            );
            assert_eq!(dma.write(Some(pasid), VA), None, "{mode:?}");
            if is_dropped_first {
                iommu.unbind(guest, handle).expect("dropped");
            }
            assert_eq!(iommu.counts(guest).map(|it| it.lost), Ok(1));
            dma.device().misbehave(Misconduct::None);
            iommu.restore(device).expect("it is reset");
            if !is_dropped_first {
                assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Parked));
                iommu.unbind(guest, handle).expect("dropped");
            }
            assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Draining));
            assert_all_back(&world, &host, (mode, ats));
            world.end();
            assert_clean(&host, (mode, ats));
        }
    }
}

/// Bug: a device that kept translations and was unplugged kept numbers for ever.
#[test]
fn what_a_device_kept_goes_with_it() {
    for (mode, ats) in modes().flat_map(|mode| [Ats::Split, Ats::Full].map(|ats| (mode, ats))) {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, ats);
        let dma = world.dma(ats);
        let (space, at) = world.space();
        let (handle, pasid) = world.bind(space);
        assert_eq!(dma.write(Some(pasid), VA), Some(at));
        let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
        dma.device().misbehave(Misconduct::Silent);
        assert!(iommu.release(guest, space).is_err());
        // It is pulled out, and what it cached with it.
        dma.device().write32(frame::COMMAND, frame::command::RESET);
        iommu.remove_device(device).expect("it is gone");
        iommu.unbind(guest, handle).expect("dropped");
        assert_eq!(iommu.device_state(device), Err(SpaceError::NoSuchDevice));
        assert_all_back(&world, &host, (mode, ats));
        world.end();
        assert_clean(&host, (mode, ats));
    }
}

/// Bug: translation requests that meet no CD were not recorded, so a device with ATS that went on
/// using a number was not heard of while that drained (CR2.REC_CFG_ATS).
#[test]
fn a_device_with_ats_that_uses_a_draining_number_is_heard_of_where_smmus_can_tell() {
    for records in [true, false] {
        let identity = Identity {
            atsrecerr: records,
            ..Identity::full()
        };
        for (mode, ats) in modes().flat_map(|mode| [Ats::Split, Ats::Full].map(|ats| (mode, ats))) {
            let host = host(identity, mode);
            let smmu = take_over(&host);
            assert_eq!(smmu.features().records_ats_errors, records);
            let mut world = World::new(&host, &smmu, ats);
            let dma = world.dma(ats);
            let (space, at) = world.space();
            let (handle, pasid) = world.bind(space);
            assert_eq!(dma.write(Some(pasid), VA), Some(at));
            let (iommu, guest) = (&world.iommu, world.guest);
            iommu.release(guest, space).expect("released");
            iommu.unbind(guest, handle).expect("dropped");
            host.machine().advance(8_000);
            assert_eq!(dma.write(Some(pasid), VA), None);
            iommu.service(1000);
            host.machine().advance(8_000);
            iommu.service(1000);
            let state = iommu.space_state(guest, space);
            let expected = if records {
                Ok(SpaceState::Draining)
            } else {
                Err(SpaceError::NoSuchSpace)
            };
            assert_eq!(state, expected, "{mode:?} {ats:?}");
            world.end();
            assert_clean(&host, (mode, ats));
        }
    }
}

/// Bug: the streams of a device that was bound as a whole to a space that had been released before
/// were not stopped by `release_all`.
#[test]
fn after_release_all_whole_streams_abort_as_after_the_last_handle() {
    for (mode, is_released) in modes().flat_map(|mode| [false, true].map(|it| (mode, it))) {
        for ats in KINDS {
            let host = host(Identity::full(), mode);
            let smmu = take_over(&host);
            let mut world = World::new(&host, &smmu, ats);
            let dma = world.dma(ats);
            let (space, at) = world.space();
            let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
            iommu
                .bind(guest, space, device, By::WholeStream)
                .expect("bound");
            assert_eq!(dma.write(None, VA), Some(at), "{mode:?} {ats:?}");
            if is_released {
                iommu.release(guest, space).expect("released");
            }
            iommu.release_all(guest).expect("all is released");
            assert_eq!(dma.write(None, VA), None);
            assert_eq!(iommu.device_state(device), Ok(DeviceState::Detached));
            assert_all_back(&world, &host, (mode, ats));
            iommu.tidy(guest).expect("tidied");
            assert_eq!(iommu.sealed_bytes(guest), Ok(0));
            iommu
                .attach(guest, device, Untagged::Abort)
                .expect("attached again");
            let (space, at) = world.space();
            let (_, pasid) = world.bind(space);
            assert_eq!(dma.write(Some(pasid), VA), Some(at));
            world.end();
            assert_clean(&host, (mode, ats));
        }
    }
}

/// Bug: the CD of a space that had been released before, where no other was live, was not retracted
/// by `release_all`, so that its number could not be bound again.
#[test]
fn after_release_all_a_number_that_was_parked_can_be_bound_again() {
    for (mode, ats) in modes().flat_map(|mode| KINDS.map(|ats| (mode, ats))) {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, ats);
        let dma = world.dma(ats);
        let (space, _) = world.space();
        let (_, pasid) = world.bind(space);
        let (iommu, guest) = (&world.iommu, world.guest);
        iommu.release(guest, space).expect("released");
        iommu.release_all(guest).expect("all is released");
        assert_all_back(&world, &host, (mode, ats));
        let (space, at) = world.space();
        let (_, again) = world.bind(space);
        assert_eq!(again, pasid, "the oldest free number goes out first");
        assert_eq!(dma.write(Some(pasid), VA), Some(at));
        world.end();
        assert_clean(&host, (mode, ats));
    }
}

/// Bug: where their last SYNC did not come, `release_all` detached devices of whole streams as if
/// they had been stopped.
#[test]
fn whole_streams_that_release_all_cannot_stop_are_lost() {
    for (mode, ats) in modes().flat_map(|mode| KINDS.map(|ats| (mode, ats))) {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, ats);
        let dma = world.dma(ats);
        let (space, at) = world.space();
        let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
        iommu
            .bind(guest, space, device, By::WholeStream)
            .expect("bound");
        assert_eq!(dma.write(None, VA), Some(at));
        // Up to the release of the space all is well: CFGI_CD, SYNC, TLBI, SYNC [, ATC_INV, SYNC].
        let well_commands = if ats == Ats::Off { 4 } else { 6 };
        host.machine().smmu(0).set_faults(Faults {
            abort_after: Some(well_commands),
            ..Faults::default()
        });
        assert!(is_unconfirmed(iommu.release_all(guest)), "{mode:?}");
        assert_eq!(dma.write(None, VA), None);
        assert_eq!(iommu.device_state(device), Ok(DeviceState::Fenced));
        assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Parked));
        well(&host);
        iommu.recover(SMMU).expect("it is proven");
        iommu.restore(device).expect("it is reset");
        assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Draining));
        assert_eq!(iommu.device_state(device), Ok(DeviceState::Detached));
        assert_all_back(&world, &host, (mode, ats));
        iommu.tidy(guest).expect("tidied");
        assert_eq!(iommu.sealed_bytes(guest), Ok(0));
        world.end();
        assert_clean(&host, (mode, ats));
    }
}

/// Bug: windows are at the same address in all guests, and the contexts of one were taken for those
/// of another.
#[test]
fn contexts_are_not_mistaken_for_those_of_another_guest_at_the_same_address() {
    for mode in modes().chain([Mode::Chaotic { seed: 99 }]) {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, Ats::Off);
        let dma = world.dma(Ats::Off);
        let (iommu, guest, device) = (&world.iommu, world.guest, world.device);
        iommu.detach(guest, device).expect("detached");
        let sealed = iommu.sealed_bytes(guest).expect("it lives");
        assert_ne!(sealed, 0, "not tidied yet");
        let other = iommu.create_guest(&config()).expect("there is memory");
        world.disown();
        let iommu = &world.iommu;
        let owner = Owner::Guest(other);
        let Ok(Acquired::Owned(_)) = iommu.acquire(world.group, owner) else {
            panic!("it is free");
        };
        dma.turn_on();
        iommu
            .attach(other, device, Untagged::Abort)
            .expect("attached");
        assert_eq!(iommu.sealed_bytes(other), Ok(sealed), "at the same address");
        iommu.tidy(guest).expect("tidied");
        assert_eq!(iommu.sealed_bytes(guest), Ok(0), "{mode:?}");
        iommu.destroy_guest(other).expect("it ends");
        iommu.destroy_guest(guest).expect("it ends");
        let out = host.bytes_out();
        world.free_memory();
        assert_eq!(host.bytes_out(), out, "it had none");
        assert_clean(&host, mode);
    }
}

/// Bug: a device that the host had had, or a guest that never attached it, went to the next owner
/// with what it had been told to do.
#[test]
fn a_device_is_reset_for_another_owner_whether_it_was_attached_or_not() {
    for mode in modes() {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, Ats::Off);
        let dma = world.dma(Ats::Off);
        let (guest, device) = (world.guest, world.device);
        world.iommu.detach(guest, device).expect("detached");
        world.disown();
        let iommu = &world.iommu;
        let Ok(Acquired::Owned(token)) = iommu.acquire(world.group, Owner::Host) else {
            panic!("it is free");
        };
        assert_eq!(dma.write(None, VA), None, "it was reset, and is off");
        // The host turns it on, and has it do something.
        dma.turn_on();
        dma.device().write32(frame::FLAGS, frame::flags::REPEAT);
        assert_eq!(dma.device().read32(frame::CONTROL), frame::control::ENABLE);
        iommu.disown(token).expect("it is not attached");
        let owner = Owner::Guest(guest);
        let Ok(Acquired::Owned(_)) = iommu.acquire(world.group, owner) else {
            panic!("it is free");
        };
        assert_eq!(dma.device().read32(frame::CONTROL), 0, "{mode:?}");
        world.end();
        assert_clean(&host, mode);
    }
}
