//! Register frames, and the barriers that go with them.

use core::ptr::NonNull;

use super::Barrier;

/// A frame of device registers, reached by byte offset.
///
/// `&self`: several CPUs may access one frame; who may write what is the driver's business. An
/// access is aligned to its size; a 64-bit access may be seen as two halves (§6.1).
pub trait Registers: Sync {
    /// Reads 32 bits at `offset`.
    fn read32(&self, offset: usize) -> u32;
    /// Writes 32 bits at `offset`.
    fn write32(&self, offset: usize, value: u32);
    /// Reads 64 bits at `offset`.
    fn read64(&self, offset: usize) -> u64;
    /// Writes 64 bits at `offset`.
    fn write64(&self, offset: usize, value: u64);
}

impl<R: Registers> Registers for &R {
    fn read32(&self, offset: usize) -> u32 {
        R::read32(self, offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        R::write32(self, offset, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        R::read64(self, offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        R::write64(self, offset, value);
    }
}

/// A register frame at a fixed place, accessed by single load and store instructions.
///
/// No reference to the frame is ever made, and on aarch64 each access is one `LDR` or `STR`
/// without writeback: a hypervisor below us could not emulate others (ISV = 0).
#[derive(Debug)]
pub struct Mmio {
    base: NonNull<u8>,
    size_bytes: usize,
}

// SAFETY: the promise of `new` is about the frame, not about a CPU or thread, and every access is
// a single instruction.
unsafe impl Send for Mmio {}
// SAFETY: as above; concurrent accesses are the device's to order.
unsafe impl Sync for Mmio {}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $register:literal) => {
        fn $read(&self, offset: usize) -> $type {
            let at = self.at::<$type>(offset);
            #[cfg(target_arch = "aarch64")]
            {
                let value: $type;
                // SAFETY: `at` lies in the frame that `new` was promised, aligned to its size.
                unsafe {
                    core::arch::asm!(concat!("ldr ", $register, ", [{at}]"),
                        value = out(reg) value, at = in(reg) at.as_ptr(), options(nostack));
                }
                value
            }
            #[cfg(not(target_arch = "aarch64"))]
            // SAFETY: `at` lies in the frame that `new` was promised, aligned to its size.
            unsafe {
                at.read_volatile()
            }
        }

        fn $write(&self, offset: usize, value: $type) {
            let at = self.at::<$type>(offset);
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `at` lies in the frame that `new` was promised, aligned to its size.
            unsafe {
                core::arch::asm!(concat!("str ", $register, ", [{at}]"),
                    value = in(reg) value, at = in(reg) at.as_ptr(), options(nostack));
            }
            #[cfg(not(target_arch = "aarch64"))]
            // SAFETY: `at` lies in the frame that `new` was promised, aligned to its size.
            unsafe {
                at.write_volatile(value);
            }
        }
    };
}

impl Mmio {
    /// The frame of `size_bytes` bytes at `base`.
    ///
    /// # Safety
    ///
    /// For the life of the value, `base` is 8-byte aligned and mapped as Device memory (on a host:
    /// any memory) for `size_bytes` bytes, and accesses to it have no effect on memory that Rust
    /// code refers to, other than through devices that are told addresses of frames given up to
    /// them.
    pub const unsafe fn new(base: NonNull<u8>, size_bytes: usize) -> Self {
        Self { base, size_bytes }
    }

    /// How many bytes the frame has.
    pub const fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    fn at<T>(&self, offset: usize) -> NonNull<T> {
        assert!(
            offset.is_multiple_of(size_of::<T>())
                && offset < self.size_bytes
                && size_of::<T>() <= self.size_bytes - offset,
            "register offset {offset:#x} is not in its frame"
        );
        // SAFETY: in bounds, just asserted.
        unsafe { self.base.byte_add(offset) }.cast()
    }

    /// Reads 8 bits at `offset`; some devices other than SMMUs have such registers.
    pub fn read8(&self, offset: usize) -> u8 {
        let at = self.at::<u8>(offset);
        // SAFETY: `at` lies in the frame that `new` was promised.
        unsafe { at.read_volatile() }
    }

    /// Writes 8 bits at `offset`.
    pub fn write8(&self, offset: usize, value: u8) {
        let at = self.at::<u8>(offset);
        // SAFETY: `at` lies in the frame that `new` was promised.
        unsafe { at.write_volatile(value) }
    }
}

impl Registers for Mmio {
    access!(read32, write32, u32, "{value:w}");
    access!(read64, write64, u64, "{value:x}");
}

/// The instruction behind [`Barrier`].
///
/// The full system domain (`SY`) and not the inner shareable one: where the SMMU sits is the
/// board's choice, and none of these is on a hot path.
pub(super) fn barrier(kind: Barrier) {
    #[cfg(target_arch = "aarch64")]
    match kind {
        // SAFETY: a barrier touches no memory.
        Barrier::Publish => unsafe { core::arch::asm!("dsb st", options(nostack)) },
        // SAFETY: as above.
        Barrier::Observe => unsafe { core::arch::asm!("dsb ld", options(nostack)) },
        // SAFETY: as above.
        Barrier::Release => unsafe { core::arch::asm!("dsb sy", options(nostack)) },
    }
    #[cfg(not(target_arch = "aarch64"))]
    {
        let _ = kind;
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(memory: &mut [u64; 4]) -> Mmio {
        let base = NonNull::from(memory).cast();
        // SAFETY: the array outlives the frame in each test and is not touched meanwhile.
        unsafe { Mmio::new(base, 32) }
    }

    #[test]
    fn an_access_has_its_own_size() {
        let mut memory = [0; 4];
        let registers = frame(&mut memory);
        registers.write64(8, 0x1122_3344_5566_7788);
        registers.write32(12, 0xaabb_ccdd);
        assert_eq!(registers.read64(8), 0xaabb_ccdd_5566_7788);
        assert_eq!(registers.read32(8), 0x5566_7788);
        assert_eq!(registers.read8(8), 0x88);
        assert_eq!(registers.read64(16), 0);
    }

    #[test]
    #[should_panic(expected = "is not in its frame")]
    fn the_end_of_the_frame_is_the_end() {
        frame(&mut [0; 4]).read64(28);
    }
}
