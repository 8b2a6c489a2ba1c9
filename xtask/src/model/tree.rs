//! The machine's device tree, with the model's SMMUs and devices in it.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property, ToPropertyValue};

use super::layout::{Device, Layout};

/// `blob`, the machine's own tree, with what `layout` holds.
///
/// # Errors
///
/// A sentence, if the tree cannot be read or tells of other RAM than `layout` does.
pub(crate) fn edit(blob: &[u8], layout: &Layout) -> Result<Vec<u8>, String> {
    let fdt = Fdt::new(blob).map_err(|why| format!("QEMU's tree: {why}"))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    let memory = format!("memory@{:x}", layout.ram.start);
    let ram = words(&layout.ram);
    let is_right = tree.root.child(&memory).is_some_and(|node| {
        let reg = node.property("reg");
        reg.is_some_and(|reg| reg.value() == value(&ram))
    });
    if !is_right {
        return Err(format!("QEMU's tree has no {memory} of the size in `-m`"));
    }
    let free = highest_phandle(&tree.root).saturating_add(1)..;
    reserve(&mut tree.root, layout)?;
    let mut phandles = Vec::new();
    for (smmu, phandle) in layout.smmus.iter().zip(free) {
        let extent = smmu.base..smmu.base + 0x2_0000;
        let mut node = node("smmu", &extent)?;
        set(&mut node, "compatible", "arm,smmu-v3")?;
        set(&mut node, "#iommu-cells", 1u32)?;
        set(&mut node, "dma-coherent", &[][..] as &[u8])?;
        set(&mut node, "phandle", phandle)?;
        phandles.push(phandle);
        tree.root.add_child(node);
    }
    for device in &layout.devices {
        let smmu = phandles.get(device.smmu).ok_or("a device behind no SMMU")?;
        tree.root.add_child(device_node(device, *smmu)?);
    }
    Ok(tree.to_dtb())
}

fn device_node(device: &Device, smmu: u32) -> Result<DeviceTreeNode, String> {
    let port = device.base + 0xf000;
    let mut node = node("dma-test", &(device.base..port))?;
    // The device, and the port above it, which is for who gives the device away.
    let reg = [words(&(device.base..port)), words(&(port..port + 0x1000))];
    set(&mut node, "reg", reg.concat())?;
    set(&mut node, "reg-names", &b"device\0port\0"[..])?;
    set(&mut node, "compatible", "portcullis,dma-test")?;
    set(&mut node, "iommus", vec![smmu, device.stream])?;
    set(&mut node, "dma-coherent", &[][..] as &[u8])?;
    if device.pasid_bits != 0 {
        set(&mut node, "pasid-num-bits", device.pasid_bits)?;
    }
    // Translation requests do not stall: what is to stall asks for none.
    if device.has_atc && !device.can_stall {
        set(&mut node, "portcullis,ats", "split")?;
    }
    if device.can_stall {
        set(&mut node, "dma-can-stall", &[][..] as &[u8])?;
    }
    Ok(node)
}

/// Keeps the frames from who looks for memory.
fn reserve(root: &mut DeviceTreeNode, layout: &Layout) -> Result<(), String> {
    let mut kept = node("smmu-model", &layout.reserved)?;
    set(&mut kept, "no-map", &[][..] as &[u8])?;
    let name = "reserved-memory";
    if root.child(name).is_none() {
        let mut parent = DeviceTreeNode::new(name).map_err(|why| why.to_string())?;
        set(&mut parent, "#address-cells", 2u32)?;
        set(&mut parent, "#size-cells", 2u32)?;
        set(&mut parent, "ranges", &[][..] as &[u8])?;
        root.add_child(parent);
    }
    let parent = root.child_mut(name).ok_or("no /reserved-memory")?;
    parent.add_child(kept);
    Ok(())
}

fn node(name: &str, extent: &std::ops::Range<u64>) -> Result<DeviceTreeNode, String> {
    let name = format!("{name}@{:x}", extent.start);
    let mut node = DeviceTreeNode::new(name).map_err(|why| why.to_string())?;
    set(&mut node, "reg", words(extent))?;
    Ok(node)
}

fn set(node: &mut DeviceTreeNode, name: &str, to: impl ToPropertyValue) -> Result<(), String> {
    let property = DeviceTreeProperty::new(name, to).map_err(|why| format!("{name}: {why}"))?;
    node.add_property(property);
    Ok(())
}

/// `reg` with two cells each: `virt`'s root has so many.
fn words(extent: &std::ops::Range<u64>) -> Vec<u32> {
    [extent.start, extent.end - extent.start]
        .iter()
        .flat_map(|number| [(number >> 32) as u32, *number as u32])
        .collect()
}

fn value(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn highest_phandle(node: &DeviceTreeNode) -> u32 {
    let own = node.property("phandle").map(|it| it.value().to_vec());
    let own = own.and_then(|bytes| bytes.try_into().ok());
    let below = node.children().map(highest_phandle).max();
    own.map_or(0, u32::from_be_bytes).max(below.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::layout::DEVICES;
    use super::*;

    /// As much of `virt`'s tree as matters here.
    fn virt(bytes: u64) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let memory = node("memory", &(0x4000_0000..0x4000_0000 + bytes)).expect("a name");
        tree.root.add_child(memory);
        let mut gic = DeviceTreeNode::new("intc@8000000").expect("a name");
        set(&mut gic, "phandle", 0x8005u32).expect("a name");
        tree.root.add_child(gic);
        tree.to_dtb()
    }

    #[test]
    fn the_tree_gains_smmus_and_devices_and_keeps_their_frames_from_memory() {
        let layout = Layout::new(64 << 20, 2, DEVICES).expect("enough memory");
        let blob = edit(&virt(64 << 20), &layout).expect("a good tree");
        let tree = DeviceTree::from_fdt(&Fdt::new(&blob).expect("what was written"));
        let bytes = |path: &str, name: &str| {
            let node = tree.find_node(path).unwrap_or_else(|| panic!("no {path}"));
            node.property(name).map(|it| it.value().to_vec())
        };
        let reserved = "/reserved-memory/smmu-model@43c00000";
        let reg = value(&[0, 0x43c0_0000, 0, 0x40_0000]);
        assert_eq!(bytes(reserved, "reg"), Some(reg));
        assert_eq!(bytes(reserved, "no-map"), Some(Vec::new()));
        assert_eq!(bytes("/smmu@43c80000", "phandle"), Some(value(&[0x8007])));
        let (stalls, plain) = ("/dma-test@43ca0000", "/dma-test@43cc0000");
        assert_eq!(bytes(stalls, "iommus"), Some(value(&[0x8007, 0x11])));
        assert_eq!(bytes(stalls, "pasid-num-bits"), Some(value(&[16])));
        assert_eq!(bytes(stalls, "dma-can-stall"), Some(Vec::new()));
        assert_eq!(bytes(plain, "pasid-num-bits"), None);
        let reg = value(&[0, 0x43ca_0000, 0, 0xf000, 0, 0x43ca_f000, 0, 0x1000]);
        assert_eq!(bytes(stalls, "reg"), Some(reg));
        let split = bytes("/dma-test@43cb0000", "portcullis,ats");
        assert_eq!(split, Some(b"split\0".to_vec()));
        assert_eq!(bytes(stalls, "portcullis,ats"), None);
        assert_eq!(bytes(plain, "dma-can-stall"), None);
    }

    #[test]
    fn a_tree_of_another_machine_is_refused() {
        let layout = Layout::new(64 << 20, 2, DEVICES).expect("enough memory");
        assert!(edit(&virt(128 << 20), &layout).is_err());
        assert!(edit(b"no tree", &layout).is_err());
    }
}
