//! Why a check did not hold.

use core::fmt;

use super::nvme::NvmeError;
use crate::addr::Pa;
use crate::pci;
use crate::smmu::{
    CommandError, ContextError, Explanation, Misfit, ReleaseError, ShutDownError, StreamError,
    TakeOverError,
};
use crate::space::handover::StopError;
use crate::space::nesting::NestingError;
use crate::space::stage2::Stage2Error;
use crate::space::window::WindowError;
use crate::spec::event::Event;

/// Why a check did not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The machine lacks a device that the check needs.
    Missing(&'static str),
    /// There was no memory for the check.
    NoMemory,
    /// The SMMU was not taken over.
    TakeOver(TakeOverError),
    /// The SMMU did not shut down.
    ShutDown(ShutDownError),
    /// A stream was not changed.
    Stream(StreamError),
    /// A group of streams was not taken from its owner.
    Stop(StopError),
    /// A context was not changed.
    Context(ContextError),
    /// A device was not attached or detached.
    Nesting(NestingError),
    /// There is no window.
    Window(WindowError),
    /// The SMMU cannot translate by that stage 1.
    Misfit(Misfit),
    /// A guest's CPU reaches what it should not, or does not what it should.
    Cpu {
        /// What was wanted of it.
        wanted: &'static str,
        /// What came: ESR_EL2.
        syndrome: u64,
    },
    /// A release was not confirmed.
    Release(ReleaseError),
    /// Commands were not confirmed.
    Command(CommandError),
    /// A stage 2 was not made or changed.
    Stage2(Stage2Error),
    /// A device was not reached.
    Pci(pci::Refusal),
    /// A DMA write reached memory that it should not have.
    Landed {
        /// Where.
        at: Pa,
    },
    /// A DMA write reached memory that it should not have, whatever the tables say.
    Reached {
        /// Where.
        at: Pa,
        /// What the tables say.
        because: Explanation,
    },
    /// A DMA write did not reach the memory that it should have.
    DidNotReach {
        /// Where.
        at: Pa,
        /// What is there instead.
        found: u64,
        /// What the tables say.
        because: Explanation,
    },
    /// A DMA read did not bring what is in memory.
    ReadOther {
        /// What came.
        found: u64,
    },
    /// No event came.
    NoEvent {
        /// What was waited for.
        wanted: &'static str,
    },
    /// An event came that says something else.
    WrongEvent {
        /// What was waited for.
        wanted: &'static str,
        /// What came.
        found: Event,
    },
    /// The controller did not identify itself.
    Nvme {
        /// What it did.
        error: NvmeError,
        /// What the tables say of the first address that it was given and cannot use, if there is
        /// such a one.
        because: Option<Explanation>,
    },
    /// What was expected did not happen.
    Not(&'static str),
}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from!(
    TakeOverError => TakeOver,
    ShutDownError => ShutDown,
    StreamError => Stream,
    StopError => Stop,
    ContextError => Context,
    NestingError => Nesting,
    WindowError => Window,
    Misfit => Misfit,
    ReleaseError => Release,
    CommandError => Command,
    Stage2Error => Stage2,
    pci::Refusal => Pci
);

impl From<NvmeError> for Failure {
    fn from(error: NvmeError) -> Self {
        Self::Nvme {
            error,
            because: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(what) => write!(f, "there is no {what}"),
            Self::NoMemory => f.write_str("no memory for it"),
            Self::TakeOver(error) => write!(f, "taking over: {error}"),
            Self::ShutDown(error) => write!(f, "shutting down: {error}"),
            Self::Stream(error) => error.fmt(f),
            Self::Stop(error) => error.fmt(f),
            Self::Context(error) => error.fmt(f),
            Self::Nesting(error) => error.fmt(f),
            Self::Window(error) => error.fmt(f),
            Self::Misfit(misfit) => misfit.fmt(f),
            Self::Cpu { wanted, syndrome } => write!(f, "{wanted}: ESR_EL2 is {syndrome:#x}"),
            Self::Release(error) => error.fmt(f),
            Self::Command(error) => error.fmt(f),
            Self::Stage2(error) => write!(f, "stage 2: {error}"),
            Self::Pci(error) => error.fmt(f),
            Self::Landed { at } => write!(f, "DMA reached {at}"),
            Self::Reached { at, because } => write!(f, "DMA reached {at}\n  {because}"),
            Self::DidNotReach { at, found, because } => {
                write!(
                    f,
                    "DMA did not reach {at}: {found:#x} is there\n  {because}"
                )
            }
            Self::ReadOther { found } => write!(f, "DMA read {found:#x}"),
            Self::NoEvent { wanted } => write!(f, "no event came; wanted: {wanted}"),
            Self::WrongEvent { wanted, found } => write!(f, "wanted: {wanted}; came: {found}"),
            Self::Nvme {
                error,
                because: Some(because),
            } => write!(f, "{error}\n  {because}"),
            Self::Nvme { error, .. } => error.fmt(f),
            Self::Not(what) => write!(f, "{what}: it did not"),
        }
    }
}
