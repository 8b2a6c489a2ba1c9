//! PSCI.

use core::arch::asm;
use core::ptr::addr_of;

use crate::entry::__other_entry;

/// CPUs of a guest.
pub(crate) const MAX_CPUS: u64 = 16;
/// There is no such CPU.
pub(crate) const INVALID_PARAMETERS: i64 = -2;

const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;
const SYSTEM_RESET: u64 = 0x8400_0009;

const STACK_BYTES: usize = 8192;

#[repr(C, align(16))]
struct Stacks([[u8; STACK_BYTES]; MAX_CPUS as usize]);

static mut STACKS: Stacks = Stacks([[0; STACK_BYTES]; MAX_CPUS as usize]);

fn call(function: u64, x1: u64, x2: u64, x3: u64) -> i64 {
    let answer;
    // SAFETY: PSCI changes x0 to x3 and nothing else of ours.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") function => answer,
            inout("x1") x1 => _,
            inout("x2") x2 => _,
            inout("x3") x3 => _,
            options(nostack),
        );
    }
    answer
}

/// Starts a CPU, on a stack of its own.
pub(crate) fn cpu_on(number: u64) -> Result<(), i64> {
    let stacks = addr_of!(STACKS) as u64;
    let entry = addr_of!(__other_entry) as u64;
    let end = stacks + (number + 1) * STACK_BYTES as u64;
    match call(CPU_ON, number, entry, end) {
        0 => Ok(()),
        error => Err(error),
    }
}

/// Whether a CPU is off.
pub(crate) fn is_off(number: u64) -> bool {
    call(AFFINITY_INFO, number, 0, 0) == 1
}

pub(crate) fn cpu_off() -> ! {
    call(CPU_OFF, 0, 0, 0);
    stop()
}

pub(crate) fn off() -> ! {
    call(SYSTEM_OFF, 0, 0, 0);
    stop()
}

pub(crate) fn reset() -> ! {
    call(SYSTEM_RESET, 0, 0, 0);
    stop()
}

fn stop() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
