//! The register file: what is where, and what it holds (§6.2, §6.3).

/// Byte offsets from the base of register page 0.
pub mod offset {
    /// SMMU_IDR0.
    pub const IDR0: u64 = 0x0;
    /// SMMU_IDR1.
    pub const IDR1: u64 = 0x4;
    /// SMMU_IDR2.
    pub const IDR2: u64 = 0x8;
    /// SMMU_IDR3.
    pub const IDR3: u64 = 0xc;
    /// SMMU_IDR4.
    pub const IDR4: u64 = 0x10;
    /// SMMU_IDR5.
    pub const IDR5: u64 = 0x14;
    /// SMMU_IIDR.
    pub const IIDR: u64 = 0x18;
    /// SMMU_AIDR.
    pub const AIDR: u64 = 0x1c;
    /// SMMU_CR0.
    pub const CR0: u64 = 0x20;
    /// SMMU_CR0ACK.
    pub const CR0ACK: u64 = 0x24;
    /// SMMU_CR1.
    pub const CR1: u64 = 0x28;
    /// SMMU_CR2.
    pub const CR2: u64 = 0x2c;
    /// SMMU_STATUSR.
    pub const STATUSR: u64 = 0x40;
    /// SMMU_GBPA.
    pub const GBPA: u64 = 0x44;
    /// SMMU_AGBPA.
    pub const AGBPA: u64 = 0x48;
    /// SMMU_IRQ_CTRL.
    pub const IRQ_CTRL: u64 = 0x50;
    /// SMMU_IRQ_CTRLACK.
    pub const IRQ_CTRLACK: u64 = 0x54;
    /// SMMU_GERROR.
    pub const GERROR: u64 = 0x60;
    /// SMMU_GERRORN.
    pub const GERRORN: u64 = 0x64;
    /// SMMU_GERROR_IRQ_CFG0; CFG1 and CFG2 follow at +8 and +12.
    pub const GERROR_IRQ_CFG0: u64 = 0x68;
    /// SMMU_STRTAB_BASE.
    pub const STRTAB_BASE: u64 = 0x80;
    /// SMMU_STRTAB_BASE_CFG.
    pub const STRTAB_BASE_CFG: u64 = 0x88;
    /// SMMU_CMDQ_BASE.
    pub const CMDQ_BASE: u64 = 0x90;
    /// SMMU_CMDQ_PROD.
    pub const CMDQ_PROD: u64 = 0x98;
    /// SMMU_CMDQ_CONS.
    pub const CMDQ_CONS: u64 = 0x9c;
    /// SMMU_EVENTQ_BASE.
    pub const EVENTQ_BASE: u64 = 0xa0;
    /// SMMU_EVENTQ_IRQ_CFG0; CFG1 and CFG2 follow at +8 and +12.
    pub const EVENTQ_IRQ_CFG0: u64 = 0xb0;
    /// SMMU_PRIQ_BASE.
    pub const PRIQ_BASE: u64 = 0xc0;
    /// SMMU_PRIQ_IRQ_CFG0; CFG1 and CFG2 follow at +8 and +12.
    pub const PRIQ_IRQ_CFG0: u64 = 0xd0;
    /// SMMU_EVENTQ_PROD (page 1).
    pub const EVENTQ_PROD: u64 = 0x1_00a8;
    /// SMMU_EVENTQ_CONS (page 1).
    pub const EVENTQ_CONS: u64 = 0x1_00ac;
    /// SMMU_PRIQ_PROD (page 1).
    pub const PRIQ_PROD: u64 = 0x1_00c8;
    /// SMMU_PRIQ_CONS (page 1).
    pub const PRIQ_CONS: u64 = 0x1_00cc;
    /// The bytes of the two pages.
    pub const PAGES_BYTES: u64 = 0x2_0000;
}

/// CR0 fields.
pub(crate) mod cr0 {
    pub(crate) const SMMUEN: u32 = 1 << 0;
    pub(crate) const PRIQEN: u32 = 1 << 1;
    pub(crate) const EVENTQEN: u32 = 1 << 2;
    pub(crate) const CMDQEN: u32 = 1 << 3;
    pub(crate) const ATSCHK: u32 = 1 << 4;
    pub(crate) const VMW: u32 = 7 << 6;
    /// Every field that can be written.
    pub(crate) const FIELDS: [u32; 6] = [CMDQEN, EVENTQEN, PRIQEN, ATSCHK, VMW, SMMUEN];
}

/// CR2 fields.
pub(crate) mod cr2 {
    pub(crate) const E2H: u32 = 1 << 0;
    pub(crate) const RECINVSID: u32 = 1 << 1;
    pub(crate) const REC_CFG_ATS: u32 = 1 << 3;
}

/// GBPA fields.
pub(crate) mod gbpa {
    pub(crate) const ABORT: u32 = 1 << 20;
    pub(crate) const UPDATE: u32 = 1 << 31;
}

/// IRQ_CTRL fields.
pub(crate) mod irq_ctrl {
    pub(crate) const GERROR_IRQEN: u32 = 1 << 0;
    pub(crate) const PRIQ_IRQEN: u32 = 1 << 1;
    pub(crate) const EVENTQ_IRQEN: u32 = 1 << 2;
}

/// GERROR bits.
pub(crate) mod gerror {
    pub(crate) const CMDQ_ERR: u32 = 1 << 0;
    pub(crate) const EVENTQ_ABT_ERR: u32 = 1 << 2;
    pub(crate) const PRIQ_ABT_ERR: u32 = 1 << 3;
    pub(crate) const MSI_CMDQ_ABT_ERR: u32 = 1 << 4;
    pub(crate) const MSI_EVENTQ_ABT_ERR: u32 = 1 << 5;
    pub(crate) const MSI_PRIQ_ABT_ERR: u32 = 1 << 6;
    pub(crate) const MSI_GERROR_ABT_ERR: u32 = 1 << 7;
    pub(crate) const SFM_ERR: u32 = 1 << 8;
    pub(crate) const ALL: u32 = 0x1fd;
}

/// The three `*_IRQ_CFG` registers of one interrupt.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IrqConfig {
    pub(crate) cfg0: u64,
    pub(crate) cfg1: u32,
    pub(crate) cfg2: u32,
}

/// What the registers hold.
#[derive(Clone, Default, Debug)]
pub(crate) struct Registers {
    pub(crate) idr: [u32; 8],
    pub(crate) cr0: u32,
    pub(crate) cr0ack: u32,
    pub(crate) cr1: u32,
    pub(crate) cr2: u32,
    pub(crate) gbpa: u32,
    pub(crate) agbpa: u32,
    pub(crate) irq_ctrl: u32,
    pub(crate) irq_ctrlack: u32,
    pub(crate) gerror: u32,
    pub(crate) gerrorn: u32,
    pub(crate) gerror_irq: IrqConfig,
    pub(crate) strtab_base: u64,
    pub(crate) strtab_base_cfg: u32,
    pub(crate) cmdq_base: u64,
    pub(crate) cmdq_prod: u32,
    /// What a read of CMDQ_CONS gives; the SMMU itself may be further.
    pub(crate) cmdq_cons: u32,
    pub(crate) eventq_base: u64,
    pub(crate) eventq_prod: u32,
    pub(crate) eventq_cons: u32,
    pub(crate) eventq_irq: IrqConfig,
    pub(crate) priq_base: u64,
    pub(crate) priq_prod: u32,
    pub(crate) priq_cons: u32,
    pub(crate) priq_irq: IrqConfig,
}

const fn low(value: u64) -> u32 {
    value as u32
}

const fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

impl Registers {
    /// The 32 bits at `at`, a multiple of 4; locations without a register are 0.
    pub(crate) fn value(&self, at: u64) -> u32 {
        match at {
            0x0..=0x1c => self.idr[(at / 4) as usize],
            offset::CR0 => self.cr0,
            offset::CR0ACK => self.cr0ack,
            offset::CR1 => self.cr1,
            offset::CR2 => self.cr2,
            offset::GBPA => self.gbpa,
            offset::AGBPA => self.agbpa,
            offset::IRQ_CTRL => self.irq_ctrl,
            offset::IRQ_CTRLACK => self.irq_ctrlack,
            offset::GERROR => self.gerror,
            offset::GERRORN => self.gerrorn,
            0x68..=0x74 => irq_value(&self.gerror_irq, at - 0x68),
            offset::STRTAB_BASE => low(self.strtab_base),
            0x84 => high(self.strtab_base),
            offset::STRTAB_BASE_CFG => self.strtab_base_cfg,
            offset::CMDQ_BASE => low(self.cmdq_base),
            0x94 => high(self.cmdq_base),
            offset::CMDQ_PROD => self.cmdq_prod,
            offset::CMDQ_CONS => self.cmdq_cons,
            offset::EVENTQ_BASE => low(self.eventq_base),
            0xa4 => high(self.eventq_base),
            0xb0..=0xbc => irq_value(&self.eventq_irq, at - 0xb0),
            offset::PRIQ_BASE => low(self.priq_base),
            0xc4 => high(self.priq_base),
            0xd0..=0xdc => irq_value(&self.priq_irq, at - 0xd0),
            offset::EVENTQ_PROD => self.eventq_prod,
            offset::EVENTQ_CONS => self.eventq_cons,
            offset::PRIQ_PROD => self.priq_prod,
            offset::PRIQ_CONS => self.priq_cons,
            _ => 0,
        }
    }
}

/// The offsets of all 32-bit words that hold a register or a reserved location among them.
pub(crate) fn offsets() -> impl Iterator<Item = u64> {
    let page1 = [
        offset::EVENTQ_PROD,
        offset::EVENTQ_CONS,
        offset::PRIQ_PROD,
        offset::PRIQ_CONS,
    ];
    (0..0x200).step_by(4).chain(page1)
}

fn irq_value(irq: &IrqConfig, at: u64) -> u32 {
    match at {
        0 => low(irq.cfg0),
        4 => high(irq.cfg0),
        8 => irq.cfg1,
        _ => irq.cfg2,
    }
}
