//! The sealed window: where a VM's streams find their CDs, and nobody finds anything else.
//!
//! Under nesting the SMMU fetches CDs by IPA (§5.2, `S1ContextPtr`), so EL2's own frames must appear
//! in the VM's stage 2. They do so here and nowhere else: page by page, never as part of a block,
//! read-only, write-back; zeros when they come, CDs and L1CDs after that. The VM's devices can read
//! them, whatever is done, and so may its CPUs if they walk the same tables; nobody but EL2 can
//! write them. The range is the window's alone: mapping, unmapping or protecting anything there is
//! refused ([`Stage2Error::InWindow`]).
//!
//! What leaves the window is unmapped first, then invalidated, and only then memory again: that is
//! in the types ([`Unsynced`]).

use core::fmt;

use super::stage2::{Reclaim, Stage2, Stage2Error};
use crate::addr::Ipa;
use crate::hw::{MAX_PAGES, NoFrames, PageMap, Platform};
use crate::id::Vmid;
use crate::smmu::{Detached, Sealed, Unsynced};

/// Why memory was not sealed, or a window not made. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowError {
    /// The window would have more pages than it can keep the books of.
    TooLarge {
        /// How many there would be.
        pages: u64,
        /// How many there may be.
        at_most: u64,
    },
    /// The stage 2 is not the window's.
    Foreign,
    /// No range of the window that is so large, and aligned to that, is free.
    Full {
        /// How many bytes were asked for, as a power of two.
        log2_bytes: u8,
    },
    /// No memory, for the books or to be sealed.
    NoFrames {
        /// How many bytes were asked for, as a power of two.
        log2_bytes: u8,
    },
    /// The stage 2 refuses.
    Stage2(Stage2Error),
}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { pages, at_most } => {
                write!(
                    f,
                    "the window would have {pages} pages of at most {at_most}"
                )
            }
            Self::Foreign => f.write_str("the stage 2 is not the window's"),
            Self::Full { log2_bytes } => write!(f, "the window has no 2^{log2_bytes} bytes free"),
            Self::NoFrames { log2_bytes } => write!(f, "no memory: 2^{log2_bytes} bytes"),
            Self::Stage2(error) => write!(f, "the stage 2 refuses: {error}"),
        }
    }
}

impl core::error::Error for WindowError {}

/// A range of one stage 2 that is set apart for CDs.
///
/// Dropping it leaks its books; [`close`](Self::close) gives them back.
pub struct Window<'p, P> {
    platform: &'p P,
    vmid: Vmid,
    base: Ipa,
    log2_page: u8,
    pages: PageMap<'p, P>,
}

impl<'p, P: Platform> Window<'p, P> {
    /// Sets `[base, base + size_bytes)` of `stage2` apart; both are multiples of its granule.
    ///
    /// To be outside of the VM's memory, its MMIO and its doorbells, and at most 2^15 pages.
    ///
    /// # Errors
    ///
    /// [`WindowError::TooLarge`], [`WindowError::NoFrames`]; [`WindowError::Stage2`] if the stage 2
    /// has a window, if something is mapped in the range, or if there is no such range.
    pub fn new(
        platform: &'p P,
        stage2: &mut Stage2<'p, P>,
        base: Ipa,
        size_bytes: u64,
    ) -> Result<Self, WindowError> {
        let log2_page = stage2.geometry().granule().log2_bytes();
        let pages = size_bytes >> log2_page;
        if pages > MAX_PAGES {
            return Err(WindowError::TooLarge {
                pages,
                at_most: MAX_PAGES,
            });
        }
        let pages = PageMap::new(platform, pages)
            .map_err(|NoFrames { log2_bytes }| WindowError::NoFrames { log2_bytes })?;
        if let Err(error) = stage2.set_window(base, size_bytes) {
            pages.free();
            return Err(WindowError::Stage2(error));
        }
        Ok(Self {
            platform,
            vmid: stage2.vmid(),
            base,
            log2_page,
            pages,
        })
    }

    /// Takes `2^log2_bytes` bytes of memory, zeros it and shows it, read-only, in the window.
    ///
    /// At an IPA aligned to its size; never less than a page of the stage 2. Walkers find it when
    /// this returns.
    ///
    /// # Errors
    ///
    /// [`WindowError::Foreign`], [`WindowError::Full`], [`WindowError::NoFrames`],
    /// [`WindowError::Stage2`]; that too if some SMMU must be told of new tables.
    pub fn seal(
        &mut self,
        stage2: &mut Stage2<'p, P>,
        log2_bytes: u8,
    ) -> Result<Sealed, WindowError> {
        if stage2.may_owe() {
            return Err(WindowError::Stage2(Stage2Error::FlushNeeded));
        }
        // Nothing is owed.
        self.seal_flushed(stage2, log2_bytes).map(Unsynced::open)
    }

    /// As [`seal`](Self::seal), with what the new tables owe, as in [`Stage2::map_flushed`].
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal), but the last.
    pub fn seal_flushed(
        &mut self,
        stage2: &mut Stage2<'p, P>,
        log2_bytes: u8,
    ) -> Result<Unsynced<Sealed>, WindowError> {
        self.expect_own(stage2)?;
        let log2_bytes = log2_bytes.max(self.log2_page);
        let log2_pages = log2_bytes - self.log2_page;
        let first = self
            .pages
            .find(self.base.as_u64() >> self.log2_page, log2_pages)
            .ok_or(WindowError::Full { log2_bytes })?;
        let frames = self
            .platform
            .allocate(log2_bytes)
            .ok_or(WindowError::NoFrames { log2_bytes })?;
        frames.fill(self.platform, 0);
        let ipa = Ipa::new(self.base.as_u64() + (first << self.log2_page));
        let change = match stage2.map_in_window(ipa, frames.base(), frames.size_bytes()) {
            Ok(change) => change,
            Err(error) => {
                self.platform.free(frames);
                return Err(WindowError::Stage2(error));
            }
        };
        self.pages.take(first, log2_pages);
        Ok(change.map(|()| Sealed::new(frames, ipa, self.vmid)))
    }

    /// Takes `sealed` out of the stage 2; it is memory again once the change was invalidated and
    /// given to [`give_back`](Self::give_back).
    ///
    /// No SMMU has anything that lay in it cached as configuration: it comes from
    /// [`give_back_leaf`](crate::smmu::Smmu::give_back_leaf), or was never used.
    ///
    /// # Errors
    ///
    /// `sealed`, if it is another window's, or the stage 2 refuses.
    pub fn unseal(
        &mut self,
        stage2: &mut Stage2<'p, P>,
        sealed: Sealed,
    ) -> Result<Unsynced<Unsealed<'p, P>>, Sealed> {
        if self.expect_own(stage2).is_err() || !self.has(&sealed) {
            return Err(sealed);
        }
        let mut change = stage2.nothing_owed();
        if hide(stage2, &mut change, sealed.ipa(), sealed.log2_bytes()).is_err() {
            return Err(sealed);
        }
        Ok(change.map(|tables| Unsealed {
            tables,
            pieces: Pieces::One(sealed),
        }))
    }

    /// As [`unseal`](Self::unseal), for all memory of a device's contexts.
    ///
    /// # Errors
    ///
    /// `contexts`, if their memory is another window's, or the stage 2 refuses.
    pub fn unseal_all(
        &mut self,
        stage2: &mut Stage2<'p, P>,
        contexts: Detached<'p, P>,
    ) -> Result<Unsynced<Unsealed<'p, P>>, Detached<'p, P>> {
        if self.expect_own(stage2).is_err() || contexts.vmid() != self.vmid {
            return Err(contexts);
        }
        let mut change = stage2.nothing_owed();
        let hidden = contexts
            .pieces()
            .try_for_each(|(ipa, log2_bytes)| hide(stage2, &mut change, ipa, log2_bytes));
        if hidden.is_err() {
            return Err(contexts);
        }
        Ok(change.map(|tables| Unsealed {
            tables,
            pieces: Pieces::All(contexts),
        }))
    }

    /// Makes memory again of what no walker can see any more.
    ///
    /// # Errors
    ///
    /// The value, if it is another window's.
    #[expect(
        clippy::result_large_err,
        reason = "what is refused comes back, and there is no heap to put it on"
    )]
    pub fn give_back(
        &mut self,
        stage2: &mut Stage2<'p, P>,
        unsealed: Unsealed<'p, P>,
    ) -> Result<(), Unsealed<'p, P>> {
        if self.expect_own(stage2).is_err() || unsealed.vmid() != self.vmid {
            return Err(unsealed);
        }
        let Unsealed { tables, pieces } = unsealed;
        if let Err(tables) = stage2.reclaim(tables) {
            return Err(Unsealed { tables, pieces });
        }
        match pieces {
            Pieces::One(sealed) => self.free(sealed),
            Pieces::All(mut contexts) => {
                while let Some(leaf) = contexts.pop_leaf() {
                    self.free(leaf);
                }
                self.free(contexts.into_root());
            }
        }
        Ok(())
    }

    /// Ends the window, in which nothing is sealed any more.
    ///
    /// # Errors
    ///
    /// The window, if something is, or if `stage2` is not its own.
    pub fn close(self, stage2: &mut Stage2<'p, P>) -> Result<(), Self> {
        if self.expect_own(stage2).is_err() || self.sealed_pages() != 0 {
            return Err(self);
        }
        stage2.clear_window();
        self.pages.free();
        Ok(())
    }

    /// How many pages are sealed, in use or not yet given back.
    pub fn sealed_pages(&self) -> u64 {
        self.pages.taken()
    }

    /// Where it begins.
    pub const fn base(&self) -> Ipa {
        self.base
    }

    /// How many bytes it has.
    pub const fn size_bytes(&self) -> u64 {
        self.pages.pages() << self.log2_page
    }

    fn expect_own(&self, stage2: &Stage2<'p, P>) -> Result<(), WindowError> {
        if stage2.vmid() == self.vmid && stage2.window() == Some(self.base) {
            Ok(())
        } else {
            Err(WindowError::Foreign)
        }
    }

    fn has(&self, sealed: &Sealed) -> bool {
        let end = self.base.as_u64() + self.size_bytes();
        sealed.vmid() == self.vmid && (self.base.as_u64()..end).contains(&sealed.ipa().as_u64())
    }

    fn free(&mut self, sealed: Sealed) {
        let first = (sealed.ipa().as_u64() - self.base.as_u64()) >> self.log2_page;
        let log2_pages = sealed.log2_bytes() - self.log2_page;
        self.pages.give_back(first, log2_pages);
        self.platform.free(sealed.into_frames());
    }
}

/// Unmaps memory that was mapped in pages, in a range that nobody else changes.
fn hide<'p, P: Platform>(
    stage2: &mut Stage2<'p, P>,
    change: &mut Unsynced<Reclaim<'p, P>>,
    ipa: Ipa,
    log2_bytes: u8,
) -> Result<(), Stage2Error> {
    stage2.unmap_in_window(change, ipa, 1 << log2_bytes)
}

/// What left the window, and the tables that led there.
#[must_use = "dropping it leaks the frames; give it back to the window"]
pub struct Unsealed<'p, P> {
    tables: Reclaim<'p, P>,
    pieces: Pieces<'p, P>,
}

enum Pieces<'p, P> {
    One(Sealed),
    All(Detached<'p, P>),
}

impl<P: Platform> Unsealed<'_, P> {
    const fn vmid(&self) -> Vmid {
        match &self.pieces {
            Pieces::One(sealed) => sealed.vmid(),
            Pieces::All(contexts) => contexts.vmid(),
        }
    }
}

impl<P: Platform> fmt::Debug for Unsealed<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unsealed")
            .field("vmid", &self.vmid())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
