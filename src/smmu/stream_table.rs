//! The stream table: which stream is whose (§3.3, §5.1, §5.2).
//!
//! Linear, or two-level with arrays of [`LOG2_ARRAY_STREAMS`] bits that are made when the first of
//! their streams is published. Every entry that nobody published aborts, and so does every StreamID
//! without an array.
//!
//! Who may change an entry is written in the entry itself, in the field that the architecture
//! leaves to software: claimed under the lock, then changed step by step without it.
//!
//! # Locks
//!
//! `arrays` is held while entries are looked at and stored, never across a wait. The command
//! queue's lock is not taken inside it.

use core::sync::atomic::AtomicU64;

use super::entry::{Path, Step, next_step, path};
use super::error::StreamError;
use super::io::Io;
use crate::addr::{Ipa, Pa};
use crate::hw::{Barrier, Frames, Guard, Lock, Platform};
use crate::id::{StreamId, Vmid};
use crate::spec::command::{CfgiScope, Command};
use crate::spec::l1std::L1Std;
use crate::spec::ste::{Ats, Mark, Ste};

/// Streams below one L1 descriptor, as a power of two: 256 is one PCI bus, 16 KiB of entries.
pub(super) const LOG2_ARRAY_STREAMS: u8 = 8;
/// How many arrays a table may grow: as many PCI buses with devices behind one SMMU.
const MAX_ARRAYS: usize = 128;
/// Bytes of an STE and of an L1STD, as powers of two.
const LOG2_STE_BYTES: u8 = 6;
const LOG2_L1STD_BYTES: u8 = 3;
const WORDS_PER_STE: usize = 8;
const LOG2_PAGE_BYTES: u8 = 12;

/// Whether entries lie in one table or below L1 descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Linear,
    TwoLevel,
}

/// What a change asks of the streams it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    /// Nobody uses them.
    Free,
    /// Somebody does.
    InUse,
    /// The caller holds them: nobody uses them, and nobody else may ([`Held`](super::held::Held)).
    Held,
    /// The owner of the VMID that the entry is to have does.
    Owned,
    /// Whatever it is, save that somebody is changing it.
    Any,
}

/// The arrays that have been made, in no order.
type Arrays = [Option<(u32, Frames)>; MAX_ARRAYS];

/// The table, and who is changing what.
pub(super) struct StreamTable {
    root: Frames,
    shape: Shape,
    log2_streams: u8,
    /// What an entry is that nobody uses.
    unused: Ste,
    arrays: Lock<Arrays>,
}

/// The shape of a table of `2^log2_streams` streams, and the size of its root as a power of two.
pub(super) const fn plan(log2_streams: u8, may_be_two_level: bool) -> (Shape, u8) {
    let (shape, log2_bytes) = if may_be_two_level && log2_streams > LOG2_ARRAY_STREAMS {
        let l1 = log2_streams - LOG2_ARRAY_STREAMS + LOG2_L1STD_BYTES;
        (Shape::TwoLevel, l1)
    } else {
        (Shape::Linear, log2_streams + LOG2_STE_BYTES)
    };
    if log2_bytes < LOG2_PAGE_BYTES {
        (shape, LOG2_PAGE_BYTES)
    } else {
        (shape, log2_bytes)
    }
}

impl StreamTable {
    /// A table in `root`, of the size that [`plan`] said, in which every stream aborts.
    pub(super) fn new<P: Platform>(
        platform: &P,
        root: Frames,
        shape: Shape,
        log2_streams: u8,
        unused: Ste,
    ) -> Self {
        match shape {
            Shape::Linear => fill(platform, &root, &unused),
            Shape::TwoLevel => root.fill(platform, L1Std::invalid().word()),
        }
        Self {
            root,
            shape,
            log2_streams,
            unused,
            arrays: Lock::new([const { None }; MAX_ARRAYS]),
        }
    }

    pub(super) const fn base(&self) -> Pa {
        self.root.base()
    }

    pub(super) const fn unused(&self) -> Ste {
        self.unused
    }

    /// Bytes of the root and of the arrays made so far.
    pub(super) fn size_bytes<P: Platform>(&self, platform: &P) -> u64 {
        let arrays = self.arrays.lock(platform);
        self.root.size_bytes()
            + arrays
                .iter()
                .flatten()
                .map(|(_, frames)| frames.size_bytes())
                .sum::<u64>()
    }

    /// Gives everything back; no SMMU reads the table any more.
    pub(super) fn free<P: Platform>(self, platform: &P) {
        platform.free(self.root);
        for (_, frames) in self.arrays.into_inner().into_iter().flatten() {
            platform.free(frames);
        }
    }

    /// Whether traffic of `stream` may get through, by what is in memory.
    pub(super) fn is_open<P: Platform>(&self, io: &Io<'_, P>, stream: StreamId) -> bool {
        let arrays = self.arrays.lock(io.platform());
        self.entry(io, &arrays, stream)
            .is_some_and(|words| read(io, words).is_open())
    }

    /// Whether `stream`'s entry does not lead to CDs that this VM sees at `table`: it is settled and
    /// does not, or is another VM's by now, which may see others at the same address.
    pub(super) fn is_clear_of<P: Platform>(
        &self,
        io: &Io<'_, P>,
        stream: StreamId,
        (vmid, table): (Vmid, Ipa),
    ) -> bool {
        let arrays = self.arrays.lock(io.platform());
        self.entry(io, &arrays, stream).is_none_or(|words| {
            let ste = read(io, words);
            // It changed hands after it was retracted, and that was confirmed.
            let is_anothers = ste.is_open() && ste.vmid() != vmid;
            is_anothers || ste.mark() == Mark::Settled && ste.cd_table() != Some(table)
        })
    }

    /// Claims the streams of `entries` for one change, if all are as `expected`.
    ///
    /// Makes the arrays that are missing. On an error no stream is claimed; an array that was made
    /// stays, full of entries that abort.
    pub(super) fn claim<P: Platform>(
        &self,
        io: &Io<'_, P>,
        entries: impl Iterator<Item = (StreamId, Ste)> + Clone,
        expected: Expected,
    ) -> Result<(), StreamError> {
        let mut arrays = self.arrays.lock(io.platform());
        for (stream, target) in entries.clone() {
            self.check_range(stream)?;
            self.check(io, &arrays, (stream, target), expected)?;
        }
        match expected {
            // They are claimed.
            Expected::Held => return Ok(()),
            // A stream without an array has nothing to lose.
            Expected::Any => {}
            Expected::Free | Expected::InUse | Expected::Owned => {
                for (stream, _) in entries.clone() {
                    self.grow(io, &mut arrays, stream)?;
                }
            }
        }
        for (i, (stream, _)) in entries.clone().enumerate() {
            // None of them was being changed when they were checked.
            if self.claim_one(io, &arrays, stream) == Some(Mark::Changing) {
                let claimed = entries.take(i).map(|(stream, _)| stream);
                self.mark(io, &arrays, claimed, Mark::Settled);
                return Err(StreamError::NamedTwice { stream });
            }
        }
        Ok(())
    }

    /// Marks `stream`'s entry as changing, unless it is lost; how it was marked.
    fn claim_one<P: Platform>(
        &self,
        io: &Io<'_, P>,
        arrays: &Guard<'_, Arrays>,
        stream: StreamId,
    ) -> Option<Mark> {
        let mark = read(io, self.entry(io, arrays, stream)?).mark();
        self.mark(io, arrays, [stream].into_iter(), Mark::Changing);
        Some(mark)
    }

    /// What it takes to change the entries; they may change before it is done.
    pub(super) fn path<P: Platform>(
        &self,
        io: &Io<'_, P>,
        entries: impl Iterator<Item = (StreamId, Ste)>,
    ) -> Result<Path, StreamError> {
        let arrays = self.arrays.lock(io.platform());
        let mut whole = Path::default();
        for (stream, target) in entries {
            self.check_range(stream)?;
            let current = self
                .entry(io, &arrays, stream)
                .map_or(self.unused, |words| read(io, words));
            whole = whole.beside(path(current, target));
        }
        Ok(whole)
    }

    fn check_range(&self, stream: StreamId) -> Result<(), StreamError> {
        if u64::from(stream.as_u32()) < 1 << self.log2_streams {
            return Ok(());
        }
        Err(StreamError::OutOfRange {
            stream,
            streams: 1 << self.log2_streams,
        })
    }

    fn check<P: Platform>(
        &self,
        io: &Io<'_, P>,
        arrays: &Guard<'_, Arrays>,
        (stream, target): (StreamId, Ste),
        expected: Expected,
    ) -> Result<(), StreamError> {
        let ste = self
            .entry(io, arrays, stream)
            .map_or(self.unused, |words| read(io, words));
        match (ste.mark(), ste.is_open(), expected) {
            (Mark::Changing, _, Expected::Held) => Ok(()),
            (Mark::Changing, ..) => Err(StreamError::Changing { stream }),
            (_, _, Expected::Any) => Ok(()),
            (Mark::Lost | Mark::Recovering | Mark::AwaitsReset, ..) => {
                Err(StreamError::Lost { stream })
            }
            (Mark::Settled, true, Expected::Free | Expected::Held) => {
                Err(StreamError::InUse { stream })
            }
            (Mark::Settled, true, Expected::Owned) if ste.vmid() != target.vmid() => {
                Err(StreamError::InUse { stream })
            }
            (Mark::Settled, true, Expected::Owned) if jumps(ste.ats(), target.ats()) => {
                Err(StreamError::AtsAtOnce { stream })
            }
            (Mark::Settled, false, Expected::InUse | Expected::Owned | Expected::Held) => {
                Err(StreamError::NotInUse { stream })
            }
            (Mark::Settled, ..) => Ok(()),
        }
    }

    /// Makes the array that `stream` lies in, if it is missing.
    ///
    /// No SYNC of its own: every CMD_CFGI_STE from here drops the L1STD on the path too, and the
    /// one behind the first step of the change that asked for the array comes before the switch.
    fn grow<P: Platform>(
        &self,
        io: &Io<'_, P>,
        arrays: &mut Guard<'_, Arrays>,
        stream: StreamId,
    ) -> Result<(), StreamError> {
        let index = stream.as_u32() >> LOG2_ARRAY_STREAMS;
        let is_there = arrays.iter().flatten().any(|(there, _)| *there == index);
        if self.shape == Shape::Linear || is_there {
            return Ok(());
        }
        let Some(free) = arrays.iter_mut().find(|slot| slot.is_none()) else {
            return Err(StreamError::TooManyArrays { limit: MAX_ARRAYS });
        };
        let log2_bytes = LOG2_ARRAY_STREAMS + LOG2_STE_BYTES;
        let Some(array) = io.platform().allocate(log2_bytes) else {
            return Err(StreamError::NoFrames { log2_bytes });
        };
        fill(io.platform(), &array, &self.unused);
        // The array before the descriptor that makes it reachable (§3.21.3.2).
        io.barrier(Barrier::Publish);
        let descriptor = L1Std::table(array.base(), LOG2_ARRAY_STREAMS);
        io.store(
            &self.root.words(io.platform())[index as usize],
            descriptor.word(),
        );
        *free = Some((index, array));
        Ok(())
    }

    /// Makes the next step of each entry towards its target; whether there was one.
    ///
    /// The streams are claimed. If there was a step, the caller owes a barrier, a CFGI_STE each and
    /// a SYNC before the next.
    pub(super) fn step<P: Platform>(
        &self,
        io: &Io<'_, P>,
        entries: impl Iterator<Item = (StreamId, Ste)>,
    ) -> bool {
        let arrays = self.arrays.lock(io.platform());
        let mut has_stepped = false;
        for (stream, target) in entries {
            let Some(words) = self.entry(io, &arrays, stream) else {
                continue;
            };
            let current = read(io, words);
            match next_step(current, target.marked(current.mark())) {
                Step::Done => continue,
                Step::Prepare { words: new, mask } => {
                    for (i, word) in words.iter().enumerate().filter(|(i, _)| mask & 1 << i != 0) {
                        io.store(word, new[i]);
                    }
                }
                Step::Switch { index, value } => io.store(&words[index], value),
                Step::Interrupt { value } => io.store(&words[0], value),
            }
            has_stepped = true;
        }
        has_stepped
    }

    /// Ends a change: the streams are settled, or lost. One that was lost before stays so.
    pub(super) fn end<P: Platform>(
        &self,
        io: &Io<'_, P>,
        streams: impl Iterator<Item = StreamId>,
        mark: Mark,
    ) {
        let arrays = self.arrays.lock(io.platform());
        self.mark(io, &arrays, streams, mark);
    }

    /// Stores `mark` into each entry: one word each, in bits that the SMMU ignores (§5.2, SW), so
    /// nothing is owed for it. One that is lost stays so.
    fn mark<P: Platform>(
        &self,
        io: &Io<'_, P>,
        arrays: &Guard<'_, Arrays>,
        streams: impl Iterator<Item = StreamId>,
        mark: Mark,
    ) {
        for stream in streams {
            if let Some(words) = self.entry(io, arrays, stream) {
                let ste = read(io, words);
                if matches!(ste.mark(), Mark::Settled | Mark::Changing) {
                    let marked = ste.marked(mark);
                    io.store(&words[Ste::MARK_WORD], marked.words()[Ste::MARK_WORD]);
                }
            }
        }
    }

    /// Has `look` at the words of every entry that there is, with the lock held for as many at a
    /// time as one array has.
    pub(super) fn for_each<P: Platform>(
        &self,
        io: &Io<'_, P>,
        mut look: impl FnMut(StreamId, &[AtomicU64]),
    ) {
        const ARRAY: usize = 1 << LOG2_ARRAY_STREAMS;
        let mut visit = |first: u32, words: &[AtomicU64]| {
            for (i, entry) in words.chunks_exact(WORDS_PER_STE).enumerate() {
                look(StreamId::new(first + i as u32), entry);
            }
        };
        match self.shape {
            Shape::Linear => {
                let entries = 1 << self.log2_streams << 3;
                let words = self.root.words(io.platform());
                let words = words.get(..entries).unwrap_or(words);
                for (i, part) in words.chunks(ARRAY * WORDS_PER_STE).enumerate() {
                    let _arrays = self.arrays.lock(io.platform());
                    visit((i * ARRAY) as u32, part);
                }
            }
            Shape::TwoLevel => {
                for slot in 0..MAX_ARRAYS {
                    let arrays = self.arrays.lock(io.platform());
                    if let Some(Some((index, frames))) = arrays.get(slot) {
                        visit(index << LOG2_ARRAY_STREAMS, frames.words(io.platform()));
                    }
                }
            }
        }
    }

    /// Closes every entry that is lost, in memory, and marks it as being proven.
    ///
    /// The caller owes a barrier before it asks the SMMU.
    pub(super) fn close_lost<P: Platform>(&self, io: &Io<'_, P>) {
        self.for_each(io, |_, words| {
            let ste = read(io, words);
            if ste.mark() == Mark::Lost {
                let marked = ste.marked(Mark::Recovering);
                io.store(&words[Ste::MARK_WORD], marked.words()[Ste::MARK_WORD]);
                io.store(&words[0], self.unused.words()[0]);
            }
        });
    }

    /// Ends the proving of entries: they are free, those whose device may have cached translations
    /// await its reset; or lost again.
    pub(super) fn end_recovery<P: Platform>(&self, io: &Io<'_, P>, is_proven: bool) {
        self.for_each(io, |_, words| {
            let ste = read(io, words);
            if ste.mark() == Mark::Recovering {
                // The words behind the first are still those of its last owner.
                let mark = match (is_proven, ste.ats()) {
                    (false, _) => Mark::Lost,
                    (true, Ats::Off) => Mark::Settled,
                    (true, Ats::Split | Ats::Full) => Mark::AwaitsReset,
                };
                let marked = ste.marked(mark);
                io.store(&words[Ste::MARK_WORD], marked.words()[Ste::MARK_WORD]);
            }
        });
    }

    /// Frees those of `streams` that awaited a reset of their device.
    pub(super) fn end_reset<P: Platform>(
        &self,
        io: &Io<'_, P>,
        streams: impl Iterator<Item = StreamId>,
    ) {
        let arrays = self.arrays.lock(io.platform());
        for stream in streams {
            if let Some(words) = self.entry(io, &arrays, stream) {
                let ste = read(io, words);
                if ste.mark() == Mark::AwaitsReset {
                    let settled = ste.marked(Mark::Settled);
                    io.store(&words[Ste::MARK_WORD], settled.words()[Ste::MARK_WORD]);
                }
            }
        }
    }

    /// How many entries are lost, for whatever reason.
    pub(super) fn count_lost<P: Platform>(&self, io: &Io<'_, P>) -> u64 {
        let mut count = 0;
        self.for_each(io, |_, words| {
            let mark = read(io, words).mark();
            count += u64::from(!matches!(mark, Mark::Settled | Mark::Changing));
        });
        count
    }

    /// The eight words of `stream`'s entry, if it has one.
    fn entry<'a, P: Platform>(
        &'a self,
        io: &Io<'a, P>,
        arrays: &'a Guard<'_, Arrays>,
        stream: StreamId,
    ) -> Option<&'a [AtomicU64]> {
        let number = stream.as_u32();
        let (frames, index) = match self.shape {
            Shape::Linear => (&self.root, number),
            Shape::TwoLevel => {
                let array = number >> LOG2_ARRAY_STREAMS;
                let (_, frames) = arrays.iter().flatten().find(|(there, _)| *there == array)?;
                (frames, number & ((1 << LOG2_ARRAY_STREAMS) - 1))
            }
        };
        let first = index as usize * WORDS_PER_STE;
        frames
            .words(io.platform())
            .get(first..first + WORDS_PER_STE)
    }
}

/// Whether ATS would change from one kind to the other at once.
fn jumps(from: Ats, to: Ats) -> bool {
    from != to && from != Ats::Off && to != Ats::Off
}

/// The command that makes the SMMU look at `stream`'s entry, and the way to it, afresh.
pub(super) const fn forget(stream: StreamId) -> Command {
    Command::cfgi_ste(stream, CfgiScope::Path)
}

fn read<P: Platform>(io: &Io<'_, P>, words: &[AtomicU64]) -> Ste {
    Ste::from_words(core::array::from_fn(|i| io.load(&words[i])))
}

fn fill<P: Platform>(platform: &P, frames: &Frames, ste: &Ste) {
    let words = frames.words(platform);
    for (word, value) in words.iter().zip(ste.words().iter().cycle()) {
        platform.store(word, *value);
    }
}
