//! Firmware's services and the timers.

use super::part::Part;
use super::tables::AcpiTables;
use crate::discover::machine::{Conduit, Interrupt, Machine, Trigger};
use crate::discover::refusal::Refusal;

/// Reads the Arm boot flags of FADT (ACPI 5.2.9.4): PSCI, and the instruction that reaches it.
pub(super) fn read_psci(machine: &mut Machine, tables: &AcpiTables<'_>) -> Result<(), Refusal> {
    let Some(table) = tables.find("FACP")? else {
        return Ok(());
    };
    // Before ACPI 5.1 it was shorter and knew nothing of Arm.
    if table.size_bytes() < 131 {
        return Ok(());
    }
    machine.psci = match table.u16(129)? & 3 {
        1 => Some(Conduit::Smc),
        3 => Some(Conduit::Hvc),
        _ => None,
    };
    Ok(())
}

/// Forgets what [`read_psci`] has read.
pub(super) fn forget_psci(machine: &mut Machine) {
    machine.psci = None;
}

/// One timer of every CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// Its wire; `None` if it has none.
    pub interrupt: Option<Interrupt>,
    /// Whether it goes on while the CPU sleeps.
    pub is_always_on: bool,
}

/// The timers of every CPU (ACPI 5.2.25).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// The secure world's.
    pub secure_el1: Timer,
    /// EL1's physical one.
    pub el1: Timer,
    /// EL1's virtual one.
    pub el1_virtual: Timer,
    /// EL2's physical one.
    pub el2: Timer,
}

impl AcpiTables<'_> {
    /// The timers, for a report; `None` if there is no GTDT.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] if GTDT is damaged or too short.
    pub fn timers(&self) -> Result<Option<Timers>, Refusal> {
        let Some(table) = self.find("GTDT")? else {
            return Ok(None);
        };
        Ok(Some(Timers {
            secure_el1: timer(&table, 48)?,
            el1: timer(&table, 56)?,
            el1_virtual: timer(&table, 64)?,
            el2: timer(&table, 72)?,
        }))
    }
}

fn timer(table: &Part<'_>, at: usize) -> Result<Timer, Refusal> {
    let (gsiv, flags) = (table.u32(at)?, table.u32(at + 4)?);
    let trigger = match flags & 1 {
        0 => Trigger::Level,
        _ => Trigger::Edge,
    };
    let interrupt = match gsiv {
        0 => None,
        16..=31 | 1056..=1119 => Some(Interrupt::Gic {
            intid: gsiv,
            trigger,
        }),
        _ => Some(Interrupt::Elsewhere),
    };
    Ok(Timer {
        interrupt,
        is_always_on: flags & 4 != 0,
    })
}
