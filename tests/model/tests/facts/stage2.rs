//! Stage-2 walks: ranges, start levels, concatenated roots, flags, permissions (DDI 0487 D8; §7.3).

use smmu_model::{Identity, Outcome, Rule, Transaction};

use crate::kit::{IN, RNW, Rig, S2, SID_BITS, VA, read, s2_block, s2_page, table, with, write};

const TRANSLATION: u64 = 0x10;
const ADDRESS_SIZE: u64 = 0x11;
const ACCESS: u64 = 0x12;
const PERMISSION: u64 = 0x13;
const PNU: u64 = 1 << 33;
const IND: u64 = 1 << 34;

/// The record of a stage-2 fault of `kind`, whose IPA is the page of `address`.
const fn fault(kind: u64, address: u64, flags: u64) -> [u64; 4] {
    [
        kind | SID_BITS,
        flags | S2 | IN,
        address | 0x10,
        address & !0xfff,
    ]
}

fn stage2() -> Rig {
    let mut rig = Rig::full();
    rig.install(&rig.stage2());
    rig
}

/// A rig whose page's leaf is as `leaf` makes it.
fn with_leaf(leaf: impl FnOnce(u64) -> u64) -> Rig {
    let rig = stage2();
    rig.bench.store(rig.s2[2] + 5 * 8, leaf(s2_page(rig.page)));
    rig.bench.publish();
    rig
}

/// An entry with S2T0SZ, S2SL0, S2TG and S2TTB.
fn shape(rig: &Rig, size: u64, start: u64, granule: u64, root: u64) -> [u64; 8] {
    let entry = with(with(rig.stage2(), 2, 37, 32, size), 2, 39, 38, start);
    with(with(entry, 2, 47, 46, granule), 3, 63, 0, root)
}

#[test]
fn an_address_above_s2t0sz_faults() {
    let mut rig = stage2();
    let address = VA | 1 << 39;
    rig.aborts(read(address), fault(TRANSLATION, address, RNW));
}

#[test]
fn an_address_beyond_the_intermediate_size_is_an_address_size_fault_of_stage_1() {
    let mut rig = stage2();
    let address = VA | 1 << 48;
    let outcome = rig.transact(read(address));
    assert_eq!(outcome, Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(
        record[..3],
        [ADDRESS_SIZE | SID_BITS, RNW | IN, address | 0x10]
    );
}

#[test]
fn bypass_beyond_the_output_size_is_an_address_size_fault() {
    let mut rig = Rig::full();
    rig.install(&rig.bypass());
    let address = 1 << 48 | rig.page;
    let outcome = rig.transact(read(address));
    assert_eq!(outcome, Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(
        record[..3],
        [ADDRESS_SIZE | SID_BITS, RNW | IN, address | 0x10]
    );
}

#[test]
fn an_invalid_descriptor_faults_at_every_level() {
    for level in 0..3 {
        let mut rig = stage2();
        let slot = [8, 0, 5 * 8][level];
        rig.bench.store(rig.s2[level] + slot, 0xffff_ffff_ffff_fffe);
        rig.bench.publish();
        rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
    }
}

#[test]
fn a_block_at_level_3_is_invalid() {
    let mut rig = with_leaf(|page| page & !2);
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
}

#[test]
fn a_4k_block_at_level_2_covers_2_mib() {
    let mut rig = stage2();
    rig.reaches(rig.page);
}

#[test]
fn a_4k_block_at_level_1_covers_1_gib() {
    let mut rig = stage2();
    rig.bench.store(rig.s2[0] + 8, s2_block(0x8000_0000));
    rig.bench.publish();
    rig.reaches(0x4000_0000 + rig.page - 0x8000_0000);
}

#[test]
fn a_4k_walk_of_48_bits_starts_at_level_0() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(12);
    rig.bench.store(root + 511 * 8, table(rig.s2[0]));
    rig.install(&shape(&rig, 16, 2, 0, root));
    rig.reaches(511 << 39 | VA);
}

#[test]
fn a_4k_block_at_level_0_is_invalid() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(12);
    rig.bench.store(root, s2_block(0));
    rig.install(&shape(&rig, 16, 2, 0, root));
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
}

#[test]
fn a_short_level_0_table_serves_44_bits() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(12);
    rig.bench.store(root + 31 * 8, table(rig.s2[0]));
    rig.install(&shape(&rig, 20, 2, 0, root));
    rig.reaches(31 << 39 | VA);
    let outside = 32 << 39 | VA;
    rig.aborts(read(outside), fault(TRANSLATION, outside, RNW));
}

#[test]
fn sixteen_tables_are_concatenated_at_level_1() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(16);
    // The last of 16 * 512 entries: address bits [42:30].
    rig.bench.store(root + 0x1fff * 8, table(rig.s2[1]));
    rig.install(&shape(&rig, 21, 1, 0, root));
    rig.reaches(0x1fff << 30 | 0x5000);
}

#[test]
fn sixteen_tables_are_concatenated_at_level_2() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(16);
    rig.bench.store(root + 0x1fff * 8, table(rig.s2[2]));
    rig.install(&shape(&rig, 30, 0, 0, root));
    rig.reaches(0x1fff << 21 | 0x5000);
}

#[test]
fn a_small_table_starts_at_level_3() {
    let mut rig = Rig::full();
    // 21 bits: one table of level 3.
    let root = rig.s2[2];
    rig.install(&shape(&rig, 43, 3, 0, root));
    rig.reaches(0x5000);
}

#[test]
fn the_low_bits_of_a_concatenated_root_are_ignored() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(13);
    rig.bench.store(root + 8, table(rig.s2[1]));
    rig.install(&shape(&rig, 24, 1, 0, root | 0x1000));
    rig.reaches(VA);
    assert!(rig.bench.machine.record().count(Rule::TableMisaligned) <= 1);
}

#[test]
fn a_16k_walk_starts_at_level_1_with_two_tables() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(15);
    let [level2, level3, page] = [(); 3].map(|()| rig.bench.frames(14));
    // 48 bits: IPA[47:36] = 0x801, IPA[35:25] = 1, IPA[24:14] = 0x7ff.
    let address = 0x801 << 36 | 1 << 25 | 0x7ff << 14;
    rig.bench.store(root + 0x801 * 8, table(level2));
    rig.bench.store(level2 + 8, table(level3));
    rig.bench.store(level3 + 0x7ff * 8, s2_page(page));
    rig.page = page;
    rig.bench.store(page + 0x10, crate::kit::MARK);
    rig.install(&shape(&rig, 16, 2, 2, root));
    rig.reaches(address);
}

#[test]
fn a_16k_block_at_level_2_covers_32_mib() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(14);
    // 36 bits from level 2.
    rig.bench.store(root + 64 * 8, s2_block(0x8000_0000));
    rig.install(&shape(&rig, 28, 1, 2, root));
    rig.reaches((64 << 25) + rig.page - 0x8000_0000);
}

#[test]
fn a_64k_walk_starts_at_level_2() {
    let mut rig = Rig::full();
    let [root, level3, page] = [(); 3].map(|()| rig.bench.frames(16));
    // 40 bits: IPA[39:29] = 0x402, IPA[28:16] = 0x1ffe.
    let address = 0x402 << 29 | 0x1ffe << 16;
    rig.bench.store(root + 0x402 * 8, table(level3));
    rig.bench.store(level3 + 0x1ffe * 8, s2_page(page));
    rig.page = page;
    rig.bench.store(page + 0x10, crate::kit::MARK);
    rig.install(&shape(&rig, 24, 1, 1, root));
    rig.reaches(address);
}

#[test]
fn a_64k_block_at_level_2_covers_512_mib() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(16);
    rig.bench.store(root + 2 * 8, s2_block(0x8000_0000));
    rig.install(&shape(&rig, 24, 1, 1, root));
    rig.reaches((2 << 29) + rig.page - 0x8000_0000);
}

#[test]
fn big_endian_tables_are_read_as_such() {
    let mut rig = Rig::full();
    for at in [rig.s2[0] + 8, rig.s2[1], rig.s2[2] + 5 * 8] {
        let word = rig.bench.machine.load(at).expect("in memory");
        rig.bench.store(at, word.swap_bytes());
    }
    rig.install(&with(rig.stage2(), 2, 52, 52, 1));
    rig.reaches(VA);
}

#[test]
fn a_page_beyond_s2ps_is_an_address_size_fault() {
    let mut rig = with_leaf(|page| page | 1 << 40);
    rig.aborts(read(VA), fault(ADDRESS_SIZE, VA, RNW));
}

#[test]
fn a_table_beyond_s2ps_is_an_address_size_fault() {
    let mut rig = stage2();
    rig.bench.store(rig.s2[1], table(rig.s2[2]) | 1 << 40);
    rig.bench.publish();
    rig.aborts(read(VA), fault(ADDRESS_SIZE, VA, RNW));
}

#[test]
fn a_table_outside_memory_aborts_the_walk() {
    let mut rig = stage2();
    rig.bench.store(rig.s2[1], table(0x10_0000_0000));
    rig.bench.publish();
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x0b | SID_BITS);
    assert_eq!(record[1] & !0xffff, RNW | S2 | IN);
    assert_eq!(record[2], VA | 0x10);
    assert_eq!(record[3], 0x10_0000_0028);
}

#[test]
fn a_clear_access_flag_is_an_access_fault() {
    let mut rig = with_leaf(|page| page & !(1 << 10));
    rig.aborts(read(VA), fault(ACCESS, VA, RNW));
}

#[test]
fn access_faults_may_be_switched_off() {
    let mut rig = Rig::full();
    rig.bench
        .store(rig.s2[2] + 5 * 8, s2_page(rig.page) & !(1 << 10));
    rig.install(&with(rig.stage2(), 2, 53, 53, 1));
    rig.reaches(VA);
}

#[test]
fn s2ap_0_permits_nothing() {
    let mut rig = with_leaf(|page| page & !(3 << 6));
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
    rig.aborts(write(VA), fault(PERMISSION, VA, 0));
}

#[test]
fn s2ap_1_permits_reads() {
    let mut rig = with_leaf(|page| page & !(3 << 6) | 1 << 6);
    rig.reaches(VA);
    rig.aborts(write(VA), fault(PERMISSION, VA, 0));
}

#[test]
fn s2ap_2_permits_writes() {
    let mut rig = with_leaf(|page| page & !(3 << 6) | 2 << 6);
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
    let outcome = rig.transact(write(VA));
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}

#[test]
fn privilege_means_nothing_for_data_at_stage_2() {
    let mut rig = with_leaf(|page| page & !(3 << 6) | 1 << 6);
    rig.lands(read(VA).privileged());
    rig.aborts(write(VA).privileged(), fault(PERMISSION, VA, PNU));
}

#[test]
fn xn_2_refuses_every_instruction_fetch() {
    let mut rig = with_leaf(|page| page | 2 << 53);
    rig.reaches(VA);
    rig.aborts(read(VA).instruction(), fault(PERMISSION, VA, RNW | IND));
    rig.aborts(
        read(VA).privileged().instruction(),
        fault(PERMISSION, VA, RNW | PNU | IND),
    );
}

#[test]
fn xn_1_refuses_privileged_instruction_fetches() {
    let mut rig = with_leaf(|page| page | 1 << 53);
    rig.lands(read(VA).instruction());
    rig.aborts(
        read(VA).privileged().instruction(),
        fault(PERMISSION, VA, RNW | PNU | IND),
    );
}

#[test]
fn xn_3_refuses_unprivileged_instruction_fetches() {
    let mut rig = with_leaf(|page| page | 3 << 53);
    rig.lands(read(VA).privileged().instruction());
    rig.aborts(read(VA).instruction(), fault(PERMISSION, VA, RNW | IND));
}

#[test]
fn without_xnx_only_the_upper_xn_bit_counts() {
    let identity = Identity {
        xnx: false,
        ..Identity::full()
    };
    let mut rig = Rig::new(identity);
    rig.bench
        .store(rig.s2[2] + 5 * 8, s2_page(rig.page) | 1 << 54);
    rig.install(&rig.stage2());
    rig.aborts(
        read(VA).privileged().instruction(),
        fault(PERMISSION, VA, RNW | PNU | IND),
    );
    rig.reaches(VA);
}

#[test]
fn an_execute_only_page_can_be_fetched_but_not_read() {
    let mut rig = with_leaf(|page| page & !(3 << 6));
    rig.lands(read(VA).instruction());
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
}

#[test]
fn a_fault_is_silent_with_s2r_0() {
    let mut rig = Rig::full();
    rig.install(&with(rig.stage2(), 2, 58, 58, 0));
    rig.aborts_silently(read(VA | 0x2000));
}

#[test]
fn a_record_tells_the_byte_and_the_page() {
    let mut rig = stage2();
    let transaction = Transaction::write(5, 0x4000_7abc, b"four");
    rig.aborts(
        transaction,
        [TRANSLATION | SID_BITS, S2 | IN, 0x4000_7abc, 0x4000_7000],
    );
}

#[test]
fn a_fault_reads_no_zeros_whatever_the_entry_says() {
    // Stage 2 always aborts: there is no A.
    let mut rig = stage2();
    let hole = VA | 0x2000;
    rig.aborts(read(hole), fault(TRANSLATION, hole, RNW));
    rig.aborts(write(hole), fault(TRANSLATION, hole, 0));
}

#[test]
fn each_page_of_a_contiguous_group_has_its_own_output() {
    let mut rig = stage2();
    let group = rig.bench.frames(16);
    for page in 0..16 {
        let word = s2_page(group + page * 0x1000) | 1 << 52;
        rig.bench.store(rig.s2[2] + (16 + page) * 8, word);
    }
    rig.bench.publish();
    for page in [9, 0, 15] {
        let outcome = rig.transact(read(0x4001_0000 + page * 0x1000));
        let Outcome::Done { pa, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(pa, group + page * 0x1000 + 0x10);
    }
}

#[test]
fn a_4k_start_level_3_concatenates_as_well() {
    let mut rig = Rig::full();
    // 22 bits: two tables of level 3.
    let root = rig.bench.frames(13);
    rig.bench.store(root + 0x205 * 8, s2_page(rig.page));
    rig.install(&shape(&rig, 42, 3, 0, root));
    rig.reaches(0x20_5000);
}
