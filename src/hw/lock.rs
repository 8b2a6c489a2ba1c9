//! A lock whose waiting goes through the platform.

use super::Clock;
use super::atomic::{Mutex, MutexGuard};

/// What is held while the value of a [`Lock`] is in use; dropping it lets others go on.
pub(crate) type Guard<'a, T> = MutexGuard<'a, T>;

/// A spin lock in which each turn of a wait is [`Clock::relax`].
///
/// So a test can make every wait a point at which others run, and a host can yield. Held for a few
/// stores, never across a wait for hardware: that it is not bounded rests on this.
#[derive(Debug)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    /// A lock that nobody holds.
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Waits until nobody holds it, and holds it.
    pub(crate) fn lock(&self, clock: &impl Clock) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.0.try_lock() {
                return guard;
            }
            clock.relax();
        }
    }

    /// The value.
    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::{Cell, RefCell};

    /// A clock on which the holder lets go at the third turn.
    struct Turns<'a> {
        held: RefCell<Option<Guard<'a, u32>>>,
        turns: Cell<u32>,
    }

    impl Clock for Turns<'_> {
        fn now_us(&self) -> u64 {
            0
        }

        fn relax(&self) {
            self.turns.set(self.turns.get() + 1);
            if self.turns.get() == 3 {
                self.held.borrow_mut().take();
            }
        }
    }

    #[test]
    fn each_turn_of_a_wait_is_the_clocks() {
        let lock = Lock::new(7);
        let free = Turns {
            held: RefCell::new(None),
            turns: Cell::new(0),
        };
        let clock = Turns {
            held: RefCell::new(Some(lock.lock(&free))),
            turns: Cell::new(0),
        };
        assert_eq!(free.turns.get(), 0, "nobody held it");
        *lock.lock(&clock) += 1;
        assert_eq!(clock.turns.get(), 3);
        drop(clock);
        assert_eq!(lock.into_inner(), 8);
    }
}
