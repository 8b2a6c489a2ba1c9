//! Of one process and one device.

use portcullis_guest::{Ask, Code, Counter};

use crate::calls::{self, EL2};
use crate::device::Device;
use crate::memory::Memory;
use crate::pages::{self, NOBODYS, PAGE};
use crate::process::Process;
use crate::story::{Stage, Told};
use crate::{arch, ensure};

/// How long a device goes on firing.
const SHOTS: u32 = 100_000;

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
    victim.memory.write(va, 0x10);
    let leaked = victim.open(device)?;
    let space = victim.memory.space()?;
    let number = space.pasid.number;

    let watch = device.watch(number);
    stage.reaches(device, number, va, 0x11)?;
    ensure!(
        victim.memory.read(va) == 0x11,
        "the process does not see it"
    );
    ensure!(watch.landed(stage.number) == 1, "not one access landed");

    device.fire(number, va, 0x22, 4)?;
    device.fires(10)?;
    let pages = victim.exit()?;
    let watch = device.watch(number);
    device.fires(100)?;
    are_nobodys(&pages)?;
    // The number is nobody else's while somebody has the file.
    let taken = Memory::new().space_as(Ask::Exactly(number));
    stage.is_refused(Code::PasidTaken, taken, "a number that is held")?;
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
        heir.memory.space()?.pasid.generation > space.pasid.generation,
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
    ensure!(EL2.stats(Counter::Parked)? == 1, "the number is not parked");

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
    ensure!(EL2.stats(Counter::Parked)? == 0, "the number stays parked");
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
    let handle = calls::bind(space, device)?;
    stage.lands(device, space.pasid.number, va, 1)?;
    process.memory.release()?;
    let watch = device.watch(space.pasid.number);
    stage.is_blocked(device, space.pasid.number, va)?;
    EL2.unbind(handle)?;
    stage.is_refused(Code::NoSuchHandle, EL2.unbind(handle), "a second unbind")?;
    stage.is_blocked(device, space.pasid.number, va)?;
    watch.quiet(stage.number, 2);
    process.exit()?;
    // Once: there is one heir, and no second.
    let mut heir = stage.heir_of(space.pasid.number)?;
    let second = Memory::new().space_as(Ask::Exactly(space.pasid.number));
    stage.is_refused(Code::PasidTaken, second, "a second heir")?;
    ensure!(heir.number()? == space.pasid.number, "another number");
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
    let exactly = |number: u32| Memory::new().space_as(Ask::Exactly(number));
    // Over a live one, and over one that was released and is held.
    stage.is_refused(
        Code::PasidTaken,
        exactly(space.pasid.number),
        "a live number",
    )?;
    let watch = device.watch(space.pasid.number);
    stage.reaches(device, space.pasid.number, va, 1)?;
    ensure!(watch.landed(stage.number) == 1, "not one access landed");
    process.memory.release()?;
    let watch = device.watch(space.pasid.number);
    stage.is_refused(
        Code::PasidTaken,
        exactly(space.pasid.number),
        "a parked number",
    )?;
    let again = calls::bind(space, device);
    stage.is_refused(Code::Released, again, "a bind of what was released")?;
    stage.is_blocked(device, space.pasid.number, va)?;
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
        ensure!(
            process.number()? == number,
            "another number in round {round}"
        );
        stage.lands(device, number, va, round)?;
        process.files.clear();
        drop(file);
        let watch = device.watch(number);
        stage.is_blocked(device, number, va)?;
        watch.quiet(stage.number, 1);
        let taken = Memory::new().space_as(Ask::Exactly(number));
        stage.is_refused(Code::PasidTaken, taken, "the number of a living space")?;
    }
    ensure!(process.memory.read(va) == 3, "the process does not see it");
    process.exit()?;
    Ok(())
}

pub(super) fn quiet_after_release(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    stage.read_all_faults()?;
    let lost = EL2.stats(Counter::LostFaults)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let space = process.memory.space()?;
    stage.lands(device, space.pasid.number, va, 6)?;
    device.fire(space.pasid.number, va, 7, 64)?;
    device.fires(64)?;
    let pages = process.exit()?;
    let watch = device.watch(space.pasid.number);
    // It may go on using the handle, by name refused.
    let bound = calls::bind(space, device);
    stage.is_refused(Code::Released, bound, "a bind")?;
    let invalidated = calls::invalidate(space, va, PAGE);
    stage.is_refused(Code::Released, invalidated, "an invalidation")?;
    let released = EL2.release(space.id);
    stage.is_refused(Code::AlreadyReleased, released, "a second release")?;
    device.fires(SHOTS)?;
    device.stop();
    watch.quiet(stage.number, SHOTS);
    are_nobodys(&pages)?;
    let faults = EL2.stats(Counter::Faults)?;
    ensure!(faults == 0, "{faults} faults tell of what was released");
    ensure!(EL2.stats(Counter::LostFaults)? == lost, "faults were lost");
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
    let ask = Ask::Exactly(number);
    let mut is_free = false;
    arch::within(3 * stage.quarantine_us, || {
        is_free |= memory.space_as(ask).is_ok();
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
    stage.lands(device, number, own, 6)?;
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
    stage.lands(device, number, va, 1)?;
    let pages = process.exit()?;
    EL2.device_reset(device.id)?;
    ensure!(EL2.stats(Counter::Parked)? == 1, "the number is not parked");
    let watch = device.watch(number);
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 1);
    let taken = Memory::new().space_as(Ask::Exactly(number));
    stage.is_refused(Code::PasidTaken, taken, "a number that is held")?;

    // A new binding works after it, and ends where a reset fails.
    let mut next = Process::new();
    let (own, _) = next.page();
    let other = next.open(device)?;
    let alive = next.number()?;
    stage.reaches(device, alive, own, 2)?;
    device.reset_takes(u32::MAX);
    let reset = EL2.device_reset(device.id);
    stage.is_refused(Code::NotReset, reset, "a reset that fails")?;
    let space = next.memory.space()?;
    let bound = calls::bind(space, device);
    let is_named =
        bound.is_err_and(|it| matches!(it.code(), Some(Code::Fenced | Code::NotAttached)));
    ensure!(is_named, "a bind to a device that was cut off: {bound:?}");
    let handles = EL2.stats(Counter::Handles)?;
    ensure!(handles == 2, "{handles} handles, not two");
    device.reset_takes(0);
    let watch = device.watch(alive);
    stage.is_blocked(device, alive, own)?;
    watch.quiet(stage.number, 1);
    EL2.device_reset(device.id)?;
    drop((file, other));
    next.exit()?;
    are_nobodys(&pages)?;
    Ok(())
}
