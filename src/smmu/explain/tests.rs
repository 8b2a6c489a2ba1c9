//! Every word here is assembled by hand from §5, §6.3 and DDI 0487 D8.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::string::ToString;

use super::super::probe::{Features, Implementation, StallModel};
use super::*;

const STREAM: u32 = 0x110;
/// What stage 2 maps at [`PA`].
const IPA: u64 = 0x4_0000_3000;
const PA: u64 = 0x3000_0000;
const STE: u64 = 0x1001_0400;
/// The stage 2 descriptors of [`IPA`], of levels 1 to 3.
const S2: [u64; 3] = [0x2000_0080, 0x2001_0000, 0x2002_0018];
/// A virtual address that context 5 maps at [`IPA`], and its descriptors as stage 2 puts them.
const VA: u64 = 0x12_3456_7000;
const S1: [u64; 3] = [0x4010_0240, 0x4010_1d10, 0x4010_2b38];
const CD: u64 = 0x4000_0140;
/// The stage 2 descriptor under which contexts and stage 1 tables lie: a block of 2 MiB.
const S2_BLOCK: u64 = 0x2003_0400;

const NESTED: u64 = 4 << 59 | 0x5000_0000 | 0xf;

#[derive(Clone)]
struct Memory(BTreeMap<u64, u64>);

impl Memory {
    /// A two-level table with one stream that has stage 2 alone.
    fn stage2() -> Self {
        Self(
            [
                // 256 STEs: Span 9.
                (0x1000_0008, 0x1001_0009),
                // V, Config 0b110.
                (STE, 0xd),
                // MEV, SHCFG incoming.
                (STE + 0x08, 0x0000_1000_0008_0000),
                // S2R, S2PTW, S2AA64, S2PS 44 bits, S2SL0 level 1, S2T0SZ 24, S2VMID 7.
                (STE + 0x10, 0x044c_3558_0000_0007),
                (STE + 0x18, 0x2000_0000),
                (S2[0], 0x2001_0003),
                (S2[1], 0x2002_0003),
                // AF, inner shareable, read and write, write-back, page.
                (S2[2], PA | 0x7ff),
            ]
            .into(),
        )
    }

    /// The same stream with both stages and 16 contexts, linear; context 5 maps [`VA`].
    fn nested() -> Self {
        Self::stage2()
            .with(STE, NESTED)
            .with(0x2000_0008, 0x2003_0003)
            .with(S2_BLOCK, 0x4000_07fd)
            // ASID 0x33, AA64, IPS 40 bits, V, EPD1, T0SZ 25, 4 KiB.
            .with(CD, 0x0033_0202_c000_0019)
            .with(CD + 0x08, 0x5010_0000)
            .with(CD + 0x10, 0)
            .with(S1[0], 0x5010_1003)
            .with(S1[1], 0x5010_2003)
            // AF, AP[1]: for the unprivileged too; page.
            .with(S1[2], IPA | 0x443)
    }

    fn with(mut self, at: u64, word: u64) -> Self {
        self.0.insert(at, word);
        self
    }

    fn without(mut self, at: u64) -> Self {
        self.0.remove(&at);
        self
    }

    fn explain(&self, substream: Option<u32>, address: u64) -> Explanation {
        self.of(STREAM, substream, address)
    }

    fn of(&self, stream: u32, substream: Option<u32>, address: u64) -> Explanation {
        let peek = |at: Pa| self.0.get(&at.as_u64()).copied();
        let substream = substream.map(|number| SubstreamId::new(number).expect("20 bits"));
        let who = (StreamId::new(stream), substream, Iova::new(address));
        explain(&peek, ON, &FEATURES, who)
    }
}

/// 2^16 streams, two levels, SPLIT 8.
const ON: Registers = Registers {
    is_on: true,
    gate_aborts: true,
    table: 1 << 62 | 0x1000_0000,
    table_config: 0x1_0210,
};

const FEATURES: Features = Features {
    has_stage1: true,
    says_coherent: true,
    has_ats: false,
    has_split_ats: false,
    records_ats_errors: false,
    has_pri: false,
    has_el2: false,
    has_two_level_streams: true,
    has_two_level_cds: true,
    has_range_invalidation: true,
    has_msi: false,
    stalls: StallModel::Terminate,
    aborts_only: true,
    asid_bits: 16,
    vmid_bits: 16,
    stream_bits: 16,
    substream_bits: 20,
    log2_max_commands: 8,
    log2_max_events: 8,
    bbm_level: 2,
    output_bits: 44,
    needs_flush_of_new_tables: false,
    has_16k_granule: true,
    has_64k_granule: true,
    stall_max: 0,
    minor_revision: 1,
    implementation: Implementation {
        implementer: 0,
        product: 0,
        variant: 0,
        revision: 0,
    },
};

const fn reaches(pa: u64) -> Outcome {
    Outcome::Reaches {
        pa: Pa::new(pa),
        can_read: true,
        can_write: true,
    }
}

const fn aborted(reason: Reason) -> Outcome {
    Outcome::Aborts(reason)
}

const fn stage(stage: Stage, input: u64, purpose: Purpose, stop: Stop) -> Outcome {
    aborted(Reason::Stage {
        stage,
        input,
        purpose,
        stop,
    })
}

const fn found(level: u8, at: u64, word: u64) -> Found {
    Found { level, at, word }
}

fn event(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Aborts(reason) => reason.event().map(|(name, _)| name),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_of_stage_2_is_found() {
    let seen = Memory::stage2().explain(None, IPA + 0x123);
    assert_eq!(seen.outcome, reaches(PA + 0x123));
    let entry = EntrySeen {
        at: Pa::new(STE),
        word: 0xd,
        vmid: Vmid::new(7),
        root: Pa::new(0x2000_0000),
    };
    assert_eq!(seen.entry, Some(entry));
    assert_eq!(
        seen.to_string(),
        "stream 0x110 at 0x400003123, by the tables in memory now:\n  \
         the entry at 0x10010400 has stage 2 alone, VMID 0x7, tables at 0x20000000\n  \
         it reaches 0x30000123, to read and write"
    );
}

#[test]
fn a_block_and_a_second_concatenated_root_are_found() {
    // Bit 39 of the address selects the second table of the root.
    let memory = Memory::stage2()
        .with(0x2000_1000, 0x2005_0003)
        .with(0x2005_0008, 0x4020_07fd);
    let seen = memory.explain(None, 0x80_0034_5678);
    assert_eq!(seen.outcome, reaches(0x4034_5678));
}

#[test]
fn what_stops_stage_2_is_named_with_its_descriptor() {
    let at = |place: usize, word: u64| Memory::stage2().with(S2[place], word).explain(None, IPA);
    let two = |stop| stage(Stage::Two, IPA, Purpose::Input, stop);
    let rows = [
        (
            0,
            0x2001_0002,
            Stop::Invalid(found(1, S2[0], 0x2001_0002)),
            "F_TRANSLATION",
        ),
        (1, 0, Stop::Invalid(found(2, S2[1], 0)), "F_TRANSLATION"),
        // Level 3 has no blocks.
        (
            2,
            0x3000_07fd,
            Stop::Invalid(found(3, S2[2], 0x3000_07fd)),
            "F_TRANSLATION",
        ),
        (
            1,
            0x1000_2002_0003,
            Stop::OutputSize(found(2, S2[1], 0x1000_2002_0003)),
            "F_ADDR_SIZE",
        ),
        (
            2,
            0x1000_3000_07ff,
            Stop::OutputSize(found(3, S2[2], 0x1000_3000_07ff)),
            "F_ADDR_SIZE",
        ),
        (
            2,
            0x3000_03ff,
            Stop::AccessFlag(found(3, S2[2], 0x3000_03ff)),
            "F_ACCESS",
        ),
        (
            2,
            0x3000_073f,
            Stop::Permission(found(3, S2[2], 0x3000_073f)),
            "F_PERMISSION",
        ),
    ];
    for (place, word, stop, name) in rows {
        let outcome = at(place, word).outcome;
        assert_eq!(outcome, two(stop), "{word:#x}");
        assert_eq!(event(outcome), Some(name));
    }
    let wide = Memory::stage2().explain(None, 1 << 40).outcome;
    let out_of_range = stage(
        Stage::Two,
        1 << 40,
        Purpose::Input,
        Stop::OutOfRange { bits: 40 },
    );
    assert_eq!(wide, out_of_range);
    let wider = Memory::stage2().explain(None, 1 << 44).outcome;
    assert_eq!(wider, aborted(Reason::InputTooWide { bits: 44 }));
    // S2AFFD: the access flag does not matter.
    let ignored = Memory::stage2()
        .with(STE + 0x10, 0x046c_3558_0000_0007)
        .with(S2[2], 0x3000_03ff);
    assert_eq!(ignored.explain(None, IPA).outcome, reaches(PA));
}

#[test]
fn a_page_that_is_read_only_says_so() {
    let seen = Memory::stage2().with(S2[2], PA | 0x77f).explain(None, IPA);
    let read_only = Outcome::Reaches {
        pa: Pa::new(PA),
        can_read: true,
        can_write: false,
    };
    assert_eq!(seen.outcome, read_only);
    assert!(
        seen.to_string()
            .ends_with("a write is F_PERMISSION (§7.3.16)")
    );
}

#[test]
fn what_is_wrong_with_an_entry_is_named() {
    let at = |word| Memory::stage2().with(STE, word).explain(None, IPA).outcome;
    assert_eq!(at(0xc), aborted(Reason::EntryInvalid));
    assert_eq!(event(at(0xc)), Some("C_BAD_STE"));
    for silent in [0x1, 0x3, 0x5, 0x7] {
        assert_eq!(at(silent), aborted(Reason::EntryAborts));
        assert_eq!(event(at(silent)), None);
    }
    assert_eq!(at(0x9), Outcome::Bypasses);
    let at = |word| Memory::stage2().with(STE + 0x10, word).explain(None, IPA);
    for (word, what) in [
        (0x0444_3558_0000_0007, "S2AA64"),
        (0x044c_f558_0000_0007, "S2TG"),
        (0x044c_35d8_0000_0007, "S2SL0"),
        (0x044c_3500_0000_0007, "S2T0SZ"),
    ] {
        let said = at(word).to_string();
        assert!(said.contains("ILLEGAL") && said.contains(what), "{said}");
        assert_eq!(event(at(word).outcome), Some("C_BAD_STE"));
    }
    let far = Memory::stage2()
        .with(STE + 0x18, 1 << 44)
        .explain(None, IPA);
    assert!(far.to_string().contains("S2TTB"));
}

#[test]
fn a_stream_without_an_entry_is_named_with_what_has_none() {
    let memory = Memory::stage2();
    let large = memory.of(0x1_0000, None, IPA).outcome;
    assert_eq!(large, aborted(Reason::StreamTooLarge { log2_streams: 16 }));
    for word in [0, 0x1001_000c, 0x1001_000a, 0x1001_0001] {
        let at = Pa::new(0x1000_0008);
        let outcome = memory
            .clone()
            .with(0x1000_0008, word)
            .explain(None, IPA)
            .outcome;
        assert_eq!(outcome, aborted(Reason::NoEntry { at, word }), "{word:#x}");
        assert_eq!(event(outcome), Some("C_BAD_STREAMID"));
    }
}

#[test]
fn a_linear_table_is_indexed_by_the_whole_number() {
    let memory = Memory(
        [0xd, 0, 0x044c_3558_0000_0007, 0x2000_0000]
            .into_iter()
            .zip((0x1000_4400..).step_by(8))
            .map(|(word, at)| (at, word))
            .collect(),
    );
    let linear = Registers {
        table_config: 16,
        ..ON
    };
    let peek = |at: Pa| memory.0.get(&at.as_u64()).copied();
    let who = (StreamId::new(STREAM), None, Iova::new(IPA));
    let seen = explain(&peek, linear, &FEATURES, who);
    assert_eq!(seen.entry.map(|entry| entry.at), Some(Pa::new(0x1000_4400)));
}

#[test]
fn a_shut_gate_and_an_open_one_are_told_apart() {
    let off = |gate_aborts| {
        let registers = Registers {
            is_on: false,
            gate_aborts,
            ..ON
        };
        let who = (StreamId::new(STREAM), None, Iova::new(IPA));
        explain(&|_| None, registers, &FEATURES, who).outcome
    };
    assert_eq!(off(true), aborted(Reason::GateShut));
    assert_eq!(off(false), Outcome::Bypasses);
}

#[test]
fn what_cannot_be_read_is_named_and_nothing_is_guessed() {
    let two = Structure::Descriptor(Stage::Two);
    for (at, what) in [
        (0x1000_0008, Structure::L1Std),
        (STE + 0x18, Structure::Ste),
        (S2[0], two),
        (S2[2], two),
        (CD, Structure::Cd),
        (S1[1], Structure::Descriptor(Stage::One)),
    ] {
        let outcome = Memory::nested().without(at).explain(Some(5), VA).outcome;
        let at = Pa::new(at);
        assert_eq!(outcome, Outcome::Unreadable { what, at });
    }
}

#[test]
fn both_stages_are_put_together() {
    let seen = Memory::nested().explain(Some(5), VA + 0x234);
    assert_eq!(seen.outcome, reaches(PA + 0x234));
    assert_eq!(seen.intermediate, Some(IPA + 0x234));
    let context = ContextSeen {
        at: 0x5000_0140,
        word: 0x0033_0202_c000_0019,
        asid: Asid::new(0x33),
    };
    assert_eq!(seen.context, Some(context));
    let read_only = |memory: Memory| memory.explain(Some(5), VA).outcome;
    let expected = Outcome::Reaches {
        pa: Pa::new(PA),
        can_read: true,
        can_write: false,
    };
    let by_leaf = Memory::nested().with(S1[2], IPA | 0x4c3);
    let by_table = Memory::nested().with(S1[1], 0x4000_0000_5010_2003);
    let by_stage2 = Memory::nested().with(S2[2], PA | 0x77f);
    for memory in [by_leaf, by_table, by_stage2] {
        assert_eq!(read_only(memory), expected);
    }
}

#[test]
fn each_granule_and_each_half_of_stage_1_has_its_encoding() {
    // 36 bits: T0SZ or T1SZ 28, from level 2 on. 16 KiB pages of level 3 below entry 9.
    let large = Memory::nested()
        .with(0x4010_4048, 0x5010_8003)
        .with(0x4010_8690, 0x4_0000_0443)
        .with(0x2002_0000, 0x3100_07ff);
    // TG0 is 2 for 16 KiB, TG1 is 1.
    let low = large
        .clone()
        .with(CD, 0x0033_0202_c000_009c)
        .with(CD + 0x08, 0x5010_4000);
    let seen = low.explain(Some(5), 0x1234_8abc);
    assert_eq!(seen.intermediate, Some(0x4_0000_0abc));
    assert_eq!(seen.outcome, reaches(0x3100_0abc));
    let high = large
        .with(CD, 0x0033_0202_805c_4000)
        .with(CD + 0x10, 0x5010_4000);
    let seen = high.explain(Some(5), 0xffff_fff0_1234_8abc);
    assert_eq!(seen.outcome, reaches(0x3100_0abc));
    let beyond = high.explain(Some(5), 0xfff0_fff0_1234_8abc).outcome;
    assert_eq!(event(beyond), Some("F_TRANSLATION"));
    // 64 KiB pages: TG0 is 1.
    let largest = Memory::nested()
        .with(CD, 0x0033_0202_c000_005c)
        .with(CD + 0x08, 0x5010_4000)
        .with(0x4010_4028, 0x5011_0003)
        .with(0x4011_11a0, 0x4_0000_0443)
        .with(0x2002_0028, 0x3105_07ff);
    assert_eq!(
        largest.explain(Some(5), 0xa234_5678).outcome,
        reaches(0x3105_0678)
    );
}

#[test]
fn a_page_that_is_write_only_serves_devices_and_no_walk() {
    let seen = Memory::stage2().with(S2[2], PA | 0x7bf).explain(None, IPA);
    let write_only = Outcome::Reaches {
        pa: Pa::new(PA),
        can_read: false,
        can_write: true,
    };
    assert_eq!(seen.outcome, write_only);
    let seen = Memory::nested()
        .with(S2_BLOCK, 0x4000_07bd)
        .explain(Some(5), VA);
    assert_eq!(event(seen.outcome), Some("F_PERMISSION"));
    assert!(seen.to_string().contains("where a context descriptor lies"));
}

#[test]
fn two_levels_of_contexts_are_followed() {
    for (format, substream, l1, leaf) in [(1, 5, 0, 0x5000_0000), (2, 0x405, 8, 0x5000_0000)] {
        // 2^12 contexts; the first level at 0x5012_0000.
        let word = 12 << 59 | 0x5012_0000 | format << 4 | 0xf;
        let memory = Memory::nested()
            .with(STE, word)
            .with(0x4012_0000 + l1, leaf | 1);
        assert_eq!(memory.explain(Some(substream), VA).outcome, reaches(PA));
        let none = memory.with(0x4012_0000 + l1, leaf);
        let outcome = none.explain(Some(substream), VA).outcome;
        let at = 0x5012_0000 + l1;
        assert_eq!(outcome, aborted(Reason::NoContext { at, word: leaf }));
        assert_eq!(event(outcome), Some("C_BAD_SUBSTREAMID"));
    }
}

#[test]
fn what_stops_stage_1_is_named_with_its_descriptor() {
    let one = |stop| stage(Stage::One, VA, Purpose::Input, stop);
    let rows = [
        (
            S1[0],
            0,
            Stop::Invalid(found(1, 0x5010_0240, 0)),
            "F_TRANSLATION",
        ),
        (
            S1[2],
            IPA | 0x441,
            Stop::Invalid(found(3, 0x5010_2b38, IPA | 0x441)),
            "F_TRANSLATION",
        ),
        (
            S1[2],
            0x100_0000_0443,
            Stop::OutputSize(found(3, 0x5010_2b38, 0x100_0000_0443)),
            "F_ADDR_SIZE",
        ),
        (
            S1[2],
            IPA | 0x043,
            Stop::AccessFlag(found(3, 0x5010_2b38, IPA | 0x043)),
            "F_ACCESS",
        ),
        (
            S1[2],
            IPA | 0x403,
            Stop::Permission(found(3, 0x5010_2b38, IPA | 0x403)),
            "F_PERMISSION",
        ),
        (CD, 0x0033_0202_c000_4019, Stop::WalksOff, "F_TRANSLATION"),
    ];
    for (at, word, stop, name) in rows {
        let outcome = Memory::nested().with(at, word).explain(Some(5), VA).outcome;
        assert_eq!(outcome, one(stop), "{word:#x}");
        assert_eq!(event(outcome), Some(name));
    }
    let beyond = Memory::nested().explain(Some(5), 1 << 39).outcome;
    let stop = Stop::OutOfRange { bits: 39 };
    assert_eq!(beyond, stage(Stage::One, 1 << 39, Purpose::Input, stop));
    // TBI0: the top byte does not count.
    let tagged = Memory::nested().with(CD, 0x0033_0242_c000_0019);
    assert_eq!(
        tagged.explain(Some(5), 0xab << 56 | VA).outcome,
        reaches(PA)
    );
    let invalid = Memory::nested().with(CD, 0x0033_0202_4000_0019);
    assert_eq!(
        invalid.explain(Some(5), VA).outcome,
        aborted(Reason::ContextInvalid)
    );
    let lpae = Memory::nested()
        .with(CD, 0x0033_0002_c000_0019)
        .explain(Some(5), VA);
    assert_eq!(event(lpae.outcome), Some("C_BAD_CD"));
}

#[test]
fn stage_2_stops_contexts_and_tables_under_their_own_names() {
    // The block under which both lie becomes Device memory, unreadable, and nothing.
    for (word, stop) in [
        (0x4000_07c1, Stop::DeviceMemory as fn(Found) -> Stop),
        (0x4000_073d, Stop::Permission),
        (0x4000_07fc, Stop::Invalid),
    ] {
        let memory = Memory::nested().with(S2_BLOCK, word);
        let expected = stage(
            Stage::Two,
            0x5000_0140,
            Purpose::Context,
            stop(found(2, S2_BLOCK, word)),
        );
        assert_eq!(memory.explain(Some(5), VA).outcome, expected);
    }
    let elsewhere = Memory::nested().with(CD + 8, 0x6010_0000);
    let at = 0x6010_0240;
    let stop = Stop::Invalid(found(2, 0x2003_0800, 0));
    let memory = elsewhere.with(0x2003_0800, 0);
    let outcome = memory.explain(Some(5), VA).outcome;
    assert_eq!(outcome, stage(Stage::Two, at, Purpose::Table, stop));
}

#[test]
fn substreams_are_decided_as_the_table_says() {
    let with = |default: u64, substream| {
        let memory = Memory::nested().with(STE + 8, 0x0000_1000_0008_0000 | default);
        memory.explain(substream, VA).outcome
    };
    assert_eq!(with(0, None), aborted(Reason::SubstreamMissing));
    assert_eq!(with(3, None), aborted(Reason::SubstreamMissing));
    let bypassed = Memory::nested().with(STE + 8, 0x0000_1000_0008_0001);
    assert_eq!(bypassed.explain(None, IPA).outcome, reaches(PA));
    assert_eq!(with(2, Some(0)), aborted(Reason::SubstreamZero));
    let cd_0 = Structure::Cd;
    let at = Pa::new(0x4000_0000);
    assert_eq!(with(2, None), Outcome::Unreadable { what: cd_0, at });
    assert_eq!(
        with(0, Some(16)),
        aborted(Reason::SubstreamTooLarge { log2_contexts: 4 })
    );
    let stage2_alone = Memory::stage2().explain(Some(1), IPA).outcome;
    assert_eq!(stage2_alone, aborted(Reason::NoSubstreams));
    let single = Memory::nested().with(STE, 0x5000_0140 | 0xf);
    assert_eq!(single.explain(None, VA).outcome, reaches(PA));
    assert_eq!(
        single.explain(Some(0), VA).outcome,
        aborted(Reason::NoSubstreams)
    );
}

fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Says how a walk through memory that answers `word` ended, after a bounded number of reads.
fn walk(
    word: &dyn Fn(u64) -> Option<u64>,
    registers: Registers,
    features: &Features,
    (stream, substream, address): (u32, u32, u64),
) -> usize {
    let reads = Cell::new(0);
    let peek = |at: Pa| {
        reads.set(reads.get() + 1);
        word(at.as_u64())
    };
    let who = (
        StreamId::new(stream),
        SubstreamId::new(substream),
        Iova::new(address),
    );
    let seen = explain(&peek, registers, features, who);
    // 5 for the entry, 4 x 5 for an L1CD and a CD of three words, 4 x 5 for stage 1, 4 more.
    assert!(reads.get() <= 49, "{}: {seen}", reads.get());
    assert!(seen.to_string().len() > 40);
    match seen.outcome {
        Outcome::Reaches { .. } => 0,
        Outcome::Bypasses => 1,
        Outcome::Aborts(_) => 2,
        Outcome::Unreadable { .. } => 3,
    }
}

#[test]
fn any_memory_is_explained_in_a_bounded_number_of_reads() {
    let mut ends = [0; 4];
    for seed in 0..30_000_u64 {
        let draw = |what: u64| mix(seed << 32 ^ what);
        let registers = Registers {
            table: draw(1) & 0xff_ffff_ffff,
            table_config: draw(2) as u32,
            ..ON
        };
        let features = Features {
            output_bits: [32, 36, 40, 42, 44, 48, 52, 56][(draw(3) & 7) as usize],
            substream_bits: (draw(4) % 21) as u8,
            ..FEATURES
        };
        // At times nothing can be read; often what can leads on.
        let word = |at: u64| match draw(at) {
            word if word >> 61 == 0 => None,
            word if word >> 61 < 4 => Some(word),
            word => Some(word & 0xff_ffff_f000 | 0x7ff ^ (word & 0xc0)),
        };
        let address = draw(6) >> (draw(7) & 63);
        let who = (draw(8) as u32, draw(5) as u32 & 0x1f_ffff, address);
        ends[walk(&word, registers, &features, who)] += 1;
    }
    assert!(ends[1] > 100 && ends[2] > 100 && ends[3] > 100, "{ends:?}");
}

#[test]
fn good_tables_with_bits_flipped_are_explained_to_an_end() {
    let mut ends = [0; 4];
    let memory = Memory::nested();
    for seed in 0..30_000_u64 {
        let draw = |what: u64| mix(seed << 32 ^ what);
        let word = |at: u64| {
            let word = memory.0.get(&at).copied().unwrap_or(draw(at));
            match draw(!at) {
                drawn if drawn >> 60 == 0 => Some(word ^ 1 << (drawn & 63)),
                _ => Some(word),
            }
        };
        ends[walk(&word, ON, &FEATURES, (STREAM, 5, VA))] += 1;
    }
    assert!(ends[0] > 1000 && ends[2] > 1000, "{ends:?}");
}
