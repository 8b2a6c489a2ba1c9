//! This CPU at EL1: entry, tables of the kernel, vectors, calls to EL2.
//!
//! The kernel lives in the upper half, where all of the guest's memory is mapped one after the other
//! ([`LINEAR`]) and device registers beside it ([`DEVICES`]). The lower half is a process' alone: the
//! tables that a device gets hold nothing of the kernel.
#![allow(unsafe_code, reason = "the entry, tables and instructions of a kernel")]

mod boot;
mod heap;
mod vectors;

use core::arch::asm;
use core::sync::atomic::AtomicU64;

pub(crate) use boot::{image_end, secondary_entry};
pub(crate) use heap::give as give_heap;
pub(crate) use vectors::install as install_vectors;

/// Where the kernel has the guest's memory: at this and its address.
pub(crate) const LINEAR: u64 = 0xffff_ff80_0000_0000;
/// Where the kernel has device registers: at this and their address.
const DEVICES: u64 = 0xffff_ffc0_0000_0000;

/// A valid block, accessed, inner shareable, of the first kind of memory, the kernel's alone.
const MEMORY_BLOCK: u64 = 0x701;
/// A valid block, accessed, of device memory, never executed.
const DEVICE_BLOCK: u64 = 0x405 | 3 << 53;
const BLOCK_BYTES: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// A table of 512 words.
#[repr(C, align(4096))]
pub(super) struct Table([AtomicU64; 512]);

impl Table {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    fn set(&self, at: u64, value: u64) {
        self.0[(at & 511) as usize].store(value, core::sync::atomic::Ordering::Relaxed);
    }
}

/// What the lower half is while no process is in it.
static EMPTY: Table = Table::new();

fn address_of(table: &'static Table) -> u64 {
    core::ptr::from_ref(table).addr() as u64 - LINEAR
}

/// Maps the guest's memory, which lies in the GiB that the image is in, and the registers of all
/// devices below 256 GiB; takes the boot's mapping out of the lower half.
pub(crate) fn map_all(memory: core::ops::Range<u64>) {
    let mut at = memory.start & !(BLOCK_BYTES - 1);
    while at < memory.end {
        boot::LEVEL2.set(at / BLOCK_BYTES, at | MEMORY_BLOCK);
        at += BLOCK_BYTES;
    }
    for gib in 0..256 {
        boot::ROOT.set(256 + gib, (gib * GIB) | DEVICE_BLOCK);
    }
    barrier();
    set_user(0, 0);
}

/// Leads the lower half by `root`, with tag `asid`; by nothing if `root` is 0.
pub(crate) fn set_user(root: u64, asid: u16) {
    let root = if root == 0 { address_of(&EMPTY) } else { root };
    // SAFETY: nothing of the kernel is in the lower half.
    unsafe {
        asm!(
            "msr ttbr0_el1, {root}", "isb",
            root = in(reg) root | u64::from(asid) << 48,
            options(nostack, preserves_flags)
        );
    }
}

/// Forgets all of `asid`.
pub(crate) fn forget(asid: u16) {
    // SAFETY: forgetting is always allowed.
    unsafe {
        asm!(
            "dsb ishst", "tlbi aside1is, {asid}", "dsb ish", "isb",
            asid = in(reg) u64::from(asid) << 48,
            options(nostack, preserves_flags)
        );
    }
}

/// Forgets all of the boot's lower half.
pub(crate) fn forget_all() {
    // SAFETY: as above.
    unsafe {
        asm!(
            "dsb ishst",
            "tlbi vmalle1is",
            "dsb ish",
            "isb",
            options(nostack, preserves_flags)
        );
    }
}

/// Everything before it is done before anything after it.
pub(crate) fn barrier() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
}

/// The word of the guest's memory at `at`, a multiple of 8.
pub(crate) fn word(at: u64) -> &'static AtomicU64 {
    let pointer: *const AtomicU64 = core::ptr::with_exposed_provenance((LINEAR + at) as usize);
    // SAFETY: `map_all` mapped the memory for ever; words are atomic, so anybody may share them.
    unsafe { &*pointer }
}

/// Stores a word where the process in the lower half sees `va`.
pub(crate) fn store_as_user(va: u64, value: u64) {
    // SAFETY: the lower half holds nothing that Rust knows of; what is not mapped traps.
    unsafe { asm!("str {value}, [{va}]", "dsb sy", value = in(reg) value, va = in(reg) va) };
}

/// Loads a word where the process in the lower half sees `va`.
pub(crate) fn load_as_user(va: u64) -> u64 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("ldr {value}, [{va}]", value = out(reg) value, va = in(reg) va) };
    value
}

/// Registers of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mmio(u64);

impl Mmio {
    /// Those at `at`, which the guest's tree names.
    pub(crate) const fn new(at: u64) -> Self {
        Self(DEVICES + at)
    }

    /// Reads the 32-bit register at `offset`.
    pub(crate) fn read32(self, offset: u64) -> u32 {
        let value;
        // SAFETY: `map_all` mapped all registers; reading them has no effect on memory.
        unsafe {
            asm!("ldr {value:w}, [{at}]", value = out(reg) value, at = in(reg) self.0 + offset);
        }
        value
    }

    /// Writes the 32-bit register at `offset`, after all that was stored before.
    pub(crate) fn write32(self, offset: u64, value: u32) {
        // SAFETY: as above; what the device does to memory it does to words.
        unsafe {
            asm!("dsb sy", "str {value:w}, [{at}]", value = in(reg) value, at = in(reg) self.0 + offset);
        }
    }

    /// Writes the 64-bit register at `offset`.
    pub(crate) fn write64(self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe {
            asm!("dsb sy", "str {value}, [{at}]", value = in(reg) value, at = in(reg) self.0 + offset);
        }
    }
}

/// Nanoseconds since some moment.
pub(crate) fn now_ns() -> u64 {
    let (count, frequency): (u64, u64);
    // SAFETY: reads counters.
    unsafe {
        asm!(
            "isb", "mrs {count}, cntvct_el0", "mrs {frequency}, cntfrq_el0",
            count = out(reg) count, frequency = out(reg) frequency,
            options(nostack, preserves_flags)
        );
    }
    (u128::from(count) * 1_000_000_000 / u128::from(frequency.max(1))) as u64
}

/// Whether `is_so` becomes true within `us` microseconds.
pub(crate) fn within(us: u64, mut is_so: impl FnMut() -> bool) -> bool {
    let end = now_ns() + us * 1000;
    loop {
        if is_so() {
            return true;
        }
        if now_ns() >= end {
            return is_so();
        }
        dawdle();
    }
}

/// Passes some time in one piece: an emulator that counts instructions does so for each piece.
fn dawdle() {
    // SAFETY: does nothing.
    unsafe {
        asm!(
            ".rept 256",
            "nop",
            ".endr",
            options(nomem, nostack, preserves_flags)
        );
    }
}

/// Lets `us` microseconds pass.
pub(crate) fn pause(us: u64) {
    within(us, || false);
}

/// The device tree at `at`, if there is one.
pub(crate) fn tree(at: u64) -> Option<fdt::Fdt<'static>> {
    // SAFETY: EL2 put a tree there, which the boot mapped and nobody changes.
    unsafe { fdt::Fdt::from_ptr(core::ptr::with_exposed_provenance((LINEAR + at) as usize)) }.ok()
}
