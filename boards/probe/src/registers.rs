//! An SMMU's registers as they were found.

use portcullis::hw::Registers;

/// How much of an SMMU's first page is read, in bytes.
pub(crate) const READ_BYTES: u64 = 0x1000;

/// Registers of page 0 (IHI 0070 §6.2), in the order in which they lie there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SmmuRegisters {
    /// SMMU_IDR0 to SMMU_IDR5.
    pub idr: [u32; 6],
    /// SMMU_IIDR.
    pub iidr: u32,
    /// SMMU_AIDR.
    pub aidr: u32,
    /// SMMU_CR0.
    pub cr0: u32,
    /// SMMU_CR0ACK.
    pub cr0ack: u32,
    /// SMMU_GBPA.
    pub gbpa: u32,
    /// SMMU_STRTAB_BASE.
    pub strtab_base: u64,
    /// SMMU_STRTAB_BASE_CFG.
    pub strtab_base_cfg: u32,
    /// SMMU_IDR6; 0 where SMMU_IDR1.ECMDQ does not say that it is there.
    pub idr6: u32,
}

impl SmmuRegisters {
    /// Reads them.
    pub fn read<R: Registers>(registers: &R) -> Self {
        let word = |offset| registers.read32(offset);
        let idr = [0, 4, 8, 0xc, 0x10, 0x14].map(word);
        let has_idr6 = idr[1] >> 31 != 0;
        Self {
            idr,
            iidr: word(0x18),
            aidr: word(0x1c),
            cr0: word(0x20),
            cr0ack: word(0x24),
            gbpa: word(0x44),
            // In halves: firmware may have mapped it so that only 32 bits are safe (§6.2).
            strtab_base: u64::from(word(0x84)) << 32 | u64::from(word(0x80)),
            strtab_base_cfg: word(0x88),
            idr6: if has_idr6 { word(0x190) } else { 0 },
        }
    }

    /// Whether it translates (CR0ACK.SMMUEN).
    pub const fn is_on(&self) -> bool {
        self.cr0ack & 1 != 0
    }

    /// Whether it aborts all while it does not translate (GBPA.ABORT).
    pub const fn aborts_when_off(&self) -> bool {
        self.gbpa >> 20 & 1 != 0
    }
}
