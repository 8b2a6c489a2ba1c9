//! A machine for host tests: memory, time, and SMMUs over them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::claims::{Claim, Claims};
use crate::host::{Barrier, Coherence, HostMemory, Visibility};
use crate::memory::{Abort, Memory};
use crate::record::Record;
use crate::smmu::{Settings, Smmu};

/// Memory, model time, a record, and the SMMUs over them.
///
/// The driver's side is [`store`](Self::store), [`load`](Self::load), [`barrier`](Self::barrier),
/// [`clean`](Self::clean), the registers of [`smmu`](Self::smmu), and time: nothing passes unless
/// [`advance`](Self::advance) is called, which a driver's wait loop does.
#[derive(Debug)]
pub struct Machine {
    memory: Arc<HostMemory>,
    record: Arc<Record>,
    claims: Arc<Claims>,
    smmus: Vec<Smmu>,
}

impl Machine {
    /// One SMMU after reset over `bytes` bytes of zeros at `base`.
    pub fn new(base: u64, bytes: u64, settings: Settings) -> Self {
        Self::with_smmus(base, bytes, &[settings])
    }

    /// Several SMMUs; memory is as hostile as the first. A store needs a clean if one of them does
    /// not snoop.
    pub fn with_smmus(base: u64, bytes: u64, settings: &[Settings]) -> Self {
        let mode = settings
            .first()
            .map_or(crate::Mode::Polite, |settings| settings.mode);
        let snooped = settings.iter().all(|settings| settings.identity.cohacc);
        let coherence = if snooped {
            Coherence::Snooped
        } else {
            Coherence::Cleaned
        };
        let memory = Arc::new(HostMemory::new(
            base,
            bytes,
            mode,
            Visibility::of(mode),
            coherence,
        ));
        let record = Arc::new(Record::new());
        let claims = Arc::new(Claims::default());
        let smmus = settings
            .iter()
            .enumerate()
            .map(|(index, settings)| {
                let shared = Arc::clone(&memory) as Arc<dyn Memory>;
                Smmu::with_claims(
                    *settings,
                    index,
                    shared,
                    Arc::clone(&record),
                    Arc::clone(&claims),
                )
            })
            .collect();
        Self {
            memory,
            record,
            claims,
            smmus,
        }
    }

    /// The SMMU with this index.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn smmu(&self, index: usize) -> &Smmu {
        &self.smmus[index]
    }

    /// The memory, both views of it.
    pub fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// What happened so far.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The driver stores a word.
    ///
    /// # Errors
    ///
    /// [`Abort`] outside memory, or if `pa` is not 8-byte aligned; nothing has changed.
    pub fn store(&self, pa: u64, value: u64) -> Result<(), Abort> {
        let step = self.record.next_step();
        let mut visible = Vec::new();
        let old = self.memory.store(pa, value, &mut visible)?;
        self.record.stored(step, pa, value);
        for smmu in &self.smmus {
            smmu.with(|core| core.driver_stored(pa, old, value));
        }
        self.show(&visible);
        Ok(())
    }

    /// Tells the SMMUs of words that they can see from now on.
    fn show(&self, visible: &[u64]) {
        if visible.is_empty() {
            return;
        }
        for smmu in &self.smmus {
            smmu.with(|core| visible.iter().for_each(|pa| core.became_visible(*pa)));
        }
    }

    /// The driver loads a word.
    ///
    /// # Errors
    ///
    /// [`Abort`] as for [`store`](Self::store).
    pub fn load(&self, pa: u64) -> Result<u64, Abort> {
        let value = self.memory.load(pa)?;
        let is_stale = self.memory.is_unobserved(pa);
        for smmu in &self.smmus {
            smmu.driver_loaded(pa, is_stale);
        }
        Ok(value)
    }

    /// [`store`](Self::store), by a reference into [`HostMemory::word`].
    ///
    /// # Errors
    ///
    /// [`Abort`] if the word is not of this memory.
    pub fn store_word(&self, word: &AtomicU64, value: u64) -> Result<(), Abort> {
        self.store(self.memory.address_of(word).ok_or(Abort)?, value)
    }

    /// [`load`](Self::load), by a reference into [`HostMemory::word`].
    ///
    /// # Errors
    ///
    /// [`Abort`] if the word is not of this memory.
    pub fn load_word(&self, word: &AtomicU64) -> Result<u64, Abort> {
        self.load(self.memory.address_of(word).ok_or(Abort)?)
    }

    /// [`clean`](Self::clean), by references into [`HostMemory::word`].
    ///
    /// # Errors
    ///
    /// [`Abort`] if the words are not of this memory.
    pub fn clean_words(&self, words: &[AtomicU64]) -> Result<(), Abort> {
        if let Some(first) = words.first() {
            let pa = self.memory.address_of(first).ok_or(Abort)?;
            self.clean(pa, size_of_val(words) as u64);
        }
        Ok(())
    }

    /// The driver's barrier.
    pub fn barrier(&self, kind: Barrier) {
        let mut visible = Vec::new();
        self.memory.barrier(kind, &mut visible);
        self.show(&visible);
        if kind == Barrier::Release {
            for smmu in &self.smmus {
                smmu.driver_released();
            }
        }
    }

    /// The driver cleans cache lines.
    pub fn clean(&self, pa: u64, bytes: u64) {
        self.memory.clean(pa, bytes);
    }

    /// Lets `us` microseconds pass.
    pub fn advance(&self, us: u64) {
        self.record.pass(us);
        if us != 0 {
            // What was written a while ago is seen by a load that is only issued now.
            self.memory.settle_inbound();
        }
        for smmu in &self.smmus {
            smmu.tick();
        }
    }

    /// States what only the driver knows. Each SMMU that keeps something against it objects.
    pub fn claim(&self, claim: Claim) {
        self.record.next_step();
        self.claims.note(claim);
        for smmu in &self.smmus {
            smmu.with(|core| core.check_claim(claim));
        }
    }
}
