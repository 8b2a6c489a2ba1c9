//! Which commands reach a run of addresses (§4.4.1.1).

/// A part of a run that one command by range names: `(num + 1) << scale` granules from `base`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) base: u64,
    pub(super) num: u8,
    pub(super) scale: u8,
}

/// The largest scale that a command can say and that is a multiple of 5: `SCALE` has 5 bits.
const LAST_SCALE: u8 = 30;

/// The parts of a run of granules: its number of granules in digits of 5 bits, a part for each that
/// is not 0; of what is larger than such a digit can say, as many parts as it takes.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    base: u64,
    granules: u64,
    scale: u8,
    log2_granule: u8,
}

impl Parts {
    /// The parts of `granules` granules of `2^log2_granule` bytes from `base`, which is a multiple
    /// of that.
    pub(super) const fn new(base: u64, granules: u64, log2_granule: u8) -> Self {
        Self {
            base,
            granules,
            scale: 0,
            log2_granule,
        }
    }

    /// Takes the first granule of what is left, for where there are no commands by range: its
    /// address.
    pub(super) const fn take_one(&mut self) -> Option<u64> {
        if self.granules == 0 {
            return None;
        }
        let base = self.base;
        self.granules -= 1;
        self.base = base.wrapping_add(1 << self.log2_granule);
        Some(base)
    }
}

impl Iterator for Parts {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        while self.granules != 0 {
            let (scale, base) = (self.scale, self.base);
            let digit = if scale < LAST_SCALE {
                let digit = self.granules & 0x1f;
                self.granules >>= 5;
                self.scale += 5;
                digit
            } else {
                let digit = self.granules.min(0x20);
                self.granules -= digit;
                digit
            };
            if digit != 0 {
                // Past the last part it may wrap, and is not looked at.
                self.base = base.wrapping_add(digit << (scale + self.log2_granule));
                return Some(Part {
                    base,
                    num: digit as u8 - 1,
                    scale,
                });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whole, in order, without a gap, and in fields that there are.
        #[test]
        fn parts_make_up_the_run(first in 0_u64..1 << 20, bits in 0_u32..52, low: u64) {
            let granules = 1 << bits | low & ((1 << bits) - 1);
            let mut next = first << 12;
            for part in Parts::new(first << 12, granules, 12).take(100) {
                prop_assert_eq!(part.base, next);
                prop_assert!(part.num < 32 && part.scale < 32);
                next = next.wrapping_add(((u64::from(part.num) + 1) << part.scale) << 12);
            }
            if granules < 1 << 36 {
                prop_assert_eq!(next, (first + granules) << 12);
                prop_assert!(Parts::new(0, granules, 12).count() <= 8);
            }
        }
    }

    /// It used to ask for a scale of 35, which the field cannot hold: 2^35 granules, 128 TiB.
    #[test]
    fn a_run_of_half_of_all_ipas_is_said_in_fields_that_there_are() {
        let parts: [Option<Part>; 3] = {
            let mut parts = Parts::new(0, 1 << 36, 12);
            [parts.next(), parts.next(), parts.next()]
        };
        let part = |base| {
            Some(Part {
                base,
                num: 31,
                scale: 30,
            })
        };
        assert_eq!(parts, [part(0), part(1 << 47), None]);
    }
}
