//! Memory, CPUs, firmware's services, the console, the interrupt controller.

use super::node::Node;
use super::tree::DeviceTree;
use crate::addr::{Extent, Pa};
use crate::discover::list::{List, Text};
use crate::discover::machine::{
    Conduit, Console, ConsoleKind, Cpu, Gic, Machine, Mpidr, Reserved, Start,
};
use crate::discover::refusal::Refusal;

/// Reads the memory nodes, which are the root's children (Devicetree Specification §3.4).
pub(super) fn read_memory(machine: &mut Machine, root: &Node<'_, '_>) -> Result<(), Refusal> {
    let is_memory =
        |node: &Node<'_, '_>| node.is_enabled() && node.text("device_type") == Some("memory");
    for node in root.children().filter(is_memory) {
        // Firmware leaves empty entries where it has less memory than its template.
        for (base, size_bytes) in node.reg()?.filter(|(_, size_bytes)| *size_bytes > 0) {
            let extent = node.extent(base, size_bytes)?;
            if machine.memory.iter().any(|other| other.overlaps(&extent)) {
                return Err(Refusal::Overlap {
                    node: node.label(),
                    what: "memory",
                    at: base,
                });
            }
            machine
                .memory
                .push(extent)
                .map_err(Refusal::too_many("runs of memory"))?;
        }
    }
    Ok(())
}

fn reserve(machine: &mut Machine, extent: Extent<Pa>, is_no_map: bool) -> Result<(), Refusal> {
    let reserved = Reserved { extent, is_no_map };
    machine
        .reserved
        .push(reserved)
        .map_err(Refusal::too_many("runs of reserved memory"))
}

/// Reads the memory reservation block.
pub(super) fn read_reservations(
    machine: &mut Machine,
    tree: &DeviceTree<'_>,
) -> Result<(), Refusal> {
    for entry in tree.reservations()? {
        let (base, size_bytes) = entry?;
        if size_bytes == 0 {
            continue;
        }
        let node = Text::start_of("the reservation block");
        let extent = Extent::<Pa>::new(Pa::new(base), size_bytes).ok_or(Refusal::Unreachable {
            node,
            address: base,
        })?;
        reserve(machine, extent, false)?;
    }
    Ok(())
}

/// Reads one child of `/reserved-memory`.
///
/// One without `reg` asks the operating system to choose a place, which keeps nothing from us.
pub(super) fn read_reserved(machine: &mut Machine, node: &Node<'_, '_>) -> Result<(), Refusal> {
    if !node.has("reg") {
        return Ok(());
    }
    for (base, size_bytes) in node.reg()?.filter(|(_, size_bytes)| *size_bytes > 0) {
        reserve(machine, node.extent(base, size_bytes)?, node.has("no-map"))?;
    }
    Ok(())
}

/// Reads `/cpus`.
pub(super) fn read_cpus(machine: &mut Machine, root: &Node<'_, '_>) -> Result<(), Refusal> {
    let is_cpu = |node: &Node<'_, '_>| {
        let is_cpu = node.text("device_type") == Some("cpu") || node.name().starts_with("cpu@");
        is_cpu && node.is_enabled()
    };
    let Some(cpus) = root.child("cpus") else {
        return Ok(());
    };
    for node in cpus.children().filter(is_cpu) {
        let reg = node.reg()?.next();
        let (affinity, _) = reg.ok_or_else(|| node.missing("reg"))?;
        let mpidr = Mpidr::new(affinity).ok_or_else(|| node.value("reg", affinity))?;
        if machine.cpus.iter().any(|cpu| cpu.mpidr == mpidr) {
            return Err(Refusal::Overlap {
                node: node.label(),
                what: "affinity",
                at: affinity,
            });
        }
        let start = match node.text("enable-method") {
            Some("psci") => Start::Psci,
            _ => Start::Unsupported,
        };
        machine
            .cpus
            .push(Cpu { mpidr, start })
            .map_err(Refusal::too_many("CPUs"))?;
    }
    Ok(())
}

/// Reads `node` if it is PSCI's.
///
/// Version 0.1, which has function numbers of the board's choice, is not taken.
pub(super) fn read_psci(machine: &mut Machine, node: &Node<'_, '_>) -> Result<(), Refusal> {
    if machine.psci.is_some() || !node.is_compatible(&["arm,psci-1.0", "arm,psci-0.2"]) {
        return Ok(());
    }
    machine.psci = match node.text("method") {
        Some("smc") => Some(Conduit::Smc),
        Some("hvc") => Some(Conduit::Hvc),
        _ => return Err(node.missing("method")),
    };
    Ok(())
}

/// Reads `node` if it is a GICv3.
pub(super) fn read_gic(machine: &mut Machine, node: &Node<'_, '_>) -> Result<(), Refusal> {
    if !node.is_compatible(&["arm,gic-v3"]) {
        return Ok(());
    }
    if machine.gic.is_some() {
        return Err(Refusal::TooMany {
            what: "interrupt controllers",
            limit: 1,
        });
    }
    let regions = node.word("#redistributor-regions")?.unwrap_or(1) as usize;
    let mut extents = node.extents()?;
    let distributor = extents.next().ok_or_else(|| node.missing("reg"))??;
    let mut gic = Gic {
        distributor,
        redistributors: List::new(),
        its: List::new(),
    };
    for extent in extents.take(regions) {
        let full = Refusal::too_many("redistributor regions");
        gic.redistributors.push(extent?).map_err(full)?;
    }
    if gic.redistributors.len() < regions {
        return Err(node.value("#redistributor-regions", regions as u64));
    }
    let is_its = |node: &Node<'_, '_>| node.is_enabled() && node.is_compatible(&["arm,gic-v3-its"]);
    for its in node.children().filter(is_its) {
        let full = Refusal::too_many("interrupt translation services");
        gic.its.push(its.needed_extent()?).map_err(full)?;
    }
    machine.gic = Some(gic);
    Ok(())
}

/// Reads `/chosen`: the boot arguments and the console.
pub(super) fn read_chosen(machine: &mut Machine, root: &Node<'_, '_>) -> Result<(), Refusal> {
    let Some(chosen) = root.child("chosen") else {
        return Ok(());
    };
    if let Some(bootargs) = chosen.text("bootargs") {
        machine.bootargs =
            Text::whole(bootargs).map_err(Refusal::too_many("bytes of boot arguments"))?;
    }
    let path = chosen
        .text("stdout-path")
        .or_else(|| chosen.text("linux,stdout-path"));
    if let Some(path) = path {
        machine.console = console_at(root, path)?;
    }
    Ok(())
}

/// The console that `stdout-path` names: a path or an alias, and behind a colon its settings,
/// which firmware has already made.
fn console_at(root: &Node<'_, '_>, stdout: &str) -> Result<Option<Console>, Refusal> {
    let name = stdout.split(':').next().unwrap_or("");
    if name.starts_with('/') {
        return console_below(root, name);
    }
    let aliases = root.child("aliases");
    match aliases.and_then(|aliases| aliases.text(name)) {
        Some(path) => console_below(root, path),
        None => Ok(None),
    }
}

/// The console at `path` below `node`; a part of a path may leave out the address.
fn console_below(node: &Node<'_, '_>, path: &str) -> Result<Option<Console>, Refusal> {
    let path = path.trim_start_matches('/');
    if path.is_empty() {
        return console(node);
    }
    let (part, rest) = path.split_once('/').unwrap_or((path, ""));
    let is_it = |name: &str| name == part || name.split('@').next() == Some(part);
    match node.children().find(|child| is_it(child.name())) {
        Some(child) => console_below(&child, rest),
        None => Ok(None),
    }
}

fn console(node: &Node<'_, '_>) -> Result<Option<Console>, Refusal> {
    let kind = if node.is_compatible(&["arm,pl011", "arm,sbsa-uart"]) {
        ConsoleKind::Pl011
    } else if node.is_compatible(&["ns16550a", "ns16550", "snps,dw-apb-uart"]) {
        let shift = node.word("reg-shift")?.unwrap_or(0);
        let access = node.word("reg-io-width")?.unwrap_or(1);
        ConsoleKind::Ns16550 {
            log2_stride: match shift {
                0..=3 => shift as u8,
                _ => return Err(node.value("reg-shift", shift.into())),
            },
            access_bytes: match access {
                1 | 4 => access as u8,
                _ => return Err(node.value("reg-io-width", access.into())),
            },
        }
    } else {
        return Ok(None);
    };
    if !node.is_enabled() {
        return Ok(None);
    }
    let base = node.needed_extent()?.base();
    Ok(Some(Console { kind, base }))
}
