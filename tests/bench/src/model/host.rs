//! A host that writes down what the library does.
#![expect(
    unsafe_code,
    reason = "implementing `Platform` is the one promise that a host makes"
)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis::addr::Pa;
use portcullis::hw::{Barrier, Clock, DeviceTag, Frames, NotDone, Platform, Registers};
use portcullis_embedder::{Hypervisor, Wires};
use smmu_model::{Settings, offset};

use super::turns::Turns;

/// CMD_SYNC.
const SYNC: u8 = 0x46;
/// Opcodes of commands that take more than one guest's or one stream's entries: CFGI_STE_RANGE and
/// CFGI_ALL, TLBI_EL3_ALL, TLBI_EL2_ALL, TLBI_NSNH_ALL.
const WIDE: [u8; 4] = [0x04, 0x18, 0x20, 0x30];

/// What was done since some moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Done {
    /// Commands, CMD_SYNCs too.
    pub commands: u64,
    /// CMD_SYNCs.
    pub syncs: u64,
    /// Times that a CPU waited, having rung some SMMU's doorbell since it waited last.
    pub waits: u64,
    /// Commands that take entries of others too.
    pub wide: u64,
    /// Entries of others that the model saw go by such.
    pub evicted: u64,
    /// Pieces of memory asked for.
    pub allocations: u64,
    /// Microseconds of model time.
    pub us: u64,
}

impl Done {
    fn since(self, before: Self) -> Self {
        Self {
            commands: self.commands - before.commands,
            syncs: self.syncs - before.syncs,
            waits: self.waits - before.waits,
            wide: self.wide - before.wide,
            evicted: self.evicted - before.evicted,
            allocations: self.allocations - before.allocations,
            us: self.us - before.us,
        }
    }
}

/// What the doorbells say.
#[derive(Debug, Default)]
struct Log {
    commands: AtomicU64,
    syncs: AtomicU64,
    waits: AtomicU64,
    wide: AtomicU64,
    /// A doorbell was rung that nobody waited after yet.
    rang: AtomicBool,
    /// Where CMDQ_PROD was, of each SMMU.
    prods: Mutex<Vec<u32>>,
}

/// The embedder's host, with a log, and with turns if threads take some.
pub struct Host {
    inner: Hypervisor,
    log: Arc<Log>,
    turns: Option<Turns>,
}

impl Host {
    /// A host with so many bytes of memory, on a machine with these SMMUs.
    pub fn new(bytes: u64, settings: &[Settings]) -> Self {
        Self {
            inner: Hypervisor::with_memory(bytes, settings),
            log: Arc::new(Log {
                prods: Mutex::new(vec![0; settings.len()]),
                ..Log::default()
            }),
            turns: None,
        }
    }

    /// The same for so many threads that take turns: whoever waits lets the next one go on, and time
    /// passes when all wait.
    pub fn with_turns(mut self, threads: usize) -> Self {
        self.turns = Some(Turns::new(threads));
        self
    }

    /// The turns.
    pub fn turns(&self) -> Option<&Turns> {
        self.turns.as_ref()
    }

    /// The host that this one wraps.
    pub fn inner(&self) -> &Hypervisor {
        &self.inner
    }

    /// The registers of an SMMU.
    pub fn registers(&self, smmu: usize) -> Doorbells {
        Doorbells {
            wires: self.inner.registers(smmu),
            smmu,
            log: Arc::clone(&self.log),
            machine: self.inner.shared_machine(),
        }
    }

    /// All that was done so far.
    fn done(&self) -> Done {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let record = self.inner.machine().record();
        Done {
            commands: get(&self.log.commands),
            syncs: get(&self.log.syncs),
            waits: get(&self.log.waits),
            wide: get(&self.log.wide),
            evicted: record.foreign_evictions(),
            allocations: self.inner.allocations(),
            us: record.now_us(),
        }
    }

    /// What `work` does.
    pub fn count<R>(&self, work: impl FnOnce() -> R) -> (Done, R) {
        let before = self.done();
        let result = work();
        (self.done().since(before), result)
    }

    /// Panics if the model has an objection: then nothing that was counted means anything.
    pub fn assert_clean(&self) {
        let violations = self.inner.machine().record().violations();
        assert!(violations.is_empty(), "{}", violations[0]);
    }
}

impl Clock for Host {
    fn now_us(&self) -> u64 {
        self.inner.now_us()
    }

    fn relax(&self) {
        if self.log.rang.swap(false, Ordering::Relaxed) {
            self.log.waits.fetch_add(1, Ordering::Relaxed);
        }
        match &self.turns {
            Some(turns) => turns.pass(|| self.inner.relax()),
            None => self.inner.relax(),
        }
    }
}

// SAFETY: everything is the embedder's host's, which makes the same promise.
unsafe impl Platform for Host {
    type Registers = Doorbells;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        self.inner.allocate(log2_bytes)
    }

    fn free(&self, frames: Frames) {
        self.inner.free(frames);
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        self.inner.pointer(at)
    }

    fn clean(&self, words: &[AtomicU64]) {
        self.inner.clean(words);
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        self.inner.store(word, value);
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        self.inner.load(word)
    }

    fn barrier(&self, kind: Barrier) {
        self.inner.barrier(kind);
    }

    /// Devices here forget whatever they are asked to.
    fn reset_device(&self, _: DeviceTag) -> Result<(), NotDone> {
        Ok(())
    }
}

/// Registers whose doorbell is listened to.
#[derive(Clone)]
pub struct Doorbells {
    wires: Wires,
    smmu: usize,
    log: Arc<Log>,
    machine: Arc<smmu_model::Machine>,
}

impl Doorbells {
    fn prods(&self) -> MutexGuard<'_, Vec<u32>> {
        self.log
            .prods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The doorbell is rung: notes the commands between where it was and where it is.
    fn rung(&self, prod: u32) {
        let base = self.wires.read64(offset::CMDQ_BASE as usize);
        let (log2, address) = (base & 31, base & 0x000f_ffff_ffff_ffe0);
        let wrap = (2u32 << log2) - 1;
        let mut prods = self.prods();
        let old = std::mem::replace(&mut prods[self.smmu], prod & wrap);
        for at in 0..(prod.wrapping_sub(old) & wrap) {
            let slot = u64::from((old + at) & (wrap >> 1));
            // The CPU's view, looked at beside the model: this is no access of the driver's.
            let word = self.machine.memory().load(address + slot * 16).unwrap_or(0);
            self.note(word as u8);
        }
        if prod & wrap != old {
            self.log.rang.store(true, Ordering::Relaxed);
        }
    }

    fn note(&self, opcode: u8) {
        let add = |count: &AtomicU64, is_it: bool| {
            count.fetch_add(u64::from(is_it), Ordering::Relaxed);
        };
        add(&self.log.commands, true);
        add(&self.log.syncs, opcode == SYNC);
        add(&self.log.wide, WIDE.contains(&opcode));
    }
}

impl Registers for Doorbells {
    fn read32(&self, offset: usize) -> u32 {
        self.wires.read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        if offset as u64 == offset::CMDQ_PROD {
            self.rung(value);
        }
        self.wires.write32(offset, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        self.wires.read64(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.wires.write64(offset, value);
    }
}
