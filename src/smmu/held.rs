//! Streams between two owners: nobody's, and for nobody else to take.

use super::Smmu;
use super::error::{CommandError, StreamError};
use super::stream_table::Expected;
use crate::hw::Platform;
use crate::id::StreamId;
use crate::spec::ste::{Mark, Ste};
use crate::spec::vmsa::Stage2Walk;

/// Streams of which every transaction aborts, confirmed, and which only this value can give to
/// somebody.
///
/// They abort without an event, whatever [`Settings::unpublished`](super::Settings::unpublished)
/// says: a device that has lost its owner and does not know it is no news. Dropping the value
/// leaves them so for ever.
#[must_use = "the streams abort until they are published or released"]
pub(crate) struct Held<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    streams: &'a [StreamId],
}

/// Why devices may still hold translations of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AtcError {
    /// This stream's device did not answer, asked twice; those of the streams behind it were not
    /// asked a second time.
    Unanswered(StreamId),
    /// The SMMU did not confirm the commands.
    NotConfirmed(CommandError),
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Stops the traffic of `streams` and keeps them from everybody: 1 SYNC, whatever their number.
    ///
    /// # Errors
    ///
    /// As [`retract`](Self::retract).
    pub(crate) fn hold<'a>(
        &'a self,
        streams: &'a [StreamId],
    ) -> Result<Held<'a, 'p, P>, StreamError> {
        self.begin_same(streams, Ste::abort(), Expected::InUse)?
            .finish_as(Mark::Changing)?;
        Ok(Held {
            smmu: self,
            streams,
        })
    }
}

impl<'a, 'p, P: Platform> Held<'a, 'p, P> {
    /// The SMMU that they are streams of.
    pub(crate) const fn smmu(&self) -> &'a Smmu<'p, P> {
        self.smmu
    }

    /// The streams.
    pub(crate) const fn streams(&self) -> &'a [StreamId] {
        self.streams
    }

    /// Has every device of the streams drop the translations that it cached: 1 SYNC.
    ///
    /// The entries abort already, so no device gets a translation for the one it drops. A device
    /// that does not answer is unknown by name (§4.7.3), so each is then asked alone: as many SYNCs
    /// more as there are streams, at most.
    ///
    /// # Errors
    ///
    /// Both [`AtcError`]s. The streams are still held.
    pub(crate) fn forget_atcs(&self) -> Result<(), AtcError> {
        match self.ask(self.streams) {
            Err(CommandError::AtcTimeout) => {}
            other => return other.map_err(AtcError::NotConfirmed),
        }
        for stream in self.streams.chunks(1) {
            self.ask(stream).map_err(|error| match (error, stream) {
                (CommandError::AtcTimeout, &[stream, ..]) => AtcError::Unanswered(stream),
                (error, _) => AtcError::NotConfirmed(error),
            })?;
        }
        Ok(())
    }

    fn ask(&self, streams: &[StreamId]) -> Result<(), CommandError> {
        let smmu = self.smmu;
        let commands = streams
            .iter()
            .flat_map(|&stream| smmu.atc_inv_everything(stream));
        let ticket = smmu.submit_then_sync(commands)?;
        smmu.wait(ticket)
    }

    /// Lets their traffic through the stage 2 of `walk`, which the SMMU can walk: 2 SYNCs, whatever
    /// their number.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConfirmed`] and [`StreamError::NotHeld`]: they are lost.
    pub(crate) fn publish(self, walk: &Stage2Walk) -> Result<(), StreamError> {
        let target = self.smmu.features.legal(Ste::stage2(walk));
        self.become_as(target)
    }

    /// Makes them free: they abort as all streams do that nobody published. 1 SYNC, or none.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConfirmed`] and [`StreamError::NotHeld`]: they are lost.
    pub(crate) fn release(self) -> Result<(), StreamError> {
        let unused = self.smmu.streams.unused();
        self.become_as(unused)
    }

    /// Marks them lost: what their devices cached is unknown, and nobody may have them before these
    /// are reset ([`Smmu::devices_were_reset`]).
    pub(crate) fn lose(self) {
        let smmu = self.smmu;
        smmu.streams
            .end(&smmu.io, self.streams.iter().copied(), Mark::AwaitsReset);
    }

    fn become_as(self, target: Ste) -> Result<(), StreamError> {
        self.smmu
            .begin_same(self.streams, target, Expected::Held)?
            .finish()
    }
}
