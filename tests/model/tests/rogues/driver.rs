//! The crate's own right driver: small, but complete, and built of steps.
//!
//! Each operation lists its [`Step`]s and hands them to [`Driver::run`]; there the one [`Edit`] of
//! a rogue may change the list. Without an edit the driver is right in every mode.

use std::sync::Arc;

use smmu_model::bench::{self, cfgi_cd, cfgi_ste, nh_all, s2_page, s12_vmall, table};
use smmu_model::device::{Device, Wiring, frame};
use smmu_model::{Barrier, Claim, Faults, Identity, Machine, Mode, Settings, offset};

use super::step::{Edit, Operation, Step};
use super::words::{self, ContextTable};

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

    /// Registers, queues, empty tables, invalidation of everything, SMMUEN (§3.11).
    ///
    /// # Errors
    ///
    /// [`Trouble`] if the hardware does not follow.
    pub(crate) fn bring_up(&mut self) -> Result<(), Trouble> {
        let cr0 = |value| {
            [
                Step::Write(offset::CR0, value),
                Step::AwaitRegister(offset::CR0ACK, u32::MAX, value),
            ]
        };
        let atschk = u32::from(self.setup.checks_ats) << 4;
        let idr0 = self.read(offset::IDR0);
        let (has_hyp, has_pri) = (idr0 >> 9 & 1 != 0, idr0 >> 16 & 1 != 0);
        let priqen = u32::from(has_pri) << 1;
        let (log2_size, format) = if self.setup.has_stream_arrays {
            (8, 1 << 16 | 6 << 6)
        } else {
            (6, 0)
        };
        (self.producer, self.events_read) = (0, 0);
        let mut steps = vec![
            Step::AwaitRegister(offset::GBPA, 1 << 31, 0),
            Step::Write(offset::GBPA, 1 << 31 | 1 << 20 | 1 << 12),
            Step::AwaitRegister(offset::GBPA, 1 << 31, 0),
        ];
        steps.extend(cr0(0));
        steps.extend([
            Step::Write(offset::CR1, 0xd75),
            Step::Write(offset::CR2, 0x2),
            Step::Write64(offset::STRTAB_BASE, STREAMS),
            Step::Write(offset::STRTAB_BASE_CFG, format | log2_size),
            Step::Write64(offset::CMDQ_BASE, CMDQ | u64::from(self.setup.cmdq_log2)),
            Step::Write(offset::CMDQ_PROD, 0),
            Step::Write(offset::CMDQ_CONS, 0),
            Step::Write64(offset::EVENTQ_BASE, EVENTQ | u64::from(EVENTQ_LOG2)),
            Step::Write(offset::EVENTQ_PROD, 0),
            Step::Write(offset::EVENTQ_CONS, 0),
        ]);
        if has_pri {
            steps.extend([
                Step::Write64(offset::PRIQ_BASE, PRIQ | u64::from(PRIQ_LOG2)),
                Step::Write(offset::PRIQ_PROD, 0),
                Step::Write(offset::PRIQ_CONS, 0),
            ]);
        }
        steps.extend(cr0(0x8));
        steps.extend([Step::Command(bench::CFGI_ALL), Step::Sync]);
        if has_hyp {
            steps.push(Step::Command(words::EL2_ALL));
        }
        steps.extend([Step::Command(bench::NSNH_ALL), Step::Sync]);
        steps.extend(cr0(0xc));
        steps.extend(cr0(0xc | priqen | atschk));
        steps.extend([
            Step::Write(offset::IRQ_CTRL, 0x5),
            Step::AwaitRegister(offset::IRQ_CTRLACK, u32::MAX, 0x5),
        ]);
        steps.extend(cr0(0xd | priqen | atschk));
        self.run(Operation::BringUp, steps)
    }

    /// Switches the SMMU off; GBPA aborts since bring-up.
    ///
    /// # Errors
    ///
    /// [`Trouble`] if CR0ACK does not follow.
    pub(crate) fn shut_down(&mut self, streams_with_ats: &[u32]) -> Result<(), Trouble> {
        for &stream in streams_with_ats {
            self.disable_ats(stream)?;
        }
        let steps = vec![
            Step::Write(offset::CR0, 0x8),
            Step::AwaitRegister(offset::CR0ACK, u32::MAX, 0x8),
            Step::Command(bench::CFGI_ALL),
            Step::Sync,
            Step::Command(bench::NSNH_ALL),
            Step::Sync,
            Step::Write(offset::CR0, 0),
            Step::AwaitRegister(offset::CR0ACK, u32::MAX, 0),
        ];
        self.run(Operation::ShutDown, steps)
    }

    // Streams.

    /// Where the entry of a stream lies.
    pub(crate) fn ste_at(&self, stream: u32) -> u64 {
        if self.setup.has_stream_arrays {
            let array = self.arrays.iter().find(|(index, _)| *index == stream >> 6);
            array.expect("an array").1 + u64::from(stream & 63) * 64
        } else {
            STREAMS + u64::from(stream) * 64
        }
    }

    /// Makes the entry of a stream valid: body, CFGI, SYNC, word 0, CFGI, SYNC (§3.21.3.1).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn publish_ste(&mut self, stream: u32, ste: &[u64; 8]) -> Result<(), Trouble> {
        let at = self.ste_at(stream);
        let steps = publish(at, ste, cfgi_ste(stream));
        self.run(Operation::PublishSte, steps)
    }

    /// Replaces one word of a live entry.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn change_ste(&mut self, stream: u32, word: u64, value: u64) -> Result<(), Trouble> {
        let at = self.ste_at(stream) + 8 * word;
        let mut steps = visible(at, value);
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::ChangeSte, steps)
    }

    /// Makes the entry of a stream invalid, forgets all that came through it, and gives back
    /// what it led to.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn retract_ste(
        &mut self,
        stream: u32,
        vmid: u16,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let mut steps = visible(self.ste_at(stream), 0);
        steps.extend([
            Step::Command(cfgi_ste(stream)),
            Step::Sync,
            Step::Command(s12_vmall(vmid)),
            Step::Sync,
        ]);
        steps.extend(give_back(frees));
        self.run(Operation::RetractSte, steps)
    }

    /// Makes the entry of a stream invalid; what the TLB holds of it stays for
    /// [`take_tag`](Self::take_tag).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn retract_ste_only(&mut self, stream: u32) -> Result<(), Trouble> {
        let mut steps = visible(self.ste_at(stream), 0);
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::RetractSte, steps)
    }

    /// Makes the entry of a stream invalid, with one barrier for the entry and the commands.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn retract_ste_by_one_barrier(&mut self, stream: u32) -> Result<(), Trouble> {
        let at = self.ste_at(stream);
        let mask = self.entries() - 1;
        let slot = |position: u32| CMDQ + u64::from(position & mask) * 16;
        let first = self.producer;
        let steps = vec![
            Step::AwaitRoom(2),
            Step::Enter(slot(first), cfgi_ste(stream)),
            Step::Clean(slot(first), 16),
            Step::Enter(slot(first + 1), bench::SYNC),
            Step::Clean(slot(first + 1), 16),
            Step::Store(at, 0),
            Step::Clean(at, 8),
            Step::Barrier,
            Step::Announce((first + 2) & (2 * self.entries() - 1)),
            Step::AwaitConsumed,
        ];
        self.run(Operation::RetractSte, steps)
    }

    /// Makes the entry of a stream invalid by 16 commands, of which the first is a SYNC that
    /// takes 40 microseconds; `end` waits for them or only submits them.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn retract_in_a_long_train(
        &mut self,
        stream: u32,
        vmid: u16,
        end: Step,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let late = |driver: &mut Self| {
            driver.machine.smmu(0).set_faults(Faults {
                sync_late_us: 40,
                ..Faults::default()
            });
        };
        let mut steps = vec![Step::Do(late)];
        steps.extend(visible(self.ste_at(stream), 0));
        steps.extend([Step::Command(bench::SYNC), Step::Submit]);
        steps.extend([
            Step::Command(cfgi_ste(stream)),
            Step::Command(bench::SYNC),
            Step::Command(s12_vmall(vmid)),
        ]);
        // Entries that do not matter, to make the train 16 commands long.
        steps.extend((0..11).map(|other| Step::Command(cfgi_ste(40 + other))));
        if matches!(end, Step::Submit) {
            steps.push(Step::Command(bench::SYNC));
        }
        steps.push(end);
        steps.extend(give_back(frees));
        self.run(Operation::RetractSte, steps)
    }

    /// Makes a stream abort silently, then ends everything of it that is stalled (§4.6.2).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn end_stalls(&mut self, stream: u32) -> Result<(), Trouble> {
        // V = 1, Config = abort.
        let mut steps = visible(self.ste_at(stream), 1);
        steps.extend([
            Step::Command(cfgi_ste(stream)),
            Step::Sync,
            Step::Command(words::stall_term(stream)),
            Step::Sync,
        ]);
        self.run(Operation::EndStalls, steps)
    }

    /// Ends a stalled access with an abort.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn answer_stall(&mut self, stream: u32, stag: u16) -> Result<(), Trouble> {
        let resume = words::resume_abort(stream, stag);
        let steps = vec![Step::Command(resume), Step::Sync];
        self.run(Operation::EndStalls, steps)
    }

    /// Leaves the SMMU as a crash does: off, its caches as they are, a stream's entry gone.
    ///
    /// # Errors
    ///
    /// [`Trouble`] if CR0ACK does not follow.
    pub(crate) fn stop_abruptly(&mut self, stream: u32) -> Result<(), Trouble> {
        let mut steps = vec![
            Step::Write(offset::CR0, 0),
            Step::AwaitRegister(offset::CR0ACK, u32::MAX, 0),
            Step::Write(offset::IRQ_CTRL, 0),
            Step::AwaitRegister(offset::IRQ_CTRLACK, u32::MAX, 0),
        ];
        steps.extend(visible(self.ste_at(stream), 0));
        self.run(Operation::ShutDown, steps)
    }

    /// Gives frames back that nothing leads to.
    pub(crate) fn free(&mut self, frees: Frames<'_>) {
        let steps = give_back(frees).collect();
        self.run(Operation::Free, steps)
            .expect("no step of this waits");
    }

    /// Links an array of 64 invalid entries into the level-1 table.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn add_array(&mut self, index: u32) -> Result<u64, Trouble> {
        let array = self.frames(12);
        self.arrays.push((index, array));
        let mut steps = visible(STREAMS + u64::from(index) * 8, words::l1std(array));
        steps.extend([Step::Command(words::cfgi_ste_path(index << 6)), Step::Sync]);
        self.run(Operation::AddArray, steps)?;
        Ok(array)
    }

    /// Unlinks an array whose entries are all invalid, and gives it back.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn remove_array(&mut self, index: u32) -> Result<(), Trouble> {
        let mut steps = visible(STREAMS + u64::from(index) * 8, 0);
        // CFGI_STE_RANGE of 64 streams: Range = 5.
        let range = [0x04 | u64::from(index << 6) << 32, 5];
        steps.extend([Step::Command(range), Step::Sync]);
        let array = self.arrays.iter().find(|(known, _)| *known == index);
        let array = array.expect("an array").1;
        steps.extend(give_back(&[(array, 0x1000)]));
        self.run(Operation::RemoveArray, steps)?;
        self.arrays.retain(|(known, _)| *known != index);
        Ok(())
    }

    // Contexts.

    /// A context table of 16 entries, or one with leaves.
    pub(crate) fn context_table(&mut self, has_leaves: bool) -> ContextTable {
        let at = self.frames(12);
        if has_leaves {
            ContextTable::TwoLevel(at)
        } else {
            ContextTable::Linear(at)
        }
    }

    /// Links a leaf of 64 invalid contexts into a table that `streams` use.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn add_leaf(
        &mut self,
        table: ContextTable,
        index: u32,
        streams: &[u32],
        guest: Option<&Guest>,
    ) -> Result<u64, Trouble> {
        let ContextTable::TwoLevel(at) = table else {
            panic!("a linear table has no leaves");
        };
        let leaf = self.frames(12);
        self.leaves.push((table, index, leaf));
        if let Some(guest) = guest {
            self.map_same(guest, leaf);
        }
        let mut steps = visible(at + u64::from(index) * 8, words::l1cd(leaf));
        for &stream in streams {
            steps.push(Step::Command(words::cfgi_cd_path(stream, index << 6)));
        }
        steps.push(Step::Sync);
        self.run(Operation::AddLeaf, steps)?;
        Ok(leaf)
    }

    /// Unlinks a leaf whose contexts are all invalid, and gives it back.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn remove_leaf(
        &mut self,
        table: ContextTable,
        index: u32,
        streams: &[u32],
    ) -> Result<(), Trouble> {
        let ContextTable::TwoLevel(at) = table else {
            panic!("a linear table has no leaves");
        };
        let mut steps = visible(at + u64::from(index) * 8, 0);
        for &stream in streams {
            steps.push(Step::Command(words::cfgi_cd_all(stream)));
        }
        steps.push(Step::Sync);
        let leaf = self.leaf(table, index);
        steps.extend(give_back(&[(leaf, 0x1000)]));
        self.run(Operation::RemoveLeaf, steps)?;
        self.leaves
            .retain(|(of, known, _)| (*of, *known) != (table, index));
        Ok(())
    }

    fn leaf(&self, table: ContextTable, index: u32) -> u64 {
        let leaf = self
            .leaves
            .iter()
            .find(|(of, known, _)| (*of, *known) == (table, index));
        leaf.expect("a leaf").2
    }

    /// Where the context of a SubstreamID lies.
    pub(crate) fn cd_at(&self, table: ContextTable, substream: u32) -> u64 {
        match table {
            ContextTable::Linear(at) => at + u64::from(substream) * 64,
            ContextTable::TwoLevel(_) => {
                self.leaf(table, substream >> 6) + u64::from(substream & 63) * 64
            }
        }
    }

    /// Makes a context valid in the way of an entry (§3.21.3.1).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn bind(
        &mut self,
        stream: u32,
        table: ContextTable,
        substream: u32,
        space: &Space,
    ) -> Result<Binding, Trouble> {
        let at = self.cd_at(table, substream);
        let cd = bench::cd(space.asid, space.root);
        let steps = publish(at, &cd, cfgi_cd(stream, substream));
        let binding = Binding {
            stream,
            substream,
            asid: space.asid,
            at,
        };
        self.run(Operation::PublishCd, steps)?;
        self.bindings.push(binding);
        Ok(binding)
    }

    /// Makes a context invalid that two streams can reach.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unbind_shared(
        &mut self,
        binding: &Binding,
        other: u32,
        vmid: u16,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let mut steps = visible(binding.at, 0);
        steps.extend([
            Step::Command(cfgi_cd(binding.stream, binding.substream)),
            Step::Command(cfgi_cd(other, binding.substream)),
            Step::Sync,
            Step::Command(nh_all(vmid)),
            Step::Sync,
        ]);
        steps.extend(give_back(frees));
        self.run(Operation::RetractCd, steps)?;
        self.bindings.retain(|known| known != binding);
        Ok(())
    }

    /// Makes a context invalid; what the TLB holds of it stays for [`take_tag`](Self::take_tag).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn unbind_only(&mut self, binding: &Binding) -> Result<(), Trouble> {
        let mut steps = visible(binding.at, 0);
        let cfgi = cfgi_cd(binding.stream, binding.substream);
        steps.extend([Step::Command(cfgi), Step::Sync]);
        self.run(Operation::RetractCd, steps)?;
        self.bindings.retain(|known| known != binding);
        Ok(())
    }

    /// Replaces word 0 of a live context; what the TLB holds of the space is forgotten.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn change_cd(
        &mut self,
        binding: &Binding,
        vmid: u16,
        word0: u64,
    ) -> Result<(), Trouble> {
        let mut steps = visible(binding.at, word0);
        steps.extend([
            Step::Command(cfgi_cd(binding.stream, binding.substream)),
            Step::Sync,
            Step::Command(nh_all(vmid)),
            Step::Sync,
        ]);
        self.run(Operation::ChangeCd, steps)
    }

    /// Makes a context invalid and forgets what came through it. `has_atc`: the device's ATC too.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unbind(
        &mut self,
        binding: &Binding,
        vmid: u16,
        atc: Atc,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let (stream, substream) = (binding.stream, binding.substream);
        let mut steps = visible(binding.at, 0);
        steps.extend([
            Step::Command(cfgi_cd(stream, substream)),
            Step::Sync,
            Step::Command(nh_all(vmid)),
            Step::Sync,
        ]);
        if atc == Atc::Used {
            let inv = words::atc_inv_all(stream, Some(substream));
            steps.extend([Step::Command(inv), Step::Sync]);
        }
        steps.extend(give_back(frees));
        self.run(Operation::RetractCd, steps)?;
        self.bindings.retain(|known| known != binding);
        Ok(())
    }

    /// Releases a space: all its contexts become quiet, and one train of commands for all of them.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn release(
        &mut self,
        space: &Space,
        atc: Atc,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let of_space = |binding: &&Binding| binding.asid == space.asid;
        let bindings: Vec<Binding> = self.bindings.iter().filter(of_space).copied().collect();
        let (vmid, asid) = (space.vmid, space.asid);
        let mut steps = vec![Step::Claim(Claim::ReleaseBegins { vmid, asid })];
        for binding in &bindings {
            let word0 = self.machine.load(binding.at).expect("in memory");
            steps.push(Step::Store(binding.at, words::quiet(word0)));
            steps.push(Step::Clean(binding.at, 8));
        }
        steps.push(Step::Barrier);
        let cfgi = |binding: &Binding| Step::Command(cfgi_cd(binding.stream, binding.substream));
        steps.extend(bindings.iter().map(cfgi));
        steps.extend([Step::Sync, Step::Command(nh_all(vmid)), Step::Sync]);
        if atc == Atc::Used {
            let inv = |binding: &Binding| {
                Step::Command(words::atc_inv_all(binding.stream, Some(binding.substream)))
            };
            steps.extend(bindings.iter().map(inv));
            steps.push(Step::Sync);
        }
        steps.push(Step::Claim(Claim::ReleaseEnds { vmid, asid }));
        steps.extend(give_back(frees));
        self.run(Operation::Release, steps)
    }

    // Translation tables.

    /// A stage 2 without pages.
    pub(crate) fn guest(&mut self, vmid: u16) -> Guest {
        let (root, level2, level3) = self.tables(BASE >> 30);
        Guest {
            vmid,
            root,
            level2,
            level3,
        }
    }

    /// A stage 1 without pages. With a guest its tables are mapped in that one's stage 2; without
    /// one they are for streams of stage 1 alone.
    pub(crate) fn space(&mut self, vmid: u16, asid: u16, guest: Option<&Guest>) -> Space {
        let (root, level2, level3) = self.tables(0);
        if let Some(guest) = guest {
            for frame in [root, level2, level3] {
                self.map_same(guest, frame);
            }
        }
        Space {
            vmid,
            asid,
            root,
            level2,
            level3,
        }
    }

    /// Three levels of tables whose level-3 table stands at `slot` of the root.
    fn tables(&mut self, slot: u64) -> (u64, u64, u64) {
        let [root, level2, level3] = [(); 3].map(|()| self.frames(12));
        let mut steps = visible(level2, table(level3));
        steps.extend(visible(root + 8 * slot, table(level2)));
        self.run(Operation::Map, steps)
            .expect("no step of a mapping waits");
        (root, level2, level3)
    }

    /// Maps a frame at its own address in stage 2.
    pub(crate) fn map_same(&mut self, guest: &Guest, frame: u64) {
        self.map_stage2(guest, frame, frame);
    }

    /// Maps a page in stage 2.
    pub(crate) fn map_stage2(&mut self, guest: &Guest, ipa: u64, pa: u64) {
        let steps = visible(stage2_slot(guest, ipa), s2_page(pa));
        self.run(Operation::Map, steps)
            .expect("no step of a mapping waits");
    }

    /// Maps a page in stage 1.
    pub(crate) fn map(&mut self, space: &Space, va: u64, descriptor: u64) {
        let steps = visible(stage1_slot(space, va), descriptor);
        self.run(Operation::Map, steps)
            .expect("no step of a mapping waits");
    }

    /// Unmaps pages from the stage 1 of a space that lives on.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unmap(
        &mut self,
        space: &Space,
        va: u64,
        pages: u64,
        atc: Atc,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let all = (0..pages).map(|page| va + 0x1000 * page);
        let mut steps = Vec::new();
        for va in all.clone() {
            steps.extend(visible(stage1_slot(space, va), 0));
        }
        let tlbi = |va| Step::Command(words::nh_va_leaf(space.vmid, space.asid, va));
        steps.extend(all.map(tlbi));
        steps.push(Step::Sync);
        if atc == Atc::Used {
            let last = va + 0x1000 * (pages - 1);
            for binding in self.bindings.iter().filter(|of| of.asid == space.asid) {
                let inv = words::atc_inv(binding.stream, Some(binding.substream), va, last);
                steps.push(Step::Command(inv));
            }
            steps.push(Step::Sync);
        }
        steps.extend(give_back(frees));
        self.run(Operation::Unmap, steps)
    }

    /// Unlinks the level-3 table of a space and gives it back.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn free_table(&mut self, space: &Space) -> Result<(), Trouble> {
        let mut steps = visible(space.level2, 0);
        let tlbi = |page: u64| Step::Command(words::nh_va(space.vmid, space.asid, page << 12));
        steps.extend((0..8).map(tlbi));
        steps.push(Step::Sync);
        steps.extend(give_back(&[(space.level3, 0x1000)]));
        self.run(Operation::FreeTable, steps)
    }

    /// Unmaps pages from stage 2 and gives them back. Where streams are nested, what was
    /// combined with stage 1 is forgotten too.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue; nothing was given back.
    pub(crate) fn unmap_stage2(
        &mut self,
        guest: &Guest,
        ipa: u64,
        pages: u64,
        frees: Frames<'_>,
    ) -> Result<(), Trouble> {
        let all = (0..pages).map(|page| ipa + 0x1000 * page);
        let mut steps = Vec::new();
        for ipa in all.clone() {
            steps.extend(visible(stage2_slot(guest, ipa), 0));
        }
        let has_ranges = self.read(offset::IDR3) >> 10 & 1 != 0;
        if has_ranges {
            steps.push(Step::Command(words::s2_ipa_range(guest.vmid, ipa, pages)));
        } else {
            steps.extend(all.map(|ipa| Step::Command(bench::s2_ipa(guest.vmid, ipa))));
        }
        steps.extend([Step::Sync, Step::Command(nh_all(guest.vmid)), Step::Sync]);
        steps.extend(give_back(frees));
        self.run(Operation::Stage2Unmap, steps)
    }

    /// Exchanges the page at `va` for another: break, forget, make (§3.21.1).
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn exchange(
        &mut self,
        space: &Space,
        va: u64,
        descriptor: u64,
    ) -> Result<(), Trouble> {
        let slot = stage1_slot(space, va);
        let mut steps = visible(slot, 0);
        steps.extend([
            Step::Command(words::nh_va_leaf(space.vmid, space.asid, va)),
            Step::Sync,
        ]);
        steps.extend(visible(slot, descriptor));
        self.run(Operation::Exchange, steps)
    }

    // Tags, ATS, records.

    /// Gives a tag out again, once nothing of its last owner is left.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn take_tag(&mut self, flush: [u64; 2], claim: Claim) -> Result<(), Trouble> {
        let steps = vec![Step::Command(flush), Step::Sync, Step::Claim(claim)];
        self.run(Operation::TakeTag, steps)
    }

    /// Lets a stream ask for translations, then its device.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn enable_ats(&mut self, stream: u32, eats: u64) -> Result<(), Trouble> {
        let at = self.ste_at(stream) + 8;
        let word1 = self.machine.load(at).expect("in memory");
        let mut steps = visible(at, word1 | eats);
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::ChangeAts, steps)?;
        self.set_control(stream, frame::control::ENABLE | frame::control::ATS);
        Ok(())
    }

    /// Stops a device from asking, empties its ATC, then refuses its stream.
    ///
    /// # Errors
    ///
    /// [`Trouble`] of the queue.
    pub(crate) fn disable_ats(&mut self, stream: u32) -> Result<(), Trouble> {
        self.set_control(stream, frame::control::ENABLE);
        let at = self.ste_at(stream) + 8;
        let word1 = self.machine.load(at).expect("in memory");
        let mut steps = Vec::new();
        for binding in self.bindings.iter().filter(|of| of.stream == stream) {
            let inv = words::atc_inv_all(stream, Some(binding.substream));
            steps.push(Step::Command(inv));
        }
        steps.extend([Step::Command(words::atc_inv_all(stream, None)), Step::Sync]);
        steps.extend(visible(at, word1 & !(3 << 28)));
        steps.extend([Step::Command(cfgi_ste(stream)), Step::Sync]);
        self.run(Operation::ChangeAts, steps)
    }

    fn set_control(&self, stream: u32, control: u32) {
        let of_stream = |device: &&Arc<Device>| device.read32(frame::STREAM) == stream;
        for device in self.devices.iter().filter(of_stream) {
            device.write32(frame::CONTROL, control);
        }
    }

    /// Takes the oldest event record, if there is one.
    pub(crate) fn take_event(&mut self) -> Option<[u64; 4]> {
        let producer = self.read(offset::EVENTQ_PROD);
        if producer & ((2 << EVENTQ_LOG2) - 1) == self.events_read {
            return None;
        }
        let at = EVENTQ + u64::from(self.events_read & ((1 << EVENTQ_LOG2) - 1)) * 32;
        self.events_read = (self.events_read + 1) & ((2 << EVENTQ_LOG2) - 1);
        let consumer = producer & 1 << 31 | self.events_read;
        let steps = vec![
            Step::Observe,
            Step::ReadEvent(at),
            Step::Release,
            Step::Write(offset::EVENTQ_CONS, consumer),
        ];
        self.run(Operation::TakeEvent, steps)
            .expect("no step of this waits");
        Some(self.event)
    }

    /// Acknowledges the active errors.
    pub(crate) fn acknowledge(&mut self) {
        let steps = vec![Step::Write(offset::GERRORN, self.read(offset::GERROR))];
        self.run(Operation::Acknowledge, steps)
            .expect("no step of this waits");
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
