//! Runs the programs of `differential-programs` on the SMMUv3 of the machine that it is booted on,
//! with `edu` functions as devices, and prints what is to be seen: a line `arena: ADDRESS`, then
//! for each program `program NAME` and its observations, each on a line of its own that begins
//! with two spaces.
#![no_std]
#![no_main]

mod devices;
mod target;

use core::fmt;
use core::panic::PanicInfo;

use portcullis::addr::{Extent, Pa};
use portcullis::arch::ram::{FreeRam, TooManyPieces};
use portcullis::arch::tables::MapError;
use portcullis::arch::tree::TreeError;
use portcullis::arch::{
    self, DeviceTree, Host, HostError, Start, Timer, cpu, end, entry, image, println,
};
use portcullis::discover::{self, Machine};
use portcullis::hw::Platform;
use portcullis::pci;
use portcullis::smmu::{HandshakeTimeout, REGISTER_TIMEOUT_US, close_gate};
use spin::{Mutex, Once};

use differential_programs::{ARENA_BYTES, programs, run};

use devices::Functions;
use target::Native;

entry!(boot);

static MACHINE: Mutex<Machine> = Mutex::new(Machine::new());
static FUNCTIONS: Mutex<Functions> = Mutex::new(Functions::new());
static REGISTERS: Once<arch::Registers> = Once::new();

fn boot(start: Start) -> ! {
    match run_all(start) {
        Ok(()) => end!("ok"),
        Err(refusal) => end!("{refusal}"),
    }
}

fn run_all(start: Start) -> Result<(), Refusal> {
    let DeviceTree { extent, bytes } = start.device_tree().map_err(Refusal::Tree)?;
    let mut machine = MACHINE.lock();
    let tree = discover::DeviceTree::new(bytes).map_err(Refusal::Machine)?;
    machine.read_device_tree(&tree).map_err(Refusal::Machine)?;
    let smmu = machine.smmus.first().ok_or(Refusal::NoSmmu)?;
    let registers = arch::map_registers(smmu.registers.base(), smmu.registers.size_bytes())
        .map_err(Refusal::Map)?;
    let registers = REGISTERS.call_once(|| registers);
    arch::on_death(&shut);
    close_gate(&Timer, registers, REGISTER_TIMEOUT_US).map_err(Refusal::Gate)?;

    let host = memory(&machine, extent)?;
    let mut functions = FUNCTIONS.lock();
    let ecam = devices::scan(&machine, &mut functions)?;
    let edus = devices::edus(&machine, &ecam, &functions)?;
    let frames = host
        .allocate(ARENA_BYTES.ilog2() as u8)
        .ok_or(Refusal::NoArena)?;
    println!("arena: {}", frames.base());
    let mut target = Native::new(&host, registers, &frames, &edus);
    for program in programs() {
        println!("program {}", program.name);
        run(program, &mut target, &mut |seen| println!("  {seen}")).map_err(Refusal::Device)?;
    }
    // Devices may still reach the arena if an SMMU was left open: it is not given back.
    Ok(())
}

/// Leaves the SMMU in abort, whatever the last program left.
fn shut() {
    let Some(registers) = REGISTERS.get() else {
        return;
    };
    if let Err(why) = close_gate(&Timer, registers, REGISTER_TIMEOUT_US) {
        println!("the SMMU is NOT SHUT: {why}");
    }
}

/// Takes all memory that nobody has.
fn memory(machine: &Machine, tree: Extent<Pa>) -> Result<Host, Refusal> {
    let reserved = machine.reserved.iter().map(|reserved| reserved.extent);
    let taken = reserved.chain([image::layout().whole, tree]);
    let memory = machine.memory.iter().copied();
    let free = FreeRam::carve(memory, taken, cpu::pa_bits()).map_err(Refusal::Memory)?;
    Host::new(free).map_err(Refusal::Host)
}

/// Why the image ends early.
enum Refusal {
    Tree(TreeError),
    Machine(discover::Refusal),
    NoSmmu,
    Map(MapError),
    Gate(HandshakeTimeout),
    Memory(TooManyPieces),
    Host(HostError),
    NoArena,
    NoBridge,
    Pci(pci::Refusal),
    Device(target::Trouble),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(why) => why.fmt(f),
            Self::Machine(why) => write!(f, "device tree: {why}"),
            Self::NoSmmu => f.write_str("no SMMUv3 in the device tree"),
            Self::Map(why) => why.fmt(f),
            Self::Gate(why) => write!(f, "SMMU: {why}"),
            Self::Memory(why) => why.fmt(f),
            Self::Host(why) => why.fmt(f),
            Self::NoArena => write!(f, "no {ARENA_BYTES} bytes in one piece"),
            Self::NoBridge => f.write_str("no PCI host bridge with configuration space"),
            Self::Pci(why) => write!(f, "PCI: {why}"),
            Self::Device(why) => write!(f, "device: {why}"),
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    arch::panicked(info)
}
