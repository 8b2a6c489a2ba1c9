//! Shapes of VMSAv8-64 translation tables: granules, levels, roots (DDI 0487, D8).

use crate::bits::{field, ones};
use crate::ids::Identity;

/// A translation granule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) enum Granule {
    K4,
    K16,
    K64,
}

impl Granule {
    /// From S2TG or TG0: 0 4K, 1 64K, 2 16K. `None`: reserved, or not implemented.
    pub(crate) fn stage2(encoding: u64, id: &Identity) -> Option<Self> {
        match encoding {
            0 => Self::K4.implemented(id),
            1 => Self::K64.implemented(id),
            2 => Self::K16.implemented(id),
            _ => None,
        }
    }

    /// From TG1: 1 16K, 2 4K, 3 64K.
    pub(crate) fn upper(encoding: u64, id: &Identity) -> Option<Self> {
        match encoding {
            1 => Self::K16.implemented(id),
            2 => Self::K4.implemented(id),
            3 => Self::K64.implemented(id),
            _ => None,
        }
    }

    /// From a command's TG: 1 4K, 2 16K, 3 64K.
    pub(crate) const fn command(encoding: u64) -> Option<Self> {
        match encoding {
            1 => Some(Self::K4),
            2 => Some(Self::K16),
            3 => Some(Self::K64),
            _ => None,
        }
    }

    fn implemented(self, id: &Identity) -> Option<Self> {
        let is = match self {
            Self::K4 => id.granule_4k,
            Self::K16 => id.granule_16k,
            Self::K64 => id.granule_64k,
        };
        is.then_some(self)
    }

    /// Bits of an offset in a page.
    pub(crate) const fn page_bits(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// Bits of an index at one level.
    pub(crate) const fn level_bits(self) -> u32 {
        self.page_bits() - 3
    }

    /// log2 of the bytes that one descriptor at `level` maps.
    pub(crate) const fn level_log2(self, level: u32) -> u32 {
        self.page_bits() + self.level_bits() * (3 - level)
    }

    /// Whether a block may stand at `level`, where an output address has `output_bits` bits.
    pub(crate) const fn has_block(self, level: u32, output_bits: u32) -> bool {
        match self {
            Self::K4 => level == 1 || level == 2,
            Self::K16 => level == 2,
            Self::K64 => level == 2 || (level == 1 && output_bits > 48),
        }
    }

    /// log2 of how many entries a contiguous group has at `level`; 0 where there are no groups.
    pub(crate) const fn contiguous_log2(self, level: u32) -> u32 {
        match (self, level) {
            (Self::K4, 1..=3) => 4,
            (Self::K16, 2) => 5,
            (Self::K16, 3) => 7,
            (Self::K64, 2 | 3) => 5,
            _ => 0,
        }
    }
}

/// Where a walk starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Root {
    pub(crate) granule: Granule,
    /// Bits of an input address.
    pub(crate) input_bits: u32,
    pub(crate) level: u32,
}

impl Root {
    /// Bits of the index into the first table, concatenated tables included.
    pub(crate) const fn index_bits(self) -> u32 {
        self.input_bits - self.granule.level_log2(self.level)
    }

    /// The index of `input` into the table at `level`.
    pub(crate) fn index(self, input: u64, level: u32) -> u64 {
        let low = self.granule.level_log2(level);
        let bits = if level == self.level {
            self.index_bits()
        } else {
            self.granule.level_bits()
        };
        (input >> low) & ones(bits)
    }
}

/// The shape of a stage 1 of `64 - tsz` bits. `None` if TxSZ is out of range (§5.4).
pub(crate) fn stage1_root(granule: Granule, tsz: u32, id: &Identity) -> Option<Root> {
    let most = match (id.stt, granule) {
        (false, _) => 39,
        (true, Granule::K64) => 47,
        (true, _) => 48,
    };
    let least = if id.vax52 && granule == Granule::K64 {
        12
    } else {
        16
    };
    if !(least..=most).contains(&tsz) {
        return None;
    }
    let input_bits = 64 - tsz;
    let levels = (input_bits - granule.page_bits()).div_ceil(granule.level_bits());
    Some(Root {
        granule,
        input_bits,
        level: 4 - levels,
    })
}

/// The shape of a stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stage2Shape {
    pub(crate) root: Root,
}

impl Stage2Shape {
    /// From S2TG, S2T0SZ and S2SL0. `None` if they are out of range or disagree (§5.2, §8.4 of
    /// the fact sheet).
    pub(crate) fn new(granule: Granule, t0sz: u32, sl0: u32, id: &Identity) -> Option<Self> {
        let most = match (id.stt, granule) {
            (false, _) => 39,
            (true, Granule::K64) => 47,
            (true, _) => 48,
        };
        let floor = 64 - id.ias_bits();
        let least = match granule {
            _ if id.minor == 0 => floor,
            Granule::K64 => floor.max(12),
            _ => floor.max(16),
        };
        if !(least..=most).contains(&t0sz) {
            return None;
        }
        let level = match (granule, sl0) {
            (Granule::K4, 0) => 2,
            (Granule::K4, 1) => 1,
            (Granule::K4, 2) => 0,
            (Granule::K4, 3) if id.stt => 3,
            (Granule::K16 | Granule::K64, 0) => 3,
            (Granule::K16 | Granule::K64, 1) => 2,
            (Granule::K16 | Granule::K64, 2) => 1,
            _ => return None,
        };
        let input_bits = 64 - t0sz;
        let index_bits = input_bits.checked_sub(granule.level_log2(level))?;
        // Up to sixteen tables may be concatenated, but not at level 0, and not at level 1 of the
        // largest granule, which has no level above.
        let concatenated = match (granule, level) {
            (Granule::K4, 0) | (Granule::K64, 1) => 0,
            _ => 4,
        };
        if index_bits == 0 || index_bits > granule.level_bits() + concatenated {
            return None;
        }
        let root = Root {
            granule,
            input_bits,
            level,
        };
        Some(Self { root })
    }

    /// The bytes of the root, and its alignment.
    pub(crate) const fn root_bytes(self) -> u64 {
        let bytes = 8u64 << self.root.index_bits();
        if bytes < 16 { 16 } else { bytes }
    }
}

/// The output address of a leaf at `level`.
pub(crate) const fn leaf_address(
    granule: Granule,
    level: u32,
    descriptor: u64,
    output_bits: u32,
) -> u64 {
    let low = granule.level_log2(level);
    let address = crate::bits::keep(descriptor, 47, low);
    address | high_address(granule, descriptor, output_bits)
}

/// The address of the next table.
pub(crate) const fn table_address(granule: Granule, descriptor: u64, output_bits: u32) -> u64 {
    let address = crate::bits::keep(descriptor, 47, granule.page_bits());
    address | high_address(granule, descriptor, output_bits)
}

/// OA\[51:48\], in bits \[15:12\] of a descriptor of a 64 KiB table with 52-bit output.
const fn high_address(granule: Granule, descriptor: u64, output_bits: u32) -> u64 {
    if matches!(granule, Granule::K64) && output_bits > 48 {
        field(descriptor, 15, 12) << 48
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stage_1_starts_where_the_size_says() {
        let id = Identity::full();
        let level = |granule, tsz| stage1_root(granule, tsz, &id).map(|root| root.level);
        assert_eq!(level(Granule::K4, 16), Some(0));
        assert_eq!(level(Granule::K4, 24), Some(0));
        assert_eq!(level(Granule::K4, 25), Some(1));
        assert_eq!(level(Granule::K4, 33), Some(1));
        assert_eq!(level(Granule::K4, 34), Some(2));
        assert_eq!(level(Granule::K4, 48), Some(3));
        assert_eq!(level(Granule::K16, 16), Some(0));
        assert_eq!(level(Granule::K16, 17), Some(1));
        assert_eq!(level(Granule::K64, 16), Some(1));
        assert_eq!(level(Granule::K64, 22), Some(2));
        assert_eq!(level(Granule::K4, 15), None);
        assert_eq!(level(Granule::K4, 49), None);
    }

    #[test]
    fn stage_2_roots_concatenate_up_to_sixteen_tables() {
        let id = Identity::full();
        let bits = |granule, t0sz, sl0| {
            Stage2Shape::new(granule, t0sz, sl0, &id)
                .map(|shape| (shape.root.level, shape.root.index_bits()))
        };
        assert_eq!(bits(Granule::K4, 24, 1), Some((1, 10)));
        assert_eq!(bits(Granule::K4, 21, 1), Some((1, 13)));
        assert_eq!(bits(Granule::K4, 20, 1), None);
        assert_eq!(bits(Granule::K4, 20, 2), Some((0, 5)));
        assert_eq!(bits(Granule::K4, 16, 2), Some((0, 9)));
        assert_eq!(bits(Granule::K4, 34, 1), None);
        assert_eq!(bits(Granule::K16, 16, 2), Some((1, 12)));
        assert_eq!(bits(Granule::K64, 18, 1), Some((2, 17)));
        assert_eq!(bits(Granule::K64, 17, 1), None);
    }
}
