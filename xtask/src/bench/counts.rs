//! Counts: the programs of `tests/bench`.

use std::path::Path;
use std::process::Command;

use super::Wanted;
use super::report::Row;
use crate::stop::{Stop, progress};
use crate::tool;

/// The package of the programs.
pub(super) const PACKAGE: &str = "portcullis-bench";

/// What the parts of `counts` are called, and what the names of their rows begin with.
const PARTS: &[(&str, &[&str])] = &[
    (
        "syncs",
        &[
            "release.",
            "attach.",
            "bind.",
            "unbind.",
            "detach.",
            "guest_death.",
            "handover.",
            "unmap.",
        ],
    ),
    (
        "sizes",
        &["rest.", "guest.", "device.", "space.", "binding."],
    ),
    ("tables", &["stage2.table_bytes.", "stage2.taken_bytes."]),
    ("overlap", &["overlap."]),
    ("contention", &["contention."]),
];

/// Parts without a name that every report has.
const NOT_QUICK: &[&str] = &["overlap", "contention"];

/// Builds the programs of `tests/bench`, optimised.
///
/// # Errors
///
/// As Cargo ends.
pub(super) fn build() -> Result<(), Stop> {
    progress("building the programs of tests/bench");
    tool::run(tool::cargo().args(["build", "--release", "--package", PACKAGE, "--bins"]))
}

/// Runs `counts`.
///
/// # Errors
///
/// `Failed` if the program fails, or prints what is no row.
pub(super) fn rows(wanted: &Wanted, folder: &Path) -> Result<Vec<Row>, Stop> {
    let parts: Vec<&str> = PARTS
        .iter()
        .filter(|(part, heads)| {
            wanted.filter.may_want(heads) && !(wanted.is_quick && NOT_QUICK.contains(part))
        })
        .map(|(part, _)| *part)
        .collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    progress(&format!("counting on the model: {}", parts.join(", ")));
    let mut counts = Command::new(folder.join("counts"));
    if wanted.is_quick {
        counts.arg("--quick");
    }
    rows_of(&tool::read(counts.args(parts))?)
}

fn rows_of(printed: &str) -> Result<Vec<Row>, Stop> {
    printed
        .lines()
        .map(|line| {
            Row::of_line(line).ok_or_else(|| Stop::Failed(format!("`counts` printed `{line}`")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_row_is_no_result() {
        assert_eq!(rows_of("row\ta\t1\tb\n").map(|rows| rows.len()), Ok(1));
        assert!(rows_of("row\ta\t1\tb\nthread panicked\n").is_err());
    }
}
