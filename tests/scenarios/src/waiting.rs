//! What is not held while a CPU waits for an SMMU that never answers.

use std::sync::Mutex;

use crate::schedule::{Order, Points, Task};
use crate::{Story, World};

/// A release on one SMMU, while another SMMU never answers.
pub(crate) const RELEASE_BESIDE_SILENCE: Story = Story::new(
    "release-beside-silence",
    "a release on one SMMU is not delayed by another SMMU that never answers",
    release_beside_silence,
)
.only(|it| it.smmus > 1, "one SMMU is silent, and another not")
.with_bytes(12 << 20);

/// Everything else that others may do, while a CPU waits for one SMMU.
pub(crate) const OTHERS_GO_ON: Story = Story::new(
    "others-go-on",
    "while a CPU waits for an SMMU, others work on what is not its object",
    others_go_on,
)
.only(|it| it.smmus > 1, "one SMMU is silent, and another not")
.with_bytes(12 << 20);

/// How long a turn is: the CPU that waits has hundreds of them before its time is up.
const TURN_US: u64 = 20;
/// More turns than who is not delayed takes, for a dozen SYNCs and a few locks.
const NOT_DELAYED: u64 = 60;
/// Fewer turns than who waits in vain takes.
const IN_VAIN: u64 = 100;

/// Cuts in at each point of a call that waits in vain, each time in a scene made anew: who cuts in
/// is not delayed. `scene` gets what runs its two tasks, the one in vain first.
fn is_not_delayed(world: &World<'_>, scene: impl Fn(&dyn Fn(Task<'_>, Task<'_>))) {
    let mut at = 0;
    loop {
        let counted = Mutex::new(Points::default());
        scene(&|waits, goes_on| {
            world.stage.set_turn_us(TURN_US);
            let tasks = vec![waits, goes_on];
            let points = world.stage.schedule.race(&Order::CutIn(at), tasks);
            *counted.lock().expect("whole") = points;
        });
        let Points { first, waits } = counted.into_inner().expect("whole");
        assert!(
            waits[0] > IN_VAIN,
            "cut in at {at}: it waited {} turns",
            waits[0]
        );
        assert!(
            waits[1] < NOT_DELAYED,
            "cut in at {at}: it was delayed {} turns",
            waits[1]
        );
        // Its turns of waiting are all alike.
        at += if at < first / 8 { 1 } else { 16 };
        if at >= first {
            break;
        }
    }
}

fn release_beside_silence(world: &World<'_>) {
    world.stage.set_ports(true);
    let (here, there) = (world.guest(), world.guest());
    let (silent, healthy) = (
        world.spare_device(world.usual()),
        world.device_on(&there, 1),
    );
    is_not_delayed(world, |race| {
        let guest = world.guest();
        // It goes with the guest.
        let _token = world.acquire(&silent, &guest);
        world.attach(&silent, &guest);
        let (stuck, free) = (world.process(&guest), world.process(&there));
        world.bind(&stuck, &silent);
        let handle = world.bind(&free, &healthy);
        world.reaches(&healthy, &free);
        world.silence(0);
        let waits: Task<'_> = Box::new(|| {
            world.try_release(&stuck).expect_err("its SMMU is silent");
        });
        let goes_on: Task<'_> = Box::new(|| world.release(&free));
        race(waits, goes_on);
        world.blocked(&healthy, &free);
        world.close(&there, handle);
        world.becomes_free(&free);
        world.mend();
        world.kill(&guest);
    });
    world.kill(&here);
    world.stage.set_ports(false);
}

fn others_go_on(world: &World<'_>) {
    world.stage.set_ports(true);
    let guest = world.guest();
    // A guest's own other spaces, on the SMMU that answers, and what concerns no SMMU at all.
    let (silent, healthy) = (world.device_on(&guest, 0), world.device_on(&guest, 1));
    let neighbour = world.guest();
    let theirs = world.device_on(&neighbour, 1);
    is_not_delayed(world, |race| {
        let (stuck, other) = (world.process(&guest), world.process(&guest));
        let foreign = world.process(&neighbour);
        let left = world.bind(&stuck, &silent);
        let dropped = world.bind(&other, &healthy);
        world.silence(0);
        let waits: Task<'_> = Box::new(|| {
            world.try_release(&stuck).expect_err("its SMMU is silent");
        });
        let goes_on: Task<'_> = Box::new(|| {
            // The same guest: another space, and the books.
            world.reaches(&healthy, &other);
            world.close(&guest, dropped);
            world.blocked(&healthy, &other);
            world.bind(&other, &healthy);
            world.reaches(&healthy, &other);
            world.release(&other);
            world.blocked(&healthy, &other);
            assert!(world.iommu.counts(guest.id).is_ok());
            world.faults(&guest);
            // Another guest, from its first bind to its last.
            let handle = world.bind(&foreign, &theirs);
            world.reaches(&theirs, &foreign);
            world.release(&foreign);
            world.blocked(&theirs, &foreign);
            world.close(&neighbour, handle);
        });
        race(waits, goes_on);
        world.mend();
        if world.is_detached(&silent) {
            world.attach(&silent, &guest);
        }
        // What its devices left behind of their former contexts.
        world.iommu.tidy(guest.id).expect("it runs");
        world.close(&guest, left);
        world.start_over(&guest);
        for process in [&stuck, &other, &foreign] {
            world.becomes_gone(process);
        }
    });
    world.stage.set_ports(false);
}
