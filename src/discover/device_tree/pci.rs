//! PCIe host bridges (bindings `pci-host-ecam-generic`, `pci-iommu`).

use super::cells::{Cells, Words};
use super::node::Node;
use super::smmu::Iommus;
use crate::addr::{Extent, Pa};
use crate::discover::bridge::{Bridge, StreamMap, Window, WindowKind};
use crate::discover::list::List;
use crate::discover::machine::{Machine, Stream};
use crate::discover::refusal::Refusal;
use crate::id::StreamId;

const ECAM: &str = "pci-host-ecam-generic";
/// One bus of ECAM: 32 devices of 8 functions of 4 KiB.
const LOG2_BUS_BYTES: u32 = 20;

/// Whether `node` is a host bridge: what is below it is on its bus, and not the platform's.
pub(super) fn is_bridge(node: &Node<'_, '_>) -> bool {
    node.text("device_type") == Some("pci") || node.is_compatible(&[ECAM])
}

/// Reads a host bridge.
pub(super) fn read(
    machine: &mut Machine,
    node: &Node<'_, '_>,
    iommus: &Iommus,
) -> Result<(), Refusal> {
    let (first_bus, last_bus) = buses(node)?;
    let (ecam, last_bus) = ecam(node, first_bus, last_bus)?;
    let (rid_mask, streams) = stream_maps(node, iommus)?;
    let bridge = Bridge {
        segment: segment(machine, node)?,
        ecam,
        first_bus,
        last_bus,
        windows: windows(node)?,
        is_coherent: node.is_coherent(),
        rid_mask,
        streams,
    };
    let shares = |other: &&Bridge| {
        other.segment == bridge.segment
            && other.first_bus <= bridge.last_bus
            && bridge.first_bus <= other.last_bus
    };
    if machine.bridges.iter().any(|other| shares(&other)) {
        return Err(Refusal::Overlap {
            node: node.label(),
            what: "bus-range",
            at: bridge.first_bus.into(),
        });
    }
    let full = Refusal::too_many("PCIe host bridges");
    machine.bridges.push(bridge).map_err(full)
}

/// The configuration space, where it is ECAM, and the last bus that it reaches.
///
/// Others are reached through registers of their own, or only almost like ECAM. Trees in use
/// promise more buses than they have configuration space for.
fn ecam(
    node: &Node<'_, '_>,
    first_bus: u8,
    last_bus: u8,
) -> Result<(Option<Extent<Pa>>, u8), Refusal> {
    if !node.is_compatible(&[ECAM]) {
        return Ok((None, last_bus));
    }
    let extent = node.needed_extent()?;
    let holds = extent.size_bytes() >> LOG2_BUS_BYTES;
    let further = holds.checked_sub(1);
    let further = further.ok_or_else(|| node.value("reg", extent.size_bytes()))?;
    let reached = u64::from(first_bus).saturating_add(further);
    let reached = u8::try_from(reached).unwrap_or(u8::MAX);
    Ok((Some(extent), last_bus.min(reached)))
}

fn buses(node: &Node<'_, '_>) -> Result<(u8, u8), Refusal> {
    let Some(value) = node.property("bus-range") else {
        return Ok((0, u8::MAX));
    };
    let mut words = Words::new(value);
    let both = words.word().zip(words.word()).filter(|_| words.is_empty());
    let (first, last) = both.ok_or_else(|| node.length("bus-range", value, 8))?;
    match (u8::try_from(first), u8::try_from(last)) {
        (Ok(first), Ok(last)) if first <= last => Ok((first, last)),
        _ => Err(node.value("bus-range", u64::from(first) << 32 | u64::from(last))),
    }
}

/// The segment: `linux,pci-domain` on all bridges, or the bridges counted where it is on none.
fn segment(machine: &Machine, node: &Node<'_, '_>) -> Result<u16, Refusal> {
    let property = "linux,pci-domain";
    match node.word(property)? {
        Some(domain) => u16::try_from(domain).map_err(|_| node.value(property, domain.into())),
        None => Ok(machine.bridges.len() as u16),
    }
}

/// The memory windows in `ranges`.
fn windows(node: &Node<'_, '_>) -> Result<List<Window, 8>, Refusal> {
    let mut windows = List::new();
    let value = node.property("ranges").unwrap_or(&[]);
    let (children, own) = (node.cells()?, node.own_cells()?);
    let entry_bytes = (children.address + own.address + children.size) * 4;
    if children.address != Cells::PCI_ADDRESS && !value.is_empty() {
        return Err(node.value("#address-cells", children.address as u64));
    }
    if !value.len().is_multiple_of(entry_bytes.max(4)) {
        return Err(node.length("ranges", value, entry_bytes));
    }
    let mut words = Words::new(value);
    while !words.is_empty() {
        let cut_off = || node.length("ranges", value, entry_bytes);
        let space = words.word().ok_or_else(cut_off)?;
        let pci_base = words.number(2).ok_or_else(cut_off)?;
        let cpu = words.number(own.address).ok_or_else(cut_off)?;
        let size_bytes = words.number(children.size).ok_or_else(cut_off)?;
        // phys.hi of IEEE 1275's PCI binding: bits 25:24 say which space.
        let kind = match space >> 24 & 3 {
            2 => WindowKind::Memory32,
            3 => WindowKind::Memory64,
            _ => continue,
        };
        let window = window(node, (cpu, pci_base, size_bytes), kind)?;
        let full = Refusal::too_many("windows of one bridge");
        windows.push(window).map_err(full)?;
    }
    Ok(windows)
}

fn window(
    node: &Node<'_, '_>,
    (cpu, pci_base, size_bytes): (u64, u64, u64),
    kind: WindowKind,
) -> Result<Window, Refusal> {
    let end = pci_base.checked_add(size_bytes);
    let fits = match kind {
        WindowKind::Memory32 => end.is_some_and(|end| end <= 1 << 32),
        WindowKind::Memory64 => end.is_some(),
    };
    if size_bytes == 0 || !fits {
        return Err(node.value("ranges", pci_base));
    }
    let cpu: Extent<Pa> = node.extent(cpu, size_bytes)?;
    Ok(Window {
        cpu,
        pci_base,
        kind,
    })
}

/// `iommu-map-mask` and `iommu-map`: which RIDs are which streams.
///
/// RIDs of an IOMMU that we do not drive are in none of the maps, like those of no IOMMU.
pub(super) fn stream_maps(
    node: &Node<'_, '_>,
    iommus: &Iommus,
) -> Result<(u16, List<StreamMap, 32>), Refusal> {
    // RIDs have 16 bits, and trees in use write the mask with 32.
    let mask = node.word("iommu-map-mask")?.unwrap_or(0xffff) as u16;
    let property = "iommu-map";
    let value = node.property(property).unwrap_or(&[]);
    if !value.len().is_multiple_of(16) {
        return Err(node.length(property, value, 16));
    }
    let mut maps = List::new();
    let mut words = Words::new(value);
    while let (Some(rid), Some(phandle), Some(stream), Some(count)) =
        (words.word(), words.word(), words.word(), words.word())
    {
        let iommu = iommus.of(node, property, phandle)?;
        check_map(node, mask, (rid, stream, count))?;
        let Some(smmu) = iommu.smmu else { continue };
        let id = StreamId::new(stream);
        let map = StreamMap {
            rid_base: rid as u16,
            count,
            first: Stream { smmu, id },
        };
        add_map(node, &mut maps, map)?;
    }
    Ok((mask, maps))
}

fn add_map(
    node: &Node<'_, '_>,
    maps: &mut List<StreamMap, 32>,
    map: StreamMap,
) -> Result<(), Refusal> {
    if maps.iter().any(|other| shares_rid(other, &map)) {
        return Err(Refusal::Overlap {
            node: node.label(),
            what: "iommu-map",
            at: map.rid_base.into(),
        });
    }
    let full = Refusal::too_many("stream maps of one bridge");
    maps.push(map).map_err(full)
}

/// Refuses an entry with RIDs that the mask hides, or above 16 bits, or streams above 32.
fn check_map(
    node: &Node<'_, '_>,
    mask: u16,
    (rid, stream, count): (u32, u32, u32),
) -> Result<(), Refusal> {
    let property = "iommu-map";
    let rids_fit = rid
        .checked_add(count)
        .is_some_and(|end| count > 0 && end <= 1 << 16);
    if !rids_fit || rid & !u32::from(mask) != 0 {
        return Err(node.value(property, u64::from(rid) << 32 | u64::from(count)));
    }
    match stream.checked_add(count - 1) {
        Some(_) => Ok(()),
        None => Err(node.value(property, stream.into())),
    }
}

fn shares_rid(one: &StreamMap, other: &StreamMap) -> bool {
    u32::from(one.rid_base) < u32::from(other.rid_base) + other.count
        && u32::from(other.rid_base) < u32::from(one.rid_base) + one.count
}
