//! The numbers of functions.

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $n:literal, $text:literal;)*) => {
        /// A call of this interface.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Call {
            $($(#[$doc])* $name = $n,)*
        }

        impl Call {
            /// All of them, with their names in `ABI.md`.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, $text),)*];
        }
    };
}

calls! {
    /// What there is.
    Features = 0, "features";
    /// What a device is.
    DeviceInfo = 1, "device_info";
    /// A device's traffic goes through the guest's stage 2.
    Attach = 2, "attach";
    /// It does no more.
    Detach = 3, "detach";
    /// A device is reset.
    DeviceReset = 4, "device_reset";
    /// A space is made.
    SpaceCreate = 5, "space_create";
    /// A device can reach a space.
    Bind = 6, "bind";
    /// A handle is dropped.
    Unbind = 7, "unbind";
    /// The guest changed its tables.
    Invalidate = 8, "invalidate";
    /// The gate falls.
    Release = 9, "release";
    /// The oldest fault.
    FaultNext = 10, "fault_next";
    /// A stalled transaction is answered.
    FaultAnswer = 11, "fault_answer";
    /// The guest starts over.
    ReleaseAll = 12, "release_all";
    /// What EL2 noted of the guest.
    LogRead = 13, "log_read";
    /// Text for the console.
    ConsoleWrite = 14, "console_write";
    /// A counter.
    Stats = 15, "stats";
    /// As [`Invalidate`](Self::Invalidate), for a list.
    InvalidateList = 16, "invalidate_list";
}

impl Call {
    /// Its function number.
    pub const fn function(self) -> u32 {
        0xC600_0000 + self as u32
    }
}
