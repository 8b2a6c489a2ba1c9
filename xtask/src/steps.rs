//! `cargo xtask test`: every check of the project, as named steps in order.

use std::process::Command;
use std::time::{Duration, Instant};

use clap::builder::PossibleValuesParser;

use crate::bench;
use crate::differential;
use crate::guest_scenarios;
use crate::guest_tests;
use crate::monitor_tests;
use crate::numbers;
use crate::plugin_tests;
use crate::probe;
use crate::qemu_tests;
use crate::rust::{self, Part, TARGET, UEFI_TARGET};
use crate::stop::{Stop, progress};
use crate::tool;

/// One step.
struct Step {
    /// What `--only` takes.
    name: &'static str,
    /// What `--list` says of it.
    about: &'static str,
    run: fn() -> Result<Outcome, Stop>,
}

/// How a step ends that does not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it was done.
    Passed,
    /// It is not for this machine, and why.
    Skipped(&'static str),
}

/// All steps, the quickest to fail first.
const STEPS: &[Step] = &[
    Step {
        name: "format",
        about: "rustfmt would change nothing",
        run: format,
    },
    Step {
        name: "clippy-host",
        about: "clippy on all crates and tests, warnings as errors",
        run: clippy_host,
    },
    Step {
        name: "clippy-target",
        about: "clippy on library, images and probe for their targets, warnings as errors",
        run: clippy_target,
    },
    Step {
        name: "doc",
        about: "rustdoc on library, image and tools, private items too, warnings as errors",
        run: doc,
    },
    Step {
        name: "test-host",
        about: "the tests that need no machine but this one",
        run: test_host,
    },
    Step {
        name: "test-scenarios",
        about: "every story on the hostile model: all configurations, a thousand seeds",
        run: test_scenarios,
    },
    Step {
        name: "loom",
        about: "lock-free pieces under loom: every interleaving, every value a load may return",
        run: loom,
    },
    Step {
        name: "test-qemu",
        about: "the image in QEMU: self-check, each check sabotaged, each refusal",
        run: qemu_tests::step,
    },
    Step {
        name: "test-guests",
        about: "guests at EL1 in QEMU: kept apart, started, refused by name",
        run: guest_tests::step,
    },
    Step {
        name: "test-monitor",
        about: "the monitor in QEMU: a person types, a guest is ended",
        run: monitor_tests::step,
    },
    Step {
        name: "test-bench",
        about: "cargo xtask bench --quick measures every number that is promised",
        run: bench::step,
    },
    Step {
        name: "numbers",
        about: "instructions of every call, of the start, sizes: by the tables of NUMBERS.md",
        run: numbers::step,
    },
    Step {
        name: "test-plugin",
        about: "the model in QEMU: our image in every mode, and one that is not ours",
        run: plugin_tests::step,
    },
    Step {
        name: "test-guest-kernel",
        about: "guests play the scenarios in QEMU on the model: 1, 2 and 4 CPUs, four chaotic seeds",
        run: guest_scenarios::step,
    },
    Step {
        name: "test-differential",
        about: "the same programs on QEMU's SMMUv3 and on the model see the same",
        run: differential::step,
    },
    Step {
        name: "test-probe",
        about: "the EFI application in QEMU: what it reports of nine machines",
        run: probe::step,
    },
    Step {
        name: "deny",
        about: "cargo-deny on licences, bans and sources, where it is installed",
        run: deny,
    },
];

/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Runs every check of the project, as named steps in order. A step that fails does not keep the
later ones from running. The last line counts them: `N passed, N failed`.";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run only this step (may be given more than once)
    #[arg(long, value_name = "STEP", value_parser = PossibleValuesParser::new(STEPS.iter().map(|step| step.name)))]
    only: Vec<String>,
    /// List the steps and run none
    #[arg(long)]
    list: bool,
}

struct Done {
    name: &'static str,
    result: Result<Outcome, Stop>,
    took: Duration,
}

/// Runs the steps asked for.
///
/// # Errors
///
/// `Failed` if a step failed; `CouldNotRun` if none failed and one could not run.
pub(crate) fn command(arguments: &Arguments) -> Result<(), Stop> {
    if arguments.list {
        for step in STEPS {
            println!("{:<17} {}", step.name, step.about);
        }
        return Ok(());
    }
    let chosen = chosen(&arguments.only);
    let mut done = Vec::new();
    for (index, step) in chosen.iter().enumerate() {
        progress(&format!(
            "step {} of {}: {} ({})",
            index + 1,
            chosen.len(),
            step.name,
            step.about
        ));
        done.push(timed(step));
    }
    print!("{}", summary(&done));
    verdict(&done)
}

fn chosen(only: &[String]) -> Vec<&'static Step> {
    let is_chosen = |step: &&Step| only.is_empty() || only.iter().any(|name| name == step.name);
    STEPS.iter().filter(is_chosen).collect()
}

fn timed(step: &Step) -> Done {
    let start = Instant::now();
    let result = (step.run)();
    let took = start.elapsed();
    let said = match &result {
        Ok(Outcome::Passed) => "passed".to_owned(),
        Ok(Outcome::Skipped(why)) => format!("skipped: {why}"),
        Err(stop) => stop.to_string(),
    };
    progress(&format!(
        "{}: {said} ({:.1} s)",
        step.name,
        took.as_secs_f32()
    ));
    Done {
        name: step.name,
        result,
        took,
    }
}

fn summary(done: &[Done]) -> String {
    let mut text = String::new();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for step in done {
        let (said, count) = match &step.result {
            Ok(Outcome::Passed) => ("passed".to_owned(), &mut passed),
            Ok(Outcome::Skipped(why)) => (format!("skipped: {why}"), &mut skipped),
            Err(stop) => (first_line(stop), &mut failed),
        };
        *count += 1;
        let took = step.took.as_secs_f32();
        text += &format!("{:<17} {took:>7.1} s  {said}\n", step.name);
    }
    text += &format!("{passed} passed, {failed} failed");
    if skipped > 0 {
        text += &format!(", {skipped} skipped");
    }
    text + "\n"
}

fn first_line(stop: &Stop) -> String {
    let text = stop.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn verdict(done: &[Done]) -> Result<(), Stop> {
    let names = |is_it: fn(&Stop) -> bool| {
        done.iter()
            .filter(|step| step.result.as_ref().is_err_and(is_it))
            .map(|step| step.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let failed = names(|stop| matches!(stop, Stop::Failed(_)));
    let could_not_run = names(|stop| matches!(stop, Stop::CouldNotRun(_)));
    match (failed.as_str(), could_not_run.as_str()) {
        ("", "") => Ok(()),
        ("", names) => Err(Stop::CouldNotRun(names.to_owned())),
        (names, _) => Err(Stop::Failed(names.to_owned())),
    }
}

fn cargo(arguments: &[&str]) -> Result<(), Stop> {
    run(tool::cargo().args(arguments))
}

fn run(command: &mut Command) -> Result<(), Stop> {
    progress(&tool::as_typed(command));
    tool::run(command)
}

fn format() -> Result<Outcome, Stop> {
    rust::ensure(&[Part::Rustfmt])?;
    cargo(&["fmt", "--all", "--check"])?;
    Ok(Outcome::Passed)
}

fn clippy_host() -> Result<Outcome, Stop> {
    rust::ensure(&[Part::Clippy])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"])?;
    Ok(Outcome::Passed)
}

fn clippy_target() -> Result<Outcome, Stop> {
    rust::ensure(&[Part::Clippy, Part::Target, Part::UefiTarget])?;
    // Other members are not for the bare target.
    let package = ["clippy", "--package", "portcullis", "--target", TARGET];
    // The library as another hypervisor takes it, with discovery, and the two images.
    let builds: [&[&str]; 4] = [
        &["--lib"],
        &["--lib", "--features", "discover"],
        &["--lib", "--bins", "--features", "image"],
        &["--lib", "--bins", "--features", "sabotage"],
    ];
    for build in builds {
        cargo(&[&package, build, &["--", "-Dwarnings"]].concat())?;
    }
    let package = ["clippy", "--package", differential::IMAGE.package];
    let build = [
        "--features",
        differential::IMAGE.feature,
        "--target",
        TARGET,
    ];
    cargo(&[&package, &build[..], &["--", "-Dwarnings"]].concat())?;
    cargo(&[
        "clippy",
        "--package",
        "portcullis-guest",
        "--target",
        TARGET,
        "--",
        "-Dwarnings",
    ])?;
    for guest in ["guest-first", "guest-idle", "guest-kernel", "guest-measure"] {
        let package = ["clippy", "--package", guest, "--features", "image"];
        cargo(&[&package[..], &["--target", TARGET, "--", "-Dwarnings"]].concat())?;
    }
    cargo(&[
        "clippy",
        "--package",
        plugin_tests::STANDALONE,
        "--features",
        "rogue,unreported",
        "--target",
        TARGET,
        "--",
        "-Dwarnings",
    ])?;
    cargo(&[
        "clippy",
        "--package",
        "portcullis-probe",
        "--target",
        UEFI_TARGET,
        "--",
        "-Dwarnings",
    ])?;
    Ok(Outcome::Passed)
}

fn doc() -> Result<Outcome, Stop> {
    rust::ensure(&[Part::Target])?;
    let common = ["doc", "--no-deps", "--document-private-items"];
    let builds: [&[&str]; 2] = [
        &["--workspace"],
        &[
            "--package",
            "portcullis",
            "--lib",
            "--features",
            "sabotage",
            "--target",
            TARGET,
        ],
    ];
    for build in builds {
        let mut cargo = tool::cargo();
        cargo.args(common).args(build);
        run(cargo.env("RUSTDOCFLAGS", "-Dwarnings"))?;
    }
    Ok(Outcome::Passed)
}

fn test_host() -> Result<Outcome, Stop> {
    // The scenarios have a step of their own. All that fails is shown at once.
    let keep_going = "--no-fail-fast";
    cargo(&["test", "--workspace", keep_going, "--exclude", SCENARIOS])?;
    Ok(Outcome::Passed)
}

const SCENARIOS: &str = "portcullis-scenarios";

fn test_scenarios() -> Result<Outcome, Stop> {
    cargo(&["test", "--package", SCENARIOS])?;
    Ok(Outcome::Passed)
}

fn loom() -> Result<Outcome, Stop> {
    // A folder of its own: with other flags everything is built anew.
    let target = tool::root().join("target").join("loom");
    let tests = || {
        let mut cargo = tool::cargo();
        cargo.args(["test", "--package", "portcullis", "--lib", "loom_tests"]);
        cargo.env("RUSTFLAGS", "--cfg loom");
        cargo.env("CARGO_TARGET_DIR", &target);
        cargo
    };
    let listed = tool::read(tests().args(["--", "--list"]))?;
    if !listed.lines().any(|line| line.ends_with(": test")) {
        return Err(Stop::Failed("there are no tests for loom".into()));
    }
    run(&mut tests())?;
    Ok(Outcome::Passed)
}

fn deny() -> Result<Outcome, Stop> {
    if !tool::succeeds(tool::cargo().args(["deny", "--version"])) {
        return Ok(Outcome::Skipped("cargo-deny is not installed"));
    }
    // Not the advisories: deny.toml says why.
    cargo(&["deny", "check", "bans", "licenses", "sources"])?;
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(name: &'static str, result: Result<Outcome, Stop>) -> Done {
        Done {
            name,
            result,
            took: Duration::from_millis(1500),
        }
    }

    #[test]
    fn the_summary_ends_with_the_count_alone_on_a_line() {
        let steps = [
            done("a", Ok(Outcome::Passed)),
            done("b", Err(Stop::Failed("two\nlines".into()))),
            done("c", Err(Stop::CouldNotRun("no c".into()))),
            done("d", Ok(Outcome::Skipped("no d"))),
        ];
        let text = summary(&steps);
        assert!(
            text.ends_with("\n1 passed, 2 failed, 1 skipped\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 5);
        assert_eq!(
            summary(&steps[..1]).lines().last(),
            Some("1 passed, 0 failed")
        );
    }

    #[test]
    fn a_failed_step_outweighs_one_that_could_not_run() {
        let passed = || done("a", Ok(Outcome::Passed));
        let failed = || done("b", Err(Stop::Failed("x".into())));
        let could_not = || done("c", Err(Stop::CouldNotRun("y".into())));
        assert_eq!(verdict(&[passed()]), Ok(()));
        assert_eq!(
            verdict(&[passed(), could_not()]),
            Err(Stop::CouldNotRun("c".into()))
        );
        assert_eq!(
            verdict(&[could_not(), failed(), passed()]),
            Err(Stop::Failed("b".into()))
        );
    }

    #[test]
    fn only_chooses_and_keeps_the_order() {
        assert_eq!(chosen(&[]).len(), STEPS.len());
        let names: Vec<_> = chosen(&["doc".into(), "format".into()])
            .iter()
            .map(|step| step.name)
            .collect();
        assert_eq!(names, ["format", "doc"]);
    }
}
