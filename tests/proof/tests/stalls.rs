//! Stalled transactions: a guest's share of them.

use portcullis::id::StreamId;
use portcullis::space::{Answer, GuestConfig, GuestId, Quota};
use portcullis_proof::{Board, Tap, VA, Wanted, World, config, take_over};
use smmu_model::{Identity, Mode, Settings};

/// What became of transactions that were stalled reaches the device that had issued them.
fn settle(tap: &Tap, boards: &[&Board<'_>]) {
    for _ in 0..8 {
        tap.machine().advance(100);
        for finished in tap.machine().smmu(0).take_finished() {
            for board in boards {
                board.guns[0].device().finish(&finished);
            }
        }
    }
}

/// A guest holds as many stalled transactions as it may; what is beyond that is aborted at once, and
/// another guest does not feel it.
#[test]
fn stalls_beyond_the_share_of_a_guest_are_aborted_and_nobody_elses() {
    const SHARE: u32 = 2;
    const MORE: u32 = 3;
    let settings = Settings::new(Identity::full(), Mode::Polite);
    let tap = Tap::new(&[settings]);
    let smmus = [take_over(&tap, 0)];
    let mut world = World::new(&tap, &smmus);
    let config = GuestConfig {
        quota: Quota {
            stalls: SHARE,
            ..Quota::default()
        },
        ..config()
    };
    let streams = [0x110, 0x111].map(StreamId::new);
    let [loud, quiet] = streams.map(|stream| {
        let guest = world.iommu.create_guest(&config).expect("a guest");
        let wanted = Wanted {
            can_stall: true,
            ..Wanted::new(0, std::slice::from_ref(&stream))
        };
        let (board, _) = world.attached(guest, wanted);
        let (space, _) = world.space(guest);
        world.bind(guest, space, &board);
        (guest, board, space.pasid)
    });
    let hole = VA + 0x1000;
    let shoot = |(_, board, pasid): &(GuestId, Board<'_>, u32)| {
        assert_eq!(board.guns[0].hits(Some(*pasid), hole), None);
    };
    let iommu = &world.iommu;
    let held = |guest| iommu.counts(guest).expect("it runs").stalls;
    let serve = || {
        iommu.service(100);
        settle(&tap, &[&loud.1, &quiet.1]);
    };
    (0..SHARE + MORE).for_each(|_| shoot(&loud));
    (0..SHARE).for_each(|_| shoot(&quiet));
    serve();
    assert_eq!([held(loud.0), held(quiet.0)], [SHARE; 2]);
    assert_eq!(loud.1.guns[0].ends(), [SHARE, MORE, 0]);
    assert_eq!(quiet.1.guns[0].ends(), [SHARE, 0, 0]);
    // It is told of all of them, and what it may answer.
    let faults: Vec<_> =
        std::iter::from_fn(|| iommu.next_fault(loud.0).expect("it runs")).collect();
    let ids: Vec<_> = faults.iter().filter_map(|fault| fault.id).collect();
    assert_eq!(faults.len(), (SHARE + MORE) as usize);
    assert_eq!(ids.len(), SHARE as usize);
    // What was answered makes room for one, and not for two.
    iommu.answer(loud.0, ids[0], Answer::Abort).expect("taken");
    (0..2).for_each(|_| shoot(&loud));
    serve();
    assert_eq!([held(loud.0), held(quiet.0)], [SHARE; 2]);
    assert_eq!(loud.1.guns[0].ends(), [SHARE, MORE + 2, 0]);
    assert_eq!(quiet.1.guns[0].ends(), [SHARE, 0, 0]);
    world.expect_clean();
}
