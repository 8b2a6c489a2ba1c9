//! Guest death or release comes from another CPU wherever a call drops a lock or waits.

use std::sync::{Arc, Mutex};

use portcullis::addr::Iova;
use portcullis::space::{By, Handle, SpaceError};
use portcullis::spec::ste::Untagged;

use crate::schedule::Order;
use crate::{Device, Guest, Process, Story, Task, VA, World};

pub(super) const STORY: Story = Story::new(
    "killed-in-the-middle",
    "guest death or release comes from another CPU in the middle of a call",
    play,
);

/// Who is at work.
struct Scene {
    guest: Guest,
    device: Arc<Device>,
    /// Owned, and not attached.
    spare: Arc<Device>,
    bound: Process,
    unbound: Process,
    handle: Handle,
}

type Operation = fn(&World<'_>, &Scene) -> Result<(), SpaceError>;

/// What the first CPU does.
const CALLS: [(&str, Operation); 9] = [
    ("bind", |world, it| {
        world.try_bind(&it.unbound, &it.device).map(|_| ())
    }),
    ("bind again", |world, it| {
        world.try_bind(&it.bound, &it.device).map(|_| ())
    }),
    ("bind the stream", |world, it| {
        let (guest, space) = (it.guest.id, it.unbound.space);
        world.iommu.attach(guest, it.spare.id, Untagged::Abort)?;
        world
            .iommu
            .bind(guest, space, it.spare.id, By::WholeStream)
            .map(|_| ())
    }),
    ("unbind", |world, it| world.try_close(&it.guest, it.handle)),
    ("invalidate", |world, it| {
        let (guest, space) = (it.guest.id, it.bound.space);
        world.iommu.invalidate(guest, space, Iova::new(VA), 0x1000)
    }),
    ("unmap", |world, it| {
        let page = world.ipa_of_page(&it.unbound);
        world.iommu.unmap(it.guest.id, page, 0x1000)
    }),
    ("attach", |world, it| {
        world
            .iommu
            .attach(it.guest.id, it.spare.id, Untagged::Abort)
    }),
    ("reset", |world, it| {
        world.iommu.reset_device(it.guest.id, it.device.id)
    }),
    ("create", |world, it| {
        let walk = world.walk_of(&it.unbound);
        let config = portcullis::space::SpaceConfig {
            walk,
            pasid: portcullis::space::Ask::Any,
            promises_no_global: false,
        };
        world.iommu.create_space(it.guest.id, &config).map(|_| ())
    }),
];

/// What the second CPU does meanwhile.
const CUTS: [(&str, Operation); 4] = [
    ("release", |world, it| world.try_release(&it.bound)),
    ("release of the other", |world, it| {
        world.try_release(&it.unbound)
    }),
    ("guest death", |world, it| {
        world.iommu.destroy_guest(it.guest.id)
    }),
    ("release_all", |world, it| {
        world.iommu.release_all(it.guest.id)
    }),
];

/// Points of a call at which another may cut in, more or less.
const POINTS: usize = 160;

fn scene(world: &World<'_>, devices: &[Arc<Device>; 2]) -> Scene {
    let guest = world.guest();
    let [device, spare] = devices.each_ref().map(Arc::clone);
    for it in [&device, &spare] {
        // They go with the guest.
        let _token = world.acquire(it, &guest);
    }
    world.attach(&device, &guest);
    let (bound, unbound) = (world.process(&guest), world.process(&guest));
    let handle = world.bind(&bound, &device);
    world.reaches(&device, &bound);
    Scene {
        guest,
        device,
        spare,
        bound,
        unbound,
        handle,
    }
}

fn play(world: &World<'_>) {
    let devices = [0, 1].map(|_| world.spare_device(world.usual()));
    for _ in 0..if world.is_chaotic() { 3 } else { 10 } {
        let order = if world.is_chaotic() {
            Order::Drawn(world.seed())
        } else {
            Order::CutIn(world.draw(POINTS) as u64)
        };
        let (call, cut) = (world.draw(CALLS.len()), world.draw(CUTS.len()));
        cut_in(world, &devices, (call, cut), &order);
    }
}

/// Plays one call and one cut; how many points the call had.
fn cut_in(
    world: &World<'_>,
    devices: &[Arc<Device>; 2],
    (call, cut): (usize, usize),
    order: &Order,
) -> u64 {
    let it = scene(world, devices);
    let ((call, does), (cut, kills)) = (CALLS[call], CUTS[cut]);
    world.say(|| format!("{call}, and {cut} cuts in: {order:?}"));
    let outcomes = [Mutex::new(None), Mutex::new(None)];
    let run = |cpu: usize, operation: Operation| -> Task<'_> {
        let (outcomes, it) = (&outcomes, &it);
        Box::new(move || {
            let outcome = operation(world, it);
            world.say(|| format!("it ends: {outcome:?}"));
            *outcomes[cpu].lock().expect("whole") = Some(outcome);
        })
    };
    let tasks = vec![run(0, does), run(1, kills)];
    let points = world.stage.schedule.race(order, tasks).first;
    let [called, cutting] = outcomes.map(|it| it.into_inner().expect("whole").expect("it ran"));
    cutting.unwrap_or_else(|error| panic!("{call}, {cut}: {error}"));
    assert!(called.is_ok_and_named(), "{call}, {cut}: {called:?}");

    // One of the documented states: what was released is blocked, and what was not goes on.
    let died = cut == "guest death";
    if died {
        assert_eq!(
            world.iommu.counts(it.guest.id),
            Err(SpaceError::NoSuchGuest)
        );
        world.take_memory_of(&it.guest);
    }
    let is_dead = |process: &Process| died || world.state(process) != Ok(LIVE);
    for process in [&it.bound, &it.unbound] {
        if is_dead(process) {
            world.blocked(&it.device, process);
            if !died {
                world.reuse_memory(process);
            }
        }
    }
    if !is_dead(&it.bound) && call != "unbind" {
        world.reaches(&it.device, &it.bound);
    }
    if !died {
        world.kill(&it.guest);
    }
    for device in devices {
        world.blocked(device, &it.bound);
        world.blocked(device, &it.unbound);
    }
    points
}

const LIVE: portcullis::space::SpaceState = portcullis::space::SpaceState::Live;

/// What a call may say that was overtaken.
trait Named {
    fn is_ok_and_named(&self) -> bool;
}

impl Named for Result<(), SpaceError> {
    fn is_ok_and_named(&self) -> bool {
        matches!(
            self,
            Ok(())
                | Err(SpaceError::NoSuchGuest
                    | SpaceError::GuestEnding
                    | SpaceError::NoSuchSpace
                    | SpaceError::NoSuchHandle
                    | SpaceError::Released
                    | SpaceError::NotOwner
                    | SpaceError::NotAttached)
        )
    }
}

/// As the story, with every call and every cut, at each [`STRIDE`]th point of the call: where it
/// begins is the configuration's number, so as many neighbours play all points.
pub(super) const EVERYWHERE: Story = Story::new(
    "killed-anywhere",
    "as killed-in-the-middle, at every sixth point of every call",
    everywhere,
)
.with_bytes(2 << 20);

const STRIDE: u64 = 6;
/// So many cuts there are at least; some calls have more points on some machines.
const LEAST_CUTS: u64 = 300;

fn everywhere(world: &World<'_>) {
    let devices = [0, 1].map(|_| world.spare_device(world.usual()));
    let mut cuts = 0;
    for call in 0..CALLS.len() {
        for cut in 0..CUTS.len() {
            let mut at = world.configuration.number() as u64 % STRIDE;
            while cut_in(world, &devices, (call, cut), &Order::CutIn(at)) > at {
                at += STRIDE;
                cuts += 1;
            }
        }
    }
    assert!(cuts >= LEAST_CUTS, "{cuts}");
}
