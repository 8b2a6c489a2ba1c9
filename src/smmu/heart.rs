//! What the heart (`space`) asks of an SMMU beside its verbs.

use core::ops::Deref;

use super::Smmu;
use super::cd_table::Found;
use super::contexts::{Context, Contexts};
use super::error::CommandError;
use super::gather::Gathered;
use super::invalidate::Train;
use super::misfit::Misfit;
use super::probe::Features;
use super::release::{Releasing, forget_cd, streams_of};
use super::steps::Stopped;
use crate::hw::Platform;
use crate::id::{StreamId, SubstreamId, Vmid};
use crate::spec::cd::{Cd, CdState, Faults};
use crate::spec::command::Command;
use crate::spec::stage1::Stage1Walk;
use crate::spec::ste::CdTable;

impl Features {
    /// Whether this SMMU can walk a stage 1 of that shape, and do that with what it refuses.
    ///
    /// # Errors
    ///
    /// The [`Misfit`] that stands in the way.
    pub fn can_translate(&self, walk: &Stage1Walk, faults: Faults) -> Result<(), Misfit> {
        self.cd(walk, faults).map(|_| ())
    }
}

impl<P: Platform> Contexts<'_, P> {
    /// How many contexts there are, as a power of two.
    pub const fn log2_contexts(&self) -> u8 {
        match self.table() {
            CdTable::Single { .. } => 0,
            CdTable::BySubstream { log2_cds, .. } => log2_cds,
        }
    }

    /// How many bytes of sealed memory the leaf of `context` takes, as a power of two, if it has none
    /// yet.
    pub fn lacks_leaf(&self, context: Context) -> Option<u8> {
        let index = self.index(context).ok()?;
        match self.lock().find(index) {
            Found::NoLeaf { log2_bytes } => Some(log2_bytes),
            Found::Cd(_) | Found::LeafGoing => None,
        }
    }

    /// A context of a leaf of which none is anybody's, if there is such a leaf: for
    /// [`Smmu::give_back_leaf`].
    pub fn first_empty_leaf(&self) -> Option<Context> {
        let index = self.lock().empty_leaf()?;
        Some(Context::Substream(SubstreamId::new(index)?))
    }
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// How many events its queue holds: no more can be waiting at a time.
    pub const fn events_at_most(&self) -> u32 {
        1 << self.events.log2_entries()
    }

    /// Forgets that streams of `vmid` nested: none has it any more, and nothing tagged with it is
    /// cached.
    pub(crate) fn forget_nesting(&self, vmid: Vmid) {
        self.nested.forget(vmid);
    }

    /// Has the device of `contexts` forget what it cached of `context`, each stream alone: as
    /// [`atc_invalidate_singly`](Self::atc_invalidate_singly).
    ///
    /// # Errors
    ///
    /// As [`atc_invalidate_singly`](Self::atc_invalidate_singly).
    pub fn atc_invalidate_context_singly(
        &self,
        contexts: &Contexts<'p, P>,
        context: Context,
        failed: impl FnMut(StreamId),
    ) -> Result<(), CommandError> {
        let streams = contexts.streams().iter();
        let commands = streams.filter_map(|&stream| self.forget_atc(stream, context));
        self.atc_invalidate_singly(commands, failed)
    }

    /// The first phase of [`invalidate_with`](super::invalidate_with), on this SMMU alone.
    pub(crate) fn begin_invalidate(
        &self,
        gathered: &Gathered,
        devices: impl Iterator<Item = Command> + Clone,
    ) -> Train {
        Train::submit(self, gathered, devices)
    }

    /// What has devices of this SMMU forget what they cached of `contexts`.
    pub(crate) fn atc_invalidations<'s, C>(
        &'s self,
        contexts: impl Iterator<Item = Releasing<C>> + Clone + 's,
    ) -> impl Iterator<Item = Command> + Clone + 's
    where
        'p: 's,
        C: Deref<Target = Contexts<'p, P>> + Clone + 's,
    {
        contexts.filter(|it| it.has_ats).flat_map(move |it| {
            let context = it.context;
            streams_of(it.contexts).filter_map(move |stream| self.forget_atc(stream, context))
        })
    }

    /// Ends all of `contexts`, live or quiet, of which no translation is cached any more, here or by
    /// devices: 1 SYNC for any number. The list is asked several times, and is to say the same each
    /// time; contexts of other SMMUs are passed over.
    ///
    /// # Errors
    ///
    /// Every [`CommandError`]: they are not valid in memory, and lost.
    pub(crate) fn retract_all<C>(
        &self,
        contexts: impl Iterator<Item = Releasing<C>> + Clone,
    ) -> Result<(), CommandError>
    where
        C: Deref<Target = Contexts<'p, P>> + Clone,
    {
        let ours = contexts.filter_map(|it| {
            let index = self.index(&it.contexts, it.context).ok()?;
            Some((it.contexts, index))
        });
        for (contexts, index) in ours.clone() {
            let table = contexts.lock();
            if let Ok((words, _)) = self.in_use(&table, index) {
                self.io
                    .store(&words[0], Cd::invalid_word(CdState::Changing));
            }
        }
        let commands = ours.clone().flat_map(|(contexts, index)| {
            streams_of(contexts).filter_map(move |stream| forget_cd(stream, index))
        });
        let steps = self.begin_steps(commands, [].into_iter(), [].into_iter());
        let outcome = self
            .finish_steps(steps)
            .map_err(|Stopped { error, .. }| error);
        for (contexts, index) in ours {
            match outcome {
                // It has memory, for it was in use.
                Ok(()) => {
                    let _ = self.clear(&contexts, index);
                }
                Err(_) => self.lose(&contexts, index),
            }
        }
        outcome
    }
}
