//! The machine that ACPI tables describe.

mod boards;
mod builder;
#[path = "../fixtures/dts.rs"]
#[expect(dead_code, reason = "one tree is read here, and none changed")]
mod dts;
mod first;
mod fuzz;
mod refusals;
mod rules;
mod tables;

use builder::{Firmware, Memory, Node, RSDP, range};
use portcullis::addr::{Extent, Iova, Pa};
use portcullis::discover::{
    AcpiTables, Device, Kept, List, Machine, Refusal, Rid, SmmuIndex, Stream, StreamMap, StreamsOf,
};
use portcullis::id::StreamId;

fn read_memory(memory: &Memory) -> Result<Box<Machine>, Refusal> {
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size))?;
    let mut machine = Box::new(Machine::new());
    machine.read_acpi(&tables, &[])?;
    Ok(machine)
}

fn read(firmware: &Firmware) -> Result<Box<Machine>, Refusal> {
    read_memory(&firmware.memory())
}

fn extent(base: u64, size_bytes: u64) -> Extent<Pa> {
    Extent::<Pa>::new(Pa::new(base), size_bytes).expect("it ends below the top")
}

fn list<T, const N: usize>(items: impl IntoIterator<Item = T>) -> List<T, N> {
    let mut list = List::new();
    for item in items {
        list.push(item).expect("room for it");
    }
    list
}

fn stream(smmu: u8, id: u32) -> Stream {
    Stream {
        smmu: SmmuIndex::new(smmu),
        id: StreamId::new(id),
    }
}

fn map(rid_base: u16, count: u32, smmu: u8, id: u32) -> StreamMap {
    let first = stream(smmu, id);
    StreamMap {
        rid_base,
        count,
        first,
    }
}

/// The streams of the device with this name.
fn device<'m>(machine: &'m Machine, name: &str) -> (&'m Device, StreamsOf<&'m [Stream]>) {
    let mut devices = machine.devices.iter();
    let found = devices.find(|device| device.name.as_str() == name);
    let device = found.expect("a device");
    (device, machine.streams_of_device(device))
}

/// Runs of RIDs, first and last, and the SMMU that they go to with themselves as streams.
type Runs = [(u16, u16, u8)];

/// Asserts that RIDs of these runs, and no others, are streams, and the same ones.
fn assert_streams_are_rids(machine: &Machine, runs: &Runs) {
    for rid in 0..=u16::MAX {
        let is_in = |run: &&(u16, u16, u8)| (run.0..=run.1).contains(&rid);
        let expected = match runs.iter().find(is_in) {
            Some((_, _, smmu)) => StreamsOf::Behind(stream(*smmu, rid.into())),
            None => StreamsOf::Unprotected,
        };
        let found = machine.streams_of(0, Rid::from_u16(rid));
        assert_eq!(found, expected, "RID {rid:#06x}");
    }
}

/// Where the MSIs of these functions go: ITS and DeviceID.
fn msis(memory: &Memory, segment: u16, rids: &[u16]) -> Vec<Option<(u32, u32)>> {
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    rids.iter()
        .map(|rid| tables.msis_of(segment, Rid::from_u16(*rid)))
        .map(|msis| msis.expect("a sound table"))
        .map(|msis| msis.map(|msis| (msis.its, msis.device_id)))
        .collect()
}

fn from_rid_0(count: u32) -> StreamMap {
    map(0, count, 0, 0)
}

/// What is kept for stream 0x3000 of the first SMMU.
fn kept_at(ranges: &[(u64, u64)]) -> Vec<Kept> {
    ranges
        .iter()
        .map(|(base, size_bytes)| Kept {
            first: stream(0, 0x3000),
            count: 1,
            at: Extent::<Iova>::new(Iova::new(*base), *size_bytes).expect("it fits"),
            memory: Some(extent(*base, *size_bytes)),
        })
        .collect()
}

/// QEMU's tables with these nodes in IORT; node 0 is an ITS group and node 1 an SMMU as a rule.
fn with_nodes(nodes: &[Node]) -> Firmware {
    let mut firmware = tables::qemu();
    *firmware.table(b"IORT") = builder::iort(nodes);
    firmware
}

/// An ITS group and two SMMUs with nothing behind them.
fn two_smmus() -> Vec<Node> {
    let smmu = |base| builder::smmu(1, base, [0; 4], &[range(0, 0xffff, 0, 0)]);
    vec![builder::its_group(&[0]), smmu(0x905_0000), smmu(0x907_0000)]
}
