//! PCI segments and their configuration space (PCIFW 4.1.2).

use super::oem::Oem;
use super::tables::AcpiTables;
use crate::discover::bridge::Bridge;
use crate::discover::list::List;
use crate::discover::machine::Machine;
use crate::discover::refusal::Refusal;

const RECORDS_AT: usize = 44;
const RECORD_BYTES: usize = 16;
/// One bus of ECAM: 32 devices of 8 functions of 4 KiB.
const LOG2_BUS_BYTES: u32 = 20;

/// Reads MCFG: a bridge for each of its records, whose streams are not known yet.
pub(super) fn read(machine: &mut Machine, tables: &AcpiTables<'_>) -> Result<(), Refusal> {
    let Some(table) = tables.find("MCFG")? else {
        return Ok(());
    };
    let records_bytes = table.size_bytes().checked_sub(RECORDS_AT);
    let count = match records_bytes {
        Some(bytes) if bytes.is_multiple_of(RECORD_BYTES) => bytes / RECORD_BYTES,
        _ => return Err(table.value("length", table.size_bytes() as u64)),
    };
    let has_ecam = has_ecam(&Oem::of(&table));
    for place in 0..count {
        let record = table.part("record", RECORDS_AT + place * RECORD_BYTES, RECORD_BYTES)?;
        let (first_bus, last_bus) = (record.u8(10)?, record.u8(11)?);
        let Some(further) = last_bus.checked_sub(first_bus) else {
            return Err(record.value("last bus", last_bus.into()));
        };
        // The address is that of bus 0, whether or not it is one of these.
        let base = record.u64(0)?;
        let first = base.checked_add(u64::from(first_bus) << LOG2_BUS_BYTES);
        let first = first.ok_or_else(|| record.value("base address", base))?;
        let size_bytes = (u64::from(further) + 1) << LOG2_BUS_BYTES;
        let ecam = record.extent("base address", first, size_bytes)?;
        let bridge = Bridge {
            segment: record.u16(8)?,
            ecam: Some(ecam).filter(|_| has_ecam),
            first_bus,
            last_bus,
            windows: List::new(),
            is_coherent: false,
            rid_mask: u16::MAX,
            streams: List::new(),
        };
        let shares = |other: &Bridge| {
            other.segment == bridge.segment
                && other.first_bus <= last_bus
                && first_bus <= other.last_bus
        };
        if machine.bridges.iter().any(shares) {
            return Err(record.overlap("bus range", first_bus.into()));
        }
        machine
            .bridges
            .push(bridge)
            .map_err(Refusal::too_many("PCIe host bridges"))?;
    }
    Ok(())
}

/// Whether what MCFG names is ECAM as it should be.
///
/// On HiSilicon's HIP05 to HIP07 the root bus answers elsewhere, as their device trees say by not
/// being compatible with it.
fn has_ecam(oem: &Oem) -> bool {
    !matches!(oem.hip(), Some(5..=7))
}

/// Forgets what [`read`] has read.
pub(super) fn forget(machine: &mut Machine) {
    machine.bridges.clear();
}
