//! Memory for host tests: frames from the host's allocator, with what a device could notice
//! written down, and allocations that fail on request.
//!
//! For tests only: it uses the host's standard library, and locks.

extern crate std;

use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::alloc::Layout;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::vec::Vec;

use super::{Barrier, Clock, Frames, Mmio, Platform};
use crate::addr::Pa;

/// Something that a device could notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A store of this value to the word at this address.
    Store(Pa, u64),
    /// A clean of that many words from this address.
    Clean(Pa, usize),
    /// A barrier.
    Barrier(Barrier),
}

#[derive(Debug, Default)]
struct Books {
    /// The size of each piece that is out, by its address.
    out: BTreeMap<u64, u8>,
    /// Pieces that came back, by size.
    back: BTreeMap<u8, Vec<u64>>,
    allocations: u64,
    fail_at: Option<u64>,
    log: Vec<Access>,
}

/// The host's memory as a platform; a physical address is the host's own.
///
/// Fresh frames are full of ones, so that what is not initialised shows. What comes back goes out
/// again first, the latest before the others, so that what is used after it was freed meets its
/// next user. The host gets all of it back when the platform is dropped.
#[derive(Debug)]
pub struct HostPlatform {
    start: Instant,
    is_logging: AtomicBool,
    books: Mutex<Books>,
}

impl Default for HostPlatform {
    fn default() -> Self {
        Self::new()
    }
}

impl HostPlatform {
    /// A platform with as much memory as the host has.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            is_logging: AtomicBool::new(false),
            books: Mutex::new(Books::default()),
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes are out.
    pub fn bytes_out(&self) -> u64 {
        self.books().out.values().map(|log2| 1 << log2).sum()
    }

    /// The `count` words at `at`, as a device finds them; `None` if not all of them are out.
    pub fn read(&self, at: Pa, count: usize) -> Option<Vec<u64>> {
        let books = self.books();
        let (base, log2_bytes) = books.out.range(..=at.as_u64()).next_back()?;
        let end = at.as_u64().checked_add(8 * count as u64)?;
        if !at.is_aligned(3) || end > base + (1 << log2_bytes) {
            return None;
        }
        let first = self.pointer(at);
        // SAFETY: these words lie in frames that are out, which the lock keeps so meanwhile.
        let words = unsafe { core::slice::from_raw_parts(first.as_ptr(), count) };
        Some(words.iter().map(|word| self.load(word)).collect())
    }

    /// How many allocations were asked for so far.
    pub fn allocations(&self) -> u64 {
        self.books().allocations
    }

    /// Lets the allocation after the next `successes` fail, and all after that; `None`: none.
    pub fn fail_after(&self, successes: Option<u64>) {
        let mut books = self.books();
        books.fail_at = successes.map(|successes| books.allocations + successes);
    }

    /// Runs `work` and says what a device could have noticed meanwhile.
    pub fn logged<R>(&self, work: impl FnOnce() -> R) -> (R, Vec<Access>) {
        self.books().log.clear();
        self.is_logging.store(true, Ordering::Relaxed);
        let result = work();
        self.is_logging.store(false, Ordering::Relaxed);
        (result, core::mem::take(&mut self.books().log))
    }

    #[inline]
    fn note(&self, access: impl FnOnce() -> Access) {
        if self.is_logging.load(Ordering::Relaxed) {
            self.books().log.push(access());
        }
    }
}

impl Drop for HostPlatform {
    fn drop(&mut self) {
        let mut books = self.books();
        for (base, log2_bytes) in core::mem::take(&mut books.out) {
            release(base, log2_bytes);
        }
        for (log2_bytes, pieces) in core::mem::take(&mut books.back) {
            pieces
                .into_iter()
                .for_each(|base| release(base, log2_bytes));
        }
    }
}

fn layout(log2_bytes: u8) -> Layout {
    let bytes = 1 << log2_bytes;
    Layout::from_size_align(bytes, bytes).expect("sizes of frames are powers of two")
}

fn fetch(log2_bytes: u8) -> Option<u64> {
    // SAFETY: the layout is not empty.
    let pointer = unsafe { std::alloc::alloc(layout(log2_bytes)) };
    Some(NonNull::new(pointer)?.as_ptr().expose_provenance() as u64)
}

fn release(base: u64, log2_bytes: u8) {
    let pointer = core::ptr::with_exposed_provenance_mut(base as usize);
    // SAFETY: `fetch` had it from there with this layout, and it was not released since: it stood
    // in one of the lists.
    unsafe { std::alloc::dealloc(pointer, layout(log2_bytes)) };
}

fn address(word: &AtomicU64) -> Pa {
    Pa::new(core::ptr::from_ref(word).addr() as u64)
}

impl Clock for HostPlatform {
    fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

// SAFETY: frames are fresh memory of the host's allocator, of which it makes no reference; they
// are out until `free`; a physical address is the pointer; `store` stores to the word.
unsafe impl Platform for HostPlatform {
    type Registers = Mmio;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        let mut books = self.books();
        let number = books.allocations;
        books.allocations += 1;
        if books.fail_at.is_some_and(|at| number >= at) {
            return None;
        }
        let pieces = books.back.entry(log2_bytes).or_default();
        let base = match pieces.pop() {
            Some(base) => base,
            None => fetch(log2_bytes)?,
        };
        let first = core::ptr::with_exposed_provenance_mut::<u8>(base as usize);
        // SAFETY: these bytes are the host's allocator's and not out.
        unsafe { first.write_bytes(0xff, 1 << log2_bytes) };
        books.out.insert(base, log2_bytes);
        // SAFETY: the host's allocator gives memory to one owner, aligned as the layout says.
        Some(unsafe { Frames::new(Pa::new(base), log2_bytes) })
    }

    fn free(&self, frames: Frames) {
        let (base, log2_bytes) = (frames.base().as_u64(), frames.log2_bytes());
        let mut books = self.books();
        let out = books.out.remove(&base);
        assert_eq!(out, Some(log2_bytes), "these frames were not out");
        books.back.entry(log2_bytes).or_default().push(base);
    }

    #[inline]
    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        let pointer = core::ptr::with_exposed_provenance_mut(at.as_u64() as usize);
        NonNull::new(pointer).expect("no frame is at address 0")
    }

    fn clean(&self, words: &[AtomicU64]) {
        if let Some(first) = words.first() {
            self.note(|| Access::Clean(address(first), words.len()));
        }
    }

    fn peek(&self, at: Pa) -> Option<u64> {
        self.read(at, 1)?.first().copied()
    }

    #[inline]
    fn store(&self, word: &AtomicU64, value: u64) {
        word.store(value, Ordering::Relaxed);
        self.note(|| Access::Store(address(word), value));
    }

    fn barrier(&self, kind: Barrier) {
        super::mmio::barrier(kind);
        self.note(|| Access::Barrier(kind));
    }
}
