//! The instruction.
#![expect(unsafe_code, reason = "the call itself is one instruction")]

use core::arch::asm;

use super::{Conduit, Registers};

/// `HVC #0`: how a guest at EL1 reaches EL2.
#[derive(Clone, Copy, Debug)]
pub struct Hvc;

impl Conduit for Hvc {
    fn call(&self, registers: &mut Registers) {
        let [
            x0,
            x1,
            x2,
            x3,
            x4,
            x5,
            x6,
            x7,
            x8,
            x9,
            x10,
            x11,
            x12,
            x13,
            x14,
            x15,
            x16,
            x17,
        ] = registers;
        // SAFETY: SMCCC: x0 to x17 are all that changes. The memory that EL2 reads is the list of
        // `invalidate_list`, borrowed for the call; the asm is a barrier to the compiler.
        unsafe {
            asm!(
                "hvc #0",
                inout("x0") * x0,
                inout("x1") * x1,
                inout("x2") * x2,
                inout("x3") * x3,
                inout("x4") * x4,
                inout("x5") * x5,
                inout("x6") * x6,
                inout("x7") * x7,
                inout("x8") * x8,
                inout("x9") * x9,
                inout("x10") * x10,
                inout("x11") * x11,
                inout("x12") * x12,
                inout("x13") * x13,
                inout("x14") * x14,
                inout("x15") * x15,
                inout("x16") * x16,
                inout("x17") * x17,
                options(nostack),
            );
        }
    }
}
