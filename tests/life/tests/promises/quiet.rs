//! Operations that take no memory and wait for nothing, and that no other is forgotten.

use std::collections::BTreeSet;

use portcullis::id::StreamId;
use portcullis::space::{
    Acquired, Answer, By, DeviceState, GroupState, GuestId, Iommu, IommuSettings, Owner, Settled,
    SmmuId, SpaceError,
};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis_life::operation::Op;
use portcullis_life::world::World;

use super::act::{Act, Hands, description};
use super::extra::Extra;
use super::table::{BOUND, PROMISES};
use super::{DEVICE, GUEST, KINDS, OTHER, SMMU, come_to_rest, counts, on_world};

type Work = fn(&mut World<'_>, &mut Hands);

/// Each by its name, with the guest's space bound.
const QUIET: &[(&str, Work)] = &[
    ("life_of", |world, _| {
        assert!(world.iommu.life_of(world.guest(GUEST)).is_ok())
    }),
    ("stage2_of", |world, _| {
        assert!(world.iommu.stage2_of(world.guest(GUEST)).is_ok())
    }),
    ("cpu_walk_of", |world, _| {
        assert_eq!(world.iommu.cpu_walk_of(world.guest(GUEST)), Ok(None));
    }),
    ("pasid_of", |world, _| {
        assert!(
            world
                .iommu
                .pasid_of(world.guest(GUEST), world.space(0))
                .is_ok()
        );
    }),
    ("space_state", |world, _| {
        assert!(
            world
                .iommu
                .space_state(world.guest(GUEST), world.space(0))
                .is_ok()
        );
    }),
    ("devices_of", |world, _| {
        let devices = world.iommu.devices_of(world.group(DEVICE));
        assert_eq!(devices.map(Iterator::count), Ok(1));
    }),
    ("next_fault", |world, _| {
        assert!(world.iommu.next_fault(world.guest(GUEST)).is_ok())
    }),
    ("lost_faults", |world, _| {
        assert_eq!(world.iommu.lost_faults(world.guest(GUEST)), Ok(0))
    }),
    ("group_state", |world, _| {
        let owner = Owner::Guest(world.guest(GUEST));
        let state = world.iommu.group_state(world.group(DEVICE));
        assert_eq!(state, Ok(GroupState::Owned(owner)));
    }),
    ("end_discovery", |world, _| world.iommu.end_discovery()),
    ("next_space", |world, _| {
        assert!(world.iommu.next_space(world.guest(GUEST), &mut 0).is_some());
    }),
    ("next_device", |world, _| {
        assert!(world.iommu.next_device(&mut 0).is_some())
    }),
    ("counts", |world, _| {
        assert!(world.iommu.counts(world.guest(GUEST)).is_ok())
    }),
    ("device_state", |world, _| {
        assert!(world.iommu.device_state(world.device(DEVICE)).is_ok())
    }),
    ("has_pasids", |world, _| {
        assert_eq!(world.iommu.has_pasids(world.device(DEVICE)), Ok(true));
    }),
    ("sealed_bytes", |world, _| {
        assert!(
            world
                .iommu
                .sealed_bytes(world.guest(GUEST))
                .is_ok_and(|bytes| bytes > 0)
        );
    }),
    ("size_bytes", |world, _| {
        assert!(world.iommu.size_bytes() > 0)
    }),
    ("unproven", |world, _| {
        assert!(world.iommu.unproven().is_empty())
    }),
    ("unproven_of", |world, _| {
        assert!(world.iommu.unproven_of(world.guest(GUEST)).is_empty())
    }),
    ("service", |world, _| {
        assert!(world.iommu.service(u32::MAX).down.is_empty())
    }),
    ("service_smmu", |world, _| {
        let smmu = SmmuId::new(SMMU as u8).expect("below 16");
        assert!(world.iommu.service_smmu(smmu, u32::MAX).is_ok());
    }),
    ("disown", |world, _| {
        let group = world.group(OTHER + 1);
        let Ok(Acquired::Owned(token)) = world.iommu.acquire(group, Owner::Host) else {
            panic!("it is free");
        };
        assert!(world.iommu.disown(token).is_ok());
    }),
];

/// Operations that tests of their own are about.
const ELSEWHERE: &[&str] = &[
    // The registers, `main.rs`.
    "halt",
    // Below.
    "answer",
    "add_smmu",
    "window_mapped",
];

#[test]
fn what_takes_no_memory_and_waits_for_nothing_does_so_everywhere() {
    for (name, work) in QUIET {
        for ats in KINDS {
            on_world(ats, BOUND, |world, mut hands| {
                let before = counts(world);
                work(world, &mut hands);
                assert_eq!(counts(world), before, "{name} {ats:?}");
                come_to_rest(world, hands, name);
            });
        }
    }
}

/// The names of all operations, out of the sources.
fn all_operations() -> BTreeSet<String> {
    let room = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/space");
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(room).expect("it is there") {
        let path = file.expect("it can be read").path();
        if path.extension().is_none_or(|it| it != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let mut is_iommu = false;
        for (at, line) in text
            .match_indices('\n')
            .map(|(at, _)| (at + 1, &text[at + 1..]))
        {
            let first = line.lines().next().unwrap_or_default();
            if first.starts_with("impl") {
                is_iommu = first.contains(" Iommu<") && !first.contains(" for ");
            }
            let signature = text[at..].strip_prefix("    pub fn ");
            if let Some((name, rest)) = signature.and_then(|it| it.split_once('('))
                && is_iommu
                && rest.trim_start().starts_with("&self")
            {
                names.insert(name.split('<').next().unwrap_or(name).to_owned());
            }
        }
    }
    names
}

#[test]
fn no_operation_is_forgotten() {
    let promised = PROMISES
        .iter()
        .flat_map(|it| it.act.names().iter().copied());
    let quiet = QUIET.iter().map(|(name, _)| *name);
    let known = promised.chain(quiet).chain(ELSEWHERE.iter().copied());
    let known: BTreeSet<_> = known.map(str::to_owned).collect();
    assert_eq!(known, all_operations());
}

#[test]
fn a_claim_and_a_window_take_no_memory_and_wait_for_nothing() {
    on_world(Ats::Off, &[], |world, mut hands| {
        hands.extra = Extra::new(world, Act::AdoptGuest, &hands.page);
        let tables = hands.extra.tables.as_ref().expect("they are made");
        let (guest, wanted) = world
            .iommu
            .adopt_guest(&tables.config())
            .expect("there is room");
        tables.map_window(world.host(), &wanted);
        let before = counts(world);
        assert!(world.iommu.window_mapped(wanted).is_ok());
        assert_eq!(counts(world), before);
        assert_eq!(world.iommu.destroy_guest(guest), Ok(()));
        // Where the SMMU is awaited.
        let iommu = Iommu::new(world.host(), IommuSettings::default()).expect("there is memory");
        let group = iommu.add_group().expect("there is room");
        let streams = [StreamId::new(1)];
        let device = description(&streams);
        let _ = iommu.add_device(group, &device).expect("there is room");
        let before = counts(world);
        let Ok(Acquired::Deferred(claim)) = iommu.acquire(group, Owner::Host) else {
            panic!("no SMMU is there");
        };
        let Ok(Settled::Waiting(claim)) = claim.settle() else {
            panic!("no SMMU is there");
        };
        iommu
            .add_smmu(device.smmu.expect("it is behind one"), world.smmu(SMMU))
            .expect("new");
        let Ok(Settled::Owned(token)) = claim.settle() else {
            panic!("the SMMU is there");
        };
        assert!(iommu.disown(token).is_ok());
        assert_eq!(counts(world), before);
        assert!(iommu.dismantle().is_ok());
        come_to_rest(world, hands, "a claim");
    });
}

/// The host's wait: a device that cannot be reset, for a new owner and for its own.
#[test]
fn when_one_reset_fails_nobody_has_the_device_and_the_next_try_succeeds() {
    on_world(
        Ats::Off,
        &[Op::Disown { device: DEVICE }],
        |world, hands| {
            let (group, device) = (world.group(DEVICE), world.device(DEVICE));
            let owner = Owner::Guest(world.guest(OTHER));
            world.host().jam(DEVICE, true);
            let said = world.iommu.acquire(group, owner).err();
            assert!(
                matches!(said, Some(SpaceError::NotReset { .. })),
                "{said:?}"
            );
            assert_eq!(world.iommu.group_state(group), Ok(GroupState::Unowned));
            assert_eq!(world.iommu.device_state(device), Ok(DeviceState::Fenced));
            assert!(world.reaches(OTHER, OTHER));
            let said = world.iommu.restore(device);
            assert!(matches!(said, Err(SpaceError::NotReset { .. })), "{said:?}");
            world.host().jam(DEVICE, false);
            assert_eq!(world.iommu.restore(device), Ok(()));
            let before = counts(world);
            let Ok(Acquired::Owned(token)) = world.iommu.acquire(group, owner) else {
                panic!("it is free");
            };
            assert_eq!(counts(world), before);
            assert!(world.iommu.disown(token).is_ok());
            come_to_rest(world, hands, "a reset");
        },
    );
}

/// The device that can stall here.
const STALLING: usize = 2;

/// Has a device that can stall, bound to the guest's space, write where nothing is mapped; the guest
/// has read all faults of before.
fn stall_one(world: &mut World<'_>) -> GuestId {
    let group = world.join(&[STALLING], true);
    let (guest, space) = (world.guest(GUEST), world.space(0));
    let device = world.device(STALLING);
    let iommu = &world.iommu;
    assert!(iommu.acquire(group, Owner::Guest(guest)).is_ok());
    assert_eq!(iommu.attach(guest, device, Untagged::Stage2), Ok(()));
    assert!(iommu.bind(guest, space, device, By::Pasid).is_ok());
    let number = iommu
        .pasid_of(guest, space)
        .expect("it has one")
        .pasid
        .as_u32();
    while let Ok(Some(_)) = iommu.next_fault(guest) {}
    assert_eq!(
        world.host().write(STALLING, Some(number), 0x2000_0000),
        None
    );
    guest
}

#[test]
fn an_answer_takes_no_memory_and_waits_for_nothing() {
    for answer in [Answer::Abort, Answer::Retry] {
        on_world(Ats::Off, BOUND, |world, hands| {
            let guest = stall_one(world);
            let iommu = &world.iommu;
            let before = counts(world);
            // The record of it may be on its way, and behind those of what the comparison fired.
            let id = (0..100).find_map(|_| {
                world.host().machine().advance(1);
                iommu.service(u32::MAX);
                let fault = iommu.next_fault(guest).expect("the guest is there");
                fault.and_then(|it| it.id)
            });
            let id = id.expect("it is stalled");
            // A stalled transaction is written down: the first of all takes a page for that.
            assert_eq!(counts(world), (before.0 + 1, before.1), "{answer:?}");
            let before = counts(world);
            assert_eq!(iommu.answer(guest, id, answer), Ok(()));
            assert_eq!(
                iommu.answer(guest, id, answer),
                Err(SpaceError::NoSuchFault)
            );
            assert_eq!(counts(world), before, "{answer:?}");
            come_to_rest(world, hands, "an answer");
        });
    }
}

#[test]
fn a_stall_that_cannot_be_written_down_is_aborted() {
    on_world(Ats::Off, BOUND, |world, hands| {
        let guest = stall_one(world);
        let iommu = &world.iommu;
        let before = world.host().allocations();
        world.host().fail_after(Some(0));
        for _ in 0..100 {
            world.host().machine().advance(1);
            iommu.service(u32::MAX);
        }
        world.host().fail_after(None);
        assert_eq!(world.host().allocations(), before + 1);
        while let Ok(Some(fault)) = iommu.next_fault(guest) {
            assert_eq!(fault.id, None);
        }
        assert_eq!(world.host().machine().smmu(SMMU).stalled(), 0);
        assert!(world.reaches(OTHER, OTHER));
        come_to_rest(world, hands, "a stall");
    });
}
