//! Of accesses that wait.

use portcullis_guest::{Answer, Code, Counter};

use super::lives::are_nobodys;
use crate::calls::EL2;
use crate::device::{End, SmmuFault};
use crate::memory::FIRST_VA;
use crate::pages::PAGE;
use crate::process::Process;
use crate::story::{Stage, Told};
use crate::{arch, ensure};

/// How many accesses stall.
const WAITING: u64 = 4;

pub(super) fn stalled_when_killed(stage: &Stage) -> Told {
    let device = stage.patient()?;
    stage.attach(device)?;
    stage.read_all_faults()?;
    // What waits lands once it may: the story can fail.
    let mut process = Process::new();
    process.open(device)?;
    let number = process.number()?;
    let first = device.write(number, FIRST_VA, 1)?;
    ensure!(first == End::Stalled, "{first:?}, not stalled");
    let id = next_stall()?;
    process.page();
    let watch = device.watch(number);
    EL2.fault_answer(id, Answer::Retry)?;
    device.has_none_pending()?;
    ensure!(watch.landed(stage.number) == 1, "not one access landed");
    ensure!(process.memory.read(FIRST_VA) == 1, "it landed elsewhere");
    let again = EL2.fault_answer(id, Answer::Retry);
    stage.is_refused(Code::NoSuchFault, again, "a second answer")?;

    // Some are read, some are not, and then the space goes.
    let watch = device.watch(number);
    let at = |place: u64| FIRST_VA + (8 + place) * PAGE;
    for place in 0..WAITING {
        let end = device.write(number, at(place), 2)?;
        ensure!(end == End::Stalled, "{end:?}, not stalled");
    }
    ensure!(device.pending() == WAITING as u32, "not all are stalled");
    let read = [next_stall()?, next_stall()?];
    let kept = process.files.clone();
    process.memory.release()?;
    // There is something to land in now, and not before: an SMMU may try what waits again by itself
    // (§3.12.2.2).
    process.begin_at(8);
    for _ in 0..WAITING {
        process.page();
    }
    device.has_none_pending()?;
    let pages = process.exit()?;
    watch.quiet(stage.number, WAITING as u32);
    are_nobodys(&pages)?;
    for id in read {
        let late = EL2.fault_answer(id, Answer::Retry);
        stage.is_refused(Code::NoSuchFault, late, "an answer to what was aborted")?;
    }
    ensure!(EL2.stats(Counter::Stalls)? == 0, "stalls are left over");

    // The next owner of the number hears of none of them.
    drop(kept);
    let mut heir = stage.heir_of(number)?;
    heir.open(device)?;
    let fault = EL2.fault_next()?;
    ensure!(fault.is_none(), "the heir is told of {fault:?}");
    heir.exit()?;
    if super::others::is_alone(stage) {
        records_lost(stage)?;
    }
    Ok(())
}

/// The record of a stall is lost with the event queue: nobody can answer it, so the devices that stall
/// are cut off, which ends it.
fn records_lost(stage: &Stage) -> Told {
    let device = stage.patient()?;
    let mut process = Process::new();
    let file = process.open(device)?;
    let number = process.number()?;
    device.put_in(SmmuFault::EventAbort);
    let watch = device.watch(number);
    let end = device.write(number, FIRST_VA, 3)?;
    ensure!(end == End::Stalled, "{end:?}, not stalled");
    device.has_none_pending()?;
    device.put_in(SmmuFault::None);
    let (va, _) = process.page();
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 2);
    let is_cut_off = EL2.device_info(device.id)?.is_fenced;
    ensure!(is_cut_off, "the device is not cut off");
    // It comes back, and nothing else is missing.
    EL2.device_reset(device.id)?;
    drop(file);
    process.exit()?;
    stage.read_all_faults()
}

/// The next stall that is told of.
fn next_stall() -> Result<portcullis_guest::FaultId, crate::story::Trouble> {
    let mut found = None;
    arch::within(10_000, || {
        found = EL2.fault_next().ok().flatten().and_then(|fault| fault.id);
        found.is_some()
    });
    found.ok_or_else(|| crate::story::Trouble::failed(format_args!("no fault tells of a stall")))
}
