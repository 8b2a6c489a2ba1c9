//! The console: lines of text out of a UART, and characters that come in.
//!
//! A line is written whole, whichever CPU writes at the same time. A UART that takes no
//! characters costs time, never progress.

use core::fmt::{self, Write as _};
use core::ptr::{NonNull, without_provenance_mut};

use spin::Once;

use super::cpu::Mutex;
use super::tables::MapError;
use super::uart::{Kind, Uart};
use super::{board, cpu, death, mmu};
use crate::addr::Pa;
use crate::hw::Mmio;

/// How many bytes of the early console's frame are used.
pub const FRAME_BYTES: usize = Kind::Pl011.size_bytes();

/// A character takes 87 us at 115200 baud.
const CHARACTER_TIMEOUT_US: u64 = 10_000;

/// Longer than any line needs.
const LINE_TIMEOUT_US: u64 = 200_000;

// SAFETY: the board says that its UART is there; it is mapped as a device by `mmu::enable`, and
// before that every access is one to a device. It is told of no memory.
const EARLY_REGISTERS: Mmio = unsafe {
    Mmio::new(
        match NonNull::new(without_provenance_mut(board::EARLY_CONSOLE as usize)) {
            Some(base) => base,
            None => panic!("a board with its UART at 0"),
        },
        FRAME_BYTES,
    )
};

static EARLY: Uart = Uart::new(EARLY_REGISTERS, Kind::Pl011);

static NAMED: Once<Uart> = Once::new();

/// Held while a line is written.
static LINE: Mutex<()> = Mutex::new(());

/// Prints from now on to the UART of `kind` at `base`, the one that firmware names; only the first
/// call has an effect.
///
/// # Errors
///
/// [`MapError`]; the console is the old one then.
pub fn switch_to(base: Pa, kind: Kind) -> Result<(), MapError> {
    if base.as_u64() != board::EARLY_CONSOLE && NAMED.get().is_none() {
        let registers = mmu::map_device(base, kind.size_bytes() as u64)?;
        NAMED.call_once(|| Uart::new(registers, kind));
    }
    Ok(())
}

/// Writes `text` and an end of line, whole.
///
/// Once the image is ending, a line waits only so long for one that does not end, such as the one
/// that this very CPU died in.
pub fn print(text: fmt::Arguments<'_>) {
    if !mmu::is_on() {
        // One CPU, and a lock may not work.
        return write_line(text);
    }
    let start_us = cpu::now_us();
    let line = loop {
        let line = LINE.try_lock();
        let is_late = || cpu::now_us().saturating_sub(start_us) > LINE_TIMEOUT_US;
        if line.is_some() || death::has_begun() && is_late() {
            break line;
        }
        cpu::relax();
    };
    if line.is_none() {
        write_line(format_args!(""));
    }
    write_line(text);
}

fn write_line(text: fmt::Arguments<'_>) {
    let mut uart = Out(NAMED.get().unwrap_or(&EARLY));
    // A text that cannot format itself ends where it failed; the UART itself never fails.
    let _ = uart.write_fmt(text);
    let _ = uart.write_str("\n");
}

/// The next character that came in, if there is one.
pub fn typed() -> Option<u8> {
    NAMED.get().unwrap_or(&EARLY).get()
}

/// Writes `text` as it is, between lines of others: for who talks with a person.
pub fn show(text: &str) {
    let _line = LINE.lock();
    // As above.
    let _ = Out(NAMED.get().unwrap_or(&EARLY)).write_str(text);
}

struct Out(&'static Uart);

impl Out {
    fn put(&self, byte: u8) {
        if self.0.is_full() {
            let start_us = cpu::now_us();
            while self.0.is_full() {
                if cpu::now_us().saturating_sub(start_us) > CHARACTER_TIMEOUT_US {
                    return;
                }
            }
        }
        self.0.put(byte);
    }
}

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

/// Prints one line, formatted as by [`format_args!`].
#[macro_export]
#[doc(hidden)]
macro_rules! __arch_println {
    ($($text:tt)*) => { $crate::arch::console::print(format_args!($($text)*)) };
}
