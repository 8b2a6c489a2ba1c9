//! `cargo xtask incident`: a policy that went wrong, on the model, beside Portcullis on the same steps.

use crate::stop::Stop;
use crate::tool;

/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Plays a policy that went wrong, step by step, on the model of an SMMU, beside Portcullis on the same
steps. Succeeds only if the policy went wrong as it is told and Portcullis held. The page to read is
tests/incidents/INCIDENTS.md.";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Which one; --list names them
    #[arg(value_name = "NAME", required_unless_present_any = ["list", "all"])]
    name: Option<String>,
    /// Name them all, and play none
    #[arg(long, conflicts_with_all = ["name", "all"])]
    list: bool,
    /// Play them all
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

/// Builds the player and runs it.
///
/// # Errors
///
/// `Failed` if there is none of that name, or it was not as told.
pub(crate) fn command(arguments: &Arguments) -> Result<(), Stop> {
    let what = match &arguments.name {
        Some(name) => name.as_str(),
        None if arguments.list => "--list",
        None => "--all",
    };
    let package = ["run", "--quiet", "--package", "portcullis-incidents"];
    tool::run(
        tool::cargo()
            .args(package)
            .args(["--bin", "incident", "--", what]),
    )
}
