//! Of tables: what several devices see of them, and what becomes of entries.

use portcullis_guest::{Ask, Code, Globals};

use super::lives::are_nobodys;
use crate::calls::{self, EL2};
use crate::device::{Device, Watch};
use crate::ensure;
use crate::memory::{As, Coarse, FIRST_VA, Memory};
use crate::pages::{self, NOBODYS, PAGE};
use crate::process::Process;
use crate::story::{Stage, Told, Trouble};

pub(super) fn one_space_many_devices(stage: &Stage) -> Told {
    let devices = || stage.with_pasids();
    let Some(first) = devices().next() else {
        return Err(Trouble::Skipped("no device with PASIDs"));
    };
    let has_several = devices().any(|it| it.unit != first.unit);
    ensure!(has_several, "all devices are behind one SMMU");
    devices().try_for_each(|device| stage.attach(device))?;
    let mut process = Process::new();
    let (va, page) = process.page();
    let number = process.number()?;
    for (device, value) in devices().zip(1..) {
        process.open(device)?;
        let watch = device.watch(number);
        stage.reaches(device, number, va, value)?;
        ensure!(
            process.memory.read(va) == value,
            "the process does not see it"
        );
        ensure!(watch.landed(stage.number) == 1, "not one access landed");
    }
    // One is taken away: the others are undisturbed.
    let gone = process.files.remove(0);
    drop(gone);
    let watch = first.watch(number);
    stage.is_blocked(first, number, va)?;
    for device in devices().skip(1) {
        stage.reaches(device, number, va, 0x10)?;
    }
    // All of one SMMU are: the space was used there, and is no longer.
    let mut at = 0;
    for device in devices().skip(1) {
        if device.unit == first.unit {
            drop(process.files.remove(at));
        } else {
            at += 1;
        }
    }
    let others = || devices().filter(|it| it.unit != first.unit);
    for device in others() {
        device.fire(number, va, 0x20, 1)?;
    }
    others().try_for_each(|device| device.fires(4))?;
    let pages = process.exit()?;
    let watches: alloc::vec::Vec<(&Device, Watch<'_>)> =
        others().map(|it| (it, it.watch(number))).collect();
    for (device, watch) in watches {
        device.fires(20)?;
        device.stop();
        watch.quiet(stage.number, 20);
    }
    stage.is_blocked(first, number, va)?;
    watch.quiet(stage.number, 2);
    ensure!(pages::holds(page, NOBODYS), "the page was written");
    are_nobodys(&pages)?;
    Ok(())
}

pub(super) fn misfit(stage: &Stage) -> Told {
    let coarse = Coarse::new();
    let space = EL2.space_create(&coarse.registers, Ask::Any, Globals::MayBe)?;
    let number = space.pasid.number;
    let (mut fits, mut misfits) = (0, 0);
    let mut handles = alloc::vec::Vec::new();
    for device in stage.with_pasids().filter(|it| !it.can_stall) {
        stage.attach(device)?;
        match calls::bind(space, device) {
            Ok(handle) => {
                fits += 1;
                handles.push(handle);
                stage.lands(device, number, 8, fits)?;
                ensure!(pages::load(coarse.page + 8) == fits, "it landed elsewhere");
            }
            Err(why) if why.code() == Some(Code::Misfit) => {
                misfits += 1;
                let watch = device.watch(number);
                stage.is_blocked(device, number, 8)?;
                watch.quiet(stage.number, 1);
            }
            Err(why) => return Err(why.into()),
        }
    }
    ensure!(
        fits != 0 && misfits != 0,
        "it fits {fits} SMMUs and does not fit {misfits}"
    );
    EL2.release(space.id)?;
    for handle in handles {
        EL2.unbind(handle)?;
    }
    coarse.free();
    Ok(())
}

pub(super) fn global_entries(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let (dying_at, living_at) = (FIRST_VA, FIRST_VA + 8 * PAGE);
    let mut processes = [dying_at, living_at].map(|va| {
        let mut memory = Memory::new();
        memory.map(va, pages::take(), As::Global);
        Process::of(memory)
    });
    for process in &mut processes {
        process.open(device)?;
    }
    let [mut dying, mut living] = processes;
    let (old, alive) = (dying.number()?, living.number()?);
    stage.reaches(device, old, dying_at, 1)?;
    stage.reaches(device, alive, living_at, 2)?;
    let kept = dying.files.clone();
    let pages = dying.exit()?;
    let parked = device.watch(old);
    // Neither by its own entries nor by those of its sibling.
    stage.is_blocked(device, old, dying_at)?;
    stage.is_blocked(device, old, living_at)?;
    parked.quiet(stage.number, 2);
    let sibling = device.watch(alive);
    stage.is_blocked(device, alive, dying_at)?;
    stage.reaches(device, alive, living_at, 3)?;
    ensure!(
        living.memory.read(living_at) == 3,
        "the sibling does not see it"
    );
    ensure!(sibling.landed(stage.number) == 1, "not one access landed");
    are_nobodys(&pages)?;
    drop(kept);
    living.exit()?;
    Ok(())
}

pub(super) fn stage1_unmap_under_dma(stage: &Stage) -> Told {
    let device = stage.impatient()?;
    stage.attach(device)?;
    let mut process = Process::new();
    let (stays, kept) = process.page();
    let (va, old) = process.page();
    process.open(device)?;
    let space = process.memory.space()?;
    let number = space.pasid.number;
    stage.reaches(device, number, stays, 1)?;
    for round in 1..=3u64 {
        device.fire(number, va, round, 2)?;
        device.fires(8)?;
        let page = process.memory.unmap(va);
        calls::invalidate(space, va, PAGE)?;
        // It is another's from here on.
        let Some(page) = page else {
            return Err(Trouble::failed(format_args!("nothing was mapped")));
        };
        pages::put_back(page);
        let watch = device.watch(number);
        device.fires(20)?;
        device.stop();
        watch.quiet(stage.number, 20);
        ensure!(pages::holds(page, NOBODYS), "page {page:#x} was written");
        stage.read_all_faults()?;
        stage.reaches(device, number, stays, round)?;
        process.memory.map_new(va);
        stage.lands(device, number, va, 0x40 + round)?;
        ensure!(
            process.memory.read(va) == 0x40 + round,
            "it landed elsewhere"
        );
    }
    ensure!(pages::load(kept) == 3, "another page lost what it had");
    ensure!(pages::holds(old, NOBODYS), "page {old:#x} was written");
    process.exit()?;
    Ok(())
}
