//! Times, by criterion: medians of medians of several runs, in each of which ours and the peer's are
//! neighbours.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::counts::PACKAGE;
use super::report::Row;
use super::{PEER_TABLES, Wanted, Workload};
use crate::stop::{Stop, progress};
use crate::tool;

/// How long criterion looks, in seconds, and how often all is done again.
#[derive(Clone, Copy)]
struct Effort {
    warm_up: &'static str,
    measurement: &'static str,
    runs: usize,
}

const QUICK: Effort = Effort {
    warm_up: "0.1",
    measurement: "0.3",
    runs: 1,
};
const FULL: Effort = Effort {
    warm_up: "0.2",
    measurement: "0.4",
    runs: 3,
};

impl Effort {
    const fn of(wanted: &Wanted) -> Self {
        if wanted.is_quick { QUICK } else { FULL }
    }
}

/// Criterion's own file of what it found: the part that is looked at.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Runs a benchmark with those of its groups that `pattern` matches; by group and function, the
/// nanoseconds of one iteration.
fn run(
    bench: &str,
    pattern: &str,
    effort: Effort,
    folder: &Path,
) -> Result<BTreeMap<(String, String), f64>, Stop> {
    let mut found: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for run in 1..=effort.runs {
        progress(&format!("timing {bench}, run {run} of {}", effort.runs));
        let home = folder.join(format!("criterion-{bench}-{run}"));
        // What an earlier report left would be taken for this one's.
        let _ = fs::remove_dir_all(&home);
        let mut cargo = tool::cargo();
        cargo
            .args(["bench", "--package", PACKAGE, "--bench", bench, "--"])
            .args(["--noplot", "--quiet", "--sample-size", "10"])
            .args(["--warm-up-time", effort.warm_up])
            .args(["--measurement-time", effort.measurement, pattern])
            .env("CRITERION_HOME", &home);
        tool::read(&mut cargo)?;
        for group in folders(&home)? {
            for function in folders(&group)? {
                let key = (name_of(&group), name_of(&function));
                if let Some(ns) = median(&function.join("new").join("estimates.json"))? {
                    found.entry(key).or_default().push(ns);
                }
            }
        }
    }
    let medians = found.into_iter().map(|(key, times)| (key, middle(times)));
    Ok(medians.collect())
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn folders(of: &Path) -> Result<Vec<PathBuf>, Stop> {
    let entries =
        fs::read_dir(of).map_err(|why| Stop::Failed(format!("{}: {why}", of.display())))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.is_dir()).collect())
}

/// The median that criterion wrote down; none where it keeps something else.
fn median(file: &Path) -> Result<Option<f64>, Stop> {
    let Ok(text) = fs::read_to_string(file) else {
        return Ok(None);
    };
    let estimates: Estimates = serde_json::from_str(&text)
        .map_err(|why| Stop::Failed(format!("{}: {why}", file.display())))?;
    Ok(Some(estimates.median.point_estimate))
}

/// The median; of an even number the lower of the two in the middle.
fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() - 1) / 2]
}

/// Names that criterion is to run: a regular expression of whole names.
fn pattern_of(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| name.replace('.', "\\.")).collect();
    format!("^({})/", names.join("|"))
}

/// Times of the tables.
///
/// # Errors
///
/// As Cargo ends, or if criterion wrote something else than it used to.
pub(super) fn tables(
    wanted: &Wanted,
    workloads: &[Workload],
    folder: &Path,
) -> Result<Vec<Row>, Stop> {
    let chosen: Vec<_> = workloads
        .iter()
        .filter(|workload| wanted.takes(&workload.row("ns")))
        .collect();
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = chosen.iter().map(|workload| workload.group()).collect();
    let times = run("tables", &pattern_of(&names), Effort::of(wanted), folder)?;
    let per_unit = |workload: &Workload, whose: &str| {
        let key = (workload.group(), whose.to_owned());
        let ns = times.get(&key).map(|ns| ns / workload.units);
        ns.ok_or_else(|| Stop::Failed(format!("criterion says nothing of {}/{whose}", key.0)))
    };
    chosen
        .into_iter()
        .map(|workload| {
            let (ours, theirs) = (per_unit(workload, "ours")?, per_unit(workload, "peer")?);
            let row = Row::new(workload.row("ns"), ours, &format!("ns a {}", workload.per));
            Ok(row.beside(PEER_TABLES, theirs))
        })
        .collect()
}

/// Names of the tags' rows.
const TAGS: &[&str] = &[
    "pasid.alloc.ns.live1",
    "pasid.alloc.ns.live1000",
    "pasid.alloc.ns.live1000000",
    "asid.alloc.ns.live1",
    "asid.alloc.ns.live1000",
    "asid.alloc.ns.live65000",
    "vmid.alloc.ns.live1",
    "vmid.alloc.ns.live1000",
    "vmid.alloc.ns.live65000",
];

/// Times of tags, out and back.
///
/// # Errors
///
/// As [`tables`].
pub(super) fn tags(wanted: &Wanted, folder: &Path) -> Result<Vec<Row>, Stop> {
    let names: Vec<String> = TAGS
        .iter()
        .filter(|name| wanted.takes(name))
        .map(|name| (*name).to_owned())
        .collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let times = run("tags", &pattern_of(&names), Effort::of(wanted), folder)?;
    names
        .into_iter()
        .map(|name| {
            let key = (name.clone(), "ours".to_owned());
            let ns = times.get(&key).copied();
            let ns = ns.ok_or_else(|| Stop::Failed(format!("criterion says nothing of {name}")))?;
            Ok(Row::new(name, ns, "ns, out and back"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_not_moved_by_one_slow_run() {
        assert_eq!(middle(vec![3.0, 900.0, 2.0]), 3.0);
        assert_eq!(middle(vec![7.0]), 7.0);
        assert_eq!(middle(vec![4.0, 1.0]), 1.0);
    }

    #[test]
    fn a_pattern_takes_whole_names() {
        let names = ["stage2.map_4k".to_owned(), "a.b".to_owned()];
        assert_eq!(pattern_of(&names), "^(stage2\\.map_4k|a\\.b)/");
    }
}
