//! The guests below `/chosen` (`GUESTS.md`).

use super::cells::Words;
use super::node::Node;
use crate::addr::{Extent, Pa};
use crate::discover::list::{List, Text};
use crate::discover::machine::{GuestNode, Machine, Mpidr};
use crate::discover::refusal::Refusal;

const COMPATIBLE: &str = "portcullis,guest";
/// Where a guest's memory begins unless something else is asked for.
const MEMORY_AT: u64 = 0x4000_0000;
/// In the order of [`GuestNode::quotas`].
const QUOTAS: [&str; 5] = [
    "max-spaces",
    "max-bindings",
    "max-handles",
    "max-stalls",
    "max-table-pages",
];

/// Reads the children of `/chosen` that are guests.
pub(super) fn read(machine: &mut Machine, root: &Node<'_, '_>) -> Result<(), Refusal> {
    let Some(chosen) = root.child("chosen") else {
        return Ok(());
    };
    let is_guest = |node: &Node<'_, '_>| node.is_enabled() && node.is_compatible(&[COMPATIBLE]);
    for node in chosen.children().filter(is_guest) {
        let guest = guest(&node)?;
        let full = Refusal::too_many("guests");
        machine.guests.push(guest).map_err(full)?;
    }
    Ok(())
}

fn guest(node: &Node<'_, '_>) -> Result<GuestNode, Refusal> {
    let name = node.text("label").unwrap_or(node.name());
    let [base, size_bytes] = numbers(node, "image")?.ok_or_else(|| node.missing("image"))?;
    let image = Extent::<Pa>::new(Pa::new(base), size_bytes).filter(|at| at.size_bytes() != 0);
    let [memory_bytes] =
        numbers(node, "memory-size")?.ok_or_else(|| node.missing("memory-size"))?;
    let [memory_at] = numbers(node, "memory-address")?.unwrap_or([MEMORY_AT]);
    let mut cpus = List::new();
    let value = node.property("cpus").ok_or_else(|| node.missing("cpus"))?;
    if value.is_empty() || value.len() % 8 != 0 {
        return Err(node.length("cpus", value, 8));
    }
    for entry in value.chunks_exact(8) {
        let affinity = Words::new(entry).number(2).unwrap_or(u64::MAX);
        let cpu = Mpidr::new(affinity).ok_or_else(|| node.value("cpus", affinity))?;
        cpus.push(cpu)
            .map_err(Refusal::too_many("CPUs of a guest"))?;
    }
    let mut devices = List::new();
    for device in node.texts("devices") {
        let device = Text::whole(device).map_err(Refusal::too_many("bytes of a device's name"))?;
        devices
            .push(device)
            .map_err(Refusal::too_many("devices of a guest"))?;
    }
    let mut quotas = [None; 5];
    for (quota, name) in quotas.iter_mut().zip(QUOTAS) {
        *quota = node.word(name)?;
    }
    Ok(GuestNode {
        name: Text::whole(name).map_err(Refusal::too_many("bytes of a guest's name"))?,
        image: image.ok_or_else(|| node.value("image", size_bytes))?,
        memory_bytes,
        memory_at,
        cpus,
        devices,
        quotas,
    })
}

/// The `N` numbers of 64 bits in a property, if it is there.
fn numbers<const N: usize>(
    node: &Node<'_, '_>,
    property: &'static str,
) -> Result<Option<[u64; N]>, Refusal> {
    let Some(value) = node.property(property) else {
        return Ok(None);
    };
    let mut found = [0; N];
    let mut words = Words::new(value);
    for number in &mut found {
        *number = words
            .number(2)
            .ok_or_else(|| node.length(property, value, 8 * N))?;
    }
    if value.len() != 8 * N {
        return Err(node.length(property, value, 8 * N));
    }
    Ok(Some(found))
}
