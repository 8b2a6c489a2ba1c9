//! What a guest's CPU came back to EL2 for, and what is done about it.
//!
//! Decoding alone: a syndrome in, a wish out ([`Trap`]), and the syndromes that EL1 gets for what it
//! may not do (DDI 0487, D24.2 "ESR_EL2").

use super::features;
use crate::addr::Ipa;

const EC_WAIT: u8 = 0x01;
const EC_HVC: u8 = 0x16;
const EC_SYSTEM: u8 = 0x18;
const EC_INSTRUCTION_ABORT: u8 = 0x20;
const EC_DATA_ABORT: u8 = 0x24;

const IL: u64 = 1 << 25;
/// In an abort's syndrome: the syndrome says which register; a walk of stage 1 met it; it was a
/// store.
const IS_VALID: u64 = 1 << 24;
const IN_WALK: u64 = 1 << 7;
const IS_STORE: u64 = 1 << 6;
/// A synchronous external abort, and one by a walk of level 0.
const EXTERNAL: u64 = 0x10;
const EXTERNAL_IN_WALK: u64 = 0x14;

/// What a guest wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// A call: `HVC` with this number. It goes on behind it by itself.
    Call(u16),
    /// `WFI`, `WFE`: it has nothing to do.
    Rest,
    /// A system register.
    System(SystemAccess),
    /// Memory that its stage 2 does not give it.
    Memory(MemoryAccess),
    /// Something that a CPU without it would not know.
    Unknown,
}

/// An access to a system register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemAccess {
    /// op0, op1, CRn, CRm, op2.
    pub register: (u8, u8, u8, u8, u8),
    /// The general register it goes to or comes from; 31 is none.
    pub general: u8,
    /// Whether it reads.
    pub is_read: bool,
}

/// What comes of an access to a system register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemAnswer {
    /// It reads this.
    Value(u64),
    /// It writes, and nothing happens.
    Ignored,
    /// There is no such register.
    Unknown,
}

/// An access to memory that was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryAccess {
    /// Where.
    pub ipa: Ipa,
    /// What EL1 called it.
    pub address: u64,
    /// Whether it writes.
    pub is_write: bool,
    /// Whether it fetches an instruction.
    pub is_fetch: bool,
    /// What it does with which register, if the CPU says so.
    pub transfer: Option<Transfer>,
    /// The level of stage 1 at which a walk met it.
    walk_level: Option<u8>,
}

/// One register's worth of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transfer {
    /// The general register; 31 is none.
    pub general: u8,
    /// 1, 2, 4 or 8.
    pub bytes: u8,
    /// A load extends the sign.
    pub is_signed: bool,
    /// The register is 64 bits wide.
    pub is_wide: bool,
}

const fn bits(value: u64, high: u32, low: u32) -> u8 {
    (value >> low & ((1 << (high - low + 1)) - 1)) as u8
}

impl Trap {
    /// What `syndrome` says; `address` and `page` are what `FAR_EL2` and `HPFAR_EL2` say.
    pub const fn new(syndrome: u64, address: u64, page: Ipa) -> Self {
        match bits(syndrome, 31, 26) {
            EC_WAIT => Self::Rest,
            EC_HVC => Self::Call(syndrome as u16),
            EC_SYSTEM => Self::System(SystemAccess {
                register: (
                    bits(syndrome, 21, 20),
                    bits(syndrome, 16, 14),
                    bits(syndrome, 13, 10),
                    bits(syndrome, 4, 1),
                    bits(syndrome, 19, 17),
                ),
                general: bits(syndrome, 9, 5),
                is_read: syndrome & 1 != 0,
            }),
            EC_INSTRUCTION_ABORT => Self::Memory(memory(syndrome, address, page, true)),
            EC_DATA_ABORT => Self::Memory(memory(syndrome, address, page, false)),
            _ => Self::Unknown,
        }
    }
}

const fn memory(syndrome: u64, address: u64, page: Ipa, is_fetch: bool) -> MemoryAccess {
    let is_walk = syndrome & IN_WALK != 0;
    let is_known = syndrome & IS_VALID != 0 && !is_fetch && !is_walk;
    // A walk's address is of the table, of which only the page is known.
    let offset = if is_walk { 0 } else { address & 0xfff };
    MemoryAccess {
        ipa: Ipa::new(page.as_u64() | offset),
        address,
        is_write: syndrome & IS_STORE != 0 && !is_fetch,
        is_fetch,
        transfer: if is_known {
            Some(Transfer {
                general: bits(syndrome, 20, 16),
                bytes: 1 << bits(syndrome, 23, 22),
                is_signed: syndrome >> 21 & 1 != 0,
                is_wide: syndrome >> 15 & 1 != 0,
            })
        } else {
            None
        },
        walk_level: if is_walk {
            Some(bits(syndrome, 1, 0))
        } else {
            None
        },
    }
}

impl MemoryAccess {
    /// What EL1 finds in `ESR_EL1` for an access that nothing answers; `was_el1` if EL1 made it, not
    /// EL0.
    pub const fn external_abort(&self, was_el1: bool) -> u64 {
        let class = if self.is_fetch {
            EC_INSTRUCTION_ABORT
        } else {
            EC_DATA_ABORT
        } as u64
            + was_el1 as u64;
        let status = match self.walk_level {
            Some(level) => EXTERNAL_IN_WALK + level as u64,
            None => EXTERNAL,
        };
        let store = if self.is_write { IS_STORE } else { 0 };
        class << 26 | IL | store | status
    }
}

/// What EL1 finds in `ESR_EL1` for an instruction that is not there.
pub const UNKNOWN: u64 = IL;

impl Transfer {
    /// What a load of `value` leaves in the register.
    pub const fn loaded(&self, value: u64) -> u64 {
        let unused = 64 - 8 * self.bytes as u32;
        let whole = if self.is_signed {
            ((value << unused) as i64 >> unused) as u64
        } else {
            value << unused >> unused
        };
        if self.is_wide {
            whole
        } else {
            whole as u32 as u64
        }
    }
}

impl SystemAccess {
    /// What comes of it; `real` says what the CPU's feature register of this CRm and op2 holds.
    ///
    /// The registers of debug that every CPU has read as zero and take nothing, with the OS lock open.
    pub fn answer(&self, real: impl Fn(u8, u8) -> u64, ipa_bits: u8) -> SystemAnswer {
        const OS_LOCK_STATUS: (u8, u8, u8, u8, u8) = (2, 0, 1, 1, 4);
        const ACTLR: (u8, u8, u8, u8, u8) = (3, 0, 1, 0, 1);
        let value = match self.register {
            (3, 0, 0, crm @ 1..=7, op2) if self.is_read => {
                features::visible(crm, op2, real(crm, op2), ipa_bits)
            }
            // OSLM says that there is a lock, OSLK that it is open.
            OS_LOCK_STATUS => 1 << 3,
            ACTLR | (2, 0 | 3, ..) => 0,
            _ => return SystemAnswer::Unknown,
        };
        if self.is_read {
            SystemAnswer::Value(value)
        } else {
            SystemAnswer::Ignored
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOWHERE: Ipa = Ipa::new(0);

    #[test]
    fn calls_and_rests_are_told_apart() {
        assert_eq!(Trap::new(0x5a00_0000, 0, NOWHERE), Trap::Call(0));
        assert_eq!(Trap::new(0x5a00_0007, 0, NOWHERE), Trap::Call(7));
        assert_eq!(Trap::new(0x0600_0000, 0, NOWHERE), Trap::Rest);
        // SMC, SVE, pointer authentication.
        for syndrome in [0x5e00_0000, 0x6600_0000, 0x2600_0000] {
            assert_eq!(Trap::new(syndrome, 0, NOWHERE), Trap::Unknown);
        }
    }

    /// As QEMU raised it: `ldr w3, [x1]` at IPA 0x4010_1004.
    #[test]
    fn a_load_says_its_register_and_its_width() {
        let syndrome = 0x24 << 26 | IL | IS_VALID | 2 << 22 | 3 << 16 | 0b111;
        let Trap::Memory(access) = Trap::new(syndrome, 0xffff_0000_1004, Ipa::new(0x4010_1000))
        else {
            panic!("an abort");
        };
        assert_eq!(access.ipa, Ipa::new(0x4010_1004));
        assert!(!access.is_write && !access.is_fetch);
        let transfer = access.transfer.expect("valid");
        assert_eq!((transfer.general, transfer.bytes), (3, 4));
        assert_eq!(access.external_abort(true), 0x25 << 26 | IL | EXTERNAL);
        assert_eq!(access.external_abort(false), 0x24 << 26 | IL | EXTERNAL);
    }

    #[test]
    fn an_abort_of_a_walk_names_the_level_and_no_register() {
        let syndrome = 0x24 << 26 | IL | IS_VALID | IN_WALK | IS_STORE | 0b110;
        let Trap::Memory(access) = Trap::new(syndrome, 0x1abc, Ipa::new(0x5000)) else {
            panic!("an abort");
        };
        assert_eq!((access.ipa, access.transfer), (Ipa::new(0x5000), None));
        assert_eq!(access.external_abort(true) & 0x3f, 0x16);
    }

    #[test]
    fn a_fetch_is_no_store_and_has_no_register() {
        let syndrome = 0x20 << 26 | IL | IS_VALID | IS_STORE | 0b111;
        let Trap::Memory(access) = Trap::new(syndrome, 8, NOWHERE) else {
            panic!("an abort");
        };
        assert!(access.is_fetch && !access.is_write && access.transfer.is_none());
        assert_eq!(access.external_abort(true), 0x21 << 26 | IL | EXTERNAL);
    }

    #[test]
    fn a_load_fills_the_register_as_the_instruction_says() {
        let load = |bytes, is_signed, is_wide| Transfer {
            general: 0,
            bytes,
            is_signed,
            is_wide,
        };
        assert_eq!(load(1, false, false).loaded(0xfff), 0xff);
        assert_eq!(load(2, true, true).loaded(0x8000), 0xffff_ffff_ffff_8000);
        assert_eq!(load(2, true, false).loaded(0x8000), 0xffff_8000);
        assert_eq!(load(8, false, true).loaded(u64::MAX), u64::MAX);
    }

    fn system(syndrome: u64) -> SystemAccess {
        match Trap::new(0x18 << 26 | IL | syndrome, 0, NOWHERE) {
            Trap::System(access) => access,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_feature_register_is_read_through_the_list_and_never_written() {
        // mrs x5, id_aa64pfr0_el1
        let read = system(3 << 20 | 5 << 5 | 4 << 1 | 1);
        assert_eq!((read.register, read.general), ((3, 0, 0, 4, 0), 5));
        let answer = read.answer(|_, _| 0x1100_0022_2222, 40);
        assert_eq!(answer, SystemAnswer::Value(0x11 | 0x22_0000));
        let write = SystemAccess {
            is_read: false,
            ..read
        };
        assert_eq!(write.answer(|_, _| 0, 40), SystemAnswer::Unknown);
    }

    #[test]
    fn debug_registers_are_quiet_and_those_of_the_interrupt_controller_absent() {
        let at = |register, is_read| SystemAccess {
            register,
            general: 0,
            is_read,
        };
        let answer = |access: SystemAccess| access.answer(|_, _| 0, 40);
        assert_eq!(answer(at((2, 0, 0, 2, 2), true)), SystemAnswer::Value(0));
        assert_eq!(answer(at((2, 0, 1, 0, 4), false)), SystemAnswer::Ignored);
        assert_eq!(answer(at((2, 0, 1, 1, 4), true)), SystemAnswer::Value(8));
        // ICC_IAR1_EL1, ICC_SRE_EL1, ICC_SGI1R_EL1; trace.
        for register in [
            (3, 0, 12, 12, 0),
            (3, 0, 12, 12, 5),
            (3, 0, 12, 11, 5),
            (2, 1, 0, 0, 1),
        ] {
            assert_eq!(answer(at(register, true)), SystemAnswer::Unknown);
        }
    }
}
