//! A mutated device tree may be refused; it may not panic, hang, or be read in two ways.
//!
//! Each mutant has a number, and the number gives the mutant: a failure names it, and
//! `PORTCULLIS_FUZZ_FIRST=NUMBER PORTCULLIS_FUZZ_MUTANTS=1` makes it again.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::dts::{Node, Tree};
use crate::trees::{D05_LIKE, ODD_CORNERS, QEMU_VIRT};
use dtoolkit::{Node as _, Property as _};
use portcullis::discover::{
    DeviceTree, Fault, Machine, NodeName, Refusal, Rid, StreamsOf, Text, smmus,
};

const TREES: [&str; 3] = [QEMU_VIRT, D05_LIKE, ODD_CORNERS];
const MUTANTS: u64 = 64_000;

/// Numbers that look random and are the same in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit.max(1)
    }

    /// A word that is more likely than others to matter.
    fn word(&mut self) -> u32 {
        let edges = [
            0,
            1,
            2,
            3,
            4,
            5,
            7,
            9,
            16,
            31,
            0x1_0000,
            0x7fff_ffff,
            0x8000_0000,
            !0,
            !3,
        ];
        match self.below(4) {
            0 => self.next() as u32,
            1 => self.below(64) as u32,
            2 => 1 << self.below(32),
            _ => edges[self.below(edges.len())],
        }
    }
}

/// All nodes below `node`, as ways of children's places.
fn ways(node: &Node, way: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
    found.push(way.clone());
    for (place, child) in node.children.iter().enumerate() {
        way.push(place);
        ways(child, way, found);
        way.pop();
    }
}

fn node_at<'n>(root: &'n mut Node, way: &[usize]) -> &'n mut Node {
    way.iter()
        .fold(root, |node, &place| &mut node.children[place])
}

/// Changes the meaning of a tree that stays well-formed.
fn change_meaning(tree: &mut Tree, numbers: &mut Numbers) {
    let mut found = Vec::new();
    ways(&tree.root, &mut Vec::new(), &mut found);
    let way = found[numbers.below(found.len())].clone();
    let other = found[numbers.below(found.len())].clone();
    let copy = node_at(&mut tree.root, &other).clone();
    let node = node_at(&mut tree.root, &way);
    let place = numbers.below(node.properties.len());
    match (numbers.below(8), node.properties.get_mut(place)) {
        (0, _) => {
            let cells = [
                "#address-cells",
                "#size-cells",
                "#iommu-cells",
                "#interrupt-cells",
            ];
            let value = numbers.word();
            node.set_words(cells[numbers.below(4)], &[value]);
        }
        (1, Some((_, value))) => value.truncate(numbers.below(value.len())),
        (2, Some((_, value))) => {
            let more = (0..numbers.below(16)).map(|_| numbers.next() as u8);
            value.extend(more.collect::<Vec<_>>());
        }
        (3 | 4, Some((_, value))) if value.len() >= 4 => {
            let at = numbers.below(value.len() / 4) * 4;
            value[at..at + 4].copy_from_slice(&numbers.word().to_be_bytes());
        }
        (5, Some(_)) => drop(node.properties.remove(place)),
        (6, _) if found.len() < 200 => node.children.push(copy),
        (_, _) => {
            let twice = copy.properties.get(numbers.below(copy.properties.len()));
            node.properties.extend(twice.cloned());
        }
    }
}

/// Damages the flattened form.
fn damage(blob: &mut Vec<u8>, numbers: &mut Numbers) {
    match numbers.below(6) {
        0 => {
            let at = numbers.below(blob.len());
            blob[at] ^= 1 << numbers.below(8);
        }
        1 | 2 => {
            let at = numbers.below(blob.len() / 4) * 4;
            blob[at..at + 4].copy_from_slice(&numbers.word().to_be_bytes());
        }
        3 => {
            let field = numbers.below(10) * 4;
            let value = match numbers.below(2) {
                0 => numbers.word(),
                _ => numbers.below(blob.len() + 8) as u32,
            };
            blob[field..field + 4].copy_from_slice(&value.to_be_bytes());
        }
        4 => {
            blob.truncate(numbers.below(blob.len()).max(40));
            let size = blob.len() as u32;
            blob[4..8].copy_from_slice(&size.to_be_bytes());
        }
        _ => {
            let (from, to) = (numbers.below(blob.len()), numbers.below(blob.len()));
            let room = blob.len() - from.max(to);
            let length = numbers.below(room.min(64));
            blob.copy_within(from..from + length, to);
        }
    }
}

fn mutant(trees: &[Tree; 3], number: u64) -> Vec<u8> {
    let mut numbers = Numbers(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut tree = trees[numbers.below(3)].clone();
    for _ in 0..numbers.below(4) {
        change_meaning(&mut tree, &mut numbers);
    }
    let rate = [0, 0, 7, 3][numbers.below(4)];
    let mut blob = tree.flatten_with(&mut || match rate {
        0 => 0,
        rate => usize::from(numbers.below(rate) == 0),
    });
    for _ in 0..numbers.below(4) {
        damage(&mut blob, &mut numbers);
    }
    blob
}

/// Whether another validator calls the tree sound.
fn is_sound_to_dtoolkit(blob: &[u8]) -> Option<dtoolkit::fdt::Fdt<'_>> {
    dtoolkit::fdt::Fdt::new(blob).ok()
}

/// How many SMMUs another reader sees.
fn smmus_by_dtoolkit(node: dtoolkit::fdt::FdtNode<'_>) -> usize {
    let is_smmu = node.property("compatible").is_some_and(|found| {
        let mut texts = found.value().split(|&byte| byte == 0);
        texts.next_back();
        texts.any(|text| text == b"arm,smmu-v3")
    });
    usize::from(is_smmu) + node.children().map(smmus_by_dtoolkit).sum::<usize>()
}

/// The same with a structure block that goes on to the names of the properties.
fn to_its_strings(blob: &[u8]) -> Vec<u8> {
    let field =
        |at: usize| u32::from_be_bytes([blob[at], blob[at + 1], blob[at + 2], blob[at + 3]]);
    let size = field(12).saturating_sub(field(8));
    let mut longer = blob.to_vec();
    longer[36..40].copy_from_slice(&size.to_be_bytes());
    longer
}

/// What came of a mutant.
#[derive(Default, Debug)]
struct Tally {
    broken: usize,
    senseless: usize,
    read: usize,
    sound_to_both: usize,
}

fn try_one(blob: &mut [u8], machine: &mut Machine, tally: &mut Tally) {
    let first: Vec<_> = smmus(blob).collect();
    let others = is_sound_to_dtoolkit(blob).map(|tree| smmus_by_dtoolkit(tree.root()));
    let tree = match DeviceTree::new(blob) {
        Ok(tree) => tree,
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            // The other validator reads on behind the end that the header gives.
            let is_agreed = others.is_none() || DeviceTree::new(&mut to_its_strings(blob)).is_ok();
            assert!(is_agreed, "dtoolkit calls it sound, and we say: {refusal}");
            tally.broken += 1;
            return;
        }
    };
    if let Some(count) = others {
        assert_eq!(first.len(), count, "the first look and dtoolkit see SMMUs");
        tally.sound_to_both += 1;
    }
    match machine.read_device_tree(&tree) {
        Ok(()) => {
            check(machine, &first);
            tally.read += 1;
        }
        Err(refusal) => {
            assert!(!refusal.to_string().is_empty());
            assert_eq!(machine.memory.len() + machine.smmus.len(), 0);
            tally.senseless += 1;
        }
    }
}

/// What holds of every machine.
fn check(machine: &Machine, first: &[Result<portcullis::discover::FoundSmmu, Refusal>]) {
    let enabled: Vec<_> = first
        .iter()
        .flatten()
        .filter(|smmu| smmu.is_enabled)
        .map(|smmu| (smmu.registers, smmu.quirks))
        .collect();
    let read: Vec<_> = machine
        .smmus
        .iter()
        .map(|smmu| (smmu.registers, smmu.quirks))
        .collect();
    assert_eq!(read, enabled, "the first look and the reader see SMMUs");
    let known = |stream: portcullis::discover::Stream| {
        assert!(stream.smmu.as_usize() < machine.smmus.len());
    };
    for bridge in &machine.bridges {
        assert!(bridge.first_bus <= bridge.last_bus);
        for rid in (0..=u16::MAX).step_by(0x7f) {
            if let StreamsOf::Behind(stream) =
                machine.streams_of(bridge.segment, Rid::from_u16(rid))
            {
                known(stream);
            }
        }
    }
    for device in &machine.devices {
        machine
            .known_streams_of_device(device)
            .iter()
            .copied()
            .for_each(known);
    }
    for kept in &machine.kept {
        known(kept.first);
        assert!(kept.count > 0 && kept.at.size_bytes() > 0);
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text.parse().expect("a number in the environment"),
        Err(_) => default,
    }
}

/// Tries the mutants with these numbers.
fn try_all(trees: &[Tree; 3], mutants: impl Iterator<Item = u64>) -> Tally {
    let mut machine = Box::new(Machine::new());
    let mut tally = Tally::default();
    for number in mutants {
        let mut blob = mutant(trees, number);
        let tried = catch_unwind(AssertUnwindSafe(|| {
            try_one(&mut blob, &mut machine, &mut tally);
        }));
        assert!(tried.is_ok(), "mutant {number}");
    }
    tally
}

#[test]
fn mutated_trees_are_read_in_one_way_or_refused() {
    let first = number_from("PORTCULLIS_FUZZ_FIRST", 0);
    let count = number_from("PORTCULLIS_FUZZ_MUTANTS", MUTANTS);
    let trees = TREES.map(Tree::parse);
    let mutants = first..first + count;
    let (even, odd) = thread::scope(|scope| {
        let even = scope.spawn(|| try_all(&trees, mutants.clone().step_by(2)));
        let odd = try_all(&trees, mutants.clone().skip(1).step_by(2));
        (even.join().expect("no mutant fails"), odd)
    });
    println!("{even:?}, {odd:?}");
    // Each way out is taken often enough to mean something.
    let least = count as usize / 50;
    for tally in [even, odd] {
        let seen = [
            tally.broken,
            tally.senseless,
            tally.read,
            tally.sound_to_both,
        ];
        assert!(
            count < 1000 || seen.iter().all(|&seen| seen > least),
            "{tally:?}"
        );
    }
}

#[test]
fn a_tree_at_the_limit_of_its_size_is_gone_through_in_bounded_time() {
    // What would be quadratic in a careless reader: one bus with as many properties as fit in
    // half of the tree, above as many nodes as fit in the other half, each asking the way up.
    let mut bus = Node {
        name: "bus".into(),
        ..Node::default()
    };
    for _ in 0..60_000 {
        bus.properties.push(("x".into(), Vec::new()));
    }
    bus.set_words("ranges", &[0, 0, 0, 1, 0]);
    for number in 0..9_000_u32 {
        let mut device = Node {
            name: format!("d{number:x}"),
            ..Node::default()
        };
        device.set_words("reg", &[0, number, 0]);
        device.set("dma-coherent", &[]);
        device.set_words("phandle", &[0x1000 + number]);
        bus.children.push(device);
    }
    let mut tree = Tree::parse(TREES[0]);
    tree.root.children.insert(0, bus);
    let mut blob = tree.flatten();
    assert!(
        blob.len() > 1 << 20 && blob.len() < 2 << 20,
        "{}",
        blob.len()
    );
    assert_eq!(smmus(&blob).count(), 1);
    let tree = DeviceTree::new(&mut blob).expect("a sound tree");
    let refusal = Machine::new().read_device_tree(&tree);
    let what = "devices";
    assert_eq!(refusal, Err(Refusal::TooMany { what, limit: 256 }));
}

#[test]
fn how_often_the_tree_is_searched_is_not_the_trees_choice() {
    let refusal = |tree: &Tree| {
        let mut blob = tree.flatten();
        let tree = DeviceTree::new(&mut blob).expect("a sound tree");
        Machine::new()
            .read_device_tree(&tree)
            .expect_err("a refusal")
            .to_string()
    };
    // Empty entries keep nothing, and are searched for all the same.
    let mut tree = Tree::parse(TREES[2]);
    let display = tree.root.at("bus@10000000/inner@1000000/display@90000");
    let phandle = display
        .properties
        .iter()
        .find(|(name, _)| name == "phandle");
    let phandle = phandle.expect("it is referred to").1[3];
    for number in 0..7 {
        let mut region = Node {
            name: format!("empty{number}"),
            ..Node::default()
        };
        region.set_words("iommu-addresses", &[phandle.into(), 0, 0].repeat(10));
        tree.root.at("reserved-memory").children.push(region);
    }
    assert_eq!(
        refusal(&tree),
        "there are more than 64 addresses kept for devices"
    );
    let mut tree = Tree::parse(TREES[0]);
    let mut wires = Vec::new();
    let mut names = Vec::new();
    for number in 0..17 {
        let mut controller = Node {
            name: format!("controller{number}"),
            ..Node::default()
        };
        controller.set_words("phandle", &[0x100 + number]);
        controller.set_words("#interrupt-cells", &[0]);
        tree.root.children.push(controller);
        wires.push(0x100 + number);
        names.extend(b"wire\0");
    }
    let smmu = tree.root.at("smmuv3@9050000");
    smmu.set_words("interrupts-extended", &wires);
    smmu.set("interrupt-names", &names);
    let expected = "there are more than 16 interrupt controllers of SMMUs";
    assert_eq!(refusal(&tree), expected);
}

#[test]
fn a_range_of_no_words_passes_nothing_and_ends() {
    let mut tree = Tree::parse(TREES[2]);
    let bus = tree.root.at("bus@10000000");
    bus.set_words("#address-cells", &[0]);
    bus.set_words("#size-cells", &[0]);
    tree.root.set_words("#address-cells", &[0]);
    tree.root.set_words("#size-cells", &[0]);
    let blob = tree.flatten();
    assert!(smmus(&blob).all(|found| found.is_err()));
}

#[test]
fn a_tree_cut_off_inside_a_name_is_refused() {
    let blob = Tree::parse(TREES[0]).flatten();
    let structure = u32::from_be_bytes([blob[36], blob[37], blob[38], blob[39]]);
    let mut cut = blob.clone();
    cut[36..40].copy_from_slice(&(structure - 8).to_be_bytes());
    let refusal = DeviceTree::new(&mut cut).err();
    let offset = structure as usize - 8;
    let fault = Fault::Ends;
    assert_eq!(refusal, Some(Refusal::Structure { fault, offset }));
}

#[test]
fn a_property_behind_a_child_is_refused() {
    let mut tree = Tree::default();
    tree.root.set("first", &[]);
    tree.root.children.push(Node {
        name: "child".into(),
        ..Node::default()
    });
    let mut blob = tree.flatten();
    // The END_NODE of the child and the one of the root become a property without a value.
    let end = blob.len() - "first\0".len();
    let at = end - 12;
    assert_eq!(blob[at..end], [0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 9]);
    blob[at + 3] = 2;
    blob[at + 7] = 3;
    let refusal = DeviceTree::new(&mut blob).err();
    assert!(
        matches!(refusal, Some(Refusal::Structure { .. })),
        "{refusal:?}"
    );
}

#[test]
fn labels_of_nodes_are_cut_and_not_refused() {
    let name: NodeName = Text::start_of(&"n".repeat(200));
    assert_eq!(name.as_str().len(), 48);
}
