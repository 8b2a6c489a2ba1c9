//! ESR_EL2 in words (DDI 0487, D24.2 "ESR_EL2").

use core::fmt;

/// What `ESR_ELx` says about an exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Syndrome(u64);

const INSTRUCTION_ABORT_BELOW: u8 = 0x20;
const INSTRUCTION_ABORT: u8 = 0x21;
const PC_ALIGNMENT: u8 = 0x22;
const DATA_ABORT_BELOW: u8 = 0x24;
const DATA_ABORT: u8 = 0x25;
const SERROR: u8 = 0x2f;
const WATCHPOINT_BELOW: u8 = 0x34;
const WATCHPOINT: u8 = 0x35;

impl Syndrome {
    /// The syndrome in the register's value.
    pub const fn new(esr: u64) -> Self {
        Self(esr)
    }

    /// `EC`, the exception class.
    pub const fn class(self) -> u8 {
        (self.0 >> 26 & 0x3f) as u8
    }

    /// Whether `FAR_ELx` holds an address: it does for aborts unless `FnV`, for a misaligned PC,
    /// and for watchpoints.
    pub const fn has_far(self) -> bool {
        match self.class() {
            INSTRUCTION_ABORT_BELOW | INSTRUCTION_ABORT | DATA_ABORT_BELOW | DATA_ABORT => {
                // FnV says something for external aborts only.
                !(self.fault_status() == SYNCHRONOUS_EXTERNAL_ABORT && self.bit(10))
            }
            PC_ALIGNMENT | WATCHPOINT_BELOW | WATCHPOINT => true,
            _ => false,
        }
    }

    const fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 != 0
    }

    /// `IFSC` or `DFSC`.
    const fn fault_status(self) -> u8 {
        (self.0 & 0x3f) as u8
    }

    /// `imm16` of SVC, HVC, SMC, `comment` of BRK.
    const fn immediate(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for Syndrome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(class_in_words(self.class()))?;
        match self.class() {
            INSTRUCTION_ABORT_BELOW | INSTRUCTION_ABORT => {
                write!(f, ": {}", FaultStatus(self.fault_status()))
            }
            DATA_ABORT_BELOW | DATA_ABORT => {
                let access = match (self.bit(8), self.bit(6)) {
                    (true, _) => "on cache maintenance",
                    (false, true) => "on a write",
                    (false, false) => "on a read",
                };
                write!(f, ": {} {access}", FaultStatus(self.fault_status()))
            }
            0x15..=0x17 | 0x3c => write!(f, " #{:#x}", self.immediate()),
            0x18 => self.system_register(f),
            SERROR if self.bit(24) => {
                write!(f, ", implementation defined {:#x}", self.0 & 0xff_ffff)
            }
            SERROR if self.fault_status() == 0x11 => write!(f, ", {}", severity(self.0 >> 10 & 7)),
            SERROR => Ok(()),
            class if class_in_words(class) == RESERVED => write!(f, " {class:#x}"),
            _ => Ok(()),
        }
    }
}

impl Syndrome {
    /// The register of a trapped MSR, MRS or system instruction, as an assembler spells it.
    fn system_register(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = |low: u32, mask: u64| self.0 >> low & mask;
        let (op0, op2, op1) = (field(20, 3), field(17, 7), field(14, 7));
        let (crn, crm) = (field(10, 15), field(1, 15));
        let direction = if self.bit(0) { "read" } else { "write" };
        write!(f, ", {direction} of S{op0}_{op1}_C{crn}_C{crm}_{op2}")
    }
}

const RESERVED: &str = "exception of reserved class";

fn class_in_words(class: u8) -> &'static str {
    match class {
        0x00 => "undefined instruction or another unknown reason",
        0x01 => "trapped WFI or WFE",
        0x03..=0x06 | 0x08 | 0x0c => "trapped AArch32 coprocessor access",
        0x07 => "FP or SIMD instruction, which EL2 must not use",
        0x09 => "trapped pointer authentication",
        0x0a => "trapped LD64B, ST64B or ST64BV",
        0x0d => "branch target exception",
        0x0e => "illegal execution state",
        0x11..=0x13 => "AArch32 SVC, HVC or SMC",
        0x14 => "trapped 128-bit system register access",
        0x15 => "SVC",
        0x16 => "HVC",
        0x17 => "SMC",
        0x18 => "trapped system register access",
        0x19 => "SVE instruction, which EL2 must not use",
        0x1a => "trapped ERET",
        0x1b => "trapped TSTART",
        0x1c => "pointer authentication failure",
        0x1d => "SME instruction, which EL2 must not use",
        0x1e => "granule protection check",
        INSTRUCTION_ABORT_BELOW => "instruction abort below EL2",
        INSTRUCTION_ABORT => "instruction abort",
        PC_ALIGNMENT => "misaligned program counter",
        DATA_ABORT_BELOW => "data abort below EL2",
        DATA_ABORT => "data abort",
        0x26 => "misaligned stack pointer",
        0x27 => "memory copy or set exception",
        0x28 | 0x2c => "floating-point exception",
        0x2d => "guarded control stack exception",
        SERROR => "SError",
        0x30 | 0x31 => "hardware breakpoint",
        0x32 | 0x33 => "software step",
        WATCHPOINT_BELOW | WATCHPOINT => "watchpoint",
        0x38 => "AArch32 BKPT",
        0x3a => "AArch32 vector catch",
        0x3c => "BRK",
        0x3d => "PMU exception",
        _ => RESERVED,
    }
}

/// `AET`: what an SError leaves of the CPU's state.
fn severity(aet: u64) -> &'static str {
    match aet {
        0b000 => "uncontainable",
        0b001 => "unrecoverable",
        0b010 => "restartable",
        0b011 => "recoverable",
        0b110 => "corrected",
        _ => "of reserved severity",
    }
}

const SYNCHRONOUS_EXTERNAL_ABORT: u8 = 0x10;

/// `IFSC` and `DFSC`.
struct FaultStatus(u8);

impl fmt::Display for FaultStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = self.0 & 3;
        match self.0 {
            0x00..=0x03 => write!(f, "address size fault at level {level}"),
            0x04..=0x07 => write!(f, "translation fault at level {level}"),
            0x08..=0x0b => write!(f, "access flag fault at level {level}"),
            0x0c..=0x0f => write!(f, "permission fault at level {level}"),
            SYNCHRONOUS_EXTERNAL_ABORT => f.write_str("external abort"),
            0x11 => f.write_str("tag check fault"),
            0x12 | 0x13 => f.write_str("external abort on a walk at a level below 0"),
            0x14..=0x17 => write!(f, "external abort on a walk at level {level}"),
            0x18 => f.write_str("parity or ECC error"),
            0x1b => f.write_str("parity or ECC error on a walk at a level below 0"),
            0x1c..=0x1f => write!(f, "parity or ECC error on a walk at level {level}"),
            0x21 => f.write_str("alignment fault"),
            0x22 | 0x23 => f.write_str("granule protection fault on a walk at a level below 0"),
            0x24..=0x27 => write!(f, "granule protection fault on a walk at level {level}"),
            0x28 => f.write_str("granule protection fault"),
            0x29 | 0x2c => f.write_str("address size fault at a level below 0"),
            0x2a | 0x2b => f.write_str("translation fault at a level below 0"),
            0x30 => f.write_str("TLB conflict"),
            0x31 => f.write_str("unsupported atomic hardware update"),
            0x34 => f.write_str("implementation defined fault (lockdown)"),
            0x35 => f.write_str("unsupported exclusive or atomic access"),
            other => write!(f, "fault of reserved status {other:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn words(esr: u64) -> std::string::String {
        Syndrome::new(esr).to_string()
    }

    /// By hand from DDI 0487, D24.2: EC 31:26, IL 25, WnR 6, DFSC 5:0.
    #[test]
    fn an_abort_says_what_where_and_how() {
        assert_eq!(
            words(0x9600_0006),
            "data abort: translation fault at level 2 on a read"
        );
        assert_eq!(
            words(0x9600_004f),
            "data abort: permission fault at level 3 on a write"
        );
        assert_eq!(
            words(0x9600_0144),
            "data abort: translation fault at level 0 on cache maintenance"
        );
        assert_eq!(
            words(0x8600_000f),
            "instruction abort: permission fault at level 3"
        );
        assert_eq!(words(0x9600_0021), "data abort: alignment fault on a read");
        assert_eq!(
            words(0x9200_0010),
            "data abort below EL2: external abort on a read"
        );
        assert_eq!(
            words(0x9600_003f),
            "data abort: fault of reserved status 0x3f on a read"
        );
    }

    #[test]
    fn calls_and_traps_name_their_operand() {
        assert_eq!(words(0x5a00_0005), "HVC #0x5");
        assert_eq!(words(0xf200_0007), "BRK #0x7");
        // MSR ICC_SRE_EL2 (S3_4_C12_C9_5): Op0 21:20, Op2 19:17, Op1 16:14, CRn 13:10, CRm 4:1.
        assert_eq!(
            words(0x623b_3012),
            "trapped system register access, write of S3_4_C12_C9_5"
        );
        assert_eq!(
            words(0x623b_3013),
            "trapped system register access, read of S3_4_C12_C9_5"
        );
    }

    #[test]
    fn an_serror_says_how_bad_it_is() {
        assert_eq!(words(0xbe00_0011), "SError, uncontainable");
        assert_eq!(words(0xbe00_0c11), "SError, recoverable");
        assert_eq!(words(0xbf00_0abc), "SError, implementation defined 0xabc");
        assert_eq!(words(0xbe00_0000), "SError");
    }

    #[test]
    fn a_reserved_class_shows_its_number() {
        assert_eq!(words(0xfe00_0000), "exception of reserved class 0x3f");
    }

    #[test]
    fn the_fault_address_counts_only_where_it_is_set() {
        let has_far = |esr| Syndrome::new(esr).has_far();
        assert!(has_far(0x9600_0006));
        assert!(has_far(0x9600_0010));
        assert!(!has_far(0x9600_0410));
        assert!(has_far(0x8a00_0000));
        assert!(!has_far(0x0200_0000));
        assert!(!has_far(0xbe00_0011));
    }
}
