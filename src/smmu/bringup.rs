//! Taking an SMMU over from any state, and leaving it closed.

use super::Smmu;
use super::command_queue::{CommandQueue, LOG2_COMMAND_BYTES};
use super::error::{CommandError, HandshakeTimeout, ShutDownError, TakeOverError};
use super::event_queue::{EventQueue, LOG2_EVENT_BYTES};
use super::gate::{REGISTER_TIMEOUT_US, abort_bypass, close_gate};
use super::io::Io;
use super::knocks::Knocks;
use super::nested::NestedVmids;
use super::probe::{Features, Firmware, probe};
use super::recovery::{RecoverError, Recoveries};
use super::stream_table::{LOG2_ARRAY_STREAMS, Shape, StreamTable, plan};
use crate::hw::{Frames, Lock, Platform};
use crate::id::StreamId;
use crate::spec::registers::{CR0, CR1, CR2, QUEUE_BASE, STRTAB_BASE, STRTAB_BASE_CFG, offset};
use crate::spec::ste::Ste;

/// What becomes of a transaction of a stream that nobody published. It aborts either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unpublished {
    /// Silently: entries abort by `Config == 0b000`.
    Silent,
    /// With an event, so that a person who brings a board up sees who knocks: entries are not valid
    /// (C_BAD_STE), and StreamIDs without an entry are recorded (CR2.RECINVSID).
    Recorded,
}

/// What the host chooses for one SMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Entries of the command queue, as a power of two; less if the SMMU has less.
    pub log2_commands: u8,
    /// Entries of the event queue, as a power of two; less if the SMMU has less.
    pub log2_events: u8,
    /// The highest StreamID that any device has; the table ends at the power of two behind it.
    pub last_stream: StreamId,
    /// What becomes of streams that nobody published.
    pub unpublished: Unpublished,
    /// How long a CMD_SYNC may take, in microseconds.
    pub sync_timeout_us: u64,
    /// Whether it must be told of new tables of stage 2, as HiSilicon's HIP09 and later must be
    /// (erratum 162100602): other stage 2s are refused then.
    pub needs_flush_of_new_tables: bool,
}

impl Settings {
    /// 256 commands (4 KiB), 2048 events (64 KiB), a second for a CMD_SYNC, silent aborts, no
    /// erratum.
    pub const fn new(last_stream: StreamId) -> Self {
        Self {
            log2_commands: 8,
            log2_events: 11,
            last_stream,
            unpublished: Unpublished::Silent,
            sync_timeout_us: 1_000_000,
            needs_flush_of_new_tables: false,
        }
    }
}

/// The memory of one SMMU at rest.
struct Memory {
    commands: Frames,
    events: Frames,
    streams: Frames,
}

/// Sizes as powers of two, after what the SMMU can do.
struct Sizes {
    log2_commands: u8,
    log2_events: u8,
    log2_streams: u8,
    shape: Shape,
    log2_stream_bytes: u8,
}

impl Sizes {
    fn new(features: &Features, settings: &Settings) -> Self {
        let needed = (32 - settings.last_stream.as_u32().leading_zeros()) as u8;
        let log2_streams = needed.min(features.stream_bits);
        let (shape, log2_stream_bytes) = plan(log2_streams, features.has_two_level_streams);
        Self {
            log2_commands: settings.log2_commands.min(features.log2_max_commands),
            log2_events: settings.log2_events.min(features.log2_max_events),
            log2_streams,
            shape,
            log2_stream_bytes,
        }
    }
}

const LOG2_PAGE_BYTES: u8 = 12;

/// §6.3.15.
const IRQ_CTRL_GERROR: u32 = 1;
const IRQ_CTRL_EVENTQ: u32 = 1 << 2;

impl Memory {
    /// Takes all of it or nothing.
    fn allocate<P: Platform>(platform: &P, sizes: &Sizes) -> Result<Self, TakeOverError> {
        let allocate = |log2_bytes: u8| {
            let log2_bytes = log2_bytes.max(LOG2_PAGE_BYTES);
            platform
                .allocate(log2_bytes)
                .ok_or(TakeOverError::NoFrames { log2_bytes })
        };
        let commands = allocate(sizes.log2_commands + LOG2_COMMAND_BYTES)?;
        let events = match allocate(sizes.log2_events + LOG2_EVENT_BYTES) {
            Ok(events) => events,
            Err(error) => {
                platform.free(commands);
                return Err(error);
            }
        };
        match allocate(sizes.log2_stream_bytes) {
            Ok(streams) => Ok(Self {
                commands,
                events,
                streams,
            }),
            Err(error) => {
                platform.free(commands);
                platform.free(events);
                Err(error)
            }
        }
    }
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Takes over the SMMU behind `registers`, in whatever state it is, and starts it with a table
    /// in which every stream aborts.
    ///
    /// In the architecture's order (§3.11): the gate closed, every enable off, tables and queues
    /// given, caches emptied and that confirmed, then the gate's work handed to the stream table.
    /// No transaction gets through at any moment of it.
    ///
    /// # Errors
    ///
    /// Every [`TakeOverError`]; the gate is closed after each, and all memory given back unless the
    /// SMMU did not confirm that it stopped reading it.
    pub fn take_over(
        platform: &'p P,
        registers: P::Registers,
        firmware: Firmware,
        settings: Settings,
    ) -> Result<Self, TakeOverError> {
        close_gate(platform, &registers, REGISTER_TIMEOUT_US)?;
        let mut features = probe(&registers, firmware).map_err(TakeOverError::Refused)?;
        features.needs_flush_of_new_tables = settings.needs_flush_of_new_tables;
        let io = Io::new(platform, registers);
        if io.has_failed_for_good() {
            return Err(TakeOverError::ServiceFailure);
        }
        let sizes = Sizes::new(&features, &settings);
        let memory = Memory::allocate(platform, &sizes)?;
        let unused = match settings.unpublished {
            Unpublished::Silent => Ste::abort(),
            Unpublished::Recorded => Ste::invalid(),
        };
        memory.commands.fill(platform, 0);
        memory.events.fill(platform, 0);
        let streams = StreamTable::new(
            platform,
            memory.streams,
            sizes.shape,
            sizes.log2_streams,
            unused,
        );
        let smmu = Self {
            io,
            features,
            settings,
            commands: CommandQueue::new(memory.commands, sizes.log2_commands),
            events: EventQueue::new(memory.events, sizes.log2_events, firmware.queue_indices),
            streams,
            nested: NestedVmids::new(),
            recoveries: Recoveries::new(),
            knocks: Lock::new(Knocks::new()),
        };
        match smmu.start(&sizes, firmware) {
            Ok(()) => Ok(smmu),
            Err(error) => {
                // What did not close stays as it is, and so does the memory it may read.
                let _ = smmu.shut_down();
                Err(error)
            }
        }
    }

    /// §3.11 and §6.3: each register while what guards it is off.
    fn start(&self, sizes: &Sizes, firmware: Firmware) -> Result<(), TakeOverError> {
        self.silence_interrupts()?;
        self.place_tables(sizes);
        self.place_queues(sizes, firmware);
        // Errors of a former owner; CMDQ_ERR would keep the queue from moving.
        self.io.acknowledge(u32::MAX);
        let mut enables = CR0::CMDQEN::SET.value;
        self.enable(enables)?;
        self.empty_caches()?;
        enables |= CR0::EVENTQEN::SET.value;
        self.enable(enables)?;
        // Translated traffic is checked against the stream's entry before any can have one.
        enables |= CR0::ATSCHK::SET.value;
        self.enable(enables)?;
        enables |= CR0::SMMUEN::SET.value;
        Ok(self.enable(enables)?)
    }

    pub(super) fn enable(&self, enables: u32) -> Result<(), HandshakeTimeout> {
        let cr0 = (offset::CR0, offset::CR0ACK);
        self.io.handshake("CR0", cr0, enables, REGISTER_TIMEOUT_US)
    }

    /// No interrupt, and no address left by a former owner that the SMMU could write a message to.
    fn silence_interrupts(&self) -> Result<(), HandshakeTimeout> {
        let control = (offset::IRQ_CTRL, offset::IRQ_CTRLACK);
        self.io
            .handshake("IRQ_CTRL", control, 0, REGISTER_TIMEOUT_US)?;
        if self.features.has_msi {
            self.io.write64(offset::GERROR_IRQ_CFG0, 0);
            self.io.write64(offset::EVENTQ_IRQ_CFG0, 0);
        }
        Ok(())
    }

    /// Has the SMMU pull its wires: when the event queue is empty no more, and when something is wrong
    /// with the SMMU itself (§3.18). No message is sent.
    ///
    /// Nothing counts on it: [`service`](Self::service) finds the same by itself.
    ///
    /// # Errors
    ///
    /// [`HandshakeTimeout`]: it may pull them or not.
    pub fn pull_wires(&self) -> Result<(), HandshakeTimeout> {
        let control = (offset::IRQ_CTRL, offset::IRQ_CTRLACK);
        let wires = IRQ_CTRL_GERROR | IRQ_CTRL_EVENTQ;
        self.io
            .handshake("IRQ_CTRL", control, wires, REGISTER_TIMEOUT_US)
    }

    fn place_tables(&self, sizes: &Sizes) {
        let cr1 = CR1::QUEUE_IC::WriteBack
            + CR1::QUEUE_OC::WriteBack
            + CR1::QUEUE_SH::InnerShareable
            + CR1::TABLE_IC::WriteBack
            + CR1::TABLE_OC::WriteBack
            + CR1::TABLE_SH::InnerShareable;
        self.io.write32(offset::CR1, cr1.value);
        // Broadcast TLB maintenance of the CPUs is never relied upon, so it may be ignored (PTM).
        let cr2 = match self.settings.unpublished {
            Unpublished::Silent => CR2::PTM::SET,
            Unpublished::Recorded => CR2::PTM::SET + CR2::RECINVSID::SET,
        };
        // A device with ATS that still uses a number which drains is heard of by this alone.
        let ats = if self.features.records_ats_errors {
            CR2::REC_CFG_ATS::SET.value
        } else {
            0
        };
        self.io.write32(offset::CR2, cr2.value | ats);
        let base = self.streams.base().as_u64() | STRTAB_BASE::RA::SET.value;
        self.io.write64(offset::STRTAB_BASE, base);
        let size = STRTAB_BASE_CFG::LOG2SIZE.val(u32::from(sizes.log2_streams));
        let config = match sizes.shape {
            Shape::Linear => size + STRTAB_BASE_CFG::FMT::Linear,
            Shape::TwoLevel => {
                size + STRTAB_BASE_CFG::FMT::TwoLevel
                    + STRTAB_BASE_CFG::SPLIT.val(u32::from(LOG2_ARRAY_STREAMS))
            }
        };
        self.io.write32(offset::STRTAB_BASE_CFG, config.value);
    }

    fn place_queues(&self, sizes: &Sizes, firmware: Firmware) {
        let base = |frames: &Frames, log2_entries: u8| {
            frames.base().as_u64()
                | QUEUE_BASE::ALLOCATE::SET.value
                | QUEUE_BASE::LOG2SIZE.val(u64::from(log2_entries)).value
        };
        self.io.write64(
            offset::CMDQ_BASE,
            base(self.commands.frames(), sizes.log2_commands),
        );
        self.io.write32(offset::CMDQ_PROD, 0);
        self.io.write32(offset::CMDQ_CONS, 0);
        self.io.write64(
            offset::EVENTQ_BASE,
            base(self.events.frames(), sizes.log2_events),
        );
        let shift = firmware.queue_indices.shift();
        self.io.write32(offset::EVENTQ_PROD + shift, 0);
        self.io.write32(offset::EVENTQ_CONS + shift, 0);
    }

    /// Closes the gate, empties the SMMU's caches, and gives all memory back.
    ///
    /// Afterwards every transaction aborts, by GBPA.ABORT, and the SMMU neither reads a table or
    /// queue of ours nor remembers one. (What is cached survives SMMUEN, §6.3.9; with SMMUEN off
    /// nothing new is cached, so what is invalidated then stays away.)
    ///
    /// # Errors
    ///
    /// [`ShutDownError`]; the gate was closed as far as it could be, and the memory stays lost.
    pub fn shut_down(self) -> Result<(), ShutDownError> {
        let registers = self.io.registers();
        abort_bypass(self.io.platform(), registers, REGISTER_TIMEOUT_US)?;
        match self.commands.death() {
            None => self.enable(CR0::CMDQEN::SET.value)?,
            Some(death) => self.reset_queue().map_err(|error| match error {
                RecoverError::Handshake(timeout) => ShutDownError::Handshake(timeout),
                _ => ShutDownError::Command(CommandError::Dead(death)),
            })?,
        }
        let emptied = self.empty_caches();
        self.slam()?;
        emptied?;
        let platform = self.io.platform();
        platform.free(self.commands.into_frames());
        platform.free(self.events.into_frames());
        self.streams.free(platform);
        Ok(())
    }

    /// Closes the gate and keeps everything else: for a panic, or the last fence.
    ///
    /// Takes no lock, so a CPU that died anywhere may call it. Every guest behind this SMMU is
    /// stopped. Whoever submits or waits is told so at once ([`Death::GateClosed`](super::Death)).
    /// Afterwards it can be [recovered](Self::recover), or shut down. A recovery that is at its last
    /// step at this moment may open the gate for as long as it takes to see that, and closes it.
    ///
    /// # Errors
    ///
    /// [`HandshakeTimeout`]: see [`close_gate`].
    pub fn slam(&self) -> Result<(), HandshakeTimeout> {
        self.commands.close();
        close_gate(self.io.platform(), self.io.registers(), REGISTER_TIMEOUT_US)
    }
}
