//! The parts of the toolchain that the commands need.

use std::path::Path;
use std::process::Command;

use crate::stop::{Stop, progress};
use crate::tool;

/// What the image is built for.
pub(crate) const TARGET: &str = "aarch64-unknown-none-softfloat";
/// What the probe is built for.
pub(crate) const UEFI_TARGET: &str = "aarch64-unknown-uefi";

/// A part of the pinned toolchain that can be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The bare target's `core`.
    Target,
    /// The probe's `core` and `alloc`.
    UefiTarget,
    /// Clippy.
    Clippy,
    /// Rustfmt.
    Rustfmt,
}

impl Part {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Target, Self::UefiTarget, Self::Clippy, Self::Rustfmt];

    /// The name that rustup knows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Target => TARGET,
            Self::UefiTarget => UEFI_TARGET,
            Self::Clippy => "clippy",
            Self::Rustfmt => "rustfmt",
        }
    }

    /// rustup's arguments that install it.
    pub(crate) fn install(self) -> [&'static str; 3] {
        match self {
            Self::Target | Self::UefiTarget => ["target", "add", self.name()],
            Self::Clippy | Self::Rustfmt => ["component", "add", self.name()],
        }
    }

    /// Whether it is here, by its files or its voice: not every toolchain is rustup's.
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::Target | Self::UefiTarget => target_is_here(self.name()),
            Self::Clippy => tool::succeeds(tool::cargo().args(["clippy", "--version"])),
            Self::Rustfmt => tool::succeeds(tool::cargo().args(["fmt", "--version"])),
        }
    }
}

fn target_is_here(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(tool::root())
        .args(["--print", "target-libdir", "--target", target]);
    tool::read(&mut rustc).is_ok_and(|folder| Path::new(folder.trim()).is_dir())
}

/// Makes sure that `parts` are here, by rustup where they are not.
///
/// # Errors
///
/// `CouldNotRun` if one is missing and rustup is not here or could not install it.
pub(crate) fn ensure(parts: &[Part]) -> Result<(), Stop> {
    for part in parts.iter().filter(|part| !part.is_here()) {
        let typed = format!("rustup {}", part.install().join(" "));
        progress(&format!("installing {} ({typed})", part.name()));
        let mut rustup = Command::new("rustup");
        rustup.current_dir(tool::root()).args(part.install());
        tool::run(&mut rustup)
            .ok()
            .filter(|()| part.is_here())
            .ok_or_else(|| {
                Stop::CouldNotRun(format!("{} is missing: run `{typed}`", part.name()))
            })?;
    }
    Ok(())
}
