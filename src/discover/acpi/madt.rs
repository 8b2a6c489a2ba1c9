//! CPUs and the interrupt controller (ACPI 5.2.12).

use super::part::Part;
use super::tables::AcpiTables;
use crate::addr::{Extent, Pa};
use crate::discover::list::List;
use crate::discover::machine::{Cpu, Gic, Machine, Mpidr, Start};
use crate::discover::refusal::Refusal;

const ENTRIES_AT: usize = 44;
/// A CPU, as of ACPI 5.1: with an affinity.
const GICC: u8 = 0xb;
const GICD: u8 = 0xc;
const GICR: u8 = 0xe;
const ITS: u8 = 0xf;
/// One page of registers of a GICv3 and of what belongs to it.
const FRAME_BYTES: u64 = 0x1_0000;

/// Reads MADT, after FADT, which says how CPUs are started.
pub(super) fn read(machine: &mut Machine, tables: &AcpiTables<'_>) -> Result<(), Refusal> {
    let Some(table) = tables.find("APIC")? else {
        return Ok(());
    };
    for_each(&table, GICC, "GICC", &mut |entry| {
        entry.need(76)?;
        if is_enabled(entry)? {
            read_cpu(machine, entry)?;
        }
        Ok(())
    })?;
    let version = read_distributor(machine, &table)?;
    if let Some(gic) = &mut machine.gic {
        read_its(gic, &table)?;
        read_redistributors(gic, &table, version)?;
    }
    // An older GIC has no redistributors, whatever it says of its version.
    if machine
        .gic
        .as_ref()
        .is_some_and(|gic| gic.redistributors.is_empty())
    {
        machine.gic = None;
    }
    Ok(())
}

/// Forgets what [`read`] has read.
pub(super) fn forget(machine: &mut Machine) {
    machine.cpus.clear();
    machine.gic = None;
}

/// Calls `take` with each entry of a kind.
fn for_each(
    table: &Part<'_>,
    kind: u8,
    name: &'static str,
    take: &mut dyn FnMut(&Part<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut at = ENTRIES_AT;
    while at < table.size_bytes() {
        let header = table.part("entry", at, 2)?;
        let length = usize::from(header.u8(1)?);
        if length < 2 {
            return Err(header.value("length", length as u64));
        }
        let entry = table.part(name, at, length)?;
        if header.u8(0)? == kind {
            take(&entry)?;
        }
        at += length;
    }
    Ok(())
}

fn is_enabled(gicc: &Part<'_>) -> Result<bool, Refusal> {
    Ok(gicc.u32(12)? & 1 != 0)
}

fn read_cpu(machine: &mut Machine, gicc: &Part<'_>) -> Result<(), Refusal> {
    let affinity = gicc.u64(68)?;
    let mpidr = Mpidr::new(affinity).ok_or_else(|| gicc.value("MPIDR", affinity))?;
    if machine.cpus.iter().any(|cpu| cpu.mpidr == mpidr) {
        return Err(gicc.overlap("affinity", affinity));
    }
    let start = match machine.psci {
        Some(_) => Start::Psci,
        None => Start::Unsupported,
    };
    machine
        .cpus
        .push(Cpu { mpidr, start })
        .map_err(Refusal::too_many("CPUs"))
}

/// Reads the distributor, and says of which version it is; 0 if MADT leaves that to hardware.
fn read_distributor(machine: &mut Machine, table: &Part<'_>) -> Result<u8, Refusal> {
    let mut version = 0;
    let mut is_known = false;
    for_each(table, GICD, "GICD", &mut |entry| {
        if is_known {
            let (what, limit) = ("interrupt controllers", 1);
            return Err(Refusal::TooMany { what, limit });
        }
        is_known = true;
        version = entry.u8(20)?;
        let distributor = entry.extent("base address", entry.u64(8)?, FRAME_BYTES)?;
        if version == 0 || version >= 3 {
            machine.gic = Some(Gic {
                distributor,
                redistributors: List::new(),
                its: List::new(),
            });
        }
        Ok(())
    })?;
    Ok(version)
}

fn read_its(gic: &mut Gic, table: &Part<'_>) -> Result<(), Refusal> {
    for_each(table, ITS, "ITS", &mut |entry| {
        let its = entry.extent("base address", entry.u64(8)?, 2 * FRAME_BYTES)?;
        if gic.its.iter().any(|other| other.overlaps(&its)) {
            return Err(entry.overlap("registers", its.base().as_u64()));
        }
        gic.its
            .push(its)
            .map_err(Refusal::too_many("interrupt translation services"))
    })
}

/// Reads the redistributors: the regions MADT has for them, or where it has none each CPU's own.
fn read_redistributors(gic: &mut Gic, table: &Part<'_>, version: u8) -> Result<(), Refusal> {
    for_each(table, GICR, "GICR", &mut |entry| {
        let size_bytes = entry.u32(12)?.into();
        let region = entry.extent("base address", entry.u64(4)?, size_bytes)?;
        gic.redistributors
            .push(region)
            .map_err(Refusal::too_many("redistributor regions"))
    })?;
    if !gic.redistributors.is_empty() {
        return Ok(());
    }
    // GICv4 has two more frames for each CPU. Where the version is not known that is taken for
    // true: it only says which addresses no guest gets.
    let frames = if version == 3 { 2 } else { 4 };
    for_each(table, GICC, "GICC", &mut |entry| {
        let base = entry.u64(60)?;
        if base == 0 || !is_enabled(entry)? {
            return Ok(());
        }
        let region = entry.extent("GICR base address", base, frames * FRAME_BYTES)?;
        add_frames(gic, region)
    })
}

/// Adds the frames of one CPU; those right behind another's make its region longer.
fn add_frames(gic: &mut Gic, region: Extent<Pa>) -> Result<(), Refusal> {
    let before = gic
        .redistributors
        .iter_mut()
        .find(|before| before.end() == region.base());
    let longer = before.and_then(|before| {
        let size_bytes = before.size_bytes().checked_add(region.size_bytes())?;
        Some((Extent::<Pa>::new(before.base(), size_bytes)?, before))
    });
    match longer {
        Some((longer, before)) => {
            *before = longer;
            Ok(())
        }
        None => gic
            .redistributors
            .push(region)
            .map_err(Refusal::too_many("redistributor regions")),
    }
}
