//! Guests in `/chosen`, held against QEMU's machine: every wrong description is refused by name.

#[path = "fixtures/dts.rs"]
mod dts;
#[expect(dead_code, reason = "trees of other tests")]
#[path = "fixtures/trees.rs"]
mod trees;

use dts::{Node, Tree};
use portcullis::addr::{Extent, Pa};
use portcullis::discover::{Machine, Mpidr};
use portcullis::guest::description::{Given, Plan, PlannedDevice, plan};
use trees::{QEMU_VIRT, read};

/// An arm64 Image of 4 KiB that takes `image_bytes` of memory.
fn image(image_bytes: u64) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[16..24].copy_from_slice(&image_bytes.to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

trait Child {
    /// The child of this name, made if there is none.
    fn child(&mut self, name: &str) -> &mut Node;
}

impl Child for Node {
    fn child(&mut self, name: &str) -> &mut Node {
        let found = self.children.iter().position(|child| child.name == name);
        let place = found.unwrap_or_else(|| {
            self.children.push(Node {
                name: name.into(),
                ..Node::default()
            });
            self.children.len() - 1
        });
        &mut self.children[place]
    }
}

/// What the SMMU is called.
const SMMU: u32 = 0x77;
const DEVICE: &str = "dma-test@5fc20000";
const OTHER_DEVICE: &str = "dma-test@5fc30000";

/// QEMU's machine with two devices behind its SMMU, and two good guests.
fn tree() -> Tree {
    let mut tree = Tree::parse(QEMU_VIRT);
    for (name, base, stream) in [
        (DEVICE, 0x5fc2_0000, 0x10),
        (OTHER_DEVICE, 0x5fc3_0000, 0x20),
    ] {
        let node = tree.root.child(name);
        node.set("compatible", b"portcullis,dma-test\0");
        node.set_words("reg", &[0, base, 0, 0x1_0000]);
        node.set_words("iommus", &[SMMU, stream]);
    }
    tree.root.at("smmuv3@9050000").set_words("phandle", &[SMMU]);
    // The bridge's streams, which refer to it by another number, are not at stake.
    tree.root
        .children
        .retain(|node| !node.name.starts_with("pcie@"));
    let mut third = tree.root.at("cpus/cpu@1").clone();
    third.name = "cpu@2".into();
    third.set_words("reg", &[2]);
    tree.root.at("cpus").children.push(third);
    guest(&mut tree.root, 0, "one", 1, DEVICE);
    guest(&mut tree.root, 1, "two", 2, OTHER_DEVICE);
    tree
}

fn guest(root: &mut Node, number: u64, name: &str, cpu: u32, device: &str) {
    let node = root.child("chosen").child(&format!("guest@{number}"));
    node.set("compatible", b"portcullis,guest\0");
    node.set("label", format!("{name}\0").as_bytes());
    node.set_words("image", &[0, 0x5000_0000, 0, 0x1000]);
    node.set_words("memory-size", &[0, 0x40_0000]);
    node.set_words("cpus", &[0, cpu]);
    node.set("devices", format!("{device}\0").as_bytes());
}

fn planned(tree: &Tree, image_bytes: u64) -> Result<(Plan, Box<Machine>), String> {
    let machine = read(tree).map_err(|refusal| refusal.to_string())?;
    let given = Given {
        machine: &machine,
        functions: &[],
        here: Mpidr::new(0).expect("small"),
        ipa_bits: 40,
    };
    let bytes = image(image_bytes);
    let mut image = |_: Extent<Pa>| Some(&*bytes);
    let plan = plan(&machine.guests, given, &mut image).map_err(|wrong| wrong.to_string())?;
    Ok((plan, machine))
}

#[test]
fn two_good_guests_get_what_they_ask_for() {
    let (plan, machine) = planned(&tree(), 0x10_0000).expect("both are good");
    assert_eq!(plan.len(), 2);
    let one = &plan[0];
    assert_eq!(one.name.as_str(), "one");
    assert_eq!(one.memory.base().as_u64(), 0x4000_0000);
    assert_eq!(one.memory.size_bytes(), 0x40_0000);
    assert_eq!(one.image.base(), Pa::new(0x5000_0000));
    let cpu = machine.cpus[one.cpus[0]].mpidr.as_u64();
    assert_eq!((one.cpus.len(), cpu), (1, 1));
    let PlannedDevice::Platform(device) = one.devices[0] else {
        panic!("a node");
    };
    assert_eq!(machine.devices[device].name.as_str(), DEVICE);
}

/// What is said when `change` was made to two good guests.
fn refusal_after(change: impl FnOnce(&mut Node)) -> String {
    let mut tree = tree();
    change(&mut tree.root);
    planned(&tree, 0x10_0000).map_or_else(|why| why, |_| "nothing".into())
}

/// A change, and what is said.
type Case = (fn(&mut Node), &'static str);

#[test]
fn each_wrong_description_is_refused_in_its_own_words() {
    fn two(root: &mut Node) -> &mut Node {
        root.child("chosen").child("guest@1")
    }
    let cases: [Case; 16] = [
        (
            |root| two(root).set("label", b"One\0"),
            "guest One: not a name: 1 to 16 lower-case letters, digits, hyphens",
        ),
        (
            |root| two(root).set("label", b"one\0"),
            "guest one: another guest has this name",
        ),
        (
            |root| two(root).set_words("cpus", &[0, 9]),
            "guest two: there is no CPU 0x9",
        ),
        (
            |root| two(root).set_words("cpus", &[0, 1]),
            "guest two: CPU 0x1 is given twice",
        ),
        (
            |root| two(root).set_words("cpus", &[0, 2, 0, 2]),
            "guest two: CPU 0x2 is given twice",
        ),
        (
            |root| two(root).set_words("cpus", &[0]),
            "cpus of guest@1 is 4 bytes, 8 needed",
        ),
        (|root| two(root).remove("cpus"), "guest@1 has no cpus"),
        (
            |root| two(root).set("devices", b"nothing@0\0"),
            "guest two: there is no device nothing@0",
        ),
        (
            |root| two(root).set("devices", b"0000:00:02.0\0"),
            "guest two: there is no device 0000:00:02.0",
        ),
        (
            |root| two(root).set("devices", b"dma-test@5fc20000\0"),
            "guest two: device dma-test@5fc20000 is given twice",
        ),
        (
            |root| {
                root.child("dma-test@5fc30000")
                    .set_words("iommus", &[SMMU, 0x10])
            },
            "guest two: device dma-test@5fc30000 cannot be kept apart from a device of another guest",
        ),
        (
            |root| {
                root.child("dma-test@5fc30000")
                    .set_words("reg", &[0, 0x5fc3_0000, 0, 0x800])
            },
            "guest two: the registers of device dma-test@5fc30000 are no pages of their own",
        ),
        (
            |root| two(root).set_words("memory-size", &[0, 0x30_0000]),
            "guest two: memory of 0x300000 bytes at 0x40000000: not whole 2 MiB, or past its addresses",
        ),
        (
            |root| two(root).set_words("memory-address", &[0x80, 0]),
            "guest two: memory of 0x400000 bytes at 0x8000000000: not whole 2 MiB, or past its addresses",
        ),
        (
            |root| two(root).set_words("memory-address", &[0, 0x5fa0_0000]),
            "guest two: its memory is where dma-test@5fc30000 has its registers",
        ),
        (|root| two(root).remove("image"), "guest@1 has no image"),
    ];
    for (change, words) in cases {
        assert_eq!(refusal_after(change), words);
    }
}

#[test]
fn an_image_must_be_one_and_fit_with_what_it_clears() {
    let fits = 0x40_0000 - 0x1_0000;
    assert!(planned(&tree(), fits).is_ok());
    let why = planned(&tree(), fits + 1).map(drop);
    let words = "guest one: its image and its device tree take 0x400001 bytes, it has 0x400000";
    assert_eq!(why, Err(words.into()));
    let machine = read(&tree()).expect("a machine");
    let given = Given {
        machine: &machine,
        functions: &[],
        here: Mpidr::new(0).expect("small"),
        ipa_bits: 40,
    };
    for bytes in [&[][..], &[0; 4096]] {
        let plan = plan(&machine.guests, given, &mut |_| Some(bytes));
        let why = plan.map(drop).map_err(|wrong| wrong.to_string());
        assert_eq!(
            why,
            Err("guest one: its image has no arm64 Image header".into())
        );
    }
}

#[test]
fn an_image_must_be_where_it_can_be_read() {
    let machine = read(&tree()).expect("a machine");
    let given = Given {
        machine: &machine,
        functions: &[],
        here: Mpidr::new(0).expect("small"),
        ipa_bits: 40,
    };
    let why = plan(&machine.guests, given, &mut |_| None).map(drop);
    let why = why.map_err(|wrong| wrong.to_string());
    let words = "guest one: its image lies where something else does, or nothing";
    assert_eq!(why, Err(words.into()));
}

#[test]
fn a_cpu_that_cannot_be_started_is_no_guests_but_the_one_that_runs_is() {
    let mut tree = tree();
    for cpu in ["cpu@1", "cpu@0"] {
        tree.root.child("cpus").child(cpu).remove("enable-method");
    }
    let why = planned(&tree, 0).map(drop);
    assert_eq!(why, Err("guest one: CPU 0x1 cannot be started".into()));
    tree.root
        .child("chosen")
        .child("guest@0")
        .set_words("cpus", &[0, 0]);
    assert!(planned(&tree, 0).is_ok());
}
