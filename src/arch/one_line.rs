//! Text that stays on one line.

use core::fmt::{self, Write};

/// Text with every control character shown as a space.
#[derive(Debug)]
pub struct OneLine<'a>(pub fmt::Arguments<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Spaced<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Spaced<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for part in text.split_inclusive(char::is_control) {
                    match part.strip_suffix(char::is_control) {
                        Some(line) => {
                            self.0.write_str(line)?;
                            self.0.write_char(' ')?;
                        }
                        None => self.0.write_str(part)?,
                    }
                }
                Ok(())
            }
        }
        Spaced(f).write_fmt(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn every_control_character_is_a_space() {
        let text = |text: &str| OneLine(format_args!("{text}{}", 3)).to_string();
        assert_eq!(text("one\ntwo\r\n\ttab\u{1b}[0m"), "one two   tab [0m3");
        assert_eq!(text("plain \u{fc} "), "plain \u{fc} 3");
        assert_eq!(text(""), "3");
    }
}
