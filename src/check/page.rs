//! A page to aim DMA at.

use super::Failure;
use crate::addr::Pa;
use crate::hw::{Frames, Platform};

/// What a page holds before DMA is aimed at it.
pub(super) const UNTOUCHED: u64 = 0x5555_5555_5555_5555;

pub(super) const PAGE_BYTES: u64 = 1 << LOG2_PAGE_BYTES;
const LOG2_PAGE_BYTES: u8 = 12;

/// A page of memory, mapped nowhere yet.
pub(super) struct Page<'p, P: Platform> {
    platform: &'p P,
    frames: Frames,
}

impl<'p, P: Platform> Page<'p, P> {
    pub(super) fn new(platform: &'p P) -> Result<Self, Failure> {
        let frames = platform
            .allocate(LOG2_PAGE_BYTES)
            .ok_or(Failure::NoMemory)?;
        frames.fill(platform, UNTOUCHED);
        Ok(Self { platform, frames })
    }

    pub(super) const fn platform(&self) -> &'p P {
        self.platform
    }

    pub(super) const fn frames(&self) -> &Frames {
        &self.frames
    }

    pub(super) const fn pa(&self) -> Pa {
        self.frames.base()
    }

    pub(super) fn first(&self) -> u64 {
        self.frames
            .words(self.platform)
            .first()
            .map_or(0, |word| self.platform.load(word))
    }

    /// Makes the page as it was when it was new.
    pub(super) fn reset(&self) {
        self.frames.fill(self.platform, UNTOUCHED);
    }

    pub(super) fn is_untouched(&self) -> bool {
        let mut words = self.frames.words(self.platform).iter();
        words.all(|word| self.platform.load(word) == UNTOUCHED)
    }

    pub(super) fn free(self) {
        self.platform.free(self.frames);
    }
}
