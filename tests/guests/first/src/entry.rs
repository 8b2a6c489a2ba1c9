//! From EL2 to Rust: relocation, a stack, and the other CPUs. MMU and caches stay off.

use core::arch::global_asm;

global_asm!(
    r#"
    .pushsection .head, "ax"
    .global _head
_head:
    b       _start
    .long   0
    .quad   0                       // text_offset
    .quad   __image_bytes
    .quad   0b1010                  // 4 KiB pages, anywhere
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0
    .popsection

    .pushsection .text.entry, "ax"
    .global _start
_start:
    mov     x19, x0                 // the device tree
    adr     x20, _head
    adrp    x0, __rela_start
    add     x0, x0, :lo12:__rela_start
    adrp    x1, __rela_end
    add     x1, x1, :lo12:__rela_end
1:  cmp     x0, x1
    b.hs    2f
    ldp     x2, x3, [x0], #16
    ldr     x4, [x0], #8
    add     x4, x4, x20
    str     x4, [x20, x2]
    b       1b
    // What is to be zero is: EL2 cleared all memory.
2:  adrp    x0, __stack_end
    mov     sp, x0
    bl      settle
    mov     x0, x19
    bl      {main}

    // Another CPU: x0 is the end of its stack.
    .global __other_entry
__other_entry:
    mov     sp, x0
    bl      settle
    bl      {other}

settle:
    adr     x1, vectors
    msr     vbar_el1, x1
    isb
    mov     x29, xzr
    ret

    // A synchronous exception of EL1 on its own stack: x9 says where it goes on, x10 gets the
    // syndrome. All others end the guest.
    .balign 2048
vectors:
    .rept   4
    b       stray
    .balign 128
    .endr
    cbz     x9, stray
    mrs     x10, esr_el1
    msr     elr_el1, x9
    eret
    .balign 128
    .rept   7
    b       stray
    .balign 128
    .endr
    // From EL0 in AArch32, where x9 is not kept: TPIDR_EL1 says where to go on, at EL1.
    mrs     x9, tpidr_el1
    cbz     x9, stray
    msr     tpidr_el1, xzr
    msr     elr_el1, x9
    mov     x9, #0x3c5
    msr     spsr_el1, x9
    mrs     x10, esr_el1
    eret
    .balign 128
    .rept   3
    b       stray
    .balign 128
    .endr
stray:
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    bl      {stray}
    .popsection
    "#,
    main = sym crate::main_at,
    other = sym crate::other_cpu,
    stray = sym crate::stray,
);

unsafe extern "C" {
    /// Where another CPU begins.
    pub(crate) safe static __other_entry: u8;
}
