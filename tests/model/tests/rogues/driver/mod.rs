//! The crate's own right driver: small, but complete, and built of steps.
//!
//! Each operation lists its [`Step`]s and hands them to [`Driver::run`]; there the one [`Edit`] of
//! a rogue may change the list. Without an edit the driver is right in every mode.

mod bring_up;
mod contexts;
mod records;
mod streams;
mod tables;

use std::sync::Arc;

use smmu_model::bench::{self, cfgi_cd, cfgi_ste, nh_all, s2_page, s12_vmall, table};
use smmu_model::device::{Device, Wiring, frame};
use smmu_model::{Barrier, Claim, Faults, Identity, Machine, Mode, Settings, offset};

use crate::step::{Edit, Operation, Step};
use crate::words::{self, ContextTable};

/// Where memory starts.
pub(crate) const BASE: u64 = 0x8000_0000;
/// How much there is.
pub(crate) const BYTES: u64 = 0x8_0000;
/// How long a wait may take.
pub(crate) const BOUND_US: u64 = 2000;

const CMDQ: u64 = BASE;
const EVENTQ: u64 = BASE + 0x1000;
const PRIQ: u64 = BASE + 0x2000;
/// The stream table: 64 entries in a row, or 4 level-1 descriptors.
pub(crate) const STREAMS: u64 = BASE + 0x3000;
/// Where frames are taken from.
pub(crate) const FREE: u64 = BASE + 0x4000;
const EVENTQ_LOG2: u32 = 5;
const PRIQ_LOG2: u32 = 5;

/// Why an operation did not end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// A register did not follow within the bound.
    NotAcknowledged(u64),
    /// The commands were not consumed within the bound.
    NotConsumed,
    /// The queue had no room within the bound.
    NoRoom,
    /// The queue stopped with this CMDQ_CONS.ERR.
    CommandError(u32),
}

/// How the machine is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) identity: Identity,
    pub(crate) mode: Mode,
    /// log2 of the entries of the command queue.
    pub cmdq_log2: u32,
    /// Streams by a level-1 table and arrays of 64, not in a row.
    pub(crate) has_stream_arrays: bool,
    /// CR0.ATSCHK.
    pub(crate) checks_ats: bool,
}

impl Setup {
    pub(crate) fn new(identity: Identity, mode: Mode) -> Self {
        Self {
            identity,
            mode,
            cmdq_log2: 5,
            has_stream_arrays: false,
            checks_ats: identity.ats,
        }
    }
}

/// A guest: a VMID and a stage 2 of 39 bits whose level-3 table covers the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Guest {
    pub(crate) vmid: u16,
    pub(crate) root: u64,
    pub level2: u64,
    pub level3: u64,
}

/// An address space: an ASID and a stage 1 of 39 bits for the first 2 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Space {
    pub(crate) vmid: u16,
    pub(crate) asid: u16,
    pub(crate) root: u64,
    pub level2: u64,
    pub level3: u64,
}

/// A context that was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Binding {
    pub(crate) stream: u32,
    pub(crate) substream: u32,
    pub(crate) asid: u16,
    pub(crate) at: u64,
}

/// Frames that an operation gives back when it is done: address and bytes.
pub(crate) type Frames<'a> = &'a [(u64, u64)];

/// A machine, its devices and what the driver knows of them.
pub(crate) struct Driver {
    pub(crate) machine: Machine,
    pub(crate) setup: Setup,
    pub(crate) devices: Vec<Arc<Device>>,
    /// The bindings that are live.
    pub(crate) bindings: Vec<Binding>,
    /// The record read last.
    pub(crate) event: [u64; 4],
    /// What a story expected and did not see.
    pub(crate) surprises: Vec<&'static str>,
    producer: u32,
    batch: Vec<[u64; 2]>,
    events_read: u32,
    next_frame: u64,
    /// Context leaves by table and index.
    leaves: Vec<(ContextTable, u32, u64)>,
    /// Arrays of STEs by index.
    arrays: Vec<(u32, u64)>,
    edit: Option<Edit>,
}

impl Driver {
    /// A machine after reset.
    pub(crate) fn off(setup: Setup, edit: Option<Edit>) -> Self {
        Self {
            machine: Machine::new(BASE, BYTES, Settings::new(setup.identity, setup.mode)),
            setup,
            devices: Vec::new(),
            bindings: Vec::new(),
            event: [0; 4],
            surprises: Vec::new(),
            producer: 0,
            batch: Vec::new(),
            events_read: 0,
            next_frame: FREE,
            leaves: Vec::new(),
            arrays: Vec::new(),
            edit,
        }
    }

    /// How many lists of steps the edit altered.
    pub(crate) fn hits(&self) -> u32 {
        self.edit.as_ref().map_or(0, Edit::hits)
    }

    /// Reads a 32-bit register.
    pub(crate) fn read(&self, at: u64) -> u32 {
        self.machine.smmu(0).read32(at)
    }

    /// Zeroed memory of `1 << log2` bytes, aligned to it.
    pub(crate) fn frames(&mut self, log2: u32) -> u64 {
        let bytes = 1 << log2;
        let at = self.next_frame.next_multiple_of(bytes);
        self.next_frame = at + bytes;
        assert!(self.next_frame <= BASE + BYTES, "no more memory");
        at
    }

    /// A device on `stream`, enabled.
    pub(crate) fn device(&mut self, stream: u32) -> Arc<Device> {
        let device = Device::new(self.machine.smmu(0), Wiring::full(stream));
        device.write32(frame::CONTROL, frame::control::ENABLE);
        self.devices.push(Arc::clone(&device));
        device
    }

    /// Notes `surprise` if a story's expectation does not hold.
    pub(crate) fn expect(&mut self, holds: bool, surprise: &'static str) {
        if !holds {
            self.surprises.push(surprise);
        }
    }

    /// Lets a microsecond pass, for the devices too.
    pub(crate) fn pass(&self) {
        self.machine.advance(1);
        let now = self.machine.record().now_us();
        let finished = self.machine.smmu(0).take_finished();
        for device in &self.devices {
            device.tick(now);
            finished.iter().for_each(|of| device.finish(of));
        }
    }

    /// Takes the steps of an operation, as the rogue's edit leaves them.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the first wait that did not end; later steps are not taken.
    pub(crate) fn run(
        &mut self,
        operation: Operation,
        mut steps: Vec<Step>,
    ) -> Result<(), Trouble> {
        if let Some(edit) = &mut self.edit {
            edit.apply(operation, &mut steps);
        }
        steps.into_iter().try_for_each(|step| self.take(step))
    }

    fn take(&mut self, step: Step) -> Result<(), Trouble> {
        match step {
            Step::Store(pa, value) => self.machine.store(pa, value).expect("in memory"),
            Step::Clean(pa, bytes) => self.machine.clean(pa, bytes),
            Step::Barrier => self.machine.barrier(Barrier::Publish),
            Step::Observe => self.machine.barrier(Barrier::Observe),
            Step::Release => self.machine.barrier(Barrier::Release),
            Step::ReadEvent(pa) => {
                let word = |byte| self.machine.load(pa + byte).expect("in memory");
                self.event = [0, 8, 16, 24].map(word);
            }
            Step::Command(words) => self.batch.push(words),
            Step::Sync => {
                self.batch.push(bench::SYNC);
                self.submit()?;
                self.finish()?;
            }
            Step::Submit => self.submit()?,
            Step::AwaitRoom(commands) => self.wait(Trouble::NoRoom, move |driver| {
                driver.entries().saturating_sub(driver.outstanding()) >= commands
            })?,
            Step::Enter(at, words) => {
                self.machine.store(at, words[0]).expect("in memory");
                self.machine.store(at + 8, words[1]).expect("in memory");
            }
            Step::Announce(producer) => {
                self.producer = producer;
                self.machine.smmu(0).write32(offset::CMDQ_PROD, producer);
            }
            Step::AwaitConsumed => {
                self.wait(Trouble::NotConsumed, |driver| driver.outstanding() == 0)?;
            }
            Step::Await(what) => self.wait(Trouble::NotConsumed, what)?,
            Step::Write(at, value) => self.machine.smmu(0).write32(at, value),
            Step::Write64(at, value) => self.machine.smmu(0).write64(at, value),
            Step::AwaitRegister(at, mask, value) => self
                .wait(Trouble::NotAcknowledged(at), move |driver| {
                    driver.read(at) & mask == value
                })?,
            Step::Claim(claim) => self.machine.claim(claim),
            Step::Do(what) => what(self),
        }
        Ok(())
    }

    fn wait(&mut self, trouble: Trouble, what: impl Fn(&Self) -> bool) -> Result<(), Trouble> {
        for _ in 0..BOUND_US {
            if what(self) {
                return Ok(());
            }
            // CMDQ_ERR: nothing is consumed until it is acknowledged.
            if (self.read(offset::GERROR) ^ self.read(offset::GERRORN)) & 1 != 0 {
                let error = self.read(offset::CMDQ_CONS) >> 24 & 0x7f;
                return Err(Trouble::CommandError(error));
            }
            self.pass();
        }
        Err(trouble)
    }

    /// How many commands the queue holds at most.
    pub(crate) fn entries(&self) -> u32 {
        1 << self.setup.cmdq_log2
    }

    /// How many commands are not consumed yet.
    pub(crate) fn outstanding(&self) -> u32 {
        self.producer.wrapping_sub(self.read(offset::CMDQ_CONS)) & (2 * self.entries() - 1)
    }

    /// What CMDQ_PROD was written with last.
    pub(crate) fn announced(&self) -> u32 {
        self.producer
    }

    /// Waits until every command is consumed.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn finish(&mut self) -> Result<(), Trouble> {
        self.run(Operation::Finish, vec![Step::AwaitConsumed])
    }

    /// Puts the batch into the queue, at most four commands at a time.
    fn submit(&mut self) -> Result<(), Trouble> {
        let batch = std::mem::take(&mut self.batch);
        let wrap = 2 * self.entries() - 1;
        for commands in batch.chunks(4) {
            let mut next = self.producer;
            let mut steps = vec![Step::AwaitRoom(commands.len() as u32)];
            for words in commands {
                let at = CMDQ + u64::from(next & (self.entries() - 1)) * 16;
                steps.extend([Step::Enter(at, *words), Step::Clean(at, 16)]);
                next = (next + 1) & wrap;
            }
            steps.extend([Step::Barrier, Step::Announce(next)]);
            self.run(Operation::Submit, steps)?;
        }
        Ok(())
    }
}

/// Whether a device's ATC may hold translations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Atc {
    Unused,
    Used,
}

/// A store that the SMMU sees.
pub(crate) fn visible(pa: u64, value: u64) -> Vec<Step> {
    vec![Step::Store(pa, value), Step::Clean(pa, 8), Step::Barrier]
}

/// Body, CFGI, SYNC, word 0, CFGI, SYNC.
fn publish(at: u64, entry: &[u64; 8], cfgi: [u64; 2]) -> Vec<Step> {
    let body = entry.iter().zip(0..).skip(1);
    let mut steps: Vec<Step> = body
        .map(|(&value, word)| Step::Store(at + 8 * word, value))
        .collect();
    steps.extend([
        Step::Clean(at, 64),
        Step::Barrier,
        Step::Command(cfgi),
        Step::Sync,
    ]);
    steps.extend(visible(at, entry[0]));
    steps.extend([Step::Command(cfgi), Step::Sync]);
    steps
}

fn give_back(frees: Frames<'_>) -> impl Iterator<Item = Step> {
    let freed = |&(pa, bytes): &(u64, u64)| Step::Claim(Claim::FrameFreed { pa, bytes });
    frees.iter().map(freed)
}

/// Where the level-3 descriptor of an IPA lies.
pub(crate) fn stage2_slot(guest: &Guest, ipa: u64) -> u64 {
    guest.level3 + (ipa >> 12 & 0x1ff) * 8
}

/// Where the level-3 descriptor of a VA lies.
pub(crate) fn stage1_slot(space: &Space, va: u64) -> u64 {
    space.level3 + (va >> 12 & 0x1ff) * 8
}
