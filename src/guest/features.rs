//! What a guest is told of its CPU: the features that it has, and no other.
//!
//! By a list of what passes, so that what newer CPUs have is absent until somebody has thought about
//! it. Absent are: pointer authentication, SVE, SME, memory tagging, RAS, the interrupt controller's
//! system registers, AArch32, nested virtualisation, trace and profiling, and debug registers beyond
//! those that every CPU has.

/// The bits of `ID_AA64PFR0_EL1` that pass as they are: AdvSIMD, FP, DIT, CSV2, CSV3.
const PFR0: u64 = 0xf << 16 | 0xf << 20 | 0xf << 48 | 0xf << 56 | 0xf << 60;
/// EL0 and EL1 in AArch64 alone.
const PFR0_LEVELS: u64 = 1 | 1 << 4;
/// BT, SSBS.
const PFR1: u64 = 0xf | 0xf << 4;
/// PMUVer.
const DFR0: u64 = 0xf << 8;
/// Armv8 debug, which is the least that a CPU can say, and no double lock.
const DFR0_LEAST: u64 = 6 | 0xf << 36;
/// All but transactional memory.
const ISAR0: u64 = !(0xf << 24);
/// Without APA, API, GPA, GPI and LS64.
const ISAR1: u64 = !(0xff << 4 | 0xff << 24 | 0xf << 60);
/// RPRES, and BC.
const ISAR2: u64 = 0xf << 4 | 0xf << 20;
/// ASIDBits, BigEnd, SNSMem, BigEndEL0, TGran16, TGran64, TGran4, and those of stage 2; not PARange,
/// not ExS, FGT and ECV.
const MMFR0: u64 = 0x0000_0fff_ffff_fff0 & !(0xf << 40);
/// HAFDBS, HPDS, PAN, SpecSEI, XNX, ETS.
const MMFR1: u64 = 0xf | 0xf << 12 | 0xf << 20 | 0xf << 24 | 0xf << 28 | 0xf << 36;
/// CnP, UAO, LSM, VARange, CCIDX, ST, AT, IDS, TTL, BBM, E0PD.
const MMFR2: u64 = 0xf
    | 0xf << 4
    | 0xf << 8
    | 0xf << 16
    | 0xf << 20
    | 0xf << 28
    | 0xf << 32
    | 0xf << 36
    | 0xf << 48
    | 0xf << 52
    | 0xf << 60;

/// What a guest reads in `S3_0_C0_C<crm>_<op2>` where the CPU says `real`, and physical addresses,
/// which are the guest's IPAs, have at most `ipa_bits` bits.
pub fn visible(crm: u8, op2: u8, real: u64, ipa_bits: u8) -> u64 {
    match (crm, op2) {
        (4, 0) => real & PFR0 | PFR0_LEVELS,
        (4, 1) => real & PFR1,
        (5, 0) => real & DFR0 | DFR0_LEAST,
        (6, 0) => real & ISAR0,
        (6, 1) => real & ISAR1,
        (6, 2) => real & ISAR2,
        (7, 0) => real & MMFR0 | (real & 0xf).min(range(ipa_bits)),
        (7, 1) => real & MMFR1,
        (7, 2) => real & MMFR2,
        _ => 0,
    }
}

/// `PARange` for addresses of at most so many bits.
const fn range(bits: u8) -> u64 {
    match bits {
        0..36 => 0,
        36..40 => 1,
        40..42 => 2,
        42..44 => 3,
        44..48 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that say that something is absent, of a CPU that has everything.
    #[test]
    fn what_is_not_given_is_absent() {
        const ALL: u64 = 0x1111_1111_1111_1111;
        let field = |crm, op2, at: u32| visible(crm, op2, ALL, 40) >> at & 0xf;
        // EL2, EL3, GIC, RAS, SVE, SEL2, MPAM, AMU.
        for at in [8, 12, 24, 28, 32, 36, 40, 44] {
            assert_eq!(field(4, 0, at), 0, "PFR0 {at}");
        }
        // MTE, SME.
        assert_eq!((field(4, 1, 8), field(4, 1, 24)), (0, 0));
        // Pointer authentication, LS64.
        for at in [4, 8, 24, 28, 60] {
            assert_eq!(field(6, 1, at), 0, "ISAR1 {at}");
        }
        // GPA3, APA3, MOPS.
        for at in [8, 12, 16] {
            assert_eq!(field(6, 2, at), 0, "ISAR2 {at}");
        }
        // NV, EVT; FGT, ECV; VH, LO, HCX.
        assert_eq!((field(7, 2, 24), field(7, 2, 56)), (0, 0));
        assert_eq!((field(7, 0, 56), field(7, 0, 60)), (0, 0));
        assert_eq!(
            (field(7, 1, 8), field(7, 1, 16), field(7, 1, 40)),
            (0, 0, 0)
        );
        // SVE's own register, the second of each, AArch32's.
        for (crm, op2) in [
            (4, 4),
            (4, 5),
            (5, 1),
            (7, 3),
            (7, 4),
            (1, 0),
            (2, 0),
            (3, 0),
        ] {
            assert_eq!(visible(crm, op2, ALL, 40), 0, "{crm} {op2}");
        }
    }

    #[test]
    fn what_is_given_is_as_the_cpu_has_it() {
        assert_eq!(visible(4, 0, 0x0011_0000, 40), 0x0011_0011);
        assert_eq!(visible(4, 0, 0x00ff_0000, 40), 0x00ff_0011);
        assert_eq!(visible(6, 0, 0x1010_0000, 40), 0x1010_0000);
        assert_eq!(visible(5, 0, 0x0000_0609, 40), 0xf0_0000_0606);
    }

    #[test]
    fn addresses_are_as_wide_as_the_guests_memory() {
        assert_eq!(visible(7, 0, 6, 40) & 0xf, 2);
        assert_eq!(visible(7, 0, 1, 40) & 0xf, 1);
        assert_eq!(visible(7, 0, 5, 48) & 0xf, 5);
    }
}
