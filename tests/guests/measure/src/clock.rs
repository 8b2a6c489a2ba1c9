//! The counter, in instructions.

use core::arch::asm;

/// Nanoseconds since reset: with `-icount shift=0`, instructions.
pub(crate) fn now() -> u64 {
    let (ticks, frequency): (u64, u64);
    // SAFETY: the counter is read, behind what came before it; memory is left alone.
    unsafe {
        asm!(
            "isb",
            "mrs {ticks}, cntvct_el0",
            "mrs {frequency}, cntfrq_el0",
            ticks = out(reg) ticks,
            frequency = out(reg) frequency,
            options(nostack),
        );
    }
    let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(frequency.max(1));
    nanoseconds as u64
}

/// How many instructions `act` takes, and what it says.
pub(crate) fn count<T>(act: impl FnOnce() -> T) -> (u64, T) {
    let before = now();
    let said = act();
    (now() - before, said)
}

/// What counting alone takes.
pub(crate) fn overhead() -> u64 {
    let nop = || {
        // SAFETY: it does nothing.
        unsafe { asm!("nop", options(nostack, nomem)) }
    };
    (0..8).map(|_| count(nop).0).min().unwrap_or(0)
}
