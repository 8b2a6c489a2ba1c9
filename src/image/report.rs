//! The boot report: what was found, what each SMMU can do, and which devices are behind one.

use core::fmt;

use portcullis::arch::{board, cpu, image, println, psci};
use portcullis::discover::{Bridge, Device, Machine, Stream, StreamsOf};
use portcullis::pci::Kind;
use portcullis::smmu::{Features, StallModel, probe};

use super::devices::{Functions, firmware, without_reset};
use super::{Refusal, gates};

const MIB: u64 = 1 << 20;

/// Tells what this is and on which CPU it runs.
pub(crate) fn banner() {
    let image = image::layout().whole;
    println!(
        "Portcullis {} for {}",
        env!("CARGO_PKG_VERSION"),
        board::NAME
    );
    println!(
        "image: {:#x} bytes at {}, EL2",
        image.size_bytes(),
        image.base()
    );
    println!(
        "cpu {:#x}: MIDR_EL1 {:#010x}, {} bits of physical address",
        cpu::affinity(),
        cpu::midr(),
        cpu::pa_bits(),
    );
    match psci::version() {
        Some(version) => println!("firmware: PSCI {version}"),
        None => println!("firmware: no PSCI, the machine stays on at the end"),
    }
}

/// Tells what the machine is.
pub(crate) fn machine(machine: &Machine) {
    let memory: u64 = machine
        .memory
        .iter()
        .map(|extent| extent.size_bytes())
        .sum();
    println!(
        "machine: {} MiB of memory, {} CPUs, {} SMMUs, {} PCIe host bridges",
        memory / MIB,
        machine.cpus.len(),
        machine.smmus.len(),
        machine.bridges.len(),
    );
    for kept in &machine.kept {
        println!(
            "kept by firmware: {:#x} bytes at {} for {} streams from {} of smmu {}: aborted",
            kept.at.size_bytes(),
            kept.at.base(),
            kept.count,
            kept.first.id,
            kept.first.smmu.as_usize(),
        );
    }
}

/// Tells what each SMMU can do; the first that cannot be driven ends the boot.
pub(crate) fn smmus(machine: &Machine) -> Result<(), Refusal> {
    for (place, smmu) in machine.smmus.iter().enumerate() {
        let at = smmu.registers.base();
        let registers = gates::registers(at).ok_or(Refusal::NoSmmu)?;
        let features = probe(registers, firmware(smmu)).map_err(|why| Refusal::Smmu { at, why })?;
        let quirks = smmu.quirks.with_iidr(features.implementation.iidr());
        if quirks.needs_flush_of_new_tables {
            return Err(Refusal::NewTables { at });
        }
        println!("smmu {place} at {at}: {}", Summary(&features));
        println!("  {}", Details(&features));
    }
    Ok(())
}

/// Tells of each device where its traffic goes, the unprotected ones in so many words.
pub(crate) fn devices(machine: &Machine, functions: &Functions) {
    for function in functions.iter() {
        let (rid, class) = (function.rid, function.class);
        let (vendor, device) = (function.vendor, function.device);
        let kind = match function.kind {
            Kind::Endpoint => "",
            Kind::Bridge { .. } | Kind::Closed => ", a bridge",
        };
        match function.streams(machine) {
            StreamsOf::Behind(streams) => println!(
                "pci {rid} {vendor:04x}:{device:04x} class {class}{kind}: {}",
                Through(&streams),
            ),
            StreamsOf::Unprotected => println!(
                "pci {rid} {vendor:04x}:{device:04x} class {class}{kind}: UNPROTECTED, behind no SMMU"
            ),
        }
        if function.kind == Kind::Endpoint && !function.can_reset {
            match without_reset(function) {
                Some(because) => println!("  no reset, and may change owners: {because}"),
                None => println!("  no reset: may not change owners"),
            }
        }
        if let Some(why) = function.refused {
            println!("  not used: {why}");
        }
    }
    platform_devices(machine);
    for bridge in machine
        .bridges
        .iter()
        .filter(|bridge| bridge.ecam.is_none())
    {
        println!(
            "{}: not ECAM, nothing behind it was looked at",
            Name(bridge)
        );
    }
}

/// The SMMU and the stream of what a function does, or all of them.
struct Through<'a>(&'a [Stream]);

impl fmt::Display for Through<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, stream) in self.0.iter().enumerate() {
            let or = if place > 0 { " or " } else { "" };
            write!(
                f,
                "{or}smmu {} stream {}",
                stream.smmu.as_usize(),
                stream.id
            )?;
        }
        Ok(())
    }
}

/// A line for each run of devices of one kind that are alike.
fn platform_devices(machine: &Machine) {
    let streams = |device: &Device| machine.known_streams_of_device(device).len();
    let is_alike = |one: &Device, other: &Device| {
        one.compatible == other.compatible
            && streams(one) == streams(other)
            && (one.pasid_bits, one.can_stall) == (other.pasid_bits, other.can_stall)
    };
    for alike in machine.devices.chunk_by(is_alike) {
        let Some(first) = alike.first() else { continue };
        let more = More(alike.len() - 1);
        match machine.streams_of_device(first) {
            StreamsOf::Behind(streams) => println!(
                "device {}{more}: {} streams{}",
                first.name,
                streams.len(),
                Pasids(first),
            ),
            StreamsOf::Unprotected => {
                println!("device {}{more}: UNPROTECTED, behind no SMMU", first.name);
            }
        }
    }
}

/// What a device can do with PASIDs, if it has any, and whether it bears stalls.
struct Pasids<'a>(&'a Device);

impl fmt::Display for Pasids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.pasid_bits != 0 {
            write!(f, ", {} PASID bits", self.0.pasid_bits)?;
        }
        if self.0.can_stall {
            f.write_str(", may stall")?;
        }
        Ok(())
    }
}

struct More(usize);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " and {count} more like it"),
        }
    }
}

struct Name<'a>(&'a Bridge);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bridge {
            segment,
            first_bus,
            last_bus,
            ..
        } = self.0;
        write!(
            f,
            "pci segment {segment} buses {first_bus:02x}-{last_bus:02x}"
        )
    }
}

struct Summary<'a>(&'a Features);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        let stages = if it.has_stage1 {
            "stages 1 and 2"
        } else {
            "stage 2"
        };
        write!(
            f,
            "SMMUv3.{}, {stages}, {} stream bits",
            it.minor_revision, it.stream_bits
        )?;
        match it.substream_bits {
            0 => f.write_str(", no PASIDs"),
            bits => write!(f, ", {bits} PASID bits"),
        }
    }
}

struct Details<'a>(&'a Features);

impl fmt::Display for Details<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = self.0;
        write!(
            f,
            "{}-bit PA, {}-bit VMID, BBML {}",
            it.output_bits, it.vmid_bits, it.bbm_level
        )?;
        let has = [
            (it.has_two_level_streams, "2-level streams"),
            (it.has_two_level_cds, "2-level CDs"),
            (it.has_range_invalidation, "ranges"),
            (it.has_ats, "ATS"),
            (it.has_pri, "PRI"),
            (it.stalls != StallModel::Terminate, "stalls"),
            (it.has_msi, "MSI"),
        ];
        for (_, name) in has.iter().filter(|(has, _)| *has) {
            write!(f, ", {name}")?;
        }
        Ok(())
    }
}
