//! Who has which number: PASIDs and ASIDs of a guest, VMIDs.
//!
//! A number that came back goes out again before one that was never out, the one that came back
//! first before the others: so the time between two owners of a number is as long as can be, and
//! the records of numbers, which stay for ever for their generations, are as few as can be.
//!
//! Everything is constant work, however many numbers are out:
//!
//! - the numbers that came back are in queues, one for each count of bits, linked through their
//!   records and stamped in the order of their coming; the oldest below 2^b is the oldest of the
//!   heads of b + 1 queues;
//! - the lowest number that was never out is known. What above it was asked for exactly is in runs
//!   of neighbours, whose two ends know each other; so it is passed over in one step.

use crate::hw::{NoFrames, Platform, Sparse};

/// Which number is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    /// Any.
    Any,
    /// One of at most that many bits.
    AtMostBits(u8),
    /// This one.
    Exactly(u32),
}

/// Why there is no such number. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoNumber {
    /// Every number that would do is taken, or retired.
    Exhausted,
    /// The number asked for is taken.
    Taken,
    /// The number asked for was given back so often that its generations are used up.
    Retired,
    /// There is no such number: below the first, above the last, or none has so few bits.
    OutOfRange,
    /// The platform has no more frames.
    NoFrames {
        /// How many bytes in one piece were asked for, as a power of two.
        log2_bytes: u8,
    },
}

impl From<NoFrames> for NoNumber {
    fn from(NoFrames { log2_bytes }: NoFrames) -> Self {
        Self::NoFrames { log2_bytes }
    }
}

/// The number is not taken. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotTaken;

/// Numbers have this many bits at most.
const LOG2_END_MAX: u8 = 20;
/// A generation has 48 bits; a number that comes back with the last one is not given again.
const LAST_GENERATION: u64 = (1 << 48) - 1;

/// A number's record has four words.
const LOG2_RECORD: u8 = 2;
/// The state, and above it the generation.
const LIFE: u32 = 0;
/// If taken: the owner's note. If back: when it came, as a count.
const NOTE: u32 = 1;
/// If back: the one after it in its queue, and in the upper half the one before.
const LINKS: u32 = 2;
/// If at one end of a run above the lowest fresh number: the other end.
const RUN: u32 = 3;

const STATE_BITS: u32 = 2;
/// It was never out, as in a record that does not exist yet.
const FRESH: u64 = 0;
const TAKEN: u64 = 1;
const BACK: u64 = 2;
const RETIRED: u64 = 3;

/// No number: the end of a queue.
const NONE: u32 = u32::MAX;

/// Numbers of one count of bits that came back, the first one first.
#[derive(Clone, Copy)]
struct Queue {
    head: u32,
    tail: u32,
    /// When the head came back.
    since: u64,
}

/// The numbers from one up to a power of two, and their records. Dropping it leaks the memory.
///
/// The value has about 500 bytes. It takes no memory before the first number goes out; then a page
/// for each 128 numbers of which one was ever out, and one for each 65,536 if there are more than
/// 2048 numbers.
pub(crate) struct Numbers<'p, P> {
    records: Sparse<'p, P>,
    first: u32,
    log2_end: u8,
    taken: u32,
    /// The lowest number that was never out; the end if there is none.
    fresh: u32,
    /// How often a number came back.
    returns: u64,
    queues: [Queue; LOG2_END_MAX as usize + 1],
}

impl<'p, P: Platform> Numbers<'p, P> {
    /// The numbers from `first` to `2^log2_end - 1`, none taken.
    ///
    /// # Errors
    ///
    /// [`NoNumber::OutOfRange`] if there would be none, or `log2_end` is above 20.
    pub(crate) fn new(platform: &'p P, first: u32, log2_end: u8) -> Result<Self, NoNumber> {
        if log2_end > LOG2_END_MAX || first >> log2_end != 0 {
            return Err(NoNumber::OutOfRange);
        }
        let empty = Queue {
            head: NONE,
            tail: NONE,
            since: 0,
        };
        Ok(Self {
            records: Sparse::new(platform, log2_end + LOG2_RECORD),
            first,
            log2_end,
            taken: 0,
            fresh: first,
            returns: 0,
            queues: [empty; LOG2_END_MAX as usize + 1],
        })
    }

    const fn end(&self) -> u32 {
        1 << self.log2_end
    }

    fn has(&self, number: u32) -> bool {
        (self.first..self.end()).contains(&number)
    }

    fn get(&self, number: u32, word: u32) -> u64 {
        self.records.load((number << LOG2_RECORD) + word)
    }

    fn set(&mut self, number: u32, word: u32, value: u64) {
        self.records.store((number << LOG2_RECORD) + word, value);
    }

    /// The state and the generation of a number that is in range.
    fn life(&self, number: u32) -> (u64, u64) {
        let life = self.get(number, LIFE);
        (life & ((1 << STATE_BITS) - 1), life >> STATE_BITS)
    }

    fn set_life(&mut self, number: u32, state: u64, generation: u64) {
        self.set(number, LIFE, generation << STATE_BITS | state);
    }

    fn is_taken(&self, number: u32) -> bool {
        self.has(number) && self.life(number).0 == TAKEN
    }

    /// Takes a number, with the note 0.
    ///
    /// # Errors
    ///
    /// Every [`NoNumber`].
    pub(crate) fn take(&mut self, ask: Ask) -> Result<u32, NoNumber> {
        let bits = match ask {
            Ask::Exactly(number) => return self.take_exactly(number),
            Ask::AtMostBits(bits) => bits.min(self.log2_end),
            Ask::Any => self.log2_end,
        };
        if self.first >> bits != 0 {
            return Err(NoNumber::OutOfRange);
        }
        let heads = self.queues.iter().take(usize::from(bits) + 1);
        let oldest = heads
            .filter(|queue| queue.head != NONE)
            .min_by_key(|queue| queue.since);
        match oldest.map(|queue| queue.head) {
            Some(number) => {
                let (_, generation) = self.life(number);
                self.unlink(number);
                self.given(number, generation);
                Ok(number)
            }
            None if self.fresh >> bits == 0 => self.take_fresh(self.fresh),
            None => Err(NoNumber::Exhausted),
        }
    }

    fn take_exactly(&mut self, number: u32) -> Result<u32, NoNumber> {
        if !self.has(number) {
            return Err(NoNumber::OutOfRange);
        }
        match self.life(number) {
            (TAKEN, _) => Err(NoNumber::Taken),
            (RETIRED, _) => Err(NoNumber::Retired),
            (BACK, generation) => {
                self.unlink(number);
                self.given(number, generation);
                Ok(number)
            }
            _ => self.take_fresh(number),
        }
    }

    /// Takes a number that was never out.
    fn take_fresh(&mut self, number: u32) -> Result<u32, NoNumber> {
        self.records.reserve(number << LOG2_RECORD)?;
        let next = number + 1;
        let was_out = |number| number < self.end() && self.life(number).0 != FRESH;
        // Where the run ends that begins behind it.
        let last = if was_out(next) {
            self.get(next, RUN) as u32
        } else {
            number
        };
        if number == self.fresh {
            self.fresh = last + 1;
        } else {
            // Above the lowest fresh number, which is fresh.
            let first = if was_out(number - 1) {
                self.get(number - 1, RUN) as u32
            } else {
                number
            };
            self.set(first, RUN, last.into());
            self.set(last, RUN, first.into());
        }
        self.given(number, 0);
        Ok(number)
    }

    fn given(&mut self, number: u32, generation: u64) {
        self.set_life(number, TAKEN, generation);
        self.set(number, NOTE, 0);
        self.taken += 1;
    }

    /// The number is free, its next owner being another generation: the last of those that came
    /// back, or, after 2^48 generations, never to be given again.
    ///
    /// # Errors
    ///
    /// [`NotTaken`].
    pub(crate) fn put_back(&mut self, number: u32) -> Result<(), NotTaken> {
        if !self.is_taken(number) {
            return Err(NotTaken);
        }
        self.taken -= 1;
        let (_, generation) = self.life(number);
        if generation == LAST_GENERATION {
            self.set_life(number, RETIRED, generation);
            return Ok(());
        }
        self.set_life(number, BACK, generation + 1);
        self.set(number, NOTE, self.returns);
        let tail = self.queue(number).tail;
        self.set(number, LINKS, links(tail, NONE));
        let since = self.returns;
        let queue = self.queue(number);
        queue.tail = number;
        if tail == NONE {
            queue.head = number;
            queue.since = since;
        } else {
            let (before, _) = self.links(tail);
            self.set(tail, LINKS, links(before, number));
        }
        self.returns += 1;
        Ok(())
    }

    /// The queue for numbers of as many bits.
    fn queue(&mut self, number: u32) -> &mut Queue {
        let bits = u32::BITS - number.leading_zeros();
        &mut self.queues[bits as usize]
    }

    /// Those before and after `number` in its queue.
    fn links(&self, number: u32) -> (u32, u32) {
        let links = self.get(number, LINKS);
        ((links >> 32) as u32, links as u32)
    }

    /// Takes a number that came back out of its queue.
    fn unlink(&mut self, number: u32) {
        let (before, after) = self.links(number);
        if after == NONE {
            self.queue(number).tail = before;
        } else {
            let (_, next) = self.links(after);
            self.set(after, LINKS, links(before, next));
        }
        if before != NONE {
            let (previous, _) = self.links(before);
            self.set(before, LINKS, links(previous, after));
            return;
        }
        let since = match after {
            NONE => 0,
            after => self.get(after, NOTE),
        };
        let queue = self.queue(number);
        queue.head = after;
        queue.since = since;
    }

    /// How often the number was put back; 0 for one that there is not.
    pub(crate) fn generation(&self, number: u32) -> u64 {
        if self.has(number) {
            self.life(number).1
        } else {
            0
        }
    }

    /// What its owner notes of a number; 0 if it is not taken.
    pub(crate) fn note(&self, number: u32) -> u64 {
        if self.is_taken(number) {
            self.get(number, NOTE)
        } else {
            0
        }
    }

    /// Notes `note` of a number; nothing happens if it is not taken.
    pub(crate) fn set_note(&mut self, number: u32, note: u64) {
        if self.is_taken(number) {
            self.set(number, NOTE, note);
        }
    }

    /// How many numbers are taken.
    pub(crate) const fn taken(&self) -> u32 {
        self.taken
    }

    /// How much memory it has from the platform, in bytes.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.records.size_bytes()
    }

    /// Gives all memory back, whatever is taken: who owns numbers is nobody's business afterwards.
    pub(crate) fn free(self) {
        self.records.free();
    }
}

const fn links(before: u32, after: u32) -> u64 {
    (before as u64) << 32 | after as u64
}

#[cfg(test)]
#[path = "numbers/tests.rs"]
mod tests;
