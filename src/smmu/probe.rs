//! What this SMMU can do, or why it cannot be driven.

use tock_registers::LocalRegisterCopy;

use super::error::Refusal;
use crate::hw::Registers;
use crate::spec::registers::{AIDR, IDR0, IDR1, IDR3, IDR5, IIDR, offset};

/// What firmware says of an SMMU, which its registers do not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Firmware {
    /// Its own accesses snoop the CPUs' caches (`dma-coherent`). Firmware's word counts more than
    /// IDR0.COHACC: the wiring is the board's.
    pub is_coherent: bool,
    /// Where the event queue's indices are.
    pub queue_indices: QueueIndices,
}

/// Where the PROD and CONS registers of the event queue are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueIndices {
    /// On register page 1, as the architecture has it (§6.2).
    Page1,
    /// On page 0 alone: a part without a usable page 1.
    Page0,
}

impl QueueIndices {
    /// How far the index registers are from their page-0 offsets.
    pub(super) const fn shift(self) -> usize {
        match self {
            Self::Page1 => offset::PAGE1,
            Self::Page0 => 0,
        }
    }
}

/// Who made it, and which (IIDR).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Implementation {
    /// JEP106 code of the implementer.
    pub implementer: u16,
    /// The product.
    pub product: u16,
    /// Major revision.
    pub variant: u8,
    /// Minor revision.
    pub revision: u8,
}

impl Implementation {
    /// The whole of SMMU_IIDR (§6.3.8), by which errata are known.
    pub const fn iidr(self) -> u32 {
        let part = (self.product as u32) << 20 | (self.variant as u32) << 16;
        part | (self.revision as u32) << 12 | self.implementer as u32
    }
}

/// How an SMMU treats a transaction that faults (IDR0.STALL_MODEL).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StallModel {
    /// It stalls or terminates it, as the entry says.
    Either,
    /// It terminates it.
    Terminate,
    /// It stalls it, always: there is no quiet CD and no ATS.
    Forced,
}

/// What one SMMU can do, as far as it matters here; every field from an ID register (§6.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// It has stage 1 (IDR0.S1P); with stage 2, which is always there, it can nest.
    pub has_stage1: bool,
    /// It says of itself that it snoops (IDR0.COHACC).
    pub says_coherent: bool,
    /// ATS (IDR0.ATS).
    pub has_ats: bool,
    /// ATS with split stages (IDR0.NS1ATS is 0).
    pub has_split_ats: bool,
    /// It can record what is wrong with the configuration that a translation request meets
    /// (IDR0.ATSRECERR); where it cannot, a device with ATS that uses a number which is nobody's is
    /// refused and not heard of.
    pub records_ats_errors: bool,
    /// PRI (IDR0.PRI).
    pub has_pri: bool,
    /// EL2 streams and commands (IDR0.HYP).
    pub has_el2: bool,
    /// Two-level stream tables (IDR0.ST_LEVEL).
    pub has_two_level_streams: bool,
    /// Two-level CD tables (IDR0.CD2L).
    pub has_two_level_cds: bool,
    /// TLB invalidation by range (IDR3.RIL).
    pub has_range_invalidation: bool,
    /// Message-signalled interrupts of its own (IDR0.MSI).
    pub has_msi: bool,
    /// How faults may end (IDR0.STALL_MODEL).
    pub stalls: StallModel,
    /// What ends without reaching memory always aborts (IDR0.TERM_MODEL).
    pub aborts_only: bool,
    /// Bits of an ASID: 8 or 16.
    pub asid_bits: u8,
    /// Bits of a VMID: 8 or 16.
    pub vmid_bits: u8,
    /// Bits of a StreamID, 0 to 32 (IDR1.SIDSIZE).
    pub stream_bits: u8,
    /// Bits of a SubstreamID, 0 to 20; 0 means that it has none (IDR1.SSIDSIZE).
    pub substream_bits: u8,
    /// The largest command queue, as a power of two of entries.
    pub log2_max_commands: u8,
    /// The largest event queue, as a power of two of entries.
    pub log2_max_events: u8,
    /// How much of break-before-make it needs: 0 all, 1 some, 2 none (IDR3.BBML).
    pub bbm_level: u8,
    /// Bits of a physical address (IDR5.OAS).
    pub output_bits: u8,
    /// Whether it must be told of new tables (HiSilicon 162100602); no register says it, but
    /// [`Settings`](super::Settings).
    pub needs_flush_of_new_tables: bool,
    /// The 16 KiB granule; 4 KiB is always there.
    pub has_16k_granule: bool,
    /// The 64 KiB granule.
    pub has_64k_granule: bool,
    /// How many transactions can be stalled at once (IDR5.STALL_MAX).
    pub stall_max: u16,
    /// The minor architecture revision: 0 is SMMUv3.0. Features are gated on their own bits.
    pub minor_revision: u8,
    /// Who made it.
    pub implementation: Implementation,
}

type Register<R> = LocalRegisterCopy<u32, R>;

/// Reads the ID registers and judges them; changes nothing.
///
/// # Errors
///
/// The first [`Refusal`] that holds.
pub fn probe<R: Registers>(registers: &R, firmware: Firmware) -> Result<Features, Refusal> {
    let idr0: Register<IDR0::Register> = Register::new(registers.read32(offset::IDR0));
    let idr1: Register<IDR1::Register> = Register::new(registers.read32(offset::IDR1));
    let idr3: Register<IDR3::Register> = Register::new(registers.read32(offset::IDR3));
    let idr5: Register<IDR5::Register> = Register::new(registers.read32(offset::IDR5));
    let iidr: Register<IIDR::Register> = Register::new(registers.read32(offset::IIDR));
    let aidr: Register<AIDR::Register> = Register::new(registers.read32(offset::AIDR));
    if aidr.read(AIDR::MAJOR) != 0 {
        return Err(Refusal::NotVersion3 {
            major: aidr.read(AIDR::MAJOR) as u8,
        });
    }
    refuse_what_cannot_be_driven(idr0, idr1, idr5, firmware)?;
    let tag_bits = |is_wide| if is_wide { 16 } else { 8 };
    Ok(Features {
        has_stage1: idr0.is_set(IDR0::S1P),
        says_coherent: idr0.is_set(IDR0::COHACC),
        has_ats: idr0.is_set(IDR0::ATS),
        has_split_ats: idr0.is_set(IDR0::ATS) && !idr0.is_set(IDR0::NS1ATS),
        records_ats_errors: idr0.is_set(IDR0::ATS) && idr0.is_set(IDR0::ATSRECERR),
        has_pri: idr0.is_set(IDR0::PRI),
        has_el2: idr0.is_set(IDR0::HYP),
        has_two_level_streams: idr0.matches_all(IDR0::ST_LEVEL::TwoLevel),
        has_two_level_cds: idr0.is_set(IDR0::CD2L),
        has_range_invalidation: idr3.is_set(IDR3::RIL),
        has_msi: idr0.is_set(IDR0::MSI),
        stalls: stall_model(idr0)?,
        aborts_only: idr0.is_set(IDR0::TERM_MODEL),
        asid_bits: tag_bits(idr0.is_set(IDR0::ASID16)),
        vmid_bits: tag_bits(idr0.is_set(IDR0::VMID16)),
        stream_bits: bounded("IDR1.SIDSIZE", idr1.read(IDR1::SIDSIZE), 32)?,
        substream_bits: bounded("IDR1.SSIDSIZE", idr1.read(IDR1::SSIDSIZE), 20)?,
        log2_max_commands: bounded("IDR1.CMDQS", idr1.read(IDR1::CMDQS), 19)?,
        log2_max_events: bounded("IDR1.EVENTQS", idr1.read(IDR1::EVENTQS), 19)?,
        bbm_level: bounded("IDR3.BBML", idr3.read(IDR3::BBML), 2)?,
        output_bits: output_bits(idr5.read(IDR5::OAS)),
        needs_flush_of_new_tables: false,
        has_16k_granule: idr5.is_set(IDR5::GRAN16K),
        has_64k_granule: idr5.is_set(IDR5::GRAN64K),
        stall_max: idr5.read(IDR5::STALL_MAX) as u16,
        minor_revision: aidr.read(AIDR::MINOR) as u8,
        implementation: Implementation {
            implementer: iidr.read(IIDR::IMPLEMENTER) as u16,
            product: iidr.read(IIDR::PRODUCT_ID) as u16,
            variant: iidr.read(IIDR::VARIANT) as u8,
            revision: iidr.read(IIDR::REVISION) as u8,
        },
    })
}

fn refuse_what_cannot_be_driven(
    idr0: Register<IDR0::Register>,
    idr1: Register<IDR1::Register>,
    idr5: Register<IDR5::Register>,
    firmware: Firmware,
) -> Result<(), Refusal> {
    let refusals = [
        (!idr0.is_set(IDR0::S2P), Refusal::NoStage2),
        (idr0.read(IDR0::TTF) & 0b10 == 0, Refusal::NoAArch64Tables),
        (
            idr0.matches_all(IDR0::TTENDIAN::Big),
            Refusal::BigEndianTables,
        ),
        (!idr5.is_set(IDR5::GRAN4K), Refusal::No4KiBGranule),
        (!firmware.is_coherent, Refusal::NotCoherent),
        (
            idr1.is_set(IDR1::QUEUES_PRESET) || idr1.is_set(IDR1::TABLES_PRESET),
            Refusal::Preset,
        ),
    ];
    refusals
        .iter()
        .find(|(holds, _)| *holds)
        .map_or(Ok(()), |(_, refusal)| Err(*refusal))
}

fn stall_model(idr0: Register<IDR0::Register>) -> Result<StallModel, Refusal> {
    match idr0.read_as_enum(IDR0::STALL_MODEL) {
        Some(IDR0::STALL_MODEL::Value::Both) => Ok(StallModel::Either),
        Some(IDR0::STALL_MODEL::Value::Terminate) => Ok(StallModel::Terminate),
        Some(IDR0::STALL_MODEL::Value::Forced) => Ok(StallModel::Forced),
        None => Err(Refusal::Reserved {
            field: "IDR0.STALL_MODEL",
            value: idr0.read(IDR0::STALL_MODEL),
        }),
    }
}

fn bounded(field: &'static str, value: u32, limit: u32) -> Result<u8, Refusal> {
    if value <= limit {
        Ok(value as u8)
    } else {
        Err(Refusal::Reserved { field, value })
    }
}

/// §6.3.6: eight encodings, all defined.
const fn output_bits(oas: u32) -> u8 {
    match oas {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        6 => 52,
        _ => 56,
    }
}
