//! One SMMU, as drivers and devices reach it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::claims::Claims;
use crate::core::Core;
use crate::fault::Faults;
use crate::hostile::{Choices, Mode};
use crate::ids::Identity;
use crate::interrupt::Interrupt;
use crate::memory::Memory;
use crate::record::Record;
use crate::transaction::{Outcome, Transaction};

/// How one SMMU is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Its ID registers.
    pub identity: Identity,
    /// How hostile it is.
    pub mode: Mode,
    /// What GBPA holds after reset, Update aside.
    pub gbpa: u32,
}

impl Settings {
    /// `identity` in `mode`; GBPA resets to use incoming attributes and to bypass.
    pub const fn new(identity: Identity, mode: Mode) -> Self {
        Self {
            identity,
            mode,
            gbpa: 0x1000,
        }
    }
}

/// A handle to one SMMU; clones are the same SMMU. All methods may be called from any thread.
#[derive(Clone)]
pub struct Smmu {
    core: Arc<Mutex<Core>>,
}

impl fmt::Debug for Smmu {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Smmu").finish_non_exhaustive()
    }
}

impl Smmu {
    /// An SMMU after reset over `memory`, the `index`th of those that share `record`.
    pub fn new(
        settings: Settings,
        index: usize,
        memory: Arc<dyn Memory>,
        record: Arc<Record>,
    ) -> Self {
        Self::with_claims(settings, index, memory, record, Arc::new(Claims::default()))
    }

    pub(crate) fn with_claims(
        settings: Settings,
        index: usize,
        memory: Arc<dyn Memory>,
        record: Arc<Record>,
        claims: Arc<Claims>,
    ) -> Self {
        let core = Core {
            index,
            id: settings.identity,
            memory,
            record,
            claims,
            choices: Choices::new(settings.mode, index as u64),
            faults: Faults::default(),
            registers: crate::control::reset(&settings),
            updates: crate::control::Updates::default(),
            commands: crate::execute::Commands::default(),
            interrupts: Vec::new(),
        };
        Self {
            core: Arc::new(Mutex::new(core)),
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.core();
        core.record.next_step();
        act(&mut core)
    }

    /// Reads the 32-bit register at `offset` from the base of page 0. Without side effect.
    pub fn read32(&self, offset: u64) -> u32 {
        self.core().read_register(offset)
    }

    /// Reads the 64-bit register at `offset`.
    pub fn read64(&self, offset: u64) -> u64 {
        let core = self.core();
        u64::from(core.read_register(offset))
            | u64::from(core.read_register(offset.wrapping_add(4))) << 32
    }

    /// Writes the 32-bit register at `offset`.
    pub fn write32(&self, offset: u64, value: u32) {
        self.with(|core| core.write_register32(offset, value));
    }

    /// Writes the 64-bit register at `offset`.
    pub fn write64(&self, offset: u64, value: u64) {
        self.with(|core| core.write_register64(offset, value));
    }

    /// Lets the SMMU go on after time has passed.
    pub fn tick(&self) {
        self.with(Core::tick);
    }

    /// Submits a device's transaction.
    pub fn transact(&self, transaction: Transaction) -> Outcome {
        self.with(|core| core.transact(transaction))
    }

    /// Sends a device's page request.
    pub fn page_request(&self, request: crate::PageRequest) {
        let _ = request;
    }

    /// Connects the device of a stream.
    pub fn attach_endpoint(&self, stream: u32, endpoint: Arc<dyn crate::Endpoint>) {
        let _ = (stream, endpoint);
    }

    /// Answers an invalidation late.
    pub fn answer_invalidation(&self, id: u64, answer: crate::InvalidationAnswer) {
        let _ = (id, answer);
    }

    /// Puts these faults in, in place of those before.
    pub fn set_faults(&self, faults: Faults) {
        self.with(|core| core.faults = faults);
    }

    /// The interrupts since the last call, oldest first.
    pub fn take_interrupts(&self) -> Vec<Interrupt> {
        std::mem::take(&mut self.core().interrupts)
    }
}
