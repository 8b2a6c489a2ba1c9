//! The contexts of devices, and those that are left when no stream leads to them any more.
//!
//! What is left is kept in a row through its own frames: a device, or a guest with all of its
//! devices, ends without asking for memory.

use core::ops::Deref;

use super::ids::SmmuId;
use crate::hw::{Lock, NoFrames, Platform, Shared};
use crate::smmu::Contexts;

/// A device's contexts, for whoever is at work on them.
pub(super) struct SharedContexts<'p, P: Platform>(Shared<'p, P, Entry<'p, P>>);

struct Entry<'p, P: Platform> {
    contexts: Contexts<'p, P>,
    smmu: SmmuId,
    platform: &'p P,
    /// What the same guest has left beside; locked for a moment, with nothing inside.
    next: Lock<Option<SharedContexts<'p, P>>>,
}

impl<'p, P: Platform> SharedContexts<'p, P> {
    /// `contexts`, which are behind `smmu`, in a page of their own.
    ///
    /// # Errors
    ///
    /// `contexts`, and [`NoFrames`].
    #[expect(
        clippy::result_large_err,
        reason = "what is refused comes back, and there is no heap to put it on"
    )]
    pub(super) fn new(
        platform: &'p P,
        smmu: SmmuId,
        contexts: Contexts<'p, P>,
    ) -> Result<Self, (Contexts<'p, P>, NoFrames)> {
        let next = Lock::new(None);
        let entry = Entry {
            contexts,
            smmu,
            platform,
            next,
        };
        match Shared::new(platform, entry) {
            Ok(shared) => Ok(Self(shared)),
            Err((entry, why)) => Err((entry.contexts, why)),
        }
    }

    /// Behind which SMMU they are.
    pub(super) fn smmu(&self) -> SmmuId {
        self.0.smmu
    }

    /// The contexts themselves, and their SMMU, of who is the only one that has them.
    ///
    /// # Errors
    ///
    /// Itself, if somebody else is at work on them.
    pub(super) fn try_into_inner(self) -> Result<(SmmuId, Contexts<'p, P>), Self> {
        let entry = self.0.try_into_inner().map_err(Self)?;
        Ok((entry.smmu, entry.contexts))
    }
}

impl<P: Platform> Clone for SharedContexts<'_, P> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<'p, P: Platform> Deref for SharedContexts<'p, P> {
    type Target = Contexts<'p, P>;

    fn deref(&self) -> &Contexts<'p, P> {
        &self.0.contexts
    }
}

/// Contexts that no stream leads to, whose memory is still sealed in a guest's window.
pub(super) struct Leftovers<'p, P: Platform>(Option<SharedContexts<'p, P>>);

impl<'p, P: Platform> Leftovers<'p, P> {
    /// None.
    pub(super) const fn new() -> Self {
        Self(None)
    }

    /// Keeps contexts until their memory is taken out of the window.
    pub(super) fn push(&mut self, contexts: SharedContexts<'p, P>) {
        let before = self.0.take();
        *contexts.0.next.lock(contexts.0.platform) = before;
        self.0 = Some(contexts);
    }

    /// What was kept last, if anything is.
    pub(super) fn pop(&mut self) -> Option<SharedContexts<'p, P>> {
        let contexts = self.0.take()?;
        self.0 = contexts.0.next.lock(contexts.0.platform).take();
        Some(contexts)
    }

    /// All of them, so that none is kept any more.
    pub(super) const fn take(&mut self) -> Self {
        Self(self.0.take())
    }
}
