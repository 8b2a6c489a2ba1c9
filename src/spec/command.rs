//! Commands (§4).

use super::bits::Field;
use crate::addr::Ipa;
use crate::id::{Asid, StreamId, SubstreamId, Vmid};

const OPCODE: Field = Field::bits(7, 0);
const SSID: Field = Field::bits(31, 12);
const SID: Field = Field::bits(63, 32);
const LEAF: Field = Field::bit(64);
const RANGE: Field = Field::bits(68, 64);
const NUM: Field = Field::bits(16, 12);
const SCALE: Field = Field::bits(24, 20);
const VMID: Field = Field::bits(47, 32);
const ASID: Field = Field::bits(63, 48);
const TTL: Field = Field::bits(73, 72);
const TG: Field = Field::bits(75, 74);
const ADDRESS: Field = Field::bits(119, 76);
const ATC_SIZE: Field = Field::bits(69, 64);

/// `Size` of a CMD_ATC_INV that covers all of 2^64 bytes (§4.5.1).
const ATC_SIZE_ALL: u64 = 52;

/// CMD_CFGI_STE_RANGE with this range is CMD_CFGI_ALL (§4.3.2).
const RANGE_ALL: u64 = 31;

/// A command as it lies in the queue: 16 bytes, little-endian, reserved bits 0.
///
/// A plain value: making one changes nothing. §4.1.
///
/// CMD_PREFETCH_CONFIG and CMD_PREFETCH_ADDR have no constructor: they are hints, and some parts
/// must never be sent one (`hisilicon,broken-prefetch-cmd`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Command([u64; 2]);

/// Which cached configuration a CMD_CFGI_STE drops besides the STE and its CDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CfgiScope {
    /// The STE alone (`Leaf == 1`).
    Leaf,
    /// The L1STD on the way to it as well (`Leaf == 0`).
    Path,
}

/// Which cached translations a CMD_TLBI drops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlbiScope {
    /// Entries of the last level alone (`Leaf == 1`): enough where only leaves changed.
    Leaf,
    /// Cached table descriptors as well (`Leaf == 0`): needed before a table is freed.
    Walk,
}

/// A range of a CMD_TLBI: `(num + 1) << scale` granules from `base` (§4.4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TlbiRange {
    /// The first address, aligned to the granule.
    pub base: Ipa,
    /// `NUM`, 0 to 31.
    pub num: u8,
    /// `SCALE`, 0 to 31.
    pub scale: u8,
    /// The granule, as a power of two: 12, 14 or 16.
    pub log2_granule: u8,
}

impl Command {
    const fn new(opcode: u64) -> Self {
        let mut words = [0; 2];
        OPCODE.set(&mut words, opcode);
        Self(words)
    }

    const fn with(mut self, field: Field, value: u64) -> Self {
        field.set(&mut self.0, value);
        self
    }

    /// CMD_CFGI_STE: drops what is cached of `stream`'s STE, and every CD and L1CD cached through it.
    /// Translations stay. §4.3.1.
    pub const fn cfgi_ste(stream: StreamId, scope: CfgiScope) -> Self {
        let leaf = match scope {
            CfgiScope::Leaf => 1,
            CfgiScope::Path => 0,
        };
        Self::new(0x03)
            .with(SID, stream.as_u32() as u64)
            .with(LEAF, leaf)
    }

    /// CMD_CFGI_ALL: drops all cached configuration. §4.3.2.
    pub const fn cfgi_all() -> Self {
        Self::new(0x04).with(RANGE, RANGE_ALL)
    }

    /// CMD_CFGI_CD: drops what is cached of `stream`'s CD number `index`, 0 where there is one, and
    /// of the L1CD on the way to it. Translations stay. §4.3.3.
    pub const fn cfgi_cd(stream: StreamId, index: SubstreamId) -> Self {
        Self::new(0x05)
            .with(SSID, index.as_u32() as u64)
            .with(SID, stream.as_u32() as u64)
    }

    /// CMD_CFGI_CD_ALL: drops every CD and L1CD that is cached of `stream`. §4.3.4.
    pub const fn cfgi_cd_all(stream: StreamId) -> Self {
        Self::new(0x06).with(SID, stream.as_u32() as u64)
    }

    /// CMD_TLBI_S12_VMALL: drops every translation of `vmid`, of both stages. §4.4.3.
    pub const fn tlbi_s12_vmall(vmid: Vmid) -> Self {
        Self::new(0x28).with(VMID, vmid.as_u16() as u64)
    }

    /// CMD_TLBI_S2_IPA for the one granule or block at `base`: drops stage-2 entries of `vmid`.
    /// Combined entries of stage 1 and 2 may stay. §4.4.3.
    pub const fn tlbi_s2_ipa(vmid: Vmid, base: Ipa, scope: TlbiScope) -> Self {
        let mut command = Self::new(0x2a)
            .with(VMID, vmid.as_u16() as u64)
            .with(LEAF, leaf_bit(scope));
        ADDRESS.set_address(&mut command.0, base.as_u64());
        command
    }

    /// CMD_TLBI_S2_IPA for a range; only where IDR3.RIL is 1. §4.4.1.1.
    ///
    /// TTL is 0: nothing is assumed of the level. A range of one granule without a level is the one
    /// reserved combination (CERROR_ILL): `None`, and [`tlbi_s2_ipa`](Self::tlbi_s2_ipa) is meant.
    pub const fn tlbi_s2_ipa_range(vmid: Vmid, range: TlbiRange, scope: TlbiScope) -> Option<Self> {
        if range.num == 0 && range.scale == 0 {
            return None;
        }
        // A third encoding, unlike TG0 and TG1: 1 is 4 KiB, 2 is 16 KiB, 3 is 64 KiB.
        let tg = match range.log2_granule {
            12 => 1,
            14 => 2,
            16 => 3,
            _ => return None,
        };
        Some(
            Self::tlbi_s2_ipa(vmid, range.base, scope)
                .with(NUM, range.num as u64)
                .with(SCALE, range.scale as u64)
                .with(TG, tg)
                .with(TTL, 0),
        )
    }

    /// CMD_TLBI_NH_ALL: drops stage-1 and combined entries of `vmid`, global ones too. §4.4.2.
    pub const fn tlbi_nh_all(vmid: Vmid) -> Self {
        Self::new(0x10).with(VMID, vmid.as_u16() as u64)
    }

    /// CMD_TLBI_NH_ASID: drops stage-1 and combined entries of `asid` in `vmid`, global ones not.
    /// §4.4.2.
    pub const fn tlbi_nh_asid(vmid: Vmid, asid: Asid) -> Self {
        Self::new(0x11)
            .with(VMID, vmid.as_u16() as u64)
            .with(ASID, asid.as_u16() as u64)
    }

    /// CMD_TLBI_EL2_ALL: drops every EL2 translation; only where IDR0.HYP is 1. §4.4.2.
    pub const fn tlbi_el2_all() -> Self {
        Self::new(0x20)
    }

    /// CMD_TLBI_NSNH_ALL: drops every non-secure translation but those of EL2. §4.4.4.
    pub const fn tlbi_nsnh_all() -> Self {
        Self::new(0x30)
    }

    /// CMD_ATC_INV of everything: has `stream`'s device drop every translation without a PASID that
    /// it cached; only where IDR0.ATS is 1. §4.5.1.
    ///
    /// Translations of the SMMU's own are to be gone before, by a CMD_SYNC of their own.
    pub const fn atc_inv_all(stream: StreamId) -> Self {
        Self::new(0x40)
            .with(SID, stream.as_u32() as u64)
            .with(ATC_SIZE, ATC_SIZE_ALL)
    }

    /// CMD_SYNC that signals by the consumer index alone (`CS == 0`). §4.7.3.
    pub const fn sync() -> Self {
        Self::new(0x46)
    }

    /// A reserved opcode: what an SMMU must refuse with CERROR_ILL. For checks of that path alone.
    pub const fn reserved() -> Self {
        Self::new(0xff)
    }

    /// The two words, in the order of memory.
    pub const fn words(&self) -> [u64; 2] {
        self.0
    }

    /// The command that lies in memory as `words`.
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(words)
    }
}

const fn leaf_bit(scope: TlbiScope) -> u64 {
    match scope {
        TlbiScope::Leaf => 1,
        TlbiScope::Walk => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMID_7: Vmid = Vmid::new(0x1234);

    /// Each row assembled by hand from §4.
    #[test]
    fn commands_are_as_assembled_by_hand() {
        let stream = StreamId::new(0x4_0900);
        let at = Ipa::new(0x8765_4321_0000);
        let index = SubstreamId::new(0xabcde).expect("20 bits");
        let rows: [(Command, [u64; 2]); 13] = [
            (
                Command::cfgi_ste(stream, CfgiScope::Leaf),
                [0x0004_0900_0000_0003, 1],
            ),
            (
                Command::cfgi_ste(stream, CfgiScope::Path),
                [0x0004_0900_0000_0003, 0],
            ),
            (Command::cfgi_all(), [0x04, 0x1f]),
            (Command::cfgi_cd(stream, index), [0x0004_0900_abcd_e005, 0]),
            (Command::cfgi_cd_all(stream), [0x0004_0900_0000_0006, 0]),
            (
                Command::tlbi_nh_asid(VMID_7, Asid::new(0x5678)),
                [0x5678_1234_0000_0011, 0],
            ),
            (Command::tlbi_s12_vmall(VMID_7), [0x0000_1234_0000_0028, 0]),
            (
                Command::tlbi_s2_ipa(VMID_7, at, TlbiScope::Leaf),
                [0x0000_1234_0000_002a, 0x8765_4321_0001],
            ),
            (Command::tlbi_nh_all(VMID_7), [0x0000_1234_0000_0010, 0]),
            (Command::tlbi_el2_all(), [0x20, 0]),
            (Command::tlbi_nsnh_all(), [0x30, 0]),
            (Command::atc_inv_all(stream), [0x0004_0900_0000_0040, 0x34]),
            (Command::sync(), [0x46, 0]),
        ];
        for (command, words) in rows {
            assert_eq!(command.words(), words, "{command:x?}");
        }
    }

    #[test]
    fn a_range_has_its_own_granule_encoding() {
        let range = |log2_granule| TlbiRange {
            base: Ipa::new(0x40_0000),
            num: 31,
            scale: 2,
            log2_granule,
        };
        let words = |log2| {
            Command::tlbi_s2_ipa_range(VMID_7, range(log2), TlbiScope::Walk).map(|it| it.words())
        };
        // NUM 31 << 12 | SCALE 2 << 20; TG at dw1[11:10].
        assert_eq!(words(12), Some([0x0000_1234_0021_f02a, 0x40_0400]));
        assert_eq!(words(14), Some([0x0000_1234_0021_f02a, 0x40_0800]));
        assert_eq!(words(16), Some([0x0000_1234_0021_f02a, 0x40_0c00]));
        assert_eq!(words(13), None);
    }

    #[test]
    fn the_reserved_range_of_one_granule_is_never_made() {
        let range = TlbiRange {
            base: Ipa::new(0),
            num: 0,
            scale: 0,
            log2_granule: 12,
        };
        assert_eq!(
            Command::tlbi_s2_ipa_range(VMID_7, range, TlbiScope::Leaf),
            None
        );
    }
}
