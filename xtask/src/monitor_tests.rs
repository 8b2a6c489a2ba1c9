//! The step `test-monitor`: a person at the console, played through a pipe.

use std::process::Command;
use std::time::Duration;

use crate::console::End;
use crate::guest::{self, Echo, Typist};
use crate::steps::Outcome;
use crate::stop::Stop;

/// A boot takes a second, building it more; the rest is for a machine under load.
const LIMIT: Duration = Duration::from_secs(900);

/// What is typed, once what stands before it was shown.
static PERSON: Typist = Typist {
    answers: &[
        (
            "says what there is\r\nportcullis> ",
            b"gust\x7f\x7f\x7fuests\r",
        ),
        ("runs     ", b"smmus\r"),
        ("SMMU registers", b"streams\r"),
        ("0000:00:02.0", b"spaces idle\r"),
        ("bound handles", b"machine\r"),
        ("is nobody's", b"stats\rfaults\r"),
        ("to be read", b"explain 0:0x10 - 0x40000000\r"),
        ("by the tables in memory now:", b"release idle 5.5\r"),
        ("no such space", b"\x04kill idle\r"),
        ("guest idle: it ends", b""),
        ("guest idle: ended at the monitor", b"guests\r"),
        ("ended    ", b"kill idle\r"),
        ("it has ended", b"\x04"),
    ],
};

/// What the console must have shown, whole.
const SHOWN: &[&str] = &[
    "  # guest            state    CPUs on     memory devices spaces  outside",
    "  0 idle             runs        1  1     64 MiB       4      0        0",
    "  0 idle             ended       1  0     64 MiB       4      0        0",
    "cpu 0x1 is CPU 0 of idle",
    "cpu 0x0 is nobody's, this one",
];

/// Runs it.
///
/// # Errors
///
/// `Failed` with what was not shown; `CouldNotRun` without a QEMU that does.
pub(crate) fn step() -> Result<Outcome, Stop> {
    let this = std::env::current_exe().map_err(|why| Stop::CouldNotRun(why.to_string()))?;
    let mut boot = Command::new(this);
    boot.args(["boot", "--interactive", "--no-self-check", "--cpus", "2"])
        .args(["--guest", "idle", "--guest-cpus", "1-1", "--timeout", "600"]);
    let ran = guest::run(boot, Some(LIMIT), Echo::Typed(&PERSON), || ())?;
    let failed = |why: String| Stop::Failed(format!("{why}\n{}", ran.console));
    match ran.end().map_err(failed)? {
        End::Done => {}
        other => return Err(failed(format!("the image ended with {other}"))),
    }
    let lines: Vec<_> = ran.console.lines().map(str::trim_end).collect();
    for shown in SHOWN {
        if !lines.contains(shown) {
            return Err(failed(format!("not shown: `{shown}`")));
        }
    }
    let wide = lines
        .iter()
        .find(|line| line.starts_with("  0 ") && line.len() > 80);
    match wide {
        Some(line) => Err(failed(format!("wider than 80 columns: `{line}`"))),
        None => Ok(Outcome::Passed),
    }
}
