//! Functions are found, sized, placed and turned on, and those that lie are refused.

mod aliases;
mod bars;
mod buses;
mod capabilities;
#[path = "../fixtures/fabric.rs"]
mod fabric;
mod noise;
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
