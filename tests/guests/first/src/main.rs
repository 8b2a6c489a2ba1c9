//! The guest that the image has with it: it uses its devices, and tries to reach what is not its own.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a kernel, if a small one")]

mod console;
mod entry;
mod power;
mod probe;

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering};

use console::println;

/// CPUs that have said that they are there.
static OTHERS: AtomicU32 = AtomicU32::new(0);

/// What it does, in order.
static PARTS: [(&str, fn() -> Result<(), &'static str>); 2] = [
    ("other CPUs", other_cpus),
    ("absent features", probe::absent),
];

extern "C" fn main_at(tree: u64) -> ! {
    println!("guest: device tree at {tree:#x}");
    for (name, part) in PARTS {
        match part() {
            Ok(()) => println!("guest: {name}: ok"),
            Err(why) => println!("guest: {name}: FAILED {why}"),
        }
    }
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
    println!("guest: {} CPUs", started + 1);
    for number in 1..=u64::from(started) {
        while !power::is_off(number) {
            core::hint::spin_loop();
        }
    }
    Ok(())
}

extern "C" fn other_cpu() -> ! {
    OTHERS.fetch_add(1, Ordering::Relaxed);
    power::cpu_off()
}

extern "C" fn stray(esr: u64, elr: u64, far: u64) -> ! {
    println!("guest: stray exception: ESR {esr:#x} ELR {elr:#x} FAR {far:#x}");
    power::off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("guest: {info}");
    power::off()
}
