//! The memory that nobody else has.

use portcullis::addr::{Extent, Pa};
use portcullis::arch::ram::FreeRam;
use portcullis::arch::{Host, Stacks, cpu, image};
use portcullis::discover::Machine;

use super::Refusal;

/// Takes all memory of the machine but the image, the device tree, the images of guests, and what
/// firmware reserved; of it, some is set apart for the stacks of `cpus` other CPUs.
pub(crate) fn take(
    machine: &Machine,
    tree: Extent<Pa>,
    cpus: usize,
) -> Result<(Host, Stacks), Refusal> {
    let reserved = || machine.reserved.iter().map(|reserved| reserved.extent);
    let images = || machine.guests.iter().map(|guest| guest.image);
    let taken = || {
        let ours = [image::layout().whole, tree];
        reserved().chain(images()).chain(ours)
    };
    let memory = || machine.memory.iter().copied();
    let free = FreeRam::carve(memory(), taken(), cpu::pa_bits()).map_err(Refusal::Memory)?;
    let stacks = Stacks::find(&free, cpus).map_err(Refusal::Stacks)?;
    let taken = taken().chain([stacks.extent()]);
    let free = FreeRam::carve(memory(), taken, cpu::pa_bits()).map_err(Refusal::Memory)?;
    Ok((Host::new(free).map_err(Refusal::Host)?, stacks))
}
