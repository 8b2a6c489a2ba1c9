//! The machine that ACPI tables describe.

#[path = "fixtures/acpi.rs"]
mod acpi;
#[path = "fixtures/boards.rs"]
mod boards;
#[path = "fixtures/dts.rs"]
#[expect(dead_code, reason = "one tree is read, none is changed")]
mod dts;

use acpi::{Bytes, Firmware, Memory, Node, RSDP, range, single};
use portcullis::addr::{Extent, Iova, Pa};
use portcullis::discover::{
    AcpiTables, Conduit, Console, ConsoleKind, Device, DeviceTree, Gic, Interrupt, Kept, List,
    Machine, Msis, Quirks, Refusal, Rid, Smmu, SmmuIndex, SmmuInterrupts, Start, Stream, StreamMap,
    StreamsOf, Text, Timer, Trigger,
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

#[test]
fn the_tables_of_qemu_virt_say_what_its_device_tree_says() {
    let text = include_str!("fixtures/qemu-virt.dts");
    let mut blob = dts::Tree::parse(text).flatten();
    let tree = DeviceTree::new(&mut blob).expect("a sound tree");
    let mut of_tree = Box::new(Machine::new());
    of_tree.read_device_tree(&tree).expect("a sound tree");

    let memory = boards::qemu().memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let mut of_acpi = Box::new(Machine::new());
    // As UEFI's map might have it: in pieces, some of them empty.
    let map = [
        extent(0x4000_0000, 0x1000_0000),
        extent(0x1234_0000, 0),
        extent(0x5000_0000, 0x1000_0000),
    ];
    of_acpi.read_acpi(&tables, &map).expect("sound tables");

    // QEMU's IORT has the buses that exist, its device tree all that could.
    assert_eq!(*of_acpi.bridges[0].streams, [from_rid_0(0x100)]);
    assert_eq!(*of_tree.bridges[0].streams, [from_rid_0(0x1_0000)]);
    of_tree.bridges[0].streams = of_acpi.bridges[0].streams.clone();
    // ACPI says these in AML, or not at all.
    of_tree.bridges[0].windows.clear();
    of_tree.bootargs = Text::new();
    of_tree.devices.clear();
    assert_eq!(of_acpi, of_tree);
}

fn from_rid_0(count: u32) -> StreamMap {
    map(0, count, 0, 0)
}

#[test]
fn msis_of_qemu_virt_have_the_rid_as_their_device_id_through_the_smmu_or_not() {
    let memory = boards::qemu().memory();
    let expected = [0x0000, 0x00ff, 0x0100, 0xffff];
    assert_eq!(
        msis(&memory, 0, &expected),
        expected.map(|rid| Some((0, rid.into())))
    );
    assert_eq!(msis(&memory, 1, &[0]), [None]);
}

#[test]
fn every_rid_of_a_d06_goes_to_the_smmu_that_its_bridge_is_behind() {
    let machine = read(&boards::d06()).expect("sound tables");
    // One more RID than the bridge has, wherever no other bridge has it.
    let runs = [
        (0x0000, 0x4000, 0),
        (0x7400, 0x7700, 2),
        (0x7b00, 0x7bff, 0),
        (0x7c00, 0x7e00, 1),
        (0x8000, 0xa000, 3),
        (0xb400, 0xb700, 5),
        (0xbb00, 0xbbff, 3),
        (0xbc00, 0xbe00, 4),
    ];
    assert_streams_are_rids(&machine, &runs);
    let maps =
        runs.map(|(first, last, smmu)| map(first, u32::from(last - first) + 1, smmu, first.into()));
    assert_eq!(*machine.bridges[0].streams, maps, "and no map more");
}

#[test]
fn a_d06_has_six_smmus_without_wires() {
    let machine = read(&boards::d06()).expect("sound tables");
    let smmu = |base| Smmu {
        registers: extent(base, 0x2_0000),
        is_coherent: true,
        interrupts: SmmuInterrupts::default(),
        quirks: Quirks::default(),
    };
    let bases = [
        0x1_4800_0000,
        0x1_0000_0000,
        0x1_4000_0000,
        0x4001_4800_0000,
        0x4001_0000_0000,
        0x4001_4000_0000,
    ];
    assert_eq!(*machine.smmus, bases.map(smmu));
}

#[test]
fn the_rest_of_a_d06_is_read_too() {
    let machine = read(&boards::d06()).expect("sound tables");
    assert_eq!(machine.psci, Some(Conduit::Smc));
    let cpus: Vec<u64> = machine.cpus.iter().map(|cpu| cpu.mpidr.as_u64()).collect();
    assert_eq!(cpus.len(), 96);
    assert_eq!(
        (cpus[0], cpus[23], cpus[95]),
        (0x1_0000, 0x1_0503, 0x7_0503)
    );
    assert!(machine.cpus.iter().all(|cpu| cpu.start == Start::Psci));
    let dies = [0xae10_0000, 0xaa10_0000, 0x4000_ae10_0000, 0x4000_aa10_0000];
    let gic = Gic {
        distributor: extent(0xae00_0000, 0x1_0000),
        redistributors: list(dies.map(|base| extent(base, 24 * 0x4_0000))),
        its: list([extent(0x2_0210_0000, 0x2_0000)]),
    };
    assert_eq!(machine.gic, Some(gic));
    let console = Console {
        kind: ConsoleKind::Pl011,
        base: Pa::new(0x9408_0000),
    };
    assert_eq!(machine.console, Some(console));
    let [bridge] = &*machine.bridges else {
        panic!("{:?}", machine.bridges);
    };
    assert_eq!(bridge.ecam, Some(extent(0xd000_0000, 0x1000_0000)));
    assert_eq!(
        (bridge.segment, bridge.first_bus, bridge.last_bus),
        (0, 0, 0xff)
    );
    assert!(bridge.is_coherent);
    let (_, streams) = device(&machine, "\\_SB_.SEC0");
    assert_eq!(streams, StreamsOf::Behind(&[stream(2, 0x100)][..]));
}

#[test]
fn msis_of_a_d06_go_to_its_one_its() {
    let memory = boards::d06().memory();
    let rids = [
        0x0000, 0x7400, 0x7800, 0x7a00, 0x7b00, 0x7c00, 0x7d01, 0xb600, 0xbc00,
    ];
    assert_eq!(
        msis(&memory, 0, &rids),
        rids.map(|rid| Some((0, rid.into())))
    );
    assert_eq!(
        msis(&memory, 0, &[0x7700, 0x7701]),
        [Some((0, 0x7700)), None]
    );
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let own = |place| tables.msis_of_smmu(place).expect("a sound table");
    let device_ids: Vec<_> = (0..7)
        .map(own)
        .map(|it| it.map(|it| it.device_id))
        .collect();
    let expected = [0x7f01, 0x7f03, 0x7f04, 0xbf01, 0xbf03, 0xbf04];
    let mut expected = Vec::from(expected.map(Some));
    expected.push(None);
    assert_eq!(device_ids, expected);
    let sec = Msis {
        its: 0,
        device_id: 0x100,
    };
    assert_eq!(tables.msis_of_device(0), Ok(Some(sec)));
}

#[test]
fn every_rid_of_a_taishan_2280_v2_goes_to_the_smmu_that_its_bridge_is_behind() {
    let machine = read(&boards::taishan_2280_v2()).expect("sound tables");
    let runs = [
        (0x0000, 0x4000, 0),
        (0x7400, 0x7700, 3),
        (0x7800, 0x7aff, 1),
        (0x7b00, 0x7bff, 0),
        (0x7c00, 0x7e00, 2),
        (0x8000, 0xa000, 4),
        (0xb400, 0xb700, 7),
        (0xb800, 0xbaff, 5),
        (0xbb00, 0xbbff, 4),
        (0xbc00, 0xbe00, 6),
    ];
    assert_streams_are_rids(&machine, &runs);
    let bases: Vec<_> = machine
        .smmus
        .iter()
        .map(|smmu| smmu.registers.base())
        .collect();
    let chip = [0x1_4800_0000, 0x2_0100_0000, 0x1_0000_0000, 0x1_4000_0000];
    let expected = [chip, chip.map(|base| 0x2000_0000_0000 | base)].concat();
    assert_eq!(bases, expected.into_iter().map(Pa::new).collect::<Vec<_>>());
}

#[test]
fn the_two_chips_of_a_taishan_have_an_its_each() {
    let memory = boards::taishan_2280_v2().memory();
    let of_chips = [
        (0x7900, Some((0, 0x7900))),
        (0x7d00, Some((0, 0x7d00))),
        (0xb600, Some((1, 0xb600))),
        (0xbc00, Some((1, 0xbc00))),
        (0x5000, None),
    ];
    let (rids, expected): (Vec<_>, Vec<_>) = of_chips.into_iter().unzip();
    assert_eq!(msis(&memory, 0, &rids), expected);
}

#[test]
fn the_rest_of_a_taishan_is_read_too() {
    let machine = read(&boards::taishan_2280_v2()).expect("sound tables");
    let cpus: Vec<u64> = machine.cpus.iter().map(|cpu| cpu.mpidr.as_u64()).collect();
    assert_eq!((cpus.len(), cpus[0], cpus[1]), (128, 0x8_0000, 0x8_0100));
    assert_eq!(cpus[127], 0x3f_0300);
    let console = Console {
        kind: ConsoleKind::Ns16550 {
            log2_stride: 0,
            access_bytes: 1,
        },
        base: Pa::new(0x3_f000_02f8),
    };
    assert_eq!(machine.console, Some(console));
    let gic = machine.gic.as_ref().expect("a GIC");
    let dies = [0xae10_0000, 0xaa10_0000, 0x2000_ae10_0000, 0x2000_aa10_0000];
    assert_eq!(
        *gic.redistributors,
        dies.map(|base| extent(base, 0x80_0000))
    );
    let services = [0x2_0210_0000, 0x2002_0210_0000];
    assert_eq!(*gic.its, services.map(|base| extent(base, 0x2_0000)));
    assert_eq!(
        *machine.kept,
        kept_at(&[(0xe640_0000, 0x10_0000), (0x27b0_0000, 0xc0_0000)])
    );
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

#[test]
fn each_segment_of_a_d05_goes_to_its_smmu_with_streams_of_19_bits() {
    let machine = read(&boards::d05()).expect("sound tables");
    let segments = [
        (2, 0xf8, 0xff, map(0xf800, 0x800, 0, 0x2_f800)),
        (4, 0x88, 0x8f, map(0x8800, 0x801, 2, 0x8800)),
        (5, 0x78, 0x7f, map(0x7800, 0x801, 2, 0x1_7800)),
        (0xa, 0x10, 0x1f, map(0x1000, 0x1001, 3, 0x2_1000)),
        (0xc, 0x20, 0x2f, map(0x2000, 0x1001, 4, 0x2000)),
        (0xd, 0x30, 0x3f, map(0x3000, 0x1001, 4, 0x1_3000)),
    ];
    assert_eq!(machine.bridges.len(), segments.len());
    for (bridge, (segment, first_bus, last_bus, map)) in machine.bridges.iter().zip(segments) {
        let found = (bridge.segment, bridge.first_bus, bridge.last_bus);
        assert_eq!(found, (segment, first_bus, last_bus));
        assert_eq!(*bridge.streams, [map]);
        assert_eq!(bridge.ecam, None, "its root bus is not as ECAM has it");
    }
    let of = |segment, rid| machine.streams_of(segment, Rid::from_u16(rid));
    assert_eq!(of(2, 0xffff), StreamsOf::Behind(stream(0, 0x2_ffff)));
    assert_eq!(of(0xd, 0x3fff), StreamsOf::Behind(stream(4, 0x1_3fff)));
    assert_eq!(
        of(4, 0x9000),
        StreamsOf::Unprotected,
        "the one too many is on no bus of the bridge"
    );
    assert_eq!(of(2, 0xf7ff), StreamsOf::Unprotected);
    assert_eq!(of(0, 0xf800), StreamsOf::Unprotected);
}

#[test]
fn devices_of_a_d05_have_the_streams_that_are_published() {
    let machine = read(&boards::d05()).expect("sound tables");
    let of = |name| device(&machine, name).1;
    let behind = [
        ("\\_SB_.USB0", stream(0, 0x4_0080)),
        ("\\_SB_.SAS0", stream(1, 0x4_0900)),
        ("\\_SB_.SAS1", stream(0, 0x4_0000)),
        ("\\_SB_.SAS2", stream(0, 0x4_0040)),
        ("\\_SB_.DSF0", stream(1, 0)),
    ];
    for (name, stream) in behind {
        assert_eq!(of(name), StreamsOf::Behind(&[stream][..]), "{name}");
    }
    assert_eq!(of("\\_SB_.MBI0"), StreamsOf::Unprotected, "only an ITS");
    assert_eq!(machine.devices.len(), 6);
}

#[test]
fn msis_of_a_d05_go_to_the_its_of_their_smmu() {
    let memory = boards::d05().memory();
    assert_eq!(msis(&memory, 2, &[0xf800]), [Some((0, 0x2_f800))]);
    assert_eq!(msis(&memory, 4, &[0x8801]), [Some((3, 0x8801))]);
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let of = |place| tables.msis_of_device(place).expect("a sound table");
    let at = |device_id| Some(Msis { its: 0, device_id });
    assert_eq!((of(0), of(2)), (at(0x4_0080), at(0x4_0900)));
    assert_eq!(tables.msis_of_smmu(0), Ok(None), "its node is too old");
}

#[test]
fn a_hi161x_has_its_errata_by_its_model_and_by_its_board() {
    let errata = Quirks {
        has_broken_prefetch: true,
        needs_fixed_msi_address: true,
        ..Quirks::default()
    };
    let machine = read(&boards::d05()).expect("sound tables");
    assert!(machine.smmus.iter().all(|smmu| smmu.quirks == errata));
    let of = |oem_id: &[u8; 6], oem_table_id: &[u8; 8], model| {
        let mut firmware = boards::qemu();
        firmware.oem_id = *oem_id;
        firmware.oem_table_id = *oem_table_id;
        let nodes = [acpi::smmu(1, 0x905_0000, [0; 4], &[])];
        let nodes = nodes.map(|node| node.change(|bytes| bytes.word(40, model)));
        *firmware.table(b"IORT") = acpi::iort(&nodes);
        read(&firmware).expect("sound tables").smmus[0].quirks
    };
    assert_eq!(of(b"BOCHS ", b"BXPC    ", 1), errata);
    assert_eq!(of(b"HISI  ", b"HIP07   ", 0), errata);
    assert_eq!(of(b"HISI\0\0", b"HIP06\0\0\0", 0), errata);
    assert_eq!(of(b"HISI  ", b"HIP08   ", 0), Quirks::default());
    assert_eq!(of(b"OTHER ", b"HIP07   ", 0), Quirks::default());
    let page1 = Quirks {
        has_broken_page1: true,
        ..Quirks::default()
    };
    assert_eq!(of(b"CAVIUM", b"THUNDERX", 2), page1);
    let flush = Quirks {
        needs_flush_of_new_tables: true,
        ..Quirks::default()
    };
    for later in [
        b"HIP09   ",
        b"HIP09A  ",
        b"HIP10   ",
        b"HIP10C  ",
        b"HIP11\0\0\0",
    ] {
        assert_eq!(of(b"HISI  ", later, 0), flush, "{later:?}");
    }
}

#[test]
fn an_smmu_of_hisilicon_that_is_not_known_to_be_old_has_what_hip09_needs() {
    let flush = Quirks {
        needs_flush_of_new_tables: true,
        ..Quirks::default()
    };
    assert_eq!(Quirks::of_iidr(0x0005_1736), flush);
    assert_eq!(Quirks::of_iidr(0x0003_0736), Quirks::default(), "a HIP08");
    assert_eq!(Quirks::of_iidr(0x4832_243b), Quirks::default(), "Arm's");
    assert_eq!(Quirks::of_iidr(0), Quirks::default(), "QEMU's");
}

#[test]
fn oem_ids_are_read_without_their_blanks_and_nuls() {
    let memory = boards::d05().memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let found = &tables.listed()[0];
    assert_eq!(found.signature.as_str(), "FACP");
    assert_eq!(found.oem.id.as_str(), "HISI");
    assert_eq!(found.oem.table_id.as_str(), "HIP07");
    assert_eq!(found.oem.to_string(), "HISI HIP07");
    let mut odd = boards::d05();
    odd.oem_id = *b" \xffA B ";
    let memory = odd.memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    assert_eq!(tables.listed()[0].oem.id.as_str(), " ?A B");
}

#[test]
fn tables_are_found_through_an_rsdp_of_either_age() {
    for firmware in [boards::qemu(), boards::d06()] {
        let machine = read(&firmware).expect("sound tables");
        assert_eq!(read_memory(&firmware.old_memory()), Ok(machine));
    }
}

#[test]
fn timers_are_told_with_how_they_are_wired() {
    let mut firmware = boards::qemu();
    *firmware.table(b"GTDT") = acpi::gtdt([(29, 4), (30, 0), (27, 5), (0, 0)]);
    let memory = firmware.memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let timers = tables.timers().expect("a sound table").expect("a table");
    let timer = |intid, trigger, is_always_on| Timer {
        interrupt: Some(Interrupt::Gic { intid, trigger }),
        is_always_on,
    };
    assert_eq!(timers.secure_el1, timer(29, Trigger::Level, true));
    assert_eq!(timers.el1, timer(30, Trigger::Level, false));
    assert_eq!(timers.el1_virtual, timer(27, Trigger::Edge, true));
    assert_eq!(timers.el2.interrupt, None);
}

/// QEMU's tables with these nodes in IORT; node 0 is an ITS group and node 1 an SMMU as a rule.
fn with_nodes(nodes: &[Node]) -> Firmware {
    let mut firmware = boards::qemu();
    *firmware.table(b"IORT") = acpi::iort(nodes);
    firmware
}

/// An ITS group and two SMMUs with nothing behind them.
fn two_smmus() -> Vec<Node> {
    let smmu = |base| acpi::smmu(1, base, [0; 4], &[range(0, 0xffff, 0, 0)]);
    vec![acpi::its_group(&[0]), smmu(0x905_0000), smmu(0x907_0000)]
}

/// The streams of QEMU's bridge when its maps are these, which lead to the nodes of [`two_smmus`].
fn maps_of(maps: &[acpi::Map]) -> Vec<StreamMap> {
    let mut nodes = two_smmus();
    nodes.push(acpi::root_complex(0, maps));
    read(&with_nodes(&nodes)).expect("sound tables").bridges[0]
        .streams
        .to_vec()
}

#[test]
fn the_last_id_of_a_map_goes_to_a_later_map_that_starts_with_it() {
    let found = maps_of(&[range(0, 0x100, 0x1000, 1), range(0x100, 0x100, 0x100, 2)]);
    assert_eq!(
        found,
        [map(0, 0x100, 0, 0x1000), map(0x100, 0x101, 1, 0x100)]
    );
    // A map of one id is never taken back.
    let found = maps_of(&[range(0x100, 0, 0x1000, 1), range(0x100, 0xff, 0x100, 2)]);
    assert_eq!(
        found,
        [map(0x100, 1, 0, 0x1000), map(0x101, 0xff, 1, 0x101)]
    );
}

#[test]
fn an_earlier_map_keeps_every_other_id_that_a_later_one_has_too() {
    // The last id of the first lies within the second, which does not start with it.
    let found = maps_of(&[range(0, 0x100, 0, 1), range(0x80, 0x100, 0x80, 2)]);
    assert_eq!(found, [map(0, 0x101, 0, 0), map(0x101, 0x80, 1, 0x101)]);
    // In the other order nothing is taken for the time being.
    let found = maps_of(&[range(0x100, 0x100, 0x100, 2), range(0, 0x100, 0x1000, 1)]);
    assert_eq!(
        found,
        [map(0, 0x100, 0, 0x1000), map(0x100, 0x101, 1, 0x100)]
    );
}

#[test]
fn maps_that_are_right_are_read_as_they_stand() {
    let found = maps_of(&[range(0, 0xff, 0, 1), range(0x100, 0xfeff, 0x100, 2)]);
    assert_eq!(found, [map(0, 0x100, 0, 0), map(0x100, 0xff00, 1, 0x100)]);
    let found = maps_of(&[range(0, 0xff, 0, 1), range(0x100, 0xfeff, 0x100, 1)]);
    assert_eq!(found, [map(0, 0x1_0000, 0, 0)], "neighbours are joined");
    // Ids above those that a function can have do not matter.
    let found = maps_of(&[range(0xff00, 0xffff, 0, 1)]);
    assert_eq!(found, [map(0xff00, 0x100, 0, 0)]);
    assert_eq!(maps_of(&[range(0, 0xffff, 0, 0)]), [], "only an ITS");
    assert_eq!(maps_of(&[]), []);
}

#[test]
fn a_single_map_makes_one_stream_of_all_functions() {
    let mut nodes = two_smmus();
    nodes.push(acpi::root_complex(0, &[single(0x77, 2)]));
    let machine = read(&with_nodes(&nodes)).expect("sound tables");
    for rid in [0, 1, 0x100, 0xffff] {
        assert_eq!(
            machine.streams_of(0, Rid::from_u16(rid)),
            StreamsOf::Behind(stream(1, 0x77))
        );
    }
}

#[test]
fn the_map_for_the_msis_of_the_smmu_is_for_nobody_else() {
    // Both maps have every id, so it matters that the first is left out.
    let maps = [range(0, 0xffff, 0x9000, 0), range(0, 0xffff, 0, 0)];
    let device_id = |node: Node| {
        let rc = acpi::root_complex(0, &[range(0, 0xffff, 0, 1)]);
        let memory = with_nodes(&[acpi::its_group(&[0]), node, rc]).memory();
        msis(&memory, 0, &[0x100])[0]
    };
    let smmu = |revision, wires| acpi::smmu(revision, 0x905_0000, wires, &maps);
    let wires = [106, 107, 109, 108];
    let used = Some((0, 0x9100));
    let left_out = Some((0, 0x100));
    assert_eq!(device_id(smmu(1, [0; 4])), left_out);
    assert_eq!(device_id(smmu(4, [106, 107, 109, 0])), left_out);
    assert_eq!(device_id(smmu(4, wires)), used, "it needs no MSIs");
    assert_eq!(device_id(smmu(5, [0; 4])), used, "its flag is off");
    let flagged = smmu(5, wires).change(|bytes| bytes.word(24, 0x11));
    assert_eq!(device_id(flagged), left_out);
    let far = smmu(1, [0; 4]).change(|bytes| bytes.word(64, 2));
    assert_eq!(device_id(far), used, "its index is of no map");
    assert_eq!(device_id(acpi::old_smmu(0x905_0000, 0, &maps)), used);
}

#[test]
fn a_named_component_has_every_stream_it_is_led_to_once() {
    let mut nodes = two_smmus();
    let maps = [
        single(7, 1),
        range(0, 2, 0x10, 2),
        range(2, 1, 0x20, 2),
        single(7, 1),
    ];
    // Stalls, 16 bits of PASID.
    let stalls = |bytes: Bytes| bytes.word(16, 1 | 16 << 1).word(20, 0);
    nodes.push(acpi::component("\\_SB_.ACC0", &maps).change(stalls));
    nodes.push(acpi::component(
        "\\_SB_.MIX0",
        &[single(8, 1), single(8, 0)],
    ));
    nodes.push(acpi::component("\\_SB_.NONE", &[]));
    let machine = read(&with_nodes(&nodes)).expect("sound tables");
    let (found, streams) = device(&machine, "\\_SB_.ACC0");
    // The last of the first range is the first of the second.
    let expected = [
        stream(0, 7),
        stream(1, 0x10),
        stream(1, 0x11),
        stream(1, 0x20),
        stream(1, 0x21),
    ];
    assert_eq!(streams, StreamsOf::Behind(&expected[..]));
    assert!(found.can_stall && !found.is_coherent);
    assert_eq!((found.pasid_bits, found.registers), (16, None));
    let (found, streams) = device(&machine, "\\_SB_.MIX0");
    assert_eq!(streams, StreamsOf::Unprotected, "some of it goes past");
    assert_eq!(machine.known_streams_of_device(found), [stream(0, 8)]);
    assert!(!found.can_stall && found.is_coherent);
    assert_eq!(device(&machine, "\\_SB_.NONE").1, StreamsOf::Unprotected);
}

#[test]
fn behind_an_older_smmu_everything_is_unprotected() {
    let mut nodes = two_smmus();
    let mut older = acpi::smmu(1, 0x909_0000, [0; 4], &[range(0, 0xffff, 0x5000, 0)]);
    older.bytes = older.bytes.byte(0, 3);
    nodes.push(older);
    nodes.push(acpi::root_complex(0, &[range(0, 0xffff, 0, 3)]));
    nodes.push(acpi::component("\\_SB_.DEV0", &[single(1, 3)]));
    let firmware = with_nodes(&nodes);
    let machine = read(&firmware).expect("sound tables");
    assert_eq!(machine.smmus.len(), 2);
    let of = machine.streams_of(0, Rid::from_u16(0x100));
    assert_eq!(of, StreamsOf::Unprotected);
    assert_eq!(device(&machine, "\\_SB_.DEV0").1, StreamsOf::Unprotected);
    assert_eq!(msis(&firmware.memory(), 0, &[0x100]), [Some((0, 0x5100))]);
}

#[test]
fn memory_that_firmware_keeps_is_read_in_both_layouts() {
    let ranges = [(0xe640_0000, 0x10_0000), (0x27b0_0000, 0xc0_0000)];
    let maps = [range(0, 0, 0x3000, 1)];
    for rmr in [acpi::old_rmr(&ranges, &maps), acpi::rmr(3, &ranges, &maps)] {
        let mut nodes = two_smmus();
        nodes.push(rmr);
        let machine = read(&with_nodes(&nodes)).expect("sound tables");
        assert_eq!(*machine.kept, kept_at(&ranges));
    }
    let mut nodes = two_smmus();
    let maps = [single(0x11, 2), range(0, 3, 0x20, 1), single(0x12, 0)];
    nodes.push(acpi::rmr(1, &ranges[..1], &maps));
    let machine = read(&with_nodes(&nodes)).expect("sound tables");
    let kept: Vec<_> = machine
        .kept
        .iter()
        .map(|kept| (kept.first, kept.count))
        .collect();
    assert_eq!(kept, [(stream(1, 0x11), 1), (stream(0, 0x20), 4)]);
}

#[test]
fn wires_of_an_smmu_are_edges_of_the_gic_or_go_elsewhere() {
    let wires = |numbers| {
        let nodes = [acpi::smmu(4, 0x905_0000, numbers, &[])];
        read(&with_nodes(&nodes)).expect("sound tables").smmus[0].interrupts
    };
    let edge = |intid| {
        Some(Interrupt::Gic {
            intid,
            trigger: Trigger::Edge,
        })
    };
    let expected = SmmuInterrupts {
        combined: None,
        event_queue: edge(1019),
        pri_queue: None,
        global_error: Some(Interrupt::Elsewhere),
        command_sync: edge(4096),
    };
    assert_eq!(wires([1019, 0, 1020, 4096]), expected);
    let expected = SmmuInterrupts {
        combined: edge(74),
        ..SmmuInterrupts::default()
    };
    assert_eq!(wires([74; 4]), expected, "one wire for all");
    assert_eq!(wires([0; 4]), SmmuInterrupts::default());
}

#[test]
fn a_segment_that_mcfg_does_not_name_is_known_without_its_configuration_space() {
    let mut nodes = two_smmus();
    nodes.push(acpi::root_complex(7, &[range(0, 0xffff, 0, 1)]));
    let machine = read(&with_nodes(&nodes)).expect("sound tables");
    let bridges: Vec<_> = machine
        .bridges
        .iter()
        .map(|it| (it.segment, it.ecam))
        .collect();
    let known = Some(extent(0x40_1000_0000, 0x1000_0000));
    assert_eq!(bridges, [(0, known), (7, None)]);
    let of = |segment| machine.streams_of(segment, Rid::from_u16(1));
    assert_eq!(of(0), StreamsOf::Unprotected);
    assert_eq!(of(7), StreamsOf::Behind(stream(0, 1)));
}

#[test]
fn two_windows_of_one_segment_have_the_same_streams() {
    let mut firmware = boards::qemu();
    *firmware.table(b"MCFG") =
        acpi::mcfg(&[(0x1_0000_0000, 0, 0, 0x7f), (0x2_0000_0000, 0, 0x80, 0xff)]);
    let machine = read(&firmware).expect("sound tables");
    let ecams: Vec<_> = machine.bridges.iter().map(|it| it.ecam).collect();
    let second = extent(0x2_0800_0000, 0x800_0000);
    assert_eq!(
        ecams,
        [Some(extent(0x1_0000_0000, 0x800_0000)), Some(second)]
    );
    assert!(
        machine
            .bridges
            .iter()
            .all(|it| *it.streams == [from_rid_0(0x100)])
    );
}

#[test]
fn consoles_are_known_by_their_kind_and_how_wide_they_are() {
    let console = |spcr: Option<acpi::Table>, ports: &[(u16, u16, [u8; 12])]| {
        let mut firmware = boards::qemu();
        firmware.tables.retain(|table| table.signature != *b"SPCR");
        firmware.tables.extend(spcr);
        firmware.tables.push(acpi::dbg2(ports));
        let console = read(&firmware).expect("sound tables").console;
        console.map(|console| (console.kind, console.base.as_u64()))
    };
    let at = acpi::address;
    let of = |kind, address| console(Some(acpi::spcr(kind, address)), &[]);
    let ns16550 = |log2_stride, access_bytes| {
        let kind = ConsoleKind::Ns16550 {
            log2_stride,
            access_bytes,
        };
        Some((kind, 0x1000))
    };
    let pl011 = Some((ConsoleKind::Pl011, 0x1000));
    for kind in [0x3, 0xd, 0xe] {
        assert_eq!(of(kind, at(32, 3, 0x1000)), pl011);
    }
    assert_eq!(of(0, at(8, 1, 0x1000)), ns16550(0, 1));
    assert_eq!(of(0, at(8, 0, 0x1000)), ns16550(0, 1));
    assert_eq!(of(1, at(32, 3, 0x1000)), ns16550(2, 4));
    assert_eq!(of(0x12, at(32, 1, 0x1000)), ns16550(2, 1));
    assert_eq!(of(0x12, at(32, 2, 0x1000)), None, "16-bit accesses");
    assert_eq!(of(0x20, at(8, 1, 0x1000)), None, "no such kind");
    assert_eq!(of(3, at(32, 3, 0)), None, "switched off");
    let mut in_io_space = at(8, 1, 0x3f8);
    in_io_space[0] = 1;
    assert_eq!(of(0, in_io_space), None, "not in memory");
    let ports = [
        (0x8003, 0, at(8, 1, 0x5000)),
        (0x8000, 0x99, at(8, 1, 0x6000)),
        (0x8000, 0, at(8, 1, 0x1000)),
    ];
    assert_eq!(console(None, &ports), ns16550(0, 1));
    let unknown = acpi::spcr(0x20, at(8, 1, 0x7000));
    assert_eq!(console(Some(unknown), &ports), ns16550(0, 1));
    let known = acpi::spcr(3, at(32, 3, 0x1000));
    assert_eq!(console(Some(known), &ports), pl011);
}

#[test]
fn psci_is_called_as_fadt_says() {
    let of = |flags| {
        let mut firmware = boards::qemu();
        *firmware.table(b"FACP") = acpi::fadt(flags);
        let machine = read(&firmware).expect("sound tables");
        (machine.psci, machine.cpus[0].start)
    };
    assert_eq!(of(1), (Some(Conduit::Smc), Start::Psci));
    assert_eq!(of(3), (Some(Conduit::Hvc), Start::Psci));
    assert_eq!(of(2), (None, Start::Unsupported));
    let mut firmware = boards::qemu();
    firmware.table(b"FACP").body.truncate(116 - 36);
    assert_eq!(read(&firmware).expect("sound tables").psci, None);
}

#[test]
fn cpus_that_are_off_and_older_gics_are_left_out() {
    let mut firmware = boards::qemu();
    let off = acpi::gicc(0x100, 0x1000_0000).word(12, 0);
    let entries = [
        acpi::gicd(0x800_0000, 3),
        acpi::gicc(0, 0x80a_0000),
        off,
        acpi::gicc(1, 0x80c_0000),
        acpi::gicc(2, 0x900_0000),
    ];
    *firmware.table(b"APIC") = acpi::madt(&entries);
    let machine = read(&firmware).expect("sound tables");
    assert_eq!(machine.cpus.len(), 3);
    // Version 3 has two frames for each CPU.
    let gic = machine.gic.expect("a GIC");
    let frames = [extent(0x80a_0000, 0x4_0000), extent(0x900_0000, 0x2_0000)];
    assert_eq!(*gic.redistributors, frames);
    let entries = [acpi::gicd(0x800_0000, 2), acpi::gicc(0, 0)];
    *firmware.table(b"APIC") = acpi::madt(&entries);
    assert_eq!(read(&firmware).expect("sound tables").gic, None);
    let entries = [acpi::gicd(0x800_0000, 0), acpi::gicc(0, 0)];
    *firmware.table(b"APIC") = acpi::madt(&entries);
    assert_eq!(read(&firmware).expect("sound tables").gic, None);
}

#[test]
fn what_has_no_table_is_left_out() {
    let mut firmware = boards::qemu();
    firmware.tables.clear();
    let memory = firmware.memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let mut machine = Box::new(Machine::new());
    machine.bootargs = Text::start_of("from before");
    let ram = [extent(0x4000_0000, 0x1000)];
    machine.read_acpi(&tables, &ram).expect("sound tables");
    let mut expected = Box::new(Machine::new());
    expected.memory = list(ram);
    assert_eq!(machine, expected);
    assert_eq!(tables.timers(), Ok(None));
}
