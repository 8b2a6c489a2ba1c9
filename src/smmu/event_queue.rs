//! The event queue: what the SMMU reports (§3.5.2, §7.2).

use super::command_queue::index_bits;
use super::io::Io;
use super::probe::QueueIndices;
use crate::hw::{Barrier, Frames, Lock, Platform};
use crate::spec::event::Event;
use crate::spec::registers::{EVENTQ_PROD, GERROR, offset};

/// Bytes of a record, as a power of two (§7.3).
pub(super) const LOG2_EVENT_BYTES: u8 = 5;
const WORDS_PER_EVENT: usize = 4;

/// What one look at the event queue found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// How many records were handed on.
    pub events: u32,
    /// More records are waiting: the budget was used up.
    pub has_more: bool,
    /// Records were lost since the last look: the queue was full (OVFLG), or writing to it was
    /// aborted (GERROR.EVENTQ_ABT_ERR). Acknowledged: later events are recorded again.
    pub lost_events: bool,
    /// Writing to the queue was aborted (GERROR.EVENTQ_ABT_ERR): records of stalled transactions may
    /// be among those that were lost, as in no other case (§7.2.2).
    pub was_aborted: bool,
    /// The SMMU's index made no sense; the queue was emptied unread.
    pub was_corrupt: bool,
}

/// The queue's memory, and the one reader.
pub(super) struct EventQueue {
    frames: Frames,
    log2_entries: u8,
    indices: QueueIndices,
    reader: Lock<Reader>,
}

struct Reader {
    /// Index and wrap bit of the next record.
    next: u32,
    /// The overflow flag as last acknowledged (OVACKFLG).
    acknowledged: u32,
}

impl EventQueue {
    /// An empty queue in `frames`. Its PROD and CONS are to be 0 before it is enabled.
    pub(super) fn new(frames: Frames, log2_entries: u8, indices: QueueIndices) -> Self {
        Self {
            frames,
            log2_entries,
            indices,
            reader: Lock::new(Reader {
                next: 0,
                acknowledged: 0,
            }),
        }
    }

    pub(super) fn into_frames(self) -> Frames {
        self.frames
    }

    pub(super) const fn log2_entries(&self) -> u8 {
        self.log2_entries
    }

    pub(super) const fn frames(&self) -> &Frames {
        &self.frames
    }

    const fn index_mask(&self) -> u32 {
        (2 << self.log2_entries) - 1
    }

    /// Hands at most `budget` records to `sink`, gives their slots back, and acknowledges losses.
    ///
    /// `sink` runs under the reader's lock and must not call back.
    pub(super) fn drain<P: Platform>(
        &self,
        io: &Io<'_, P>,
        budget: u32,
        mut sink: impl FnMut(Event),
    ) -> Drained {
        let mut reader = self.reader.lock(io.platform());
        let mut drained = Drained::default();
        let prod = io.read32(offset::EVENTQ_PROD + self.indices.shift());
        // Reading PROD is the only proof that a record is there; nothing of it may be read before.
        io.barrier(Barrier::Observe);
        let end = index_bits(prod) & self.index_mask();
        let waiting = end.wrapping_sub(reader.next) & self.index_mask();
        if waiting > 1 << self.log2_entries {
            drained.was_corrupt = true;
            reader.next = end;
        } else {
            drained.events = waiting.min(budget);
            drained.has_more = waiting > budget;
            for _ in 0..drained.events {
                sink(self.read(io, reader.next));
                reader.next = (reader.next + 1) & self.index_mask();
            }
        }
        let flag = prod & EVENTQ_PROD::OVFLG::SET.value;
        drained.lost_events = flag != reader.acknowledged;
        reader.acknowledged = flag;
        if drained.events != 0 || drained.lost_events || drained.was_corrupt {
            // The records are read before their slots are given back.
            io.barrier(Barrier::Release);
            let cons = reader.next | reader.acknowledged;
            io.write32(offset::EVENTQ_CONS + self.indices.shift(), cons);
        }
        drained.was_aborted = self.acknowledge_abort(io);
        drained.lost_events |= drained.was_aborted;
        drained
    }

    /// While EVENTQ_ABT_ERR is active nothing is recorded (§7.2.2): acknowledged last, when there
    /// is room again.
    fn acknowledge_abort<P: Platform>(&self, io: &Io<'_, P>) -> bool {
        let abort = GERROR::EVENTQ_ABT_ERR::SET.value;
        let is_active = io.active_errors() & abort != 0;
        if is_active {
            io.acknowledge(abort);
        }
        is_active
    }

    fn read<P: Platform>(&self, io: &Io<'_, P>, index: u32) -> Event {
        let slot = (index & ((1 << self.log2_entries) - 1)) as usize * WORDS_PER_EVENT;
        let words = &self.frames.words(io.platform())[slot..slot + WORDS_PER_EVENT];
        Event::decode(core::array::from_fn(|i| io.load(&words[i])))
    }
}
