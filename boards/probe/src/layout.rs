//! Lines of at most [`COLUMNS`] characters.

use alloc::string::String;
use core::fmt::{self, Write as _};

/// How long a line may be. A console of 80 columns goes to the next line by itself behind the
/// 80th character, which would make an empty line of the end of line.
pub const COLUMNS: usize = 79;

/// Text in sections, with lines broken between words.
#[derive(Default)]
pub(crate) struct Layout(String);

impl Layout {
    /// A line at the left edge, an empty one before it.
    pub(crate) fn section(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.wrapped(0, title);
    }

    /// A line below a section's.
    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) {
        self.indented(2, text);
    }

    /// A line below another.
    pub(crate) fn detail(&mut self, text: fmt::Arguments<'_>) {
        self.indented(4, text);
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn indented(&mut self, indent: usize, text: fmt::Arguments<'_>) {
        let mut whole = String::new();
        // A text that cannot format itself ends where it failed.
        let _ = whole.write_fmt(text);
        self.wrapped(indent, &whole);
    }

    /// What goes on in another line stands two further in.
    fn wrapped(&mut self, indent: usize, text: &str) {
        let mut column = 0;
        for word in text.split(' ') {
            let word: String = word.chars().map(printable).collect();
            let is_first = column == 0;
            if is_first {
                column = indent;
                self.spaces(indent);
            } else if column + 1 + word.len() > COLUMNS {
                self.0.push('\n');
                column = indent + 2;
                self.spaces(column);
            } else {
                self.0.push(' ');
                column += 1;
            }
            column += self.word(&word, column, indent + 2);
        }
        self.0.push('\n');
    }

    /// Adds `word`, in pieces if it is longer than a line; says how far the column moved.
    fn word(&mut self, word: &str, from: usize, indent: usize) -> usize {
        let mut column = from;
        for letter in word.chars() {
            if column >= COLUMNS {
                self.0.push('\n');
                self.spaces(indent);
                column = indent;
            }
            self.0.push(letter);
            column += 1;
        }
        column.saturating_sub(from)
    }

    fn spaces(&mut self, count: usize) {
        for _ in 0..count {
            self.0.push(' ');
        }
    }
}

/// Firmware's names may hold anything; a console and a text file shall not.
fn printable(letter: char) -> char {
    if letter == ' ' || letter.is_ascii_graphic() {
        letter
    } else {
        '?'
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_go_on_further_in() {
        let mut layout = Layout::default();
        layout.section("TITLE");
        layout.line(format_args!("{} b c", "a".repeat(74)));
        let text = layout.finish();
        let lines: alloc::vec::Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "TITLE");
        assert_eq!(lines[1], alloc::format!("  {} b", "a".repeat(74)));
        assert_eq!(lines[2], "    c");
    }

    #[test]
    fn no_line_is_too_long_whatever_a_name_holds() {
        let mut layout = Layout::default();
        for name in ["x".repeat(500), "\u{1b}[2J\n\r".repeat(40), "ü".repeat(90)] {
            layout.detail(format_args!("name {name} end"));
        }
        let text = layout.finish();
        assert!(text.lines().all(|line| line.len() <= COLUMNS), "{text}");
        assert!(text.chars().all(|it| it == '\n' || printable(it) == it));
    }
}
