//! The contexts of one device: what they are, and the making and ending of them.
//!
//! # Locks
//!
//! A device's `table` is held while its CDs are looked at and stored, never across a wait. No other
//! lock is taken inside it but those of the caller's memory, when a leaf is asked for.

use core::sync::atomic::{AtomicU64, Ordering};

use super::Smmu;
use super::cd_table::{Found, Layout, Table, state};
use super::error::{ContextError, ContextsError, Unmade};
use super::recovery::Loss;
use super::release::forget_cd;
use super::sealed::Sealed;
use crate::addr::{Ipa, Pa};
use crate::hw::{Guard, Lock, Platform};
use crate::id::{StreamId, SubstreamId, Vmid};
use crate::spec::cd::{Cd, CdState, Faults};
use crate::spec::command::Command;
use crate::spec::stage1::Stage1Walk;
use crate::spec::ste::{CdFormat, CdTable, Untagged};

/// How many streams one device can have: itself, and its aliases.
pub const MAX_DEVICE_STREAMS: usize = 16;

/// What contexts a device is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContextShape {
    /// One, which all its traffic uses, live from the beginning.
    Single {
        /// The stage 1.
        walk: Stage1Walk,
        /// What becomes of what it refuses.
        faults: Faults,
    },
    /// One for each SubstreamID, none at the beginning.
    BySubstream {
        /// How many, as a power of two: 1 to 20.
        log2_contexts: u8,
        /// How they are found.
        format: CdFormat,
        /// What becomes of traffic without a SubstreamID.
        untagged: Untagged,
    },
}

impl ContextShape {
    const fn layout(&self) -> Layout {
        match *self {
            Self::Single { .. } => Layout::SINGLE,
            Self::BySubstream {
                log2_contexts,
                format,
                ..
            } => Layout::new(log2_contexts, format),
        }
    }

    /// How many bytes of sealed memory their table takes at the beginning, as a power of two.
    ///
    /// `log2_contexts` is at most 20.
    pub const fn log2_root_bytes(&self) -> u8 {
        self.layout().log2_root_bytes()
    }

    /// What an STE says of them if their table is at `at`.
    const fn table(&self, root: &Sealed) -> CdTable {
        let at = root.ipa();
        match *self {
            Self::Single { .. } => CdTable::Single { at },
            Self::BySubstream {
                log2_contexts,
                format,
                untagged,
            } => CdTable::BySubstream {
                at,
                log2_cds: log2_contexts,
                format,
                untagged,
            },
        }
    }
}

/// One of a device's contexts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// The only one.
    WholeStream,
    /// That of a SubstreamID.
    Substream(SubstreamId),
}

/// The contexts of one device, behind one SMMU, of one VM.
///
/// Made first, then assigned to the device's streams ([`Assignment::Nested`](super::Assignment)).
/// Dropping the value gives nothing back; [`Smmu::dismantle`] does.
pub struct Contexts<'p, P> {
    /// The SMMU, by its stream table.
    pub(super) smmu: Pa,
    vmid: Vmid,
    streams: [StreamId; MAX_DEVICE_STREAMS],
    count: usize,
    described: CdTable,
    platform: &'p P,
    table: Lock<Table<'p, P>>,
    /// When something of them was lost last.
    lost_at: AtomicU64,
}

impl<'p, P: Platform> Contexts<'p, P> {
    /// The device's streams.
    pub const fn streams(&self) -> &[StreamId] {
        self.streams.split_at(self.count).0
    }

    /// What the entries of its streams say of them.
    pub const fn table(&self) -> CdTable {
        self.described
    }

    /// The VM that they are for.
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// Where `context` stands in its life, by what is in memory; `None` if there is no such one.
    pub fn state_of(&self, context: Context) -> Option<CdState> {
        let index = self.index(context).ok()?;
        let table = self.lock();
        match table.find(index) {
            Found::Cd(words) => Some(state(table.platform(), words)),
            Found::NoLeaf { .. } => Some(CdState::Free),
            Found::LeafGoing => Some(CdState::Changing),
        }
    }

    /// The table, for as long as nobody else looks at it.
    pub(super) fn lock(&self) -> Guard<'_, Table<'p, P>> {
        self.table.lock(self.platform)
    }

    /// Notes that something of them was lost: what lies in memory then stays so until it is
    /// reclaimed.
    pub(super) fn note_loss(&self, loss: Loss) {
        self.lost_at.fetch_max(loss.number(), Ordering::SeqCst);
    }

    /// When something of them was lost last.
    pub(super) fn lost_at(&self) -> Loss {
        Loss::of(self.lost_at.load(Ordering::SeqCst))
    }

    pub(super) fn belong_to(&self, smmu: &Smmu<'_, P>, vmid: Vmid) -> bool {
        self.smmu == smmu.streams.base() && self.vmid == vmid
    }

    /// The number of the CD of `context`.
    pub(super) fn index(&self, context: Context) -> Result<u32, ContextError> {
        match (self.described, context) {
            (CdTable::Single { .. }, Context::WholeStream) => Ok(0),
            (CdTable::BySubstream { log2_cds, .. }, Context::Substream(substream))
                if substream.as_u32() >> log2_cds == 0 =>
            {
                Ok(substream.as_u32())
            }
            _ => Err(ContextError::NoSuchContext),
        }
    }

    /// The commands that make the SMMU look at CD `index` afresh, and at the way to it.
    pub(super) fn forget(&self, index: u32) -> impl Iterator<Item = Command> + Clone + '_ {
        let streams = self.streams().iter();
        streams.filter_map(move |&stream| forget_cd(stream, index))
    }
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Makes the contexts of the device that has `streams` behind this SMMU, in `root`.
    ///
    /// `root` has [`ContextShape::log2_root_bytes`] bytes or more. Nothing is told to the SMMU: it
    /// cannot see them before they are assigned to a stream.
    ///
    /// # Errors
    ///
    /// [`Unmade`], with `root` in it: every [`ContextsError`].
    pub fn contexts(
        &self,
        streams: &[StreamId],
        shape: &ContextShape,
        root: Sealed,
    ) -> Result<Contexts<'p, P>, Unmade> {
        let first = match self.check_shape(streams, shape, &root) {
            Ok(first) => first,
            Err(why) => return Err(Unmade { why, root }),
        };
        let (vmid, described) = (root.vmid(), shape.table(&root));
        let platform = self.io.platform();
        let table = match Table::new(platform, shape.layout(), root) {
            Ok(table) => table,
            Err(root) => {
                let why = ContextsError::NoFrames;
                return Err(Unmade { why, root });
            }
        };
        if let Some(cd) = first
            && let Some(words) = table.words(0)
        {
            for (word, value) in words.iter().zip(cd.words()) {
                self.io.store(word, *value);
            }
        }
        let mut list = [StreamId::new(0); MAX_DEVICE_STREAMS];
        list.iter_mut()
            .zip(streams)
            .for_each(|(to, from)| *to = *from);
        Ok(Contexts {
            smmu: self.streams.base(),
            vmid,
            streams: list,
            count: streams.len(),
            described,
            platform,
            table: Lock::new(table),
            lost_at: AtomicU64::new(0),
        })
    }

    /// The CD to begin with, if the rest is as it must be.
    fn check_shape(
        &self,
        streams: &[StreamId],
        shape: &ContextShape,
        root: &Sealed,
    ) -> Result<Option<Cd>, ContextsError> {
        if streams.is_empty() || streams.len() > MAX_DEVICE_STREAMS {
            return Err(ContextsError::Streams {
                count: streams.len(),
            });
        }
        self.features
            .can_hold(&shape.table(root))
            .map_err(ContextsError::Misfit)?;
        let log2_bytes = shape.log2_root_bytes();
        if root.log2_bytes() < log2_bytes || !root.ipa().is_aligned(log2_bytes) {
            return Err(ContextsError::RootTooSmall { log2_bytes });
        }
        match shape {
            ContextShape::Single { walk, faults } => self
                .features
                .cd(walk, *faults)
                .map(Some)
                .map_err(ContextsError::Misfit),
            ContextShape::BySubstream { .. } => Ok(None),
        }
    }

    /// Whether no stream leads to the contexts, or may; so that [`dismantle`](Self::dismantle) would
    /// not refuse them.
    pub(crate) fn is_clear_of(&self, contexts: &Contexts<'p, P>) -> bool {
        let root = contexts.lock().root().ipa();
        let at = (contexts.vmid, root);
        let is_clear = |&stream: &StreamId| self.streams.is_clear_of(&self.io, stream, at);
        contexts.smmu == self.streams.base() && contexts.streams().iter().all(is_clear)
    }

    /// Ends the contexts of a device whose streams do not lead to them any more.
    ///
    /// What comes out goes to the window, leaf by leaf and at last the root.
    ///
    /// # Errors
    ///
    /// The contexts, if one of the device's streams may still lead to them: it was not retracted,
    /// or is changing or lost; or if they are of another SMMU. A stream that is another VM's now
    /// does not stand in the way, wherever that VM sees its contexts.
    #[expect(
        clippy::result_large_err,
        reason = "what is refused comes back, and there is no heap to put it on"
    )]
    pub fn dismantle(&self, contexts: Contexts<'p, P>) -> Result<Detached<'p, P>, Contexts<'p, P>> {
        if self.is_clear_of(&contexts) {
            Ok(Detached {
                table: contexts.table.into_inner(),
                next: 0,
            })
        } else {
            Err(contexts)
        }
    }
}

/// Contexts that no stream leads to, and of which no SMMU has anything cached.
#[must_use = "dropping it leaks the frames; give it to the window"]
pub struct Detached<'p, P> {
    table: Table<'p, P>,
    /// No leaf below this number is left.
    next: usize,
}

impl<P: Platform> Detached<'_, P> {
    /// The VM whose window the memory is from.
    pub const fn vmid(&self) -> Vmid {
        self.table.vmid()
    }

    /// Where every piece is seen, the leaves and the root, and its size as a power of two.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (Ipa, u8)> + '_ {
        self.table.pieces()
    }

    /// A leaf, as long as there is one.
    pub(crate) fn pop_leaf(&mut self) -> Option<Sealed> {
        let (leaf, sealed) = self.table.take_leaf_from(self.next)?;
        self.next = leaf + 1;
        Some(sealed)
    }

    /// The root, when there are no more leaves.
    pub(crate) fn into_root(self) -> Sealed {
        self.table.into_root()
    }
}
