//! A device's ATC is late, or silent, or answers "unsupported".

use portcullis::space::{Fence, SpaceError};
use portcullis::spec::ste::Ats;
use smmu_model::Rule;
use smmu_model::device::Misconduct;

use crate::{Device, Ends, Guest, Process, Story, World};

pub(super) const STORY: Story = Story::new(
    "ats-holdout",
    "a device's ATC is late, or silent, or answers that it does not know what is meant",
    play,
)
.only(
    |configuration| configuration.ats != Ats::Off,
    "there are no ATCs without ATS",
);

fn play(world: &World<'_>) {
    let guest = world.guest();
    let (holdout, obedient) = (world.device(&guest), world.device(&guest));
    let neighbour = world.process(&guest);
    world.bind(&neighbour, &obedient);
    world.reaches(&obedient, &neighbour);
    let fresh = || {
        let process = world.process(&guest);
        let handles = [&*holdout, &*obedient].map(|device| world.bind(&process, device));
        world.reaches(&holdout, &process);
        world.reaches(&obedient, &process);
        (process, handles)
    };

    // Late: the release waits, within its bound.
    let (process, handles) = fresh();
    world.stage.has_late_devices(true);
    holdout.set_lateness_us(200);
    holdout.misbehave(Misconduct::Late);
    world.release(&process);
    holdout.misbehave(Misconduct::None);
    world.stage.has_late_devices(false);
    for device in [&holdout, &obedient] {
        world.blocked(device, &process);
    }
    world.reaches(&obedient, &neighbour);
    handles
        .into_iter()
        .for_each(|handle| world.close(&guest, handle));
    world.becomes_free(&process);

    for has_ports in [false, true] {
        silent(world, &guest, &holdout, &obedient, (fresh(), has_ports));
        world.reaches(&obedient, &neighbour);
        world.attach(&holdout, &guest);
    }

    // "Unsupported": the command completes without error and without guarantee (§3.9.1); nobody can
    // tell. What the device kept leads into its own guest's memory and nowhere else.
    let (process, _) = fresh();
    world.bear(Rule::AtcStale);
    world.bear(Rule::ReleasedSpaceReached);
    holdout.misbehave(Misconduct::Unsupported);
    world
        .try_release(&process)
        .expect("nothing speaks against it");
    world.blocked(&obedient, &process);
    let ends = world.fire(&holdout, &process);
    assert!(matches!(ends, Ends::Blocked | Ends::Landed(_)), "{ends:?}");
    if let Ends::Landed(pa) = ends {
        assert_eq!(pa, process.page);
    }
    holdout.misbehave(Misconduct::None);
    world.reaches(&obedient, &neighbour);
}

/// Silent: it is found by asking each alone, and fenced; others are unharmed.
fn silent(
    world: &World<'_>,
    guest: &Guest,
    holdout: &Device,
    obedient: &Device,
    ((process, handles), has_ports): ((Process, [portcullis::space::Handle; 2]), bool),
) {
    world.stage.set_ports(has_ports);
    world.stage.set_turn_us(50);
    holdout.misbehave(Misconduct::Silent);
    let fence = if has_ports {
        Fence::Port
    } else {
        Fence::Stream
    };
    let kept = SpaceError::CachesKept {
        device: holdout.id,
        fence,
    };
    assert_eq!(world.try_release(&process), Err(kept));
    assert!(world.is_fenced(holdout) && !world.is_fenced(obedient));
    for device in [holdout, obedient] {
        world.blocked(device, &process);
    }
    // Its number is lost until the device was reset, whoever lets go of it.
    handles
        .into_iter()
        .for_each(|handle| world.close(guest, handle));
    world.pass(50_000);
    world.is_parked(&process);
    assert_eq!(world.iommu.counts(guest.id).expect("it runs").lost, 1);
    holdout.misbehave(Misconduct::None);
    world.stage.set_turn_us(1);
    world.iommu.restore(holdout.id).expect("it is reset");
    world.becomes_free(&process);
    world.blocked(holdout, &process);
    world.stage.set_ports(false);
}
