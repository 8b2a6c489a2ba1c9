//! QEMU: finding it, installing it, its command line.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::apt::Apt;
use crate::board::Qemu;
use crate::stop::{Stop, progress};
use crate::tool;
use crate::version::Version;

/// The program.
pub(crate) const PROGRAM: &str = "qemu-system-aarch64";
/// Debian's package that holds it.
const PACKAGE: &str = "qemu-system-arm";
/// The first QEMU whose `virt` has an SMMUv3 with two stages.
pub(crate) const LEAST: Version = Version { major: 9, minor: 2 };

/// Why this machine's QEMU does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Its SMMUv3 has one stage.
    TooOld(Version),
    /// There is none.
    Missing,
}

impl fmt::Display for Lack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld(found) => write!(
                out,
                "QEMU {found} is too old, its SMMUv3 has not both stages: "
            ),
            Self::Missing => write!(out, "{PROGRAM} is missing: "),
        }?;
        write!(
            out,
            "install {LEAST} or newer (`{PACKAGE}`; Debian 12 has it in bookworm-backports)"
        )
    }
}

/// The QEMU on the `PATH`.
///
/// # Errors
///
/// What it lacks.
pub(crate) fn find() -> Result<Version, Lack> {
    tool::read(Command::new(PROGRAM).arg("--version"))
        .map_or(Err(Lack::Missing), |output| judge(&output))
}

fn judge(output: &str) -> Result<Version, Lack> {
    let version = output
        .lines()
        .find_map(|line| line.strip_prefix("QEMU emulator version "))
        .and_then(Version::at_start_of)
        .ok_or(Lack::Missing)?;
    if version < LEAST {
        return Err(Lack::TooOld(version));
    }
    Ok(version)
}

/// Makes sure that a QEMU with a two-stage SMMUv3 is here, by apt where that may be.
///
/// # Errors
///
/// `CouldNotRun` if there is none and none could be installed.
pub(crate) fn ensure() -> Result<(), Stop> {
    let Err(lack) = find() else {
        return Ok(());
    };
    progress(&format!("no QEMU {LEAST} or newer here"));
    let Some(apt) = Apt::find() else {
        return Err(Stop::CouldNotRun(lack.to_string()));
    };
    apt.install_at_least(PACKAGE, LEAST)
        .map_err(|stop| Stop::CouldNotRun(format!("{lack}; apt could not: {stop}")))?;
    find()
        .map(drop)
        .map_err(|lack| Stop::CouldNotRun(lack.to_string()))
}

/// The machine, without anything to run on it.
pub(crate) fn machine(qemu: &Qemu, cpus: u32) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["-M", &qemu.machine, "-cpu", &qemu.cpu, "-m", &qemu.memory])
        .args(["-smp", &cpus.to_string()])
        .args(&qemu.args);
    for device in &qemu.devices {
        command.args(["-device", device]);
    }
    command
}

/// The machine, started as firmware would start an arm64 Image: device tree in x0, boot arguments
/// under `/chosen`.
pub(crate) fn with_kernel(mut machine: Command, image: &Path, boot_arguments: &str) -> Command {
    machine.arg("-kernel").arg(image);
    if !boot_arguments.is_empty() {
        machine.arg("-append").arg(boot_arguments);
    }
    machine
}

/// A path in an option's value: a comma is written twice.
pub(crate) fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Writes the tree that QEMU makes for `model` to `file`.
///
/// # Errors
///
/// As QEMU ends when it is asked for it.
pub(crate) fn dump_tree(model: &Qemu, cpus: u32, file: &Path) -> Result<(), Stop> {
    let dumping = Qemu {
        machine: format!("{},dumpdtb={}", model.machine, option_value(file)),
        ..model.clone()
    };
    tool::read(&mut machine(&dumping, cpus)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_9_2_and_newer_is_good() {
        let found = judge("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1)\nCopyright");
        let ten = Version {
            major: 10,
            minor: 0,
        };
        assert_eq!(found, Ok(ten));
        assert_eq!(judge("QEMU emulator version 9.2.0\n"), Ok(LEAST));
    }

    #[test]
    fn an_old_qemu_is_named_with_the_remedy() {
        let found = judge("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\n");
        let lack = Lack::TooOld(Version { major: 7, minor: 2 });
        assert_eq!(found, Err(lack));
        let why = lack.to_string();
        assert!(why.contains("QEMU 7.2 is too old"), "{why}");
        assert!(why.contains("install 9.2 or newer"), "{why}");
    }

    #[test]
    fn a_program_that_is_no_qemu_counts_as_missing() {
        assert_eq!(judge("hello\n"), Err(Lack::Missing));
        assert!(Lack::Missing.to_string().contains("is missing"));
    }

    #[test]
    fn a_comma_in_a_path_is_no_new_option() {
        assert_eq!(option_value(Path::new("/a,b")), "/a,,b");
    }

    #[test]
    fn the_command_line_holds_machine_devices_kernel_and_boot_arguments() {
        let qemu = Qemu {
            machine: "virt".into(),
            cpu: "max".into(),
            memory: "64M".into(),
            image_address: 0,
            devices: vec!["edu,addr=2.0".into()],
            args: vec!["-no-reboot".into()],
        };
        let command = with_kernel(machine(&qemu, 3), Path::new("/i"), "sabotage=a b=c");
        assert_eq!(
            tool::as_typed(&command),
            "qemu-system-aarch64 -M virt -cpu max -m 64M -smp 3 -no-reboot -device 'edu,addr=2.0' \
             -kernel /i -append 'sabotage=a b=c'"
        );
        let bare = with_kernel(machine(&qemu, 1), Path::new("/i"), "");
        assert!(!tool::as_typed(&bare).contains("-append"));
    }
}
