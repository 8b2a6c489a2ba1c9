//! A guest's CPU on one of the machine's: what it comes back to EL2 for, and what is done.

use core::sync::atomic::Ordering;

use portcullis::addr::Ipa;
use portcullis::arch::vcpu::{Exit, Vcpu};
use portcullis::arch::{cpu, gic, println};
use portcullis::discover::Text;
use portcullis::guest::calls::{Registers, dispatch};
use portcullis::guest::config_space::ConfigAccess;
use portcullis::guest::description::{Planned, PlannedDevice};
use portcullis::guest::psci::{Power, Request, is_psci};
use portcullis::guest::traps::{MemoryAccess, SystemAnswer, Trap, UNKNOWN};
use portcullis::pci::Function;
use portcullis::space::GuestId;

use super::run::Who;
use super::view::View;
use super::world::{Ending, Slot, World};

/// Accesses outside of what a guest owns that are told on the console; all are counted.
const TOLD: u64 = 8;

const NOT_SUPPORTED: u64 = -1_i64 as u64;

/// Whether a guest's CPU goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// With the next instruction.
    GoOn,
    /// It is off.
    TurnOff,
}

/// A guest's CPU, running on this one.
pub(crate) struct Running<'w> {
    pub(crate) world: &'w World,
    pub(crate) planned: &'w Planned,
    pub(crate) slot: &'w Slot,
    pub(crate) id: GuestId,
    pub(crate) number: u32,
    pub(crate) vcpu: Vcpu,
}

impl Running<'_> {
    /// Runs it until it is off, or the guest ends.
    pub(crate) fn run(&mut self) {
        while !self.slot.is_ending.load(Ordering::Acquire) {
            // Anew after each visit, whatever it was for: the SMMUs are served in each.
            self.world.start_timer();
            let next = match self.vcpu.run() {
                Exit::Interrupt => {
                    self.world.acknowledge();
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
            self.world.tend(Who::OnItsWay(self.id, self.slot));
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
