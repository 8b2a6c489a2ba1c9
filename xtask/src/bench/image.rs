//! The image: how large it is, and what it does until guests run.

use std::fs;

use super::Wanted;
use super::report::Row;
use crate::board;
use crate::image::{self, Kind};
use crate::stop::Stop;

const BOARD: &str = "qemu-virt";
/// Names of the rows.
const BYTES: &str = "image.bytes";

/// The size of the image.
///
/// # Errors
///
/// As the image's build ends.
pub(super) fn rows(wanted: &Wanted) -> Result<Vec<Row>, Stop> {
    if !wanted.takes(BYTES) {
        return Ok(Vec::new());
    }
    let image = image::build(&board::load(BOARD)?, Kind::Plain)?;
    let bytes = fs::metadata(&image.raw)
        .map_err(|why| Stop::Failed(format!("{}: {why}", image.raw.display())))?
        .len();
    Ok(vec![Row::new(BYTES, bytes as f64, "bytes")])
}
