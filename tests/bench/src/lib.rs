//! What Portcullis costs, beside its peers. `cargo xtask bench` runs all of it and makes one report.
//!
//! | room | what is measured there |
//! |---|---|
//! | [`model`] | SYNCs, waits, commands, bytes and model time, on the model of an SMMU: exact |
//! | [`linux`] | what Linux's driver takes for the same, by its documented formulas |
//! | [`tables`] | stage-2 tables, ours and those of `aarch64-paging`, in the same process |
//! | [`tags`] | PASIDs, ASIDs and VMIDs, however many are out |
//!
//! Times come from criterion (`benches/`), instruction counts from callgrind (`workload`), counts from
//! the library itself on the model (`counts`). A result is a line on stdout, a [`Row`].

use std::fmt;

pub mod arena;
pub mod linux;
pub mod model;
pub mod peer;
pub mod tables;
pub mod tags;

/// One result. Its [`Display`](fmt::Display) is the line that `cargo xtask bench` reads: fields with
/// a tab between them, `row` first.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Its name: dotted, and the same for ever.
    pub name: String,
    /// What was measured.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// Who else does the same, and what it costs there.
    pub peer: Option<(&'static str, f64)>,
}

impl Row {
    /// A result that nothing is compared with.
    pub fn new(name: impl Into<String>, value: u64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value: value as f64,
            unit,
            peer: None,
        }
    }

    /// The same beside a peer's.
    #[must_use]
    pub fn beside(self, peer: &'static str, value: u64) -> Self {
        Self {
            peer: Some((peer, value as f64)),
            ..self
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row\t{}\t{}\t{}", self.name, self.value, self.unit)?;
        match self.peer {
            Some((peer, value)) => write!(f, "\t{peer}\t{value}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_line_of_fields() {
        let row = Row::new("a.b", 2, "SYNCs");
        assert_eq!(row.to_string(), "row\ta.b\t2\tSYNCs");
        let row = row.beside("Linux", 129);
        assert_eq!(row.to_string(), "row\ta.b\t2\tSYNCs\tLinux\t129");
    }
}
