//! The machine as the library sees it: memory, time, and the instructions a device can notice.

use core::alloc::Layout;
use core::fmt;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU64, Ordering};

use buddy_system_allocator::Heap;
use spin::Once;

use super::cpu::Mutex;
use super::ram::FreeRam;
use super::tables::{Kind, MapError};
use super::{cpu, mmu};
use crate::addr::{Extent, Pa};
use crate::hw::{Clock, DeviceTag, Frames, NotDone, Platform};

#[cfg(not(feature = "sabotage"))]
pub use crate::hw::Mmio as Registers;

#[cfg(feature = "sabotage")]
pub use super::sabotage::Registers;

/// What is done to a device beside its SMMU; as [`Platform`] has it.
pub trait Devices: Sync {
    /// As [`Platform::reset_device`].
    ///
    /// # Errors
    ///
    /// [`NotDone`].
    fn reset(&self, device: DeviceTag) -> Result<(), NotDone>;

    /// As [`Platform::fence_port`].
    ///
    /// # Errors
    ///
    /// [`NotDone`].
    fn fence(&self, device: DeviceTag) -> Result<(), NotDone>;

    /// As [`Platform::unfence_port`].
    ///
    /// # Errors
    ///
    /// [`NotDone`].
    fn unfence(&self, device: DeviceTag) -> Result<(), NotDone>;
}

const NO_DEVICES: NotDone = NotDone {
    because: "devices are not known yet",
};

/// Maps the SMMU's registers at `base`, for the library.
///
/// # Errors
///
/// [`MapError`], as [`mmu::map_device`].
pub fn map_registers(base: Pa, size_bytes: u64) -> Result<Registers, MapError> {
    let registers = mmu::map_device(base, size_bytes)?;
    #[cfg(feature = "sabotage")]
    let registers = Registers::new(registers, base);
    Ok(registers)
}

/// Why there is no [`Host`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostError {
    /// There is less memory than [`Host::LEAST_BYTES`]. None of it is mapped.
    TooLittleMemory {
        /// How much there is.
        free_bytes: u64,
    },
    /// Some of the memory cannot be mapped; some of it may be.
    Map(MapError),
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLittleMemory { free_bytes } => {
                let least_bytes = Host::LEAST_BYTES;
                write!(
                    f,
                    "too little memory: {free_bytes} bytes are free, {least_bytes} are needed"
                )
            }
            Self::Map(refusal) => write!(f, "free memory cannot be used: {refusal}"),
        }
    }
}

/// [`Platform`] for the image: all free memory of the machine, and what goes with it.
///
/// Large frames come from a buddy heap, the free of which looks through a list. Frames of 4 KiB, of
/// which there are many, are cut from chunks of it and go onto a stack of their own when they
/// are freed, so that each costs the same; they never become large ones again.
pub struct Host {
    memory: Mutex<Memory>,
    devices: Once<&'static dyn Devices>,
    /// Where all of it is.
    ram: FreeRam,
}

struct Memory {
    /// Blocks of up to 4 GiB.
    heap: Heap<33>,
    /// The chunk that 4 KiB frames are cut from: the next one, and the end.
    chunk: (u64, u64),
    /// The last 4 KiB frame that was freed; its first word says the one before it, 0 is the end.
    freed: u64,
}

const FRAME_BYTES: u64 = 1 << LOG2_FRAME_BYTES;
const LOG2_FRAME_BYTES: u8 = 12;
const LOG2_CHUNK_BYTES: u8 = 21;

impl Host {
    /// The least memory that the image sets out with.
    pub const LEAST_BYTES: u64 = 8 << 20;

    /// Maps the memory in `free` and takes it.
    ///
    /// # Errors
    ///
    /// Each [`HostError`]. [`MapError::AlreadyMapped`] in it makes sure that none of the memory is
    /// the image, the device tree, or in `free` twice.
    pub fn new(free: FreeRam) -> Result<Self, HostError> {
        let free_bytes = free.free_bytes();
        if free_bytes < Self::LEAST_BYTES {
            return Err(HostError::TooLittleMemory { free_bytes });
        }
        let mut heap = Heap::new();
        for extent in free.extents() {
            mmu::map(*extent, Kind::Data).map_err(HostError::Map)?;
            let (first, end) = (
                extent.base().as_u64() as usize,
                extent.end().as_u64() as usize,
            );
            // SAFETY: just mapped, by nobody before and for ever, so nobody refers to it, and the
            // heap was not given it before.
            unsafe { heap.add_to_heap(first, end) };
        }
        Ok(Self {
            memory: Mutex::new(Memory {
                heap,
                chunk: (0, 0),
                freed: 0,
            }),
            devices: Once::new(),
            ram: free,
        })
    }

    /// The word of memory at `at`, whoever's it is; `None` if it is none of this value's.
    pub fn word(&self, at: Pa) -> Option<&AtomicU64> {
        let last = at.checked_add(7)?;
        let holds = |it: &Extent<Pa>| it.contains(at) && it.contains(last);
        if !at.is_aligned(3) || !self.ram.extents().iter().any(holds) {
            return None;
        }
        // SAFETY: `Host::new` mapped this memory for ever; whatever lies there is a word, and
        // atomics may be raced on.
        Some(unsafe { pointer(at.as_u64()).as_ref() })
    }

    /// Has `devices` be asked for what is done to devices; only the first call has an effect.
    pub fn know_devices(&self, devices: &'static dyn Devices) {
        self.devices.call_once(|| devices);
    }
}

impl Memory {
    fn block(&mut self, log2_bytes: u8) -> Option<u64> {
        let block = self.heap.alloc(layout(log2_bytes)?).ok()?;
        Some(block.as_ptr().expose_provenance() as u64)
    }

    fn frame(&mut self) -> Option<u64> {
        if self.freed != 0 {
            let frame = self.freed;
            // SAFETY: a frame on the stack is our memory, and nobody else's until it is given out.
            let next = unsafe { pointer(frame).as_ref() };
            self.freed = next.load(Ordering::Relaxed);
            return Some(frame);
        }
        if self.chunk.0 == self.chunk.1 {
            let Some(chunk) = self.block(LOG2_CHUNK_BYTES) else {
                return self.block(LOG2_FRAME_BYTES);
            };
            self.chunk = (chunk, chunk + (1 << LOG2_CHUNK_BYTES));
        }
        let frame = self.chunk.0;
        self.chunk.0 += FRAME_BYTES;
        Some(frame)
    }
}

fn layout(log2_bytes: u8) -> Option<Layout> {
    let bytes = 1usize.checked_shl(log2_bytes.into())?;
    Layout::from_size_align(bytes, bytes).ok()
}

/// Memory is mapped one to one.
fn pointer(at: u64) -> NonNull<AtomicU64> {
    // No memory is free at 0 (`FreeRam`), so the default never shows.
    NonNull::new(with_exposed_provenance_mut(at as usize)).unwrap_or(NonNull::dangling())
}

impl Clock for Host {
    fn now_us(&self) -> u64 {
        cpu::now_us()
    }

    fn relax(&self) {
        cpu::relax();
    }
}

// SAFETY: frames come from memory that `Host::new` took for itself alone, mapped as Normal
// write-back memory, one to one, for ever; the heap gives each out once until it comes back.
unsafe impl Platform for Host {
    type Registers = &'static Registers;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        let mut memory = self.memory.lock();
        let base = match log2_bytes {
            LOG2_FRAME_BYTES => memory.frame(),
            13..=47 => memory.block(log2_bytes),
            _ => None,
        }?;
        // SAFETY: nobody else has it (heap, chunk and stack give each frame once), and `pointer`
        // knows all memory; a block is aligned to its size, which is in range.
        Some(unsafe { Frames::new(Pa::new(base), log2_bytes) })
    }

    fn free(&self, frames: Frames) {
        let mut memory = self.memory.lock();
        let base = frames.base().as_u64();
        if frames.log2_bytes() == LOG2_FRAME_BYTES {
            if let Some(word) = frames.words(self).first() {
                word.store(memory.freed, Ordering::Relaxed);
                memory.freed = base;
            }
            return;
        }
        if let Some(layout) = layout(frames.log2_bytes()) {
            // SAFETY: a `Frames` is made by `allocate` alone, with this layout, and is gone now.
            unsafe { memory.heap.dealloc(pointer(base).cast(), layout) };
        }
    }

    fn peek(&self, at: Pa) -> Option<u64> {
        Some(self.word(at)?.load(Ordering::Relaxed))
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        pointer(at.as_u64())
    }

    fn clean(&self, words: &[AtomicU64]) {
        cpu::clean(words);
    }

    // Where faults are put in, every store is looked at.
    #[cfg(not(feature = "sabotage"))]
    #[inline]
    fn clear(&self, words: &[AtomicU64]) {
        cpu::zero(words);
    }

    fn reset_device(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.devices.get().ok_or(NO_DEVICES)?.reset(device)
    }

    fn fence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.devices.get().ok_or(NO_DEVICES)?.fence(device)
    }

    fn unfence_port(&self, device: DeviceTag) -> Result<(), NotDone> {
        self.devices.get().ok_or(NO_DEVICES)?.unfence(device)
    }

    #[cfg(feature = "sabotage")]
    fn store(&self, word: &AtomicU64, value: u64) {
        let at = Pa::new(core::ptr::from_ref(word).addr() as u64);
        if let Some(value) = super::sabotage::altered(at, value) {
            word.store(value, Ordering::Relaxed);
        }
    }
}
