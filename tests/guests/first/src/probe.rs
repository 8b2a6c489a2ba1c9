//! What is not given: features that are absent, and memory that is not ours.

use core::arch::asm;

use portcullis_guest::{Hvc, Portcullis};

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

/// EL0 in AArch32, of which we are not told, is no way to EL2: what it may not reach is an external
/// abort here.
pub(crate) fn narrow_el0() -> Result<(), &'static str> {
    /// An SMMU's registers, on the board that this is tried on.
    const NOT_OURS: u64 = 0x0905_0000;
    let here: u64;
    // SAFETY: asks where we are.
    unsafe { asm!("adr {}, .", out(reg) here, options(nomem, nostack)) };
    if here >> 32 != 0 {
        // Its addresses have 32 bits.
        return Ok(());
    }
    let syndrome: u64;
    // SAFETY: two instructions at EL0, which end in an exception to the vectors, which go on at the
    // label; general registers are all clobbered by AArch32's view of them, or kept.
    unsafe {
        asm!(
            "adr x9, 2f",
            "msr tpidr_el1, x9",
            "adr x9, 3f",
            "msr elr_el1, x9",
            "mov x9, #0x1d0",
            "msr spsr_el1, x9",
            "isb",
            "eret",
            // ldr r0, [r1]; b .
            "3: .inst 0xe5910000",
            ".inst 0xeafffffe",
            "2:",
            inout("x1") NOT_OURS => _,
            out("x0") _,
            out("x9") _,
            out("x10") syndrome,
            clobber_abi("C"),
        );
    }
    match (syndrome >> 26, syndrome & 0x3f) {
        (0x24, 0x10) => Ok(()),
        _ => Err("another exception"),
    }
}

/// Where nothing is, and how EL2 writes that.
const NOWHERE: u64 = 0x0dea_d000;
const NOTE: &[u8] = b"0xdead000";

/// Has EL2 note an access outside of what we own.
pub(crate) fn leave_note() {
    // SAFETY: nothing is there, and the vectors go on at the label.
    unsafe {
        asm!(
            "adr x9, 2f",
            "ldr x11, [{at}]",
            "2: mov x9, xzr",
            at = in(reg) NOWHERE,
            out("x9") _,
            out("x10") _,
            out("x11") _,
            options(nostack),
        );
    }
}

/// Whether EL2 has that note; its log is read to the end.
pub(crate) fn has_note() -> bool {
    let portcullis = Portcullis::new(Hvc);
    // A note may lie across two readings.
    let mut last = [0; NOTE.len()];
    let mut found = false;
    while let Ok(text) = portcullis.log_read() {
        if text.as_bytes().is_empty() {
            break;
        }
        for byte in text.as_bytes() {
            last.rotate_left(1);
            last[NOTE.len() - 1] = *byte;
            found |= last == *NOTE;
        }
    }
    found
}
