//! Frames put away in numbered places.
//!
//! For many pieces of memory of one owner, where no list of values could be long enough: the books
//! are frames themselves, which no device is ever told of.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Frames, Platform};
use crate::addr::Pa;

/// Words of one place: the frames, and what their owner notes of them.
const WORDS_PER_PLACE: usize = 2;
const LOG2_PLACE_BYTES: u8 = 4;
const LOG2_PAGE_BYTES: u8 = 12;
/// Frames are aligned to 4 KiB at least, so their size fits below the address.
const SIZE: u64 = 0xfff;

/// Numbered places for frames. Dropping it leaks the books and what is in them.
pub(crate) struct Shelf<'p, P> {
    platform: &'p P,
    books: Frames,
}

impl<'p, P: Platform> Shelf<'p, P> {
    /// `2^log2_places` empty places; `None` if there is no memory.
    pub(crate) fn new(platform: &'p P, log2_places: u8) -> Option<Self> {
        let log2_bytes = (log2_places + LOG2_PLACE_BYTES).max(LOG2_PAGE_BYTES);
        let books = platform.allocate(log2_bytes)?;
        let this = Self { platform, books };
        for word in this.words() {
            word.store(0, Ordering::Relaxed);
        }
        Some(this)
    }

    fn words(&self) -> &[AtomicU64] {
        self.books.words(self.platform)
    }

    fn place(&self, place: usize) -> Option<(&AtomicU64, &AtomicU64)> {
        let first = place.checked_mul(WORDS_PER_PLACE)?;
        match self.words().get(first..first + WORDS_PER_PLACE)? {
            [frames, note] => Some((frames, note)),
            _ => None,
        }
    }

    /// Puts `frames` into an empty place.
    ///
    /// # Errors
    ///
    /// `frames`, if the place is taken or there is none of that number.
    pub(crate) fn put(&mut self, place: usize, frames: Frames) -> Result<(), Frames> {
        match self.place(place) {
            Some((word, note)) if word.load(Ordering::Relaxed) == 0 => {
                let entry = frames.base().as_u64() | u64::from(frames.log2_bytes());
                word.store(entry, Ordering::Relaxed);
                note.store(0, Ordering::Relaxed);
                Ok(())
            }
            _ => Err(frames),
        }
    }

    /// Where the frames of `place` begin and their size as a power of two, if it has any.
    fn extent(&self, place: usize) -> Option<(Pa, u8)> {
        let (word, _) = self.place(place)?;
        match word.load(Ordering::Relaxed) {
            0 => None,
            entry => Some((Pa::new(entry & !SIZE), (entry & SIZE) as u8)),
        }
    }

    /// The memory of the frames in `place`.
    pub(crate) fn memory(&self, place: usize) -> Option<&[AtomicU64]> {
        let (base, log2_bytes) = self.extent(place)?;
        let first = self.platform.pointer(base);
        let count = (1_usize << log2_bytes) / 8;
        // SAFETY: `put` wrote the place from frames that it owned, which stay ours until `take`,
        // and that needs this value mutably; the pointer is valid for all of them (promise of
        // `Platform`); atomics may be shared and raced on.
        Some(unsafe { core::slice::from_raw_parts(first.as_ptr(), count) })
    }

    /// Takes the frames out of `place`.
    pub(crate) fn take(&mut self, place: usize) -> Option<Frames> {
        let (base, log2_bytes) = self.extent(place)?;
        if let Some((word, _)) = self.place(place) {
            word.store(0, Ordering::Relaxed);
        }
        // SAFETY: these are the frames that `put` was given, and the place is empty now, so they
        // have one owner as before.
        Some(unsafe { Frames::new(base, log2_bytes) })
    }

    /// What is noted of the frames in `place`: 0 at first.
    pub(crate) fn note(&self, place: usize) -> u64 {
        self.place(place)
            .map_or(0, |(_, note)| note.load(Ordering::Relaxed))
    }

    /// Notes `value` of the frames in `place`.
    pub(crate) fn set_note(&mut self, place: usize, value: u64) {
        if let Some((_, note)) = self.place(place) {
            note.store(value, Ordering::Relaxed);
        }
    }

    /// The lowest place that is taken.
    pub(crate) fn first_taken(&self) -> Option<usize> {
        let places = self.words().chunks_exact(WORDS_PER_PLACE);
        places
            .map(|place| place[0].load(Ordering::Relaxed))
            .position(|entry| entry != 0)
    }

    /// The books alone, of a shelf that is empty.
    ///
    /// # Errors
    ///
    /// The shelf, if it is not.
    pub(crate) fn into_books(self) -> Result<Frames, Self> {
        match self.first_taken() {
            Some(_) => Err(self),
            None => Ok(self.books),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::HostPlatform;
    use super::*;

    #[test]
    fn frames_come_back_as_they_were_put() {
        let platform = HostPlatform::new();
        let mut shelf = Shelf::new(&platform, 8).expect("memory");
        let page = platform.allocate(12).expect("memory");
        let large = platform.allocate(16).expect("memory");
        let (at, large_at) = (page.base(), large.base());
        assert!(shelf.put(3, page).is_ok());
        assert!(shelf.put(255, large).is_ok());
        assert_eq!(shelf.memory(3).map(<[_]>::len), Some(512));
        assert_eq!(shelf.memory(255).map(<[_]>::len), Some(8192));
        assert_eq!(shelf.memory(4).map(<[_]>::len), None);
        assert_eq!(shelf.first_taken(), Some(3));
        let page = shelf.take(3).expect("it is there");
        assert_eq!((page.base(), page.log2_bytes()), (at, 12));
        assert!(shelf.take(3).is_none());
        assert_eq!(shelf.first_taken(), Some(255));
        let large = shelf.take(255).expect("it is there");
        assert_eq!((large.base(), large.log2_bytes()), (large_at, 16));
        platform.free(page);
        platform.free(large);
        platform.free(shelf.into_books().ok().expect("it is empty"));
        assert_eq!(platform.bytes_out(), 0);
    }

    #[test]
    fn a_place_is_taken_once_and_forgets_what_was_noted() {
        let platform = HostPlatform::new();
        let mut shelf = Shelf::new(&platform, 8).expect("memory");
        let mut page = || platform.allocate(12).expect("memory");
        assert!(shelf.put(0, page()).is_ok());
        shelf.set_note(0, 7);
        assert_eq!(shelf.note(0), 7);
        let refused = shelf.put(0, page()).expect_err("it is taken");
        assert!(shelf.put(256, refused).is_err());
        let mut shelf = shelf.into_books().err().expect("it is not empty");
        let first = shelf.take(0).expect("it is there");
        assert!(shelf.put(0, first).is_ok());
        assert_eq!(shelf.note(0), 0);
    }
}
