//! Exceptions: there are to be none.

use core::arch::{asm, global_asm};

global_asm!(
    r#"
    .pushsection .text.vectors, "ax"
    .balign 2048
    .global vectors
vectors:
    .rept   16
    .balign 128
    mrs     x0, esr_el1
    mrs     x1, elr_el1
    mrs     x2, far_el1
    b       {trapped}
    .endr
    .popsection
    "#,
    trapped = sym trapped,
);

unsafe extern "C" {
    safe static vectors: u8;
}

/// Has exceptions told.
pub(crate) fn install() {
    // SAFETY: the vectors stay.
    unsafe {
        asm!("msr vbar_el1, {at}", "isb", at = in(reg) (&raw const vectors).addr());
    }
}

extern "C" fn trapped(syndrome: u64, at: u64, address: u64) -> ! {
    crate::end(format_args!(
        "an exception: {syndrome:#x} at {at:#x}, address {address:#x}"
    ))
}
