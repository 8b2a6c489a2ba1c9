//! The command queue: consumption, what is in progress, SYNC (§3.5, §4.7, §7.1).

use crate::ats::{AtcInvalidation, Message, Outstanding};
use crate::command::{Command, Signal};
use crate::core::Core;
use crate::decode;
use crate::fault::Fetch;
use crate::interrupt::{Interrupt, Line};
use crate::pri::PageResponse;
use crate::queue::Queue;
use crate::registers::{cr0, cr2, gerror, offset};
use crate::stall::Answer;
use crate::violation::Rule;

/// The state of the command queue.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// Consumed commands that have not been performed yet, oldest first, with the step of that.
    pub(crate) in_progress: Vec<(Command, u64)>,
    /// Performed commands that no SYNC has completed after.
    pub(crate) unsynced: Vec<(Command, u64)>,
    /// When the SYNC at CONS completes, once what is before it is done.
    sync_due_us: Option<u64>,
    /// When the SYNC at CONS was first looked at.
    sync_began_us: Option<u64>,
    /// Invalidations that devices have not answered.
    pub(crate) outstanding: Vec<Outstanding>,
    pub(crate) next_invalidation: u64,
    /// How many SYNCs have completed.
    pub(crate) syncs: u64,
}

/// CMDQ_CONS.ERR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CommandError {
    Illegal = 1,
    Abort = 2,
    AtcInvSync = 3,
}

impl Core {
    pub(crate) fn command_queue(&self) -> Queue {
        Queue::new(self.registers.cmdq_base, self.id.cmdq_log2, 4)
    }

    pub(crate) fn write_cmdq_prod(&mut self, value: u32) {
        let queue = self.command_queue();
        let old = self.registers.cmdq_prod;
        let cons = self.registers.cmdq_cons;
        let value = self.reserved(offset::CMDQ_PROD, value, 0xf_ffff);
        self.registers.cmdq_prod = value;
        if !self.is_on(cr0::CMDQEN) {
            return;
        }
        let stopped = self.is_active(gerror::CMDQ_ERR);
        let (was, is) = (queue.used(old, cons), queue.used(value, cons));
        if !queue.is_consistent(value, cons) {
            self.violate(
                Rule::QueueOverrun,
                format!("CMDQ_PROD {value:#x} with CONS {cons:#x}"),
            );
        } else if is < was && !stopped {
            self.violate(
                Rule::ProducerMovedBack,
                format!("CMDQ_PROD {old:#x} to {value:#x}"),
            );
        }
    }

    /// Consumes what can be consumed.
    pub(crate) fn run_commands(&mut self) {
        while self.can_consume() {
            if self.choices.pauses() || !self.consume_one() {
                break;
            }
        }
    }

    fn can_consume(&self) -> bool {
        let queue = self.command_queue();
        let (prod, cons) = (self.registers.cmdq_prod, self.registers.cmdq_cons);
        self.is_on(cr0::CMDQEN)
            && !self.is_active(gerror::CMDQ_ERR)
            && !self.is_active(gerror::SFM_ERR)
            && queue.used(prod, cons) != 0
            && queue.is_consistent(prod, cons)
    }

    /// Consumes the command at CONS; `false` if it has to wait or the queue has stopped.
    fn consume_one(&mut self) -> bool {
        let queue = self.command_queue();
        let cons = queue.position(self.registers.cmdq_cons);
        let at = queue.address(cons);
        let words = match (
            self.fetch(at, Fetch::Command),
            self.fetch(at + 8, Fetch::Command),
        ) {
            (Ok(low), Ok(high)) => [low, high],
            _ => return self.stop(CommandError::Abort),
        };
        if let Some(error) = self.injected() {
            return self.stop(error);
        }
        if self.memory.is_unpublished(at) || self.memory.is_unpublished(at + 8) {
            self.violate(Rule::CommandNotPublished, format!("the command at {at:#x}"));
        }
        let vhe = self.registers.cr2 & cr2::E2H != 0;
        let Ok(decoded) = decode::decode(words, &self.id, vhe) else {
            self.violate(
                Rule::CommandIllegal,
                format!("{:#x} {:#x} at {at:#x}", words[0], words[1]),
            );
            return self.stop(CommandError::Illegal);
        };
        if decoded.has_reserved_ones {
            self.violate(
                Rule::CommandReservedBits,
                format!("{:#x} {:#x} at {at:#x}", words[0], words[1]),
            );
        }
        if decoded.is_misaligned {
            self.violate(
                Rule::RangeMisaligned,
                format!("{:#x} {:#x} at {at:#x}", words[0], words[1]),
            );
        }
        if let Command::Sync(signal) = decoded.command {
            if !self.sync(signal) {
                return false;
            }
        } else {
            self.begin(decoded.command);
        }
        self.registers.cmdq_cons = self.registers.cmdq_cons & !0xf_ffff | queue.next(cons);
        true
    }

    /// Since when the driver waits for the oldest answer that is pending.
    pub(crate) fn pending_since(&self) -> Option<u64> {
        self.commands
            .sync_began_us
            .into_iter()
            .chain(self.updates.began_us())
            .min()
    }

    fn stop(&mut self, error: CommandError) -> bool {
        self.registers.cmdq_cons = self.registers.cmdq_cons & 0xf_ffff | (error as u32) << 24;
        self.raise(gerror::CMDQ_ERR);
        false
    }

    /// The error that a test put in for the command at CONS.
    fn injected(&mut self) -> Option<CommandError> {
        let due = |count: &mut Option<u32>| match count {
            Some(0) => count.take().is_some(),
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        if due(&mut self.faults.illegal_after) {
            return Some(CommandError::Illegal);
        }
        due(&mut self.faults.abort_after).then_some(CommandError::Abort)
    }

    /// Takes a command other than SYNC.
    fn begin(&mut self, command: Command) {
        self.check_command(&command);
        match command {
            // Consumption of these means that they are accepted.
            Command::Resume { .. } | Command::StallTerm { .. } => {
                self.perform(command, self.record.step())
            }
            _ if self.choices.acts_at_once() => self.perform(command, self.record.step()),
            _ => self
                .commands
                .in_progress
                .push((command, self.record.step())),
        }
    }

    /// Performs what was consumed before, in an order of the model's choice. `false`: a device
    /// has to be told something first; it may act on that before the rest is performed.
    fn perform_all(&mut self) -> bool {
        while self.outbox.is_empty() {
            let count = self.commands.in_progress.len();
            let Some(at) = self.choices.next_of(count) else {
                return true;
            };
            let (command, step) = self.commands.in_progress.remove(at);
            self.perform(command, step);
            self.look_around();
        }
        false
    }

    /// Performs some of what is in progress early.
    pub(crate) fn perform_some(&mut self) {
        while !self.commands.in_progress.is_empty() && self.choices.one_in(4) {
            let at = self.choices.below(self.commands.in_progress.len() as u64) as usize;
            let (command, step) = self.commands.in_progress.remove(at);
            self.perform(command, step);
            self.look_around();
        }
    }

    fn perform(&mut self, command: Command, step: u64) {
        match command {
            Command::CfgiSte { .. }
            | Command::CfgiRange { .. }
            | Command::CfgiCd { .. }
            | Command::CfgiCdAll { .. }
            | Command::Tlbi(_) => {
                self.invalidate(&command);
                self.commands.unsynced.push((command, step));
            }
            Command::PrefetchConfig { stream, substream } => {
                self.prefetch_config(stream, substream)
            }
            Command::PrefetchAddress {
                stream,
                substream,
                address,
                ..
            } => {
                self.prefetch_address(stream, substream, address);
            }
            Command::AtcInv {
                stream,
                substream,
                is_global,
                address,
                log2_bytes,
            } => {
                self.commands.unsynced.push((command, step));
                self.send_invalidation(AtcInvalidation {
                    id: 0,
                    stream,
                    substream,
                    is_global,
                    address,
                    log2_bytes,
                });
            }
            Command::PriResp {
                stream,
                substream,
                group,
                code,
            } => self.respond(PageResponse {
                stream,
                substream,
                group,
                code,
                is_automatic: false,
            }),
            Command::Resume {
                stream,
                stag,
                retries,
                aborts,
            } => {
                let answer = if retries {
                    Answer::Retry
                } else {
                    Answer::Terminate { aborts }
                };
                self.resume(stream, stag, answer);
            }
            Command::StallTerm { stream } => self.stall_term(stream),
            Command::Sync(_) => {}
        }
    }

    fn respond(&mut self, response: PageResponse) {
        if self.is_on(cr0::SMMUEN) {
            self.outbox.push(Message::Respond(response));
        }
    }

    /// Works on the SYNC at CONS; `true` once it is complete.
    fn sync(&mut self, signal: Signal) -> bool {
        let now = self.now_us();
        self.commands.sync_began_us.get_or_insert(now);
        if self.faults.sync_never && self.faults.sync_skip == 0 {
            return false;
        }
        if self.commands.sync_due_us.is_none() {
            let late = self.choices.sync_us() + self.faults.lateness_us();
            self.commands.sync_due_us = Some(now + late);
        }
        if self.commands.sync_due_us.is_some_and(|due| now < due) {
            return false;
        }
        if !self.perform_all() {
            return false;
        }
        if self.faults.atc_sync_errors > 0 {
            self.faults.atc_sync_errors -= 1;
            self.commands.outstanding.clear();
            return self.stop(CommandError::AtcInvSync);
        }
        if self
            .commands
            .outstanding
            .iter()
            .any(|outstanding| outstanding.due_us <= now)
        {
            self.commands.outstanding.clear();
            return self.stop(CommandError::AtcInvSync);
        }
        if !self.commands.outstanding.is_empty() {
            return false;
        }
        self.commands.sync_due_us = None;
        self.commands.sync_began_us = None;
        self.land_posted();
        self.flush_events();
        self.complete(signal);
        true
    }

    /// Everything before the SYNC is complete.
    fn complete(&mut self, signal: Signal) {
        self.commands.syncs += 1;
        self.faults.sync_skip = self.faults.sync_skip.saturating_sub(1);
        let synced = std::mem::take(&mut self.commands.unsynced);
        self.entries_synced(&synced);
        self.flushes_synced(&synced);
        self.settle_caches(&synced);
        match signal {
            Signal::None => {}
            Signal::Event if self.id.sev => self.interrupts.push(Interrupt::Event),
            Signal::Event => {}
            Signal::Interrupt { address, data } => {
                self.send(Line::CommandSync, address, data, gerror::MSI_CMDQ_ABT_ERR);
            }
        }
    }
}
