//! One descriptor of a stage-2 table: 64 bits (DDI 0487, D8.3).

use super::{Geometry, Granule, Level};
use core::ops::Range;

use crate::addr::Pa;
use crate::spec::bits::Field;

const VALID: u64 = 1 << 0;
/// With `VALID`: a table, or at level 3 a page; without it a block.
const NOT_BLOCK: u64 = 1 << 1;
const MEM_ATTR: Field = Field::bits(5, 2);
const S2AP: Field = Field::bits(7, 6);
const SH: Field = Field::bits(9, 8);
const AF: Field = Field::bit(10);
/// In a block: its size is about to change, or just has (DDI 0487, D8.3; IHI 0070 §3.21.1).
const NT: Field = Field::bit(16);
/// The leaf is one of an aligned group that maps consecutive memory alike (DDI 0487, D8.7.1).
const CONTIGUOUS: Field = Field::bit(52);
/// `XN[1]`. `XN[0]`, bit 53, stays 0: that reads the same with and without FEAT_XNX.
const XN: Field = Field::bit(54);

/// Address bits that stand in a descriptor where they stand in the address.
const OA_IN_PLACE: u64 = 0x0000_ffff_ffff_f000;

/// What a transaction may do to memory: `S2AP`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Access {
    /// Nothing, not even read.
    None = 0b00,
    /// Read.
    ReadOnly = 0b01,
    /// Write and not read.
    WriteOnly = 0b10,
    /// Both.
    ReadWrite = 0b11,
}

impl Access {
    /// Whether it may read.
    pub const fn can_read(self) -> bool {
        matches!(self, Self::ReadOnly | Self::ReadWrite)
    }

    /// Whether it may write.
    pub const fn can_write(self) -> bool {
        matches!(self, Self::WriteOnly | Self::ReadWrite)
    }
}

/// Whether instructions may be fetched: `XN`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Execute {
    /// At any exception level that stage 1 allows.
    Allowed = 0,
    /// Never.
    Never = 1,
}

/// What may be changed of a leaf while it is in use: access and execution.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Permissions {
    /// Loads and stores.
    pub access: Access,
    /// Instruction fetches.
    pub execute: Execute,
}

impl Permissions {
    /// The bits that permissions take in a leaf.
    pub const MASK: u64 = S2AP.mask() | XN.mask();

    /// Read and write, no execution.
    pub const READ_WRITE: Self = Self {
        access: Access::ReadWrite,
        execute: Execute::Never,
    };
    /// Read, no execution.
    pub const READ_ONLY: Self = Self {
        access: Access::ReadOnly,
        execute: Execute::Never,
    };

    const fn bits(self) -> u64 {
        let mut words = [0];
        S2AP.set(&mut words, self.access as u64);
        XN.set(&mut words, self.execute as u64);
        words[0]
    }
}

/// Which Device memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum DeviceKind {
    /// No gathering, no reordering, no early acknowledgement.
    NGnRnE = 0b00,
    /// No gathering, no reordering.
    NGnRE = 0b01,
    /// No gathering.
    NGRE = 0b10,
    /// The weakest.
    GRE = 0b11,
}

/// How far caches may keep Normal memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Cacheability {
    /// Not at all.
    NonCacheable = 0b01,
    /// Write-through.
    WriteThrough = 0b10,
    /// Write-back.
    WriteBack = 0b11,
}

/// The memory type, combined with stage 1's, the stronger wins: `MemAttr` with `S2FWB` = 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemoryType {
    /// Registers.
    Device(DeviceKind),
    /// Memory.
    Normal {
        /// Caches beyond the inner ones.
        outer: Cacheability,
        /// The CPU's own caches.
        inner: Cacheability,
    },
}

impl MemoryType {
    /// Normal, write-back: leaves stage 1's type as it is.
    pub const WRITE_BACK: Self = Self::Normal {
        outer: Cacheability::WriteBack,
        inner: Cacheability::WriteBack,
    };
    /// Normal, not cached.
    pub const NON_CACHEABLE: Self = Self::Normal {
        outer: Cacheability::NonCacheable,
        inner: Cacheability::NonCacheable,
    };

    const fn mem_attr(self) -> u64 {
        match self {
            Self::Device(kind) => kind as u64,
            Self::Normal { outer, inner } => (outer as u64) << 2 | inner as u64,
        }
    }

    const fn from_mem_attr(value: u64) -> Option<Self> {
        if value >> 2 == 0 {
            return Some(Self::Device(match value {
                0b00 => DeviceKind::NGnRnE,
                0b01 => DeviceKind::NGnRE,
                0b10 => DeviceKind::NGRE,
                _ => DeviceKind::GRE,
            }));
        }
        match (cacheability(value >> 2), cacheability(value & 0b11)) {
            (Some(outer), Some(inner)) => Some(Self::Normal { outer, inner }),
            _ => None,
        }
    }
}

const fn cacheability(value: u64) -> Option<Cacheability> {
    match value {
        0b01 => Some(Cacheability::NonCacheable),
        0b10 => Some(Cacheability::WriteThrough),
        0b11 => Some(Cacheability::WriteBack),
        _ => None,
    }
}

/// Who is kept coherent: `SH`. The value 0b01 is reserved.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Shareability {
    /// Nobody.
    Non = 0b00,
    /// Everybody who could be.
    Outer = 0b10,
    /// The CPUs, and the devices in their domain.
    Inner = 0b11,
}

/// Everything a leaf says beside the address.
///
/// The access flag is not among them: it is always 1, as no hardware update of it is ever
/// turned on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Attributes {
    /// What may be done.
    pub permissions: Permissions,
    /// To what kind of memory.
    pub memory: MemoryType,
    /// With whom it is kept coherent.
    pub shareability: Shareability,
}

impl Attributes {
    /// Ordinary memory: read, write, no execution, write-back, inner shareable.
    pub const MEMORY: Self = Self {
        permissions: Permissions::READ_WRITE,
        memory: MemoryType::WRITE_BACK,
        shareability: Shareability::Inner,
    };

    const fn bits(self) -> u64 {
        let mut words = [self.permissions.bits()];
        MEM_ATTR.set(&mut words, self.memory.mem_attr());
        SH.set(&mut words, self.shareability as u64);
        AF.set(&mut words, 1);
        words[0]
    }

    const fn from_bits(word: u64) -> Option<Self> {
        let words = [word];
        let shareability = match SH.get(&words) {
            0b00 => Shareability::Non,
            0b10 => Shareability::Outer,
            0b11 => Shareability::Inner,
            _ => return None,
        };
        let access = match S2AP.get(&words) {
            0b00 => Access::None,
            0b01 => Access::ReadOnly,
            0b10 => Access::WriteOnly,
            _ => Access::ReadWrite,
        };
        let execute = match XN.get(&words) {
            0 => Execute::Allowed,
            _ => Execute::Never,
        };
        match MemoryType::from_mem_attr(MEM_ATTR.get(&words)) {
            Some(memory) => Some(Self {
                permissions: Permissions { access, execute },
                memory,
                shareability,
            }),
            None => None,
        }
    }
}

/// One descriptor, a plain value: making one changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Descriptor(u64);

/// What a descriptor says, at its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded {
    /// Nothing is mapped; also what a walk makes of a block where there are none.
    Invalid,
    /// A page or a block.
    Leaf {
        /// Where it leads.
        pa: Pa,
        /// How.
        attributes: Attributes,
    },
    /// A table of the next level.
    Table(Pa),
    /// A leaf with a reserved memory type or shareability: nobody here writes such.
    Reserved,
}

impl Descriptor {
    /// Nothing is mapped.
    pub const INVALID: Self = Self(0);

    /// The descriptor with these bits.
    #[inline]
    pub const fn from_u64(word: u64) -> Self {
        Self(word)
    }

    /// Its bits.
    #[inline]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Leads to the table at `at`, which is aligned to the granule and narrower than 2^52.
    #[inline]
    pub const fn table(at: Pa) -> Self {
        Self(VALID | NOT_BLOCK | address_bits(at.as_u64()))
    }

    /// Whether a walk goes on or ends well here.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// Whether it leads to a table, at a level that has any.
    #[inline]
    pub const fn is_table(self, level: Level) -> bool {
        self.0 & (VALID | NOT_BLOCK) == VALID | NOT_BLOCK && !matches!(level, Level::L3)
    }

    /// A bit for what it is above the last level, to gather of many: [`LEAF_ABOVE_PAGES`](Self::LEAF_ABOVE_PAGES),
    /// [`TABLE_ABOVE_PAGES`](Self::TABLE_ABOVE_PAGES), or another.
    #[inline]
    pub const fn kind(self) -> u8 {
        1 << (self.0 & (VALID | NOT_BLOCK))
    }

    /// A block.
    pub const LEAF_ABOVE_PAGES: u8 = 1 << VALID;
    /// A table.
    pub const TABLE_ABOVE_PAGES: u8 = 1 << (VALID | NOT_BLOCK);

    /// The same descriptor with bit 0 clear: a walk takes it for invalid, whatever the rest says.
    #[inline]
    pub const fn disarmed(self) -> Self {
        Self(self.0 & !VALID)
    }

    /// A table descriptor that was [`disarmed`](Self::disarmed), whole again; `None` of any other.
    #[inline]
    pub const fn rearmed(self) -> Option<Self> {
        if self.0 & (VALID | NOT_BLOCK) == NOT_BLOCK {
            Some(Self(self.0 | VALID))
        } else {
            None
        }
    }

    /// The address in it: of the table, or of what the leaf maps.
    #[inline]
    pub const fn address(self, granule: Granule) -> Pa {
        let low = self.0 & OA_IN_PLACE & !(granule.size_bytes() - 1);
        let high = match granule {
            Granule::Kib64 => (self.0 & 0xf000) << 36,
            Granule::Kib4 | Granule::Kib16 => 0,
        };
        Pa::new(low | high)
    }

    /// The same leaf with other permissions.
    #[inline]
    pub const fn with_permissions(self, permissions: Permissions) -> Self {
        Self(self.0 & !Permissions::MASK | permissions.bits())
    }

    /// The same block with `nT` set: no TLB entry made of it conflicts with others.
    ///
    /// For blocks alone: elsewhere the bit is part of an address.
    #[inline]
    pub const fn marked(self) -> Self {
        Self(self.0 | NT.mask())
    }

    /// The same block with `nT` clear.
    ///
    /// For blocks alone, as [`marked`](Self::marked).
    #[inline]
    pub const fn unmarked(self) -> Self {
        Self(self.0 & !NT.mask())
    }

    /// Whether it says that it is one of a contiguous group; of leaves alone.
    #[inline]
    pub const fn is_grouped(self) -> bool {
        self.0 & CONTIGUOUS.mask() != 0
    }

    /// The same leaf as one of a contiguous group.
    #[inline]
    pub const fn grouped(self) -> Self {
        Self(self.0 | CONTIGUOUS.mask())
    }

    /// The same leaf, on its own.
    #[inline]
    pub const fn ungrouped(self) -> Self {
        Self(self.0 & !CONTIGUOUS.mask())
    }

    /// What it says at `level` of tables of this shape.
    pub const fn decode(self, geometry: &Geometry, level: Level) -> Decoded {
        if !self.is_valid() {
            return Decoded::Invalid;
        }
        let granule = geometry.granule();
        if self.is_table(level) {
            return Decoded::Table(self.address(granule));
        }
        let is_block = self.0 & NOT_BLOCK == 0;
        if !geometry.has_leaves(level) || is_block == matches!(level, Level::L3) {
            return Decoded::Invalid;
        }
        let offset = (1 << granule.log2_span(level)) - 1;
        match Attributes::from_bits(self.0) {
            Some(attributes) => Decoded::Leaf {
                // Below the span of a block other things than address bits stand.
                pa: Pa::new(self.address(granule).as_u64() & !offset),
                attributes,
            },
            None => Decoded::Reserved,
        }
    }
}

/// Where the bits of an address stand in a descriptor.
///
/// One formula for all granules: bits 51 to 48 go to 15 to 12 with 64 KiB, where these are free as
/// the address is aligned; the others have no address above 48 bits.
#[inline]
const fn address_bits(address: u64) -> u64 {
    address & OA_IN_PLACE | (address >> 36) & 0xf000
}

/// Leaves of one level that map consecutive memory, as many as are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaves {
    level: Level,
    template: u64,
    first: u64,
    log2_step: u8,
    /// Those of these numbers are members of contiguous groups: from, and how many.
    grouped: (usize, usize),
}

impl Leaves {
    /// Leaves of `level`, the first of which leads to `pa`.
    ///
    /// `None` if the level has none in tables of this shape, or `pa` is not aligned to what one
    /// covers. That the last one is narrow enough is the caller's business
    /// ([`Geometry::holds_output`]).
    #[inline]
    pub const fn new(
        geometry: &Geometry,
        level: Level,
        pa: Pa,
        attributes: Attributes,
    ) -> Option<Self> {
        let log2_step = geometry.granule().log2_span(level);
        if !geometry.has_leaves(level) || !pa.is_aligned(log2_step) {
            return None;
        }
        let kind = match level {
            Level::L3 => VALID | NOT_BLOCK,
            _ => VALID,
        };
        Some(Self {
            level,
            template: kind | attributes.bits(),
            first: pa.as_u64(),
            log2_step,
            grouped: (0, 0),
        })
    }

    /// The same leaves with the contiguous hint on every whole group among the first `count`, when
    /// they are stored to the entries of a table from `index` on.
    ///
    /// None has it where no group is aligned to its size in the table and in memory.
    #[must_use]
    pub const fn grouped(mut self, granule: Granule, index: usize, count: usize) -> Self {
        let Some(log2_entries) = granule.log2_contiguous(self.level) else {
            return self;
        };
        let members = 1 << log2_entries;
        let number = (self.first >> self.log2_step) as usize;
        if number % members == index % members {
            let before = index.next_multiple_of(members) - index;
            if before < count {
                self.grouped = (before, (count - before) / members * members);
            }
        }
        self
    }

    /// The level they are for.
    #[inline]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The leaf number `index`, counted from 0.
    #[inline]
    pub const fn at(&self, index: usize) -> Descriptor {
        let (from, count) = self.grouped;
        self.run(index.wrapping_sub(from) < count).at(index)
    }

    /// The first `count` leaves in three runs, within which all have the contiguous hint or none:
    /// their numbers, and leaves that are right for these numbers.
    #[inline]
    pub fn runs(&self, count: usize) -> [(Range<usize>, Run); 3] {
        let (from, grouped) = self.grouped;
        let from = from.min(count);
        let to = (from + grouped).min(count);
        [
            (0..from, self.run(false)),
            (from..to, self.run(true)),
            (to..count, self.run(false)),
        ]
    }

    const fn run(&self, has_hint: bool) -> Run {
        let hint = if has_hint { CONTIGUOUS.mask() } else { 0 };
        Run {
            template: self.template | hint,
            first: self.first,
            log2_step: self.log2_step,
        }
    }
}

/// Leaves that differ in nothing but the address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    template: u64,
    first: u64,
    log2_step: u8,
}

impl Run {
    /// The leaf number `index`.
    #[inline]
    pub const fn at(&self, index: usize) -> Descriptor {
        let address = self.first + ((index as u64) << self.log2_step);
        Descriptor(self.template | address_bits(address))
    }
}
