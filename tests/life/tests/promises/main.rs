//! Kept promises: each allocation and each hardware wait of each operation fails once, alone.
//!
//! Guest 0 does the operation, with device 0; guest 1 has device 1 behind the same SMMU, and notices
//! nothing. How many allocations and waits there are is exact.

mod act;
mod extra;
mod quiet;
mod table;

use std::cell::Cell;

use portcullis::addr::Ipa;
use portcullis::hw::Platform;
use portcullis::space::{Fence, GuestLife, SmmuId, SpaceError};
use portcullis::spec::ste::Ats;
use portcullis_life::operation::Op;
use portcullis_life::reference::{Reference, Shape};
use portcullis_life::world::{Machine, World, with_world};
use smmu_model::{Faults, Identity, Mode, Rule};

use act::{Act, Hands};
use extra::Extra;
use table::{BOUND, PROMISES, Promise, RELEASE, Taken};

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

impl Promise {
    /// Has `work` done where all that the act needs is there.
    fn on_world(&self, ats: Ats, work: impl for<'p> FnOnce(&mut World<'p>, Hands)) {
        on_world(ats, self.before, |world, mut hands| {
            hands.extra = Extra::new(world, self.act, &hands.page);
            work(world, hands);
        });
    }
}

fn on_world(ats: Ats, before: &[Op], work: impl for<'p> FnOnce(&mut World<'p>, Hands)) {
    let shape = Shape {
        smmus: 1,
        // The last two are for a group.
        devices: vec![0; 4],
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
                extra: Extra::default(),
            },
        );
    });
}

/// All is given back, and everything can be done anew, in the same world.
fn come_to_rest(world: &mut World<'_>, mut hands: Hands, what: &str) {
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
    hands.extra.restore(world, what);
    for guest in [GUEST, OTHER].map(|guest| world.guest(guest)) {
        let ended = iommu.destroy_guest(guest);
        let is_over = matches!(ended, Ok(()) | Err(SpaceError::NoSuchGuest));
        assert!(is_over, "{what}: {ended:?}");
    }
    hands.extra.end(world, what);
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
            promise.on_world(ats, |world, hands| {
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
                promise.on_world(ats, |world, mut hands| {
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
                promise.on_world(ats, |world, hands| {
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
                    let extra = &hands.extra;
                    let is_taken = |world: &World<'_>| match promise.taken {
                        Taken::Nothing => true,
                        Taken::Space => !world.reaches(DEVICE, 0),
                        Taken::Group => !extra.reaches(world),
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
        // Nobody is there to be told: the books say it.
        (Act::DropRelease, Ok(())) => {}
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
