//! Stage 2 as its tables lie in memory (§3.4, §5.2; DDI 0487 D8).

use super::{
    Ended, Found, Outcome, Purpose, Reason, S2_ROOT, Stage, Ste, Stop, Structure, View, aborts,
    aligned,
};
use crate::addr::Pa;
use crate::spec::bits::Field;
use crate::spec::vmsa::{Decoded, Descriptor, Geometry, Granule, Level, MemoryType};

const T0SZ: Field = Field::bits(165, 160);
const SL0: Field = Field::bits(167, 166);
const TG: Field = Field::bits(175, 174);
const PS: Field = Field::bits(178, 176);
const AA64: Field = Field::bit(179);
const NO_ACCESS_FLAG: Field = Field::bit(181);
const REFUSES_DEVICE: Field = Field::bit(182);
const ACCESSED: Field = Field::bit(10);

/// What an entry says of its stage 2.
pub(super) struct Tables {
    root: u64,
    geometry: Geometry,
    needs_access_flag: bool,
    refuses_device: bool,
}

/// What stage 2 makes of an address.
pub(super) struct Leaf {
    pub(super) pa: Pa,
    pub(super) can_read: bool,
    pub(super) can_write: bool,
}

/// How many bits an address has where the field says `value` (§6.3.6).
pub(super) const fn address_bits(value: u64, at_most: u8) -> u8 {
    let bits = match value {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        _ => 52,
    };
    if bits < at_most { bits } else { at_most }
}

impl Tables {
    pub(super) fn decode(ste: &Ste, output_bits: u8) -> Ended<Self> {
        let illegal = |what| Outcome::Aborts(Reason::EntryIllegal(what));
        if AA64.get(ste) == 0 {
            return Err(illegal("S2AA64 is 0"));
        }
        let (granule, levels) = match TG.get(ste) {
            0 => (Granule::Kib4, [Level::L2, Level::L1, Level::L0]),
            1 => (Granule::Kib64, [Level::L3, Level::L2, Level::L1]),
            2 => (Granule::Kib16, [Level::L3, Level::L2, Level::L1]),
            _ => return Err(illegal("S2TG is reserved")),
        };
        let start = levels.get(SL0.get(ste) as usize);
        let start = *start.ok_or(illegal("S2SL0 is reserved"))?;
        let ipa_bits = 64 - T0SZ.get(ste) as u8;
        let bits = address_bits(PS.get(ste), output_bits);
        let geometry = Geometry::starting_at(granule, ipa_bits, bits, start)
            .map_err(|_| illegal("S2T0SZ, S2SL0, S2TG and S2PS make no tables"))?;
        let root = S2_ROOT.get_address(ste);
        if root >> geometry.output_bits() != 0 {
            return Err(illegal("S2TTB is past S2PS"));
        }
        Ok(Self {
            root: aligned(root, log2_root_bytes(&geometry)),
            geometry,
            needs_access_flag: NO_ACCESS_FLAG.get(ste) == 0,
            refuses_device: REFUSES_DEVICE.get(ste) == 1,
        })
    }
}

/// To what the SMMU aligns the root: its size, not the least frame.
fn log2_root_bytes(geometry: &Geometry) -> u8 {
    geometry.root_entries().trailing_zeros() as u8 + 3
}

impl View<'_> {
    /// What stage 2 makes of `input`: four reads at the most, one a level.
    pub(super) fn stage2(&self, tables: &Tables, input: u64, purpose: Purpose) -> Ended<Leaf> {
        let stops = |stop| {
            aborts(Reason::Stage {
                stage: Stage::Two,
                input,
                purpose,
                stop,
            })
        };
        let geometry = &tables.geometry;
        let bits = geometry.ipa_bits();
        if input >> bits != 0 {
            return stops(Stop::OutOfRange { bits });
        }
        let granule = geometry.granule();
        let mut table = tables.root;
        let mut entries = geometry.root_entries() as u64;
        let mut next = Some(geometry.start());
        while let Some(level) = next {
            let at = table + ((input >> granule.log2_span(level)) & (entries - 1)) * 8;
            let word = self.read(Structure::Descriptor(Stage::Two), Pa::new(at))?;
            let found = Found {
                level: level.as_u8(),
                at,
                word,
            };
            let descriptor = Descriptor::from_u64(word);
            let output = descriptor.address(granule).as_u64();
            match descriptor.decode(geometry, level) {
                Decoded::Invalid => return stops(Stop::Invalid(found)),
                _ if output >> geometry.output_bits() != 0 => {
                    return stops(Stop::OutputSize(found));
                }
                Decoded::Table(_) => table = output,
                leaf => return self.leaf2(tables, found, leaf, level, input, purpose),
            }
            entries = 1 << granule.bits_per_level();
            next = level.next();
        }
        // A table descriptor of the last level is a page.
        stops(Stop::OutOfRange { bits })
    }

    fn leaf2(
        &self,
        tables: &Tables,
        found: Found,
        leaf: Decoded,
        level: Level,
        input: u64,
        purpose: Purpose,
    ) -> Ended<Leaf> {
        let stops = |stop| {
            aborts(Reason::Stage {
                stage: Stage::Two,
                input,
                purpose,
                stop,
            })
        };
        let Decoded::Leaf { pa, attributes } = leaf else {
            return aborts(Reason::EntryIllegal(
                "a leaf of stage 2 has a reserved memory type or shareability",
            ));
        };
        if tables.needs_access_flag && ACCESSED.get(&[found.word]) == 0 {
            return stops(Stop::AccessFlag(found));
        }
        let access = attributes.permissions.access;
        let (can_read, can_write) = (access.can_read(), access.can_write());
        if !can_read && (!can_write || purpose != Purpose::Input) {
            return stops(Stop::Permission(found));
        }
        let is_device = matches!(attributes.memory, MemoryType::Device(_));
        if is_device && tables.refuses_device && purpose != Purpose::Input {
            return stops(Stop::DeviceMemory(found));
        }
        let inside = input & ((1 << tables.geometry.granule().log2_span(level)) - 1);
        Ok(Leaf {
            pa: Pa::new(pa.as_u64() | inside),
            can_read,
            can_write,
        })
    }
}
