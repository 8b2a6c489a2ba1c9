//! Instructions, by callgrind: exact, where times are noise.

use std::path::Path;
use std::process::Command;

use super::report::Row;
use super::{PEER_TABLES, Wanted, Workload};
use crate::apt::Apt;
use crate::stop::{Stop, progress};
use crate::tool;

/// Debian's package that has callgrind, and its program.
const PACKAGE: &str = "valgrind";
/// Counted inside this function of `workload` alone.
const TOGGLE: &str = "--toggle-collect=*measured_run*";

/// Makes sure that callgrind is here; says why not if it cannot be.
fn ensure() -> Result<(), String> {
    if tool::succeeds(Command::new(PACKAGE).arg("--version")) {
        return Ok(());
    }
    let missing = format!("{PACKAGE} is missing, and apt could not install it");
    let apt = Apt::find().ok_or_else(|| missing.clone())?;
    apt.install_any(PACKAGE)
        .map_err(|why| format!("{missing}: {why}"))
}

/// Instructions of each workload.
///
/// # Errors
///
/// As callgrind ends. Where it cannot be had the rows are left out, with a line that says so.
pub(super) fn rows(
    wanted: &Wanted,
    workloads: &[Workload],
    folder: &Path,
) -> Result<Vec<Row>, Stop> {
    let chosen: Vec<_> = workloads
        .iter()
        .filter(|workload| wanted.takes(&workload.row("instructions")))
        .collect();
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    if let Err(why) = ensure() {
        progress(&format!("no instruction counts: {why}"));
        return Ok(Vec::new());
    }
    progress("counting instructions (callgrind)");
    chosen
        .into_iter()
        .map(|workload| {
            let count = |whose| count(folder, &workload.name, whose);
            let per_unit = |count: f64| count / workload.units;
            let (ours, theirs) = (per_unit(count("ours")?), per_unit(count("peer")?));
            let unit = format!("instructions a {}", workload.per);
            let row = Row::new(workload.row("instructions"), ours, &unit);
            Ok(row.beside(PEER_TABLES, theirs))
        })
        .collect()
}

fn count(folder: &Path, workload: &str, whose: &str) -> Result<f64, Stop> {
    let mut valgrind = Command::new(PACKAGE);
    valgrind
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", TOGGLE, "--log-fd=1"])
        .arg(folder.join("workload"))
        .args([workload, whose]);
    let said = tool::read(&mut valgrind)?;
    collected(&said)
        .ok_or_else(|| Stop::Failed(format!("callgrind counted nothing of {workload}: {said}")))
}

/// What callgrind says that it counted: nothing is no count.
fn collected(said: &str) -> Option<f64> {
    let (_, count) = said.split_once("Collected : ")?;
    let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok().filter(|count| *count != 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_collected_is_in_the_words_of_callgrind() {
        let said = "==1== Events    : Ir\n==1== Collected : 3493957\n==1== \n";
        assert_eq!(collected(said), Some(3_493_957.0));
        assert_eq!(
            collected("==1== Collected : 0\n"),
            None,
            "the function was not met"
        );
        assert_eq!(collected(""), None);
    }
}
