//! Streams are stopped for good, any number of them in one train: a guest dies, a device is taken.
//!
//! `CFGI_STE × N, SYNC [, S12_VMALL and STALL_TERM × S, SYNC] [, ATC_INV × M, SYNC]`: as many SYNCs
//! for one stream as for a thousand, and no memory.

use core::fmt;

use super::Smmu;
use super::error::{CommandError, StreamError};
use super::steps::{Step, Steps, Stopped};
use super::stream_table::{Expected, forget};
use crate::hw::Platform;
use crate::id::{StreamId, Vmid};
use crate::spec::command::Command;
use crate::spec::ste::Mark;

/// A stream that is being stopped, and what its device may have left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopping {
    /// Which.
    pub stream: StreamId,
    /// Its device may have cached translations (ATS).
    pub has_ats: bool,
    /// Its transactions may have stalled: all that have are ended, and none of their tags is to be
    /// answered any more.
    pub can_stall: bool,
}

/// Streams that abort in memory, while the SMMU may still use what it cached, from
/// [`Smmu::begin_stop`].
///
/// Dropping it leaves the streams claimed for ever.
#[must_use = "nothing is confirmed until the stop was finished"]
pub struct PendingStop<'a, 'p, P: Platform, I> {
    smmu: &'a Smmu<'p, P>,
    streams: I,
    steps: Steps,
}

/// What of a stop the SMMU did not confirm; the first of several. What comes before it in this list
/// is confirmed, what comes after is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotStopped {
    /// That it forgot the entries: the streams are lost.
    Streams(CommandError),
    /// That it forgot the translations, or accepted that stalls end. The streams abort and are
    /// nobody's; nothing tagged with the VMID may be reused.
    Translations(CommandError),
    /// That devices forgot theirs: with [`CommandError::AtcTimeout`] ask each alone
    /// ([`Smmu::atc_invalidate_singly`]). The streams abort and are nobody's; one whose device does
    /// not answer is not to be given to anybody before that is reset.
    DeviceCaches(CommandError),
}

impl fmt::Display for NotStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Streams(error) => write!(f, "streams are not confirmed to be stopped: {error}"),
            Self::Translations(error) => {
                write!(f, "translations are not confirmed to be gone: {error}")
            }
            Self::DeviceCaches(error) => {
                write!(
                    f,
                    "translations in devices are not confirmed to be gone: {error}"
                )
            }
        }
    }
}

impl core::error::Error for NotStopped {}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Stops the traffic of `streams`, whatever they are, and has all of `flush` forgotten, where it
    /// is a VM that nothing else is to be left of.
    ///
    /// Each entry becomes as that of a stream that nobody published, by one store. One that is so
    /// already stays so; one that is lost stays lost, and is closed all the same. 1 SYNC, 2 with
    /// `flush` or stalls, 1 more with ATS; waits only for room in the queue. The list is asked
    /// several times, and is to say the same each time.
    ///
    /// # Errors
    ///
    /// [`StreamError::OutOfRange`], [`StreamError::Changing`], [`StreamError::NamedTwice`]: nothing
    /// was changed.
    pub fn begin_stop<I>(
        &self,
        streams: I,
        flush: Option<Vmid>,
    ) -> Result<PendingStop<'_, 'p, P, I>, StreamError>
    where
        I: Iterator<Item = Stopping> + Clone,
    {
        let unused = self.streams.unused();
        let entries = streams.clone().map(|it| (it.stream, unused));
        self.streams
            .claim(&self.io, entries.clone(), Expected::Any)?;
        self.streams.step(&self.io, entries);
        let configuration = streams.clone().map(|it| forget(it.stream));
        let translations = flush.into_iter().map(Command::tlbi_s12_vmall);
        // Behind the first SYNC, so that all of the stream's traffic aborts at once (§4.7.2).
        let can_stall = self.features.can_stall();
        let stalls = streams
            .clone()
            .filter(move |it| it.can_stall && can_stall)
            .map(|it| Command::stall_term(it.stream));
        let devices = streams
            .clone()
            .filter(|it| it.has_ats)
            .flat_map(|it| self.atc_inv_everything(it.stream));
        let steps = self.begin_steps(configuration, translations.chain(stalls), devices);
        Ok(PendingStop {
            smmu: self,
            streams,
            steps,
        })
    }
}

impl<P: Platform, I: Iterator<Item = Stopping>> PendingStop<'_, '_, P, I> {
    /// Waits for the last SYNC, at most [`sync_timeout_us`](super::Settings::sync_timeout_us).
    ///
    /// On success no transaction of the streams is translated any more, those that were are
    /// complete, and nothing of the VM is cached here, nor anything by devices that answered. A
    /// transaction that had stalled ends with an abort, at some time.
    ///
    /// # Errors
    ///
    /// Every [`NotStopped`].
    pub fn finish(self) -> Result<(), NotStopped> {
        let Self {
            smmu,
            streams,
            steps,
        } = self;
        let outcome = smmu
            .finish_steps(steps)
            .map_err(|Stopped { at, error }| match at {
                Step::Configuration => NotStopped::Streams(error),
                Step::Translations => NotStopped::Translations(error),
                Step::DeviceCaches => NotStopped::DeviceCaches(error),
            });
        let mark = match outcome {
            Err(NotStopped::Streams(_)) => Mark::Lost,
            _ => Mark::Settled,
        };
        smmu.streams
            .end(&smmu.io, streams.map(|it| it.stream), mark);
        outcome
    }
}
