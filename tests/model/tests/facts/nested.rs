//! Both stages: whose fault it is, of which class, at which address, in which order (§7.3, §7.4).

use smmu_model::{Identity, Outcome};

use crate::kit::{IN, RNW, Rig, S2, SID_BITS, TT, VA, read, s1_page, s2_page, table, with, write};

const TRANSLATION: u64 = 0x10;
const ADDRESS_SIZE: u64 = 0x11;
const ACCESS: u64 = 0x12;
const PERMISSION: u64 = 0x13;
/// CLASS = CD of a record's second word.
const CD: u64 = 0;

fn nested() -> Rig {
    nested_over(Identity::full())
}

fn nested_over(identity: Identity) -> Rig {
    let mut rig = Rig::new(identity);
    rig.install(&rig.nested());
    rig
}

/// The record of a stage-2 fault at `ipa` for a read of `VA`.
const fn fault(kind: u64, class: u64, ipa: u64) -> [u64; 4] {
    [kind | SID_BITS, RNW | S2 | class, VA | 0x10, ipa & !0xfff]
}

/// Maps memory to itself by pages instead of blocks, with one page's descriptor changed.
fn with_stage2_of(pa: u64, change: impl FnOnce(u64) -> u64, identity: Identity) -> Rig {
    let mut rig = Rig::new(identity);
    let level3 = rig.bench.frames(12);
    for page in 0..512 {
        let at = 0x8000_0000 + page * 0x1000;
        rig.bench.store(level3 + page * 8, s2_page(at));
    }
    assert!(pa < 0x8020_0000);
    let slot = level3 + (pa >> 12 & 511) * 8;
    rig.bench.store(slot, change(s2_page(pa & !0xfff)));
    rig.bench.store(rig.s2[3], table(level3));
    rig.bench.publish();
    rig
}

/// The addresses of a rig's structures, which are the same in every rig.
fn places() -> Rig {
    Rig::full()
}

#[test]
fn both_stages_lead_to_the_page() {
    nested().reaches(VA);
}

#[test]
fn a_context_descriptor_that_stage_2_does_not_map_is_a_cd_fault() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, |_| 0, Identity::full());
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(TRANSLATION, CD, cds));
}

#[test]
fn the_record_of_a_cd_fault_tells_the_clients_access() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, |_| 0, Identity::full());
    rig.install(&rig.nested());
    rig.aborts(
        write(VA).privileged(),
        [TRANSLATION | SID_BITS, 1 << 33 | S2 | CD, VA | 0x10, cds],
    );
}

#[test]
fn a_context_descriptor_that_stage_2_does_not_let_read_is_a_cd_fault() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, |page| page & !(3 << 6) | 2 << 6, Identity::full());
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(PERMISSION, CD, cds));
}

#[test]
fn a_read_only_context_descriptor_suffices_even_for_a_write() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, |page| page & !(3 << 6) | 1 << 6, Identity::full());
    rig.install(&rig.nested());
    let outcome = rig.transact(write(VA));
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}

#[test]
fn a_context_descriptor_with_a_clear_access_flag_is_a_cd_fault() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, |page| page & !(1 << 10), Identity::full());
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(ACCESS, CD, cds));
}

#[test]
fn a_cd_fault_is_silent_with_s2r_0() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, |_| 0, Identity::full());
    rig.install(&with(rig.nested(), 2, 58, 58, 0));
    rig.aborts_silently(read(VA));
}

#[test]
fn a_context_table_pointer_that_stage_2_does_not_map_is_a_cd_fault_at_the_pointer() {
    let mut rig = Rig::full();
    // Beyond what stage 2 maps, within its 39 bits.
    let pointer = 0x70_0000_0000_u64;
    let entry = with(rig.nested(), 0, 55, 6, pointer >> 6);
    rig.install(&with(with(entry, 0, 63, 59, 8), 0, 5, 4, 1));
    rig.aborts(
        read(VA).with_substream(0x41),
        [
            TRANSLATION | 1 << 11 | 0x41 << 12 | SID_BITS,
            RNW | S2 | CD,
            VA | 0x10,
            pointer,
        ],
    );
}

#[test]
fn a_stage_1_table_that_stage_2_does_not_map_is_a_tt_fault_at_its_descriptor() {
    for level in 0..3 {
        let at = places().s1[level];
        let mut rig = with_stage2_of(at, |_| 0, Identity::full());
        rig.install(&rig.nested());
        rig.aborts(read(VA), fault(TRANSLATION, TT, at));
    }
}

#[test]
fn a_stage_1_table_that_stage_2_does_not_let_read_is_a_tt_fault() {
    let at = places().s1[1];
    let mut rig = with_stage2_of(at, |page| page & !(3 << 6), Identity::full());
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(PERMISSION, TT, at));
}

#[test]
fn a_stage_1_table_with_a_clear_access_flag_is_a_tt_fault() {
    let at = places().s1[1];
    let mut rig = with_stage2_of(at, |page| page & !(1 << 10), Identity::full());
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(ACCESS, TT, at));
}

#[test]
fn a_stage_1_table_beyond_s2ps_is_a_tt_fault() {
    let at = places().s1[2];
    let mut rig = with_stage2_of(at, |page| page | 1 << 40, Identity::full());
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(ADDRESS_SIZE, TT, at));
}

#[test]
fn stage_1_tables_need_no_execute_or_write_permission() {
    let at = places().s1[1];
    let change = |page| page & !(3 << 6) | 1 << 6 | 2 << 53;
    let mut rig = with_stage2_of(at, change, Identity::full());
    rig.install(&rig.nested());
    rig.lands(read(VA).instruction());
}

#[test]
fn an_output_that_stage_2_does_not_map_is_an_in_fault_at_the_output() {
    let page = places().page;
    let mut rig = with_stage2_of(page, |_| 0, Identity::full());
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(TRANSLATION, IN, page));
}

#[test]
fn an_output_that_stage_2_does_not_let_write_is_an_in_fault() {
    let page = places().page;
    let mut rig = with_stage2_of(page, |word| word & !(3 << 6) | 1 << 6, Identity::full());
    rig.install(&rig.nested());
    rig.reaches(VA);
    rig.aborts(write(VA), [PERMISSION | SID_BITS, S2 | IN, VA | 0x10, page]);
}

#[test]
fn an_output_beyond_s2t0sz_is_an_in_fault_of_stage_2() {
    let mut rig = Rig::full();
    rig.bench.store(rig.s1[2] + 5 * 8, s1_page(1 << 39));
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(TRANSLATION, IN, 1 << 39));
}

#[test]
fn a_stage_1_fault_is_told_as_stage_1s() {
    let mut rig = Rig::full();
    rig.bench.store(rig.s1[2] + 5 * 8, 0);
    rig.install(&rig.nested());
    rig.aborts(read(VA), [TRANSLATION | SID_BITS, RNW | IN, VA | 0x10, 0]);
}

#[test]
fn stage_1_permission_comes_before_the_output_is_translated() {
    let page = places().page;
    let mut rig = with_stage2_of(page, |_| 0, Identity::full());
    rig.bench
        .store(rig.s1[2] + 5 * 8, s1_page(rig.page) | 2 << 6);
    rig.install(&rig.nested());
    rig.aborts(write(VA), [PERMISSION | SID_BITS, IN, VA | 0x10, 0]);
}

#[test]
fn stage_1_access_flag_comes_before_the_output_is_translated() {
    let page = places().page;
    let mut rig = with_stage2_of(page, |_| 0, Identity::full());
    rig.bench
        .store(rig.s1[2] + 5 * 8, s1_page(rig.page) & !(1 << 10));
    rig.install(&rig.nested());
    rig.aborts(read(VA), [ACCESS | SID_BITS, RNW | IN, VA | 0x10, 0]);
}

#[test]
fn a_stage_2_table_outside_memory_aborts_with_the_class_of_its_purpose() {
    // (what stage 2 was asked for, the class that is told)
    for (slot, class) in [(2, CD), (3, IN)] {
        let mut rig = Rig::full();
        // Outputs go through a third gigabyte, so that only they meet the bad table.
        rig.bench.store(rig.s1[2] + 5 * 8, s1_page(0xc000_5000));
        rig.bench.store(rig.s2[0] + slot * 8, table(0x10_0000_0000));
        rig.install(&rig.nested());
        assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
        let record = rig.bench.next_raw_event().expect("a record");
        assert_eq!(record[0], 0x0b | SID_BITS);
        assert_eq!(record[1] & !0xffff, RNW | S2 | class);
        assert_eq!(record[2], VA | 0x10);
        assert_eq!(record[3] & !0xfff, 0x10_0000_0000);
    }
}

#[test]
fn a_stage_2_table_outside_memory_aborts_with_class_tt_on_a_stage_1_walk() {
    let mut rig = Rig::full();
    let level2 = 0xc000_0000;
    rig.bench.store(rig.s1[0] + 8, table(level2));
    rig.bench.store(rig.s2[0] + 3 * 8, table(0x10_0000_0000));
    rig.install(&rig.nested());
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x0b | SID_BITS);
    assert_eq!(record[1] & !0xffff, RNW | S2 | TT);
    assert_eq!(record[3], 0x10_0000_0000);
}

#[test]
fn a_stage_1_table_that_cannot_be_read_aborts_as_stage_1s_walk() {
    let mut rig = Rig::full();
    // Stage 2 maps a gigabyte where there is no memory.
    rig.bench.store(rig.s1[0] + 8, table(0xc000_0000));
    rig.bench
        .store(rig.s2[0] + 3 * 8, crate::kit::s2_block(0x40_0000_0000));
    rig.install(&rig.nested());
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x0b | SID_BITS);
    assert_eq!(record[1] & !0xffff, RNW | TT);
    assert_eq!(record[3], 0x40_0000_0000);
}

#[test]
fn a_context_descriptor_that_cannot_be_read_is_f_cd_fetch_at_its_physical_address() {
    let mut rig = Rig::full();
    rig.bench
        .store(rig.s2[0] + 3 * 8, crate::kit::s2_block(0x40_0000_0000));
    rig.install(&with(rig.nested(), 0, 55, 6, 0xc000_0000 >> 6));
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x09 | SID_BITS);
    assert_eq!(record[3] & !0x3f, 0x40_0000_0000);
}

/// MemAttr = Device-nGnRE.
fn device(page: u64) -> u64 {
    page & !(0xf << 2) | 1 << 2
}

#[test]
fn s2ptw_refuses_a_context_descriptor_in_device_memory() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, device, Identity::full());
    rig.install(&with(rig.nested(), 2, 54, 54, 1));
    rig.aborts(read(VA), fault(PERMISSION, CD, cds));
}

#[test]
fn s2ptw_refuses_a_stage_1_table_in_device_memory() {
    let at = places().s1[1];
    let mut rig = with_stage2_of(at, device, Identity::full());
    rig.install(&with(rig.nested(), 2, 54, 54, 1));
    rig.aborts(read(VA), fault(PERMISSION, TT, at));
}

#[test]
fn s2ptw_leaves_outputs_in_device_memory_alone() {
    let page = places().page;
    let mut rig = with_stage2_of(page, device, Identity::full());
    rig.install(&with(rig.nested(), 2, 54, 54, 1));
    rig.reaches(VA);
}

#[test]
fn without_s2ptw_tables_may_lie_in_device_memory() {
    let at = places().s1[1];
    let mut rig = with_stage2_of(at, device, Identity::full());
    rig.install(&rig.nested());
    rig.reaches(VA);
}

#[test]
fn the_stage_1_root_is_an_intermediate_address() {
    // Everything of stage 1 lies 1 GiB higher as seen through stage 2.
    let mut rig = Rig::full();
    let up = 0x4000_0000;
    rig.bench.store(rig.s2[0] + 3 * 8, table(rig.s2[3]));
    rig.bench.store(rig.s2[0] + 2 * 8, 0);
    rig.bench.store(rig.s1[0] + 8, table(rig.s1[1] + up));
    rig.bench.store(rig.s1[1], table(rig.s1[2] + up));
    rig.bench.store(rig.s1[2] + 5 * 8, s1_page(rig.page + up));
    rig.put_cd(0, &with(rig.cd(), 1, 63, 0, rig.s1[0] + up));
    rig.install(&with(rig.nested(), 0, 55, 6, (rig.cds + up) >> 6));
    rig.reaches(VA);
}

#[test]
fn a_bad_context_descriptor_is_found_after_stage_2() {
    let cds = places().cds;
    let mut rig = with_stage2_of(cds, |_| 0, Identity::full());
    rig.put_cd(0, &[0; 8]);
    rig.install(&rig.nested());
    rig.aborts(read(VA), fault(TRANSLATION, CD, cds));
}

#[test]
fn stage_1_output_beyond_ips_is_stage_1s_fault() {
    let mut rig = Rig::full();
    rig.bench
        .store(rig.s1[2] + 5 * 8, s1_page(rig.page | 1 << 40));
    rig.install(&rig.nested());
    rig.aborts(read(VA), [ADDRESS_SIZE | SID_BITS, RNW | IN, VA | 0x10, 0]);
}
