//! The step `numbers`: instructions and sizes, held to the tables of NUMBERS.md.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::board;
use crate::console::End;
use crate::guest::{self, Echo};
use crate::image::{self, Kind};
use crate::steps::Outcome;
use crate::stop::Stop;
use crate::tool;

/// Where the tables are.
const FILE: &str = "NUMBERS.md";
/// A boot takes seconds, building more; the rest is for a machine under load.
const LIMIT: Duration = Duration::from_secs(1500);
/// So much more than the table says is a failure, in per cent.
const MORE: u64 = 10;
/// What a guest's line of a number begins with, behind its name.
const MEASURE: &str = "measure ";

/// Numbers by what they are of.
pub(crate) type Numbers = BTreeMap<String, u64>;

/// A table of NUMBERS.md, and how its numbers are found.
struct Table {
    heading: &'static str,
    find: fn() -> Result<Numbers, Stop>,
}

const TABLES: &[Table] = &[
    Table {
        heading: "## Calls on QEMU's SMMU",
        find: || boot(&[]),
    },
    Table {
        heading: "## Calls on the model",
        find: || boot(&["--smmu", "model", "--mode", "polite"]),
    },
    Table {
        heading: "## Release on one SMMU",
        find: || releases("1", "65"),
    },
    Table {
        heading: "## Release over four SMMUs",
        find: || releases("4", "17"),
    },
    Table {
        heading: "## Start",
        find: start,
    },
];

/// What `release` takes on a model of so many SMMUs with so many devices each; all but one of those
/// take PASIDs.
fn releases(smmus: &str, devices: &str) -> Result<Numbers, Stop> {
    let mut words = vec!["--smmu", "model", "--mode", "polite"];
    words.extend(["--smmus", smmus, "--devices", devices]);
    let mut numbers = boot(&words)?;
    numbers.retain(|name, _| name.starts_with("release, "));
    Ok(numbers)
}

/// Finds all numbers, prints them, and holds them to the tables.
///
/// # Errors
///
/// `Failed` with each number that rose by more than a tenth, or stands in no table.
pub(crate) fn step() -> Result<Outcome, Stop> {
    let path = tool::root().join(FILE);
    let text = fs::read_to_string(&path)
        .map_err(|why| Stop::CouldNotRun(format!("{}: {why}", path.display())))?;
    let mut wrong = Vec::new();
    for table in TABLES {
        let found = (table.find)()?;
        println!("\n{}\n\n| what | count |\n|---|---:|", table.heading);
        for (name, number) in &found {
            println!("| {name} | {number} |");
        }
        wrong.extend(judge(&found, &kept(&text, table.heading)));
    }
    if wrong.is_empty() {
        return Ok(Outcome::Passed);
    }
    Err(Stop::Failed(format!("{FILE}: {}", wrong.join("; "))))
}

/// The numbers of the table below a heading.
fn kept(text: &str, heading: &str) -> Numbers {
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let rows = below.take_while(|line| !line.starts_with("## "));
    rows.filter_map(|row| {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (name, number) = (cells.next()?, cells.next()?);
        Some((name.to_owned(), number.parse().ok()?))
    })
    .collect()
}

/// What is wrong with what was found, by what is kept.
fn judge(found: &Numbers, kept: &Numbers) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, number) in found {
        match kept.get(name) {
            None => wrong.push(format!("`{name}` ({number}) is in no table")),
            Some(kept) if *number > kept + kept * MORE / 100 => {
                wrong.push(format!("`{name}` rose from {kept} to {number}"));
            }
            Some(_) => {}
        }
    }
    let lost = kept.keys().filter(|name| !found.contains_key(*name));
    wrong.extend(lost.map(|name| format!("`{name}` was not measured")));
    wrong
}

/// What the guest `measure` says, on one CPU.
///
/// # Errors
///
/// `Failed` if it does not say so, or the boot does not end in order.
pub(crate) fn boot(more: &[&str]) -> Result<Numbers, Stop> {
    let mut words = vec!["--cpus", "1", "--guest", "measure", "--guest-cpus", "0-0"];
    words.extend(more);
    if more.is_empty() {
        words.extend(ICOUNT);
    }
    let console = console(&words)?;
    let mut numbers = measured(&console)?;
    numbers.remove("first-instruction");
    numbers.remove("devices");
    Ok(numbers)
}

/// One guest of 64 MiB, with no device.
const ONE: [&str; 6] = ["--cpus", "1", "--guest", "measure", "--guest-devices", ""];
const ICOUNT: [&str; 3] = ["--", "-icount", "shift=0,sleep=off"];

/// Instructions from reset to the first of the last guest to begin, in a boot with `words`.
fn until_guests(words: &[&str]) -> Result<u64, Stop> {
    let console = console(&[words, &ICOUNT].concat())?;
    let began = lines(&console).filter_map(|line| line.strip_prefix("first-instruction "));
    let last = began.filter_map(|number| number.parse().ok()).max();
    last.ok_or_else(|| Stop::Failed(format!("no guest began\n{console}")))
}

/// Instructions from reset to the first of a guest.
///
/// # Errors
///
/// `Failed` if no guest begins, or the boot does not end in order.
pub(crate) fn until_the_first_guest() -> Result<u64, Stop> {
    until_guests(&ONE)
}

/// How long it takes to the first instructions of guests, and how large the image is.
fn start() -> Result<Numbers, Stop> {
    let two = [
        "--cpus",
        "2",
        "--guest",
        "measure",
        "--guest-cpus",
        "0-0",
        "--guest-devices",
        "",
        "--guest",
        "measure",
        "--guest-cpus",
        "1-1",
        "--guest-devices",
        "",
    ];
    let mut numbers = Numbers::new();
    for (name, words) in [
        ("instructions to the first of one guest", &ONE[..]),
        ("instructions until two guests run", &two[..]),
    ] {
        numbers.insert(name.to_owned(), until_guests(words)?);
    }
    let image = image::path(&board::load("qemu-virt")?, Kind::Plain).raw;
    let bytes = fs::metadata(&image)
        .map_err(|why| Stop::CouldNotRun(format!("{}: {why}", image.display())))?
        .len();
    numbers.insert("bytes of the image for qemu-virt".to_owned(), bytes);
    Ok(numbers)
}

/// What guests said after `measure`.
fn lines(console: &str) -> impl Iterator<Item = &str> {
    console.lines().filter_map(|line| {
        let (_, said) = line.strip_prefix('[')?.split_once("] ")?;
        said.trim_end().strip_prefix(MEASURE)
    })
}

fn measured(console: &str) -> Result<Numbers, Stop> {
    let mut numbers = Numbers::new();
    for line in lines(console) {
        let (name, number) = line.rsplit_once(' ').unwrap_or((line, ""));
        match number.parse() {
            Ok(number) => numbers.insert(name.to_owned(), number),
            Err(_) => return Err(Stop::Failed(format!("the guest says `{line}`"))),
        };
    }
    Ok(numbers)
}

/// The console of a boot that ends in order.
fn console(words: &[&str]) -> Result<String, Stop> {
    let this = std::env::current_exe().map_err(|why| Stop::CouldNotRun(why.to_string()))?;
    let mut boot = Command::new(this);
    boot.args(["boot", "--no-self-check", "--timeout", "1200"])
        .args(words);
    let ran = guest::run(boot, Some(LIMIT), Echo::Quiet, || ())?;
    match ran.end().map_err(Stop::Failed)? {
        End::Done => Ok(ran.console),
        other => Err(Stop::Failed(format!("{other}\n{}", ran.console))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(of: &[(&str, u64)]) -> Numbers {
        of.iter()
            .map(|(name, it)| ((*name).to_owned(), *it))
            .collect()
    }

    #[test]
    fn a_table_is_read_below_its_heading() {
        let text = "# N\n## A\n\nwords\n\n| what | count |\n|---|---:|\n| bind, again | 7 |\n\n## B\n| x | 8 |\n";
        assert_eq!(kept(text, "## A"), numbers(&[("bind, again", 7)]));
        assert_eq!(kept(text, "## B"), numbers(&[("x", 8)]));
        assert_eq!(kept(text, "## C"), numbers(&[]));
    }

    #[test]
    fn a_rise_of_a_tenth_is_borne_and_no_more() {
        let kept = numbers(&[("a", 100), ("b", 100)]);
        assert_eq!(judge(&numbers(&[("a", 110), ("b", 3)]), &kept), [""; 0]);
        let wrong = judge(&numbers(&[("a", 111), ("c", 1)]), &kept);
        assert_eq!(
            wrong,
            [
                "`a` rose from 100 to 111",
                "`c` (1) is in no table",
                "`b` was not measured"
            ]
        );
    }

    #[test]
    fn what_guests_say_is_read_and_nothing_else() {
        let console = "measure x 1\n[a] measure bind, again 12\r\n[a] other\n[b] measure y 3\n";
        let found = measured(console).expect("numbers");
        assert_eq!(found, numbers(&[("bind, again", 12), ("y", 3)]));
        assert!(measured("[a] measure FAILED BUSY\n").is_err());
    }
}
