//! Many words, most of which are never used, in pages that come when one of theirs is.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Frames, NoFrames, Platform};
use crate::addr::Pa;

const LOG2_PAGE_BYTES: u8 = 12;
const LOG2_PAGE_WORDS: u8 = 9;
const PAGE_WORDS: usize = 1 << LOG2_PAGE_WORDS;
/// How many pages the value itself leads to, as a power of two.
const LOG2_ROOT: u8 = 4;

/// A pointer to a page: where it is, and that there is one.
const PRESENT: u64 = 1;

/// Words by number, each 0 until it is set. Dropping it leaks the pages.
///
/// Up to 2^13 words, the value itself says where their pages are; up to 2^22, pages of 512 pointers
/// do. A word is found in the same number of steps whatever its number is and however many there
/// are in use. No device is ever told of the pages.
pub(crate) struct Sparse<'p, P> {
    platform: &'p P,
    root: [u64; 1 << LOG2_ROOT],
    log2_words: u8,
    pages: u32,
    #[cfg(test)]
    touched: AtomicU64,
}

impl<'p, P: Platform> Sparse<'p, P> {
    /// `2^log2_words` words, all 0, in no memory yet; at most 2^22.
    pub(crate) fn new(platform: &'p P, log2_words: u8) -> Self {
        Self {
            platform,
            root: [0; 1 << LOG2_ROOT],
            log2_words: log2_words.min(LOG2_ROOT + 2 * LOG2_PAGE_WORDS),
            pages: 0,
            #[cfg(test)]
            touched: AtomicU64::new(0),
        }
    }

    /// The way to the page that has word `index`: the root's entry, and the middle page's if there
    /// are such.
    const fn way(&self, index: u32) -> (usize, Option<usize>) {
        let page = (index >> LOG2_PAGE_WORDS) as usize;
        if self.log2_words > LOG2_ROOT + LOG2_PAGE_WORDS {
            (page >> LOG2_PAGE_WORDS, Some(page & (PAGE_WORDS - 1)))
        } else {
            (page, None)
        }
    }

    /// The words of the page that `pointer` leads to.
    fn page(&self, pointer: u64) -> Option<&[AtomicU64]> {
        if pointer & PRESENT == 0 {
            return None;
        }
        let first = self.platform.pointer(Pa::new(pointer & !PRESENT));
        // SAFETY: only `reserve` writes pointers, to pages that it has from this platform, and they
        // are ours until `free`. Atomics may be shared.
        Some(unsafe { core::slice::from_raw_parts(first.as_ptr(), PAGE_WORDS) })
    }

    /// The word `index`, if its page is there.
    fn word(&self, index: u32) -> Option<&AtomicU64> {
        let (root, middle) = self.way(index);
        let mut pointer = *self.root.get(root)?;
        self.touch();
        if let Some(middle) = middle {
            pointer = self.page(pointer)?[middle].load(Ordering::Relaxed);
            self.touch();
        }
        self.touch();
        Some(&self.page(pointer)?[index as usize & (PAGE_WORDS - 1)])
    }

    /// What the word `index` is set to.
    pub(crate) fn load(&self, index: u32) -> u64 {
        self.word(index)
            .map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Sets the word `index`, whose page was [reserved](Self::reserve).
    pub(crate) fn store(&mut self, index: u32, value: u64) {
        let word = self.word(index);
        debug_assert!(word.is_some(), "word {index} has no page");
        if let Some(word) = word {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// Takes the memory that setting the word `index` needs, if it is not there.
    ///
    /// There is no such word, or need for it, from [`new`](Self::new)'s number on: nothing is done.
    ///
    /// # Errors
    ///
    /// [`NoFrames`]; nothing was taken.
    pub(crate) fn reserve(&mut self, index: u32) -> Result<(), NoFrames> {
        if index >> self.log2_words != 0 || self.word(index).is_some() {
            return Ok(());
        }
        let (root, middle) = self.way(index);
        let page = self.take_page()?;
        let Some(middle) = middle else {
            self.root[root] = page;
            return Ok(());
        };
        if self.root[root] & PRESENT == 0 {
            match self.take_page() {
                Ok(above) => self.root[root] = above,
                Err(refusal) => {
                    self.give_page(page);
                    return Err(refusal);
                }
            }
        }
        if let Some(above) = self.page(self.root[root]) {
            above[middle].store(page, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A pointer to a page of zeros.
    fn take_page(&mut self) -> Result<u64, NoFrames> {
        let frames = Frames::allocate(self.platform, LOG2_PAGE_BYTES)?;
        for word in frames.words(self.platform) {
            word.store(0, Ordering::Relaxed);
        }
        self.pages += 1;
        Ok(frames.base().as_u64() | PRESENT)
    }

    /// Gives back the page that `pointer` leads to, to which there is no other any more.
    fn give_page(&mut self, pointer: u64) {
        if pointer & PRESENT != 0 {
            let base = Pa::new(pointer & !PRESENT);
            // SAFETY: these are the frames that `take_page` had, and this pointer was the only
            // trace of them.
            let frames = unsafe { Frames::new(base, LOG2_PAGE_BYTES) };
            self.platform.free(frames);
            self.pages -= 1;
        }
    }

    /// How much memory it has from the platform, in bytes.
    pub(crate) const fn size_bytes(&self) -> u64 {
        (self.pages as u64) << LOG2_PAGE_BYTES
    }

    /// Gives all memory back.
    pub(crate) fn free(mut self) {
        let has_middle = self.way(0).1.is_some();
        for root in core::mem::take(&mut self.root) {
            for index in 0..PAGE_WORDS {
                let below = match self.page(root) {
                    Some(middle) if has_middle => middle[index].load(Ordering::Relaxed),
                    _ => break,
                };
                self.give_page(below);
            }
            self.give_page(root);
        }
    }

    #[inline]
    fn touch(&self) {
        #[cfg(test)]
        self.touched.fetch_add(1, Ordering::Relaxed);
    }

    /// How many words were looked at or set, pointers among them.
    #[cfg(test)]
    pub(crate) fn touched(&self) -> u64 {
        self.touched.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::HostPlatform;
    use super::*;

    #[test]
    fn a_word_is_zero_until_it_is_set() {
        let platform = HostPlatform::new();
        for log2_words in [3, 9, 13, 14, 18, 22] {
            let end = 1_u32 << log2_words;
            let mut words = Sparse::new(&platform, log2_words);
            assert_eq!(words.size_bytes(), 0);
            let indices = [0, 2, 510, 512, 1 << 13, (1 << 18) - 2, 1 << 18, end - 1];
            for index in indices {
                assert_eq!(words.load(index), 0, "{index} of 2^{log2_words}");
                words.reserve(index).expect("memory");
                if index < end {
                    words.store(index, u64::from(index) + 1);
                    assert_eq!(words.load(index), u64::from(index) + 1);
                }
                assert_eq!(words.size_bytes(), platform.bytes_out());
            }
            for index in indices {
                let expected = if index < end { u64::from(index) + 1 } else { 0 };
                assert_eq!(words.load(index), expected, "{index} of 2^{log2_words}");
            }
            for index in [1, end - 3, end, end + 1, u32::MAX] {
                assert_eq!(words.load(index), 0, "{index} of 2^{log2_words}");
            }
            words.free();
            assert_eq!(platform.bytes_out(), 0);
        }
    }

    #[test]
    fn few_words_take_few_pages_and_a_refusal_takes_none() {
        let platform = HostPlatform::new();
        let mut few = Sparse::new(&platform, 13);
        few.reserve(8191).expect("memory");
        assert_eq!(few.size_bytes(), 1 << 12);
        few.free();
        let mut many = Sparse::new(&platform, 22);
        for successes in [0, 1] {
            platform.fail_after(Some(successes));
            assert_eq!(many.reserve(7), Err(NoFrames { log2_bytes: 12 }));
            assert_eq!((many.size_bytes(), platform.bytes_out()), (0, 0));
        }
        platform.fail_after(Some(2));
        many.reserve(7).expect("two pages");
        many.reserve(511).expect("it is there");
        assert_eq!(many.reserve(512), Err(NoFrames { log2_bytes: 12 }));
        assert_eq!(many.size_bytes(), 2 << 12);
        many.free();
        assert_eq!(platform.bytes_out(), 0);
    }
}
