//! Answers to stalled transactions (§3.12.2, §4.7.1).

use super::Smmu;
use super::error::CommandError;
use crate::hw::Platform;
use crate::id::StreamId;
use crate::spec::command::{Command, ResumeAction};

impl<P: Platform> Smmu<'_, P> {
    /// Answers transactions that stalled, each by its stream and the tag of its event, once.
    ///
    /// Waits for room in the queue alone, as [`submit`](Self::submit); there is no CMD_SYNC, for it
    /// would say nothing: a CMD_RESUME is complete when it is consumed (§4.7.3), commands are consumed
    /// in order, and no command tells when the transaction has ended (§4.7.1). So whoever waits for
    /// any later train of this queue knows that the answers were accepted. A transaction that was
    /// told to end ends at some time, and may be tried once more before: that it reaches nothing
    /// then is for the context and the entry to see to, which are to refuse it first.
    ///
    /// An answer that meets no stalled transaction has no effect.
    ///
    /// # Errors
    ///
    /// [`CommandError::NoRoom`], [`CommandError::Dead`]: all, some or none of the answers are given;
    /// those that were not keep their transactions stalled. [`CommandError::Illegal`] where nothing
    /// stalls (IDR0.STALL_MODEL 1): none was sent.
    pub fn resume(
        &self,
        answers: impl Iterator<Item = (StreamId, u16, ResumeAction)>,
    ) -> Result<(), CommandError> {
        let aborts_only = self.features.aborts_only;
        let mut commands = answers
            .map(|(stream, stag, action)| match action {
                // What is not there is not asked for (§4.7.1, `Ab`).
                ResumeAction::Terminate if aborts_only => {
                    Command::resume(stream, stag, ResumeAction::Abort)
                }
                action => Command::resume(stream, stag, action),
            })
            .peekable();
        match commands.peek() {
            None => Ok(()),
            Some(first) if !self.features.can_stall() => Err(CommandError::Illegal {
                words: first.words(),
            }),
            Some(_) => {
                let timeout_us = self.settings.sync_timeout_us;
                let ticket = self.commands.submit(&self.io, commands, timeout_us)?;
                // See above: nobody waits for it.
                drop(ticket);
                Ok(())
            }
        }
    }
}
