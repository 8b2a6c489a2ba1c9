//! The machine, whoever described it.

use core::fmt;

use super::bridge::{Bridge, Rid};
use super::list::{List, Text};
use super::quirks::Quirks;
use crate::addr::{Extent, Iova, Pa};
use crate::id::StreamId;

/// What firmware says the machine has; neutral to whether a device tree or ACPI said it.
///
/// Everything is inline and bounded: about 120 KiB, so keep it in a `static` and fill it in place.
/// A new one is all zeros in memory, so that such a `static` takes no room in an image; this is why
/// some enums here start at 1, which leaves 0 to `None`.
/// Limits are those of the largest board known (eight SMMUs, 128 CPUs, twelve bridges on a two
/// socket Kunpeng 920) with room to grow; more is refused by name, never cut.
///
/// Only what firmware calls usable is here: a node with a `status` other than `okay` is left out,
/// and what depended on it is [`StreamsOf::Unprotected`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Machine {
    /// Memory, in the order firmware lists it; no two share a byte.
    pub memory: List<Extent<Pa>, 64>,
    /// Memory that firmware keeps; these may overlap, and may lie outside of `memory`.
    pub reserved: List<Reserved, 128>,
    /// What devices already use, and go on using, while firmware's settings last.
    pub kept: List<Kept, 64>,
    /// CPUs, in the order firmware lists them.
    pub cpus: List<Cpu, 1024>,
    /// How PSCI is called; `None` if firmware has none of version 0.2 or newer.
    pub psci: Option<Conduit>,
    /// The console firmware chose, if we can drive it.
    pub console: Option<Console>,
    /// PCIe host bridges, in order; the place in this list is what [`Machine::streams_of`] takes.
    pub bridges: List<Bridge, 32>,
    /// SMMUs, in order; [`SmmuIndex`] is the place in this list.
    pub smmus: List<Smmu, 16>,
    /// Devices on no PCIe bus that say that they do DMA.
    pub devices: List<Device, 256>,
    /// The interrupt controller, where it is a GICv3 or newer.
    pub gic: Option<Gic>,
    /// The boot arguments.
    pub bootargs: Text<1024>,
    /// The guests that the loader put beside us.
    pub guests: List<GuestNode, 8>,
    pub(super) device_streams: List<Stream, 512>,
}

/// Which SMMU: its place in [`Machine::smmus`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SmmuIndex(u8);

impl SmmuIndex {
    /// The SMMU at this place.
    pub const fn new(place: u8) -> Self {
        Self(place)
    }

    /// The place.
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// One stream of the machine: a StreamID means something to one SMMU only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stream {
    /// The SMMU it goes through.
    pub smmu: SmmuIndex,
    /// Its number there.
    pub id: StreamId,
}

/// The streams of one PCI function: its own, and one for each bridge above that has another RID.
pub type Streams = List<Stream, 17>;

/// Memory that firmware keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserved {
    /// Where.
    pub extent: Extent<Pa>,
    /// Whether it must not even be mapped (`no-map`): a speculative read could harm.
    pub is_no_map: bool,
}

/// Addresses that firmware keeps for the devices of some streams.
///
/// Not mapped by anybody here: a board says whether that is done, otherwise it is reported and
/// these transactions abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// The first stream.
    pub first: Stream,
    /// How many streams in a row, at least 1.
    pub count: u32,
    /// What the device puts on the bus.
    pub at: Extent<Iova>,
    /// The memory it means; `None` if these addresses must stay unused.
    pub memory: Option<Extent<Pa>>,
}

/// A CPU's affinity, as MPIDR_EL1 has it in bits 39:32 and 23:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mpidr(u64);

impl Mpidr {
    const AFFINITY: u64 = 0xff_00ff_ffff;

    /// The affinity `value`; `None` if it has bits other than the four fields.
    pub const fn new(value: u64) -> Option<Self> {
        if value & !Self::AFFINITY == 0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The affinity in a value of MPIDR_EL1.
    pub const fn of_register(value: u64) -> Self {
        Self(value & Self::AFFINITY)
    }

    /// The bare number, as PSCI wants it.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Mpidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mpidr({:#x})", self.0)
    }
}

/// One CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Which.
    pub mpidr: Mpidr,
    /// How it is started.
    pub start: Start,
}

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// By PSCI `CPU_ON`.
    Psci,
    /// In a way we do not speak, or none is named: it stays off unless it booted us.
    Unsupported,
}

/// The instruction that reaches firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Conduit {
    /// `SMC`.
    Smc = 1,
    /// `HVC`: from EL2 nobody but ourselves would answer.
    Hvc = 2,
}

/// The console firmware chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Console {
    /// Whose registers they are.
    pub kind: ConsoleKind,
    /// Where they are.
    pub base: Pa,
}

/// A console's registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ConsoleKind {
    /// Arm PL011, or the subset of it that SBSA demands.
    Pl011 = 1,
    /// 16550 and its relatives.
    Ns16550 {
        /// Registers are `2^log2_stride` bytes apart.
        log2_stride: u8,
        /// How wide an access is, in bytes: 1 or 4.
        access_bytes: u8,
    } = 2,
}

/// An interrupt of the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupt {
    /// A wire into the GIC.
    Gic {
        /// The INTID: 16 to 31 and 1056 to 1119 private to a CPU, 32 to 1019 and 4096 to 5119 shared.
        intid: u32,
        /// When it is pending.
        trigger: Trigger,
    },
    /// A wire into something else, which we do not drive.
    Elsewhere,
}

/// When a wired interrupt is pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// From a rising edge until it is taken.
    Edge,
    /// While the wire is high.
    Level,
}

/// One SMMUv3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Smmu {
    /// Its registers.
    pub registers: Extent<Pa>,
    /// Whether firmware says that its walks and queue accesses snoop the CPUs' caches.
    pub is_coherent: bool,
    /// Its wires.
    pub interrupts: SmmuInterrupts,
    /// What must be done differently.
    pub quirks: Quirks,
}

/// The wires of one SMMU; one with none is polled, or sends MSIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SmmuInterrupts {
    /// One wire for all.
    pub combined: Option<Interrupt>,
    /// The event queue is not empty.
    pub event_queue: Option<Interrupt>,
    /// The PRI queue is not empty.
    pub pri_queue: Option<Interrupt>,
    /// A `CMD_SYNC` with CS = IRQ is complete.
    pub command_sync: Option<Interrupt>,
    /// A global error is active.
    pub global_error: Option<Interrupt>,
}

/// A device on no PCIe bus that does DMA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// What firmware calls it.
    pub name: Text<48>,
    /// What it is, in firmware's words: the first `compatible`; empty with ACPI, where only AML
    /// says it.
    pub compatible: Text<48>,
    /// Its first block of registers, where it has one that the CPU can reach.
    pub registers: Option<Extent<Pa>>,
    /// Whether its DMA snoops the CPUs' caches.
    pub is_coherent: bool,
    /// Whether it waits, for as long as it takes, for the answer to a stalled transaction.
    pub can_stall: bool,
    /// How many bits of PASID it can send; 0 for none.
    pub pasid_bits: u8,
    /// Whether the board lets it cache translations, and how far it is trusted with them.
    pub caching: Caching,
    /// Whether some of its traffic goes through no SMMU we know.
    pub has_unprotected_traffic: bool,
    pub(super) first_stream: u16,
    pub(super) stream_count: u16,
}

/// Whether a device may cache translations (ATS).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Caching {
    /// It may not.
    #[default]
    No,
    /// Those of stage 1; stage 2 is still walked for what it translated.
    Split,
    /// Those of both stages: what it translated is checked by nobody.
    Trusted,
}

/// A GICv3 or newer; its frames are never a guest's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gic {
    /// The distributor.
    pub distributor: Extent<Pa>,
    /// The redistributors, each extent with one or more of them.
    pub redistributors: List<Extent<Pa>, 32>,
    /// The interrupt translation services.
    pub its: List<Extent<Pa>, 16>,
}

/// A guest, as `/chosen` describes it; whether that makes sense is not looked at here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestNode {
    /// What it is called.
    pub name: Text<32>,
    /// Where its image is.
    pub image: Extent<Pa>,
    /// How much memory it gets.
    pub memory_bytes: u64,
    /// Where that begins, to the guest.
    pub memory_at: u64,
    /// Its CPUs.
    pub cpus: List<Mpidr, 16>,
    /// Its devices: nodes by name, PCI functions as `SSSS:BB:DD.F`.
    pub devices: List<Text<48>, 72>,
    /// How much it may have, where that is said: spaces, bindings, handles, stalled transactions,
    /// pages of tables.
    pub quotas: [Option<u32>; 5],
}

/// Where a device's traffic goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamsOf<T> {
    /// Through an SMMU, as these streams.
    Behind(T),
    /// Some or all of it through no SMMU we know: nothing we do stops it.
    Unprotected,
}

impl Machine {
    /// A machine of which nothing is known.
    pub const fn new() -> Self {
        Self {
            memory: List::new(),
            reserved: List::new(),
            kept: List::new(),
            cpus: List::new(),
            psci: None,
            console: None,
            bridges: List::new(),
            smmus: List::new(),
            devices: List::new(),
            gic: None,
            bootargs: Text::new(),
            guests: List::new(),
            device_streams: List::new(),
        }
    }

    /// Forgets everything, in place.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.reserved.clear();
        self.kept.clear();
        self.cpus.clear();
        self.psci = None;
        self.console = None;
        self.bridges.clear();
        self.smmus.clear();
        self.devices.clear();
        self.gic = None;
        self.bootargs = Text::new();
        self.guests.clear();
        self.device_streams.clear();
    }

    /// The bridge below which bus `bus` of segment `segment` is.
    pub fn bridge_of(&self, segment: u16, bus: u8) -> Option<&Bridge> {
        self.bridges.iter().find(|bridge| {
            bridge.segment == segment && (bridge.first_bus..=bridge.last_bus).contains(&bus)
        })
    }

    /// The stream of the PCI function `rid` of segment `segment`.
    ///
    /// A function below no bridge we know is [`StreamsOf::Unprotected`]. What a function does may
    /// come with other RIDs than its own: [`Machine::streams_of_all`].
    pub fn streams_of(&self, segment: u16, rid: Rid) -> StreamsOf<Stream> {
        self.bridge_of(segment, rid.bus())
            .map_or(StreamsOf::Unprotected, |bridge| bridge.stream_of(rid))
    }

    /// The streams of a function of segment `segment` that has all of `rids`, each once; the first
    /// is that of the first RID.
    ///
    /// [`StreamsOf::Unprotected`] if any of them is behind no SMMU, if there is none, or if there are
    /// more than a list of [`Streams`] holds.
    pub fn streams_of_all(
        &self,
        segment: u16,
        rids: impl IntoIterator<Item = Rid>,
    ) -> StreamsOf<Streams> {
        let mut streams = Streams::new();
        for rid in rids {
            let StreamsOf::Behind(stream) = self.streams_of(segment, rid) else {
                return StreamsOf::Unprotected;
            };
            if !streams.contains(&stream) && streams.push(stream).is_err() {
                return StreamsOf::Unprotected;
            }
        }
        match streams.is_empty() {
            true => StreamsOf::Unprotected,
            false => StreamsOf::Behind(streams),
        }
    }

    /// The streams of `device`, which is one of [`Machine::devices`].
    pub fn streams_of_device(&self, device: &Device) -> StreamsOf<&[Stream]> {
        match self.known_streams_of_device(device) {
            [] => StreamsOf::Unprotected,
            _ if device.has_unprotected_traffic => StreamsOf::Unprotected,
            streams => StreamsOf::Behind(streams),
        }
    }

    /// The streams of `device` that go through an SMMU, even where not all of its traffic does.
    pub fn known_streams_of_device(&self, device: &Device) -> &[Stream] {
        let first = usize::from(device.first_stream);
        self.device_streams
            .get(first..first + usize::from(device.stream_count))
            .unwrap_or(&[])
    }
}
