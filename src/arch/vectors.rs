//! Exceptions at EL2: each is the end, told so that a person can use it; but those of a guest, which
//! go back to who runs it ([`vcpu`](super::vcpu)).

use core::arch::{asm, global_asm};
use core::fmt;

use super::death::{self, Ending};
use super::syndrome::Syndrome;
use super::{cpu, image};
use crate::addr::Pa;

/// What an exception found.
#[repr(C)]
struct Frame {
    /// x0 to x30.
    x: [u64; 31],
    /// `SP_EL0`: the stack pointer of all code of the image outside of exceptions.
    sp: u64,
    elr: u64,
    spsr: u64,
    esr: u64,
    far: u64,
}

const FRAME_BYTES: usize = 288;
const _: () = assert!(size_of::<Frame>() == FRAME_BYTES && FRAME_BYTES.is_multiple_of(16));

// Slots 0 to 3 interrupt our code, which runs on SP_EL0; the stack here, SP_EL2, is fresh. Slots 4
// to 7 interrupt the handler of another exception: the stack starts over, since nobody returns.
global_asm!(
    r#"
    .macro slot number, fresh
    .balign 128
    .if \fresh
    mov     x9, sp
    adrp    x9, __exception_stack_end
    mov     sp, x9
    .endif
    sub     sp, sp, #{frame}
    stp     x0, x1, [sp]
    mov     x1, #\number
    b       save
    .endm

    // While a guest runs, TPIDR_EL2 says whose registers these are.
    .macro below number
    .balign 128
    stp     x0, x1, [sp, #-16]!
    mrs     x0, tpidr_el2
    cbz     x0, 1f
    mov     x1, #\number
    b       __vcpu_exit
1:  ldp     x0, x1, [sp], #16
    sub     sp, sp, #{frame}
    stp     x0, x1, [sp]
    mov     x1, #\number
    b       save
    .endm

    .pushsection .text.vectors, "ax"
    .balign 2048
    .global vectors
vectors:
    .irp    number, 0, 1, 2, 3
    slot    \number, 0
    .endr
    .irp    number, 4, 5, 6
    slot    \number, 1
    .endr
    // An SError on SP_EL2 is a guest's while TPIDR_EL2 says whose.
    .balign 128
    mrs     x9, tpidr_el2
    cbnz    x9, __vcpu_late_error
    adrp    x9, __exception_stack_end
    mov     sp, x9
    sub     sp, sp, #{frame}
    stp     x0, x1, [sp]
    mov     x1, #7
    b       save
    .irp    number, 8, 9, 10, 11, 12, 13, 14, 15
    below   \number
    .endr
    .balign 128
save:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    mrs     x2, sp_el0
    stp     x30, x2, [sp, #240]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [sp, #256]
    mrs     x2, esr_el2
    mrs     x3, far_el2
    stp     x2, x3, [sp, #272]
    mov     x0, sp
    mov     x29, xzr
    mov     x30, xzr
    bl      {exception}
    .popsection
    "#,
    frame = const FRAME_BYTES,
    exception = sym exception,
);

/// Has this CPU use the vectors.
pub(super) fn install() {
    // SAFETY: the vectors are code of the image, aligned, and use SP_EL2, which the entry has set.
    unsafe {
        asm!(
            "msr tpidr_el2, xzr",
            "adrp {at}, vectors",
            "add {at}, {at}, :lo12:vectors",
            "msr vbar_el2, {at}",
            "isb",
            at = out(reg) _,
            options(nostack),
        );
    }
}

extern "C" fn exception(frame: &Frame, slot: u64) -> ! {
    if death::nothing_left_to_say() {
        cpu::park();
    }
    let ending = Ending::begin();
    let taken = Taken { frame, slot };
    ending.report(format_args!("{taken:#}"));
    ending.end(format_args!("exception at EL2: {taken}"))
}

/// An exception in words: one line, or with `#` all that is known.
struct Taken<'a> {
    frame: &'a Frame,
    slot: u64,
}

impl Taken<'_> {
    /// Where it came from, if not from the image's own code.
    fn origin(&self) -> &'static str {
        match self.slot / 4 {
            0 => "",
            1 => ", while another exception was reported",
            2 => ", below EL2, in AArch64",
            _ => ", below EL2, in AArch32",
        }
    }

    /// What happened: only a synchronous exception and an SError have a syndrome.
    fn what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.slot % 4 {
            1 => f.write_str("IRQ"),
            2 => f.write_str("FIQ"),
            _ => write!(f, "{}", Syndrome::new(self.frame.esr)),
        }
    }

    /// `FAR_EL2`, where the exception has set it.
    fn far(&self) -> Option<Pa> {
        let synchronous = self.slot.is_multiple_of(4);
        (synchronous && Syndrome::new(self.frame.esr).has_far()).then(|| Pa::new(self.frame.far))
    }
}

/// An address, and how far into the image it is if it is.
struct Place(u64);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)?;
        match image::layout().offset(Pa::new(self.0)) {
            Some(offset) => write!(f, " (image + {offset:#x})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Taken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.what(f)?;
        if let Some(far) = self.far() {
            write!(f, ", at {far}")?;
            if let Some(guard) = image::layout().guard(far) {
                write!(f, ", {guard}")?;
            }
        }
        write!(f, ", by {}{}", Place(self.frame.elr), self.origin())?;
        if f.alternate() {
            self.registers(f)?;
        }
        Ok(())
    }
}

impl Taken<'_> {
    fn registers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame {
            x,
            sp,
            elr,
            spsr,
            esr,
            far,
        } = self.frame;
        write!(f, "\n  esr {esr:#018x}  far {far:#018x}")?;
        write!(f, "\n  elr {elr:#018x}  lr {}", Place(x[30]))?;
        write!(
            f,
            "\n  spsr {spsr:#x}  sp {sp:#018x}  cpu {:#x}",
            cpu::affinity()
        )?;
        for (index, value) in x.iter().enumerate() {
            let gap = if index % 4 == 0 { "\n" } else { "" };
            write!(f, "{gap}  x{index:<2} {value:#018x}")?;
        }
        Ok(())
    }
}
