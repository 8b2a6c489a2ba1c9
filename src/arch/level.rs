//! Entered at another exception level than EL2: say so, and go.

use core::arch::{asm, global_asm};

use super::console;

// At EL1 nobody can say whether HVC or SMC reaches PSCI before the device tree is read, and the one
// that does not is undefined: these vectors step over it. x9 is the caller's to lose.
global_asm!(
    r#"
    .pushsection .text.level, "ax"
    .balign 2048
el1_step_over:
    .rept   16
    .balign 128
    mrs     x9, elr_el1
    add     x9, x9, #4
    msr     elr_el1, x9
    isb
    eret
    .endr
    .popsection
    "#
);

/// PSCI's `SYSTEM_OFF` (DEN 0022).
const PSCI_SYSTEM_OFF: u32 = 0x8400_0008;

/// Prints that `level` is not EL2, and powers off or parks.
///
/// At EL3 there is no PSCI to ask: *we* would be it.
pub(super) fn refuse(level: u64) -> ! {
    console::print(format_args!("end: entered at EL{level}, EL2 is needed"));
    if level == 1 {
        // SAFETY: at EL1, and nothing runs after this; both calls either power off or are
        // refused, the vectors make the undefined one a no-op.
        unsafe {
            asm!(
                "adrp x9, el1_step_over",
                "add x9, x9, :lo12:el1_step_over",
                "msr vbar_el1, x9",
                "isb",
                "mov w0, #{low}",
                "movk w0, #{high}, lsl #16",
                "hvc #0",
                "mov w0, #{low}",
                "movk w0, #{high}, lsl #16",
                "smc #0",
                low = const PSCI_SYSTEM_OFF & 0xffff,
                high = const PSCI_SYSTEM_OFF >> 16,
                out("x0") _, out("x9") _,
                clobber_abi("C"),
            );
        }
    }
    super::cpu::park()
}
