//! One SMMU, as drivers and devices reach it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use crate::ats::{Endpoint, InvalidationAnswer, Message};
use crate::claims::{Claim, Claims};
use crate::core::Core;
use crate::fault::Faults;
use crate::hostile::{Choices, Mode};
use crate::ids::Identity;
use crate::interrupt::Interrupt;
use crate::memory::Memory;
use crate::pri::PageRequest;
use crate::record::Record;
use crate::stall::Finished;
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
    /// How long a device may take to answer an `ATC_INV` before `CERROR_ATC_INV_SYNC`.
    pub atc_timeout_us: u64,
    /// A driver that lets more time pass while one answer is pending waits without bound.
    pub wait_limit_us: u64,
}

impl Settings {
    /// `identity` in `mode`; GBPA resets to use incoming attributes and to bypass.
    pub const fn new(identity: Identity, mode: Mode) -> Self {
        Self {
            identity,
            mode,
            gbpa: 0x1000,
            atc_timeout_us: 100_000,
            wait_limit_us: 60_000_000,
        }
    }
}

/// A handle to one SMMU; clones are the same SMMU. All methods may be called from any thread.
#[derive(Clone)]
pub struct Smmu {
    core: Arc<Mutex<Core>>,
    endpoints: Arc<Mutex<FxHashMap<u32, Arc<dyn Endpoint>>>>,
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
        record.note_mode(settings.mode);
        let core = Core {
            index,
            id: settings.identity,
            memory,
            record,
            claims,
            choices: Choices::new(settings.mode, index as u64),
            faults: Faults::default(),
            registers: crate::control::reset(&settings),
            updates: crate::update::Updates::default(),
            commands: crate::execute::Commands::default(),
            caches: crate::cache::Caches::default(),
            uses: crate::watch::Uses::default(),
            entries: crate::entry::Entries::default(),
            ahead: crate::prefetch::Ahead::default(),
            events: crate::event_queue::Events::default(),
            reads: crate::strict::Reads::default(),
            grants: crate::grants::Grants::default(),
            settled: crate::unknown::Settled::default(),
            stalls: crate::stall::Stalls::default(),
            posted: Vec::new(),
            waits: None,
            wait_limit_us: settings.wait_limit_us,
            interrupts: Vec::new(),
            outbox: Vec::new(),
            atc_timeout_us: settings.atc_timeout_us,
        };
        Self {
            core: Arc::new(Mutex::new(core)),
            endpoints: Arc::new(Mutex::new(FxHashMap::default())),
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on the state in a step of its own, then delivers what the SMMU has to tell devices:
    /// with no lock held, until it has nothing more to tell.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = self.core();
        core.record.next_step();
        let result = act(&mut core);
        let mut messages = std::mem::take(&mut core.outbox);
        drop(core);
        while !messages.is_empty() {
            for message in messages {
                self.deliver(message);
            }
            let mut core = self.core();
            core.tick();
            messages = std::mem::take(&mut core.outbox);
        }
        result
    }

    fn endpoint(&self, stream: u32) -> Option<Arc<dyn Endpoint>> {
        let endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        endpoints.get(&stream).cloned()
    }

    fn deliver(&self, message: Message) {
        match message {
            Message::Invalidate(invalidation) => {
                // Where no device is, the request is unsupported.
                let answer = self
                    .endpoint(invalidation.stream)
                    .map_or(InvalidationAnswer::UnsupportedRequest, |endpoint| {
                        endpoint.invalidate(invalidation)
                    });
                if answer != InvalidationAnswer::Later {
                    self.core().answer_invalidation(invalidation.id);
                }
            }
            Message::Respond(response) => {
                if let Some(endpoint) = self.endpoint(response.stream) {
                    endpoint.page_response(response);
                }
            }
        }
    }

    /// Puts a device behind this SMMU, for what the SMMU has to tell it.
    pub fn attach_endpoint(&self, stream: u32, endpoint: Arc<dyn Endpoint>) {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        endpoints.insert(stream, endpoint);
    }

    /// A device answers an invalidation that it had put off; a second answer is ignored.
    pub fn answer_invalidation(&self, id: u64) {
        self.with(|core| {
            core.answer_invalidation(id);
            core.tick();
        });
    }

    /// The device of `stream` was reset: its ATC is empty.
    pub fn endpoint_reset(&self, stream: u32) {
        self.with(|core| core.grants_lost(stream));
    }

    /// Submits a device's page request. Ignored without PRI.
    pub fn page_request(&self, request: PageRequest) {
        self.with(|core| core.page_request(request));
    }

    /// Stalled transactions that have ended since the last call, in that order.
    pub fn take_finished(&self) -> Vec<Finished> {
        self.with(Core::take_finished)
    }

    /// How many transactions are stalled, or hold a tag that was not answered.
    pub fn stalled(&self) -> usize {
        self.core().stalled()
    }

    /// How many items are cached: configuration entries, translations, table descriptors.
    pub fn cached(&self) -> usize {
        let core = self.core();
        core.caches.config.count() + core.caches.tlb.count()
    }

    /// How many `CMD_SYNC`s have completed.
    pub fn syncs(&self) -> u64 {
        self.core().commands.syncs
    }

    /// Stops the SMMU for good (service failure mode, GERROR.SFM_ERR).
    pub fn raise_sfm(&self) {
        self.with(|core| core.raise(crate::registers::gerror::SFM_ERR));
    }

    /// Makes an error of GERROR active, as if the hardware had met it. `bits` as in the register.
    pub fn raise_error(&self, bits: u32) {
        self.with(|core| core.raise(bits & crate::registers::gerror::ALL));
    }

    /// A store to a register page that was noticed after the fact: `bytes` is 4 or 8.
    pub fn write_noticed(&self, offset: u64, bytes: usize, value: u64) {
        match bytes {
            4 => self.write32(offset, value as u32),
            8 => self.write64(offset, value),
            _ => self.with(|core| core.refuse_size(offset, bytes)),
        }
    }

    /// A store of the driver that the memory already shows: for a memory without views of its own.
    ///
    /// `old` is what the word held before, where that is known; else the model takes what the SMMU
    /// last read there, or 0. Words are aligned to 8 bytes; of a narrower store, give the word
    /// around it.
    pub fn noticed_store(&self, pa: u64, old: Option<u64>, new: u64) {
        self.with(|core| {
            core.record.stored(core.record.step(), pa, new);
            let old = old.unwrap_or_else(|| core.last_seen(pa));
            core.driver_stored(pa, old, new);
            core.became_visible(pa);
        });
    }

    /// The driver has loaded the word at `pa`; `is_stale`: not what was last written there.
    pub(crate) fn driver_loaded(&self, pa: u64, is_stale: bool) {
        self.core().driver_loaded(pa, is_stale);
    }

    /// The driver's loads so far are done before what follows.
    pub(crate) fn driver_released(&self) {
        self.core().driver_released();
    }

    /// States what only the driver knows, to this SMMU alone; [`Machine::claim`](crate::Machine::claim)
    /// tells all of a machine.
    pub fn claim(&self, claim: Claim) {
        self.with(|core| {
            core.claims.note(claim);
            core.check_claim(claim);
        });
    }

    /// A live structure in the `bytes` bytes from `pa` on that only the hypervisor may change, and
    /// what it is: a stream table entry, a context descriptor, a descriptor above one of these, or a
    /// stage-2 table.
    pub fn sealed_at(&self, pa: u64, bytes: u64) -> Option<(u64, &'static str)> {
        self.core().sealed_in(pa, pa.saturating_add(bytes))
    }

    /// Calls `each` with offset and value of every register, for a page of memory that stands for
    /// the register frame.
    pub fn export_registers(&self, mut each: impl FnMut(u64, u32)) {
        let core = self.core();
        for at in crate::registers::offsets() {
            each(at, core.registers.value(at));
        }
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
        self.with(Core::elapse);
    }

    /// Fetches ahead as far as the mode does, which an SMMU may at any moment (§3.21.1). For a
    /// memory that tells of fewer stores than there are.
    pub fn look_around(&self) {
        self.with(Core::look_around);
    }

    /// Lets `us` microseconds of model time pass. For an SMMU without a
    /// [`Machine`](crate::Machine), whose [`advance`](crate::Machine::advance) tells all of them.
    pub fn elapse(&self, us: u64) {
        self.core().record.pass(us);
        self.tick();
    }

    /// Submits a device's transaction.
    pub fn transact(&self, transaction: Transaction) -> Outcome {
        self.with(|core| core.transact(transaction))
    }

    /// Submits a transaction, and does `then` with its outcome before the SMMU goes on.
    pub(crate) fn transact_then<T>(
        &self,
        transaction: Transaction,
        then: impl FnOnce(Outcome) -> T,
    ) -> T {
        self.with(|core| then(core.transact(transaction)))
    }

    /// Submits the transaction that there is at this moment, if there is one: nothing comes between
    /// what `make` looks at and what becomes of it.
    pub(crate) fn transact_now(
        &self,
        make: impl FnOnce() -> Option<Transaction>,
    ) -> Option<Outcome> {
        self.with(|core| make().map(|transaction| core.transact(transaction)))
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
