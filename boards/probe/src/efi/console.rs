//! The report on the console, a screen at a time.

use core::fmt::Write as _;
use core::time::Duration;

use uefi::proto::console::text::Key;
use uefi::{boot, system};

use super::options::Options;

/// How long a page waits for a key: a console may have no keyboard.
const PAGE_SECONDS: u32 = 60;
/// How long all pages wait together: firmware resets a machine whose boot entry takes five minutes.
const ALL_SECONDS: u32 = 240;
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
    let mut polls_left = match options.stops_at_pages {
        true => ALL_SECONDS * POLLS_PER_SECOND,
        false => 0,
    };
    for (count, line) in text.lines().enumerate() {
        if polls_left > 0 && count > 0 && count % page == 0 {
            polls_left = ask(polls_left);
        }
        print(line);
        print("\n");
    }
}

/// Waits for a key; returns how many polls are left for the pages to come, 0 to stop no more.
fn ask(polls_left: u32) -> u32 {
    print("-- any key: next page; a: all of it --");
    let mut key = None;
    let mut polls = 0;
    while key.is_none() && polls < polls_left.min(PAGE_SECONDS * POLLS_PER_SECOND) {
        boot::stall(POLL);
        polls += 1;
        key = system::with_stdin(|input| input.read_key()).unwrap_or(None);
    }
    print("\n");
    match key {
        Some(Key::Printable(letter)) if matches!(char::from(letter), 'a' | 'A') => 0,
        Some(_) => polls_left - polls,
        // Nobody is there.
        None => 0,
    }
}

fn print(text: &str) {
    // A console that fails has nothing to say that by.
    let _ = system::with_stdout(|out| out.write_str(text));
}
