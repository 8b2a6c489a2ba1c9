//! What an SMMU says of itself: the ID registers, and presets.

/// Whether faulting transactions may stall (IDR0.STALL_MODEL).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StallModel {
    /// 0: a stream may stall or terminate.
    StallAndTerminate,
    /// 1: nothing stalls.
    TerminateOnly,
    /// 2: everything that faults stalls.
    StallForced,
}

/// The features of one SMMU; what its ID registers are made of.
///
/// AArch64 translation tables only (IDR0.TTF = 2), no hardware update of access flag or dirty
/// state (HTTU = 0), no Secure state, no MPAM, no ECMDQ, no 52-bit addresses with 4 or 16 KiB
/// granules (DS = 0).
///
/// Start from a preset and change fields:
/// `Identity { cohacc: false, ..Identity::full() }`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// IDR0.S1P: stage 1.
    pub stage1: bool,
    /// IDR0.S2P: stage 2.
    pub stage2: bool,
    /// IDR0.COHACC.
    pub cohacc: bool,
    /// IDR0.BTM.
    pub btm: bool,
    /// IDR0.HYP: EL2 stream worlds; only with both stages.
    pub hyp: bool,
    /// IDR0.ATS.
    pub ats: bool,
    /// IDR0.NS1ATS: split-stage ATS is *not* supported.
    pub ns1ats: bool,
    /// IDR0.ASID16.
    pub asid16: bool,
    /// IDR0.VMID16.
    pub vmid16: bool,
    /// IDR0.MSI.
    pub msi: bool,
    /// IDR0.SEV.
    pub sev: bool,
    /// IDR0.PRI; only with ATS.
    pub pri: bool,
    /// IDR0.VMW: wildcards of VMIDs in invalidations.
    pub vmw: bool,
    /// IDR0.CD2L: two-level CD tables.
    pub cd2l: bool,
    /// IDR0.TTENDIAN: 0 both, 2 little, 3 big.
    pub ttendian: u8,
    /// IDR0.ATSRECERR: CR2.REC_CFG_ATS is there.
    pub atsrecerr: bool,
    /// IDR0.STALL_MODEL.
    pub stall_model: StallModel,
    /// IDR0.TERM_MODEL: a fault aborts only, CD.A must be 1.
    pub term_abort_only: bool,
    /// IDR0.ST_LEVEL: two-level stream tables.
    pub st_level2: bool,
    /// IDR1.SIDSIZE, in bits.
    pub sid_bits: u8,
    /// IDR1.SSIDSIZE, in bits; 0: no SubstreamIDs.
    pub ssid_bits: u8,
    /// IDR1.CMDQS: log2 of the most entries.
    pub cmdq_log2: u8,
    /// IDR1.EVENTQS.
    pub eventq_log2: u8,
    /// IDR1.PRIQS.
    pub priq_log2: u8,
    /// IDR1.ATTR_PERMS_OVR.
    pub attr_perms_ovr: bool,
    /// IDR1.ATTR_TYPES_OVR.
    pub attr_types_ovr: bool,
    /// IDR3.HAD.
    pub had: bool,
    /// IDR3.XNX.
    pub xnx: bool,
    /// IDR3.PPS.
    pub pps: bool,
    /// IDR3.FWB.
    pub fwb: bool,
    /// IDR3.STT: small translation tables.
    pub stt: bool,
    /// IDR3.RIL: range invalidation.
    pub ril: bool,
    /// IDR3.BBML: 0, 1 or 2.
    pub bbml: u8,
    /// IDR3.E0PD.
    pub e0pd: bool,
    /// IDR3.PTWNNC.
    pub ptwnnc: bool,
    /// IDR3.PASIDTT.
    pub pasidtt: bool,
    /// IDR3.EPAN.
    pub epan: bool,
    /// IDR5.OAS in bits: 32, 36, 40, 42, 44, 48 or 52.
    pub oas_bits: u8,
    /// IDR5.GRAN4K.
    pub granule_4k: bool,
    /// IDR5.GRAN16K.
    pub granule_16k: bool,
    /// IDR5.GRAN64K.
    pub granule_64k: bool,
    /// IDR5.VAX: 52-bit virtual addresses with the 64 KiB granule.
    pub vax52: bool,
    /// IDR5.STALL_MAX.
    pub stall_max: u16,
    /// IIDR, whole.
    pub iidr: u32,
    /// AIDR.ArchMinorRev.
    pub minor: u8,
}

impl Identity {
    /// Everything the model can do: both stages, 20-bit SubstreamIDs, ATS, PRI, stalls, RIL.
    pub const fn full() -> Self {
        Self {
            stage1: true,
            stage2: true,
            cohacc: true,
            btm: false,
            hyp: true,
            ats: true,
            ns1ats: false,
            asid16: true,
            vmid16: true,
            msi: true,
            sev: true,
            pri: true,
            vmw: true,
            cd2l: true,
            ttendian: 0,
            atsrecerr: true,
            stall_model: StallModel::StallAndTerminate,
            term_abort_only: false,
            st_level2: true,
            sid_bits: 16,
            ssid_bits: 20,
            cmdq_log2: 16,
            eventq_log2: 16,
            priq_log2: 16,
            attr_perms_ovr: true,
            attr_types_ovr: true,
            had: true,
            xnx: true,
            pps: false,
            fwb: true,
            stt: true,
            ril: true,
            bbml: 1,
            e0pd: true,
            ptwnnc: true,
            pasidtt: true,
            epan: false,
            oas_bits: 48,
            granule_4k: true,
            granule_16k: true,
            granule_64k: true,
            vax52: false,
            stall_max: 32,
            iidr: 0,
            minor: 3,
        }
    }

    /// What QEMU 10's SMMUv3 says on `-M virt`: IDR0 0x0d44101b, IDR1 0x02730010, IDR3 0x1414,
    /// IDR5 0x74.
    pub const fn qemu() -> Self {
        Self {
            hyp: false,
            ats: false,
            ns1ats: false,
            msi: false,
            sev: false,
            pri: false,
            vmw: false,
            cd2l: false,
            ttendian: 2,
            atsrecerr: false,
            stall_model: StallModel::TerminateOnly,
            term_abort_only: true,
            ssid_bits: 0,
            cmdq_log2: 19,
            eventq_log2: 19,
            priq_log2: 0,
            attr_perms_ovr: false,
            attr_types_ovr: false,
            fwb: false,
            stt: false,
            bbml: 2,
            e0pd: false,
            ptwnnc: false,
            pasidtt: false,
            oas_bits: 44,
            stall_max: 0,
            minor: 1,
            ..Self::full()
        }
    }

    /// A Kunpeng 920's (TaiShan 200), as far as public boot logs tell.
    ///
    /// Known from the logs: both stages, two-level tables, both endiannesses, stalls (model 0),
    /// ATS without PRI, MSI, SEV, HYP, no range invalidation, 48-bit addresses. Not published, and
    /// chosen here: 16-bit SubstreamIDs (the accelerators hold a 16-bit PASID), 16-bit tags,
    /// revision 3.0 without what 3.1 made mandatory.
    pub const fn kunpeng_920() -> Self {
        Self {
            pri: false,
            vmw: false,
            atsrecerr: false,
            ssid_bits: 16,
            priq_log2: 0,
            attr_perms_ovr: false,
            attr_types_ovr: false,
            had: false,
            xnx: false,
            fwb: false,
            stt: false,
            ril: false,
            bbml: 0,
            e0pd: false,
            ptwnnc: false,
            pasidtt: false,
            iidr: 0x736,
            minor: 0,
            ..Self::full()
        }
    }

    /// [`full`](Self::full) with 8-bit ASIDs and VMIDs.
    pub const fn narrow_tags() -> Self {
        Self {
            asid16: false,
            vmid16: false,
            ..Self::full()
        }
    }

    /// [`full`](Self::full) that does not snoop (COHACC = 0).
    pub const fn incoherent() -> Self {
        Self {
            cohacc: false,
            ..Self::full()
        }
    }

    /// [`full`](Self::full) with this STALL_MODEL.
    pub const fn with_stalls(stall_model: StallModel) -> Self {
        let stall_max = match stall_model {
            StallModel::TerminateOnly => 0,
            _ => 32,
        };
        Self {
            stall_model,
            stall_max,
            ..Self::full()
        }
    }

    /// IDR0.
    pub fn idr0(&self) -> u32 {
        let stall_model = match self.stall_model {
            StallModel::StallAndTerminate => 0,
            StallModel::TerminateOnly => 1,
            StallModel::StallForced => 2,
        };
        flag(self.stage2, 0)
            | flag(self.stage1, 1)
            | 2 << 2
            | flag(self.cohacc, 4)
            | flag(self.btm, 5)
            | flag(self.has_hyp(), 9)
            | flag(self.ats, 10)
            | flag(self.ns1ats, 11)
            | flag(self.asid16, 12)
            | flag(self.msi, 13)
            | flag(self.sev, 14)
            | flag(self.has_pri(), 16)
            | flag(self.vmw, 17)
            | flag(self.vmid16, 18)
            | flag(self.cd2l, 19)
            | u32::from(self.ttendian) << 21
            | flag(self.atsrecerr, 23)
            | stall_model << 24
            | flag(self.term_abort_only, 26)
            | flag(self.st_level2, 27)
    }

    /// IDR1.
    pub fn idr1(&self) -> u32 {
        u32::from(self.sid_bits)
            | u32::from(self.ssid_bits) << 6
            | u32::from(self.priq_log2) << 11
            | u32::from(self.eventq_log2) << 16
            | u32::from(self.cmdq_log2) << 21
            | flag(self.attr_perms_ovr, 26)
            | flag(self.attr_types_ovr, 27)
    }

    /// IDR3.
    pub fn idr3(&self) -> u32 {
        flag(self.had, 2)
            | flag(self.xnx, 4)
            | flag(self.pps, 5)
            | flag(self.fwb, 8)
            | flag(self.stt, 9)
            | flag(self.ril, 10)
            | u32::from(self.bbml) << 11
            | flag(self.e0pd, 13)
            | flag(self.ptwnnc, 14)
            | flag(self.pasidtt, 16)
            | flag(self.epan, 17)
    }

    /// IDR5.
    pub fn idr5(&self) -> u32 {
        let oas = match self.oas_bits {
            0..=35 => 0,
            36..=39 => 1,
            40..=41 => 2,
            42..=43 => 3,
            44..=47 => 4,
            48..=51 => 5,
            _ => 6,
        };
        oas | flag(self.granule_4k, 4)
            | flag(self.granule_16k, 5)
            | flag(self.granule_64k, 6)
            | flag(self.vax52, 10)
            | u32::from(self.stall_max) << 16
    }

    /// Whether EL2 stream worlds are there.
    pub(crate) const fn has_hyp(&self) -> bool {
        self.hyp && self.stage1 && self.stage2
    }

    /// Whether page requests are there.
    pub(crate) const fn has_pri(&self) -> bool {
        self.pri && self.ats
    }

    /// The size of an output address for an `IPS`, `S2PS` or `OAS` encoding, capped to ours.
    pub(crate) fn address_bits(&self, encoding: u64) -> u32 {
        let bits = match encoding {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            5 => 48,
            _ => 52,
        };
        bits.min(u32::from(self.oas_bits))
    }

    /// The intermediate address size; without AArch32 tables it is the output address size.
    pub(crate) fn ias_bits(&self) -> u32 {
        u32::from(self.oas_bits)
    }
}

const fn flag(value: bool, at: u32) -> u32 {
    (value as u32) << at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_qemu_preset_has_the_words_that_were_measured() {
        let qemu = Identity::qemu();
        assert_eq!(qemu.idr0(), 0x0d44_101b);
        assert_eq!(qemu.idr1(), 0x0273_0010);
        assert_eq!(qemu.idr3(), 0x0000_1414);
        assert_eq!(qemu.idr5(), 0x0000_0074);
    }

    #[test]
    fn the_kunpeng_preset_stalls_and_has_no_range_invalidation() {
        let kunpeng = Identity::kunpeng_920();
        assert_eq!(kunpeng.idr0() >> 24 & 3, 0);
        assert_eq!(kunpeng.idr3() >> 10 & 1, 0);
    }
}
