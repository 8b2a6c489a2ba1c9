//! What was lost comes back, on proof.
//!
//! A SYNC that did not complete leaves things lost: entries, contexts, translations, and with them
//! numbers and memory. What gives them back is one proof for all: every entry that is lost is closed
//! in memory, and then `CFGI_ALL, SYNC, TLBI_NSNH_ALL, SYNC` is confirmed, so that no cache of the
//! SMMU holds anything that was lost before, and no transaction that used it is under way (§4.7.3).
//!
//! | the queue | how it is proven |
//! |---|---|
//! | lives | on it, beside everybody's traffic |
//! | is dead, or the gate was let fall | the gate closed (GBPA.ABORT, then every enable off), the queue empty at index 0, the proof under SMMUEN = 0, and then the enables of a bring-up, in its order (§3.11) |
//!
//! A queue that lives and never completes a SYNC gives no proof. Whether all guests behind the SMMU
//! are to be stopped for it is the caller's to say: [`Smmu::slam`], and then recover.
//!
//! What devices cached (ATS) is not the SMMU's to prove. A stream whose entry had ATS when it was
//! lost stays out of use until its device was reset ([`Smmu::devices_were_reset`]).

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::Smmu;
use super::contexts::{Context, Contexts};
use super::error::{CommandError, ContextError, Death, HandshakeTimeout};
use super::gate::{REGISTER_TIMEOUT_US, close_gate};
use super::sealed::Sealed;
use super::steps::Stopped;
use crate::addr::Pa;
use crate::hw::{Barrier, Platform};
use crate::id::StreamId;
use crate::spec::cd::CdState;
use crate::spec::command::Command;
use crate::spec::registers::{CR0, GERROR};

/// When something was lost on one SMMU: before which recoveries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Loss(u64);

impl Loss {
    pub(super) const fn of(number: u64) -> Self {
        Self(number)
    }

    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

/// That an SMMU holds nothing of what was lost on it before.
///
/// Only [`Smmu::recover`] makes one:
///
/// ```compile_fail,E0451
/// # use portcullis::smmu::Proof;
/// fn prove(proof: Proof) -> Proof {
///     Proof { ..proof }
/// }
/// ```
///
/// ```
/// # use portcullis::smmu::Proof;
/// fn prove(proof: Proof) -> Proof {
///     proof
/// }
/// ```
#[derive(Debug)]
#[must_use = "it is what gives back that which was lost"]
pub struct Proof {
    /// The SMMU, by its stream table.
    smmu: Pa,
    number: u64,
}

impl Proof {
    /// Whether it is of `smmu`, and covers what was lost there at `loss`.
    ///
    /// What is lost while a recovery is under way is not covered by it.
    pub fn covers<P: Platform>(&self, smmu: &Smmu<'_, P>, loss: Loss) -> bool {
        self.smmu == smmu.streams.base() && loss.0 < self.number
    }
}

/// Why there is no proof. Everything that was lost still is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoverError {
    /// Another CPU is at it.
    Busy,
    /// The SMMU stopped for good (GERROR.SFM_ERR): only its reset helps. Nothing was changed.
    ServiceFailure,
    /// A register did not answer: the gate is closed as far as it could be.
    Handshake(HandshakeTimeout),
    /// The SMMU did not confirm that its caches are empty. A queue that lived goes on; one that was
    /// set up anew is closed, and so is the gate.
    NotConfirmed(CommandError),
    /// The gate was let fall meanwhile, and stays closed.
    GateClosed,
}

impl From<HandshakeTimeout> for RecoverError {
    fn from(timeout: HandshakeTimeout) -> Self {
        Self::Handshake(timeout)
    }
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("another CPU is recovering the SMMU"),
            Self::ServiceFailure => f.write_str("the SMMU stopped (SFM_ERR)"),
            Self::Handshake(timeout) => timeout.fmt(f),
            Self::NotConfirmed(error) => {
                write!(
                    f,
                    "the SMMU does not confirm that its caches are empty: {error}"
                )
            }
            Self::GateClosed => f.write_str("the gate was closed meanwhile"),
        }
    }
}

impl core::error::Error for RecoverError {}

/// How often it was recovered, and whether somebody is at it.
pub(super) struct Recoveries {
    begun: AtomicU64,
    is_under_way: AtomicBool,
}

impl Recoveries {
    pub(super) const fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            is_under_way: AtomicBool::new(false),
        }
    }
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// The moment, for whatever is lost now: a [`Proof`] of a recovery that begins later covers it.
    ///
    /// To be asked after the last store to what was lost, and told under whatever lock keeps others
    /// from reclaiming it.
    pub fn loss(&self) -> Loss {
        // Those stores are seen by the SMMU before a recovery can begin that covers them: its own
        // barrier is another CPU's. Pairs with the SMMU's reads behind that recovery's CFGI_ALL.
        self.io.barrier(Barrier::Publish);
        Loss(self.recoveries.begun.load(Ordering::SeqCst))
    }

    /// Why its command queue takes no commands, if it does not.
    pub fn death(&self) -> Option<Death> {
        self.commands.death()
    }

    /// How many streams are lost, those that await a reset of their device among them.
    pub fn lost_streams(&self) -> u64 {
        self.streams.count_lost(&self.io)
    }

    /// Proves that the SMMU holds nothing of what was lost, and sets it going again if it is not.
    ///
    /// On success every stream that was lost before is free, save those that await a reset of their
    /// device; contexts are to be [reclaimed](Self::reclaim_context), and what the caller lost is
    /// its own to give back. All other entries are as they were: their traffic goes on, and went on
    /// all the time unless the queue was dead. Other guests lose cached translations.
    ///
    /// 2 SYNCs. Waits at most [`sync_timeout_us`](super::Settings::sync_timeout_us) for room and
    /// again for the last SYNC, and where the queue is dead 8 times
    /// [`REGISTER_TIMEOUT_US`] more. Any CPU may call it. Where the queue
    /// is dead, those who submit meanwhile are told [`Death::Recovering`], or
    /// [`CommandError::Restarted`] if they were half way; those who wait for what they submitted
    /// before, too, and at once.
    ///
    /// # Errors
    ///
    /// Every [`RecoverError`].
    pub fn recover(&self) -> Result<Proof, RecoverError> {
        let recoveries = &self.recoveries;
        if recoveries.is_under_way.swap(true, Ordering::SeqCst) {
            return Err(RecoverError::Busy);
        }
        let proof = self.recover_alone();
        recoveries.is_under_way.store(false, Ordering::SeqCst);
        proof
    }

    fn recover_alone(&self) -> Result<Proof, RecoverError> {
        if self.io.has_failed_for_good() {
            self.commands.die(Death::ServiceFailure);
            return Err(RecoverError::ServiceFailure);
        }
        // Before anything is looked at: what is lost from here on is not covered.
        let number = self.recoveries.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.streams.close_lost(&self.io);
        let outcome = match self.commands.death() {
            None => self.empty_caches().map_err(RecoverError::NotConfirmed),
            Some(_) => self.reopen(),
        };
        self.streams.end_recovery(&self.io, outcome.is_ok());
        outcome.map(|()| Proof {
            smmu: self.streams.base(),
            number,
        })
    }

    /// From a dead queue, or a gate that fell, to an SMMU that runs and holds nothing.
    fn reopen(&self) -> Result<(), RecoverError> {
        let reopened = self.reset_queue().and_then(|()| {
            self.empty_caches().map_err(RecoverError::NotConfirmed)?;
            // As at bring-up: events before translation, checks before streams.
            let mut enables = CR0::CMDQEN::SET.value;
            for more in [CR0::EVENTQEN::SET, CR0::ATSCHK::SET, CR0::SMMUEN::SET] {
                enables |= more.value;
                self.enable(enables)?;
            }
            // Whoever let the gate fall meanwhile said so before; it may have been opened behind.
            match self.commands.death() {
                None => Ok(()),
                Some(_) => Err(RecoverError::GateClosed),
            }
        });
        if reopened.is_err() {
            self.commands.close();
            // The error that led here is the one that counts.
            let _ = close_gate(self.io.platform(), self.io.registers(), REGISTER_TIMEOUT_US);
        }
        reopened
    }

    /// The gate closed, the command queue empty and on, and everybody may use it again.
    pub(super) fn reset_queue(&self) -> Result<(), RecoverError> {
        let epoch = self.commands.suspend(&self.io);
        // With CMDQEN off, confirmed, no command is fetched and the indices may be written
        // (§6.3.9.3, §6.3.26); SMMUEN off ends what had stalled.
        close_gate(self.io.platform(), self.io.registers(), REGISTER_TIMEOUT_US)?;
        self.commands.clear(&self.io);
        // It survives CMDQEN, and would keep the queue from moving (§7.1).
        self.io.acknowledge(GERROR::CMDQ_ERR::SET.value);
        self.enable(CR0::CMDQEN::SET.value)?;
        self.commands
            .restart(epoch)
            .map_err(|_| RecoverError::GateClosed)
    }

    /// Configuration before translations, a SYNC between: a stale entry could refill the TLB
    /// (§3.11). EL2's translations only where there are any: the command is illegal elsewhere.
    pub(super) fn empty_caches(&self) -> Result<(), CommandError> {
        let el2 = self.features.has_el2.then(Command::tlbi_el2_all);
        let translations = [Command::tlbi_nsnh_all()].into_iter().chain(el2);
        let configuration = [Command::cfgi_all()].into_iter();
        let steps = self.begin_steps(configuration, translations, [].into_iter());
        self.finish_steps(steps)
            .map_err(|Stopped { error, .. }| error)
    }

    /// Frees `streams` whose devices were reset, of those that awaited that.
    ///
    /// The caller has seen to it that no device of theirs holds a translation any more. Others are
    /// as they were.
    pub fn devices_were_reset(&self, streams: impl Iterator<Item = StreamId>) {
        self.streams.end_reset(&self.io, streams);
    }

    /// Frees a context that was lost: its memory is zeros, and its number may be published again.
    ///
    /// # Errors
    ///
    /// [`ContextError::Foreign`], [`ContextError::NoSuchContext`]; [`ContextError::NotInUse`] if it
    /// is not lost; [`ContextError::Lost`] if `proof` does not cover it.
    pub fn reclaim_context(
        &self,
        contexts: &Contexts<'p, P>,
        context: Context,
        proof: &Proof,
    ) -> Result<(), ContextError> {
        let index = self.index(contexts, context)?;
        let is_lost = contexts.state_of(context) == Some(CdState::Lost);
        if !is_lost {
            return Err(ContextError::NotInUse);
        }
        if !proof.covers(self, contexts.lost_at()) {
            return Err(ContextError::Lost);
        }
        self.clear(contexts, index)
    }

    /// The leaf that `context` lies in, which [`give_back_leaf`](Self::give_back_leaf) lost.
    ///
    /// # Errors
    ///
    /// [`ContextError::Foreign`], [`ContextError::NoSuchContext`]; [`ContextError::NotInUse`] if it
    /// is not lost; [`ContextError::Lost`] if `proof` does not cover it.
    pub fn reclaim_leaf(
        &self,
        contexts: &Contexts<'p, P>,
        context: Context,
        proof: &Proof,
    ) -> Result<Sealed, ContextError> {
        let index = self.index(contexts, context)?;
        let mut table = contexts.lock();
        if !proof.covers(self, contexts.lost_at()) {
            return Err(ContextError::Lost);
        }
        table.take_lost_leaf(index).ok_or(ContextError::NotInUse)
    }
}
