//! The step `test-differential`: the programs of `tests/differential` on QEMU's SMMUv3 and on the
//! model.

use std::fs;
use std::time::Duration;

use crate::board;
use crate::console::End;
use crate::guest::{self, Echo};
use crate::image::{self, Recipe};
use crate::qemu;
use crate::steps::Outcome;
use crate::stop::{Stop, progress};
use crate::tool;

const BOARD: &str = "qemu-virt";
/// The image that runs the programs.
pub(crate) const IMAGE: Recipe = Recipe {
    package: "differential-image",
    feature: "image",
    suffix: "-differential",
};
/// A boot takes 12 s, most of it in the 100 ms that edu's DMA engine takes for each read; the rest is
/// for a machine under load.
const LIMIT: Duration = Duration::from_secs(300);

/// Boots the image, keeps what it prints, and has it compared with the model.
///
/// # Errors
///
/// `Failed` if the image does not get to its end, or if they differ in what is not a named
/// exception; `CouldNotRun` without a QEMU that does.
pub(crate) fn step() -> Result<Outcome, Stop> {
    qemu::ensure()?;
    let board = board::load(BOARD)?;
    let image = image::build_from(&board, IMAGE)?;
    let qemu = qemu::with_kernel(qemu::machine(board.qemu()?, 1), &image.raw, "");
    progress(&tool::as_typed(&qemu));
    let ran = guest::run(qemu, Some(LIMIT), Echo::Quiet, || ())?;
    let console = image.raw.with_extension("console");
    fs::write(&console, &ran.console)
        .map_err(|error| Stop::Failed(format!("{}: {error}", console.display())))?;
    match ran.end().map_err(Stop::Failed)? {
        End::Done => {}
        other => return Err(Stop::Failed(format!("the image ended with {other}"))),
    }
    // Each DMA's effect is looked for in all of the arena: in a debug build that takes a while.
    let mut compare = tool::cargo();
    compare
        .args(["run", "--release", "--package", "differential", "--"])
        .arg(&console);
    progress(&tool::as_typed(&compare));
    tool::run(&mut compare)?;
    Ok(Outcome::Passed)
}
