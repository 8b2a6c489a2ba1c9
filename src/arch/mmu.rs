//! EL2's own stage 1: on from the first lines of Rust, with caches, W^X, and nothing mapped that
//! was not asked for.
//!
//! At first that is the image (its guard pages left out) and the early console; then the device
//! tree, then memory and registers as that names them. Addresses are physical addresses: a Rust
//! reference, a table entry and what a device is told are the same number.

use core::arch::asm;
use core::fmt;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::asm::barrier;
use spin::Once;

use super::cpu::Mutex;
use super::tables::{Kind, MAIR, MapError, Table, Tables};
use super::{board, console, cpu, image};
use crate::addr::{Extent, Pa};
use crate::hw::Mmio;

/// 256 KiB of tables: two or three for each place that is far from others.
static POOL: [Table; 64] = [const { Table::empty() }; 64];

static TABLES: Once<Mutex<Tables<'static>>> = Once::new();

static IS_ON: AtomicBool = AtomicBool::new(false);

/// A part of the image or of the board could not be mapped.
#[derive(Clone, Copy, Debug)]
pub struct EnableError(MapError);

impl fmt::Display for EnableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the image cannot be mapped: {}", self.0)
    }
}

/// Whether translation and caches are on, so that locks and atomics work.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Maps the image and the early console, and turns translation and caches on.
pub(super) fn enable() -> Result<(), EnableError> {
    let tables = first_map().map_err(EnableError)?;
    let root = tables.root();
    // SAFETY: `tables` maps all of the image as what it is, one to one, and all that was written
    // to memory so far lies in the image.
    unsafe { turn_on(root, cpu::pa_bits()) };
    // Only now: `Once` counts on atomics that change memory.
    TABLES.call_once(|| Mutex::new(tables));
    IS_ON.store(true, Ordering::Relaxed);
    Ok(())
}

fn first_map() -> Result<Tables<'static>, MapError> {
    let pool = Pa::new((&raw const POOL).expose_provenance() as u64);
    let no_table = MapError::OutOfTables { needed: 1, left: 0 };
    let mut tables = Tables::new(&POOL, pool, cpu::pa_bits()).ok_or(no_table)?;
    let image = image::layout();
    tables.map(image.text, Kind::Text)?;
    tables.map(image.rodata, Kind::ReadOnly)?;
    tables.map(image.data, Kind::Data)?;
    tables.map(image.stack, Kind::Data)?;
    tables.map(image.exception_stack, Kind::Data)?;
    tables.map(
        pages(Pa::new(board::EARLY_CONSOLE), console::FRAME_BYTES as u64)?,
        Kind::Device,
    )?;
    Ok(tables)
}

/// Turns translation and caches on, with the root table at `root`.
///
/// # Safety
///
/// The tables map the image one to one, as what it is; what was written before lies in the image.
unsafe fn turn_on(root: Pa, pa_bits: u8) {
    let [mair, tcr, root, sctlr] = registers_of(root, pa_bits);
    // SAFETY: what the caller promises makes the next instruction fetch, the stack and all data
    // stay where they are. What the cache holds of the image is from before it was written past
    // the cache, and goes first.
    unsafe {
        asm!(
            "adrp x0, __image_start",
            "adrp x1, __image_end",
            "bl clean_and_invalidate",
            "msr mair_el2, {mair}",
            "msr tcr_el2, {tcr}",
            "msr ttbr0_el2, {root}",
            "isb",
            "tlbi alle2",
            "ic iallu",
            "dsb sy",
            "isb",
            "msr sctlr_el2, {sctlr}",
            "isb",
            mair = in(reg) mair,
            tcr = in(reg) tcr,
            root = in(reg) root,
            sctlr = in(reg) sctlr,
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x30") _,
        );
    }
}

/// `MAIR_EL2`, `TCR_EL2`, `TTBR0_EL2` and `SCTLR_EL2` as this CPU has them: for the other CPUs.
pub(super) fn registers() -> [u64; 4] {
    let root = Pa::new((&raw const POOL).expose_provenance() as u64);
    registers_of(root, cpu::pa_bits())
}

fn registers_of(root: Pa, pa_bits: u8) -> [u64; 4] {
    // T0SZ 16 (48 bits, four levels), walks Normal write-back and inner shareable, 4 KiB granule;
    // bits 31 and 23 are RES1.
    let ps: u64 = match pa_bits {
        32 => 0,
        36 => 1,
        40 => 2,
        42 => 3,
        44 => 4,
        _ => 5,
    };
    let tcr: u64 = 1 << 31 | 1 << 23 | ps << 16 | 0b11 << 12 | 0b01 << 10 | 0b01 << 8 | 16;
    // RES1 bits, and: M, C, SA (a stack pointer that is not aligned is an exception), I, WXN.
    let sctlr: u64 = 0x30c5_0830 | 1 | 1 << 2 | 1 << 3 | 1 << 12 | 1 << 19;
    [MAIR, tcr, root.as_u64(), sctlr]
}

/// Maps the registers at `base`, `size_bytes` bytes, as Device-nGnRE.
///
/// The rest of the pages that they lie in is mapped with them.
///
/// # Errors
///
/// [`MapError`]; nothing has changed then. [`MapError::AlreadyMapped`] makes sure that no two
/// owners share a frame, and that nothing that is called a device is our memory, or becomes it.
pub fn map_device(base: Pa, size_bytes: u64) -> Result<Mmio, MapError> {
    let out_of_reach = MapError::OutOfReach {
        base,
        size_bytes,
        pa_bits: cpu::pa_bits(),
    };
    map(pages(base, size_bytes)?, Kind::Device)?;
    let at =
        NonNull::new(with_exposed_provenance_mut(base.as_u64() as usize)).ok_or(out_of_reach)?;
    // SAFETY: just mapped as Device, and by `AlreadyMapped` no other mapping of it exists or will,
    // so no Rust code can refer to it.
    Ok(unsafe { Mmio::new(at, size_bytes as usize) })
}

/// Maps `range` as `kind`, after the first map.
///
/// # Errors
///
/// [`MapError`]; nothing has changed then. The image's guard pages count as mapped.
pub(super) fn map(range: Extent<Pa>, kind: Kind) -> Result<(), MapError> {
    let image = image::layout().whole;
    if range.overlaps(&image) {
        let at = range.base().max(image.base());
        return Err(MapError::AlreadyMapped { at });
    }
    let no_table = MapError::OutOfTables { needed: 1, left: 0 };
    TABLES.get().ok_or(no_table)?.lock().map(range, kind)?;
    // The walkers of all CPUs see the entries; what was fetched before is not used after.
    barrier::dsb(barrier::ISHST);
    barrier::isb(barrier::SY);
    Ok(())
}

/// The whole pages that `size_bytes` bytes at `base` lie in.
pub(super) fn pages(base: Pa, size_bytes: u64) -> Result<Extent<Pa>, MapError> {
    let out_of_reach = MapError::OutOfReach {
        base,
        size_bytes,
        pa_bits: cpu::pa_bits(),
    };
    let first = base.as_u64() & !0xfff;
    let end = base
        .checked_add(size_bytes)
        .and_then(|end| end.checked_add(0xfff))
        .ok_or(out_of_reach)?
        .as_u64()
        & !0xfff;
    Extent::<Pa>::new(Pa::new(first), end - first).ok_or(out_of_reach)
}
