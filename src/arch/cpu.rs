//! This CPU: what it can do, its counter, its caches.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::AtomicU64;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTPCT_EL0, CPTR_EL2, HCR_EL2, ID_AA64MMFR0_EL1, MIDR_EL1, MPIDR_EL1, Readable,
    SCTLR_EL2, Writeable,
};

use tock_registers::fields::FieldValue;

use crate::hw::Clock;

/// Why the image cannot run on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuError {
    /// The loader left EL2's MMU on, which the boot protocol forbids.
    MmuOn,
    /// `HCR_EL2.E2H` reads 1 after 0 was written: this CPU has no EL2 without VHE.
    E2hFixed,
    /// `CNTFRQ_EL0` is 0: firmware has not set it, and no time could be told.
    NoCounterFrequency,
    /// `ID_AA64MMFR0_EL1.TGran4` says that there is no 4 KiB granule.
    NoGranule4K,
}

impl fmt::Display for CpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MmuOn => "entered with the MMU of EL2 on, it must be off",
            Self::E2hFixed => "HCR_EL2.E2H stays 1, a CPU with EL2 without VHE is needed",
            Self::NoCounterFrequency => "firmware left CNTFRQ_EL0 at 0",
            Self::NoGranule4K => "this CPU has no 4 KiB granule",
        })
    }
}

/// Puts the controls of EL2 into a known state, with no guest: VHE off, every physical interrupt
/// and SError ours, and FP, SIMD and SVE trapped, for EL2 uses none of them.
pub(super) fn settle() -> Result<(), CpuError> {
    if SCTLR_EL2.is_set(SCTLR_EL2::M) {
        return Err(CpuError::MmuOn);
    }
    settle_again()
}

/// `HCR_EL2` when no guest runs: every physical interrupt and SError ours.
pub(super) fn hcr_without_guest() -> FieldValue<u64, HCR_EL2::Register> {
    HCR_EL2::RW::EL1IsAarch64 + HCR_EL2::AMO::SET + HCR_EL2::IMO::SET + HCR_EL2::FMO::SET
}

/// As [`settle`], on a CPU that already has EL2's map.
pub(super) fn settle_again() -> Result<(), CpuError> {
    HCR_EL2.write(hcr_without_guest());
    barrier::isb(barrier::SY);
    if HCR_EL2.is_set(HCR_EL2::E2H) {
        return Err(CpuError::E2hFixed);
    }
    // The bits that are RES1 with E2H = 0, some of which trap SVE and SME where those exist, and
    // TFP, which traps FP and SIMD.
    CPTR_EL2.set(0x33ff | 1 << 10);
    if CNTFRQ_EL0.get() == 0 {
        return Err(CpuError::NoCounterFrequency);
    }
    const NOT_IMPLEMENTED: u64 = 0xf;
    if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran4) == NOT_IMPLEMENTED {
        return Err(CpuError::NoGranule4K);
    }
    Ok(())
}

/// Lets SErrors in: from here on, a bad access that is reported late is reported.
pub(super) fn unmask_serror() {
    // SAFETY: the vectors are installed, and an SError only prints and ends.
    unsafe { asm!("msr daifclr, #4", options(nomem, nostack)) };
}

/// Does nothing, for ever, with little power.
pub(super) fn park() -> ! {
    loop {
        aarch64_cpu::asm::wfe();
    }
}

/// `MIDR_EL1`: who made this CPU, and which it is.
pub fn midr() -> u64 {
    MIDR_EL1.get()
}

/// `MPIDR_EL1` without its flags: the affinity that names this CPU, as the device tree does.
pub fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// What this CPU can bear of a leaf that changes its size: `ID_AA64MMFR2_EL1.BBM`.
pub fn bbm_level() -> u8 {
    (id_register(7, 2) >> 52 & 0xf) as u8
}

/// How many bits a physical address has, by `ID_AA64MMFR0_EL1.PARange`; at most 48, since more
/// needs another granule or descriptor format than the 4 KiB one used here.
pub fn pa_bits() -> u8 {
    match ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange) {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// The CPU's counter as a clock, before there is a [`Host`](super::Host).
#[derive(Clone, Copy, Debug)]
pub struct Timer;

impl Clock for Timer {
    fn now_us(&self) -> u64 {
        now_us()
    }

    fn relax(&self) {
        relax();
    }
}

/// One turn of a wait for another CPU or for hardware.
///
/// `YIELD` lets another thread of the core go first, and has an emulator that runs CPUs one after the
/// other go on with the next; where it does nothing, `ISB` makes the turn longer than nothing.
pub fn relax() {
    // SAFETY: hints, and a barrier.
    unsafe { asm!("yield", "isb", options(nomem, nostack, preserves_flags)) };
}

/// How the image's own locks wait.
#[derive(Debug)]
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    fn relax() {
        relax();
    }
}

/// A lock of the image.
pub type Mutex<T> = spin::mutex::Mutex<T, Relax>;

/// Microseconds since the counter was started; never runs backwards.
///
/// The physical counter, since no guest's offset applies to it.
pub fn now_us() -> u64 {
    // The counter may be read early, ahead of what is being timed.
    barrier::isb(barrier::SY);
    let ticks = CNTPCT_EL0.get();
    // Zero is refused by `settle`; the refusal itself is printed with a bounded wait.
    let ticks_per_s = CNTFRQ_EL0.get().max(1);
    let (s, rest) = (ticks / ticks_per_s, ticks % ticks_per_s);
    // `CNTFRQ_EL0` has 32 bits, so the product fits.
    s.wrapping_mul(1_000_000) + rest * 1_000_000 / ticks_per_s
}

/// Cleans `words` from the data cache to the point of coherency; complete on return.
///
/// The barrier is `DSB SY`: cache maintenance is completed only by one that waits for both loads
/// and stores (DDI 0487, B2 "Data Synchronization Barrier").
pub fn clean(words: &[AtomicU64]) {
    let range = words.as_ptr_range();
    let line_bytes = data_line_bytes();
    let mut line = range.start as usize & !(line_bytes - 1);
    while line < range.end as usize {
        // SAFETY: cleaning a line changes no memory that anybody reads through the cache.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack)) };
        line += line_bytes;
    }
    barrier::dsb(barrier::SY);
}

/// Whether `HCRX_EL2` exists (FEAT_HCX).
pub(super) fn has_extended_hypervisor_control() -> bool {
    id_register(7, 1) >> 40 & 0xf != 0
}

/// What the feature register `S3_0_C0_C<crm>_<op2>` of this CPU says; 0 of one that guests are told
/// nothing of.
pub fn id_register(crm: u8, op2: u8) -> u64 {
    macro_rules! read {
        ($name:literal) => {{
            let value: u64;
            // SAFETY: reads an identification register.
            unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack)) };
            value
        }};
    }
    match (crm, op2) {
        (4, 0) => read!("id_aa64pfr0_el1"),
        (4, 1) => read!("id_aa64pfr1_el1"),
        (5, 0) => read!("id_aa64dfr0_el1"),
        (6, 0) => read!("id_aa64isar0_el1"),
        (6, 1) => read!("id_aa64isar1_el1"),
        (6, 2) => read!("s3_0_c0_c6_2"),
        (7, 0) => read!("id_aa64mmfr0_el1"),
        (7, 1) => read!("id_aa64mmfr1_el1"),
        (7, 2) => read!("s3_0_c0_c7_2"),
        _ => 0,
    }
}

/// Whether this CPU has FP and SIMD.
pub fn has_simd() -> bool {
    id_register(4, 0) >> 20 & 0xf != 0xf
}

/// How many counters this CPU's PMU has beside the cycle counter; `None` without a PMUv3.
pub fn pmu_counters() -> Option<u8> {
    match id_register(5, 0) >> 8 & 0xf {
        0 | 0xf => None,
        _ => {
            let control: u64;
            // SAFETY: reads a register that changes nothing.
            unsafe { asm!("mrs {}, pmcr_el0", out(reg) control, options(nomem, nostack)) };
            Some((control >> 11 & 0x1f) as u8)
        }
    }
}

/// Zeros `words` and cleans them to the point of coherency, for somebody who reads past the cache;
/// complete on return.
pub fn clear(words: &[AtomicU64]) {
    zero(words);
    clean_and_invalidate(words);
}

/// Stores 0 to `words`, which nobody else uses meanwhile, a cache line of most CPUs at a time.
///
/// Not by `DC ZVA`, of which QEMU tells no plugin: the model would not know.
pub(super) fn zero(words: &[AtomicU64]) {
    let lines = words.chunks_exact(8);
    for word in lines.remainder() {
        word.store(0, core::sync::atomic::Ordering::Relaxed);
    }
    for line in lines {
        // SAFETY: the 64 bytes of `line`; who has atomics may write them.
        unsafe {
            asm!(
                "stp xzr, xzr, [{line}]",
                "stp xzr, xzr, [{line}, #16]",
                "stp xzr, xzr, [{line}, #32]",
                "stp xzr, xzr, [{line}, #48]",
                line = in(reg) line.as_ptr(),
                options(nostack, preserves_flags)
            );
        }
    }
}

/// Cleans `words` to the point of coherency and drops them from all caches; complete on return.
pub fn clean_and_invalidate(words: &[AtomicU64]) {
    let range = words.as_ptr_range();
    let line_bytes = data_line_bytes();
    let mut line = range.start as usize & !(line_bytes - 1);
    while line < range.end as usize {
        // SAFETY: what the line holds is in memory afterwards.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack)) };
        line += line_bytes;
    }
    barrier::dsb(barrier::SY);
}

/// The smallest data cache line of all caches, `CTR_EL0.DminLine`.
fn data_line_bytes() -> usize {
    let ctr: u64;
    // SAFETY: reads an identification register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack)) };
    4 << (ctr >> 16 & 0xf)
}
