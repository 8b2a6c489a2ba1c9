//! A host that sees all that passes between the library and the machine, and can leave out one step.

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use portcullis::addr::Pa;
use portcullis::hw::{Barrier, Clock, DeviceTag, Frames, NotDone, Platform, Registers};
use portcullis_embedder::Hypervisor;
use smmu_model::device::{Device, frame};
use smmu_model::{Machine, Settings};

use crate::count::Counts;
use crate::step::{Kind, Step};

/// IHI 0070 §6.2.
const CMDQ_BASE: usize = 0x90;
const CMDQ_PROD: usize = 0x98;
const CMDQ_CONS: usize = 0x9c;

/// CMD_CFGI_STE with Leaf = 1 of a stream that nobody has: what stands where a command was.
const HARMLESS: [u64; 2] = [0x0000_fffe_0000_0003, 1];

/// Valid, of the lowest level or a table, with access and memory that is written back: to whatever
/// reads it as a descriptor of stage 2 or 1, as an STE or as a CD.
const POISON: u64 = 0x7ff;

/// A host between the library and the machine.
pub struct Tap {
    host: Hypervisor,
    log: Arc<Mutex<Log>>,
    devices: Mutex<BTreeMap<u64, Vec<Arc<Device>>>>,
    refuses_resets: AtomicBool,
    has_ports: AtomicBool,
    /// Whether memory has caches that the SMMUs do not snoop; only where the library is told so, it
    /// cleans: the rest is cleaned for it.
    has_caches: bool,
    poison: OnceLock<u64>,
}

/// What is known of an SMMU's command queue.
#[derive(Clone, Copy, Default)]
struct Queue {
    base: u64,
    log2_entries: u64,
    /// The SMMU was told something, and was not asked since how far it has got.
    was_told: bool,
}

impl Queue {
    /// Which word of a command lies at `at`.
    fn word(&self, at: u64) -> Option<u64> {
        let offset = at.checked_sub(self.base)?;
        (self.base != 0 && offset < 16 << self.log2_entries).then_some(offset / 8 % 2)
    }
}

#[derive(Default)]
struct Log {
    counts: Counts,
    queues: Vec<Queue>,
    /// The steps since the log was opened; `None`: it is closed.
    steps: Option<Vec<Step>>,
    left_out: Option<Step>,
    was_left_out: bool,
    /// The second word of a command that is left out comes next, to this address.
    second_word: Option<u64>,
    /// Words that were stored since the last barrier, where there are caches.
    stored: Vec<u64>,
    /// What was to be cleaned, and was not.
    uncleaned: Option<Range<u64>>,
}

impl Log {
    /// Notes a step; whether it is to be left out.
    fn step(&mut self, kind: Kind) -> bool {
        let Some(steps) = &mut self.steps else {
            return false;
        };
        let nth = steps.iter().filter(|step| step.kind == kind).count() as u32;
        let step = Step { kind, nth };
        steps.push(step);
        let is_it = self.left_out == Some(step);
        self.was_left_out |= is_it;
        is_it
    }

    /// What memory is to take of a store.
    fn store(&mut self, at: u64, value: u64) -> u64 {
        if self.second_word.take() == Some(at) {
            return HARMLESS[1];
        }
        if !self.queues.iter().any(|queue| queue.word(at) == Some(0)) {
            return value;
        }
        let kind = Kind::of_command(value);
        self.counts.commands += 1;
        self.counts.syncs += u64::from(kind == Kind::Sync);
        if self.step(kind) {
            self.second_word = Some(at + 8);
            return HARMLESS[0];
        }
        value
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tap {
    /// A host on a machine with these SMMUs.
    pub fn new(settings: &[Settings]) -> Self {
        Self::over(Hypervisor::with_smmus(settings), settings)
    }

    /// As [`new`](Self::new), with so many bytes of memory.
    pub fn with_memory(bytes: u64, settings: &[Settings]) -> Self {
        Self::over(Hypervisor::with_memory(bytes, settings), settings)
    }

    fn over(host: Hypervisor, settings: &[Settings]) -> Self {
        let log = Log {
            queues: vec![Queue::default(); settings.len()],
            ..Log::default()
        };
        Self {
            host,
            log: Arc::new(Mutex::new(log)),
            devices: Mutex::new(BTreeMap::new()),
            refuses_resets: AtomicBool::new(false),
            has_ports: AtomicBool::new(false),
            has_caches: settings.iter().any(|it| !it.identity.cohacc),
            poison: OnceLock::new(),
        }
    }

    /// From now on, fills what is allocated, up to 64 KiB, with what would be an entry, a table or a
    /// page to an SMMU that sees it before it is written: all of it leads to one page.
    pub fn poison(&self) {
        let page = self
            .host
            .allocate(12)
            .expect("there is memory")
            .base()
            .as_u64();
        self.poison.get_or_init(|| page | POISON);
        self.spoil(page, 1 << 12);
    }

    /// Where poison leads, in which nobody is to land.
    pub fn trap(&self) -> Option<Pa> {
        self.poison.get().map(|word| Pa::new(word & !0xfff))
    }

    fn spoil(&self, from: u64, bytes: u64) {
        if let Some(poison) = self.poison.get() {
            for at in (from..from + bytes).step_by(8) {
                let spoilt = self.machine().memory().set(at, *poison);
                spoilt.expect("it was allocated");
            }
        }
    }

    /// Has the host refuse to reset devices from now on.
    pub fn refuse_resets(&self) {
        self.refuses_resets.store(true, Ordering::Relaxed);
    }

    /// Has the host reset devices again.
    pub fn allow_resets(&self) {
        self.refuses_resets.store(false, Ordering::Relaxed);
    }

    /// Gives every device a port that the host can close.
    pub fn add_ports(&self) {
        self.has_ports.store(true, Ordering::Relaxed);
    }

    /// Opens or closes the port of a device.
    fn port(&self, device: DeviceTag, is_open: bool) -> Result<(), NotDone> {
        if !self.has_ports.load(Ordering::Relaxed) {
            return Err(NotDone {
                because: "there are no ports",
            });
        }
        let devices = lock(&self.devices).get(&device.0).cloned();
        for device in devices.unwrap_or_default() {
            let rest = device.read32(frame::CONTROL) & !frame::control::ENABLE;
            let enable = if is_open { frame::control::ENABLE } else { 0 };
            device.write32(frame::CONTROL, rest | enable);
        }
        Ok(())
    }

    /// The machine below.
    pub fn machine(&self) -> &Machine {
        self.host.machine()
    }

    /// The host that memory comes from.
    pub const fn host(&self) -> &Hypervisor {
        &self.host
    }

    /// The registers of the SMMU with this index.
    pub fn registers(&self, smmu: usize) -> Wires {
        Wires {
            wires: self.host.registers(smmu),
            smmu,
            log: Arc::clone(&self.log),
        }
    }

    /// The device that the host is to reset when it is asked to reset `tag`.
    pub fn wire(&self, tag: DeviceTag, device: &Arc<Device>) {
        let mut devices = lock(&self.devices);
        devices.entry(tag.0).or_default().push(Arc::clone(device));
    }

    /// What passed so far; evictions are not its to see.
    pub fn counts(&self) -> Counts {
        Counts {
            allocations: self.host.allocations(),
            ..lock(&self.log).counts
        }
    }

    /// What `work` makes pass.
    pub fn count<R>(&self, work: impl FnOnce() -> R) -> (Counts, R) {
        let before = self.counts();
        let result = work();
        (self.counts() - before, result)
    }

    /// Does `work`, with one step of it left out if `left_out` says which; the steps that it had,
    /// that one among them, and whether it came.
    pub fn without<R>(
        &self,
        left_out: Option<Step>,
        work: impl FnOnce() -> R,
    ) -> (Vec<Step>, bool, R) {
        {
            let mut log = lock(&self.log);
            log.steps = Some(Vec::new());
            log.left_out = left_out;
            log.was_left_out = false;
        }
        let result = work();
        let mut log = lock(&self.log);
        log.left_out = None;
        let steps = log.steps.take().unwrap_or_default();
        (steps, log.was_left_out, result)
    }
}

impl Clock for Tap {
    fn now_us(&self) -> u64 {
        self.host.now_us()
    }

    fn relax(&self) {
        self.host.relax();
    }
}

// SAFETY: memory and the words of it are those of the `Hypervisor`, which keeps the promise; what a
// store is changed to is stored to the same word.
unsafe impl Platform for Tap {
    type Registers = Wires;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        let frames = self.host.allocate(log2_bytes)?;
        if log2_bytes <= 16 {
            self.spoil(frames.base().as_u64(), 1 << log2_bytes);
        }
        Some(frames)
    }

    fn free(&self, frames: Frames) {
        self.host.free(frames);
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        self.host.pointer(at)
    }

    fn clean(&self, words: &[AtomicU64]) {
        let mut log = lock(&self.log);
        if log.step(Kind::Clean) {
            let first = words
                .first()
                .and_then(|it| self.machine().memory().address_of(it));
            // Whole lines: a word that is cleaned would take its neighbours along.
            log.uncleaned = first.map(|first| {
                let end = first + 8 * words.len() as u64;
                first & !63..end.next_multiple_of(64)
            });
        } else {
            drop(log);
            self.host.clean(words);
        }
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        let at = self.machine().memory().address_of(word);
        let value = at.map_or(value, |at| {
            let mut log = lock(&self.log);
            if self.has_caches {
                log.stored.push(at);
            }
            log.store(at, value)
        });
        self.host.store(word, value);
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        self.host.load(word)
    }

    fn peek(&self, at: Pa) -> Option<u64> {
        self.host.peek(at)
    }

    fn reset_device(&self, device: DeviceTag) -> Result<(), NotDone> {
        if self.refuses_resets.load(Ordering::Relaxed) {
            return Err(NotDone {
                because: "the host refuses",
            });
        }
        let devices = lock(&self.devices).get(&device.0).cloned();
        for device in devices.unwrap_or_default() {
            let controls = device.read32(frame::CONTROL);
            device.write32(frame::COMMAND, frame::command::RESET);
            // Its driver starts it again.
            device.write32(frame::CONTROL, controls);
        }
        Ok(())
    }

    fn fence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.port(device, false)
    }

    fn unfence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.port(device, true)
    }

    fn barrier(&self, kind: Barrier) {
        let mut log = lock(&self.log);
        let is_left_out = log.step(Kind::of_barrier(kind));
        let stored = std::mem::take(&mut log.stored);
        let uncleaned = log.uncleaned.clone().unwrap_or(0..0);
        drop(log);
        for at in stored.into_iter().filter(|at| !uncleaned.contains(at)) {
            self.machine().clean(at, 8);
        }
        if !is_left_out {
            self.host.barrier(kind);
        }
    }
}

/// The registers of one of the machine's SMMUs.
pub struct Wires {
    wires: portcullis_embedder::Wires,
    smmu: usize,
    log: Arc<Mutex<Log>>,
}

impl Wires {
    fn reads(&self, offset: usize) {
        let mut log = lock(&self.log);
        log.counts.accesses += 1;
        if offset == CMDQ_CONS && std::mem::take(&mut log.queues[self.smmu].was_told) {
            log.counts.waits += 1;
        }
    }

    fn writes(&self, offset: usize) {
        let mut log = lock(&self.log);
        log.counts.accesses += 1;
        log.queues[self.smmu].was_told |= offset == CMDQ_PROD;
    }

    /// The queue was moved.
    fn note_queue(&self, offset: usize) {
        if offset & !7 == CMDQ_BASE {
            let register = self.wires.read64(CMDQ_BASE);
            lock(&self.log).queues[self.smmu] = Queue {
                base: register & 0x00ff_ffff_ffff_ffe0,
                log2_entries: register & 0x1f,
                ..Queue::default()
            };
        }
    }
}

impl Registers for Wires {
    fn read32(&self, offset: usize) -> u32 {
        self.reads(offset);
        self.wires.read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.writes(offset);
        self.wires.write32(offset, value);
        self.note_queue(offset);
    }

    fn read64(&self, offset: usize) -> u64 {
        self.reads(offset);
        self.wires.read64(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.writes(offset);
        self.wires.write64(offset, value);
        self.note_queue(offset);
    }
}
