//! A guest's CPU on this one: into EL1, and back with what stopped it.
//!
//! A virtual CPU has its CPU to itself, so only what EL2 overwrites is saved: the general registers,
//! `SP_EL0`, and where to go on. All else of EL1 stays in the CPU while EL2 works.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTVOFF_EL2, CPTR_EL2, HCR_EL2, MDCR_EL2, VMPIDR_EL2, VTCR_EL2, VTTBR_EL2,
    Writeable,
};

use super::cpu;
use crate::addr::Ipa;
use crate::hw::CpuWalk;

/// What EL2 keeps of a guest's CPU while it works for it.
#[derive(Debug)]
#[repr(C)]
pub struct Vcpu {
    /// x0 to x30.
    pub x: [u64; 31],
    sp_el0: u64,
    /// Where it goes on.
    pub elr: u64,
    /// `PSTATE` to go on with.
    pub spsr: u64,
    esr: u64,
    far: u64,
    hpfar: u64,
    /// The stack of who called [`Vcpu::run`].
    host_sp: u64,
}

/// Why a guest's CPU came back to EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// An instruction of its own: the syndrome says which, and why.
    Synchronous {
        /// `ESR_EL2`.
        syndrome: u64,
        /// `FAR_EL2`: the virtual address, of an abort.
        address: u64,
        /// The page that `HPFAR_EL2` names, of an abort of stage 2.
        page: Ipa,
    },
    /// An interrupt of EL2's.
    Interrupt,
    /// An SError while the guest ran.
    SystemError {
        /// `ESR_EL2`.
        syndrome: u64,
    },
}

/// `PSTATE` of a CPU that a guest starts: EL1 with its own stack pointer, everything masked.
const EL1H_MASKED: u64 = 0x3c5;

/// `ESR_EL2.IL`: the instruction has 4 bytes, not 2.
const LONG: u64 = 1 << 25;

global_asm!(
    r#"
    .pushsection .text.vcpu, "ax"
    // x0: the Vcpu. Returns in x0 the slot of the vectors.
    .global __vcpu_run
__vcpu_run:
    sub     sp, sp, #96
    stp     x19, x20, [sp]
    stp     x21, x22, [sp, #16]
    stp     x23, x24, [sp, #32]
    stp     x25, x26, [sp, #48]
    stp     x27, x28, [sp, #64]
    stp     x29, x30, [sp, #80]
    mov     x1, sp
    str     x1, [x0, #{host_sp}]
    msr     daifset, #0xf
    msr     spsel, #1
    msr     tpidr_el2, x0
    ldr     x1, [x0, #{sp_el0}]
    msr     sp_el0, x1
    ldr     x1, [x0, #{elr}]
    msr     elr_el2, x1
    ldr     x1, [x0, #{spsr}]
    msr     spsr_el2, x1
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret
    // Nothing is speculated past it.
    dsb     nsh
    isb

    // From the vectors: x0 the Vcpu, x1 the slot, the guest's x0 and x1 on the stack.
    .global __vcpu_exit
__vcpu_exit:
    stp     x2, x3, [x0, #16]
    ldp     x2, x3, [sp], #16
    stp     x2, x3, [x0]
    stp     x4, x5, [x0, #32]
    stp     x6, x7, [x0, #48]
    stp     x8, x9, [x0, #64]
    stp     x10, x11, [x0, #80]
    stp     x12, x13, [x0, #96]
    stp     x14, x15, [x0, #112]
    stp     x16, x17, [x0, #128]
    stp     x18, x19, [x0, #144]
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    stp     x28, x29, [x0, #224]
    str     x30, [x0, #240]
    mrs     x2, sp_el0
    str     x2, [x0, #{sp_el0}]
    mrs     x2, elr_el2
    str     x2, [x0, #{elr}]
    mrs     x2, spsr_el2
    str     x2, [x0, #{spsr}]
    mrs     x2, esr_el2
    str     x2, [x0, #{esr}]
    mrs     x2, far_el2
    str     x2, [x0, #{far}]
    mrs     x2, hpfar_el2
    str     x2, [x0, #{hpfar}]
    // An error that the guest's accesses made and that comes late comes here, not later: it is the
    // guest's, and not the end.
    dsb     sy
    isb
    msr     daifclr, #4
    isb
8:  msr     daifset, #4
    msr     tpidr_el2, xzr
    ldr     x2, [x0, #{host_sp}]
    msr     sp_el0, x2
    msr     spsel, #0
    ldp     x19, x20, [sp]
    ldp     x21, x22, [sp, #16]
    ldp     x23, x24, [sp, #32]
    ldp     x25, x26, [sp, #48]
    ldp     x27, x28, [sp, #64]
    ldp     x29, x30, [sp, #80]
    add     sp, sp, #96
    msr     daifclr, #4
    mov     x0, x1
    ret

    // From the vectors, within those lines: x9 the Vcpu.
    .global __vcpu_late_error
__vcpu_late_error:
    mrs     x2, esr_el2
    str     x2, [x9, #{esr}]
    mov     x1, #11                 // an SError from a guest
    adr     x2, 8b
    msr     elr_el2, x2
    eret

    // The registers of FP and SIMD, which EL2 does not use.
    .arch_extension simd
__clear_simd:
    .irp    number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    movi    v\number\().2d, #0
    .endr
    msr     fpcr, xzr
    msr     fpsr, xzr
    ret
    .arch_extension nosimd
    .popsection
    "#,
    sp_el0 = const offset_of!(Vcpu, sp_el0),
    elr = const offset_of!(Vcpu, elr),
    spsr = const offset_of!(Vcpu, spsr),
    esr = const offset_of!(Vcpu, esr),
    far = const offset_of!(Vcpu, far),
    hpfar = const offset_of!(Vcpu, hpfar),
    host_sp = const offset_of!(Vcpu, host_sp),
);

unsafe extern "C" {
    fn __vcpu_run(vcpu: *mut Vcpu) -> u64;
}

impl Vcpu {
    /// A CPU that begins at `entry` at EL1 with `context` in x0, and zeros in all other registers.
    pub const fn starting(entry: u64, context: u64) -> Self {
        let mut x = [0; 31];
        x[0] = context;
        Self {
            x,
            sp_el0: 0,
            elr: entry,
            spsr: EL1H_MASKED,
            esr: 0,
            far: 0,
            hpfar: 0,
            host_sp: 0,
        }
    }

    /// Runs the guest until something stops it.
    ///
    /// [`settle`] has made this CPU the guest's.
    pub fn run(&mut self) -> Exit {
        // SAFETY: the code saves what the ABI says is ours and puts it back; EL1 sees memory through
        // its stage 2 alone, which shows it nothing of EL2's.
        let slot = unsafe { __vcpu_run(self) };
        // Eight slots from 8 on: a guest in AArch64, or its EL0 in AArch32, which nobody told it of.
        match slot % 4 {
            0 => Exit::Synchronous {
                syndrome: self.esr,
                address: self.far,
                // FIPA, bits 43:4, is the address from bit 12 up.
                page: Ipa::new((self.hpfar >> 4 & 0xff_ffff_ffff) << 12),
            },
            1 | 2 => Exit::Interrupt,
            _ => Exit::SystemError { syndrome: self.esr },
        }
    }

    /// Goes on behind the instruction that came back.
    pub const fn step_over(&mut self) {
        let bytes = if self.esr & LONG != 0 { 4 } else { 2 };
        self.elr = self.elr.wrapping_add(bytes);
    }

    /// Has EL1 take a synchronous exception with `syndrome` in `ESR_EL1`, and `address` in `FAR_EL1`
    /// if the exception has one, as if the CPU had raised it at the instruction that came back (DDI
    /// 0487, `AArch64.TakeException`).
    pub fn inject(&mut self, syndrome: u64, address: Option<u64>) {
        let vectors: u64;
        // SAFETY: registers of EL1, whose guest is this CPU's.
        unsafe { asm!("mrs {}, vbar_el1", out(reg) vectors, options(nomem, nostack)) };
        let slot = match self.spsr & 0x1f {
            0b0_0101 => 0x200,
            0b0_0100 => 0,
            0b1_0000.. => 0x600,
            _ => 0x400,
        };
        // SAFETY: as above.
        unsafe { asm!("msr elr_el1, {}", in(reg) self.elr, options(nomem, nostack)) };
        // SAFETY: as above.
        unsafe { asm!("msr spsr_el1, {}", in(reg) self.spsr, options(nomem, nostack)) };
        // SAFETY: as above.
        unsafe { asm!("msr esr_el1, {}", in(reg) syndrome, options(nomem, nostack)) };
        if let Some(address) = address {
            // SAFETY: as above.
            unsafe { asm!("msr far_el1, {}", in(reg) address, options(nomem, nostack)) };
        }
        self.elr = (vectors & !0x7ff).wrapping_add(slot);
        // Flags, PAN, DIT and the like stay as they were; IL, SS and BTYPE do not.
        const KEPT: u64 = 0xf000_0000 | 1 << 24 | 1 << 23 | 1 << 22;
        self.spsr = self.spsr & KEPT | EL1H_MASKED;
    }
}

/// What this CPU is to a guest.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The guest's stage 2.
    pub walk: CpuWalk,
    /// Which of the guest's CPUs it is: `Aff0`.
    pub number: u8,
    /// Whether it has FP and SIMD.
    pub has_simd: bool,
    /// How many counters the PMU has; `None` without one.
    pub counters: Option<u8>,
}

/// `HCR_EL2` while a guest runs: stage 2, interrupts to EL2, and traps for what the guest has not.
///
/// VM, SWIO (what a guest invalidates by set and way is cleaned first), PTW, FMO, IMO, AMO; TWI, TWE;
/// TID3; TSC; TIDCP, TACR; RW; TLOR, TERR. Without APK and API pointer authentication traps; without
/// ATA tags are not accessed.
const HCR: u64 = 1
    | 1 << 1
    | 1 << 2
    | 0b111 << 3
    | 0b11 << 13
    | 1 << 18
    | 1 << 19
    | 0b11 << 20
    | 1 << 31
    | 1 << 35
    | 1 << 36;

/// TDA, TDOSA, TDRA: debug registers trap; TTRF, TPMS: so do trace filters and profiling.
const MDCR: u64 = 1 << 9 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 17 | 1 << 19;

/// Makes this CPU one of a guest's, as from reset: nothing of another guest's is left in it.
pub fn settle(settings: &Settings) {
    VTCR_EL2.set(settings.walk.vtcr);
    VTTBR_EL2.set(settings.walk.vttbr);
    // SAFETY: what EL1 reads as MIDR_EL1.
    unsafe { asm!("msr vpidr_el2, {}", in(reg) cpu::midr(), options(nomem, nostack)) };
    // RES1, and the number.
    VMPIDR_EL2.set(1 << 31 | u64::from(settings.number));
    // Both counters and both timers are the guest's: EL1PCTEN and EL1PCEN.
    CNTHCTL_EL2.set(0b11);
    CNTVOFF_EL2.set(0);
    // RES1 bits, of which some trap SVE and SME where those exist; not TFP.
    CPTR_EL2.set(0x33ff);
    MDCR_EL2.set(MDCR | u64::from(settings.counters.unwrap_or(0)));
    HCR_EL2.set(HCR);
    if cpu::has_extended_hypervisor_control() {
        // SAFETY: HCRX_EL2: everything newer than what the guest is told of is off.
        unsafe { asm!("msr s3_4_c1_c2_2, xzr", options(nomem, nostack)) };
    }
    barrier::isb(barrier::SY);
    forget_guest(settings);
    barrier::isb(barrier::SY);
    // SAFETY: drops what this CPU cached of the VMID, and every instruction.
    unsafe { asm!("tlbi vmalls12e1", options(nostack)) };
    // SAFETY: as above.
    unsafe { asm!("ic iallu", options(nostack)) };
    barrier::dsb(barrier::NSH);
    barrier::isb(barrier::SY);
}

/// Ends that: no guest's stage 2 is in use.
pub fn leave() {
    HCR_EL2.write(cpu::hcr_without_guest());
    VTTBR_EL2.set(0);
    barrier::isb(barrier::SY);
}

macro_rules! set {
    ($($register:literal = $value:expr),* $(,)?) => {
        $({
            let value: u64 = $value;
            // SAFETY: a register of EL1 or EL0, which no guest uses now.
            unsafe {
                asm!(concat!("msr ", $register, ", {}"), in(reg) value, options(nomem, nostack));
            }
        })*
    };
}

/// `SCTLR_EL1` with the bits that must be 1 and no other: little-endian, no stage 1, no caches.
const STAGE1_OFF: u64 = 0x30d0_0800;

/// Every register that a guest may have left something in, as reset leaves it.
fn forget_guest(settings: &Settings) {
    set! {
        "sctlr_el1" = STAGE1_OFF,
        "actlr_el1" = 0,
        "cpacr_el1" = 0,
        "ttbr0_el1" = 0,
        "ttbr1_el1" = 0,
        "tcr_el1" = 0,
        "mair_el1" = 0,
        "amair_el1" = 0,
        "vbar_el1" = 0,
        "contextidr_el1" = 0,
        "tpidr_el0" = 0,
        "tpidrro_el0" = 0,
        "tpidr_el1" = 0,
        "esr_el1" = 0,
        "far_el1" = 0,
        "afsr0_el1" = 0,
        "afsr1_el1" = 0,
        "par_el1" = 0,
        "elr_el1" = 0,
        "spsr_el1" = 0,
        "sp_el1" = 0,
        "csselr_el1" = 0,
        "mdscr_el1" = 0,
        "cntkctl_el1" = 0,
        "cntp_ctl_el0" = 0,
        "cntp_cval_el0" = 0,
        "cntv_ctl_el0" = 0,
        "cntv_cval_el0" = 0,
    }
    if settings.counters.is_some() {
        const EVERY: u64 = 0xffff_ffff;
        set! {
            // E off, P and C reset the counters.
            "pmcr_el0" = 0b110,
            "pmcntenclr_el0" = EVERY,
            "pmintenclr_el1" = EVERY,
            "pmovsclr_el0" = EVERY,
            "pmuserenr_el0" = 0,
            "pmccfiltr_el0" = 0,
        }
    }
    if settings.has_simd {
        // SAFETY: EL2 is compiled without FP and SIMD, so nothing of its own is in these registers.
        unsafe { asm!("bl __clear_simd", out("x30") _, options(nomem, nostack)) };
    }
}
