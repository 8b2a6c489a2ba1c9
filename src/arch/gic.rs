//! The GICv3: EL2's alone. It brings EL2's timer and the SMMUs' wires, and calls a CPU out of a guest.
//!
//! Guests have no interrupts, and see none of its frames; its system registers trap (Arm IHI 0069).
//! EL2 runs with interrupts masked: a guest's CPU comes back when one is pending, one at rest wakes.

use core::fmt;

use crate::hw::{Clock, Mmio, Registers, TimedOut, wait_until};

/// EL2's physical timer, by the Base System Architecture.
pub const TIMER: u32 = 26;
/// The software interrupt that calls a CPU.
pub const CALL: u32 = 0;

const GICD_CTLR: usize = 0;
const GICD_CTLR_RWP: u32 = 1 << 31;
/// Affinity routing, and interrupts of group 1: the same bits with one security state as in the
/// non-secure view of two.
const GICD_CTLR_ON: u32 = 1 << 4 | 1 << 1;
const GICD_IGROUPR: usize = 0x80;
const GICD_ISENABLER: usize = 0x100;
const GICD_IPRIORITYR: usize = 0x400;
const GICD_ICFGR: usize = 0xc00;
const GICD_IROUTER: usize = 0x6000;
/// The distributor's registers that are used.
pub const DISTRIBUTOR_BYTES: u64 = 0x1_0000;

const GICR_TYPER: usize = 0x08;
const TYPER_VIRTUAL: u64 = 1 << 1;
const TYPER_LAST: u64 = 1 << 4;
const GICR_WAKER: usize = 0x14;
const WAKER_SLEEP: u32 = 1 << 1;
const WAKER_ASLEEP: u32 = 1 << 2;
/// Private interrupts, behind the 64 KiB of the redistributor's own registers.
const SGI: usize = 0x1_0000;
const GICR_IGROUPR0: usize = SGI + 0x80;
const GICR_ISENABLER0: usize = SGI + 0x100;
const GICR_ICENABLER0: usize = SGI + 0x180;
const GICR_IPRIORITYR: usize = SGI + 0x400;
const LOG2_FRAMES: u32 = 17;

const TIMEOUT_US: u64 = 100_000;

/// Why a CPU has no interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicError {
    /// No redistributor says that it is this CPU's.
    NoRedistributor {
        /// The CPU.
        affinity: u64,
    },
    /// A register did not settle in time.
    Silent {
        /// Which.
        register: &'static str,
    },
}

impl fmt::Display for GicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRedistributor { affinity } => {
                write!(f, "no redistributor is CPU {affinity:#x}'s")
            }
            Self::Silent { register } => write!(f, "{register} does not settle"),
        }
    }
}

/// Turns affinity routing and interrupts of group 1 on, for all CPUs.
///
/// # Errors
///
/// [`GicError::Silent`].
pub fn turn_on(distributor: &Mmio, clock: &impl Clock) -> Result<(), GicError> {
    let control = distributor.read32(GICD_CTLR);
    distributor.write32(GICD_CTLR, control | GICD_CTLR_ON);
    wait_until(clock, TIMEOUT_US, || {
        (distributor.read32(GICD_CTLR) & GICD_CTLR_RWP == 0).then_some(())
    })
    .map_err(|TimedOut { .. }| GicError::Silent {
        register: "GICD_CTLR.RWP",
    })
}

/// Interrupts that are shared among CPUs, without those of GICv3.1's extension.
const SHARED: core::ops::Range<u32> = 32..1020;

/// Lets the shared interrupt `number` through to the CPU of `affinity`; whether there can be such a
/// one.
pub fn route(distributor: &Mmio, number: u32, is_edge: bool, affinity: u64) -> bool {
    if !SHARED.contains(&number) {
        return false;
    }
    let (word, bit) = (4 * (number / 32) as usize, 1 << (number % 32));
    let set = |at: usize, clear: u32, set: u32| {
        let value = distributor.read32(at) & !clear | set;
        distributor.write32(at, value);
    };
    set(GICD_IGROUPR + word, 0, bit);
    let shift = 8 * (number % 4);
    let priority = GICD_IPRIORITYR + (number & !3) as usize;
    set(priority, 0xff << shift, 0x80 << shift);
    let edge = 2 << (2 * (number % 16));
    let configuration = GICD_ICFGR + 4 * (number / 16) as usize;
    set(configuration, edge, if is_edge { edge } else { 0 });
    distributor.write64(GICD_IROUTER + 8 * number as usize, affinity);
    // A bit that is written as 0 changes nothing.
    distributor.write32(GICD_ISENABLER + word, bit);
    true
}

/// Wakes the redistributor of the CPU of `affinity`, which is somewhere in `regions`, and lets
/// [`TIMER`] and [`CALL`] through to it, and nothing else.
///
/// # Errors
///
/// Each [`GicError`].
pub fn wake(regions: &[&Mmio], affinity: u64, clock: &impl Clock) -> Result<(), GicError> {
    let found = regions
        .iter()
        .find_map(|region| Some((region, find(region, affinity)?)));
    let (region, at) = found.ok_or(GicError::NoRedistributor { affinity })?;
    let waker = region.read32(at + GICR_WAKER);
    region.write32(at + GICR_WAKER, waker & !WAKER_SLEEP);
    wait_until(clock, TIMEOUT_US, || {
        (region.read32(at + GICR_WAKER) & WAKER_ASLEEP == 0).then_some(())
    })
    .map_err(|TimedOut { .. }| GicError::Silent {
        register: "GICR_WAKER.ChildrenAsleep",
    })?;
    region.write32(at + GICR_ICENABLER0, u32::MAX);
    region.write32(at + GICR_IGROUPR0, u32::MAX);
    for four in 0..8 {
        region.write32(at + GICR_IPRIORITYR + 4 * four, 0x8080_8080);
    }
    region.write32(at + GICR_ISENABLER0, 1 << TIMER | 1 << CALL);
    Ok(())
}

/// Where in `region` the frames of the CPU of `affinity` are.
fn find(region: &Mmio, affinity: u64) -> Option<usize> {
    // Aff3 is in bits 39:32 of MPIDR_EL1, and with the others in the upper half of the type.
    let wanted = affinity & 0xff_ffff | (affinity >> 32 & 0xff) << 24;
    let mut at = 0;
    while at + (1 << LOG2_FRAMES) <= region.size_bytes() {
        let kind = region.read64(at + GICR_TYPER);
        if kind >> 32 == wanted {
            return Some(at);
        }
        if kind & TYPER_LAST != 0 {
            return None;
        }
        // Two frames more for virtual interrupts (GICv4).
        let log2 = LOG2_FRAMES + u32::from(kind & TYPER_VIRTUAL != 0);
        at += 1 << log2;
    }
    None
}

#[cfg(target_os = "none")]
pub use this_cpu::{acknowledge, call, open, rest, start_timer, stop_timer};

#[cfg(target_os = "none")]
mod this_cpu {
    use core::arch::asm;

    use aarch64_cpu::asm::barrier;
    use aarch64_cpu::registers::{CNTFRQ_EL0, CNTHP_CTL_EL2, Readable, Writeable};

    use super::{CALL, TIMER};

    /// Numbers from here up are no interrupts.
    const SPECIAL: u64 = 1020;

    macro_rules! write_icc {
        ($name:literal, $value:expr) => {{
            let value: u64 = $value;
            // SAFETY: a register of this CPU's interface to the GIC, which is EL2's alone.
            unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) };
        }};
    }

    /// Opens this CPU's interface for interrupts of every priority, and closes it to guests.
    pub fn open() {
        // ICC_SRE_EL2: SRE, DFB, DIB; without Enable, EL1's ICC_SRE_EL1 traps.
        write_icc!("s3_4_c12_c9_5", 0b111);
        barrier::isb(barrier::SY);
        // ICH_HCR_EL2: TC, TALL0, TALL1; no virtual interrupts.
        write_icc!("s3_4_c12_c11_0", 0b111 << 10);
        // ICC_CTLR_EL1, ICC_PMR_EL1, ICC_BPR1_EL1, ICC_IGRPEN1_EL1.
        write_icc!("s3_0_c12_c12_4", 0);
        write_icc!("s3_0_c4_c6_0", 0xff);
        write_icc!("s3_0_c12_c12_3", 0);
        write_icc!("s3_0_c12_c12_7", 1);
        barrier::isb(barrier::SY);
    }

    /// Takes every interrupt that is pending at this CPU, and ends it.
    ///
    /// A timer that is due is stopped, or it would be pending again at once. Gives how many were neither
    /// the timer's nor a call's: who gets some looks after what they may be for.
    pub fn acknowledge() -> u32 {
        let mut others = 0;
        // A few may be pending at once; what is left over comes again.
        for _ in 0..8 {
            let number: u64;
            // SAFETY: ICC_IAR1_EL1: takes the interrupt, which is EL2's.
            unsafe { asm!("mrs {}, s3_0_c12_c12_0", out(reg) number, options(nostack)) };
            barrier::dsb(barrier::SY);
            if number >= SPECIAL {
                break;
            }
            if number == TIMER.into() {
                stop_timer();
            } else if number != CALL.into() {
                others += 1;
            }
            // ICC_EOIR1_EL1.
            write_icc!("s3_0_c12_c12_1", number);
            barrier::isb(barrier::SY);
        }
        others
    }

    /// Calls the CPU of `affinity` to EL2.
    pub fn call(affinity: u64) {
        let level = |number: u32| affinity >> (8 * number) & 0xff;
        let aff3 = affinity >> 32 & 0xff;
        // The list has sixteen CPUs of one cluster; RS says which sixteen.
        let value = aff3 << 48
            | level(2) << 32
            | level(1) << 16
            | (level(0) >> 4) << 44
            | u64::from(CALL) << 24
            | 1 << (level(0) & 0xf);
        // What the CPU is called for is seen when it comes.
        barrier::dsb(barrier::ISHST);
        // ICC_SGI1R_EL1.
        write_icc!("s3_0_c12_c11_5", value);
        barrier::isb(barrier::SY);
    }

    /// Has the timer be pending in `us` microseconds, once.
    pub fn start_timer(us: u64) {
        let ticks = CNTFRQ_EL0.get().max(1).saturating_mul(us) / 1_000_000;
        let ticks = ticks.clamp(1, i32::MAX as u64);
        // SAFETY: EL2's own timer.
        unsafe { asm!("msr cnthp_tval_el2, {}", in(reg) ticks, options(nomem, nostack)) };
        CNTHP_CTL_EL2.set(1);
        barrier::isb(barrier::SY);
    }

    /// Ends that.
    pub fn stop_timer() {
        CNTHP_CTL_EL2.set(0);
        barrier::isb(barrier::SY);
    }

    /// Rests until an interrupt is pending, masked or not.
    pub fn rest() {
        barrier::dsb(barrier::SY);
        aarch64_cpu::asm::wfi();
    }
}

#[cfg(test)]
mod tests {
    use core::ptr::NonNull;
    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::arch::gic;

    struct Counting(core::cell::Cell<u64>);

    impl Clock for Counting {
        fn now_us(&self) -> u64 {
            self.0.set(self.0.get() + 1);
            self.0.get()
        }
    }

    /// Redistributors in memory: each type, and twice the frames where it has virtual ones.
    fn region(types: &[u64]) -> Vec<u64> {
        let mut words = Vec::new();
        for kind in types {
            let frames = 1 << (LOG2_FRAMES + u32::from(kind & TYPER_VIRTUAL != 0)) >> 3;
            let at = words.len();
            words.extend(vec![0; frames]);
            words[at + GICR_TYPER / 8] = *kind;
        }
        words
    }

    #[expect(unsafe_code, reason = "registers are played by memory")]
    fn mmio(words: &mut Vec<u64>) -> Mmio {
        let size_bytes = words.len() * 8;
        let base = NonNull::new(words.as_mut_ptr().cast()).expect("not null");
        // SAFETY: the vector outlives the registers in each test and is not touched meanwhile.
        unsafe { Mmio::new(base, size_bytes) }
    }

    #[test]
    fn a_redistributor_is_found_by_affinity_behind_one_with_virtual_frames() {
        let kinds = [TYPER_VIRTUAL, 1 << 32, 0x0102_0003 << 32 | TYPER_LAST];
        let mut words = region(&kinds);
        let region = mmio(&mut words);
        assert_eq!(find(&region, 0), Some(0));
        assert_eq!(find(&region, 1), Some(2 << LOG2_FRAMES));
        assert_eq!(find(&region, 0x01_0002_0003), Some(3 << LOG2_FRAMES));
        assert_eq!(find(&region, 2), None);
    }

    #[test]
    fn a_shared_interrupt_is_routed_and_its_neighbours_stay_as_they_are() {
        let mut words = vec![0; DISTRIBUTOR_BYTES as usize / 8];
        // Interrupts 104 to 107 have priority 0xa0; 96 to 111 are level.
        words[(0x400 + 104) / 8] = 0xa0a0_a0a0;
        {
            let distributor = mmio(&mut words);
            assert!(route(&distributor, 106, true, 0x01_0000_0002));
            for number in [0, 31, 1020, 4096] {
                assert!(!route(&distributor, number, true, 0));
            }
        }
        let word = |at: usize| (words[at / 8] >> (8 * (at % 8))) as u32;
        assert_eq!(word(0x80 + 12), 1 << 10);
        assert_eq!(word(0x100 + 12), 1 << 10);
        assert_eq!(word(0x400 + 104), 0xa080_a0a0);
        assert_eq!(word(0xc00 + 24), 2 << 20);
        assert_eq!(words[(0x6000 + 8 * 106) / 8], 0x01_0000_0002);
    }

    #[test]
    fn only_the_timer_and_the_call_are_let_through() {
        let mut words = region(&[TYPER_LAST]);
        words[GICR_WAKER / 8] = u64::from(WAKER_SLEEP) << 32;
        {
            let region = mmio(&mut words);
            let clock = Counting(0.into());
            gic::wake(&[&region], 0, &clock).expect("it wakes");
        }
        assert_eq!(words[GICR_WAKER / 8] >> 32, 0);
        assert_eq!(words[GICR_ISENABLER0 / 8] as u32, 1 << 26 | 1);
        assert_eq!(words[GICR_IGROUPR0 / 8] as u32, u32::MAX);
        assert_eq!(words[GICR_IPRIORITYR / 8 + 3], 0x8080_8080_8080_8080);
    }

    #[test]
    fn a_redistributor_that_stays_asleep_is_told_in_bounded_time() {
        let mut words = region(&[TYPER_LAST]);
        words[GICR_WAKER / 8] = u64::from(WAKER_SLEEP | WAKER_ASLEEP) << 32;
        let region = mmio(&mut words);
        let clock = Counting(0.into());
        let silent = GicError::Silent {
            register: "GICR_WAKER.ChildrenAsleep",
        };
        assert_eq!(gic::wake(&[&region], 0, &clock), Err(silent));
        let nobody = GicError::NoRedistributor { affinity: 9 };
        assert_eq!(gic::wake(&[&region], 9, &clock), Err(nobody));
    }
}
