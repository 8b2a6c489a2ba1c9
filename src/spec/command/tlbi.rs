//! Invalidation of translations (§4.4).

use super::Command;
use crate::addr::{Iova, Ipa};
use crate::id::{Asid, Vmid};
use crate::spec::bits::Field;

const LEAF: Field = Field::bit(64);
const NUM: Field = Field::bits(16, 12);
const SCALE: Field = Field::bits(24, 20);
const VMID: Field = Field::bits(47, 32);
const ASID: Field = Field::bits(63, 48);
const TTL: Field = Field::bits(73, 72);
const TG: Field = Field::bits(75, 74);
const ADDRESS: Field = Field::bits(119, 76);
/// Of an address that stage 1 translates: the bits above 4 KiB, to the top.
const INPUT_PAGE: Field = Field::bits(127, 76);

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
pub struct TlbiRange<Address> {
    /// The first address, aligned to the granule.
    pub base: Address,
    /// `NUM`, 0 to 31.
    pub num: u8,
    /// `SCALE`, 0 to 31.
    pub scale: u8,
    /// The granule, as a power of two: 12, 14 or 16.
    pub log2_granule: u8,
}

impl Command {
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
    pub const fn tlbi_s2_ipa_range(
        vmid: Vmid,
        range: TlbiRange<Ipa>,
        scope: TlbiScope,
    ) -> Option<Self> {
        Self::tlbi_s2_ipa(vmid, range.base, scope).over(range.num, range.scale, range.log2_granule)
    }

    /// CMD_TLBI_NH_VA for the one granule or block at `base`: drops stage-1 and combined entries of
    /// `asid` in `vmid`, and global ones there; CMD_TLBI_NH_VAA without an `asid`: those of every
    /// ASID. Address bits below 4 KiB are not looked at. §4.4.2.
    pub const fn tlbi_nh_va(vmid: Vmid, asid: Option<Asid>, base: Iova, scope: TlbiScope) -> Self {
        let command = match asid {
            Some(asid) => Self::new(0x12).with(ASID, asid.as_u16() as u64),
            None => Self::new(0x13),
        };
        command
            .with(VMID, vmid.as_u16() as u64)
            .with(LEAF, leaf_bit(scope))
            .with(INPUT_PAGE, base.as_u64() >> 12)
    }

    /// [`tlbi_nh_va`](Self::tlbi_nh_va) for a range; only where IDR3.RIL is 1. §4.4.1.1.
    ///
    /// `None` as with [`tlbi_s2_ipa_range`](Self::tlbi_s2_ipa_range).
    pub const fn tlbi_nh_va_range(
        vmid: Vmid,
        asid: Option<Asid>,
        range: TlbiRange<Iova>,
        scope: TlbiScope,
    ) -> Option<Self> {
        Self::tlbi_nh_va(vmid, asid, range.base, scope).over(
            range.num,
            range.scale,
            range.log2_granule,
        )
    }

    /// The same command for a range from its address on, if there is such a one.
    const fn over(self, num: u8, scale: u8, log2_granule: u8) -> Option<Self> {
        if num == 0 && scale == 0 {
            return None;
        }
        // A third encoding, unlike TG0 and TG1: 1 is 4 KiB, 2 is 16 KiB, 3 is 64 KiB.
        let tg = match log2_granule {
            12 => 1,
            14 => 2,
            16 => 3,
            _ => return None,
        };
        Some(
            self.with(NUM, num as u64)
                .with(SCALE, scale as u64)
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
}

const fn leaf_bit(scope: TlbiScope) -> u64 {
    match scope {
        TlbiScope::Leaf => 1,
        TlbiScope::Walk => 0,
    }
}
