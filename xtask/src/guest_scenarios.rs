//! The scenarios in QEMU: the image, with `guest-kernel` as its guests, on the model.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::board::{self, Board};
use crate::console::End;
use crate::guest::{self, Echo};
use crate::guests;
use crate::image::{self, Image, Kind};
use crate::model::scenarios::{Outcome, Outcomes, judge, together};
use crate::model::{self, Cast, Clock, Files, Mode, Model};
use crate::qemu;
use crate::steps;
use crate::stop::{Stop, progress};
use crate::tool;

/// The guest that plays.
const KERNEL: &str = "kernel";
/// What is asked of EL2: a SYNC that never comes is given up sooner than on a real machine, whose
/// time is not counted in instructions.
const BOOT_ARGUMENTS: &str = "sync-timeout-us=20000";
/// A boot may take so long.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);
/// Of a console that is shown where something went wrong.
const TAIL_LINES: usize = 60;
/// What the chaotic runs draw by.
const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// How the scenarios are played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) model: Model,
    pub(crate) cpus: u32,
    pub(crate) echo: Echo,
    /// Of each boot.
    pub(crate) limit: Duration,
    /// More boot arguments, each behind a blank.
    pub(crate) more: &'a str,
}

/// The image and the kernel, built.
pub(crate) struct Theatre {
    board: Board,
    image: Image,
    kernel: std::path::PathBuf,
}

impl Theatre {
    /// Builds everything.
    ///
    /// # Errors
    ///
    /// As the builds.
    pub(crate) fn open(board: &str) -> Result<Self, Stop> {
        let board = board::load(board)?;
        board.qemu()?;
        qemu::ensure()?;
        model::build()?;
        Ok(Self {
            image: image::build(&board, Kind::Plain)?,
            kernel: guests::build(&board, KERNEL)?,
            board,
        })
    }

    /// Plays all that a machine of so many CPUs can, in as many boots as that takes.
    ///
    /// # Errors
    ///
    /// `CouldNotRun` if QEMU does not start.
    pub(crate) fn play(&self, run: &Run<'_>) -> Result<Outcomes, Stop> {
        let casts = Cast::all(run.cpus).into_iter();
        let runs: Result<Vec<Outcomes>, Stop> =
            casts.map(|cast| self.play_once(run, cast)).collect();
        Ok(together(runs?))
    }

    fn play_once(&self, run: &Run<'_>, cast: Cast) -> Result<Outcomes, Stop> {
        let Run {
            model,
            cpus,
            echo,
            limit,
            more,
        } = *run;
        let files = Files::of(&self.image, "scenarios");
        let board = self.board.qemu()?;
        let guests = guests::place(
            &model.guests(board, cast, &self.kernel)?,
            board,
            model.reserved_bytes(),
        )?;
        model.prepare(board, cpus, &files)?;
        guests::describe(files.tree(), &guests).map_err(Stop::Failed)?;
        let mut machine = model.machine(board, cpus, &self.image, &files)?;
        machine.args(guests::loaders(&guests));
        let mut qemu =
            qemu::with_kernel(machine, &self.image.raw, &format!("{BOOT_ARGUMENTS}{more}"));
        let stderr = files.verdict().with_extension("stderr");
        let broken = |why| Stop::CouldNotRun(format!("{}: {why}", stderr.display()));
        if echo == Echo::Quiet {
            qemu.stderr(File::create(&stderr).map_err(broken)?);
        }
        let typed = tool::as_typed(&qemu);
        let ran = guest::run(qemu, Some(limit), echo, || ())?;
        let ended = match ran.end() {
            Ok(End::Done) => Ok(()),
            Ok(other) => Err(format!("the image ended with {other}")),
            Err(why) => Err(why),
        };
        let outcomes = model
            .verdict(&files)
            .and_then(|verdict| ended.map(|()| verdict))
            .map(|verdict| judge(cast, &ran.console, &verdict));
        let outcomes = outcomes.unwrap_or_else(|why| {
            println!("the run: FAILED {why}");
            let all = model::scenarios::NAMES.iter();
            all.map(|name| (*name, Outcome::Failed("with the run".into())))
                .collect()
        });
        let has_failed = outcomes.iter().any(|it| matches!(it.1, Outcome::Failed(_)));
        if has_failed && echo == Echo::Quiet {
            let lines: Vec<&str> = ran.console.lines().collect();
            println!("  | {typed}");
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                println!("  | {line}");
            }
        }
        Ok(outcomes)
    }
}

/// Prints a line for each.
pub(crate) fn print(outcomes: &Outcomes) {
    for (name, outcome) in outcomes {
        println!("scenario {name}: {outcome}");
    }
}

/// How many failed.
pub(crate) fn failures(outcomes: &Outcomes) -> usize {
    let failed = |it: &&(&str, Outcome)| matches!(it.1, Outcome::Failed(_));
    outcomes.iter().filter(failed).count()
}

/// `test-scenarios`.
///
/// # Errors
///
/// `Failed` if a scenario does; otherwise as the builds.
pub(crate) fn step() -> Result<steps::Outcome, Stop> {
    let theatre = Theatre::open("qemu-virt")?;
    let model = |mode, seed| Model {
        has_native: false,
        mode,
        seed,
        smmus: 2,
        devices_each: model::DEVICES,
        clock: Clock::Instructions,
        has_deaths: true,
    };
    let hoarding = [1, 2, 4].map(|cpus| (model(Mode::Hoarding, 1), cpus));
    let chaotic = SEEDS.map(|seed| (model(Mode::Chaotic, seed), 4));
    let mut failed = 0;
    for (model, cpus) in hoarding.into_iter().chain(chaotic) {
        let start = Instant::now();
        let outcomes = theatre.play(&Run {
            model,
            cpus,
            echo: Echo::Quiet,
            limit: LIMIT,
            more: " no-self-check",
        })?;
        print(&outcomes);
        failed += failures(&outcomes);
        let took = start.elapsed().as_secs_f32();
        progress(&format!(
            "{} of {} scenarios failed, {:?} seed {}, {cpus} CPUs ({took:.1} s)",
            failures(&outcomes),
            outcomes.len(),
            model.mode,
            model.seed
        ));
    }
    if failed == 0 {
        return Ok(steps::Outcome::Passed);
    }
    Err(Stop::Failed(format!("{failed} scenarios failed")))
}
