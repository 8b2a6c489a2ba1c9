//! What a function does may come with the RID of a bridge above it.

use portcullis::discover::{Machine, SmmuIndex, Stream, StreamMap, StreamsOf};
use portcullis::id::StreamId;
use portcullis::pci::Kind;

use super::*;

/// From PCI Express to PCI, and the other way round.
const TO_PCI: u32 = 7;
const FROM_PCI: u32 = 8;

/// A bridge of PCI, which knows nothing of PCI Express.
fn pci_bridge(behind: Bus) -> Fake {
    let mut bridge = Fake::bridge(0, behind);
    bridge.registers.remove(&0x34);
    bridge.registers.remove(&0x40);
    bridge.registers.insert(0x04, 0);
    bridge
}

/// Two functions behind a bridge to PCI (bus 1), another bridge of PCI there (bus 2) and one more
/// function behind that; a port of PCI Express (bus 3).
fn old_buses() -> Bus {
    let old = Bus::from([
        ((0, 0), edu()),
        ((1, 0), edu()),
        ((2, 0), pci_bridge([((0, 0), edu())].into())),
    ]);
    Bus::from([
        ((1, 0), Fake::bridge(TO_PCI, old)),
        ((2, 0), Fake::bridge(ROOT_PORT, [((0, 0), nvme())].into())),
    ])
}

fn rids_of(found: &[Function], wanted: Rid) -> Vec<Rid> {
    let function = found.iter().find(|it| it.rid == wanted);
    function.expect("it is listed").rids().collect()
}

#[test]
fn behind_a_bridge_to_pci_functions_may_come_as_its_first_one() {
    let fabric = Fabric::new(0, old_buses());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let alone = [rid(0, 1, 0), rid(0, 2, 0), rid(3, 0, 0), rid(1, 0, 0)];
    for function in alone {
        assert_eq!(rids_of(&found, function), [function]);
    }
    let alias = rid(1, 0, 0);
    for function in [rid(1, 1, 0), rid(1, 2, 0)] {
        assert_eq!(rids_of(&found, function), [function, alias]);
    }
    let deep = [rid(2, 0, 0), alias, rid(1, 2, 0)];
    assert_eq!(rids_of(&found, rid(2, 0, 0)), deep);
    assert!(found.iter().all(|function| function.refused.is_none()));
}

#[test]
fn a_bridge_of_pci_on_the_root_bus_or_back_to_pci_express_uses_its_own_rid() {
    let root = Bus::from([
        ((1, 0), pci_bridge([((3, 0), edu())].into())),
        ((2, 0), Fake::bridge(FROM_PCI, [((0, 0), nvme())].into())),
    ]);
    let fabric = Fabric::new(0, root);
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    assert_eq!(rids_of(&found, rid(1, 3, 0)), [rid(1, 3, 0), rid(0, 1, 0)]);
    assert_eq!(rids_of(&found, rid(2, 0, 0)), [rid(2, 0, 0), rid(0, 2, 0)]);
}

#[test]
fn as_many_bridges_as_may_be_cascaded_have_their_aliases_all() {
    let mut bus = Bus::from([((0, 0), edu())]);
    for _ in 0..16 {
        bus = [((0, 0), pci_bridge(bus))].into();
    }
    let fabric = Fabric::new(0, bus);
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let expected: Vec<_> = [rid(16, 0, 0)]
        .into_iter()
        .chain((0..16).map(|bus| rid(bus, 0, 0)))
        .collect();
    assert_eq!(rids_of(&found, rid(16, 0, 0)), expected);
    // One bridge more is not gone behind.
    let mut bus = Bus::from([((0, 0), edu())]);
    for _ in 0..17 {
        bus = [((0, 0), pci_bridge(bus))].into();
    }
    let fabric = Fabric::new(0, bus);
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let last = found.last().expect("a bridge");
    let refusal = Some(Refusal::TooDeep { rid: last.rid });
    assert_eq!((last.kind, last.refused), (Kind::Closed, refusal));
    assert!(!found.iter().any(|it| it.kind == Kind::Endpoint));
}

/// A machine whose RIDs of `rids` are streams of its one SMMU, 0x1000 further up.
fn machine(rids: &[(u16, u32)]) -> Box<Machine> {
    let mut machine = Box::new(Machine::new());
    let mut bridge = bridge(0, 255);
    for (rid_base, count) in rids {
        let first = Stream {
            smmu: SmmuIndex::new(0),
            id: StreamId::new(0x1000 + u32::from(*rid_base)),
        };
        let map = StreamMap {
            rid_base: *rid_base,
            count: *count,
            first,
        };
        bridge.streams.push(map).expect("room");
    }
    machine.bridges.push(bridge).expect("room");
    machine
}

fn streams(found: &[Function], of: Rid, machine: &Machine) -> Option<Vec<u32>> {
    let function = found.iter().find(|it| it.rid == of).expect("it is listed");
    match function.streams(machine) {
        StreamsOf::Behind(streams) => Some(streams.iter().map(|it| it.id.as_u32()).collect()),
        StreamsOf::Unprotected => None,
    }
}

#[test]
fn a_function_has_the_streams_of_all_its_rids_or_is_unprotected() {
    let fabric = Fabric::new(0, old_buses());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let all = machine(&[(0, 0x1_0000)]);
    let of = |rid| streams(&found, rid, &all);
    assert_eq!(of(rid(1, 1, 0)), Some(vec![0x1108, 0x1100]));
    assert_eq!(of(rid(2, 0, 0)), Some(vec![0x1200, 0x1100, 0x1110]));
    assert_eq!(of(rid(3, 0, 0)), Some(vec![0x1300]));
    // The alias goes past the SMMU.
    let some = machine(&[(0x101, 0xff), (0x200, 0x200)]);
    let of = |rid| streams(&found, rid, &some);
    assert_eq!(of(rid(1, 1, 0)), None);
    assert_eq!(of(rid(2, 0, 0)), None);
    assert_eq!(of(rid(3, 0, 0)), Some(vec![0x1300]));
}

#[test]
fn rids_that_are_one_stream_are_one_stream() {
    let fabric = Fabric::new(0, old_buses());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let mut one = machine(&[(0, 1)]);
    one.bridges[0].rid_mask = 0;
    assert_eq!(streams(&found, rid(2, 0, 0), &one), Some(vec![0x1000]));
    assert_eq!(one.streams_of_all(0, []), StreamsOf::Unprotected);
    assert_eq!(
        one.streams_of_all(7, [rid(0, 0, 0)]),
        StreamsOf::Unprotected
    );
}
