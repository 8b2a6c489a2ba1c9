//! Buses: numbered, kept, or refused.

use super::*;

#[test]
fn functions_on_the_root_bus_are_listed_placed_and_off() {
    let running = {
        let mut fake = nvme();
        fake.registers.insert(0x04, 0x0006);
        fake
    };
    let fabric = Fabric::new(0, [((2, 0), edu()), ((3, 0), running)].into());
    let bridge = bridge(0, 255);
    let found = look(&fabric, &bridge).expect("room for all");
    assert_eq!(rids(&found), [rid(0, 2, 0), rid(0, 3, 0)]);
    assert_eq!(found[0].segment, 3);
    assert_eq!((found[0].vendor, found[0].device), (0x1234, 0x11e8));
    assert_eq!(found[1].class.to_string(), "010802");
    assert_eq!(found[1].kind, Kind::Endpoint);
    assert_eq!(fabric.with(0, 3, 0, |fake| fake.get(0x04)), Some(0));
    assert_eq!(fabric.decode(pci_address(&bridge, &found[0], 0)), []);
    assert_all_reached(&fabric, &bridge, &found);
}

/// Two root ports, one with a switch behind it that has two ports.
fn two_ports_and_a_switch() -> Bus {
    let graphics = Fake::endpoint(7, 8, 0x03_0000)
        .bar(0, 1 << 24, 0)
        .bar(2, 1 << 33, PREFETCHABLE_64)
        .bar(4, 1 << 12, MEMORY_64);
    let many = [
        ((0, 0), edu().multifunction()),
        ((0, 1), Fake::endpoint(9, 1, 0).bar(0, 1 << 12, 0)),
        ((0, 7), Fake::endpoint(9, 7, 0).bar(0, 16, 0)),
    ];
    let port = |behind: Bus| Fake::bridge(DOWNSTREAM_PORT, behind).bar(0, 1 << 12, 0);
    let switch = [
        ((0, 0), port([((0, 0), graphics)].into())),
        ((1, 0), port(many.into())),
    ];
    let upstream = Fake::bridge(UPSTREAM_PORT, switch.into());
    [
        ((1, 0), Fake::bridge(ROOT_PORT, [((0, 0), nvme())].into())),
        ((2, 0), edu().bar(1, 1 << 12, 0)),
        ((3, 0), Fake::bridge(ROOT_PORT, [((0, 0), upstream)].into())),
        ((4, 0), Fake::bridge(ROOT_PORT, Bus::new())),
    ]
    .into()
}

const NUMBERED: [(u8, u8, u8); 10] = [
    (0, 1, 0),
    (1, 0, 0),
    (0, 2, 0),
    (0, 3, 0),
    (2, 0, 0),
    (3, 0, 0),
    (4, 0, 0),
    (3, 1, 0),
    (5, 0, 0),
    (5, 0, 1),
];

#[test]
fn buses_without_numbers_get_them_in_depth_first_order() {
    let fabric = Fabric::new(0, two_ports_and_a_switch());
    let bridge = bridge(0, 255);
    let found = look(&fabric, &bridge).expect("room for all");
    let expected = NUMBERED.map(|(bus, device, function)| rid(bus, device, function));
    assert_eq!(rids(&found)[..10], expected);
    assert_eq!(rids(&found)[10..], [rid(5, 0, 7), rid(0, 4, 0)]);
    let numbers = |device| fabric.with(0, device, 0, |fake| fake.get(0x18));
    assert_eq!(numbers(1), Some(0x01_01_00));
    assert_eq!(numbers(3), Some(0x05_02_00));
    assert_eq!(numbers(4), Some(0x06_06_00));
    assert!(found.iter().all(|function| function.refused.is_none()));
    assert_all_reached(&fabric, &bridge, &found);
}

#[test]
fn a_bridge_with_nothing_behind_it_passes_no_memory_on() {
    let fabric = Fabric::new(0, two_ports_and_a_switch());
    look(&fabric, &bridge(0, 255)).expect("room for all");
    assert_eq!(
        fabric.with(0, 4, 0, |fake| fake.get(0x20)),
        Some(0x0000_fff0)
    );
    assert_eq!(
        fabric.with(0, 4, 0, |fake| fake.get(0x24)),
        Some(0x0001_fff1)
    );
}

#[test]
fn numbers_of_firmware_that_make_sense_are_kept() {
    let mut root = two_ports_and_a_switch();
    let set = |fake: &mut Fake, numbers| fake.registers.insert(0x18, numbers);
    set(root.get_mut(&(1, 0)).expect("a port"), 0x7f_75_74);
    root.retain(|place, _| *place == (1, 0));
    let fabric = Fabric::new(0x74, root);
    let bridge = bridge(0x74, 0x7f);
    let found = look(&fabric, &bridge).expect("room for all");
    assert_eq!(rids(&found), [rid(0x74, 1, 0), rid(0x75, 0, 0)]);
    let kind = Kind::Bridge {
        secondary: 0x75,
        subordinate: 0x7f,
    };
    assert_eq!(found[0].kind, kind);
    assert_all_reached(&fabric, &bridge, &found);
}

/// Two ports with these primary, secondary and subordinate buses, lowest byte first.
fn found_behind_ports(numbers: [u32; 2]) -> Vec<Rid> {
    let port = |numbers| {
        let mut port = Fake::bridge(ROOT_PORT, [((0, 0), nvme())].into());
        port.registers.insert(0x18, numbers);
        port
    };
    let root = [((1, 0), port(numbers[0])), ((4, 0), port(numbers[1]))];
    let found = look(&Fabric::new(0, root.into()), &bridge(0, 0x30)).expect("room for all");
    assert!(found.iter().all(|function| function.refused.is_none()));
    rids(&found)
}

#[test]
fn numbers_that_make_no_sense_are_given_out_anew() {
    let ports = |first, second| {
        [
            rid(0, 1, 0),
            rid(first, 0, 0),
            rid(0, 4, 0),
            rid(second, 0, 0),
        ]
    };
    assert_eq!(found_behind_ports([0x05_05_00, 0x30_06_00]), ports(5, 6));
    let senseless = [
        [0x05_05_00, 0x05_05_00],
        [0x06_05_00, 0x06_06_00],
        [0x05_05_00, 0x05_06_00],
        [0x05_05_01, 0x06_06_00],
        [0x05_05_00, 0x31_06_00],
        [0x00_00_00, 0x06_06_00],
    ];
    for numbers in senseless {
        assert_eq!(found_behind_ports(numbers), ports(1, 2), "{numbers:x?}");
    }
}

#[test]
fn buses_that_no_number_is_left_for_are_refused_and_the_rest_goes_on() {
    let fabric = Fabric::new(0, two_ports_and_a_switch());
    let found = look(&fabric, &bridge(0, 2)).expect("room for all");
    let refusals: Vec<_> = found
        .iter()
        .filter_map(|function| function.refused)
        .collect();
    let no_number = |bus, device| Refusal::NoBusNumber {
        rid: rid(bus, device, 0),
    };
    assert_eq!(refusals, [no_number(2, 0), no_number(0, 4)]);
    assert_eq!(found[1].rid, rid(1, 0, 0));
    assert_eq!(found[1].refused, None);
}

#[test]
fn bridges_without_end_are_cut_off_after_a_bounded_count_of_accesses() {
    let mut endless = Fake::bridge(ROOT_PORT, Bus::new());
    endless.is_endless = true;
    let fabric = Fabric::new(0, [((0, 0), endless)].into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    assert_eq!(found.len(), 17);
    let deepest = found[16];
    assert_eq!(deepest.refused, Some(Refusal::TooDeep { rid: deepest.rid }));
    let accesses = fabric.accesses.load(Ordering::Relaxed);
    assert!(accesses < 2000, "{accesses}");
}

#[test]
fn a_device_behind_a_port_is_seen_once_wherever_it_answers() {
    for port in [ROOT_PORT, DOWNSTREAM_PORT] {
        let mut everywhere = edu();
        everywhere.is_everywhere = true;
        let behind = Fake::bridge(port, [((0, 0), everywhere)].into());
        let fabric = Fabric::new(0, [((1, 0), behind)].into());
        let found = look(&fabric, &bridge(0, 255)).expect("room for all");
        assert_eq!(rids(&found), [rid(0, 1, 0), rid(1, 0, 0)]);
    }
}

#[test]
fn functions_of_a_device_that_says_it_has_one_are_not_looked_for() {
    let hidden = [((1, 0), edu()), ((1, 1), edu()), ((2, 3), edu())];
    let fabric = Fabric::new(0, hidden.into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    assert_eq!(rids(&found), [rid(0, 1, 0)]);
}

#[test]
fn a_bridge_that_forgets_its_numbers_is_refused_with_what_is_behind_it() {
    let mut forgetful = Fake::bridge(ROOT_PORT, [((0, 0), edu())].into());
    forgetful.writable.insert(0x18, 0x0000_ffff);
    let fabric = Fabric::new(0, [((1, 0), forgetful), ((2, 0), edu())].into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    assert_eq!(rids(&found), [rid(0, 1, 0), rid(0, 2, 0)]);
    assert!(matches!(
        found[0].refused,
        Some(Refusal::Forgets { offset: 0x18, .. })
    ));
    assert_eq!(found[0].kind, Kind::Closed);
    assert_eq!(found[1].refused, None);
}

#[test]
fn what_is_behind_a_bridge_that_opens_no_window_is_refused() {
    let mut closed = Fake::bridge(ROOT_PORT, [((0, 0), edu())].into());
    closed.writable.insert(0x20, 0);
    let fabric = Fabric::new(0, [((1, 0), closed)].into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    assert!(matches!(
        found[0].refused,
        Some(Refusal::Forgets { offset: 0x20, .. })
    ));
    let behind = Refusal::Behind {
        bridge: rid(0, 1, 0),
    };
    assert_eq!(found[1].refused, Some(behind));
    assert_eq!(fabric.with(0, 1, 0, |fake| fake.get(0x04) & 7), Some(0));
}

#[test]
fn a_header_that_is_neither_is_refused() {
    let mut cardbus = edu();
    cardbus.registers.insert(0x0c, 0x02_0000);
    let fabric = Fabric::new(0, [((1, 0), cardbus)].into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let refusal = Refusal::Header {
        rid: rid(0, 1, 0),
        header: 2,
    };
    assert_eq!(
        (found[0].refused, found[0].kind),
        (Some(refusal), Kind::Closed)
    );
}

#[test]
fn a_full_list_ends_the_scan_by_name() {
    let root: Bus = (0..32).map(|device| ((device, 0), edu())).collect();
    let fabric = Fabric::new(0, root);
    let bridge = bridge(0, 0);
    let mut found = List::<Function, 31>::new();
    let refusal = scan(&Ecam::new(&fabric, &bridge), &bridge.windows, &mut found);
    assert_eq!(refusal, Err(Refusal::TooMany { limit: 31 }));
    assert_eq!(found.len(), 31);
}
