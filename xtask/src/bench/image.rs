//! The image: how large it is, what it does until a guest runs, and what a guest's calls take.
//!
//! Instructions are those of QEMU's `-icount`, all of them: the caller's, the way into EL2 and back,
//! and the turns of waits. The guest `measure` counts them (`NUMBERS.md`).

use std::fs;

use super::Wanted;
use super::report::Row;
use crate::board;
use crate::image::{self, Kind};
use crate::numbers;
use crate::stop::{Stop, progress};

const BOARD: &str = "qemu-virt";
const BYTES: &str = "image.bytes";
const FIRST_GUEST: &str = "boot.instructions_to_first_guest";
/// What there may be until the first guest runs: 100 ms of a billion instructions a second.
const TO_REACH: (&str, f64) = ("to reach", 1e8);
/// On which SMMU a guest calls: the rows' part of the name, and the words that ask for it.
const SMMUS: [(&str, &[&str]); 2] = [
    ("qemu", &[]),
    ("model", &["--smmu", "model", "--mode", "polite"]),
];

/// The rows.
///
/// # Errors
///
/// As the image's build and its boots end.
pub(super) fn rows(wanted: &Wanted) -> Result<Vec<Row>, Stop> {
    let mut rows = Vec::new();
    if wanted.takes(BYTES) {
        let image = image::build(&board::load(BOARD)?, Kind::Plain)?;
        let bytes = fs::metadata(&image.raw)
            .map_err(|why| Stop::Failed(format!("{}: {why}", image.raw.display())))?
            .len();
        rows.push(Row::new(BYTES, bytes as f64, "bytes"));
    }
    if wanted.takes(FIRST_GUEST) {
        progress("counting instructions until the first guest runs (QEMU, -icount)");
        let count = numbers::until_the_first_guest()? as f64;
        rows.push(Row::new(FIRST_GUEST, count, "instructions").beside(TO_REACH.0, TO_REACH.1));
    }
    Ok(rows)
}

/// Rows of hypercalls.
///
/// # Errors
///
/// As the guest `measure` and its boots end.
pub(super) fn calls(wanted: &Wanted) -> Result<Vec<Row>, Stop> {
    let mut rows = Vec::new();
    for (smmu, words) in SMMUS {
        if wanted.is_quick || !wanted.filter.may_want(&["hypercall."]) {
            continue;
        }
        progress(&format!(
            "counting instructions of hypercalls (QEMU, -icount, SMMU: {smmu})"
        ));
        for (call, count) in numbers::boot(words)? {
            let name = format!("hypercall.{smmu}.{}", dotted(&call));
            rows.push(Row::new(name, count as f64, "instructions"));
        }
    }
    Ok(rows)
}

/// What a guest calls its numbers, as part of a name.
fn dotted(call: &str) -> String {
    let words = call.split([' ', ',', '-']).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_becomes_a_name_without_blanks() {
        assert_eq!(dotted("bind, first of a leaf"), "bind_first_of_a_leaf");
        assert_eq!(dotted("release"), "release");
    }
}
