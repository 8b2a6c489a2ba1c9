//! From what the loader described to CPUs that run guests.

use portcullis::addr::{Extent, Pa};
use portcullis::arch::{self, Host, Stacks, Timer, cpu, gic, mmu, println};
use portcullis::discover::{Interrupt, List, Mpidr, Trigger};
use portcullis::guest::description::{self, Given, MAX_GUESTS};
use portcullis::hw::Mmio;

use super::embedded::{self, Exam};
use super::hardware::Hardware;
use super::{Refusal, run, world};

/// Addresses of a guest: what ECAM windows and 64-bit BARs on boards of today need.
const IPA_BITS: u8 = 40;

/// What `sabotage=` says for a page of EL2's in every guest's stage 2.
pub(crate) const ISOLATION: &str = "guest-isolation";

/// Makes the guests that the device tree describes and runs them; comes back if there are none.
///
/// # Errors
///
/// Whatever is wrong with any of them, before any starts.
pub(crate) fn run_all(
    host: &'static Host,
    hardware: &'static Hardware,
    stacks: Stacks,
) -> Result<(), Refusal> {
    let machine = hardware.machine;
    let embedded = match machine.guests.is_empty() {
        true => embedded::describe(hardware),
        false => List::new(),
    };
    let (nodes, exam) = match (machine.guests.is_empty(), embedded.is_empty()) {
        (false, _) => (&*machine.guests, None),
        (true, false) => (&*embedded, Some(exam(hardware, host)?)),
        (true, true) => return Ok(()),
    };
    let ipa_bits = IPA_BITS.min(cpu::pa_bits());
    let given = Given {
        machine,
        functions: hardware.functions,
        here: Mpidr::of_register(cpu::affinity()),
        ipa_bits,
    };
    let mut images = List::<&'static [u8], MAX_GUESTS>::new();
    let mut places = List::<Extent<Pa>, MAX_GUESTS>::new();
    let mut image = |at: Extent<Pa>| {
        // Guests may have one image among them, which is mapped once.
        let known = places.iter().position(|place| *place == at);
        let bytes = match known.and_then(|known| images.get(known)) {
            Some(bytes) => *bytes,
            None => arch::bytes_at(at)?,
        };
        let _ = places.push(at);
        // A guest more than there can be is refused.
        let _ = images.push(bytes);
        Some(bytes)
    };
    let plan = description::plan(nodes, given, &mut image).map_err(Refusal::Plan)?;
    let Interrupts {
        redistributors,
        wired,
    } = interrupts(hardware)?;
    println!("guests: {}", plan.len());
    let world = world::make(world::Parts {
        host,
        hardware,
        plan,
        images,
        redistributors,
        wired,
        stacks,
        ipa_bits,
        exam,
    })?;
    run::start(world)
}

/// What the embedded guests have to show, and what is against them.
fn exam(hardware: &Hardware, host: &Host) -> Result<Exam, Refusal> {
    let mut arguments = hardware.machine.bootargs.as_str().split(' ');
    let is_sabotaged = cfg!(feature = "sabotage")
        && arguments.any(|it| it.strip_prefix("sabotage=") == Some(ISOLATION));
    Exam::new(host, is_sabotaged).ok_or(Refusal::NoExam)
}

/// What guests need of the interrupt controller.
struct Interrupts {
    /// Its frames of private interrupts.
    redistributors: List<Mmio, 32>,
    /// A bit for each SMMU whose wires reach us.
    wired: u32,
}

/// Turns the interrupt controller on, and lets the SMMUs' wires through to this CPU.
fn interrupts(hardware: &Hardware) -> Result<Interrupts, Refusal> {
    let machine = hardware.machine;
    let gic = machine.gic.as_ref().ok_or(Refusal::NoGic)?;
    let map = |at: Extent<Pa>| mmu::map_device(at.base(), at.size_bytes()).map_err(Refusal::Device);
    let distributor = map(gic.distributor)?;
    gic::turn_on(&distributor, &Timer).map_err(Refusal::Gic)?;
    let mut wired = 0;
    for (place, smmu) in machine.smmus.iter().enumerate() {
        let wires = &smmu.interrupts;
        for wire in [wires.combined, wires.event_queue, wires.global_error] {
            if let Some(Interrupt::Gic { intid, trigger }) = wire
                && gic::route(
                    &distributor,
                    intid,
                    trigger == Trigger::Edge,
                    cpu::affinity(),
                )
            {
                wired |= 1 << place;
            }
        }
    }
    let mut redistributors = List::new();
    for region in &gic.redistributors {
        // Both hold as many.
        let _ = redistributors.push(map(*region)?);
    }
    Ok(Interrupts {
        redistributors,
        wired,
    })
}
