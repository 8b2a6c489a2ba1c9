//! Register page 0 and 1: offsets (§6.2) and the bits that Portcullis reads or writes (§6.3).
//!
//! Named with `tock-registers`' bit macros alone; how a register is reached is `hw`'s business.

use tock_registers::register_bitfields;

/// Byte offsets from the base of an SMMU (§6.2).
pub(crate) mod offset {
    pub(crate) const IDR0: usize = 0x000;
    pub(crate) const IDR1: usize = 0x004;
    pub(crate) const IDR3: usize = 0x00c;
    pub(crate) const IDR5: usize = 0x014;
    pub(crate) const IIDR: usize = 0x018;
    pub(crate) const AIDR: usize = 0x01c;
    pub(crate) const CR0: usize = 0x020;
    pub(crate) const CR0ACK: usize = 0x024;
    pub(crate) const CR1: usize = 0x028;
    pub(crate) const CR2: usize = 0x02c;
    pub(crate) const GBPA: usize = 0x044;
    pub(crate) const IRQ_CTRL: usize = 0x050;
    pub(crate) const IRQ_CTRLACK: usize = 0x054;
    pub(crate) const GERROR: usize = 0x060;
    pub(crate) const GERRORN: usize = 0x064;
    pub(crate) const GERROR_IRQ_CFG0: usize = 0x068;
    pub(crate) const STRTAB_BASE: usize = 0x080;
    pub(crate) const STRTAB_BASE_CFG: usize = 0x088;
    pub(crate) const CMDQ_BASE: usize = 0x090;
    pub(crate) const CMDQ_PROD: usize = 0x098;
    pub(crate) const CMDQ_CONS: usize = 0x09c;
    pub(crate) const EVENTQ_BASE: usize = 0x0a0;
    pub(crate) const EVENTQ_IRQ_CFG0: usize = 0x0b0;
    /// On page 0 an alias, or nothing: the real ones are [`PAGE1`] further on.
    pub(crate) const EVENTQ_PROD: usize = 0x0a8;
    pub(crate) const EVENTQ_CONS: usize = 0x0ac;
    /// Register page 1 starts here.
    pub(crate) const PAGE1: usize = 0x1_0000;
}

register_bitfields! [u32,
    pub(crate) IDR0 [
        S2P OFFSET(0) NUMBITS(1) [], S1P OFFSET(1) NUMBITS(1) [],
        /// Bit 0: AArch32 LPAE tables, bit 1: AArch64 tables.
        TTF OFFSET(2) NUMBITS(2) [],
        COHACC OFFSET(4) NUMBITS(1) [], BTM OFFSET(5) NUMBITS(1) [],
        HTTU OFFSET(6) NUMBITS(2) [],
        HYP OFFSET(9) NUMBITS(1) [], ATS OFFSET(10) NUMBITS(1) [], NS1ATS OFFSET(11) NUMBITS(1) [], ASID16 OFFSET(12) NUMBITS(1) [], MSI OFFSET(13) NUMBITS(1) [], SEV OFFSET(14) NUMBITS(1) [], PRI OFFSET(16) NUMBITS(1) [], VMID16 OFFSET(18) NUMBITS(1) [], CD2L OFFSET(19) NUMBITS(1) [],
        ATSRECERR OFFSET(23) NUMBITS(1) [],
        TTENDIAN OFFSET(21) NUMBITS(2) [Both = 0, Little = 2, Big = 3],
        STALL_MODEL OFFSET(24) NUMBITS(2) [Both = 0, Terminate = 1, Forced = 2],
        TERM_MODEL OFFSET(26) NUMBITS(1) [],
        ST_LEVEL OFFSET(27) NUMBITS(2) [Linear = 0, TwoLevel = 1]
    ],
    pub(crate) IDR1 [
        SIDSIZE OFFSET(0) NUMBITS(6) [],
        SSIDSIZE OFFSET(6) NUMBITS(5) [],
        EVENTQS OFFSET(16) NUMBITS(5) [],
        CMDQS OFFSET(21) NUMBITS(5) [],
        QUEUES_PRESET OFFSET(29) NUMBITS(1) [], TABLES_PRESET OFFSET(30) NUMBITS(1) []
    ],
    pub(crate) IDR3 [
        RIL OFFSET(10) NUMBITS(1) [],
        BBML OFFSET(11) NUMBITS(2) []
    ],
    pub(crate) IDR5 [
        OAS OFFSET(0) NUMBITS(3) [],
        GRAN4K OFFSET(4) NUMBITS(1) [], GRAN16K OFFSET(5) NUMBITS(1) [], GRAN64K OFFSET(6) NUMBITS(1) [],
        STALL_MAX OFFSET(16) NUMBITS(16) []
    ],
    pub(crate) IIDR [
        IMPLEMENTER OFFSET(0) NUMBITS(12) [],
        REVISION OFFSET(12) NUMBITS(4) [],
        VARIANT OFFSET(16) NUMBITS(4) [],
        PRODUCT_ID OFFSET(20) NUMBITS(12) []
    ],
    pub(crate) AIDR [
        MINOR OFFSET(0) NUMBITS(4) [],
        MAJOR OFFSET(4) NUMBITS(4) []
    ],
    pub(crate) CR0 [ SMMUEN OFFSET(0) NUMBITS(1) [], PRIQEN OFFSET(1) NUMBITS(1) [], EVENTQEN OFFSET(2) NUMBITS(1) [], CMDQEN OFFSET(3) NUMBITS(1) [], ATSCHK OFFSET(4) NUMBITS(1) [] ],
    pub(crate) CR1 [
        QUEUE_IC OFFSET(0) NUMBITS(2) [WriteBack = 1],
        QUEUE_OC OFFSET(2) NUMBITS(2) [WriteBack = 1],
        QUEUE_SH OFFSET(4) NUMBITS(2) [InnerShareable = 3],
        TABLE_IC OFFSET(6) NUMBITS(2) [WriteBack = 1],
        TABLE_OC OFFSET(8) NUMBITS(2) [WriteBack = 1],
        TABLE_SH OFFSET(10) NUMBITS(2) [InnerShareable = 3]
    ],
    pub(crate) CR2 [ E2H OFFSET(0) NUMBITS(1) [], RECINVSID OFFSET(1) NUMBITS(1) [], PTM OFFSET(2) NUMBITS(1) [], REC_CFG_ATS OFFSET(3) NUMBITS(1) [] ],
    pub(crate) GBPA [ ABORT OFFSET(20) NUMBITS(1) [], UPDATE OFFSET(31) NUMBITS(1) [] ],
    pub(crate) GERROR [
        CMDQ_ERR OFFSET(0) NUMBITS(1) [], EVENTQ_ABT_ERR OFFSET(2) NUMBITS(1) [], PRIQ_ABT_ERR OFFSET(3) NUMBITS(1) [], MSI_CMDQ_ABT_ERR OFFSET(4) NUMBITS(1) [], MSI_EVENTQ_ABT_ERR OFFSET(5) NUMBITS(1) [],
        MSI_PRIQ_ABT_ERR OFFSET(6) NUMBITS(1) [], MSI_GERROR_ABT_ERR OFFSET(7) NUMBITS(1) [], SFM_ERR OFFSET(8) NUMBITS(1) [], CMDQP_ERR OFFSET(9) NUMBITS(1) [], DPT_ERR OFFSET(10) NUMBITS(1) []
    ],
    pub(crate) STRTAB_BASE_CFG [
        LOG2SIZE OFFSET(0) NUMBITS(6) [],
        SPLIT OFFSET(6) NUMBITS(5) [],
        FMT OFFSET(16) NUMBITS(2) [Linear = 0, TwoLevel = 1]
    ],
    pub(crate) CMDQ_CONS [
        ERR OFFSET(24) NUMBITS(7) [None = 0, Ill = 1, Abt = 2, AtcInvSync = 3]
    ],
    /// EVENTQ_PROD; EVENTQ_CONS has the acknowledging flag in the same place.
    pub(crate) EVENTQ_PROD [ OVFLG OFFSET(31) NUMBITS(1) [] ]
];

register_bitfields! [u64,
    pub(crate) STRTAB_BASE [ RA OFFSET(62) NUMBITS(1) [] ],
    /// CMDQ_BASE; EVENTQ_BASE has the write-allocate hint in the same place.
    pub(crate) QUEUE_BASE [
        LOG2SIZE OFFSET(0) NUMBITS(5) [],
        ALLOCATE OFFSET(62) NUMBITS(1) []
    ]
];

/// The index bits of a queue register, wrap bit included: 19 of index at the most (§6.3.27).
pub(crate) const QUEUE_INDEX_MASK: u32 = 0xf_ffff;

#[cfg(test)]
mod tests {
    use super::*;
    use tock_registers::LocalRegisterCopy;

    /// What QEMU 10.0.2 was seen to answer, decoded by hand from the positions in §6.3.1, 6.3.2.
    #[test]
    fn qemus_id_registers_decode_as_by_hand() {
        let idr0: LocalRegisterCopy<u32, IDR0::Register> = LocalRegisterCopy::new(0x0d44_101b);
        assert!(idr0.is_set(IDR0::S1P) && idr0.is_set(IDR0::S2P) && idr0.is_set(IDR0::COHACC));
        assert!(idr0.is_set(IDR0::ASID16) && idr0.is_set(IDR0::VMID16));
        assert!(!idr0.is_set(IDR0::ATS) && !idr0.is_set(IDR0::CD2L) && !idr0.is_set(IDR0::HYP));
        assert_eq!(idr0.read(IDR0::TTF), 2);
        assert_eq!(idr0.read(IDR0::TTENDIAN), 2);
        assert_eq!(idr0.read(IDR0::STALL_MODEL), 1);
        assert!(idr0.is_set(IDR0::TERM_MODEL));
        assert_eq!(idr0.read(IDR0::ST_LEVEL), 1);
        let idr1: LocalRegisterCopy<u32, IDR1::Register> = LocalRegisterCopy::new(0x0273_0010);
        assert_eq!(idr1.read(IDR1::SIDSIZE), 16);
        assert_eq!(idr1.read(IDR1::SSIDSIZE), 0);
        assert_eq!(idr1.read(IDR1::EVENTQS), 19);
        assert_eq!(idr1.read(IDR1::CMDQS), 19);
        let idr3: LocalRegisterCopy<u32, IDR3::Register> = LocalRegisterCopy::new(0x1414);
        assert_eq!((idr3.is_set(IDR3::RIL), idr3.read(IDR3::BBML)), (true, 2));
        let idr5: LocalRegisterCopy<u32, IDR5::Register> = LocalRegisterCopy::new(0x74);
        assert_eq!(idr5.read(IDR5::OAS), 4);
    }

    #[test]
    fn what_bring_up_writes_is_as_assembled_by_hand() {
        let cr1 = CR1::QUEUE_IC::WriteBack
            + CR1::QUEUE_OC::WriteBack
            + CR1::QUEUE_SH::InnerShareable
            + CR1::TABLE_IC::WriteBack
            + CR1::TABLE_OC::WriteBack
            + CR1::TABLE_SH::InnerShareable;
        // 11 01 01 | 11 01 01
        assert_eq!(cr1.value, 0b1101_0111_0101);
        assert_eq!((GBPA::ABORT::SET + GBPA::UPDATE::SET).value, 0x8010_0000);
        assert_eq!(
            (CR0::SMMUEN::SET + CR0::EVENTQEN::SET + CR0::CMDQEN::SET).value,
            0b1101
        );
        assert_eq!((CR2::RECINVSID::SET + CR2::PTM::SET).value, 0b110);
        assert_eq!(CR2::REC_CFG_ATS::SET.value, 0b1000);
        assert_eq!(IDR0::ATSRECERR::SET.value, 1 << 23);
        assert_eq!(STRTAB_BASE_CFG::FMT::TwoLevel.value, 1 << 16);
    }
}
