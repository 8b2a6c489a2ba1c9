//! Contexts of a space are released: all of them, wherever they are, in one train for each SMMU.
//!
//! | step | what | why |
//! |---|---|---|
//! | 1 | [`Smmu::quiet_stores`] on every SMMU: one store for each CD | from here on no walk goes by it |
//! | 2 | [`Smmu::begin_release`] on every SMMU: `CFGI_CD × N, SYNC, TLBI, SYNC [, ATC_INV × M, SYNC]` | the SMMU may have cached the CD (§3.21.3), walks by it may have filled the TLB until the first SYNC, and devices until the second (§4.5.1) |
//! | 3 | [`PendingRelease::finish`] on every SMMU | the wait |
//!
//! No memory is asked for, whatever the number of contexts: the commands are made as there is room.

use core::fmt;
use core::ops::Deref;

use super::Smmu;
use super::contexts::{Context, Contexts};
use super::error::CommandError;
use super::steps::{Step, Steps, Stopped};
use crate::hw::Platform;
use crate::id::{Asid, StreamId, Vmid};
use crate::spec::command::Command;

/// One context that is being released.
///
/// `C` leads to the contexts of its device: a reference, or a handle that keeps them.
#[derive(Clone, Copy, Debug)]
pub struct Releasing<C> {
    /// The device's contexts.
    pub contexts: C,
    /// Which.
    pub context: Context,
    /// The device may have cached translations of it (ATS).
    pub has_ats: bool,
}

/// Which translations go with the contexts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// All of stage 1 of a VM: what the guest marked global carries no ASID, and EL2 cannot see it.
    Vmid(Vmid),
    /// Those of one ASID: the guest marks none global.
    Asid(Vmid, Asid),
}

impl Flush {
    const fn command(self) -> Command {
        match self {
            Self::Vmid(vmid) => Command::tlbi_nh_all(vmid),
            Self::Asid(vmid, asid) => Command::tlbi_nh_asid(vmid, asid),
        }
    }
}

/// Contexts of which the SMMU is being told, from [`Smmu::begin_release`].
///
/// Dropping it leaves what is cached unknown: nothing that they led to can be given to anybody.
#[must_use = "nothing is confirmed until the release was finished"]
pub struct PendingRelease<'a, 'p, P: Platform> {
    smmu: &'a Smmu<'p, P>,
    steps: Steps,
}

/// What of a release one SMMU did not confirm; the first of several. What comes before it in this
/// list is confirmed, what comes after is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReleaseError {
    /// That it forgot the contexts: its devices may reach all that they reached.
    Contexts(CommandError),
    /// That it forgot the translations: no walk makes new ones, but those that it has may serve
    /// another context of the ASID, or of the VM where they are global.
    Translations(CommandError),
    /// That devices forgot theirs: with [`CommandError::AtcTimeout`] ask each alone
    /// ([`Smmu::atc_invalidate_singly`]). Full translations lead to memory, unchecked; split ones to
    /// addresses of the VM, which stage 2 checks.
    DeviceCaches(CommandError),
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contexts(error) => write!(f, "contexts are not confirmed to be gone: {error}"),
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

impl core::error::Error for ReleaseError {}

/// The streams of the device, by a handle that is kept meanwhile.
fn streams_of<'p, P, C>(contexts: C) -> impl Iterator<Item = StreamId> + Clone
where
    P: Platform + 'p,
    C: Deref<Target = Contexts<'p, P>> + Clone,
{
    (0..contexts.streams().len()).filter_map(move |i| contexts.streams().get(i).copied())
}

impl<'p, P: Platform> Smmu<'p, P> {
    /// Makes each context that is live quiet, or parks it where stalls are forced: one store each,
    /// and nothing is told to the SMMU.
    ///
    /// Only when every context of the ASID goes, on all SMMUs; to be done on all of them before any
    /// is told. Those of another SMMU, and those that are not live, are passed over: the same list
    /// does for all SMMUs, and a second time.
    pub fn quiet_stores<C>(&self, contexts: impl Iterator<Item = Releasing<C>>)
    where
        C: Deref<Target = Contexts<'p, P>>,
    {
        for Releasing {
            contexts, context, ..
        } in contexts
        {
            let Ok(index) = self.index(&contexts, context) else {
                continue;
            };
            let table = contexts.lock();
            if let Ok((words, cd)) = self.in_use(&table, index) {
                self.silence(words, cd);
            }
        }
    }

    /// Tells the SMMU of `contexts` that [`quiet_stores`](Self::quiet_stores) has seen to, in one
    /// train: `CFGI_CD × N, SYNC, TLBI, SYNC [, ATC_INV × M, SYNC]`.
    ///
    /// 2 SYNCs for any number of contexts, 3 with ATS, and 1 if none of them is of this SMMU, which
    /// may still hold translations of the tag. Waits only for room in the queue, at most
    /// [`sync_timeout_us`](super::Settings::sync_timeout_us) for each piece. The list is asked
    /// several times, and is to say the same each time; contexts of other SMMUs are passed over.
    ///
    /// One that is still live is made quiet first: what is told to be forgotten is never what a
    /// device could bring back.
    pub fn begin_release<C>(
        &self,
        contexts: impl Iterator<Item = Releasing<C>> + Clone,
        flush: Flush,
    ) -> PendingRelease<'_, 'p, P>
    where
        C: Deref<Target = Contexts<'p, P>> + Clone,
    {
        self.quiet_stores(contexts.clone());
        let ours = contexts.filter_map(|it| {
            let index = self.index(&it.contexts, it.context).ok()?;
            Some((it, index))
        });
        // The stores come before the commands: the barrier that `submit` makes before CMDQ_PROD is
        // for them as well (§3.21.3.1).
        let configuration = ours.clone().flat_map(|(it, index)| {
            streams_of(it.contexts).filter_map(move |stream| forget_cd(stream, index))
        });
        let devices = ours.filter(|(it, _)| it.has_ats).flat_map(|(it, _)| {
            let context = it.context;
            streams_of(it.contexts).filter_map(move |stream| self.forget_atc(stream, context))
        });
        PendingRelease {
            smmu: self,
            steps: self.begin_steps(configuration, [flush.command()].into_iter(), devices),
        }
    }

    /// What has the device of `stream` drop what it cached of `context`; nothing without ATS.
    pub(super) fn forget_atc(&self, stream: StreamId, context: Context) -> Option<Command> {
        self.features.has_ats.then(|| match context {
            Context::WholeStream => Command::atc_inv_all(stream),
            Context::Substream(substream) => Command::atc_inv_substream(stream, substream),
        })
    }
}

impl<P: Platform> PendingRelease<'_, '_, P> {
    /// Waits for the last SYNC, at most [`sync_timeout_us`](super::Settings::sync_timeout_us).
    ///
    /// On success no transaction of the contexts uses anything of them, those that did are complete,
    /// and nothing of them is cached on this SMMU or by devices that answered. They stay as they
    /// are, quiet or parked, until each is [retracted](Smmu::retract_context).
    ///
    /// # Errors
    ///
    /// Every [`ReleaseError`].
    pub fn finish(self) -> Result<(), ReleaseError> {
        self.smmu
            .finish_steps(self.steps)
            .map_err(|Stopped { at, error }| match at {
                Step::Configuration => ReleaseError::Contexts(error),
                Step::Translations => ReleaseError::Translations(error),
                Step::DeviceCaches => ReleaseError::DeviceCaches(error),
            })
    }
}

/// The command that makes the SMMU look at CD `index` of `stream` afresh, and at the way to it.
pub(super) fn forget_cd(stream: StreamId, index: u32) -> Option<Command> {
    // It is below the size of the table, which has at most 20 bits.
    let index = crate::id::SubstreamId::new(index)?;
    Some(Command::cfgi_cd(stream, index))
}
