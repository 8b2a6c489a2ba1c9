//! A small host: memory, time, devices that can be reset, ports that can be shut; and all of its
//! faults.

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis::addr::Pa;
use portcullis::hw::{Barrier, Clock, DeviceTag, Frames, NotDone, Platform, Registers};
use smmu_model::device::{Device, Wiring, frame};
use smmu_model::{Claim, Machine, Memory as _, Settings};

/// Where the host's memory starts.
const BASE: u64 = 0x8000_0000;
/// Its first page is nobody's, so that address 0 of an allocator never shows.
const FIRST: u64 = BASE + 0x1000;

/// A host, its devices, and the machine that it runs on.
pub struct Host {
    machine: Arc<Machine>,
    bytes: u64,
    memory: Mutex<Memory>,
    devices: Vec<Mutex<Port>>,
    /// Whether devices can be cut off above their SMMU.
    has_ports: bool,
}

/// A device, and the port that it is behind.
struct Port {
    device: Arc<Device>,
    controls: u32,
    is_shut: bool,
    is_jammed: bool,
    resets: u32,
}

struct Memory {
    /// The next byte that was never given out.
    fresh: u64,
    /// What came back, by size as a power of two.
    freed: BTreeMap<u8, Vec<u64>>,
    /// What is out, by address.
    out: BTreeMap<u64, u8>,
    allocations: u64,
    fails_at: Option<u64>,
}

/// One device of the machine.
#[derive(Clone, Copy, Debug)]
pub struct DeviceAt {
    /// The SMMU that it is behind.
    pub smmu: usize,
    /// Its stream there.
    pub stream: u32,
    /// Whether it asks for translations (ATS).
    pub has_ats: bool,
}

impl Host {
    /// A host with so much memory, and these SMMUs and devices.
    pub fn new(bytes: u64, smmus: &[Settings], devices: &[DeviceAt], has_ports: bool) -> Self {
        let machine = Arc::new(Machine::with_smmus(BASE, bytes, smmus));
        let ports = devices.iter().map(|at| {
            let ats = if at.has_ats { frame::control::ATS } else { 0 };
            let device = Device::new(machine.smmu(at.smmu), Wiring::full(at.stream));
            let port = Port {
                device,
                controls: frame::control::ENABLE | ats,
                is_shut: false,
                is_jammed: false,
                resets: 0,
            };
            port.open();
            Mutex::new(port)
        });
        Self {
            devices: ports.collect(),
            machine,
            bytes,
            memory: Mutex::new(Memory {
                fresh: FIRST,
                freed: BTreeMap::new(),
                out: BTreeMap::new(),
                allocations: 0,
                fails_at: None,
            }),
            has_ports,
        }
    }

    /// The machine, with what the model has to say.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The registers of an SMMU.
    pub fn registers(&self, smmu: usize) -> Wires {
        Wires {
            machine: Arc::clone(&self.machine),
            smmu,
        }
    }

    /// How many bytes of memory are out.
    pub fn bytes_out(&self) -> u64 {
        self.memory().out.values().map(|log2| 1 << log2).sum()
    }

    /// How many allocations were asked for so far.
    pub fn allocations(&self) -> u64 {
        self.memory().allocations
    }

    /// Lets exactly one allocation fail: the one after so many more.
    pub fn fail_after(&self, successes: Option<u64>) {
        let mut memory = self.memory();
        memory.fails_at = successes.map(|successes| memory.allocations + successes);
    }

    /// A device writes 8 bytes; where they land, if they do.
    pub fn write(&self, device: usize, pasid: Option<u32>, at: u64) -> Option<Pa> {
        let record = self.machine.record();
        let mark = record.mark();
        let device = Arc::clone(&self.port(device).device);
        let tag = pasid.map_or(0, |pasid| pasid | 1 << 31);
        device.write32(frame::PASID, tag);
        device.write64(frame::IOVA, at);
        device.write32(frame::LENGTH, 8);
        device.write32(frame::FLAGS, frame::flags::WRITE);
        device.write32(frame::COMMAND, frame::command::START);
        let landed = record.landed_since(mark);
        landed.first().map(|landing| Pa::new(landing.pa))
    }

    /// The model's side of a device.
    pub fn device(&self, device: usize) -> Arc<Device> {
        Arc::clone(&self.port(device).device)
    }

    /// Whether a device can be reset from now on.
    pub fn jam(&self, device: usize, is_jammed: bool) {
        self.port(device).is_jammed = is_jammed;
    }

    /// How often a device was reset.
    pub fn resets(&self, device: usize) -> u32 {
        self.port(device).resets
    }

    fn port(&self, device: usize) -> MutexGuard<'_, Port> {
        self.devices[device]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets devices see what the CPU has in memory that was its own: [`Platform::store`] counts on it.
    fn show(&self, base: u64, bytes: u64) {
        self.machine.barrier(smmu_model::Barrier::Publish);
        let memory = self.machine.memory();
        for pa in (base..base + bytes).step_by(8) {
            let value = memory.word(pa).expect("it is memory");
            let value = value.load(Ordering::Relaxed);
            if memory.read64(pa) != Ok(value) {
                memory.set(pa, value).expect("it is memory");
            }
        }
    }

    fn address_of(&self, word: &AtomicU64) -> u64 {
        let address = self.machine.memory().address_of(word);
        address.expect("the library touches memory that it was given, and no other")
    }
}

impl Port {
    fn open(&self) {
        self.device.write32(frame::CONTROL, self.controls);
    }
}

impl Memory {
    fn take(&mut self, log2_bytes: u8, end: u64) -> Option<u64> {
        let at = self.allocations;
        self.allocations += 1;
        if self.fails_at == Some(at) {
            return None;
        }
        let base = match self.freed.get_mut(&log2_bytes).and_then(Vec::pop) {
            Some(base) => base,
            None => {
                let base = self.fresh.next_multiple_of(1 << log2_bytes);
                if base + (1 << log2_bytes) > end {
                    return None;
                }
                self.fresh = base + (1 << log2_bytes);
                base
            }
        };
        self.out.insert(base, log2_bytes);
        Some(base)
    }
}

impl Clock for Host {
    fn now_us(&self) -> u64 {
        self.machine.record().now_us()
    }

    /// Time passes while one waits, and at no other moment.
    fn relax(&self) {
        self.machine.advance(1);
    }
}

// SAFETY: a piece of memory is out once until it comes back (`Memory::take`), `pointer` gives the
// model's own words, which live as long as `machine`, and `store` and `load` reach that word.
unsafe impl Platform for Host {
    type Registers = Wires;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        let base = self.memory().take(log2_bytes, BASE + self.bytes)?;
        let bytes = 1 << log2_bytes;
        self.show(base, bytes);
        self.machine.claim(Claim::FrameTaken { pa: base, bytes });
        // SAFETY: see the impl; a piece is aligned to its size.
        Some(unsafe { Frames::new(Pa::new(base), log2_bytes) })
    }

    fn free(&self, frames: Frames) {
        let (base, log2_bytes) = (frames.base().as_u64(), frames.log2_bytes());
        let mut memory = self.memory();
        let was_out = memory.out.remove(&base);
        assert_eq!(was_out, Some(log2_bytes), "freed is what was allocated");
        memory.freed.entry(log2_bytes).or_default().push(base);
        drop(memory);
        // Whatever an SMMU still keeps of it, it objects to now.
        self.machine.claim(Claim::FrameFreed {
            pa: base,
            bytes: frames.size_bytes(),
        });
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        let word = self.machine.memory().word(at.as_u64());
        NonNull::from(word.expect("the library asks for memory that it was given"))
    }

    fn peek(&self, at: Pa) -> Option<u64> {
        let word = self.machine.memory().word(at.as_u64())?;
        Some(word.load(Ordering::Relaxed))
    }

    fn clean(&self, words: &[AtomicU64]) {
        if let Some(first) = words.first() {
            self.machine
                .clean(self.address_of(first), 8 * words.len() as u64);
        }
    }

    fn store(&self, word: &AtomicU64, value: u64) {
        // What changes nothing nobody sees; a world is mostly pages that are cleared again.
        if word.load(Ordering::Relaxed) != value {
            let stored = self.machine.store(self.address_of(word), value);
            stored.expect("the word is in memory");
        }
    }

    fn load(&self, word: &AtomicU64) -> u64 {
        let loaded = self.machine.load(self.address_of(word));
        loaded.expect("the word is in memory")
    }

    fn reset_device(&self, DeviceTag(device): DeviceTag) -> Result<(), NotDone> {
        let mut port = self.port(device as usize);
        if port.is_jammed {
            return Err(NotDone {
                because: "it is jammed",
            });
        }
        port.resets += 1;
        port.device.write32(frame::COMMAND, frame::command::RESET);
        if !port.is_shut {
            port.open();
        }
        Ok(())
    }

    fn fence_port(&self, DeviceTag(device): DeviceTag) -> Result<(), NotDone> {
        if !self.has_ports {
            return Err(NotDone {
                because: "it has no port",
            });
        }
        let mut port = self.port(device as usize);
        port.is_shut = true;
        port.device.write32(frame::CONTROL, 0);
        Ok(())
    }

    fn unfence_port(&self, DeviceTag(device): DeviceTag) -> Result<(), NotDone> {
        let mut port = self.port(device as usize);
        port.is_shut = false;
        port.open();
        Ok(())
    }

    fn barrier(&self, kind: Barrier) {
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
    smmu: usize,
}

impl Registers for Wires {
    fn read32(&self, offset: usize) -> u32 {
        self.machine.smmu(self.smmu).read32(offset as u64)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.machine.smmu(self.smmu).write32(offset as u64, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        self.machine.smmu(self.smmu).read64(offset as u64)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.machine.smmu(self.smmu).write64(offset as u64, value);
    }
}
