//! Table pages, carved from larger frames.
//!
//! A chunk is `2^n` pages from [`Platform::allocate`]. Its first page holds the books of all its
//! pages, so that nothing is ever written to a page that an SMMU may still walk, and the chunk of
//! a page is found by masking its address. Taking and giving back a page is constant work.
//!
//! A chunk goes back to the platform when the last of its pages is given back, save one that is
//! kept, so that a table that comes and goes at the border does not take frames each time. A chunk
//! of which a page never comes back never goes back either.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Frames, Platform};
use crate::addr::Pa;

/// Why there are no table pages. Nothing was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoTables {
    /// The platform has no more frames.
    NoFrames {
        /// How many bytes in one piece were asked for, as a power of two.
        log2_bytes: u8,
    },
    /// The frames that the platform has lie above the output addresses of the tables.
    FramesTooHigh {
        /// Where they lie.
        base: Pa,
    },
    /// The tables would be more than the quota.
    OverQuota {
        /// How many pages there would be.
        pages: u64,
        /// How many there may be.
        quota_pages: u64,
    },
}

/// Words of a chunk's first page. Page numbers are counted in the 4 KiB units of a physical
/// address, whatever the size of a page; 0 is none, for the first page of a chunk is never a table.
const NEXT_CHUNK: usize = 0;
const PREVIOUS_CHUNK: usize = 1;
const FREE_FIRST: usize = 2;
const FREE_COUNT: usize = 3;
/// The lowest page that was never taken.
const FRESH: usize = 4;
/// The record of the chunk's page number `n` is word `RECORDS + n`.
const RECORDS: usize = 8;

/// A record: the number of the next page of the same list, how many entries of the table are
/// valid, and where the page is in its life.
const LINK_BITS: u32 = 40;
const LINK: u64 = (1 << LINK_BITS) - 1;
const LIVE_ONE: u64 = 1 << LINK_BITS;
const LIVE: u64 = 0x3fff << LINK_BITS;
const STATE: u64 = 0xff << 56;
const FREE: u64 = 0 << 56;
const RESERVED: u64 = 1 << 56;
const IN_TREE: u64 = 2 << 56;
const RETIRED: u64 = 3 << 56;

/// At most as many pages as the smallest first page has records for.
const LOG2_PAGES_MAX: u8 = 8;

#[inline]
fn get(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

#[inline]
fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

/// Pages that left the tree and may still be walked; a list through the books.
///
/// Dropping it leaks the pages.
pub(crate) struct Chain<'p, P> {
    platform: &'p P,
    log2_page: u8,
    log2_chunk: u8,
    owner: Pa,
    count: u32,
    first: u64,
    last: u64,
}

impl<P> Chain<'_, P> {
    /// How many pages it has.
    pub(crate) const fn count(&self) -> u64 {
        self.count as u64
    }
}

impl<P: Platform> Chain<'_, P> {
    /// Puts the pages of `more` behind its own.
    ///
    /// # Errors
    ///
    /// `more`, if it comes from another pool.
    pub(crate) fn append(&mut self, more: Self) -> Result<(), Self> {
        if !self.is_like(&more) {
            return Err(more);
        }
        if self.count == 0 {
            *self = more;
        } else if more.count != 0 {
            let books = Books::of(self.platform, self.last, self.log2_chunk);
            set(
                books.record(self.last, self.log2_page),
                RETIRED | more.first,
            );
            self.last = more.last;
            self.count += more.count;
        }
        Ok(())
    }

    fn is_like(&self, other: &Self) -> bool {
        core::ptr::eq(self.platform, other.platform)
            && (self.log2_page, self.log2_chunk) == (other.log2_page, other.log2_chunk)
            && self.owner == other.owner
    }
}

/// The books of one chunk.
struct Books<'a>(&'a [AtomicU64]);

impl<'a> Books<'a> {
    /// The books of the chunk that has `page`, one of a living pool or chain.
    #[inline]
    fn of<P: Platform>(platform: &'a P, page: u64, log2_chunk: u8) -> Self {
        let chunk = (page << 12) & !((1 << log2_chunk) - 1);
        let first = platform.pointer(Pa::new(chunk));
        // SAFETY: a chunk is at least two pages of at least 4096 bytes, aligned to its size, from
        // `Platform::allocate` of this very platform, and goes back only when none of its pages is
        // in the tree, in a reserve or in a chain. Atomics may be shared.
        Self(unsafe { core::slice::from_raw_parts(first.as_ptr(), 512) })
    }

    #[inline]
    fn word(&self, index: usize) -> &'a AtomicU64 {
        &self.0[index]
    }

    #[inline]
    fn record(&self, page: u64, log2_page: u8) -> &'a AtomicU64 {
        let number = page >> (log2_page - 12) & ((1 << LOG2_PAGES_MAX) - 1);
        &self.0[RECORDS + number as usize]
    }
}

/// How a pool takes its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolShape {
    /// How many table pages there may be, those that wait for an invalidation among them, the root
    /// not.
    pub quota_pages: u64,
    /// How many pages are asked of the platform in one piece, as a power of two, 1 to 8. The first
    /// of them holds the books.
    pub log2_pages_per_chunk: u8,
}

/// Frames that descriptors can point to.
pub(super) fn allocate<P: Platform>(
    platform: &P,
    log2_bytes: u8,
    output_bits: u8,
) -> Result<Frames, NoTables> {
    let frames = platform
        .allocate(log2_bytes)
        .ok_or(NoTables::NoFrames { log2_bytes })?;
    let base = frames.base();
    if (base.as_u64() + (frames.size_bytes() - 1)) >> output_bits != 0 {
        platform.free(frames);
        return Err(NoTables::FramesTooHigh { base });
    }
    Ok(frames)
}

/// The pages of one tree.
pub(super) struct Pool<'p, P> {
    platform: &'p P,
    log2_page: u8,
    log2_chunk: u8,
    /// Addresses end here.
    output_bits: u8,
    /// Where its tree's root is: no other pool has it, for the root is not given back while a page
    /// is out.
    owner: Pa,
    quota_pages: u64,
    used_pages: u64,
    /// The first chunk that has pages in use and free ones.
    partial: u64,
    spare: Option<Frames>,
    /// Pages taken in advance, listed; changed by the tree's editor, which is alone.
    reserve: AtomicU64,
}

impl<'p, P: Platform> Pool<'p, P> {
    /// An empty pool for the tree whose root is at `root`: frames that stay out at least until
    /// every page is back.
    pub(super) fn new(
        platform: &'p P,
        root: Pa,
        log2_page: u8,
        output_bits: u8,
        shape: PoolShape,
    ) -> Self {
        let log2_pages = shape.log2_pages_per_chunk.clamp(1, LOG2_PAGES_MAX);
        Self {
            platform,
            log2_page,
            log2_chunk: log2_page + log2_pages,
            output_bits,
            owner: root,
            quota_pages: shape.quota_pages,
            used_pages: 0,
            partial: 0,
            spare: None,
            reserve: AtomicU64::new(0),
        }
    }

    /// How many pages are not free: in the tree, or not yet given back.
    pub(super) const fn used_pages(&self) -> u64 {
        self.used_pages
    }

    #[inline]
    fn books(&self, page: u64) -> Books<'p> {
        Books::of(self.platform, page, self.log2_chunk)
    }

    #[inline]
    fn record(&self, page: u64) -> &'p AtomicU64 {
        self.books(page).record(page, self.log2_page)
    }

    /// Puts `count` pages aside for [`reserved`](Self::reserved).
    pub(super) fn reserve(&mut self, count: u64) -> Result<(), NoTables> {
        let pages = self.used_pages + count;
        if pages > self.quota_pages {
            return Err(NoTables::OverQuota {
                pages,
                quota_pages: self.quota_pages,
            });
        }
        let had_spare = self.spare.is_some();
        // Taken from the front and listed in that order, so that neighbours are filled in turn.
        let mut last = 0;
        for _ in 0..count {
            match self.take() {
                Ok(page) => {
                    set(self.record(page), RESERVED);
                    match last {
                        0 => set(&self.reserve, page),
                        last => set(self.record(last), RESERVED | page),
                    }
                    last = page;
                }
                Err(refusal) => {
                    self.release_reserve();
                    if !had_spare {
                        self.release_spare();
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Gives back what was reserved and not used.
    pub(super) fn release_reserve(&mut self) {
        self.give(get(&self.reserve));
        set(&self.reserve, 0);
    }

    /// One page of the reserve, as part of the tree from now on; `None` if it is used up.
    ///
    /// The caller is alone with the pool (the tree's editor is), or pages could be handed out
    /// twice.
    pub(super) fn reserved(&self) -> Option<Pa> {
        let page = get(&self.reserve);
        if page == 0 {
            return None;
        }
        let record = self.record(page);
        set(&self.reserve, get(record) & LINK);
        set(record, IN_TREE);
        Some(Pa::new(page << 12))
    }

    /// An empty chain for pages of this pool.
    pub(super) const fn chain(&self) -> Chain<'p, P> {
        Chain {
            platform: self.platform,
            log2_page: self.log2_page,
            log2_chunk: self.log2_chunk,
            owner: self.owner,
            first: 0,
            last: 0,
            count: 0,
        }
    }

    /// Whether `chain` is for pages of this pool.
    #[inline]
    pub(super) fn owns(&self, chain: &Chain<'p, P>) -> bool {
        chain.is_like(&self.chain())
    }

    /// Moves pages from the tree to `chain`, which is [this pool's](Self::owns); one that was not in
    /// the tree any more stays where it is.
    #[inline]
    pub(super) fn retire(&self, pages: impl Iterator<Item = Pa>, chain: &mut Chain<'p, P>) {
        let (mut first, mut last, mut count) = (chain.first, chain.last, chain.count);
        let (platform, log2_chunk, log2_page) = (self.platform, self.log2_chunk, self.log2_page);
        for at in pages {
            let page = at.as_u64() >> 12;
            let record = Books::of(platform, page, log2_chunk).record(page, log2_page);
            if get(record) & STATE != IN_TREE {
                continue;
            }
            set(record, RETIRED | first);
            if first == 0 {
                last = page;
            }
            first = page;
            count += 1;
        }
        (chain.first, chain.last, chain.count) = (first, last, count);
    }

    /// Takes the pages of `chain` back; they are free from now on.
    ///
    /// # Errors
    ///
    /// `chain`, if it is another pool's.
    pub(super) fn reclaim(&mut self, chain: Chain<'p, P>) -> Result<(), Chain<'p, P>> {
        if !self.owns(&chain) {
            return Err(chain);
        }
        self.give(chain.first);
        Ok(())
    }

    /// How many entries of the table at `at` are valid.
    #[inline]
    pub(super) fn live(&self, at: Pa) -> u64 {
        (get(self.record(at.as_u64() >> 12)) & LIVE) >> LINK_BITS
    }

    /// Notes that `change` more entries of the table at `at` are valid.
    #[inline]
    pub(super) fn change_live(&self, at: Pa, change: i64) {
        let record = self.record(at.as_u64() >> 12);
        let changed = get(record).wrapping_add((change as u64).wrapping_mul(LIVE_ONE));
        set(record, changed);
    }

    fn take(&mut self) -> Result<u64, NoTables> {
        if self.partial == 0 {
            self.open_chunk()?;
        }
        let chunk = self.partial;
        let books = self.books(chunk);
        let mut page = get(books.word(FREE_FIRST));
        if page == 0 {
            let fresh = get(books.word(FRESH));
            page = chunk + (fresh << (self.log2_page - 12));
            set(books.word(FRESH), fresh + 1);
        } else {
            set(books.word(FREE_FIRST), get(self.record(page)) & LINK);
        }
        let free = get(books.word(FREE_COUNT)) - 1;
        set(books.word(FREE_COUNT), free);
        if free == 0 {
            self.unlist(chunk);
        }
        self.used_pages += 1;
        Ok(page)
    }

    /// Makes the pages of a list free.
    fn give(&mut self, first: u64) {
        let mut page = first;
        while page != 0 {
            page = self.give_of_one_chunk(page);
        }
    }

    /// Makes the pages of a list free, from `first` on as far as they are of its chunk: they stay
    /// linked as they are. The one after them.
    fn give_of_one_chunk(&mut self, first: u64) -> u64 {
        let chunk = first & !self.page_mask();
        let books = self.books(first);
        let (log2_page, page_mask) = (self.log2_page, self.page_mask());
        let (mut page, mut count) = (first, 0);
        let next = loop {
            let record = books.record(page, log2_page);
            let next = get(record) & LINK;
            count += 1;
            if next == 0 || next & !page_mask != chunk {
                set(record, FREE | get(books.word(FREE_FIRST)));
                break next;
            }
            set(record, FREE | next);
            page = next;
        };
        set(books.word(FREE_FIRST), first);
        let were_free = get(books.word(FREE_COUNT));
        let free = were_free + count;
        set(books.word(FREE_COUNT), free);
        self.used_pages -= count;
        if were_free == 0 {
            self.list(chunk);
        }
        if free == self.pages_per_chunk() {
            self.unlist(chunk);
            self.close_chunk(chunk);
        }
        next
    }

    /// Pages of a chunk, without the one for the books.
    const fn pages_per_chunk(&self) -> u64 {
        (1 << (self.log2_chunk - self.log2_page)) - 1
    }

    const fn page_mask(&self) -> u64 {
        (1 << (self.log2_chunk - 12)) - 1
    }

    fn open_chunk(&mut self) -> Result<(), NoTables> {
        let frames = match self.spare.take() {
            Some(frames) => frames,
            None => allocate(self.platform, self.log2_chunk, self.output_bits)?,
        };
        let chunk = frames.base().as_u64() >> 12;
        let books = self.books(chunk);
        set(books.word(FREE_FIRST), 0);
        set(books.word(FREE_COUNT), self.pages_per_chunk());
        set(books.word(FRESH), 1);
        self.list(chunk);
        Ok(())
    }

    fn close_chunk(&mut self, chunk: u64) {
        // SAFETY: `open_chunk` had these frames from the platform and let go of the value; all
        // pages of the chunk are free, so that nothing refers to it any more, and it is on no list.
        let frames = unsafe { Frames::new(Pa::new(chunk << 12), self.log2_chunk) };
        match self.spare {
            None => self.spare = Some(frames),
            Some(_) => self.platform.free(frames),
        }
    }

    pub(super) fn release_spare(&mut self) {
        if let Some(frames) = self.spare.take() {
            self.platform.free(frames);
        }
    }

    /// Ends the pool: the chunk that was kept goes back.
    ///
    /// Chunks of which a page is out stay out as well.
    pub(super) fn close(mut self) {
        self.release_reserve();
        self.release_spare();
    }

    fn list(&mut self, chunk: u64) {
        let books = self.books(chunk);
        set(books.word(PREVIOUS_CHUNK), 0);
        set(books.word(NEXT_CHUNK), self.partial);
        if self.partial != 0 {
            set(self.books(self.partial).word(PREVIOUS_CHUNK), chunk);
        }
        self.partial = chunk;
    }

    fn unlist(&mut self, chunk: u64) {
        let books = self.books(chunk);
        let next = get(books.word(NEXT_CHUNK));
        let previous = get(books.word(PREVIOUS_CHUNK));
        if next != 0 {
            set(self.books(next).word(PREVIOUS_CHUNK), previous);
        }
        match previous {
            0 => self.partial = next,
            _ => set(self.books(previous).word(NEXT_CHUNK), next),
        }
    }
}
