//! GRUB for aarch64, to start the application from.
//!
//! Debian's package holds it as one EFI application, ready to run. It is made for arm64 alone, and a
//! machine of another kind must not be taught a second architecture for the sake of one file: apt
//! gets it with lists and caches of its own below the target folder, and nothing is installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::image;
use crate::stop::{Stop, progress};
use crate::tool;

/// Debian's package with GRUB for UEFI on arm64.
const PACKAGE: &str = "grub-efi-arm64-bin";
/// The file in it.
const FILE: &str = "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi";
/// Where Debian's GRUB looks for its menu.
pub(super) const MENU: &str = "EFI/debian/grub.cfg";

/// GRUB, got by apt when it is wanted for the first time.
///
/// # Errors
///
/// `CouldNotRun` if it is not here and apt cannot get it.
pub(super) fn read() -> Result<Vec<u8>, Stop> {
    let folder = image::target_folder().join("grub-arm64");
    let file = folder.join(FILE);
    if !file.is_file() {
        get(&folder).map_err(|stop| {
            Stop::CouldNotRun(format!(
                "no GRUB for aarch64: apt could not get `{PACKAGE}`: {stop}"
            ))
        })?;
    }
    fs::read(&file).map_err(|error| Stop::CouldNotRun(format!("{}: {error}", file.display())))
}

fn get(folder: &Path) -> Result<(), Stop> {
    let broken =
        |error: std::io::Error| Stop::CouldNotRun(format!("{}: {error}", folder.display()));
    // What an earlier try may have left would be taken for this one's.
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(broken)?;
    }
    for part in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(part)).map_err(broken)?;
    }
    progress(&format!(
        "getting {PACKAGE} for arm64 (apt-get, some 20 MB of lists)"
    ));
    tool::read(apt_get(folder).arg("update"))?;
    tool::read(apt_get(folder).args(["download", PACKAGE]))?;
    let package = fs::read_dir(folder)
        .map_err(broken)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .ok_or_else(|| Stop::CouldNotRun("apt-get left no package".into()))?;
    tool::read(Command::new("dpkg-deb").arg("-x").args([&package, folder]))?;
    fs::remove_dir_all(folder.join("state")).map_err(broken)
}

/// An apt that knows arm64 alone, changes nothing outside of `folder`, and needs no rights.
fn apt_get(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.current_dir(folder).env("LC_ALL", "C").arg("-q");
    let here = |name: &str| folder.join(name).display().to_string();
    let options = [
        ("APT::Architecture", "arm64".into()),
        ("APT::Architectures", "arm64".into()),
        // It belongs to whoever runs this, whom apt's own user may not be able to read.
        ("APT::Sandbox::User", "root".into()),
        ("Dir::State", here("state")),
        // What is installed here is of another architecture.
        ("Dir::State::status", "/dev/null".into()),
        ("Dir::Cache", here("cache")),
    ];
    for (name, value) in options {
        command.args(["-o", &format!("{name}={value}")]);
    }
    command
}
