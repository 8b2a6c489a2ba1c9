//! The EFI application.
//!
//! Boot services are used and never ended; when it is done, firmware, the shell or the boot loader
//! goes on as if nothing had been.

mod console;
mod file;
mod options;
mod raw;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::panic::PanicInfo;

use portcullis::addr::{Extent, Pa};
use portcullis::discover::{AcpiTables, Machine};
use portcullis_probe::{Firmware, Found, Roots, Survey, report};
use spin::Mutex;
use uefi::boot::{self, SearchType};
use uefi::mem::memory_map::{MemoryMap as _, MemoryType};
use uefi::proto::pci::configuration::ResourceRangeType;
use uefi::proto::pci::root_bridge::PciRootBridgeIo;
use uefi::table::cfg::ConfigTableEntry;
use uefi::{Identify as _, Status, system};

use options::Options;

// What would not fit on the stack that UEFI gives.
static MACHINE: Mutex<Machine> = Mutex::new(Machine::new());

#[uefi::entry]
fn main() -> Status {
    let options = Options::given();
    let text = look();
    let saved = file::save(&text);
    let mut whole = text;
    whole += "\n";
    whole += &saved;
    whole += "\nend: ok\n";
    console::show(&whole, options);
    if options.shuts_down {
        uefi::runtime::reset(uefi::runtime::ResetType::SHUTDOWN, Status::SUCCESS, None);
    }
    Status::SUCCESS
}

fn look() -> String {
    let firmware = Firmware {
        vendor: system::firmware_vendor().to_string(),
        revision: system::firmware_revision(),
        uefi: (
            system::uefi_revision().major(),
            system::uefi_revision().minor(),
        ),
    };
    let Some(here) = raw::Here::find() else {
        return "PORTCULLIS PROBE: it runs at EL3 or EL0, where it knows no registers\n".into();
    };
    let read = |at, size_bytes| here.bytes(at, size_bytes);
    let found = Found {
        firmware,
        cpu: here.cpu(),
        tables: rsdp().map(|rsdp| AcpiTables::new(rsdp, &read)),
        memory: &memory(),
        roots: &roots(),
    };
    let mut machine = MACHINE.lock();
    let survey = Survey::take(found, &mut machine, &|extent| here.registers(extent));
    report(&survey, &machine)
}

/// Where the ACPI tables start, by the newest of UEFI's entries for them.
fn rsdp() -> Option<Pa> {
    system::with_config_table(|entries| {
        let of = |guid| entries.iter().find(|entry| entry.guid == guid);
        let entry = of(ConfigTableEntry::ACPI2_GUID).or_else(|| of(ConfigTableEntry::ACPI_GUID));
        entry.map(|entry| Pa::new(entry.address.addr() as u64))
    })
}

/// What UEFI's memory map has of memory, in rising order, neighbours joined.
fn memory() -> Vec<Extent<Pa>> {
    let Ok(map) = boot::memory_map(MemoryType::LOADER_DATA) else {
        return Vec::new();
    };
    let mut runs: Vec<(u64, u64)> = map
        .entries()
        .filter(|it| it.ty != MemoryType::MMIO && it.ty != MemoryType::MMIO_PORT_SPACE)
        .filter(|it| it.ty != MemoryType::RESERVED && it.ty != MemoryType::UNUSABLE)
        .map(|it| {
            (
                it.phys_start,
                it.phys_start
                    .saturating_add(it.page_count.saturating_mul(4096)),
            )
        })
        .collect();
    runs.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in runs {
        match joined.last_mut() {
            Some(last) if last.1 >= start => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    let extent = |(start, end): (u64, u64)| Extent::<Pa>::new(Pa::new(start), end - start);
    joined.into_iter().filter_map(extent).collect()
}

/// The roots of PCI that firmware has found.
fn roots() -> Vec<Roots> {
    let search = SearchType::ByProtocol(&PciRootBridgeIo::GUID);
    let Ok(handles) = boot::locate_handle_buffer(search) else {
        return Vec::new();
    };
    let mut roots = Vec::new();
    for handle in handles.iter() {
        let Some(root) = raw::open::<PciRootBridgeIo>(*handle) else {
            continue;
        };
        let segment = u16::try_from(root.segment_nr());
        for range in root.configuration().unwrap_or_default() {
            let first_bus = u8::try_from(range.address_min);
            let last_bus = u8::try_from(range.address_max);
            if let (ResourceRangeType::Bus, Ok(segment), Ok(first_bus), Ok(last_bus)) =
                (range.resource_range_type, segment, first_bus, last_bus)
            {
                roots.push(Roots {
                    segment,
                    first_bus,
                    last_bus,
                });
            }
        }
    }
    roots
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    uefi::println!("\nPORTCULLIS PROBE: {info}\nPlease send this. Nothing was changed.");
    raw::leave()
}
