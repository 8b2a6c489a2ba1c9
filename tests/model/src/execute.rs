//! The command queue: consumption, what is in progress, SYNC (§3.5, §4.7, §7.1).

use crate::bits::bit;
use crate::command::{self, Command, Signal};
use crate::core::Core;
use crate::fault::Fetch;
use crate::queue::Queue;
use crate::registers::{cr0, cr2, gerror};
use crate::violation::Rule;

/// The state of the command queue.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    /// Consumed commands that have not been performed yet, oldest first.
    pub(crate) in_progress: Vec<Command>,
    /// When the SYNC at CONS completes, once what is before it is done.
    sync_due_us: Option<u64>,
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
        self.registers.cmdq_prod = value & 0xf_ffff;
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
            if !self.consume_one() {
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
        if self.memory.is_unpublished(at) || self.memory.is_unpublished(at + 8) {
            self.violate(Rule::CommandNotPublished, format!("the command at {at:#x}"));
        }
        let vhe = bit(u64::from(self.registers.cr2 & cr2::E2H), 0);
        let Ok(decoded) = command::decode(words, &self.id, vhe) else {
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

    fn stop(&mut self, error: CommandError) -> bool {
        self.registers.cmdq_cons = self.registers.cmdq_cons & 0xf_ffff | (error as u32) << 24;
        self.raise(gerror::CMDQ_ERR);
        false
    }

    /// Takes a command other than SYNC.
    fn begin(&mut self, command: Command) {
        if self.choices.acts_at_once() {
            self.perform(command);
        } else {
            self.commands.in_progress.push(command);
        }
    }

    /// Performs everything that was consumed before, in an order of the model's choice.
    fn perform_all(&mut self) {
        let commands = std::mem::take(&mut self.commands.in_progress);
        for at in self.choices.order(commands.len()) {
            self.perform(commands[at]);
        }
    }

    fn perform(&mut self, _command: Command) {}

    /// Works on the SYNC at CONS; `true` once it is complete.
    fn sync(&mut self, _signal: Signal) -> bool {
        if self.faults.sync_never {
            return false;
        }
        let now = self.now_us();
        let due = *self
            .commands
            .sync_due_us
            .get_or_insert(now + self.faults.sync_late_us);
        if now < due {
            return false;
        }
        self.commands.sync_due_us = None;
        self.perform_all();
        true
    }
}
