//! Stage-1 walks: ranges, levels, granules, blocks, flags, A and R (DDI 0487 D8; §3.4, §5.5).

use smmu_model::{Identity, Outcome, Transaction};

use crate::kit::{IN, RNW, Rig, SID_BITS, TT, VA, read, s1_block, s1_page, table, with, write};

pub(crate) const TRANSLATION: u64 = 0x10;
const ADDRESS_SIZE: u64 = 0x11;
const ACCESS: u64 = 0x12;
pub(crate) const PERMISSION: u64 = 0x13;
/// PnU and InD of a record's second word.
pub(crate) const PNU: u64 = 1 << 33;
pub(crate) const IND: u64 = 1 << 34;
/// `VA` in the half that TTB1 translates.
pub(crate) const VA_HIGH: u64 = 0xffff_ff80_0000_0000 | VA;

/// The record of a stage-1 fault of `kind` for a transaction at `address` with these flags.
pub(crate) const fn fault(kind: u64, address: u64, flags: u64) -> [u64; 4] {
    [kind | SID_BITS, flags | IN, address | 0x10, 0]
}

/// A rig whose stream 5 is stage-1 only, with this descriptor.
pub(crate) fn rig_with(identity: Identity, cd: impl FnOnce(&Rig) -> [u64; 8]) -> Rig {
    let mut rig = Rig::new(identity);
    rig.put_cd(0, &cd(&rig));
    rig.install(&rig.stage1());
    rig
}

pub(crate) fn stage1() -> Rig {
    rig_with(Identity::full(), Rig::cd)
}

/// A rig whose page's leaf is as `leaf` makes it.
pub(crate) fn with_leaf(leaf: impl FnOnce(u64) -> u64) -> Rig {
    let rig = stage1();
    rig.bench.store(rig.s1[2] + 5 * 8, leaf(s1_page(rig.page)));
    rig.bench.publish();
    rig
}

/// The same with bits added to the level-2 table descriptor.
pub(crate) fn with_table_bits(bits: u64) -> Rig {
    let rig = stage1();
    rig.bench.store(rig.s1[1], table(rig.s1[2]) | bits);
    rig.bench.publish();
    rig
}

#[test]
fn an_address_above_t0sz_faults() {
    let mut rig = stage1();
    rig.aborts(read(VA | 1 << 39), fault(TRANSLATION, VA | 1 << 39, RNW));
}

#[test]
fn the_last_address_below_t0sz_is_walked() {
    let mut rig = stage1();
    rig.bench.store(rig.s1[0] + 511 * 8, table(rig.s1[1]));
    rig.bench.store(rig.s1[1] + 511 * 8, table(rig.s1[2]));
    rig.bench.store(rig.s1[2] + 511 * 8, s1_page(rig.page));
    rig.bench.publish();
    rig.reaches(0x7f_ffff_f000);
}

#[test]
fn bit_55_selects_ttb1() {
    let mut rig = rig_with(Identity::full(), Rig::cd_both_halves);
    rig.reaches(VA_HIGH);
    rig.reaches(VA);
}

#[test]
fn ttb1_has_its_own_size() {
    // T1SZ = 34: 30 bits from level 2.
    let mut rig = rig_with(Identity::full(), |rig| {
        let cd = with(rig.cd_both_halves(), 0, 21, 16, 34);
        with(cd, 2, 63, 0, rig.s1[1])
    });
    rig.reaches(0xffff_ffff_c000_5000);
    let outside = 0xffff_ffff_8000_5000;
    rig.aborts(read(outside), fault(TRANSLATION, outside, RNW));
}

#[test]
fn a_disabled_ttb1_faults() {
    let mut rig = stage1();
    rig.aborts(read(VA_HIGH), fault(TRANSLATION, VA_HIGH, RNW));
}

#[test]
fn a_disabled_ttb0_faults() {
    let mut rig = rig_with(Identity::full(), |rig| {
        with(rig.cd_both_halves(), 0, 14, 14, 1)
    });
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
    rig.reaches(VA_HIGH);
}

#[test]
fn the_top_byte_counts_unless_it_is_ignored() {
    let tagged = 0xab00_0000_0000_0000 | VA;
    let mut rig = stage1();
    rig.aborts(read(tagged), fault(TRANSLATION, tagged, RNW));
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 38, 38, 1));
    rig.reaches(tagged);
}

#[test]
fn the_top_byte_of_ttb1_counts_unless_it_is_ignored() {
    let tagged = VA_HIGH & 0x00ff_ffff_ffff_ffff | 0x12 << 56;
    let mut rig = rig_with(Identity::full(), Rig::cd_both_halves);
    rig.aborts(read(tagged), fault(TRANSLATION, tagged, RNW));
    let mut rig = rig_with(Identity::full(), |rig| {
        with(rig.cd_both_halves(), 0, 39, 39, 1)
    });
    rig.reaches(tagged);
}

#[test]
fn e0pd_keeps_unprivileged_accesses_from_ttb0() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 1, 2, 2, 1));
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
    rig.lands(read(VA).privileged());
}

#[test]
fn e0pd_keeps_unprivileged_accesses_from_ttb1() {
    let mut rig = rig_with(Identity::full(), |rig| {
        with(rig.cd_both_halves(), 2, 2, 2, 1)
    });
    rig.aborts(read(VA_HIGH), fault(TRANSLATION, VA_HIGH, RNW));
    rig.reaches(VA);
}

#[test]
fn an_invalid_descriptor_faults_at_every_level() {
    for level in 0..3 {
        let mut rig = stage1();
        let slot = [8, 0, 5 * 8][level];
        rig.bench.store(rig.s1[level] + slot, 0xffff_ffff_ffff_fffe);
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
    let mut rig = stage1();
    rig.bench.store(rig.s1[1], s1_block(0x8000_0000));
    rig.bench.publish();
    let offset = rig.page - 0x8000_0000;
    assert!(offset < 0x20_0000);
    rig.reaches(0x4000_0000 + offset);
}

#[test]
fn a_4k_block_at_level_1_covers_1_gib() {
    let mut rig = stage1();
    rig.bench.store(rig.s1[0] + 8, s1_block(0x8000_0000));
    rig.bench.publish();
    let offset = rig.page - 0x8000_0000;
    rig.reaches(0x4000_0000 + offset);
}

#[test]
fn a_4k_block_at_level_0_is_invalid() {
    // T0SZ = 16: 48 bits from level 0.
    let mut rig = Rig::full();
    let root = rig.bench.frames(12);
    rig.bench.store(root, s1_block(0));
    rig.put_cd(0, &with(with(rig.cd(), 0, 5, 0, 16), 1, 63, 0, root));
    rig.install(&rig.stage1());
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
}

#[test]
fn a_4k_walk_of_48_bits_starts_at_level_0() {
    let mut rig = Rig::full();
    let root = rig.bench.frames(12);
    rig.bench.store(root + 255 * 8, table(rig.s1[0]));
    rig.put_cd(0, &with(with(rig.cd(), 0, 5, 0, 16), 1, 63, 0, root));
    rig.install(&rig.stage1());
    rig.reaches(255 << 39 | VA);
}

#[test]
fn a_4k_walk_of_30_bits_starts_at_level_2() {
    let mut rig = rig_with(Identity::full(), |rig| {
        with(with(rig.cd(), 0, 5, 0, 34), 1, 63, 0, rig.s1[1])
    });
    rig.reaches(0x5000);
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
}

#[test]
fn a_4k_walk_of_21_bits_starts_at_level_3() {
    let mut rig = rig_with(Identity::full(), |rig| {
        with(with(rig.cd(), 0, 5, 0, 43), 1, 63, 0, rig.s1[2])
    });
    rig.reaches(0x5000);
}

/// A descriptor with another granule and root.
fn granule(rig: &Rig, tg: u64, size: u64, root: u64) -> [u64; 8] {
    with(
        with(with(rig.cd(), 0, 7, 6, tg), 0, 5, 0, size),
        1,
        63,
        0,
        root,
    )
}

#[test]
fn a_16k_walk_of_39_bits_starts_at_level_1() {
    let mut rig = Rig::full();
    let [level1, level2, level3, page] = [(); 4].map(|()| rig.bench.frames(14));
    // VA[38:36] = 2, VA[35:25] = 0x401, VA[24:14] = 0x555.
    let address = 2 << 36 | 0x401 << 25 | 0x555 << 14;
    rig.bench.store(level1 + 2 * 8, table(level2));
    rig.bench.store(level2 + 0x401 * 8, table(level3));
    rig.bench.store(level3 + 0x555 * 8, s1_page(page));
    rig.page = page;
    rig.bench.store(page + 0x10, crate::kit::MARK);
    rig.put_cd(0, &granule(&rig, 2, 25, level1));
    rig.install(&rig.stage1());
    rig.reaches(address);
}

#[test]
fn a_16k_block_at_level_2_covers_32_mib() {
    let mut rig = Rig::full();
    let [level1, level2] = [(); 2].map(|()| rig.bench.frames(14));
    rig.bench.store(level1, table(level2));
    rig.bench.store(level2 + 8, s1_block(0x8000_0000));
    rig.put_cd(0, &granule(&rig, 2, 25, level1));
    rig.install(&rig.stage1());
    rig.reaches((1 << 25) + rig.page - 0x8000_0000);
}

#[test]
fn a_16k_block_at_level_1_is_invalid() {
    let mut rig = Rig::full();
    let level1 = rig.bench.frames(14);
    rig.bench.store(level1, s1_block(0));
    rig.put_cd(0, &granule(&rig, 2, 25, level1));
    rig.install(&rig.stage1());
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
}

#[test]
fn a_64k_walk_of_39_bits_starts_at_level_2() {
    let mut rig = Rig::full();
    let [level2, level3, page] = [(); 3].map(|()| rig.bench.frames(16));
    // VA[38:29] = 0x201, VA[28:16] = 0x1005.
    let address = 0x201 << 29 | 0x1005 << 16;
    rig.bench.store(level2 + 0x201 * 8, table(level3));
    rig.bench.store(level3 + 0x1005 * 8, s1_page(page));
    rig.page = page;
    rig.bench.store(page + 0x10, crate::kit::MARK);
    rig.put_cd(0, &granule(&rig, 1, 25, level2));
    rig.install(&rig.stage1());
    rig.reaches(address);
}

#[test]
fn a_64k_block_at_level_2_covers_512_mib() {
    let mut rig = Rig::full();
    let level2 = rig.bench.frames(16);
    rig.bench.store(level2 + 2 * 8, s1_block(0x8000_0000));
    rig.put_cd(0, &granule(&rig, 1, 25, level2));
    rig.install(&rig.stage1());
    rig.reaches((2 << 29) + rig.page - 0x8000_0000);
}

#[test]
fn a_64k_block_at_level_1_needs_52_bits() {
    let mut rig = Rig::full();
    let level1 = rig.bench.frames(16);
    rig.bench.store(level1, s1_block(0));
    rig.put_cd(0, &granule(&rig, 1, 16, level1));
    rig.install(&rig.stage1());
    rig.aborts(read(VA), fault(TRANSLATION, VA, RNW));
}

#[test]
fn the_low_bits_of_ttb0_are_ignored_up_to_the_tables_size() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 1, 11, 4, 0xff));
    rig.reaches(VA);
}

#[test]
fn big_endian_tables_are_read_as_such() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 15, 15, 1));
    for at in [rig.s1[0] + 8, rig.s1[1], rig.s1[2] + 5 * 8] {
        let word = rig.bench.machine.load(at).expect("in memory");
        rig.bench.store(at, word.swap_bytes());
    }
    rig.bench.publish();
    rig.reaches(VA);
}

#[test]
fn a_page_beyond_ips_is_an_address_size_fault() {
    let mut rig = with_leaf(|page| page | 1 << 40);
    rig.aborts(read(VA), fault(ADDRESS_SIZE, VA, RNW));
}

#[test]
fn a_table_beyond_ips_is_an_address_size_fault() {
    let mut rig = with_table_bits(1 << 40);
    rig.aborts(read(VA), fault(ADDRESS_SIZE, VA, RNW));
}

#[test]
fn an_ips_of_32_bits_checks_bit_32() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 34, 32, 0));
    rig.reaches(VA);
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 34, 32, 0));
    rig.bench
        .store(rig.s1[2] + 5 * 8, s1_page(rig.page) | 1 << 32);
    rig.bench.publish();
    rig.aborts(read(VA), fault(ADDRESS_SIZE, VA, RNW));
}

#[test]
fn a_table_outside_memory_aborts_the_walk() {
    let mut rig = stage1();
    rig.bench.store(rig.s1[1], table(0x10_0000_0000));
    rig.bench.publish();
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x0b | SID_BITS);
    assert_eq!(record[1] & !0xffff, RNW | TT);
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
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 35, 35, 1));
    rig.bench
        .store(rig.s1[2] + 5 * 8, s1_page(rig.page) & !(1 << 10));
    rig.bench.publish();
    rig.reaches(VA);
}

#[test]
fn the_record_has_the_whole_address_and_the_substream() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 38, 38, 1));
    rig.put_cd(1, &with(rig.cd(), 0, 38, 38, 1));
    rig.install(&with(rig.stage1(), 0, 63, 59, 1));
    let address = 0xab00_0000_4000_7abc;
    let transaction = Transaction::read(5, address, 4).with_substream(1);
    rig.aborts(
        transaction,
        [
            TRANSLATION | 1 << 11 | 1 << 12 | SID_BITS,
            RNW | IN,
            address,
            0,
        ],
    );
}

#[test]
fn a_fault_is_silent_with_r_0() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 45, 45, 0));
    rig.aborts_silently(read(VA | 0x2000));
}

#[test]
fn a_fault_reads_zero_with_a_0_and_is_recorded_with_r_1() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 46, 46, 0));
    let address = VA | 0x2000;
    assert_eq!(rig.transact(read(address)), Outcome::RazWi);
    rig.recorded(fault(TRANSLATION, address, RNW));
    assert_eq!(rig.transact(write(address)), Outcome::RazWi);
    rig.recorded(fault(TRANSLATION, address, 0));
}

#[test]
fn a_fault_reads_zero_silently_with_a_0_and_r_0() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 46, 45, 0));
    assert_eq!(rig.transact(read(VA | 0x2000)), Outcome::RazWi);
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn a_walk_abort_ignores_a_and_r() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 46, 45, 0));
    rig.bench.store(rig.s1[1], table(0x10_0000_0000));
    rig.bench.publish();
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x0b | SID_BITS);
}

#[test]
fn a_speculative_read_faults_without_a_record() {
    let mut rig = stage1();
    let speculative = smmu_model::Kind::Speculative;
    rig.aborts_silently(read(VA | 0x2000).of_kind(speculative));
    rig.lands(read(VA).of_kind(speculative));
}

#[test]
fn a_speculative_write_is_aborted_without_a_record() {
    let mut rig = stage1();
    rig.aborts_silently(write(VA).of_kind(smmu_model::Kind::Speculative));
    rig.bench.machine.barrier(smmu_model::Barrier::Observe);
    assert_eq!(
        rig.bench.machine.load(rig.page + 0x10),
        Ok(crate::kit::MARK)
    );
}

const LVA: Identity = Identity {
    vax52: true,
    oas_bits: 52,
    ..Identity::full()
};

#[test]
fn a_64k_walk_of_52_bits_starts_at_level_1() {
    let mut rig = Rig::new(LVA);
    let [level1, level2, level3, page] = [(); 4].map(|()| rig.bench.frames(16));
    // VA[51:42] = 0x3ff, VA[41:29] = 1, VA[28:16] = 2.
    let address = 0x3ff << 42 | 1 << 29 | 2 << 16;
    rig.bench.store(level1 + 0x3ff * 8, table(level2));
    rig.bench.store(level2 + 8, table(level3));
    rig.bench.store(level3 + 2 * 8, s1_page(page));
    rig.page = page;
    rig.bench.store(page + 0x10, crate::kit::MARK);
    rig.put_cd(0, &granule(&rig, 1, 12, level1));
    rig.install(&rig.stage1());
    rig.reaches(address);
}

#[test]
fn a_64k_block_at_level_1_covers_4_tib_where_addresses_have_52_bits() {
    let mut rig = Rig::new(LVA);
    let level1 = rig.bench.frames(16);
    rig.bench.store(level1 + 8, s1_block(0));
    let cd = granule(&rig, 1, 16, level1);
    rig.put_cd(0, &with(cd, 0, 34, 32, 6));
    rig.install(&rig.stage1());
    rig.reaches(1 << 42 | rig.page);
}

#[test]
fn a_64k_page_has_its_upper_address_in_bits_15_to_12() {
    let mut rig = Rig::new(LVA);
    let [level2, level3] = [(); 2].map(|()| rig.bench.frames(16));
    rig.bench.store(level2, table(level3));
    rig.bench.store(level3, s1_page(0x8001_0000) | 0xa << 12);
    let cd = granule(&rig, 1, 25, level2);
    rig.put_cd(0, &with(cd, 0, 34, 32, 6));
    rig.install(&with(rig.stage1(), 1, 29, 28, 1));
    rig.bench.cr0(0x1d);
    let request = read(0x0).of_kind(smmu_model::Kind::AtsRequest);
    let outcome = rig.transact(request);
    let Outcome::Ats(smmu_model::AtsAnswer::Success(grant)) = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(grant.address >> 16, 0xa << 32 | 0x8001);
}

#[test]
fn each_page_of_a_contiguous_group_has_its_own_output() {
    let mut rig = stage1();
    let group = rig.bench.frames(16);
    for page in 0..16 {
        let word = s1_page(group + page * 0x1000) | 1 << 52;
        rig.bench.store(rig.s1[2] + (16 + page) * 8, word);
        rig.bench.store(group + page * 0x1000 + 0x10, page);
    }
    rig.bench.publish();
    for page in [7, 0, 15, 3] {
        let outcome = rig.transact(read(0x4001_0000 + page * 0x1000));
        let Outcome::Done { pa, data, .. } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(pa, group + page * 0x1000 + 0x10);
        assert_eq!(data, page.to_le_bytes());
    }
}

#[test]
fn big_endian_tables_serve_an_smmu_that_has_no_others() {
    let identity = Identity {
        ttendian: 3,
        ..Identity::full()
    };
    let mut rig = rig_with(identity, |rig| with(rig.cd(), 0, 15, 15, 1));
    for at in [rig.s1[0] + 8, rig.s1[1], rig.s1[2] + 40] {
        let word = rig.bench.machine.load(at).expect("in memory");
        rig.bench.store(at, word.swap_bytes());
    }
    rig.bench.publish();
    rig.reaches(VA);
}

#[test]
fn software_bits_of_descriptors_mean_nothing() {
    let mut rig = with_leaf(|page| page | 0xf << 55);
    rig.bench.store(rig.s1[1], table(rig.s1[2]) | 0xff << 51);
    rig.bench.publish();
    rig.reaches(VA);
}
