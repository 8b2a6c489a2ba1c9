//! Devices of one VM with a stage 1 of the guest's: attached, given contexts, detached.

use core::fmt;

use super::stage2::Stage2;
use super::window::{Unsealed, Window, WindowError};
use crate::hw::Platform;
use crate::id::StreamId;
use crate::smmu::{
    Assignment, CommandError, Context, ContextError, ContextShape, Contexts, ContextsError,
    NotConfirmed, Sealed, Smmu, StreamError, Unmade, Unsynced, invalidate,
};
use crate::spec::cd::Faults;
use crate::spec::stage1::Stage1Walk;
use crate::spec::ste::Ats;

/// Why a device was not attached, or not detached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NestingError {
    /// The window has no memory for it. Nothing was changed.
    Window(WindowError),
    /// It cannot have such contexts. Nothing was changed.
    Contexts(ContextsError),
    /// Its streams were not changed; what is true of them is said there. The rest is as it was.
    Stream(StreamError),
    /// The context was not changed; what is true of it is said there.
    Context(ContextError),
    /// The memory is another VM's, or another SMMU's. Nothing was changed.
    Foreign,
    /// Memory left the window and an SMMU did not confirm that: it stays out of use, still counted
    /// as sealed.
    NotConfirmed(CommandError),
}

impl fmt::Display for NestingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(error) => error.fmt(f),
            Self::Contexts(error) => error.fmt(f),
            Self::Stream(error) => error.fmt(f),
            Self::Context(error) => error.fmt(f),
            Self::Foreign => f.write_str("it is another VM's, or another SMMU's"),
            Self::NotConfirmed(error) => write!(f, "memory that left the window is lost: {error}"),
        }
    }
}

impl core::error::Error for NestingError {}

/// One VM, as far as nesting goes, for the time of a call.
pub struct Nesting<'a, 'p, P: Platform> {
    /// Its stage 2.
    pub stage2: &'a mut Stage2<'p, P>,
    /// The window in it.
    pub window: &'a mut Window<'p, P>,
    /// All SMMUs on which its VMID has been used since it was last clean there.
    pub smmus: &'a [&'a Smmu<'p, P>],
}

impl<'p, P: Platform> Nesting<'_, 'p, P> {
    /// Makes the contexts of the device that has `streams` behind `smmu`, and assigns them to it:
    /// 2 SYNCs. The streams were nobody's.
    ///
    /// On success the device's traffic is translated by its contexts, of which only the one of
    /// [`ContextShape::Single`] is live, and then by the stage 2.
    ///
    /// # Errors
    ///
    /// Every [`NestingError`] but [`NestingError::Context`].
    pub fn attach(
        &mut self,
        smmu: &Smmu<'p, P>,
        streams: &[StreamId],
        shape: &ContextShape,
    ) -> Result<Contexts<'p, P>, NestingError> {
        let contexts = self.contexts(smmu, streams, shape)?;
        let walk = self.stage2.walk();
        let assignment = Assignment::Nested {
            contexts: &contexts,
            walk,
            ats: Ats::Off,
        };
        match smmu.publish_all(&[assignment]) {
            Ok(()) => Ok(contexts),
            Err(error) => {
                // Refused if the streams are lost: so are the contexts then.
                let _ = self.end(smmu, contexts);
                Err(NestingError::Stream(error))
            }
        }
    }

    /// The contexts of a device, assigned to none of its streams yet.
    ///
    /// # Errors
    ///
    /// As [`attach`](Self::attach), but [`NestingError::Stream`].
    pub fn contexts(
        &mut self,
        smmu: &Smmu<'p, P>,
        streams: &[StreamId],
        shape: &ContextShape,
    ) -> Result<Contexts<'p, P>, NestingError> {
        let root = self
            .window
            .seal(self.stage2, shape.log2_root_bytes())
            .map_err(NestingError::Window)?;
        smmu.contexts(streams, shape, root)
            .map_err(|Unmade { why, root }| match self.unseal(root) {
                Ok(()) => NestingError::Contexts(why),
                Err(error) => error,
            })
    }

    /// Stops the device's streams and ends its contexts: 1 SYNC on its SMMU, and the invalidation
    /// of the memory that leaves the window on all.
    ///
    /// # Errors
    ///
    /// [`NestingError::Stream`], and the contexts are lost with it; [`NestingError::Foreign`],
    /// [`NestingError::NotConfirmed`].
    pub fn detach(
        &mut self,
        smmu: &Smmu<'p, P>,
        contexts: Contexts<'p, P>,
    ) -> Result<(), NestingError> {
        smmu.retract(contexts.streams())
            .map_err(NestingError::Stream)?;
        self.end(smmu, contexts)
    }

    /// Lets one of a device's contexts translate, with a leaf for it from the window if it takes
    /// one: 2 SYNCs, 1 for the first context of a leaf.
    ///
    /// # Errors
    ///
    /// [`NestingError::Window`], [`NestingError::Context`].
    pub fn publish_context(
        &mut self,
        smmu: &Smmu<'p, P>,
        contexts: &Contexts<'p, P>,
        context: Context,
        how: (&Stage1Walk, Faults),
    ) -> Result<(), NestingError> {
        let mut refused = None;
        let seal = |log2_bytes| {
            let sealed = self.window.seal(self.stage2, log2_bytes);
            sealed.map_err(|error| refused = Some(error)).ok()
        };
        let outcome = smmu.publish_context(contexts, context, how, seal);
        outcome.map_err(|error| refused.map_or(NestingError::Context(error), NestingError::Window))
    }

    /// Makes memory again of the leaf that `context` lies in, if none of its contexts is in use:
    /// 1 SYNC on its SMMU, and the invalidation on all.
    ///
    /// # Errors
    ///
    /// [`NestingError::Context`], [`NestingError::Foreign`], [`NestingError::NotConfirmed`].
    pub fn give_back_leaf(
        &mut self,
        smmu: &Smmu<'p, P>,
        contexts: &Contexts<'p, P>,
        context: Context,
    ) -> Result<(), NestingError> {
        let leaf = smmu
            .give_back_leaf(contexts, context)
            .map_err(NestingError::Context)?;
        self.unseal(leaf)
    }

    fn end(&mut self, smmu: &Smmu<'p, P>, contexts: Contexts<'p, P>) -> Result<(), NestingError> {
        let detached = smmu
            .dismantle(contexts)
            .map_err(|_| NestingError::Foreign)?;
        let change = self
            .window
            .unseal_all(self.stage2, detached)
            .map_err(|_| NestingError::Foreign)?;
        self.confirm(change)
    }

    fn unseal(&mut self, sealed: Sealed) -> Result<(), NestingError> {
        let change = self
            .window
            .unseal(self.stage2, sealed)
            .map_err(|_| NestingError::Foreign)?;
        self.confirm(change)
    }

    fn confirm(&mut self, change: Unsynced<Unsealed<'p, P>>) -> Result<(), NestingError> {
        let unsealed = invalidate(self.smmus, change)
            .map_err(|NotConfirmed { error, .. }| NestingError::NotConfirmed(error))?;
        self.window
            .give_back(self.stage2, unsealed)
            .map_err(|_| NestingError::Foreign)
    }
}
