//! The gate of every SMMU: shut before anything else happens, and again whenever the image ends.

use portcullis::addr::Pa;
use portcullis::arch::{self, Registers, Timer, println};
use portcullis::discover::{self, FoundSmmu};
use portcullis::smmu::{REGISTER_TIMEOUT_US, close_gate};
use spin::Once;

use super::Refusal;

/// As many SMMUs as a [`Machine`](discover::Machine) has.
const MAX: usize = 16;

struct Gate {
    at: Pa,
    registers: Registers,
}

static GATES: [Once<Gate>; MAX] = [const { Once::new() }; MAX];

/// Shuts every SMMU that the tree names and lets us use, and has them shut again at the end.
///
/// Believes nothing of the tree but where SMMUs are; what it makes of damage is told later, by who
/// reads it whole. All are tried before the first that did not shut is told.
pub(crate) fn shut_all(tree: &[u8]) -> Result<(), Refusal> {
    arch::on_death(&shut_again);
    let found = discover::smmus(tree).filter_map(Result::ok);
    let mut outcome = Ok(());
    for (smmu, slot) in found.filter(|smmu| smmu.is_enabled).zip(&GATES) {
        outcome = outcome.and(shut(&smmu, slot));
    }
    outcome
}

fn shut(smmu: &FoundSmmu, slot: &'static Once<Gate>) -> Result<(), Refusal> {
    let at = smmu.registers.base();
    let registers = arch::map_registers(at, smmu.registers.size_bytes())
        .map_err(|why| Refusal::Registers { at, why })?;
    let gate = slot.call_once(|| Gate { at, registers });
    close_gate(&Timer, &gate.registers, REGISTER_TIMEOUT_US)
        .map_err(|why| Refusal::Gate { at, why })?;
    println!("smmu at {at}: abort");
    Ok(())
}

/// Takes no lock, allocates nothing, and is bounded by the registers' time-out.
fn shut_again() {
    for gate in GATES.iter().filter_map(Once::get) {
        if let Err(why) = close_gate(&Timer, &gate.registers, REGISTER_TIMEOUT_US) {
            println!("smmu at {}: NOT SHUT: {why}", gate.at);
        }
    }
}

/// The registers of the SMMU at `at`, which is shut.
pub(crate) fn registers(at: Pa) -> Option<&'static Registers> {
    let mut gates = GATES.iter().filter_map(Once::get);
    gates.find(|gate| gate.at == at).map(|gate| &gate.registers)
}
