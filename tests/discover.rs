//! The machine that a device tree describes.

#[path = "fixtures/dts.rs"]
mod dts;

use dts::Tree;
use portcullis::addr::{Extent, Pa};
use portcullis::discover::{
    Bridge, Conduit, Console, ConsoleKind, Cpu, DeviceTree, Gic, Interrupt, List, Machine, Mpidr,
    Quirks, Refusal, Rid, Smmu, SmmuIndex, SmmuInterrupts, Start, Stream, StreamMap, StreamsOf,
    Trigger, Window, WindowKind, smmus,
};
use portcullis::id::StreamId;

const QEMU_VIRT: &str = include_str!("fixtures/qemu-virt.dts");

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

fn edge(intid: u32) -> Option<Interrupt> {
    Some(Interrupt::Gic {
        intid,
        trigger: Trigger::Edge,
    })
}

#[test]
fn the_tree_of_qemu_virt_is_read_whole() {
    let machine = read(&Tree::parse(QEMU_VIRT)).expect("a sound tree");
    assert_eq!(*machine.memory, [extent(0x4000_0000, 0x2000_0000)]);
    assert_eq!(*machine.reserved, []);
    assert_eq!(*machine.kept, []);
    let cpu = |affinity| Cpu {
        mpidr: Mpidr::new(affinity).expect("an affinity"),
        start: Start::Psci,
    };
    assert_eq!(*machine.cpus, [cpu(0), cpu(1)]);
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
            event_queue: edge(106),
            pri_queue: edge(107),
            command_sync: edge(108),
            global_error: edge(109),
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
