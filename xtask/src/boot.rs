//! `cargo xtask boot`.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use crate::board::{self, Board};
use crate::console::End;
use crate::gdb;
use crate::guest::{self, Echo};
use crate::guest_scenarios::{self, Theatre};
use crate::guests::{self, Placed};
use crate::image::{self, Image, Kind};
use crate::model::{self, Files, Model};
use crate::qemu;
use crate::stop::{Stop, progress};
use crate::tool;

/// How long a boot may take when nobody says otherwise.
const LIMIT: Duration = Duration::from_secs(120);

/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Builds the image, boots it in QEMU and shows its console. The image checks itself and ends with a
line `end: REASON`; `end: ok` is exit status 0, any other reason, no such line or a time-out is 1.

With `--smmu model` the machine has SMMUs with PASIDs, and devices that use them: the model of
`tests/model`, which also ends the run with exit status 1, and the story, if the image breaks a rule.
Guests then play the scenarios on it, in as many boots as that takes; a line `scenario NAME: ok` is
there for each that the model's record agrees to.

Ctrl-C ends the run.";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The board to boot on; `cargo xtask boards` lists them
    #[arg(long, value_name = "NAME", default_value = "qemu-virt")]
    board: String,
    /// How many CPUs the machine has
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// Print the QEMU command line; build and run nothing
    #[arg(long)]
    print: bool,
    /// Let QEMU wait for a debugger, and say how to connect one; no time-out unless asked for
    #[arg(long)]
    gdb: bool,
    /// Put in, below the driver, the fault that this check of the self-check must find
    #[arg(long, value_name = "CHECK", value_parser = check_name)]
    sabotage: Option<String>,
    #[command(flatten)]
    model: model::Arguments,
    #[command(flatten)]
    guests: guests::Arguments,
    /// Stay at the monitor, with the keyboard: `help` there says what it can do, Ctrl-D ends it once
    /// no guest runs; no time-out unless asked for
    #[arg(long)]
    interactive: bool,
    /// Leave the self-check out, for measuring
    #[arg(long)]
    no_self_check: bool,
    /// Boot arguments for the image
    #[arg(long, value_name = "STRING")]
    append: Option<String>,
    /// End the run after so many seconds [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// Everything after `--` goes to QEMU
    #[arg(last = true, value_name = "QEMU ARGS")]
    qemu: Vec<OsString>,
}

/// A check's name: nothing that could smuggle a second boot argument in.
fn check_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_name {
        return Ok(text.to_owned());
    }
    Err("a check's name has lower-case letters, digits and hyphens only".into())
}

impl Arguments {
    fn kind(&self) -> Kind {
        self.sabotage
            .as_ref()
            .map_or(Kind::Plain, |_| Kind::Sabotage)
    }

    fn boot_arguments(&self) -> String {
        let sabotage = self.sabotage.as_ref().map(|check| sabotage(check));
        let no_self_check = self.no_self_check.then(|| "no-self-check".to_owned());
        let monitor = self.interactive.then(|| "monitor=change".to_owned());
        sabotage
            .into_iter()
            .chain(no_self_check)
            .chain(monitor)
            .chain(self.append.clone())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Whether guests play the scenarios: nobody asks for anything else, and there is enough for them.
    fn plays(&self, model: Model) -> bool {
        let is_plain = !self.print && !self.gdb && self.sabotage.is_none() && self.qemu.is_empty();
        is_plain
            && self.guests.is_empty()
            && !model.has_native
            && model.smmus >= 2
            && model.devices_each == model::DEVICES
    }

    fn limit(&self) -> Option<Duration> {
        let asked = self.timeout.map(Duration::from_secs);
        asked.or((!self.gdb && !self.interactive).then_some(LIMIT))
    }

    fn command_line(
        &self,
        board: &Board,
        image: &Image,
        model: Option<Model>,
        placed: &[Placed],
    ) -> Result<Command, Stop> {
        let mut machine = match model {
            Some(model) => model.machine(board.qemu()?, self.cpus, image, &files(image))?,
            None => qemu::machine(board.qemu()?, self.cpus),
        };
        if model.is_none() && !placed.is_empty() {
            machine.arg("-dtb").arg(guests::native_tree(image));
        }
        machine.args(guests::loaders(placed));
        let mut qemu = qemu::with_kernel(machine, &image.raw, &self.boot_arguments());
        if self.gdb {
            qemu.args(["-s", "-S"]);
        }
        qemu.args(&self.qemu);
        Ok(qemu)
    }
}

/// What a run on the model leaves beside the image.
fn files(image: &Image) -> Files {
    Files::of(image, "boot")
}

/// The boot argument that puts the fault for `check` in.
pub(crate) fn sabotage(check: &str) -> String {
    format!("sabotage={check}")
}

fn say_how_to_connect(board: &Board, image: &Image) -> Result<(), Stop> {
    let found = gdb::find();
    if found.is_none() {
        progress(&format!("no gdb for aarch64 here: {}", gdb::REMEDY));
    }
    let mut connect = Command::new(found.unwrap_or(gdb::PREFERRED));
    connect
        .args(["-ex", "set architecture aarch64"])
        .args(["-ex", "target remote :1234", "-ex"])
        .arg(format!(
            "symbol-file {} -o {:#x}",
            image.symbols.display(),
            board.qemu()?.image_address
        ));
    progress("QEMU waits for a debugger; in another terminal:");
    progress(&format!("  {}", tool::as_typed(&connect)));
    Ok(())
}

/// Has guests play the scenarios, and says what became of each.
fn play(arguments: &Arguments, model: Model) -> Result<(), Stop> {
    let theatre = Theatre::open(&arguments.board)?;
    let more = arguments.boot_arguments();
    let outcomes = theatre.play(&guest_scenarios::Run {
        model: Model {
            has_deaths: true,
            ..model
        },
        cpus: arguments.cpus,
        echo: Echo::Live,
        limit: arguments
            .timeout
            .map_or(guest_scenarios::LIMIT, Duration::from_secs),
        more: &format!(" {more}"),
    })?;
    guest_scenarios::print(&outcomes);
    match guest_scenarios::failures(&outcomes) {
        0 => Ok(()),
        failed => Err(Stop::Failed(format!("{failed} scenarios failed"))),
    }
}

/// Builds and boots.
///
/// # Errors
///
/// `CouldNotRun` for an unknown board, a missing target or QEMU; `Failed` if the image does not
/// build or does not end with `end: ok`, or if the model objects.
pub(crate) fn command(arguments: &Arguments) -> Result<(), Stop> {
    let board = board::load(&arguments.board)?;
    let kind = arguments.kind();
    let model = arguments.model.model()?;
    if let Some(model) = model
        && arguments.plays(model)
    {
        return play(arguments, model);
    }
    let devices = match model {
        Some(model) => model.devices(board.qemu()?)?,
        None => guests::native_devices(),
    };
    let wanted = arguments.guests.guests(&board, arguments.cpus, &devices)?;
    let reserved_bytes = model.map_or(model::RESERVED_BYTES, |it| it.reserved_bytes());
    let placed = guests::place(&wanted, board.qemu()?, reserved_bytes)?;
    if arguments.print {
        let image = image::path(&board, kind);
        let qemu = arguments.command_line(&board, &image, model, &placed)?;
        println!("{}", tool::as_typed(&qemu));
        return Ok(());
    }
    qemu::ensure()?;
    let image = image::build(&board, kind)?;
    if let Some(model) = model {
        model::build()?;
        model.prepare(board.qemu()?, arguments.cpus, &files(&image))?;
        guests::describe(files(&image).tree(), &placed).map_err(Stop::Failed)?;
    } else if !placed.is_empty() {
        let tree = guests::native_tree(&image);
        qemu::dump_tree(board.qemu()?, arguments.cpus, &tree)?;
        guests::describe(&tree, &placed).map_err(Stop::Failed)?;
    }
    let qemu = arguments.command_line(&board, &image, model, &placed)?;
    if arguments.gdb {
        say_how_to_connect(&board, &image)?;
    }
    progress(&format!(
        "booting {} with {} CPUs",
        board.name, arguments.cpus
    ));
    let ran = guest::run(qemu, arguments.limit(), Echo::Live, || ())?;
    if let Some(model) = model {
        model.verdict(&files(&image)).map_err(Stop::Failed)?;
    }
    match ran.end().map_err(Stop::Failed)? {
        End::Done => Ok(()),
        other => Err(Stop::Failed(format!("the image ended with {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Harness {
        #[command(flatten)]
        boot: Arguments,
    }

    fn parse(words: &[&str]) -> Arguments {
        let words = ["boot"].iter().chain(words);
        Harness::try_parse_from(words).expect("arguments").boot
    }

    #[test]
    fn what_follows_the_dashes_ends_the_command_line_of_qemu() {
        let arguments = parse(&["--cpus", "2", "--gdb", "--", "-d", "int"]);
        let board = board::load("qemu-virt").expect("the board");
        let image = image::path(&board, Kind::Plain);
        let qemu = arguments
            .command_line(&board, &image, None, &[])
            .expect("a QEMU board");
        let words: Vec<_> = qemu.get_args().collect();
        assert!(words.ends_with(&["-s".as_ref(), "-S".as_ref(), "-d".as_ref(), "int".as_ref()]));
        assert!(words.windows(2).any(|two| two == ["-smp", "2"]));
        assert!(!words.contains(&"-append".as_ref()));
    }

    #[test]
    fn sabotage_is_a_boot_argument_of_the_image_that_can_be_sabotaged() {
        let arguments = parse(&["--sabotage", "stage2-dma", "--append", "log=all"]);
        assert_eq!(arguments.kind(), Kind::Sabotage);
        assert_eq!(arguments.boot_arguments(), "sabotage=stage2-dma log=all");
        assert_eq!(parse(&[]).kind(), Kind::Plain);
        assert_eq!(parse(&[]).boot_arguments(), "");
    }

    #[test]
    fn a_checks_name_holds_no_second_boot_argument() {
        assert!(check_name("stage2-dma").is_ok());
        for text in ["", "a b", "a=b", "A", "a\n"] {
            assert!(check_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_a_debugger_and_a_person_may_take_for_ever() {
        assert_eq!(parse(&[]).limit(), Some(Duration::from_secs(120)));
        assert_eq!(parse(&["--gdb"]).limit(), None);
        assert_eq!(parse(&["--interactive"]).limit(), None);
        assert_eq!(parse(&["--interactive"]).boot_arguments(), "monitor=change");
        let both = parse(&["--gdb", "--timeout", "5"]);
        assert_eq!(both.limit(), Some(Duration::from_secs(5)));
    }
}
