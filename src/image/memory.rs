//! The memory that nobody else has.

use portcullis::addr::{Extent, Pa};
use portcullis::arch::ram::FreeRam;
use portcullis::arch::{Host, cpu, image};
use portcullis::discover::Machine;

use super::Refusal;

/// Takes all memory of the machine but the image, the device tree, and what firmware reserved.
pub(crate) fn take(machine: &Machine, tree: Extent<Pa>) -> Result<Host, Refusal> {
    let reserved = machine.reserved.iter().map(|reserved| reserved.extent);
    let taken = reserved.chain([image::layout().whole, tree]);
    let memory = machine.memory.iter().copied();
    let free = FreeRam::carve(memory, taken, cpu::pa_bits()).map_err(Refusal::Memory)?;
    Host::new(free).map_err(Refusal::Host)
}
