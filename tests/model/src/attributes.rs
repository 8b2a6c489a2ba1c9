//! Memory types and shareability, and how two stages combine (§13).

/// A memory type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cacheability {
    /// Non-cacheable.
    NonCacheable,
    /// Write-through.
    WriteThrough,
    /// Write-back.
    WriteBack,
}

/// What memory is accessed as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryType {
    /// Device-nGnRnE.
    DeviceNGnRnE,
    /// Device-nGnRE.
    DeviceNGnRE,
    /// Device-nGRE.
    DeviceNGRE,
    /// Device-GRE.
    DeviceGRE,
    /// Normal memory.
    Normal {
        /// Inner cacheability.
        inner: Cacheability,
        /// Outer cacheability.
        outer: Cacheability,
    },
}

/// Who else sees accesses in order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Shareability {
    /// Non-shareable.
    Non,
    /// Inner shareable.
    Inner,
    /// Outer shareable.
    Outer,
}

/// The attributes with which an access leaves the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Memory type.
    pub memory: MemoryType,
    /// Shareability; always outer for Device and for Normal non-cacheable.
    pub shareability: Shareability,
}

impl MemoryType {
    /// Normal write-back, inner and outer: what an interconnect without attributes supplies.
    pub const NORMAL_WRITE_BACK: Self = Self::Normal {
        inner: Cacheability::WriteBack,
        outer: Cacheability::WriteBack,
    };

    /// Whether it is a Device type.
    pub const fn is_device(self) -> bool {
        !matches!(self, Self::Normal { .. })
    }

    /// From the low two bits of a Device encoding.
    const fn device(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::DeviceNGnRnE,
            1 => Self::DeviceNGnRE,
            2 => Self::DeviceNGRE,
            _ => Self::DeviceGRE,
        }
    }

    /// From a byte of MAIR.
    pub(crate) const fn from_mair(byte: u8) -> Self {
        let (outer, inner) = (byte >> 4, byte & 15);
        if outer == 0 {
            return Self::device(inner >> 2);
        }
        Self::Normal {
            inner: Cacheability::from_mair(inner),
            outer: Cacheability::from_mair(outer),
        }
    }

    /// From a stage-2 `MemAttr[3:0]` without forced write-back.
    pub(crate) const fn from_stage2(bits: u8) -> Self {
        if bits & 0b1100 == 0 {
            return Self::device(bits);
        }
        // Reserved; in STE.MemAttr and GBPA.MemAttr the architecture defines them so (§5.2).
        if bits & 0b0011 == 0 {
            return Self::DeviceNGnRnE;
        }
        Self::Normal {
            inner: Cacheability::from_stage2(bits & 3),
            outer: Cacheability::from_stage2(bits >> 2),
        }
    }

    const fn device_rank(self) -> u8 {
        match self {
            Self::DeviceNGnRnE => 0,
            Self::DeviceNGnRE => 1,
            Self::DeviceNGRE => 2,
            Self::DeviceGRE => 3,
            Self::Normal { .. } => 4,
        }
    }

    /// The stronger of two: Device over Normal, then the less cacheable.
    pub(crate) fn combine(self, other: Self) -> Self {
        if let (
            Self::Normal { inner, outer },
            Self::Normal {
                inner: other_inner,
                outer: other_outer,
            },
        ) = (self, other)
        {
            return Self::Normal {
                inner: inner.min(other_inner),
                outer: outer.min(other_outer),
            };
        }
        if self.device_rank() <= other.device_rank() {
            self
        } else {
            other
        }
    }

    /// What stage 2's `MemAttr[3:0]` makes of stage 1's type where S2FWB is 1.
    pub(crate) fn forced(self, bits: u8) -> Self {
        match bits & 7 {
            0..=3 => self.combine(Self::device(bits)),
            5 if !self.is_device() => Self::Normal {
                inner: Cacheability::NonCacheable,
                outer: Cacheability::NonCacheable,
            },
            6 => Self::NORMAL_WRITE_BACK,
            _ => self,
        }
    }
}

impl Cacheability {
    const fn from_mair(nibble: u8) -> Self {
        match nibble {
            0b0100 => Self::NonCacheable,
            0b0001..=0b0011 | 0b1000..=0b1011 => Self::WriteThrough,
            0 => Self::NonCacheable,
            _ => Self::WriteBack,
        }
    }

    const fn from_stage2(bits: u8) -> Self {
        match bits {
            2 => Self::WriteThrough,
            3 => Self::WriteBack,
            _ => Self::NonCacheable,
        }
    }
}

impl Shareability {
    /// From an SH field; the reserved encoding 1 acts as outer.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        match bits {
            0 => Self::Non,
            3 => Self::Inner,
            _ => Self::Outer,
        }
    }
}

impl Attributes {
    /// What a transaction without attributes of its own comes with: Normal write-back,
    /// non-shareable.
    pub const INCOMING: Self = Self {
        memory: MemoryType::NORMAL_WRITE_BACK,
        shareability: Shareability::Non,
    };

    /// Device and Normal non-cacheable are always outer shareable.
    pub(crate) fn settled(self) -> Self {
        let non_cacheable = matches!(
            self.memory,
            MemoryType::Normal {
                inner: Cacheability::NonCacheable,
                outer: Cacheability::NonCacheable
            }
        );
        if self.memory.is_device() || non_cacheable {
            Self {
                shareability: Shareability::Outer,
                ..self
            }
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mair_bytes_mean_what_the_architecture_says() {
        assert_eq!(MemoryType::from_mair(0x00), MemoryType::DeviceNGnRnE);
        assert_eq!(MemoryType::from_mair(0x04), MemoryType::DeviceNGnRE);
        assert_eq!(MemoryType::from_mair(0x0c), MemoryType::DeviceGRE);
        assert_eq!(MemoryType::from_mair(0x02), MemoryType::DeviceNGnRnE);
        assert_eq!(MemoryType::from_mair(0xff), MemoryType::NORMAL_WRITE_BACK);
        let non_cacheable = MemoryType::from_mair(0x44);
        assert_eq!(non_cacheable, MemoryType::from_stage2(0b0101));
    }

    #[test]
    fn the_stronger_type_wins() {
        let back = MemoryType::NORMAL_WRITE_BACK;
        assert_eq!(back.combine(MemoryType::DeviceGRE), MemoryType::DeviceGRE);
        assert_eq!(
            MemoryType::DeviceNGnRE.combine(MemoryType::DeviceGRE),
            MemoryType::DeviceNGnRE
        );
        assert_eq!(
            back.combine(MemoryType::from_stage2(0b0101)),
            MemoryType::from_mair(0x44)
        );
        assert_eq!(back.combine(MemoryType::from_stage2(0b1111)), back);
    }

    #[test]
    fn forced_write_back_overrides_stage_1() {
        assert_eq!(
            MemoryType::from_mair(0x44).forced(6),
            MemoryType::NORMAL_WRITE_BACK
        );
        assert_eq!(MemoryType::DeviceGRE.forced(5), MemoryType::DeviceGRE);
        assert_eq!(
            MemoryType::from_mair(0x44).forced(7),
            MemoryType::from_mair(0x44)
        );
        assert_eq!(
            MemoryType::NORMAL_WRITE_BACK.forced(1),
            MemoryType::DeviceNGnRE
        );
    }
}
