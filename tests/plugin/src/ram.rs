//! Guest RAM, and what the SMMUs have read of it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use smmu_model::{Abort, Memory};

const PAGE_BYTES: u64 = 4096;
const PAGE_WORDS: usize = 512;

/// What was last told to the SMMUs of each word of a page.
type Shadow = Box<[AtomicU64; PAGE_WORDS]>;

/// A word that has changed since the SMMUs were last told of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where.
    pub pa: u64,
    /// What it held.
    pub old: u64,
    /// What it holds.
    pub new: u64,
}

/// Guest RAM.
///
/// A page that an SMMU reads is *watched* from then on: a shadow keeps what its words held, so that
/// a reported store is told with the value before it, and one that stored nothing (a CAS that did
/// not match) is no change. A word that an SMMU finds changed although no store of it was reported
/// is kept as [unreported](Self::take_unreported): a `DC ZVA`, a `SETP`, another device's DMA, or
/// another CPU's store whose report is still on its way.
#[derive(Debug)]
pub struct Ram {
    base: u64,
    words: &'static [AtomicU64],
    /// Where registers answer, not memory.
    frames: Vec<Range<u64>>,
    /// From the first of them to the end of the last.
    around_frames: Range<u64>,
    shadows: Box<[OnceLock<Shadow>]>,
    unreported: Mutex<Vec<Change>>,
}

impl Ram {
    /// RAM at physical address `base`, held in `words`, but for `frames`.
    pub fn new(base: u64, words: &'static [AtomicU64], frames: Vec<Range<u64>>) -> Self {
        let pages = words.len().div_ceil(PAGE_WORDS);
        let first = frames.iter().map(|frame| frame.start).min();
        let end = frames.iter().map(|frame| frame.end).max();
        Self {
            around_frames: first.unwrap_or(0)..end.unwrap_or(0),
            base,
            words,
            frames,
            shadows: (0..pages).map(|_| OnceLock::new()).collect(),
            unreported: Mutex::new(Vec::new()),
        }
    }

    fn index(&self, pa: u64) -> usize {
        (pa.wrapping_sub(self.base) / 8) as usize
    }

    /// The word around `pa`, register frames included.
    pub fn word(&self, pa: u64) -> Option<&AtomicU64> {
        self.words.get(self.index(pa))
    }

    /// The value of the word around `pa`, register frames included; 0 outside.
    pub fn peek(&self, pa: u64) -> u64 {
        self.word(pa)
            .map_or(0, |word| u64::from_le(word.load(Ordering::SeqCst)))
    }

    /// Puts `value` into the word around `pa`, past all watching.
    pub fn poke(&self, pa: u64, value: u64) {
        if let Some(word) = self.word(pa) {
            word.store(value.to_le(), Ordering::SeqCst);
        }
    }

    fn shadow(&self, pa: u64) -> Option<&AtomicU64> {
        let index = self.index(pa);
        let page = self.shadows.get(index / PAGE_WORDS)?.get()?;
        page.get(index % PAGE_WORDS)
    }

    /// Whether an SMMU has read from the page of `pa`. Costs one load.
    pub fn is_watched(&self, pa: u64) -> bool {
        let page = self.index(pa) / PAGE_WORDS;
        self.shadows
            .get(page)
            .is_some_and(|page| page.get().is_some())
    }

    /// Watches every page of `range` from now on.
    pub fn watch(&self, range: Range<u64>) {
        let first = range.start & !(PAGE_BYTES - 1);
        for pa in (first..range.end).step_by(PAGE_BYTES as usize) {
            let page = self.index(pa) / PAGE_WORDS;
            if let Some(slot) = self.shadows.get(page) {
                let words = |at: usize| AtomicU64::new(self.peek(pa + at as u64 * 8));
                slot.get_or_init(|| Box::new(std::array::from_fn(words)));
            }
        }
    }

    /// What a reported store of `bytes` bytes at `pa` has changed: each watched word that it
    /// touches and that differs from what was last told.
    ///
    /// Memory is read again: the report's own value is not to be trusted (an atomic's is its
    /// operand, a failed CAS's is what it would have stored).
    pub fn changed(&self, pa: u64, bytes: u64) -> Vec<Change> {
        (pa & !7..pa + bytes)
            .step_by(8)
            .filter_map(|pa| self.change(pa))
            .collect()
    }

    fn change(&self, pa: u64) -> Option<Change> {
        let shadow = self.shadow(pa)?;
        let new = self.peek(pa);
        if shadow.load(Ordering::SeqCst) == new {
            return None;
        }
        let old = shadow.swap(new, Ordering::SeqCst);
        (old != new).then_some(Change { pa, old, new })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Change>> {
        self.unreported
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The words that an SMMU or a device found changed since the last call although nobody had
    /// reported a store.
    pub fn take_unreported(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock())
    }

    fn is_register(&self, pa: u64) -> bool {
        self.around_frames.contains(&pa) && self.frames.iter().any(|frame| frame.contains(&pa))
    }

    /// From the first register frame to the end of the last.
    pub const fn around_frames(&self) -> &Range<u64> {
        &self.around_frames
    }

    /// Whether memory answers at `pa`.
    fn answers(&self, pa: u64) -> Result<(), Abort> {
        if self.word(pa).is_none() || self.is_register(pa) {
            return Err(Abort);
        }
        Ok(())
    }
}

impl Memory for Ram {
    fn read64(&self, pa: u64) -> Result<u64, Abort> {
        self.answers(pa)?;
        self.watch(pa..pa + 8);
        if let Some(change) = self.change(pa) {
            self.lock().push(change);
            return Ok(change.new);
        }
        Ok(self
            .shadow(pa)
            .map_or(0, |word| word.load(Ordering::SeqCst)))
    }

    fn write64(&self, pa: u64, value: u64) -> Result<(), Abort> {
        self.answers(pa)?;
        self.poke(pa, value);
        if let Some(shadow) = self.shadow(pa) {
            shadow.store(value, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4000_0000;

    fn ram() -> Ram {
        let words: Vec<AtomicU64> = (0..4 * PAGE_WORDS).map(|_| AtomicU64::new(0)).collect();
        let frame = BASE + 0x3000..BASE + 0x4000;
        Ram::new(BASE, words.leak(), Vec::from([frame]))
    }

    #[test]
    fn only_what_an_smmu_has_read_is_watched() {
        let ram = ram();
        ram.poke(BASE + 8, 5);
        assert_eq!(ram.changed(BASE + 8, 8), []);
        assert_eq!(ram.read64(BASE + 16), Ok(0));
        assert!(ram.is_watched(BASE + 0xff8) && !ram.is_watched(BASE + 0x1000));
        ram.poke(BASE + 8, 6);
        let change = Change {
            pa: BASE + 8,
            old: 5,
            new: 6,
        };
        assert_eq!(ram.changed(BASE + 8, 8), [change]);
        assert_eq!(ram.changed(BASE + 8, 8), []);
    }

    #[test]
    fn one_report_of_sixteen_bytes_tells_both_words() {
        let ram = ram();
        ram.watch(BASE..BASE + 0x2000);
        ram.poke(BASE + 0xff8, 1);
        ram.poke(BASE + 0x1000, 2);
        let changes = ram.changed(BASE + 0xff8, 16);
        assert_eq!(changes.len(), 2);
        assert_eq!((changes[1].pa, changes[1].new), (BASE + 0x1000, 2));
        ram.poke(BASE, 7 << 32);
        assert_eq!(ram.changed(BASE + 4, 4).len(), 1);
        ram.poke(BASE, 0);
        ram.poke(BASE + 8, 1);
        assert_eq!(ram.changed(BASE + 6, 4).len(), 2);
    }

    #[test]
    fn a_store_that_nobody_reported_is_found_when_it_is_read() {
        let ram = ram();
        ram.watch(BASE..BASE + 8);
        ram.poke(BASE, 9);
        assert_eq!(ram.read64(BASE), Ok(9));
        let change = Change {
            pa: BASE,
            old: 0,
            new: 9,
        };
        assert_eq!(ram.take_unreported(), [change]);
        assert_eq!(ram.read64(BASE), Ok(9));
        assert_eq!(ram.take_unreported(), []);
    }

    #[test]
    fn what_a_device_writes_is_no_store_of_the_guest() {
        let ram = ram();
        assert_eq!(ram.read64(BASE), Ok(0));
        assert_eq!(ram.write64(BASE, 3), Ok(()));
        assert_eq!(ram.read64(BASE), Ok(3));
        assert_eq!(ram.changed(BASE, 8), []);
        assert_eq!(ram.take_unreported(), []);
    }

    #[test]
    fn registers_and_holes_are_no_memory() {
        let ram = ram();
        for pa in [BASE - 8, BASE + 0x3000, BASE + 0x3ff8, BASE + 0x4000, !7] {
            assert_eq!(ram.read64(pa), Err(Abort));
            assert_eq!(ram.write64(pa, 1), Err(Abort));
        }
        assert_eq!(ram.peek(BASE + 0x3000), 0);
    }
}
