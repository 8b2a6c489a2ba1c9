//! Transactions are stalled on page faults when the space is released.

use portcullis::space::{Answer, SpaceError};
use smmu_model::{Faults, Fetch};

use crate::{Configuration, Ends, HOLE, Story, World};

pub(super) const STORY: Story = Story::new(
    "stalled-when-killed",
    "transactions are stalled when their space is released: read of, unread, and not yet written",
    play,
)
.only(
    Configuration::has_stalls,
    "nothing waits where nothing stalls",
);

/// `RESUME`.
const RESUME: u8 = 0x44;

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    let process = world.process(&guest);
    let number = world
        .iommu
        .pasid_of(guest.id, process.space)
        .expect("it lives");
    let handle = world.bind(&process, &device);
    let stall = || {
        let ends = world.shoot(&device, Some(process.pasid), HOLE);
        assert_eq!(ends, Ends::Stalled);
    };
    let answers = world.stage.sent(RESUME);
    // One of which the guest has read, one that only EL2 has, one that still lies in the queue, and
    // one that could not be written.
    stall();
    world.pass(10);
    let read = world.faults(&guest);
    let [fault] = read[..] else {
        panic!("one: {read:?}");
    };
    let id = fault.id.expect("it waits for an answer");
    assert_eq!(fault.pasid, Some(number));
    stall();
    world.pass(10);
    stall();
    world.set_faults(
        0,
        Faults {
            event_queue_full: true,
            ..Faults::default()
        },
    );
    stall();
    world.cure(0);
    assert_eq!(device.pending(), 4);

    world.release(&process);
    // What is told to end may take a little for it (§4.6.1), as may the SMMU until it reads of it, and
    // goes nowhere meanwhile.
    for _ in 0..40 {
        world.pass(100);
        world.settle();
    }
    assert_eq!(
        (device.pending(), device.aborted()),
        (0, 4),
        "each has ended, and none landed"
    );
    assert_eq!(device.landed(), 0);
    let answered = world.stage.sent(RESUME) - answers;
    // What could not be written may end without a record, by the CD that is quiet now.
    assert!(
        (3..=4).contains(&answered),
        "each record is answered once: {answered}"
    );
    let late = world.iommu.answer(guest.id, id, Answer::Retry);
    assert_eq!(late, Err(SpaceError::NoSuchFault), "it was answered");
    assert_eq!(world.iommu.counts(guest.id).expect("it runs").stalls, 0);

    world.close(&guest, handle);
    world.faults(&guest);
    world.becomes_free(&process);
    let heir = world.process(&guest);
    assert_eq!(heir.pasid, process.pasid);
    world.bind(&heir, &device);
    world.reaches(&device, &heir);
    let told = world.faults(&guest);
    assert!(told.is_empty(), "none is the heir's: {told:?}");

    // Records are lost with the queue: nobody can answer by name, so the stream is stopped.
    world.set_faults(
        0,
        Faults {
            aborts: vec![Fetch::Event],
            ..Faults::default()
        },
    );
    let other = world.device(&guest);
    world.bind(&heir, &other);
    assert_eq!(world.shoot(&other, Some(heir.pasid), HOLE), Ends::Stalled);
    world.pass(100);
    world.cure(0);
    for _ in 0..40 {
        world.pass(100);
        world.settle();
    }
    assert!(world.is_fenced(&other));
    assert_eq!((other.pending(), other.landed()), (0, 0));
    world.blocked(&other, &heir);
}
