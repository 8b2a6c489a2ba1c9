//! One load or store of a guest's CPU, without a guest.
//!
//! EL2 drops to EL1 for two instructions: the access, and an HVC. Whatever comes of it comes back by
//! vectors that know nothing else. The `AT S12E1*` instructions would ask for less, but QEMU (10.0)
//! ends with an assertion when stage 2 refuses what they ask.

use core::arch::{asm, global_asm};

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    ELR_EL2, ESR_EL2, FAR_EL2, HCR_EL2, Readable, SCTLR_EL1, SPSR_EL2, VBAR_EL2, VTCR_EL2,
    VTTBR_EL2, Writeable,
};

use crate::addr::Ipa;

/// Instructions for a page that EL1 may execute, two of them to a word: at 0 a load from x0, at 8 a
/// store to x0; an HVC behind each.
pub const CODE: [u64; 2] = [0xd400_0002_f940_0001, 0xd400_0002_f900_0001];

/// The registers that say where a stage 2 is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Registers {
    /// `VTCR_EL2`.
    pub control: u64,
    /// `VTTBR_EL2`.
    pub root: u64,
}

/// How EL1 came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// `ESR_EL2`.
    pub syndrome: u64,
    /// `FAR_EL2`, of an abort: the IPA, as stage 1 is off.
    pub address: u64,
}

// Wherever EL1 goes wrong, on to what x9 holds: it changes no register but x1.
global_asm!(
    ".pushsection .text.probe_el1, \"ax\"",
    ".balign 2048",
    ".global __probe_el1_vectors",
    "__probe_el1_vectors:",
    ".rept 16",
    "br x9",
    ".balign 128",
    ".endr",
    ".popsection",
);

/// `SCTLR_EL1` with the bits that must be 1 and no other: little-endian, no stage 1.
const STAGE1_OFF: u64 = 0x30d0_0800;

/// Runs the instructions at `entry`, an IPA of that stage 2 that holds a word of [`CODE`], with
/// `at` as their address.
///
/// No guest runs, so the registers of EL1's regime are nobody's. Those of EL2 are as before when it
/// returns, and nothing tagged with the VMID is left in this CPU's TLB.
pub fn probe(stage2: Stage2Registers, entry: Ipa, at: Ipa) -> Answer {
    let (hcr, vectors) = (HCR_EL2.get(), VBAR_EL2.get());
    VTCR_EL2.set(stage2.control);
    VTTBR_EL2.set(stage2.root);
    SCTLR_EL1.set(STAGE1_OFF);
    HCR_EL2.set(hcr | HCR_EL2::VM::SET.value);
    barrier::isb(barrier::SY);
    forget();
    let answer = drop_to_el1(entry, at);
    forget();
    VTTBR_EL2.set(0);
    HCR_EL2.set(hcr);
    VBAR_EL2.set(vectors);
    barrier::isb(barrier::SY);
    answer
}

fn drop_to_el1(entry: Ipa, at: Ipa) -> Answer {
    ELR_EL2.set(entry.as_u64());
    SPSR_EL2.write(
        SPSR_EL2::M::EL1h
            + SPSR_EL2::D::Masked
            + SPSR_EL2::A::Masked
            + SPSR_EL2::I::Masked
            + SPSR_EL2::F::Masked,
    );
    // SAFETY: EL1 has two instructions, which change x1 and no other register, behind a stage 2 that
    // shows it nothing of EL2's to write; whatever stops it comes back to the label by x9, where the
    // stack and the masks are those from before. `probe` puts the vectors back.
    unsafe {
        asm!(
            "adrp x9, __probe_el1_vectors",
            "add x9, x9, :lo12:__probe_el1_vectors",
            "msr vbar_el2, x9",
            "isb",
            "mrs x10, spsel",
            "mrs x11, daif",
            "adr x9, 2f",
            "eret",
            "2:",
            "msr spsel, x10",
            "msr daif, x11",
            inout("x0") at.as_u64() => _,
            inout("x1") u64::MAX => _,
            out("x9") _,
            out("x10") _,
            out("x11") _,
        );
    }
    Answer {
        syndrome: ESR_EL2.get(),
        address: FAR_EL2.get(),
    }
}

/// Drops what this CPU cached under the VMID in VTTBR_EL2, and every instruction.
fn forget() {
    barrier::dsb(barrier::ISHST);
    // SAFETY: what is dropped is read from memory again.
    unsafe { asm!("tlbi vmalls12e1", options(nostack)) };
    // SAFETY: as above.
    unsafe { asm!("ic iallu", options(nostack)) };
    barrier::dsb(barrier::ISH);
    barrier::isb(barrier::SY);
}
