//! PCI functions: found, given their places, and handed to the self-check.

use portcullis::addr::{Extent, Pa};
use portcullis::arch::{board, mmu};
use portcullis::check::{Edu, Nvme, NvmeFunction, edu};
use portcullis::discover::{Bridge, List, Machine, Smmu, Stream, StreamsOf};
use portcullis::hw::Mmio;
use portcullis::pci::{Class, Ecam, Function, scan};
use portcullis::smmu::{Firmware, QueueIndices};

use super::Refusal;

/// How many PCI functions are looked at.
pub(crate) const MAX_FUNCTIONS: usize = 256;

/// The functions of a machine.
pub(crate) type Functions = List<Function, MAX_FUNCTIONS>;

/// Configuration space of each bridge that has any, by its place in the machine.
pub(crate) type Ecams = List<(usize, Ecam<Mmio>), 32>;

/// Maps configuration space, turns every function off, places BARs, lists what there is.
pub(crate) fn scan_all(machine: &Machine, functions: &mut Functions) -> Result<Ecams, Refusal> {
    let mut ecams = Ecams::new();
    for (place, bridge) in machine.bridges.iter().enumerate() {
        let Some(window) = bridge.ecam else { continue };
        let ecam = Ecam::new(map(window)?, bridge);
        scan(&ecam, &bridge.windows, functions).map_err(Refusal::Pci)?;
        // As many as there are bridges.
        let _ = ecams.push((place, ecam));
    }
    Ok(ecams)
}

fn map(extent: Extent<Pa>) -> Result<Mmio, Refusal> {
    mmu::map_device(extent.base(), extent.size_bytes()).map_err(Refusal::Ecam)
}

/// A function that the self-check has a driver for: where it is, and its registers.
pub(crate) struct Driven<'m> {
    ecam: &'m Ecam<Mmio>,
    function: Function,
    stream: Stream,
    registers: Mmio,
}

/// As many functions as are brought to life.
pub(crate) type AllDriven<'m> = List<Driven<'m>, 16>;

impl Driven<'_> {
    /// The stream of its traffic.
    pub(crate) const fn stream(&self) -> Stream {
        self.stream
    }

    /// Its driver, if it is an edu function.
    pub(crate) fn edu(&self) -> Option<Edu<'_>> {
        let leave = without_reset(&self.function);
        let (rid, stream) = (self.function.rid, self.stream.id);
        is_edu(&self.function).then(|| Edu::new(self.ecam, rid, &self.registers, stream, leave))
    }

    /// Its driver, if it is an NVMe controller.
    pub(crate) fn nvme(&self) -> Option<NvmeFunction<'_>> {
        is_nvme(&self.function).then(|| NvmeFunction {
            driver: Nvme::new(&self.registers, self.function.vendor),
            stream: self.stream.id,
            ecam: self.ecam,
            rid: self.function.rid,
        })
    }
}

/// The functions that the self-check has a driver for, brought to life.
pub(crate) fn bring_up<'m>(
    machine: &Machine,
    ecams: &'m Ecams,
    functions: &Functions,
) -> Result<AllDriven<'m>, Refusal> {
    let mut driven = List::new();
    for function in functions.iter().filter(|it| is_edu(it) || is_nvme(it)) {
        let place = machine
            .bridges
            .iter()
            .position(|bridge| is_below(bridge, function));
        let ecam = ecams.iter().find(|(bridge, _)| Some(*bridge) == place);
        let registers = function.bars[0].and_then(|bar| bar.at);
        let streams = function.streams(machine);
        let (Some((_, ecam)), Some(registers), StreamsOf::Behind(streams), None) =
            (ecam, registers, streams, function.refused)
        else {
            continue;
        };
        // The checks know one stream a device: behind a bridge that has another RID there are two.
        let [stream] = *streams else { continue };
        ecam.enable_memory(function.rid).map_err(Refusal::Pci)?;
        ecam.enable_bus_master(function.rid).map_err(Refusal::Pci)?;
        let more = driven.push(Driven {
            ecam,
            function: *function,
            stream,
            registers: map(registers)?,
        });
        if more.is_err() {
            break;
        }
    }
    Ok(driven)
}

pub(crate) fn is_below(bridge: &Bridge, function: &Function) -> bool {
    bridge.segment == function.segment
        && (bridge.first_bus..=bridge.last_bus).contains(&function.rid.bus())
}

const fn is_edu(function: &Function) -> bool {
    function.vendor == edu::VENDOR && function.device == edu::DEVICE
}

const fn is_nvme(function: &Function) -> bool {
    matches!(
        function.class,
        Class {
            base: 0x01,
            sub: 0x08,
            interface: 0x02
        }
    )
}

/// Why the board lets the function change owners without a reset, if it does.
pub(crate) fn without_reset(function: &Function) -> Option<&'static str> {
    let mut allowed = board::WITHOUT_RESET.iter();
    let ids = (function.vendor, function.device);
    let (_, _, because) = allowed.find(|(vendor, device, _)| (*vendor, *device) == ids)?;
    Some(because)
}

/// What firmware says of an SMMU, in the words of the library.
pub(crate) const fn firmware(smmu: &Smmu) -> Firmware {
    Firmware {
        is_coherent: smmu.is_coherent,
        queue_indices: if smmu.quirks.has_broken_page1 {
            QueueIndices::Page0
        } else {
            QueueIndices::Page1
        },
    }
}
