//! From EL2 to Rust, and a second CPU likewise.

use core::arch::global_asm;

use super::{LINEAR, Table};

/// The root of both halves at first, and of the upper one for ever.
pub(super) static ROOT: Table = Table::new();
/// Of the GiB that the image is in.
pub(super) static LEVEL2: Table = Table::new();

global_asm!(
    r#"
    .pushsection .head, "ax"
    .global _head
_head:
    b       _start
    .long   0
    .quad   0                       // text_offset
    .quad   __image_bytes
    .quad   0b1010                  // little-endian, 4 KiB pages, anywhere at a multiple of 2 MiB
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0
    .popsection

    .pushsection .text.entry, "ax"
    .global _start
_start:
    msr     daifset, #0xf
    mov     x19, x0                 // the device tree
    adr     x20, _head              // where we are
    mov     x21, #{linear}
    add     x22, x20, x21           // where we will be

    adrp    x0, __rela_start
    add     x0, x0, :lo12:__rela_start
    adrp    x1, __rela_end
    add     x1, x1, :lo12:__rela_end
1:  cmp     x0, x1
    b.hs    2f
    ldp     x2, x3, [x0], #16       // where, what
    ldr     x4, [x0], #8            // addend
    cmp     x3, #1027               // R_AARCH64_RELATIVE
    b.ne    9f
    add     x4, x4, x22
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

4:  adrp    x5, {root}
    adrp    x6, {level2}
    mov     x10, #0x701             // a block of memory
    mov     x7, x20
    bl      map_block
    mov     x7, x19
    bl      map_block
    lsr     x7, x20, #30
    lsr     x8, x19, #30
    cmp     x7, x8                  // one level 2 serves both
    b.ne    9f
    orr     x9, x6, #3
    str     x9, [x5, x7, lsl #3]

    // What was written past the cache is read through it from here on.
    adrp    x0, __image_start
    adrp    x1, __image_end
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4         // DminLine, log2 of words
    mov     x3, #4
    lsl     x3, x3, x2
5:  cmp     x0, x1
    b.hs    6f
    dc      civac, x0
    add     x0, x0, x3
    b       5b
6:  dsb     sy

    bl      enable_mmu
    adr     x0, 7f
    add     x0, x0, x21
    br      x0
7:  adrp    x0, __stack_end
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    mov     x1, x20
    bl      {start}
9:  wfe
    b       9b

    // The 2 MiB around x7, one to one, and the next where one table holds both.
map_block:
    lsr     x7, x7, #21
    and     x8, x7, #511
    lsl     x9, x7, #21
    orr     x9, x9, x10
    str     x9, [x6, x8, lsl #3]
    ret

    // The tables at x5.
enable_mmu:
    mov     x0, #0x04ff             // normal write-back; device
    msr     mair_el1, x0
    ldr     x0, ={tcr}
    msr     tcr_el1, x0
    msr     ttbr0_el1, x5
    msr     ttbr1_el1, x5
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    ldr     x0, ={sctlr}
    msr     sctlr_el1, x0
    isb
    ret

    .global secondary_start
secondary_start:
    msr     daifset, #0xf
    mov     x19, x0
    mov     x21, #{linear}
    adrp    x5, {root}
    bl      enable_mmu
    adr     x0, 8f
    add     x0, x0, x21
    br      x0
8:  adrp    x0, __exception_stack_end
    mov     sp, x0
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    bl      {secondary}
    b       9b
    .popsection
    "#,
    linear = const LINEAR,
    root = sym ROOT,
    level2 = sym LEVEL2,
    // 39 bits in both halves, 4 KiB, write-back, inner shareable; 40 bits out; 16 bits of ASID.
    tcr = const 25 | 1 << 8 | 1 << 10 | 3 << 12 | 25 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30
        | 2u64 << 32 | 1u64 << 36,
    // What is to be one, and MMU and caches.
    sctlr = const 0x30d0_0800u64 | 1 | 1 << 2 | 1 << 12,
    start = sym start,
    secondary = sym secondary,
);

extern "C" fn start(tree: u64, image: u64) -> ! {
    super::install_vectors();
    crate::kernel(tree, image)
}

extern "C" fn secondary(context: u64) -> ! {
    super::install_vectors();
    crate::secondary(context)
}

unsafe extern "C" {
    safe static __image_end: u8;
    safe static secondary_start: u8;
}

/// Where the image ends.
pub(crate) fn image_end() -> u64 {
    (&raw const __image_end).addr() as u64 - LINEAR
}

/// Where a second CPU begins, with its context in `x0`.
pub(crate) fn secondary_entry() -> u64 {
    (&raw const secondary_start).addr() as u64 - LINEAR
}
