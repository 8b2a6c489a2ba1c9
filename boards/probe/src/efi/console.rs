//! UEFI's console.

use core::fmt::Write as _;
use core::time::Duration;

use portcullis_probe::{Patience, Terminal, show as show_pages};
use uefi::proto::console::text::Key;
use uefi::{boot, system};

use super::options::Options;

const MOMENT: Duration = Duration::from_millis(50);
/// A minute for a page and four for all of them: after five firmware resets the machine.
const PATIENCE: Patience = Patience {
    page: 60 * 20,
    all: 240 * 20,
};

struct Console;

impl Terminal for Console {
    fn rows(&self) -> usize {
        system::with_stdout(|out| out.current_mode().ok().flatten()).map_or(25, |mode| mode.rows())
    }

    fn print(&mut self, text: &str) {
        // A console that fails has nothing to say that by.
        let _ = system::with_stdout(|out| out.write_str(text));
    }

    fn key(&mut self) -> Option<char> {
        boot::stall(MOMENT);
        match system::with_stdin(|input| input.read_key()).unwrap_or(None)? {
            Key::Printable(letter) => Some(letter.into()),
            Key::Special(_) => Some('\0'),
        }
    }
}

/// Prints `text`.
pub(super) fn show(text: &str, options: Options) {
    let patience = options.stops_at_pages.then_some(PATIENCE);
    show_pages(text, patience, &mut Console);
}
