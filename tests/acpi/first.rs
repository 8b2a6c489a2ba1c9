//! The first look, which finds the SMMUs whatever else the tables say.

use portcullis::discover::{AcpiTables, FoundSmmu, Machine, Refusal};

use crate::builder::{self, Firmware, Memory, Node, RSDP, range};
use crate::{extent, read, tables, two_smmus, with_nodes};

fn look_in(memory: &Memory) -> Vec<Result<FoundSmmu, Refusal>> {
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("a root table");
    tables.smmus().collect()
}

/// Where SMMUs were found, and what was said instead.
fn look(firmware: &Firmware) -> Vec<Result<u64, String>> {
    let found = look_in(&firmware.memory()).into_iter();
    found
        .map(|it| match it {
            Ok(smmu) => Ok(smmu.registers.base().as_u64()),
            Err(refusal) => Err(refusal.to_string()),
        })
        .collect()
}

fn refuses(firmware: &Firmware) {
    let memory = firmware.memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("a root table");
    let mut machine = Box::new(Machine::new());
    assert!(machine.read_acpi(&tables, &[]).is_err());
}

#[test]
fn the_first_look_finds_what_the_whole_reading_finds() {
    for firmware in [
        tables::qemu(),
        tables::d06(),
        tables::taishan_2280_v2(),
        tables::d05(),
    ] {
        let found = look_in(&firmware.memory()).into_iter();
        let found: Vec<_> = found
            .map(|it| it.expect("it makes sense"))
            .map(|it| (it.registers, it.quirks, it.is_enabled))
            .collect();
        let machine = read(&firmware).expect("sound tables");
        let expected = machine.smmus.iter();
        let expected: Vec<_> = expected.map(|it| (it.registers, it.quirks, true)).collect();
        assert_eq!(found, expected);
        assert!(!found.is_empty());
    }
}

#[test]
fn an_smmu_is_called_as_a_refusal_would_call_it() {
    let found = look_in(&tables::qemu().memory());
    let [Ok(smmu)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(smmu.name.as_str(), "SMMUv3 at 0x4c of IORT");
    assert_eq!(smmu.registers, extent(0x905_0000, 0x2_0000));
}

#[test]
fn nothing_else_in_the_tables_hides_an_smmu() {
    let expected = [Ok(0x905_0000), Ok(0x907_0000)];
    // Maps that lead back, run past the last id, or are for all ids twice.
    let mut nodes = two_smmus();
    nodes[1].maps = vec![range(0, 0xffff, 0, 2)];
    nodes.push(builder::root_complex(0, &[range(0, 5, u32::MAX, 1)]));
    let firmware = with_nodes(&nodes);
    assert_eq!(look(&firmware), expected);
    refuses(&firmware);
    // Other tables that are damaged, or senseless.
    let mut firmware = with_nodes(&two_smmus());
    firmware.table(b"MCFG").body.truncate(20);
    firmware.table(b"APIC").body[9] = 0;
    assert_eq!(look(&firmware), expected);
    refuses(&firmware);
    // Two SMMUs of one place are one to shut, twice.
    let mut nodes = two_smmus();
    nodes[2] = nodes[1].clone();
    let firmware = with_nodes(&nodes);
    assert_eq!(look(&firmware), [Ok(0x905_0000), Ok(0x905_0000)]);
    refuses(&firmware);
}

#[test]
fn an_smmu_that_makes_no_sense_does_not_hide_the_next() {
    let base = |node: Node, base| node.change(|bytes| bytes.double(16, base));
    for senseless in [0, u64::MAX - 0xffff] {
        let mut nodes = two_smmus();
        nodes[1] = base(nodes[1].clone(), senseless);
        let why = format!("base address of SMMUv3 at 0x4c of IORT makes no sense: {senseless:#x}");
        assert_eq!(look(&with_nodes(&nodes)), [Err(why), Ok(0x907_0000)]);
    }
    let mut nodes = two_smmus();
    nodes[1].bytes.0.truncate(40);
    nodes[1].maps.clear();
    let why = "length of SMMUv3 at 0x4c of IORT is 40 bytes, 60 needed".into();
    assert_eq!(look(&with_nodes(&nodes)), [Err(why), Ok(0x907_0000)]);
}

#[test]
fn smmus_in_front_of_the_damage_are_found_and_the_damage_is_told_once() {
    let second = 0x4c + 68 + 20;
    let firmware = |change: fn(&mut [u8])| {
        let mut firmware = with_nodes(&two_smmus());
        change(&mut firmware.table(b"IORT").body);
        firmware
    };
    let short = firmware(|body| body[0x4c + 88 - 36 + 1] = 3);
    let why = format!("length of node at {second:#x} of IORT makes no sense: 0x3");
    assert_eq!(look(&short), [Ok(0x905_0000), Err(why)]);
    let long = firmware(|body| body[0x4c + 88 - 36 + 2] = 1);
    let why = format!(
        "length of IORT is {} bytes, {} needed",
        second + 88,
        second + 88 + 0x100
    );
    assert_eq!(look(&long), [Ok(0x905_0000), Err(why)]);
    // A node that is counted and not there.
    let more = firmware(|body| body[0] = 4);
    let end = second + 88;
    let why = format!("length of IORT is {end} bytes, {} needed", end + 16);
    assert_eq!(look(&more), [Ok(0x905_0000), Ok(0x907_0000), Err(why)]);
    // Nodes that are not counted are none.
    let fewer = firmware(|body| body[0] = 2);
    assert_eq!(look(&fewer), [Ok(0x905_0000)]);
}

#[test]
fn no_address_of_a_table_whose_sum_is_wrong_is_believed() {
    let mut memory = tables::qemu().memory();
    let places = memory.0.len();
    // The last table, in front of XSDT and RSDP, is IORT.
    let sum = &mut memory.0[places - 3].1[9];
    *sum = sum.wrapping_add(1);
    let found = look_in(&memory);
    let [Err(refusal)] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(refusal.to_string(), "IORT adds up to 0x01, not to 0");
    // One of which not even the name can be read may be an IORT.
    memory.0.remove(places - 3);
    let found = look_in(&memory);
    assert!(
        matches!(found[..], [Err(Refusal::Unreadable { .. })]),
        "{found:?}"
    );
}

#[test]
fn a_second_iort_is_searched_too() {
    let mut firmware = with_nodes(&two_smmus());
    let mut more = tables::qemu();
    firmware.tables.push(more.table(b"IORT").clone());
    let expected = [Ok(0x905_0000), Ok(0x907_0000), Ok(0x905_0000)];
    assert_eq!(look(&firmware), expected);
    refuses(&firmware);
}
