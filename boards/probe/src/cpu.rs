//! The CPU that the report is made on.

/// At which level firmware runs applications, and Portcullis would be entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExceptionLevel {
    /// EL1: a hypervisor is below, or the machine has no EL2.
    El1,
    /// EL2, as Portcullis needs it.
    El2,
}

/// What the CPU's own registers say (DDI 0487).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// CurrentEL.
    pub level: ExceptionLevel,
    /// MIDR_EL1.
    pub midr: u64,
    /// MPIDR_EL1.
    pub mpidr: u64,
    /// ID_AA64PFR0_EL1.
    pub pfr0: u64,
    /// ID_AA64MMFR0_EL1.
    pub mmfr0: u64,
    /// ID_AA64MMFR1_EL1.
    pub mmfr1: u64,
    /// ID_AA64MMFR2_EL1.
    pub mmfr2: u64,
}

impl Cpu {
    /// Bits of a physical address, by ID_AA64MMFR0_EL1.PARange; `None` if that is reserved.
    pub const fn physical_bits(&self) -> Option<u8> {
        match self.mmfr0 & 0xf {
            0 => Some(32),
            1 => Some(36),
            2 => Some(40),
            3 => Some(42),
            4 => Some(44),
            5 => Some(48),
            6 => Some(52),
            7 => Some(56),
            _ => None,
        }
    }

    /// Whether it has 16-bit VMIDs (ID_AA64MMFR1_EL1.VMIDBits).
    pub const fn has_16_bit_vmids(&self) -> bool {
        self.mmfr1 >> 4 & 0xf == 2
    }

    /// Whether it has FEAT_VHE (ID_AA64MMFR1_EL1.VH).
    pub const fn has_vhe(&self) -> bool {
        self.mmfr1 >> 8 & 0xf != 0
    }

    /// How much of break-before-make it needs: 0 all, 1 some, 2 none (ID_AA64MMFR2_EL1.BBM).
    pub const fn bbm_level(&self) -> u8 {
        (self.mmfr2 >> 52 & 0xf) as u8
    }

    /// Whether it has the 4 KiB granule at stage 2 (ID_AA64MMFR0_EL1.TGran4_2, else TGran4).
    pub const fn has_4k_granule(&self) -> bool {
        match self.mmfr0 >> 40 & 0xf {
            0 => self.mmfr0 >> 28 & 0xf != 0xf,
            1 => false,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Cpu = Cpu {
        level: ExceptionLevel::El2,
        midr: 0x481f_d010,
        mpidr: 0x8008_0000,
        pfr0: 0,
        mmfr0: 0x0000_0000_0010_1125,
        mmfr1: 0x0000_0000_1021_2122,
        mmfr2: 0,
    };

    #[test]
    fn fields_are_read_where_the_manual_has_them() {
        assert_eq!(CPU.physical_bits(), Some(48));
        assert!(CPU.has_16_bit_vmids() && CPU.has_vhe() && CPU.has_4k_granule());
        assert_eq!(CPU.bbm_level(), 0);
        let other = Cpu {
            mmfr0: 0xf000_0008,
            mmfr1: 0,
            mmfr2: 0x0020_0000_0000_0000,
            ..CPU
        };
        assert_eq!(other.physical_bits(), None);
        assert!(!other.has_16_bit_vmids() && !other.has_vhe() && !other.has_4k_granule());
        assert_eq!(other.bbm_level(), 2);
    }
}
