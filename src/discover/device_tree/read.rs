//! From a sound tree to a [`Machine`].

use super::devices::{self, Lookups};
use super::guests;
use super::node::Node;
use super::pci;
use super::platform;
use super::smmu::{self, Iommus};
use super::tree::DeviceTree;
use crate::discover::machine::Machine;
use crate::discover::refusal::{Fault, Refusal};

impl Machine {
    /// Fills the machine with what `tree` says, in place of whatever it held.
    ///
    /// Uses at most 48 KiB of stack, however deep the tree is nested.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the node and what is wrong with it. The machine is empty then: half
    /// a machine would have devices that look unprotected, or memory that looks free.
    pub fn read_device_tree(&mut self, tree: &DeviceTree<'_>) -> Result<(), Refusal> {
        self.clear();
        let filled = fill(self, tree);
        if filled.is_err() {
            self.clear();
        }
        filled
    }
}

fn fill(machine: &mut Machine, tree: &DeviceTree<'_>) -> Result<(), Refusal> {
    let root = tree.root().ok_or(Refusal::Structure {
        fault: Fault::Ends,
        offset: 0,
    })?;
    platform::read_memory(machine, &root)?;
    platform::read_reservations(machine, tree)?;
    platform::read_chosen(machine, &root)?;
    platform::read_cpus(machine, &root)?;
    guests::read(machine, &root)?;
    let mut iommus = Iommus::new();
    smmu::read(machine, &root, &mut iommus)?;
    root.walk(&mut |node| {
        if !node.is_enabled() {
            return Ok(false);
        }
        if pci::is_bridge(node) {
            pci::read(machine, node, &iommus)?;
            return Ok(false);
        }
        platform::read_gic(machine, node)?;
        platform::read_psci(machine, node)?;
        devices::read(machine, node, &iommus)?;
        Ok(true)
    })?;
    read_reserved(machine, &root, &iommus)
}

/// Reads `/reserved-memory`, which refers to devices anywhere in the tree.
fn read_reserved(
    machine: &mut Machine,
    root: &Node<'_, '_>,
    iommus: &Iommus,
) -> Result<(), Refusal> {
    let Some(parent) = root.child("reserved-memory") else {
        return Ok(());
    };
    let mut lookups = Lookups::new();
    for region in parent.children().filter(Node::is_enabled) {
        platform::read_reserved(machine, &region)?;
        devices::read_kept(machine, root, &region, iommus, &mut lookups)?;
    }
    Ok(())
}
