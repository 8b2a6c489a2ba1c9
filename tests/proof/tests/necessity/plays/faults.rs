//! What is stalled, and what was lost, stopped or fenced.

use super::memory::guest_stores;
use super::spaces::{BY_PASID, binds, gone, next_owner};
use crate::stage::{Cast, Stage};
use portcullis::addr::Iova;
use portcullis::hw::Frames;
use portcullis::smmu::Smmu;
use portcullis::space::{Answer, DeviceState, FaultId, Handle, SpaceError};
use portcullis::spec::ste::Untagged;
use portcullis_proof::{Space, Tap, VA, smmu_id};
use smmu_model::device::Misconduct;
use smmu_model::{Claim, Faults};

/// A device of a guest that waits for a page.
struct Stalled<'p> {
    cast: Cast<'p>,
    space: Space,
    handles: [Handle; 2],
    /// What the guest is to store to have the page there, and at which index of the table.
    page: (Frames, u64, u64),
}

/// The guest takes the page away, and the device asks for it.
fn stalled<'t: 'p, 'p>(stage: &mut Stage<'t>, smmus: &'p [Smmu<'p, Tap>; 1]) -> Stalled<'p> {
    let mut cast = Cast::attached(stage, smmus, BY_PASID);
    let (space, [_, _, bottom], handles) = cast.bound();
    let index = VA >> 12 & 511;
    let at = bottom.base().as_u64() + 8 * index;
    let was = stage.tap.machine().load(at).expect("inside");
    guest_stores(stage, &bottom, index, 0);
    let told = cast
        .iommu()
        .invalidate(cast.guest, space.id, Iova::new(VA), 0x1000);
    stage.ok("invalidate", told);
    // What was there before is no fault of this play.
    cast.iommu().service(1000);
    while cast
        .iommu()
        .next_fault(cast.guest)
        .expect("there")
        .is_some()
    {}
    cast.board.guns[0].fire(Some(space.pasid), VA);
    Stalled {
        cast,
        space,
        handles,
        page: (bottom, index, was),
    }
}

/// Time passes, and devices hear what became of what was stalled.
fn settle(stage: &Stage<'_>, cast: &Cast<'_>) {
    let machine = stage.tap.machine();
    for _ in 0..8 {
        machine.advance(100);
        for finished in machine.smmu(0).take_finished() {
            let guns = cast.board.guns.iter().chain(&cast.other.guns);
            guns.for_each(|gun| gun.device().finish(&finished));
        }
    }
}

/// Has the event of the stall come in, in every mode.
fn heard(stage: &mut Stage<'_>, cast: &Cast<'_>) -> Option<FaultId> {
    settle(stage, cast);
    cast.iommu().service(1000);
    let fault = cast.iommu().next_fault(cast.guest).expect("there");
    fault.and_then(|fault| fault.id)
}

pub(super) fn retry(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let Stalled { cast, page, .. } = stalled(stage, &smmus);
    let Some(id) = heard(stage, &cast) else {
        panic!("it is stalled, and heard of");
    };
    // The page is not there yet: an SMMU may try by itself, and only an answer has it tell again.
    stage.act_ok(|| cast.iommu().answer(cast.guest, id, Answer::Retry));
    let Some(id) = heard(stage, &cast) else {
        panic!("it is stalled again, and heard of");
    };
    let gun = &cast.board.guns[0];
    let [_, aborted, landed] = gun.ends();
    let (table, index, was) = &page;
    guest_stores(stage, table, *index, *was);
    let answered = cast.iommu().answer(cast.guest, id, Answer::Retry);
    stage.ok("answer", answered);
    settle(stage, &cast);
    stage.expect("its end", gun.ends(), [0, aborted, landed + 1]);
}

pub(super) fn abort(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let Stalled { cast, .. } = stalled(stage, &smmus);
    let Some(id) = heard(stage, &cast) else {
        panic!("it is stalled, and heard of");
    };
    let gun = &cast.board.guns[0];
    let [pending, aborted, landed] = gun.ends();
    stage.expect("stalled", pending, 1);
    stage.act_ok(|| cast.iommu().answer(cast.guest, id, Answer::Abort));
    settle(stage, &cast);
    stage.expect("its end", gun.ends(), [0, aborted + 1, landed]);
}

pub(super) fn deadline(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let Stalled { cast, .. } = stalled(stage, &smmus);
    let Some(_) = heard(stage, &cast) else {
        panic!("it is stalled, and heard of");
    };
    let gun = &cast.board.guns[0];
    let [_, aborted, landed] = gun.ends();
    stage.tap.machine().advance(200_000);
    stage.act(|| cast.iommu().service(1000));
    settle(stage, &cast);
    stage.expect("its end", gun.ends(), [0, aborted + 1, landed]);
}

/// Its space is released while it waits.
pub(super) fn released(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let Stalled {
        mut cast,
        space,
        handles,
        ..
    } = stalled(stage, &smmus);
    let Some(_) = heard(stage, &cast) else {
        panic!("it is stalled, and heard of");
    };
    let (vmid, asid) = cast.tags(space);
    let [_, aborted, landed] = cast.board.guns[0].ends();
    stage.claim(Claim::ReleaseBegins { vmid, asid });
    stage.act_ok(|| cast.iommu().release(cast.guest, space.id));
    stage.claim(Claim::ReleaseEnds { vmid, asid });
    gone(stage, &cast, space);
    settle(stage, &cast);
    // What waited, and what came after it.
    let ends = cast.board.guns[0].ends();
    stage.expect("its end", ends, [0, aborted + 2, landed]);
    unbind(stage, &cast, handles);
    next_owner(stage, &mut cast, space, (vmid, asid));
}

fn unbind(stage: &mut Stage<'_>, cast: &Cast<'_>, handles: [Handle; 2]) {
    for handle in handles {
        let unbound = cast.iommu().unbind(cast.guest, handle);
        stage.ok("unbind", unbound);
    }
}

/// Devices that were fenced with their SMMU are reset, and attached again.
fn bring_back(stage: &mut Stage<'_>, cast: &Cast<'_>) {
    for device in [cast.board.id, cast.other.id] {
        let restored = cast.iommu().restore(device);
        stage.ok("restore", restored);
        if cast.iommu().device_state(device) != Ok(DeviceState::Attached(cast.guest)) {
            let attached = cast.iommu().attach(cast.guest, device, Untagged::Abort);
            stage.ok("attach", attached);
        }
    }
}

/// What is wrong with an SMMU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It takes commands, and completes no CMD_SYNC.
    Silent,
    /// As well it is stopped.
    Halted,
    /// It could not read a command (CERROR_ABT): its queue is dead, and it is stopped.
    Dead,
}

/// Two releases are not confirmed, and nothing of the second was done; then the SMMU is recovered.
fn recover_from(stage: &mut Stage<'_>, trouble: Trouble) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, _, handles) = cast.bound();
    let (other, _, others) = cast.bound();
    let (vmid, asid) = cast.tags(space);
    let smmu = stage.tap.machine().smmu(0);
    smmu.set_faults(match trouble {
        Trouble::Dead => Faults {
            abort_after: Some(0),
            ..Faults::default()
        },
        Trouble::Silent | Trouble::Halted => Faults {
            sync_never: true,
            ..Faults::default()
        },
    });
    for released in [other.id, space.id]
        .map(|space| cast.iommu().begin_release(cast.guest, space))
        .map(|pending| pending.and_then(|pending| pending.finish()))
    {
        let is_lost = matches!(released, Err(SpaceError::NotConfirmed { .. }));
        assert!(is_lost, "{released:?}");
    }
    match trouble {
        Trouble::Silent => {}
        Trouble::Halted => {
            cast.iommu().halt(smmu_id(0)).expect("there");
            gone(stage, &cast, space);
        }
        Trouble::Dead => {
            assert!(cast.iommu().service(1000).down.has(smmu_id(0)));
            gone(stage, &cast, space);
        }
    }
    smmu.set_faults(Faults::default());
    stage.act_ok(|| cast.iommu().recover(smmu_id(0)));
    stage.expect("unproven", cast.iommu().unproven().iter().count(), 0);
    stage.claim(Claim::ReleaseEnds { vmid, asid });
    gone(stage, &cast, space);
    bring_back(stage, &cast);
    gone(stage, &cast, other);
    unbind(stage, &cast, handles);
    next_owner(stage, &mut cast, space, (vmid, asid));
    unbind(stage, &cast, others);
}

pub(super) fn recover(stage: &mut Stage<'_>) {
    recover_from(stage, Trouble::Silent);
}

pub(super) fn recover_halted(stage: &mut Stage<'_>) {
    recover_from(stage, Trouble::Halted);
}

pub(super) fn recover_dead(stage: &mut Stage<'_>) {
    recover_from(stage, Trouble::Dead);
}

/// The streams of a device that kept what it cached abort; it is brought back by a reset.
pub(super) fn restore(stage: &mut Stage<'_>) {
    restore_silent(stage);
}

/// As above, and it is its port that was closed.
pub(super) fn restore_port(stage: &mut Stage<'_>) {
    stage.tap.add_ports();
    restore_silent(stage);
}

fn restore_silent(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, _, handles) = cast.bound();
    let at = space.ipa.as_u64();
    cast.warm(None, at);
    let misbehave = |how| {
        let guns = cast.board.guns.iter();
        guns.for_each(|gun| gun.device().misbehave(how));
    };
    misbehave(Misconduct::Silent);
    let unbound = cast.iommu().unbind(cast.guest, handles[0]);
    assert!(unbound.is_err(), "{unbound:?}");
    misbehave(Misconduct::None);
    cast.all(Some(space.pasid), VA);
    stage.act_ok(|| cast.iommu().restore(cast.board.id));
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("late DMA", found, [None, None, Some(space.data)]);
    let found = cast.all(None, at);
    stage.expect("late DMA", found, [None, None, Some(space.data)]);
    again(stage, &mut cast);
}

/// The device is attached once more, to a new space.
fn again(stage: &mut Stage<'_>, cast: &mut Cast<'_>) {
    let (guest, device) = (cast.guest, cast.board.id);
    let attached = cast.iommu().attach(guest, device, Untagged::Abort);
    stage.ok("attach", attached);
    let (new, _) = cast.world.space(guest);
    binds(stage, cast, new);
}

/// The host does not reset it: it is stopped, until it does.
pub(super) fn restore_refused(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, ..) = cast.bound();
    stage.tap.refuse_resets();
    let refused = stage.act(|| cast.iommu().restore(cast.board.id));
    let is_refused = matches!(refused, Err(SpaceError::NotReset { .. }));
    stage.expect("refused", is_refused, true);
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("late DMA", found, [None, None, Some(space.data)]);
    stage.tap.allow_resets();
    let restored = cast.iommu().restore(cast.board.id);
    stage.ok("restore", restored);
    let tidied = cast.iommu().tidy(cast.guest);
    stage.ok("tidy", tidied);
    again(stage, &mut cast);
}
