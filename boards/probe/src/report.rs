//! The report.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use portcullis::discover::{
    Conduit, ConsoleKind, Device, Interrupt, Machine, Quirks, SmmuInterrupts, Stream, Streams,
    StreamsOf,
};

use crate::cpu::ExceptionLevel;
use crate::functions::{Function, FunctionKind};
use crate::layout::Layout;
use crate::registers::SmmuRegisters;
use crate::survey::{Survey, SurveyedSmmu};
use crate::verdict;
use crate::words::{self, Words};

/// What `survey` saw of `machine`, in lines of at most [`COLUMNS`](crate::COLUMNS).
pub fn report(survey: &Survey<'_>, machine: &Machine) -> String {
    let mut out = Layout::default();
    out.section(concat!(
        "PORTCULLIS PROBE ",
        env!("CARGO_PKG_VERSION"),
        ": what Portcullis would find here (nothing is changed)"
    ));
    firmware(&mut out, survey, machine);
    cpu(&mut out, survey, machine);
    smmus(&mut out, survey, machine);
    devices(&mut out, survey, machine);
    kept(&mut out, machine);
    rest(&mut out, machine);
    verdict::write(&mut out, survey, machine);
    out.finish()
}

fn firmware(out: &mut Layout, survey: &Survey<'_>, machine: &Machine) {
    out.section("FIRMWARE");
    let firmware = &survey.firmware;
    let (major, minor) = firmware.uefi;
    out.line(format_args!(
        "{}, revision {:#x}, UEFI {major}.{minor:02}",
        firmware.vendor, firmware.revision
    ));
    tables(out, survey);
    for refusal in &survey.odd {
        out.line(format_args!("MAKES NO SENSE: {refusal}"));
    }
    let psci = match machine.psci {
        Some(Conduit::Smc) => "PSCI by SMC",
        Some(Conduit::Hvc) => "PSCI by HVC",
        None => "no PSCI",
    };
    let bytes: u64 = machine.memory.iter().map(|it| it.size_bytes()).sum();
    let (runs, mebibytes) = (machine.memory.len(), bytes >> 20);
    out.line(format_args!(
        "{psci}; {mebibytes} MiB of memory in {runs} runs"
    ));
}

fn tables(out: &mut Layout, survey: &Survey<'_>) {
    let tables = match &survey.tables {
        None => {
            out.line(format_args!(
                "no ACPI tables; firmware may hand over a device tree instead, or have a menu that \
                 chooses"
            ));
            return;
        }
        Some(Err(refusal)) => {
            out.line(format_args!("ACPI tables cannot be read: {refusal}"));
            return;
        }
        Some(Ok(tables)) => tables,
    };
    for table in tables {
        let signature = match table.signature.as_str() {
            "" => "????",
            signature => signature,
        };
        let oem = table.oem.to_string();
        let state = table
            .refusal
            .map_or_else(String::new, |refusal| format!(": {refusal}"));
        let (at, oem) = (table.at, oem.trim());
        out.line(format_args!("{signature} at {at} by {oem}{state}"));
    }
}

fn cpu(out: &mut Layout, survey: &Survey<'_>, machine: &Machine) {
    out.section("CPU");
    let cpu = &survey.cpu;
    let level = match cpu.level {
        ExceptionLevel::El1 => 1,
        ExceptionLevel::El2 => 2,
    };
    let bits = cpu
        .physical_bits()
        .map_or_else(|| "a reserved number of".into(), |bits| bits.to_string());
    out.line(format_args!(
        "firmware runs at EL{level}; {} CPUs",
        machine.cpus.len()
    ));
    out.line(format_args!(
        "MIDR {:#x}, MPIDR {:#x}, PFR0 {:#x}",
        cpu.midr, cpu.mpidr, cpu.pfr0
    ));
    out.line(format_args!(
        "MMFR0 {:#x}, MMFR1 {:#x}, MMFR2 {:#x}",
        cpu.mmfr0, cpu.mmfr1, cpu.mmfr2
    ));
    out.line(format_args!(
        "{bits} bits of physical address (PARange), VMIDs of {} bits, BBM level {}, {}",
        if cpu.has_16_bit_vmids() { 16 } else { 8 },
        cpu.bbm_level(),
        if cpu.has_vhe() { "VHE" } else { "no VHE" },
    ));
}

fn smmus(out: &mut Layout, survey: &Survey<'_>, machine: &Machine) {
    out.section("SMMUS");
    if machine.smmus.is_empty() && survey.only_found.is_empty() {
        out.line(format_args!("none in the tables"));
    }
    for found in &survey.only_found {
        out.line(format_args!(
            "an SMMU at {} ({}), of which the tables make no more sense: not looked at",
            found.registers.base(),
            found.name,
        ));
    }
    for (place, (smmu, seen)) in machine.smmus.iter().zip(&survey.smmus).enumerate() {
        let coherent = if smmu.is_coherent {
            "coherent"
        } else {
            "not coherent"
        };
        let base = smmu.registers.base();
        out.line(format_args!(
            "SMMU {place} at {base}: {coherent} by IORT, {}",
            wires(&smmu.interrupts)
        ));
        one_smmu(out, seen);
        quirks(out, smmu.quirks, seen);
    }
}

fn one_smmu(out: &mut Layout, seen: &SurveyedSmmu) {
    let Some(registers) = &seen.registers else {
        out.detail(format_args!("firmware has not mapped it: not looked at"));
        return;
    };
    let [idr0, idr1, idr2, idr3, idr4, idr5] = registers.idr;
    let decoded = [
        (0, idr0, Some(words::idr0(idr0))),
        (1, idr1, Some(words::idr1(idr1))),
        (2, idr2, Some(words::idr2(idr0, idr2))),
        (3, idr3, Some(words::idr3(idr3))),
        (4, idr4, Some(words::idr4())),
        (5, idr5, Some(words::idr5(idr5))),
        (
            6,
            registers.idr6,
            (idr1 >> 31 != 0).then(|| words::idr6(registers.idr6)),
        ),
    ];
    for (number, value, words) in decoded {
        out.detail(format_args!("IDR{number} {value:#010x}{}", in_words(words)));
    }
    let (iidr, aidr) = (registers.iidr, registers.aidr);
    out.detail(format_args!(
        "IIDR {iidr:#010x}: by {} ({:#x}), product {:#x}, variant {}, revision {}",
        words::implementer(iidr & 0xfff),
        iidr & 0xfff,
        iidr >> 20,
        iidr >> 16 & 0xf,
        iidr >> 12 & 0xf,
    ));
    out.detail(format_args!("AIDR {aidr:#010x}: SMMUv3.{}", aidr & 0xf));
    state(out, registers);
}

fn in_words(words: Option<Words>) -> String {
    let Some(words) = words else {
        return String::new();
    };
    let mut text = format!(": {}", words.has.join(", "));
    if !words.lacks.is_empty() {
        text += "; not: ";
        text += &words.lacks.join(", ");
    }
    text
}

/// How firmware left it.
fn state(out: &mut Layout, registers: &SmmuRegisters) {
    let SmmuRegisters {
        cr0,
        cr0ack,
        gbpa,
        strtab_base,
        strtab_base_cfg,
        ..
    } = *registers;
    out.detail(format_args!(
        "CR0 {cr0:#x}, CR0ACK {cr0ack:#x}, GBPA {gbpa:#x}, STRTAB_BASE {strtab_base:#x}, \
         STRTAB_BASE_CFG {strtab_base_cfg:#x}"
    ));
    if registers.is_on() {
        let format = match strtab_base_cfg >> 16 & 3 {
            1 => "two-level",
            _ => "linear",
        };
        out.detail(format_args!(
            "left ON by firmware: {format} table of 2^{} entries at {:#x}",
            strtab_base_cfg & 0x3f,
            strtab_base & 0x00ff_ffff_ffff_ffc0,
        ));
    } else if registers.aborts_when_off() {
        out.detail(format_args!("left off by firmware, all DMA aborts"));
    } else {
        out.detail(format_args!(
            "left off by firmware, all DMA passes unchecked"
        ));
    }
}

fn quirks(out: &mut Layout, board: Quirks, seen: &SurveyedSmmu) {
    let iidr = seen.registers.map_or(0, |registers| registers.iidr);
    let quirks = board.with_iidr(iidr);
    let names = [
        (
            quirks.has_broken_prefetch,
            "CMD_PREFETCH_* is never sent (erratum 161010701)",
        ),
        (quirks.has_broken_page1, "no page 1"),
        (
            quirks.needs_fixed_msi_address,
            "MSIs go where they are meant (errata 161010801, 161010803)",
        ),
        (
            quirks.needs_flush_of_new_tables,
            "new tables are followed by an invalidation (erratum 162100602)",
        ),
    ];
    for (_, name) in names.iter().filter(|(holds, _)| *holds) {
        out.detail(format_args!("quirk: {name}"));
    }
}

/// What reports its events.
pub(crate) fn wires(interrupts: &SmmuInterrupts) -> String {
    let named = [
        ("all", interrupts.combined),
        ("events", interrupts.event_queue),
        ("global errors", interrupts.global_error),
        ("CMD_SYNC", interrupts.command_sync),
        ("page requests", interrupts.pri_queue),
    ];
    let wires: Vec<_> = named
        .iter()
        .filter_map(|(name, wire)| match wire.as_ref()? {
            Interrupt::Gic { intid, .. } => Some(format!("{name} {intid}")),
            Interrupt::Elsewhere => Some(format!("{name} into no GIC")),
        })
        .collect();
    if wires.is_empty() {
        return "no wired interrupts".into();
    }
    format!("wired interrupts: {}", wires.join(", "))
}

fn devices(out: &mut Layout, survey: &Survey<'_>, machine: &Machine) {
    out.section("DEVICES, THE UNPROTECTED ONES FIRST");
    let functions = survey.functions.iter();
    let (open, behind): (Vec<_>, Vec<_>) =
        functions.partition(|it| streams_of(machine, it).is_none());
    let components = machine.devices.iter();
    let (open_components, components): (Vec<_>, Vec<_>) =
        components.partition(|it| is_unprotected(machine, it));
    out.line(format_args!(
        "{} PCI functions, {} of them unprotected; {} named components, {} of them unprotected",
        open.len() + behind.len(),
        open.len(),
        open_components.len() + components.len(),
        open_components.len(),
    ));
    open.into_iter().for_each(|it| function(out, machine, it));
    open_components
        .into_iter()
        .for_each(|it| component(out, machine, it));
    behind.into_iter().for_each(|it| function(out, machine, it));
    components
        .into_iter()
        .for_each(|it| component(out, machine, it));
    for bridge in machine.bridges.iter().filter(|it| it.ecam.is_none()) {
        out.line(format_args!(
            "segment {:04x}: its configuration space cannot be read: functions are not listed",
            bridge.segment
        ));
    }
    for (segment, bus) in &survey.unseen {
        out.line(format_args!(
            "bus {segment:04x}:{bus:02x}: firmware has not mapped it: not looked at"
        ));
    }
}

/// The streams of a function all of whose traffic goes through an SMMU.
pub(crate) fn streams_of(machine: &Machine, function: &Function) -> Option<Streams> {
    match machine.streams_of_all(function.segment, function.rids()) {
        StreamsOf::Behind(streams) => Some(streams),
        StreamsOf::Unprotected => None,
    }
}

pub(crate) fn is_unprotected(machine: &Machine, device: &Device) -> bool {
    machine.streams_of_device(device) == StreamsOf::Unprotected
}

fn place_of(stream: Stream) -> String {
    format!("SMMU {} stream {}", stream.smmu.as_usize(), stream.id)
}

fn function(out: &mut Layout, machine: &Machine, function: &Function) {
    let place = streams_of(machine, function).map_or_else(
        || "UNPROTECTED".into(),
        |streams| {
            let places: Vec<_> = streams.iter().copied().map(place_of).collect();
            places.join(" or ")
        },
    );
    let aliases: String = function
        .aliases
        .iter()
        .map(|alias| format!(", may come as {alias}"))
        .collect();
    let Function {
        segment,
        rid,
        vendor,
        device,
        class,
        ..
    } = function;
    let kind = match function.kind {
        FunctionKind::Endpoint => String::new(),
        FunctionKind::Bridge {
            secondary,
            subordinate,
            ..
        } => {
            format!(", bridge to buses {secondary:02x}-{subordinate:02x}")
        }
        FunctionKind::Unknown => ", of no known kind".into(),
    };
    let msis = function.msis.map_or_else(String::new, |msis| {
        format!(", MSIs to ITS {} as {:#x}", msis.its, msis.device_id)
    });
    out.line(format_args!(
        "{segment:04x}:{rid} {place}: {vendor:04x}:{device:04x} class {class}{kind}{aliases}{msis}"
    ));
}

fn component(out: &mut Layout, machine: &Machine, device: &Device) {
    let streams = machine.known_streams_of_device(device);
    let mut places: Vec<_> = streams.iter().copied().map(place_of).collect();
    if is_unprotected(machine, device) {
        places.insert(0, "UNPROTECTED".into());
    }
    let stall = if device.can_stall { ", can stall" } else { "" };
    out.line(format_args!(
        "{} {}: named component, {} bits of PASID{stall}",
        device.name,
        places.join(", "),
        device.pasid_bits
    ));
}

fn kept(out: &mut Layout, machine: &Machine) {
    out.section("MEMORY THAT FIRMWARE KEEPS FOR DEVICES (RMR)");
    if machine.kept.is_empty() {
        out.line(format_args!("none"));
    }
    for kept in &machine.kept {
        out.line(format_args!(
            "{} and {} more: {} bytes at {}",
            place_of(kept.first),
            kept.count.saturating_sub(1),
            kept.at.size_bytes(),
            kept.at.base(),
        ));
    }
}

fn rest(out: &mut Layout, machine: &Machine) {
    out.section("CONSOLE AND INTERRUPT CONTROLLER");
    match machine.console {
        None => out.line(format_args!(
            "no console that can be driven in SPCR or DBG2"
        )),
        Some(console) => {
            let kind = match console.kind {
                ConsoleKind::Pl011 => "PL011, or SBSA's subset of it".into(),
                ConsoleKind::Ns16550 {
                    log2_stride,
                    access_bytes,
                } => format!(
                    "16550, registers {} bytes apart, {access_bytes} bytes wide",
                    1u32 << log2_stride
                ),
            };
            out.line(format_args!("console: {kind}, at {}", console.base));
        }
    }
    let Some(gic) = &machine.gic else {
        out.line(format_args!("no GICv3 or newer in MADT"));
        return;
    };
    out.line(format_args!(
        "GIC: distributor at {}",
        gic.distributor.base()
    ));
    for region in &gic.redistributors {
        out.line(format_args!(
            "redistributors at {}, {} KiB",
            region.base(),
            region.size_bytes() >> 10
        ));
    }
    for its in &gic.its {
        out.line(format_args!("ITS at {}", its.base()));
    }
}
