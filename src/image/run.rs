//! What each CPU does once guests may start: runs its part of a guest, and serves the SMMUs between.
//!
//! # How soon events are served
//!
//! Whenever a CPU comes to EL2, and at least every [`SERVICE_US`]: each CPU that guests run on, or
//! that waits for one, has a timer of that length, and one of them serves all SMMUs. So an event or a
//! deadline waits for at most that long, and for the longest call of a guest on every CPU at once. An
//! SMMU with a wire has its events served as soon as the first CPU can. Where a turn left events behind,
//! turns come every [`FLOOD_US`] until there is none left: what comes behind a flood is reached soon,
//! and guests still have most of each CPU.
//!
//! What an SMMU did not confirm is asked for again every [`RECOVERY_US`], and more and more rarely while
//! it does not answer: by a CPU at rest, or half as often by one that runs the guest whose loss it is.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use portcullis::arch::vcpu::{self, Vcpu};
use portcullis::arch::{Timer, cpu, end, gic, println};
use portcullis::discover::List;
use portcullis::guest::description::Planned;
use portcullis::guest::psci::Power;
use portcullis::hw::{Clock, Mmio};
use portcullis::space::GuestId;

use super::running::Running;
use super::world::{self, Built, Ending, Slot, World};
use super::{Refusal, desk};

/// How often the SMMUs are served.
const SERVICE_US: u64 = 5_000;
/// How often they are served while more events wait than one turn takes.
const FLOOD_US: u64 = 2_000;
/// How often an SMMU that something was lost on is asked for proof, and how rarely, once it was asked in
/// vain.
pub(crate) const RECOVERY_US: u64 = 25_000;
const RECOVERY_MAX_US: u64 = 10_000_000;
/// Events of one SMMU that are taken at a time. A full queue of 2048 is read in eight turns; a turn is
/// short beside the deadline of a stall, which every guest's CPU may have to wait for it.
const EVENTS: u32 = 256;

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
        world.tend(Who::AtRest);
        desk::serve(world);
        world.start_timer();
        if part.is_none_or(|(guest, number)| !world.is_wanted(guest, number)) {
            gic::rest();
        }
        world.acknowledge();
    }
}

/// Who tends the SMMUs.
#[derive(Clone, Copy)]
pub(crate) enum Who<'w> {
    /// A CPU that has nothing else to do.
    AtRest,
    /// A CPU between two instructions of this guest.
    OnItsWay(GuestId, &'w Slot),
}

/// Whether it is time again, and nobody else takes it upon himself.
fn is_mine(last_us: &AtomicU64, now_us: u64, pace_us: u64) -> bool {
    let (last, order) = (last_us.load(Ordering::Relaxed), Ordering::Relaxed);
    now_us.saturating_sub(last) >= pace_us
        && last_us.compare_exchange(last, now_us, order, order).is_ok()
}

impl World {
    /// Takes what interrupts this CPU; a wire of an SMMU has the SMMUs served at once.
    pub(crate) fn acknowledge(&self) {
        let wires = gic::acknowledge();
        if wires != 0 {
            self.pulled.fetch_add(wires.into(), Ordering::Relaxed);
            self.served_us.store(0, Ordering::Relaxed);
        }
    }

    /// How often they are to be served at present.
    fn service_us(&self) -> u64 {
        if self.is_behind.load(Ordering::Relaxed) {
            FLOOD_US
        } else {
            SERVICE_US
        }
    }

    /// Has this CPU come to EL2 when it is time to serve again.
    pub(crate) fn start_timer(&self) {
        gic::start_timer(self.service_us());
    }

    /// Serves the SMMUs, if nobody did lately, and brings back what can be brought back.
    pub(crate) fn tend(&self, who: Who<'_>) {
        let now_us = Timer.now_us();
        if is_mine(&self.served_us, now_us, self.service_us() / 2) {
            let served = self.iommu.service(EVENTS);
            self.is_behind.store(served.has_more, Ordering::Relaxed);
        }
        let pace_us = self.recovery_pace_us.load(Ordering::Relaxed);
        let (last_us, due_us) = match who {
            Who::AtRest => (&self.recovered_us, pace_us),
            Who::OnItsWay(_, slot) => (&slot.recovered_us, 2 * pace_us),
        };
        if is_mine(last_us, now_us, due_us) {
            self.recover(who);
        }
    }

    /// Tries to bring SMMUs back that something was lost on: a CPU at rest all of them, and a guest's
    /// those that are the guest's loss, for nobody is to wait for another's.
    ///
    /// One that does not come back is asked again later and later: each time may take as long as a
    /// few CMD_SYNCs may. One CPU at a time asks.
    fn recover(&self, who: Who<'_>) {
        let Some(_alone) = self.recovering.try_lock() else {
            return;
        };
        let lost = match who {
            Who::AtRest => self.iommu.unproven(),
            Who::OnItsWay(guest, _) => self.iommu.unproven_of(guest),
        };
        if lost.is_empty() {
            return;
        }
        let mut pace_us = RECOVERY_US;
        for smmu in lost.iter() {
            match self.iommu.recover(smmu) {
                Ok(()) => println!("smmu {smmu}: recovered"),
                Err(_) => {
                    let last_us = self.recovery_pace_us.load(Ordering::Relaxed);
                    pace_us = pace_us.max((2 * last_us).min(RECOVERY_MAX_US));
                }
            }
        }
        self.recovery_pace_us.store(pace_us, Ordering::Relaxed);
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
