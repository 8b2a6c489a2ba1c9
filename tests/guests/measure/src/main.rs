//! A guest that counts the instructions of every call: `measure NAME COUNT` lines for NUMBERS.md.
//!
//! With `-icount shift=0` a nanosecond of the counter is an instruction. Each count is the least of
//! a few, since EL2's timer comes in between now and then; that of a NOP is taken off.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "a kernel, if a small one")]

mod clock;
#[path = "../../first/src/console.rs"]
mod console;
mod entry;
mod power;
mod series;

use core::panic::PanicInfo;

use console::println;
use portcullis_guest::{Hvc, Portcullis};

extern "C" fn main_at(_tree: u64) -> ! {
    let began = clock::now();
    println!("measure first-instruction {began}");
    let portcullis = Portcullis::new(Hvc);
    if let Err(error) = series::all(&portcullis) {
        println!("measure FAILED {error}");
    }
    power::off()
}

extern "C" fn stray(esr: u64, elr: u64, far: u64) -> ! {
    println!("measure FAILED stray exception: ESR {esr:#x} ELR {elr:#x} FAR {far:#x}");
    power::off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("measure FAILED {info}");
    power::off()
}
