//! The image: from the loader to the last line.
#![no_std]
#![no_main]

mod image;

use core::panic::PanicInfo;

use image::devices::Functions;
use image::{Refusal, devices, gates, memory, report, sites};
use portcullis::arch::uart::Kind;
use portcullis::arch::{self, Start, console, end, entry, println};
use portcullis::check;
use portcullis::discover::{ConsoleKind, DeviceTree, Machine, Text};
use spin::Mutex;

entry!(boot);

// What would not fit on the stack.
static MACHINE: Mutex<Machine> = Mutex::new(Machine::new());
static FUNCTIONS: Mutex<Functions> = Mutex::new(Functions::new());

/// Entered with the CPU settled, the image mapped, and the board's early console.
fn boot(start: Start) -> ! {
    match run(start) {
        Ok(()) => end!("ok"),
        Err(refusal) => end!("{refusal}"),
    }
}

fn run(start: Start) -> Result<(), Refusal> {
    report::banner();
    let arch::DeviceTree { extent, bytes } = start.device_tree().map_err(Refusal::Tree)?;
    println!(
        "device tree: {} bytes at {}",
        extent.size_bytes(),
        extent.base()
    );
    gates::shut_all(bytes)?;

    let mut machine = MACHINE.lock();
    let tree = DeviceTree::new(bytes).map_err(Refusal::Machine)?;
    machine.read_device_tree(&tree).map_err(Refusal::Machine)?;
    if machine.smmus.is_empty() {
        return Err(Refusal::NoSmmu);
    }
    if let Some(console) = machine.console {
        let kind = match console.kind {
            ConsoleKind::Pl011 => Some(Kind::Pl011),
            ConsoleKind::Ns16550 {
                log2_stride,
                access_bytes,
            } => Kind::ns16550(log2_stride, access_bytes),
        };
        // Where it cannot be driven or mapped, the board's goes on.
        let _ = kind.map(|kind| console::switch_to(console.base, kind));
    }
    report::machine(&machine);
    report::smmus(&machine)?;

    let host = memory::take(&machine, extent)?;
    let mut functions = FUNCTIONS.lock();
    let ecams = devices::scan_all(&machine, &mut functions)?;
    report::devices(&machine, &functions);

    let driven = devices::bring_up(&machine, &ecams, &functions)?;
    let tests = sites::map_test_devices(&machine)?;
    let sites = sites::all(&machine, &driven, &tests)?;
    let bench = sites::for_self_check(&host, &sites);
    let sabotaged = sabotaged(machine.bootargs.as_str())?;
    let summary = check::run(&bench, sabotaged, &mut |line| println!("{line}"));
    match summary.failed {
        0 => Ok(()),
        failed => Err(Refusal::SelfCheck { failed }),
    }
}

/// The check for which the boot arguments ask a fault (`sabotage=CHECK`).
fn sabotaged(bootargs: &str) -> Result<Option<&str>, Refusal> {
    let mut arguments = bootargs.split(' ');
    let Some(name) = arguments.find_map(|it| it.strip_prefix("sabotage=")) else {
        return Ok(None);
    };
    if cfg!(feature = "sabotage") && check::can_sabotage(name) {
        Ok(Some(name))
    } else {
        Err(Refusal::Sabotage(Text::start_of(name)))
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    arch::panicked(info)
}
