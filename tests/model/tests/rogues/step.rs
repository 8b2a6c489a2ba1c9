//! What a driver does, one step at a time, and how a rogue does it differently.

use std::fmt;

use smmu_model::Claim;

use super::driver::Driver;

/// A step. The driver lists the steps of an operation, then takes them in order.
#[derive(Clone, Copy)]
pub(crate) enum Step {
    /// Stores a 64-bit word.
    Store(u64, u64),
    /// Cleans the caches from an address on, so many bytes; only where the SMMU does not snoop.
    Clean(u64, u64),
    /// Makes what was stored (and cleaned) visible.
    Barrier,
    /// Makes later loads see what a register vouched for.
    Observe,
    /// Ends earlier loads before a later register write.
    Release,
    /// Reads the event record at an address.
    ReadEvent(u64),
    /// Adds a command to the batch.
    Command([u64; 2]),
    /// Adds a SYNC to the batch, submits it and waits until it is consumed.
    Sync,
    /// Submits the batch and does not wait.
    Submit,
    /// Waits for room for so many commands more.
    AwaitRoom(u32),
    /// Stores the command to its place in the queue.
    Enter(u64, [u64; 2]),
    /// Writes CMDQ_PROD.
    Announce(u32),
    /// Waits until every command is consumed.
    AwaitConsumed,
    /// Waits for something else.
    Await(fn(&Driver) -> bool),
    /// Writes a 32-bit register.
    Write(u64, u32),
    /// Writes a 64-bit register.
    Write64(u64, u64),
    /// Waits until a register reads so under a mask.
    AwaitRegister(u64, u32, u32),
    /// States what only the driver knows.
    Claim(Claim),
    /// Anything else.
    Do(fn(&mut Driver)),
}

impl fmt::Debug for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(pa, value) => write!(to, "store {value:#x} at {pa:#x}"),
            Self::Clean(pa, bytes) => write!(to, "clean {bytes:#x} at {pa:#x}"),
            Self::Barrier => write!(to, "barrier"),
            Self::Observe => write!(to, "observe"),
            Self::Release => write!(to, "release"),
            Self::ReadEvent(pa) => write!(to, "read the record at {pa:#x}"),
            Self::Command(words) => write!(to, "command {:#x} {:#x}", words[0], words[1]),
            Self::Sync => write!(to, "sync"),
            Self::Submit => write!(to, "submit"),
            Self::AwaitRoom(commands) => write!(to, "await room for {commands}"),
            Self::Enter(pa, words) => {
                write!(to, "enter {:#x} {:#x} at {pa:#x}", words[0], words[1])
            }
            Self::Announce(producer) => write!(to, "announce {producer:#x}"),
            Self::AwaitConsumed => write!(to, "await consumed"),
            Self::Await(_) => write!(to, "await"),
            Self::Write(at, value) => write!(to, "write {value:#x} to {at:#x}"),
            Self::Write64(at, value) => write!(to, "write {value:#x} to {at:#x}"),
            Self::AwaitRegister(at, mask, value) => {
                write!(to, "await {value:#x} of {mask:#x} at {at:#x}")
            }
            Self::Claim(claim) => write!(to, "claim {claim:?}"),
            Self::Do(_) => write!(to, "do"),
        }
    }
}

/// What a list of steps is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// Registers and queues, up to SMMUEN.
    BringUp,
    /// Putting commands into the queue.
    Submit,
    /// Waiting for the end of a batch.
    Finish,
    /// An STE becomes valid.
    PublishSte,
    /// An STE that is live changes.
    ChangeSte,
    /// An STE becomes invalid, and everything that came through it is forgotten.
    RetractSte,
    /// An array of STEs is linked into the level-1 table.
    AddArray,
    /// An array of STEs is unlinked.
    RemoveArray,
    /// A CD becomes valid.
    PublishCd,
    /// A CD that is live changes.
    ChangeCd,
    /// A CD becomes invalid, and everything of it is forgotten.
    RetractCd,
    /// A leaf of CDs is linked into the level-1 table.
    AddLeaf,
    /// A leaf of CDs is unlinked.
    RemoveLeaf,
    /// A space is released: all its CDs become quiet.
    Release,
    /// A stage-1 or stage-2 page becomes valid.
    Map,
    /// Stage-1 pages become invalid.
    Unmap,
    /// A stage-1 table is unlinked.
    FreeTable,
    /// Stage-2 pages become invalid.
    Stage2Unmap,
    /// A page is exchanged for another.
    Exchange,
    /// Frames are given back.
    Free,
    /// A tag is given to somebody else.
    TakeTag,
    /// An error is acknowledged.
    Acknowledge,
    /// A record of the event queue is taken.
    TakeEvent,
    /// A device is allowed to ask for translations, or no longer.
    ChangeAts,
    /// What is stalled is ended, its stream with it.
    EndStalls,
    /// The SMMU is switched off.
    ShutDown,
}

type Change = Box<dyn Fn(&mut Vec<Step>) -> bool>;

/// The one thing that a rogue does differently.
pub(crate) struct Edit {
    operation: Operation,
    change: Change,
    /// How often it was different.
    hits: u32,
}

impl Edit {
    /// `change` alters the steps of `operation` and says whether it did.
    pub(crate) fn new(
        operation: Operation,
        change: impl Fn(&mut Vec<Step>) -> bool + 'static,
    ) -> Self {
        Self {
            operation,
            change: Box::new(change),
            hits: 0,
        }
    }

    /// The steps that `which` picks are not taken.
    pub(crate) fn forget(operation: Operation, which: impl Fn(&Step) -> bool + 'static) -> Self {
        Self::new(operation, move |steps| {
            let before = steps.len();
            steps.retain(|step| !which(step));
            steps.len() != before
        })
    }

    /// The first step that `which` picks is not taken, if it comes after one that `after` picks.
    pub(crate) fn forget_after(
        operation: Operation,
        after: impl Fn(&Step) -> bool + 'static,
        which: impl Fn(&Step) -> bool + 'static,
    ) -> Self {
        Self::new(operation, move |steps| {
            let Some(start) = steps.iter().position(&after) else {
                return false;
            };
            let found = steps.iter().skip(start + 1).position(&which);
            found.is_some_and(|at| {
                steps.remove(start + 1 + at);
                true
            })
        })
    }

    /// The steps that `which` picks are replaced by what `by` makes of them.
    pub(crate) fn replace(
        operation: Operation,
        which: impl Fn(&Step) -> bool + 'static,
        by: impl Fn(&Step) -> Step + 'static,
    ) -> Self {
        Self::new(operation, move |steps| {
            let mut hit = false;
            for step in steps.iter_mut().filter(|step| which(step)) {
                *step = by(step);
                hit = true;
            }
            hit
        })
    }

    /// The first step that `which` picks is taken before the first that `before` picks.
    pub(crate) fn advance(
        operation: Operation,
        which: impl Fn(&Step) -> bool + 'static,
        before: impl Fn(&Step) -> bool + 'static,
    ) -> Self {
        Self::new(operation, move |steps| {
            let from = steps.iter().position(&which);
            let to = steps.iter().position(&before);
            match (from, to) {
                (Some(from), Some(to)) if to < from => {
                    let step = steps.remove(from);
                    steps.insert(to, step);
                    true
                }
                _ => false,
            }
        })
    }

    /// Alters the steps, if they are those of its operation.
    pub(crate) fn apply(&mut self, operation: Operation, steps: &mut Vec<Step>) {
        if operation == self.operation && (self.change)(steps) {
            self.hits += 1;
        }
    }

    /// How many lists of steps were altered.
    pub(crate) fn hits(&self) -> u32 {
        self.hits
    }
}

/// A command with this opcode.
pub(crate) fn command(opcode: u64) -> impl Fn(&Step) -> bool {
    move |step| matches!(step, Step::Command([low, _]) if low & 0xff == opcode)
}

/// A SYNC.
pub(crate) fn sync(step: &Step) -> bool {
    matches!(step, Step::Sync)
}

/// A barrier.
pub(crate) fn barrier(step: &Step) -> bool {
    matches!(step, Step::Barrier)
}

/// A clean.
pub(crate) fn clean(step: &Step) -> bool {
    matches!(step, Step::Clean(..))
}

/// A store.
pub(crate) fn store(step: &Step) -> bool {
    matches!(step, Step::Store(..))
}

/// A claim.
pub(crate) fn claim(step: &Step) -> bool {
    matches!(step, Step::Claim(_))
}

/// A write of this register.
pub(crate) fn write_to(register: u64) -> impl Fn(&Step) -> bool {
    move |step| matches!(step, Step::Write(at, _) | Step::Write64(at, _) if *at == register)
}
