//! `cargo xtask bench`: what Portcullis costs, beside its peers.

mod counts;
mod image;
mod initramfs;
mod instructions;
mod linux;
mod names;
mod page;
mod plot;
mod report;
mod times;
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use self::names::Filter;
use self::report::Row;
use crate::image::target_folder;
use crate::steps::Outcome;
use crate::stop::{Stop, progress};
use crate::tool;

/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Measures what Portcullis costs: SYNCs, waits and commands on the model, tables and tags on this
machine, bytes, instructions of the image. Where a peer can do the same in the same process or
the same emulator it does so beside it; Linux's SYNCs are those of its driver's formulas.

Prints one table, and writes target/bench/report.json and target/bench/report.html. Earlier reports
are kept in target/bench/past. Takes a few minutes.";

/// How many earlier reports are kept.
const PAST_MOST: usize = 50;
/// What `aarch64-paging` is called.
const PEER_TABLES: &str = "aarch64-paging 0.12";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only the numbers that every report has, without Linux: under 30 seconds once all is built
    #[arg(long)]
    quick: bool,
    /// Only numbers with this text in their names
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// What is wanted.
#[derive(Clone, Debug)]
struct Wanted {
    filter: Filter,
    is_quick: bool,
}

impl Wanted {
    /// Whether a row of this name is to be made.
    fn takes(&self, name: &str) -> bool {
        self.filter.wants(name) && (!self.is_quick || names::FIXED.contains(&name))
    }
}

/// A workload of `tests/bench`, as its program lists it.
#[derive(Clone, Debug, PartialEq)]
struct Workload {
    name: String,
    per: String,
    units: f64,
}

impl Workload {
    fn of_line(line: &str) -> Option<Self> {
        let mut fields = line.split('\t');
        Some(Self {
            name: fields.next()?.to_owned(),
            per: fields.next()?.to_owned(),
            units: fields.next()?.parse().ok().filter(|units| *units > 0.0)?,
        })
    }

    /// What criterion calls it.
    fn group(&self) -> String {
        format!("stage2.{}", self.name)
    }

    /// The name of its row for `what`.
    fn row(&self, what: &str) -> String {
        format!("stage2.{}.{what}", self.name)
    }
}

fn workloads(programs: &Path) -> Result<Vec<Workload>, Stop> {
    let listed = tool::read(Command::new(programs.join("workload")).arg("list"))?;
    listed
        .lines()
        .map(|line| {
            Workload::of_line(line)
                .ok_or_else(|| Stop::Failed(format!("`workload list` printed `{line}`")))
        })
        .collect()
}

/// Measures, prints, writes.
///
/// # Errors
///
/// `Failed` if something that was measured failed, or a promised name is missing; `CouldNotRun` if a
/// filter matches nothing.
pub(crate) fn command(arguments: &Arguments) -> Result<(), Stop> {
    let wanted = Wanted {
        filter: Filter::new(arguments.filter.clone()),
        is_quick: arguments.quick,
    };
    let folder = target_folder().join("bench");
    let Measured {
        rows,
        skipped,
        failed,
    } = measure(&wanted, &folder)?;
    if rows.is_empty() {
        return Err(Stop::CouldNotRun("no number has such a name".into()));
    }
    print!("{}", report::table(&rows));
    println!("{}", report::balance(&rows));
    for why in &skipped {
        println!("left out: {why}");
    }
    let (json, html) = keep(&rows, &skipped, &folder)?;
    println!("report: {} and {}", json.display(), html.display());
    if !failed.is_empty() {
        return Err(Stop::Failed(failed.join("; ")));
    }
    missing(&wanted, &rows)
}

/// The step `test-bench`: every number that is promised can be had.
///
/// # Errors
///
/// As [`command`] with `--quick`; no report is written.
pub(crate) fn step() -> Result<Outcome, Stop> {
    let wanted = Wanted {
        filter: Filter::new(None),
        is_quick: true,
    };
    let rows = measure(&wanted, &target_folder().join("bench"))?.rows;
    println!("{}", report::balance(&rows));
    missing(&wanted, &rows)?;
    Ok(Outcome::Passed)
}

/// What came of it.
struct Measured {
    rows: Vec<Row>,
    /// What could not be had here.
    skipped: Vec<String>,
    /// What was tried and failed.
    failed: Vec<String>,
}

/// Every row that is wanted, and what had to be left out.
fn measure(wanted: &Wanted, folder: &Path) -> Result<Measured, Stop> {
    let start = Instant::now();
    fs::create_dir_all(folder)
        .map_err(|why| Stop::Failed(format!("{}: {why}", folder.display())))?;
    counts::build()?;
    let programs = target_folder().join("release");
    let workloads = workloads(&programs)?;
    let mut rows = counts::rows(wanted, &programs)?;
    rows.extend(times::tables(wanted, &workloads, folder)?);
    rows.extend(instructions::rows(wanted, &workloads, &programs)?);
    rows.extend(times::tags(wanted, folder)?);
    rows.extend(image::rows(wanted)?);
    let mut skipped = Vec::new();
    let mut failed = Vec::new();
    match image::calls(wanted) {
        Ok(more) => rows.extend(more),
        // What takes minutes is not thrown away for it.
        Err(stop) => failed.push(format!("hypercalls: {stop}")),
    }
    match linux::rows(wanted, folder)? {
        Ok(more) => rows.extend(more),
        Err(why) => skipped.push(why),
    }
    rows.retain(|row| wanted.filter.wants(&row.name));
    progress(&format!(
        "measured {} numbers in {:.1} s",
        rows.len(),
        start.elapsed().as_secs_f32()
    ));
    Ok(Measured {
        rows,
        skipped,
        failed,
    })
}

/// Writes both forms of the report, and keeps the one before.
fn keep(rows: &[Row], skipped: &[String], folder: &Path) -> Result<(PathBuf, PathBuf), Stop> {
    let (json, html) = (folder.join("report.json"), folder.join("report.html"));
    let past = folder.join("past");
    let broken = |why: std::io::Error| Stop::Failed(format!("{}: {why}", past.display()));
    fs::create_dir_all(&past).map_err(broken)?;
    let mut files: Vec<PathBuf> = fs::read_dir(&past)
        .map_err(broken)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    if json.is_file() {
        let next = files.last().and_then(|file| number_of(file)).unwrap_or(0) + 1;
        let kept = past.join(format!("{next:06}.json"));
        fs::rename(&json, &kept).map_err(broken)?;
        files.push(kept);
    }
    for old in files.iter().rev().skip(PAST_MOST) {
        // One too many does no harm.
        let _ = fs::remove_file(old);
    }
    let first = files.len().saturating_sub(PAST_MOST);
    let earlier: Vec<_> = files[first..]
        .iter()
        .map(|file| report::read(file))
        .collect();
    report::write(rows, &json)?;
    fs::write(&html, page::page(rows, &earlier, skipped))
        .map_err(|why| Stop::Failed(format!("{}: {why}", html.display())))?;
    Ok((json, html))
}

/// The number of a report that was kept.
fn number_of(file: &Path) -> Option<u32> {
    file.file_stem()?.to_str()?.parse().ok()
}

/// Refuses a report without a name that was promised.
fn missing(wanted: &Wanted, rows: &[Row]) -> Result<(), Stop> {
    let is_there = |name: &str| rows.iter().any(|row| row.name == name);
    let missing: Vec<_> = wanted
        .filter
        .promised()
        .filter(|name| !is_there(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Stop::Failed(format!(
        "not measured: {}",
        missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(filter: &str, is_quick: bool) -> Wanted {
        Wanted {
            filter: Filter::new(Some(filter.to_owned())),
            is_quick,
        }
    }

    #[test]
    fn a_report_without_a_promised_name_fails_and_names_it() {
        let rows = [Row::new("pasid.alloc.ns.live1", 1.0, "ns")];
        let why = missing(&wanted("pasid.alloc", true), &rows).expect_err("one is missing");
        assert_eq!(
            why,
            Stop::Failed("not measured: pasid.alloc.ns.live1000000".into())
        );
        assert!(missing(&wanted("pasid.alloc.ns.live1000", true), &[]).is_err());
        assert_eq!(missing(&wanted("nothing", true), &rows), Ok(()));
    }

    #[test]
    fn quick_makes_the_promised_names_alone() {
        assert!(wanted("stage2", true).takes("stage2.map_4k.ns"));
        assert!(!wanted("stage2", true).takes("stage2.map_4k.instructions"));
        assert!(wanted("stage2", false).takes("stage2.map_4k.instructions"));
    }

    #[test]
    fn earlier_reports_are_kept_in_order() {
        let folder = target_folder().join(format!("bench-test-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        for value in [1.0, 2.0, 3.0] {
            let rows = [Row::new("hypercall.bind", value, "instructions")];
            keep(&rows, &[], &folder).expect("it is written");
        }
        let read = |file: &str| report::read(&folder.join(file));
        assert_eq!(read("report.json")[0].value, 3.0);
        assert_eq!(read("past/000001.json")[0].value, 1.0);
        assert_eq!(read("past/000002.json")[0].value, 2.0);
        let html = fs::read_to_string(folder.join("report.html")).expect("it is there");
        assert!(html.contains("Hypercalls over past reports"));
        fs::remove_dir_all(&folder).expect("it goes");
    }

    #[test]
    fn a_workload_is_listed_with_its_units() {
        let found = Workload::of_line("map_4k\tpage\t262144").expect("a workload");
        assert_eq!(found.row("ns"), "stage2.map_4k.ns");
        assert_eq!(Workload::of_line("map_4k\tpage\t0"), None);
        assert_eq!(Workload::of_line("map_4k"), None);
    }
}
