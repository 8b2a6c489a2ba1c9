//! Device trees that are damaged, senseless or odd in form: refused by name, or read all the same.

use crate::dts::{Node, Tree};
use crate::trees::{D05_LIKE, ODD_CORNERS, QEMU_VIRT, read, read_blob};
use portcullis::discover::{
    Block, DeviceTree, Fault, Machine, Refusal, Rid, StreamsOf, Text, smmus, tree_bytes,
};

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

/// What is said when `change` was made to QEMU's tree.
fn refusal_after(text: &str, change: impl FnOnce(&mut Node)) -> String {
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
    type Change = fn(&mut Node);
    let cases: [(&str, Change, &str); 23] = [
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
            ODD_CORNERS,
            |root| {
                let bridge = "coherent@60000000/pcie@60000000";
                root.at(bridge).set_words("iommu-map-mask", &[0xf00]);
            },
            "iommu-map of pcie@60000000 makes no sense: 0x8000000080",
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
            Node {
                name: "deeper".into(),
                ..Node::default()
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
fn the_deepest_tree_is_read_on_a_small_stack() {
    let mut blob = nested(32).flatten();
    let mut machine = Box::new(Machine::new());
    let reader = std::thread::Builder::new().stack_size(48 << 10);
    std::thread::scope(|scope| {
        let read = reader.spawn_scoped(scope, || {
            assert_eq!(smmus(&blob).count(), 1);
            machine.read_device_tree(&DeviceTree::new(&mut blob)?)
        });
        let read = read.expect("a thread").join().expect("no panic");
        assert_eq!(read, Ok(()));
    });
    assert_eq!(machine.smmus.len(), 1);
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

/// A name that lies among the nodes would change when NOPs are taken out, behind the validator's
/// back: `fdt` then panics on a name without an end.
#[test]
fn names_of_properties_do_not_lie_among_the_nodes() {
    let blob = Tree::parse(QEMU_VIRT).flatten();
    let field = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().expect("a field"));
    let (structure_at, strings_at) = (field(8), field(12));
    for (offset, size_bytes) in [
        (structure_at, 100),
        (strings_at - 4, field(32)),
        (structure_at - 4, 5),
    ] {
        let mut overlapping = blob.clone();
        overlapping[12..16].copy_from_slice(&offset.to_be_bytes());
        overlapping[32..36].copy_from_slice(&size_bytes.to_be_bytes());
        let refusal = Refusal::Block {
            block: Block::Strings,
            offset,
            size_bytes,
        };
        assert_eq!(smmus(&overlapping).next(), Some(Err(refusal)));
        assert_eq!(read_blob(&mut overlapping), Err(refusal));
    }
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
