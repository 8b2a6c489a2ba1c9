//! One CPU of several under loom: its barriers are loom's, and each turn of a wait is a point at which
//! others run.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use super::atomic;
use super::testing::HostPlatform;
use super::{Barrier, Clock, Frames, Platform, Registers};
use crate::addr::Pa;

/// A CPU, whose time goes by as it waits, and not otherwise; made anew for each thread.
pub(crate) struct LoomCpu<R> {
    memory: &'static HostPlatform,
    /// Its own: nothing passes from one CPU to another by it.
    turns: AtomicU64,
    registers: core::marker::PhantomData<fn() -> R>,
}

impl<R> LoomCpu<R> {
    pub(crate) const fn new(memory: &'static HostPlatform) -> Self {
        Self {
            memory,
            turns: AtomicU64::new(0),
            registers: core::marker::PhantomData,
        }
    }
}

impl<R> Clock for LoomCpu<R> {
    fn now_us(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    fn relax(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        loom::thread::yield_now();
    }
}

// SAFETY: all memory is that of `memory`, which keeps the promise; words are accessed as it does.
unsafe impl<R: Registers> Platform for LoomCpu<R> {
    type Registers = R;

    fn allocate(&self, log2_bytes: u8) -> Option<Frames> {
        self.memory.allocate(log2_bytes)
    }

    fn free(&self, frames: Frames) {
        self.memory.free(frames);
    }

    fn pointer(&self, at: Pa) -> NonNull<AtomicU64> {
        self.memory.pointer(at)
    }

    fn clean(&self, words: &[AtomicU64]) {
        self.memory.clean(words);
    }

    fn barrier(&self, kind: Barrier) {
        atomic::fence(match kind {
            Barrier::Publish | Barrier::Release => Ordering::SeqCst,
            Barrier::Observe => Ordering::Acquire,
        });
    }
}
