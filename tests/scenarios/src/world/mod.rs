//! A small machine with its host, and the plain verbs of a story.
//!
//! | room | verbs |
//! |---|---|
//! | here | who there is: [`guest`](World::guest), [`device`](World::device), [`process`](World::process) |
//! | `hardware` | what devices do: [`fire`](World::fire), [`reaches`](World::reaches), [`blocked`](World::blocked) |
//! | `life` | what kernels do: [`bind`](World::bind), [`release`](World::release), [`close`](World::close) |
//! | `trouble` | what goes wrong, and is mended |

mod guest;
mod hardware;
mod life;
mod process;
mod trouble;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis::hw::Frames;
use portcullis::id::StreamId;
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu};
use portcullis::space::{GuestId, Iommu, IommuSettings, SmmuId};
use portcullis::spec::ste::Ats;
use portcullis_embedder::Hypervisor;
use smmu_model::{Identity, Mode, Rule};

use crate::configuration::{Configuration, Draws};
use crate::schedule::{Order, Task, crowd};
use crate::stage::Stage;

pub use guest::Guest;
pub use hardware::{Device, Ends, Wanted};
pub use process::{HOLE, Process, VA};

/// The highest StreamID: the stream table is one page.
const LAST_STREAM: u32 = 0x3f;
/// How long a CMD_SYNC may take, and a device to answer an invalidation, in microseconds.
const SYNC_TIMEOUT_US: u64 = 4_000;
const ATC_TIMEOUT_US: u64 = 500;
/// How long a number must be silent, and a stall may wait.
pub(crate) const QUARANTINE_US: u64 = 10_000;
pub(crate) const DEADLINE_US: u64 = 100_000;

/// The machine of one run, and everybody on it.
pub struct World<'h> {
    /// All SMMUs of it, as the host drives them.
    pub iommu: Iommu<'h, Hypervisor>,
    /// The host.
    pub host: &'h Hypervisor,
    /// Who stands beside the machine.
    pub stage: &'h Stage,
    /// The SMMUs, in the order of their numbers.
    pub smmus: &'h [Smmu<'h, Hypervisor>],
    /// What machine it is.
    pub configuration: Configuration,
    is_chaotic: bool,
    draws: Mutex<Draws>,
    memory: Mutex<Vec<(GuestId, Frames)>>,
    guests: Mutex<Vec<Guest>>,
    devices: Mutex<Vec<Arc<Device>>>,
    processes: Mutex<Vec<Process>>,
    tags: AtomicU64,
    /// Rules that devices break in this story, which the judge bears.
    borne: Mutex<Vec<Rule>>,
    /// An SMMU stopped for good: what it holds never comes back.
    is_beyond_repair: AtomicBool,
}

/// What the model is to be for one SMMU of a machine.
pub(crate) fn model(identity: Identity, mode: Mode) -> smmu_model::Settings {
    smmu_model::Settings {
        atc_timeout_us: ATC_TIMEOUT_US,
        ..smmu_model::Settings::new(identity, mode)
    }
}

/// Takes an SMMU over, with little memory.
pub(crate) fn take_over(host: &Hypervisor, smmu: usize) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let settings = Settings {
        log2_events: 6,
        sync_timeout_us: SYNC_TIMEOUT_US,
        ..Settings::new(StreamId::new(LAST_STREAM))
    };
    Smmu::take_over(host, host.registers(smmu), firmware, settings).expect("it is taken over")
}

/// The number of an SMMU, for the library.
pub(crate) fn smmu_id(smmu: usize) -> SmmuId {
    u8::try_from(smmu)
        .ok()
        .and_then(SmmuId::new)
        .expect("there are few")
}

impl<'h> World<'h> {
    /// A machine whose SMMUs were taken over, with nobody on it; of these SMMUs the first `known`
    /// were found by the host already.
    pub(crate) fn new(
        (host, stage): (&'h Hypervisor, &'h Stage),
        smmus: &'h [Smmu<'h, Hypervisor>],
        configuration: Configuration,
        (known, seed, is_chaotic): (usize, u64, bool),
    ) -> Self {
        let settings = IommuSettings {
            quarantine_us: QUARANTINE_US,
            stall_deadline_us: DEADLINE_US,
            ..IommuSettings::default()
        };
        let iommu = Iommu::new(host, settings).expect("there is memory");
        for (number, smmu) in smmus.iter().enumerate().take(known) {
            iommu.add_smmu(smmu_id(number), smmu).expect("it is new");
        }
        Self {
            iommu,
            host,
            stage,
            smmus,
            configuration,
            is_chaotic,
            draws: Mutex::new(Draws::new(seed)),
            memory: Mutex::default(),
            guests: Mutex::default(),
            devices: Mutex::default(),
            processes: Mutex::default(),
            tags: AtomicU64::new(0),
            borne: Mutex::default(),
            is_beyond_repair: AtomicBool::new(false),
        }
    }

    /// A number below `end`, which is not 0, that the run's seed decides.
    pub fn draw(&self, end: usize) -> usize {
        lock(&self.draws).below(end)
    }

    /// A seed for a race within the story.
    pub fn seed(&self) -> u64 {
        lock(&self.draws).next()
    }

    /// Tells a line of the story.
    pub fn say(&self, line: impl FnOnce() -> String) {
        self.stage.trace.say(line);
    }

    /// Whether the run's seed decides what the model does.
    pub const fn is_chaotic(&self) -> bool {
        self.is_chaotic
    }

    /// Runs the tasks on CPUs of their own, as the run's seed decides who goes on; now and then on
    /// real threads that nobody decides for.
    pub fn race(&self, mut tasks: Vec<Task<'_>>) {
        let first = self.draw(tasks.len());
        tasks.rotate_left(first);
        let on_threads = self.is_chaotic && self.draw(8) == 0;
        // A shot of the model's device is several steps: what it translated before an ATC_INV may be
        // used behind the SYNC by another thread, which a real ATC's answer waits for (§3.9.1).
        if on_threads && self.configuration.ats == Ats::Off {
            crowd(tasks);
        } else {
            self.stage.schedule.race(&Order::Drawn(self.seed()), tasks);
        }
    }

    /// The number of the SMMU that the host finds late.
    pub fn late_smmu(&self) -> usize {
        self.configuration.smmus
    }

    /// The host finds the late SMMU.
    pub fn find_late_smmu(&self) {
        let late = self.late_smmu();
        self.say(|| format!("SMMU {late} is found"));
        let added = self.iommu.add_smmu(smmu_id(late), &self.smmus[late]);
        added.expect("it is new");
    }

    /// Lets time pass, and has the SMMUs served.
    pub fn pass(&self, us: u64) {
        self.host.machine().advance(us);
        self.iommu.service(1000);
    }

    /// CMD_SYNCs that all SMMUs have completed so far.
    pub fn syncs(&self) -> u64 {
        let count = self.smmus.len();
        (0..count)
            .map(|it| self.host.machine().smmu(it).syncs())
            .sum()
    }

    pub(crate) fn all_guests(&self) -> Vec<Guest> {
        lock(&self.guests).clone()
    }

    pub(crate) fn all_devices(&self) -> Vec<Arc<Device>> {
        lock(&self.devices).clone()
    }

    pub(crate) fn all_processes(&self) -> Vec<Process> {
        lock(&self.processes).clone()
    }

    fn next_tag(&self) -> u64 {
        self.tags.fetch_add(1, Ordering::Relaxed)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere is told by itself.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
