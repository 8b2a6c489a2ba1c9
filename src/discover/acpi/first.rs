//! The first look: where the SMMUs are, before anything else is believed.

use super::iort::{Kind, NODE_BYTES};
use super::oem::Oem;
use super::part::Part;
use super::tables::{AcpiTables, ListedTable};
use crate::addr::{Extent, Pa};
use crate::discover::found::FoundSmmu;
use crate::discover::quirks::Quirks;
use crate::discover::refusal::Refusal;

/// Two register pages of 64 KiB.
const SMMU_BYTES: u64 = 0x2_0000;
/// As much of a node as every revision has.
const LEAST_BYTES: usize = 60;

impl<'t> AcpiTables<'t> {
    /// Where the SMMUs are, so that they can be switched to abort before the tables are read.
    ///
    /// Nodes are found as they come, and nothing but their own place and model is looked at: ID maps
    /// that make no sense, references that lead nowhere and other tables leave the SMMUs found. A
    /// node that makes no sense by itself gives its refusal, and the search goes on; damage to the
    /// list of nodes gives one last refusal, and so does an IORT whose checksum is wrong, in which no
    /// address can be believed. A table that cannot be read at all may be an IORT, and gives its
    /// refusal too. Where there is a second IORT, it is searched as well. After any refusal there
    /// may be SMMUs that were not found.
    pub fn smmus(&self) -> AcpiSearch<'_, 't> {
        AcpiSearch {
            tables: self.listed().iter(),
            nodes: None,
        }
    }
}

/// The search that [`AcpiTables::smmus`] starts.
#[derive(Clone)]
pub struct AcpiSearch<'s, 't> {
    tables: core::slice::Iter<'s, ListedTable<'t>>,
    nodes: Option<Nodes<'t>>,
}

/// The nodes of one IORT that are still to come.
#[derive(Clone)]
struct Nodes<'t> {
    whole: Part<'t>,
    board: Quirks,
    offset: usize,
    left: u32,
}

impl<'t> Nodes<'t> {
    fn of(whole: Part<'t>) -> Result<Self, Refusal> {
        Ok(Self {
            whole,
            board: board_quirks(&whole),
            offset: whole.size(40)?,
            left: whole.u32(36)?,
        })
    }

    /// The next node; the last one was damaged if it is a refusal.
    fn step(&mut self) -> Result<Option<Part<'t>>, Refusal> {
        if self.left == 0 {
            return Ok(None);
        }
        let header = self.whole.part("node", self.offset, NODE_BYTES)?;
        let length = usize::from(header.u16(1)?);
        if length < NODE_BYTES {
            return Err(header.value("length", length as u64));
        }
        let name = Kind::of(header.u8(0)?).name();
        let node = self.whole.part(name, self.offset, length)?;
        self.left -= 1;
        self.offset += length;
        Ok(Some(node))
    }

    fn next(&mut self) -> Option<Result<FoundSmmu, Refusal>> {
        loop {
            match self.step() {
                Ok(None) => return None,
                Ok(Some(node)) if node.u8(0).map(Kind::of) == Ok(Kind::SmmuV3) => {
                    return Some(found(&node, self.board));
                }
                Ok(Some(_)) => {}
                Err(refusal) => {
                    self.left = 0;
                    return Some(Err(refusal));
                }
            }
        }
    }
}

impl Iterator for AcpiSearch<'_, '_> {
    type Item = Result<FoundSmmu, Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(found) = self.nodes.as_mut().and_then(Nodes::next) {
                return Some(found);
            }
            self.nodes = None;
            let table = self.tables.next()?;
            let signature = table.signature.as_str();
            if !signature.is_empty() && signature != "IORT" {
                continue;
            }
            match table
                .sound()
                .and_then(|whole| whole.map(Nodes::of).transpose())
            {
                Ok(nodes) => self.nodes = nodes,
                Err(refusal) => return Some(Err(refusal)),
            }
        }
    }
}

fn found(node: &Part<'_>, board: Quirks) -> Result<FoundSmmu, Refusal> {
    node.need(LEAST_BYTES)?;
    Ok(FoundSmmu {
        name: node.label(),
        registers: registers(node)?,
        quirks: quirks(node, board)?,
        is_enabled: true,
    })
}

/// The errata that all SMMUs of a board have, by who made its IORT.
pub(super) fn board_quirks(iort: &Part<'_>) -> Quirks {
    Oem::of(iort).hip().map_or(Quirks::NONE, Quirks::of_hip)
}

/// Where the registers of an SMMUv3 node are.
pub(super) fn registers(node: &Part<'_>) -> Result<Extent<Pa>, Refusal> {
    node.extent("base address", node.u64(16)?, SMMU_BYTES)
}

/// The errata of an SMMUv3 node, with those of its board.
pub(super) fn quirks(node: &Part<'_>, board: Quirks) -> Result<Quirks, Refusal> {
    Ok(board.and(Quirks::of_model(node.u32(40)?)))
}
