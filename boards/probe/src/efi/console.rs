//! The report on the console, a screen at a time.

use core::fmt::Write as _;
use core::time::Duration;

use uefi::proto::console::text::Key;
use uefi::{boot, system};

use super::options::Options;

/// How long a page waits for a key: a console may have no keyboard.
const PAGE_SECONDS: u32 = 60;
const POLL: Duration = Duration::from_millis(50);
const POLLS_PER_SECOND: u32 = 20;
/// Fewer rows than this cannot be meant.
const LEAST_ROWS: usize = 10;

/// Prints `text`.
pub(super) fn show(text: &str, options: Options) {
    let rows = system::with_stdout(|out| out.current_mode().ok().flatten())
        .map_or(25, |mode| mode.rows())
        .max(LEAST_ROWS);
    // One row for the question, one for where the cursor stands.
    let page = rows - 2;
    let mut stops = options.stops_at_pages;
    for (count, line) in text.lines().enumerate() {
        if stops && count > 0 && count % page == 0 {
            stops = ask();
        }
        print(line);
        print("\n");
    }
}

/// Waits for a key; says whether the next page stops as well.
fn ask() -> bool {
    print("-- any key: next page; a: all of it --");
    let mut key = None;
    for _ in 0..PAGE_SECONDS * POLLS_PER_SECOND {
        key = system::with_stdin(|input| input.read_key()).unwrap_or(None);
        if key.is_some() {
            break;
        }
        boot::stall(POLL);
    }
    print("\n");
    match key {
        Some(Key::Printable(letter)) => !matches!(char::from(letter), 'a' | 'A'),
        Some(Key::Special(_)) => true,
        // Nobody is there.
        None => false,
    }
}

fn print(text: &str) {
    // A console that fails has nothing to say that by.
    let _ = system::with_stdout(|out| out.write_str(text));
}
