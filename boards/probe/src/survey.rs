//! Looking at the machine.

use alloc::string::String;
use alloc::vec::Vec;

use portcullis::addr::{Extent, Pa};
use portcullis::discover::{AcpiTables, FoundSmmu, ListedTable, Machine, Refusal};
use portcullis::hw::Registers;
use portcullis::smmu::{self, Features, QueueIndices};

use crate::cpu::Cpu;
use crate::functions::{Function, Roots, list};
use crate::read_only::ReadOnly;
use crate::registers::{READ_BYTES, SmmuRegisters};

/// What UEFI says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Firmware {
    /// Who made it.
    pub vendor: String,
    /// Its maker's revision.
    pub revision: u32,
    /// The revision of UEFI: major, and minor in hundredths.
    pub uefi: (u16, u16),
}

/// What the application found, before a table or a register is looked at.
pub struct Found<'f, 't> {
    /// UEFI.
    pub firmware: Firmware,
    /// The CPU it runs on.
    pub cpu: Cpu,
    /// The ACPI tables; `None` if UEFI names none, a [`Refusal`] if there is no way to them.
    pub tables: Option<Result<AcpiTables<'t>, Refusal>>,
    /// What UEFI's memory map has of memory.
    pub memory: &'f [Extent<Pa>],
    /// The roots of PCI that UEFI has found.
    pub roots: &'f [Roots],
}

/// One SMMU of the tables.
#[derive(Clone, Debug)]
pub struct SurveyedSmmu {
    /// What it answers; `None` if firmware has not mapped it.
    pub registers: Option<SmmuRegisters>,
    /// What Portcullis makes of it.
    pub features: Option<Result<Features, smmu::Refusal>>,
}

/// What was seen, besides the [`Machine`].
pub struct Survey<'t> {
    pub(crate) firmware: Firmware,
    pub(crate) cpu: Cpu,
    pub(crate) tables: Option<Result<Vec<ListedTable<'t>>, Refusal>>,
    /// What makes no sense in the tables.
    pub(crate) odd: Vec<Refusal>,
    /// What the first look finds that the whole reading did not.
    pub(crate) only_found: Vec<FoundSmmu>,
    /// As many as [`Machine::smmus`], in that order.
    pub(crate) smmus: Vec<SurveyedSmmu>,
    pub(crate) functions: Vec<Function>,
    /// Buses that firmware has not mapped: segment and bus.
    pub(crate) unseen: Vec<(u16, u8)>,
}

impl<'t> Survey<'t> {
    /// Fills `machine` from the tables, and looks at what it names through `registers`, which gives
    /// nothing for what firmware has not mapped. Changes nothing.
    pub fn take<R: Registers>(
        found: Found<'_, 't>,
        machine: &mut Machine,
        registers: &dyn Fn(Extent<Pa>) -> Option<R>,
    ) -> Self {
        let mut odd = Vec::new();
        let mut only_found = Vec::new();
        machine.clear();
        let tables = found.tables.map(|tables| {
            tables.inspect(|tables| {
                machine.survey_acpi(tables, found.memory, &mut |refusal| odd.push(refusal));
                let is_read = |it: &FoundSmmu| {
                    machine
                        .smmus
                        .iter()
                        .any(|smmu| smmu.registers == it.registers)
                };
                let found = tables.smmus().flatten();
                only_found.extend(found.filter(|it| !is_read(it)));
            })
        });
        let mut survey = Survey {
            firmware: found.firmware,
            cpu: found.cpu,
            tables: None,
            odd,
            only_found,
            smmus: Vec::new(),
            functions: Vec::new(),
            unseen: Vec::new(),
        };
        survey.look_at_smmus(machine, registers);
        survey.look_at_pci(machine, found.roots, registers);
        survey.tables = tables.map(|tables| {
            tables.map(|tables| {
                survey.ask_for_msis(&tables);
                tables.listed().to_vec()
            })
        });
        survey
    }

    fn look_at_smmus<R: Registers>(
        &mut self,
        machine: &Machine,
        registers: &dyn Fn(Extent<Pa>) -> Option<R>,
    ) {
        for smmu in &machine.smmus {
            let page = Extent::<Pa>::new(smmu.registers.base(), READ_BYTES);
            let page = page.and_then(registers).map(ReadOnly::new);
            let firmware = smmu::Firmware {
                is_coherent: smmu.is_coherent,
                queue_indices: if smmu.quirks.has_broken_page1 {
                    QueueIndices::Page0
                } else {
                    QueueIndices::Page1
                },
            };
            self.smmus.push(SurveyedSmmu {
                registers: page.as_ref().map(SmmuRegisters::read),
                features: page.as_ref().map(|page| smmu::probe(page, firmware)),
            });
        }
    }

    fn look_at_pci<R: Registers>(
        &mut self,
        machine: &Machine,
        roots: &[Roots],
        registers: &dyn Fn(Extent<Pa>) -> Option<R>,
    ) {
        for bridge in machine.bridges.iter().filter(|it| it.ecam.is_some()) {
            let unseen = &mut |bus| self.unseen.push((bridge.segment, bus));
            let found = list(bridge, roots, registers, unseen);
            self.functions.extend(found);
        }
    }

    fn ask_for_msis(&mut self, tables: &AcpiTables<'_>) {
        for function in &mut self.functions {
            // An ITS sees the RID that the outermost bridge puts there.
            let rid = function.aliases.last().unwrap_or(&function.rid);
            // A senseless IORT was noted already.
            function.msis = tables.msis_of(function.segment, *rid).unwrap_or(None);
        }
    }
}
