//! Contexts are published, quieted and retracted, and leaves given back.
//!
//! | verb | stores | SYNCs |
//! |---|---|---|
//! | publish | all words but the first; then the first | 2 |
//! | publish, first of its leaf | a whole CD; then the L1CD that leads to it | 1 |
//! | quiet, or park | the first word | 1, for any number |
//! | retract | the first word | 1 |
//! | give a leaf back | the L1CD | 1 |
//!
//! Every CD on the way is one of: what it was, what it becomes. The two SYNCs of a publish are the
//! floor where words are atomic and entries are not (§3.21.3.1): the SMMU may have read the other
//! words of a CD that was not valid long before, and would join them to the first.

use core::sync::atomic::AtomicU64;

use super::Smmu;
use super::cd_table::{Found, Table, read, state};
use super::command_queue::Ticket;
use super::contexts::{Context, Contexts};
use super::entry::{self, next_step};
use super::error::{CommandError, ContextError};
use super::sealed::Sealed;
use super::steps::{Step, Steps, Stopped};
use crate::hw::{Barrier, Guard, Platform};
use crate::spec::cd::{Cd, CdState, Faults};
use crate::spec::command::Command;
use crate::spec::stage1::Stage1Walk;

/// A context of a device, to be quieted with others.
pub struct ContextOf<'a, 'p, P> {
    /// The device's contexts.
    pub contexts: &'a Contexts<'p, P>,
    /// Which.
    pub context: Context,
}

impl<P> Clone for ContextOf<'_, '_, P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P> Copy for ContextOf<'_, '_, P> {}

/// A change of a context that is under way, from [`Smmu::begin_publish_context`] or
/// [`Smmu::begin_retract_context`].
///
/// Dropping it leaves the context claimed for ever: not valid, and nobody can use it.
#[must_use = "nothing is confirmed until the change was finished"]
pub struct PendingContext<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    contexts: &'a Contexts<'p, P>,
    index: u32,
    /// What is still to be stored.
    next: Option<Cd>,
    steps: Steps,
}

/// Contexts that are quiet in memory, while the SMMU may still use what it cached.
#[must_use = "nothing is confirmed until the change was finished"]
pub struct PendingQuiet<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    ticket: Result<Ticket, CommandError>,
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Lets `context` translate by `walk`: 2 SYNCs, 1 for the first context of a leaf.
    ///
    /// A leaf that has no memory yet is asked of `seal`, by its size as a power of two, with the
    /// contexts' lock held. On success every transaction of the context from now on is translated.
    ///
    /// # Errors
    ///
    /// Every [`ContextError`] but [`ContextError::NotInUse`]; what is true then is said there.
    pub fn publish_context(
        &self,
        contexts: &Contexts<'p, P>,
        context: Context,
        (walk, faults): (&Stage1Walk, Faults),
        seal: impl FnOnce(u8) -> Option<Sealed>,
    ) -> Result<(), ContextError> {
        self.begin_publish_context(contexts, context, (walk, faults), seal)?
            .finish()
    }

    /// Makes each of `list` quiet: its traffic aborts without an event, and no translation of a
    /// live context serves it. 1 SYNC, whatever their number.
    ///
    /// Where stalls are forced there is no such thing ([`can_quiet`](super::Features::can_quiet)): it is parked, and
    /// its traffic aborts with an event.
    ///
    /// To be done only when every context of the ASID goes, those of other devices too. What the
    /// SMMU cached under the ASID stays until it is invalidated. A context that is quiet already
    /// stays so.
    ///
    /// # Errors
    ///
    /// [`ContextError::Foreign`], [`ContextError::NoSuchContext`], [`ContextError::NotInUse`],
    /// [`ContextError::Changing`], [`ContextError::Lost`]: nothing was changed.
    /// [`ContextError::NotConfirmed`].
    pub fn quiet(&self, list: &[ContextOf<'_, 'p, P>]) -> Result<(), ContextError> {
        self.begin_quiet(list)?.finish()
    }

    /// Ends `context`, live or quiet: 1 SYNC. Its device has no ATS, or has forgotten what it cached
    /// of it since it was made quiet; else [`begin_retract_context`](Self::begin_retract_context).
    ///
    /// On success its traffic aborts with an event, no CD of it is cached, and its memory is zeros.
    /// Translations that the SMMU cached under its ASID stay, and serve the ASID's other contexts.
    ///
    /// # Errors
    ///
    /// Every [`ContextError`] but [`ContextError::InUse`], [`ContextError::Misfit`],
    /// [`ContextError::NoLeaf`] and [`ContextError::DeviceCaches`].
    pub fn retract_context(
        &self,
        contexts: &Contexts<'p, P>,
        context: Context,
    ) -> Result<(), ContextError> {
        self.begin_retract_context(contexts, context, false)?
            .finish()
    }

    /// Takes the leaf that `context` lies in out of the table, if no context of it is in use:
    /// 1 SYNC. Give it to the window, which takes it out of the stage 2 and invalidates that.
    ///
    /// # Errors
    ///
    /// [`ContextError::Foreign`]; [`ContextError::NoSuchContext`] too where there are no leaves;
    /// [`ContextError::NotInUse`] if the leaf has no memory; [`ContextError::InUse`] if one of its
    /// contexts is, or is lost; [`ContextError::Changing`] if it is on its way already.
    /// [`ContextError::NotConfirmed`]: the leaf stays out of use, until
    /// [`reclaim_leaf`](Self::reclaim_leaf).
    pub fn give_back_leaf(
        &self,
        contexts: &Contexts<'p, P>,
        context: Context,
    ) -> Result<Sealed, ContextError> {
        let index = self.index(contexts, context)?;
        contexts.lock().unlink(index)?;
        let streams = contexts.streams().iter();
        let train = streams.map(|&stream| Command::cfgi_cd_all(stream));
        let steps = self.begin_steps(train, [].into_iter(), [].into_iter());
        let confirmed = self.finish_steps(steps);
        let mut table = contexts.lock();
        if let Err(Stopped { error, .. }) = confirmed {
            table.lose_leaf(index);
            contexts.note_loss(self.loss());
            return Err(ContextError::NotConfirmed(error));
        }
        table.take_leaf(index).ok_or(ContextError::NotHeld)
    }

    /// The first phase of [`publish_context`](Self::publish_context): up to the wait for its first
    /// SYNC.
    ///
    /// # Errors
    ///
    /// As [`publish_context`](Self::publish_context), save [`ContextError::NotConfirmed`], which
    /// [`PendingContext::finish`] tells.
    pub fn begin_publish_context<'a>(
        &'a self,
        contexts: &'a Contexts<'p, P>,
        context: Context,
        (walk, faults): (&Stage1Walk, Faults),
        seal: impl FnOnce(u8) -> Option<Sealed>,
    ) -> Result<PendingContext<'a, 'p, P>, ContextError> {
        let index = self.index(contexts, context)?;
        let cd = self
            .features
            .cd(walk, faults)
            .map_err(ContextError::Misfit)?;
        let mut table = contexts.lock();
        let next = match table.find(index) {
            Found::Cd(words) => {
                self.prepare(words, cd)?;
                Some(cd)
            }
            Found::LeafGoing => return Err(ContextError::Changing),
            Found::NoLeaf { log2_bytes } => {
                let leaf = seal(log2_bytes).ok_or(ContextError::NoLeaf { log2_bytes })?;
                table.add_leaf(index, leaf)?;
                self.fill_leaf(&table, index, cd)?;
                None
            }
        };
        table.count(index, 1);
        drop(table);
        Ok(self.pending(contexts, index, next))
    }

    /// Claims the CD in `words`, and stores all of `cd` but what makes it valid.
    fn prepare(&self, words: &[AtomicU64], cd: Cd) -> Result<(), ContextError> {
        match state(self.io.platform(), words) {
            CdState::Free => {}
            CdState::Live | CdState::Quiet | CdState::Parked => {
                return Err(ContextError::InUse);
            }
            CdState::Changing => return Err(ContextError::Changing),
            CdState::Lost => return Err(ContextError::Lost),
        }
        self.io
            .store(&words[0], Cd::invalid_word(CdState::Changing));
        if let entry::Step::Prepare { words: new, mask } =
            next_step(read(self.io.platform(), words), cd)
        {
            for (i, word) in words.iter().enumerate().filter(|(i, _)| mask & 1 << i != 0) {
                self.io.store(word, new[i]);
            }
        }
        Ok(())
    }

    /// Stores `cd` whole into a leaf that nobody sees, and lets the SMMU see it.
    fn fill_leaf(
        &self,
        table: &Guard<'_, Table<'p, P>>,
        index: u32,
        cd: Cd,
    ) -> Result<(), ContextError> {
        let words = table.hidden_words(index).ok_or(ContextError::NotHeld)?;
        for (word, value) in words.iter().zip(cd.words()) {
            self.io.store(word, *value);
        }
        // The CD before what makes it reachable (§3.21.3.2).
        self.io.barrier(Barrier::Publish);
        table.link(index);
        Ok(())
    }

    /// The first phase of [`quiet`](Self::quiet): up to the wait for its SYNC.
    ///
    /// # Errors
    ///
    /// As [`quiet`](Self::quiet), save [`ContextError::NotConfirmed`], which
    /// [`PendingQuiet::finish`] tells.
    pub fn begin_quiet<'a>(
        &'a self,
        list: &[ContextOf<'_, 'p, P>],
    ) -> Result<PendingQuiet<'a, 'p, P>, ContextError> {
        for ContextOf { contexts, context } in list {
            let index = self.index(contexts, *context)?;
            self.in_use(&contexts.lock(), index)?;
        }
        for ContextOf { contexts, context } in list {
            let index = self.index(contexts, *context)?;
            let table = contexts.lock();
            // Who ended it meanwhile has done more than was asked.
            if let Ok((words, cd)) = self.in_use(&table, index) {
                self.silence(words, cd);
            }
        }
        let train = list.iter().flat_map(|ContextOf { contexts, context }| {
            let index = contexts.index(*context).ok();
            index.into_iter().flat_map(|index| contexts.forget(index))
        });
        Ok(PendingQuiet {
            smmu: self,
            ticket: self.submit_then_sync(train),
        })
    }

    /// Makes a live `cd`, which lies in `words`, quiet, or parks it: one store either way.
    pub(super) fn silence(&self, words: &[AtomicU64], cd: Cd) {
        if cd.state() != CdState::Live {
            return;
        }
        let word = if self.features.can_quiet() {
            cd.quieted().words()[0]
        } else {
            Cd::invalid_word(CdState::Parked)
        };
        self.io.store(&words[0], word);
    }

    /// The first phase of [`retract_context`](Self::retract_context): up to the wait for its SYNC,
    /// or for its two if the device `has_ats`, which is then told to forget what it cached of the
    /// context, behind the first.
    ///
    /// # Errors
    ///
    /// As [`retract_context`](Self::retract_context), save [`ContextError::NotConfirmed`] and
    /// [`ContextError::DeviceCaches`], which [`PendingContext::finish`] tells.
    pub fn begin_retract_context<'a>(
        &'a self,
        contexts: &'a Contexts<'p, P>,
        context: Context,
        has_ats: bool,
    ) -> Result<PendingContext<'a, 'p, P>, ContextError> {
        let index = self.index(contexts, context)?;
        let table = contexts.lock();
        let (words, _) = self.in_use(&table, index)?;
        self.io
            .store(&words[0], Cd::invalid_word(CdState::Changing));
        drop(table);
        let devices = contexts
            .streams()
            .iter()
            .filter(|_| has_ats)
            .filter_map(|&stream| self.forget_atc(stream, context));
        Ok(PendingContext {
            smmu: self,
            contexts,
            index,
            next: Some(Cd::invalid()),
            steps: self.begin_steps(contexts.forget(index), [].into_iter(), devices),
        })
    }

    /// CD `index`, if it is somebody's.
    pub(super) fn in_use<'t>(
        &self,
        table: &'t Table<'p, P>,
        index: u32,
    ) -> Result<(&'t [AtomicU64], Cd), ContextError> {
        let words = match table.find(index) {
            Found::Cd(words) => words,
            Found::NoLeaf { .. } => return Err(ContextError::NotInUse),
            Found::LeafGoing => return Err(ContextError::Changing),
        };
        match state(self.io.platform(), words) {
            CdState::Live | CdState::Quiet | CdState::Parked => {
                Ok((words, read(self.io.platform(), words)))
            }
            CdState::Free => Err(ContextError::NotInUse),
            CdState::Changing => Err(ContextError::Changing),
            CdState::Lost => Err(ContextError::Lost),
        }
    }

    pub(super) fn index(
        &self,
        contexts: &Contexts<'p, P>,
        context: Context,
    ) -> Result<u32, ContextError> {
        if contexts.smmu != self.streams.base() {
            return Err(ContextError::Foreign);
        }
        contexts.index(context)
    }

    fn pending<'a>(
        &'a self,
        contexts: &'a Contexts<'p, P>,
        index: u32,
        next: Option<Cd>,
    ) -> PendingContext<'a, 'p, P> {
        PendingContext {
            smmu: self,
            contexts,
            index,
            next,
            steps: self.begin_steps(contexts.forget(index), [].into_iter(), [].into_iter()),
        }
    }
}

impl<P: Platform> PendingContext<'_, '_, P> {
    /// Waits for the SYNC under way, goes on to the next step, and so to the end.
    ///
    /// At most [`Settings::sync_timeout_us`](super::Settings::sync_timeout_us) for each SYNC.
    ///
    /// # Errors
    ///
    /// [`ContextError::NotConfirmed`], [`ContextError::NotHeld`]: the context is lost.
    /// [`ContextError::DeviceCaches`]: it is free.
    pub fn finish(self) -> Result<(), ContextError> {
        let Self {
            smmu,
            contexts,
            index,
            next,
            steps,
        } = self;
        // Of devices alone nothing is known then: the SMMU has forgotten the context.
        let devices = match smmu.finish_steps(steps) {
            Ok(()) => Ok(()),
            Err(Stopped {
                at: Step::DeviceCaches,
                error,
            }) => Err(ContextError::DeviceCaches(error)),
            Err(Stopped { error, .. }) => {
                smmu.lose(contexts, index);
                return Err(ContextError::NotConfirmed(error));
            }
        };
        let stored = match next {
            Some(cd) if cd == Cd::invalid() => smmu.clear(contexts, index),
            Some(cd) => smmu.switch(contexts, index, cd),
            None => Ok(()),
        };
        if stored.is_err() {
            smmu.lose(contexts, index);
        }
        stored.and(devices)
    }
}

impl<P: Platform> PendingQuiet<'_, '_, P> {
    /// Waits for the SYNC.
    ///
    /// # Errors
    ///
    /// [`ContextError::NotConfirmed`]: they stay quiet in memory, and may be live to the SMMU.
    pub fn finish(self) -> Result<(), ContextError> {
        self.ticket
            .and_then(|ticket| self.smmu.wait(ticket))
            .map_err(ContextError::NotConfirmed)
    }
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Makes a prepared CD valid, and waits until the SMMU has seen that.
    fn switch(&self, contexts: &Contexts<'p, P>, index: u32, cd: Cd) -> Result<(), ContextError> {
        let table = contexts.lock();
        let words = table.words(index).ok_or(ContextError::NotHeld)?;
        let entry::Step::Switch { index: 0, value } =
            next_step(read(self.io.platform(), words), cd)
        else {
            return Err(ContextError::NotHeld);
        };
        self.io.store(&words[0], value);
        drop(table);
        self.submit_then_sync(contexts.forget(index))
            .and_then(|ticket| self.wait(ticket))
            .map_err(ContextError::NotConfirmed)
    }

    /// Zeros a CD that the SMMU has forgotten. It is free from then on.
    pub(super) fn clear(&self, contexts: &Contexts<'p, P>, index: u32) -> Result<(), ContextError> {
        let mut table = contexts.lock();
        let words = table.words(index).ok_or(ContextError::NotHeld)?;
        // The first at last: it says that the others are nobody's.
        for word in words.iter().rev() {
            self.io.store(word, 0);
        }
        table.count(index, -1);
        Ok(())
    }

    /// Leaves a CD not valid, and out of use.
    fn lose(&self, contexts: &Contexts<'p, P>, index: u32) {
        let table = contexts.lock();
        let words = table.words(index);
        if let Some(first) = words.and_then(<[_]>::first) {
            self.io.store(first, Cd::invalid_word(CdState::Lost));
        }
        // Behind the store, so that a proof that covers it began when it was there.
        contexts.note_loss(self.loss());
    }
}
