//! The console: SPCR, else DBG2.

use super::part::Part;
use super::tables::AcpiTables;
use crate::addr::Pa;
use crate::discover::machine::{Console, ConsoleKind, Machine};
use crate::discover::refusal::Refusal;

/// Reads the console that SPCR names; where it names none that can be driven, the first serial port
/// for a debugger that can.
pub(super) fn read(machine: &mut Machine, tables: &AcpiTables<'_>) -> Result<(), Refusal> {
    if let Some(table) = tables.find("SPCR")? {
        let kind = table.u8(36)?.into();
        machine.console = console(kind, &table.part("address", 40, 12)?)?;
    }
    if machine.console.is_none()
        && let Some(table) = tables.find("DBG2")?
    {
        machine.console = first_port(&table)?;
    }
    Ok(())
}

/// Forgets what [`read`] has read.
pub(super) fn forget(machine: &mut Machine) {
    machine.console = None;
}

/// The first serial port of DBG2 that can be driven.
fn first_port(table: &Part<'_>) -> Result<Option<Console>, Refusal> {
    let mut at = table.size(36)?;
    for _ in 0..table.u32(40)? {
        let header = table.part("port", at, 22)?;
        let length = usize::from(header.u16(1)?);
        if length < 22 {
            return Err(header.value("length", length as u64));
        }
        let port = table.part("port", at, length)?;
        let is_serial = port.u16(12)? == 0x8000;
        if is_serial && port.u8(3)? > 0 {
            let address = port.part("address", port.u16(18)?.into(), 12)?;
            let found = console(port.u16(14)?, &address)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        at += length;
    }
    Ok(None)
}

/// The console of this kind (DBG2, "Debug port types and subtypes") at a generic address
/// (ACPI 5.2.3.2); `None` if it cannot be driven, or is not in memory.
fn console(kind: u16, address: &Part<'_>) -> Result<Option<Console>, Refusal> {
    let base = Pa::new(address.u64(4)?);
    if address.u8(0)? != 0 || base == Pa::new(0) {
        return Ok(None);
    }
    let kind = match kind {
        // PL011, and the two that SBSA makes of it.
        0x3 | 0xd | 0xe => ConsoleKind::Pl011,
        0x0 | 0x1 | 0x12 => match ns16550(kind, address)? {
            Some(kind) => kind,
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(Console { kind, base }))
}

/// A 16550: accesses are as wide as the address says, else as wide as a register.
///
/// Only kind 0x12 says how far apart its registers are, by how wide they are; those of the others
/// are as far apart as they are wide accesses.
fn ns16550(kind: u16, address: &Part<'_>) -> Result<Option<ConsoleKind>, Refusal> {
    let (width_bits, access) = (address.u8(1)?, address.u8(3)?);
    let access_bytes = match (access, width_bits) {
        (1, _) | (0, 0 | 8) => 1,
        (3, _) | (0, 32) => 4,
        _ => return Ok(None),
    };
    let stride_bits = if kind == 0x12 {
        width_bits
    } else {
        access_bytes * 8
    };
    let log2_stride = match stride_bits {
        8 => 0,
        16 => 1,
        32 => 2,
        64 => 3,
        _ => return Ok(None),
    };
    Ok(Some(ConsoleKind::Ns16550 {
        log2_stride,
        access_bytes,
    }))
}
