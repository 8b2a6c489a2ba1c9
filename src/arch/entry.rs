//! From the loader to Rust.
//!
//! Entered as Linux is (`Documentation/arch/arm64/booting.rst`): at the first byte, MMU off, `x0`
//! the device tree. The code makes the image fit where it was loaded (it is linked at 0; every
//! relocation adds the load address), clears what must be zero, and gives the CPU two stacks:
//! `SP_EL0` for all code, `SP_EL2` for exceptions alone, so that an exception always finds a good
//! stack, whatever became of the other.

use core::arch::global_asm;

use super::image::{HEADER_FLAGS, HEADER_MAGIC};
use super::{Start, cpu, death, level, mmu};
use crate::addr::Pa;

// Between here and `mmu::enable` the data cache is off: nothing but plain loads and stores works
// for certain, so no lock is taken and no atomic is changed.
global_asm!(
    r#"
    .pushsection .head, "ax"
    .global _head
_head:
    b       _start
    .long   0
    .quad   0                       // text_offset
    .quad   __image_bytes           // image_size: with what is cleared, and the stacks
    .quad   {flags}
    .quad   0
    .quad   0
    .quad   0
    .long   {magic}
    .long   0
    .popsection

    .pushsection .text.entry, "ax"
    .global _start
_start:
    msr     daifset, #0xf
    mov     x19, x0                 // the device tree
    adr     x20, _head              // where we are
    tst     x20, #0xfff             // ADRP below counts on it
    b.ne    park
    mrs     x21, CurrentEL
    lsr     x21, x21, #2

    // Firmware may have left dirty lines of what we now write past the cache.
    adrp    x0, __image_start
    adrp    x1, __image_end
    bl      clean_and_invalidate

    adrp    x0, __rela_start
    add     x0, x0, :lo12:__rela_start
    adrp    x1, __rela_end
    add     x1, x1, :lo12:__rela_end
1:  cmp     x0, x1
    b.hs    2f
    ldp     x2, x3, [x0], #16       // where, what
    ldr     x4, [x0], #8            // addend
    cmp     x3, #1027               // R_AARCH64_RELATIVE; the linker has no reason for others
    b.ne    park
    add     x4, x4, x20
    str     x4, [x20, x2]
    b       1b

2:  adrp    x0, __bss_start
    add     x0, x0, :lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, :lo12:__bss_end
3:  cmp     x0, x1
    b.hs    4f
    stp     xzr, xzr, [x0], #16
    b       3b

4:  adrp    x0, __exception_stack_end
    msr     spsel, #1
    mov     sp, x0
    adrp    x0, __stack_end
    msr     spsel, #0
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x21
    bl      {start}

park:
    wfe
    b       park

    // x0 to x1, to the point of coherency. Changes x2 to x4.
    .global clean_and_invalidate
clean_and_invalidate:
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4         // DminLine, log2 of words
    mov     x3, #4
    lsl     x3, x3, x2
    sub     x4, x3, #1
    bic     x0, x0, x4
5:  cmp     x0, x1
    b.hs    6f
    dc      civac, x0
    add     x0, x0, x3
    b       5b
6:  dsb     sy
    ret
    .popsection
    "#,
    flags = const HEADER_FLAGS,
    magic = const HEADER_MAGIC,
    start = sym start,
);

unsafe extern "Rust" {
    /// What [`entry!`](crate::arch::entry) names.
    safe fn __portcullis_main(start: Start) -> !;
}

/// The first Rust code: a CPU as the loader left it becomes one that the rest can live on.
extern "C" fn start(tree: u64, level: u64) -> ! {
    if level != 2 {
        level::refuse(level);
    }
    super::vectors::install();
    if let Err(refusal) = cpu::settle() {
        death::end(format_args!("{refusal}"));
    }
    if let Err(refusal) = mmu::enable() {
        death::end(format_args!("{refusal}"));
    }
    cpu::unmask_serror();
    __portcullis_main(Start {
        tree: Pa::new(tree),
    })
}

/// Names the function that the image runs once the CPU is settled: `fn(arch::Start) -> !`.
#[macro_export]
#[doc(hidden)]
macro_rules! __arch_entry {
    ($main:path) => {
        // SAFETY: the name is this macro's own, and a second use would not link.
        #[unsafe(no_mangle)]
        fn __portcullis_main(start: $crate::arch::Start) -> ! {
            let main: fn($crate::arch::Start) -> ! = $main;
            main(start)
        }
    };
}
