//! What makes no sense is refused by name, and leaves nothing.

use portcullis::discover::{AcpiTables, Machine, Text};

use crate::builder::{self, Bytes, Memory, Node, RSDP, range, single};
use crate::{extent, read, tables, two_smmus, with_nodes};

/// What is said of this memory; it leaves a machine empty.
fn refusal_of(memory: &Memory) -> String {
    let tables = match AcpiTables::new(RSDP, &|at, size| memory.read(at, size)) {
        Ok(tables) => tables,
        Err(refusal) => return refusal.to_string(),
    };
    let mut machine = Box::new(Machine::new());
    machine.bootargs = Text::start_of("from before");
    let refusal = machine.read_acpi(&tables, &[]).err();
    let refusal = refusal.map_or("nothing".into(), |refusal| refusal.to_string());
    assert_eq!(*machine, Machine::new(), "{refusal} leaves nothing");
    refusal
}

/// What is said when the nodes of QEMU's IORT are these.
fn refusal_of_nodes(nodes: &[Node]) -> String {
    refusal_of(&with_nodes(nodes).memory())
}

/// The RSDP is the last, the XSDT the one before, IORT the one before that.
fn last_but(memory: &mut Memory, further: usize) -> &mut Vec<u8> {
    let place = memory.0.len() - 1 - further;
    &mut memory.0[place].1
}

#[test]
fn each_damaged_table_is_refused_in_its_own_words() {
    type Change = fn(&mut Memory);
    let cases: [(Change, &str); 13] = [
        (
            |memory| drop(memory.0.pop()),
            "20 bytes of RSDP cannot be read at 0x3f000008",
        ),
        (
            |memory| last_but(memory, 0)[0] = b'X',
            "signature of RSDP makes no sense: 0x58534420",
        ),
        (
            |memory| last_but(memory, 0)[9] ^= 1,
            "RSDP adds up to 0x01, not to 0",
        ),
        (
            |memory| last_but(memory, 0)[25] ^= 1,
            "RSDP adds up to 0x01, not to 0",
        ),
        (
            |memory| last_but(memory, 0)[20] = 35,
            "length of RSDP makes no sense: 0x23",
        ),
        (
            |memory| {
                last_but(memory, 0)[24..32].fill(0);
                builder::sum_up(last_but(memory, 0), 32);
            },
            "RSDP has no XSDT address",
        ),
        (
            |memory| {
                last_but(memory, 0)[24..32].fill(0xff);
                builder::sum_up(last_but(memory, 0), 32);
            },
            "36 bytes of XSDT cannot be read at 0xffffffffffffffff",
        ),
        (
            |memory| {
                last_but(memory, 1)[0] = b'R';
                builder::sum_up(last_but(memory, 1), 9);
            },
            "signature of XSDT makes no sense: 0x52534454",
        ),
        (
            |memory| {
                last_but(memory, 1).pop();
                last_but(memory, 1)[4] -= 1;
                builder::sum_up(last_but(memory, 1), 9);
            },
            "length of XSDT makes no sense: 0x53",
        ),
        (
            |memory| last_but(memory, 2)[40] ^= 4,
            "IORT adds up to 0xfc, not to 0",
        ),
        (
            |memory| last_but(memory, 2)[4..8].fill(0),
            "length of IORT makes no sense: 0x0",
        ),
        (
            |memory| last_but(memory, 2)[4..8].fill(0xff),
            "length of IORT makes no sense: 0xffffffff",
        ),
        (
            |memory| last_but(memory, 2).truncate(35),
            "36 bytes of a table cannot be read at 0x3f150000",
        ),
    ];
    for (change, expected) in cases {
        let mut memory = tables::qemu().memory();
        change(&mut memory);
        assert_eq!(refusal_of(&memory), expected, "{expected}");
    }
}

#[test]
fn each_senseless_smmu_is_refused_in_its_own_words() {
    type Change = fn(Bytes) -> Bytes;
    let cases: [(Change, &str); 4] = [
        (
            |bytes| bytes.double(16, 0),
            "base address of SMMUv3 at 0x4c of IORT makes no sense: 0x0",
        ),
        (
            |bytes| bytes.double(16, !0xffff),
            "base address of SMMUv3 at 0x4c of IORT makes no sense: 0xffffffffffff0000",
        ),
        (
            |bytes| bytes.double(16, 0x908_0000),
            "registers of SMMUv3 at 0xa4 of IORT overlaps another at 0x9070000",
        ),
        (
            |mut bytes| {
                bytes.0.truncate(64);
                bytes
            },
            "offset of the maps of SMMUv3 at 0x4c of IORT makes no sense: 0x40",
        ),
    ];
    for (change, expected) in cases {
        let mut nodes = two_smmus();
        nodes[1] = nodes[1].clone().change(change);
        assert_eq!(refusal_of_nodes(&nodes), expected, "{expected}");
    }
}

#[test]
fn references_that_lead_back_round_or_nowhere_are_refused() {
    let mut nodes = two_smmus();
    nodes[1].maps = vec![range(0, 0xff, 0, 2)];
    nodes[2].maps = vec![range(0, 0xff, 0, 1)];
    let refused = "SMMUv3 at 0x4c of IORT leads to 0xa4, which leads nowhere";
    assert_eq!(refusal_of_nodes(&nodes), refused, "in a circle");
    nodes[1].maps = vec![range(0, 0xff, 0, 1)];
    let refused = "SMMUv3 at 0x4c of IORT leads to 0x4c, which leads nowhere";
    assert_eq!(refusal_of_nodes(&nodes), refused, "to itself");
    let mut nodes = two_smmus();
    nodes.push(builder::root_complex(0, &[range(0, 0xff, 0, 4)]));
    nodes.push(builder::root_complex(1, &[range(0, 0xff, 0, 0)]));
    let refused = "root complex at 0xfc of IORT leads to 0x134, which leads nowhere";
    assert_eq!(refusal_of_nodes(&nodes), refused, "to where ids start");
    for to in [0u32, 0x34 + 4, 0xffff_fff0] {
        let mut firmware = tables::qemu();
        let body = &mut firmware.table(b"IORT").body;
        // The reference of the last map.
        let at = body.len() - 8;
        body[at..at + 4].copy_from_slice(&to.to_le_bytes());
        let refused = format!("root complex at 0xa4 of IORT leads to {to:#x}, which leads nowhere");
        assert_eq!(refusal_of(&firmware.memory()), refused);
    }
}

/// What is said when this is the node behind [`two_smmus`].
fn refusal_of_node(node: Node) -> String {
    let mut nodes = two_smmus();
    nodes.push(node);
    refusal_of_nodes(&nodes)
}

#[test]
fn maps_that_make_no_sense_are_refused() {
    let with = |maps: &[builder::Map]| refusal_of_node(builder::root_complex(0, maps));
    assert_eq!(
        with(&[range(0, 0x100, 0xffff_ff00, 1)]),
        "output base of ID map at 0x120 of IORT makes no sense: 0xffffff00"
    );
    assert_eq!(
        with(&[range(0, 1, 0, 1), single(7, 1)]),
        "ID map for all ids of root complex at 0xfc of IORT makes no sense: 0x7"
    );
    let far = |bytes: Bytes| bytes.word(8, 0xffff_ffff).word(12, 36);
    let refusal = refusal_of_node(builder::root_complex(0, &[]).change(far));
    assert!(refusal.starts_with("length of root complex at 0xfc of IORT is 36 bytes, "));
}

#[test]
fn root_complexes_and_components_that_make_no_sense_are_refused() {
    assert_eq!(
        refusal_of_node(builder::root_complex(0x1_0000, &[])),
        "PCI segment of root complex at 0xfc of IORT makes no sense: 0x10000"
    );
    let bits = |bytes: Bytes| bytes.word(16, 21 << 1);
    assert_eq!(
        refusal_of_node(builder::component("\\_SB_.DEV0", &[]).change(bits)),
        "PASID bits of named component at 0xfc of IORT makes no sense: 0x15"
    );
    let all = [range(0, 0xffff_ffff, 0, 1)];
    assert_eq!(
        refusal_of_node(builder::component("\\_SB_.DEV0", &all)),
        "there are more than 512 streams of devices"
    );
    let mut nodes = two_smmus();
    nodes.extend([3, 3].map(|segment| builder::root_complex(segment, &[])));
    assert_eq!(
        refusal_of_nodes(&nodes),
        "PCI segment of root complex at 0x120 of IORT overlaps another at 0x3"
    );
}

#[test]
fn kept_memory_that_makes_no_sense_is_refused() {
    let maps = [range(0, 0, 0x3000, 1)];
    let with = |ranges: &[(u64, u64)], change: fn(Bytes) -> Bytes| {
        refusal_of_node(builder::rmr(1, ranges, &maps).change(change))
    };
    assert_eq!(
        with(&[(0x1000, 0)], |bytes| bytes),
        "length of memory range at 0x118 of IORT makes no sense: 0x0"
    );
    assert_eq!(
        with(&[(!0xfff, 0x2000)], |bytes| bytes),
        "length of memory range at 0x118 of IORT makes no sense: 0x2000"
    );
    let refusal = with(&[(0x1000, 0x1000)], |bytes| bytes.word(20, 0xffff_ffff));
    assert!(refusal.starts_with("length of RMR at 0xfc of IORT is 68 bytes, "));
    assert_eq!(
        with(&[(0x1000, 0x1000)], |bytes| bytes.word(24, 8)),
        "offset of the ranges of RMR at 0xfc of IORT makes no sense: 0x8"
    );
}

#[test]
fn lengths_that_make_no_sense_are_refused() {
    let with = |signature: &[u8; 4], change: fn(&mut Vec<u8>)| {
        let mut firmware = tables::qemu();
        change(&mut firmware.table(signature).body);
        refusal_of(&firmware.memory())
    };
    type Case = (&'static [u8; 4], fn(&mut Vec<u8>), &'static str);
    // A body starts with byte 36 of its table.
    let cases: [Case; 10] = [
        (
            b"IORT",
            |body| body.truncate(2),
            "length of IORT is 38 bytes, 44 needed",
        ),
        (
            b"IORT",
            |body| body[4] = 40,
            "offset of the nodes of IORT makes no sense: 0x28",
        ),
        (
            b"IORT",
            |body| body[0] = 4,
            "length of IORT is 240 bytes, 256 needed",
        ),
        (
            b"IORT",
            |body| body[17] = 0,
            "length of node at 0x34 of IORT makes no sense: 0x0",
        ),
        (
            b"IORT",
            |body| body[17] = 16,
            "length of ITS group at 0x34 of IORT is 16 bytes, 20 needed",
        ),
        (
            b"APIC",
            |body| body[9] = 0,
            "length of entry at 0x2c of APIC makes no sense: 0x0",
        ),
        (
            b"APIC",
            |body| body[8 + 24 + 1] = 40,
            "length of GICC at 0x44 of APIC is 40 bytes, 76 needed",
        ),
        (
            b"APIC",
            |body| body.truncate(body.len() - 1),
            "length of APIC is 263 bytes, 264 needed",
        ),
        (
            b"MCFG",
            |body| body.truncate(body.len() - 1),
            "length of MCFG makes no sense: 0x3b",
        ),
        (
            b"SPCR",
            |body| body.truncate(8),
            "length of SPCR is 44 bytes, 52 needed",
        ),
    ];
    for (signature, change, expected) in cases {
        assert_eq!(with(signature, change), expected, "{expected}");
    }
    let mut firmware = tables::d06();
    firmware.table(b"DBG2").body[9] = 21;
    assert_eq!(
        refusal_of(&firmware.memory()),
        "length of port at 0x2c of DBG2 makes no sense: 0x15"
    );
}

/// What is said when QEMU's firmware has this table instead of its own.
fn refusal_of_table(table: builder::Table) -> String {
    let mut firmware = tables::qemu();
    let signature = table.signature;
    *firmware.table(&signature) = table;
    refusal_of(&firmware.memory())
}

#[test]
fn windows_that_make_no_sense_are_refused() {
    let with = |records: &[(u64, u16, u8, u8)]| refusal_of_table(builder::mcfg(records));
    assert_eq!(
        with(&[(0x1000_0000, 0, 5, 4)]),
        "last bus of record at 0x2c of MCFG makes no sense: 0x4"
    );
    assert_eq!(
        with(&[(!0xfff, 0, 1, 4)]),
        "base address of record at 0x2c of MCFG makes no sense: 0xfffffffffffff000"
    );
    assert_eq!(
        with(&[(0x1000_0000, 0, 0, 4), (0x2000_0000, 0, 4, 5)]),
        "bus range of record at 0x3c of MCFG overlaps another at 0x4"
    );
}

#[test]
fn cpus_and_interrupt_controllers_that_make_no_sense_are_refused() {
    let with = |entries: &[Bytes]| refusal_of_table(builder::madt(entries));
    let gicd = || builder::gicd(0x800_0000, 3);
    assert_eq!(
        with(&[builder::gicc(1 << 31, 0)]),
        "MPIDR of GICC at 0x2c of APIC makes no sense: 0x80000000"
    );
    assert_eq!(
        with(&[builder::gicc(5, 0), builder::gicc(5, 0)]),
        "affinity of GICC at 0x7c of APIC overlaps another at 0x5"
    );
    assert_eq!(
        with(&[gicd(), gicd()]),
        "there are more than 1 interrupt controllers"
    );
    assert_eq!(
        with(&[builder::gicd(0, 3)]),
        "base address of GICD at 0x2c of APIC makes no sense: 0x0"
    );
    assert_eq!(
        with(&[gicd(), builder::gicr(0x80a_0000, 0)]),
        "base address of GICR at 0x44 of APIC makes no sense: 0x80a0000"
    );
    let services = [builder::its(0, 0x800_0000), builder::its(1, 0x801_0000)];
    let [first, second] = services;
    assert_eq!(
        with(&[gicd(), first, second]),
        "registers of ITS at 0x58 of APIC overlaps another at 0x8010000"
    );
}

#[test]
fn more_of_a_kind_than_there_is_room_for_is_refused_by_name() {
    let smmu = |number: u64| builder::smmu(1, number << 20, [0; 4], &[]);
    let nodes: Vec<_> = (1..=17).map(smmu).collect();
    assert_eq!(refusal_of_nodes(&nodes), "there are more than 16 SMMUs");
    let nodes = vec![builder::its_group(&[0]); 513];
    assert_eq!(
        refusal_of_nodes(&nodes),
        "there are more than 512 nodes of IORT"
    );
    let maps = |count: u32| (0..count).map(|at| range(at * 4, 1, at * 4, 1));
    let with = |count| {
        let maps: Vec<_> = maps(count).collect();
        refusal_of_node(builder::root_complex(0, &maps))
    };
    let refused = "there are more than 32 stream maps of one bridge";
    assert_eq!(with(33), refused);
    let refused = "there are more than 128 ID maps of one node";
    assert_eq!(with(129), refused);
    let mut firmware = tables::qemu();
    firmware.tables.push(builder::fadt(1));
    assert_eq!(refusal_of(&firmware.memory()), "there are more than 1 FACP");
    let other = Bytes::zeroed(40).table(b"SSDT");
    firmware.tables.resize(65, other);
    assert_eq!(
        refusal_of(&firmware.memory()),
        "there are more than 64 ACPI tables"
    );
}

#[test]
fn memory_that_overlaps_is_refused() {
    let memory = tables::qemu().memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let mut machine = Box::new(Machine::new());
    let map = [extent(0x4000_0000, 0x2000), extent(0x4000_1000, 0x1000)];
    let refusal = machine.read_acpi(&tables, &map);
    let refusal = refusal.expect_err("they overlap").to_string();
    let expected = "memory of UEFI's memory map overlaps another at 0x40001000";
    assert_eq!(refusal, expected);
    assert_eq!(*machine, Machine::new());
}

#[test]
fn a_survey_tells_what_is_odd_and_has_the_rest() {
    let mut firmware = tables::taishan_2280_v2();
    let whole = read(&firmware).expect("sound tables");
    // Each is only found out when most of its table has been read.
    firmware.table(b"APIC").body.pop();
    let records = [(0xd000_0000, 0, 0, 0xfe), (0xd000_0000, 0, 0xff, 0xfe)];
    *firmware.table(b"MCFG") = builder::mcfg(&records);
    let body = &mut firmware.table(b"IORT").body;
    // The length of the last range that is kept, in front of the node's one map.
    let at = body.len() - 20 - 12;
    body[at..at + 8].fill(0);
    firmware.tables.push(Bytes::zeroed(40).table(b"SSDT"));
    let mut memory = firmware.memory();
    last_but(&mut memory, 2).clear();
    let refused = refusal_of(&memory);

    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let mut machine = Box::new(Machine::new());
    let mut told = Vec::new();
    machine.survey_acpi(&tables, &[], &mut |odd| told.push(odd.to_string()));
    let expected = [
        "36 bytes of a table cannot be read at 0x3f170000",
        "length of APIC is 10347 bytes, 10348 needed",
        "last bus of record at 0x3c of MCFG makes no sense: 0xfe",
        "length of memory range at 0x4dc of IORT makes no sense: 0x0",
    ];
    assert_eq!(told, expected);
    assert_eq!(refused, expected[0]);
    let mut expected = Box::new(Machine::new());
    expected.psci = whole.psci;
    expected.console = whole.console;
    // IORT names the segment too, and its streams are forgotten.
    expected.bridges = machine.bridges.clone();
    assert_eq!(machine, expected);
    let [bridge] = &*machine.bridges else {
        panic!("{:?}", machine.bridges);
    };
    assert!(bridge.streams.is_empty() && !bridge.is_coherent && bridge.ecam.is_none());
}
