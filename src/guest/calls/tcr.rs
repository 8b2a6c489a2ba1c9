//! `TCR_EL1` as a guest has it, read for its devices (DDI 0487, D19.2 `TCR_EL1`).

use super::{Code, Refused};
use crate::addr::Ipa;
use crate::id::Asid;
use crate::spec::stage1::{Half, Stage1Walk, TopByte, VA_BITS_MAX, VA_BITS_MIN};
use crate::spec::vmsa::{Cacheability, Granule, Shareability};

/// Where the fields of one half stand.
struct Fields {
    sz: u32,
    epd: u32,
    irgn: u32,
    orgn: u32,
    sh: u32,
    tg: u32,
    tbi: u32,
    /// The granules by the value of `TG`.
    granules: [Option<Granule>; 4],
    /// The register in which its root is.
    root: u64,
}

const LOW: Fields = Fields {
    sz: 0,
    epd: 7,
    irgn: 8,
    orgn: 10,
    sh: 12,
    tg: 14,
    tbi: 37,
    granules: [
        Some(Granule::Kib4),
        Some(Granule::Kib64),
        Some(Granule::Kib16),
        None,
    ],
    root: 1,
};

const HIGH: Fields = Fields {
    sz: 16,
    epd: 23,
    irgn: 24,
    orgn: 26,
    sh: 28,
    tg: 30,
    tbi: 38,
    granules: [
        None,
        Some(Granule::Kib16),
        Some(Granule::Kib4),
        Some(Granule::Kib64),
    ],
    root: 2,
};

const IPS: u32 = 32;
/// `A1` and `AS`: which ASID a CPU uses, and how wide it is. A device's is EL2's.
const IGNORED: u64 = 1 << 22 | 1 << 36;
/// What is read: everything up to `TBI1`, less bits 6 and 35.
const READ: u64 = ((1 << 39) - 1) & !(1 << 6 | 1 << 35);
/// Root tables lie below this: `TTBR` has an ASID above.
const ROOT_END: u64 = 1 << 48;

/// The stage 1 that the registers of a guest's CPU say; its ASID is none yet.
///
/// # Errors
///
/// [`Code::BadTcr`] with the bits that ask for what no device can be given;
/// [`Code::BadArgument`] for a root table that is not aligned to its size, or not below 2^48.
pub(super) fn walk(roots: [u64; 2], tcr: u64, mair: u64) -> Result<Stage1Walk, Refused> {
    let bad = |bits: u64| Refused::with(Code::BadTcr, [bits, 0, 0]);
    let unknown = tcr & !(READ | IGNORED);
    if unknown != 0 {
        return Err(bad(unknown));
    }
    let output_bits = match tcr >> IPS & 7 {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        6 => 52,
        _ => return Err(bad(7 << IPS)),
    };
    let low = half(&LOW, roots[0], tcr)?;
    let high = half(&HIGH, roots[1], tcr)?;
    if low.is_none() && high.is_none() {
        return Err(bad(1 << LOW.epd | 1 << HIGH.epd));
    }
    Ok(Stage1Walk {
        asid: Asid::new(0),
        low,
        high,
        output_bits,
        memory_types: mair,
    })
}

/// One half; `None` where walks are off (`EPD`).
fn half(fields: &Fields, root: u64, tcr: u64) -> Result<Option<Half>, Refused> {
    let bad = |bits: u64| Refused::with(Code::BadTcr, [bits, 0, 0]);
    if tcr >> fields.epd & 1 != 0 {
        return Ok(None);
    }
    let va_bits = 64 - (tcr >> fields.sz & 0x3f) as u8;
    if !(VA_BITS_MIN..=VA_BITS_MAX).contains(&va_bits) {
        return Err(bad(0x3f << fields.sz));
    }
    let granule = fields.granules[(tcr >> fields.tg & 3) as usize].ok_or(bad(3 << fields.tg))?;
    let shareability = match tcr >> fields.sh & 3 {
        0 => Shareability::Non,
        2 => Shareability::Outer,
        3 => Shareability::Inner,
        _ => return Err(bad(3 << fields.sh)),
    };
    let cacheability = |shift: u32| match tcr >> shift & 3 {
        0 => Cacheability::NonCacheable,
        2 => Cacheability::WriteThrough,
        // With or without allocation on a write: a hint.
        _ => Cacheability::WriteBack,
    };
    let half = Half {
        root: Ipa::new(root),
        granule,
        va_bits,
        top_byte: match tcr >> fields.tbi & 1 {
            0 => TopByte::Checked,
            _ => TopByte::Ignored,
        },
        inner: cacheability(fields.irgn),
        outer: cacheability(fields.orgn),
        shareability,
    };
    if root >= ROOT_END || !half.has_aligned_root() {
        return Err(Refused::argument(fields.root));
    }
    Ok(Some(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 48 bits of 4 KiB pages both ways, inner shareable write-back, 40 bits out.
    const TCR: u64 = 16
        | 1 << 8
        | 1 << 10
        | 3 << 12
        | 16 << 16
        | 1 << 24
        | 1 << 26
        | 3 << 28
        | 2 << 30
        | 2 << 32;

    fn refused(tcr: u64) -> Option<(Code, u64)> {
        let outcome = walk([0x4000_0000, 0x4000_1000], tcr, 0xff);
        outcome.err().map(|it| (it.code, it.details[0]))
    }

    #[test]
    fn the_fields_are_read_where_they_stand() {
        let found = walk([0x4000_0000, 0x4000_1000], TCR, 0xff).expect("it can be");
        let half = |root| Half {
            root: Ipa::new(root),
            granule: Granule::Kib4,
            va_bits: 48,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        };
        assert_eq!(found.low, Some(half(0x4000_0000)));
        assert_eq!(found.high, Some(half(0x4000_1000)));
        assert_eq!((found.output_bits, found.memory_types), (40, 0xff));

        let tcr = TCR & !(0x3f << 16 | 3 << 30 | 3 << 26) | 25 << 16 | 1 << 30 | 2 << 26 | 1 << 38;
        let found = walk([0, 0x4000], tcr | IGNORED, 0).expect("it can be");
        let high = found.high.expect("walks are on");
        assert_eq!((high.va_bits, high.granule), (39, Granule::Kib16));
        assert_eq!(high.outer, Cacheability::WriteThrough);
        assert_eq!(high.top_byte, TopByte::Ignored);
        assert_eq!(found.low.map(|low| low.top_byte), Some(TopByte::Checked));
    }

    #[test]
    fn every_bit_is_read_ignored_or_refused_by_name() {
        for bit in 39..64 {
            assert_eq!(refused(TCR | 1 << bit), Some((Code::BadTcr, 1 << bit)));
        }
        for bit in [6, 35] {
            assert_eq!(refused(TCR | 1 << bit), Some((Code::BadTcr, 1 << bit)));
        }
        assert_eq!(refused(TCR | 7 << 32), Some((Code::BadTcr, 7 << 32)));
        assert_eq!(refused(TCR | 3 << 14), Some((Code::BadTcr, 3 << 14)));
        assert_eq!(refused(TCR & !(3 << 30)), Some((Code::BadTcr, 3 << 30)));
        let shareability = TCR & !(3 << 28) | 1 << 28;
        assert_eq!(refused(shareability), Some((Code::BadTcr, 3 << 28)));
        let off = 1 << 7 | 1 << 23;
        assert_eq!(refused(TCR | off), Some((Code::BadTcr, off)));
        for size in (0..64).filter(|size| !(16..=39).contains(size)) {
            let tcr = TCR & !0x3f | size;
            assert_eq!(refused(tcr), Some((Code::BadTcr, 0x3f)), "{size}");
            assert_eq!(refused(tcr | 1 << 7), None, "walks are off there");
        }
        assert_eq!(refused(TCR), None);
    }

    #[test]
    fn a_root_is_aligned_and_without_an_asid() {
        let why = |roots| walk(roots, TCR, 0).err().map(|it| (it.code, it.details[0]));
        assert_eq!(why([0x800, 0]), Some((Code::BadArgument, 1)));
        assert_eq!(why([0, 1 << 48]), Some((Code::BadArgument, 2)));
        assert_eq!(why([0, 0xffff_ffff_f000]), None);
    }
}
