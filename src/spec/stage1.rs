//! Stage 1 of a guest, as far as EL2 has to speak of it: where it starts and what its leaves say
//! (§5.4; DDI 0487, chapter D8).
//!
//! The tables are the guest's own. EL2 writes none of them; it says in a CD where they are.

use super::bits::Field;
use super::vmsa::{Cacheability, Granule, Shareability, ps};
use crate::addr::Ipa;
use crate::id::Asid;

/// The widest input address: 48 bits (`TxSZ` 16); wider ones need §5.4's `DS` or IDR5.VAX.
pub const VA_BITS_MAX: u8 = 48;
/// The narrowest input address: 25 bits (`TxSZ` 39); narrower ones need IDR3.STT.
pub const VA_BITS_MIN: u8 = 25;

/// What stands above an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TopByte {
    /// All bits above the address are equal, or it faults.
    Checked,
    /// Bits 63 to 56 are the guest's, and not looked at (`TBI`).
    Ignored,
}

/// One half of an address space: the addresses below, or those at the top, and their root table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Half {
    /// Where the root table is (`TTB`); aligned to its size.
    pub root: Ipa,
    /// The size of pages and tables (`TG`).
    pub granule: Granule,
    /// How wide its addresses are (64 - `TxSZ`): 25 to 48.
    pub va_bits: u8,
    /// What stands above them.
    pub top_byte: TopByte,
    /// How walks use inner caches (`IR`).
    pub inner: Cacheability,
    /// How walks use outer caches (`OR`).
    pub outer: Cacheability,
    /// With whom walks are coherent (`SH`).
    pub shareability: Shareability,
}

impl Half {
    /// How many bytes the root table has, and is aligned to, as a power of two; at least 64 bytes.
    ///
    /// `va_bits` is 25 to 48.
    pub const fn log2_root_bytes(&self) -> u8 {
        let log2_page = self.granule.log2_bytes();
        let per_level = self.granule.bits_per_level();
        // What is left for the root once whole levels have taken theirs.
        let above_page = self.va_bits - log2_page;
        let in_root = (above_page - 1) % per_level + 1;
        if in_root < 3 { 6 } else { in_root + 3 }
    }

    /// Whether the root table may stand where it stands.
    pub const fn has_aligned_root(&self) -> bool {
        self.root.is_aligned(self.log2_root_bytes())
    }
}

/// What a CD must say to walk the stage 1 of one address space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stage1Walk {
    /// The tag of its TLB entries.
    pub asid: Asid,
    /// The addresses from 0 up (`TTB0`); `None`: all of them fault.
    pub low: Option<Half>,
    /// The addresses down from the top (`TTB1`); `None`: all of them fault.
    pub high: Option<Half>,
    /// How wide an output address is (`IPS`): one of 32, 36, 40, 42, 44, 48 and 52.
    pub output_bits: u8,
    /// The memory types that descriptors choose from, as `MAIR_EL1` has them.
    pub memory_types: u64,
}

impl Stage1Walk {
    /// `IPS`; `None` if no output address has that many bits.
    pub const fn ips(&self) -> Option<u8> {
        match ps(self.output_bits) {
            Some(7) | None => None,
            found => found,
        }
    }

    /// The halves that there are.
    pub fn halves(&self) -> impl Iterator<Item = &Half> {
        self.low.iter().chain(self.high.iter())
    }
}

const VALID: u64 = 0b11;
const AP_USER: u64 = 1 << 6;
const AP_READ_ONLY: u64 = 1 << 7;
const SH_INNER: u64 = 0b11 << 8;
const AF: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const ADDRESS: Field = Field::bits(47, 12);

/// What a page lets everybody do, privileged or not; never execute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageAccess {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// One descriptor of a stage-1 table with 4 KiB granule; a plain value.
///
/// What a guest writes, for those who play one. DDI 0487, D8.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stage1Descriptor(u64);

impl Stage1Descriptor {
    /// Nothing is mapped.
    pub const INVALID: Self = Self(0);

    /// Leads to the table at `at`.
    ///
    /// # Panics
    ///
    /// If `at` is not a multiple of 4 KiB, or has more than 48 bits.
    pub const fn table(at: Ipa) -> Self {
        let mut words = [VALID];
        ADDRESS.set_address(&mut words, at.as_u64());
        Self(words[0])
    }

    /// Maps a page to `to`: memory type 0, inner shareable, tagged with the ASID.
    ///
    /// # Panics
    ///
    /// If `to` is not a multiple of 4 KiB, or has more than 48 bits.
    pub const fn page(to: Ipa, access: PageAccess) -> Self {
        let permission = match access {
            PageAccess::ReadOnly => AP_USER | AP_READ_ONLY,
            PageAccess::ReadWrite => AP_USER,
        };
        let mut words = [VALID | permission | SH_INNER | AF | NOT_GLOBAL | PXN | UXN];
        ADDRESS.set_address(&mut words, to.as_u64());
        Self(words[0])
    }

    /// The same page, tagged with no ASID: its TLB entries serve every address space of the VM
    /// (`nG == 0`).
    pub const fn global(self) -> Self {
        Self(self.0 & !NOT_GLOBAL)
    }

    /// Its bits.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(granule: Granule, va_bits: u8) -> Half {
        Half {
            root: Ipa::new(0x8_0000_0040),
            granule,
            va_bits,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        }
    }

    /// DDI 0487, D8.2.1: what the levels below leave over, by hand.
    #[test]
    fn a_root_table_is_as_large_as_the_bits_that_are_left() {
        let rows = [
            (Granule::Kib4, 48, 12),
            (Granule::Kib4, 40, 6),
            (Granule::Kib4, 39, 12),
            (Granule::Kib4, 32, 6),
            (Granule::Kib4, 31, 6),
            (Granule::Kib4, 30, 12),
            (Granule::Kib16, 48, 6),
            (Granule::Kib16, 47, 14),
            (Granule::Kib16, 40, 7),
            (Granule::Kib64, 48, 9),
            (Granule::Kib64, 42, 16),
            (Granule::Kib64, 29, 16),
        ];
        for (granule, va_bits, log2_bytes) in rows {
            let half = half(granule, va_bits);
            assert_eq!(half.log2_root_bytes(), log2_bytes, "{granule:?} {va_bits}");
            assert_eq!(half.has_aligned_root(), log2_bytes == 6);
        }
    }

    /// DDI 0487, D8.3, by hand: type, AP, SH, AF, nG, XN.
    #[test]
    fn descriptors_match_the_manual_bit_for_bit() {
        let at = Ipa::new(0x1234_5000);
        assert_eq!(Stage1Descriptor::table(at).as_u64(), 0x1234_5003);
        assert_eq!(
            Stage1Descriptor::page(at, PageAccess::ReadWrite).as_u64(),
            0x0060_0000_1234_5f43
        );
        assert_eq!(
            Stage1Descriptor::page(at, PageAccess::ReadOnly).as_u64(),
            0x0060_0000_1234_5fc3
        );
        assert_eq!(
            Stage1Descriptor::page(at, PageAccess::ReadOnly)
                .global()
                .as_u64(),
            0x0060_0000_1234_57c3
        );
    }

    #[test]
    fn an_output_size_is_one_of_seven() {
        let sized = |output_bits| Stage1Walk {
            asid: Asid::new(1),
            low: None,
            high: None,
            output_bits,
            memory_types: 0,
        };
        let known = [32, 36, 40, 42, 44, 48, 52];
        for (encoding, bits) in known.into_iter().enumerate() {
            assert_eq!(sized(bits).ips(), Some(encoding as u8));
        }
        assert_eq!(sized(56).ips(), None);
        assert_eq!(sized(41).ips(), None);
    }
}
