//! One rule after the other.

use portcullis::discover::{
    AcpiTables, Conduit, ConsoleKind, Interrupt, Machine, Rid, SmmuInterrupts, Start, StreamMap,
    StreamsOf, Text, Timer, Trigger,
};

use crate::builder::{self, Bytes, Node, RSDP, range, single};
use crate::{
    device, extent, from_rid_0, kept_at, list, map, msis, read, read_memory, stream, tables,
    two_smmus, with_nodes,
};

#[test]
fn oem_ids_are_read_without_their_blanks_and_nuls() {
    let memory = tables::d05().memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    let found = &tables.listed()[0];
    assert_eq!(found.signature.as_str(), "FACP");
    assert_eq!(found.oem.id.as_str(), "HISI");
    assert_eq!(found.oem.table_id.as_str(), "HIP07");
    assert_eq!(found.oem.to_string(), "HISI HIP07");
    let mut odd = tables::d05();
    odd.oem_id = *b" \xffA B ";
    let memory = odd.memory();
    let tables = AcpiTables::new(RSDP, &|at, size| memory.read(at, size)).expect("tables");
    assert_eq!(tables.listed()[0].oem.id.as_str(), " ?A B");
}

#[test]
fn tables_are_found_through_an_rsdp_of_either_age() {
    for firmware in [tables::qemu(), tables::d06()] {
        let machine = read(&firmware).expect("sound tables");
        assert_eq!(read_memory(&firmware.old_memory()), Ok(machine));
    }
}

#[test]
fn timers_are_told_with_how_they_are_wired() {
    let mut firmware = tables::qemu();
    *firmware.table(b"GTDT") = builder::gtdt([(29, 4), (30, 0), (27, 5), (0, 0)]);
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

/// The streams of QEMU's bridge when its maps are these, which lead to the nodes of [`two_smmus`].
fn maps_of(maps: &[builder::Map]) -> Vec<StreamMap> {
    let mut nodes = two_smmus();
    nodes.push(builder::root_complex(0, maps));
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
    nodes.push(builder::root_complex(0, &[single(0x77, 2)]));
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
        let rc = builder::root_complex(0, &[range(0, 0xffff, 0, 1)]);
        let memory = with_nodes(&[builder::its_group(&[0]), node, rc]).memory();
        msis(&memory, 0, &[0x100])[0]
    };
    let smmu = |revision, wires| builder::smmu(revision, 0x905_0000, wires, &maps);
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
    let old = |maps: &[builder::Map]| device_id(builder::old_smmu(0x905_0000, 0, maps));
    assert_eq!(old(&maps), used);
    // Where newer nodes have the index, this one has the 0 of its first map.
    let maps = [range(0x100, 0, 0x9100, 0), range(0, 0xffff, 0, 0)];
    assert_eq!(old(&maps), used);
    assert_eq!(old(&[single(0x9100, 0)]), None, "it is for the SMMU alone");
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
    nodes.push(builder::component("\\_SB_.ACC0", &maps).change(stalls));
    nodes.push(builder::component(
        "\\_SB_.MIX0",
        &[single(8, 1), single(8, 0)],
    ));
    nodes.push(builder::component("\\_SB_.NONE", &[]));
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
    let mut older = builder::smmu(1, 0x909_0000, [0; 4], &[range(0, 0xffff, 0x5000, 0)]);
    older.bytes = older.bytes.byte(0, 3);
    nodes.push(older);
    nodes.push(builder::root_complex(0, &[range(0, 0xffff, 0, 3)]));
    nodes.push(builder::component("\\_SB_.DEV0", &[single(1, 3)]));
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
    for rmr in [
        builder::old_rmr(&ranges, &maps),
        builder::rmr(3, &ranges, &maps),
    ] {
        let mut nodes = two_smmus();
        nodes.push(rmr);
        let machine = read(&with_nodes(&nodes)).expect("sound tables");
        assert_eq!(*machine.kept, kept_at(&ranges));
    }
    let mut nodes = two_smmus();
    let mut maps = [single(0x11, 2), range(0, 3, 0x20, 1), single(0x12, 0)];
    maps[0].id_count = 7;
    nodes.push(builder::rmr(1, &ranges[..1], &maps));
    let machine = read(&with_nodes(&nodes)).expect("sound tables");
    let kept: Vec<_> = machine
        .kept
        .iter()
        .map(|kept| (kept.first, kept.count))
        .collect();
    assert_eq!(kept, [(stream(1, 0x11), 1), (stream(0, 0x20), 4)]);
}

#[test]
fn an_smmu_is_coherent_if_its_node_says_so() {
    let of = |flags| {
        let node = builder::smmu(4, 0x905_0000, [0; 4], &[]);
        let nodes = [node.change(|bytes| bytes.word(24, flags))];
        read(&with_nodes(&nodes)).expect("sound tables").smmus[0].is_coherent
    };
    assert!(of(1) && of(9));
    assert!(!of(0) && !of(8));
}

#[test]
fn wires_of_an_smmu_are_edges_of_the_gic_or_go_elsewhere() {
    let wires = |numbers| {
        let nodes = [builder::smmu(4, 0x905_0000, numbers, &[])];
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
    nodes.push(builder::root_complex(7, &[range(0, 0xffff, 0, 1)]));
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
    let mut firmware = tables::qemu();
    *firmware.table(b"MCFG") =
        builder::mcfg(&[(0x1_0000_0000, 0, 0, 0x7f), (0x2_0000_0000, 0, 0x80, 0xff)]);
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
    let console = |spcr: Option<builder::Table>, ports: &[(u16, u16, [u8; 12])]| {
        let mut firmware = tables::qemu();
        firmware.tables.retain(|table| table.signature != *b"SPCR");
        firmware.tables.extend(spcr);
        firmware.tables.push(builder::dbg2(ports));
        let console = read(&firmware).expect("sound tables").console;
        console.map(|console| (console.kind, console.base.as_u64()))
    };
    let at = builder::address;
    let of = |kind, address| console(Some(builder::spcr(kind, address)), &[]);
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
    let unknown = builder::spcr(0x20, at(8, 1, 0x7000));
    assert_eq!(console(Some(unknown), &ports), ns16550(0, 1));
    let known = builder::spcr(3, at(32, 3, 0x1000));
    assert_eq!(console(Some(known), &ports), pl011);
}

#[test]
fn psci_is_called_as_fadt_says() {
    let of = |flags| {
        let mut firmware = tables::qemu();
        *firmware.table(b"FACP") = builder::fadt(flags);
        let machine = read(&firmware).expect("sound tables");
        (machine.psci, machine.cpus[0].start)
    };
    assert_eq!(of(1), (Some(Conduit::Smc), Start::Psci));
    assert_eq!(of(3), (Some(Conduit::Hvc), Start::Psci));
    assert_eq!(of(2), (None, Start::Unsupported));
    let mut firmware = tables::qemu();
    firmware.table(b"FACP").body.truncate(116 - 36);
    assert_eq!(read(&firmware).expect("sound tables").psci, None);
}

#[test]
fn cpus_that_are_off_and_older_gics_are_left_out() {
    let mut firmware = tables::qemu();
    let off = builder::gicc(0x100, 0x1000_0000).word(12, 0);
    let entries = [
        builder::gicd(0x800_0000, 3),
        builder::gicc(0, 0x80a_0000),
        off,
        builder::gicc(1, 0x80c_0000),
        builder::gicc(2, 0x900_0000),
    ];
    *firmware.table(b"APIC") = builder::madt(&entries);
    let machine = read(&firmware).expect("sound tables");
    assert_eq!(machine.cpus.len(), 3);
    // Version 3 has two frames for each CPU.
    let gic = machine.gic.expect("a GIC");
    let frames = [extent(0x80a_0000, 0x4_0000), extent(0x900_0000, 0x2_0000)];
    assert_eq!(*gic.redistributors, frames);
    let entries = [builder::gicd(0x800_0000, 2), builder::gicc(0, 0)];
    *firmware.table(b"APIC") = builder::madt(&entries);
    assert_eq!(read(&firmware).expect("sound tables").gic, None);
    let entries = [builder::gicd(0x800_0000, 0), builder::gicc(0, 0)];
    *firmware.table(b"APIC") = builder::madt(&entries);
    assert_eq!(read(&firmware).expect("sound tables").gic, None);
}

#[test]
fn what_has_no_table_is_left_out() {
    let mut firmware = tables::qemu();
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

#[test]
fn the_list_of_tables_is_as_large_as_its_documentation_says() {
    let kibibytes = size_of::<AcpiTables<'_>>() / 1024;
    assert!((10..=14).contains(&kibibytes), "{kibibytes}");
}

#[test]
fn a_table_with_as_many_nodes_and_maps_as_there_may_be_is_read() {
    let mut nodes = vec![builder::its_group(&[0]); 256];
    // Every map ends in an ITS, so that no limit on streams ends it early.
    let maps: Vec<_> = (0..128).map(|at| range(at * 8, 3, at, 255)).collect();
    nodes.extend((0..256).map(|_| builder::component("\\_SB_.DEV0", &maps)));
    let machine = read(&with_nodes(&nodes)).expect("sound tables");
    assert_eq!(machine.devices.len(), 256);
    let is_unprotected = |device| machine.streams_of_device(device) == StreamsOf::Unprotected;
    assert!(machine.devices.iter().all(is_unprotected));
}
