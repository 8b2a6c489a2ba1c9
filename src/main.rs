//! The image: from the loader to the last line.
#![no_std]
#![no_main]

mod image;

use core::panic::PanicInfo;

use image::devices::{Ecams, Functions};
use image::hardware::Hardware;
use image::sites::TestFrames;
use image::{Refusal, devices, gates, guests, memory, report, sites};
use portcullis::arch::uart::Kind;
use portcullis::arch::{self, Host, Start, console, end, entry, println};
use portcullis::check;
use portcullis::discover::{ConsoleKind, DeviceTree, Machine, Text};
use spin::{Mutex, MutexGuard, Once};

entry!(boot);

// What would not fit on the stack.
static MACHINE: Mutex<Machine> = Mutex::new(Machine::new());
static FUNCTIONS: Mutex<Functions> = Mutex::new(Functions::new());
static ECAMS: Once<Ecams> = Once::new();
static TESTS: Once<TestFrames> = Once::new();
static HOST: Once<Host> = Once::new();
static HARDWARE: Once<Hardware> = Once::new();

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

    let (host, stacks) = memory::take(&machine, extent, machine.cpus.len())?;
    let host = HOST.call_once(|| host);
    let mut functions = FUNCTIONS.lock();
    let ecams = devices::scan_all(&machine, &mut functions)?;
    let ecams = ECAMS.call_once(|| ecams);
    report::devices(&machine, &functions);

    let tests = sites::map_test_devices(&machine)?;
    let tests = TESTS.call_once(|| tests);
    if has_argument(machine.bootargs.as_str(), "no-self-check") {
        println!("self-check: left out, as the boot arguments ask");
    } else {
        self_check(&machine, host, ecams, &functions, tests)?;
    }
    // From here on both stay as they are.
    let machine: &Machine = MutexGuard::leak(machine);
    let functions: &Functions = MutexGuard::leak(functions);
    let hardware = HARDWARE.call_once(|| Hardware::new(machine, functions, ecams, tests));
    host.know_devices(hardware);
    guests::run_all(host, hardware, stacks)
}

/// Whether the boot arguments have the word `name`.
fn has_argument(bootargs: &str, name: &str) -> bool {
    bootargs.split(' ').any(|argument| argument == name)
}

/// Shows that this machine does what all the rest relies upon.
fn self_check(
    machine: &Machine,
    host: &'static Host,
    ecams: &'static Ecams,
    functions: &Functions,
    tests: &'static TestFrames,
) -> Result<(), Refusal> {
    let driven = devices::bring_up(machine, ecams, functions)?;
    let sites = sites::all(machine, &driven, tests)?;
    let bench = sites::for_self_check(host, &sites);
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
    if cfg!(feature = "sabotage") && name == guests::ISOLATION {
        // Not one of the self-check's: guests come later.
        return Ok(None);
    }
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
