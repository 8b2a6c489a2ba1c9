//! A kernel at EL1 that plays the scenarios: its processes share their address spaces with devices.
//!
//! One line a story, `story N NAME: ok`, `FAILED why` or `skipped: why`, and before it a line
//! `claim N STREAM PASID WHAT` for each watch that the
//! model kept (`device.rs`). What it prints is believed by nobody: `cargo xtask` compares it with
//! what the model has seen.
//!
//! A guest that has only devices that stall lives beside another that plays: it says `neighbour: ok`.
//!
//! Built with `GUEST_KERNEL_ONLY=NAME,NAME` it plays these alone.
#![no_std]
#![no_main]

extern crate alloc;

mod arch;
mod calls;
mod console;
mod device;
mod memory;
mod pages;
mod process;
mod stories;
mod story;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::panic::PanicInfo;

use calls::EL2;
use device::Device;
use portcullis_guest::{Bounds, Features};
use story::{Stage, Trouble};

const COMPATIBLE: &str = "portcullis,dma-test";
/// The stories that are played, if not all.
const ONLY: Option<&str> = option_env!("GUEST_KERNEL_ONLY");
const HEAP_BYTES: u64 = 2 << 20;

/// Entered with caches on, in the upper half.
fn kernel(tree: u64, image: u64) -> ! {
    let Some(fdt) = arch::tree(tree) else {
        end(format_args!("no device tree"));
    };
    let end_of_tree = tree + fdt.total_size() as u64;
    let Some(memory) = memory_of(&fdt) else {
        end(format_args!("no memory in the tree"));
    };
    arch::map_all(memory.clone());
    arch::forget_all();
    let free = largest_gap(&memory, [image..arch::image_end(), tree..end_of_tree]);
    if free.end - free.start < 2 * HEAP_BYTES {
        end(format_args!("too little memory: {memory:x?}"));
    }
    arch::give_heap(free.start..free.start + HEAP_BYTES);
    pages::give(free.start + HEAP_BYTES..free.end);
    match play_all(&fdt) {
        Ok(failed) => end(format_args!("stories over, {failed} failed")),
        Err(why) => end(format_args!("no stories: {why:?}")),
    }
}

/// A second CPU.
fn secondary(context: u64) -> ! {
    stories::races::second_cpu(context)
}

/// What memory the tree tells of.
fn memory_of(fdt: &fdt::Fdt<'_>) -> Option<Range<u64>> {
    let region = fdt.memory().regions().next()?;
    let start = region.starting_address.addr() as u64;
    Some(start..start + region.size? as u64)
}

/// The largest part of `memory` without `taken`.
fn largest_gap(memory: &Range<u64>, mut taken: [Range<u64>; 2]) -> Range<u64> {
    taken.sort_by_key(|it| it.start);
    let mut start = memory.start;
    let mut best = start..start;
    let end = memory.end..memory.end;
    for next in taken.into_iter().chain(core::iter::once(end)) {
        if next.start > start && next.start - start > best.end - best.start {
            best = start..next.start;
        }
        start = start.max(next.end.next_multiple_of(pages::PAGE));
    }
    best
}

fn play_all(fdt: &fdt::Fdt<'_>) -> Result<u32, Trouble> {
    let mut devices = Vec::new();
    for node in fdt.all_nodes() {
        let is_test = node.compatible().is_some_and(|it| it.first() == COMPATIBLE);
        let number = node
            .property("portcullis,device")
            .and_then(|it| it.as_usize());
        let region = node.reg().and_then(|mut regions| regions.next());
        if let (true, Some(number), Some(region)) = (is_test, number, region) {
            let base = region.starting_address.addr() as u64;
            devices.push(Device::new(number as u32, base)?);
        }
    }
    let Features {
        devices: known,
        cpus,
        ..
    } = EL2.features()?;
    let Bounds { quarantine_us, .. } = EL2.bounds()?;
    say!(
        "guest-kernel: {} of {known} devices, {cpus} CPUs",
        devices.len()
    );
    let mut stage = Stage {
        number: 0,
        lives_again: false,
        devices,
        cpus,
        quarantine_us,
    };
    if stage.devices.iter().all(|it| it.can_stall) {
        return live_beside(&mut stage).map(|()| 0);
    }
    let mut failed = 0;
    // Not 0 in a second life.
    let died_in = stage.devices.iter().map(Device::story).max().unwrap_or(0);
    for (number, story) in (1..).zip(stories::ALL) {
        if ONLY.is_some_and(|only| !only.split(',').any(|it| it == story.name)) || number < died_in
        {
            continue;
        }
        stage.number = number;
        stage.lives_again = number == died_in;
        for device in &stage.devices {
            device.note_story(stage.number);
        }
        let told = (story.play)(&stage).and_then(|()| {
            if story.is_last {
                return Ok(());
            }
            stage.is_clean()
        });
        stage.clear(matches!(told, Err(Trouble::Failed(_))));
        let name = story.name;
        match told {
            Ok(()) => say!("story {number} {name}: ok"),
            Err(Trouble::Skipped(why)) => say!("story {number} {name}: skipped: {why}"),
            Err(Trouble::Failed(why)) => {
                failed += 1;
                say!("story {number} {name}: FAILED {why}");
            }
        }
    }
    Ok(failed)
}

/// What a guest does that has only devices that wait: another one plays.
fn live_beside(stage: &mut Stage) -> Result<(), Trouble> {
    let of_storm = |story: &story::Story| story.name == "storm";
    let at = stories::ALL.iter().position(of_storm).unwrap_or(0);
    stage.number = at as u32 + 1;
    for device in &stage.devices {
        device.note_story(stage.number);
    }
    say!("neighbour: begins");
    let told = stories::others::live_beside(stage);
    match &told {
        Ok(()) => say!("neighbour: ok"),
        Err(why) => say!("neighbour: FAILED {why:?}"),
    }
    told
}

/// Says why, and ends the guest.
fn end(why: fmt::Arguments<'_>) -> ! {
    say!("guest-kernel: {why}");
    calls::system_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    end(format_args!("{info}"))
}
