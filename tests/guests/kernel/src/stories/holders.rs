//! Of several who hold what one opened.

use alloc::rc::Rc;
use alloc::vec::Vec;

use portcullis_guest::{Ask, Code, Counter};

use super::lives::are_nobodys;
use crate::calls::{self, EL2};
use crate::device::Device;
use crate::ensure;
use crate::memory::Memory;
use crate::process::{File, Process};
use crate::story::{Stage, Told};

pub(super) fn daemon_fork(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut master = Process::new();
    let (va, _) = master.page();
    master.open(device)?;
    let first = master.number()?;
    stage.reaches(device, first, va, 1)?;
    let daemon = master.fork();
    let pages = master.exit()?;
    let watch = device.watch(first);
    ensure!(EL2.stats(Counter::Parked)? == 1, "the number is not parked");
    stage.is_blocked(device, first, va)?;

    let mut worker = Process::new();
    worker.begin_at(8);
    let (own, _) = worker.page();
    worker.open(device)?;
    let second = worker.number()?;
    ensure!(second != first, "the worker has the number that is parked");
    stage.lands(device, second, own, 2)?;
    for round in 0..3 {
        let mut other = daemon.fork();
        other.begin_at(16 + round);
        let (place, _) = other.page();
        other.open(device)?;
        let number = other.number()?;
        ensure!(
            number != first && number != second,
            "number {number:#x} is another's"
        );
        stage.lands(device, number, place, 3)?;
        other.exit()?;
    }
    stage.is_blocked(device, first, va)?;
    watch.quiet(stage.number, 2);
    ensure!(worker.memory.read(own) == 2, "the worker does not see it");
    // The inherited file is closed.
    daemon.exit()?;
    ensure!(EL2.stats(Counter::Parked)? == 0, "the number stays parked");
    stage.lands(device, second, own, 4)?;
    are_nobodys(&pages)?;
    stage.heir_of(first)?.exit()?;
    worker.exit()?;
    Ok(())
}

pub(super) fn adopt(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    for parent_lives in [true, false] {
        stage.attach(device)?;
        adopted(stage, device, parent_lives)?;
        EL2.detach(device.id)?;
    }
    Ok(())
}

fn adopted(stage: &Stage, device: &Device, parent_lives: bool) -> Told {
    let mut parent = Process::new();
    let (va, _) = parent.page();
    let file = parent.open(device)?;
    let old = parent.number()?;
    stage.reaches(device, old, va, 1)?;
    let mut child = parent.fork();
    child.begin_at(8);
    let (own, _) = child.page();
    let space = child.memory.space()?;
    let new = space.pasid.number;
    let before = device.watch(new);
    stage.is_blocked(device, new, own)?;
    before.quiet(stage.number, 1);
    let mut parent = Some(parent);
    if !parent_lives && let Some(parent) = parent.take() {
        parent.exit()?;
    }
    // Between the two neither is reachable.
    file.take_over(space, device)?;
    let after = device.watch(old);
    stage.is_blocked(device, old, va)?;
    stage.lands(device, new, own, 2)?;
    stage.is_blocked(device, old, own)?;
    after.quiet(stage.number, 2);
    if let Some(parent) = parent {
        parent.exit()?;
    }
    stage.reaches(device, new, own, 3)?;
    ensure!(child.memory.read(own) == 3, "the child does not see it");
    drop(file);
    child.exit()?;
    Ok(())
}

pub(super) fn self_mapped_handle(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let file = process.open(device)?;
    let number = process.number()?;
    stage.lands(device, number, va, 1)?;
    // The queue is mapped into the address space: that keeps the file, and goes with the tables,
    // which go after the release.
    let mapping = Rc::clone(&file);
    process.files.clear();
    drop(file);
    ensure!(
        Rc::strong_count(&mapping) == 1,
        "somebody else has the file"
    );
    process.memory.release()?;
    let watch = device.watch(number);
    stage.is_blocked(device, number, va)?;
    ensure!(EL2.stats(Counter::Parked)? == 1, "the number is not parked");
    let pages = process.exit()?;
    drop(mapping);
    ensure!(EL2.stats(Counter::Parked)? == 0, "the number stays parked");
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 2);
    are_nobodys(&pages)?;
    stage.heir_of(number)?.exit()?;
    Ok(())
}

pub(super) fn bind_twice(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (va, _) = process.page();
    let space = process.memory.space()?;
    let number = space.pasid.number;
    let [first, second] = [calls::bind(space, device)?, calls::bind(space, device)?];
    ensure!(first != second, "two binds gave one handle");
    ensure!(EL2.stats(Counter::Bindings)? == 1, "not one binding");
    let watch = device.watch(number);
    stage.reaches(device, number, va, 1)?;
    EL2.unbind(first)?;
    stage.reaches(device, number, va, 2)?;
    // Dropped twice: the other's count stays.
    stage.is_refused(Code::NoSuchHandle, EL2.unbind(first), "a second unbind")?;
    stage.reaches(device, number, va, 3)?;
    ensure!(watch.landed(stage.number) == 3, "not three accesses landed");
    EL2.unbind(second)?;
    let watch = device.watch(number);
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 1);
    stage.is_refused(Code::NoSuchHandle, EL2.unbind(second), "a second unbind")?;
    process.exit()?;
    Ok(())
}

/// The order in which three let go.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

pub(super) fn park_in_any_order(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    for order in ORDERS {
        let mut process = Process::new();
        let (va, _) = process.page();
        let space = process.memory.space()?;
        let number = space.pasid.number;
        let mut holders: Vec<Option<Rc<File>>> = Vec::new();
        for _ in order {
            holders.push(Some(File::open(space, device)?));
        }
        stage.lands(device, number, va, 1)?;
        process.memory.release()?;
        let again = EL2.release(space.id);
        stage.is_refused(Code::AlreadyReleased, again, "a second release")?;
        let watch = device.watch(number);
        for (gone, who) in order.into_iter().enumerate() {
            let parked = EL2.stats(Counter::Parked)?;
            ensure!(parked == 1, "{parked} parked when {gone} of 3 let go");
            let taken = Memory::new().space_as(Ask::Exactly(number));
            stage.is_refused(Code::PasidTaken, taken, "a number that is held")?;
            stage.is_blocked(device, number, va)?;
            holders[who] = None;
        }
        watch.quiet(stage.number, 3);
        ensure!(EL2.stats(Counter::Parked)? == 0, "the number stays parked");
        let again = EL2.release(space.id);
        let is_named = again
            .is_err_and(|it| matches!(it.code(), Some(Code::AlreadyReleased | Code::NoSuchSpace)));
        ensure!(is_named, "a release of what is gone: {again:?}");
        process.exit()?;
        stage.heir_of(number)?.exit()?;
    }
    Ok(())
}

pub(super) fn handle_passed_on(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut sender = Process::new();
    let (va, _) = sender.page();
    let file = sender.open(device)?;
    let space = sender.memory.space()?;
    let number = space.pasid.number;
    stage.reaches(device, number, va, 1)?;
    let mut receiver = Process::new();
    receiver.begin_at(8);
    let (own, _) = receiver.page();
    receiver.open(device)?;
    receiver.files.push(file);
    let pages = sender.exit()?;
    let watch = device.watch(number);
    // What is done with it is answered, and nothing translates.
    stage.is_refused(Code::Released, calls::bind(space, device), "a bind")?;
    let invalidated = calls::invalidate(space, va, 0x1000);
    stage.is_refused(Code::Released, invalidated, "an invalidation")?;
    stage.is_blocked(device, number, va)?;
    stage.is_blocked(device, number, own)?;
    let its = receiver.number()?;
    stage.reaches(device, its, own, 2)?;
    // The other file goes: the receiver's own stays.
    receiver.files.truncate(1);
    ensure!(EL2.stats(Counter::Parked)? == 0, "the number stays parked");
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 3);
    stage.lands(device, its, own, 3)?;
    ensure!(
        receiver.memory.read(own) == 3,
        "the receiver does not see it"
    );
    are_nobodys(&pages)?;
    receiver.exit()?;
    Ok(())
}
