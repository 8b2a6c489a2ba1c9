//! A slot of a slab: a record, or its place in the list of free slots.

use core::mem::ManuallyDrop;

const LIVE: u64 = 1;
const FREE: u64 = 2;
const RETIRED: u64 = 3;
const STATE_BITS: u32 = 2;
const STATE: u64 = (1 << STATE_BITS) - 1;
/// No slot: the end of a list.
pub(super) const NO_SLOT: u32 = u32::MAX;

union Body<T> {
    /// The next free slot of the chunk, or `NO_SLOT`.
    next: u32,
    value: ManuallyDrop<T>,
}

/// A slot that ever had a record.
///
/// The word says the generation, of the record that is there or else of the next one, and which of
/// the two the body is: a value exactly where the state is `LIVE`.
pub(super) struct Record<T> {
    word: u64,
    body: Body<T>,
}

/// What a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// A record is there.
    Live {
        /// Which.
        generation: u64,
    },
    /// None is there.
    Free,
    /// None will be there again.
    Retired,
}

const fn word(generation: u64, state: u64) -> u64 {
    generation << STATE_BITS | state
}

impl<T> Record<T> {
    /// A slot with its first record.
    pub(super) const fn live(generation: u64, value: T) -> Self {
        Self {
            word: word(generation, LIVE),
            body: Body {
                value: ManuallyDrop::new(value),
            },
        }
    }

    /// What it is.
    pub(super) const fn state(&self) -> State {
        match self.word & STATE {
            LIVE => State::Live {
                generation: self.word >> STATE_BITS,
            },
            FREE => State::Free,
            _ => State::Retired,
        }
    }

    /// The record, if it is that one.
    pub(super) fn get(&self, generation: u64) -> Option<&T> {
        if self.state() != (State::Live { generation }) {
            return None;
        }
        // SAFETY: a live slot has a value.
        Some(unsafe { &self.body.value })
    }

    /// The record, to change, if it is that one.
    pub(super) fn get_mut(&mut self, generation: u64) -> Option<&mut T> {
        if self.state() != (State::Live { generation }) {
            return None;
        }
        // SAFETY: a live slot has a value.
        Some(unsafe { &mut self.body.value })
    }

    /// Puts a record into a free slot; says its generation and the next free slot.
    pub(super) fn occupy(&mut self, value: T) -> (u64, u32) {
        let generation = self.word >> STATE_BITS;
        // SAFETY: `vacate` left a link in a slot that is free; the list has no other slots.
        let next = unsafe { self.body.next };
        *self = Self::live(generation, value);
        (generation, next)
    }

    /// Takes the record out if it is that one: the slot is free for `next`, with a link to
    /// `next_free`, or retired if there is none.
    pub(super) fn vacate(
        &mut self,
        generation: u64,
        next: Option<u64>,
        next_free: u32,
    ) -> Option<T> {
        if self.state() != (State::Live { generation }) {
            return None;
        }
        // SAFETY: a live slot has a value.
        let body = unsafe { &mut self.body.value };
        // SAFETY: it stops being live here, so this is the only time that the value is taken.
        let value = unsafe { ManuallyDrop::take(body) };
        self.word = match next {
            Some(next) => word(next, FREE),
            None => word(generation, RETIRED),
        };
        self.body = Body { next: next_free };
        Some(value)
    }
}
