//! Records of one type, in frames from the platform, found by a key that goes stale.
//!
//! Chunks of doubling size, so that a slot's number says where its record is and no record ever
//! moves. Each chunk has its own list of free slots, through the slots; new records go to the
//! lowest chunk that has room, which lets the upper ones run empty. The last chunk is given back
//! when it is empty and the room left in the others is at least half of its own, so that as many
//! records come before it is wanted again; what its keys had come to is remembered, so that a key
//! of before stays stale.

mod record;

use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Frames, NoFrames, Platform};
use record::{NO_SLOT, Record, State};

/// How many chunks there can be: with one record in the first, 2^21 - 1 records.
const CHUNKS: usize = 21;
/// The generation of a slot's first record.
const FIRST_GENERATION: u64 = 1;
/// The generation of a slot's last record: it has 48 bits.
const LAST_GENERATION: u64 = (1 << 48) - 1;

/// Which record of a [`Slab`]: its slot, and which of the slot's records.
///
/// A plain value, which anybody may make up: what it finds is what is there.
pub(crate) struct Key<T> {
    slot: u32,
    generation: u64,
    record: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The key with these numbers, whatever they are.
    pub(crate) const fn from_parts(slot: u32, generation: u64) -> Self {
        Self {
            slot,
            generation,
            record: PhantomData,
        }
    }

    /// Where the record is.
    pub(crate) const fn slot(self) -> u32 {
        self.slot
    }

    /// Which of the records that were there: from 1, in 48 bits.
    pub(crate) const fn generation(self) -> u64 {
        self.generation
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.slot, self.generation) == (other.slot, other.generation)
    }
}
impl<T> Eq for Key<T> {}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}.{})", self.slot, self.generation)
    }
}

/// Why there is no place for a record. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoRoom {
    /// The platform has no more frames.
    NoFrames {
        /// How many bytes in one piece were asked for, as a power of two.
        log2_bytes: u8,
    },
    /// There are as many records as there can be, or their slots retired.
    Full,
}

impl From<NoFrames> for NoRoom {
    fn from(NoFrames { log2_bytes }: NoFrames) -> Self {
        Self::NoFrames { log2_bytes }
    }
}

/// A chunk's place in the directory, kept while the chunk itself is not there.
struct Chunk {
    frames: Option<Frames>,
    /// How many of its slots ever had a record, since it is there; the others hold no state yet.
    begun: u32,
    live: u32,
    retired: u32,
    /// The first of the free slots that had a record, or [`NO_SLOT`].
    free: u32,
    /// The generation that a slot begins with, since the chunk is there.
    start: u64,
    /// No slot's next record has a later generation.
    newest: u64,
}

impl Chunk {
    const fn new(start: u64) -> Self {
        Self {
            frames: None,
            begun: 0,
            live: 0,
            retired: 0,
            free: NO_SLOT,
            start,
            newest: start,
        }
    }
}

/// Records of type `T`. Dropping it leaks the frames, and drops no record.
///
/// The value itself has about 1200 bytes. A record costs its size and 8 bytes, rounded up to its
/// alignment, and its share of what the first chunk (4 KiB, or as much as one record needs) has
/// left over.
///
/// [`insert`](Self::insert), [`get`](Self::get) and [`remove`](Self::remove) take the same number
/// of steps, however many records there are.
pub(crate) struct Slab<'p, P, T> {
    platform: &'p P,
    chunks: [Chunk; CHUNKS],
    /// How many chunks are there: the first ones.
    count: usize,
    /// Which chunks are there and have a free slot, a bit each.
    has_room: u32,
    /// How many slots are free, in the chunks that are there.
    free_slots: u32,
    len: u32,
    records: PhantomData<T>,
}

impl<'p, P: Platform, T> Slab<'p, P, T> {
    /// The size of the first chunk.
    const LOG2_FIRST_BYTES: u8 = {
        let bytes = size_of::<Record<T>>().next_power_of_two();
        let log2_bytes = bytes.trailing_zeros() as u8;
        if log2_bytes > 12 { log2_bytes } else { 12 }
    };
    /// How many records the first chunk has, at most 256: all of a slab's slots have 32-bit numbers.
    const FIRST_SLOTS: u32 = {
        let slots = (1 << Self::LOG2_FIRST_BYTES) / size_of::<Record<T>>();
        assert!(slots <= 256, "a record has 16 bytes at least");
        slots as u32
    };

    /// No records, in no memory.
    pub(crate) fn new(platform: &'p P) -> Self {
        Self::starting_at(platform, FIRST_GENERATION)
    }

    /// No records, the first of every slot to have this generation.
    fn starting_at(platform: &'p P, generation: u64) -> Self {
        Self {
            platform,
            chunks: core::array::from_fn(|_| Chunk::new(generation)),
            count: 0,
            has_room: 0,
            free_slots: 0,
            len: 0,
            records: PhantomData,
        }
    }

    const fn slots_of(chunk: usize) -> u32 {
        Self::FIRST_SLOTS << chunk
    }

    const fn first_slot_of(chunk: usize) -> u32 {
        Self::FIRST_SLOTS * ((1 << chunk) - 1)
    }

    /// The chunk that has `slot`, and which of its slots that is.
    fn place(slot: u32) -> Option<(usize, u32)> {
        let chunk = (slot / Self::FIRST_SLOTS + 1).ilog2() as usize;
        (chunk < CHUNKS).then(|| (chunk, slot - Self::first_slot_of(chunk)))
    }

    /// Where a slot is, of a chunk that is there.
    fn at(&self, chunk: usize, index: u32) -> Option<NonNull<Record<T>>> {
        let frames = self.chunks[chunk].frames.as_ref()?;
        let first = self.platform.pointer(frames.base()).cast();
        // SAFETY: the chunk is ours, aligned to its size, and has `slots_of` records.
        (index < Self::slots_of(chunk)).then(|| unsafe { first.add(index as usize) })
    }

    /// The record of a slot that ever had one.
    fn record(&self, chunk: usize, index: u32) -> Option<&Record<T>> {
        if index >= self.chunks[chunk].begun {
            return None;
        }
        let at = self.at(chunk, index)?;
        // SAFETY: `insert` wrote the first `begun` records of the chunk, and nobody has a reference
        // to them that this borrow of the slab does not exclude.
        Some(unsafe { at.as_ref() })
    }

    /// The record of a slot that ever had one, to change.
    fn record_mut(&mut self, chunk: usize, index: u32) -> Option<&mut Record<T>> {
        if index >= self.chunks[chunk].begun {
            return None;
        }
        let mut at = self.at(chunk, index)?;
        // SAFETY: as in `record`, and the borrow of the slab is exclusive.
        Some(unsafe { at.as_mut() })
    }

    /// Puts `value` in, in constant time.
    ///
    /// # Errors
    ///
    /// `value`, and every [`NoRoom`].
    pub(crate) fn insert(&mut self, value: T) -> Result<Key<T>, (T, NoRoom)> {
        let chunk = match self.chunk_with_room() {
            Ok(chunk) => chunk,
            Err(why) => return Err((value, why)),
        };
        let Chunk { begun, free, .. } = self.chunks[chunk];
        let index = if free == NO_SLOT { begun } else { free };
        let generation = if let Some(record) = self.record_mut(chunk, index) {
            let (generation, next) = record.occupy(value);
            self.chunks[chunk].free = next;
            generation
        } else if let Some(at) = self.at(chunk, index) {
            let generation = self.chunks[chunk].start;
            // SAFETY: the slot is ours, and nobody refers to one that never had a record.
            unsafe { at.write(Record::live(generation, value)) };
            self.chunks[chunk].begun = begun + 1;
            generation
        } else {
            // Not so: a chunk with room is there and has a slot that never had a record, if it has
            // none in its list.
            return Err((value, NoRoom::Full));
        };
        let room = &mut self.chunks[chunk];
        room.live += 1;
        if room.live + room.retired == Self::slots_of(chunk) {
            self.has_room &= !(1 << chunk);
        }
        self.free_slots -= 1;
        self.len += 1;
        Ok(Key::from_parts(
            Self::first_slot_of(chunk) + index,
            generation,
        ))
    }

    /// The record of `key`, if it is there still.
    pub(crate) fn get(&self, key: Key<T>) -> Option<&T> {
        let (chunk, index) = Self::place(key.slot)?;
        self.record(chunk, index)?.get(key.generation)
    }

    /// The record of `key`, to change, if it is there still.
    pub(crate) fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let (chunk, index) = Self::place(key.slot)?;
        self.record_mut(chunk, index)?.get_mut(key.generation)
    }

    /// Takes the record of `key` out, if it is there still, in constant time.
    ///
    /// The key is stale afterwards, for ever: the slot's next record has the next generation, and
    /// after the last one there is none.
    pub(crate) fn remove(&mut self, key: Key<T>) -> Option<T> {
        let (chunk, index) = Self::place(key.slot)?;
        let next_free = self.chunks[chunk].free;
        let next = (key.generation < LAST_GENERATION).then(|| key.generation + 1);
        let record = self.record_mut(chunk, index)?;
        let value = record.vacate(key.generation, next, next_free)?;
        let place = &mut self.chunks[chunk];
        place.live -= 1;
        self.len -= 1;
        match next {
            Some(next) => {
                place.free = index;
                place.newest = place.newest.max(next);
                self.has_room |= 1 << chunk;
                self.free_slots += 1;
            }
            None => place.retired += 1,
        }
        self.trim();
        Some(value)
    }

    /// A chunk with a free slot, which is allocated if need be.
    fn chunk_with_room(&mut self) -> Result<usize, NoRoom> {
        if self.has_room != 0 {
            return Ok(self.has_room.trailing_zeros() as usize);
        }
        let number = self.count;
        let chunk = self.chunks.get_mut(number).ok_or(NoRoom::Full)?;
        let log2_bytes = Self::LOG2_FIRST_BYTES + number as u8;
        chunk.frames = Some(Frames::allocate(self.platform, log2_bytes)?);
        self.count += 1;
        self.has_room |= 1 << number;
        self.free_slots += Self::slots_of(number);
        Ok(number)
    }

    /// Gives back chunks from the last one down, while they are empty and the others keep room
    /// enough: one at most, save where several ran empty before the last one did.
    fn trim(&mut self) {
        while let Some(number) = self.count.checked_sub(1) {
            let slots = Self::slots_of(number);
            let chunk = &mut self.chunks[number];
            let is_empty = chunk.live == 0 && chunk.retired == 0;
            if !is_empty || self.free_slots - slots < slots.div_ceil(2) {
                return;
            }
            if let Some(frames) = chunk.frames.take() {
                self.platform.free(frames);
            }
            *chunk = Chunk::new(chunk.newest);
            self.count = number;
            self.has_room &= !(1 << number);
            self.free_slots -= slots;
        }
    }

    /// Takes memory now, so that the next [`insert`](Self::insert) cannot fail, whatever is removed
    /// before.
    ///
    /// # Errors
    ///
    /// Every [`NoRoom`].
    pub(crate) fn reserve(&mut self) -> Result<(), NoRoom> {
        self.chunk_with_room().map(|_| ())
    }

    /// The key of the record that is in `slot`, if one is.
    pub(crate) fn key_at(&self, slot: u32) -> Option<Key<T>> {
        let (chunk, index) = Self::place(slot)?;
        match self.record(chunk, index)?.state() {
            State::Live { generation } => Some(Key::from_parts(slot, generation)),
            State::Free | State::Retired => None,
        }
    }

    /// No record has this slot, or one above: for those who go through slots one by one and change
    /// records meanwhile.
    pub(crate) fn slots(&self) -> u32 {
        let chunks = self.chunks.iter().enumerate();
        let ends = chunks.map(|(number, chunk)| match chunk.begun {
            0 => 0,
            begun => Self::first_slot_of(number) + begun,
        });
        ends.max().unwrap_or(0)
    }

    /// The keys of all records, by slot, in time that grows with the slots that ever had one.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key<T>> + '_ {
        self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let first = Self::first_slot_of(number);
            (first..first + chunk.begun).filter_map(|slot| self.key_at(slot))
        })
    }

    /// All records with their keys, as [`keys`](Self::keys) goes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> + '_ {
        self.keys()
            .filter_map(|key| self.get(key).map(|value| (key, value)))
    }

    /// How many records there are.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// How much memory it has from the platform, in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        let frames = self.chunks.iter().filter_map(|chunk| chunk.frames.as_ref());
        frames.map(Frames::size_bytes).sum()
    }

    /// Gives all memory back, of a slab with no records.
    ///
    /// # Errors
    ///
    /// The slab as it was, if it has any.
    #[expect(clippy::result_large_err, reason = "that it comes back is the point")]
    pub(crate) fn free(mut self) -> Result<(), Self> {
        if self.len != 0 {
            return Err(self);
        }
        for chunk in &mut self.chunks {
            if let Some(frames) = chunk.frames.take() {
                self.platform.free(frames);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "slab/tests.rs"]
mod tests;
