//! Frames: memory that is ours alone, as a value.

use core::sync::atomic::AtomicU64;

use super::Platform;
use crate::addr::Pa;

/// The platform has no more frames of this size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoFrames {
    /// How many bytes in one piece were asked for, as a power of two.
    pub(crate) log2_bytes: u8,
}

/// `2^log2_bytes` bytes of physically contiguous memory, aligned to their size, owned.
///
/// Comes from [`Platform::allocate`] and goes back through [`Platform::free`]. Dropping it gives
/// nothing back: memory that an SMMU may still read must not come back by accident, so forgetting
/// leaks and never frees early.
#[must_use = "dropping frames leaks them; give them back with `Platform::free`"]
#[derive(PartialEq, Eq, Debug)]
pub struct Frames {
    base: Pa,
    log2_bytes: u8,
}

impl Frames {
    /// The frames at `base`.
    ///
    /// # Safety
    ///
    /// Nobody else owns or will own any of this memory until the value is given back, and
    /// [`Platform::pointer`] knows it. `base` is a multiple of `2^log2_bytes`, and `log2_bytes` is
    /// 12 to 47.
    pub const unsafe fn new(base: Pa, log2_bytes: u8) -> Self {
        Self { base, log2_bytes }
    }

    /// `2^log2_bytes` bytes from the platform.
    pub(crate) fn allocate<P: Platform>(platform: &P, log2_bytes: u8) -> Result<Self, NoFrames> {
        platform.allocate(log2_bytes).ok_or(NoFrames { log2_bytes })
    }

    /// The first byte's physical address.
    pub const fn base(&self) -> Pa {
        self.base
    }

    /// How many bytes there are, as a power of two.
    pub const fn log2_bytes(&self) -> u8 {
        self.log2_bytes
    }

    /// How many bytes there are.
    pub const fn size_bytes(&self) -> u64 {
        1 << self.log2_bytes
    }

    /// The memory as 64-bit words; atomic, because a device may access it at any time.
    pub fn words<'a, P: Platform>(&'a self, platform: &'a P) -> &'a [AtomicU64] {
        let first = platform.pointer(self.base);
        let count = (self.size_bytes() / 8) as usize;
        // SAFETY: an owner of `Frames` is the only owner (promise of `new`), the pointer is valid
        // for all of them (promise of `Platform`), and atomics may be shared and raced on. The
        // borrow keeps the frames from being given back meanwhile.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), count) }
    }

    /// Stores `value` to every word, while no device can reach them.
    pub fn fill<P: Platform>(&self, platform: &P, value: u64) {
        for word in self.words(platform) {
            platform.store(word, value);
        }
    }
}
