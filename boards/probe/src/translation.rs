//! Which addresses firmware has mapped: a read of any other would be its end.
//!
//! The tables are walked by hand, because asking the MMU (`AT`) writes a register.

/// Descriptor bits (DDI 0487, D8.3).
const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 10;
/// Output addresses have at most 48 bits where the extensions for more are off.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Firmware's stage 1 of the level that it runs at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// SCTLR_ELx.
    pub sctlr: u64,
    /// TCR_ELx.
    pub tcr: u64,
    /// TTBR0_ELx.
    pub ttbr0: u64,
}

/// How the tables are laid out.
struct Shape {
    log2_granule: u32,
    input_bits: u32,
    first_level: u32,
}

impl Translation {
    /// Whether each of `size_bytes` bytes from `base` on is mapped to itself, by tables that `read`
    /// reads a descriptor of.
    pub fn maps(&self, base: u64, size_bytes: u64, read: &dyn Fn(u64) -> u64) -> bool {
        let Some(end) = base.checked_add(size_bytes) else {
            return false;
        };
        if self.sctlr & 1 == 0 {
            return true;
        }
        let Some(shape) = self.shape() else {
            return false;
        };
        let mut at = base;
        while at < end {
            match self.end_of_block(&shape, at, read) {
                Some(next) if next > at => at = next,
                _ => return false,
            }
        }
        true
    }

    /// `None` for what this cannot walk: reserved values, and tables of more than 48 bits.
    fn shape(&self) -> Option<Shape> {
        let log2_granule = match self.tcr >> 14 & 3 {
            0 => 12,
            1 => 16,
            2 => 14,
            _ => return None,
        };
        let input_bits = 64 - (self.tcr & 0x3f) as u32;
        if !(25..=48).contains(&input_bits) {
            return None;
        }
        let levels = (input_bits - log2_granule).div_ceil(log2_granule - 3);
        Some(Shape {
            log2_granule,
            input_bits,
            first_level: 4 - levels,
        })
    }

    /// Where the block or page ends that maps `at` to itself.
    fn end_of_block(&self, shape: &Shape, at: u64, read: &dyn Fn(u64) -> u64) -> Option<u64> {
        if at >> shape.input_bits != 0 {
            return None;
        }
        let index_bits = shape.log2_granule - 3;
        let mut table = self.ttbr0 & 0x0000_ffff_ffff_fffe;
        for level in shape.first_level..=3 {
            let shift = shape.log2_granule + index_bits * (3 - level);
            // The first table may be shorter: input bits above it are 0, as just seen.
            let index = at >> shift & ((1 << index_bits) - 1);
            let descriptor = read(table + index * 8);
            if descriptor & VALID == 0 {
                return None;
            }
            let is_leaf = level == 3 || descriptor & TABLE_OR_PAGE == 0;
            if !is_leaf {
                table = descriptor & ADDRESS & !((1 << shape.log2_granule) - 1);
                continue;
            }
            let is_page = descriptor & TABLE_OR_PAGE != 0;
            let to = descriptor & ADDRESS & !((1 << shift) - 1);
            let is_same = to == at & !((1 << shift) - 1);
            let is_sound = is_page == (level == 3) && descriptor & ACCESSED != 0;
            return (is_same && is_sound).then(|| to + (1 << shift));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4 KiB granule, 40 bits: tables from level 1 (two of them concatenated in one index of nine
    /// bits at level 0 are not needed), as EDK II makes them.
    const TRANSLATION: Translation = Translation {
        sctlr: 0x100d,
        tcr: 64 - 39,
        ttbr0: 0x1000,
    };

    /// A level-1 block at 0, a level-2 block at 0x4000_0000, a page at 0x4020_0000, one that is not
    /// mapped to itself, and one that was never accessed.
    fn read(at: u64) -> u64 {
        match at {
            0x1000 => 0x401,
            0x1008 => 0x2003,
            0x2000 => 0x4000_0401,
            0x2008 => 0x3003,
            0x3000 => 0x4020_0403,
            0x3008 => 0x5000_0403,
            0x3010 => 0x4020_2003,
            0x3018 => 0x4020_3401,
            _ => 0,
        }
    }

    #[test]
    fn what_is_mapped_to_itself_is_found_at_every_level() {
        assert!(TRANSLATION.maps(0x0905_0000, 0x2_0000, &read));
        assert!(TRANSLATION.maps(0x3fff_0000, 0x20_1000, &read));
        assert!(TRANSLATION.maps(0x4020_0ff8, 8, &read));
    }

    #[test]
    fn what_is_not_mapped_to_itself_is_not_mapped() {
        for at in [
            0x4020_1000,
            0x4020_2000,
            0x4020_3000,
            0x4020_4000,
            0x8000_0000,
        ] {
            assert!(!TRANSLATION.maps(at, 4, &read), "{at:#x}");
        }
        assert!(!TRANSLATION.maps(0x4020_0ff8, 9, &read));
        assert!(!TRANSLATION.maps(1 << 39, 4, &read));
        assert!(!TRANSLATION.maps(u64::MAX, 4, &read));
    }

    #[test]
    fn without_an_mmu_everything_is_there_and_a_strange_one_maps_nothing() {
        let off = Translation {
            sctlr: 0,
            ..TRANSLATION
        };
        assert!(off.maps(0x8000_0000, 4, &read));
        let strange = Translation {
            tcr: 3 << 14 | 25,
            ..TRANSLATION
        };
        assert!(!strange.maps(0, 4, &read));
        let large = Translation {
            tcr: 12,
            ..TRANSLATION
        };
        assert!(!large.maps(0, 4, &read));
    }

    #[test]
    fn a_granule_of_64_kib_has_a_short_first_table() {
        let wide = Translation {
            sctlr: 1,
            tcr: 1 << 14 | 16,
            ttbr0: 0x1_0000,
        };
        let read = |at| match at {
            0x1_0000 => 0x2_0003,
            // Level 2: 512 MiB at 0x2000_0000.
            0x2_0008 => 0x2000_0401,
            _ => 0,
        };
        assert!(wide.maps(0x2000_0000, 0x2000_0000, &read));
        assert!(!wide.maps(0, 4, &read));
    }
}
