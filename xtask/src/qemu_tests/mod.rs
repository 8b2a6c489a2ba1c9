//! The step `test-qemu`: what the image must do in QEMU, case by case.

mod cases;
mod commands;
mod jump;
mod witness;

use std::process::Command;
use std::time::{Duration, Instant};

use crate::board::{self, Board, Qemu};
use crate::boot;
use crate::console::{self, End, SelfCheck};
use crate::guest::{self, Echo, Ran};
use crate::image::{self, Image, Kind};
use crate::qemu;
use crate::steps::Outcome;
use crate::stop::Stop;
use crate::tool;

use cases::{BOOT, CASES, CHECKS, Case, Expected, Leaves, Start};
use witness::Witness;

const BOARD: &str = "qemu-virt";
/// A boot takes a second; the rest is for a machine under load.
const LIMIT: Duration = Duration::from_secs(120);
/// Of a failed case, so many of the console's last lines are shown.
const TAIL_LINES: usize = 40;

/// The board, its two images, and what has become of the cases so far.
struct Bench {
    board: Board,
    plain: Image,
    sabotage: Image,
    passed: usize,
    failed: Vec<String>,
}

/// Runs all cases.
///
/// # Errors
///
/// `Failed` with the names of the cases that failed; `CouldNotRun` without a QEMU that does.
pub(crate) fn step() -> Result<Outcome, Stop> {
    qemu::ensure()?;
    let board = board::load(BOARD)?;
    let plain = image::build(&board, Kind::Plain)?;
    let sabotage = image::build(&board, Kind::Sabotage)?;
    let mut bench = Bench {
        board,
        plain,
        sabotage,
        passed: 0,
        failed: Vec::new(),
    };
    for name in bench.self_check()? {
        bench.sabotaged(&name)?;
    }
    for case in CASES {
        bench.case(case)?;
    }
    println!(
        "{} boots as expected, {} not",
        bench.passed,
        bench.failed.len()
    );
    if bench.failed.is_empty() {
        return Ok(Outcome::Passed);
    }
    Err(Stop::Failed(bench.failed.join(", ")))
}

impl Bench {
    /// Boots as `cargo xtask boot` does; returns the names of the checks.
    fn self_check(&mut self) -> Result<Vec<String>, Stop> {
        let mut names = Vec::new();
        let mut qemu = self.command(&BOOT)?;
        let trace = self.plain.raw.with_extension("commands");
        commands::trace(&mut qemu, &trace);
        self.judge(
            BOOT.name,
            qemu,
            || Ok(()),
            |ran| {
                names = passing(ran)?.announced;
                let is_missing = |check: &&str| !names.iter().any(|name| name == check);
                match CHECKS.iter().copied().find(is_missing) {
                    Some(check) => Err(format!("the self-check has no check {check}")),
                    None => commands::has_no_prefetch(&trace),
                }
            },
        )?;
        Ok(names)
    }

    /// Boots with the fault that `check` must find, and no other.
    fn sabotaged(&mut self, check: &str) -> Result<(), Stop> {
        let machine = qemu::machine(self.board.qemu()?, BOOT.cpus);
        let boot_arguments = boot::sabotage(check);
        let qemu = qemu::with_kernel(machine, &self.sabotage.raw, &boot_arguments);
        self.judge(
            &boot_arguments,
            qemu,
            || Ok(()),
            |ran| {
                if ran.end()? == End::Done {
                    return Err("it ended with `end: ok` although a check was sabotaged".into());
                }
                let report = SelfCheck::read(&ran.console)?;
                if report.failed == [check] {
                    return Ok(());
                }
                Err(format!("failed checks: [{}]", report.failed.join(", ")))
            },
        )
    }

    fn case(&mut self, case: &Case) -> Result<(), Stop> {
        let mut qemu = self.command(case)?;
        let expected = |ran: &Ran| as_expected(ran, &case.expected);
        match case.leaves {
            Leaves::NotAsked => self.judge(case.name, qemu, || Ok(()), expected),
            Leaves::Abort => {
                let witness = Witness::of(&mut qemu);
                self.judge(case.name, qemu, || witness.sees_abort(), expected)
            }
        }
    }

    fn command(&self, case: &Case) -> Result<Command, Stop> {
        let board = self.board.qemu()?;
        let or = |own: Option<&str>, board: &String| own.map_or(board.clone(), str::to_owned);
        let model = Qemu {
            machine: or(case.machine, &board.machine),
            cpu: or(case.cpu, &board.cpu),
            memory: or(case.memory, &board.memory),
            ..board.clone()
        };
        let image = match case.kind {
            Kind::Plain => &self.plain.raw,
            Kind::Sabotage => &self.sabotage.raw,
        };
        let machine = qemu::machine(&model, case.cpus);
        match &case.start {
            Start::Kernel => Ok(qemu::with_kernel(machine, image, case.boot_arguments)),
            Start::Jump(tree) => {
                let folder = image.with_extension("tests").join(case.name);
                jump::prepare(machine, (&model, case.cpus), image, tree, &folder)
            }
        }
    }

    /// Runs `qemu`, and books under `name` what `witness` says while QEMU is still there and
    /// `verdict` after it.
    fn judge(
        &mut self,
        name: &str,
        qemu: Command,
        witness: impl FnOnce() -> Result<(), String>,
        verdict: impl FnOnce(&Ran) -> Result<(), String>,
    ) -> Result<(), Stop> {
        let typed = tool::as_typed(&qemu);
        let start = Instant::now();
        let mut seen = Ok(());
        let ran = guest::run(qemu, Some(LIMIT), Echo::Quiet, || seen = witness())?;
        let took = start.elapsed().as_secs_f32();
        match verdict(&ran).and(seen) {
            Ok(()) => {
                self.passed += 1;
                println!("boot {name}: ok ({took:.1} s)");
            }
            Err(why) => {
                self.failed.push(name.to_owned());
                println!("boot {name}: FAILED {why} ({took:.1} s)\n  {typed}");
                show_tail(&ran.console);
            }
        }
        Ok(())
    }
}

fn show_tail(console: &str) {
    let lines: Vec<&str> = console.lines().collect();
    let skipped = lines.len().saturating_sub(TAIL_LINES);
    for line in lines.iter().skip(skipped) {
        println!("  | {line}");
    }
}

/// The self-check of a run that must have passed.
fn passing(ran: &Ran) -> Result<SelfCheck, String> {
    let end = ran.end()?;
    if end != End::Done {
        return Err(format!("it ended with {end}"));
    }
    let report = SelfCheck::read(&ran.console)?;
    if console::guests_are_apart(&ran.console) != Some(true) {
        return Err("its guests did not show that they are kept apart".into());
    }
    if report.failed.is_empty() && !report.passed.is_empty() {
        return Ok(report);
    }
    Err(format!(
        "it ended with {end}, {} checks passed and {} failed",
        report.passed.len(),
        report.failed.len()
    ))
}

fn as_expected(ran: &Ran, expected: &Expected) -> Result<(), String> {
    let reason = match expected {
        Expected::Passes => return passing(ran).map(drop),
        Expected::Refuses(reason) => reason,
    };
    if ran.console.lines().any(|line| line.starts_with("check ")) {
        return Err("it ran a check".into());
    }
    match ran.end()? {
        End::Refused(found) if found.contains(reason) => Ok(()),
        other => Err(format!("it ended with {other}, the reason is `{reason}`")),
    }
}
