//! SMMUs, and how devices refer to them (binding `arm,smmu-v3`).

use super::cells::Words;
use super::first::{BROKEN_PAGE1, BROKEN_PREFETCH, COMPATIBLE};
use super::node::Node;
use crate::discover::list::List;
use crate::discover::machine::{Interrupt, Machine, Smmu, SmmuIndex, SmmuInterrupts, Trigger};
use crate::discover::quirks::Quirks;
use crate::discover::refusal::Refusal;

/// Something that devices name as their IOMMU.
#[derive(Clone, Copy)]
pub(super) struct Iommu {
    phandle: u32,
    /// How many words behind its phandle say which stream.
    pub(super) cells: usize,
    /// Which SMMU it is; `None` if it is none that we may drive.
    pub(super) smmu: Option<SmmuIndex>,
}

/// All of them.
pub(super) struct Iommus(List<Iommu, 64>);

impl Iommus {
    pub(super) const fn new() -> Self {
        Self(List::new())
    }

    /// The one that `property` of `node` refers to as `phandle`.
    pub(super) fn of(
        &self,
        node: &Node<'_, '_>,
        property: &'static str,
        phandle: u32,
    ) -> Result<Iommu, Refusal> {
        self.0
            .iter()
            .find(|iommu| iommu.phandle == phandle)
            .copied()
            .ok_or_else(|| node.value(property, phandle.into()))
    }
}

/// Reads every SMMU, and notes every other IOMMU, enabled or not.
pub(super) fn read(
    machine: &mut Machine,
    root: &Node<'_, '_>,
    iommus: &mut Iommus,
) -> Result<(), Refusal> {
    let mut controllers = Controllers {
        root,
        known: List::new(),
    };
    root.walk(&mut |node| {
        let is_smmu = node.is_compatible(&[COMPATIBLE]);
        let mut index = None;
        if is_smmu && node.is_enabled() {
            let place = machine.smmus.len() as u8;
            let smmu = smmu(&mut controllers, node)?;
            let full = Refusal::too_many("SMMUs");
            check_apart(machine, node, &smmu)?;
            machine.smmus.push(smmu).map_err(full)?;
            index = Some(SmmuIndex::new(place));
        }
        let cells = node.word("#iommu-cells")?;
        if let Some(phandle) = node.phandle()?
            && (is_smmu || cells.is_some())
        {
            let cells = cells.ok_or_else(|| node.missing("#iommu-cells"))?;
            if cells > 4 || (is_smmu && cells != 1) {
                return Err(node.value("#iommu-cells", cells.into()));
            }
            note(iommus, node, phandle, cells as usize, index)?;
        }
        Ok(true)
    })
}

fn note(
    iommus: &mut Iommus,
    node: &Node<'_, '_>,
    phandle: u32,
    cells: usize,
    smmu: Option<SmmuIndex>,
) -> Result<(), Refusal> {
    if iommus.0.iter().any(|other| other.phandle == phandle) {
        return Err(Refusal::Overlap {
            node: node.label(),
            what: "phandle",
            at: phandle.into(),
        });
    }
    let iommu = Iommu {
        phandle,
        cells,
        smmu,
    };
    iommus.0.push(iommu).map_err(Refusal::too_many("IOMMUs"))
}

fn check_apart(machine: &Machine, node: &Node<'_, '_>, smmu: &Smmu) -> Result<(), Refusal> {
    let registers = &smmu.registers;
    match machine
        .smmus
        .iter()
        .find(|other| other.registers.overlaps(registers))
    {
        Some(_) => Err(Refusal::Overlap {
            node: node.label(),
            what: "reg",
            at: registers.base().as_u64(),
        }),
        None => Ok(()),
    }
}

fn smmu(controllers: &mut Controllers<'_, '_, '_>, node: &Node<'_, '_>) -> Result<Smmu, Refusal> {
    Ok(Smmu {
        registers: node.needed_extent()?,
        is_coherent: node.is_coherent(),
        interrupts: interrupts(controllers, node)?,
        quirks: quirks(node),
    })
}

fn quirks(node: &Node<'_, '_>) -> Quirks {
    let by_name = [
        // Only HiSilicon's HI161X has it.
        (BROKEN_PREFETCH, Quirks::HI161X),
        (BROKEN_PAGE1, Quirks::CN99XX),
    ];
    by_name
        .iter()
        .filter(|(name, _)| node.has(name))
        .fold(Quirks::NONE, |all, (_, quirks)| all.and(*quirks))
}

/// The wires of `node`, by their names: their order differs from tree to tree.
fn interrupts(
    controllers: &mut Controllers<'_, '_, '_>,
    node: &Node<'_, '_>,
) -> Result<SmmuInterrupts, Refusal> {
    let mut wires = SmmuInterrupts::default();
    let mut specifiers = Specifiers::of(controllers, node)?;
    for name in node.texts("interrupt-names") {
        let wire = specifiers
            .next(controllers, node)?
            .ok_or_else(|| node.missing("interrupts"))?;
        match name {
            "combined" => wires.combined = Some(wire),
            "eventq" => wires.event_queue = Some(wire),
            "priq" => wires.pri_queue = Some(wire),
            "cmdq-sync" => wires.command_sync = Some(wire),
            "gerror" => wires.global_error = Some(wire),
            _ => {}
        }
    }
    Ok(wires)
}

/// A controller that interrupts go to.
#[derive(Clone, Copy)]
struct Controller {
    phandle: u32,
    cells: usize,
    is_gic: bool,
}

/// The controllers that SMMUs named so far: each takes one search through the whole tree, and how
/// many searches there are must not be the tree's choice.
struct Controllers<'r, 'p, 't> {
    root: &'r Node<'p, 't>,
    known: List<Controller, 16>,
}

impl Controllers<'_, '_, '_> {
    /// The controller with this phandle, which `node` refers to.
    fn of(&mut self, node: &Node<'_, '_>, phandle: u32) -> Result<Controller, Refusal> {
        if let Some(known) = self.known.iter().find(|known| known.phandle == phandle) {
            return Ok(*known);
        }
        let controller = self.search(phandle)?;
        let controller =
            controller.ok_or_else(|| node.value("interrupt-parent", phandle.into()))?;
        let full = Refusal::too_many("interrupt controllers of SMMUs");
        self.known.push(controller).map_err(full)?;
        Ok(controller)
    }

    fn search(&self, phandle: u32) -> Result<Option<Controller>, Refusal> {
        let mut found = None;
        self.root.walk(&mut |candidate| {
            if found.is_none() && candidate.phandle()? == Some(phandle) {
                let cells = candidate.word("#interrupt-cells")?;
                let cells = cells.ok_or_else(|| candidate.missing("#interrupt-cells"))?;
                let is_gic = candidate.is_compatible(&["arm,gic-v3"]);
                if cells > 4 || (is_gic && cells < 3) {
                    return Err(candidate.value("#interrupt-cells", cells.into()));
                }
                found = Some(Controller {
                    phandle,
                    cells: cells as usize,
                    is_gic,
                });
            }
            Ok(found.is_none())
        })?;
        Ok(found)
    }
}

/// The interrupts of one node, one after another.
struct Specifiers<'t> {
    words: Words<'t>,
    property: &'static str,
    /// `None` where each specifier names its own.
    controller: Option<Controller>,
}

impl<'t> Specifiers<'t> {
    fn of(controllers: &mut Controllers<'_, '_, '_>, node: &Node<'_, 't>) -> Result<Self, Refusal> {
        let property = "interrupts-extended";
        if let Some(value) = node.property(property) {
            return Ok(Self {
                words: Words::new(value),
                property,
                controller: None,
            });
        }
        let property = "interrupts";
        let value = node.property(property).unwrap_or(&[]);
        let controller = match parent_of(node)? {
            Some(phandle) if !value.is_empty() => Some(controllers.of(node, phandle)?),
            None if !value.is_empty() => return Err(node.missing("interrupt-parent")),
            _ => None,
        };
        Ok(Self {
            words: Words::new(value),
            property,
            controller,
        })
    }

    fn next(
        &mut self,
        controllers: &mut Controllers<'_, '_, '_>,
        node: &Node<'_, '_>,
    ) -> Result<Option<Interrupt>, Refusal> {
        if self.words.is_empty() {
            return Ok(None);
        }
        let cut_off = || node.length(self.property, &[], 4);
        let controller = match self.controller {
            Some(controller) => controller,
            None => controllers.of(node, self.words.word().ok_or_else(cut_off)?)?,
        };
        let mut specifier = self.words;
        self.words.skip(controller.cells).ok_or_else(cut_off)?;
        if !controller.is_gic {
            return Ok(Some(Interrupt::Elsewhere));
        }
        let mut word = || specifier.word().ok_or_else(cut_off);
        gic_interrupt(node, self.property, [word()?, word()?, word()?]).map(Some)
    }
}

/// The phandle of the controller that the interrupts of `node` go to: its own word, or that of
/// the nearest above it.
fn parent_of(node: &Node<'_, '_>) -> Result<Option<u32>, Refusal> {
    match (node.word("interrupt-parent")?, node.parent()) {
        (None, Some(parent)) => parent_of(parent),
        (found, _) => Ok(found),
    }
}

/// Three words of binding `arm,gic-v3`: kind, number, flags.
fn gic_interrupt(
    node: &Node<'_, '_>,
    property: &'static str,
    [kind, number, flags]: [u32; 3],
) -> Result<Interrupt, Refusal> {
    let (first, count) = match kind {
        0 => (32, 988),
        1 => (16, 16),
        2 => (4096, 1024),
        3 => (1056, 64),
        _ => return Err(node.value(property, kind.into())),
    };
    if number >= count {
        return Err(node.value(property, number.into()));
    }
    let trigger = match flags & 0xf {
        1 => Trigger::Edge,
        4 => Trigger::Level,
        _ => return Err(node.value(property, flags.into())),
    };
    Ok(Interrupt::Gic {
        intid: first + number,
        trigger,
    })
}
