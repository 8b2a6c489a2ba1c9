//! The report on a console, a screen at a time.

/// What a person at a console can be shown, and can answer.
pub trait Terminal {
    /// How many lines it shows at once.
    fn rows(&self) -> usize;

    /// Shows `text` where the last one ended.
    fn print(&mut self, text: &str);

    /// Waits a moment, the same each time; the letter that was typed, NUL for a key without one.
    fn key(&mut self) -> Option<char>;
}

/// How long is waited for a key, in moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// At one page: a console may have no keyboard.
    pub page: u32,
    /// At all pages together: firmware resets a machine whose boot entry takes too long.
    pub all: u32,
}

/// Fewer rows than this cannot be meant.
const LEAST_ROWS: usize = 10;
const QUESTION: &str = "-- any key: next page; a: all of it --";

/// Prints `text`, and stops after each screen until a key is pressed: `a` shows the rest in one go,
/// and so does nobody who presses any.
///
/// `None` for `patience` does not stop at all.
pub fn show(text: &str, patience: Option<Patience>, terminal: &mut impl Terminal) {
    // One row for the question, one for where the cursor stands.
    let page = terminal.rows().max(LEAST_ROWS) - 2;
    let mut left = patience.map_or(0, |patience| patience.all);
    for (count, line) in text.lines().enumerate() {
        if let Some(patience) = patience
            && left > 0
            && count > 0
            && count % page == 0
        {
            left = ask(left, patience.page, terminal);
        }
        terminal.print(line);
        terminal.print("\n");
    }
}

/// Waits for a key; returns how many moments are left for the pages to come, 0 to stop no more.
fn ask(left: u32, page: u32, terminal: &mut impl Terminal) -> u32 {
    terminal.print(QUESTION);
    let mut key = None;
    let mut waited = 0;
    while key.is_none() && waited < left.min(page) {
        waited += 1;
        key = terminal.key();
    }
    terminal.print("\n");
    match key {
        Some('a' | 'A') => 0,
        Some(_) => left - waited,
        // Nobody is there.
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::VecDeque;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    /// Twelve rows, and somebody who presses these keys, one at each question, after so many
    /// moments.
    struct Desk {
        rows: usize,
        keys: VecDeque<(u32, char)>,
        waited: u32,
        shown: String,
    }

    impl Terminal for Desk {
        fn rows(&self) -> usize {
            self.rows
        }

        fn print(&mut self, text: &str) {
            self.shown += text;
        }

        fn key(&mut self) -> Option<char> {
            self.waited += 1;
            let (after, key) = self.keys.front_mut()?;
            *after -= 1;
            let key = *key;
            (self.keys[0].0 == 0).then(|| {
                self.keys.pop_front();
                key
            })
        }
    }

    const PATIENCE: Patience = Patience { page: 60, all: 100 };

    /// Behind how many lines of 45 it stopped, and how many moments went by.
    fn stops(rows: usize, patience: Option<Patience>, keys: &[(u32, char)]) -> (Vec<usize>, u32) {
        let text: String = (0..45).map(|line| format!("{line}\n")).collect();
        let mut desk = Desk {
            rows,
            keys: keys.iter().copied().collect(),
            waited: 0,
            shown: String::new(),
        };
        show(&text, patience, &mut desk);
        assert_eq!(desk.shown.replace(&format!("{QUESTION}\n"), ""), text);
        let parts: Vec<_> = desk.shown.split(QUESTION).collect();
        let lines = |part: &&str| part.trim_start().lines().count();
        let mut stops: Vec<_> = parts.iter().map(lines).collect();
        stops.pop();
        (stops, desk.waited)
    }

    #[test]
    fn each_page_waits_for_its_key_and_has_a_screen_of_lines() {
        let keys = [(1, ' '), (5, '\0'), (2, 'x'), (1, 'x')];
        assert_eq!(stops(12, Some(PATIENCE), &keys), ([10; 4].into(), 9));
        assert_eq!(stops(0, Some(PATIENCE), &[(1, 'a')]), ([8].into(), 1));
        assert_eq!(stops(50, Some(PATIENCE), &[]), ([].into(), 0));
    }

    #[test]
    fn an_a_shows_the_rest_in_one_go() {
        for a in ['a', 'A'] {
            let keys = [(1, ' '), (1, a)];
            assert_eq!(stops(12, Some(PATIENCE), &keys), ([10, 10].into(), 2));
        }
    }

    #[test]
    fn a_report_that_nobody_reads_comes_out_all_the_same_and_in_bounded_time() {
        assert_eq!(stops(12, Some(PATIENCE), &[]), ([10].into(), 60));
        // The third question has what is left of all the time.
        let slow = [(45, ' '), (45, ' '), (45, ' ')];
        assert_eq!(stops(12, Some(PATIENCE), &slow), ([10; 3].into(), 100));
        assert_eq!(stops(12, None, &[]), ([].into(), 0));
    }
}
