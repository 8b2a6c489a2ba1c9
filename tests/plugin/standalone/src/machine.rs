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

    .global _second
_second:                            // x0: its page; the stack grows down from the page's end
    add     x1, x0, #4096
    mov     sp, x1
    b       second
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

/// Clears `bytes` bytes at `at`, which lie in pages of ours, by SETP, SETM and SETE (FEAT_MOPS).
pub(crate) fn clear(at: u64, bytes: u64) {
    // SAFETY: as above. The assembler does not know the instructions by name without the feature:
    // `setX [x0]!, x1!, xzr`.
    unsafe {
        asm!(".inst 0x19df0420", ".inst 0x19df4420", ".inst 0x19df8420",
            inout("x0") at => _, inout("x1") bytes => _, options(nostack));
    }
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

/// PSCI CPU_ON: whether the second CPU starts, in `second` with `page` as its argument and stack.
pub(crate) fn start_second_cpu(page: u64) -> bool {
    let result: u64;
    // SAFETY: the CPU begins in code of ours, with a page that nobody else has as its stack.
    unsafe {
        asm!("adr x2, _second", "smc #0", inout("x0") 0xc400_0003_u64 => result,
            in("x1") 1_u64, out("x2") _, in("x3") page, clobber_abi("C"), options(nostack));
    }
    result == 0
}

/// PSCI CPU_OFF.
pub(crate) fn stop_this_cpu() -> ! {
    // SAFETY: a call that does not return.
    unsafe { asm!("smc #0", in("x0") 0x8400_0002_u64, options(noreturn)) }
}

/// PSCI SYSTEM_OFF.
pub(crate) fn power_off() -> ! {
    // SAFETY: a call that does not return.
    unsafe { asm!("smc #0", in("x0") 0x8400_0008_u64, options(noreturn)) }
}
