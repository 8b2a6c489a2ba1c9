//! Why a call was refused, or not confirmed: one code for each reason.

use super::NotItsMemory;
use crate::addr::Ipa;
use crate::smmu::{Misfit, Unwalkable};
use crate::space::{DeviceId, Fence, Quantity, SmmuId, SpaceError};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a call was refused, or not confirmed: what `x0` is then. `ABI.md` says what each
        /// means, and what `x1` to `x3` say with it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(i64)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// All of them, with their names in `ABI.md`.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, $text),)*];
        }
    };
}

codes! {
    /// There is no such function.
    NotSupported = -1, "NOT_SUPPORTED";

    /// An argument has no meaning; which.
    BadArgument = -16, "BAD_ARGUMENT";
    /// The TCR asks for what no device can be given; which bits.
    BadTcr = -17, "BAD_TCR";
    /// The guest has no memory of its own there; where.
    NotItsMemory = -18, "NOT_ITS_MEMORY";
    /// The guest has no such device.
    NoSuchDevice = -19, "NO_SUCH_DEVICE";
    /// There is no such space, or none any more.
    NoSuchSpace = -20, "NO_SUCH_SPACE";
    /// There is no such handle, or none any more.
    NoSuchHandle = -21, "NO_SUCH_HANDLE";
    /// There is no such fault, or it was answered.
    NoSuchFault = -22, "NO_SUCH_FAULT";
    /// The space is another guest's.
    ForeignSpace = -23, "FOREIGN_SPACE";
    /// The handle is another guest's.
    ForeignHandle = -24, "FOREIGN_HANDLE";
    /// The fault is another guest's.
    ForeignFault = -25, "FOREIGN_FAULT";
    /// The guest does not own the device's group.
    NotOwner = -26, "NOT_OWNER";
    /// The device is attached already.
    Attached = -27, "ATTACHED";
    /// The device is not attached.
    NotAttached = -28, "NOT_ATTACHED";
    /// Spaces are bound to the device.
    Bound = -29, "BOUND";
    /// The device was cut off; a reset brings it back.
    Fenced = -30, "FENCED";
    /// The SMMU is stopped until it was recovered.
    SmmuDown = -31, "SMMU_DOWN";
    /// The SMMU is not there yet.
    NotYet = -32, "NOT_YET";
    /// The device is behind no SMMU.
    Unprotected = -33, "UNPROTECTED";
    /// The guest is ending.
    GuestEnding = -34, "GUEST_ENDING";
    /// The space was released, or is being released.
    Released = -35, "RELEASED";
    /// The space was released before.
    AlreadyReleased = -36, "ALREADY_RELEASED";
    /// The device, or its SMMU, has no PASIDs.
    NoPasids = -37, "NO_PASIDS";
    /// The space's PASID has more bits than the device's.
    PasidTooWide = -38, "PASID_TOO_WIDE";
    /// The device is bound in the other way.
    BoundOtherwise = -39, "BOUND_OTHERWISE";
    /// The CD of that number was not retracted.
    PublishOverLive = -40, "PUBLISH_OVER_LIVE";
    /// The SMMU cannot walk that stage 1.
    Misfit = -41, "MISFIT";
    /// The SMMU cannot walk the guest's stage 2.
    Unwalkable = -42, "UNWALKABLE";
    /// The device's contexts cannot be so.
    Contexts = -43, "CONTEXTS";
    /// The device's streams refuse.
    Stream = -44, "STREAM";
    /// The stage 2 refuses.
    Stage2 = -45, "STAGE2";
    /// The window of CDs refuses.
    Window = -46, "WINDOW";
    /// All PASIDs are taken.
    NoPasid = -47, "NO_PASID";
    /// The PASID is taken.
    PasidTaken = -48, "PASID_TAKEN";
    /// The guest has no such PASID.
    PasidOutOfRange = -49, "PASID_OUT_OF_RANGE";
    /// All ASIDs are taken.
    NoAsid = -50, "NO_ASID";
    /// EL2 has no memory for it.
    NoMemory = -51, "NO_MEMORY";
    /// There are as many as there can be.
    Full = -52, "FULL";
    /// The guest has as many spaces as it may.
    QuotaSpaces = -53, "QUOTA_SPACES";
    /// The guest has as many bindings as it may.
    QuotaBindings = -54, "QUOTA_BINDINGS";
    /// The guest has as many handles as it may.
    QuotaHandles = -55, "QUOTA_HANDLES";
    /// The guest has as many pages of tables as it may.
    QuotaTables = -56, "QUOTA_TABLES";
    /// Another CPU's call on the same object was not done in time.
    Busy = -57, "BUSY";
    /// The window is not mapped as it must be.
    WindowNotMapped = -58, "WINDOW_NOT_MAPPED";
    /// The SMMU of the device never came.
    NeverCame = -59, "NEVER_CAME";
    /// There is no such guest any more.
    NoSuchGuest = -60, "NO_SUCH_GUEST";

    /// The hardware did not confirm.
    NotConfirmed = -64, "NOT_CONFIRMED";
    /// Memory of entries did not hold what was stored.
    NotHeld = -65, "NOT_HELD";
    /// A device kept translations that it was told to drop.
    CachesKept = -66, "CACHES_KEPT";
    /// The device was not reset.
    NotReset = -67, "NOT_RESET";
    /// The SMMU was not recovered.
    NotRecovered = -68, "NOT_RECOVERED";

    /// There is no such group.
    NoSuchGroup = -96, "NO_SUCH_GROUP";
    /// There is no such SMMU.
    NoSuchSmmu = -97, "NO_SUCH_SMMU";
    /// The SMMU was added before.
    SmmuTaken = -98, "SMMU_TAKEN";
    /// The group has an owner.
    Owned = -99, "OWNED";
    /// The ownership is stale.
    StaleOwnership = -100, "STALE_OWNERSHIP";
    /// A device of the group is attached.
    GroupAttached = -101, "GROUP_ATTACHED";
    /// A stream is another device's.
    StreamTaken = -102, "STREAM_TAKEN";
    /// A device cannot have so many streams.
    Streams = -103, "STREAMS";
    /// The group has as many devices as it can.
    GroupFull = -104, "GROUP_FULL";
    /// The tables are the host's own.
    HostsTables = -105, "HOSTS_TABLES";
    /// The tables are not the host's.
    NotHosts = -106, "NOT_HOSTS";
    /// The window cannot be there.
    NoSuchWindow = -107, "NO_SUCH_WINDOW";
    /// The VMID is another guest's.
    VmidTaken = -108, "VMID_TAKEN";
    /// All VMIDs are taken.
    NoVmid = -109, "NO_VMID";
}

/// A refusal as the guest gets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why: `x0`.
    pub code: Code,
    /// What else there is to say: `x1` to `x3`.
    pub details: [u64; 3],
}

impl From<Code> for Refused {
    fn from(code: Code) -> Self {
        Self {
            code,
            details: [0; 3],
        }
    }
}

impl From<NotItsMemory> for Refused {
    fn from(NotItsMemory { at }: NotItsMemory) -> Self {
        Self::with(Code::NotItsMemory, [at.as_u64(), 0, 0])
    }
}

impl Refused {
    pub(super) const fn with(code: Code, details: [u64; 3]) -> Self {
        Self { code, details }
    }

    /// The argument in this register has no meaning.
    pub(super) const fn argument(register: u64) -> Self {
        Self::with(Code::BadArgument, [register, 0, 0])
    }

    /// What the library refused, or did not get confirmed; `number` is the guest's own for a device.
    pub fn of(error: SpaceError, number: impl Fn(DeviceId) -> u64) -> Self {
        let smmu = |code, smmu: SmmuId| Self::with(code, [smmu.as_u8().into(), 0, 0]);
        let fenced = |code, of: u64, fence| Self::with(code, [of, fence_word(fence), 0]);
        match error {
            SpaceError::SmmuDown { smmu: id } => smmu(Code::SmmuDown, id),
            SpaceError::NotYet { smmu: id } => smmu(Code::NotYet, id),
            SpaceError::NeverCame { smmu: id } => smmu(Code::NeverCame, id),
            SpaceError::NotRecovered { smmu: id, .. } => smmu(Code::NotRecovered, id),
            SpaceError::PasidTooWide { pasid, bits } => {
                Self::with(Code::PasidTooWide, [pasid.as_u32().into(), bits.into(), 0])
            }
            SpaceError::Misfit { smmu: id, why } => {
                let (why, value) = misfit_words(why);
                Self::with(Code::Misfit, [id.as_u8().into(), why, value])
            }
            SpaceError::Unwalkable { smmu: id, why } => {
                let why = unwalkable_word(why);
                Self::with(Code::Unwalkable, [id.as_u8().into(), why, 0])
            }
            SpaceError::NoFrames { log2_bytes } => {
                Self::with(Code::NoMemory, [log2_bytes.into(), 0, 0])
            }
            SpaceError::Busy { waited_us } => Self::with(Code::Busy, [waited_us, 0, 0]),
            SpaceError::WindowNotMapped { ipa, .. } => at(Code::WindowNotMapped, ipa),
            SpaceError::NotConfirmed {
                smmu: id, fence, ..
            } => fenced(Code::NotConfirmed, id.as_u8().into(), fence),
            SpaceError::NotHeld { smmu: id, fence } => {
                fenced(Code::NotHeld, id.as_u8().into(), fence)
            }
            SpaceError::CachesKept { device, fence } => {
                fenced(Code::CachesKept, number(device), fence)
            }
            SpaceError::NotReset { device, .. } => {
                Self::with(Code::NotReset, [number(device), 0, 0])
            }
            SpaceError::GroupAttached { device } => {
                Self::with(Code::GroupAttached, [number(device), 0, 0])
            }
            SpaceError::Unprotected { device } => {
                Self::with(Code::Unprotected, [number(device), 0, 0])
            }
            error => bare(error).into(),
        }
    }
}

const fn at(code: Code, ipa: Ipa) -> Refused {
    Refused::with(code, [ipa.as_u64(), 0, 0])
}

/// The code of an error; those that say more are told whole by [`Refused::of`].
const fn bare(error: SpaceError) -> Code {
    match error {
        SpaceError::NoSuchGuest => Code::NoSuchGuest,
        SpaceError::NoSuchGroup => Code::NoSuchGroup,
        SpaceError::NoSuchDevice => Code::NoSuchDevice,
        SpaceError::NoSuchSpace => Code::NoSuchSpace,
        SpaceError::NoSuchHandle => Code::NoSuchHandle,
        SpaceError::NoSuchFault => Code::NoSuchFault,
        SpaceError::NoSuchSmmu => Code::NoSuchSmmu,
        SpaceError::SmmuTaken => Code::SmmuTaken,
        SpaceError::ForeignSpace => Code::ForeignSpace,
        SpaceError::ForeignHandle => Code::ForeignHandle,
        SpaceError::ForeignFault => Code::ForeignFault,
        SpaceError::NotOwner => Code::NotOwner,
        SpaceError::Owned => Code::Owned,
        SpaceError::StaleOwnership => Code::StaleOwnership,
        SpaceError::GroupAttached { .. } => Code::GroupAttached,
        SpaceError::Unprotected { .. } => Code::Unprotected,
        SpaceError::NeverCame { .. } => Code::NeverCame,
        SpaceError::NotYet { .. } => Code::NotYet,
        SpaceError::StreamTaken { .. } => Code::StreamTaken,
        SpaceError::Streams { .. } => Code::Streams,
        SpaceError::GroupFull => Code::GroupFull,
        SpaceError::Attached => Code::Attached,
        SpaceError::NotAttached => Code::NotAttached,
        SpaceError::Bound => Code::Bound,
        SpaceError::Fenced => Code::Fenced,
        SpaceError::SmmuDown { .. } => Code::SmmuDown,
        SpaceError::GuestEnding => Code::GuestEnding,
        SpaceError::Released => Code::Released,
        SpaceError::AlreadyReleased => Code::AlreadyReleased,
        SpaceError::NoPasids => Code::NoPasids,
        SpaceError::PasidTooWide { .. } => Code::PasidTooWide,
        SpaceError::BoundOtherwise => Code::BoundOtherwise,
        SpaceError::PublishOverLive => Code::PublishOverLive,
        SpaceError::Misfit { .. } => Code::Misfit,
        SpaceError::Unwalkable { .. } => Code::Unwalkable,
        SpaceError::Contexts(_) => Code::Contexts,
        SpaceError::Stream(_) => Code::Stream,
        SpaceError::Stage2(_) => Code::Stage2,
        SpaceError::Window(_) => Code::Window,
        SpaceError::HostsTables => Code::HostsTables,
        SpaceError::NotHosts => Code::NotHosts,
        SpaceError::NoSuchWindow => Code::NoSuchWindow,
        SpaceError::WindowNotMapped { .. } => Code::WindowNotMapped,
        SpaceError::VmidTaken => Code::VmidTaken,
        SpaceError::NoPasid => Code::NoPasid,
        SpaceError::PasidTaken => Code::PasidTaken,
        SpaceError::PasidOutOfRange => Code::PasidOutOfRange,
        SpaceError::NoAsid => Code::NoAsid,
        SpaceError::NoVmid => Code::NoVmid,
        SpaceError::NoFrames { .. } => Code::NoMemory,
        SpaceError::Full => Code::Full,
        SpaceError::Quota(Quantity::Spaces) => Code::QuotaSpaces,
        SpaceError::Quota(Quantity::Bindings) => Code::QuotaBindings,
        SpaceError::Quota(Quantity::Handles) => Code::QuotaHandles,
        SpaceError::Quota(Quantity::Tables) => Code::QuotaTables,
        SpaceError::Busy { .. } => Code::Busy,
        SpaceError::NotConfirmed { .. } => Code::NotConfirmed,
        SpaceError::NotHeld { .. } => Code::NotHeld,
        SpaceError::NotRecovered { .. } => Code::NotRecovered,
        SpaceError::CachesKept { .. } => Code::CachesKept,
        SpaceError::NotReset { .. } => Code::NotReset,
    }
}

const fn fence_word(fence: Fence) -> u64 {
    match fence {
        Fence::NotNeeded => 0,
        Fence::Port => 1,
        Fence::Stream => 2,
        Fence::Smmu => 3,
        Fence::Failed => 4,
    }
}

/// Why an SMMU cannot walk a stage 1, and the value that it cannot.
const fn misfit_words(why: Misfit) -> (u64, u64) {
    match why {
        Misfit::NoStage1 => (1, 0),
        Misfit::SubstreamSize { bits, .. } => (2, bits as u64),
        Misfit::NoLeaves => (3, 0),
        Misfit::Granule { log2_granule } => (4, log2_granule as u64),
        Misfit::InputSize { va_bits } => (5, va_bits as u64),
        Misfit::OutputSize { output_bits } => (6, output_bits as u64),
        Misfit::Root { root } => (7, root.as_u64()),
        Misfit::AsidSize => (8, 0),
        Misfit::NoStalls => (9, 0),
        Misfit::NoAts => (10, 0),
        Misfit::NoSplitAts => (11, 0),
        Misfit::SplitAtsOfOneStage => (12, 0),
        Misfit::AtsWithStalls => (13, 0),
    }
}

const fn unwalkable_word(why: Unwalkable) -> u64 {
    match why {
        Unwalkable::Granule { .. } => 1,
        Unwalkable::OutputSize { .. } => 2,
        Unwalkable::VmidSize => 3,
        Unwalkable::NewTables => 4,
    }
}
