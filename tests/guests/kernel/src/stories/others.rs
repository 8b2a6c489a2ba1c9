//! Of two guests: one plays, and the other only wants to live.

use portcullis_guest::{Answer, Code, Counter, Error, FaultKind, Quotas};

use crate::calls::{self, EL2};
use crate::device::{Device, End, SmmuFault};
use crate::memory::FIRST_VA;
use crate::pages::PAGE;
use crate::process::Process;
use crate::story::{Stage, Told, Trouble};
use crate::{arch, ensure, say};

/// Where nothing is mapped.
const NOWHERE: u64 = FIRST_VA + 0x800 * PAGE;
/// Within this a fault arrives, whatever other guests do.
const FAULT_US: u64 = 60_000;
/// How long a guest floods the SMMU.
const STORM_US: u64 = 40_000;
/// Within this a guest is told that an SMMU stopped.
const TOLD_US: u64 = 500_000;

/// Whether no other guest has devices behind the same SMMUs.
pub(super) fn is_alone(stage: &Stage) -> bool {
    stage.devices.iter().any(|device| {
        let same = stage.devices.iter().filter(|it| it.unit == device.unit);
        same.filter(|it| it.can_stall).count() > 1
    })
}

fn needs_two(stage: &Stage) -> Told {
    if is_alone(stage) {
        return Err(Trouble::Skipped("it needs two guests"));
    }
    Ok(())
}

/// The SMMU that the other guest lives behind at first.
fn first_unit(stage: &Stage) -> u64 {
    let units = stage.devices.iter().map(|it| it.unit);
    units.min().unwrap_or(0)
}

pub(super) fn storm(stage: &Stage) -> Told {
    needs_two(stage)?;
    let unit = first_unit(stage);
    let here = || stage.with_pasids().filter(move |it| it.unit == unit);
    let patient = here().find(|it| it.can_stall);
    let impatient = here().find(|it| !it.can_stall);
    let (Some(patient), Some(impatient)) = (patient, impatient) else {
        return Err(Trouble::Skipped("no two devices"));
    };
    let Quotas { stalls: most, .. } = EL2.quotas()?;
    stage.attach(patient)?;
    stage.attach(impatient)?;
    stage.read_all_faults()?;
    let lost = EL2.stats(Counter::LostFaults)?;
    let mut process = Process::new();
    process.open(patient)?;
    process.open(impatient)?;
    let number = process.number()?;
    // Stalls that nobody answers, and more of them than are its share; and faults without end.
    let watches = [patient.watch(number), impatient.watch(number)];
    patient.burst(number, NOWHERE, 4 * most)?;
    impatient.fire(number, NOWHERE, 1, 1)?;
    let end = arch::now_ns() + STORM_US * 1000;
    while arch::now_ns() < end {
        impatient.fires(100)?;
        let stalls = EL2.stats(Counter::Stalls)?;
        ensure!(
            stalls <= most.into(),
            "{stalls} stalls, {most} are its share"
        );
    }
    impatient.stop();
    let more = EL2.stats(Counter::LostFaults)? - lost;
    ensure!(more != 0, "it is not told that faults were lost");
    process.exit()?;
    patient.has_none_pending()?;
    for watch in watches {
        watch.quiet(stage.number, 16);
    }
    stage.read_all_faults()
}

pub(super) fn shared_smmu_dies(stage: &Stage) -> Told {
    needs_two(stage)?;
    let unit = first_unit(stage);
    let dead = stage
        .with_pasids()
        .find(|it| it.unit == unit && !it.can_stall);
    let alive = stage
        .with_pasids()
        .find(|it| it.unit != unit && !it.can_stall);
    let (Some(dead), Some(alive)) = (dead, alive) else {
        return Err(Trouble::Skipped("no devices behind two SMMUs"));
    };
    stage.attach(dead)?;
    stage.attach(alive)?;
    stage.read_all_faults()?;
    let mut process = Process::new();
    let (va, page) = process.page();
    process.open(dead)?;
    process.open(alive)?;
    let space = process.memory.space()?;
    let number = space.pasid.number;
    stage.reaches(dead, number, va, 1)?;
    dead.fire(number, va, 1, 2)?;
    dead.fires(4)?;
    dead.put_in(SmmuFault::Stop);
    is_told()?;
    let watch = dead.watch(number);
    crate::pages::fill(page, 0x5a);
    dead.fires(50)?;
    dead.stop();
    // Everybody is told at once, and nobody waits.
    let mut other = Process::new();
    let bound = calls::bind(other.memory.space()?, dead);
    let start = arch::now_ns();
    let is_named = bound.is_err_and(|it| {
        matches!(
            it.code(),
            Some(Code::SmmuDown | Code::Fenced | Code::NotConfirmed)
        )
    });
    ensure!(is_named, "a bind behind a dead SMMU: {bound:?}");
    ensure!(
        arch::now_ns() - start < 10_000_000,
        "it waits for a dead SMMU"
    );
    let released = process.memory.release();
    let is_named = released.is_err_and(|it| it.code() == Some(Code::NotConfirmed));
    ensure!(is_named, "a release behind a dead SMMU: {released:?}");
    stage.is_blocked(dead, number, va)?;
    watch.quiet(stage.number, 50);
    ensure!(crate::pages::holds(page, 0x5a), "the page was written");
    ensure!(EL2.stats(Counter::Lost)? != 0, "the number is not lost");
    // The rest goes on.
    let (own, _) = other.page();
    let file = other.open(alive)?;
    let its = other.number()?;
    let watch = alive.watch(its);
    stage.reaches(alive, its, own, 2)?;
    stage.is_blocked(alive, number, va)?;
    ensure!(watch.landed(stage.number) == 1, "not one access landed");
    drop(file);
    other.exit()?;
    // Nothing of it is freed: nobody has proof. This guest ends soon.
    process.files.iter().for_each(|file| file.forget());
    core::mem::forget(process);
    Ok(())
}

/// Waits until EL2 tells that an SMMU stopped.
fn is_told() -> Told {
    let is_told = arch::within(TOLD_US, || {
        let fault = EL2.fault_next().ok().flatten();
        fault.is_some_and(|it| matches!(it.kind, FaultKind::SmmuStopped(_)))
    });
    ensure!(is_told, "nobody tells that the SMMU stopped");
    Ok(())
}

/// Ends the guest with everything under way; it starts over, and goes on here: the devices keep the
/// number of the story through their resets.
pub(super) fn guest_dies(stage: &Stage) -> Told {
    if stage.lives_again {
        return lives_again(stage);
    }
    let mut process = Process::new();
    let (va, _) = process.page();
    let number = process.number()?;
    ensure!(number <= MOST, "the number is {number:#x}");
    for device in stage.with_pasids() {
        stage.attach(device)?;
        process.open(device)?;
        stage.lands(device, number, va, 1)?;
    }
    // One space is released, one handle dropped, one access stalled; and all devices fire.
    let mut released = Process::new();
    for device in stage.with_pasids() {
        released.open(device)?;
        if device.can_stall {
            let end = device.write(number, NOWHERE, 1)?;
            ensure!(end == End::Stalled, "{end:?}, not stalled");
        }
    }
    released.memory.release()?;
    released.files.pop();
    for device in stage.with_pasids() {
        device.fire(number, va, 2, 1)?;
        device.fires(4)?;
        device.watch(number).dies(stage.number);
    }
    calls::system_reset()
}

/// Numbers are this at most: no other story needs more at a time.
const MOST: u32 = 1 << 11;

/// The guest has died: nothing is left of it, and it has everything anew.
fn lives_again(stage: &Stage) -> Told {
    for device in stage.with_pasids() {
        (1..=MOST).for_each(|number| device.end_watch(number));
    }
    stage.is_clean()?;
    for device in stage.with_pasids() {
        ensure!(
            device.pending() == 0,
            "accesses of the dead guest are stalled"
        );
        stage.attach(device)?;
        let mut process = Process::new();
        let (va, page) = process.page();
        process.open(device)?;
        let number = process.number()?;
        ensure!(crate::pages::holds(page, 0), "the page was written");
        stage.is_blocked(device, number, NOWHERE)?;
        stage.lands(device, number, va, 3)?;
        process.exit()?;
        let watch = device.watch(number);
        stage.is_blocked(device, number, va)?;
        watch.quiet(stage.number, 1);
    }
    Ok(())
}

/// How often the neighbour is served, once it knows that the other guest must be over.
const ROUNDS_AFTER: u32 = 100;
/// In this time everything is over.
const LIFE_US: u64 = 120_000_000;

/// What the other guest does: it has its faults answered all the time, by one device until its SMMU
/// stops, and by another after that.
pub(crate) fn live_beside(stage: &Stage) -> Told {
    let unit = first_unit(stage);
    let here = stage.with_pasids().find(|it| it.unit == unit);
    let there = stage.with_pasids().find(|it| it.unit != unit);
    let (Some(here), Some(there)) = (here, there) else {
        return Err(Trouble::failed(format_args!("not two SMMUs")));
    };
    let end = arch::now_ns() + LIFE_US * 1000;
    let mut first = Life::new(stage, here)?;
    let mut second = Life::new(stage, there)?;
    while arch::now_ns() < end {
        match first.round(stage)? {
            Round::Served => {}
            Round::Stopped | Round::Unconfirmed => {
                say!("neighbour: told");
                break;
            }
        }
    }
    for _ in 0..ROUNDS_AFTER {
        let round = second.round(stage)?;
        ensure!(
            round == Round::Served,
            "the other SMMU stops too: {round:?}"
        );
    }
    let rounds = first.rounds;
    let slowest_ns = first.slowest_ns.max(second.slowest_ns);
    say!(
        "neighbour: {rounds} faults answered and {ROUNDS_AFTER}, the slowest told in {slowest_ns} ns"
    );
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Round {
    Served,
    /// The SMMU stopped, and that was told.
    Stopped,
    /// Something was not confirmed: it is to be told.
    Unconfirmed,
}

/// A process of the neighbour's, and its device.
struct Life<'s> {
    device: &'s Device,
    process: Process,
    rounds: u32,
    slowest_ns: u64,
}

impl<'s> Life<'s> {
    fn new(stage: &Stage, device: &'s Device) -> Result<Self, Trouble> {
        stage.attach(device)?;
        let mut process = Process::new();
        process.open(device)?;
        Ok(Self {
            device,
            process,
            rounds: 0,
            slowest_ns: 0,
        })
    }

    /// One fault: it arrives in time, it is answered, and the access lands; or the SMMU stops on the
    /// way, and that is told.
    fn round(&mut self, stage: &Stage) -> Result<Round, Trouble> {
        let number = self.process.number()?;
        let device = self.device;
        let watch = device.watch(number);
        let round = self.faults(number);
        let count = watch.landed(stage.number);
        let round = round?;
        match round {
            Round::Served => ensure!(count == 1, "{count} accesses landed in a round"),
            Round::Stopped => ensure!(count <= 1, "{count} accesses landed in the last round"),
            Round::Unconfirmed => {
                is_told()?;
                return Ok(Round::Stopped);
            }
        }
        Ok(round)
    }

    fn faults(&mut self, number: u32) -> Result<Round, Trouble> {
        let va = FIRST_VA + PAGE * u64::from(self.rounds % 8);
        let space = self.process.memory.space()?;
        let start = arch::now_ns();
        let end = self.device.write(number, va, self.rounds.into())?;
        let mut id = None;
        let mut is_stopped = false;
        arch::within(FAULT_US, || {
            let fault = EL2.fault_next().ok().flatten();
            is_stopped |= fault.is_some_and(|it| matches!(it.kind, FaultKind::SmmuStopped(_)));
            id = fault.and_then(|it| it.id);
            id.is_some() || is_stopped
        });
        if is_stopped {
            return Ok(Round::Stopped);
        }
        let Some(id) = id else {
            return Err(Trouble::failed(format_args!(
                "round {}: {end:?}, and no fault within {FAULT_US} us",
                self.rounds
            )));
        };
        self.slowest_ns = self.slowest_ns.max(arch::now_ns() - start);
        self.process.memory.map_new(va);
        match EL2.fault_answer(id, Answer::Retry) {
            // The SMMU stopped since the fault was told, and what stalled there ended with it.
            Err(why) if why.code() == Some(Code::NoSuchFault) => return Ok(Round::Unconfirmed),
            outcome if is_unconfirmed(outcome)? => return Ok(Round::Unconfirmed),
            _ => {}
        }
        self.device.has_none_pending()?;
        let seen = self.process.memory.read(va);
        let page = self.process.memory.unmap(va);
        if is_unconfirmed(calls::invalidate(space, va, PAGE))? {
            // The page stays what it was.
            return Ok(Round::Unconfirmed);
        }
        page.into_iter().for_each(crate::pages::put_back);
        ensure!(seen == self.rounds.into(), "{seen:#x} landed");
        self.rounds += 1;
        Ok(Round::Served)
    }
}

/// Whether hardware did not confirm; another refusal is trouble.
fn is_unconfirmed(outcome: Result<(), Error>) -> Result<bool, Trouble> {
    match outcome {
        Ok(()) => Ok(false),
        Err(why) => match why.code() {
            Some(Code::NotConfirmed | Code::SmmuDown | Code::Fenced) => Ok(true),
            _ => Err(why.into()),
        },
    }
}
