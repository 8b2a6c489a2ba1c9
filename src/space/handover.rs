//! Hand-over: a group of streams passes from one owner to the next.
//!
//! ```text
//! stop ──► Stopped ──reset──► Quiet ──give──► the new owner's
//!             └─without_reset──┘
//! ```
//!
//! Each step takes the value of the one before and gives the next, so none can be left out and
//! there are never two owners: from the SYNC inside [`stop`] to the last one inside
//! [`Quiet::give`] every transaction of the group aborts, silently, and nobody else can publish
//! its streams. For any number of streams that is 3 SYNCs, 4 with ATS.
//!
//! | step | SYNCs | what failed | what is true then |
//! |---|---|---|---|
//! | [`stop`] | 1 | [`StopError::NoAts`], a refusal in [`StopError::NotStopped`] | the old owner has the streams, nothing was changed |
//! | | | [`NotConfirmed`](StreamError::NotConfirmed) or [`NotHeld`](StreamError::NotHeld) in it | the streams are lost: the old owner's, or abort |
//! | | 1 with ATS | [`StopError::CachesUnknown`] | the streams abort, and are lost |
//! | | | a device keeps silent | no error: only [`Stopped::reset`] goes on |
//! | [`Stopped::reset`] | 0 | [`NotReset`] | the streams abort; the same value again, to try once more or to [`abandon`](Stopped::abandon) |
//! | [`Quiet::give`] | 2 | [`GiveError::Unwalkable`] | the streams abort; the same value again |
//! | | | [`GiveError::Lost`] | the streams are lost: they abort, or are the new owner's |
//!
//! A lost stream belongs to nobody and can be taken by nobody.
//!
//! # What is left to the old owner
//!
//! Nothing of it was freed. Translations under its VMID stay cached, and no stream of the group can
//! meet them under another; a frame of its stage 2 comes back only out of an
//! [`Unsynced`](crate::smmu::Unsynced), that is after every SMMU has dropped what led there.
//! Bindings of its spaces to the devices end before the hand-over begins.
//!
//! The group is all streams that cannot be told apart or kept apart, on one SMMU. One that has
//! streams on several is stopped on all, reset once, and then given on each.

use core::fmt;

use crate::hw::Platform;
use crate::id::{StreamId, Vmid};
use crate::smmu::{AtcError, CommandError, Held, Smmu, StreamError, Unwalkable};
use crate::spec::vmsa::Stage2Walk;

/// Whether devices keep translations of their own (ATS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceCaches {
    /// None was ever allowed to: the streams' EATS was 0.
    None,
    /// Some may.
    Ats,
}

/// Why a group was not stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopError {
    /// The SMMU has no ATS, so no device behind it has translations of it. Nothing was changed.
    NoAts,
    /// The streams were not stopped; what is true then is said there.
    NotStopped(StreamError),
    /// The streams abort. What their devices cached is unknown, and they are lost.
    CachesUnknown(CommandError),
}

/// A group that aborts. Whatever its devices do, they reach nothing.
#[must_use = "the streams abort until they are given to somebody or abandoned"]
pub struct Stopped<'a, 'p, P: Platform> {
    held: Held<'a, 'p, P>,
    /// A device that did not answer when told to drop its translations.
    silent: Option<StreamId>,
}

/// A group that aborts, and of whose former owner nothing is left, as far as [`Reset`] says.
#[must_use = "the streams abort until they are given to somebody or abandoned"]
pub struct Quiet<'a, 'p, P: Platform> {
    held: Held<'a, 'p, P>,
    reset: Reset,
}

/// What became of the devices between two owners.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reset {
    /// They were reset.
    Done,
    /// They were not, and the board allows that.
    Omitted {
        /// Why it does.
        because: &'static str,
    },
}

/// A group that was not reset, and aborts as before.
#[must_use = "the streams abort until they are given to somebody or abandoned"]
pub struct NotReset<'a, 'p, P: Platform, E> {
    /// The group.
    pub stopped: Stopped<'a, 'p, P>,
    /// Why.
    pub error: E,
}

/// A device may still use translations that it cached for its former owner, so nothing but a reset
/// will do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MustReset {
    /// The stream of the first device that did not answer.
    pub silent: StreamId,
}

/// Why a group was not given to its new owner.
#[must_use = "it may hold the streams, which abort"]
pub enum GiveError<'a, 'p, P: Platform> {
    /// The SMMU cannot walk the new owner's stage 2.
    Unwalkable {
        /// The group, as it was.
        quiet: Quiet<'a, 'p, P>,
        /// Why.
        why: Unwalkable,
    },
    /// The SMMU did not confirm the new entries: the streams are lost.
    Lost(StreamError),
}

/// A group that has its new owner; [`Display`](fmt::Display) is its line in a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandedOver {
    /// How many streams it has.
    pub streams: usize,
    /// The new owner.
    pub vmid: Vmid,
    /// What became of its devices before.
    pub reset: Reset,
}

/// Takes `streams` from their owner: 1 SYNC, 2 with ATS.
///
/// On success every transaction of theirs aborts without an event, those that were translated
/// before are complete, and devices have dropped the translations that they cached, or
/// [`without_reset`](Stopped::without_reset) is refused. Waits at most
/// [`sync_timeout_us`](crate::smmu::Settings::sync_timeout_us) a SYNC; where a device does not answer
/// there is one SYNC more for each stream.
///
/// # Errors
///
/// Every [`StopError`].
pub fn stop<'a, 'p, P: Platform>(
    smmu: &'a Smmu<'p, P>,
    streams: &'a [StreamId],
    caches: DeviceCaches,
) -> Result<Stopped<'a, 'p, P>, StopError> {
    if caches == DeviceCaches::Ats && !smmu.features().has_ats {
        return Err(StopError::NoAts);
    }
    let held = smmu.hold(streams).map_err(StopError::NotStopped)?;
    let forgotten = match caches {
        DeviceCaches::None => Ok(()),
        DeviceCaches::Ats => held.forget_atcs(),
    };
    match forgotten {
        Ok(()) => Ok(Stopped { held, silent: None }),
        Err(AtcError::Unanswered(stream)) => Ok(Stopped {
            held,
            silent: Some(stream),
        }),
        Err(AtcError::NotConfirmed(error)) => {
            held.lose();
            Err(StopError::CachesUnknown(error))
        }
    }
}

impl<'a, 'p, P: Platform> Stopped<'a, 'p, P> {
    /// The device that did not drop its translations, if there is one: the first.
    pub const fn silent(&self) -> Option<StreamId> {
        self.silent
    }

    /// Resets the devices, with `reset`.
    ///
    /// `reset` is the host's, bounded: a function level reset
    /// ([`Ecam::reset`](../../pci/struct.Ecam.html#method.reset)) of each function of the group, or
    /// what the platform has for a device of its own. It says `Ok` when every device of the group
    /// is as at power-on, issues nothing, has nothing pending, and holds nothing of its former owner.
    ///
    /// # Errors
    ///
    /// [`NotReset`] with what `reset` said.
    pub fn reset<E>(
        self,
        reset: impl FnOnce() -> Result<(), E>,
    ) -> Result<Quiet<'a, 'p, P>, NotReset<'a, 'p, P, E>> {
        match reset() {
            Ok(()) => Ok(Quiet {
                held: self.held,
                reset: Reset::Done,
            }),
            Err(error) => Err(NotReset {
                stopped: self,
                error,
            }),
        }
    }

    /// Goes on with devices as their former owner left them, because the board allows it.
    ///
    /// What they still hold, data among it, goes to the new owner, and so does what they are still
    /// about to do. `because` is the board's reason, and is reported.
    ///
    /// # Errors
    ///
    /// [`NotReset`] with [`MustReset`].
    pub fn without_reset(
        self,
        because: &'static str,
    ) -> Result<Quiet<'a, 'p, P>, NotReset<'a, 'p, P, MustReset>> {
        if let Some(silent) = self.silent {
            return Err(NotReset {
                stopped: self,
                error: MustReset { silent },
            });
        }
        Ok(Quiet {
            held: self.held,
            reset: Reset::Omitted { because },
        })
    }

    /// Gives the streams to nobody: they abort as those that were never published. At most 1 SYNC.
    ///
    /// # Errors
    ///
    /// Both [`AbandonError`]s.
    pub fn abandon(self) -> Result<(), AbandonError> {
        match self.silent {
            Some(silent) => {
                self.held.lose();
                Err(AbandonError::MustReset(MustReset { silent }))
            }
            None => self.held.release().map_err(AbandonError::Lost),
        }
    }
}

impl<'a, 'p, P: Platform> Quiet<'a, 'p, P> {
    /// Lets the streams through the stage 2 of `walk`, the new owner's: 2 SYNCs.
    ///
    /// A transaction aborts until its stream's entry has changed, and is translated from then on;
    /// on success all have.
    ///
    /// # Errors
    ///
    /// Both [`GiveError`]s.
    pub fn give(self, walk: &Stage2Walk) -> Result<HandedOver, GiveError<'a, 'p, P>> {
        if let Err(why) = self.held.smmu().features().can_walk(walk) {
            return Err(GiveError::Unwalkable { quiet: self, why });
        }
        let given = HandedOver {
            streams: self.held.streams().len(),
            vmid: walk.vmid,
            reset: self.reset,
        };
        self.held.publish(walk).map_err(GiveError::Lost)?;
        Ok(given)
    }

    /// What became of the devices.
    pub const fn how(&self) -> Reset {
        self.reset
    }

    /// Gives the streams to nobody: they abort as those that were never published. At most 1 SYNC.
    ///
    /// # Errors
    ///
    /// [`StreamError::NotConfirmed`] and [`StreamError::NotHeld`]: they are lost.
    pub fn abandon(self) -> Result<(), StreamError> {
        self.held.release()
    }
}

/// Why a group is not free. Its streams abort or, in [`Lost`](Self::Lost), did before; nobody can
/// have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbandonError {
    /// A device may still hold translations: the streams are lost until it was reset.
    MustReset(MustReset),
    /// The SMMU did not confirm the change: the streams are lost.
    Lost(StreamError),
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("devices reset"),
            Self::Omitted { because } => {
                write!(f, "devices NOT RESET, as the board allows: {because}")
            }
        }
    }
}

impl fmt::Display for HandedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            streams,
            vmid,
            reset,
        } = self;
        write!(f, "{streams} streams handed over to VMID {vmid}: {reset}")
    }
}

impl fmt::Display for StopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAts => f.write_str("the SMMU has no ATS"),
            Self::NotStopped(error) => write!(f, "not stopped: {error}"),
            Self::CachesUnknown(error) => {
                write!(f, "stopped, but what devices cached is unknown: {error}")
            }
        }
    }
}

impl fmt::Display for MustReset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let silent = self.silent;
        write!(
            f,
            "the device of stream {silent} may hold translations, and must be reset"
        )
    }
}

impl fmt::Display for AbandonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MustReset(why) => why.fmt(f),
            Self::Lost(error) => error.fmt(f),
        }
    }
}

impl<P: Platform> fmt::Display for GiveError<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwalkable { why, .. } => why.fmt(f),
            Self::Lost(error) => error.fmt(f),
        }
    }
}

impl<P: Platform> fmt::Debug for Stopped<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopped")
            .field("streams", &self.held.streams())
            .field("silent", &self.silent)
            .finish()
    }
}

impl<P: Platform> fmt::Debug for Quiet<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quiet")
            .field("streams", &self.held.streams())
            .field("reset", &self.reset)
            .finish()
    }
}

impl<P: Platform, E: fmt::Debug> fmt::Debug for NotReset<'_, '_, P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotReset")
            .field("stopped", &self.stopped)
            .field("error", &self.error)
            .finish()
    }
}

impl<P: Platform> fmt::Debug for GiveError<'_, '_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwalkable { quiet, why } => f
                .debug_struct("Unwalkable")
                .field("quiet", quiet)
                .field("why", why)
                .finish(),
            Self::Lost(error) => f.debug_tuple("Lost").field(error).finish(),
        }
    }
}
