//! Of one process and one device.

use crate::calls::{self, Ask, code, counter};
use crate::device::Device;
use crate::memory::{FIRST_VA, Memory};
use crate::pages::{self, NOBODYS, PAGE};
use crate::process::Process;
use crate::story::{Stage, Told};
use crate::{arch, ensure};

/// A place where no story maps anything.
const NOWHERE: u64 = FIRST_VA + 0x1000 * PAGE;

/// All of them are nobody's still.
pub(super) fn are_nobodys(pages: &[u64]) -> Told {
    for page in pages {
        ensure!(pages::holds(*page, NOBODYS), "page {page:#x} was written");
    }
    Ok(())
}

pub(super) fn exit_without_close(stage: &Stage) -> Told {
    stage
        .with_pasids()
        .try_for_each(|device| exits_on(stage, device))
}

fn exits_on(stage: &Stage, device: &Device) -> Told {
    stage.attach(device)?;
    let mut victim = Process::new();
    let (va, _) = victim.page();
    let leaked = victim.open(device)?;
    let space = victim.memory.space()?;
    let number = space.pasid;

    let watch = device.watch(number);
    stage.reaches(device, number, va, 0x11)?;
    ensure!(victim.memory.read(va) == 0x11, "the process does not see it");
    ensure!(watch.landed(stage.number) == 1, "not one access landed");

    device.fire(number, va, 0x22, 4)?;
    device.fires(10)?;
    let pages = victim.exit()?;
    let watch = device.watch(number);
    device.fires(100)?;
    are_nobodys(&pages)?;
    // The number is nobody else's while somebody has the file.
    let taken = Memory::new().space_as(Ask::Exactly(number.into()), false);
    stage.is_refused(code::PASID_TAKEN, taken, "a number that is held")?;
    let mut other = Process::new();
    ensure!(other.number()? != number, "the number was given out again");
    other.exit()?;
    device.stop();
    watch.quiet(stage.number, 100);

    drop(leaked);
    let mut heir = stage.heir_of(number)?;
    heir.begin_at(64);
    let (own, _) = heir.page();
    ensure!(
        heir.memory.space()?.generation > space.generation,
        "the number has the generation of the dead process"
    );
    heir.open(device)?;
    let watch = device.watch(number);
    stage.reaches(device, number, own, 0x33)?;
    stage.is_blocked(device, number, va)?;
    ensure!(watch.landed(stage.number) == 1, "not one access landed");
    ensure!(heir.memory.read(own) == 0x33, "the heir does not see it");
    are_nobodys(&pages)?;
    heir.exit()?;
    Ok(())
}

pub(super) fn exec_keeps_handle(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let before = process.number()?;
    stage.reaches(device, before, va, 1)?;
    let pages = process.exec()?;
    let watch = device.watch(before);
    stage.is_blocked(device, before, va)?;
    ensure!(calls::stat(counter::PARKED)? == 1, "the number is not parked");

    process.begin_at(64);
    let (own, _) = process.page();
    process.open(device)?;
    let after = process.number()?;
    ensure!(after != before, "the new address space has the old number");
    let new = device.watch(after);
    stage.reaches(device, after, own, 2)?;
    stage.is_blocked(device, before, va)?;
    stage.is_blocked(device, before, own)?;
    watch.quiet(stage.number, 3);
    // The handle that was kept is dropped: the new binding has its own.
    file.shut()?;
    ensure!(calls::stat(counter::PARKED)? == 0, "the number stays parked");
    stage.reaches(device, after, own, 3)?;
    ensure!(process.memory.read(own) == 3, "the process does not see it");
    // The three by the old number do not count as done.
    ensure!(new.landed(stage.number) == 2, "not two accesses landed");
    are_nobodys(&pages)?;
    process.exit()?;
    Ok(())
}

pub(super) fn unbind_after_release(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let space = process.memory.space()?;
    let handle = calls::bind(space, device.number)?;
    stage.reaches(device, space.pasid, va, 1)?;
    process.memory.release()?;
    let watch = device.watch(space.pasid);
    stage.is_blocked(device, space.pasid, va)?;
    calls::unbind(handle)?;
    stage.is_refused(code::NO_SUCH_HANDLE, calls::unbind(handle), "a second unbind")?;
    stage.is_blocked(device, space.pasid, va)?;
    watch.quiet(stage.number, 2);
    process.exit()?;
    // Once: there is one heir, and no second.
    let mut heir = stage.heir_of(space.pasid)?;
    let second = Memory::new().space_as(Ask::Exactly(space.pasid.into()), false);
    stage.is_refused(code::PASID_TAKEN, second, "a second heir")?;
    ensure!(heir.number()? == space.pasid, "another number");
    heir.exit()?;
    Ok(())
}

pub(super) fn publish_over_live(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let space = process.memory.space()?;
    let exactly = |number: u32| Memory::new().space_as(Ask::Exactly(number.into()), false);
    // Over a live one, and over one that was released and is held.
    stage.is_refused(code::PASID_TAKEN, exactly(space.pasid), "a live number")?;
    let watch = device.watch(space.pasid);
    stage.reaches(device, space.pasid, va, 1)?;
    ensure!(watch.landed(stage.number) == 1, "not one access landed");
    process.memory.release()?;
    let watch = device.watch(space.pasid);
    stage.is_refused(code::PASID_TAKEN, exactly(space.pasid), "a parked number")?;
    let again = calls::bind(space, device.number);
    stage.is_refused(code::RELEASED, again, "a bind of what was released")?;
    stage.is_blocked(device, space.pasid, va)?;
    watch.quiet(stage.number, 1);
    drop(file);
    process.exit()?;
    Ok(())
}

pub(super) fn number_for_life(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let number = process.number()?;
    for round in 1..=3u64 {
        let file = process.open(device)?;
        ensure!(process.number()? == number, "another number in round {round}");
        let watch = device.watch(number);
        stage.reaches(device, number, va, round)?;
        ensure!(watch.landed(stage.number) == 1, "not one access landed");
        process.files.clear();
        drop(file);
        let watch = device.watch(number);
        stage.is_blocked(device, number, va)?;
        watch.quiet(stage.number, 1);
        let taken = Memory::new().space_as(Ask::Exactly(number.into()), false);
        stage.is_refused(code::PASID_TAKEN, taken, "the number of a living space")?;
    }
    ensure!(process.memory.read(va) == 3, "the process does not see it");
    process.exit()?;
    Ok(())
}

pub(super) fn quiet_after_release(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    stage.read_all_faults()?;
    let lost = calls::stat(counter::FAULTS_LOST)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let space = process.memory.space()?;
    device.fire(space.pasid, va, 7, 64)?;
    device.fires(64)?;
    let pages = process.exit()?;
    let watch = device.watch(space.pasid);
    // It may go on using the handle, by name refused.
    let bound = calls::bind(space, device.number);
    stage.is_refused(code::RELEASED, bound, "a bind")?;
    let invalidated = calls::invalidate(space, va, PAGE);
    stage.is_refused(code::RELEASED, invalidated, "an invalidation")?;
    let released = calls::release(space);
    stage.is_refused(code::ALREADY_RELEASED, released, "a second release")?;
    device.fires(stage.shots)?;
    device.stop();
    watch.quiet(stage.number, stage.shots);
    are_nobodys(&pages)?;
    let faults = calls::stat(counter::FAULTS)?;
    ensure!(faults == 0, "{faults} faults tell of what was released");
    ensure!(calls::stat(counter::FAULTS_LOST)? == lost, "faults were lost");
    drop(file);
    Ok(())
}

pub(super) fn still_firing_at_reuse(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    process.open(device)?;
    let number = process.number()?;
    device.fire(number, va, 5, 1)?;
    device.fires(4)?;
    // The last handle goes while the device still fires.
    let pages = process.exit()?;
    let watch = device.watch(number);
    let mut memory = Memory::new();
    let ask = Ask::Exactly(number.into());
    let mut is_free = false;
    arch::within(3 * stage.quarantine_us, || {
        is_free |= memory.space_as(ask, false).is_ok();
        // What is told of the number is read, so that the ring does not fill.
        stage.read_all_faults().is_err() || is_free
    });
    ensure!(!is_free, "the number came free while the device issues it");
    device.stop();
    watch.quiet(stage.number, 100);
    are_nobodys(&pages)?;
    stage.read_all_faults()?;
    drop(memory);

    let mut heir = stage.heir_of(number)?;
    heir.begin_at(64);
    let (own, page) = heir.page();
    heir.open(device)?;
    stage.read_all_faults()?;
    ensure!(pages::holds(page, 0), "the heir's page was written");
    let watch = device.watch(number);
    stage.reaches(device, number, own, 6)?;
    ensure!(watch.landed(stage.number) == 1, "not one access landed");
    stage.is_blocked(device, number, va)?;
    heir.exit()?;
    Ok(())
}

pub(super) fn device_resets_while_parked(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let number = process.number()?;
    stage.reaches(device, number, va, 1)?;
    let pages = process.exit()?;
    calls::device_reset(device.number)?;
    ensure!(calls::stat(counter::PARKED)? == 1, "the number is not parked");
    let watch = device.watch(number);
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 1);
    let taken = Memory::new().space_as(Ask::Exactly(number.into()), false);
    stage.is_refused(code::PASID_TAKEN, taken, "a number that is held")?;

    // A new binding works after it, and ends where a reset fails.
    let mut next = Process::new();
    let (own, _) = next.page();
    let other = next.open(device)?;
    let alive = next.number()?;
    stage.reaches(device, alive, own, 2)?;
    device.reset_takes(u32::MAX);
    let reset = calls::device_reset(device.number);
    stage.is_refused(code::NOT_RESET, reset, "a reset that fails")?;
    let space = next.memory.space()?;
    let bound = calls::bind(space, device.number);
    let is_named = bound.is_err_and(|it| matches!(it.code, code::FENCED | code::NOT_ATTACHED));
    ensure!(is_named, "a bind to a device that was cut off: {bound:?}");
    let handles = calls::stat(counter::HANDLES)?;
    ensure!(handles == 2, "{handles} handles, not two");
    device.reset_takes(0);
    let watch = device.watch(alive);
    stage.is_blocked(device, alive, own)?;
    watch.quiet(stage.number, 1);
    calls::device_reset(device.number)?;
    drop((file, other));
    next.exit()?;
    are_nobodys(&pages)?;
    Ok(())
}
