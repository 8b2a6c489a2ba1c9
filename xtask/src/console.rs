//! What an image says on its console, and what it means.
//!
//! The image prints lines of its own from the first column; what guests print is prefixed. So a
//! guest can print `end: ok`, but not as the console's last line.

use std::fmt;

/// What an image ends with when its job is done.
const DONE: &str = "ok";

/// How a run ended, by the console's last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// `end: ok`.
    Done,
    /// `end: REASON` with any other reason.
    Refused(String),
    /// The last line is not an `end:` line; here it is.
    Missing(String),
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(out, "`end: {DONE}`"),
            Self::Refused(reason) => write!(out, "`end: {reason}`"),
            Self::Missing(last) => write!(out, "no `end:` line but `{last}`"),
        }
    }
}

/// The reason in `line` if it is an `end:` line.
fn reason(line: &str) -> Option<&str> {
    line.strip_prefix("end: ").map(str::trim_end)
}

fn last_line(text: &str) -> &str {
    text.lines()
        .rev()
        .map(str::trim_end)
        .find(|line| !line.is_empty())
        .unwrap_or("")
}

/// What the whole console `text` says about the end.
pub(crate) fn end(text: &str) -> End {
    let last = last_line(text);
    match reason(last) {
        Some(DONE) => End::Done,
        Some(other) => End::Refused(other.to_owned()),
        None => End::Missing(last.to_owned()),
    }
}

/// Whether `text` could be all: its last line is an `end:` line, and complete.
pub(crate) fn may_be_over(text: &str) -> bool {
    text.ends_with('\n') && reason(last_line(text)).is_some()
}

/// What the self-check's last line begins with.
const CLOSING: &str = "self-check: ";
/// What the image says of its guests.
const GUESTS: &str = "check guest-isolation: ";

/// Whether the image's guests have shown that they are kept apart; `None` if there was no telling.
pub(crate) fn guests_are_apart(text: &str) -> Option<bool> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(GUESTS));
    lines.next().map(|result| result.trim_end() == "ok")
}

/// What a self-check printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SelfCheck {
    /// The names that it announced.
    pub(crate) announced: Vec<String>,
    /// The names that it then reported `ok`.
    pub(crate) passed: Vec<String>,
    /// The names that it then reported `FAILED`.
    pub(crate) failed: Vec<String>,
}

impl SelfCheck {
    /// Reads the lines `checks: NAME ...`, `check NAME: ok`, `check NAME: FAILED why` and
    /// `self-check: N passed, M failed`.
    ///
    /// # Errors
    ///
    /// A sentence, if a line is missing, a check was announced and not reported, reported and not
    /// announced or reported twice, or if the closing line is missing or counts otherwise than its lines
    /// do. Behind it only guests may be checked ([`GUESTS`]).
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        let announced = announced(&lines)?;
        let mut this = Self {
            announced,
            passed: Vec::new(),
            failed: Vec::new(),
        };
        let closing = lines.iter().position(|line| line.starts_with(CLOSING));
        let (own, later) = lines.split_at(closing.unwrap_or(lines.len()));
        for line in own {
            if let Some(report) = line.strip_prefix("check ") {
                this.take(report)?;
            }
        }
        let is_other = |line: &&&str| line.starts_with("check ") && !line.starts_with(GUESTS);
        if let Some(line) = later.iter().find(is_other) {
            return Err(format!("`{line}` comes after the self-check"));
        }
        let reported = this.passed.len() + this.failed.len();
        if reported != this.announced.len() {
            return Err(format!(
                "{} checks announced, {reported} reported",
                this.announced.len()
            ));
        }
        this.closes_with(later.first().copied().unwrap_or(""))?;
        Ok(this)
    }

    fn take(&mut self, report: &str) -> Result<(), String> {
        let Some((name, result)) = report.split_once(": ") else {
            return Err(format!("`check {report}` has no result"));
        };
        if !self.announced.iter().any(|known| known == name) {
            return Err(format!("check {name} was not announced"));
        }
        if self
            .passed
            .iter()
            .chain(&self.failed)
            .any(|old| old == name)
        {
            return Err(format!("check {name} was reported twice"));
        }
        if result == "ok" {
            self.passed.push(name.to_owned());
        } else if result.starts_with("FAILED ") {
            self.failed.push(name.to_owned());
        } else {
            return Err(format!("check {name}: neither `ok` nor `FAILED why`"));
        }
        Ok(())
    }

    fn closes_with(&self, found: &str) -> Result<(), String> {
        let expected = format!(
            "self-check: {} passed, {} failed",
            self.passed.len(),
            self.failed.len()
        );
        if found == expected {
            return Ok(());
        }
        Err(format!(
            "the line behind the checks is `{found}`, not `{expected}`"
        ))
    }
}

fn announced(lines: &[&str]) -> Result<Vec<String>, String> {
    let mut lists = lines
        .iter()
        .filter_map(|line| line.strip_prefix("checks: "));
    let Some(list) = lists.next() else {
        return Err("no line `checks: NAME ...`".into());
    };
    if lists.next().is_some() {
        return Err("more than one line `checks: NAME ...`".into());
    }
    Ok(list.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Portcullis 0.1.0\r\nchecks: a-1 b-2\r\ncheck a-1: ok\r\n\
                        check b-2: ok\r\nself-check: 2 passed, 0 failed\r\nend: ok\r\n";

    #[test]
    fn only_the_last_line_can_end_a_run() {
        assert_eq!(end(GOOD), End::Done);
        assert_eq!(
            end("end: ok\nend: no SMMUv3\n"),
            End::Refused("no SMMUv3".into())
        );
        assert_eq!(
            end("end: ok\nguest0| bye\n"),
            End::Missing("guest0| bye".into())
        );
        assert_eq!(
            end("guest0| end: ok"),
            End::Missing("guest0| end: ok".into())
        );
        assert_eq!(end(" end: ok\n"), End::Missing(" end: ok".into()));
        assert_eq!(end(""), End::Missing(String::new()));
    }

    #[test]
    fn nothing_but_ok_is_done() {
        for reason in ["okay", "ok?", "OK", "not ok"] {
            assert_eq!(
                end(&format!("end: {reason}\n")),
                End::Refused(reason.into())
            );
        }
    }

    #[test]
    fn a_run_may_be_over_only_after_a_whole_end_line() {
        assert!(may_be_over(GOOD));
        assert!(may_be_over("end: entered at EL1\n\r\n"));
        assert!(!may_be_over("end: o"));
        assert!(!may_be_over("end: ok\nmore\n"));
        assert!(!may_be_over(""));
    }

    #[test]
    fn a_good_self_check_is_read() {
        let check = SelfCheck::read(GOOD).expect("a whole self-check");
        assert_eq!(check.announced, ["a-1", "b-2"]);
        assert_eq!(check.passed, ["a-1", "b-2"]);
        assert!(check.failed.is_empty());
    }

    #[test]
    fn a_failed_check_is_told_from_a_passed_one() {
        let text = GOOD
            .replace("b-2: ok", "b-2: FAILED 0x1111 landed at 0x49000000: late")
            .replace("2 passed, 0 failed", "1 passed, 1 failed");
        let check = SelfCheck::read(&text).expect("a whole self-check");
        assert_eq!(check.passed, ["a-1"]);
        assert_eq!(check.failed, ["b-2"]);
    }

    #[test]
    fn guests_are_judged_behind_the_self_check_by_the_images_own_line() {
        let text = GOOD.replace("end: ok", "check guest-isolation: ok\r\nend: ok");
        assert!(SelfCheck::read(&text).is_ok());
        assert_eq!(guests_are_apart(&text), Some(true));
        assert_eq!(guests_are_apart(GOOD), None);
        assert_eq!(
            guests_are_apart("[first] check guest-isolation: ok\n"),
            None
        );
        assert_eq!(
            guests_are_apart("check guest-isolation: FAILED ok\n"),
            Some(false)
        );
    }

    #[test]
    fn a_self_check_that_contradicts_itself_is_refused() {
        let wrong = [
            ("checks: a-1 b-2\r\n", "", "no line"),
            (
                "checks: a-1 b-2",
                "checks: a-1 b-2\nchecks: a-1",
                "more than",
            ),
            ("check b-2: ok\r\n", "", "2 checks announced, 1 reported"),
            ("check b-2: ok", "check c-3: ok", "not announced"),
            ("check b-2: ok", "check a-1: ok", "twice"),
            ("check b-2: ok", "check b-2: FAILED", "neither"),
            ("check b-2: ok", "check b-2", "no result"),
            ("2 passed, 0", "1 passed, 0", "not `self-check: 2"),
            ("self-check: 2", "other: 2", "the line behind"),
            ("end: ok", "check a-1: ok\nend: ok", "after the self-check"),
        ];
        for (from, to, why) in wrong {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let said = SelfCheck::read(&text).expect_err(to);
            assert!(said.contains(why), "{to:?}: {said}");
        }
    }
}
