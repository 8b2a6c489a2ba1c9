//! Functions are found, sized, placed and turned on, and those that lie are refused.

#[path = "pci/aliases.rs"]
mod aliases;
#[path = "fixtures/fabric.rs"]
mod fabric;
#[path = "pci/reset.rs"]
mod reset;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use fabric::{Bus, Fabric, Function as Fake};
use portcullis::addr::{Extent, Iova, Pa};
use portcullis::discover::{Bridge, List, Rid, Window, WindowKind};
use portcullis::hw::Registers;
use portcullis::pci::{Ecam, Function, Kind, Msi, Refusal, scan};

/// PCIe §7.5.3.2: device/port types.
const ROOT_PORT: u32 = 4;
const UPSTREAM_PORT: u32 = 5;
const DOWNSTREAM_PORT: u32 = 6;
const MEMORY_64: u32 = 4;
const PREFETCHABLE_64: u32 = 12;

fn window(cpu: u64, pci_base: u64, size_bytes: u64, kind: WindowKind) -> Window {
    Window {
        cpu: Extent::<Pa>::new(Pa::new(cpu), size_bytes).expect("it ends below the top"),
        pci_base,
        kind,
    }
}

/// A host bridge with buses `first` to `last` whose 32-bit window the CPU sees 4 TiB up.
fn bridge(first_bus: u8, last_bus: u8) -> Bridge {
    let mut windows = List::new();
    let low = window(
        0x400_1000_0000,
        0x1000_0000,
        0x2eff_0000,
        WindowKind::Memory32,
    );
    windows.push(low).expect("room");
    let high = window(
        0x80_0000_0000,
        0x80_0000_0000,
        0x80_0000_0000,
        WindowKind::Memory64,
    );
    windows.push(high).expect("room");
    Bridge {
        segment: 3,
        ecam: None,
        first_bus,
        last_bus,
        windows,
        is_coherent: true,
        rid_mask: 0xffff,
        streams: List::new(),
    }
}

fn rid(bus: u8, device: u8, function: u8) -> Rid {
    Rid::new(bus, device, function).expect("a RID")
}

fn look(fabric: &Fabric, bridge: &Bridge) -> Result<List<Function, 64>, Refusal> {
    let mut found = List::new();
    scan(&Ecam::new(fabric, bridge), &bridge.windows, &mut found)?;
    Ok(found)
}

fn rids(found: &[Function]) -> Vec<Rid> {
    found.iter().map(|function| function.rid).collect()
}

fn edu() -> Fake {
    Fake::endpoint(0x1234, 0x11e8, 0xff_0000)
        .bar(0, 1 << 20, 0)
        .msi(0x0080)
}

fn nvme() -> Fake {
    Fake::endpoint(0x1b36, 0x0010, 0x01_0802).bar(0, 1 << 14, MEMORY_64)
}

/// The address at which PCI sees BAR `bar`.
fn pci_address(bridge: &Bridge, function: &Function, bar: usize) -> u64 {
    let at = function.bars[bar].expect("a BAR").at.expect("a place");
    let window = bridge
        .windows
        .iter()
        .find(|window| window.cpu.contains(at.base()));
    let window = window.expect("it lies in a window");
    at.base().as_u64() - window.cpu.base().as_u64() + window.pci_base
}

/// Turns the memory of every function on and asserts that each BAR's first and last byte reach
/// that function and no other.
fn assert_all_reached(fabric: &Fabric, bridge: &Bridge, found: &[Function]) {
    let ecam = Ecam::new(fabric, bridge);
    for function in found {
        ecam.enable_memory(function.rid)
            .expect("it takes the command");
    }
    for function in found {
        let ids = (function.vendor, function.device);
        for (number, bar) in function.bars.iter().enumerate() {
            let Some(bar) = bar else { continue };
            let base = pci_address(bridge, function, number);
            assert!(base.is_multiple_of(bar.size_bytes), "{function:?}");
            for inside in [0, bar.size_bytes - 1] {
                let expected = [(ids.0, ids.1, inside)];
                assert_eq!(fabric.decode(base + inside), expected, "{function:?}");
            }
        }
    }
}

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

#[test]
fn a_bar_is_placed_where_its_width_allows() {
    let wide = Fake::endpoint(1, 2, 0).bar(2, 1 << 36, PREFETCHABLE_64);
    let fabric = Fabric::new(0, [((0, 0), wide), ((1, 0), edu())].into());
    let bridge = bridge(0, 255);
    let found = look(&fabric, &bridge).expect("room for all");
    assert_eq!(pci_address(&bridge, &found[0], 2), 0x80_0000_0000);
    assert_eq!(fabric.with(0, 0, 0, |fake| fake.get(0x18)), Some(0xc));
    assert_eq!(fabric.with(0, 0, 0, |fake| fake.get(0x1c)), Some(0x80));
    assert_eq!(pci_address(&bridge, &found[1], 0), 0x1000_0000);
    let cpu = found[1].bars[0].expect("a BAR").at.expect("a place");
    assert_eq!(cpu.base(), Pa::new(0x400_1000_0000));
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
fn large_bars_go_first_so_that_a_window_is_filled() {
    // In the order of the devices, or of ascending size, the last would not fit.
    let root = [28, 20, 27, 26, 28]
        .iter()
        .enumerate()
        .map(|(device, log2_bytes)| {
            let fake = Fake::endpoint(1, device as u16, 0).bar(0, 1 << log2_bytes, 0);
            ((device as u8, 0), fake)
        });
    let fabric = Fabric::new(0, root.collect());
    let bridge = bridge(0, 255);
    let found = look(&fabric, &bridge).expect("room for all");
    assert!(found.iter().all(|function| function.refused.is_none()));
    assert_all_reached(&fabric, &bridge, &found);
}

#[test]
fn no_bar_lies_at_address_0() {
    let mut bridge = bridge(0, 255);
    bridge.windows = List::new();
    let low = window(0x6100_0000, 0, 0x100_0000, WindowKind::Memory32);
    bridge.windows.push(low).expect("room");
    let fabric = Fabric::new(0, [((1, 0), edu()), ((2, 0), nvme())].into());
    let found = look(&fabric, &bridge).expect("room for all");
    assert_eq!(pci_address(&bridge, &found[0], 0), 0x10_0000);
    let cpu = found[0].bars[0].expect("a BAR").at.expect("a place");
    assert_eq!(cpu.base(), Pa::new(0x6110_0000));
    assert_all_reached(&fabric, &bridge, &found);
}

#[test]
fn functions_of_a_device_that_says_it_has_one_are_not_looked_for() {
    let hidden = [((1, 0), edu()), ((1, 1), edu()), ((2, 3), edu())];
    let fabric = Fabric::new(0, hidden.into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    assert_eq!(rids(&found), [rid(0, 1, 0)]);
}

#[test]
fn a_function_that_stays_on_is_refused_and_never_sized() {
    let mut stubborn = edu();
    stubborn.registers.insert(0x04, 0x0006);
    stubborn.writable.insert(0x04, 0x0002);
    let fabric = Fabric::new(0, [((1, 0), stubborn), ((2, 0), edu())].into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let refusal = Refusal::Forgets {
        rid: rid(0, 1, 0),
        offset: 4,
        wrote: 0,
        found: 4,
    };
    assert_eq!(found[0].refused, Some(refusal));
    assert_eq!(found[0].bars, [None; 6]);
    assert_eq!(found[1].refused, None);
}

#[test]
fn bars_that_make_no_sense_are_refused() {
    let refusal = |fake: Fake| {
        let fabric = Fabric::new(0, [((1, 0), fake), ((2, 0), edu())].into());
        let found = look(&fabric, &bridge(0, 255)).expect("room for all");
        assert_eq!(found[1].refused, None);
        found[0].refused
    };
    let nonsense = |bar, answer| {
        Some(Refusal::BarMakesNoSense {
            rid: rid(0, 1, 0),
            bar,
            answer,
        })
    };
    let mut holes = edu();
    holes.writable.insert(0x10, 0xfff0_f000);
    assert_eq!(refusal(holes), nonsense(0, 0xffff_ffff_fff0_f000));
    let below_1_mib = edu().bar(1, 1 << 12, 2);
    assert_eq!(refusal(below_1_mib), nonsense(1, 0xffff_f002));
    let half = edu().bar(5, 1 << 12, MEMORY_64);
    assert_eq!(refusal(half), nonsense(5, 0xffff_f004));
    let stuck = {
        let mut fake = edu().bar(1, 1 << 12, 0);
        fake.registers.insert(0x14, 0);
        fake.writable.insert(0x14, 0);
        fake.registers.insert(0x18, 0x0000_0008);
        fake
    };
    // Only the flags are there: all 64 bits are below the size.
    assert_eq!(refusal(stuck), nonsense(2, 0xffff_ffff_0000_0000));
}

#[test]
fn a_bar_larger_than_its_window_is_refused_and_others_are_placed() {
    let large = Fake::endpoint(1, 2, 0)
        .bar(0, 1 << 31, 0)
        .bar(1, 1 << 12, 0);
    let fabric = Fabric::new(0, [((1, 0), large), ((2, 0), edu())].into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let refusal = Refusal::NoRoom {
        rid: rid(0, 1, 0),
        bar: 0,
        size_bytes: 1 << 31,
    };
    assert_eq!(found[0].refused, Some(refusal));
    assert_eq!(found[0].bars[0].expect("a BAR").at, None);
    assert!(found[1].bars[0].expect("a BAR").at.is_some());
}

#[test]
fn io_bars_are_left_alone() {
    let mut fake = edu();
    fake.registers.insert(0x14, 1);
    fake.writable.insert(0x14, 0xffff_ffe0);
    let fabric = Fabric::new(0, [((1, 0), fake)].into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    assert_eq!(found[0].refused, None);
    assert_eq!(found[0].bars[1], None);
    assert_eq!(fabric.with(0, 1, 0, |fake| fake.get(0x14)), Some(1));
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

#[test]
fn an_msi_is_programmed_as_the_capability_is_laid_out() {
    for (control, data_at) in [(0x0080, 0x6c), (0x0000, 0x68)] {
        let fake = Fake::endpoint(1, 2, 0).msi(control | 0x0070);
        let fabric = Fabric::new(0, [((1, 0), fake)].into());
        let bridge = bridge(0, 255);
        let msi = Msi {
            address: Iova::new(0x8765_4320),
            data: 0xabcd,
        };
        let ecam = Ecam::new(&fabric, &bridge);
        ecam.set_msi(rid(0, 1, 0), msi)
            .expect("it takes the message");
        let get = |at| {
            fabric
                .with(0, 1, 0, |fake| fake.get(at))
                .expect("it is there")
        };
        assert_eq!(get(0x60), (control | 1) << 16 | 0x05);
        assert_eq!(get(0x64), 0x8765_4320);
        assert_eq!(get(data_at), 0xabcd);
    }
}

#[test]
fn an_msi_that_the_function_cannot_send_is_refused_and_left_off() {
    let fabric = Fabric::new(
        0,
        [
            ((1, 0), Fake::endpoint(1, 2, 0).msi(0x0001)),
            ((2, 0), Fake::endpoint(1, 2, 0).msi(0x0081)),
            ((3, 0), nvme()),
        ]
        .into(),
    );
    let bridge = bridge(0, 255);
    let ecam = Ecam::new(&fabric, &bridge);
    let send = |device, address| {
        let address = Iova::new(address);
        ecam.set_msi(rid(0, device, 0), Msi { address, data: 1 })
    };
    let refusal = |device, address| {
        Err(Refusal::MsiAddress {
            rid: rid(0, device, 0),
            address: Iova::new(address),
        })
    };
    assert_eq!(send(1, 1 << 32), refusal(1, 1 << 32));
    assert_eq!(send(2, 0x1002), refusal(2, 0x1002));
    for device in [1, 2] {
        assert_eq!(
            fabric.with(0, device, 0, |fake| fake.get(0x60) >> 16 & 1),
            Some(0)
        );
    }
    assert_eq!(send(2, 1 << 63), Ok(()));
    assert_eq!(
        fabric.with(0, 2, 0, |fake| fake.get(0x68)),
        Some(0x8000_0000)
    );
    let absent = Refusal::NoCapability {
        rid: rid(0, 3, 0),
        id: 5,
    };
    assert_eq!(send(3, 0x1000), Err(absent));
}

#[test]
fn capabilities_that_loop_or_lie_in_the_header_are_refused() {
    let mut looping = edu();
    looping.capability(0x40, 0x01, 0x50, 0);
    looping.capability(0x50, 0x09, 0x40, 0);
    let mut low = edu();
    low.capability(0x40, 0x01, 0x3c, 0);
    let mut last = edu();
    last.capability(0xfc, 0x11, 0x60, 0);
    let root = [((1, 0), looping), ((2, 0), low), ((3, 0), last)];
    let fabric = Fabric::new(0, root.into());
    let bridge = bridge(0, 255);
    let ecam = Ecam::new(&fabric, &bridge);
    let (first, second, third) = (rid(0, 1, 0), rid(0, 2, 0), rid(0, 3, 0));
    let endless = Refusal::CapabilityLoop { rid: first };
    assert_eq!(ecam.capability(first, 5), Err(endless));
    assert_eq!(ecam.capability(first, 9), Ok(0x50));
    let place = Refusal::CapabilityPlace {
        rid: second,
        offset: 0x3c,
    };
    assert_eq!(ecam.capability(second, 5), Err(place));
    assert_eq!(ecam.capability(third, 5), Ok(0x60));
}

#[test]
fn commands_change_one_bit_and_leave_the_status_alone() {
    let mut fake = edu();
    fake.registers.insert(0x04, 0xf910_0400);
    let fabric = Fabric::new(0, [((1, 0), fake)].into());
    let bridge = bridge(0, 255);
    let ecam = Ecam::new(&fabric, &bridge);
    let command = || fabric.with(0, 1, 0, |fake| fake.get(0x04));
    let rid = rid(0, 1, 0);
    ecam.enable_memory(rid).expect("it takes the command");
    assert_eq!(command(), Some(0xf910_0402));
    ecam.enable_bus_master(rid).expect("it takes the command");
    assert_eq!(command(), Some(0xf910_0406));
    ecam.disable_bus_master(rid).expect("it takes the command");
    assert_eq!(command(), Some(0xf910_0402));
}

#[test]
fn what_is_not_there_is_refused() {
    let fabric = Fabric::new(4, Bus::new());
    let bridge = bridge(4, 5);
    let ecam = Ecam::new(&fabric, &bridge);
    let absent = Refusal::Absent { rid: rid(4, 0, 0) };
    assert_eq!(ecam.enable_memory(rid(4, 0, 0)), Err(absent));
    let no_bus = Refusal::NoSuchBus { bus: 6 };
    assert_eq!(ecam.read(rid(6, 0, 0), 0), Err(no_bus));
    assert_eq!(
        ecam.read(rid(3, 0, 0), 0),
        Err(Refusal::NoSuchBus { bus: 3 })
    );
}

/// Configuration space that answers anything, differently each time.
struct Noise {
    state: AtomicU64,
    accesses: AtomicUsize,
}

impl Noise {
    fn new(seed: u64) -> Self {
        Self {
            state: AtomicU64::new(seed),
            accesses: AtomicUsize::new(0),
        }
    }

    fn next(&self) -> u64 {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let step = 0x9e37_79b9_7f4a_7c15;
        let state = self.state.fetch_add(step, Ordering::Relaxed);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Registers for &Noise {
    fn read32(&self, offset: usize) -> u32 {
        let word = self.next();
        match (word >> 32 & 7, offset & 0xfff) {
            // Few functions are there, most of them bridges and most of these with low numbers.
            (0..7, 0) => u32::MAX,
            (0..4, 0x0c) => 0x0001_0000,
            (0..6, 0x04) => 0x0010_0000,
            (0..6, 0x18) => word as u32 & 0x0f0f_0f0f,
            (0..2, _) => 0,
            (2, _) => u32::MAX,
            _ => word as u32,
        }
    }

    fn write32(&self, _: usize, _: u32) {
        self.next();
    }

    fn read64(&self, _: usize) -> u64 {
        self.next()
    }

    fn write64(&self, _: usize, _: u64) {
        self.next();
    }
}

#[test]
fn a_fabric_that_answers_anything_is_scanned_to_an_end() {
    let mut listed = 0;
    let mut refused = 0;
    for seed in 0..3000 {
        let noise = Noise::new(seed << 20);
        let bridge = bridge(0, 255);
        let mut found = List::<Function, 64>::new();
        let ended = scan(&Ecam::new(&noise, &bridge), &bridge.windows, &mut found);
        let is_full = Refusal::TooMany { limit: 64 };
        assert!(
            ended == Ok(()) || ended == Err(is_full),
            "{seed}: {ended:?}"
        );
        listed += found.len();
        refused += found
            .iter()
            .filter(|function| function.refused.is_some())
            .count();
        // 256 buses with 32 devices of 8 functions, seen twice, and what is done with 64 of them.
        let accesses = noise.accesses.load(Ordering::Relaxed);
        assert!(
            accesses < 2 * 256 * 256 * 2 + 64 * 200,
            "{seed}: {accesses}"
        );
        for function in &found {
            assert!(
                !function
                    .refused
                    .is_some_and(|refusal| refusal.to_string().is_empty())
            );
        }
    }
    assert!(listed > 3000 && refused > 1000, "{listed} {refused}");
}
