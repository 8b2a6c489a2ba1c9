//! Memory of a host test: what the driver sees, and what the SMMU sees.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::hostile::{Choices, Mode};
use crate::memory::{Abort, Memory};

/// A point in the order of the driver's memory accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Barrier {
    /// Earlier stores are seen by the SMMU before any later store or register write (`DSB ST`).
    Publish,
    /// Later loads see what an earlier register read vouched for (`DSB LD`).
    Observe,
    /// Earlier loads are done before a later register write (`DSB SY`).
    Release,
}

/// When a store of the driver becomes visible to the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Visibility {
    /// With the store.
    AtOnce,
    /// No earlier than the barrier that obliges (and, without coherence, the clean before it).
    AtBarrier,
    /// Anywhere between the store and that barrier, in any order, as drawn.
    Drawn,
}

impl Visibility {
    /// What goes with a mode of the model.
    pub const fn of(mode: Mode) -> Self {
        match mode {
            Mode::Polite | Mode::Forgetful => Self::AtOnce,
            Mode::Hoarding => Self::AtBarrier,
            Mode::Chaotic { .. } => Self::Drawn,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    value: u64,
    is_cleaned: bool,
}

#[derive(Debug)]
struct Buffers {
    choices: Choices,
    /// The driver's stores that the device does not see yet, by address.
    outbound: FxHashMap<u64, Waiting>,
    /// The order of `outbound`, oldest first; may name words that have left it.
    order: Vec<u64>,
    /// Records that the driver does not see yet.
    inbound: FxHashMap<u64, u64>,
}

/// One range of memory with a driver's view and a device's view.
///
/// The driver's side is [`word`](Self::word), [`store`](Self::store), [`load`](Self::load),
/// [`barrier`](Self::barrier) and [`clean`](Self::clean); the SMMU and devices use [`Memory`].
/// A barrier by any CPU publishes the stores of all: that is never less than the architecture
/// allows them to see.
#[derive(Debug)]
pub struct HostMemory {
    base: u64,
    driver: Vec<AtomicU64>,
    device: Vec<AtomicU64>,
    visibility: Visibility,
    is_coherent: bool,
    buffers: Mutex<Buffers>,
}

impl HostMemory {
    /// `bytes` bytes of zeros at `base`; both are rounded to whole pages of 4 KiB.
    ///
    /// Where `is_coherent` is false a store is obliged to become visible only by a barrier after a
    /// [`clean`](Self::clean).
    pub fn new(
        base: u64,
        bytes: u64,
        mode: Mode,
        visibility: Visibility,
        coherence: Coherence,
    ) -> Self {
        let words = (bytes.div_ceil(4096) * 512) as usize;
        let zeros = || (0..words).map(|_| AtomicU64::new(0)).collect();
        Self {
            base: base & !0xfff,
            driver: zeros(),
            device: zeros(),
            visibility,
            is_coherent: coherence == Coherence::Snooped,
            buffers: Mutex::new(Buffers {
                choices: Choices::new(mode, 0x6d65_6d6f),
                outbound: FxHashMap::default(),
                order: Vec::new(),
                inbound: FxHashMap::default(),
            }),
        }
    }

    /// The physical address of the first byte.
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.driver.len() as u64 * 8
    }

    /// The driver's view of the word at `pa`; `None` outside, or if `pa` is not 8-byte aligned.
    pub fn word(&self, pa: u64) -> Option<&AtomicU64> {
        self.driver.get(self.index(pa)?)
    }

    /// The physical address of a word that [`word`](Self::word) gave (or its neighbours).
    pub fn address_of(&self, word: &AtomicU64) -> Option<u64> {
        let first = self.driver.as_ptr() as usize;
        let offset = (std::ptr::from_ref(word) as usize).checked_sub(first)?;
        (offset < self.driver.len() * 8).then_some(self.base + offset as u64)
    }

    fn index(&self, pa: u64) -> Option<usize> {
        let offset = pa.checked_sub(self.base)?;
        (pa.is_multiple_of(8) && offset < self.bytes()).then_some((offset / 8) as usize)
    }

    fn buffers(&self) -> MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, pa: u64, value: u64) {
        if let Some(index) = self.index(pa) {
            self.device[index].store(value, Ordering::Relaxed);
        }
    }

    /// The driver stores `value` at `pa`. Gives the old value, as the driver saw it, and adds to
    /// `visible` the addresses whose change the SMMU can see from now on.
    ///
    /// # Errors
    ///
    /// [`Abort`] outside this memory, or if `pa` is not 8-byte aligned.
    pub fn store(&self, pa: u64, value: u64, visible: &mut Vec<u64>) -> Result<u64, Abort> {
        let index = self.index(pa).ok_or(Abort)?;
        let old = self.driver[index].swap(value, Ordering::Relaxed);
        if self.visibility == Visibility::AtOnce && self.is_coherent {
            self.show(pa, value);
            visible.push(pa);
            return Ok(old);
        }
        let mut buffers = self.buffers();
        buffers.inbound.remove(&pa);
        let new = Waiting {
            value,
            is_cleaned: false,
        };
        if buffers.outbound.insert(pa, new).is_none() {
            buffers.order.push(pa);
        }
        self.leak(&mut buffers, visible);
        Ok(old)
    }

    /// Lets drawn stores out early.
    fn leak(&self, buffers: &mut Buffers, visible: &mut Vec<u64>) {
        if self.visibility != Visibility::Drawn {
            return;
        }
        while !buffers.order.is_empty() && buffers.choices.one_in(3) {
            let at = buffers.choices.below(buffers.order.len() as u64) as usize;
            let pa = buffers.order.swap_remove(at);
            if let Some(waiting) = buffers.outbound.remove(&pa) {
                self.show(pa, waiting.value);
                visible.push(pa);
            }
        }
    }

    /// The driver loads the word at `pa`.
    ///
    /// # Errors
    ///
    /// [`Abort`] as for [`store`](Self::store).
    pub fn load(&self, pa: u64) -> Result<u64, Abort> {
        let index = self.index(pa).ok_or(Abort)?;
        Ok(self.driver[index].load(Ordering::Relaxed))
    }

    /// The driver's barrier; adds to `visible` what the SMMU can see from now on.
    pub fn barrier(&self, kind: Barrier, visible: &mut Vec<u64>) {
        if self.visibility == Visibility::AtOnce && self.is_coherent {
            return;
        }
        let mut buffers = self.buffers();
        if matches!(kind, Barrier::Publish | Barrier::Release) {
            let order = std::mem::take(&mut buffers.order);
            for pa in order {
                match buffers.outbound.get(&pa) {
                    Some(waiting) if self.is_coherent || waiting.is_cleaned => {
                        self.show(pa, waiting.value);
                        visible.push(pa);
                        buffers.outbound.remove(&pa);
                    }
                    Some(_) => buffers.order.push(pa),
                    None => {}
                }
            }
        }
        if matches!(kind, Barrier::Observe | Barrier::Release) {
            self.observe(&mut buffers);
        }
    }

    /// Shows the driver every record written so far.
    pub(crate) fn settle_inbound(&self) {
        if self.visibility != Visibility::AtOnce {
            self.observe(&mut self.buffers());
        }
    }

    fn observe(&self, buffers: &mut Buffers) {
        for (pa, value) in buffers.inbound.drain() {
            if let Some(index) = self.index(pa) {
                self.driver[index].store(value, Ordering::Relaxed);
            }
        }
    }

    /// Whether a record was written over the word at `pa` that no barrier obliges the driver's
    /// loads to see.
    pub fn is_unobserved(&self, pa: u64) -> bool {
        self.visibility != Visibility::AtOnce && self.buffers().inbound.contains_key(&pa)
    }

    /// The driver cleans the cache lines of `bytes` bytes from `pa` on to the point of coherency.
    pub fn clean(&self, pa: u64, bytes: u64) {
        let mut buffers = self.buffers();
        let lines = (pa & !63)..pa.saturating_add(bytes);
        for (at, waiting) in &mut buffers.outbound {
            if lines.contains(&(at & !63)) {
                waiting.is_cleaned = true;
            }
        }
    }

    /// Replaces a word in both views: a store whose order does not matter, such as one before the
    /// run begins.
    ///
    /// # Errors
    ///
    /// [`Abort`] as for [`store`](Self::store).
    pub fn set(&self, pa: u64, value: u64) -> Result<(), Abort> {
        self.write64(pa, value)
    }
}

/// Whether the SMMU's own accesses snoop the driver's caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coherence {
    /// They do: a barrier is enough.
    Snooped,
    /// They do not: a clean must come before the barrier.
    Cleaned,
}

impl Memory for HostMemory {
    fn read64(&self, pa: u64) -> Result<u64, Abort> {
        let index = self.index(pa).ok_or(Abort)?;
        Ok(self.device[index].load(Ordering::Relaxed))
    }

    fn write64(&self, pa: u64, value: u64) -> Result<(), Abort> {
        let index = self.index(pa).ok_or(Abort)?;
        self.device[index].store(value, Ordering::Relaxed);
        self.driver[index].store(value, Ordering::Relaxed);
        if self.visibility != Visibility::AtOnce {
            self.buffers().inbound.remove(&pa);
        }
        Ok(())
    }

    fn write64_for_driver(&self, pa: u64, value: u64) -> Result<(), Abort> {
        if self.visibility == Visibility::AtOnce {
            return self.write64(pa, value);
        }
        let index = self.index(pa).ok_or(Abort)?;
        self.device[index].store(value, Ordering::Relaxed);
        let mut buffers = self.buffers();
        // A CPU may have read the line before the record came, or after: either is lawful.
        if self.visibility == Visibility::Drawn && buffers.choices.one_in(2) {
            buffers.inbound.remove(&pa);
            self.driver[index].store(value, Ordering::Relaxed);
        } else {
            buffers.inbound.insert(pa, value);
        }
        Ok(())
    }

    fn is_unpublished(&self, pa: u64) -> bool {
        if self.visibility == Visibility::AtOnce && self.is_coherent {
            return false;
        }
        self.buffers().outbound.contains_key(&pa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(mode: Mode, coherence: Coherence) -> HostMemory {
        HostMemory::new(0x1000, 0x1000, mode, Visibility::of(mode), coherence)
    }

    #[test]
    fn a_store_stays_unseen_until_its_barrier() {
        let memory = memory(Mode::Hoarding, Coherence::Snooped);
        let mut visible = Vec::new();
        assert_eq!(memory.store(0x1008, 7, &mut visible), Ok(0));
        assert_eq!(memory.load(0x1008), Ok(7));
        assert_eq!(memory.read64(0x1008), Ok(0));
        assert!(memory.is_unpublished(0x1008));
        memory.barrier(Barrier::Observe, &mut visible);
        assert_eq!(memory.read64(0x1008), Ok(0));
        memory.barrier(Barrier::Publish, &mut visible);
        assert_eq!(memory.read64(0x1008), Ok(7));
        assert_eq!(visible, [0x1008]);
    }

    #[test]
    fn without_coherence_a_barrier_without_a_clean_publishes_nothing() {
        let memory = memory(Mode::Hoarding, Coherence::Cleaned);
        let mut visible = Vec::new();
        memory.store(0x1008, 7, &mut visible).expect("inside");
        memory.barrier(Barrier::Publish, &mut visible);
        assert_eq!(memory.read64(0x1008), Ok(0));
        memory.clean(0x1038, 1);
        memory.barrier(Barrier::Publish, &mut visible);
        assert_eq!(memory.read64(0x1008), Ok(7));
    }

    #[test]
    fn a_record_is_seen_by_the_driver_after_its_barrier() {
        let memory = memory(Mode::Hoarding, Coherence::Snooped);
        memory.write64_for_driver(0x1010, 9).expect("inside");
        assert_eq!(memory.load(0x1010), Ok(0));
        memory.barrier(Barrier::Observe, &mut Vec::new());
        assert_eq!(memory.load(0x1010), Ok(9));
    }

    #[test]
    fn an_address_outside_aborts() {
        let memory = memory(Mode::Polite, Coherence::Snooped);
        assert_eq!(memory.read64(0x2000), Err(Abort));
        assert_eq!(memory.read64(0x1001), Err(Abort));
        assert_eq!(memory.read64(u64::MAX - 7), Err(Abort));
        let word = memory.word(0x1010).expect("inside");
        assert_eq!(memory.address_of(word), Some(0x1010));
    }
}
