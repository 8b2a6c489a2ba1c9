//! The machine that a device tree describes.

#[path = "fixtures/dts.rs"]
mod dts;

use dts::Tree;
use portcullis::addr::{Extent, Iova, Pa};
use portcullis::discover::{
    Bridge, Conduit, Console, ConsoleKind, Cpu, DeviceTree, Fault, Gic, Interrupt, Kept, List,
    Machine, Mpidr, Quirks, Refusal, Reserved, Rid, Smmu, SmmuIndex, SmmuInterrupts, Start, Stream,
    StreamMap, StreamsOf, Text, Trigger, Window, WindowKind, smmus, tree_bytes,
};
use portcullis::id::StreamId;

const QEMU_VIRT: &str = include_str!("fixtures/qemu-virt.dts");
const D05_LIKE: &str = include_str!("fixtures/d05-like.dts");
const ODD_CORNERS: &str = include_str!("fixtures/odd-corners.dts");

fn read(tree: &Tree) -> Result<Box<Machine>, Refusal> {
    read_blob(&mut tree.flatten())
}

fn read_blob(blob: &mut [u8]) -> Result<Box<Machine>, Refusal> {
    let mut machine = Box::new(Machine::new());
    machine.read_device_tree(&DeviceTree::new(blob)?)?;
    Ok(machine)
}

fn extent(base: u64, size_bytes: u64) -> Extent<Pa> {
    Extent::<Pa>::new(Pa::new(base), size_bytes).expect("it ends below the top")
}

fn wire(intid: u32, trigger: Trigger) -> Option<Interrupt> {
    Some(Interrupt::Gic { intid, trigger })
}

fn cpu(affinity: u64, start: Start) -> Cpu {
    let mpidr = Mpidr::new(affinity).expect("an affinity");
    Cpu { mpidr, start }
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

#[test]
fn the_tree_of_qemu_virt_is_read_whole() {
    let machine = read(&Tree::parse(QEMU_VIRT)).expect("a sound tree");
    assert_eq!(*machine.memory, [extent(0x4000_0000, 0x2000_0000)]);
    assert_eq!(*machine.reserved, []);
    assert_eq!(*machine.kept, []);
    let cpus = [cpu(0, Start::Psci), cpu(1, Start::Psci)];
    assert_eq!(*machine.cpus, cpus);
    assert_eq!(machine.psci, Some(Conduit::Smc));
    let console = Console {
        kind: ConsoleKind::Pl011,
        base: Pa::new(0x900_0000),
    };
    assert_eq!(machine.console, Some(console));
    let smmu = Smmu {
        registers: extent(0x905_0000, 0x2_0000),
        is_coherent: true,
        interrupts: SmmuInterrupts {
            combined: None,
            event_queue: wire(106, Trigger::Edge),
            pri_queue: wire(107, Trigger::Edge),
            command_sync: wire(108, Trigger::Edge),
            global_error: wire(109, Trigger::Edge),
        },
        quirks: Quirks::default(),
    };
    assert_eq!(*machine.smmus, [smmu]);
    assert_eq!(*machine.bridges, [qemu_bridge()]);
    let gic = Gic {
        distributor: extent(0x800_0000, 0x1_0000),
        redistributors: list([extent(0x80a_0000, 0xf6_0000)]),
        its: list([extent(0x808_0000, 0x2_0000)]),
    };
    assert_eq!(machine.gic, Some(gic));
    assert_eq!(machine.bootargs.as_str(), "cpus=2 selfcheck");
    let names: Vec<&str> = machine
        .devices
        .iter()
        .map(|device| device.name.as_str())
        .collect();
    assert_eq!(names, ["fw-cfg@9020000", "virtio_mmio@a000000"]);
    for device in &machine.devices {
        assert_eq!(machine.streams_of_device(device), StreamsOf::Unprotected);
    }
}

fn qemu_bridge() -> Bridge {
    Bridge {
        segment: 0,
        ecam: Some(extent(0x40_1000_0000, 0x1000_0000)),
        first_bus: 0,
        last_bus: 0xff,
        windows: list([
            Window {
                cpu: extent(0x1000_0000, 0x2eff_0000),
                pci_base: 0x1000_0000,
                kind: WindowKind::Memory32,
            },
            Window {
                cpu: extent(0x80_0000_0000, 0x80_0000_0000),
                pci_base: 0x80_0000_0000,
                kind: WindowKind::Memory64,
            },
        ]),
        is_coherent: true,
        rid_mask: 0xffff,
        streams: list([StreamMap {
            rid_base: 0,
            count: 0x1_0000,
            first: stream(0, 0),
        }]),
    }
}

#[test]
fn a_function_of_qemu_virt_has_its_rid_as_its_stream() {
    let machine = read(&Tree::parse(QEMU_VIRT)).expect("a sound tree");
    let rid = Rid::new(1, 2, 3).expect("a RID");
    assert_eq!(
        machine.streams_of(0, rid),
        StreamsOf::Behind(stream(0, 0x113))
    );
    assert_eq!(machine.streams_of(1, rid), StreamsOf::Unprotected);
}

#[test]
fn the_first_look_finds_the_smmu_before_the_tree_is_read() {
    let blob = Tree::parse(QEMU_VIRT).flatten();
    let found: Vec<_> = smmus(&blob).collect::<Result<_, _>>().expect("no damage");
    let [smmu] = found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(smmu.registers, extent(0x905_0000, 0x2_0000));
    assert!(smmu.is_enabled);
}

#[test]
fn a_refusal_names_the_node_and_the_numbers() {
    let mut tree = Tree::parse(QEMU_VIRT);
    let reg = [0, 0x905_0000, 0];
    tree.root.at("smmuv3@9050000").set_words("reg", &reg);
    let refusal = read(&tree).expect_err("it is too short");
    assert_eq!(
        refusal.to_string(),
        "reg of smmuv3@9050000 is 12 bytes, 16 needed"
    );
}

/// The streams of the device with this name.
fn device<'m>(machine: &'m Machine, name: &str) -> StreamsOf<&'m [Stream]> {
    let found = machine
        .devices
        .iter()
        .find(|device| device.name.as_str() == name);
    machine.streams_of_device(found.expect("a device"))
}

#[test]
fn a_tree_of_the_d05_kind_is_read_whole() {
    let machine = read(&Tree::parse(D05_LIKE)).expect("a sound tree");
    let memory = [
        extent(0, 0x4000_0000),
        extent(0x410_0000_0000, 0x4_0000_0000),
    ];
    assert_eq!(*machine.memory, memory);
    let reserved = Reserved {
        extent: extent(0x31f8_0000, 0x1_0000),
        is_no_map: false,
    };
    assert_eq!(*machine.reserved, [reserved]);
    let cpus = [0x1_0000, 0x1_0001, 0x7_0303].map(|affinity| cpu(affinity, Start::Psci));
    assert_eq!(*machine.cpus, cpus);
    let console = Console {
        kind: ConsoleKind::Pl011,
        base: Pa::new(0x602b_0000),
    };
    assert_eq!(machine.console, Some(console));
    let regions = [0x4d10_0000, 0x6d10_0000, 0x400_4d10_0000, 0x400_6d10_0000];
    let gic = Gic {
        distributor: extent(0x4d00_0000, 0x1_0000),
        redistributors: list(regions.map(|base| extent(base, 0x40_0000))),
        its: list([0x4c00_0000, 0x8_c600_0000].map(|base| extent(base, 0x4_0000))),
    };
    assert_eq!(machine.gic, Some(gic));
    let smmu = |base, is_coherent, interrupts| Smmu {
        registers: extent(base, 0x2_0000),
        is_coherent,
        interrupts,
        quirks: Quirks {
            has_broken_prefetch: true,
            needs_fixed_msi_address: true,
            ..Quirks::default()
        },
    };
    let elsewhere = SmmuInterrupts {
        event_queue: Some(Interrupt::Elsewhere),
        global_error: Some(Interrupt::Elsewhere),
        pri_queue: Some(Interrupt::Elsewhere),
        ..SmmuInterrupts::default()
    };
    let none = SmmuInterrupts::default();
    let smmus = [
        smmu(0xc004_0000, false, none),
        smmu(0x8_a004_0000, true, none),
        smmu(0xd004_0000, true, elsewhere),
    ];
    assert_eq!(*machine.smmus, smmus);
}

#[test]
fn streams_of_a_d05_go_to_the_smmu_that_numbers_them() {
    let machine = read(&Tree::parse(D05_LIKE)).expect("a sound tree");
    assert_eq!(
        device(&machine, "sas@c3000000"),
        StreamsOf::Behind(&[stream(0, 0x4_0900)][..])
    );
    assert_eq!(
        device(&machine, "crypto@d2000000"),
        StreamsOf::Behind(&[stream(2, 0x600)][..])
    );
    let segments: Vec<_> = machine
        .bridges
        .iter()
        .map(|bridge| {
            (
                bridge.segment,
                bridge.first_bus,
                bridge.last_bus,
                bridge.ecam,
            )
        })
        .collect();
    // The tree promises segment 5 buses up to 0x7f, and has configuration space up to 0x7b.
    let expected = [
        (2, 0xf8, 0xff, None),
        (4, 0x88, 0x8f, Some(extent(0x8_a880_0000, 0x80_0000))),
        (5, 0x78, 0x7b, Some(extent(0x8_b780_0000, 0x40_0000))),
    ];
    assert_eq!(segments, expected);
    let of = |segment, rid| machine.streams_of(segment, Rid::from_u16(rid));
    assert_eq!(of(4, 0x8800), StreamsOf::Behind(stream(1, 0x8800)));
    assert_eq!(of(4, 0x8fff), StreamsOf::Behind(stream(1, 0x8fff)));
    assert_eq!(of(5, 0x7b07), StreamsOf::Behind(stream(1, 0x1_7b07)));
    assert_eq!(of(5, 0x7c00), StreamsOf::Unprotected);
}

#[test]
fn what_is_behind_a_disabled_smmu_is_unprotected() {
    let machine = read(&Tree::parse(D05_LIKE)).expect("a sound tree");
    assert_eq!(device(&machine, "sas@a2000000"), StreamsOf::Unprotected);
    assert_eq!(
        device(&machine, "ethernet@c7000000"),
        StreamsOf::Unprotected
    );
    for rid in [0xf800, 0xffff] {
        assert_eq!(
            machine.streams_of(2, Rid::from_u16(rid)),
            StreamsOf::Unprotected
        );
    }
}

#[test]
fn the_first_look_tells_enabled_smmus_from_disabled_ones() {
    let blob = Tree::parse(D05_LIKE).flatten();
    let found: Vec<_> = smmus(&blob)
        .map(|found| found.map(|smmu| (smmu.registers.base().as_u64(), smmu.is_enabled)))
        .collect();
    let expected = [
        (0xa004_0000, false),
        (0xc004_0000, true),
        (0x8_a004_0000, true),
        (0xd004_0000, true),
    ];
    assert_eq!(found, expected.map(Ok));
}

#[test]
fn the_first_look_finds_the_errata_that_the_whole_reading_finds() {
    for text in [QEMU_VIRT, D05_LIKE, ODD_CORNERS] {
        let tree = Tree::parse(text);
        let machine = read(&tree).expect("a sound tree");
        let blob = tree.flatten();
        let enabled = smmus(&blob)
            // One is disabled, on a bus that the CPU cannot reach.
            .filter_map(Result::ok)
            .filter(|found| found.is_enabled)
            .map(|found| (found.registers, found.quirks));
        let read = machine.smmus.iter();
        assert!(enabled.eq(read.map(|smmu| (smmu.registers, smmu.quirks))));
    }
}

#[test]
fn odd_corners_of_the_bindings_are_read() {
    let machine = read(&Tree::parse(ODD_CORNERS)).expect("a sound tree");
    assert_eq!(*machine.memory, [extent(0x8000_0000, 0x4000_0000)]);
    let reserved = |base, size_bytes, is_no_map| Reserved {
        extent: extent(base, size_bytes),
        is_no_map,
    };
    let expected = [
        reserved(0x8000_0000, 0x1_0000, false),
        reserved(0xffff_0000, 0x1_0000, false),
        reserved(0x9000_0000, 0x20_0000, true),
        reserved(0x9100_0000, 0x80_0000, false),
        reserved(0x9200_0000, 0x10_0000, false),
    ];
    assert_eq!(*machine.reserved, expected);
    assert_eq!(*machine.cpus, [cpu(0x1_0000_0200, Start::Unsupported)]);
    assert_eq!(machine.psci, Some(Conduit::Hvc));
    let console = Console {
        kind: ConsoleKind::Ns16550 {
            log2_stride: 2,
            access_bytes: 4,
        },
        base: Pa::new(0x1002_0000),
    };
    assert_eq!(machine.console, Some(console));
    assert_eq!(machine.bootargs, Text::new());
}

#[test]
fn wires_are_found_by_name_in_any_order_and_form() {
    let machine = read(&Tree::parse(ODD_CORNERS)).expect("a sound tree");
    let first = Smmu {
        // Through two buses: 0x4_0000 + 0x100_0000, which the outer has at 0x5_0000_0000.
        registers: extent(0x5_0004_0000, 0x2_0000),
        is_coherent: false,
        interrupts: SmmuInterrupts {
            combined: None,
            pri_queue: wire(35, Trigger::Edge),
            command_sync: wire(4098, Trigger::Edge),
            global_error: wire(1057, Trigger::Level),
            event_queue: wire(16, Trigger::Level),
        },
        quirks: Quirks {
            has_broken_page1: true,
            ..Quirks::default()
        },
    };
    let second = Smmu {
        registers: extent(0x5_000a_0000, 0x2_0000),
        is_coherent: false,
        interrupts: SmmuInterrupts {
            combined: wire(41, Trigger::Edge),
            ..SmmuInterrupts::default()
        },
        quirks: Quirks::default(),
    };
    assert_eq!(*machine.smmus, [first, second]);
}

#[test]
fn a_device_has_every_stream_it_names_once_and_is_protected_only_as_a_whole() {
    let machine = read(&Tree::parse(ODD_CORNERS)).expect("a sound tree");
    let names: Vec<_> = machine
        .devices
        .iter()
        .map(|device| device.name.as_str())
        .collect();
    assert_eq!(names, ["display@90000", "mixed@91000", "wireless@61000000"]);
    let display = &machine.devices[0];
    let streams = [stream(0, 0x10), stream(1, 0x10), stream(0, 0x11)];
    assert_eq!(
        machine.streams_of_device(display),
        StreamsOf::Behind(&streams[..])
    );
    assert_eq!(display.registers, Some(extent(0x5_0009_0000, 0x1000)));
    assert_eq!(display.compatible.as_str(), "vendor,display");
    assert!(display.can_stall && display.is_coherent);
    assert_eq!(display.pasid_bits, 16);
    let mixed = &machine.devices[1];
    assert_eq!(machine.streams_of_device(mixed), StreamsOf::Unprotected);
    assert_eq!(machine.known_streams_of_device(mixed), [stream(0, 0x20)]);
    assert!(!mixed.can_stall && !mixed.is_coherent);
    let wireless = &machine.devices[2];
    assert!(!wireless.is_coherent, "although its bus is");
}

#[test]
fn rids_are_masked_before_they_are_looked_up() {
    let machine = read(&Tree::parse(ODD_CORNERS)).expect("a sound tree");
    let [bridge] = &*machine.bridges else {
        panic!("{:?}", machine.bridges);
    };
    assert_eq!((bridge.segment, bridge.rid_mask), (0, 0xfff));
    assert!(bridge.is_coherent, "as its bus is");
    let windows = [
        Window {
            cpu: extent(0x6100_0000, 0x100_0000),
            pci_base: 0,
            kind: WindowKind::Memory32,
        },
        Window {
            cpu: extent(0x4_0000_0000, 0x1_0000_0000),
            pci_base: 0x4_0000_0000,
            kind: WindowKind::Memory64,
        },
    ];
    assert_eq!(*bridge.windows, windows);
    let of = |rid| machine.streams_of(0, Rid::from_u16(rid));
    assert_eq!(of(0x1000), StreamsOf::Behind(stream(0, 0x1_0000)));
    assert_eq!(of(0x107f), StreamsOf::Behind(stream(0, 0x1_007f)));
    assert_eq!(
        of(0x1080),
        StreamsOf::Unprotected,
        "it goes through another IOMMU"
    );
    assert_eq!(of(0x1100), StreamsOf::Behind(stream(1, 0x500)));
    assert_eq!(of(0x17ff), StreamsOf::Behind(stream(1, 0xbff)));
    assert_eq!(of(0x1800), StreamsOf::Unprotected, "it is in no map");
    assert_eq!(
        of(0x0100),
        StreamsOf::Unprotected,
        "its bus is not below the bridge"
    );
}

#[test]
fn what_firmware_keeps_for_a_device_is_known_by_stream() {
    let machine = read(&Tree::parse(ODD_CORNERS)).expect("a sound tree");
    let kept = |first, count, base, size_bytes, memory| Kept {
        first,
        count,
        at: Extent::<Iova>::new(Iova::new(base), size_bytes).expect("it ends below the top"),
        memory,
    };
    let screen = Some(extent(0x9100_0000, 0x80_0000));
    let raid = Some(extent(0x9200_0000, 0x10_0000));
    let of_display = |base, size_bytes, memory| {
        // As often as the device names the stream.
        [
            stream(0, 0x10),
            stream(1, 0x10),
            stream(0, 0x11),
            stream(0, 0x10),
        ]
        .map(|stream| kept(stream, 1, base, size_bytes, memory))
    };
    let mut expected = Vec::from(of_display(0x9100_0000, 0x80_0000, screen));
    expected.push(kept(stream(1, 0x500), 1, 0x9200_0000, 0x10_0000, raid));
    for (first, count) in [(stream(0, 0x1_0000), 0x80), (stream(1, 0x500), 0x700)] {
        expected.push(kept(first, count, 0x9200_0000, 0x10_0000, raid));
    }
    expected.extend(of_display(0, 0x1000, None));
    assert_eq!(*machine.kept, expected);
}

/// What is said when `change` was made to QEMU's tree.
fn refusal_after(text: &str, change: impl FnOnce(&mut dts::Node)) -> String {
    let mut tree = Tree::parse(text);
    change(&mut tree.root);
    let mut machine = Box::new(Machine::new());
    machine.bootargs = Text::start_of("from before");
    let mut blob = tree.flatten();
    let tree = DeviceTree::new(&mut blob).expect("sound as a tree");
    let refusal = machine.read_device_tree(&tree).err();
    let refusal = refusal.map_or("nothing".into(), |refusal| refusal.to_string());
    assert_eq!(*machine, Machine::new(), "{refusal} leaves nothing");
    refusal
}

#[test]
fn each_senseless_tree_is_refused_in_its_own_words() {
    type Change = fn(&mut dts::Node);
    let cases: [(&str, Change, &str); 22] = [
        (
            QEMU_VIRT,
            |root| root.at("smmuv3@9050000").remove("reg"),
            "smmuv3@9050000 has no reg",
        ),
        (
            QEMU_VIRT,
            |root| {
                root.at("smmuv3@9050000")
                    .set_words("reg", &[0, 0x905_0000, 0, 0])
            },
            "reg of smmuv3@9050000 makes no sense: 0x0",
        ),
        (
            QEMU_VIRT,
            |root| {
                root.at("smmuv3@9050000")
                    .set_words("reg", &[!0, !0, 0, 0x2_0000])
            },
            "no bus passes address 0xffffffffffffffff of smmuv3@9050000 on",
        ),
        (
            QEMU_VIRT,
            |root| root.at("smmuv3@9050000").set_words("#iommu-cells", &[2]),
            "#iommu-cells of smmuv3@9050000 makes no sense: 0x2",
        ),
        (
            QEMU_VIRT,
            |root| root.at("smmuv3@9050000").remove("interrupts"),
            "smmuv3@9050000 has no interrupts",
        ),
        (
            QEMU_VIRT,
            |root| {
                root.at("smmuv3@9050000")
                    .set_words("interrupts", &[0, 0x4a, 2])
            },
            "interrupts of smmuv3@9050000 makes no sense: 0x2",
        ),
        (
            QEMU_VIRT,
            |root| {
                root.at("smmuv3@9050000")
                    .set_words("interrupts", &[0, 988, 1])
            },
            "interrupts of smmuv3@9050000 makes no sense: 0x3dc",
        ),
        (
            QEMU_VIRT,
            |root| root.set_words("#address-cells", &[4]),
            "#address-cells of / makes no sense: 0x4",
        ),
        (
            QEMU_VIRT,
            |root| root.set("#size-cells", &[0, 0, 2]),
            "#size-cells of / is 3 bytes, 4 needed",
        ),
        (
            QEMU_VIRT,
            |root| root.at("cpus/cpu@1").set_words("reg", &[0]),
            "affinity of cpu@1 overlaps another at 0x0",
        ),
        (
            QEMU_VIRT,
            |root| root.at("cpus/cpu@1").set_words("reg", &[0x8000_0000]),
            "reg of cpu@1 makes no sense: 0x80000000",
        ),
        (
            QEMU_VIRT,
            |root| {
                let mut again = root.at("memory@40000000").clone();
                again.name = "memory@50000000".into();
                again.set_words("reg", &[0, 0x5000_0000, 0, 0x2000_0000]);
                root.children.push(again);
            },
            "memory of memory@50000000 overlaps another at 0x50000000",
        ),
        (
            QEMU_VIRT,
            |root| {
                root.at("pcie@10000000")
                    .set_words("iommu-map", &[0, 77, 0, 0x1_0000])
            },
            "iommu-map of pcie@10000000 makes no sense: 0x4d",
        ),
        (
            QEMU_VIRT,
            |root| {
                root.at("pcie@10000000")
                    .set_words("iommu-map", &[1, 1, 0, 0x1_0000])
            },
            "iommu-map of pcie@10000000 makes no sense: 0x100010000",
        ),
        (
            QEMU_VIRT,
            |root| {
                root.at("pcie@10000000")
                    .set_words("iommu-map", &[0, 1, !0, 2])
            },
            "iommu-map of pcie@10000000 makes no sense: 0xffffffff",
        ),
        (
            QEMU_VIRT,
            |root| {
                let maps = [0, 1, 0, 0x101, 0x100, 1, 0x100, 1];
                root.at("pcie@10000000").set_words("iommu-map", &maps);
            },
            "iommu-map of pcie@10000000 overlaps another at 0x100",
        ),
        (
            QEMU_VIRT,
            |root| root.at("pcie@10000000").set_words("iommu-map", &[0, 1, 0]),
            "iommu-map of pcie@10000000 is 12 bytes, 16 needed",
        ),
        (
            QEMU_VIRT,
            |root| root.at("pcie@10000000").set_words("bus-range", &[5, 4]),
            "bus-range of pcie@10000000 makes no sense: 0x500000004",
        ),
        (
            QEMU_VIRT,
            |root| {
                let again = root.at("pcie@10000000").clone();
                root.children.push(again);
            },
            "bus-range of pcie@10000000 overlaps another at 0x0",
        ),
        (
            QEMU_VIRT,
            |root| {
                let mut text = [b'a'; 1026];
                text[1025] = 0;
                root.at("chosen").set("bootargs", &text);
            },
            "there are more than 1024 bytes of boot arguments",
        ),
        (
            ODD_CORNERS,
            |root| {
                let iommu = "bus@10000000/inner@1000000/iommu@40000";
                root.at(iommu).set_words("reg", &[0xff_0000, 0x2_0000]);
            },
            "no bus passes address 0xff0000 of iommu@40000 on",
        ),
        (
            ODD_CORNERS,
            |root| {
                let display = "bus@10000000/inner@1000000/display@90000";
                root.at(display).set_words("pasid-num-bits", &[21]);
            },
            "pasid-num-bits of display@90000 makes no sense: 0x15",
        ),
    ];
    for (text, change, expected) in cases {
        assert_eq!(refusal_after(text, change), expected, "{expected}");
    }
}

#[test]
fn more_of_a_kind_than_there_is_room_for_is_refused_by_name() {
    let many = |path: &'static str, count: u32| {
        refusal_after(QEMU_VIRT, move |root| {
            let one = root.at(path).clone();
            for number in 1..=count {
                let mut more = one.clone();
                more.name = format!("more@{number}");
                more.remove("phandle");
                more.set_words("reg", &[number, 0, 0, 0x1000]);
                root.children.push(more);
            }
        })
    };
    assert_eq!(many("smmuv3@9050000", 16), "there are more than 16 SMMUs");
    assert_eq!(
        many("memory@40000000", 64),
        "there are more than 64 runs of memory"
    );
    assert_eq!(
        many("virtio_mmio@a000000", 255),
        "there are more than 256 devices"
    );
}

#[test]
fn what_is_missing_and_not_needed_is_not_refused() {
    let mut tree = Tree::parse(QEMU_VIRT);
    for gone in [
        "chosen",
        "psci",
        "cpus",
        "aliases",
        "smmuv3@9050000",
        "memory@40000000",
    ] {
        tree.root.children.retain(|node| node.name != gone);
    }
    tree.root.at("pcie@10000000").remove("iommu-map");
    let machine = read(&tree).expect("a sound tree");
    assert_eq!(*machine.smmus, []);
    assert_eq!(*machine.cpus, []);
    assert_eq!((machine.console, machine.psci), (None, None));
    assert_eq!(
        machine.streams_of(0, Rid::from_u16(8)),
        StreamsOf::Unprotected
    );
}

#[test]
fn nops_anywhere_change_nothing() {
    for text in [QEMU_VIRT, D05_LIKE, ODD_CORNERS] {
        let tree = Tree::parse(text);
        let plain = read(&tree).expect("a sound tree");
        for period in 1..4 {
            let mut count = 0;
            let mut blob = tree.flatten_with(&mut || {
                count += 1;
                usize::from(count % period == 0) * 2
            });
            let first: Vec<_> = smmus(&blob).collect();
            assert_eq!(first, smmus(&tree.flatten()).collect::<Vec<_>>());
            assert_eq!(read_blob(&mut blob).as_ref(), Ok(&plain), "every {period}");
            assert_eq!(read_blob(&mut blob).as_ref(), Ok(&plain), "and once more");
        }
    }
}

#[test]
fn a_name_longer_than_the_specification_allows_is_read() {
    let mut tree = Tree::parse(QEMU_VIRT);
    tree.root
        .at("smmuv3@9050000")
        .set("cavium,cn9900-broken-page1-regspace", &[]);
    assert!(
        read(&tree).expect("a sound tree").smmus[0]
            .quirks
            .has_broken_page1
    );
}

fn nested(depth: usize) -> Tree {
    let mut tree = Tree::parse(QEMU_VIRT);
    let mut node = &mut tree.root;
    for _ in 1..depth {
        node.children.insert(
            0,
            dts::Node {
                name: "deeper".into(),
                ..dts::Node::default()
            },
        );
        node = &mut node.children[0];
    }
    tree
}

#[test]
fn nodes_nest_32_deep_and_no_deeper() {
    assert!(read(&nested(32)).is_ok());
    let refusal = read(&nested(33)).expect_err("too deep");
    let too_deep = |refusal: &Refusal| {
        matches!(
            refusal,
            Refusal::Structure {
                fault: Fault::TooDeep,
                ..
            }
        )
    };
    assert!(too_deep(&refusal), "{refusal:?}");
    let first: Vec<_> = smmus(&nested(200).flatten()).collect();
    assert!(
        matches!(&first[..], [Err(refusal)] if too_deep(refusal)),
        "{first:?}"
    );
}

#[test]
fn smmus_in_front_of_the_damage_are_found() {
    let blob = Tree::parse(D05_LIKE).flatten();
    let all: Vec<_> = smmus(&blob).collect();
    let structure_bytes = u32::from_be_bytes([blob[36], blob[37], blob[38], blob[39]]);
    let mut counts = Vec::new();
    for end in (0..structure_bytes).step_by(4) {
        let mut cut = blob.clone();
        cut[36..40].copy_from_slice(&end.to_be_bytes());
        let mut found: Vec<_> = smmus(&cut).collect();
        let last = found.pop();
        assert!(
            matches!(last, Some(Err(Refusal::Structure { .. }))),
            "{last:?}"
        );
        assert_eq!(found, all[..found.len()]);
        counts.push(found.len());
    }
    assert!(counts.is_sorted());
    counts.dedup();
    assert_eq!(counts, [0, 1, 2, 3, 4]);
}

#[test]
fn one_smmu_that_makes_no_sense_does_not_hide_the_next() {
    let mut tree = Tree::parse(D05_LIKE);
    tree.root.at("smmu_dsa@c0040000").set_words("reg", &[0]);
    tree.root.at("smmu_pcie@8a0040000").remove("reg");
    let found: Vec<_> = smmus(&tree.flatten())
        .map(|found| found.map(|smmu| smmu.registers.base().as_u64()))
        .map(|found| found.map_err(|refusal| refusal.to_string()))
        .collect();
    let expected = [
        Ok(0xa004_0000),
        Err("reg of smmu_dsa@c0040000 is 4 bytes, 16 needed".into()),
        Err("smmu_pcie@8a0040000 has no reg".into()),
        Ok(0xd004_0000),
    ];
    assert_eq!(found, expected);
}

#[test]
fn eight_bytes_say_how_long_the_tree_is() {
    let blob = Tree::parse(QEMU_VIRT).flatten();
    let start = |blob: &[u8]| -> [u8; 8] { blob[..8].try_into().expect("eight bytes") };
    assert_eq!(tree_bytes(start(&blob)), Ok(blob.len()));
    let magic = Refusal::NotATree { magic: 0x0102_0304 };
    assert_eq!(tree_bytes([1, 2, 3, 4, 0, 0, 1, 0]), Err(magic));
    let with_size = |size: u32| {
        let mut start = start(&blob);
        start[4..].copy_from_slice(&size.to_be_bytes());
        tree_bytes(start)
    };
    let short = Refusal::Short {
        size_bytes: 39,
        needed_bytes: 40,
    };
    assert_eq!(with_size(39), Err(short));
    assert_eq!(with_size(2 << 20), Ok(2 << 20));
    let large = Refusal::Large {
        size_bytes: (2 << 20) + 1,
    };
    assert_eq!(with_size((2 << 20) + 1), Err(large));
}

#[test]
fn a_blob_may_go_on_behind_its_tree_and_may_not_end_before() {
    let plain = read(&Tree::parse(QEMU_VIRT)).expect("a sound tree");
    let mut blob = Tree::parse(QEMU_VIRT).flatten();
    let size_bytes = blob.len();
    blob.resize(size_bytes + 100, 0xee);
    assert_eq!(read_blob(&mut blob), Ok(plain));
    blob.truncate(size_bytes - 1);
    let short = Refusal::Short {
        size_bytes: size_bytes - 1,
        needed_bytes: size_bytes,
    };
    assert_eq!(read_blob(&mut blob), Err(short));
    assert_eq!(smmus(&blob).collect::<Vec<_>>(), [Err(short)]);
}

#[test]
fn a_machine_is_as_large_as_its_documentation_says() {
    let kibibytes = size_of::<Machine>() / 1024;
    assert!((80..=90).contains(&kibibytes), "{kibibytes}");
}
