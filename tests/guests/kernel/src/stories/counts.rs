//! Of many, and of all at once.

use alloc::vec::Vec;

use portcullis_guest::{Ask, Code, Counter, Quotas};

use super::lives::are_nobodys;
use crate::calls::{self, EL2};
use crate::memory::Memory;
use crate::process::Process;
use crate::story::{Stage, Told};
use crate::{arch, ensure};

pub(super) fn too_many(stage: &Stage) -> Told {
    let Quotas {
        spaces: most,
        pasid_bits,
        ..
    } = EL2.quotas()?;
    numbers(stage, pasid_bits)?;
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut parked = Process::new();
    let (va, _) = parked.page();
    let file = parked.open(device)?;
    let number = parked.number()?;
    stage.lands(device, number, va, 1)?;
    parked.memory.release()?;
    // Parked and draining ones count: of the latter there are none when the count begins.
    arch::pause(2 * stage.quarantine_us);
    let mut all: Vec<Memory> = Vec::new();
    let refused = loop {
        let mut memory = Memory::new();
        match memory.space() {
            Ok(_) => all.push(memory),
            Err(why) => break why,
        }
        ensure!(all.len() <= most as usize, "more than {most} spaces");
    };
    stage.is_refused::<()>(Code::QuotaSpaces, Err(refused), "a space too many")?;
    let spaces = EL2.stats(Counter::Spaces)?;
    ensure!(spaces == most.into(), "{spaces} spaces, not {most}");
    // Nothing was changed by it.
    let watch = device.watch(number);
    stage.is_blocked(device, number, va)?;
    watch.quiet(stage.number, 1);
    // A place that comes free can be taken: once.
    if let Some(one) = all.pop() {
        one.end()?;
    }
    arch::pause(2 * stage.quarantine_us);
    let mut again = Memory::new();
    again.space()?;
    let over = Memory::new().space();
    stage.is_refused(Code::QuotaSpaces, over, "a space too many")?;
    again.end()?;
    for memory in all {
        memory.end()?;
    }
    drop(file);
    parked.exit()?;
    Ok(())
}

/// Numbers that cannot be, and numbers that a device cannot issue.
fn numbers(stage: &Stage, pasid_bits: u8) -> Told {
    for number in [0, 1 << pasid_bits] {
        let none = Memory::new().space_as(Ask::Exactly(number));
        stage.is_refused(Code::PasidOutOfRange, none, "a number that cannot be")?;
    }
    let narrow = stage.with_pasids().find(|it| it.pasid_bits < pasid_bits);
    if let Some(narrow) = narrow {
        stage.attach(narrow)?;
        let mut wide = Memory::new();
        let space = wide.space_as(Ask::Exactly(1 << narrow.pasid_bits))?;
        let bound = calls::bind(space, narrow);
        stage.is_refused(Code::PasidTooWide, bound, "a number too wide")?;
        wide.end()?;
    }
    Ok(())
}

pub(super) fn guest_starts_over(stage: &Stage) -> Told {
    let mut numbers = Vec::new();
    let mut pages = Vec::new();
    for device in stage.with_pasids() {
        stage.attach(device)?;
    }
    for place in 0..3 {
        let mut process = Process::new();
        process.begin_at(8 * place);
        let (va, page) = process.page();
        for device in stage.with_pasids() {
            process.open(device)?;
        }
        let number = process.number()?;
        for device in stage.with_pasids() {
            stage.reaches(device, number, va, 1)?;
        }
        numbers.push((number, va));
        pages.push(page);
        // The kernel is replaced: nobody knows of the process any more.
        process.files.iter().for_each(|file| file.forget());
        process.memory.forget_space();
        core::mem::forget(process);
    }
    let (last, va) = numbers[2];
    for device in stage.with_pasids() {
        device.fire(last, va, 2, 1)?;
    }
    stage.with_pasids().try_for_each(|device| device.fires(4))?;
    EL2.release_all()?;
    let watches: Vec<_> = stage.with_pasids().map(|it| (it, it.watch(last))).collect();
    for page in &pages {
        crate::pages::fill(*page, crate::pages::NOBODYS);
    }
    for (device, watch) in watches {
        device.fires(20)?;
        device.stop();
        watch.quiet(stage.number, 20);
    }
    for &(number, va) in &numbers {
        for device in stage.with_pasids() {
            let watch = device.watch(number);
            stage.is_blocked(device, number, va)?;
            watch.quiet(stage.number, 1);
        }
    }
    are_nobodys(&pages)?;
    for (counter, name) in [
        (Counter::Handles, "handles"),
        (Counter::Bindings, "bindings"),
        (Counter::Parked, "parked spaces"),
    ] {
        let count = EL2.stats(counter)?;
        ensure!(count == 0, "{count} {name} are left over");
    }
    stage.read_all_faults()?;

    // The new kernel starts from nothing; its devices are attached still.
    arch::pause(2 * stage.quarantine_us);
    let device = stage.impatient()?;
    let mut process = Process::new();
    process.begin_at(64);
    let (own, _) = process.page();
    process.open(device)?;
    let number = process.number()?;
    stage.lands(device, number, own, 3)?;
    process.exit()?;
    Ok(())
}
