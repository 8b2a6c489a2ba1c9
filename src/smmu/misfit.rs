//! Whether an SMMU can do what is asked of stage 1 and of ATS, and why not.

use core::fmt;

use super::probe::{Features, StallModel};
use crate::addr::Ipa;
use crate::spec::cd::{Cd, Faults};
use crate::spec::stage1::{Half, Stage1Walk, VA_BITS_MAX, VA_BITS_MIN};
use crate::spec::ste::{Ats, CdFormat, CdTable, Ste};

/// Why an SMMU cannot translate by a stage 1, hold a device's contexts, or let a device cache
/// translations. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misfit {
    /// It has no stage 1 (IDR0.S1P).
    NoStage1,
    /// It has not so many SubstreamIDs, or none (IDR1.SSIDSIZE); or the number is none or over 20.
    SubstreamSize {
        /// Bits asked for.
        bits: u8,
        /// Bits that it has.
        smmu_bits: u8,
    },
    /// It has no CD tables of two levels (IDR0.CD2L).
    NoLeaves,
    /// It does not have the granule.
    Granule {
        /// The granule, as a power of two.
        log2_granule: u8,
    },
    /// Input addresses are not of 25 to 48 bits.
    InputSize {
        /// How wide they were to be.
        va_bits: u8,
    },
    /// There is no such size of output addresses.
    OutputSize {
        /// How wide they were to be.
        output_bits: u8,
    },
    /// The root table is not aligned to its size, or lies past the output addresses.
    Root {
        /// Where it was to be.
        root: Ipa,
    },
    /// The ASID has 16 bits and the SMMU's have 8.
    AsidSize,
    /// Nothing stalls there (IDR0.STALL_MODEL).
    NoStalls,
    /// It has no ATS (IDR0.ATS).
    NoAts,
    /// It has no ATS with split stages (IDR0.NS1ATS).
    NoSplitAts,
    /// ATS with split stages is for streams with both stages.
    SplitAtsOfOneStage,
    /// Everything that faults stalls there (IDR0.STALL_MODEL 2), and no stream has ATS then
    /// (§5.2, `S2S`).
    AtsWithStalls,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStage1 => f.write_str("the SMMU has no stage 1"),
            Self::SubstreamSize { bits, smmu_bits } => {
                write!(f, "{bits} bits of SubstreamID, the SMMU has {smmu_bits}")
            }
            Self::NoLeaves => f.write_str("the SMMU has no CD tables of two levels"),
            Self::Granule { log2_granule } => {
                write!(f, "the SMMU has no granule of 2^{log2_granule} bytes")
            }
            Self::InputSize { va_bits } => {
                write!(f, "a stage 1 has no addresses of {va_bits} bits")
            }
            Self::OutputSize { output_bits } => {
                write!(f, "a stage 1 has no outputs of {output_bits} bits")
            }
            Self::Root { root } => write!(f, "no root table can be at {root}"),
            Self::AsidSize => f.write_str("the ASID has 16 bits, the SMMU's have 8"),
            Self::NoStalls => f.write_str("the SMMU has no stalls"),
            Self::NoAts => f.write_str("the SMMU has no ATS"),
            Self::NoSplitAts => f.write_str("the SMMU has no ATS with split stages"),
            Self::SplitAtsOfOneStage => {
                f.write_str("ATS with split stages is for streams with both stages")
            }
            Self::AtsWithStalls => f.write_str("where faults always stall there is no ATS"),
        }
    }
}

impl Features {
    /// The CD that translates by `walk` on this SMMU.
    ///
    /// # Errors
    ///
    /// [`Misfit::NoStage1`], [`Misfit::Granule`], [`Misfit::InputSize`], [`Misfit::OutputSize`],
    /// [`Misfit::Root`], [`Misfit::AsidSize`], [`Misfit::NoStalls`]: the first that holds.
    pub fn cd(&self, walk: &Stage1Walk, faults: Faults) -> Result<Cd, Misfit> {
        if !self.has_stage1 {
            return Err(Misfit::NoStage1);
        }
        let output_bits = walk.output_bits;
        if walk.ips().is_none() {
            return Err(Misfit::OutputSize { output_bits });
        }
        for half in walk.halves() {
            self.fits(half, output_bits)?;
        }
        if self.asid_bits == 8 && walk.asid.as_u16() > 0xff {
            return Err(Misfit::AsidSize);
        }
        if faults == Faults::Stall && self.stalls == StallModel::Terminate {
            return Err(Misfit::NoStalls);
        }
        // More than the SMMU has means as much as it has (§5.4, `IPS`), but is not to be relied upon.
        let capped = Stage1Walk {
            output_bits: output_bits.min(self.output_bits),
            ..*walk
        };
        // Where stalls are forced, `S == 0` is ILLEGAL (§5.4).
        let faults = match self.stalls {
            StallModel::Forced => Faults::Stall,
            StallModel::Either | StallModel::Terminate => faults,
        };
        Cd::live(&capped, faults).ok_or(Misfit::OutputSize { output_bits })
    }

    /// Whether there is a quiet CD; where there is none, a context is parked by making it not valid.
    pub fn can_quiet(&self) -> bool {
        self.stalls != StallModel::Forced
    }

    /// Whether transactions can stall, so that CMD_RESUME and CMD_STALL_TERM are legal (§4.7.1).
    pub fn can_stall(&self) -> bool {
        self.stalls != StallModel::Terminate
    }

    /// Whether streams with both stages (`nested`), or with stage 2 alone, can have this ATS.
    ///
    /// Whether the device is to be trusted with [`Ats::Full`] is for the caller to know.
    ///
    /// # Errors
    ///
    /// [`Misfit::NoAts`], [`Misfit::AtsWithStalls`], [`Misfit::NoSplitAts`],
    /// [`Misfit::SplitAtsOfOneStage`]: the first that holds (§5.2, `EATS`).
    pub fn can_ats(&self, ats: Ats, nested: bool) -> Result<(), Misfit> {
        let refusals = [
            (!self.has_ats, Misfit::NoAts),
            (self.stalls == StallModel::Forced, Misfit::AtsWithStalls),
            (ats == Ats::Split && !self.has_split_ats, Misfit::NoSplitAts),
            (ats == Ats::Split && !nested, Misfit::SplitAtsOfOneStage),
        ];
        let first = refusals.iter().find(|(holds, _)| *holds);
        match first {
            Some((_, misfit)) if ats != Ats::Off => Err(*misfit),
            _ => Ok(()),
        }
    }

    /// An entry with stage 2 as it is legal on this SMMU: where stalls are forced, `S2S == 0` is
    /// ILLEGAL (§5.2).
    pub(super) fn legal(&self, ste: Ste) -> Ste {
        match self.stalls {
            StallModel::Forced => ste.stalling(),
            StallModel::Either | StallModel::Terminate => ste,
        }
    }

    fn fits(&self, half: &Half, output_bits: u8) -> Result<(), Misfit> {
        let (root, va_bits) = (half.root, half.va_bits);
        let log2_granule = half.granule.log2_bytes();
        if !self.has_granule(log2_granule) {
            return Err(Misfit::Granule { log2_granule });
        }
        if !(VA_BITS_MIN..=VA_BITS_MAX).contains(&va_bits) {
            return Err(Misfit::InputSize { va_bits });
        }
        // An address above 48 bits takes 64 KiB pages (§5.4, `TTB0`).
        let granule_bits = if log2_granule == 16 { 52 } else { 48 };
        let root_bits = output_bits.min(self.output_bits).min(granule_bits);
        if !half.has_aligned_root() || root.as_u64() >> root_bits != 0 {
            return Err(Misfit::Root { root });
        }
        Ok(())
    }

    /// Whether this SMMU finds CDs in such a table.
    ///
    /// # Errors
    ///
    /// [`Misfit::NoStage1`], [`Misfit::SubstreamSize`], [`Misfit::NoLeaves`].
    pub fn can_hold(&self, table: &CdTable) -> Result<(), Misfit> {
        if !self.has_stage1 {
            return Err(Misfit::NoStage1);
        }
        let CdTable::BySubstream {
            log2_cds, format, ..
        } = *table
        else {
            return Ok(());
        };
        if log2_cds == 0 || log2_cds > self.substream_bits {
            return Err(Misfit::SubstreamSize {
                bits: log2_cds,
                smmu_bits: self.substream_bits,
            });
        }
        if format != CdFormat::Linear && !self.has_two_level_cds {
            return Err(Misfit::NoLeaves);
        }
        Ok(())
    }
}
