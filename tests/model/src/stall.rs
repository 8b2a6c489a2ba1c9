//! Stalled transactions: STAG, RESUME, STALL_TERM, early retry (§3.12.2, §4.6).

use crate::transaction::Outcome;

/// What became of a transaction that had stalled.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// The ticket of [`Outcome::Stalled`].
    pub ticket: u64,
    /// Its end; [`Outcome::Stalled`] again never appears here.
    pub outcome: Outcome,
}
