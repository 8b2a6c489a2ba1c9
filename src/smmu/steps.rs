//! A train of up to three groups, and how far it got.
//!
//! Every change that takes something away has the same shape: the SMMU forgets configuration, then
//! translations, then devices forget theirs, with a CMD_SYNC behind each. A walk between the first
//! two would bring translations back (§4.7.3: commands have no order but by a CMD_SYNC), and a
//! request between the last two would be granted again what is going (§4.5.1).

use super::Smmu;
use super::command_queue::{Ticket, Unconfirmed};
use super::error::CommandError;
use crate::hw::Platform;
use crate::spec::command::Command;

/// One of the groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Configuration,
    Translations,
    DeviceCaches,
}

/// A train that is under way, or did not set out, or had nothing to do.
pub(super) struct Steps {
    ticket: Result<Option<Ticket>, CommandError>,
    /// How many commands there are up to the end of the first group, and of the second.
    ends: [u64; 2],
    asks_devices: bool,
}

/// Which group was not confirmed, the first of several, and why. Those before it were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stopped {
    pub(super) at: Step,
    pub(super) error: CommandError,
}

/// The commands of a group and the CMD_SYNC behind them; nothing, if there are none.
fn group(commands: impl Iterator<Item = Command> + Clone) -> impl Iterator<Item = Command> + Clone {
    let sync = commands.clone().next().map(|_| Command::sync());
    commands.chain(sync)
}

impl<P: Platform> Smmu<'_, P> {
    /// Submits the groups as one train, in pieces if the queue is shorter; those that are empty
    /// take no CMD_SYNC. The iterators are asked several times and say the same each time.
    pub(super) fn begin_steps(
        &self,
        configuration: impl Iterator<Item = Command> + Clone,
        translations: impl Iterator<Item = Command> + Clone,
        device_caches: impl Iterator<Item = Command> + Clone,
    ) -> Steps {
        let (first, second) = (group(configuration), group(translations));
        let third = group(device_caches);
        let first_end = first.clone().count() as u64;
        let second_end = first_end + second.clone().count() as u64;
        let asks_devices = third.clone().next().is_some();
        let ticket = if second_end != 0 || asks_devices {
            let train = first.chain(second).chain(third);
            self.commands
                .submit(&self.io, train, self.settings.sync_timeout_us)
                .map(Some)
        } else {
            Ok(None)
        };
        Steps {
            ticket,
            ends: [first_end, second_end],
            asks_devices,
        }
    }

    /// Waits for the last CMD_SYNC of the train.
    pub(super) fn finish_steps(&self, steps: Steps) -> Result<(), Stopped> {
        let ticket = match &steps.ticket {
            Ok(Some(ticket)) => ticket,
            Ok(None) => return Ok(()),
            // A part of it may have gone in, but nobody looks for its CMD_SYNCs.
            &Err(error) => {
                return Err(Stopped {
                    at: steps.holding(0),
                    error,
                });
            }
        };
        let start = ticket.start();
        match self.wait_for(ticket) {
            Ok(()) => Ok(()),
            // A train that stopped half way may have left invalidations behind: they are not ours,
            // and ours are confirmed (§4.7.3: the CMD_SYNC was executed again).
            Err(Unconfirmed {
                error: CommandError::AtcTimeout,
                ..
            }) if !steps.asks_devices => Ok(()),
            Err(Unconfirmed {
                error: error @ CommandError::AtcTimeout,
                ..
            }) => Err(Stopped {
                at: Step::DeviceCaches,
                error,
            }),
            Err(Unconfirmed { error, below }) => Err(Stopped {
                at: steps.holding(below.saturating_sub(start)),
                error,
            }),
        }
    }
}

impl Steps {
    /// The group of the first command that is not confirmed, if so many are.
    fn holding(&self, confirmed: u64) -> Step {
        let [first, second] = self.ends;
        if confirmed < first {
            Step::Configuration
        } else if confirmed < second {
            Step::Translations
        } else {
            Step::DeviceCaches
        }
    }
}
