//! What owners, locks and queues rest on: the compiler's atomics, or loom's where its tests are built.
//!
//! Not those of memory that a device sees: these are words of [`Frames`](super::Frames).

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(all(test, loom)))]
pub(super) use spin::{Mutex, MutexGuard};

#[cfg(all(test, loom))]
pub(super) use mutex::{Mutex, MutexGuard};

/// loom's lock, with the few methods of the other.
#[cfg(all(test, loom))]
mod mutex {
    pub(crate) type MutexGuard<'a, T> = loom::sync::MutexGuard<'a, T>;

    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            self.0.try_lock().ok()
        }

        pub(crate) fn into_inner(self) -> T {
            match self.0.into_inner() {
                Ok(value) => value,
                Err(poisoned) => poisoned.into_inner(),
            }
        }
    }
}
