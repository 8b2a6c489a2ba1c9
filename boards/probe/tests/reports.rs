//! Reports of machines whose tables are written and whose registers are played, none of it by the
//! words of the reader.

#[path = "../../../tests/acpi/builder.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of discovery, which use all of it"
)]
mod builder;
#[path = "../../../tests/acpi/tables.rs"]
#[expect(
    dead_code,
    reason = "shared with the tests of discovery, which use all of it"
)]
mod tables;

use std::collections::BTreeMap;

use portcullis::addr::{Extent, Pa};
use portcullis::discover::{AcpiTables, Machine};
use portcullis::hw::Registers;
use portcullis_probe::{COLUMNS, Cpu, ExceptionLevel, Firmware, Found, Roots, Survey, report};

/// Words at physical addresses; all others read as all ones, and a write is the end of the test.
struct Wires<'w> {
    words: &'w BTreeMap<u64, u32>,
    base: u64,
}

impl Registers for Wires<'_> {
    fn read32(&self, offset: usize) -> u32 {
        let at = self.base + offset as u64;
        self.words.get(&at).copied().unwrap_or(u32::MAX)
    }

    fn write32(&self, offset: usize, value: u32) {
        panic!("a write of {value:#x} to {offset:#x}");
    }

    fn read64(&self, offset: usize) -> u64 {
        panic!("a read of 64 bits at {offset:#x}");
    }

    fn write64(&self, offset: usize, value: u64) {
        panic!("a write of {value:#x} to {offset:#x}");
    }
}

/// A CPU of a Kunpeng 920.
const CPU: Cpu = Cpu {
    level: ExceptionLevel::El2,
    midr: 0x481f_d010,
    mpidr: 0x8008_0000,
    pfr0: 0,
    mmfr0: 0x0010_1125,
    mmfr1: 0x1021_2122,
    mmfr2: 0,
};

/// What is played: tables, words behind addresses, addresses that firmware has mapped.
struct Stage {
    firmware: builder::Firmware,
    words: BTreeMap<u64, u32>,
    mapped: fn(u64) -> bool,
    roots: Vec<Roots>,
    cpu: Cpu,
}

impl Stage {
    fn of(firmware: builder::Firmware) -> Self {
        Self {
            firmware,
            words: BTreeMap::new(),
            mapped: |_| true,
            roots: Vec::new(),
            cpu: CPU,
        }
    }

    /// An SMMU with `idr1`, on or off, as HIP08's logs tell of its features.
    fn smmu(mut self, base: u64, idr1: u32, cr0: u32) -> Self {
        // S2P S1P TTF=2 COHACC ATS ASID16 MSI SEV VMID16 CD2L, both endians, stall model 0, 2-level.
        let idr0 = 1 | 1 << 1 | 2 << 2 | 1 << 4 | 1 << 10 | 1 << 12 | 1 << 13 | 1 << 14;
        let idr0 = idr0 | 1 << 18 | 1 << 19 | 1 << 27;
        let words = [
            (0x00, idr0),
            (0x04, idr1),
            (0x08, 0),
            (0x0c, 0),
            (0x10, 0),
            (0x14, 0x0040_0075),
            (0x18, 0x0003_0736),
            (0x1c, 0),
            (0x20, cr0),
            (0x24, cr0),
            (0x44, 0x0010_0000),
            (0x80, 0x1234_5000),
            (0x84, 0x4000_0020),
            (0x88, 0x0001_0210),
        ];
        self.words
            .extend(words.map(|(offset, word)| (base + offset, word)));
        self
    }

    /// A function at `rid` of the segment whose ECAM starts at `ecam`: ids, class, header, and
    /// what lies further on.
    fn function(mut self, ecam: u64, rid: u64, ids: u32, header: u32, more: &[(u64, u32)]) -> Self {
        let at = ecam + (rid << 12);
        let words = [
            (0x00, ids),
            (0x04, 0x0010_0000),
            (0x08, 0x0108_0221),
            (0x0c, header << 16),
        ];
        self.words
            .extend(words.map(|(offset, word)| (at + offset, word)));
        self.words.insert(at + 0x34, 0);
        self.words
            .extend(more.iter().map(|(offset, word)| (at + offset, *word)));
        self
    }

    fn root(mut self, first_bus: u8, last_bus: u8) -> Self {
        self.roots.push(Roots {
            segment: 0,
            first_bus,
            last_bus,
        });
        self
    }

    /// The report, in one line.
    fn report(&self) -> String {
        let memory = self.firmware.memory();
        let read = |at, size_bytes| memory.read(at, size_bytes);
        let found = Found {
            firmware: Firmware {
                vendor: "a maker".into(),
                revision: 1,
                uefi: (2, 70),
            },
            cpu: self.cpu,
            tables: Some(AcpiTables::new(builder::RSDP, &read)),
            memory: &[],
            roots: &self.roots,
        };
        let mut machine = Box::new(Machine::new());
        let survey = Survey::take(found, &mut machine, &|extent: Extent<Pa>| {
            let base = extent.base().as_u64();
            let words = &self.words;
            (self.mapped)(base).then_some(Wires { words, base })
        });
        let text = report(&survey, &machine);
        for line in text.lines() {
            assert!(line.len() <= COLUMNS, "{line}");
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[track_caller]
fn assert_has(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "no `{part}` in {report}");
    }
}

const ECAM: u64 = 0xd000_0000;
/// 16 bits of StreamID and of SubstreamID, 2^15 events, 2^16 commands.
const IDR1: u32 = 16 | 16 << 6 | 15 << 16 | 16 << 21;

/// A PCI Express capability with FLR, and behind it PASIDs of 16 bits.
const EXPRESS_AND_PASID: [(u64, u32); 5] = [
    (0x34, 0x40),
    (0x40, 0x0002_0010),
    (0x44, 1 << 28),
    (0x100, 0x0001_001b),
    (0x104, 16 << 8),
];

fn d06() -> Stage {
    let bases = [
        0x1_4800_0000,
        0x1_0000_0000,
        0x1_4000_0000,
        0x4001_4800_0000,
        0x4001_0000_0000,
        0x4001_4000_0000,
    ];
    let all = Stage::of(tables::d06());
    bases
        .into_iter()
        .fold(all, |stage, base| stage.smmu(base, IDR1, 0))
}

#[test]
fn the_sec_engine_of_a_kunpeng_920_is_behind_the_sixth_smmu_and_takes_pasids() {
    let bridge = [(0x18, 0x00b6_b6b4)];
    let report = d06()
        .root(0x79, 0x79)
        .root(0xb4, 0xb7)
        .function(ECAM, 0xb400, 0xa121_19e5, 1, &bridge)
        .function(ECAM, 0xb600, 0xa255_19e5, 0, &EXPRESS_AND_PASID)
        .function(ECAM, 0x7900, 0xa258_19e5, 0, &EXPRESS_AND_PASID)
        .report();
    assert_has(
        &report,
        &[
            "SMMU 5 at 0x400140000000: coherent by IORT, no wired interrupts",
            "16 bits of StreamID, 16 bits of SubstreamID, 2^16 commands, 2^15 events",
            "IIDR 0x00030736: by HiSilicon (0x736)",
            "left off by firmware, all DMA aborts",
            "3 PCI functions, 1 of them unprotected",
            "0000:79:00.0 UNPROTECTED: 19e5:a258",
            "0000:b6:00.0 SMMU 5 stream 0xb600: 19e5:a255",
            "USABLE: it would take all SMMUs over",
            "SMMU 5: nesting, 16 bits of SubstreamID, ATS, stalls (64 at once), no invalidation by \
             range (RIL), BBML 0, coherent walks, events by polling",
            "0000:b6:00.0: yes, by PASID (16 bits) or whole, resets by itself (FLR)",
            "0000:79:00.0: NO, its DMA goes through no SMMU",
        ],
    );
    let unprotected = report.find("0000:79:00.0 UNPROTECTED");
    assert!(
        unprotected < report.find("0000:b6:00.0 SMMU"),
        "it comes first"
    );
    assert!(!report.contains("quirk:"), "{report}");
}

#[test]
fn an_smmu_that_firmware_left_on_is_told_with_its_table() {
    let report = d06().smmu(0x1_0000_0000, IDR1, 0xd).report();
    let expected = "left ON by firmware: two-level table of 2^16 entries at 0x2012345000";
    assert_eq!(report.matches(expected).count(), 1, "{report}");
    assert_eq!(report.matches("left off by firmware").count(), 5);
}

#[test]
fn what_firmware_has_not_mapped_is_not_touched() {
    let mut stage = d06().root(0xb4, 0xb4);
    stage.mapped = |_| false;
    let report = stage.report();
    assert_has(
        &report,
        &[
            "firmware has not mapped it: not looked at",
            "bus 0000:b4: firmware has not mapped it: not looked at",
            "NOT USABLE: SMMU 0 could not be looked at",
        ],
    );
}

#[test]
fn buses_that_no_root_or_bridge_has_are_not_read() {
    let mut stage = d06().root(0x74, 0x76);
    stage.mapped = |base| {
        let is_ecam = (ECAM..ECAM + 0x1000_0000).contains(&base);
        assert!(!is_ecam || base == ECAM + (0x74 << 20), "bus at {base:#x}");
        true
    };
    assert_has(&stage.report(), &["0 PCI functions"]);
}

#[test]
fn bridges_that_lead_back_are_followed_once() {
    let back = [(0x18, 0x0074_7474)];
    let report = d06()
        .root(0x74, 0x76)
        .function(ECAM, 0x7400, 0xa121_19e5, 1, &back)
        .report();
    assert_has(&report, &["1 PCI functions", "bridge to buses 74-74"]);
}

#[test]
fn capabilities_that_go_in_a_circle_end() {
    let circle = [
        (0x34, 0x40),
        (0x40, 0x0002_0010),
        (0x44, 0),
        (0x100, 0x1001_0001),
    ];
    let report = d06()
        .root(0x74, 0x74)
        .function(ECAM, 0x7400, 0xa255_19e5, 0, &circle)
        .report();
    assert_has(&report, &["0000:74:00.0: yes, whole, no FLR"]);
}

#[test]
fn a_stream_that_firmware_keeps_memory_for_is_not_given() {
    let mut firmware = tables::qemu();
    let nodes = [
        builder::its_group(&[0]),
        builder::smmu(
            4,
            0x905_0000,
            [106, 107, 109, 108],
            &[builder::range(0, 0xffff, 0, 0)],
        ),
        builder::root_complex(0, &[builder::range(0, 0xff, 0, 1)]),
        builder::rmr(1, &[(0xe640_0000, 0x10_0000)], &[builder::single(0x10, 1)]),
    ];
    *firmware.table(b"IORT") = builder::iort(&nodes);
    let report = Stage::of(firmware)
        .smmu(0x905_0000, IDR1, 0)
        .function(0x40_1000_0000, 0x10, 0x1234_5678, 0, &EXPRESS_AND_PASID)
        .function(0x40_1000_0000, 0x18, 0x1234_5678, 0, &EXPRESS_AND_PASID)
        .report();
    assert_has(
        &report,
        &[
            "SMMU 0 stream 0x10 and 0 more: 1048576 bytes at 0xe6400000",
            "events by wired interrupt",
            "0000:00:03.0: yes,",
            "0000:00:02.0: NO, firmware keeps memory for it (RMR)",
        ],
    );
}

#[test]
fn an_smmu_that_cannot_be_driven_is_refused_with_its_reason_and_its_devices_too() {
    let mut stage = d06().root(0x74, 0x74);
    // Its tables are big-endian.
    *stage.words.entry(0x1_4000_0000).or_default() |= 3 << 21;
    let stage = stage.function(ECAM, 0x7400, 0xa255_19e5, 0, &[]);
    assert_has(
        &stage.report(),
        &[
            "NOT USABLE: SMMU 2: big-endian tables alone",
            "0000:74:00.0: NO, SMMU 2 cannot be used",
        ],
    );
}

#[test]
fn a_damaged_table_is_named_and_the_rest_is_reported() {
    let mut firmware = tables::d06();
    // The length of IORT's first node.
    firmware.table(b"IORT").body[52 - 36 + 1] = 3;
    let report = Stage::of(firmware).report();
    assert_has(
        &report,
        &[
            "MAKES NO SENSE: ",
            "firmware runs at EL2; ",
            "GIC: distributor at 0xae000000",
            "NOT USABLE: tables that make no sense are refused",
            "NOT USABLE: no SMMUv3 in the tables",
        ],
    );
}

#[test]
fn a_cpu_that_lacks_what_is_needed_is_told() {
    let mut stage = d06();
    stage.cpu.level = ExceptionLevel::El1;
    stage.cpu.mmfr0 = 0xf010_1125;
    assert_has(
        &stage.report(),
        &[
            "firmware runs at EL1",
            "NOT USABLE: firmware runs at EL1; Portcullis needs EL2",
            "NOT USABLE: the CPU has no 4 KiB granule at stage 2",
        ],
    );
}

#[test]
fn the_quirks_of_hip07_and_hip09_are_named() {
    let report = Stage::of(tables::d05()).report();
    assert_has(
        &report,
        &[
            "quirk: CMD_PREFETCH_* is never sent (erratum 161010701)",
            "quirk: MSIs go where they are meant (errata 161010801, 161010803)",
        ],
    );
    let mut firmware = tables::d06();
    firmware.oem_table_id = *b"HIP09   ";
    let report = Stage::of(firmware).report();
    assert_has(
        &report,
        &["quirk: new tables are followed by an invalidation (erratum 162100602)"],
    );
}
