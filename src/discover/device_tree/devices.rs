//! Devices on no PCIe bus, and what firmware keeps for a device of any kind.

use super::cells::Words;
use super::first::COMPATIBLE;
use super::node::Node;
use super::pci;
use super::smmu::Iommus;
use crate::addr::{Extent, Iova, Pa};
use crate::discover::bridge::{Rid, StreamMap};
use crate::discover::list::{List, Text};
use crate::discover::machine::{Caching, Device, Kept, Machine, Stream};
use crate::discover::refusal::Refusal;
use crate::id::StreamId;

/// Reads `node` if it says that it does DMA: it names an IOMMU, or has registers and says of its
/// own accord whether its DMA is coherent.
///
/// Others may do DMA too and nothing in the tree says so; they are not given to guests.
pub(super) fn read(
    machine: &mut Machine,
    node: &Node<'_, '_>,
    iommus: &Iommus,
) -> Result<(), Refusal> {
    let says_coherent = node.has("dma-coherent") || node.has("dma-noncoherent");
    let does_dma = node.has("iommus") || (node.has("reg") && says_coherent);
    if !does_dma || node.is_compatible(&[COMPATIBLE]) {
        return Ok(());
    }
    let first_stream = machine.device_streams.len();
    let has_others = streams(node, iommus, &mut |stream| {
        let own = machine.device_streams.get(first_stream..).unwrap_or(&[]);
        if own.contains(&stream) {
            return Ok(());
        }
        let full = Refusal::too_many("streams of devices");
        machine.device_streams.push(stream).map_err(full)
    })?;
    let device = Device {
        name: node.label(),
        compatible: Text::start_of(node.text("compatible").unwrap_or("")),
        registers: registers(node)?,
        is_coherent: node.is_coherent(),
        can_stall: node.has("dma-can-stall"),
        pasid_bits: pasid_bits(node)?,
        caching: caching(node),
        has_unprotected_traffic: has_others,
        first_stream: first_stream as u16,
        stream_count: (machine.device_streams.len() - first_stream) as u16,
    };
    let full = Refusal::too_many("devices");
    machine.devices.push(device).map_err(full)
}

/// The first registers; `None` where the CPU cannot reach them, as those on an I2C bus.
fn registers(node: &Node<'_, '_>) -> Result<Option<Extent<Pa>>, Refusal> {
    if !node.has("reg") {
        return Ok(None);
    }
    match node.first_extent() {
        Err(Refusal::Unreachable { .. }) => Ok(None),
        found => found,
    }
}

/// `portcullis,ats`: the board's word, for which there is no standard one. Another value is none.
fn caching(node: &Node<'_, '_>) -> Caching {
    match node.text("portcullis,ats") {
        Some("split") => Caching::Split,
        Some("trusted") => Caching::Trusted,
        _ => Caching::No,
    }
}

fn pasid_bits(node: &Node<'_, '_>) -> Result<u8, Refusal> {
    match node.word("pasid-num-bits")? {
        None => Ok(0),
        Some(bits @ 0..=20) => Ok(bits as u8),
        Some(bits) => Err(node.value("pasid-num-bits", bits.into())),
    }
}

/// Calls `take` with each stream in `iommus` of `node` that goes through an SMMU; says whether
/// there are others.
fn streams(
    node: &Node<'_, '_>,
    iommus: &Iommus,
    take: &mut dyn FnMut(Stream) -> Result<(), Refusal>,
) -> Result<bool, Refusal> {
    let property = "iommus";
    let value = node.property(property).unwrap_or(&[]);
    let cut_off = || node.length(property, value, 4);
    let mut words = Words::new(value);
    let mut has_others = false;
    while !words.is_empty() {
        let iommu = iommus.of(node, property, words.word().ok_or_else(cut_off)?)?;
        let mut specifier = words;
        words.skip(iommu.cells).ok_or_else(cut_off)?;
        match iommu.smmu {
            Some(smmu) => take(Stream {
                smmu,
                id: StreamId::new(specifier.word().ok_or_else(cut_off)?),
            })?,
            None => has_others = true,
        }
    }
    Ok(has_others)
}

/// How often the tree may still be searched for a device that a region is kept for.
///
/// Each search goes through the whole tree, so how many there are must not be the tree's choice.
pub(super) struct Lookups {
    left: usize,
}

impl Lookups {
    const LIMIT: usize = 64;

    pub(super) const fn new() -> Self {
        Self { left: Self::LIMIT }
    }

    fn take(&mut self) -> Result<(), Refusal> {
        self.left = self.left.checked_sub(1).ok_or(Refusal::TooMany {
            what: "addresses kept for devices",
            limit: Self::LIMIT,
        })?;
        Ok(())
    }
}

/// Reads `iommu-addresses` of a child of `/reserved-memory`: what it means to the devices it names.
pub(super) fn read_kept(
    machine: &mut Machine,
    root: &Node<'_, '_>,
    region: &Node<'_, '_>,
    iommus: &Iommus,
    lookups: &mut Lookups,
) -> Result<(), Refusal> {
    let property = "iommu-addresses";
    let Some(value) = region.property(property) else {
        return Ok(());
    };
    let memory = if region.has("reg") {
        region.first_extent()?
    } else {
        None
    };
    let cut_off = || region.length(property, value, 4);
    let mut words = Words::new(value);
    while !words.is_empty() {
        lookups.take()?;
        let phandle = words.word().ok_or_else(cut_off)?;
        let mut is_found = false;
        root.walk(&mut |device| {
            if !is_found && device.phandle()? == Some(phandle) {
                is_found = true;
                if let Some(at) = kept_at(region, device, &mut words)? {
                    keep(machine, device, iommus, at, memory)?;
                }
            }
            Ok(!is_found)
        })?;
        if !is_found {
            return Err(region.value(property, phandle.into()));
        }
    }
    Ok(())
}

/// The addresses at the start of `words`, written like `reg` of `device`; `None` if empty.
fn kept_at(
    region: &Node<'_, '_>,
    device: &Node<'_, '_>,
    words: &mut Words<'_>,
) -> Result<Option<Extent<Iova>>, Refusal> {
    let property = "iommu-addresses";
    let cells = device.own_cells()?;
    let cut_off = || region.length(property, &[], cells.entry_bytes());
    // On a PCI bus the first of three words says which space, and not where.
    let space = cells.address.saturating_sub(2);
    words.skip(space).ok_or_else(cut_off)?;
    let base = words.number(cells.address - space).ok_or_else(cut_off)?;
    let size_bytes = words.number(cells.size).ok_or_else(cut_off)?;
    let extent = Extent::<Iova>::new(Iova::new(base), size_bytes);
    let extent = extent.ok_or_else(|| region.value(property, base))?;
    Ok(Some(extent).filter(|extent| extent.size_bytes() > 0))
}

/// Notes that `at` is kept for every stream of `device`.
fn keep(
    machine: &mut Machine,
    device: &Node<'_, '_>,
    iommus: &Iommus,
    at: Extent<Iova>,
    memory: Option<Extent<Pa>>,
) -> Result<(), Refusal> {
    if memory.is_some_and(|memory| memory.size_bytes() != at.size_bytes()) {
        return Err(device.value("iommu-addresses", at.size_bytes()));
    }
    let mut note = |first, count| {
        let kept = Kept {
            first,
            count,
            at,
            memory,
        };
        let full = Refusal::too_many("addresses kept for devices");
        machine.kept.push(kept).map_err(full)
    };
    for map in &pci_streams(device, iommus)? {
        note(map.first, map.count)?;
    }
    streams(device, iommus, &mut |stream| note(stream, 1))?;
    Ok(())
}

/// The streams of a host bridge, or of the function below one that `device` is.
fn pci_streams(device: &Node<'_, '_>, iommus: &Iommus) -> Result<List<StreamMap, 32>, Refusal> {
    if pci::is_bridge(device) && device.has("iommu-map") {
        return Ok(pci::stream_maps(device, iommus)?.1);
    }
    let mut found = List::new();
    let mut above = device.parent();
    while let Some(node) = above {
        if pci::is_bridge(node) && node.has("iommu-map") {
            let (mask, maps) = pci::stream_maps(node, iommus)?;
            let reg = device.property("reg").unwrap_or(&[]);
            let space = Words::new(reg)
                .word()
                .ok_or_else(|| device.missing("reg"))?;
            // phys.hi: bits 23:8 are the RID.
            let rid = Rid::from_u16((space >> 8) as u16);
            let rid_base = rid.as_u16() & mask;
            if let Some(first) = maps.iter().find_map(|map| map.stream_of(rid_base)) {
                let one = StreamMap {
                    rid_base,
                    count: 1,
                    first,
                };
                found.push(one).map_err(Refusal::too_many("streams"))?;
            }
            break;
        }
        above = node.parent();
    }
    Ok(found)
}
