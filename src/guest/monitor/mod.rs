//! The monitor: a console for people, on a CPU that EL2 has to spare.
//!
//! It looks, and changes nothing but by `release` and `kill`, and these only where the board's boot
//! arguments allow it. What it prints fits 80 columns. Bytes come in one at a time, so whoever has
//! the UART serves it between other things.
//!
//! | piece | what |
//! |---|---|
//! | [`Monitor`] | the line that is typed, and what becomes of it |
//! | [`Watched`] | what there is to look at |
//! | [`Command`] | what was typed, understood |

mod columns;
mod command;
mod line;
mod views;

use core::fmt::{self, Write};

pub use columns::{COLUMNS, Columns};
pub use command::{Command, Misunderstood, SpaceName};
use line::{Line, Typed};

use crate::addr::Pa;
use crate::hw::{DeviceTag, Platform};
use crate::smmu::Smmu;
use crate::space::{GuestId, Iommu, SmmuId};

/// What stands before what is typed.
pub const PROMPT: &str = "portcullis> ";

/// What there is to look at, and the two things that can be done.
pub trait Watched<'p, P: Platform> {
    /// All of it.
    fn iommu(&self) -> &Iommu<'p, P>;

    /// An SMMU, and where its registers are.
    fn smmu(&self, id: SmmuId) -> Option<(&Smmu<'p, P>, Pa)>;

    /// The guest of this number; numbers go from 0 without a gap, and stay.
    fn guest(&self, number: usize) -> Option<GuestSeen<'_>>;

    /// Tells of memory, CPUs and console, in lines.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    fn machine(&self, out: &mut dyn Write) -> fmt::Result;

    /// Names a device, in at most 24 characters.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    fn name_device(&self, tag: DeviceTag, out: &mut dyn Write) -> fmt::Result;

    /// Whether the boot arguments allow changes.
    fn may_change(&self) -> bool;

    /// Ends a guest, with all that it has.
    ///
    /// # Errors
    ///
    /// Why not.
    fn kill(&self, number: usize) -> Result<(), &'static str>;
}

/// A guest, for who looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestSeen<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is to the library; `None`: it has ended, or was not built.
    pub id: Option<GuestId>,
    /// How many CPUs it has.
    pub cpus: u32,
    /// How many of them are on.
    pub cpus_on: u32,
    /// How many bytes of memory it has.
    pub memory_bytes: u64,
    /// How many devices it was given.
    pub devices: u32,
    /// How many accesses outside of what it owns its CPUs have made.
    pub outside: u64,
}

/// The console of one person.
#[derive(Debug, Default)]
pub struct Monitor {
    line: Line,
}

impl Monitor {
    /// One at which nothing was typed.
    pub const fn new() -> Self {
        Self { line: Line::new() }
    }

    /// Greets whoever is there.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn greet(&self, out: &mut dyn Write) -> fmt::Result {
        write!(out, "\nmonitor: `help` says what there is\n{PROMPT}")
    }

    /// Takes a byte that was typed: shows it, or does what the line says.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn take<'p, P: Platform + 'p>(
        &mut self,
        byte: u8,
        watched: &impl Watched<'p, P>,
        out: &mut dyn Write,
    ) -> fmt::Result {
        match self.line.take(byte) {
            Typed::Nothing => Ok(()),
            Typed::Shown(letter) => out.write_char(letter),
            Typed::Erased(count) => (0..count).try_for_each(|_| out.write_str("\x08 \x08")),
            Typed::Refused => out.write_char('\x07'),
            Typed::Dropped => write!(out, "^C\n{PROMPT}"),
            Typed::Whole => {
                out.write_char('\n')?;
                let outcome = run(self.line.text(), watched, out);
                self.line.clear();
                outcome?;
                out.write_str(PROMPT)
            }
        }
    }
}

/// Does what a line says, and tells of it.
///
/// # Errors
///
/// Those of `out`.
pub fn run<'p, P: Platform + 'p>(
    line: &str,
    watched: &impl Watched<'p, P>,
    out: &mut dyn Write,
) -> fmt::Result {
    let mut out = Columns::new(out);
    match Command::parse(line) {
        Ok(None) => {}
        Ok(Some(command)) => views::carry_out(command, watched, &mut out)?,
        Err(why) => writeln!(out, "{why}")?,
    }
    out.finish()
}
