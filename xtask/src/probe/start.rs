//! Who starts the application, and what it leaves.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::console::End;
use crate::guest::{self, Echo, Typist};
use crate::image;
use crate::stop::Stop;

use super::{disk, grub};

/// Who starts the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// Firmware, as the kernel that QEMU hands over. It comes from no disk.
    Kernel,
    /// UEFI's shell, from a disk that can be written.
    Shell,
    /// GRUB's `chainloader`, from the disk that GRUB came from.
    Grub,
    /// A boot entry with nothing but the path, as `efibootmgr` makes one: firmware starts it after a
    /// reset, and it stops at every page until somebody presses a key.
    BootEntry,
}

/// The shell alone waits ten seconds before it starts a script, and a boot entry is started after
/// that.
const LIMIT: Duration = Duration::from_secs(120);
/// What the report starts with, behind what firmware prints.
const FIRST_WORDS: &str = "PORTCULLIS PROBE ";
/// What the application asks at the end of a page.
const QUESTION: &str = "-- any key: next page; a: all of it --";
/// What firmware shows once a boot entry has given the machine back: its menu, with this in it.
const MENU: &str = "Boot Maintenance Manager";

/// What UEFI's shell runs by itself.
const SHELL_SCRIPT: &[u8] =
    b"@echo -off\r\nfs0:\r\n\\EFI\\tools\\portcullis-probe.efi nopage shutdown\r\n";
/// The same, to make a boot entry.
const ENTRY_SCRIPT: &[u8] = b"@echo -off\r\n\
    bcfg boot add 0 fs0:\\EFI\\tools\\portcullis-probe.efi \"probe\"\r\n\
    reset\r\n";
const GRUB_MENU: &[u8] = b"set timeout=0\n\
    echo GRUB starts it\n\
    chainloader /EFI/tools/portcullis-probe.efi nopage shutdown\n\
    boot\n";

/// Has the second page by any key, and ends QEMU (Ctrl-A, x) at firmware's menu. The firmware's
/// console has 50 rows: there is no third page.
const READER: Typist = Typist {
    answers: &[(QUESTION, b" "), (MENU, b"\x01x")],
};

impl Start {
    /// Runs `command` so that this starts the application; returns the report.
    pub(super) fn run(self, mut command: Command, application: &Path) -> Result<String, Stop> {
        match self {
            // QEMU's own commands can be typed too.
            Self::BootEntry => command.args(["-serial", "mon:stdio"]),
            _ => command.args(["-serial", "stdio", "-no-reboot"]),
        };
        match self {
            Self::Kernel => {
                command.arg("-kernel").arg(application);
                command.args(["-append", "nopage shutdown"]);
                ended(command).map(|console| report_in(&console))
            }
            Self::Shell => {
                let files: [(&str, &[u8]); 1] = [("startup.nsh", SHELL_SCRIPT)];
                from_a_disk(command, application, &files, ended)
            }
            Self::Grub => {
                let grub = grub::read()?;
                let files = [
                    ("EFI/BOOT/BOOTAA64.EFI", &grub[..]),
                    (grub::MENU, GRUB_MENU),
                ];
                from_a_disk(command, application, &files, |command| {
                    let console = ended(command)?;
                    match console.contains("Welcome to GRUB!") {
                        true => Ok(console),
                        false => Err(Stop::Failed("GRUB was not there".into())),
                    }
                })
            }
            Self::BootEntry => {
                let files: [(&str, &[u8]); 1] = [("startup.nsh", ENTRY_SCRIPT)];
                from_a_disk(command, application, &files, went_on)
            }
        }
    }
}

/// The console of a run that the application ended.
fn ended(command: Command) -> Result<String, Stop> {
    let ran = guest::run(command, Some(LIMIT), Echo::Quiet, || ())?;
    match ran.end().map_err(Stop::Failed)? {
        End::Done => Ok(ran.console),
        other => Err(Stop::Failed(format!("the application ended with {other}"))),
    }
}

/// The console of a run in which firmware went on behind the application, as it does if boot
/// services were not ended.
fn went_on(command: Command) -> Result<String, Stop> {
    let ran = guest::run(command, Some(LIMIT), Echo::Typed(&READER), || ())?;
    ran.end().map_err(Stop::Failed)?;
    let (report, rest) = ran
        .console
        .split_once("\nend: ok")
        .ok_or_else(|| Stop::Failed("the application did not end".into()))?;
    let pages = report.matches(QUESTION).count();
    if pages != 1 {
        let why = format!("it stopped {pages} times, and a report has two pages");
        return Err(Stop::Failed(why));
    }
    match rest.contains(MENU) {
        true => Ok(format!("{report}\nend: ok\n")),
        false => Err(Stop::Failed("firmware did not go on".into())),
    }
}

/// Runs `command` with a disk that has the application and `files`, and compares the file that it
/// leaves there with what it printed.
fn from_a_disk(
    mut command: Command,
    application: &Path,
    files: &[(&str, &[u8])],
    run: impl FnOnce(Command) -> Result<String, Stop>,
) -> Result<String, Stop> {
    let path = image::target_folder().join("probe-disk.img");
    let broken = |error: std::io::Error| Stop::Failed(format!("{}: {error}", path.display()));
    let application = fs::read(application).map_err(broken)?;
    let all: Vec<_> = [(disk::APPLICATION, &application[..])]
        .into_iter()
        .chain(files.iter().copied())
        .collect();
    disk::make(&path, &all).map_err(broken)?;
    let drive = format!("if=none,id=disk,format=raw,file={}", path.display());
    command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"]);
    let printed = report_in(&run(command)?);
    let saved = disk::saved(&path).map_err(broken)?;
    if printed.starts_with(saved.trim_end()) && saved.starts_with(FIRST_WORDS) {
        return Ok(printed);
    }
    Err(Stop::Failed(format!(
        "the file is not what was printed:\n{saved}"
    )))
}

/// The report in what a console showed, without what firmware put before and between it, and
/// without the questions between its pages.
fn report_in(console: &str) -> String {
    let plain = without_escapes(console);
    let start = plain.find(FIRST_WORDS).unwrap_or(plain.len());
    let report = plain.get(start..).unwrap_or_default();
    let report = report.replace('\r', "");
    report.replace(&format!("{QUESTION}\n"), "")
}

/// `text` without what moves a terminal's cursor or chooses its colours: ESC, `[`, up to a letter.
fn without_escapes(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            plain.push(letter);
            continue;
        }
        letters
            .by_ref()
            .skip(1)
            .find(|end| end.is_ascii_alphabetic());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_behind_what_firmware_prints() {
        let console = "UEFI firmware\r\n\u{1b}[2J\u{1b}[01;01HPORTCULLIS PROBE 1\r\n  a\r\n";
        assert_eq!(report_in(console), "PORTCULLIS PROBE 1\n  a\n");
        assert_eq!(report_in("UEFI firmware\r\n"), "");
    }

    #[test]
    fn what_was_asked_between_pages_is_none_of_it() {
        let console = format!("PORTCULLIS PROBE 1\r\n{QUESTION}\r\n  a\r\n");
        assert_eq!(report_in(&console), "PORTCULLIS PROBE 1\n  a\n");
    }
}
