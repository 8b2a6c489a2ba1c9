//! `cargo xtask scenario`: one story of `tests/scenarios`, played on the model.

use crate::stop::{Stop, progress};
use crate::tool;

/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Plays a story of tests/scenarios on the hostile model, in every configuration of the machine: with
a model that hoards, or, with --seed, with one that draws from the seed what it does. Ends with 0
only if the story held in all of them.";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The story
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// List the stories and play none
    #[arg(long)]
    list: bool,
    /// Play with a model that draws from this seed what it does
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Play in this configuration alone, by its number
    #[arg(long, value_name = "K")]
    configuration: Option<usize>,
    /// Tell it line by line, in one configuration: the one asked for, drawn, or the first
    #[arg(long)]
    trace: bool,
}

/// Builds the player and starts it.
///
/// # Errors
///
/// `Failed` if the story did not hold, or there is none of that name.
pub(crate) fn command(arguments: &Arguments) -> Result<(), Stop> {
    let mut cargo = tool::cargo();
    // Optimised, and still with the checks of arithmetic.
    cargo.args(["run", "--quiet", "--profile", "story"]);
    cargo.args(["--package", "portcullis-scenarios"]);
    cargo.args(["--bin", "scenario", "--"]);
    if arguments.list {
        cargo.arg("--list");
    }
    cargo.args(&arguments.name);
    let numbers = [
        ("--seed", arguments.seed),
        (
            "--configuration",
            arguments.configuration.map(|it| it as u64),
        ),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            cargo.args([name, &number.to_string()]);
        }
    }
    if arguments.trace {
        cargo.arg("--trace");
    }
    progress(&tool::as_typed(&cargo));
    tool::run(&mut cargo)
}
