// QEMU's `virt` machine. Everything else comes from its device tree.

/// What people call it.
pub const NAME: &str = "QEMU virt";

/// The UART that works before the device tree is read: a PL011, or what speaks its SBSA subset.
pub const EARLY_CONSOLE: u64 = 0x0900_0000;

/// PCI functions, by vendor and device, that may change owners without a reset, and why.
pub const WITHOUT_RESET: &[(u16, u16, &str)] = &[(
    0x1234,
    0x11e8,
    "edu has no reset; its 4 KiB buffer keeps what the former owner put there",
)];
