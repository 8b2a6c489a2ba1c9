//! Which pages of a range are taken: a bit for each, in a frame.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Frames, NoFrames, Platform};

const LOG2_BOOKS_BYTES: u8 = 12;

/// How many pages one map can have.
pub(crate) const MAX_PAGES: u64 = 8 << LOG2_BOOKS_BYTES;

/// The pages of a range, free or taken. Dropping it leaks its frame.
pub(crate) struct PageMap<'p, P> {
    platform: &'p P,
    pages: u64,
    books: Frames,
}

impl<'p, P: Platform> PageMap<'p, P> {
    /// A range of `pages` free pages; at most [`MAX_PAGES`], the rest is never given out.
    pub(crate) fn new(platform: &'p P, pages: u64) -> Result<Self, NoFrames> {
        let log2_bytes = LOG2_BOOKS_BYTES;
        let books = platform
            .allocate(log2_bytes)
            .ok_or(NoFrames { log2_bytes })?;
        for word in books.words(platform) {
            word.store(0, Ordering::Relaxed);
        }
        Ok(Self {
            platform,
            pages: pages.min(MAX_PAGES),
            books,
        })
    }

    /// How many pages there are.
    pub(crate) const fn pages(&self) -> u64 {
        self.pages
    }

    /// How many are taken.
    pub(crate) fn taken(&self) -> u64 {
        let words = self.books.words(self.platform).iter();
        words.map(|word| u64::from(get(word).count_ones())).sum()
    }

    /// The first of `2^log2_pages` free ones whose number, counted from `base`, is a multiple of
    /// that.
    pub(crate) fn find(&self, base: u64, log2_pages: u8) -> Option<u64> {
        let count = 1_u64.checked_shl(log2_pages.into())?;
        let aligned = base.checked_next_multiple_of(count)?;
        let mut first = aligned - base;
        while first.checked_add(count)? <= self.pages {
            if (first..first + count).all(|page| !self.is_taken(page)) {
                return Some(first);
            }
            first += count;
        }
        None
    }

    /// Takes pages that [`find`](Self::find) found.
    pub(crate) fn take(&mut self, first: u64, log2_pages: u8) {
        self.mark(first, log2_pages, |word, bit| word | bit);
    }

    /// Gives pages back.
    pub(crate) fn give_back(&mut self, first: u64, log2_pages: u8) {
        self.mark(first, log2_pages, |word, bit| word & !bit);
    }

    /// Whether all of these are taken.
    pub(crate) fn are_taken(&self, first: u64, log2_pages: u8) -> bool {
        let end = 1_u64
            .checked_shl(log2_pages.into())
            .and_then(|count| first.checked_add(count));
        end.is_some_and(|end| end <= self.pages && (first..end).all(|page| self.is_taken(page)))
    }

    /// Ends it.
    pub(crate) fn free(self) {
        self.platform.free(self.books);
    }

    fn word(&self, page: u64) -> Option<&AtomicU64> {
        self.books.words(self.platform).get((page / 64) as usize)
    }

    fn is_taken(&self, page: u64) -> bool {
        self.word(page)
            .is_none_or(|word| get(word) >> (page % 64) & 1 != 0)
    }

    fn mark(&mut self, first: u64, log2_pages: u8, change: impl Fn(u64, u64) -> u64) {
        for page in first..first + (1 << log2_pages) {
            if let Some(word) = self.word(page) {
                word.store(change(get(word), 1 << (page % 64)), Ordering::Relaxed);
            }
        }
    }
}

fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}
