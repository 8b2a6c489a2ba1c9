//! Memory for tables, touched before anything is measured.
#![expect(
    unsafe_code,
    reason = "implementing `Platform` is the one promise that a host makes"
)]

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use portcullis::addr::Pa;
use portcullis::hw::{Clock, Frames, Mmio, Platform};

const PAGE_BYTES: usize = 1 << 12;

/// A page of memory, aligned as one.
#[repr(C, align(4096))]
struct Page(UnsafeCell<[u8; PAGE_BYTES]>);

#[derive(Default)]
struct Books {
    /// The first byte that was never given out.
    fresh: u64,
    back: BTreeMap<u8, Vec<u64>>,
    bytes_out: u64,
}

/// Pages, all of them written once; a physical address is the host's own.
///
/// What comes back goes out again first: frames are as warm as those of a host that runs.
pub struct Arena {
    pages: Box<[Page]>,
    books: Mutex<Books>,
}

// SAFETY: the pages are reached through pointers alone, as their owners say (`Platform`).
unsafe impl Sync for Arena {}

impl Arena {
    /// So many MiB.
    pub fn new(mib: usize) -> Self {
        // Written, and not merely zero: else the first to come would pay for the host's page.
        let page = |_| Page(UnsafeCell::new([0xff; PAGE_BYTES]));
        let pages: Box<[Page]> = (0..mib << 8).map(page).collect();
        let fresh = pages.as_ptr().expose_provenance() as u64;
        Self {
            pages,
            books: Mutex::new(Books {
                fresh,
                ..Books::default()
            }),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes are out.
    pub fn bytes_out(&self) -> u64 {
        self.books().bytes_out
    }

    fn end(&self) -> u64 {
        self.pages.as_ptr().addr() as u64 + (self.pages.len() * PAGE_BYTES) as u64
    }

    /// A page, if there is one.
    pub fn take_page(&self) -> Option<u64> {
        self.take(12)
    }

    /// Takes a page back.
    pub fn give_page(&self, base: u64) {
        self.give(base, 12);
    }

    fn take(&self, log2_bytes: u8) -> Option<u64> {
        let mut books = self.books();
        let base = match books.back.get_mut(&log2_bytes).and_then(Vec::pop) {
            Some(base) => base,
            None => {
                let base = books.fresh.next_multiple_of(1 << log2_bytes);
                let end = base.checked_add(1 << log2_bytes)?;
                if end > self.end() {
                    return None;
                }
                books.fresh = end;
                base
            }
        };
        books.bytes_out += 1 << log2_bytes;
        Some(base)
    }

    fn give(&self, base: u64, log2_bytes: u8) {
        let mut books = self.books();
        books.bytes_out -= 1 << log2_bytes;
        books.back.entry(log2_bytes).or_default().push(base);
    }
}

impl Clock for Arena {
    fn now_us(&self) -> u64 {
        0
    }
}

// SAFETY: `take` gives each piece out once until it comes back; a physical address is the pointer,
// into pages that live as long as the arena.
unsafe impl Platform for Arena {
    type Registers = Mmio;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        let base = self.take(log2_bytes)?;
        // SAFETY: `take` gave it to nobody else, aligned to its size.
        Some(unsafe { Frames::new(Pa::new(base), log2_bytes) })
    }

    fn free(&self, frames: Frames) {
        self.give(frames.base().as_u64(), frames.log2_bytes());
    }

    #[inline]
    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        let pointer = std::ptr::with_exposed_provenance_mut(at.as_u64() as usize);
        NonNull::new(pointer).expect("no page is at address 0")
    }

    // As the image has it.
    #[inline]
    fn clear(&self, words: &[AtomicU64]) {
        let first = words.as_ptr().cast_mut();
        // SAFETY: words are interior mutable, and the caller says that nobody else uses these.
        unsafe { std::ptr::write_bytes(first, 0, words.len()) };
    }

    fn clean(&self, words: &[AtomicU64]) {
        // The walkers of these tables are coherent: nobody asks for it.
        let _ = words;
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}
