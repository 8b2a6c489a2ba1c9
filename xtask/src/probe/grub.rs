//! GRUB for aarch64, to start the application from.
//!
//! Debian's package holds it as one EFI application, ready to run. It is made for arm64 alone
//! ([`Arm64`]).

use std::fs;
use std::path::Path;

use crate::foreign::Arm64;
use crate::image;
use crate::stop::Stop;

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
    let apt = Arm64::begin(folder, PACKAGE)?;
    apt.unpack(PACKAGE)?;
    apt.end()
}
