//! Pages, and words that EL2 and devices share with us.

use core::arch::asm;
use core::ptr::addr_of;
use core::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const PAGE_BYTES: usize = 4096;
const PAGES: usize = 32;

#[repr(C, align(4096))]
struct Pool([[u8; PAGE_BYTES]; PAGES]);

static mut POOL: Pool = Pool([[0; PAGE_BYTES]; PAGES]);
static USED: AtomicUsize = AtomicUsize::new(0);

/// A page of our memory, by its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page(pub(crate) u64);

impl Page {
    /// A page that nobody has, all zeros.
    pub(crate) fn new() -> Result<Self, &'static str> {
        let number = USED.fetch_add(1, Ordering::Relaxed);
        if number >= PAGES {
            return Err("no page is left");
        }
        Ok(Self(addr_of!(POOL) as u64 + (number * PAGE_BYTES) as u64))
    }

    /// The word of this number, as it is in memory.
    pub(crate) fn word(self, number: usize) -> u64 {
        read(self.0 + 8 * number as u64)
    }

    /// Stores a word so that a device sees it.
    pub(crate) fn put(self, number: usize, value: u64) {
        write(self.0 + 8 * number as u64, value);
    }
}

/// Our caches are off; a device's may not be: what it left in one goes to memory first.
fn settle(at: u64) {
    // SAFETY: cleaning changes nothing that anybody reads.
    unsafe { asm!("dsb sy", "dc civac, {}", "dsb sy", in(reg) at, options(nostack)) };
}

fn read(at: u64) -> u64 {
    settle(at);
    // SAFETY: our own memory.
    unsafe { core::ptr::read_volatile(at as *const u64) }
}

fn write(at: u64, value: u64) {
    // SAFETY: our own memory.
    unsafe { core::ptr::write_volatile(at as *mut u64, value) };
    settle(at);
}

/// Registers of a device.
#[derive(Clone, Copy)]
pub(crate) struct Registers(pub(crate) u64);

impl Registers {
    pub(crate) fn read32(self, offset: u64) -> u32 {
        // SAFETY: a device that EL2 gave us.
        unsafe { core::ptr::read_volatile((self.0 + offset) as *const u32) }
    }

    pub(crate) fn write32(self, offset: u64, value: u32) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile((self.0 + offset) as *mut u32, value) };
    }

    pub(crate) fn write64(self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile((self.0 + offset) as *mut u64, value) };
    }
}

/// Microseconds by the counter.
pub(crate) fn now_us() -> u64 {
    let (ticks, per_s): (u64, u64);
    // SAFETY: reads the counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack)) };
    // SAFETY: reads how fast it is.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) per_s, options(nomem, nostack)) };
    (u128::from(ticks) * 1_000_000 / u128::from(per_s.max(1))) as u64
}

/// Asks until it is so, for at most so long; whether it came to be.
pub(crate) fn within(us: u64, mut is_so: impl FnMut() -> bool) -> bool {
    let start = now_us();
    loop {
        if is_so() {
            return true;
        }
        if now_us() - start > us {
            return is_so();
        }
    }
}
