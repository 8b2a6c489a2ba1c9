//! The line that is typed.

/// A line is so long at most; with the prompt it fits 80 columns.
const LINE_BYTES: usize = 64;

/// One line of printable ASCII, edited at its end.
#[derive(Debug)]
pub(super) struct Line {
    bytes: [u8; LINE_BYTES],
    count: usize,
    /// Where in a sequence of a key like an arrow it is; these are left out.
    escape: Escape,
    /// The last byte was a CR, which an LF may follow.
    after_return: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Escape {
    No,
    Begun,
    Inside,
}

/// What a byte did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Typed {
    Nothing,
    /// It stands at the end.
    Shown(char),
    /// So many letters are gone from the end.
    Erased(usize),
    /// There is no room, or nothing to erase.
    Refused,
    /// The line is empty again.
    Dropped,
    /// The line is whole.
    Whole,
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Line {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; LINE_BYTES],
            count: 0,
            escape: Escape::No,
            after_return: false,
        }
    }

    pub(super) fn text(&self) -> &str {
        // Nothing but ASCII was put there.
        core::str::from_utf8(&self.bytes[..self.count]).unwrap_or("")
    }

    pub(super) const fn clear(&mut self) {
        self.count = 0;
    }

    pub(super) const fn take(&mut self, byte: u8) -> Typed {
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match (self.escape, byte) {
            (_, 0x1b) => {
                self.escape = Escape::Begun;
                return Typed::Nothing;
            }
            (Escape::Begun, b'[' | b'O') => {
                self.escape = Escape::Inside;
                return Typed::Nothing;
            }
            // Parameters; what ends it is none.
            (Escape::Inside, b'0'..=b'?') => return Typed::Nothing,
            (Escape::Begun | Escape::Inside, b' '..=b'~') => {
                self.escape = Escape::No;
                return Typed::Nothing;
            }
            _ => self.escape = Escape::No,
        }
        match byte {
            b'\n' if after_return => Typed::Nothing,
            b'\r' | b'\n' => Typed::Whole,
            0x08 | 0x7f if self.count == 0 => Typed::Refused,
            0x08 | 0x7f => {
                self.count -= 1;
                Typed::Erased(1)
            }
            // Control-U and Control-C.
            0x15 => Typed::Erased(core::mem::replace(&mut self.count, 0)),
            0x03 => {
                self.count = 0;
                Typed::Dropped
            }
            b' '..=b'~' if self.count < LINE_BYTES => {
                self.bytes[self.count] = byte;
                self.count += 1;
                Typed::Shown(byte as char)
            }
            b' '..=b'~' => Typed::Refused,
            _ => Typed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn typed(line: &mut Line, bytes: &[u8]) -> Vec<Typed> {
        let all = bytes.iter().map(|byte| line.take(*byte));
        all.filter(|typed| *typed != Typed::Nothing).collect()
    }

    #[test]
    fn a_line_is_edited_at_its_end() {
        let mut line = Line::new();
        assert_eq!(typed(&mut line, b"\x7f"), [Typed::Refused]);
        typed(&mut line, b"guesss\x08\x7fts");
        assert_eq!(line.text(), "guests");
        assert_eq!(typed(&mut line, b"\x15"), [Typed::Erased(6)]);
        assert_eq!(line.text(), "");
        typed(&mut line, b"kill");
        assert_eq!(typed(&mut line, b"\x03"), [Typed::Dropped]);
        assert_eq!(line.text(), "");
    }

    #[test]
    fn an_end_of_line_is_one_whatever_the_terminal_sends() {
        for (end, lines) in [(&b"\r"[..], 1), (b"\n", 1), (b"\r\n", 1), (b"\r\r", 2)] {
            let found = typed(&mut Line::new(), end);
            assert_eq!(found.len(), lines, "{end:?}");
            assert!(found.iter().all(|typed| *typed == Typed::Whole));
        }
    }

    #[test]
    fn keys_that_are_no_letters_leave_nothing() {
        let mut line = Line::new();
        typed(&mut line, b"a\x1b[A\x1b[1;5C\x1bOP\x1b[3~b\x00\x80\xff\tc");
        assert_eq!(line.text(), "abc");
    }

    #[test]
    fn a_full_line_takes_no_more() {
        let mut line = Line::new();
        let found = typed(&mut line, &[b'x'; LINE_BYTES + 3]);
        let refused = found.iter().filter(|typed| **typed == Typed::Refused);
        assert_eq!(refused.count(), 3);
        assert_eq!(line.text().len(), LINE_BYTES);
        assert!(super::super::PROMPT.len() + LINE_BYTES < super::super::COLUMNS);
    }
}
