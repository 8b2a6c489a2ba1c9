//! Who a stream belongs to: the way from an event to its device.
//!
//! A table of open addressing in frames, in the order of homes (Robin Hood): from the home of a key
//! on, entries lie in the order of their own homes. So a search ends where an entry lies nearer to
//! its home than the key would, and it never goes further than [`PROBES`] places: what would have
//! to lie further makes the table grow. StreamIDs that are looked up come from hardware, and may be
//! any.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::hw::{Frames, NoFrames, Platform};
use crate::id::StreamId;

/// How many places a search looks at, at most.
const PROBES: usize = 64;
/// An entry: the key, which is not 0, and the slot.
const ENTRY_WORDS: usize = 2;
const LOG2_ENTRY_BYTES: u8 = 4;
const LOG2_FIRST_BYTES: u8 = 12;
/// What makes the key of stream 0 of SMMU 0 differ from no key.
const PRESENT: u64 = 1 << 63;

/// Why a stream was not put in. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotInserted {
    /// It is in already.
    Present {
        /// With this slot.
        slot: u32,
    },
    /// 64 streams or more that are in have nearly the same home, in a table that is nearly empty:
    /// only chosen StreamIDs do.
    Crowded,
    /// The platform has no more frames.
    NoFrames {
        /// How many bytes in one piece were asked for, as a power of two.
        log2_bytes: u8,
    },
}

impl From<NoFrames> for NotInserted {
    fn from(NoFrames { log2_bytes }: NoFrames) -> Self {
        Self::NoFrames { log2_bytes }
    }
}

/// The slots of streams, by SMMU and StreamID. Dropping it leaks the memory.
///
/// It takes no memory before the first stream is put in, then 4 KiB for 192 streams, and twice as
/// much each time that three quarters are in use. Memory never shrinks.
pub(crate) struct StreamMap<'p, P> {
    platform: &'p P,
    table: Option<Frames>,
    len: u32,
}

impl<'p, P: Platform> StreamMap<'p, P> {
    /// No streams, in no memory.
    pub(crate) const fn new(platform: &'p P) -> Self {
        Self {
            platform,
            table: None,
            len: 0,
        }
    }

    fn table(&self) -> Option<Table<'_>> {
        let frames = self.table.as_ref()?;
        Some(Table::of(self.platform, frames))
    }

    /// The slot of a stream, if it is in.
    pub(crate) fn get(&self, smmu: u8, stream: StreamId) -> Option<u32> {
        let table = self.table()?;
        Some(table.slot(table.find(key(smmu, stream))?))
    }

    /// Puts a stream in.
    ///
    /// # Errors
    ///
    /// Every [`NotInserted`].
    pub(crate) fn insert(
        &mut self,
        smmu: u8,
        stream: StreamId,
        slot: u32,
    ) -> Result<(), NotInserted> {
        if let Some(slot) = self.get(smmu, stream) {
            return Err(NotInserted::Present { slot });
        }
        let key = key(smmu, stream);
        let is_in = self.table().is_some_and(|table| {
            // A quarter stays empty.
            let has_room = (self.len as usize + 1) * 4 <= table.places() * 3;
            has_room && table.put(key, slot)
        });
        if !is_in {
            self.grow(key, slot)?;
        }
        self.len += 1;
        Ok(())
    }

    /// Moves all that is in, and a new entry with it, to a larger table.
    fn grow(&mut self, key: u64, slot: u32) -> Result<(), NotInserted> {
        let mut log2_bytes = match &self.table {
            Some(frames) => frames.log2_bytes() + 1,
            None => LOG2_FIRST_BYTES,
        };
        loop {
            let places = 1_usize << (log2_bytes - LOG2_ENTRY_BYTES);
            if self.table.is_some() && places / 16 > self.len as usize + 1 {
                return Err(NotInserted::Crowded);
            }
            let frames = Frames::allocate(self.platform, log2_bytes)?;
            let table = Table::of(self.platform, &frames);
            table.clear();
            let old = self.table().into_iter().flat_map(|table| table.entries());
            if old
                .chain([(key, slot)])
                .all(|(key, slot)| table.put(key, slot))
            {
                if let Some(old) = self.table.replace(frames) {
                    self.platform.free(old);
                }
                return Ok(());
            }
            self.platform.free(frames);
            log2_bytes += 1;
        }
    }

    /// Takes a stream out; says its slot, if it was in.
    pub(crate) fn remove(&mut self, smmu: u8, stream: StreamId) -> Option<u32> {
        let table = self.table()?;
        let place = table.find(key(smmu, stream))?;
        let slot = table.slot(place);
        table.take(place);
        self.len -= 1;
        Some(slot)
    }

    #[cfg(test)]
    /// How many streams are in.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// How much memory it has from the platform, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.table.as_ref().map_or(0, Frames::size_bytes)
    }

    /// Gives all memory back; what is in is forgotten.
    pub(crate) fn free(self) {
        if let Some(frames) = self.table {
            self.platform.free(frames);
        }
    }
}

const fn key(smmu: u8, stream: StreamId) -> u64 {
    PRESENT | (smmu as u64) << 32 | stream.as_u32() as u64
}

/// Spreads keys that differ in few bits over all of a word, one to one (the last steps of
/// SplitMix64).
const fn spread(key: u64) -> u64 {
    let key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

/// The places, a power of two of them, at least one of them empty.
#[derive(Clone, Copy)]
struct Table<'a> {
    words: &'a [AtomicU64],
    log2_places: u8,
}

impl<'a> Table<'a> {
    fn of<P: Platform>(platform: &'a P, frames: &'a Frames) -> Self {
        Self {
            words: frames.words(platform),
            log2_places: frames.log2_bytes() - LOG2_ENTRY_BYTES,
        }
    }

    const fn places(&self) -> usize {
        1 << self.log2_places
    }

    const fn wrap(&self, place: usize) -> usize {
        place & (self.places() - 1)
    }

    /// The key in a place, or 0.
    fn key(&self, place: usize) -> u64 {
        self.words[place * ENTRY_WORDS].load(Ordering::Relaxed)
    }

    fn slot(&self, place: usize) -> u32 {
        self.words[place * ENTRY_WORDS + 1].load(Ordering::Relaxed) as u32
    }

    fn set(&self, place: usize, key: u64, slot: u32) {
        self.words[place * ENTRY_WORDS].store(key, Ordering::Relaxed);
        self.words[place * ENTRY_WORDS + 1].store(slot.into(), Ordering::Relaxed);
    }

    fn clear(&self) {
        for word in self.words {
            word.store(0, Ordering::Relaxed);
        }
    }

    fn entries(self) -> impl Iterator<Item = (u64, u32)> + use<'a> {
        let full = (0..self.places()).filter(move |place| self.key(*place) != 0);
        full.map(move |place| (self.key(place), self.slot(place)))
    }

    fn home(&self, key: u64) -> usize {
        (spread(key) >> (u64::BITS - u32::from(self.log2_places))) as usize
    }

    /// How far behind its home `key` lies, in `place`.
    fn distance(&self, key: u64, place: usize) -> usize {
        self.wrap(place.wrapping_sub(self.home(key)))
    }

    /// Where `key` is, or else where it belongs; `Err(None)` if that is too far.
    fn search(&self, key: u64) -> Result<usize, Option<usize>> {
        let home = self.home(key);
        for distance in 0..PROBES {
            let place = self.wrap(home + distance);
            match self.key(place) {
                0 => return Err(Some(place)),
                found if found == key => return Ok(place),
                found if self.distance(found, place) < distance => return Err(Some(place)),
                _ => {}
            }
        }
        Err(None)
    }

    fn find(&self, key: u64) -> Option<usize> {
        self.search(key).ok()
    }

    /// Puts an entry in, whose key is not in; not if an entry would lie too far from its home.
    #[must_use]
    fn put(&self, key: u64, slot: u32) -> bool {
        let Err(Some(place)) = self.search(key) else {
            return false;
        };
        // The others of the cluster move on by one.
        let mut end = place;
        loop {
            match self.key(end) {
                0 => break,
                found if self.distance(found, end) + 1 == PROBES => return false,
                _ => end = self.wrap(end + 1),
            }
        }
        while end != place {
            let before = self.wrap(end.wrapping_sub(1));
            self.set(end, self.key(before), self.slot(before));
            end = before;
        }
        self.set(place, key, slot);
        true
    }

    /// Takes out what is in `place`: what could lie nearer to its home does so afterwards.
    fn take(&self, mut place: usize) {
        loop {
            let next = self.wrap(place + 1);
            let key = self.key(next);
            if key == 0 || self.distance(key, next) == 0 {
                break;
            }
            self.set(place, key, self.slot(next));
            place = next;
        }
        self.set(place, 0, 0);
    }
}

#[cfg(test)]
#[path = "streams/tests.rs"]
mod tests;
