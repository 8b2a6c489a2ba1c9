//! Whether a command queue lives, and since when: one word, so that the two are never mixed up.

use super::error::Death;
use crate::hw::atomic::{AtomicU64, Ordering};

/// A word: how often the queue was set up anew \[63:40\], why it is dead \[39:32\], and with what
/// value \[31:0\].
#[derive(Debug)]
pub(super) struct QueueState(AtomicU64);

/// How often a queue was set up anew when something was asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Epoch(u32);

const EPOCH_SHIFT: u32 = 40;
const KIND_SHIFT: u32 = 32;
const EPOCHS: u32 = 1 << (64 - EPOCH_SHIFT);

const ALIVE: u64 = 0;
const FETCH_ABORTED: u64 = 1;
const UNKNOWN_ERROR: u64 = 2;
const INDEX_CORRUPT: u64 = 3;
const SERVICE_FAILURE: u64 = 4;
const GATE_CLOSED: u64 = 5;
const RECOVERING: u64 = 6;

const fn encode(epoch: Epoch, death: Option<Death>) -> u64 {
    let (kind, value) = match death {
        None => (ALIVE, 0),
        Some(Death::FetchAborted) => (FETCH_ABORTED, 0),
        Some(Death::UnknownError { code }) => (UNKNOWN_ERROR, code as u64),
        Some(Death::IndexCorrupt { cons }) => (INDEX_CORRUPT, cons as u64),
        Some(Death::ServiceFailure) => (SERVICE_FAILURE, 0),
        Some(Death::GateClosed) => (GATE_CLOSED, 0),
        Some(Death::Recovering) => (RECOVERING, 0),
    };
    (epoch.0 as u64) << EPOCH_SHIFT | kind << KIND_SHIFT | value
}

const fn decode(word: u64) -> (Epoch, Option<Death>) {
    let death = match word >> KIND_SHIFT & 0xff {
        ALIVE => None,
        FETCH_ABORTED => Some(Death::FetchAborted),
        UNKNOWN_ERROR => Some(Death::UnknownError { code: word as u8 }),
        INDEX_CORRUPT => Some(Death::IndexCorrupt { cons: word as u32 }),
        SERVICE_FAILURE => Some(Death::ServiceFailure),
        GATE_CLOSED => Some(Death::GateClosed),
        _ => Some(Death::Recovering),
    };
    (Epoch((word >> EPOCH_SHIFT) as u32), death)
}

impl QueueState {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(encode(Epoch(0), None)))
    }

    /// Since when it is as it is, and why it is dead, if it is.
    pub(super) fn look(&self) -> (Epoch, Option<Death>) {
        decode(self.0.load(Ordering::SeqCst))
    }

    /// Ends the queue that lived in `epoch`; why it is dead, which another may have said before, or
    /// of another epoch.
    pub(super) fn die(&self, epoch: Epoch, death: Death) -> Death {
        let alive = encode(epoch, None);
        let dead = encode(epoch, Some(death));
        let order = Ordering::SeqCst;
        match self.0.compare_exchange(alive, dead, order, order) {
            Ok(_) => death,
            // Alive in another epoch: whoever asked this one is told that it is over.
            Err(found) => decode(found).1.unwrap_or(Death::Recovering),
        }
    }

    /// Ends the queue, whatever it is, for `death`, in an epoch of its own: nobody who asked before
    /// is answered by what comes.
    pub(super) fn replace(&self, death: Death) -> Epoch {
        let next = |word| {
            let (Epoch(epoch), _) = decode(word);
            Epoch((epoch + 1) % EPOCHS)
        };
        let order = Ordering::SeqCst;
        let mut found = self.0.load(order);
        loop {
            let epoch = next(found);
            let dead = encode(epoch, Some(death));
            match self.0.compare_exchange_weak(found, dead, order, order) {
                Ok(_) => return epoch,
                Err(other) => found = other,
            }
        }
    }

    /// Lets the queue live that was `Recovering` in `epoch`, unless it was ended meanwhile.
    ///
    /// # Errors
    ///
    /// Why it is dead.
    pub(super) fn revive(&self, epoch: Epoch) -> Result<(), Death> {
        let dead = encode(epoch, Some(Death::Recovering));
        let alive = encode(epoch, None);
        let order = Ordering::SeqCst;
        match self.0.compare_exchange(dead, alive, order, order) {
            Ok(_) => Ok(()),
            Err(found) => Err(decode(found).1.unwrap_or(Death::Recovering)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_death_is_told_as_it_was_and_once() {
        for death in [
            Death::FetchAborted,
            Death::UnknownError { code: 0x7f },
            Death::IndexCorrupt { cons: 0xffff_ffff },
            Death::ServiceFailure,
            Death::GateClosed,
            Death::Recovering,
        ] {
            let state = QueueState::new();
            let (epoch, alive) = state.look();
            assert_eq!(alive, None);
            assert_eq!(state.die(epoch, death), death);
            assert_eq!(state.look(), (epoch, Some(death)));
            assert_eq!(
                state.die(epoch, Death::FetchAborted),
                death,
                "the first counts"
            );
        }
    }

    #[test]
    fn who_asked_an_earlier_queue_does_not_end_a_later_one() {
        let state = QueueState::new();
        let (before, _) = state.look();
        let epoch = state.replace(Death::Recovering);
        assert_ne!(before, epoch);
        assert_eq!(state.revive(epoch), Ok(()));
        assert_eq!(state.die(before, Death::FetchAborted), Death::Recovering);
        assert_eq!(state.look(), (epoch, None));
        assert_eq!(state.revive(epoch), Err(Death::Recovering), "it lives");
    }

    #[test]
    fn a_gate_that_closes_meanwhile_stays_closed() {
        let state = QueueState::new();
        let epoch = state.replace(Death::Recovering);
        state.replace(Death::GateClosed);
        assert_eq!(state.revive(epoch), Err(Death::GateClosed));
    }

    #[test]
    fn epochs_wrap_without_touching_the_rest() {
        let word = encode(Epoch(EPOCHS - 1), Some(Death::IndexCorrupt { cons: 5 }));
        let state = QueueState(AtomicU64::new(word));
        assert_eq!(state.replace(Death::GateClosed), Epoch(0));
        assert_eq!(state.look(), (Epoch(0), Some(Death::GateClosed)));
    }
}
