//! What configuration invalidations remove, and what they leave (§4.3, §3.21.3).

use smmu_model::Outcome;
use smmu_model::bench::SYNC;

use crate::invalidation::{ASID_1, OURS};
use crate::kit::{Rig, SID, SID_BITS, V, VA, entry_address, read, with};

/// A warmed bypass stream whose entry has been cleared in memory; it is still kept.
fn cleared_entry() -> Rig {
    let mut rig = Rig::full();
    rig.install(&rig.bypass());
    rig.bench.publish_ste(4, &rig.bypass());
    let page = rig.page;
    rig.reaches(page);
    rig.bench.store(entry_address(SID), 0);
    rig.bench.publish();
    rig.reaches(page);
    rig
}

macro_rules! entry_after {
    ($($name:ident: $command:expr, $is_removed:literal;)+) => {$(
        #[test]
        fn $name() {
            let mut rig = cleared_entry();
            rig.bench.commands(&[$command, SYNC]);
            let outcome = rig.transact(read(rig.page));
            assert_eq!(outcome == Outcome::Aborted, $is_removed);
        }
    )+};
}

entry_after! {
    cfgi_ste_removes_its_entry: [0x03 | SID_BITS, 1], true;
    cfgi_ste_without_leaf_removes_its_entry: [0x03 | SID_BITS, 0], true;
    cfgi_ste_keeps_another_entry: [0x03 | 4 << 32, 1], false;
    cfgi_ste_range_of_2_removes_its_pair: [0x04 | 4 << 32, 0], true;
    cfgi_ste_range_of_2_keeps_the_next_pair: [0x04 | 6 << 32, 0], false;
    cfgi_ste_range_ignores_the_low_bits_of_its_stream: [0x04 | 7 << 32, 2], true;
    cfgi_ste_range_of_4_removes_its_block: [0x04 | 6 << 32, 1], true;
    cfgi_ste_range_of_8_keeps_the_next_block: [0x04 | 8 << 32, 2], false;
    cfgi_ste_range_of_16_removes_all_of_it: [0x04 | 8 << 32, 3], true;
    cfgi_all_removes_every_entry: [0x04, 31], true;
    cfgi_all_ignores_its_stream: [0x04 | 0xffff << 32, 31], true;
    cfgi_cd_keeps_entries: [0x05 | SID_BITS, 0], false;
    cfgi_cd_all_keeps_entries: [0x06 | SID_BITS, 0], false;
    tlbi_keeps_entries: [0x30, 0], false;
}

/// Substreams 0 to 3 of stream 5, and of stream 6 through the same table; the descriptor of
/// substream 1 has been cleared in memory, and TLB entries are out of the way.
fn cleared_descriptor() -> Rig {
    let mut rig = Rig::full();
    for index in 1..4 {
        rig.put_cd(index, &rig.cd());
    }
    let entry = with(rig.stage1(), 0, 63, 59, 2);
    rig.install(&entry);
    rig.bench.publish_ste(6, &entry);
    for substream in 0..4 {
        rig.lands(read(VA).with_substream(substream));
    }
    rig.bench.store(rig.cds + 64, 0);
    rig.bench.publish();
    rig.lands(read(VA).with_substream(1));
    rig
}

macro_rules! descriptor_after {
    ($($name:ident: $command:expr, $is_removed:literal;)+) => {$(
        #[test]
        fn $name() {
            let mut rig = cleared_descriptor();
            rig.bench.commands(&[$command, SYNC]);
            let outcome = rig.transact(read(VA).with_substream(1));
            assert_eq!(outcome == Outcome::Aborted, $is_removed);
        }
    )+};
}

descriptor_after! {
    cfgi_cd_removes_its_descriptor: [0x05 | SID_BITS | 1 << 12, 1], true;
    cfgi_cd_keeps_another_descriptor: [0x05 | SID_BITS | 2 << 12, 1], false;
    cfgi_cd_of_substream_0_keeps_the_others: [0x05 | SID_BITS, 0], false;
    cfgi_cd_keeps_another_streams_copy: [0x05 | 6 << 32 | 1 << 12, 1], false;
    cfgi_cd_all_removes_all_descriptors: [0x06 | SID_BITS, 0], true;
    cfgi_cd_all_keeps_another_streams_copies: [0x06 | 6 << 32, 0], false;
    cfgi_ste_removes_the_descriptors_behind_it: [0x03 | SID_BITS, 1], true;
    cfgi_ste_keeps_another_streams_descriptors: [0x03 | 6 << 32, 1], false;
    cfgi_ste_range_removes_the_descriptors_behind_it: [0x04 | 4 << 32, 0], true;
    cfgi_all_removes_every_descriptor: [0x04, 31], true;
    tlbi_nsnh_all_keeps_descriptors: [0x30, 0], false;
    tlbi_nh_asid_keeps_descriptors: [0x11 | OURS | ASID_1, 0], false;
}

#[test]
fn cfgi_cd_of_substream_0_removes_the_single_descriptor() {
    let mut rig = Rig::full();
    rig.install(&rig.stage1());
    rig.reaches(VA);
    rig.bench.store(rig.cds, 0);
    rig.bench.publish();
    rig.reaches(VA);
    rig.bench.commands(&[[0x05 | SID_BITS, 1], SYNC]);
    rig.aborts(read(VA), [0x0a | SID_BITS, 0, 0, 0]);
}

#[test]
fn an_invalid_entry_is_kept_too() {
    let mut rig = Rig::full();
    let bad = [0x04 | SID_BITS, 0, 0, 0];
    rig.aborts(read(VA), bad);
    rig.bench.store_words(entry_address(SID), &rig.bypass());
    rig.bench.publish();
    rig.aborts(read(rig.page), bad);
    rig.bench.commands(&[[0x03 | SID_BITS, 1], SYNC]);
    let page = rig.page;
    rig.reaches(page);
}

#[test]
fn an_invalid_descriptor_is_kept_too() {
    let mut rig = Rig::full();
    rig.put_cd(0, &[0; 8]);
    rig.install(&rig.stage1());
    let bad = [0x0a | SID_BITS, 0, 0, 0];
    rig.aborts(read(VA), bad);
    rig.put_cd(0, &rig.cd());
    rig.aborts(read(VA), bad);
    rig.bench.commands(&[[0x05 | SID_BITS, 1], SYNC]);
    rig.reaches(VA);
}

/// A bench with a two-level stream table; gives the level-1 descriptor and a second array, whose
/// entries bypass while those of the first abort.
fn two_level_streams() -> (Rig, u64, u64) {
    let mut rig = Rig::full();
    let [level1, first, second] = [(); 3].map(|()| rig.bench.frames(12));
    let abort = with(rig.bypass(), 0, 3, 1, 0);
    for slot in 0..64 {
        rig.bench.store_words(first + slot * 64, &abort);
        rig.bench.store_words(second + slot * 64, &rig.bypass());
    }
    rig.bench.store(level1, first | 7);
    rig.bench.publish();
    crate::kit::restart_with_table(&mut rig.bench, level1, 1 << 16 | 6 << 6 | 8);
    rig.aborts_silently(read(rig.page));
    rig.bench.store(level1, second | 7);
    rig.bench.publish();
    (rig, level1, second)
}

#[test]
fn cfgi_ste_with_leaf_keeps_the_level_1_descriptor() {
    let (mut rig, _, _) = two_level_streams();
    rig.bench.commands(&[[0x03 | SID_BITS, 1], SYNC]);
    rig.aborts_silently(read(rig.page));
}

#[test]
fn cfgi_ste_without_leaf_removes_the_level_1_descriptor() {
    let (mut rig, _, _) = two_level_streams();
    rig.bench.commands(&[[0x03 | SID_BITS, 0], SYNC]);
    let page = rig.page;
    rig.reaches(page);
}

#[test]
fn cfgi_ste_range_removes_the_level_1_descriptor() {
    let (mut rig, _, _) = two_level_streams();
    rig.bench.commands(&[[0x04 | SID_BITS, 0], SYNC]);
    let page = rig.page;
    rig.reaches(page);
}

/// A rig with a two-level context table whose pointer has been moved from a leaf of bad descriptors
/// to one of good ones.
fn two_level_contexts() -> Rig {
    let mut rig = Rig::full();
    let [level1, first, second] = [(); 3].map(|()| rig.bench.frames(12));
    rig.bench.store(level1, first | V);
    rig.bench.store_words(second + 3 * 64, &rig.cd());
    let entry = with(rig.stage1(), 0, 63, 59, 8);
    let entry = with(with(entry, 0, 55, 6, level1 >> 6), 0, 5, 4, 1);
    rig.install(&entry);
    assert_eq!(rig.transact(read(VA).with_substream(3)), Outcome::Aborted);
    rig.bench.next_raw_event();
    rig.bench.store(level1, second | V);
    rig.bench.publish();
    rig
}

#[test]
fn cfgi_cd_with_leaf_keeps_the_level_1_pointer() {
    let mut rig = two_level_contexts();
    rig.bench.commands(&[[0x05 | SID_BITS | 3 << 12, 1], SYNC]);
    assert_eq!(rig.transact(read(VA).with_substream(3)), Outcome::Aborted);
}

#[test]
fn cfgi_cd_without_leaf_removes_the_level_1_pointer() {
    let mut rig = two_level_contexts();
    rig.bench.commands(&[[0x05 | SID_BITS | 3 << 12, 0], SYNC]);
    rig.lands(read(VA).with_substream(3));
}

#[test]
fn cfgi_cd_all_removes_the_level_1_pointers() {
    let mut rig = two_level_contexts();
    rig.bench.commands(&[[0x06 | SID_BITS, 0], SYNC]);
    rig.lands(read(VA).with_substream(3));
}

#[test]
fn cfgi_ste_removes_the_level_1_pointers_of_its_contexts() {
    let mut rig = two_level_contexts();
    rig.bench.commands(&[[0x03 | SID_BITS, 1], SYNC]);
    rig.lands(read(VA).with_substream(3));
}
