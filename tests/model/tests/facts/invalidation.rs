//! What each TLB invalidation removes, and what it leaves (§4.4, §3.17, §3.21).
//!
//! A rig is warmed by a read, the descriptor behind it is cleared in memory, and a command is
//! given: a later read faults if the command removed what was kept, and still reaches the page if
//! it did not. What may be kept is kept by the model, so that a driver that forgets a command is
//! found out.

use smmu_model::bench::{Bench, SYNC};
use smmu_model::{Identity, Mode, Outcome, Transaction};

use crate::kit::{
    ASID, MARK, Rig, SID_BITS, VA, VMID, read, s1_block, s1_page, s2_page, table, write,
};

/// A rig, and the descriptor that the tests clear.
type Warmed = (Rig, u64);

fn warm(mut rig: Rig, entry: [u64; 8], leaf: u64) -> Warmed {
    rig.install(&entry);
    rig.reaches(VA);
    (rig, leaf)
}

fn stage1() -> Warmed {
    let rig = Rig::full();
    let (entry, leaf) = (rig.stage1(), rig.s1[2] + 40);
    warm(rig, entry, leaf)
}

/// Stage 1 with a global page.
fn global() -> Warmed {
    let rig = Rig::full();
    let (entry, leaf) = (rig.stage1(), rig.s1[2] + 40);
    rig.bench.store(leaf, s1_page(rig.page) & !(1 << 11));
    warm(rig, entry, leaf)
}

fn stage2() -> Warmed {
    let rig = Rig::full();
    let (entry, leaf) = (rig.stage2(), rig.s2[2] + 40);
    warm(rig, entry, leaf)
}

/// Both stages; stage 1's leaf is cleared.
fn nested() -> Warmed {
    let rig = Rig::full();
    let (entry, leaf) = (rig.nested(), rig.s1[2] + 40);
    warm(rig, entry, leaf)
}

/// Both stages; the leaf of stage 2 that maps the output is cleared.
fn nested_output() -> Warmed {
    let rig = Rig::full();
    let (entry, leaf) = (rig.nested(), rig.s2[2] + 40);
    // Stage 1 maps the address to itself, so that the output has a descriptor of its own.
    rig.bench.store(rig.s1[2] + 40, s1_page(VA));
    warm(rig, entry, leaf)
}

fn el2() -> Warmed {
    let rig = Rig::full();
    let (entry, leaf) = (rig.el2(), rig.s1[2] + 40);
    warm(rig, entry, leaf)
}

fn el2_e2h() -> Warmed {
    let mut rig = Rig::full();
    rig.set_cr2(0x3);
    let (entry, leaf) = (rig.el2(), rig.s1[2] + 40);
    warm(rig, entry, leaf)
}

fn el2_e2h_global() -> Warmed {
    let mut rig = Rig::full();
    rig.set_cr2(0x3);
    let (entry, leaf) = (rig.el2(), rig.s1[2] + 40);
    rig.bench.store(leaf, s1_page(rig.page) & !(1 << 11));
    warm(rig, entry, leaf)
}

/// Clears the descriptor, gives the commands and a SYNC.
fn after((rig, leaf): Warmed, commands: &[[u64; 2]]) -> Rig {
    let mut rig = rig;
    rig.bench.store(leaf, 0);
    rig.bench.publish();
    rig.reaches(VA);
    rig.bench.commands(commands);
    rig.bench.commands(&[SYNC]);
    rig
}

macro_rules! removes {
    ($($name:ident: $warmed:ident, [$($command:expr),+];)+) => {$(
        #[test]
        fn $name() {
            let mut rig = after($warmed(), &[$($command),+]);
            assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
            let record = rig.bench.next_raw_event().expect("a record");
            assert_eq!(record[0], 0x10 | SID_BITS);
        }
    )+};
}

macro_rules! keeps {
    ($($name:ident: $warmed:ident, [$($command:expr),+];)+) => {$(
        #[test]
        fn $name() {
            after($warmed(), &[$($command),+]).reaches(VA);
        }
    )+};
}

pub(crate) const OURS: u64 = VMID << 32;
const OTHER_VMID: u64 = (VMID + 1) << 32;
pub(crate) const ASID_1: u64 = ASID << 48;
const ASID_2: u64 = (ASID + 1) << 48;
const LEAF: u64 = 1;
const TG_4K: u64 = 1 << 10;
const TG_16K: u64 = 2 << 10;
const TG_64K: u64 = 3 << 10;
/// Another page of the same table.
const NEXT: u64 = VA + 0x1000;

removes! {
    nh_all_removes_stage_1_entries: stage1, [[0x10 | OURS, 0]];
    nh_all_removes_global_entries: global, [[0x10 | OURS, 0]];
    nh_all_removes_combined_entries: nested, [[0x10 | OURS, 0]];
    nh_asid_removes_the_entries_of_its_asid: stage1, [[0x11 | OURS | ASID_1, 0]];
    nh_asid_removes_combined_entries: nested, [[0x11 | OURS | ASID_1, 0]];
    nh_va_removes_its_address: stage1, [[0x12 | OURS | ASID_1, VA | LEAF]];
    nh_va_removes_combined_entries: nested, [[0x12 | OURS | ASID_1, VA | LEAF]];
    nh_va_removes_global_entries_of_any_asid: global, [[0x12 | OURS | ASID_2, VA | LEAF]];
    nh_vaa_removes_its_address_for_every_asid: stage1, [[0x13 | OURS, VA | LEAF]];
    nh_vaa_removes_global_entries: global, [[0x13 | OURS, VA | LEAF]];
    el2_all_removes_el2_entries: el2, [[0x20, 0]];
    el2_all_removes_el2_e2h_entries: el2_e2h, [[0x20, 0]];
    el2_asid_removes_el2_e2h_entries_of_its_asid: el2_e2h, [[0x21 | ASID_1, 0]];
    el2_va_removes_el2_entries_whatever_the_asid: el2, [[0x22 | ASID_2, VA | LEAF]];
    el2_va_removes_el2_e2h_entries_of_its_asid: el2_e2h, [[0x22 | ASID_1, VA | LEAF]];
    el2_va_removes_global_el2_e2h_entries: el2_e2h_global, [[0x22 | ASID_2, VA | LEAF]];
    el2_vaa_removes_el2_entries: el2, [[0x23, VA | LEAF]];
    el2_vaa_removes_el2_e2h_entries_of_every_asid: el2_e2h, [[0x23, VA | LEAF]];
    s12_vmall_removes_stage_1_entries: stage1, [[0x28 | OURS, 0]];
    s12_vmall_removes_stage_2_entries: stage2, [[0x28 | OURS, 0]];
    s12_vmall_removes_combined_entries: nested, [[0x28 | OURS, 0]];
    s12_vmall_removes_combined_entries_by_their_output: nested_output, [[0x28 | OURS, 0]];
    s2_ipa_removes_its_address_of_a_stage_2_stream: stage2, [[0x2a | OURS, VA | LEAF]];
    s2_ipa_then_nh_all_removes_combined_entries: nested_output, [[0x2a | OURS, VA | LEAF], SYNC, [0x10 | OURS, 0]];
    nsnh_all_removes_stage_1_entries: stage1, [[0x30, 0]];
    nsnh_all_removes_global_entries: global, [[0x30, 0]];
    nsnh_all_removes_stage_2_entries: stage2, [[0x30, 0]];
    nsnh_all_removes_combined_entries: nested, [[0x30, 0]];

    a_range_removes_its_first_page: stage1, [[0x12 | OURS | ASID_1 | 3 << 12, VA | TG_4K | LEAF]];
    a_range_removes_its_last_page: stage1, [[0x12 | OURS | ASID_1 | 3 << 12, (VA - 0x3000) | TG_4K | LEAF]];
    a_scaled_range_removes_its_last_page: stage1, [[0x12 | OURS | ASID_1 | 1 << 12 | 1 << 20, (VA - 0x3000) | TG_4K | LEAF]];
    a_range_of_any_asid_removes_its_pages: stage1, [[0x13 | OURS | 1 << 12, VA | TG_4K | LEAF]];
    a_range_of_stage_2_removes_its_pages: stage2, [[0x2a | OURS | 1 << 12, VA | TG_4K | LEAF]];
    a_level_removes_the_leaves_of_that_level: stage1, [[0x12 | OURS | ASID_1, VA | TG_4K | 3 << 8 | LEAF]];
    a_whole_space_fits_one_range: stage1, [[0x13 | OURS | 31 << 12 | 22 << 20, TG_4K | LEAF]];
}

keeps! {
    nothing_removes_nothing: stage1, [SYNC];
    nh_all_keeps_another_vmid: stage1, [[0x10 | OTHER_VMID, 0]];
    nh_all_keeps_stage_2_streams: stage2, [[0x10 | OURS, 0]];
    nh_all_keeps_el2_entries: el2, [[0x10 | OURS, 0], [0x10, 0]];
    nh_all_keeps_el2_e2h_entries: el2_e2h, [[0x10 | OURS, 0], [0x10, 0]];
    nh_asid_keeps_another_asid: stage1, [[0x11 | OURS | ASID_2, 0]];
    nh_asid_keeps_another_vmid: stage1, [[0x11 | OTHER_VMID | ASID_1, 0]];
    nh_asid_keeps_global_entries: global, [[0x11 | OURS | ASID_1, 0]];
    nh_asid_keeps_stage_2_streams: stage2, [[0x11 | OURS | ASID_1, 0], [0x11 | OURS, 0]];
    nh_va_keeps_another_address: stage1, [[0x12 | OURS | ASID_1, NEXT | LEAF], [0x12 | OURS | ASID_1, (VA - 0x1000) | LEAF]];
    nh_va_keeps_another_asid: stage1, [[0x12 | OURS | ASID_2, VA | LEAF]];
    nh_va_keeps_another_vmid: stage1, [[0x12 | OTHER_VMID | ASID_1, VA | LEAF]];
    nh_va_keeps_stage_2_streams: stage2, [[0x12 | OURS, VA | LEAF]];
    nh_vaa_keeps_another_address: stage1, [[0x13 | OURS, NEXT | LEAF]];
    nh_vaa_keeps_another_vmid: stage1, [[0x13 | OTHER_VMID, VA | LEAF]];
    nh_vaa_keeps_el2_entries: el2, [[0x13 | OURS, VA | LEAF], [0x13, VA | LEAF]];
    el2_all_keeps_el1_entries: stage1, [[0x20, 0]];
    el2_asid_keeps_another_asid: el2_e2h, [[0x21 | ASID_2, 0]];
    el2_asid_keeps_global_entries: el2_e2h_global, [[0x21 | ASID_1, 0]];
    el2_asid_keeps_el1_entries: stage1, [[0x21 | ASID_1, 0]];
    el2_va_keeps_another_asid: el2_e2h, [[0x22 | ASID_2, VA | LEAF]];
    el2_va_keeps_another_address: el2, [[0x22 | ASID_1, NEXT | LEAF]];
    el2_va_keeps_el1_entries: stage1, [[0x22 | ASID_1, VA | LEAF]];
    el2_vaa_keeps_another_address: el2_e2h, [[0x23, NEXT | LEAF]];
    s12_vmall_keeps_another_vmid: nested, [[0x28 | OTHER_VMID, 0]];
    s12_vmall_keeps_el2_entries: el2, [[0x28 | OURS, 0], [0x28, 0]];
    s2_ipa_keeps_another_address: stage2, [[0x2a | OURS, NEXT | LEAF]];
    s2_ipa_keeps_another_vmid: stage2, [[0x2a | OTHER_VMID, VA | LEAF]];
    s2_ipa_keeps_stage_1_entries: stage1, [[0x2a | OURS, VA | LEAF]];
    s2_ipa_keeps_combined_entries: nested_output, [[0x2a | OURS, VA | LEAF]];
    nsnh_all_keeps_el2_entries: el2, [[0x30, 0]];
    nsnh_all_keeps_el2_e2h_entries: el2_e2h, [[0x30, 0]];
    configuration_invalidation_keeps_translations: stage1, [[0x04, 31]];

    a_range_keeps_the_page_before_it: stage1, [[0x12 | OURS | ASID_1 | 3 << 12, NEXT | TG_4K | LEAF]];
    a_range_keeps_the_page_after_it: stage1, [[0x12 | OURS | ASID_1 | 2 << 12, (VA - 0x3000) | TG_4K | LEAF]];
    a_scaled_range_keeps_the_page_after_it: stage1, [[0x12 | OURS | ASID_1 | 1 << 20, (VA - 0x2000) | TG_4K | LEAF]];
    a_range_of_stage_2_keeps_the_page_after_it: stage2, [[0x2a | OURS | 1 << 12, (VA - 0x2000) | TG_4K | LEAF]];
    a_range_of_16k_keeps_4k_entries: stage1, [[0x12 | OURS | ASID_1 | 3 << 12, 0x4000_0000 | TG_16K | LEAF]];
    a_range_of_64k_keeps_4k_entries: stage1, [[0x12 | OURS | ASID_1 | 3 << 12, 0x4000_0000 | TG_64K | LEAF]];
    a_level_keeps_the_leaves_of_another_level: stage1, [[0x12 | OURS | ASID_1 | 1 << 12, 0x4000_0000 | TG_4K | 2 << 8 | LEAF]];
}

#[test]
fn an_address_within_a_block_removes_the_block() {
    let mut rig = Rig::full();
    rig.bench.store(rig.s1[1], s1_block(0x8000_0000));
    rig.install(&rig.stage1());
    let address = 0x4000_0000 + rig.page - 0x8000_0000;
    rig.reaches(address);
    rig.bench.store(rig.s1[1], 0);
    rig.bench.publish();
    rig.bench
        .commands(&[[0x12 | OURS | ASID_1, 0x401f_f000 | LEAF], SYNC]);
    assert_eq!(rig.transact(read(address)), Outcome::Aborted);
}

/// A rig whose level-2 descriptor has been pointed to another level 3, which maps `VA` to a page
/// marked with 1; both are kept.
fn repointed() -> Rig {
    let (mut rig, _) = stage1();
    let [level3, page] = [(); 2].map(|()| rig.bench.frames(12));
    rig.bench.store(page + 0x10, 1);
    rig.bench.store(level3 + 40, s1_page(page));
    rig.bench.store(rig.s1[1], table(level3));
    rig.bench.publish();
    rig
}

fn mark_at(rig: &Rig, transaction: Transaction) -> u64 {
    let outcome = rig.transact(transaction);
    let Outcome::Done { data, .. } = outcome else {
        panic!("{outcome:?}");
    };
    u64::from_le_bytes(data.try_into().expect("8 bytes"))
}

#[test]
fn leaf_1_keeps_table_descriptors() {
    let mut rig = repointed();
    rig.bench
        .commands(&[[0x12 | OURS | ASID_1, VA | LEAF], SYNC]);
    assert_eq!(mark_at(&rig, read(VA)), MARK);
}

#[test]
fn leaf_0_removes_table_descriptors() {
    let mut rig = repointed();
    rig.bench.commands(&[[0x12 | OURS | ASID_1, VA], SYNC]);
    assert_eq!(mark_at(&rig, read(VA)), 1);
}

#[test]
fn leaf_0_with_a_level_removes_the_table_descriptors_above_it() {
    let mut rig = repointed();
    rig.bench
        .commands(&[[0x12 | OURS | ASID_1, VA | TG_4K | 3 << 8], SYNC]);
    assert_eq!(mark_at(&rig, read(VA)), 1);
}

#[test]
fn invalidation_by_asid_removes_table_descriptors() {
    let mut rig = repointed();
    rig.bench.commands(&[[0x11 | OURS | ASID_1, 0], SYNC]);
    assert_eq!(mark_at(&rig, read(VA)), 1);
}

#[test]
fn vmid_wildcards_widen_the_match() {
    // VMW = 1 ignores one bit: 6 covers 7; 5 does not.
    for (vmid, is_removed) in [(6_u64, true), (5, false)] {
        let (mut rig, leaf) = stage1();
        rig.bench.cr0(0xd | 1 << 6);
        rig.bench.store(leaf, 0);
        rig.bench.publish();
        rig.bench.commands(&[[0x10 | vmid << 32, 0], SYNC]);
        let outcome = rig.transact(read(VA));
        assert_eq!(outcome == Outcome::Aborted, is_removed, "{vmid}");
    }
}

#[test]
fn without_vmid_wildcards_the_match_is_exact() {
    let (mut rig, leaf) = stage1();
    rig.bench.store(leaf, 0);
    rig.bench.publish();
    rig.bench.commands(&[[0x10 | 6 << 32, 0], SYNC]);
    rig.reaches(VA);
}

#[test]
fn what_a_walk_could_not_use_is_not_kept() {
    let (mut rig, leaf) = stage1();
    let next = leaf + 8;
    // Invalid, access flag clear, beyond IPS.
    for word in [
        0,
        s1_page(rig.page) & !(1 << 10),
        s1_page(rig.page) | 1 << 40,
    ] {
        rig.bench.store(next, word);
        rig.bench.publish();
        assert_eq!(rig.transact(read(NEXT)), Outcome::Aborted);
        assert!(rig.bench.next_raw_event().is_some());
    }
    rig.bench.store(next, s1_page(rig.page));
    rig.bench.publish();
    rig.reaches(NEXT);
}

/// Makes a read-only page writable after `use_it`; tells whether a write still faults.
fn upgrade_is_missed(mode: Mode, use_it: Transaction) -> bool {
    let mut rig = Rig::in_mode(Identity::full(), mode);
    let leaf = rig.s1[2] + 40;
    rig.bench.store(leaf, s1_page(rig.page) | 2 << 6);
    rig.install(&rig.stage1());
    rig.transact(use_it);
    rig.bench.store(leaf, s1_page(rig.page));
    rig.bench.publish();
    let is_missed = rig.transact(write(VA)) == Outcome::Aborted;
    rig.bench
        .commands(&[[0x12 | OURS | ASID_1, VA | LEAF], SYNC]);
    assert!(matches!(rig.transact(write(VA)), Outcome::Done { .. }));
    is_missed
}

#[test]
fn a_permission_that_was_used_is_kept_when_memory_grants_more() {
    assert!(upgrade_is_missed(Mode::Polite, read(VA)));
}

#[test]
fn the_hoarding_mode_keeps_what_only_led_to_a_permission_fault() {
    assert!(upgrade_is_missed(Mode::Hoarding, write(VA)));
}

#[test]
fn translations_outlive_switching_the_smmu_off_and_on() {
    let (mut rig, leaf) = stage1();
    rig.bench.cr0(0xc);
    rig.bench.store(leaf, 0);
    rig.bench.publish();
    rig.bench.cr0(0xd);
    rig.reaches(VA);
}

#[test]
fn the_forgetful_mode_keeps_nothing() {
    let mut rig = Rig::in_mode(Identity::full(), Mode::Forgetful);
    rig.install(&rig.stage1());
    rig.reaches(VA);
    rig.bench.store(rig.s1[2] + 40, 0);
    rig.bench.publish();
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
}

#[test]
fn the_hoarding_mode_performs_commands_no_earlier_than_the_sync() {
    let mut rig = Rig::in_mode(Identity::full(), Mode::Hoarding);
    rig.install(&rig.stage1());
    rig.reaches(VA);
    rig.bench.store(rig.s1[2] + 40, 0);
    rig.bench.publish();
    rig.bench.commands(&[[0x10 | OURS, 0]]);
    rig.reaches(VA);
    rig.bench.commands(&[SYNC]);
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
}

// Tags.

#[test]
fn an_address_of_a_stage_1_block_removes_all_pieces_of_it() {
    // Stage 2 maps by pages what stage 1 maps by a block: what is kept is a piece of the block.
    let mut rig = Rig::full();
    let level3 = rig.bench.frames(12);
    for page in 0..512 {
        let at = 0x8000_0000 + page * 0x1000;
        rig.bench.store(level3 + page * 8, s2_page(at));
    }
    rig.bench.store(rig.s2[3], table(level3));
    rig.bench.store(rig.s1[1], s1_block(0x8000_0000));
    rig.install(&rig.nested());
    let address = 0x4000_0000 + rig.page - 0x8000_0000;
    rig.reaches(address);
    rig.bench.store(rig.s1[1], 0);
    rig.bench.publish();
    rig.reaches(address);
    rig.bench
        .commands(&[[0x12 | OURS | ASID_1, 0x401f_f000 | LEAF], SYNC]);
    assert_eq!(rig.transact(read(address)), Outcome::Aborted);
}

// Configuration.

// Prefetches.

#[test]
fn prefetches_of_what_is_not_there_record_nothing() {
    let mut rig = Rig::full();
    rig.bench.commands(&[
        [0x01 | SID_BITS, 0],
        [0x01 | 0xffff << 32, 0],
        [0x02 | SID_BITS, VA],
        SYNC,
    ]);
    assert_eq!(rig.bench.next_raw_event(), None);
    rig.install(&rig.stage1());
    rig.bench.commands(&[
        [0x02 | SID_BITS, NEXT],
        [0x02 | SID_BITS | 1 << 11 | 9 << 12, VA],
        SYNC,
    ]);
    assert_eq!(rig.bench.next_raw_event(), None);
    rig.reaches(VA);
}

#[test]
fn a_stores_bytes_are_seen_by_a_stream_without_any_invalidation() {
    // What is translated, not what is translated with, is never kept.
    let mut rig = Rig::full();
    rig.install(&rig.stage2());
    rig.reaches(VA);
    rig.bench.store(rig.page + 0x10, 0x1234);
    rig.bench.publish();
    assert_eq!(mark_at(&rig, read(VA)), 0x1234);
}

#[test]
fn a_mapping_that_was_invalid_needs_no_invalidation() {
    let mut rig = Rig::full();
    rig.install(&rig.stage2());
    rig.reaches(VA);
    assert_eq!(rig.transact(read(NEXT)), Outcome::Aborted);
    rig.bench.next_raw_event();
    rig.bench.store(rig.s2[2] + 48, s2_page(rig.page));
    rig.bench.publish();
    rig.reaches(NEXT);
    rig.bench.assert_clean();
}

#[test]
fn invalidation_without_a_sync_is_only_consumed() {
    let mut bench = Bench::up(Identity::full(), Mode::Hoarding);
    let syncs = bench.machine.smmu(0).syncs();
    bench.commands(&[[0x30, 0], [0x04, 31]]);
    assert_eq!(bench.machine.smmu(0).syncs(), syncs);
    bench.commands(&[SYNC]);
    assert_eq!(bench.machine.smmu(0).syncs(), syncs + 1);
}

// Tags of the EL2 worlds and of stage 2.
