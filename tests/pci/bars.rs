//! BARs: sized, placed, or refused.

use super::*;

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
