//! Everything that the CPUs share while guests run.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use portcullis::addr::{Ipa, Pa};
use portcullis::arch::cpu::Mutex;
use portcullis::arch::{Host, Registers, Stacks, cpu, println};
use portcullis::discover::{Caching, List, Machine, Mpidr};
use portcullis::guest::calls::GuestDevice;
use portcullis::guest::calls::guest_memory::Ram;
use portcullis::guest::description::{MAX_DEVICES, MAX_GUESTS, Plan, Planned, PlannedDevice};
use portcullis::guest::psci::Cpus;
use portcullis::hw::{CpuWalk, Frames, Mmio};
use portcullis::smmu::{Settings, Smmu};
use portcullis::space::{
    DeviceDescription, DeviceId, GroupId, GuestId, Iommu, IommuSettings, ResetPolicy, SmmuId,
};
use portcullis::spec::ste::Ats;
use spin::Once;

use super::devices::{firmware, without_reset};
use super::embedded::Exam;
use super::hardware::{Hardware, tag};
use super::lines::Lines;
use super::{Refusal, gates, sites};

/// As many SMMUs as a machine has.
const MAX_SMMUS: usize = 16;
/// Memory of a guest comes in at most so many pieces.
pub(crate) const MAX_PIECES: usize = 32;

static SMMUS: [Once<Smmu<'static, Host>>; MAX_SMMUS] = [const { Once::new() }; MAX_SMMUS];
// What would not fit on the stack.
static SLOTS: [Once<Slot>; MAX_GUESTS] = [const { Once::new() }; MAX_GUESTS];
static WORLD: Once<World> = Once::new();

/// Everything.
pub(crate) struct World {
    pub(crate) host: &'static Host,
    pub(crate) hardware: &'static Hardware,
    pub(crate) iommu: Iommu<'static, Host>,
    pub(crate) settings: IommuSettings,
    pub(crate) plan: Plan,
    pub(crate) images: List<&'static [u8], MAX_GUESTS>,
    pub(crate) guests: [&'static Slot; MAX_GUESTS],
    /// The interrupt controller's frames of private interrupts.
    pub(crate) redistributors: List<Mmio, 32>,
    pub(crate) stacks: Stacks,
    /// How wide guests' addresses are.
    pub(crate) ipa_bits: u8,
    /// What the embedded guests are to show; nothing for guests that the loader described.
    pub(crate) exam: Option<Exam>,
    /// How often an SMMU pulled its wire.
    pub(crate) pulled: AtomicU64,
    /// When queues were served last.
    pub(crate) served_us: AtomicU64,
    /// The last turn left events behind.
    pub(crate) is_behind: AtomicBool,
    /// When SMMUs that something was lost on were asked for proof last by a CPU at rest, how often they
    /// are, and who asks them now.
    pub(crate) recovered_us: AtomicU64,
    pub(crate) recovery_pace_us: AtomicU64,
    pub(crate) recovering: Mutex<()>,
    /// How many guests have not ended.
    pub(crate) left: AtomicU32,
}

/// One guest's place.
pub(crate) struct Slot {
    pub(crate) state: Mutex<State>,
    pub(crate) lines: Lines,
    /// Its devices' records in the library, by number; made once.
    pub(crate) devices: Once<List<(DeviceId, GroupId), MAX_DEVICES>>,
    /// How many accesses outside of what it owns its CPUs have made.
    pub(crate) outside: AtomicU64,
    /// When a CPU of its asked last for proof of what it lost.
    pub(crate) recovered_us: AtomicU64,
    /// Somebody asked for its end.
    pub(crate) is_ending: AtomicBool,
}

/// What a guest is now.
pub(crate) struct State {
    /// `None` before it is built, and when it is over.
    pub(crate) built: Option<Built>,
    pub(crate) cpus: Cpus,
    /// How many of its CPUs are inside, or about to be.
    pub(crate) inside: u32,
    /// Why it ends, once it does.
    pub(crate) ending: Option<Ending>,
}

/// Why a guest ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// It turned itself off.
    Off,
    /// It starts over.
    Reset,
    /// All of its CPUs are off.
    NoCpus,
    /// A CPU of it had an SError.
    SystemError,
    /// A person ended it.
    Killed,
}

/// A guest that can run.
pub(crate) struct Built {
    pub(crate) id: GuestId,
    pub(crate) walk: CpuWalk,
    pub(crate) ram: List<Ram, MAX_PIECES>,
    pub(crate) frames: List<Frames, MAX_PIECES>,
    pub(crate) devices: List<GuestDevice, MAX_DEVICES>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                built: None,
                cpus: Cpus::NONE,
                inside: 0,
                ending: None,
            }),
            lines: Lines::new(),
            devices: Once::new(),
            outside: AtomicU64::new(0),
            recovered_us: AtomicU64::new(0),
            is_ending: AtomicBool::new(false),
        }
    }
}

/// What the world is made of.
pub(crate) struct Parts {
    pub(crate) host: &'static Host,
    pub(crate) hardware: &'static Hardware,
    pub(crate) plan: Plan,
    pub(crate) images: List<&'static [u8], MAX_GUESTS>,
    pub(crate) redistributors: List<Mmio, 32>,
    /// A bit for each SMMU whose wires reach us.
    pub(crate) wired: u32,
    pub(crate) stacks: Stacks,
    pub(crate) ipa_bits: u8,
    pub(crate) exam: Option<Exam>,
}

/// Takes every SMMU over, for good, and makes the world.
pub(crate) fn make(parts: Parts) -> Result<&'static World, Refusal> {
    let settings = IommuSettings::default();
    let iommu = Iommu::new(parts.host, settings).map_err(Refusal::Space)?;
    let machine = parts.hardware.machine;
    for ((place, smmu), slot) in machine.smmus.iter().enumerate().zip(&SMMUS) {
        let at = smmu.registers.base();
        let registers: &'static Registers = gates::registers(at).ok_or(Refusal::NoSmmu)?;
        let usual = Settings::new(sites::last_stream(machine, place));
        let wanted = Settings {
            sync_timeout_us: sync_timeout_us(machine.bootargs.as_str())
                .unwrap_or(usual.sync_timeout_us),
            ..usual
        };
        let taken = Smmu::take_over(parts.host, registers, firmware(smmu), wanted)
            .map_err(|why| Refusal::TakeOver { at, why })?;
        let smmu = slot.call_once(|| taken);
        if parts.wired >> place & 1 != 0 && smmu.pull_wires().is_err() {
            println!("smmu {place}: its wires are not used, it is asked");
        }
        let id = SmmuId::new(place as u8).ok_or(Refusal::NoSmmu)?;
        iommu.add_smmu(id, smmu).map_err(Refusal::Space)?;
    }
    iommu.end_discovery();
    let left = AtomicU32::new(parts.plan.len() as u32);
    let world = WORLD.call_once(|| World {
        host: parts.host,
        hardware: parts.hardware,
        iommu,
        settings,
        plan: parts.plan,
        images: parts.images,
        guests: SLOTS.each_ref().map(|slot| slot.call_once(Slot::new)),
        redistributors: parts.redistributors,
        stacks: parts.stacks,
        ipa_bits: parts.ipa_bits,
        exam: parts.exam,
        pulled: AtomicU64::new(0),
        served_us: AtomicU64::new(0),
        is_behind: AtomicBool::new(false),
        recovered_us: AtomicU64::new(0),
        recovery_pace_us: AtomicU64::new(super::run::RECOVERY_US),
        recovering: Mutex::new(()),
        left,
    });
    world.add_devices()?;
    Ok(world)
}

/// An SMMU, by its place in the machine.
pub(crate) fn smmu(place: usize) -> Option<&'static Smmu<'static, Host>> {
    SMMUS.get(place)?.get()
}

/// How long a CMD_SYNC is waited for, if the boot arguments say so (`sync-timeout-us=N`).
fn sync_timeout_us(bootargs: &str) -> Option<u64> {
    let mut arguments = bootargs.split(' ');
    let value = arguments.find_map(|it| it.strip_prefix("sync-timeout-us="))?;
    value.parse().ok()
}

/// The world, once it is made.
pub(crate) fn get() -> Option<&'static World> {
    WORLD.get()
}

impl World {
    /// Whether all guests have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.left.load(core::sync::atomic::Ordering::Acquire) == 0
    }

    pub(crate) const fn machine(&self) -> &'static Machine {
        self.hardware.machine
    }

    /// Tells the library of the devices that guests get, in groups.
    fn add_devices(&self) -> Result<(), Refusal> {
        let given = self.given();
        for (planned, slot) in self.plan.iter().zip(&self.guests) {
            let mut known = List::<(DeviceId, GroupId), MAX_DEVICES>::new();
            for (number, device) in planned.devices.iter().enumerate() {
                let before = planned.devices.iter().zip(&known).take(number);
                let mut same = before.filter(|(other, _)| given.are_one_group(*device, **other));
                let group = match same.next() {
                    Some((_, (_, group))) => *group,
                    None => self.iommu.add_group().map_err(Refusal::Space)?,
                };
                let id = self.add_device(group, *device)?;
                // As many as are planned.
                let _ = known.push((id, group));
            }
            slot.devices.call_once(|| known);
        }
        Ok(())
    }

    fn add_device(&self, group: GroupId, device: PlannedDevice) -> Result<DeviceId, Refusal> {
        let (streams, pasid_bits, can_stall, reset) = self.facts(device);
        let smmu = streams.first().map(|stream| stream.smmu.as_usize());
        let ids: List<_, 17> = {
            let mut ids = List::new();
            for stream in &streams {
                // Both hold as many.
                let _ = ids.push(stream.id);
            }
            ids
        };
        let description = DeviceDescription {
            tag: tag(device),
            smmu: smmu.and_then(|place| SmmuId::new(place as u8)),
            streams: &ids,
            pasid_bits,
            can_stall,
            ats: self.ats(device),
            reset,
        };
        self.iommu
            .add_device(group, &description)
            .map_err(Refusal::Space)
    }

    /// What a device may do with ATS.
    pub(crate) fn ats(&self, device: PlannedDevice) -> Ats {
        let PlannedDevice::Platform(place) = device else {
            return Ats::Off;
        };
        let device = self.machine().devices.get(place);
        match device.map_or(Caching::No, |it| it.caching) {
            Caching::No => Ats::Off,
            Caching::Split => Ats::Split,
            Caching::Trusted => Ats::Full,
        }
    }

    /// The streams of a device, its PASIDs' bits, whether it stalls, and what resets it.
    fn facts(
        &self,
        device: PlannedDevice,
    ) -> (portcullis::discover::Streams, u8, bool, ResetPolicy) {
        let machine = self.machine();
        let mut streams = portcullis::discover::Streams::new();
        match device {
            PlannedDevice::Platform(place) => {
                let Some(device) = machine.devices.get(place) else {
                    return (streams, 0, false, ResetPolicy::Needed);
                };
                for stream in machine.known_streams_of_device(device) {
                    // More than the list holds are refused by the library, as none.
                    let _ = streams.push(*stream);
                }
                let (bits, can_stall) = (device.pasid_bits, device.can_stall);
                (streams, bits, can_stall, ResetPolicy::Needed)
            }
            PlannedDevice::Function(place) => {
                let Some(function) = self.hardware.functions.get(place) else {
                    return (streams, 0, false, ResetPolicy::Needed);
                };
                if let portcullis::discover::StreamsOf::Behind(found) = function.streams(machine) {
                    streams = found;
                }
                let reset = match without_reset(function) {
                    Some(because) => ResetPolicy::MayBeOmitted { because },
                    None => ResetPolicy::Needed,
                };
                (streams, 0, false, reset)
            }
        }
    }

    /// What the machine has to give.
    pub(crate) fn given(&self) -> portcullis::guest::description::Given<'static> {
        portcullis::guest::description::Given {
            machine: self.machine(),
            functions: self.hardware.functions,
            here: Mpidr::of_register(cpu::affinity()),
            ipa_bits: self.ipa_bits,
        }
    }

    /// The guest, and which of its CPUs, that the CPU at `place` of the machine is for.
    pub(crate) fn part_of(&self, place: usize) -> Option<(usize, usize)> {
        let mut guests = self.plan.iter().enumerate();
        guests.find_map(|(guest, planned)| {
            let number = planned.cpus.iter().position(|cpu| *cpu == place)?;
            Some((guest, number))
        })
    }

    pub(crate) fn planned(&self, guest: usize) -> Option<(&Planned, &Slot)> {
        Some((self.plan.get(guest)?, *self.guests.get(guest)?))
    }
}

/// Where a guest's address is in memory, if it is its own.
pub(crate) fn translate(ram: &[Ram], at: Ipa) -> Option<Pa> {
    let piece = ram.iter().find(|ram| ram.ipa.contains(at))?;
    piece
        .pa
        .checked_add(at.as_u64() - piece.ipa.base().as_u64())
}
