//! How something came to be: the store, the cached item, the transaction.

use std::fmt;

/// Where a cached item came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The physical address that the item was read from (the last descriptor, for a translation).
    pub pa: u64,
    /// What was read there (word 0 of a structure).
    pub value: u64,
    /// The step of the run in which it was read; [`Record::step`](crate::Record::step) counts.
    pub step: u64,
}

/// One line of a story.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoryLine {
    /// The driver stored `value` at `pa`.
    Stored {
        /// When.
        step: u64,
        /// Where.
        pa: u64,
        /// What.
        value: u64,
    },
    /// The SMMU remembered `item`, read at `origin`.
    Cached {
        /// What it is, with its tags.
        item: String,
        /// Where and when it was read.
        origin: Origin,
    },
    /// Something was done: a transaction, a command, a claim, a register write.
    Happened {
        /// When.
        step: u64,
        /// What, in words.
        what: String,
    },
}

impl fmt::Display for StoryLine {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored { step, pa, value } => {
                write!(
                    to,
                    "step {step}: the driver stored {value:#018x} at {pa:#x}"
                )
            }
            Self::Cached { item, origin } => write!(
                to,
                "step {}: the SMMU read {:#018x} at {:#x} and kept {item}",
                origin.step, origin.value, origin.pa
            ),
            Self::Happened { step, what } => write!(to, "step {step}: {what}"),
        }
    }
}

/// The shortest list of what led to a violation, in order of time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Story(pub Vec<StoryLine>);

impl fmt::Display for Story {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.0 {
            writeln!(to, "  {line}")?;
        }
        Ok(())
    }
}
