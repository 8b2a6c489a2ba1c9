//! The command queue: trains of commands from many CPUs, and what became of each (§3.5, §4).
//!
//! A *train* is groups of commands, each group followed by a CMD_SYNC. Commands within a group have
//! no order among each other (§4.7.3); the CMD_SYNC between two groups gives it. A [`Ticket`] is
//! what one waits with.
//!
//! # Positions
//!
//! Commands are counted from the moment the queue was enabled, in 64 bits, so two positions compare
//! as numbers; wrap bits exist at the register's edge alone. `consumed <= produced <= consumed +
//! entries` always.
//!
//! # Epochs
//!
//! A queue that died can be set up anew ([`CommandQueue::restart`]). Positions go on counting then,
//! from a multiple of what an index can say, so that none comes twice; and every answer is held
//! against the epoch of the question, so that nobody who asked before is answered by what came after.
//!
//! # Locks
//!
//! `tail` is held while commands are written, and while a command error is handled; never across a
//! wait. Inside it, `Io`'s acknowledging lock may be taken.

use core::iter::Peekable;

use tock_registers::LocalRegisterCopy;

use super::error::{CommandError, Death};
use super::failures::Failures;
use super::io::Io;
use super::queue_state::{Epoch, QueueState};
use crate::addr::Pa;
use crate::hw::atomic::{AtomicU64, Ordering};
use crate::hw::{Barrier, Frames, Lock, Platform, TimedOut};
use crate::spec::command::Command;
use crate::spec::registers::{CMDQ_CONS, GERROR, QUEUE_INDEX_MASK, offset};

/// Bytes of a command, as a power of two (§4.1).
pub(super) const LOG2_COMMAND_BYTES: u8 = 4;
const WORDS_PER_COMMAND: usize = 2;

/// How many polls of CMDQ_CONS go by between two looks at GERROR for a service failure.
const POLLS_PER_LOOK: u32 = 64;

/// Commands that were submitted and not yet waited for.
///
/// Bound to the queue that gave it. Dropping it gives up the answer, nothing else: the commands
/// take effect all the same, at a time that is then unknown. It is waited for once:
///
/// ```compile_fail,E0382
/// # use portcullis::{hw::Platform, smmu::{Smmu, Ticket}};
/// fn wait<P: Platform>(smmu: &Smmu<'_, P>, ticket: Ticket, other: Ticket) {
///     let _ = smmu.wait(ticket);
///     let _ = smmu.wait(ticket);
/// }
/// ```
///
/// ```
/// # use portcullis::{hw::Platform, smmu::{Smmu, Ticket}};
/// fn wait<P: Platform>(smmu: &Smmu<'_, P>, ticket: Ticket, other: Ticket) {
///     let _ = smmu.wait(ticket);
///     let _ = smmu.wait(other);
/// }
/// ```
#[must_use = "nothing is confirmed until the ticket was waited for"]
#[derive(Debug)]
pub struct Ticket {
    /// Where the queue is that gave it: no two that are in use are at one place.
    queue: Pa,
    epoch: Epoch,
    start: u64,
    end: u64,
}

impl Ticket {
    /// The position of its first command.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }
}

/// A train that was not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Unconfirmed {
    pub(super) error: CommandError,
    /// The commands below this position have taken effect, if the CMD_SYNC behind them is too.
    pub(super) below: u64,
}

struct Tail {
    produced: u64,
    /// A train went in in part: the rest of it comes next, and nobody else's.
    is_taken: bool,
    failures: Failures,
}

/// A train of which some is in the queue.
#[derive(Clone, Copy)]
struct Begun {
    epoch: Epoch,
    start: u64,
}

/// How far a train got.
enum Progress {
    /// No command of it went in.
    None,
    /// Some did; the rest has the queue to itself until it is in.
    Begun(Begun),
    /// All of it is in.
    Done(Ticket),
}

/// The queue's memory and where it stands.
pub(super) struct CommandQueue {
    frames: Frames,
    log2_entries: u8,
    tail: Lock<Tail>,
    /// As `Tail::produced`, for those that do not hold the lock; never ahead of it.
    produced: AtomicU64,
    /// How far the SMMU was seen to have got; may lag, never leads.
    consumed: AtomicU64,
    state: QueueState,
}

impl CommandQueue {
    /// An empty queue in `frames`. CMDQ_PROD and CMDQ_CONS are to be 0 before it is enabled.
    pub(super) fn new(frames: Frames, log2_entries: u8) -> Self {
        Self {
            frames,
            log2_entries,
            tail: Lock::new(Tail {
                produced: 0,
                is_taken: false,
                failures: Failures::new(),
            }),
            produced: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            state: QueueState::new(),
        }
    }

    pub(super) fn into_frames(self) -> Frames {
        self.frames
    }

    pub(super) const fn frames(&self) -> &Frames {
        &self.frames
    }

    const fn entries(&self) -> u64 {
        1 << self.log2_entries
    }

    /// The register's form of a position: index and wrap bit.
    const fn index(&self, position: u64) -> u32 {
        (position & (2 * self.entries() - 1)) as u32
    }

    /// Puts the commands of `train`, which ends with a CMD_SYNC, into the queue and tells the SMMU.
    ///
    /// Waits only for room, at most `timeout_us` since any of it last went in, however often other
    /// CPUs take the room that there was. A train for which there is not room at once follows
    /// in pieces; nobody else's commands come between them, so that a position belongs to one train
    /// and a failure to its issuer.
    pub(super) fn submit<P: Platform>(
        &self,
        io: &Io<'_, P>,
        train: impl Iterator<Item = Command>,
        timeout_us: u64,
    ) -> Result<Ticket, CommandError> {
        let ticket = self.put_in(io, train, timeout_us);
        if ticket.is_err() {
            // What the commands were to speak of is stored, and stays so: commands of before must not
            // meet it half seen (§3.21.3).
            io.barrier(Barrier::Publish);
        }
        ticket
    }

    fn put_in<P: Platform>(
        &self,
        io: &Io<'_, P>,
        train: impl Iterator<Item = Command>,
        timeout_us: u64,
    ) -> Result<Ticket, CommandError> {
        let mut commands = train.peekable();
        let mut begun = None;
        let mut progress_us = io.platform().now_us();
        loop {
            match self.append(io, begun, &mut commands)? {
                Progress::Done(ticket) => return Ok(ticket),
                Progress::Begun(so_far) => {
                    begun = Some(so_far);
                    progress_us = io.platform().now_us();
                }
                Progress::None => {}
            }
            let waited_us = io.platform().now_us().saturating_sub(progress_us);
            if waited_us >= timeout_us {
                if let Some(Begun { epoch, .. }) = begun {
                    let mut tail = self.tail.lock(io.platform());
                    // In another epoch it is somebody else's.
                    if self.state.look().0 == epoch {
                        tail.is_taken = false;
                    }
                }
                return Err(CommandError::NoRoom { waited_us });
            }
            self.handle_error(io);
            io.platform().relax();
        }
    }

    /// Writes as many of `commands` as there is room for; `begun` says where those before them went.
    fn append<P: Platform>(
        &self,
        io: &Io<'_, P>,
        begun: Option<Begun>,
        commands: &mut Peekable<impl Iterator<Item = Command>>,
    ) -> Result<Progress, CommandError> {
        let mut tail = self.tail.lock(io.platform());
        // Under the lock: whoever sets the queue up anew takes it once after saying so.
        let epoch = self.alive()?;
        if begun.is_some_and(|begun| begun.epoch != epoch) {
            // What of it went in is gone.
            return Err(CommandError::Restarted);
        }
        if tail.is_taken && begun.is_none() {
            return Ok(Progress::None);
        }
        // Slots are free by what CMDQ_CONS said. The stores below depend on that branch, and no
        // store is made before the branches that lead to it are decided (DDI 0487 B2.3), so the
        // SMMU has read what they overwrite.
        let room = self.room(io).map_err(CommandError::Dead)?;
        let first = tail.produced;
        for command in commands.by_ref().take(room as usize) {
            self.write(io, tail.produced, command);
            tail.produced += 1;
        }
        if tail.produced == first {
            return Ok(Progress::None);
        }
        // Before the SMMU is told, so that whoever sees it consumed finds it here. Pairs with the
        // look behind a barrier in `consumed`.
        self.produced.store(tail.produced, Ordering::Release);
        // The entries, and every structure that they speak of, before the index that makes them
        // visible (§3.5.1). Pairs with the SMMU's fetch after it saw CMDQ_PROD.
        io.barrier(Barrier::Publish);
        io.write32(offset::CMDQ_PROD, self.index(tail.produced));
        let start = begun.map_or(first, |begun| begun.start);
        tail.is_taken = commands.peek().is_some();
        if tail.is_taken {
            return Ok(Progress::Begun(Begun { epoch, start }));
        }
        Ok(Progress::Done(Ticket {
            queue: self.frames.base(),
            epoch,
            start,
            end: tail.produced,
        }))
    }

    fn write<P: Platform>(&self, io: &Io<'_, P>, position: u64, command: Command) {
        let slot = (position & (self.entries() - 1)) as usize * WORDS_PER_COMMAND;
        let words = self.frames.words(io.platform());
        for (word, value) in words[slot..].iter().zip(command.words()) {
            io.store(word, value);
        }
    }

    fn read<P: Platform>(&self, io: &Io<'_, P>, position: u64) -> [u64; 2] {
        let slot = (position & (self.entries() - 1)) as usize * WORDS_PER_COMMAND;
        let words = self.frames.words(io.platform());
        [io.load(&words[slot]), io.load(&words[slot + 1])]
    }

    /// How many commands can be written now.
    fn room<P: Platform>(&self, io: &Io<'_, P>) -> Result<u64, Death> {
        let consumed = self.consumed(io)?;
        let used = self
            .produced
            .load(Ordering::Acquire)
            .saturating_sub(consumed);
        Ok(self.entries().saturating_sub(used))
    }

    /// Reads how far the SMMU has got.
    fn consumed<P: Platform>(&self, io: &Io<'_, P>) -> Result<u64, Death> {
        let (epoch, death) = self.state.look();
        if let Some(death) = death {
            return Err(death);
        }
        // In this order: the register is then at or past `before`, so the difference of the two
        // indices, wrap bits and all, is how far it has moved.
        let before = self.consumed.load(Ordering::Acquire);
        let cons = io.read32(offset::CMDQ_CONS);
        let moved = cons.wrapping_sub(self.index(before)) & (2 * self.entries() - 1) as u32;
        let now = before + u64::from(moved);
        if now > self.produced.load(Ordering::Acquire) {
            // What another CPU submitted meanwhile may be consumed already, and a load from memory
            // may be older than the register's. What was stored before the SMMU was told of it is
            // seen after this.
            io.barrier(Barrier::Observe);
            if now > self.produced.load(Ordering::Acquire) {
                return Err(self.state.die(epoch, Death::IndexCorrupt { cons }));
            }
        }
        // `before` may be of a queue that was set up anew, and `cons` from before that: together
        // they are nothing. Whoever loaded such a `before` sees the epoch that it is of.
        match self.state.look() {
            (found, None) if found == epoch => {}
            (_, death) => return Err(death.unwrap_or(Death::Recovering)),
        }
        // Of the same epoch, or below all positions of a later one.
        self.consumed.fetch_max(now, Ordering::AcqRel);
        Ok(now)
    }

    /// Waits until the train of `ticket` has taken effect, at most `timeout_us`.
    pub(super) fn wait<P: Platform>(
        &self,
        io: &Io<'_, P>,
        ticket: &Ticket,
        timeout_us: u64,
    ) -> Result<(), Unconfirmed> {
        let Ticket {
            queue,
            epoch,
            start,
            end,
        } = *ticket;
        let nothing = |error| Unconfirmed {
            error,
            below: start,
        };
        if queue != self.frames.base() {
            return Err(nothing(CommandError::ForeignTicket));
        }
        let mut polls = 0_u32;
        let arrived = io.wait(timeout_us, || {
            match self.consumed(io) {
                Ok(consumed) if consumed >= end => return Some(Ok(())),
                Ok(_) if self.state.look().0 != epoch => return Some(Ok(())),
                Ok(_) => {}
                Err(death) => return Some(Err(death)),
            }
            self.handle_error(io);
            polls += 1;
            if polls.is_multiple_of(POLLS_PER_LOOK) && io.has_failed_for_good() {
                return Some(Err(self.state.die(epoch, Death::ServiceFailure)));
            }
            None
        });
        let error = match arrived {
            Ok(Ok(())) => {
                // What devices wrote before the CMD_SYNC completed is what is loaded from here on
                // (§4.7.3), and so is the epoch below. Pairs with the SMMU's write of CMDQ_CONS.
                // Stores from here on need nothing: they depend on the branch that saw it.
                io.barrier(Barrier::Observe);
                None
            }
            Ok(Err(death)) => Some(CommandError::Dead(death)),
            Err(TimedOut { .. }) if io.has_failed_for_good() => {
                let death = self.state.die(epoch, Death::ServiceFailure);
                Some(CommandError::Dead(death))
            }
            Err(TimedOut { waited_us }) => Some(CommandError::SyncTimeout { waited_us }),
        };
        let mut tail = self.tail.lock(io.platform());
        match self.state.look() {
            (now, _) if now == epoch => {}
            // An index of the new queue may look like one of the old.
            (_, None) => return Err(nothing(CommandError::Restarted)),
            (_, Some(death)) => return Err(nothing(CommandError::Dead(death))),
        }
        let told = tail.failures.take(start, end);
        let Some(error) = error else { return told };
        // What failed before is a failure all the same.
        let consumed = self.consumed.load(Ordering::Acquire).max(start);
        let below = told.map_or_else(|told| told.below.min(consumed), |()| consumed);
        Err(Unconfirmed { error, below })
    }

    /// In which epoch it lives.
    fn alive(&self) -> Result<Epoch, CommandError> {
        match self.state.look() {
            (epoch, None) => Ok(epoch),
            (_, Some(death)) => Err(CommandError::Dead(death)),
        }
    }

    /// Handles a command error, if one is active (§7.1): notes it for its issuer, and lets the SMMU
    /// go on where it can.
    pub(super) fn handle_error<P: Platform>(&self, io: &Io<'_, P>) {
        // ERR is written before GERROR says so, and keeps its value after it was handled: a hint
        // that saves a register access, not a proof.
        let cons: LocalRegisterCopy<u32, CMDQ_CONS::Register> =
            LocalRegisterCopy::new(io.read32(offset::CMDQ_CONS));
        if cons.matches_all(CMDQ_CONS::ERR::None) {
            return;
        }
        let mut tail = self.tail.lock(io.platform());
        let (epoch, death) = self.state.look();
        if death.is_some() || io.active_errors() & GERROR::CMDQ_ERR::SET.value == 0 {
            return;
        }
        // Consumption has stopped at the command in question; nobody writes meanwhile.
        let Ok(position) = self.consumed(io) else {
            return;
        };
        let cons: LocalRegisterCopy<u32, CMDQ_CONS::Register> =
            LocalRegisterCopy::new(io.read32(offset::CMDQ_CONS));
        match cons.read_as_enum(CMDQ_CONS::ERR) {
            Some(CMDQ_CONS::ERR::Value::Ill) => {
                let words = self.read(io, position);
                tail.failures
                    .note(position, CommandError::Illegal { words });
                // The SMMU reads this slot again once the error is acknowledged.
                self.write(io, position, Command::sync());
                io.barrier(Barrier::Publish);
            }
            Some(CMDQ_CONS::ERR::Value::AtcInvSync) => {
                // The CMD_SYNC there has not completed and is executed again.
                tail.failures.note(position, CommandError::AtcTimeout);
            }
            Some(CMDQ_CONS::ERR::Value::Abt) => {
                self.state.die(epoch, Death::FetchAborted);
                return;
            }
            Some(CMDQ_CONS::ERR::Value::None) | None => {
                let code = cons.read(CMDQ_CONS::ERR) as u8;
                self.state.die(epoch, Death::UnknownError { code });
                return;
            }
        }
        io.acknowledge(GERROR::CMDQ_ERR::SET.value);
    }

    /// Ends the queue, if it lives: every waiter fails at its next look.
    pub(super) fn die(&self, death: Death) -> Death {
        let (epoch, _) = self.state.look();
        self.state.die(epoch, death)
    }

    /// Ends the queue, whatever it is, and whatever was to become of it. Takes no lock.
    pub(super) fn close(&self) {
        self.state.replace(Death::GateClosed);
    }

    pub(super) fn death(&self) -> Option<Death> {
        self.state.look().1
    }

    /// Begins to set the queue up anew: from here on everybody is told that it is being done.
    ///
    /// When it returns nobody writes commands or registers of the queue any more, until
    /// [`restart`](Self::restart).
    pub(super) fn suspend<P: Platform>(&self, io: &Io<'_, P>) -> Epoch {
        let epoch = self.state.replace(Death::Recovering);
        // Whoever holds it may not have looked since; whoever takes it after this has.
        drop(self.tail.lock(io.platform()));
        epoch
    }

    /// Makes the queue empty: in its books, and in the registers, which the SMMU does not look at
    /// (CMDQEN is off, confirmed, as §6.3.26 asks).
    pub(super) fn clear<P: Platform>(&self, io: &Io<'_, P>) {
        let mut tail = self.tail.lock(io.platform());
        // The next position of which the register's form is 0.
        let round = 2 * self.entries();
        tail.produced = tail.produced.next_multiple_of(round);
        tail.is_taken = false;
        tail.failures = Failures::new();
        self.produced.store(tail.produced, Ordering::SeqCst);
        self.consumed.store(tail.produced, Ordering::SeqCst);
        io.write32(offset::CMDQ_PROD, 0);
        io.write32(offset::CMDQ_CONS, 0);
    }

    /// Lets everybody use the queue again, which was suspended in `epoch`, was cleared, and is on.
    ///
    /// # Errors
    ///
    /// Why it is dead: somebody closed it meanwhile.
    pub(super) fn restart(&self, epoch: Epoch) -> Result<(), Death> {
        self.state.revive(epoch)
    }
}

/// The bits of a queue register that are index and wrap.
pub(super) const fn index_bits(register: u32) -> u32 {
    register & QUEUE_INDEX_MASK
}

/// All interleavings, and all values that loads may return.
#[cfg(all(test, loom))]
#[path = "command_queue/loom_tests.rs"]
mod loom_tests;
