//! What the bits of the ID registers mean, in words (IHI 0070 §6.3).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What one register says: what is there, and what is not.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) has: Vec<String>,
    pub(crate) lacks: Vec<String>,
}

impl Words {
    fn say(mut self, text: impl Into<String>) -> Self {
        self.has.push(text.into());
        self
    }

    /// Names of one bit each.
    fn bits(mut self, value: u32, names: &[(u32, &str)]) -> Self {
        for (bit, name) in names {
            let list = match value >> bit & 1 {
                0 => &mut self.lacks,
                _ => &mut self.has,
            };
            list.push((*name).into());
        }
        self
    }
}

const fn field(value: u32, high: u32, low: u32) -> u32 {
    value >> low & (u32::MAX >> (31 - (high - low)))
}

/// What a field of few values says; one that is not listed is reserved.
fn choice(name: &str, value: u32, words: &[&str]) -> String {
    words.get(value as usize).map_or_else(
        || format!("{name} is {value}, reserved"),
        |word| (*word).into(),
    )
}

/// Bits of SMMU_IDR0 that are there or not.
const IDR0_BITS: [(u32, &str); 13] = [
    (19, "two-level CD tables"),
    (4, "coherent accesses (COHACC)"),
    (5, "broadcast TLBI (BTM)"),
    (9, "EL2 streams (HYP)"),
    (10, "ATS"),
    (16, "PRI"),
    (12, "16-bit ASIDs"),
    (18, "16-bit VMIDs"),
    (13, "MSIs"),
    (14, "SEV"),
    (15, "ATOS"),
    (20, "VATOS"),
    (17, "VMID wildcards"),
];

/// Fields of SMMU_IDR0 with a few values: name, highest and lowest bit, a word for each value.
const IDR0_FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    (
        "TTF",
        3,
        2,
        &[
            "no tables",
            "AArch32 tables",
            "AArch64 tables",
            "AArch32 and AArch64 tables",
        ],
    ),
    (
        "TTENDIAN",
        22,
        21,
        &[
            "tables of both endians",
            "TTENDIAN is 1, reserved",
            "little-endian tables",
            "big-endian tables",
        ],
    ),
    (
        "HTTU",
        7,
        6,
        &[
            "no HTTU",
            "HTTU of access flags",
            "HTTU of access and dirty flags",
            "HTTU of all flags",
        ],
    ),
    (
        "STALL_MODEL",
        25,
        24,
        &[
            "faults stall or terminate",
            "faults terminate",
            "faults always stall",
        ],
    ),
    (
        "ST_LEVEL",
        28,
        27,
        &["linear stream table alone", "two-level stream table"],
    ),
];

pub(crate) fn idr0(value: u32) -> Words {
    let mut words = Words::default().bits(value, &[(1, "stage 1"), (0, "stage 2")]);
    for (name, high, low, meanings) in IDR0_FIELDS {
        words = words.say(choice(name, field(value, high, low), meanings));
    }
    words = words.bits(value, &IDR0_BITS);
    // Both take something away where they are 1.
    if field(value, 11, 11) == 1 {
        words = words.say("no split-stage ATS (NS1ATS)");
    }
    if field(value, 26, 26) == 1 {
        words = words.say("terminates by abort alone (TERM_MODEL)");
    }
    words
}

pub(crate) fn idr1(value: u32) -> Words {
    let substreams = match field(value, 10, 6) {
        0 => "no SubstreamIDs".into(),
        bits => format!("{bits} bits of SubstreamID"),
    };
    Words::default()
        .say(format!("{} bits of StreamID", field(value, 5, 0)))
        .say(substreams)
        .say(format!("2^{} commands", field(value, 25, 21)))
        .say(format!("2^{} events", field(value, 20, 16)))
        .say(format!("2^{} page requests", field(value, 15, 11)))
        .bits(
            value,
            &[
                (29, "preset queues"),
                (30, "preset tables"),
                (31, "further command queues (ECMDQ)"),
            ],
        )
}

pub(crate) fn idr3(value: u32) -> Words {
    Words::default()
        .say(format!("BBML {}", field(value, 12, 11)))
        .bits(
            value,
            &[
                (10, "range invalidation (RIL)"),
                (8, "forced write-back (FWB)"),
                (9, "small tables (STT)"),
                (4, "XNX"),
                (2, "HAD"),
                (7, "MPAM"),
                (13, "E0PD"),
                (14, "PTWNNC"),
                (15, "DPT"),
            ],
        )
}

pub(crate) fn idr5(value: u32) -> Words {
    let bits = [32, 36, 40, 42, 44, 48, 52, 56];
    let output = bits.get(field(value, 2, 0) as usize).unwrap_or(&0);
    Words::default()
        .say(format!("{output} bits of output address"))
        .say(choice(
            "VAX",
            field(value, 11, 10),
            &["48-bit VAs", "52-bit VAs", "56-bit VAs"],
        ))
        .say(format!("{} stalls at most", field(value, 31, 16)))
        .bits(
            value,
            &[
                (4, "4 KiB granule"),
                (5, "16 KiB granule"),
                (6, "64 KiB granule"),
            ],
        )
}

pub(crate) fn idr6(value: u32) -> Words {
    Words::default()
        .say(format!("2^{} control pages", field(value, 27, 24)))
        .say(format!("2^{} queues in each", field(value, 19, 16)))
}

/// SMMU_IDR2, which means something beside an SMMU_IDR0 that has VATOS.
pub(crate) fn idr2(idr0: u32, value: u32) -> Words {
    match idr0 >> 20 & 1 {
        0 => Words::default().say("no VATOS page"),
        _ => Words::default().say(format!(
            "VATOS page {:#x} bytes further on",
            0x2_0000 + (field(value, 9, 0) << 16)
        )),
    }
}

/// SMMU_IDR4, which no architecture gives a meaning.
pub(crate) fn idr4() -> Words {
    Words::default().say("its maker's own")
}

/// Who made it, by JEP106 code.
pub(crate) const fn implementer(code: u32) -> &'static str {
    match code {
        0x43b => "Arm",
        0x736 => "HiSilicon",
        0 => "nobody named",
        _ => "another maker",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What QEMU 10.0.2 was seen to answer; the words were taken from §6.3 by hand.
    #[test]
    fn qemus_registers_are_read_as_by_hand() {
        let zero = idr0(0x0d44_101b);
        assert_eq!(
            zero.has,
            [
                "stage 1",
                "stage 2",
                "AArch64 tables",
                "little-endian tables",
                "no HTTU",
                "faults terminate",
                "two-level stream table",
                "coherent accesses (COHACC)",
                "16-bit ASIDs",
                "16-bit VMIDs",
                "terminates by abort alone (TERM_MODEL)",
            ]
        );
        assert_eq!(
            zero.lacks,
            [
                "two-level CD tables",
                "broadcast TLBI (BTM)",
                "EL2 streams (HYP)",
                "ATS",
                "PRI",
                "MSIs",
                "SEV",
                "ATOS",
                "VATOS",
                "VMID wildcards",
            ]
        );
        let one = idr1(0x0273_0010);
        assert_eq!(
            one.has[..4],
            [
                "16 bits of StreamID",
                "no SubstreamIDs",
                "2^19 commands",
                "2^19 events"
            ]
        );
        assert_eq!(
            idr3(0x1414).has,
            ["BBML 2", "range invalidation (RIL)", "XNX", "HAD"]
        );
        assert_eq!(idr2(0x0d44_101b, 3).has, ["no VATOS page"]);
        assert_eq!(
            idr2(1 << 20, 3).has,
            ["VATOS page 0x50000 bytes further on"]
        );
        let five = idr5(0x74);
        assert_eq!(
            five.has[..3],
            [
                "44 bits of output address",
                "48-bit VAs",
                "0 stalls at most"
            ]
        );
        assert_eq!(five.lacks, Vec::<String>::new());
    }

    #[test]
    fn what_is_reserved_is_said_to_be() {
        assert!(
            idr0(3 << 24)
                .has
                .contains(&"STALL_MODEL is 3, reserved".into())
        );
        assert!(idr5(3 << 10).has.contains(&"VAX is 3, reserved".into()));
        assert_eq!(
            idr6(0x0203_0000).has,
            ["2^2 control pages", "2^3 queues in each"]
        );
    }

    #[test]
    fn every_width_of_an_address_has_its_own_number() {
        let widths = [32, 36, 40, 42, 44, 48, 52, 56];
        for (oas, bits) in widths.iter().enumerate() {
            assert_eq!(
                idr5(oas as u32).has[0],
                format!("{bits} bits of output address")
            );
        }
    }
}
