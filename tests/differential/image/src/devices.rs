//! The edu functions of the machine.

use portcullis::arch::mmu;
use portcullis::check::edu;
use portcullis::discover::{List, Machine, Rid, StreamsOf};
use portcullis::hw::Mmio;
use portcullis::pci::{self, Ecam, Function};

use crate::Refusal;

/// The functions below the first host bridge.
pub(crate) type Functions = List<Function, 64>;

/// One edu, ready for DMA.
pub(crate) struct Edu<'m> {
    pub(crate) ecam: &'m Ecam<Mmio>,
    pub(crate) rid: Rid,
    pub(crate) registers: Mmio,
    pub(crate) stream: u32,
}

/// Maps configuration space and places what is there.
pub(crate) fn scan(machine: &Machine, functions: &mut Functions) -> Result<Ecam<Mmio>, Refusal> {
    let bridge = machine.bridges.first().ok_or(Refusal::NoBridge)?;
    let window = bridge.ecam.ok_or(Refusal::NoBridge)?;
    let registers = mmu::map_device(window.base(), window.size_bytes()).map_err(Refusal::Map)?;
    let ecam = Ecam::new(registers, bridge);
    pci::scan(&ecam, &bridge.windows, functions).map_err(Refusal::Pci)?;
    Ok(ecam)
}

/// Every edu behind the SMMU, with memory and bus mastering on.
pub(crate) fn edus<'m>(
    machine: &Machine,
    ecam: &'m Ecam<Mmio>,
    functions: &Functions,
) -> Result<List<Edu<'m>, 8>, Refusal> {
    let mut edus = List::new();
    let is_edu = |it: &&Function| (it.vendor, it.device) == (edu::VENDOR, edu::DEVICE);
    for function in functions.iter().filter(is_edu) {
        let StreamsOf::Behind(stream) = machine.streams_of(function.segment, function.rid) else {
            continue;
        };
        let Some(at) = function.bars[0].and_then(|bar| bar.at) else {
            continue;
        };
        ecam.enable_memory(function.rid).map_err(Refusal::Pci)?;
        ecam.enable_bus_master(function.rid).map_err(Refusal::Pci)?;
        let registers = mmu::map_device(at.base(), at.size_bytes()).map_err(Refusal::Map)?;
        let more = edus.push(Edu {
            ecam,
            rid: function.rid,
            registers,
            stream: stream.id.as_u32(),
        });
        if more.is_err() {
            break;
        }
    }
    Ok(edus)
}
