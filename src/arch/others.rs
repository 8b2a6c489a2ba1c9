//! The other CPUs: stacks for them, and their way from firmware to Rust.
//!
//! Each comes from PSCI at EL2 with its MMU off, and turns EL2's map on before it touches memory:
//! what it is told was cleaned to memory first.

use core::arch::global_asm;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

use smccc::{Smc, psci};

use super::ram::FreeRam;
use super::tables::{Kind, MapError};
use super::{cpu, death, mmu};
use crate::addr::{Extent, Pa};

/// What a CPU is for.
pub type Main = fn(usize) -> !;

/// What one CPU needs to come up; it finds it by physical address.
#[repr(C)]
#[derive(Debug)]
struct Start {
    mair: AtomicU64,
    tcr: AtomicU64,
    root: AtomicU64,
    sctlr: AtomicU64,
    stack: AtomicU64,
    exception_stack: AtomicU64,
    main: AtomicU64,
    number: AtomicU64,
}

global_asm!(
    r#"
    .pushsection .text.others, "ax"
    // From firmware: x0 the Start.
__other_start:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    cmp     x1, #8
    b.ne    9f
    // RW, AMO, IMO, FMO: no VHE, or TCR_EL2 would mean something else.
    mov     x1, #0x80000000
    mov     x2, #0x38
    orr     x1, x1, x2
    msr     hcr_el2, x1
    isb
    mrs     x1, sctlr_el2
    tbnz    x1, #0, 9f
    ldp     x1, x2, [x0, #{mair}]
    ldp     x3, x4, [x0, #{root}]
    ldp     x5, x6, [x0, #{stack}]
    ldp     x7, x8, [x0, #{main}]
    msr     mair_el2, x1
    msr     tcr_el2, x2
    msr     ttbr0_el2, x3
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x4
    isb
    msr     spsel, #1
    mov     sp, x6
    msr     spsel, #0
    mov     sp, x5
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x7
    mov     x1, x8
    bl      {other}
9:  wfe
    b       9b
    .popsection
    "#,
    mair = const offset_of!(Start, mair),
    root = const offset_of!(Start, root),
    stack = const offset_of!(Start, stack),
    main = const offset_of!(Start, main),
    other = sym other,
);

unsafe extern "C" {
    fn __other_start();
}

/// The first Rust code of another CPU, which has EL2's map and its stacks.
extern "C" fn other(main: u64, number: u64) -> ! {
    super::vectors::install();
    if let Err(refusal) = cpu::settle_again() {
        death::end(format_args!("cpu {:#x}: {refusal}", cpu::affinity()));
    }
    cpu::unmask_serror();
    // SAFETY: `Stacks::start` put a `Main` there, and the address of a function is a pointer's size.
    let main = unsafe { core::mem::transmute::<usize, Main>(main as usize) };
    main(number as usize)
}

const PAGE_BYTES: u64 = 4096;
/// As much as discovery needs, and as much again.
const STACK_BYTES: u64 = 96 << 10;
const EXCEPTION_STACK_BYTES: u64 = 16 << 10;
/// A page below each that is never mapped, and one for the [`Start`].
const CPU_BYTES: u64 = STACK_BYTES + EXCEPTION_STACK_BYTES + 3 * PAGE_BYTES;

/// Why a CPU did not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartError {
    /// Its stacks cannot be mapped.
    Map(MapError),
    /// There is no memory in one piece for the stacks.
    NoMemory,
    /// Firmware refused, with PSCI's number for it.
    Firmware(psci::error::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(why) => write!(f, "its stack cannot be mapped: {why}"),
            Self::NoMemory => f.write_str("no memory in one piece for the stacks of CPUs"),
            Self::Firmware(why) => write!(f, "firmware does not start it: {why}"),
        }
    }
}

/// Memory for the stacks of other CPUs.
#[derive(Debug)]
pub struct Stacks {
    at: Extent<Pa>,
}

impl Stacks {
    /// Where in `free` the stacks of `cpus` CPUs could be; the caller takes it out of free memory.
    ///
    /// # Errors
    ///
    /// [`StartError::NoMemory`].
    pub fn find(free: &FreeRam, cpus: usize) -> Result<Self, StartError> {
        let bytes = CPU_BYTES * cpus as u64;
        let mut extents = free.extents().iter().rev();
        let at = extents
            .find(|extent| extent.size_bytes() >= bytes)
            .and_then(|extent| Extent::<Pa>::new(Pa::new(extent.end().as_u64() - bytes), bytes))
            .ok_or(StartError::NoMemory)?;
        Ok(Self { at })
    }

    /// Where they are.
    pub const fn extent(&self) -> Extent<Pa> {
        self.at
    }

    /// Starts the CPU of `affinity` as the one whose stacks are number `number`; it runs `main` with
    /// that number, and never returns.
    ///
    /// Its stacks are mapped, each with a page below that is not.
    ///
    /// # Errors
    ///
    /// Each [`StartError`].
    pub fn start(&self, number: usize, affinity: u64, main: Main) -> Result<(), StartError> {
        let base = self.at.base().as_u64() + CPU_BYTES * number as u64;
        let part = |offset: u64, bytes: u64| {
            Extent::<Pa>::new(Pa::new(base + offset), bytes).ok_or(StartError::NoMemory)
        };
        let told = part(0, PAGE_BYTES)?;
        let stack = part(2 * PAGE_BYTES, STACK_BYTES)?;
        let exceptions = part(3 * PAGE_BYTES + STACK_BYTES, EXCEPTION_STACK_BYTES)?;
        for extent in [told, stack, exceptions] {
            mmu::map(extent, Kind::Data).map_err(StartError::Map)?;
        }
        let at = core::ptr::with_exposed_provenance::<Start>(base as usize);
        // SAFETY: just mapped, as memory that `find` took and nobody else has; any bytes are atomics.
        let start = unsafe { &*at };
        let [mair, tcr, root, sctlr] = mmu::registers();
        let values = [
            (&start.mair, mair),
            (&start.tcr, tcr),
            (&start.root, root),
            (&start.sctlr, sctlr),
            (&start.stack, stack.end().as_u64()),
            (&start.exception_stack, exceptions.end().as_u64()),
            (&start.main, main as usize as u64),
            (&start.number, number as u64),
        ];
        for (word, value) in values {
            word.store(value, core::sync::atomic::Ordering::Relaxed);
        }
        // SAFETY: a `Start` is eight atomics in a row.
        let words = unsafe { core::slice::from_raw_parts(base as *const AtomicU64, 8) };
        cpu::clean_and_invalidate(words);
        let entry = __other_start as *const () as usize as u64;
        psci::cpu_on::<Smc>(affinity, entry, base).map_err(StartError::Firmware)
    }
}
