//! A guest that waits until somebody ends it.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the whole guest is its entry")]

use core::arch::global_asm;
use core::panic::PanicInfo;

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
    wfi
    b       _start
    // linker.ld refuses an image without relocations, as one whose flags did not arrive.
    .balign 8
    .quad   _start
    .popsection
    "#
);

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
