//! A hypervisor that already exists, and embeds Portcullis by its public API alone.
//!
//! [`Hypervisor`] is what such a host has to bring: memory, time, registers. Here the machine below
//! it is the hostile model of an SMMU, so the tests in `tests/` run the library, unchanged, against
//! a second reading of the architecture. That this crate builds keeps the library's contract true:
//! values and no statics, no allocator, one platform trait, everything else safe Rust.
#![expect(
    unsafe_code,
    reason = "implementing `Platform` is the one promise that a host makes"
)]

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis::addr::Pa;
use portcullis::hw::{Barrier, Clock, DeviceTag, Frames, NotDone, Platform, Registers};
use smmu_model::device::{Device, frame};
use smmu_model::{Claim, Identity, Machine, Mode, Settings};

mod bystander;
pub mod dma;
pub mod guest;
mod lend;
pub mod world;

pub use bystander::{Bystander, Deed};
pub use lend::lend;

/// Where the host's memory starts.
const BASE: u64 = 0x8000_0000;
/// How much it has.
const BYTES: u64 = 12 << 20;
/// Its first page is nobody's, so that address 0 of an allocator never shows.
const FIRST: u64 = BASE + 0x1000;

/// A host: its memory, and the machine that it runs on.
pub struct Hypervisor {
    machine: Arc<Machine>,
    memory: Mutex<Memory>,
    alter: Mutex<Option<Alter>>,
    bystander: Arc<dyn Bystander>,
    /// The devices that it can reset, by tag.
    devices: Mutex<BTreeMap<u64, Arc<Device>>>,
}

/// What is stored in place of a value; `None`: nothing.
pub type Alter = fn(u64) -> Option<u64>;

struct Memory {
    /// The next byte that was never given out.
    fresh: u64,
    /// The first byte behind it all.
    end: u64,
    /// What came back, by size as a power of two.
    freed: BTreeMap<u8, Vec<u64>>,
    /// What is out, by address.
    out: BTreeMap<u64, u8>,
    allocations: u64,
    fail_from: Option<u64>,
}

impl Hypervisor {
    /// A host on a machine with one SMMU of this identity, that is hostile in this way.
    pub fn new(identity: Identity, mode: Mode) -> Self {
        Self::with_smmus(&[Settings::new(identity, mode)])
    }

    /// A host on a machine with several SMMUs.
    pub fn with_smmus(settings: &[Settings]) -> Self {
        Self::with_memory(BYTES, settings)
    }

    /// One with so many bytes of memory, whole pages.
    pub fn with_memory(bytes: u64, settings: &[Settings]) -> Self {
        Self::with_bystander(settings, bytes, Arc::new(bystander::Nobody))
    }

    /// A host on a machine with several SMMUs and `bytes` of memory, and with somebody beside it.
    pub fn with_bystander(
        settings: &[Settings],
        bytes: u64,
        bystander: Arc<dyn Bystander>,
    ) -> Self {
        Self {
            machine: Arc::new(Machine::with_smmus(BASE, bytes, settings)),
            memory: Mutex::new(Memory {
                fresh: FIRST,
                end: BASE + bytes,
                freed: BTreeMap::new(),
                out: BTreeMap::new(),
                allocations: 0,
                fail_from: None,
            }),
            alter: Mutex::new(None),
            bystander,
            devices: Mutex::new(BTreeMap::new()),
        }
    }

    /// Has `alter` say from now on what memory takes of each store, as failing memory would.
    pub fn alter_stores(&self, alter: Option<Alter>) {
        *self.alter.lock().unwrap_or_else(PoisonError::into_inner) = alter;
    }

    /// Lets the host reset this device when it is asked to.
    pub fn wire(&self, tag: DeviceTag, device: Arc<Device>) {
        self.devices().insert(tag.0, device);
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Device>>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine: for devices that do DMA, and for what the model has to say.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine, for somebody who outlives the borrow.
    pub fn shared_machine(&self) -> Arc<Machine> {
        Arc::clone(&self.machine)
    }

    /// The registers of the SMMU with this index.
    pub fn registers(&self, smmu: usize) -> Wires {
        Wires {
            machine: Arc::clone(&self.machine),
            bystander: Arc::clone(&self.bystander),
            smmu,
        }
    }

    /// How many bytes of memory are out.
    pub fn bytes_out(&self) -> u64 {
        self.memory()
            .out
            .values()
            .map(|log2_bytes| 1 << log2_bytes)
            .sum()
    }

    /// How many allocations were asked for so far.
    pub fn allocations(&self) -> u64 {
        self.memory().allocations
    }

    /// Lets the allocation after so many more fail, and all behind it; `None`: none any more.
    pub fn fail_after(&self, successes: Option<u64>) {
        let mut memory = self.memory();
        memory.fail_from = successes.map(|successes| memory.allocations + successes);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address_of(&self, word: &AtomicU64) -> u64 {
        let address = self.machine.memory().address_of(word);
        address.expect("the library touches memory that it was given, and no other")
    }
}

impl Memory {
    fn take(&mut self, log2_bytes: u8) -> Option<u64> {
        let at = self.allocations;
        self.allocations += 1;
        if self.fail_from.is_some_and(|from| at >= from) {
            return None;
        }
        let base = match self.freed.get_mut(&log2_bytes).and_then(Vec::pop) {
            Some(base) => base,
            None => {
                let base = self.fresh.next_multiple_of(1 << log2_bytes);
                let end = base.checked_add(1 << log2_bytes)?;
                if end > self.end {
                    return None;
                }
                self.fresh = end;
                base
            }
        };
        self.out.insert(base, log2_bytes);
        Some(base)
    }
}

impl Clock for Hypervisor {
    fn now_us(&self) -> u64 {
        self.machine.record().now_us()
    }

    /// Time passes while one waits, and at no other moment.
    fn relax(&self) {
        self.machine.advance(self.bystander.turn_us());
        self.bystander.before(Deed::Relax);
    }
}

// SAFETY: a piece of memory is out once until it comes back (`Memory::take`), `pointer` gives the
// model's own words, which live as long as `machine`, and `store` and `load` reach that word.
unsafe impl Platform for Hypervisor {
    type Registers = Wires;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        let base = self.memory().take(log2_bytes)?;
        let bytes = 1 << log2_bytes;
        self.machine.claim(Claim::FrameTaken { pa: base, bytes });
        // SAFETY: see the impl; a piece is aligned to its size.
        Some(unsafe { Frames::new(Pa::new(base), log2_bytes) })
    }

    fn free(&self, frames: Frames) {
        let (base, log2_bytes) = (frames.base().as_u64(), frames.log2_bytes());
        let was_out = self.memory().out.remove(&base);
        assert_eq!(was_out, Some(log2_bytes), "freed is what was allocated");
        // Whatever an SMMU still keeps of it, it objects to now: before another CPU can have it, whose
        // use would be taken for the old one.
        self.machine.claim(Claim::FrameFreed {
            pa: base,
            bytes: frames.size_bytes(),
        });
        let mut memory = self.memory();
        memory.freed.entry(log2_bytes).or_default().push(base);
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        let word = self.machine.memory().word(at.as_u64());
        NonNull::from(word.expect("the library asks for memory that it was given"))
    }

    fn clean(&self, words: &[AtomicU64]) {
        if let Some(first) = words.first() {
            let (pa, bytes) = (self.address_of(first), 8 * words.len() as u64);
            self.bystander.before(Deed::Clean { pa, bytes });
            self.machine.clean(pa, bytes);
        }
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        let alter = *self.alter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = alter.map_or(Some(value), |alter| alter(value)) {
            let pa = self.address_of(word);
            self.bystander.before(Deed::Store { pa, value });
            let stored = self.machine.store(pa, value);
            stored.expect("the word is in memory");
        }
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        let pa = self.address_of(word);
        self.bystander.before(Deed::Load { pa });
        let loaded = self.machine.load(pa);
        loaded.expect("the word is in memory")
    }

    fn reset_device(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.bystander.may_reset(device)?;
        let because = "it is not wired";
        let device = self.devices().get(&device.0).cloned();
        let device = device.ok_or(NotDone { because })?;
        device.write32(frame::COMMAND, frame::command::RESET);
        Ok(())
    }

    fn peek(&self, at: Pa) -> Option<u64> {
        self.machine.load(at.as_u64()).ok()
    }

    fn fence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.bystander.fence_port(device)
    }

    fn unfence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.bystander.unfence_port(device)
    }

    fn barrier(&self, kind: Barrier) {
        self.bystander.before(Deed::Barrier(kind));
        std::sync::atomic::fence(Ordering::SeqCst);
        self.machine.barrier(match kind {
            Barrier::Publish => smmu_model::Barrier::Publish,
            Barrier::Observe => smmu_model::Barrier::Observe,
            Barrier::Release => smmu_model::Barrier::Release,
        });
    }
}

/// The registers of one of the machine's SMMUs.
#[derive(Clone)]
pub struct Wires {
    machine: Arc<Machine>,
    bystander: Arc<dyn Bystander>,
    smmu: usize,
}

impl Wires {
    fn reading(&self, offset: usize) -> u64 {
        let (smmu, offset) = (self.smmu, offset as u64);
        self.bystander.before(Deed::RegisterRead { smmu, offset });
        offset
    }

    fn writing(&self, offset: usize, value: u64) -> u64 {
        let (smmu, offset) = (self.smmu, offset as u64);
        let deed = Deed::RegisterWrite {
            smmu,
            offset,
            value,
        };
        self.bystander.before(deed);
        offset
    }
}

impl Registers for Wires {
    fn read32(&self, offset: usize) -> u32 {
        let offset = self.reading(offset);
        self.machine.smmu(self.smmu).read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        let offset = self.writing(offset, value.into());
        self.machine.smmu(self.smmu).write32(offset, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        let offset = self.reading(offset);
        self.machine.smmu(self.smmu).read64(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        let offset = self.writing(offset, value);
        self.machine.smmu(self.smmu).write64(offset, value);
    }
}
