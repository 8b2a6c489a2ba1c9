//! What devices cached (ATS): dropped in one train, and who did not (§3.9.1, §4.5.1).

use super::Smmu;
use super::command_queue::Ticket;
use super::error::CommandError;
use crate::hw::Platform;
use crate::id::StreamId;
use crate::spec::command::Command;

impl<P: Platform> Smmu<'_, P> {
    /// Puts `commands` into the queue with one CMD_SYNC behind them, however many they are.
    ///
    /// For invalidations of devices' caches ([`Command::atc_inv_substream`] and its like), and for
    /// whatever else needs no order within. Waits only for room, as [`submit`](Self::submit).
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    pub fn submit_then_sync(
        &self,
        commands: impl Iterator<Item = Command>,
    ) -> Result<Ticket, CommandError> {
        let train = commands.chain([Command::sync()]);
        self.commands
            .submit(&self.io, train, self.settings.sync_timeout_us)
    }

    /// Has devices forget again, each alone, after a train failed with
    /// [`CommandError::AtcTimeout`], which names nobody (§4.7.3): tells `failed` of each stream
    /// whose device does not answer this time either.
    ///
    /// A CMD_SYNC for each of `commands`, which are invalidations of devices' caches, waited for
    /// before the next: no other is outstanding then, for a train is in the queue whole before
    /// another begins. A stream is told once for each of its commands that failed.
    ///
    /// # Errors
    ///
    /// Every [`CommandError`] but [`CommandError::AtcTimeout`]; of the command that met it, and of
    /// those behind it, nothing is known.
    pub fn atc_invalidate_singly(
        &self,
        commands: impl Iterator<Item = Command>,
        mut failed: impl FnMut(StreamId),
    ) -> Result<(), CommandError> {
        for command in commands {
            let ticket = self.submit_then_sync([command].into_iter())?;
            match self.wait(ticket) {
                Ok(()) => {}
                Err(CommandError::AtcTimeout) => failed(command.stream()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What has the device of `stream` drop everything: what it asked for without a PASID, and what
    /// it asked for with any. Nothing where the SMMU has no ATS, for no device can have asked.
    pub fn atc_inv_everything(&self, stream: StreamId) -> impl Iterator<Item = Command> + Clone {
        let untagged = self.features.has_ats;
        // Without SubstreamIDs a PASID on an invalidation is CONSTRAINED UNPREDICTABLE (§4.5.1).
        let tagged = untagged && self.features.substream_bits != 0;
        let untagged = untagged.then(|| Command::atc_inv_all(stream));
        let tagged = tagged.then(|| Command::atc_inv_all_substreams(stream));
        untagged.into_iter().chain(tagged)
    }
}
