//! Text that fits its width.

use core::fmt::{self, Write};

/// How many columns there are.
pub const COLUMNS: usize = 80;
/// What a line that goes on begins with.
const INDENT: &str = "    ";

/// Breaks lines between words, where they would be wider than [`COLUMNS`]; a word that is wider is
/// cut.
pub struct Columns<'a> {
    out: &'a mut dyn Write,
    /// The word that has not ended.
    word: [char; COLUMNS],
    letters: usize,
    /// Spaces before it.
    spaces: usize,
    column: usize,
}

impl<'a> Columns<'a> {
    /// A new line of `out`.
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            word: [' '; COLUMNS],
            letters: 0,
            spaces: 0,
            column: 0,
        }
    }

    /// Writes what has not ended.
    ///
    /// # Errors
    ///
    /// Those of what is below.
    pub fn finish(mut self) -> fmt::Result {
        self.end_word()
    }

    fn end_word(&mut self) -> fmt::Result {
        if self.letters == 0 {
            return Ok(());
        }
        if self.column + self.spaces + self.letters > COLUMNS && self.column > INDENT.len() {
            self.out.write_char('\n')?;
            self.out.write_str(INDENT)?;
            self.column = INDENT.len();
            self.spaces = 0;
        }
        for _ in 0..core::mem::take(&mut self.spaces) {
            self.out.write_char(' ')?;
            self.column += 1;
        }
        let room = COLUMNS - self.column.min(COLUMNS);
        let shown = core::mem::take(&mut self.letters).min(room);
        self.column += shown;
        let mut word = self.word.iter().take(shown);
        word.try_for_each(|letter| self.out.write_char(*letter))
    }
}

impl Write for Columns<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match letter {
                '\n' => {
                    self.end_word()?;
                    self.spaces = 0;
                    self.column = 0;
                    self.out.write_char('\n')?;
                }
                ' ' => {
                    self.end_word()?;
                    self.spaces += 1;
                }
                letter => {
                    let is_plain = letter.is_ascii_graphic() || letter == '§';
                    if let Some(slot) = self.word.get_mut(self.letters) {
                        *slot = if is_plain { letter } else { '?' };
                        self.letters += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;

    use super::*;

    fn set(text: &str) -> String {
        let mut out = String::new();
        let mut columns = Columns::new(&mut out);
        columns.write_str(text).expect("a string takes all");
        columns.finish().expect("a string takes all");
        out
    }

    #[test]
    fn lines_break_between_words_and_nowhere_else() {
        assert_eq!(set("a  b\n  c \n\n"), "a  b\n  c\n\n");
        let long = set(&"word ".repeat(40));
        assert!(long.lines().all(|line| line.len() <= COLUMNS));
        assert_eq!(long.split_whitespace().count(), 40);
        assert_eq!(long.lines().count(), 3);
        assert!(
            long.lines()
                .skip(1)
                .all(|line| line.starts_with("    word"))
        );
    }

    #[test]
    fn a_word_that_is_too_wide_is_cut_and_nothing_moves_the_cursor() {
        assert_eq!(set(&"x".repeat(200)).len(), COLUMNS);
        assert_eq!(set("a\x1b[2Jb é §5.4"), "a?[2Jb ? §5.4");
    }
}
