//! Why a call was refused, or not confirmed.

use core::fmt;

use super::types::Device;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a call was refused, or not confirmed.
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
    /// An argument has no meaning.
    BadArgument = -16, "BAD_ARGUMENT";
    /// The TCR asks for what no device can be given.
    BadTcr = -17, "BAD_TCR";
    /// No memory of the guest's own there.
    NotItsMemory = -18, "NOT_ITS_MEMORY";
    /// The guest has no device of that number.
    NoSuchDevice = -19, "NO_SUCH_DEVICE";
    /// No such space, or none any more: released and nobody holds it.
    NoSuchSpace = -20, "NO_SUCH_SPACE";
    /// No such handle, or it was dropped.
    NoSuchHandle = -21, "NO_SUCH_HANDLE";
    /// No such fault, or it was answered.
    NoSuchFault = -22, "NO_SUCH_FAULT";
    /// The space is another guest's.
    ForeignSpace = -23, "FOREIGN_SPACE";
    /// The handle is another guest's.
    ForeignHandle = -24, "FOREIGN_HANDLE";
    /// The fault is another guest's.
    ForeignFault = -25, "FOREIGN_FAULT";
    /// The guest does not own the device's group any more.
    NotOwner = -26, "NOT_OWNER";
    /// The device is attached already.
    Attached = -27, "ATTACHED";
    /// The device is not attached.
    NotAttached = -28, "NOT_ATTACHED";
    /// Spaces are bound to the device.
    Bound = -29, "BOUND";
    /// The device was cut off after misbehaviour; `device_reset` brings it back.
    Fenced = -30, "FENCED";
    /// The SMMU was stopped, until EL2 recovers it.
    SmmuDown = -31, "SMMU_DOWN";
    /// The SMMU is not there yet.
    NotYet = -32, "NOT_YET";
    /// The device is behind no SMMU.
    Unprotected = -33, "UNPROTECTED";
    /// The guest is being taken down.
    GuestEnding = -34, "GUEST_ENDING";
    /// The space was released, or is being released.
    Released = -35, "RELEASED";
    /// The space was released before.
    AlreadyReleased = -36, "ALREADY_RELEASED";
    /// The device or its SMMU has no PASIDs, or it was attached without.
    NoPasids = -37, "NO_PASIDS";
    /// The device issues fewer bits than the space's PASID has.
    PasidTooWide = -38, "PASID_TOO_WIDE";
    /// The device is bound in the other way.
    BoundOtherwise = -39, "BOUND_OTHERWISE";
    /// An earlier use of that PASID on that device was never confirmed to be over.
    PublishOverLive = -40, "PUBLISH_OVER_LIVE";
    /// The SMMU cannot walk the space's stage 1.
    Misfit = -41, "MISFIT";
    /// The SMMU cannot walk the guest's stage 2.
    Unwalkable = -42, "UNWALKABLE";
    /// The device's contexts cannot be so.
    Contexts = -43, "CONTEXTS";
    /// The device's streams refuse.
    Stream = -44, "STREAM";
    /// The guest's stage 2 refuses.
    Stage2 = -45, "STAGE2";
    /// There is no more room for contexts.
    Window = -46, "WINDOW";
    /// All PASIDs that would do are taken.
    NoPasid = -47, "NO_PASID";
    /// The PASID is taken: live, parked, draining or lost.
    PasidTaken = -48, "PASID_TAKEN";
    /// The guest has no such PASID.
    PasidOutOfRange = -49, "PASID_OUT_OF_RANGE";
    /// All ASIDs are taken.
    NoAsid = -50, "NO_ASID";
    /// EL2 has no memory for it.
    NoMemory = -51, "NO_MEMORY";
    /// There are as many as there can be.
    Full = -52, "FULL";
    /// As many spaces as the guest may have.
    QuotaSpaces = -53, "QUOTA_SPACES";
    /// As many bindings as the guest may have.
    QuotaBindings = -54, "QUOTA_BINDINGS";
    /// As many handles as the guest may have.
    QuotaHandles = -55, "QUOTA_HANDLES";
    /// As many pages of tables as the guest may have.
    QuotaTables = -56, "QUOTA_TABLES";
    /// Another CPU's call on the same object was not done in time; of a release: nothing new begins, call again.
    Busy = -57, "BUSY";
    /// The window of contexts is not mapped as it must be.
    WindowNotMapped = -58, "WINDOW_NOT_MAPPED";
    /// The SMMU of the device never came.
    NeverCame = -59, "NEVER_CAME";
    /// There is no such guest any more.
    NoSuchGuest = -60, "NO_SUCH_GUEST";
    /// The hardware did not confirm; what was involved is lost until EL2 has proof.
    NotConfirmed = -64, "NOT_CONFIRMED";
    /// Memory of entries did not hold what was stored.
    NotHeld = -65, "NOT_HELD";
    /// A device kept translations; it is cut off, and its numbers are lost until it is reset.
    CachesKept = -66, "CACHES_KEPT";
    /// The device was not reset; its streams abort.
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

impl Code {
    /// The code with this number, if there is one.
    pub fn of(number: i64) -> Option<Self> {
        let mut all = Self::ALL.iter();
        all.find_map(|(code, _)| (*code as i64 == number).then_some(*code))
    }

    /// Its name in `ABI.md`.
    pub fn name(self) -> &'static str {
        let mut all = Self::ALL.iter();
        all.find_map(|(code, name)| (*code == self).then_some(*name))
            .unwrap_or("")
    }

    /// Whether nothing was changed; if not, the hardware did not confirm something.
    pub const fn is_refusal(self) -> bool {
        !matches!(
            self,
            Self::NotConfirmed
                | Self::NotHeld
                | Self::CachesKept
                | Self::NotReset
                | Self::NotRecovered
        )
    }
}

/// What `x0` said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A code of version 1.0.
    Code(Code),
    /// Another one.
    Unknown(i64),
}

/// How what did not obey was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fence {
    /// Nothing had to be.
    NotNeeded,
    /// The devices are cut off at their ports.
    Port,
    /// Their streams abort.
    Stream,
    /// The SMMU is stopped.
    Smmu,
    /// Nothing worked: devices may still reach memory.
    Failed,
}

/// A call was refused, or not confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// Why.
    pub reason: Reason,
    /// What else was said: `x1` to `x3`, as `ABI.md` has it for the code.
    pub details: [u64; 3],
}

impl Error {
    pub(crate) fn of(x0: u64, details: [u64; 3]) -> Self {
        let number = x0.cast_signed();
        let reason = Code::of(number).map_or(Reason::Unknown(number), Reason::Code);
        Self { reason, details }
    }

    /// Why, if it is a code of version 1.0.
    pub const fn code(&self) -> Option<Code> {
        match self.reason {
            Reason::Code(code) => Some(code),
            Reason::Unknown(_) => None,
        }
    }

    /// How what did not obey was stopped, where the code says so.
    pub const fn fence(&self) -> Option<Fence> {
        match self.reason {
            Reason::Code(Code::NotConfirmed | Code::NotHeld | Code::CachesKept) => {}
            Reason::Code(_) | Reason::Unknown(_) => return None,
        }
        Some(match self.details[1] {
            0 => Fence::NotNeeded,
            1 => Fence::Port,
            2 => Fence::Stream,
            3 => Fence::Smmu,
            _ => Fence::Failed,
        })
    }

    /// The device that the code names, if it names one.
    pub fn device(&self) -> Option<Device> {
        match self.reason {
            Reason::Code(Code::CachesKept | Code::NotReset | Code::Unprotected) => {
                u32::try_from(self.details[0]).ok().map(Device)
            }
            Reason::Code(_) | Reason::Unknown(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Code(code) => f.write_str(code.name())?,
            Reason::Unknown(number) => write!(f, "code {number}")?,
        }
        match self.details {
            [0, 0, 0] => Ok(()),
            [a, b, c] => write!(f, " ({a:#x} {b:#x} {c:#x})"),
        }
    }
}

impl core::error::Error for Error {}
