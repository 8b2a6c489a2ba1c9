//! The image: from the loader to the last line.
#![no_std]
#![no_main]

use core::fmt;
use core::panic::PanicInfo;

use portcullis::arch::tree::TreeError;
use portcullis::arch::{self, Start, board, cpu, end, entry, image, println, psci};

entry!(boot);

/// Entered with the CPU settled, the image mapped, and the board's early console.
fn boot(start: Start) -> ! {
    match run(start) {
        Ok(()) => end!("ok"),
        Err(refusal) => end!("{refusal}"),
    }
}

fn run(start: Start) -> Result<(), Refusal> {
    banner();
    let tree = start.device_tree().map_err(Refusal::Tree)?;
    println!(
        "device tree: {} bytes at {}",
        tree.bytes.len(),
        tree.extent.base()
    );
    Ok(())
}

fn banner() {
    let image = image::layout().whole;
    println!(
        "Portcullis {} for {}",
        env!("CARGO_PKG_VERSION"),
        board::NAME
    );
    println!(
        "image: {:#x} bytes at {}, EL2",
        image.size_bytes(),
        image.base()
    );
    println!(
        "cpu {:#x}: MIDR_EL1 {:#010x}, {} bits of physical address",
        cpu::affinity(),
        cpu::midr(),
        cpu::pa_bits(),
    );
    match psci::version() {
        Some(version) => println!("firmware: PSCI {version}"),
        None => println!("firmware: no PSCI, the machine stays on at the end"),
    }
}

/// Why the image ends before its work is done.
enum Refusal {
    Tree(TreeError),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(refusal) => refusal.fmt(f),
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    arch::panicked(info)
}
