//! What each CPU does once guests may start: runs its part of a guest, and serves the SMMUs between.
//!
//! # How soon events are served
//!
//! Whenever a CPU comes to EL2, and at least every [`SERVICE_US`]: each CPU that guests run on, or
//! that waits for one, has a timer of that length, and one of them serves all SMMUs. So an event or a
//! deadline waits for at most that long, and for the longest call of a guest on every CPU at once.

use core::fmt;
use core::sync::atomic::Ordering;

use portcullis::addr::Ipa;
use portcullis::arch::vcpu::{self, Exit, Vcpu};
use portcullis::arch::{Timer, cpu, end, gic, println};
use portcullis::discover::{List, Text};
use portcullis::guest::calls::{
    GuestDevice, GuestWorld, Limits, NotItsMemory, Registers, dispatch, guest_memory,
};
use portcullis::guest::config_space::ConfigAccess;
use portcullis::guest::description::{Planned, PlannedDevice};
use portcullis::guest::psci::{Power, Request, is_psci};
use portcullis::guest::traps::{MemoryAccess, SystemAnswer, Trap, UNKNOWN};
use portcullis::hw::{Clock, Mmio};
use portcullis::pci::Function;
use portcullis::space::{GuestId, Iommu, Quota};

use super::world::{self, Built, Ending, Slot, World};
use super::{Refusal, desk};

/// How often the SMMUs are served.
const SERVICE_US: u64 = 5_000;
/// Events of one SMMU that are taken at a time.
const EVENTS: u32 = 64;
/// Accesses outside of what a guest owns that are told on the console; all are counted.
const TOLD: u64 = 8;

const NOT_SUPPORTED: u64 = -1_i64 as u64;

/// Has every CPU of every guest start, and does this CPU's own part. Never returns.
pub(crate) fn start(world: &'static World) -> ! {
    if let Err(why) = start_all(world) {
        end!("{why}");
    }
    let here = cpu::affinity();
    let place = world
        .machine()
        .cpus
        .iter()
        .position(|it| it.mpidr.as_u64() == here);
    serve(place.unwrap_or(usize::MAX))
}

/// Builds every guest, and starts the other CPUs, which then wait for their guests.
fn start_all(world: &'static World) -> Result<(), Refusal> {
    world.hardware.silence(|place| {
        use portcullis::guest::description::PlannedDevice::Function;
        let mut guests = world.plan.iter();
        guests.any(|guest| guest.devices.contains(&Function(place)))
    });
    for (guest, planned) in world.plan.iter().enumerate() {
        for device in &planned.devices {
            world.bring_up(*device);
        }
        world.build(guest)?;
        println!("{}", Introduced(world, planned));
    }
    if let Some(exam) = &world.exam {
        exam.set(world);
    }
    let here = cpu::affinity();
    let mut number = 0;
    for (place, machine_cpu) in world.machine().cpus.iter().enumerate() {
        let affinity = machine_cpu.mpidr.as_u64();
        if affinity == here || world.part_of(place).is_none() {
            continue;
        }
        let started = world.stacks.start(number, affinity, serve_other);
        started.map_err(|why| Refusal::Cpu { affinity, why })?;
        number += 1;
    }
    Ok(())
}

/// What a guest is given, in a line.
struct Introduced<'w>(&'w World, &'w Planned);

impl fmt::Display for Introduced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(world, planned) = self;
        write!(
            f,
            "guest {}: {} MiB at {}, CPUs",
            planned.name,
            planned.memory.size_bytes() >> 20,
            planned.memory.base(),
        )?;
        for place in &planned.cpus {
            if let Some(cpu) = world.machine().cpus.get(*place) {
                write!(f, " {:#x}", cpu.mpidr.as_u64())?;
            }
        }
        write!(f, ", {} devices", planned.devices.len())
    }
}

/// Where another CPU begins; its number says only whose stack it has.
fn serve_other(_: usize) -> ! {
    let here = cpu::affinity();
    let place = world::get().and_then(|world| {
        let mut cpus = world.machine().cpus.iter();
        cpus.position(|it| it.mpidr.as_u64() == here)
    });
    serve(place.unwrap_or(usize::MAX))
}

/// The CPU at `place` of the machine: its part of a guest, whenever that is on, and rest.
fn serve(place: usize) -> ! {
    let Some(world) = world::get() else {
        end!("a CPU without a world");
    };
    let regions: List<&Mmio, 32> = {
        let mut regions = List::new();
        for region in &world.redistributors {
            // Both hold as many.
            let _ = regions.push(region);
        }
        regions
    };
    if let Err(why) = gic::wake(&regions, cpu::affinity(), &Timer) {
        end!("cpu {:#x}: {why}", cpu::affinity());
    }
    gic::open();
    let part = world.part_of(place);
    loop {
        if let Some((guest, number)) = part {
            world.take_turn(guest, number);
        }
        world.tend();
        desk::serve(world);
        gic::start_timer(SERVICE_US);
        if part.is_none_or(|(guest, number)| !world.is_wanted(guest, number)) {
            gic::rest();
        }
        gic::acknowledge();
    }
}

/// Whether a guest's CPU goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// With the next instruction.
    GoOn,
    /// It is off.
    TurnOff,
}

impl World {
    /// Serves the SMMUs, if nobody did lately.
    fn tend(&self) {
        let now_us = Timer.now_us();
        let last_us = self.served_us.load(Ordering::Relaxed);
        let is_due = now_us.saturating_sub(last_us) >= SERVICE_US / 2;
        let order = Ordering::Relaxed;
        if is_due
            && self
                .served_us
                .compare_exchange(last_us, now_us, order, order)
                .is_ok()
        {
            self.iommu.service(EVENTS);
        }
    }

    fn is_wanted(&self, guest: usize, number: usize) -> bool {
        let slot = self.guests.get(guest);
        slot.is_some_and(|slot| {
            let state = slot.state.lock();
            matches!(state.cpus.power(number), Power::Pending { .. })
        })
    }

    /// Runs a CPU of a guest, if it is to start, until it is off.
    fn take_turn(&self, guest: usize, number: usize) {
        let Some((planned, slot)) = self.planned(guest) else {
            return;
        };
        let (walk, id, entry, context) = {
            let mut state = slot.state.lock();
            let Power::Pending { entry, context } = state.cpus.power(number) else {
                return;
            };
            let Some(built) = &state.built else { return };
            let (walk, id) = (built.walk, built.id);
            state.cpus.set(number, Power::On);
            state.inside += 1;
            (walk, id, entry, context)
        };
        vcpu::settle(&vcpu::Settings {
            walk,
            number: number as u8,
            has_simd: cpu::has_simd(),
            counters: cpu::pmu_counters(),
        });
        let mut running = Running {
            world: self,
            planned,
            slot,
            id,
            number: number as u32,
            vcpu: Vcpu::starting(entry, context),
        };
        running.run();
        vcpu::leave();
        self.left_by(guest, planned, slot, number);
    }

    /// A CPU has left a guest; the last one ends it, or has it start over.
    fn left_by(&self, guest: usize, planned: &Planned, slot: &Slot, number: usize) {
        let (ending, built) = {
            let mut state = slot.state.lock();
            // It may have been started again meanwhile, while it was not yet gone.
            if state.cpus.power(number) == Power::On {
                state.cpus.set(number, Power::Off);
            }
            state.inside -= 1;
            if state.inside != 0 || !state.cpus.are_all_off() {
                return;
            }
            (state.ending.unwrap_or(Ending::NoCpus), state.built.take())
        };
        slot.lines.finish(planned.name.as_str());
        if let Some(built) = built {
            if let Some(exam) = &self.exam {
                exam.mark(self, guest, &built, ending);
            }
            self.take_down(planned, built);
        }
        println!("guest {}: {ending}", planned.name);
        if ending == Ending::Reset {
            for device in &planned.devices {
                self.bring_up(*device);
            }
            match self.build(guest) {
                Ok(()) => {
                    self.call(planned);
                    return;
                }
                Err(why) => println!("guest {}: not started over: {why}", planned.name),
            }
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 && !desk::is_open(self) {
            super::ending::all_over(self);
        }
    }

    /// Takes everything from a guest that no CPU is in any more.
    fn take_down(&self, planned: &Planned, built: Built) {
        use portcullis::hw::{CpuTlb, Platform};
        let outcome = self.iommu.destroy_guest(built.id);
        // The VMID may be another guest's next.
        portcullis::arch::tlbi::Tlbi.forget(&built.walk, None, 12);
        match outcome {
            // Stale tokens: its groups are nobody's now.
            Ok(()) => {
                let mut frames = built.frames;
                while let Some(piece) = frames.pop() {
                    self.host.free(piece);
                }
            }
            // Its memory stays out of use with it.
            Err(why) => println!("guest {}: what it had stays lost: {why}", planned.name),
        }
    }

    /// Calls all CPUs of a guest to EL2.
    fn call(&self, planned: &Planned) {
        for place in &planned.cpus {
            if let Some(cpu) = self.machine().cpus.get(*place) {
                gic::call(cpu.mpidr.as_u64());
            }
        }
    }

    /// Has a guest end: none of its CPUs runs it any more once each has come to EL2.
    pub(crate) fn end(&self, planned: &Planned, slot: &Slot, why: Ending) {
        {
            let mut state = slot.state.lock();
            state.ending = Some(state.ending.unwrap_or(why));
            state.cpus.all_off();
        }
        slot.is_ending.store(true, Ordering::Release);
        self.call(planned);
    }
}

/// A guest's CPU, running on this one.
struct Running<'w> {
    world: &'w World,
    planned: &'w Planned,
    slot: &'w Slot,
    id: GuestId,
    number: u32,
    vcpu: Vcpu,
}

impl Running<'_> {
    fn run(&mut self) {
        gic::start_timer(SERVICE_US);
        while !self.slot.is_ending.load(Ordering::Acquire) {
            let next = match self.vcpu.run() {
                Exit::Interrupt => {
                    gic::acknowledge();
                    gic::start_timer(SERVICE_US);
                    Next::GoOn
                }
                Exit::Synchronous {
                    syndrome,
                    address,
                    page,
                } => self.serve(Trap::new(syndrome, address, page)),
                Exit::SystemError { syndrome } => {
                    println!("guest {}: SError {syndrome:#x}", self.planned.name);
                    self.world.end(self.planned, self.slot, Ending::SystemError);
                    Next::TurnOff
                }
            };
            self.world.tend();
            if next == Next::TurnOff {
                return;
            }
        }
    }

    fn serve(&mut self, trap: Trap) -> Next {
        match trap {
            Trap::Call(0) => return self.call(),
            Trap::Call(_) => self.vcpu.x[0] = NOT_SUPPORTED,
            Trap::Rest => self.vcpu.step_over(),
            Trap::System(access) => match access.answer(cpu::id_register, self.world.ipa_bits) {
                SystemAnswer::Value(value) => {
                    self.set(access.general, value);
                    self.vcpu.step_over();
                }
                SystemAnswer::Ignored => self.vcpu.step_over(),
                SystemAnswer::Unknown => self.vcpu.inject(UNKNOWN, None),
            },
            Trap::Memory(access) => self.memory(&access),
            Trap::Unknown => self.vcpu.inject(UNKNOWN, None),
        }
        Next::GoOn
    }

    /// Register 31 is none.
    fn set(&mut self, general: u8, value: u64) {
        if let Some(register) = self.vcpu.x.get_mut(usize::from(general)) {
            *register = value;
        }
    }

    fn call(&mut self) -> Next {
        if is_psci(self.vcpu.x[0]) {
            return self.psci();
        }
        let mut registers: Registers = [0; 18];
        for (to, from) in registers.iter_mut().zip(&self.vcpu.x) {
            *to = *from;
        }
        let view = View {
            world: self.world,
            planned: self.planned,
            slot: self.slot,
        };
        dispatch(&view, self.id, self.number, &mut registers);
        for (to, from) in self.vcpu.x.iter_mut().zip(&registers) {
            *to = *from;
        }
        Next::GoOn
    }

    fn psci(&mut self) -> Next {
        let [x0, x1, x2, x3, ..] = self.vcpu.x;
        let answer = match Request::decode([x0, x1, x2, x3]) {
            Request::Answer(answer) => answer,
            Request::Rest => 0,
            Request::Affinity(target) => self.slot.state.lock().cpus.affinity_info(target),
            Request::On {
                target,
                entry,
                context,
            } => self.turn_on(target, entry, context),
            Request::Off => {
                let mut state = self.slot.state.lock();
                state.cpus.set(self.number as usize, Power::Off);
                return Next::TurnOff;
            }
            Request::SystemOff => {
                self.world.end(self.planned, self.slot, Ending::Off);
                return Next::TurnOff;
            }
            Request::SystemReset => {
                self.world.end(self.planned, self.slot, Ending::Reset);
                return Next::TurnOff;
            }
        };
        self.vcpu.x[0] = answer as u64;
        Next::GoOn
    }

    fn turn_on(&self, target: u64, entry: u64, context: u64) -> i64 {
        const INVALID_ADDRESS: i64 = -9;
        if !self.planned.memory.contains(Ipa::new(entry)) {
            return INVALID_ADDRESS;
        }
        let mut state = self.slot.state.lock();
        // One that dies starts nothing.
        if state.ending.is_some() {
            return -3;
        }
        let number = match state.cpus.turn_on(target, entry, context) {
            Ok(number) => number,
            Err(error) => return error,
        };
        drop(state);
        let place = self.planned.cpus.get(number);
        if let Some(cpu) = place.and_then(|place| self.world.machine().cpus.get(*place)) {
            gic::call(cpu.mpidr.as_u64());
        }
        0
    }

    /// An access that stage 2 does not let through: to configuration space, or nobody answers it.
    fn memory(&mut self, access: &MemoryAccess) {
        if let Some(transfer) = access.transfer
            && let Some(config) = self.config_access(access.ipa, transfer.bytes)
        {
            if !access.is_write {
                let real = self.config_register(config.0, &config.1);
                let value = transfer.loaded(config.1.loaded(real));
                self.set(transfer.general, value);
            }
            self.vcpu.step_over();
            return;
        }
        let count = self.slot.outside.fetch_add(1, Ordering::Relaxed);
        let what = match (access.is_fetch, access.is_write) {
            (true, _) => "fetch",
            (_, true) => "write",
            _ => "read",
        };
        let text = Text::<96>::printed(format_args!(
            "cpu {}: {what} of {}, not its own",
            self.number, access.ipa
        ));
        self.slot.lines.note(text.as_str());
        if count < TOLD {
            println!("guest {}: {text}", self.planned.name);
        }
        const EL1: u64 = 0b0100;
        let was_el1 = self.vcpu.spsr & 0b1100 == EL1;
        let syndrome = access.external_abort(was_el1);
        self.vcpu.inject(syndrome, Some(access.address));
    }
}

impl Running<'_> {
    /// The host bridge, by its place, and the access to its configuration space that is at `ipa`, if
    /// the guest has a function there.
    fn config_access(&self, ipa: Ipa, bytes: u8) -> Option<(usize, ConfigAccess)> {
        let mut bridges = self.world.machine().bridges.iter().enumerate();
        let (place, offset) = bridges.find_map(|(place, bridge)| {
            let ecam = bridge.ecam?;
            let offset = ipa.as_u64().checked_sub(ecam.base().as_u64())?;
            (offset < ecam.size_bytes()).then_some((place, offset))
        })?;
        self.functions().find(|it| self.is_below(place, it))?;
        Some((place, ConfigAccess::new(offset, bytes)?))
    }

    /// What the function has in the register, if it is the guest's.
    fn config_register(&self, place: usize, access: &ConfigAccess) -> Option<u32> {
        let bridge = self.world.machine().bridges.get(place)?;
        let rid = access.function + (u32::from(bridge.first_bus) << 8);
        let mut own = self.functions();
        let function =
            own.find(|it| self.is_below(place, it) && u32::from(it.rid.as_u16()) == rid)?;
        let ecam = self.world.hardware.ecam_of(function)?;
        ecam.read(function.rid, access.register()).ok()
    }

    fn is_below(&self, place: usize, function: &Function) -> bool {
        let bridge = self.world.machine().bridges.get(place);
        bridge.is_some_and(|bridge| super::devices::is_below(bridge, function))
    }

    /// The guest's PCI functions.
    fn functions(&self) -> impl Iterator<Item = &Function> {
        let functions = self.world.hardware.functions;
        self.planned.devices.iter().filter_map(|it| match it {
            PlannedDevice::Function(place) => functions.get(*place),
            PlannedDevice::Platform(_) => None,
        })
    }
}

/// The world as one guest's calls see it.
struct View<'w> {
    world: &'w World,
    planned: &'w Planned,
    slot: &'w Slot,
}

impl GuestWorld<'static, portcullis::arch::Host> for View<'_> {
    fn iommu(&self) -> &Iommu<'static, portcullis::arch::Host> {
        &self.world.iommu
    }

    fn limits(&self, _: GuestId) -> Limits {
        let settings = &self.world.settings;
        Limits {
            vcpus: self.planned.cpus.len() as u32,
            quota: self.quota(),
            pasid_bits: super::build::PASID_BITS,
            stall_deadline_us: settings.stall_deadline_us,
            quarantine_us: settings.quarantine_us,
            wait_us: settings.wait_us,
        }
    }

    fn device(&self, _: GuestId, number: u32) -> Option<GuestDevice> {
        let state = self.slot.state.lock();
        state.built.as_ref()?.devices.get(number as usize).copied()
    }

    fn read(&self, _: GuestId, from: Ipa, into: &mut [u8]) -> Result<(), NotItsMemory> {
        let state = self.slot.state.lock();
        let built = state.built.as_ref().ok_or(NotItsMemory { at: from })?;
        let bytes = into.len() as u64;
        guest_memory::pieces(&built.ram, from, bytes, |piece, before| {
            let into = into.iter_mut().skip(before as usize);
            for (byte, at) in into.zip(piece.base().as_u64()..piece.end().as_u64()) {
                let word = self.world.host.word(portcullis::addr::Pa::new(at & !7));
                let word = word.map_or(0, |word| word.load(Ordering::Relaxed));
                *byte = (word >> (8 * (at & 7))) as u8;
            }
        })
    }

    fn console(&self, _: GuestId, vcpu: u32, bytes: &[u8]) {
        self.slot.lines.put(self.planned.name.as_str(), vcpu, bytes);
    }

    fn log(&self, _: GuestId, into: &mut [u8]) -> usize {
        self.slot.lines.take(into)
    }
}

impl View<'_> {
    fn quota(&self) -> Quota {
        super::build::quota(self.planned)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Reset => "starts over",
            Self::NoCpus => "off, all of its CPUs are",
            Self::SystemError => "ended, an SError hit it",
            Self::Killed => "ended at the monitor",
        })
    }
}
