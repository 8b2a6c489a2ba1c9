//! SMMUs do not wait for each other: one that never answers holds nobody up on another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use portcullis::id::StreamId;
use portcullis::smmu::{CommandError, Smmu};
use portcullis::space::{By, DeviceState, Fence, GuestId, SpaceError, SpaceState};
use portcullis::spec::ste::Untagged;
use portcullis_proof::{Board, Space, Tap, VA, Wanted, World, smmu_id, take_over_for};
use smmu_model::{Faults, Identity, Mode, Settings};

const STREAM: StreamId = StreamId::new(0x110);
const FURTHER: StreamId = StreamId::new(0x111);
/// How long an SMMU has to complete a CMD_SYNC.
const TIMEOUT_US: u64 = 1000;
/// For ever, as far as a test goes.
const EVER_US: u64 = 1 << 60;

fn tap() -> Tap {
    let settings = Settings {
        wait_limit_us: EVER_US,
        ..Settings::new(Identity::full(), Mode::Hoarding)
    };
    Tap::new(&[settings; 2])
}

fn take_both(tap: &Tap, timeout_us: u64) -> [Smmu<'_, Tap>; 2] {
    [0, 1].map(|smmu| take_over_for(tap, smmu, Some(timeout_us)))
}

fn answers(tap: &Tap, smmu: usize, is_true: bool) {
    let faults = Faults {
        sync_never: !is_true,
        ..Faults::default()
    };
    tap.machine().smmu(smmu).set_faults(faults);
}

/// A guest with a device behind each of two SMMUs, and a space for each.
struct Scene<'p> {
    world: World<'p>,
    guest: GuestId,
    boards: [Board<'p>; 2],
    spaces: [Space; 2],
}

impl<'p> Scene<'p> {
    fn new(tap: &'p Tap, smmus: &'p [Smmu<'p, Tap>]) -> Self {
        let mut world = World::new(tap, smmus);
        let guest = world.guest();
        let boards = [0, 1].map(|smmu| world.attached(guest, Wanted::new(smmu, &[STREAM])).0);
        let spaces = [(); 2].map(|()| world.space(guest).0);
        Self {
            world,
            guest,
            boards,
            spaces,
        }
    }

    fn bind(&self, space: usize, board: usize) {
        self.world
            .bind(self.guest, self.spaces[space], &self.boards[board]);
        assert_eq!(self.lands(space, board), Some(self.spaces[space].data));
    }

    fn lands(&self, space: usize, board: usize) -> Option<portcullis::addr::Pa> {
        self.boards[board].guns[0].hits(Some(self.spaces[space].pasid), VA)
    }
}

/// While a release hangs on one SMMU, one on another takes what it always takes, to the last access.
#[test]
fn a_release_beside_one_that_is_never_answered_costs_the_same() {
    let costs = [false, true].map(|hangs| {
        let tap = tap();
        let smmus = take_both(&tap, TIMEOUT_US);
        let scene = Scene::new(&tap, &smmus);
        let (iommu, guest) = (&scene.world.iommu, scene.guest);
        scene.bind(0, 0);
        scene.bind(1, 1);
        answers(&tap, 0, !hangs);
        let pending = iommu.begin_release(guest, scene.spaces[0].id);
        let pending = pending.expect("submitted");
        let before_us = tap.machine().record().now_us();
        let (counts, released) = tap.count(|| iommu.release(guest, scene.spaces[1].id));
        assert_eq!(released, Ok(()));
        assert_eq!(scene.lands(1, 1), None);
        let took_us = tap.machine().record().now_us() - before_us;
        match (hangs, pending.finish()) {
            (false, outcome) => assert_eq!(outcome, Ok(())),
            (true, Err(SpaceError::NotConfirmed { smmu, error, .. })) => {
                assert_eq!(smmu, smmu_id(0));
                assert_eq!(
                    error,
                    CommandError::SyncTimeout {
                        waited_us: TIMEOUT_US
                    }
                );
            }
            (true, outcome) => panic!("{outcome:?}"),
        }
        assert_eq!(scene.lands(0, 0), None);
        scene.world.expect_clean();
        (counts, took_us)
    });
    assert_eq!(costs[0], costs[1]);
    assert_eq!(costs[0].0.syncs, 2);
}

/// One space on both: what the one that answers has to do is done, and confirmed, before the other
/// is given up.
#[test]
fn the_part_of_a_release_that_is_answered_does_not_wait_for_the_rest() {
    let tap = tap();
    let smmus = take_both(&tap, TIMEOUT_US);
    let scene = Scene::new(&tap, &smmus);
    let (iommu, guest) = (&scene.world.iommu, scene.guest);
    scene.bind(0, 0);
    scene.bind(0, 1);
    answers(&tap, 0, false);
    let before = tap.machine().smmu(1).syncs();
    let from_us = tap.machine().record().now_us();
    let pending = iommu.begin_release(guest, scene.spaces[0].id);
    let pending = pending.expect("submitted");
    let took_us = tap.machine().record().now_us() - from_us;
    assert!(
        took_us < TIMEOUT_US,
        "both are submitted to, without a wait"
    );
    // The silent one comes first, and nobody has waited yet: time alone brings the answers.
    for _ in 0..20 {
        tap.machine().advance(1);
    }
    assert_eq!(tap.machine().smmu(1).syncs() - before, 2);
    let from_us = tap.machine().record().now_us();
    let outcome = pending.finish();
    // The devices behind it are stopped by their streams or by the gate, which are not confirmed by
    // that queue either: what is true is told.
    let Err(SpaceError::NotConfirmed { smmu, fence, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!((smmu, fence), (smmu_id(0), Fence::Smmu));
    assert!(tap.machine().record().now_us() - from_us < 20 * TIMEOUT_US);
    assert_eq!([scene.lands(0, 0), scene.lands(0, 1)], [None, None]);
    assert_eq!(
        iommu.space_state(guest, scene.spaces[0].id),
        Ok(SpaceState::Parked)
    );
    // What is behind the other goes on.
    let state = iommu.device_state(scene.boards[1].id);
    assert_eq!(state, Ok(DeviceState::Attached(guest)));
    scene.bind(1, 1);
    scene.world.expect_clean();
}

/// One CPU waits on an SMMU that does not answer, for as long as it takes; another does all there is
/// to do on the other SMMU, for the same guest, meanwhile.
#[test]
fn another_cpu_goes_on_while_one_waits() {
    let tap = tap();
    let smmus = take_both(&tap, EVER_US);
    let mut scene = Scene::new(&tap, &smmus);
    scene.bind(0, 0);
    scene.bind(1, 1);
    let other = scene.world.guest();
    let group = scene.world.group();
    let late = scene.world.device(group, Wanted::new(1, &[FURTHER]));
    let _token = scene.world.own(other, group);
    let (others, _) = scene.world.space(other);
    answers(&tap, 0, false);
    let (is_released, is_done) = (AtomicBool::new(false), AtomicBool::new(false));
    let [hangs, goes] = scene.spaces;
    let (iommu, guest) = (&scene.world.iommu, scene.guest);
    let told = || tap.machine().smmu(0).read32(0x98);
    let before = told();
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let outcome = iommu.release(guest, hangs.id);
            is_released.store(true, Ordering::SeqCst);
            outcome
        });
        while told() == before {
            thread::yield_now();
        }
        let works = scope.spawn(|| {
            iommu.release(guest, goes.id)?;
            iommu.attach(other, late.id, Untagged::Abort)?;
            let handle = iommu.bind(other, others.id, late.id, By::Pasid)?;
            iommu.unbind(other, handle)?;
            iommu.destroy_guest(other)?;
            is_done.store(true, Ordering::SeqCst);
            Ok::<(), SpaceError>(())
        });
        // A lock held across the wait would hang for ever: the fault is lifted in the end.
        let until = Instant::now() + Duration::from_secs(60);
        while !works.is_finished() && Instant::now() < until {
            thread::yield_now();
        }
        let (was_done, was_released) = (
            is_done.load(Ordering::SeqCst),
            is_released.load(Ordering::SeqCst),
        );
        answers(&tap, 0, true);
        assert_eq!(works.join().expect("no panic"), Ok(()));
        assert!(was_done, "it went on only when the other SMMU answered");
        assert!(!was_released, "the other one still waits");
        assert_eq!(waits.join().expect("no panic"), Ok(()));
    });
    assert_eq!(scene.lands(0, 0), None);
    assert_eq!(scene.lands(1, 1), None);
    scene.world.expect_clean();
}
