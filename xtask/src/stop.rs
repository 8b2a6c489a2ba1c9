//! Why a command ends early, and the exit status that says so.

use std::fmt;
use std::process::ExitCode;

/// What every command's `--help` ends with.
pub(crate) const EXIT_STATUS: &str = "\
Exit status:
  0  done
  1  failed
  2  could not run: wrong arguments, or something is missing here and could not be installed";

/// Why a command ended before its job was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The job was tried, and its answer is no. Exit status 1.
    Failed(String),
    /// The job was not tried: something that it needs is not here. Exit status 2.
    CouldNotRun(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) => write!(out, "failed: {why}"),
            Self::CouldNotRun(why) => write!(out, "could not run: {why}"),
        }
    }
}

impl From<&Stop> for ExitCode {
    fn from(stop: &Stop) -> Self {
        match stop {
            Stop::Failed(_) => Self::from(1),
            Stop::CouldNotRun(_) => Self::from(2),
        }
    }
}

/// One line to the person who waits, on stderr: stdout belongs to what was asked for.
pub(crate) fn progress(line: &str) {
    eprintln!("xtask: {line}");
}
