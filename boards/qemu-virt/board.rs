// QEMU's `virt` machine. Everything else comes from its device tree.

/// What people call it.
pub const NAME: &str = "QEMU virt";

/// The UART that works before the device tree is read: a PL011, or what speaks its SBSA subset.
pub const EARLY_CONSOLE: u64 = 0x0900_0000;
