//! PCI functions: found, given their places, and handed to the self-check.

use portcullis::addr::{Extent, Pa};
use portcullis::arch::tlbi::Tlbi;
use portcullis::arch::{Host, board, cpu, mmu};
use portcullis::check::{self, Edu, MAX_EDUS, Nvme, Saboteur, edu};
use portcullis::discover::{Bridge, List, Machine, Smmu, Stream, StreamsOf};
use portcullis::hw::Mmio;
use portcullis::id::StreamId;
use portcullis::pci::{Class, Ecam, Function, scan};
use portcullis::smmu::{Firmware, QueueIndices};

use super::{Refusal, gates};

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

/// The functions that the self-check has a driver for, brought to life.
pub(crate) fn bring_up<'m>(
    machine: &Machine,
    ecams: &'m Ecams,
    functions: &Functions,
) -> Result<List<Driven<'m>, 16>, Refusal> {
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

fn is_below(bridge: &Bridge, function: &Function) -> bool {
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

/// The highest StreamID that any device behind the SMMU at `place` can have.
fn last_stream(machine: &Machine, place: usize) -> StreamId {
    let maps = machine.bridges.iter().flat_map(|bridge| &bridge.streams);
    let of_maps = maps
        .filter(|map| map.first.smmu.as_usize() == place)
        .map(|map| map.first.id.as_u32().saturating_add(map.count - 1));
    let devices = machine.devices.iter();
    let of_devices = devices
        .flat_map(|device| machine.known_streams_of_device(device))
        .filter(|stream| stream.smmu.as_usize() == place)
        .map(|stream| stream.id.as_u32());
    StreamId::new(of_maps.chain(of_devices).max().unwrap_or(0))
}

/// What the self-check works with: the driven functions behind the SMMU that most are behind.
pub(crate) fn for_self_check<'m, 'p>(
    platform: &'p Host,
    machine: &Machine,
    driven: &'m List<Driven<'m>, 16>,
) -> Option<check::Devices<'m, 'p, Host>> {
    let count = |place: usize| {
        driven
            .iter()
            .filter(|it| it.stream.smmu.as_usize() == place)
            .count()
    };
    let place = (0..machine.smmus.len()).max_by_key(|place| count(*place))?;
    let smmu = machine.smmus.get(place)?;
    let behind = || {
        driven
            .iter()
            .filter(move |it| it.stream.smmu.as_usize() == place)
    };
    let mut edus = behind()
        .filter(|it| is_edu(&it.function))
        .map(|it| Edu::new(it.ecam, it.function.rid, &it.registers, it.stream.id));
    let edus: [Option<Edu<'m>>; MAX_EDUS] = core::array::from_fn(|_| edus.next());
    let nvme = behind().find(|it| is_nvme(&it.function));
    let first_edu = behind().find(|it| is_edu(&it.function));
    Some(check::Devices {
        platform,
        registers: gates::registers(smmu.registers.base())?,
        firmware: firmware(smmu),
        last_stream: last_stream(machine, place),
        cpu_output_bits: cpu::pa_bits(),
        cpu_tlb: &Tlbi,
        edus,
        nvme: nvme.map(|it| (Nvme::new(&it.registers, it.function.vendor), it.stream.id)),
        nvme_function: nvme.map(|it| (it.ecam, it.function.rid)),
        edu_without_reset: first_edu.and_then(|it| without_reset(&it.function)),
        cpu: Some(super::cpu::cpu()),
        saboteur: saboteur(),
    })
}

#[cfg(feature = "sabotage")]
fn saboteur() -> Option<Saboteur> {
    use portcullis::arch::sabotage;
    Some(Saboteur {
        arm: sabotage::arm,
        disarm: sabotage::disarm,
    })
}

#[cfg(not(feature = "sabotage"))]
fn saboteur() -> Option<Saboteur> {
    None
}
