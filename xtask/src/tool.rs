//! Running other programs.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::stop::Stop;

/// The folder of the workspace's `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map(Path::to_owned).unwrap_or(xtask)
}

/// The pinned Cargo, at work in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The command as a person would type it: the program by its name, wherever it lies.
pub(crate) fn as_typed(command: &Command) -> String {
    let program = command.get_program();
    let name = Path::new(program).file_name().unwrap_or(program);
    std::iter::once(name)
        .chain(command.get_args())
        .map(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    // Only a NUL cannot be quoted, and no argument of a process holds one.
    shlex::try_quote(&word).map_or_else(|_| word.to_string(), |quoted| quoted.into_owned())
}

fn not_started(command: &Command, error: &std::io::Error) -> Stop {
    let program = command.get_program().to_string_lossy();
    Stop::CouldNotRun(format!("`{program}` does not start: {error}"))
}

/// Runs `command` to its end; its output goes where ours goes.
///
/// # Errors
///
/// `CouldNotRun` if it does not start, `Failed` if its exit status is not 0.
pub(crate) fn run(command: &mut Command) -> Result<(), Stop> {
    let status = command
        .status()
        .map_err(|error| not_started(command, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Stop::Failed(format!("`{}`: {status}", as_typed(command))))
}

/// Runs `command` to its end and returns what it prints on stdout.
///
/// # Errors
///
/// `CouldNotRun` if it does not start, `Failed` with the end of what it says on stderr if its exit
/// status is not 0.
pub(crate) fn read(command: &mut Command) -> Result<String, Stop> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_started(command, &error))?;
    checked(command, output)
}

/// As [`read`], with `input` on the program's stdin.
///
/// # Errors
///
/// As [`read`].
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<String, Stop> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(command, &error))?;
    // A program that ends without reading is judged by its exit status.
    let _ = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(|error| not_started(command, &error))?;
    checked(command, output)
}

fn checked(command: &Command, output: Output) -> Result<String, Stop> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.trim().lines().collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n");
    Err(Stop::Failed(format!(
        "`{}`: {}: {last}",
        as_typed(command),
        output.status
    )))
}

/// Whether `command` starts and ends with exit status 0. Nothing of it is shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
