//! Boards whose numbers are published: the whole map of each.

use portcullis::addr::Pa;
use portcullis::discover::{
    AcpiTables, Conduit, Console, ConsoleKind, DeviceTree, Gic, Machine, Msis, Quirks, Rid, Smmu,
    SmmuInterrupts, Start, StreamsOf, Text,
};

use crate::builder::{self, RSDP};
use crate::{
    assert_streams_are_rids, device, dts, extent, from_rid_0, kept_at, list, map, msis, read,
    stream, tables,
};

#[test]
fn the_tables_of_qemu_virt_say_what_its_device_tree_says() {
    let text = include_str!("../fixtures/qemu-virt.dts");
    let mut blob = dts::Tree::parse(text).flatten();
    let tree = DeviceTree::new(&mut blob).expect("a sound tree");
    let mut of_tree = Box::new(Machine::new());
    of_tree.read_device_tree(&tree).expect("a sound tree");

    let memory = tables::qemu().memory();
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

#[test]
fn msis_of_qemu_virt_have_the_rid_as_their_device_id_through_the_smmu_or_not() {
    let memory = tables::qemu().memory();
    let expected = [0x0000, 0x00ff, 0x0100, 0xffff];
    assert_eq!(
        msis(&memory, 0, &expected),
        expected.map(|rid| Some((0, rid.into())))
    );
    assert_eq!(msis(&memory, 1, &[0]), [None]);
}

#[test]
fn a_bridge_of_qemu_that_goes_past_the_smmu_is_unprotected() {
    let firmware = tables::qemu_with_bridges();
    let machine = read(&firmware).expect("sound tables");
    assert_streams_are_rids(&machine, &[(0, 0xff, 0), (0xb400, 0xb6ff, 0)]);
    let rids = [0x7400, 0xb600, 0xb700];
    let expected = rids.map(|rid| Some((0, rid.into())));
    assert_eq!(msis(&firmware.memory(), 0, &rids), expected);
}

#[test]
fn every_rid_of_a_d06_goes_to_the_smmu_that_its_bridge_is_behind() {
    let machine = read(&tables::d06()).expect("sound tables");
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
    let machine = read(&tables::d06()).expect("sound tables");
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
    let machine = read(&tables::d06()).expect("sound tables");
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
    let memory = tables::d06().memory();
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
    let machine = read(&tables::taishan_2280_v2()).expect("sound tables");
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
    let memory = tables::taishan_2280_v2().memory();
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
    let machine = read(&tables::taishan_2280_v2()).expect("sound tables");
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

#[test]
fn each_segment_of_a_d05_goes_to_its_smmu_with_streams_of_19_bits() {
    let machine = read(&tables::d05()).expect("sound tables");
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
    let machine = read(&tables::d05()).expect("sound tables");
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
    let memory = tables::d05().memory();
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
    let machine = read(&tables::d05()).expect("sound tables");
    assert!(machine.smmus.iter().all(|smmu| smmu.quirks == errata));
    let of = |oem_id: &[u8; 6], oem_table_id: &[u8; 8], model| {
        let mut firmware = tables::qemu();
        firmware.oem_id = *oem_id;
        firmware.oem_table_id = *oem_table_id;
        let nodes = [builder::smmu(1, 0x905_0000, [0; 4], &[])];
        let nodes = nodes.map(|node| node.change(|bytes| bytes.word(40, model)));
        *firmware.table(b"IORT") = builder::iort(&nodes);
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
    let of = |iidr| Quirks::default().with_iidr(iidr);
    assert_eq!(of(0x0005_1736), flush);
    assert_eq!(of(0x0003_0736), Quirks::default(), "a HIP08");
    assert_eq!(of(0x4832_243b), Quirks::default(), "Arm's");
    assert_eq!(of(0), Quirks::default(), "QEMU's");
    // What firmware says is kept, and tells a HIP07 by what no later one has.
    assert_eq!(flush.with_iidr(0), flush);
    let hip07 = read(&tables::d05()).expect("sound tables").smmus[0].quirks;
    assert_eq!(hip07.with_iidr(0x0005_1736), hip07);
}
