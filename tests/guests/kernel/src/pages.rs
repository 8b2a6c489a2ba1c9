//! The guest's memory in pages of 4 KiB.

use alloc::collections::VecDeque;
use core::ops::Range;
use core::sync::atomic::Ordering;

use spin::Mutex;

use crate::arch;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// What a page that is nobody's holds: as a table it would map everything somewhere.
pub(crate) const NOBODYS: u64 = 0x0bad_0bad_0bad_0fff;

static FREE: Mutex<VecDeque<u64>> = Mutex::new(VecDeque::new());

/// Makes `memory` pages that are nobody's.
pub(crate) fn give(memory: Range<u64>) {
    let mut free = FREE.lock();
    let first = memory.start.next_multiple_of(PAGE);
    free.extend((first..memory.end & !(PAGE - 1)).step_by(PAGE as usize));
}

/// A page of zeros.
///
/// # Panics
///
/// If there is none.
pub(crate) fn take() -> u64 {
    let page = FREE.lock().pop_front().expect("a page");
    fill(page, 0);
    page
}

/// Pages of zeros one after the other, aligned to all of them.
///
/// # Panics
///
/// If there are none.
pub(crate) fn take_run(count: u64) -> u64 {
    let mut free = FREE.lock();
    let bytes = count * PAGE;
    let mut starts = free.iter().copied().filter(|at| at % bytes == 0);
    let start = starts
        .find(|start| {
            (*start..start + bytes)
                .step_by(PAGE as usize)
                .all(|at| free.contains(&at))
        })
        .expect("pages in a row");
    free.retain(|at| !(start..start + bytes).contains(at));
    drop(free);
    for at in (start..start + bytes).step_by(PAGE as usize) {
        fill(at, 0);
    }
    start
}

/// Makes a page nobody's; all others are taken before it is again.
pub(crate) fn put_back(page: u64) {
    fill(page, NOBODYS);
    FREE.lock().push_back(page);
}

/// Fills a page with one word.
pub(crate) fn fill(page: u64, word: u64) {
    for at in (page..page + PAGE).step_by(8) {
        store(at, word);
    }
    arch::barrier();
}

/// Whether a page holds one word throughout.
pub(crate) fn holds(page: u64, word: u64) -> bool {
    arch::barrier();
    (page..page + PAGE).step_by(8).all(|at| load(at) == word)
}

/// The word at `at`.
pub(crate) fn load(at: u64) -> u64 {
    arch::word(at).load(Ordering::Relaxed)
}

/// Stores the word at `at`.
pub(crate) fn store(at: u64, word: u64) {
    arch::word(at).store(word, Ordering::Relaxed);
}
