//! The numbers of functions (SMCCC, Arm DEN 0028): vendor-specific hypervisor service, fast calls.

/// SMCCC_VERSION.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// The UID of the service.
pub const UID: u32 = 0x8600_FF01;
/// The revision of the service.
pub const REVISION: u32 = 0x8600_FF03;
/// What the numbers of this interface start from: fast, 64-bit, vendor-specific hypervisor service.
pub const BASE: u32 = 0xC600_0000;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $n:literal,)*) => {
        /// A call of this interface; its number is [`BASE`] and this.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Call {
            $($(#[$doc])* $name = $n,)*
        }

        impl Call {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

calls! {
    /// What there is: `features(word)`.
    Features = 0,
    /// What a device is: `device_info(device)`.
    DeviceInfo = 1,
    /// `attach(device, untagged)`.
    Attach = 2,
    /// `detach(device)`.
    Detach = 3,
    /// `device_reset(device)`.
    DeviceReset = 4,
    /// `space_create(ttbr0, ttbr1, tcr, mair, ask, value, flags)`.
    SpaceCreate = 5,
    /// `bind(space, device, by)`.
    Bind = 6,
    /// `unbind(handle)`.
    Unbind = 7,
    /// `invalidate(space, address, bytes)`.
    Invalidate = 8,
    /// `release(space)`.
    Release = 9,
    /// `fault_next()`.
    FaultNext = 10,
    /// `fault_answer(fault, answer)`.
    FaultAnswer = 11,
    /// `release_all()`.
    ReleaseAll = 12,
    /// `log_read()`.
    LogRead = 13,
    /// `console_write(count, bytes…)`.
    ConsoleWrite = 14,
    /// `stats(n)`.
    Stats = 15,
    /// `invalidate_list(space, list, count)`.
    InvalidateList = 16,
}

impl Call {
    /// The call of a function number; `None` if it is none of this interface.
    pub fn of(function: u32) -> Option<Self> {
        let n = function.checked_sub(BASE)?;
        Self::ALL.iter().copied().find(|call| *call as u32 == n)
    }

    /// Its function number.
    pub const fn function(self) -> u32 {
        BASE + self as u32
    }
}
