//! Which commands failed, until their issuers ask.

use super::command_queue::Unconfirmed;
use super::error::CommandError;

/// How many failures are kept with their reason.
const KEPT: usize = 16;

/// The commands that failed and were not yet asked for, by position.
///
/// Bounded: when there are more, the oldest is forgotten, and every train that reaches back that
/// far then counts as failed. Nobody is ever told "done" for want of room.
pub(super) struct Failures {
    kept: [Option<(u64, CommandError)>; KEPT],
    /// Below this position, failures may have been forgotten.
    forgotten_below: u64,
}

impl Failures {
    pub(super) const fn new() -> Self {
        Self {
            kept: [None; KEPT],
            forgotten_below: 0,
        }
    }

    /// Notes that the command at `position` failed.
    pub(super) fn note(&mut self, position: u64, error: CommandError) {
        let slot = match self.kept.iter().position(Option::is_none) {
            Some(free) => free,
            None => self.forget_oldest(),
        };
        self.kept[slot] = Some((position, error));
    }

    fn forget_oldest(&mut self) -> usize {
        let (slot, oldest) = self
            .kept
            .iter()
            .enumerate()
            .filter_map(|(slot, kept)| kept.map(|(position, _)| (slot, position)))
            .min_by_key(|(_, position)| *position)
            .unwrap_or((0, 0));
        self.forgotten_below = self.forgotten_below.max(oldest + 1);
        slot
    }

    /// What became of the train from `start` up to, not including, `end`; forgets it.
    ///
    /// A device that did not answer counts only if nothing else failed: with that error, everything
    /// but devices' caches is confirmed.
    pub(super) fn take(&mut self, start: u64, end: u64) -> Result<(), Unconfirmed> {
        let mut first: Option<(bool, u64, CommandError)> = None;
        for slot in &mut self.kept {
            if let Some((position, error)) = *slot
                && (start..end).contains(&position)
            {
                *slot = None;
                let is_devices = error == CommandError::AtcTimeout;
                if first
                    .is_none_or(|(devices, earlier, _)| (is_devices, position) < (devices, earlier))
                {
                    first = Some((is_devices, position, error));
                }
            }
        }
        match first {
            _ if start < self.forgotten_below => Err(Unconfirmed {
                error: CommandError::Forgotten,
                below: start,
            }),
            Some((_, below, error)) => Err(Unconfirmed { error, below }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATC: CommandError = CommandError::AtcTimeout;

    fn illegal(word: u64) -> CommandError {
        CommandError::Illegal { words: [word, 0] }
    }

    fn failed<T>(error: CommandError, below: u64) -> Result<T, Unconfirmed> {
        Err(Unconfirmed { error, below })
    }

    #[test]
    fn an_issuer_is_told_of_its_own_failure_and_once() {
        let mut failures = Failures::new();
        failures.note(5, illegal(1));
        assert_eq!(failures.take(0, 5), Ok(()));
        assert_eq!(failures.take(6, 9), Ok(()));
        assert_eq!(failures.take(4, 6), failed(illegal(1), 5));
        assert_eq!(failures.take(4, 6), Ok(()));
    }

    #[test]
    fn the_first_of_several_is_told_and_all_are_taken() {
        let mut failures = Failures::new();
        failures.note(7, ATC);
        failures.note(5, illegal(2));
        assert_eq!(failures.take(0, 10), failed(illegal(2), 5));
        assert_eq!(failures.take(0, 10), Ok(()));
    }

    /// Whoever is told of a device alone believes that everything else took effect.
    #[test]
    fn a_device_that_did_not_answer_hides_no_other_failure() {
        for order in [[3, 7], [7, 3]] {
            let mut failures = Failures::new();
            failures.note(order[0], ATC);
            failures.note(order[1], illegal(4));
            assert_eq!(failures.take(0, 10), failed(illegal(4), order[1]));
            assert_eq!(failures.take(0, 10), Ok(()));
        }
        let mut failures = Failures::new();
        failures.note(3, ATC);
        assert_eq!(failures.take(0, 10), failed(ATC, 3));
    }

    #[test]
    fn what_was_forgotten_counts_as_failed() {
        let mut failures = Failures::new();
        for position in 0..=KEPT as u64 {
            failures.note(position * 10, illegal(position));
        }
        assert_eq!(failures.take(0, 1), failed(CommandError::Forgotten, 0));
        assert_eq!(failures.take(10, 11), failed(illegal(1), 10));
        // It reaches back to where something was forgotten only if it starts there.
        assert_eq!(failures.take(1, 9), Ok(()));
    }
}
