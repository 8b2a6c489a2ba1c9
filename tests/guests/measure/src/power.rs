//! PSCI.

use core::arch::asm;

const SYSTEM_OFF: u64 = 0x8400_0008;

/// The guest is over.
pub(crate) fn off() -> ! {
    // SAFETY: PSCI; it does not come back.
    unsafe {
        asm!("hvc #0", inout("x0") SYSTEM_OFF => _, out("x1") _, out("x2") _, out("x3") _);
    }
    loop {
        core::hint::spin_loop();
    }
}
