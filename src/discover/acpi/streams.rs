//! SMMUs, and which of them everything goes through.

use super::first::{board_quirks, quirks, registers};
use super::iort::{Iort, Kind, Node};
use super::maps::runs;
use super::part::Part;
use super::tables::AcpiTables;
use crate::addr::{Extent, Iova, Pa};
use crate::discover::bridge::{Bridge, StreamMap};
use crate::discover::list::List;
use crate::discover::machine::{
    Device, Interrupt, Kept, Machine, Smmu, SmmuIndex, SmmuInterrupts, Stream, Trigger,
};
use crate::discover::quirks::Quirks;
use crate::discover::refusal::Refusal;
use crate::id::StreamId;

/// What each memory range descriptor of an RMR takes.
const RANGE_BYTES: usize = 20;

/// Reads IORT into the machine, whose bridges with configuration space are known.
pub(super) fn read(machine: &mut Machine, tables: &AcpiTables<'_>) -> Result<(), Refusal> {
    let Some(iort) = Iort::read(tables)? else {
        return Ok(());
    };
    let board = board_quirks(iort.whole());
    for node in iort.nodes_of(Kind::SmmuV3) {
        read_smmu(machine, &node, board)?;
    }
    for (place, node) in iort.nodes_of(Kind::RootComplex).enumerate() {
        let segment = segment_of(&node)?;
        let mut earlier = iort.nodes_of(Kind::RootComplex).take(place);
        if earlier.any(|other| segment_of(&other) == Ok(segment)) {
            return Err(node.part.overlap("PCI segment", segment.into()));
        }
        read_root_complex(machine, &iort, &node, segment)?;
    }
    for node in iort.nodes_of(Kind::NamedComponent) {
        read_component(machine, &iort, &node)?;
    }
    for node in iort.nodes_of(Kind::Rmr) {
        read_rmr(machine, &iort, &node)?;
    }
    Ok(())
}

/// Forgets what [`read`] has read.
pub(super) fn forget(machine: &mut Machine) {
    machine.smmus.clear();
    machine.devices.clear();
    machine.device_streams.clear();
    machine.kept.clear();
    for bridge in machine.bridges.iter_mut() {
        bridge.streams.clear();
        bridge.is_coherent = false;
    }
}

fn read_smmu(machine: &mut Machine, node: &Node<'_>, board: Quirks) -> Result<(), Refusal> {
    let part = &node.part;
    let registers = registers(part)?;
    let shares = |other: &Smmu| other.registers.overlaps(&registers);
    if machine.smmus.iter().any(shares) {
        return Err(part.overlap("registers", registers.base().as_u64()));
    }
    let smmu = Smmu {
        registers,
        is_coherent: part.u32(24)? & 1 != 0,
        interrupts: interrupts(part)?,
        quirks: quirks(part, board)?,
    };
    machine.smmus.push(smmu).map_err(Refusal::too_many("SMMUs"))
}

/// The wires, which are edges; 0 is none. One wire for all is what some have instead of four.
fn interrupts(part: &Part<'_>) -> Result<SmmuInterrupts, Refusal> {
    let numbers = [part.u32(44)?, part.u32(48)?, part.u32(52)?, part.u32(56)?];
    let [event_queue, pri_queue, global_error, command_sync] = numbers.map(wire);
    if numbers.iter().all(|number| *number == numbers[0]) {
        return Ok(SmmuInterrupts {
            combined: event_queue,
            ..SmmuInterrupts::default()
        });
    }
    Ok(SmmuInterrupts {
        combined: None,
        event_queue,
        pri_queue,
        command_sync,
        global_error,
    })
}

const fn wire(gsiv: u32) -> Option<Interrupt> {
    match gsiv {
        0 => None,
        32..=1019 | 4096..=5119 => Some(Interrupt::Gic {
            intid: gsiv,
            trigger: Trigger::Edge,
        }),
        _ => Some(Interrupt::Elsewhere),
    }
}

/// The PCI segment of a root complex.
pub(super) fn segment_of(node: &Node<'_>) -> Result<u16, Refusal> {
    let segment = node.part.u32(28)?;
    u16::try_from(segment).map_err(|_| node.part.value("PCI segment", segment.into()))
}

fn read_root_complex(
    machine: &mut Machine,
    iort: &Iort<'_>,
    node: &Node<'_>,
    segment: u16,
) -> Result<(), Refusal> {
    let (rid_mask, streams) = stream_maps(iort, node)?;
    let is_coherent = node.part.u32(16)? == 1;
    let mut is_known = false;
    for bridge in machine.bridges.iter_mut() {
        if bridge.segment == segment {
            bridge.rid_mask = rid_mask;
            bridge.streams.clone_from(&streams);
            bridge.is_coherent = is_coherent;
            is_known = true;
        }
    }
    if is_known {
        return Ok(());
    }
    // No MCFG names it: nobody can look what is there, and yet its streams are known.
    let bridge = Bridge {
        segment,
        ecam: None,
        first_bus: 0,
        last_bus: u8::MAX,
        windows: List::new(),
        is_coherent,
        rid_mask,
        streams,
    };
    machine
        .bridges
        .push(bridge)
        .map_err(Refusal::too_many("PCIe host bridges"))
}

/// Which RIDs are which streams: the node's maps by the rule, those that end in an SMMUv3, in
/// rising order, no two of them with one RID.
fn stream_maps(iort: &Iort<'_>, node: &Node<'_>) -> Result<(u16, List<StreamMap, 32>), Refusal> {
    let mut maps = List::new();
    let full = Refusal::too_many("stream maps of one bridge");
    if let Some(single) = node.maps().find(|map| map.is_single) {
        if node.maps().count() != 1 {
            return Err(node
                .part
                .value("ID map for all ids", single.output_base.into()));
        }
        // All RIDs are one stream: none of their bits matters.
        if let Some(first) = stream(iort, single.to, single.output_base) {
            let map = StreamMap {
                rid_base: 0,
                count: 1,
                first,
            };
            maps.push(map).map_err(full)?;
        }
        return Ok((0, maps));
    }
    for run in runs(node.maps(), u16::MAX.into()) {
        let Some(first) = stream(iort, run.hop.to, run.hop.id) else {
            continue;
        };
        let map = StreamMap {
            rid_base: run.first as u16,
            // At most all RIDs, which are 65536.
            count: run.count as u32,
            first,
        };
        match maps.last_mut().filter(|last| goes_on(last, &map)) {
            Some(last) => last.count += map.count,
            None => maps.push(map).map_err(&full)?,
        }
    }
    Ok((u16::MAX, maps))
}

/// Whether `next` has the ids and streams right behind those of `map`.
fn goes_on(map: &StreamMap, next: &StreamMap) -> bool {
    let follows = |base: u32, next: u32| base.checked_add(map.count) == Some(next);
    map.first.smmu == next.first.smmu
        && follows(map.rid_base.into(), next.rid_base.into())
        && follows(map.first.id.as_u32(), next.first.id.as_u32())
}

/// The stream `id` of the SMMUv3 at offset `to`; `None` if that is another node.
fn stream(iort: &Iort<'_>, to: u32, id: u32) -> Option<Stream> {
    let smmu = SmmuIndex::new(iort.smmu_at(to)?);
    let id = StreamId::new(id);
    Some(Stream { smmu, id })
}

fn read_component(machine: &mut Machine, iort: &Iort<'_>, node: &Node<'_>) -> Result<(), Refusal> {
    let first_stream = machine.device_streams.len();
    let mut has_unprotected_traffic = false;
    let mut note = |to, id, count: u64| {
        let Some(first) = stream(iort, to, id) else {
            has_unprotected_traffic = true;
            return Ok(());
        };
        add_streams(machine, first_stream, first, count)
    };
    let singles = node.maps().filter(|map| map.is_single);
    for map in singles {
        note(map.to, map.output_base, 1)?;
    }
    let ranges = node.maps().filter(|map| !map.is_single);
    for run in runs(ranges, u32::MAX) {
        note(run.hop.to, run.hop.id, run.count)?;
    }
    let part = &node.part;
    let flags = part.u32(16)?;
    let device = Device {
        name: part.text(29),
        compatible: Default::default(),
        registers: None,
        is_coherent: part.u32(20)? == 1,
        can_stall: flags & 1 != 0,
        pasid_bits: pasid_bits(part, flags)?,
        caching: Default::default(),
        has_unprotected_traffic,
        first_stream: first_stream as u16,
        stream_count: (machine.device_streams.len() - first_stream) as u16,
    };
    machine
        .devices
        .push(device)
        .map_err(Refusal::too_many("devices"))
}

/// Notes `count` streams from `first` on, those besides that the device has already.
fn add_streams(
    machine: &mut Machine,
    first_stream: usize,
    first: Stream,
    count: u64,
) -> Result<(), Refusal> {
    for further in 0..count {
        // No map leads past the last id.
        let Some(id) = first.id.as_u32().checked_add(further as u32) else {
            break;
        };
        let id = StreamId::new(id);
        let stream = Stream { id, ..first };
        let own = machine.device_streams.get(first_stream..).unwrap_or(&[]);
        if !own.contains(&stream) {
            machine
                .device_streams
                .push(stream)
                .map_err(Refusal::too_many("streams of devices"))?;
        }
    }
    Ok(())
}

fn pasid_bits(part: &Part<'_>, flags: u32) -> Result<u8, Refusal> {
    match flags >> 1 & 0x1f {
        bits @ 0..=20 => Ok(bits as u8),
        bits => Err(part.value("PASID bits", bits.into())),
    }
}

/// Reads the memory that a device of firmware's goes on using (IORT, "Reserved Memory Range node").
///
/// The first layout had no flags, so that all behind is four bytes nearer.
fn read_rmr(machine: &mut Machine, iort: &Iort<'_>, node: &Node<'_>) -> Result<(), Refusal> {
    let part = &node.part;
    let at = if node.revision == 0 { 16 } else { 20 };
    let (count, offset) = (part.size(at)?, part.size(at + 4)?);
    if count > 0 && offset < at + 8 {
        return Err(part.value("offset of the ranges", offset as u64));
    }
    let size_bytes = count.saturating_mul(RANGE_BYTES);
    let ranges = part.part("memory ranges", offset, size_bytes)?;
    for place in 0..count {
        let range = ranges.part("memory range", place * RANGE_BYTES, RANGE_BYTES)?;
        let (base, size_bytes) = (range.u64(0)?, range.u64(8)?);
        let memory = Extent::<Pa>::new(Pa::new(base), size_bytes);
        let at = Extent::<Iova>::new(Iova::new(base), size_bytes);
        let both = memory.zip(at).filter(|_| size_bytes > 0);
        let (memory, at) = both.ok_or_else(|| range.value("length", size_bytes))?;
        for map in node.maps() {
            let Some(first) = stream(iort, map.to, map.output_base) else {
                continue;
            };
            let further = if map.is_single { 0 } else { map.id_count };
            let kept = Kept {
                first,
                count: further.saturating_add(1),
                at,
                memory: Some(memory),
            };
            machine
                .kept
                .push(kept)
                .map_err(Refusal::too_many("addresses kept for devices"))?;
        }
    }
    Ok(())
}
