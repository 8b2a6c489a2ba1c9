//! Building the image.

use std::fs;
use std::path::{Path, PathBuf};

use crate::board::{self, Board};
use crate::flatten::flatten;
use crate::rust::{self, Part, TARGET};
use crate::stop::{Stop, progress};
use crate::tool;

/// Which image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What is deployed.
    Plain,
    /// With the faults that the boot argument `sabotage=CHECK` chooses from.
    Sabotage,
}

impl Kind {
    const fn recipe(self) -> Recipe {
        let (feature, suffix) = match self {
            Self::Plain => ("image", ""),
            Self::Sabotage => ("sabotage", "-sabotage"),
        };
        Recipe {
            package: "portcullis",
            feature,
            suffix,
        }
    }
}

/// What an image is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// The package, and the name of its binary.
    pub(crate) package: &'static str,
    /// Its feature that makes it an image.
    pub(crate) feature: &'static str,
    /// What comes after the board in the names of the files.
    pub(crate) suffix: &'static str,
}

/// Where a build lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// The arm64 Image.
    pub(crate) raw: PathBuf,
    /// The ELF that it was made of, linked at 0: symbols and line numbers.
    pub(crate) symbols: PathBuf,
}

/// What `--help` says first.
pub(crate) const ABOUT: &str = "\
Builds the image for one board and says where it is, how long it is, and how it gets onto the
board.";

/// `cargo xtask image`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The board to build for; `cargo xtask boards` lists them
    #[arg(long, value_name = "NAME", default_value = "qemu-virt")]
    board: String,
}

/// Where Cargo puts what it builds.
pub(crate) fn target_folder() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    // A relative one is relative to where Cargo was started.
    chosen
        .and_then(|folder| std::path::absolute(folder).ok())
        .unwrap_or_else(|| tool::root().join("target"))
}

/// Where the image for `board` is, or will be once it is built.
pub(crate) fn path(board: &Board, kind: Kind) -> Image {
    path_of(board, kind.recipe())
}

fn path_of(board: &Board, recipe: Recipe) -> Image {
    let folder = target_folder().join(TARGET).join("release");
    let name = format!("portcullis-{}{}", board.name, recipe.suffix);
    Image {
        raw: folder.join(format!("{name}.img")),
        symbols: folder.join(format!("{name}.elf")),
    }
}

/// Builds the image for `board`.
///
/// # Errors
///
/// `CouldNotRun` if the target is missing and cannot be installed; `Failed` if it does not build
/// or what is built is no arm64 Image.
pub(crate) fn build(board: &Board, kind: Kind) -> Result<Image, Stop> {
    build_from(board, kind.recipe())
}

/// The guest that images have with them.
pub(crate) const GUEST: Recipe = Recipe {
    package: "guest-first",
    feature: "image",
    suffix: "-guest-first",
};

/// Builds the image for `board` that `recipe` tells; one of Portcullis has [`GUEST`] with it.
///
/// # Errors
///
/// As [`build`].
pub(crate) fn build_from(board: &Board, recipe: Recipe) -> Result<Image, Stop> {
    rust::ensure(&[Part::Target])?;
    let guest = match recipe.package.starts_with("guest-") {
        true => None,
        false => Some(build_with(board, GUEST, None)?.raw),
    };
    build_with(board, recipe, guest.as_deref())
}

fn build_with(board: &Board, recipe: Recipe, guest: Option<&Path>) -> Result<Image, Stop> {
    progress(&format!(
        "building the image of {} for {} (feature `{}`)",
        recipe.package, board.name, recipe.feature
    ));
    let mut cargo = tool::cargo();
    cargo
        .args(["build", "--release", "--package", recipe.package])
        .args(["--bin", recipe.package, "--target", TARGET])
        .args(["--features", recipe.feature, "--target-dir"])
        .arg(target_folder())
        .env("PORTCULLIS_BOARD", &board.name)
        // They would replace the flags that make the image position independent.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(guest) = guest {
        cargo.env("PORTCULLIS_GUEST", guest);
    }
    tool::run(&mut cargo)?;
    let image = path_of(board, recipe);
    let folder = target_folder().join(TARGET).join("release");
    let built = folder.join(recipe.package);
    let broken = |error: std::io::Error| Stop::Failed(format!("{}: {error}", built.display()));
    let elf = fs::read(&built).map_err(broken)?;
    let raw = flatten(&elf).map_err(|why| Stop::Failed(format!("{}: {why}", built.display())))?;
    // The next build for another board overwrites Cargo's file.
    write_if_new(&image.symbols, &elf).map_err(broken)?;
    write_if_new(&image.raw, &raw).map_err(broken)?;
    Ok(image)
}

/// Leaves a file alone that holds `bytes` already: what is built from it is not built again.
fn write_if_new(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(file, bytes)
}

/// Builds, and says where the image is and how it gets onto the board.
///
/// # Errors
///
/// As [`build`], or an unknown board.
pub(crate) fn command(arguments: &Arguments) -> Result<(), Stop> {
    let board = board::load(&arguments.board)?;
    let image = build(&board, Kind::Plain)?;
    let size_bytes = fs::metadata(&image.raw).map_or(0, |data| data.len());
    println!("image:   {} ({size_bytes} bytes)", image.raw.display());
    println!("symbols: {} (linked at 0)", image.symbols.display());
    println!("\n{}", board.deploy.trim_end());
    Ok(())
}
