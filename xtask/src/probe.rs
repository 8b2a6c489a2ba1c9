//! `cargo xtask probe`: the EFI application in QEMU, and what it must say there.

mod cases;
mod disk;
mod grub;
mod start;
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::guest::Echo;
use crate::image;
use crate::qemu;
use crate::rust::{self, Part, UEFI_TARGET};
use crate::steps::Outcome;
use crate::stop::{Stop, progress};
use crate::tool;

use cases::{CASES, Case};

/// Debian's package with UEFI firmware for QEMU's `virt`.
const PACKAGE: &str = "qemu-efi-aarch64";
/// The file in it.
const FIRMWARE: &str = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
/// The application must fit where space is scarce: an EFI partition, a virtual medium of a BMC.
const LIMIT_BYTES: u64 = 512 << 10;
/// A console of 80 columns goes on by itself behind the 80th.
const COLUMNS: usize = 79;
/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Builds `portcullis-probe.efi`, the read-only EFI application that reports what Portcullis would find
on a machine, runs it in QEMU under UEFI firmware, shows its report, and compares it with what is
expected of each machine. boards/kunpeng-920/README.md says how to run it on a server.";

/// The arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Run only this machine (may be given more than once); `--list` names them
    #[arg(long, value_name = "MACHINE")]
    only: Vec<String>,
    /// List the machines and run none
    #[arg(long)]
    list: bool,
}

/// `cargo xtask probe`.
///
/// # Errors
///
/// `CouldNotRun` for an unknown machine, or if the target, QEMU or the firmware is missing and
/// cannot be installed; `Failed` if the application does not build or a report is not as expected.
pub(crate) fn command(arguments: &Arguments) -> Result<(), Stop> {
    if arguments.list {
        for case in CASES {
            println!("{:<14} {}", case.name, case.about);
        }
        return Ok(());
    }
    let unknown = |name: &&String| !CASES.iter().any(|case| case.name == name.as_str());
    if let Some(name) = arguments.only.iter().find(unknown) {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        return Err(Stop::CouldNotRun(format!(
            "no machine `{name}`; the machines are: {}",
            names.join(", ")
        )));
    }
    let is_wanted = |case: &&Case| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == case.name)
    };
    let chosen: Vec<_> = CASES.iter().filter(is_wanted).collect();
    run_all(&chosen, Echo::Live)
}

/// The step of `cargo xtask test`.
///
/// # Errors
///
/// As [`command`].
pub(crate) fn step() -> Result<Outcome, Stop> {
    run_all(&CASES.iter().collect::<Vec<_>>(), Echo::Quiet)?;
    Ok(Outcome::Passed)
}

fn run_all(cases: &[&Case], echo: Echo) -> Result<(), Stop> {
    qemu::ensure()?;
    ensure_firmware()?;
    let application = build()?;
    let mut wrong = Vec::new();
    for case in cases {
        progress(&format!("probe {}: {}", case.name, case.about));
        match run(case, &application) {
            Ok(report) => {
                if echo == Echo::Live {
                    println!("{report}");
                }
                wrong.extend(faults(case, &report));
            }
            Err(Stop::Failed(why)) => wrong.push(format!("{}: {why}", case.name)),
            Err(stop) => return Err(stop),
        }
    }
    if wrong.is_empty() {
        progress(&format!("{} reports are as expected", cases.len()));
        return Ok(());
    }
    Err(Stop::Failed(wrong.join("\n")))
}

/// Makes sure that the firmware is here, by apt where that may be.
fn ensure_firmware() -> Result<(), Stop> {
    if Path::new(FIRMWARE).is_file() {
        return Ok(());
    }
    let missing = || Stop::CouldNotRun(format!("{FIRMWARE} is missing: install `{PACKAGE}`"));
    progress("no UEFI firmware for QEMU here");
    let apt = Apt::find().ok_or_else(missing)?;
    apt.install_any(PACKAGE)
        .map_err(|stop| Stop::CouldNotRun(format!("{}; apt could not: {stop}", missing())))?;
    if Path::new(FIRMWARE).is_file() {
        return Ok(());
    }
    Err(missing())
}

/// Builds the application; says where it is.
fn build() -> Result<PathBuf, Stop> {
    rust::ensure(&[Part::UefiTarget])?;
    progress("building portcullis-probe.efi");
    let folder = image::target_folder();
    let mut cargo = tool::cargo();
    cargo
        .args(["build", "--release", "--package", "portcullis-probe"])
        .args(["--bin", "portcullis-probe", "--target", UEFI_TARGET])
        .arg("--target-dir")
        .arg(&folder);
    tool::run(&mut cargo)?;
    let application = folder
        .join(UEFI_TARGET)
        .join("release/portcullis-probe.efi");
    let size_bytes = fs::metadata(&application)
        .map_err(|error| Stop::Failed(format!("{}: {error}", application.display())))?
        .len();
    progress(&format!("{} ({size_bytes} bytes)", application.display()));
    if size_bytes > LIMIT_BYTES {
        return Err(Stop::Failed(format!(
            "{size_bytes} bytes are more than {LIMIT_BYTES}"
        )));
    }
    Ok(application)
}

/// Runs one machine; returns the report.
fn run(case: &Case, application: &Path) -> Result<String, Stop> {
    let mut command = Command::new(qemu::PROGRAM);
    let log = image::target_folder().join("probe-accesses.log");
    command
        .args(["-M", case.machine, "-cpu", case.cpu, "-m", "1G"])
        .args(["-smp", "2", "-display", "none", "-monitor", "none"])
        .args(["-net", "none"])
        .args(["-bios", FIRMWARE]);
    for device in case.devices {
        command.args(["-device", device]);
    }
    trace::accesses(&mut command, &log);
    let report = case.start.run(command, application)?;
    trace::has_no_write(&log, case.machine.contains("iommu=smmuv3")).map_err(Stop::Failed)?;
    Ok(report)
}

/// What is not as expected, a sentence each.
fn faults(case: &Case, report: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let flat = flattened(report);
    let mut left = flat.as_str();
    for expected in case.has {
        match left.split_once(expected) {
            Some((_, behind)) => left = behind,
            None => faults.push(format!(
                "{}: the report lacks `{expected}`, or has it earlier",
                case.name
            )),
        }
    }
    for forbidden in case.lacks {
        if flat.contains(forbidden) {
            faults.push(format!("{}: the report has `{forbidden}`", case.name));
        }
    }
    for line in report.lines().filter(|line| line.len() > COLUMNS) {
        faults.push(format!("{}: this line is too long: {line}", case.name));
    }
    faults
}

/// The words of `text`, one blank between any two.
fn flattened(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Case = Case {
        has: &["SMMU 0 at 0x9050000", "USABLE: it"],
        lacks: &["UNPROTECTED:"],
        ..cases::PLAIN
    };

    #[test]
    fn what_is_missing_or_too_much_or_too_long_is_a_fault() {
        let good = "SMMU 0 at\n  0x9050000\nUSABLE: it would\n";
        assert_eq!(faults(&CASE, good), Vec::<String>::new());
        assert_eq!(faults(&CASE, "USABLE: it").len(), 1);
        assert_eq!(faults(&CASE, &format!("{good}UNPROTECTED:")).len(), 1);
        assert_eq!(faults(&CASE, &format!("{good}{}", "x".repeat(80))).len(), 1);
        assert_eq!(faults(&CASE, "USABLE: it SMMU 0 at 0x9050000").len(), 1);
    }

    #[test]
    fn every_machine_has_a_name_of_its_own_and_something_expected() {
        for case in CASES {
            let same = CASES.iter().filter(|other| other.name == case.name);
            assert_eq!(same.count(), 1, "{}", case.name);
            assert!(!case.has.is_empty(), "{}", case.name);
        }
    }
}
