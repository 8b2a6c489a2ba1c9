//! Streams are published, amended and retracted: the only ways in which an entry changes.

use super::Smmu;
use super::command_queue::Ticket;
use super::contexts::Contexts;
use super::entry::{MAX_STEPS, Path};
use super::error::{CommandError, StreamError, Unwalkable};
use super::probe::Features;
use super::stream_table::{Expected, forget};
use crate::hw::Platform;
use crate::id::StreamId;
use crate::spec::ste::{Ats, Mark, Ste};
use crate::spec::vmsa::Stage2Walk;

/// Streams of one device or of several, and what their traffic goes through.
pub enum Assignment<'a, 'p, P> {
    /// Stage 2 alone; a transaction with a SubstreamID is refused.
    Stage2 {
        /// The streams.
        streams: &'a [StreamId],
        /// The stage 2.
        walk: Stage2Walk,
        /// Whether their devices may cache translations.
        ats: Ats,
    },
    /// Stage 1, by one of the contexts of a device, and then stage 2. The streams are the contexts'.
    Nested {
        /// The contexts.
        contexts: &'a Contexts<'p, P>,
        /// The stage 2.
        walk: Stage2Walk,
        /// Whether their devices may cache translations.
        ats: Ats,
    },
}

impl<P> Clone for Assignment<'_, '_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for Assignment<'_, '_, P> {}

impl<'a, P: Platform> Assignment<'a, '_, P> {
    pub(super) fn part(&self, features: &Features) -> Part<'a> {
        match *self {
            Self::Stage2 { streams, walk, ats } => Part {
                streams,
                target: features.legal(Ste::stage2(&walk)).with_ats(ats),
            },
            Self::Nested {
                contexts,
                walk,
                ats,
            } => Part {
                streams: contexts.streams(),
                target: features
                    .legal(Ste::nested(&walk, &contexts.table()))
                    .with_ats(ats),
            },
        }
    }

    pub(super) const fn streams(&self) -> &'a [StreamId] {
        match *self {
            Self::Stage2 { streams, .. } => streams,
            Self::Nested { contexts, .. } => contexts.streams(),
        }
    }

    const fn walk(&self) -> &Stage2Walk {
        match self {
            Self::Stage2 { walk, .. } | Self::Nested { walk, .. } => walk,
        }
    }
}

/// Streams that change together, and what their entries become.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) streams: &'a [StreamId],
    pub(super) target: Ste,
}

/// What entries become.
enum Goal<'a, 'p, P> {
    Same(Part<'a>),
    Each(&'a [Assignment<'a, 'p, P>]),
}

impl<'a, 'p, P: Platform> Goal<'a, 'p, P> {
    /// Every stream with what its entry becomes, in order.
    fn entries(
        &self,
        features: &'a Features,
    ) -> impl Iterator<Item = (StreamId, Ste)> + Clone + use<'a, 'p, P> {
        let (one, each) = match *self {
            Self::Same(part) => (Some(part), &[][..]),
            Self::Each(each) => (None, each),
        };
        let each = each.iter().map(|assignment| assignment.part(features));
        one.into_iter().chain(each).flat_map(|part| {
            part.streams
                .iter()
                .map(move |&stream| (stream, part.target))
        })
    }
}

/// A change of streams that is under way, from [`Smmu::begin_publish`], [`Smmu::begin_publish_all`],
/// [`Smmu::begin_amend`] or [`Smmu::begin_retract`].
///
/// Dropping it leaves the streams claimed for ever: nobody can use them, and they stay between the
/// old entry and the new one.
#[must_use = "nothing is confirmed until the change was finished"]
pub struct PendingChange<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    goal: Goal<'a, 'p, P>,
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

    /// Lets the traffic of several devices of one owner through, each by its own contexts: as
    /// [`publish`](Self::publish), in as many SYNCs.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and [`StreamError::ForeignContexts`].
    pub fn publish_all(&self, assignments: &[Assignment<'_, 'p, P>]) -> Result<(), StreamError> {
        self.begin_publish_all(assignments)?.finish()
    }

    /// Changes what the traffic of streams goes through, within one owner: each of them is in use
    /// with the VMID that it is to have.
    ///
    /// [`path_of`](Self::path_of) says before how many SYNCs it takes, and whether traffic aborts in
    /// between. With ATS, what devices cached must be invalidated by the caller.
    ///
    /// # Errors
    ///
    /// Every [`StreamError`]; [`StreamError::InUse`] if another owner uses a stream.
    pub fn amend(&self, assignments: &[Assignment<'_, 'p, P>]) -> Result<(), StreamError> {
        self.begin_amend(assignments)?.finish()
    }

    /// Stops the traffic of `streams`: 1 SYNC, whatever their number.
    ///
    /// On success no transaction of theirs is translated any more, and those that were are
    /// complete; contexts that they had are not looked at any more. Translations that the SMMU
    /// cached stay until their VMID is invalidated.
    ///
    /// # Errors
    ///
    /// Every [`StreamError`] but [`StreamError::InUse`], [`StreamError::Unwalkable`],
    /// [`StreamError::ForeignContexts`] and those of memory.
    pub fn retract(&self, streams: &[StreamId]) -> Result<(), StreamError> {
        self.begin_retract(streams)?.finish()
    }

    /// What it would take to bring the streams of `assignments` there now, from whatever they are.
    ///
    /// Several streams take the SYNCs of the longest path among them.
    ///
    /// # Errors
    ///
    /// [`StreamError::OutOfRange`], [`StreamError::Unwalkable`], [`StreamError::ForeignContexts`].
    pub fn path_of(&self, assignments: &[Assignment<'_, 'p, P>]) -> Result<Path, StreamError> {
        self.check_all(assignments)?;
        let goal = Goal::Each(assignments);
        self.streams.path(&self.io, goal.entries(&self.features))
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
        let target = self.features.legal(Ste::stage2(walk));
        self.begin_same(streams, target, Expected::Free)
    }

    /// The first phase of [`publish_all`](Self::publish_all): up to the wait for its first SYNC.
    ///
    /// # Errors
    ///
    /// As [`publish_all`](Self::publish_all), save [`StreamError::NotConfirmed`], which
    /// [`PendingChange::finish`] tells.
    pub fn begin_publish_all<'a>(
        &'a self,
        assignments: &'a [Assignment<'a, 'p, P>],
    ) -> Result<PendingChange<'a, 'p, P>, StreamError> {
        self.check_all(assignments)?;
        self.note_nesting(assignments);
        self.begin(Goal::Each(assignments), Expected::Free)
    }

    /// The first phase of [`amend`](Self::amend): up to the wait for its first SYNC.
    ///
    /// # Errors
    ///
    /// As [`amend`](Self::amend), save [`StreamError::NotConfirmed`], which
    /// [`PendingChange::finish`] tells.
    pub fn begin_amend<'a>(
        &'a self,
        assignments: &'a [Assignment<'a, 'p, P>],
    ) -> Result<PendingChange<'a, 'p, P>, StreamError> {
        self.check_all(assignments)?;
        self.note_nesting(assignments);
        self.begin(Goal::Each(assignments), Expected::Owned)
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
        let target = self.streams.unused();
        self.begin_same(streams, target, Expected::InUse)
    }

    fn check_all(&self, assignments: &[Assignment<'_, 'p, P>]) -> Result<(), StreamError> {
        for assignment in assignments {
            self.check(assignment)?;
        }
        Ok(())
    }

    /// Whether this SMMU can do what `assignment` asks.
    pub(super) fn check(&self, assignment: &Assignment<'_, 'p, P>) -> Result<(), StreamError> {
        self.features
            .can_walk(assignment.walk())
            .map_err(StreamError::Unwalkable)?;
        match assignment {
            Assignment::Stage2 { ats, .. } => self.features.can_ats(*ats, false),
            Assignment::Nested {
                contexts,
                walk,
                ats,
            } => {
                if !contexts.belong_to(self, walk.vmid) {
                    return Err(StreamError::ForeignContexts);
                }
                self.features.can_ats(*ats, true)
            }
        }
        .map_err(StreamError::Misfit)
    }

    /// From here on, invalidating one of these stage 2 takes away what combines both stages.
    fn note_nesting(&self, assignments: &[Assignment<'_, 'p, P>]) {
        for assignment in assignments {
            self.note_one(assignment);
        }
    }

    pub(super) fn note_one(&self, assignment: &Assignment<'_, 'p, P>) {
        if let Assignment::Nested { walk, .. } = assignment {
            self.nested.note(&self.io, walk.vmid);
        }
    }

    /// Begins to make the entry of each of `streams` the same.
    pub(super) fn begin_same<'a>(
        &'a self,
        streams: &'a [StreamId],
        target: Ste,
        expected: Expected,
    ) -> Result<PendingChange<'a, 'p, P>, StreamError> {
        self.begin(Goal::Same(Part { streams, target }), expected)
    }

    fn begin<'a>(
        &'a self,
        goal: Goal<'a, 'p, P>,
        expected: Expected,
    ) -> Result<PendingChange<'a, 'p, P>, StreamError> {
        self.streams
            .claim(&self.io, goal.entries(&self.features), expected)?;
        let ticket = self.step_entries(goal.entries(&self.features));
        Ok(PendingChange {
            smmu: self,
            goal,
            ticket,
        })
    }
}

impl<P: Platform> PendingChange<'_, '_, P> {
    /// Waits for the SYNC under way, goes on to the next step, and so to the end.
    ///
    /// At most [`Settings::sync_timeout_us`](super::Settings::sync_timeout_us) a step, two steps
    /// to publish, three to amend, one to retract.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConfirmed`], [`StreamError::NotHeld`]: the streams are lost.
    pub fn finish(self) -> Result<(), StreamError> {
        self.finish_as(Mark::Settled)
    }

    /// As [`finish`](Self::finish); on success the streams are then `mark`.
    pub(super) fn finish_as(self, mark: Mark) -> Result<(), StreamError> {
        let Self { smmu, goal, ticket } = self;
        smmu.finish_entries(goal.entries(&smmu.features), ticket, mark)
    }
}

impl<P: Platform> Smmu<'_, P> {
    /// Stores the next step of every entry, and asks the SMMU to look at them afresh; `None` if
    /// there was nothing left to do.
    pub(super) fn step_entries(
        &self,
        entries: impl Iterator<Item = (StreamId, Ste)> + Clone,
    ) -> Result<Option<Ticket>, CommandError> {
        if !self.streams.step(&self.io, entries.clone()) {
            return Ok(None);
        }
        // The stores come before the commands that make the SMMU read them (§3.21.3.1): the barrier
        // that `submit` makes before CMDQ_PROD is for them as well.
        self.submit_then_sync(entries.map(|(stream, _)| forget(stream)))
            .map(Some)
    }

    /// Waits for the step under way, makes those that are left, and marks the entries at the end:
    /// with `mark`, or lost.
    pub(super) fn finish_entries(
        &self,
        entries: impl Iterator<Item = (StreamId, Ste)> + Clone,
        first: Result<Option<Ticket>, CommandError>,
        mark: Mark,
    ) -> Result<(), StreamError> {
        let outcome = self.run_entries(&entries, first);
        let mark = if outcome.is_ok() { mark } else { Mark::Lost };
        let streams = entries.map(|(stream, _)| stream);
        self.streams.end(&self.io, streams, mark);
        outcome
    }

    fn run_entries(
        &self,
        entries: &(impl Iterator<Item = (StreamId, Ste)> + Clone),
        mut step: Result<Option<Ticket>, CommandError>,
    ) -> Result<(), StreamError> {
        for _ in 0..=MAX_STEPS {
            match step.map_err(StreamError::NotConfirmed)? {
                Some(ticket) => self.wait(ticket).map_err(StreamError::NotConfirmed)?,
                None => return Ok(()),
            }
            step = self.step_entries(entries.clone());
        }
        Err(StreamError::NotHeld)
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
        if !self.has_granule(log2_granule) {
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

    /// Whether it has the granule of `2^log2_granule` bytes.
    pub(super) const fn has_granule(&self, log2_granule: u8) -> bool {
        match log2_granule {
            12 => true,
            14 => self.has_16k_granule,
            16 => self.has_64k_granule,
            _ => false,
        }
    }
}
