//! Guest A floods the event queue and holds its stalls.

use portcullis::space::{Answer, GuestConfig, Quota};

use crate::{Configuration, Ends, HOLE, Story, World};

pub(super) const STORY: Story = Story::new(
    "storm",
    "one guest floods the event queue and holds its stalls; another's faults still arrive",
    play,
)
.only(
    Configuration::has_stalls,
    "nothing is held where nothing stalls",
);

/// Stalls that a guest may hold.
const SHARE: u32 = 4;
/// Shots of the flood; the SMMU holds 32 records at a time.
const FLOOD: u64 = 100;
/// How often EL2 serves the queue before the other guest must have its fault.
const BOUND: u32 = 40;

fn play(world: &World<'_>) {
    let config = GuestConfig {
        quota: Quota {
            stalls: SHARE,
            ..Quota::default()
        },
        ..world.guest_config()
    };
    let (loud, quiet) = (world.guest_with(&config), world.guest_with(&config));
    let (theirs, ours) = (world.device(&loud), world.device(&quiet));
    let (flooder, victim) = (world.process(&loud), world.process(&quiet));
    world.bind(&flooder, &theirs);
    world.bind(&victim, &ours);

    for shot in 0..FLOOD {
        let ends = world.shoot(&theirs, Some(flooder.pasid), HOLE + (shot << 3));
        assert_eq!(ends, Ends::Stalled);
    }
    let ends = world.shoot(&ours, Some(victim.pasid), HOLE);
    assert_eq!(ends, Ends::Stalled);

    // It is heard of within the bound, whatever the other holds.
    let mut turns = 0;
    let fault = loop {
        turns += 1;
        assert!(turns <= BOUND, "it is not heard of");
        world.pass(100);
        let counts = world.iommu.counts(loud.id).expect("it runs");
        assert!(counts.stalls <= SHARE, "it holds {}", counts.stalls);
        if let Some(fault) = world.fault(&quiet) {
            break fault;
        }
    };
    world.map(&victim, HOLE, victim.spare, |descriptor| descriptor);
    let id = fault.id.expect("it waits for an answer");
    world
        .iommu
        .answer(quiet.id, id, Answer::Retry)
        .expect("it goes on");
    for _ in 0..40 {
        world.pass(100);
        world.settle();
    }
    assert_eq!((ours.pending(), ours.landed()), (0, 1), "it went through");
    assert_eq!(
        world.shoot(&ours, Some(victim.pasid), HOLE),
        Ends::Landed(victim.spare)
    );

    // The loud one was limited: what was beyond its share has been aborted, and what it never
    // answers is, when its time is up.
    for _ in 0..BOUND {
        world.pass(100);
        world.settle();
    }
    assert!(
        u64::from(theirs.aborted()) >= FLOOD - u64::from(SHARE),
        "{}",
        theirs.aborted()
    );
    assert_eq!(theirs.landed(), 0);
    let told = world.faults(&loud).len() as u64;
    let lost = world.iommu.lost_faults(loud.id).expect("it runs");
    assert!(
        told != 0 && told + lost <= FLOOD,
        "{told} were told, {lost} lost"
    );
    // What had no record until now has its own time, from its record on.
    for _ in 0..BOUND {
        world.pass(crate::world::DEADLINE_US);
        world.settle();
    }
    assert_eq!(theirs.pending(), 0);
    assert_eq!(u64::from(theirs.aborted()), FLOOD);
    assert_eq!(world.iommu.counts(loud.id).expect("it runs").stalls, 0);
}
