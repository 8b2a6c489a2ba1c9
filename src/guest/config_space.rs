//! PCI configuration space as a guest sees it: its own functions, bare of all that is EL2's.
//!
//! A guest reads who the function is, what it does, and where its BARs are, which stay there. It sees
//! no capability: MSI, MSI-X, ATS, PRI, PASID, ACS, SR-IOV, power and resets are EL2's. What it writes
//! is ignored, the command register too: memory is on, and bus mastering belongs to the gate. Of what
//! is not its own it reads what nobody answers.

/// Nobody answers.
const ABSENT: u32 = u32::MAX;

const COMMAND: u16 = 0x04;
const HEADER: u16 = 0x0c;
/// Memory, bus master, and that the function holds no interrupt wire.
const SHOWN_COMMAND: u32 = 1 << 1 | 1 << 2 | 1 << 10;

/// An access to configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigAccess {
    /// The function: bus, device and function, counted from the window's first bus.
    pub function: u32,
    /// Where in its 4096 bytes.
    pub offset: u16,
    /// 1, 2 or 4, and the offset is a multiple of it.
    pub bytes: u8,
}

impl ConfigAccess {
    /// The access of `bytes` bytes at `offset` of a window; `None` if it is none that configuration
    /// space takes.
    pub const fn new(offset: u64, bytes: u8) -> Option<Self> {
        if !matches!(bytes, 1 | 2 | 4) || !offset.is_multiple_of(bytes as u64) {
            return None;
        }
        Some(Self {
            function: (offset >> 12) as u32,
            offset: (offset & 0xfff) as u16,
            bytes,
        })
    }

    /// The register of 32 bits that the access is in.
    pub const fn register(&self) -> u16 {
        self.offset & !3
    }

    /// What a load finds, where the function has `real` in the register; `None` if it is not the
    /// guest's.
    pub const fn loaded(&self, real: Option<u32>) -> u64 {
        let word = match real {
            Some(real) => shown(self.register(), real),
            None => ABSENT,
        };
        let word = (word >> (8 * (self.offset & 3))) as u64;
        word & (u64::MAX >> (64 - 8 * self.bytes as u32))
    }
}

/// What a guest sees of a register of its function.
const fn shown(register: u16, real: u32) -> u32 {
    match register {
        // Nothing is latched in the status, and it has no list of capabilities.
        COMMAND => real & SHOWN_COMMAND,
        // No built-in self-test; the layout's upper bit says that there are other functions.
        HEADER => real & 0x00ff_ffff,
        // Vendor and device; class and revision; BARs; CardBus; subsystem.
        0x00 | 0x08 | 0x10..=0x2c => real,
        // Expansion ROM, capabilities, interrupt, and all that is behind the header.
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(offset: u64, bytes: u8, real: Option<u32>) -> u64 {
        ConfigAccess::new(offset, bytes)
            .expect("an access")
            .loaded(real)
    }

    #[test]
    fn what_is_not_the_guests_is_absent() {
        assert_eq!(load(0x1_0000, 4, None), 0xffff_ffff);
        assert_eq!(load(0x1_0002, 2, None), 0xffff);
        assert_eq!(load(0x1_0003, 1, None), 0xff);
    }

    #[test]
    fn bytes_of_a_register_are_where_they_are() {
        let ids = Some(0x11e8_1234);
        assert_eq!(load(0x1_0000, 4, ids), 0x11e8_1234);
        assert_eq!(load(0x1_0000, 2, ids), 0x1234);
        assert_eq!(load(0x1_0002, 2, ids), 0x11e8);
        assert_eq!(load(0x1_0003, 1, ids), 0x11);
    }

    #[test]
    fn no_capability_is_seen_in_either_list() {
        // The status has bit 4 set, the pointer says 0x40, MSI is there, ATS is at 0x100.
        assert_eq!(load(0x06, 2, Some(0xffff_ffff)) & 1 << 4, 0);
        assert_eq!(load(0x34, 1, Some(0x40)), 0);
        for offset in (0x40..0x1000).step_by(4) {
            assert_eq!(load(offset, 4, Some(0x0001_0005)), 0, "{offset:#x}");
        }
        assert_eq!(load(0x3c, 4, Some(0x0101_010b)), 0);
        assert_eq!(load(0x30, 4, Some(0xffff_f801)), 0);
    }

    #[test]
    fn bars_and_commands_are_seen_as_they_are() {
        assert_eq!(load(0x10, 4, Some(0x1000_0004)), 0x1000_0004);
        assert_eq!(load(0x24, 4, Some(0x80)), 0x80);
        assert_eq!(load(0x04, 2, Some(0x0547)), 0x0406);
    }

    #[test]
    fn an_access_across_registers_or_of_eight_bytes_is_none() {
        for (offset, bytes) in [(0, 8), (1, 2), (2, 4), (0, 0)] {
            assert_eq!(ConfigAccess::new(offset, bytes), None);
        }
        let access = ConfigAccess::new(0x10_1004, 4).expect("aligned");
        assert_eq!((access.function, access.register()), (0x101, 4));
    }
}
