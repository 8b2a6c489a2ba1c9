//! `cargo xtask doctor`.

use std::process::Command;

use crate::apt::Apt;
use crate::gdb;
use crate::qemu::{self, Lack};
use crate::rust::Part;
use crate::stop::Stop;
use crate::tool;
use crate::version::Version;

/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Says what this machine has and what it lacks of what the commands need, a line each with the
remedy. Installs nothing: `boot`, `image` and `test` install what they need where they may.";

/// What `--help` says of the exit status.
pub(crate) const HELP: &str = "\
Exit status:
  0  all that the commands need is here
  1  something that they need is missing; its line says what to do";

/// What is so about one thing.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Here; in what version, if it matters.
    Here(String),
    /// Missing, and a command cannot do without it; the remedy.
    Missing(String),
    /// Missing, and only one thing goes without it; the remedy.
    Optional(String),
}

struct Finding {
    name: &'static str,
    state: State,
}

/// Says what this machine has and what it lacks, a line each.
///
/// # Errors
///
/// `Failed` if something is missing that a command cannot do without.
pub(crate) fn command() -> Result<(), Stop> {
    let findings = examine();
    for finding in &findings {
        let (mark, text) = match &finding.state {
            State::Here(text) => ("ok      ", text),
            State::Missing(text) => ("MISSING ", text),
            State::Optional(text) => ("optional", text),
        };
        println!("{mark} {:<31} {text}", finding.name);
    }
    let missing = count_missing(&findings);
    if missing == 0 {
        return Ok(());
    }
    Err(Stop::Failed(format!("{missing} needed things are missing")))
}

fn count_missing(findings: &[Finding]) -> usize {
    let is_missing = |finding: &&Finding| matches!(finding.state, State::Missing(_));
    findings.iter().filter(is_missing).count()
}

fn examine() -> Vec<Finding> {
    // Asked first: whether the commands can install what is missing is part of the remedy.
    let apt = Apt::find();
    let mut findings = vec![rust()];
    findings.extend(Part::ALL.map(part));
    findings.push(qemu(qemu::find(), apt.as_ref()));
    findings.push(Finding {
        name: "apt",
        state: match apt {
            Some(_) => State::Here("may install".into()),
            None => State::Optional(
                "no apt here, or neither root nor passwordless sudo: install by hand".into(),
            ),
        },
    });
    findings.push(optional(
        "cargo-deny",
        tool::cargo().args(["deny", "--version"]),
        "`cargo install --locked cargo-deny`, for the test step `deny`",
    ));
    findings.push(debugger());
    findings
}

fn first_line(command: &mut Command) -> Option<String> {
    let text = tool::read(command).ok()?;
    text.lines().next().map(str::to_owned)
}

fn rust() -> Finding {
    let version = first_line(tool::cargo().arg("--version"));
    Finding {
        name: "toolchain",
        state: version.map_or_else(
            || State::Missing("install rustup; rust-toolchain.toml names the version".into()),
            State::Here,
        ),
    }
}

fn part(part: Part) -> Finding {
    let remedy = format!("the commands run `rustup {}`", part.install().join(" "));
    Finding {
        name: part.name(),
        state: if part.is_here() {
            State::Here("installed".into())
        } else {
            State::Missing(remedy)
        },
    }
}

fn qemu(found: Result<Version, Lack>, apt: Option<&Apt>) -> Finding {
    let by_us = apt.map_or("", |_| "; `boot` and `test` install it by apt");
    Finding {
        name: qemu::PROGRAM,
        state: match found {
            Ok(version) => State::Here(version.to_string()),
            Err(lack) => State::Missing(format!("{lack}{by_us}")),
        },
    }
}

fn debugger() -> Finding {
    Finding {
        name: "gdb for aarch64",
        state: match gdb::find() {
            Some(program) => State::Here(program.into()),
            None => State::Optional(format!("{}, for `boot --gdb`", gdb::REMEDY)),
        },
    }
}

fn optional(name: &'static str, command: &mut Command, remedy: &str) -> Finding {
    let state = match first_line(command) {
        Some(version) => State::Here(version),
        None => State::Optional(remedy.to_owned()),
    };
    Finding { name, state }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_that_is_too_old_is_missing_and_its_line_has_the_remedy() {
        let finding = qemu(Err(Lack::TooOld(Version { major: 7, minor: 2 })), None);
        let State::Missing(text) = &finding.state else {
            panic!("{:?}", finding.state);
        };
        assert!(text.contains("7.2 is too old"), "{text}");
        assert!(text.contains("install 9.2 or newer"), "{text}");
        assert_eq!(count_missing(&[finding]), 1);
    }

    #[test]
    fn what_is_optional_does_not_count_as_missing() {
        let mut none = Command::new("portcullis-no-such-program");
        let finding = optional("x", &mut none, "get it");
        assert_eq!(finding.state, State::Optional("get it".into()));
        assert_eq!(count_missing(&[finding]), 0);
    }
}
