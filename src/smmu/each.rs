//! Streams published or amended that come one by one, where no list of them is kept.

use core::ops::Deref;

use super::Smmu;
use super::command_queue::Ticket;
use super::contexts::Contexts;
use super::error::{CommandError, StreamError};
use super::probe::Features;
use super::stream_table::Expected;
use super::streams::Assignment;
use crate::hw::Platform;
use crate::id::StreamId;
use crate::spec::ste::{Ats, Mark, Ste};
use crate::spec::vmsa::Stage2Walk;

/// One of many [assignments](Assignment), by value.
///
/// `C` leads to the contexts of a device: a reference, or a handle that keeps them.
#[derive(Clone, Copy, Debug)]
pub enum AssignmentOf<C> {
    /// Stage 2 alone.
    Stage2 {
        /// The stream.
        stream: StreamId,
        /// The stage 2.
        walk: Stage2Walk,
        /// Whether its device may cache translations.
        ats: Ats,
    },
    /// Stage 1, by one of the contexts of a device, and then stage 2. The streams are the contexts'.
    Nested {
        /// The contexts.
        contexts: C,
        /// The stage 2.
        walk: Stage2Walk,
        /// Whether the device may cache translations.
        ats: Ats,
    },
}

/// A change of streams that is under way, from [`Smmu::begin_publish_each`] or
/// [`Smmu::begin_amend_each`].
///
/// Dropping it leaves the streams claimed for ever.
#[must_use = "nothing is confirmed until the change was finished"]
pub struct PendingEach<'a, 'p, P: Platform, I> {
    smmu: &'a Smmu<'p, P>,
    assignments: I,
    ticket: Result<Option<Ticket>, CommandError>,
}

impl<'p, P: Platform + 'p, C: Deref<Target = Contexts<'p, P>>> AssignmentOf<C> {
    /// Has `look` at it as an [`Assignment`].
    fn with<R>(&self, look: impl FnOnce(&Assignment<'_, 'p, P>) -> R) -> R {
        match self {
            Self::Stage2 { stream, walk, ats } => look(&Assignment::Stage2 {
                streams: core::slice::from_ref(stream),
                walk: *walk,
                ats: *ats,
            }),
            Self::Nested {
                contexts,
                walk,
                ats,
            } => look(&Assignment::Nested {
                contexts,
                walk: *walk,
                ats: *ats,
            }),
        }
    }

    /// Its streams, each with what its entry becomes.
    fn entries(self, features: &Features) -> impl Iterator<Item = (StreamId, Ste)> + Clone
    where
        C: Clone,
    {
        let (count, target) = self.with(|it| {
            let part = it.part(features);
            (part.streams.len(), part.target)
        });
        (0..count).filter_map(move |i| {
            let stream = self.with(|it| it.streams().get(i).copied());
            Some((stream?, target))
        })
    }
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// As [`begin_publish_all`](Self::begin_publish_all), of assignments that are asked for several
    /// times, and are the same each time.
    ///
    /// # Errors
    ///
    /// As [`begin_publish_all`](Self::begin_publish_all).
    pub fn begin_publish_each<I, C>(
        &self,
        assignments: I,
    ) -> Result<PendingEach<'_, 'p, P, I>, StreamError>
    where
        I: Iterator<Item = AssignmentOf<C>> + Clone,
        C: Deref<Target = Contexts<'p, P>> + Clone,
    {
        self.begin_each(assignments, Expected::Free)
    }

    /// As [`begin_amend`](Self::begin_amend), of assignments that are asked for several times, and
    /// are the same each time.
    ///
    /// # Errors
    ///
    /// As [`begin_amend`](Self::begin_amend).
    pub fn begin_amend_each<I, C>(
        &self,
        assignments: I,
    ) -> Result<PendingEach<'_, 'p, P, I>, StreamError>
    where
        I: Iterator<Item = AssignmentOf<C>> + Clone,
        C: Deref<Target = Contexts<'p, P>> + Clone,
    {
        self.begin_each(assignments, Expected::Owned)
    }

    fn begin_each<I, C>(
        &self,
        assignments: I,
        expected: Expected,
    ) -> Result<PendingEach<'_, 'p, P, I>, StreamError>
    where
        I: Iterator<Item = AssignmentOf<C>> + Clone,
        C: Deref<Target = Contexts<'p, P>> + Clone,
    {
        for assignment in assignments.clone() {
            assignment.with(|it| self.check(it))?;
        }
        for assignment in assignments.clone() {
            assignment.with(|it| self.note_one(it));
        }
        let entries = self.entries_of(assignments.clone());
        self.streams.claim(&self.io, entries.clone(), expected)?;
        Ok(PendingEach {
            smmu: self,
            assignments,
            ticket: self.step_entries(entries),
        })
    }

    fn entries_of<I, C>(&self, assignments: I) -> impl Iterator<Item = (StreamId, Ste)> + Clone
    where
        I: Iterator<Item = AssignmentOf<C>> + Clone,
        C: Deref<Target = Contexts<'p, P>> + Clone,
    {
        assignments.flat_map(|assignment| assignment.entries(&self.features))
    }
}

impl<'p, P, I, C> PendingEach<'_, 'p, P, I>
where
    P: Platform,
    I: Iterator<Item = AssignmentOf<C>> + Clone,
    C: Deref<Target = Contexts<'p, P>> + Clone,
{
    /// Waits for the SYNC under way, goes on to the next step, and so to the end: as
    /// [`PendingChange::finish`](super::PendingChange::finish).
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConfirmed`], [`StreamError::NotHeld`]: the streams are lost.
    pub fn finish(self) -> Result<(), StreamError> {
        let entries = self.smmu.entries_of(self.assignments);
        self.smmu
            .finish_entries(entries, self.ticket, Mark::Settled)
    }
}
