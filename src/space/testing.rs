//! The books of numbers by themselves, for benchmarks.

use super::numbers::{self, Ask, NoNumber};
use crate::hw::Platform;

/// The numbers of one kind, from 1 on, as a guest has of PASIDs and of ASIDs, and a host of VMIDs.
///
/// Dropping it leaks its memory; [`free`](Self::free) gives it back.
pub struct Numbers<'p, P>(numbers::Numbers<'p, P>);

impl<'p, P: Platform> Numbers<'p, P> {
    /// The numbers from 1 to `2^bits - 1`.
    ///
    /// # Errors
    ///
    /// [`NoNumber::OutOfRange`] if there would be none, or `bits` is above 20.
    pub fn new(platform: &'p P, bits: u8) -> Result<Self, NoNumber> {
        numbers::Numbers::new(platform, 1, bits).map(Self)
    }

    /// Takes any.
    ///
    /// # Errors
    ///
    /// [`NoNumber::Exhausted`], [`NoNumber::NoFrames`].
    pub fn take(&mut self) -> Result<u32, NoNumber> {
        self.0.take(Ask::Any)
    }

    /// Gives one back.
    ///
    /// # Errors
    ///
    /// [`NoNumber::OutOfRange`] if it is not out.
    pub fn put_back(&mut self, number: u32) -> Result<(), NoNumber> {
        self.0
            .put_back(number)
            .map_err(|numbers::NotTaken| NoNumber::OutOfRange)
    }

    /// How many are out.
    pub fn taken(&self) -> u32 {
        self.0.taken()
    }

    /// Gives all memory back.
    pub fn free(self) {
        self.0.free();
    }
}
