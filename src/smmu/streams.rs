//! Streams are published and retracted: the only two ways in which an entry changes.

use super::Smmu;
use super::command_queue::Ticket;
use super::entry::MAX_STEPS;
use super::error::{CommandError, StreamError, Unwalkable};
use super::probe::Features;
use super::stream_table::{Expected, forget};
use crate::hw::Platform;
use crate::id::StreamId;
use crate::spec::command::Command;
use crate::spec::ste::{Mark, Ste};
use crate::spec::vmsa::Stage2Walk;

/// A change of streams that is under way, from [`Smmu::begin_publish`] or [`Smmu::begin_retract`].
///
/// Dropping it leaves the streams claimed for ever: nobody can use them, and they stay between the
/// old entry and the new one.
#[must_use = "nothing is confirmed until the change was finished"]
pub struct PendingChange<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    streams: &'a [StreamId],
    target: Ste,
    ticket: Result<Option<Ticket>, CommandError>,
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Lets the traffic of `streams`, one owner's, through the stage 2 of `walk`.
    ///
    /// All of them move together: 2 SYNCs, whatever their number. A transaction aborts until its
    /// stream's entry has changed, and is translated from then on; on success all have.
    ///
    /// # Errors
    ///
    /// Every [`StreamError`] but [`StreamError::NotInUse`]; what is true then is said there.
    pub fn publish(&self, streams: &[StreamId], walk: &Stage2Walk) -> Result<(), StreamError> {
        self.begin_publish(streams, walk)?.finish()
    }

    /// Stops the traffic of `streams`: 1 SYNC, whatever their number.
    ///
    /// On success no transaction of theirs is translated any more, and those that were are
    /// complete. Translations that the SMMU cached stay until their VMID is invalidated.
    ///
    /// # Errors
    ///
    /// Every [`StreamError`] but [`StreamError::InUse`], [`StreamError::Unwalkable`] and those of
    /// memory.
    pub fn retract(&self, streams: &[StreamId]) -> Result<(), StreamError> {
        self.begin_retract(streams)?.finish()
    }

    /// The first phase of [`publish`](Self::publish): up to the wait for its first SYNC.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), save [`StreamError::NotConfirmed`], which
    /// [`PendingChange::finish`] tells.
    pub fn begin_publish<'a>(
        &'a self,
        streams: &'a [StreamId],
        walk: &Stage2Walk,
    ) -> Result<PendingChange<'a, 'p, P>, StreamError> {
        self.features
            .can_walk(walk)
            .map_err(StreamError::Unwalkable)?;
        self.begin(streams, Ste::stage2(walk), Expected::Free)
    }

    /// The first phase of [`retract`](Self::retract): up to the wait for its SYNC.
    ///
    /// # Errors
    ///
    /// As [`retract`](Self::retract), save [`StreamError::NotConfirmed`], which
    /// [`PendingChange::finish`] tells.
    pub fn begin_retract<'a>(
        &'a self,
        streams: &'a [StreamId],
    ) -> Result<PendingChange<'a, 'p, P>, StreamError> {
        self.begin(streams, self.streams.unused(), Expected::InUse)
    }

    fn begin<'a>(
        &'a self,
        streams: &'a [StreamId],
        target: Ste,
        expected: Expected,
    ) -> Result<PendingChange<'a, 'p, P>, StreamError> {
        self.streams.claim(&self.io, streams, expected)?;
        let mut change = PendingChange {
            smmu: self,
            streams,
            target,
            ticket: Ok(None),
        };
        change.ticket = change.step();
        Ok(change)
    }
}

impl<P: Platform> PendingChange<'_, '_, P> {
    /// Waits for the SYNC under way, goes on to the next step, and so to the end.
    ///
    /// At most [`Settings::sync_timeout_us`](super::Settings::sync_timeout_us) a step, two steps
    /// to publish, one to retract.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConfirmed`], [`StreamError::NotHeld`]: the streams are lost.
    pub fn finish(mut self) -> Result<(), StreamError> {
        let outcome = self.run();
        let mark = if outcome.is_ok() {
            Mark::Settled
        } else {
            Mark::Lost
        };
        self.smmu.streams.end(&self.smmu.io, self.streams, mark);
        outcome
    }

    fn run(&mut self) -> Result<(), StreamError> {
        for _ in 0..=MAX_STEPS {
            let step = core::mem::replace(&mut self.ticket, Ok(None));
            match step.map_err(StreamError::NotConfirmed)? {
                Some(ticket) => self.smmu.wait(ticket).map_err(StreamError::NotConfirmed)?,
                None => return Ok(()),
            }
            self.ticket = self.step();
        }
        Err(StreamError::NotHeld)
    }

    /// Stores the next step of every entry, and asks the SMMU to look at them afresh; `None` if
    /// there was nothing left to do.
    fn step(&self) -> Result<Option<Ticket>, CommandError> {
        let smmu = self.smmu;
        if !smmu.streams.step(&smmu.io, self.streams, self.target) {
            return Ok(None);
        }
        // The stores come before the commands that make the SMMU read them (§3.21.3.1): the barrier
        // that `submit` makes before CMDQ_PROD is for them as well.
        let train = self
            .streams
            .iter()
            .map(|&stream| forget(stream))
            .chain([Command::sync()]);
        let timeout_us = smmu.settings.sync_timeout_us;
        smmu.commands.submit(&smmu.io, train, timeout_us).map(Some)
    }
}

impl Features {
    /// Whether this SMMU can walk a stage 2 of that shape.
    ///
    /// # Errors
    ///
    /// The [`Unwalkable`] that stands in the way.
    pub fn can_walk(&self, walk: &Stage2Walk) -> Result<(), Unwalkable> {
        let log2_granule = walk.geometry.granule().log2_bytes();
        let has_granule = match log2_granule {
            12 => true,
            14 => self.has_16k_granule,
            _ => self.has_64k_granule,
        };
        if !has_granule {
            return Err(Unwalkable::Granule { log2_granule });
        }
        if walk.geometry.output_bits() > self.output_bits {
            return Err(Unwalkable::OutputSize {
                bits: walk.geometry.output_bits(),
                smmu_bits: self.output_bits,
            });
        }
        if self.vmid_bits == 8 && walk.vmid.as_u16() > 0xff {
            return Err(Unwalkable::VmidSize);
        }
        Ok(())
    }
}
