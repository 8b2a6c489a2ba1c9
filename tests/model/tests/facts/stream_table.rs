//! Finding a stream table entry (§3.3.1, §5.1, §6.3.24, §6.3.25): the tables and their bounds.

use smmu_model::bench::{Bench, STREAMS, SYNC};
use smmu_model::{Identity, Mode, Outcome, Rule, Transaction, offset};

use crate::kit::{Rig, SID, SID_BITS, V, VA, read, restart_with_table, with};

/// FMT = two-level, SPLIT, LOG2SIZE.
const fn two_level(split: u32, log2_size: u32) -> u32 {
    1 << 16 | split << 6 | log2_size
}

const fn bad_stream(stream: u32) -> [u64; 4] {
    [0x02 | (stream as u64) << 32, 0, 0, 0]
}

/// A bypass entry: V, Config = 4, SHCFG = use incoming.
const BYPASS: [u64; 8] = [V | 4 << 1, 1 << 44, 0, 0, 0, 0, 0, 0];

fn from(stream: u32, rig: &Rig) -> Transaction {
    Transaction {
        stream,
        ..read(rig.page)
    }
}

/// A rig whose two-level table has bypass entries for the streams of the first span.
fn with_spans(split: u32, log2_size: u32, span: u64) -> (Rig, u64, u64) {
    let mut rig = Rig::full();
    let level1 = rig.bench.frames(12);
    let array = rig.bench.frames(16);
    let slots = 1 << (span - 1);
    for slot in 0..slots {
        rig.bench.store_words(array + slot * 64, &BYPASS);
    }
    rig.bench.store(level1, array | span);
    rig.bench.publish();
    restart_with_table(&mut rig.bench, level1, two_level(split, log2_size));
    (rig, level1, array)
}

#[test]
fn a_linear_table_has_64_bytes_for_each_stream() {
    let mut rig = Rig::full();
    rig.bench.store_words(STREAMS + 63 * 64, &BYPASS);
    rig.bench.publish();
    rig.bench.commands(&[[0x04, 31], SYNC]);
    let transaction = from(63, &rig);
    rig.lands(transaction);
}

#[test]
fn a_stream_beyond_the_table_is_bad() {
    let mut rig = Rig::full();
    rig.aborts(from(64, &rig), bad_stream(64));
}

#[test]
fn a_bad_stream_is_recorded_with_its_substream() {
    let mut rig = Rig::full();
    let transaction = from(64, &rig).with_substream(0xabcde);
    rig.aborts(transaction, [0x0000_0040_abcd_e802, 0, 0, 0]);
}

#[test]
fn a_bad_stream_is_not_recorded_without_recinvsid() {
    let mut rig = Rig::full();
    rig.bench.cr0(0xc);
    rig.bench.write(offset::CR2, 0);
    rig.bench.cr0(0xd);
    rig.aborts_silently(from(64, &rig));
}

#[test]
fn the_size_of_the_table_is_capped_to_the_streams_that_exist() {
    let mut rig = Rig::new(Identity {
        sid_bits: 4,
        ..Identity::full()
    });
    rig.aborts(from(16, &rig), bad_stream(16));
}

#[test]
fn a_table_of_one_entry_serves_stream_0_only() {
    let mut rig = Rig::full();
    rig.bench.store_words(STREAMS, &BYPASS);
    rig.bench.publish();
    restart_with_table(&mut rig.bench, STREAMS, 0);
    let transaction = from(0, &rig);
    rig.lands(transaction);
    rig.aborts(from(1, &rig), bad_stream(1));
}

#[test]
fn the_low_bits_of_a_linear_tables_base_are_ignored_up_to_its_size() {
    let mut rig = Rig::full();
    let entry = rig.bypass();
    rig.install(&entry);
    // 64 entries of 64 bytes: aligned to 4 KiB.
    restart_with_table(&mut rig.bench, STREAMS + 0xfc0, 6);
    let page = rig.page;
    rig.reaches(page);
    assert_eq!(rig.bench.machine.record().count(Rule::TableMisaligned), 1);
}

#[test]
fn a_reserved_table_format_acts_as_linear() {
    for format in [2, 3] {
        let mut rig = Rig::full();
        let entry = rig.bypass();
        rig.install(&entry);
        restart_with_table(&mut rig.bench, STREAMS, format << 16 | 6);
        let page = rig.page;
        rig.reaches(page);
    }
}

#[test]
fn a_two_level_table_is_split_where_split_says() {
    for split in [6, 8, 10] {
        let (mut rig, level1, array) = with_spans(split, split + 2, u64::from(split) + 1);
        let last = (1 << split) - 1;
        let transaction = from(last, &rig);
        rig.lands(transaction);
        // The next stream is found through the next descriptor.
        rig.bench.store(level1 + 8, array | 1);
        rig.bench.publish();
        rig.bench.commands(&[[0x03 | (1 << split) << 32, 0], SYNC]);
        let transaction = from(1 << split, &rig);
        rig.lands(transaction);
    }
}

#[test]
fn a_reserved_split_acts_as_6() {
    let (mut rig, level1, array) = with_spans(7, 8, 7);
    let transaction = from(63, &rig);
    rig.lands(transaction);
    rig.bench.store(level1 + 8, array | 1);
    rig.bench.publish();
    rig.bench.commands(&[[0x03 | 64 << 32, 0], SYNC]);
    let transaction = from(64, &rig);
    rig.lands(transaction);
}

#[test]
fn a_stream_beyond_a_two_level_table_is_bad() {
    let (mut rig, _, _) = with_spans(6, 8, 7);
    rig.aborts(from(256, &rig), bad_stream(256));
}

#[test]
fn a_span_of_0_has_no_streams() {
    let (mut rig, level1, array) = with_spans(6, 8, 7);
    rig.bench.store(level1 + 8, array);
    rig.bench.publish();
    rig.bench.commands(&[[0x03 | 64 << 32, 0], SYNC]);
    rig.aborts(from(64, &rig), bad_stream(64));
}

#[test]
fn a_span_of_n_has_two_to_the_n_minus_1_streams() {
    let (mut rig, _, _) = with_spans(6, 8, 3);
    for stream in 0..4 {
        let transaction = from(stream, &rig);
        rig.lands(transaction);
    }
    rig.aborts(from(4, &rig), bad_stream(4));
}

#[test]
fn a_span_of_1_has_one_stream() {
    let (mut rig, _, _) = with_spans(6, 8, 1);
    let transaction = from(0, &rig);
    rig.lands(transaction);
    rig.aborts(from(1, &rig), bad_stream(1));
}

#[test]
fn a_span_wider_than_the_split_is_bad() {
    let (mut rig, level1, array) = with_spans(6, 8, 7);
    rig.bench.store(level1, array | 8);
    rig.bench.publish();
    rig.bench.commands(&[[0x03, 0], SYNC]);
    rig.aborts(from(0, &rig), bad_stream(0));
}

#[test]
fn a_reserved_span_is_bad() {
    for span in [12, 31] {
        let (mut rig, level1, array) = with_spans(10, 12, 11);
        rig.bench.store(level1, array | span);
        rig.bench.publish();
        rig.bench.commands(&[[0x03, 0], SYNC]);
        rig.aborts(from(0, &rig), bad_stream(0));
    }
}

#[test]
fn the_low_bits_of_an_array_pointer_are_ignored_up_to_its_size() {
    let (mut rig, level1, array) = with_spans(6, 8, 7);
    rig.bench.store(level1, array | 0xfc0 | 7);
    rig.bench.publish();
    rig.bench.commands(&[[0x03, 0], SYNC]);
    let transaction = from(0, &rig);
    rig.lands(transaction);
}

#[test]
fn two_levels_need_st_level() {
    // Without two-level tables FMT acts as linear: the entry lies in the first table itself.
    let mut rig = Rig::new(Identity {
        st_level2: false,
        sid_bits: 6,
        ..Identity::full()
    });
    let entry = rig.bypass();
    rig.install(&entry);
    restart_with_table(&mut rig.bench, STREAMS, two_level(6, 6));
    let page = rig.page;
    rig.reaches(page);
}

#[test]
fn an_entry_outside_memory_is_a_fetch_fault_at_its_address() {
    let mut rig = Rig::full();
    restart_with_table(&mut rig.bench, 0x10_0000_0000, 6);
    let at = 0x10_0000_0000 + u64::from(SID) * 64;
    let outcome = rig.transact(read(VA));
    assert_eq!(outcome, Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x03 | SID_BITS);
    assert_eq!(record[3] & !0x3f, at);
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn an_array_outside_memory_is_a_fetch_fault_at_the_entrys_address() {
    let (mut rig, level1, _) = with_spans(6, 8, 7);
    rig.bench.store(level1, 0x10_0000_0000 | 7);
    rig.bench.publish();
    rig.bench.commands(&[[0x03, 0], SYNC]);
    let outcome = rig.transact(from(2, &rig));
    assert_eq!(outcome, Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x2_0000_0003);
    assert_eq!(record[3] & !0x3f, 0x10_0000_0080);
}

#[test]
fn a_failed_fetch_is_not_remembered() {
    let mut rig = Rig::full();
    let entry = rig.bypass();
    rig.install(&entry);
    rig.bench.commands(&[[0x04, 31], SYNC]);
    let faults = smmu_model::Faults {
        aborts: vec![smmu_model::Fetch::Stream],
        ..Default::default()
    };
    rig.bench.machine.smmu(0).set_faults(faults);
    assert_eq!(rig.transact(read(rig.page)), Outcome::Aborted);
    assert!(rig.bench.next_raw_event().is_some());
    rig.bench.machine.smmu(0).set_faults(Default::default());
    let page = rig.page;
    rig.reaches(page);
}

#[test]
fn a_disabled_stream_aborts_before_its_substream_is_looked_at() {
    let mut rig = Rig::full();
    let entry = with(rig.bypass(), 0, 3, 1, 0);
    rig.install(&entry);
    rig.aborts_silently(read(rig.page).with_substream(3));
}

#[test]
fn the_stream_table_is_not_read_while_the_smmu_is_off() {
    let mut bench = Bench::off(Identity::full(), Mode::Polite);
    let page = bench.frames(12);
    // A table outside memory: any fetch would fail.
    bench.write64(offset::STRTAB_BASE, 0x10_0000_0000);
    bench.write(offset::STRTAB_BASE_CFG, 6);
    let outcome = bench.machine.smmu(0).transact(read(page));
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}
