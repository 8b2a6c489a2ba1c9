//! Why something was refused, or not confirmed, and what is true then.

use core::fmt;

use super::hosted::WindowFault;
use super::ids::{DeviceId, SmmuId};
use super::numbers::NoNumber;
use super::stage2::Stage2Error;
use super::window::WindowError;
use crate::addr::Ipa;
use crate::hw::NoRoom;
use crate::id::{Pasid, StreamId};
use crate::smmu::{CommandError, ContextsError, Misfit, RecoverError, StreamError, Unwalkable};

/// Why a call of this room did not do what it was asked.
///
/// Every variant but [`NotConfirmed`](Self::NotConfirmed), [`NotReset`](Self::NotReset) and
/// [`CachesKept`](Self::CachesKept) is a refusal: nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceError {
    /// There is no such guest, or none any more.
    NoSuchGuest,
    /// There is no such group, or none any more.
    NoSuchGroup,
    /// There is no such device, or none any more.
    NoSuchDevice,
    /// There is no such space, or none any more: it was released and nobody holds it.
    NoSuchSpace,
    /// There is no such handle: it was dropped, or its guest is gone.
    NoSuchHandle,
    /// There is no such fault, or it was answered already: by the guest, by a release, or because
    /// its time was up.
    NoSuchFault,
    /// No SMMU of that number was added.
    NoSuchSmmu,
    /// An SMMU of that number was added before.
    SmmuTaken,
    /// The space is another guest's.
    ForeignSpace,
    /// The handle is another guest's. It still counts for the guest that it belongs to.
    ForeignHandle,
    /// The fault is another guest's.
    ForeignFault,
    /// The guest does not own the device's group.
    NotOwner,
    /// The group has an owner, or somebody claims it who came first.
    Owned,
    /// The ownership that was shown is not that of the group now: its owner is gone.
    StaleOwnership,
    /// A device of the group is still attached, so that it cannot change hands.
    GroupAttached {
        /// The device.
        device: DeviceId,
    },
    /// A device of the group is behind no SMMU: no guest can be given it.
    Unprotected {
        /// The device.
        device: DeviceId,
    },
    /// Discovery is over, and the SMMU of a device of the group never came.
    NeverCame {
        /// The SMMU.
        smmu: SmmuId,
    },
    /// The SMMU of the device is not there yet.
    NotYet {
        /// The SMMU.
        smmu: SmmuId,
    },
    /// A stream of the device is another device's.
    StreamTaken {
        /// The stream.
        stream: StreamId,
    },
    /// A device has 1 to 16 streams.
    Streams {
        /// How many there were to be.
        count: usize,
    },
    /// A group has at most 16 devices.
    GroupFull,
    /// The device is attached already.
    Attached,
    /// The device is not attached.
    NotAttached,
    /// Spaces are bound to the device.
    Bound,
    /// The device was cut off after misbehaviour; only a reset brings it back.
    Fenced,
    /// The SMMU was stopped, or did not confirm something of the guest's memory; only
    /// [`recover`](super::Iommu::recover) brings it back.
    SmmuDown {
        /// The SMMU.
        smmu: SmmuId,
    },
    /// The guest is going, or its memory is lost.
    GuestEnding,
    /// The space was released.
    Released,
    /// The space was released before. It is as that release left it.
    AlreadyReleased,
    /// The device, or its SMMU, has no PASIDs, or it was attached without.
    NoPasids,
    /// The device has fewer bits of PASID than the space's number.
    PasidTooWide {
        /// The number.
        pasid: Pasid,
        /// Bits that the device's contexts have.
        bits: u8,
    },
    /// The device is bound in the other way: by PASID, or with its whole stream.
    BoundOtherwise,
    /// The CD of the number was not retracted: publishing over it would be two owners.
    PublishOverLive,
    /// The SMMU cannot walk the space's stage 1.
    Misfit {
        /// The SMMU.
        smmu: SmmuId,
        /// Why.
        why: Misfit,
    },
    /// The SMMU cannot walk the guest's stage 2.
    Unwalkable {
        /// The SMMU.
        smmu: SmmuId,
        /// Why.
        why: Unwalkable,
    },
    /// The device's contexts cannot be so.
    Contexts(ContextsError),
    /// The device's streams refuse.
    Stream(StreamError),
    /// The stage 2 refuses.
    Stage2(Stage2Error),
    /// The window of CDs refuses.
    Window(WindowError),
    /// The guest's tables are the host's own, who maps and unmaps there.
    HostsTables,
    /// The guest's tables are ours: there is no change of the host's.
    NotHosts,
    /// The window is not aligned to its size, or not within the guest's addresses.
    NoSuchWindow,
    /// The host's tables do not show the window as they must.
    WindowNotMapped {
        /// The first page of which that is so.
        ipa: Ipa,
        /// What is wrong with it.
        why: WindowFault,
    },
    /// The VMID is another guest's.
    VmidTaken,
    /// Every PASID that was asked for is taken: live, parked, draining or lost.
    NoPasid,
    /// The PASID that was asked for is taken.
    PasidTaken,
    /// There is no such PASID for this guest.
    PasidOutOfRange,
    /// All ASIDs of the guest are taken.
    NoAsid,
    /// All VMIDs are taken.
    NoVmid,
    /// No memory.
    NoFrames {
        /// How many bytes were asked for in one piece, as a power of two.
        log2_bytes: u8,
    },
    /// There are as many of them as there can be.
    Full,
    /// The guest has as many of these as it may.
    Quota(Quantity),
    /// Another CPU's operation on the same object did not end in time.
    Busy {
        /// How long was waited, in microseconds.
        waited_us: u64,
    },
    /// The hardware did not confirm. What was involved is lost until [`recover`](super::Iommu::recover)
    /// proves it: numbers and memory stay out of use, and what could still reach memory is fenced.
    NotConfirmed {
        /// The SMMU; the first of several.
        smmu: SmmuId,
        /// Why.
        error: CommandError,
        /// How what could still reach memory was stopped.
        fence: Fence,
    },
    /// Memory of entries did not hold what was stored: somebody else writes there, or it fails. What
    /// was involved is lost, as with [`NotConfirmed`](Self::NotConfirmed).
    NotHeld {
        /// The SMMU.
        smmu: SmmuId,
        /// How what could still reach memory was stopped.
        fence: Fence,
    },
    /// An SMMU was not recovered: nothing was given back, and it stays stopped. Ask again later.
    NotRecovered {
        /// The SMMU.
        smmu: SmmuId,
        /// Why.
        error: RecoverError,
    },
    /// A device kept translations that it was told to drop. It is fenced, and what it was bound to
    /// is lost until it was reset; nothing else is.
    CachesKept {
        /// The device; the first of several.
        device: DeviceId,
        /// How it was stopped.
        fence: Fence,
    },
    /// A device was not reset: its streams abort, and nobody can have it.
    NotReset {
        /// The device.
        device: DeviceId,
        /// What the host says.
        because: &'static str,
    },
}

/// What there is a quota of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantity {
    /// Spaces, parked and draining ones too.
    Spaces,
    /// Bindings.
    Bindings,
    /// Handles.
    Handles,
    /// Pages of stage-2 tables.
    Tables,
}

/// How what did not obey was stopped: the smallest fence that works.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fence {
    /// Nothing had to be: what was not confirmed lets nothing through.
    NotNeeded,
    /// The devices were cut off above the SMMU.
    Port,
    /// The devices' streams abort, confirmed.
    Stream,
    /// The SMMU was stopped, with every guest behind it.
    Smmu,
    /// Nothing worked: the devices may go on. Stop the machine.
    Failed,
}

impl Fence {
    /// The weaker of both: what can be said of two things that were fenced each so.
    pub(super) const fn and(self, other: Self) -> Self {
        if self as u8 > other as u8 {
            self
        } else {
            other
        }
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNeeded => "no fence needed",
            Self::Port => "devices cut off at their ports",
            Self::Stream => "the streams abort",
            Self::Smmu => "the SMMU is stopped",
            Self::Failed => "NOT FENCED: devices may still reach memory",
        })
    }
}

impl fmt::Display for WindowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMapped => f.write_str("nothing is mapped"),
            Self::OtherMemory { pa } => write!(f, "other memory is mapped, {pa}"),
            Self::Writable => f.write_str("it can be written"),
            Self::Attributes => f.write_str("it is not readable write-back memory"),
            Self::Block => f.write_str("it is part of a block"),
            Self::Unreadable { at } => write!(f, "a table at {at} cannot be read"),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spaces => "spaces",
            Self::Bindings => "bindings",
            Self::Handles => "handles",
            Self::Tables => "pages of tables",
        })
    }
}

impl fmt::Display for SpaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchGuest => f.write_str("no such guest"),
            Self::NoSuchGroup => f.write_str("no such group"),
            Self::NoSuchDevice => f.write_str("no such device"),
            Self::NoSuchSpace => f.write_str("no such space"),
            Self::NoSuchHandle => f.write_str("no such handle"),
            Self::NoSuchFault => f.write_str("no such fault, or it was answered"),
            Self::NoSuchSmmu => f.write_str("no such SMMU"),
            Self::SmmuTaken => f.write_str("that SMMU was added before"),
            Self::ForeignSpace => f.write_str("the space is another guest's"),
            Self::ForeignHandle => f.write_str("the handle is another guest's"),
            Self::ForeignFault => f.write_str("the fault is another guest's"),
            Self::NotOwner => f.write_str("the guest does not own the device's group"),
            Self::Owned => f.write_str("the group has an owner"),
            Self::StaleOwnership => f.write_str("the group has another owner by now, or none"),
            Self::GroupAttached { device } => write!(f, "{device:?} of the group is attached"),
            Self::Unprotected { device } => write!(f, "{device:?} is behind no SMMU"),
            Self::NeverCame { smmu } => write!(f, "SMMU {smmu} never came"),
            Self::NotYet { smmu } => write!(f, "SMMU {smmu} is not there yet"),
            Self::StreamTaken { stream } => write!(f, "stream {stream} is another device's"),
            Self::Streams { count } => write!(f, "a device cannot have {count} streams"),
            Self::GroupFull => f.write_str("the group has as many devices as it can"),
            Self::Attached => f.write_str("the device is attached already"),
            Self::NotAttached => f.write_str("the device is not attached"),
            Self::Bound => f.write_str("spaces are bound to the device"),
            Self::Fenced => f.write_str("the device is fenced until it is reset"),
            Self::SmmuDown { smmu } => write!(f, "SMMU {smmu} is stopped until it is recovered"),
            Self::GuestEnding => f.write_str("the guest is ending"),
            Self::Released => f.write_str("the space was released"),
            Self::AlreadyReleased => f.write_str("the space was released before"),
            Self::NoPasids => f.write_str("the device has no PASIDs"),
            Self::PasidTooWide { pasid, bits } => {
                write!(
                    f,
                    "PASID {:#x} is wider than the device's {bits} bits",
                    pasid.as_u32()
                )
            }
            Self::BoundOtherwise => f.write_str("the device is bound in the other way"),
            Self::PublishOverLive => f.write_str("the CD was not retracted"),
            Self::Misfit { smmu, why } => write!(f, "SMMU {smmu} cannot walk that stage 1: {why}"),
            Self::Unwalkable { smmu, why } => {
                write!(f, "SMMU {smmu} cannot walk that stage 2: {why}")
            }
            Self::Contexts(why) => why.fmt(f),
            Self::Stream(why) => why.fmt(f),
            Self::Stage2(why) => why.fmt(f),
            Self::Window(why) => why.fmt(f),
            Self::HostsTables => f.write_str("the tables are the host's own"),
            Self::NotHosts => f.write_str("the tables are not the host's"),
            Self::NoSuchWindow => f.write_str("the window cannot be there"),
            Self::WindowNotMapped { ipa, why } => {
                write!(f, "the window is not mapped as it must be at {ipa}: {why}")
            }
            Self::VmidTaken => f.write_str("the VMID is another guest's"),
            Self::NoPasid => f.write_str("all PASIDs are taken"),
            Self::PasidTaken => f.write_str("the PASID is taken"),
            Self::PasidOutOfRange => f.write_str("the guest has no such PASID"),
            Self::NoAsid => f.write_str("all ASIDs are taken"),
            Self::NoVmid => f.write_str("all VMIDs are taken"),
            Self::NoFrames { log2_bytes } => write!(f, "no memory: 2^{log2_bytes} bytes"),
            Self::Full => f.write_str("there are as many as there can be"),
            Self::Quota(what) => write!(f, "the guest has as many {what} as it may"),
            Self::Busy { waited_us } => {
                write!(f, "another CPU was not done with it after {waited_us} us")
            }
            Self::NotConfirmed { smmu, error, fence } => {
                write!(f, "SMMU {smmu} did not confirm, {fence}: {error}")
            }
            Self::NotHeld { smmu, fence } => {
                write!(
                    f,
                    "entries of SMMU {smmu} do not hold what was stored, {fence}"
                )
            }
            Self::NotRecovered { smmu, error } => {
                write!(f, "SMMU {smmu} was not recovered: {error}")
            }
            Self::CachesKept { device, fence } => {
                write!(f, "{device:?} kept its translations, {fence}")
            }
            Self::NotReset { device, because } => write!(f, "{device:?} was not reset: {because}"),
        }
    }
}

impl core::error::Error for SpaceError {}

impl From<NoRoom> for SpaceError {
    fn from(why: NoRoom) -> Self {
        match why {
            NoRoom::NoFrames { log2_bytes } => Self::NoFrames { log2_bytes },
            NoRoom::Full => Self::Full,
        }
    }
}

impl SpaceError {
    pub(super) const fn of_pasid(why: NoNumber) -> Self {
        match why {
            NoNumber::Exhausted => Self::NoPasid,
            NoNumber::Taken | NoNumber::Retired => Self::PasidTaken,
            NoNumber::OutOfRange => Self::PasidOutOfRange,
            NoNumber::NoFrames { log2_bytes } => Self::NoFrames { log2_bytes },
        }
    }

    pub(super) const fn of_asid(why: NoNumber) -> Self {
        match why {
            NoNumber::NoFrames { log2_bytes } => Self::NoFrames { log2_bytes },
            _ => Self::NoAsid,
        }
    }

    pub(super) const fn of_vmid(why: NoNumber) -> Self {
        match why {
            NoNumber::NoFrames { log2_bytes } => Self::NoFrames { log2_bytes },
            _ => Self::NoVmid,
        }
    }
}
