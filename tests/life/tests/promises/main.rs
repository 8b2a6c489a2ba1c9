//! Kept promises: each allocation and each hardware wait of each operation fails once, alone.
//!
//! Guest 0 does the operation, with device 0; guest 1 has device 1 behind the same SMMU, and notices
//! nothing. How many allocations and waits there are is exact.

use std::cell::Cell;

use portcullis::addr::Ipa;
use portcullis::hw::{DeviceTag, Frames, Platform};
use portcullis::id::StreamId;
use portcullis::space::stage2::PageSizes;
use portcullis::space::{DeviceDescription, Fence, GuestLife, ResetPolicy, SmmuId, SpaceError};
use portcullis::spec::ste::Ats;
use portcullis::spec::vmsa::{Attributes, Permissions};
use portcullis_life::operation::Op;
use portcullis_life::reference::{Reference, Shape};
use portcullis_life::world::{Machine, World, guest_config, with_world};
use smmu_model::{Faults, Identity, Mode, Rule};

const GUEST: usize = 0;
const DEVICE: usize = 0;
const OTHER: usize = 1;
const SMMU: usize = 0;
/// Where nothing is mapped, and where the guest's own page is.
const EMPTY: Ipa = Ipa::new(0x2_0000_0000);
const DATA: Ipa = Ipa::new(0x4_0000_0000);

const CREATE_GUEST: Op = Op::CreateGuest { guest: GUEST };
const ACQUIRE: Op = Op::Acquire {
    guest: GUEST,
    device: DEVICE,
};
const ATTACH: Op = Op::Attach {
    guest: GUEST,
    device: DEVICE,
    stage2: true,
};
const CREATE: Op = Op::CreateSpace {
    guest: GUEST,
    space: 0,
};
const BIND: Op = bind(false);
const WHOLE: Op = bind(true);

const fn bind(whole: bool) -> Op {
    Op::Bind {
        guest: GUEST,
        space: 0,
        device: DEVICE,
        whole,
    }
}

/// What is done.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// An operation that the reference knows.
    Do(Op),
    /// A guest is made, and goes again.
    MakeGuest,
    /// A group is made, and gets a device, which is removed again.
    AddDevice,
    /// The device goes for ever.
    RemoveDevice,
    Map,
    Unmap,
    Protect,
    Tidy,
}

/// What no device reaches afterwards, whatever was confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Nothing,
    /// The space, from the device.
    Space,
    /// All, from the device.
    All,
}

struct Promise {
    act: Act,
    /// What is done before, when guest 0 is there and owns its device.
    before: &'static [Op],
    taken: Taken,
    /// Allocations and CMD_SYNCs, without ATS and with.
    counts: [(u64, u64); 2],
}

const fn promise(
    act: Act,
    before: &'static [Op],
    taken: Taken,
    counts: [(u64, u64); 2],
) -> Promise {
    Promise {
        act,
        before,
        taken,
        counts,
    }
}

const UNBIND: Op = Op::Unbind {
    guest: GUEST,
    handle: 1,
};
const RELEASE: Op = Op::Release {
    guest: GUEST,
    space: 0,
};
const BOUND: &[Op] = &[ATTACH, CREATE, BIND];
const BOUND_WHOLE: &[Op] = &[ATTACH, CREATE, WHOLE];

const PROMISES: &[Promise] = &[
    promise(Act::MakeGuest, &[], Taken::Nothing, [(5, 0), (5, 0)]),
    promise(Act::AddDevice, &[], Taken::Nothing, [(0, 0), (0, 0)]),
    promise(Act::Map, BOUND, Taken::Nothing, [(2, 0), (2, 0)]),
    promise(
        Act::Do(ACQUIRE),
        &[Op::Disown { device: DEVICE }],
        Taken::Nothing,
        [(0, 0), (0, 0)],
    ),
    promise(Act::Do(ATTACH), &[], Taken::Nothing, [(4, 2), (4, 2)]),
    promise(Act::Do(CREATE), &[ATTACH], Taken::Nothing, [(3, 0), (3, 0)]),
    promise(
        Act::Do(BIND),
        &[ATTACH, CREATE],
        Taken::Nothing,
        [(0, 2), (0, 2)],
    ),
    promise(Act::Do(BIND), BOUND, Taken::Nothing, [(0, 0), (0, 0)]),
    promise(
        Act::Do(WHOLE),
        &[ATTACH, CREATE],
        Taken::Nothing,
        [(2, 1), (2, 2)],
    ),
    promise(Act::Do(UNBIND), BOUND, Taken::Space, [(0, 1), (0, 2)]),
    promise(
        Act::Do(UNBIND),
        &[ATTACH, CREATE, BIND, RELEASE],
        Taken::Space,
        [(0, 1), (0, 1)],
    ),
    promise(Act::Do(UNBIND), BOUND_WHOLE, Taken::All, [(0, 1), (0, 2)]),
    promise(Act::Do(RELEASE), BOUND, Taken::Space, [(0, 2), (0, 3)]),
    promise(Act::Do(RELEASE), BOUND_WHOLE, Taken::All, [(0, 2), (0, 3)]),
    promise(
        Act::Do(Op::ReleaseAll { guest: GUEST }),
        BOUND,
        Taken::Space,
        [(0, 3), (0, 4)],
    ),
    promise(
        Act::Do(Op::ReleaseAll { guest: GUEST }),
        BOUND_WHOLE,
        Taken::All,
        [(0, 3), (0, 5)],
    ),
    promise(
        Act::Do(Op::Invalidate {
            guest: GUEST,
            space: 0,
        }),
        BOUND,
        Taken::Nothing,
        [(0, 1), (0, 2)],
    ),
    promise(Act::Unmap, BOUND, Taken::Nothing, [(0, 2), (0, 3)]),
    promise(Act::Protect, BOUND, Taken::Nothing, [(0, 2), (0, 3)]),
    promise(
        Act::Do(Op::Detach {
            guest: GUEST,
            device: DEVICE,
        }),
        &[ATTACH],
        Taken::All,
        [(0, 1), (0, 2)],
    ),
    promise(
        Act::Tidy,
        &[
            ATTACH,
            Op::Detach {
                guest: GUEST,
                device: DEVICE,
            },
        ],
        Taken::All,
        [(0, 2), (0, 2)],
    ),
    promise(
        Act::Do(Op::Reset {
            guest: GUEST,
            device: DEVICE,
        }),
        BOUND,
        Taken::Nothing,
        [(0, 0), (0, 0)],
    ),
    promise(Act::RemoveDevice, BOUND, Taken::All, [(0, 1), (0, 1)]),
    promise(
        Act::Do(Op::DestroyGuest { guest: GUEST }),
        BOUND,
        Taken::All,
        [(0, 2), (0, 3)],
    ),
    promise(
        Act::Do(Op::Recover { smmu: SMMU }),
        BOUND,
        Taken::Nothing,
        [(0, 2), (0, 2)],
    ),
];

/// The page that is mapped, or unmapped, by hand.
struct Hands {
    page: Frames,
    reference: Reference,
    is_removed: Cell<bool>,
}

impl Act {
    fn go(self, world: &mut World<'_>, hands: &Hands) -> Result<(), SpaceError> {
        let guest = world.guest(GUEST);
        let iommu = &world.iommu;
        let (at, bytes) = (hands.page.base(), hands.page.size_bytes());
        match self {
            Self::Do(op) => world.apply(op, &hands.reference),
            Self::MakeGuest => {
                let made = iommu.create_guest(&guest_config())?;
                iommu.destroy_guest(made)
            }
            Self::AddDevice => {
                let group = iommu.add_group()?;
                let description = DeviceDescription {
                    tag: DeviceTag(DEVICE as u64),
                    smmu: SmmuId::new(SMMU as u8),
                    streams: &[StreamId::new(1), StreamId::new(2)],
                    pasid_bits: 16,
                    can_stall: false,
                    ats: Ats::Off,
                    reset: ResetPolicy::Needed,
                };
                let device = iommu.add_device(group, &description)?;
                iommu.remove_device(device)
            }
            Self::RemoveDevice => {
                let removed = iommu.remove_device(world.device(DEVICE));
                hands.is_removed.set(removed.is_ok());
                removed
            }
            Self::Map => {
                let sizes = PageSizes::PagesOnly;
                iommu.map(guest, EMPTY, at, bytes, Attributes::MEMORY, sizes)
            }
            Self::Unmap => iommu.unmap(guest, DATA, 0x1000),
            Self::Protect => iommu.protect(guest, DATA, 0x1000, Permissions::READ_ONLY),
            Self::Tidy => iommu.tidy(guest),
        }
    }
}

fn ready(before: &[Op]) -> Vec<Op> {
    let other = [
        Op::CreateGuest { guest: OTHER },
        Op::Acquire {
            guest: OTHER,
            device: OTHER,
        },
        Op::Attach {
            guest: OTHER,
            device: OTHER,
            stage2: true,
        },
        Op::CreateSpace {
            guest: OTHER,
            space: OTHER,
        },
        Op::Bind {
            guest: OTHER,
            space: OTHER,
            device: OTHER,
            whole: false,
        },
    ];
    [&other, [CREATE_GUEST, ACQUIRE].as_slice(), before].concat()
}

fn on_world(ats: Ats, before: &[Op], work: impl for<'p> FnOnce(&mut World<'p>, Hands)) {
    let shape = Shape {
        smmus: 1,
        devices: vec![0, 0],
        ats,
        guests: 2,
        spaces: 2,
        handles: 4,
        has_ports: true,
    };
    let machine = Machine {
        identity: Identity::full(),
        mode: Mode::Hoarding,
    };
    with_world(&shape, machine, |world| {
        let mut reference = Reference::new(shape.clone());
        for op in ready(before) {
            world.step(op, &mut reference).expect("nothing fails yet");
        }
        let page = world.host().allocate(12).expect("there is memory");
        let is_removed = Cell::new(false);
        work(
            world,
            Hands {
                page,
                reference,
                is_removed,
            },
        );
    });
}

/// All is given back, and everything can be done anew, in the same world.
fn come_to_rest(world: &mut World<'_>, hands: Hands, what: &str) {
    let iommu = &world.iommu;
    let smmu = SmmuId::new(SMMU as u8).expect("below 16");
    assert_eq!(iommu.recover(smmu), Ok(()), "{what}");
    let restore_all = || {
        for device in [DEVICE, OTHER] {
            if device == OTHER || !hands.is_removed.get() {
                assert_eq!(iommu.restore(world.device(device)), Ok(()), "{what}");
            }
        }
    };
    restore_all();
    for guest in [GUEST, OTHER].map(|guest| world.guest(guest)) {
        let ended = iommu.destroy_guest(guest);
        let is_over = matches!(ended, Ok(()) | Err(SpaceError::NoSuchGuest));
        assert!(is_over, "{what}: {ended:?}");
    }
    // For whoever comes next, now that they are nobody's.
    restore_all();
    world.host().free(hands.page);
    if hands.is_removed.get() {
        world.bury();
        return;
    }
    let again = [
        CREATE_GUEST,
        ACQUIRE,
        ATTACH,
        CREATE,
        BIND,
        RELEASE,
        Op::Unbind {
            guest: GUEST,
            handle: 0,
        },
    ];
    assert_eq!(world.live_again(&again), Ok(()), "{what}");
}

fn counts(world: &World<'_>) -> (u64, u64) {
    let syncs = world.host().machine().smmu(SMMU).syncs();
    (world.host().allocations(), syncs)
}

const KINDS: [Ats; 2] = [Ats::Off, Ats::Split];

#[test]
fn each_operation_asks_for_so_much_memory_and_waits_so_often() {
    let mut differ = Vec::new();
    for promise in PROMISES {
        let found = KINDS.map(|ats| {
            let mut found = (0, 0);
            on_world(ats, promise.before, |world, hands| {
                let before = counts(world);
                let said = promise.act.go(world, &hands);
                assert_eq!(said, Ok(()), "{:?}", promise.act);
                let after = counts(world);
                found = (after.0 - before.0, after.1 - before.1);
                come_to_rest(world, hands, "nothing failed");
            });
            found
        });
        if found != promise.counts {
            differ.push((promise.act, promise.before.len(), found));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
fn when_one_allocation_fails_nothing_is_changed_and_the_next_try_succeeds() {
    for promise in PROMISES {
        for (ats, (allocations, _)) in KINDS.into_iter().zip(promise.counts) {
            for number in 0..allocations {
                let what = format!("{:?} {ats:?}, allocation {number}", promise.act);
                on_world(ats, promise.before, |world, mut hands| {
                    world.host().fail_after(Some(number));
                    let said = promise.act.go(world, &hands);
                    world.host().fail_after(None);
                    let is_told = matches!(said, Err(SpaceError::NoFrames { .. }));
                    assert!(is_told, "{what}: {said:?}");
                    assert_eq!(world.compare(&hands.reference), Ok(()), "{what}");
                    let again = promise.act.go(world, &hands);
                    assert_eq!(again, Ok(()), "{what}");
                    if let Act::Do(op) = promise.act {
                        hands.reference.apply(op);
                        assert_eq!(world.compare(&hands.reference), Ok(()), "{what}");
                    }
                    come_to_rest(world, hands, &what);
                });
            }
        }
    }
}

#[test]
fn when_one_sync_never_completes_it_is_told_and_fenced_and_others_go_on() {
    for promise in PROMISES {
        for (ats, (_, syncs)) in KINDS.into_iter().zip(promise.counts) {
            for number in 0..syncs {
                let what = format!("{:?} {ats:?}, SYNC {number}", promise.act);
                println!("{what}");
                on_world(ats, promise.before, |world, hands| {
                    world.set_faults(
                        SMMU,
                        Faults {
                            sync_never: true,
                            sync_skip: number as u32,
                            ..Faults::default()
                        },
                    );
                    let said = promise.act.go(world, &hands);
                    expect_told(promise.act, said, &what);
                    let is_taken = |world: &World<'_>| match promise.taken {
                        Taken::Nothing => true,
                        Taken::Space => !world.reaches(DEVICE, 0),
                        Taken::All => {
                            !world.reaches(DEVICE, 0) && !world.reaches_data(DEVICE, GUEST)
                        }
                    };
                    assert!(is_taken(world), "{what}");
                    assert!(world.reaches(OTHER, OTHER), "{what}");
                    world.set_faults(SMMU, Faults::default());
                    // What completes late changes nothing by itself.
                    assert!(is_taken(world), "{what}");
                    assert!(world.reaches(OTHER, OTHER), "{what}");
                    assert_eq!(
                        world.iommu.life_of(world.guest(OTHER)),
                        Ok(GuestLife::Running)
                    );
                    come_to_rest(world, hands, &what);
                });
            }
        }
    }
}

/// Everything says that it was not confirmed, and how it was fenced.
fn expect_told(act: Act, said: Result<(), SpaceError>, what: &str) {
    match (act, said) {
        (Act::Do(Op::Recover { .. }), Err(SpaceError::NotRecovered { .. })) => {}
        (_, Err(SpaceError::NotConfirmed { fence, .. })) if fence != Fence::Failed => {}
        (_, said) => panic!("{what}: {said:?}"),
    }
}

/// GBPA.Update, and each of the four enables in CR0ACK: of a halt, and of the recovery behind it.
#[test]
fn when_one_register_does_not_answer_it_is_told_and_asking_again_helps() {
    const LATE_US: u64 = 300_000;
    let smmu = SmmuId::new(SMMU as u8).expect("below 16");
    for (is_recovery, waits) in [(false, 5), (true, 5)] {
        let mut told = 0;
        for number in 0..12 {
            let what = format!("recovery: {is_recovery}, wait {number}");
            on_world(Ats::Off, BOUND, |world, hands| {
                if is_recovery {
                    assert_eq!(world.iommu.halt(smmu), Ok(Fence::Smmu));
                }
                world.set_faults(
                    SMMU,
                    Faults {
                        acknowledge_once_late: Some((number, LATE_US)),
                        ..Faults::default()
                    },
                );
                // Who closes the gate after all writes over what was not acknowledged (§6.2.1).
                world.bear(Rule::ChangedDuringUpdate);
                let iommu = &world.iommu;
                let is_told = if is_recovery {
                    let said = iommu.recover(smmu);
                    assert!(
                        matches!(said, Ok(()) | Err(SpaceError::NotRecovered { .. })),
                        "{what}"
                    );
                    said.is_err()
                } else {
                    let fence = iommu.halt(smmu).expect("it is there");
                    // All ports are closed instead.
                    assert!(
                        matches!(fence, Fence::Smmu | Fence::Port),
                        "{what}: {fence}"
                    );
                    fence == Fence::Port
                };
                told += u32::from(is_told);
                assert_eq!(
                    world.reaches(OTHER, OTHER),
                    is_recovery && !is_told,
                    "{what}"
                );
                assert_eq!(world.reaches(DEVICE, 0), is_recovery && !is_told, "{what}");
                world.host().machine().advance(LATE_US);
                world.set_faults(SMMU, Faults::default());
                come_to_rest(world, hands, &what);
            });
        }
        assert_eq!(told, waits, "recovery: {is_recovery}");
    }
}
