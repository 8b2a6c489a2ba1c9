//! The commands of the README: `cargo xtask COMMAND`.

mod apt;
mod bench;
mod board;
mod boot;
mod console;
mod differential;
mod doctor;
mod flatten;
mod foreign;
mod gdb;
mod guest;
mod guest_scenarios;
mod guest_tests;
mod guests;
mod image;
mod incident;
mod model;
mod monitor_tests;
mod numbers;
mod plugin_tests;
mod probe;
mod qemu;
mod qemu_tests;
mod rust;
mod scenario;
mod steps;
mod stop;
mod tool;
mod version;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::stop::{EXIT_STATUS, progress};

/// Builds, boots and tests Portcullis. Each command installs what it needs where it may.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXIT_STATUS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the image and boot it in QEMU
    #[command(long_about = boot::ABOUT, after_help = EXIT_STATUS)]
    Boot(boot::Arguments),
    /// Build the image and say how to deploy it
    #[command(long_about = image::ABOUT, after_help = EXIT_STATUS)]
    Image(image::Arguments),
    /// Run the EFI application that reports what Portcullis would find
    #[command(long_about = probe::ABOUT, after_help = EXIT_STATUS)]
    Probe(probe::Arguments),
    /// Measure what it costs, beside its peers
    #[command(long_about = bench::ABOUT, after_help = EXIT_STATUS)]
    Bench(bench::Arguments),
    /// Play a policy that went wrong, step by step, beside Portcullis
    #[command(long_about = incident::ABOUT, after_help = EXIT_STATUS)]
    Incident(incident::Arguments),
    /// List the boards
    #[command(after_help = EXIT_STATUS)]
    Boards,
    /// Say what this machine has and what it lacks
    #[command(long_about = doctor::ABOUT, after_help = doctor::HELP)]
    Doctor,
    /// Play a story of processes, PASIDs and devices on the model
    #[command(long_about = scenario::ABOUT, after_help = EXIT_STATUS)]
    Scenario(scenario::Arguments),
    /// Run every check of the project
    #[command(long_about = steps::ABOUT, after_help = EXIT_STATUS)]
    Test(steps::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Boot(arguments) => boot::command(&arguments),
        Command::Image(arguments) => image::command(&arguments),
        Command::Probe(arguments) => probe::command(&arguments),
        Command::Bench(arguments) => bench::command(&arguments),
        Command::Incident(arguments) => incident::command(&arguments),
        Command::Boards => board::list(),
        Command::Doctor => doctor::command(),
        Command::Scenario(arguments) => scenario::command(&arguments),
        Command::Test(arguments) => steps::command(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            progress(&stop.to_string());
            ExitCode::from(&stop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_help() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            let help = sub.clone().render_long_help().to_string();
            let tells = help.contains("Exit status:") || sub.get_name() == "help";
            assert!(tells, "{help}");
            for argument in sub.get_arguments() {
                assert!(argument.get_help().is_some(), "{}", argument.get_id());
            }
        }
    }
}
