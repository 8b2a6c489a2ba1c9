//! The step `test-plugin`: the model in QEMU, under our image and under one that is not ours.

mod opcodes;
mod standalone;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::board::{self, Board};
use crate::boot;
use crate::console::{End, SelfCheck};
use crate::guest::{self, Echo, Ran};
use crate::image::{self, Image, Kind};
use crate::model::{self, Clock, Files, Mode, Model, Verdict};
use crate::qemu;
use crate::steps::Outcome;
use crate::stop::Stop;
use crate::tool;

pub(crate) use standalone::PACKAGE as STANDALONE;
use standalone::Run;

const BOARD: &str = "qemu-virt";
const CPUS: u32 = 4;
/// A boot takes a second; the rest is for a machine under load.
const LIMIT: Duration = Duration::from_secs(120);
/// Of a failed case, so many of the console's last lines are shown.
const TAIL_LINES: usize = 40;
/// The chaotic mode runs with these seeds.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;

/// What the self-check must contain at least on the model.
const CHECKS: &[&str] = &[
    "unbound-stream-aborts",
    "stage2-dma",
    "stage2-fault-decoded",
    "stage2-unmap-blocks",
    "stage2-protect-read-only",
    "block-split-under-dma",
    "nested-dma",
    "nested-fault-stage1",
    "nested-fault-stage2",
    "window-is-sealed",
    "retract-blocks",
    "two-level-stream-table",
    "stream-handover-between-two-stage2s",
    "event-overflow-survived",
    "illegal-command-recovered",
    "pasid-dma",
    "pasid-two-spaces-one-address",
    "pasid-out-of-range",
    "pasid-release-blocks",
    "pasid-stall-and-resume",
    "pasid-ats",
    "two-smmus",
    "shutdown-leaves-abort",
];

/// As `cargo xtask boot --smmu model` has it.
const MODEL: Model = Model {
    has_deaths: false,
    has_native: false,
    mode: Mode::Hoarding,
    seed: 1,
    smmus: 2,
    devices_each: model::DEVICES,
    clock: Clock::Instructions,
};

/// What a run says, to be compared with another's.
#[derive(PartialEq, Eq)]
struct Told {
    console: String,
    verdict: String,
}

/// The images, and what has become of the cases so far.
struct Bench {
    board: Board,
    plain: Image,
    sabotage: Image,
    right: PathBuf,
    rogue: PathBuf,
    unreported: PathBuf,
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
    model::build()?;
    let mut bench = Bench {
        plain: image::build(&board, Kind::Plain)?,
        sabotage: image::build(&board, Kind::Sabotage)?,
        right: standalone::build(standalone::Kind::Right)?,
        rogue: standalone::build(standalone::Kind::Rogue)?,
        unreported: standalone::build(standalone::Kind::Unreported)?,
        board,
        passed: 0,
        failed: Vec::new(),
    };
    bench.unreported_instructions();
    bench.standalone()?;
    bench.without_model()?;
    bench.self_check()?;
    println!(
        "{} runs as expected, {} not",
        bench.passed,
        bench.failed.len()
    );
    if bench.failed.is_empty() {
        return Ok(Outcome::Passed);
    }
    Err(Stop::Failed(bench.failed.join(", ")))
}

impl Bench {
    fn unreported_instructions(&mut self) {
        let start = Instant::now();
        let symbols = &self.plain.symbols;
        let result = fs::read(symbols)
            .map_err(|why| format!("{}: {why}", symbols.display()))
            .and_then(|elf| opcodes::has_none(&elf));
        self.book("no-unreported-stores", start, result, "");
    }

    /// An image that is not ours: right in every way of time, and wrong in one.
    fn standalone(&mut self) -> Result<(), Stop> {
        let right = Run {
            image: self.right.clone(),
            clock: Clock::Instructions,
            arguments: "mode=chaotic,seed=4",
            verdict: self.right.with_extension("verdict.toml"),
        };
        let passes = |ran: &Ran, verdict: Result<Verdict, String>| {
            ends_well(ran)?;
            standalone::landed(&verdict?)
        };
        let first = self.alone("standalone", &right, passes)?;
        let again = self.alone("standalone-again", &right, passes)?;
        self.same("standalone-repeats", &first, &again);
        let at_once = Run {
            clock: Clock::Host,
            arguments: "mode=hoarding",
            ..right.clone()
        };
        self.alone("standalone-cpus-at-once", &at_once, passes)?;

        let wrong = |rule: &'static str| {
            move |_: &Ran, verdict: Result<Verdict, String>| match verdict {
                Err(why) if why.contains(rule) => Ok(()),
                other => Err(format!("no objection {rule}: {other:?}")),
            }
        };
        let rogue = Run {
            image: self.rogue.clone(),
            ..at_once.clone()
        };
        self.alone("rogue", &rogue, wrong("BreakBeforeMake"))?;
        let unreported = Run {
            image: self.unreported.clone(),
            arguments: "mode=polite",
            ..right.clone()
        };
        self.alone("unreported", &unreported, wrong("without a report"))?;
        let kept_out = Run {
            arguments: "keep-out=0x40200000+0x200000",
            ..right.clone()
        };
        self.alone("kept-out", &kept_out, wrong("KeptOutReached"))?;
        let idle = Run {
            arguments: "smmu=0x43c00000:full",
            ..right
        };
        self.alone("idle-smmu", &idle, wrong("saw no store"))?;
        Ok(())
    }

    fn alone(
        &mut self,
        name: &str,
        run: &Run<'_>,
        judge: impl FnOnce(&Ran, Result<Verdict, String>) -> Result<(), String>,
    ) -> Result<Told, Stop> {
        // Of an earlier run, if there is one.
        let _ = fs::remove_file(&run.verdict);
        let qemu = run.command();
        let unreported = match run.clock {
            Clock::Instructions => model::Unreported::Fail,
            Clock::Host => model::Unreported::Expected,
        };
        let read = || {
            let verdict = Verdict::read(&run.verdict)?;
            verdict.judge(unreported).map(|()| verdict)
        };
        self.run(name, qemu, &run.verdict, |ran| judge(ran, read()))
    }

    /// A run on which the plugin was not loaded fails, however it ends.
    fn without_model(&mut self) -> Result<(), Stop> {
        let files = Files::of(&self.plain, "test");
        let board = self.board.qemu()?;
        MODEL.prepare(board, CPUS, &files)?;
        let native = qemu::machine(board, CPUS);
        let qemu = qemu::with_kernel(native, &self.plain.raw, "");
        self.run("plugin-not-loaded", qemu, files.verdict(), |ran| {
            ends_well(ran)?;
            match MODEL.verdict(&files) {
                Err(why) if why.contains("no verdict") => Ok(()),
                other => Err(format!("{other:?} without the plugin")),
            }
        })?;
        Ok(())
    }

    /// Our image: in every mode, twice the same, beside QEMU's own SMMU, with CPUs at once, and
    /// with each fault.
    fn self_check(&mut self) -> Result<(), Stop> {
        let with = |mode, seed| Model {
            mode,
            seed,
            ..MODEL
        };
        self.model("model-polite", &with(Mode::Polite, 1))?;
        self.model("model-forgetful", &with(Mode::Forgetful, 1))?;
        let (first, names) = self.model("model-hoarding", &MODEL)?;
        let (again, _) = self.model("model-hoarding-again", &MODEL)?;
        self.same("model-repeats", &first, &again);
        for seed in SEEDS {
            self.model(&format!("model-chaotic-{seed}"), &with(Mode::Chaotic, seed))?;
        }
        let at_once = Model {
            clock: Clock::Host,
            ..MODEL
        };
        self.model("model-cpus-at-once", &at_once)?;
        // With CPUs at once, too: counted by instructions, each of edu's reads takes 10^8 of them.
        let beside = Model {
            has_native: true,
            ..at_once
        };
        self.model("model-and-native", &beside)?;
        for name in names {
            self.sabotaged(&name)?;
        }
        Ok(())
    }

    /// Boots on `model`; returns what the run said and the names of the checks.
    fn model(&mut self, name: &str, model: &Model) -> Result<(Told, Vec<String>), Stop> {
        let mut names = Vec::new();
        let image = self.plain.clone();
        let told = self.boot(name, model, &image, "", |ran, verdict| {
            verdict?;
            ends_well(ran)?;
            let report = SelfCheck::read(&ran.console)?;
            let is_missing = |check: &&str| !report.announced.iter().any(|it| it == check);
            if let Some(check) = CHECKS.iter().copied().find(is_missing) {
                return Err(format!("the self-check has no check {check}"));
            }
            names = report.announced;
            Ok(())
        })?;
        Ok((told, names))
    }

    /// Boots with the fault that `check` must find: it fails and no other does, or the model
    /// objects to it.
    fn sabotaged(&mut self, check: &str) -> Result<(), Stop> {
        let argument = boot::sabotage(check);
        let image = self.sabotage.clone();
        self.boot(&argument, &MODEL, &image, &argument, |ran, verdict| {
            let objects = match verdict {
                Ok(_) => false,
                Err(why) if why.starts_with(model::OBJECTION) => true,
                Err(why) => return Err(why),
            };
            let reported = ran
                .console
                .lines()
                .filter(|line| line.contains(": FAILED "));
            let expected = format!("check {check}: FAILED ");
            if let Some(other) = reported.clone().find(|line| !line.starts_with(&expected)) {
                return Err(format!("another check failed: {other}"));
            }
            if objects || reported.count() == 1 {
                return Ok(());
            }
            Err("it ended well although a check was sabotaged".into())
        })?;
        Ok(())
    }

    fn boot(
        &mut self,
        name: &str,
        model: &Model,
        image: &Image,
        boot_arguments: &str,
        judge: impl FnOnce(&Ran, Result<Verdict, String>) -> Result<(), String>,
    ) -> Result<Told, Stop> {
        let files = Files::of(image, "test");
        let board = self.board.qemu()?;
        model.prepare(board, CPUS, &files)?;
        let machine = model.machine(board, CPUS, image, &files)?;
        let qemu = qemu::with_kernel(machine, &image.raw, boot_arguments);
        let verdict = files.verdict().to_path_buf();
        self.run(name, qemu, &verdict, |ran| {
            judge(ran, model.verdict(&files))
        })
    }

    /// Runs `qemu`, and books under `name` what `judge` says of it.
    fn run(
        &mut self,
        name: &str,
        mut qemu: Command,
        verdict: &Path,
        judge: impl FnOnce(&Ran) -> Result<(), String>,
    ) -> Result<Told, Stop> {
        let typed = tool::as_typed(&qemu);
        let stderr = verdict.with_extension("stderr");
        let broken = |why| Stop::CouldNotRun(format!("{}: {why}", stderr.display()));
        qemu.stderr(File::create(&stderr).map_err(broken)?);
        let start = Instant::now();
        let ran = guest::run(qemu, Some(LIMIT), Echo::Quiet, || ())?;
        let result = judge(&ran);
        let said = fs::read_to_string(&stderr).map_err(broken)?;
        let about = format!("{typed}\n{}\n{said}", ran.console);
        self.book(name, start, result, &about);
        Ok(Told {
            console: ran.console,
            // Where there is none the case has failed.
            verdict: fs::read_to_string(verdict).unwrap_or_default(),
        })
    }

    fn same(&mut self, name: &str, first: &Told, again: &Told) {
        let start = Instant::now();
        let result = if first == again && !first.console.is_empty() && !first.verdict.is_empty() {
            Ok(())
        } else if first.console == again.console {
            Err("two runs differ in their verdicts".into())
        } else {
            Err("two runs differ in their consoles".into())
        };
        self.book(name, start, result, "");
    }

    fn book(&mut self, name: &str, start: Instant, result: Result<(), String>, about: &str) {
        let took = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("run {name}: ok ({took:.1} s)");
            }
            Err(why) => {
                self.failed.push(name.to_owned());
                println!("run {name}: FAILED {why} ({took:.1} s)");
                let lines: Vec<&str> = about.lines().collect();
                let skipped = lines.len().saturating_sub(TAIL_LINES);
                for (at, line) in lines.iter().enumerate() {
                    if at == 0 || at >= skipped {
                        println!("  | {line}");
                    }
                }
            }
        }
    }
}

/// Wants `end: ok`.
fn ends_well(ran: &Ran) -> Result<(), String> {
    match ran.end()? {
        End::Done => Ok(()),
        other => Err(format!("it ended with {other}")),
    }
}
