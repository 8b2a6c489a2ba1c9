//! The machine: registers, memory, the console, the way out.

use core::arch::{asm, global_asm};
use core::ptr::with_exposed_provenance_mut;

global_asm!(
    r#"
    .pushsection .text.entry, "ax"
    .global _start
_start:
    adrp    x0, __stack_end
    add     x0, x0, :lo12:__stack_end
    mov     sp, x0
    b       main
    .popsection
    "#
);

/// A frame of registers at this address.
#[derive(Clone, Copy)]
pub(crate) struct Frame(pub(crate) u64);

impl Frame {
    pub(crate) fn read32(self, offset: u64) -> u32 {
        // SAFETY: the plugin's frames are memory that nothing else uses.
        unsafe { pointer::<u32>(self.0 + offset).read_volatile() }
    }

    pub(crate) fn write32(self, offset: u64, value: u32) {
        // SAFETY: as above.
        unsafe { pointer::<u32>(self.0 + offset).write_volatile(value) }
    }

    pub(crate) fn write64(self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe { pointer::<u64>(self.0 + offset).write_volatile(value) }
    }
}

fn pointer<T>(at: u64) -> *mut T {
    with_exposed_provenance_mut(at as usize)
}

/// The word at `at`, which lies in pages of ours.
pub(crate) fn read(at: u64) -> u64 {
    // SAFETY: the caller's pages; devices write them, so no reference to them is made.
    unsafe { pointer::<u64>(at).read_volatile() }
}

/// Stores the word at `at`, which lies in pages of ours: one store that an SMMU sees whole.
pub(crate) fn write(at: u64, value: u64) {
    // SAFETY: as above.
    unsafe { pointer::<u64>(at).write_volatile(value) }
}

/// Every access before it is done before any after it.
pub(crate) fn barrier() {
    // SAFETY: a barrier touches no memory.
    unsafe { asm!("dsb sy", options(nostack)) };
}

/// Prints on `virt`'s PL011.
pub(crate) fn print(text: &str) {
    for byte in text.bytes() {
        Frame(0x0900_0000).write32(0, byte.into());
    }
}

/// PSCI SYSTEM_OFF.
pub(crate) fn power_off() -> ! {
    // SAFETY: a call that does not return.
    unsafe { asm!("smc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}
