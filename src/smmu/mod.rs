//! One SMMU: taken over, and driven in the words of its effects.
//!
//! | level | verbs |
//! |---|---|
//! | the SMMU | [`Smmu::take_over`] and [`Smmu::shut_down`]; [`close_gate`] needs nothing |
//! | | [`Smmu::slam`], and [`Smmu::recover`] from that and from whatever was lost |
//! | a stream's entry | [`Smmu::publish`], [`Smmu::publish_all`], [`Smmu::amend`], [`Smmu::retract`] |
//! | many streams at once | [`Smmu::begin_publish_each`], [`Smmu::begin_stop`] |
//! | a context of a device | [`Smmu::publish_context`], [`Smmu::quiet`], [`Smmu::retract_context`] |
//! | all contexts of a space | [`Smmu::quiet_stores`], [`Smmu::begin_release`] |
//! | commands | [`Smmu::submit`] and [`Smmu::wait`] |
//! | stalled transactions | [`Smmu::resume`] |
//! | what devices cached | [`Smmu::atc_inv_everything`], [`Smmu::atc_invalidate_singly`] |
//! | events | [`Smmu::service`] |
//!
//! Nothing here knows of guests or devices: that is `space`. Every wait is bounded, by
//! [`Settings::sync_timeout_us`] or [`REGISTER_TIMEOUT_US`], and what was not confirmed is an error
//! that says what is true now.
//!
//! Several CPUs may call anything at once. Locks are held for a few stores each and never while
//! waiting. One is taken inside another in three places only: the acknowledging of GERROR inside the
//! command queue's `tail`, the stream table's and the knocks' inside the event reader's, and those
//! of the caller's memory inside a device's contexts'.
#![forbid(unsafe_code)]

mod bringup;
mod cd_table;
mod command_queue;
mod context_changes;
mod contexts;
mod device_caches;
mod each;
mod entry;
mod error;
mod event_queue;
mod explain;
mod failures;
mod gate;
mod gather;
mod held;
mod invalidate;
mod io;
mod knocks;
mod misfit;
mod nested;
mod probe;
mod queue_state;
mod ranges;
mod recovery;
mod release;
mod sealed;
mod stage1_stale;
mod stalls;
mod steps;
mod stop;
mod stream_table;
mod streams;

pub use bringup::{Settings, Unpublished};
pub use command_queue::Ticket;
pub use context_changes::{ContextOf, PendingContext, PendingQuiet};
pub use contexts::{Context, ContextShape, Contexts, Detached, MAX_DEVICE_STREAMS};
pub use each::{AssignmentOf, PendingEach};
pub use entry::Path;
pub use error::{
    CommandError, ContextError, ContextsError, Death, HandshakeTimeout, Refusal, ShutDownError,
    StreamError, TakeOverError, Unmade, Unwalkable,
};
pub use event_queue::Drained;
pub use explain::{
    ContextSeen, EntrySeen, Explanation, Found, Outcome, Purpose, Reason, Stage, Stop, Structure,
};
pub use gate::{REGISTER_TIMEOUT_US, close_gate};
pub(crate) use gather::Removed;
pub use gather::{Gathered, StaleRange, Unsynced};
pub(crate) use held::{AtcError, Held};
pub use invalidate::{MAX_SMMUS, NotConfirmed, invalidate, invalidate_with};
pub use knocks::{Knock, Knocks, MAX_KNOCKS};
pub use misfit::Misfit;
pub use probe::{Features, Firmware, Implementation, QueueIndices, StallModel, probe};
pub use recovery::{Loss, Proof, RecoverError};
pub use release::{Flush, PendingRelease, ReleaseError, Releasing};
pub use sealed::Sealed;
pub use stage1_stale::{PendingStage1, Stage1Error, Stage1Stale};
pub use stop::{NotStopped, PendingStop, Stopping};
pub use streams::{Assignment, PendingChange};

use crate::hw::{Lock, Platform};
use crate::spec::command::Command;
use crate::spec::event::{Event, EventKind};
use crate::spec::registers::GERROR;
use command_queue::{CommandQueue, Unconfirmed};
use event_queue::EventQueue;
use io::Io;
use nested::NestedVmids;
use recovery::Recoveries;
use stream_table::StreamTable;

/// One SMMU that was taken over.
///
/// At rest it holds three pieces of memory: the command queue, the event queue and the root of the
/// stream table ([`Smmu::size_bytes`]); the table grows by 16 KiB for each run of 256 StreamIDs
/// that is used. Dropping the value gives nothing back: the SMMU goes on reading its tables.
pub struct Smmu<'p, P: Platform> {
    io: Io<'p, P>,
    features: Features,
    settings: Settings,
    commands: CommandQueue,
    events: EventQueue,
    streams: StreamTable,
    nested: NestedVmids,
    recoveries: Recoveries,
    knocks: Lock<Knocks>,
}

/// What one [`Smmu::service`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Serviced {
    /// The event queue.
    pub events: Drained,
    /// The SMMU's command queue is dead, and why.
    pub death: Option<Death>,
    /// Errors of no consequence here that were active and are acknowledged: bits of GERROR for
    /// messages that could not be written (§6.3.19).
    pub message_aborts: u32,
}

impl<P: Platform> Smmu<'_, P> {
    /// What it can do.
    pub const fn features(&self) -> &Features {
        &self.features
    }

    /// Bytes of memory that it holds now.
    pub fn size_bytes(&self) -> u64 {
        self.commands.frames().size_bytes()
            + self.events.frames().size_bytes()
            + self.streams.size_bytes(self.io.platform())
    }

    /// Puts groups of commands into the queue, a CMD_SYNC behind each group.
    ///
    /// Within a group commands have no order; all of a group have taken effect before any of the
    /// next begins (§4.7.3). Waits only for room in the queue, at most
    /// [`Settings::sync_timeout_us`]. Submit to every SMMU before waiting for any.
    ///
    /// # Errors
    ///
    /// [`CommandError::NoRoom`] and [`CommandError::Dead`]; what is true then is said there.
    pub fn submit(&self, groups: &[&[Command]]) -> Result<Ticket, CommandError> {
        let train = groups
            .iter()
            .flat_map(|group| group.iter().copied().chain([Command::sync()]));
        self.commands
            .submit(&self.io, train, self.settings.sync_timeout_us)
    }

    /// Waits until all that was submitted with `ticket` has taken effect, at most
    /// [`Settings::sync_timeout_us`].
    ///
    /// # Errors
    ///
    /// Every [`CommandError`] but [`CommandError::NoRoom`].
    pub fn wait(&self, ticket: Ticket) -> Result<(), CommandError> {
        self.wait_for(&ticket)
            .map_err(|Unconfirmed { error, .. }| error)
    }

    /// As [`wait`](Self::wait), saying how far it is confirmed.
    fn wait_for(&self, ticket: &Ticket) -> Result<(), Unconfirmed> {
        self.commands
            .wait(&self.io, ticket, self.settings.sync_timeout_us)
    }

    /// Serves what the SMMU reports: hands at most `budget` events to `sink` in the order in which
    /// they were recorded, acknowledges errors, and lets a stopped command queue go on.
    ///
    /// Never waits. For a poll or an interrupt; any CPU may call it, one at a time gets the events.
    /// `sink` must not call this SMMU.
    pub fn service(&self, budget: u32, mut sink: impl FnMut(Event)) -> Serviced {
        self.commands.handle_error(&self.io);
        if self.io.has_failed_for_good() {
            self.commands.die(Death::ServiceFailure);
        }
        let events = self.events.drain(&self.io, budget, |event| {
            if self.is_knock(&event) {
                self.knocks.lock(self.io.platform()).note(event.stream);
            }
            sink(event);
        });
        Serviced {
            events,
            death: self.commands.death(),
            message_aborts: self.acknowledge_message_aborts(),
        }
    }

    /// A stream that has no entry, or none that was published.
    fn is_knock(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::BadStreamid => true,
            EventKind::BadSte => !self.streams.is_open(&self.io, event.stream),
            _ => false,
        }
    }

    fn acknowledge_message_aborts(&self) -> u32 {
        let messages = (GERROR::MSI_CMDQ_ABT_ERR::SET
            + GERROR::MSI_EVENTQ_ABT_ERR::SET
            + GERROR::MSI_PRIQ_ABT_ERR::SET
            + GERROR::MSI_GERROR_ABT_ERR::SET
            + GERROR::PRIQ_ABT_ERR::SET)
            .value;
        let active = self.io.active_errors() & messages;
        if active != 0 {
            self.io.acknowledge(active);
        }
        active
    }

    /// Who tried to get through without an entry, as far as events told
    /// ([`Unpublished::Recorded`]).
    pub fn knocks(&self) -> Knocks {
        *self.knocks.lock(self.io.platform())
    }
}
