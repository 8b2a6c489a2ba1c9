//! Which context descriptor a transaction uses (§3.3.2, §5.2 S1DSS, S1CDMax, S1Fmt, §5.3).

use smmu_model::{Faults, Fetch, Identity, Outcome, Transaction};

use crate::kit::{ASID, Rig, SID_BITS, V, VA, read, with};

const SSV: u64 = 1 << 11;
/// F_STREAM_DISABLED.
const DISABLED: [u64; 4] = [0x06 | SID_BITS, 0, 0, 0];

/// C_BAD_SUBSTREAMID, whose SubstreamID is always valid and has no SSV.
const fn bad_substream(substream: u64) -> [u64; 4] {
    [0x08 | substream << 12 | SID_BITS, 0, 0, 0]
}

/// A stage-1 entry with this S1CDMax and S1DSS.
fn entry(rig: &Rig, max: u64, default: u64) -> [u64; 8] {
    with(with(rig.stage1(), 0, 63, 59, max), 1, 1, 0, default)
}

/// `transaction` reads the page's mark.
#[track_caller]
fn reads(rig: &mut Rig, transaction: Transaction, mark: u64) {
    let outcome = rig.transact(transaction);
    let Outcome::Done { data, .. } = outcome else {
        panic!("{outcome:?}, {:x?}", rig.bench.next_raw_event());
    };
    assert_eq!(data, mark.to_le_bytes());
}

/// A descriptor of another space, with an ASID of its own.
fn other_cd(rig: &mut Rig, mark: u64) -> [u64; 8] {
    let (root, _) = rig.another_space(mark);
    with(with(rig.cd(), 1, 63, 0, root), 0, 63, 48, ASID + mark)
}

#[test]
fn bypass_takes_no_substream() {
    let mut rig = Rig::full();
    rig.install(&rig.bypass());
    rig.aborts(read(rig.page).with_substream(0), bad_substream(0));
}

#[test]
fn stage_2_alone_takes_no_substream() {
    let mut rig = Rig::full();
    rig.install(&rig.stage2());
    rig.aborts(read(VA).with_substream(7), bad_substream(7));
}

#[test]
fn one_descriptor_takes_no_substream() {
    let mut rig = Rig::full();
    rig.install(&rig.stage1());
    rig.aborts(read(VA).with_substream(0), bad_substream(0));
}

#[test]
fn an_smmu_without_substreams_takes_none() {
    let mut rig = Rig::new(Identity {
        ssid_bits: 0,
        ..Identity::full()
    });
    rig.install(&entry(&rig, 2, 2));
    rig.aborts(read(VA).with_substream(1), bad_substream(1));
    rig.reaches(VA);
}

#[test]
fn a_substream_selects_its_descriptor() {
    let mut rig = Rig::full();
    let cd = other_cd(&mut rig, 0x77);
    rig.put_cd(3, &cd);
    rig.install(&entry(&rig, 2, 0));
    reads(&mut rig, read(VA).with_substream(3), 0x77);
    rig.lands(read(VA).with_substream(0));
}

#[test]
fn the_last_substream_is_in_and_the_next_is_out() {
    let mut rig = Rig::full();
    rig.put_cd(3, &rig.cd());
    rig.put_cd(4, &rig.cd());
    rig.install(&entry(&rig, 2, 0));
    rig.lands(read(VA).with_substream(3));
    rig.aborts(read(VA).with_substream(4), bad_substream(4));
    rig.aborts(read(VA).with_substream(0xf_ffff), bad_substream(0xf_ffff));
}

#[test]
fn without_substream_one_descriptor_serves_whatever_s1dss_says() {
    for default in 0..4 {
        let mut rig = Rig::full();
        rig.install(&entry(&rig, 0, default));
        rig.reaches(VA);
    }
}

#[test]
fn s1dss_0_disables_traffic_without_substream() {
    let mut rig = Rig::full();
    rig.install(&entry(&rig, 2, 0));
    rig.aborts(read(VA), DISABLED);
    rig.lands(read(VA).with_substream(0));
}

#[test]
fn s1dss_3_acts_as_0() {
    let mut rig = Rig::full();
    rig.install(&entry(&rig, 2, 3));
    rig.aborts(read(VA), DISABLED);
    rig.lands(read(VA).with_substream(0));
}

#[test]
fn s1dss_1_bypasses_stage_1_without_a_context_descriptor() {
    let mut rig = Rig::full();
    rig.put_cd(0, &[0; 8]);
    rig.install(&entry(&rig, 2, 1));
    let page = rig.page;
    rig.reaches(page);
}

#[test]
fn s1dss_1_leaves_substream_0_usable() {
    let mut rig = Rig::full();
    rig.install(&entry(&rig, 2, 1));
    rig.lands(read(VA).with_substream(0));
}

#[test]
fn s1dss_1_leaves_stage_2_on() {
    let mut rig = Rig::full();
    rig.put_cd(0, &[0; 8]);
    let entry = with(with(rig.nested(), 0, 63, 59, 2), 1, 1, 0, 1);
    rig.install(&entry);
    rig.reaches(VA);
}

#[test]
fn s1dss_2_gives_traffic_without_substream_the_first_descriptor() {
    let mut rig = Rig::full();
    rig.install(&entry(&rig, 2, 2));
    rig.reaches(VA);
}

#[test]
fn s1dss_2_disables_substream_0() {
    let mut rig = Rig::full();
    rig.put_cd(1, &rig.cd());
    rig.install(&entry(&rig, 2, 2));
    rig.aborts(read(VA).with_substream(0), DISABLED);
    rig.lands(read(VA).with_substream(1));
}

#[test]
fn a_substream_out_of_range_is_worse_than_a_disabled_one() {
    let mut rig = Rig::full();
    rig.install(&entry(&rig, 1, 2));
    rig.aborts(read(VA).with_substream(2), bad_substream(2));
}

#[test]
fn a_linear_table_has_64_bytes_for_each_substream() {
    let mut rig = Rig::full();
    let cd = other_cd(&mut rig, 0x63);
    rig.put_cd(63, &cd);
    rig.install(&entry(&rig, 6, 0));
    reads(&mut rig, read(VA).with_substream(63), 0x63);
}

#[test]
fn a_table_with_4k_leaves_is_split_at_bit_6() {
    let mut rig = Rig::full();
    let cd = other_cd(&mut rig, 0x41);
    let (level1, leaf) = (rig.bench.frames(12), rig.bench.frames(12));
    rig.bench.store(level1 + 8, leaf | V);
    rig.bench.store_words(leaf + 64, &cd);
    rig.bench.publish();
    let entry = with(entry(&rig, 10, 0), 0, 55, 6, level1 >> 6);
    rig.install(&with(entry, 0, 5, 4, 1));
    reads(&mut rig, read(VA).with_substream(65), 0x41);
}

#[test]
fn a_table_with_64k_leaves_is_split_at_bit_10() {
    let mut rig = Rig::full();
    let cd = other_cd(&mut rig, 0x43);
    let (level1, leaf) = (rig.bench.frames(12), rig.bench.frames(16));
    rig.bench.store(level1 + 8, leaf | V);
    rig.bench.store_words(leaf + 1023 * 64, &cd);
    rig.bench.publish();
    let entry = with(entry(&rig, 12, 0), 0, 55, 6, level1 >> 6);
    rig.install(&with(entry, 0, 5, 4, 2));
    reads(&mut rig, read(VA).with_substream(2047), 0x43);
}

#[test]
fn a_short_two_level_table_uses_its_first_pointer_only() {
    let mut rig = Rig::full();
    let cd = other_cd(&mut rig, 0x13);
    let (level1, leaf) = (rig.bench.frames(12), rig.bench.frames(12));
    rig.bench.store(level1, leaf | V);
    rig.bench.store_words(leaf + 13 * 64, &cd);
    rig.bench.publish();
    let entry = with(entry(&rig, 4, 0), 0, 55, 6, level1 >> 6);
    rig.install(&with(entry, 0, 5, 4, 1));
    reads(&mut rig, read(VA).with_substream(13), 0x13);
    rig.aborts(read(VA).with_substream(16), bad_substream(16));
}

/// An entry with a two-level table whose first pointer is `pointer`.
fn with_pointer(rig: &mut Rig, default: u64, pointer: u64) -> u64 {
    let level1 = rig.bench.frames(12);
    rig.bench.store(level1, pointer);
    rig.bench.publish();
    let entry = with(entry(rig, 10, default), 0, 55, 6, level1 >> 6);
    rig.install(&with(entry, 0, 5, 4, 1));
    level1
}

#[test]
fn an_invalid_leaf_pointer_is_a_bad_substream() {
    let mut rig = Rig::full();
    let leaf = rig.bench.frames(12);
    with_pointer(&mut rig, 0, leaf);
    rig.aborts(read(VA).with_substream(5), bad_substream(5));
}

#[test]
fn an_invalid_leaf_pointer_reached_by_s1dss_2_tells_substream_0() {
    let mut rig = Rig::full();
    with_pointer(&mut rig, 2, 0);
    rig.aborts(read(VA), bad_substream(0));
}

#[test]
fn a_leaf_pointer_beyond_the_output_size_is_a_bad_substream() {
    let mut rig = Rig::new(Identity {
        oas_bits: 40,
        ..Identity::full()
    });
    with_pointer(&mut rig, 0, 1 << 40 | V);
    rig.aborts(read(VA).with_substream(5), bad_substream(5));
}

#[test]
fn a_descriptor_outside_memory_is_f_cd_fetch_at_its_address() {
    let mut rig = Rig::full();
    rig.install(&with(entry(&rig, 2, 0), 0, 55, 6, 0x10_0000_0000 >> 6));
    assert_eq!(rig.transact(read(VA).with_substream(3)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x09 | SSV | 3 << 12 | SID_BITS);
    assert_eq!(record[2], 0);
    assert_eq!(record[3] & !0x3f, 0x10_0000_00c0);
}

#[test]
fn a_leaf_pointer_that_cannot_be_read_is_f_cd_fetch_at_its_address() {
    let mut rig = Rig::full();
    let leaf = rig.bench.frames(12);
    let level1 = with_pointer(&mut rig, 0, leaf | V);
    rig.bench.machine.smmu(0).set_faults(Faults {
        abort_at: Some(level1),
        ..Faults::default()
    });
    assert_eq!(rig.transact(read(VA).with_substream(3)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x09 | SSV | 3 << 12 | SID_BITS);
    assert_eq!(record[3], level1);
}

#[test]
fn a_failed_fetch_of_a_descriptor_is_not_remembered() {
    let mut rig = Rig::full();
    rig.install(&rig.stage1());
    rig.bench.machine.smmu(0).set_faults(Faults {
        aborts: vec![Fetch::Context],
        ..Faults::default()
    });
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    assert_eq!(
        rig.bench.next_raw_event().map(|record| record[0]),
        Some(0x09 | SID_BITS)
    );
    rig.bench.machine.smmu(0).set_faults(Faults::default());
    rig.reaches(VA);
}

#[test]
fn s1dss_1_beyond_the_intermediate_size_is_an_address_size_fault() {
    for nested in [false, true] {
        let mut rig = Rig::full();
        let base = if nested { rig.nested() } else { rig.stage1() };
        rig.install(&with(with(base, 0, 63, 59, 2), 1, 1, 0, 1));
        let address = 1 << 48 | VA;
        assert_eq!(rig.transact(read(address)), Outcome::Aborted);
        let record = rig.bench.next_raw_event().expect("a record");
        assert_eq!(record[0], 0x11 | SID_BITS);
        assert_eq!(record[1], 1 << 35 | 2 << 40);
        assert_eq!(record[2], address | 0x10);
    }
}
