//! The machine that a device tree describes.

use crate::dts::Tree;
use crate::trees::{D05_LIKE, ODD_CORNERS, QEMU_VIRT, read};
use portcullis::addr::{Extent, Iova, Pa};
use portcullis::discover::{
    Bridge, Caching, Conduit, Console, ConsoleKind, Cpu, Gic, Interrupt, Kept, List, Machine,
    Mpidr, Quirks, Reserved, Rid, Smmu, SmmuIndex, SmmuInterrupts, Start, Stream, StreamMap,
    StreamsOf, Text, Trigger, Window, WindowKind, smmus,
};
use portcullis::id::StreamId;

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
    assert_eq!(display.caching, Caching::Split);
    let mixed = &machine.devices[1];
    assert_eq!(mixed.caching, Caching::No);
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

#[test]
fn a_machine_is_as_large_as_its_documentation_says() {
    let kibibytes = size_of::<Machine>() / 1024;
    assert!((110..=130).contains(&kibibytes), "{kibibytes}");
}
