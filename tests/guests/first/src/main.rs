//! The guest that the image has with it: it uses its devices, and tries to reach what is not its own.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a kernel, if a small one")]

mod console;
mod device;
mod entry;
mod isolation;
mod memory;
mod power;
mod probe;
mod space;
mod tree;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use console::println;

/// CPUs that have said that they are there.
static OTHERS: AtomicU32 = AtomicU32::new(0);

/// A part of what it does: its name, and what comes of it.
type Part = (&'static str, fn() -> Result<(), &'static str>);

/// What it does first, in order.
static PARTS: [Part; 2] = [
    ("other CPUs", other_cpus),
    ("absent features", probe::absent),
];

/// What is counted as reaching out, and so is no part where EL2 counts.
static MORE: [Part; 2] = [
    ("AArch32 at EL0", probe::narrow_el0),
    ("starts over", start_over),
];

/// Not 0 once this life has begun.
static ALIVE: AtomicU32 = AtomicU32::new(0);

pub(crate) extern "C" fn main_at(tree: u64) -> ! {
    println!("device tree at {tree:#x}");
    let tree = tree::Tree(tree);
    let is_examined = tree.number("portcullis,report", 0).is_some();
    let more = if is_examined { &[][..] } else { &MORE };
    for (name, part) in PARTS.iter().chain(more) {
        match part() {
            Ok(()) => println!("{name}: ok"),
            Err(why) => println!("{name}: FAILED {why}"),
        }
    }
    isolation::run(tree);
    power::off()
}

/// Starts every CPU that it has, each of which turns itself off again.
fn other_cpus() -> Result<(), &'static str> {
    let mut started = 0;
    for number in 1..power::MAX_CPUS {
        match power::cpu_on(number) {
            Ok(()) => started += 1,
            Err(power::INVALID_PARAMETERS) => break,
            Err(_) => return Err("a CPU does not start"),
        }
    }
    while OTHERS.load(Ordering::Relaxed) != started {
        core::hint::spin_loop();
    }
    println!("{} CPUs", started + 1);
    for number in 1..=u64::from(started) {
        while !power::is_off(number) {
            core::hint::spin_loop();
        }
    }
    Ok(())
}

/// Starts over once. What EL2 noted of the first life is still there in the second, and nothing else.
fn start_over() -> Result<(), &'static str> {
    if ALIVE.swap(1, Ordering::Relaxed) != 0 {
        return Err("memory was not cleared");
    }
    if probe::has_note() {
        return Ok(());
    }
    probe::leave_note();
    power::reset()
}

pub(crate) extern "C" fn other_cpu() -> ! {
    OTHERS.fetch_add(1, Ordering::Relaxed);
    power::cpu_off()
}

pub(crate) extern "C" fn stray(esr: u64, elr: u64, far: u64) -> ! {
    println!("stray exception: ESR {esr:#x} ELR {elr:#x} FAR {far:#x}");
    power::off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("{info}");
    power::off()
}
