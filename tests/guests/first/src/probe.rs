//! What is not given: features that are absent, and memory that is not ours.

use core::arch::asm;

/// `ESR_EL1` without the bit for the instruction's length.
const UNKNOWN: u64 = 0;

macro_rules! tried {
    ($instruction:literal) => {{
        let syndrome: u64;
        // SAFETY: the vectors go on at the label, with the syndrome in x10.
        unsafe {
            asm!(
                "adr x9, 2f",
                "mov x10, #-1",
                $instruction,
                "2:",
                "mov x9, xzr",
                out("x9") _,
                out("x10") syndrome,
                out("x11") _,
                options(nostack),
            );
        }
        syndrome
    }};
}

/// Every instruction that a CPU without it would not know is unknown.
pub(crate) fn absent() -> Result<(), &'static str> {
    let is_unknown = |syndrome: u64| syndrome & !(1 << 25) == UNKNOWN;
    if !is_unknown(tried!("smc #0")) {
        return Err("SMC");
    }
    // ICC_IAR1_EL1.
    if !is_unknown(tried!("mrs x11, s3_0_c12_c12_0")) {
        return Err("the interrupt controller");
    }
    // FPEN and ZEN: nothing of EL1's own traps. fmov d0, xzr; rdvl x11, #1.
    // SAFETY: this code has nothing in those registers.
    unsafe { asm!("msr cpacr_el1, {}", "isb", in(reg) 0x33_0000_u64, options(nomem, nostack)) };
    if tried!(".inst 0x9e6703e0") != u64::MAX {
        return Err("FP, which is there");
    }
    if !is_unknown(tried!(".inst 0x04bf502b")) {
        return Err("SVE");
    }
    let features: u64;
    // SAFETY: reads a feature register.
    unsafe { asm!("mrs {}, id_aa64pfr0_el1", out(reg) features, options(nomem, nostack)) };
    // EL2, EL3, GIC, SVE.
    let present = features & (0xff << 8 | 0xf << 24 | 0xf << 32);
    if present != 0 || features & 0xff != 0x11 {
        return Err("ID_AA64PFR0_EL1");
    }
    Ok(())
}
