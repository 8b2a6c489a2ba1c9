//! Stream Table Entry (§5.2).

use super::bits::Field;
use super::vmsa::{Stage2Walk, WalkCoherency};
use crate::addr::Ipa;
use crate::id::Vmid;

const V: Field = Field::bit(0);
const CONFIG: Field = Field::bits(3, 1);
const S1_FMT: Field = Field::bits(5, 4);
const S1_CONTEXT_PTR: Field = Field::bits(55, 6);
const S1_CD_MAX: Field = Field::bits(63, 59);
const S1_DSS: Field = Field::bits(65, 64);
const S1_CIR: Field = Field::bits(67, 66);
const S1_COR: Field = Field::bits(69, 68);
const S1_CSH: Field = Field::bits(71, 70);
const S2_HWU: Field = Field::bits(75, 72);
const CONT: Field = Field::bits(80, 77);
const MEV: Field = Field::bit(83);
const SW: Field = Field::bits(87, 84);
const S1_PIE: Field = Field::bit(88);
const S2_FWB: Field = Field::bit(89);
const S1_MPAM: Field = Field::bit(90);
const S1_STALLD: Field = Field::bit(91);
const EATS: Field = Field::bits(93, 92);
const STRW: Field = Field::bits(95, 94);
const SHCFG: Field = Field::bits(109, 108);
const S2_VMID: Field = Field::bits(143, 128);
const S2_T0SZ: Field = Field::bits(165, 160);
const S2_SL0: Field = Field::bits(167, 166);
const S2_IR0: Field = Field::bits(169, 168);
const S2_OR0: Field = Field::bits(171, 170);
const S2_SH0: Field = Field::bits(173, 172);
const S2_TG: Field = Field::bits(175, 174);
const S2_PS: Field = Field::bits(178, 176);
const S2_AA64: Field = Field::bit(179);
const S2_PTW: Field = Field::bit(182);
const S2_S: Field = Field::bit(185);
const S2_R: Field = Field::bit(186);
const S2_TTB: Field = Field::bits(247, 196);

const CONFIG_ABORT: u64 = 0b000;
const CONFIG_STAGE2: u64 = 0b110;
const CONFIG_NESTED: u64 = 0b111;
/// In Config: traffic gets through; stage 2 is on; stage 1 is on.
const CONFIG_OPEN: u64 = 0b100;
const CONFIG_HAS_STAGE2: u64 = 0b010;
const CONFIG_HAS_STAGE1: u64 = 0b001;
/// Use the incoming shareability.
const SHCFG_INCOMING: u64 = 1;
/// Write-back, read and write allocate.
const WALK_WRITE_BACK: u64 = 1;
const WALK_NON_CACHEABLE: u64 = 0;
const INNER_SHAREABLE: u64 = 3;
const OUTER_SHAREABLE: u64 = 2;
/// Write-back, read allocate: nobody but the CPU writes CDs. Not the encoding of `S2IR0`.
const CD_WRITE_BACK: u64 = 1;
const S1DSS_TERMINATE: u64 = 0;
const S1DSS_BYPASS: u64 = 1;

/// Stream Table Entry: what the SMMU does with the traffic of one StreamID.
///
/// A plain value: making one changes nothing. The SMMU sees it only once it is published. 64 bytes,
/// little-endian. §5.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ste([u64; 8]);

/// How the CDs of a stream are found (`S1Fmt`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum CdFormat {
    /// In one table, aligned to its size.
    Linear = 0,
    /// In leaves of 64 CDs, 4 KiB each, below L1CDs.
    Leaves4K = 1,
    /// In leaves of 1024 CDs, 64 KiB each, below L1CDs.
    Leaves64K = 2,
}

/// What becomes of traffic without a SubstreamID (`S1DSS`), where there are several CDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Untagged {
    /// It aborts, with F_STREAM_DISABLED.
    Abort,
    /// It is translated by stage 2 alone.
    Stage2,
}

/// Where the CDs of a stream are, and which there are.
///
/// All in the IPAs of the stream's stage 2 (§5.2, `S1ContextPtr`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CdTable {
    /// One CD, which all the stream's traffic uses; a SubstreamID is refused.
    Single {
        /// Where; a multiple of 64.
        at: Ipa,
    },
    /// A CD for each SubstreamID.
    BySubstream {
        /// Where the table is, or that of L1CDs; aligned to its size.
        at: Ipa,
        /// How many CDs there are, as a power of two: 1 to 20 (`S1CDMax`).
        log2_cds: u8,
        /// How they are found.
        format: CdFormat,
        /// What becomes of the rest of the traffic.
        untagged: Untagged,
    },
}

/// Whether a stream's device may ask for translations and cache them (`EATS`).
///
/// Off is safe with any device. With split stages what a device gets is an IPA, which stage 2
/// checks when it comes back; with full ones it is a physical address, which nothing checks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ats {
    /// Requests are refused, translated traffic aborts.
    Off,
    /// A request is answered with what stage 1 says; translated traffic goes through stage 2.
    Split,
    /// A request is answered with a physical address; translated traffic passes. Only for a device
    /// that is trusted with all of memory.
    Full,
}

/// What the software field of an STE says of it; the SMMU never looks there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// Nothing: the entry is what its other fields say.
    Settled,
    /// Somebody is changing the entry; nobody else may.
    Changing,
    /// A change was never confirmed: what the SMMU holds is unknown.
    Lost,
    /// As lost, and somebody is at proving what the SMMU holds.
    Recovering,
    /// The SMMU holds nothing of it; what its device holds is unknown, until that is reset.
    AwaitsReset,
}

impl Ste {
    /// Aborts every transaction with C_BAD_STE (`V == 0`).
    pub const fn invalid() -> Self {
        Self([0; 8])
    }

    /// Aborts every transaction and records nothing (`Config == 0b000`).
    pub const fn abort() -> Self {
        let mut words = [0; 8];
        V.set(&mut words, 1);
        CONFIG.set(&mut words, CONFIG_ABORT);
        Self(words)
    }

    /// Translates by stage 2 alone (`Config == 0b110`); a transaction with a PASID is refused.
    ///
    /// The policy that every entry shares: faults are recorded and abort (S2R, not S2S), may be
    /// merged (MEV), hardware updates no flags, a table or CD in Device memory is refused (S2PTW), no
    /// ATS ([`with_ats`](Self::with_ats)) and no stalls ([`stalling`](Self::stalling)).
    pub const fn stage2(walk: &Stage2Walk) -> Self {
        let (cacheability, shareability) = match walk.coherency {
            WalkCoherency::Coherent => (WALK_WRITE_BACK, INNER_SHAREABLE),
            WalkCoherency::Clean => (WALK_NON_CACHEABLE, OUTER_SHAREABLE),
        };
        let mut words = Self::abort().0;
        CONFIG.set(&mut words, CONFIG_STAGE2);
        MEV.set(&mut words, 1);
        SHCFG.set(&mut words, SHCFG_INCOMING);
        S2_VMID.set(&mut words, walk.vmid.as_u16() as u64);
        S2_T0SZ.set(&mut words, walk.geometry.t0sz() as u64);
        S2_SL0.set(&mut words, walk.geometry.sl0() as u64);
        S2_IR0.set(&mut words, cacheability);
        S2_OR0.set(&mut words, cacheability);
        S2_SH0.set(&mut words, shareability);
        S2_TG.set(&mut words, walk.geometry.tg() as u64);
        S2_PS.set(&mut words, walk.geometry.ps() as u64);
        S2_AA64.set(&mut words, 1);
        S2_PTW.set(&mut words, 1);
        S2_R.set(&mut words, 1);
        S2_TTB.set_address(&mut words, walk.root.as_u64());
        Self(words)
    }

    /// Translates by stage 1, by one of the CDs of `table`, and then by stage 2
    /// (`Config == 0b111`).
    ///
    /// The policy is that of [`stage2`](Self::stage2); the CDs are fetched from write-back memory
    /// that SMMU and CPU share. The stream's world is EL1, which `Config == 0b111` implies.
    ///
    /// # Panics
    ///
    /// If the table is not a multiple of 64, has more than 56 bits, or more than 2^31 CDs.
    pub const fn nested(walk: &Stage2Walk, table: &CdTable) -> Self {
        let mut words = Self::stage2(walk).0;
        CONFIG.set(&mut words, CONFIG_NESTED);
        S1_CIR.set(&mut words, CD_WRITE_BACK);
        S1_COR.set(&mut words, CD_WRITE_BACK);
        S1_CSH.set(&mut words, INNER_SHAREABLE);
        match *table {
            CdTable::Single { at } => S1_CONTEXT_PTR.set_address(&mut words, at.as_u64()),
            CdTable::BySubstream {
                at,
                log2_cds,
                format,
                untagged,
            } => {
                S1_CONTEXT_PTR.set_address(&mut words, at.as_u64());
                S1_CD_MAX.set(&mut words, log2_cds as u64);
                S1_FMT.set(&mut words, format as u64);
                let dss = match untagged {
                    Untagged::Abort => S1DSS_TERMINATE,
                    Untagged::Stage2 => S1DSS_BYPASS,
                };
                S1_DSS.set(&mut words, dss);
            }
        }
        Self(words)
    }

    /// The same entry with this `EATS`.
    ///
    /// Split is legal with both stages alone, and where IDR0.NS1ATS is 0; neither is together with
    /// [`stalling`](Self::stalling) (§5.2).
    pub const fn with_ats(mut self, ats: Ats) -> Self {
        let value = match ats {
            Ats::Off => 0,
            Ats::Full => 1,
            Ats::Split => 2,
        };
        EATS.set(&mut self.0, value);
        self
    }

    /// The same entry with stage-2 faults that stall (`S2S`), as IDR0.STALL_MODEL 2 asks (§5.2).
    pub const fn stalling(mut self) -> Self {
        S2_S.set(&mut self.0, 1);
        self
    }

    /// The entry that lies in memory as `words`.
    pub const fn from_words(words: [u64; 8]) -> Self {
        Self(words)
    }

    /// The eight words, in the order of memory.
    pub const fn words(&self) -> &[u64; 8] {
        &self.0
    }

    /// Whether traffic can get through: the entry is valid and does not abort.
    pub const fn is_open(&self) -> bool {
        // §5.2: Config 0b0xx aborts, whatever xx is.
        V.get(&self.0) == 1 && CONFIG.get(&self.0) & CONFIG_OPEN != 0
    }

    /// Where its CDs are, if it has stage 1.
    pub const fn cd_table(&self) -> Option<Ipa> {
        if self.is_open() && CONFIG.get(&self.0) & CONFIG_HAS_STAGE1 != 0 {
            Some(Ipa::new(S1_CONTEXT_PTR.get_address(&self.0)))
        } else {
            None
        }
    }

    /// Whether its device may ask for translations, by what is written.
    pub const fn ats(&self) -> Ats {
        match EATS.get(&self.0) {
            1 => Ats::Full,
            2 => Ats::Split,
            // 3 needs what is not there, and is then as 0 (§5.2).
            _ => Ats::Off,
        }
    }

    /// The VMID of an entry with stage 2.
    pub const fn vmid(&self) -> Vmid {
        Vmid::new(S2_VMID.get(&self.0) as u16)
    }

    /// What the software field says.
    pub const fn mark(&self) -> Mark {
        match SW.get(&self.0) {
            0 => Mark::Settled,
            1 => Mark::Changing,
            3 => Mark::Recovering,
            4 => Mark::AwaitsReset,
            _ => Mark::Lost,
        }
    }

    /// The same entry with another mark: a change of one word that the SMMU does not look at.
    pub const fn marked(mut self, mark: Mark) -> Self {
        let value = match mark {
            Mark::Settled => 0,
            Mark::Changing => 1,
            Mark::Lost => 2,
            Mark::Recovering => 3,
            Mark::AwaitsReset => 4,
        };
        SW.set(&mut self.0, value);
        self
    }

    /// The word that the mark lies in.
    pub const MARK_WORD: usize = SW.word();

    /// The valid bit, in word 0.
    pub const VALID: u64 = V.mask();

    /// Word 0 of an entry that aborts and records nothing, whatever the other words say.
    pub const ABORT_WORD: u64 = V.mask();

    /// For each word, the bits that the SMMU may look at, given the rest of the entry (§5.2).
    ///
    /// An entry that is not valid uses its valid bit alone; one that aborts also Config and CONT.
    /// One that is open does not use what is for a stage that is off, nor how CDs are told apart
    /// where there is one, nor the software's field. Stage 1 alone tags by the VMID.
    pub const fn used_bits(&self) -> [u64; 8] {
        let mut used = [0; 8];
        used[0] = V.mask();
        if V.get(&self.0) == 0 {
            return used;
        }
        used[0] |= CONFIG.mask();
        used[1] = CONT.mask();
        let config = CONFIG.get(&self.0);
        if config & CONFIG_OPEN == 0 {
            return used;
        }
        used[1] = !(STAGE1_OF_WORD1 | STAGE2_OF_WORD1 | STRW.mask() | SW.mask());
        used[4] = u64::MAX;
        used[5] = u64::MAX;
        if config & CONFIG_HAS_STAGE1 != 0 {
            used[0] |= S1_CONTEXT_PTR.mask() | S1_CD_MAX.mask();
            used[1] |= STAGE1_OF_WORD1;
            used[2] |= S2_VMID.mask() | S2_S.mask();
            if S1_CD_MAX.get(&self.0) == 0 {
                used[1] &= !S1_DSS.mask();
            } else {
                used[0] |= S1_FMT.mask();
            }
        }
        if config & CONFIG_HAS_STAGE2 != 0 {
            used[1] |= STAGE2_OF_WORD1;
            used[2] = u64::MAX;
            used[3] = u64::MAX;
            used[6] = u64::MAX;
            used[7] = u64::MAX;
        } else if config & CONFIG_HAS_STAGE1 != 0 {
            used[1] |= STRW.mask();
        }
        used
    }
}

/// Fields of word 1 that are for stage 1 alone.
const STAGE1_OF_WORD1: u64 = S1_DSS.mask()
    | S1_CIR.mask()
    | S1_COR.mask()
    | S1_CSH.mask()
    | S1_PIE.mask()
    | S1_MPAM.mask()
    | S1_STALLD.mask();
/// Fields of word 1 that are for stage 2 alone.
const STAGE2_OF_WORD1: u64 = S2_HWU.mask() | S2_FWB.mask();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pa;
    use crate::spec::vmsa::{Geometry, Granule};

    fn walk(ipa_bits: u8, root: u64, coherency: WalkCoherency) -> Stage2Walk {
        Stage2Walk {
            root: Pa::new(root),
            geometry: Geometry::new(Granule::Kib4, ipa_bits, 44).expect("a legal geometry"),
            vmid: Vmid::new(7),
            coherency,
        }
    }

    /// Assembled by hand from the field positions in §5.2.
    #[test]
    fn a_stage_2_entry_matches_the_specification_bit_for_bit() {
        let ste = Ste::stage2(&walk(40, 0x8_0000_2000, WalkCoherency::Coherent));
        assert_eq!(
            *ste.words(),
            [
                // Config 0b110 | V
                0xd,
                // SHCFG 1 at [45:44] | MEV at [19]
                0x0000_1000_0008_0000,
                // S2R [58] | S2PTW [54] | S2AA64 [51] | S2PS 44 bits = 4 [50:48] | S2TG 0
                // | S2SH0 3 [45:44] | OR0 1 [43:42] | IR0 1 [41:40] | SL0 1 [39:38] | T0SZ 24 | VMID
                0x044c_3558_0000_0007,
                // S2TTB
                0x8_0000_2000,
                0,
                0,
                0,
                0,
            ]
        );
    }

    fn by_substream(format: CdFormat, untagged: Untagged) -> CdTable {
        CdTable::BySubstream {
            at: Ipa::new(0x60_0004_0000),
            log2_cds: 16,
            format,
            untagged,
        }
    }

    /// Assembled by hand from the field positions in §5.2.
    #[test]
    fn a_nested_entry_matches_the_specification_bit_for_bit() {
        let walk = walk(40, 0x8_0000_2000, WalkCoherency::Coherent);
        let rows = [
            (
                CdTable::Single {
                    at: Ipa::new(0x60_0004_0040),
                },
                // S1ContextPtr | Config 0b111 | V
                0x0000_0060_0004_004f,
                0,
            ),
            (
                by_substream(CdFormat::Linear, Untagged::Abort),
                // S1CDMax 16 [63:59]
                0x8000_0060_0004_000f,
                0,
            ),
            (
                by_substream(CdFormat::Leaves4K, Untagged::Stage2),
                // S1Fmt 1 [5:4]; S1DSS 1
                0x8000_0060_0004_001f,
                1,
            ),
            (
                by_substream(CdFormat::Leaves64K, Untagged::Abort),
                0x8000_0060_0004_002f,
                0,
            ),
        ];
        for (table, word0, dss) in rows {
            let ste = Ste::nested(&walk, &table);
            assert_eq!(
                *ste.words(),
                [
                    word0,
                    // SHCFG 1 [45:44] | MEV [19] | S1CSH 3 [7:6] | S1COR 1 [5:4] | S1CIR 1 [3:2]
                    0x0000_1000_0008_00d4 | dss,
                    // As with stage 2 alone.
                    0x044c_3558_0000_0007,
                    0x8_0000_2000,
                    0,
                    0,
                    0,
                    0,
                ],
                "{table:?}"
            );
            assert_eq!(
                ste.cd_table().map(Ipa::as_u64),
                Some(word0 & 0xff_ffff_ffc0)
            );
        }
        assert_eq!(Ste::stage2(&walk).cd_table(), None);
    }

    /// By hand from §5.2: EATS 1 full, 2 split, at [29:28] of word 1; S2S at [57] of word 2.
    #[test]
    fn ats_and_stalls_are_one_field_each() {
        let walk = walk(40, 0x8_0000_2000, WalkCoherency::Coherent);
        let plain = Ste::nested(&walk, &by_substream(CdFormat::Linear, Untagged::Abort));
        for (ats, bits) in [(Ats::Off, 0), (Ats::Full, 1 << 28), (Ats::Split, 1 << 29)] {
            let ste = plain.with_ats(Ats::Full).with_ats(ats);
            assert_eq!(ste.words()[1], plain.words()[1] | bits);
            assert_eq!(ste.ats(), ats);
            assert_eq!(ste.words()[2..], plain.words()[2..]);
        }
        let stalling = plain.stalling();
        assert_eq!(stalling.words()[2], plain.words()[2] | 1 << 57);
        assert_eq!(stalling.words()[..2], plain.words()[..2]);
        // Both are looked at, so a change of one is a switch.
        assert_eq!(plain.used_bits()[1] >> 28 & 3, 3);
        assert_eq!(plain.used_bits()[2] >> 57 & 1, 1);
    }

    #[test]
    fn a_walk_that_does_not_snoop_is_non_cacheable() {
        let coherent = Ste::stage2(&walk(40, 0x2000, WalkCoherency::Coherent));
        let clean = Ste::stage2(&walk(40, 0x2000, WalkCoherency::Clean));
        // SH0, OR0, IR0 in [45:40] of word 2: 11 01 01 against 10 00 00.
        assert_eq!(coherent.words()[2] >> 40 & 0x3f, 0b11_01_01);
        assert_eq!(clean.words()[2] >> 40 & 0x3f, 0b10_00_00);
    }

    #[test]
    fn only_an_entry_that_lets_traffic_through_is_open() {
        assert!(!Ste::invalid().is_open());
        assert!(!Ste::abort().is_open());
        assert!(Ste::stage2(&walk(40, 0x2000, WalkCoherency::Coherent)).is_open());
        assert_eq!(*Ste::abort().words(), [1, 0, 0, 0, 0, 0, 0, 0]);
        // Config 0b011 aborts too (§5.2).
        assert!(!Ste::from_words([0b0111, 0, 0, 0, 0, 0, 0, 0]).is_open());
    }

    #[test]
    fn the_mark_is_a_bit_that_no_entry_uses() {
        let open = Ste::stage2(&walk(40, 0x2000, WalkCoherency::Coherent));
        for ste in [Ste::invalid(), Ste::abort(), open] {
            for mark in [
                Mark::Changing,
                Mark::Lost,
                Mark::Recovering,
                Mark::AwaitsReset,
                Mark::Settled,
            ] {
                let marked = ste.marked(mark);
                assert_eq!(marked.mark(), mark);
                for i in 0..8 {
                    let changed = marked.words()[i] ^ ste.words()[i];
                    assert_eq!(changed & ste.used_bits()[i], 0);
                    assert!(i == Ste::MARK_WORD || changed == 0);
                }
            }
        }
        assert_eq!(open.marked(Mark::Lost).words()[1], 0x0000_1000_0028_0000);
    }
}
