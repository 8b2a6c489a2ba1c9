//! From the tables to a [`Machine`].

use super::tables::AcpiTables;
use super::{console, madt, platform, segments, streams};
use crate::addr::{Extent, Pa};
use crate::discover::machine::Machine;
use crate::discover::refusal::Refusal;

/// What reads a part of the machine, and what forgets it.
struct Reader {
    read: fn(&mut Machine, &AcpiTables<'_>) -> Result<(), Refusal>,
    forget: fn(&mut Machine),
}

/// In the order in which they need each other.
const READERS: [Reader; 6] = [
    Reader {
        read: check_listed,
        forget: |_| (),
    },
    Reader {
        read: platform::read_psci,
        forget: platform::forget_psci,
    },
    Reader {
        read: madt::read,
        forget: madt::forget,
    },
    Reader {
        read: console::read,
        forget: console::forget,
    },
    Reader {
        read: segments::read,
        forget: segments::forget,
    },
    Reader {
        read: streams::read,
        forget: streams::forget,
    },
];

impl Machine {
    /// Fills the machine with what `tables` say and with `memory`, in place of whatever it held.
    ///
    /// ACPI does not say where memory is: `memory` is what UEFI's memory map has of it, empty runs
    /// left out and neighbours joined here. The boot arguments, the reserved memory and the windows
    /// of bridges are left empty. A table that is not there gives nothing.
    ///
    /// Uses about 16 KiB of stack.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the table, the structure in it, and what is wrong. The machine is
    /// empty then: half a machine would have devices that look unprotected, or memory that looks
    /// free.
    pub fn read_acpi(
        &mut self,
        tables: &AcpiTables<'_>,
        memory: &[Extent<Pa>],
    ) -> Result<(), Refusal> {
        self.clear();
        let filled = read_memory(self, memory).and_then(|()| {
            READERS
                .iter()
                .try_for_each(|part| (part.read)(self, tables))
        });
        if filled.is_err() {
            self.clear();
        }
        filled
    }

    /// Fills the machine like [`Machine::read_acpi`] with what makes sense, and calls `odd` with
    /// what does not.
    ///
    /// For a report only: what a table that makes no sense would have said is missing, so a device
    /// may look unprotected, or its SMMU not be there at all.
    pub fn survey_acpi(
        &mut self,
        tables: &AcpiTables<'_>,
        memory: &[Extent<Pa>],
        odd: &mut dyn FnMut(Refusal),
    ) {
        self.clear();
        if let Err(refusal) = read_memory(self, memory) {
            self.memory.clear();
            odd(refusal);
        }
        for part in &READERS {
            if let Err(refusal) = (part.read)(self, tables) {
                (part.forget)(self);
                odd(refusal);
            }
        }
    }
}

/// Refuses if there is a table of which not even the name can be read: it may be any.
fn check_listed(_: &mut Machine, tables: &AcpiTables<'_>) -> Result<(), Refusal> {
    let mut unnamed = tables
        .listed()
        .iter()
        .filter(|table| table.signature.as_str().is_empty());
    match unnamed.find_map(|table| table.refusal) {
        Some(refusal) => Err(refusal),
        None => Ok(()),
    }
}

fn read_memory(machine: &mut Machine, memory: &[Extent<Pa>]) -> Result<(), Refusal> {
    for extent in memory.iter().filter(|extent| extent.size_bytes() > 0) {
        if machine.memory.iter().any(|other| other.overlaps(extent)) {
            return Err(Refusal::Overlap {
                node: crate::discover::list::Text::start_of("UEFI's memory map"),
                what: "memory",
                at: extent.base().as_u64(),
            });
        }
        let joined = machine
            .memory
            .last_mut()
            .filter(|last| last.end() == extent.base())
            .and_then(|last| {
                let size_bytes = last.size_bytes().checked_add(extent.size_bytes())?;
                Some((Extent::<Pa>::new(last.base(), size_bytes)?, last))
            });
        match joined {
            Some((joined, last)) => *last = joined,
            None => machine
                .memory
                .push(*extent)
                .map_err(Refusal::too_many("runs of memory"))?,
        }
    }
    Ok(())
}
