//! Stage-1 permissions: AP, tables above, XN, PAN, worlds, overrides (DDI 0487 D8.4; §13.1).

use smmu_model::{Identity, Outcome};

use crate::kit::{RNW, Rig, VA, read, s1_page, table, with, write};
use crate::stage1::{
    IND, PERMISSION, PNU, TRANSLATION, VA_HIGH, fault, rig_with, stage1, with_leaf, with_table_bits,
};

/// AP, UXN, PXN of a leaf; AP = 01 is what the rig's pages have.
const AP: u64 = 3 << 6;
const UXN: u64 = 1 << 54;
const PXN: u64 = 1 << 53;

#[test]
fn a_privileged_page_refuses_unprivileged_accesses() {
    let mut rig = with_leaf(|page| page & !AP);
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
    rig.lands(read(VA).privileged());
}

#[test]
fn a_privileged_read_only_page_refuses_privileged_writes() {
    let mut rig = with_leaf(|page| page & !AP | 2 << 6);
    rig.lands(read(VA).privileged());
    rig.aborts(write(VA).privileged(), fault(PERMISSION, VA, PNU));
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
}

#[test]
fn a_read_only_page_refuses_writes() {
    let mut rig = with_leaf(|page| page | AP);
    rig.reaches(VA);
    rig.aborts(write(VA), fault(PERMISSION, VA, 0));
    rig.aborts(write(VA).privileged(), fault(PERMISSION, VA, PNU));
}

#[test]
fn a_writable_page_takes_writes() {
    let rig = stage1();
    let outcome = rig.transact(write(VA));
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    rig.bench.machine.barrier(smmu_model::Barrier::Observe);
    assert_eq!(
        rig.bench.machine.load(rig.page + 0x10),
        Ok(u64::from_le_bytes(*b"portcull"))
    );
}

#[test]
fn uxn_refuses_unprivileged_instruction_fetches_only() {
    let mut rig = with_leaf(|page| page | AP | UXN);
    rig.reaches(VA);
    rig.aborts(read(VA).instruction(), fault(PERMISSION, VA, RNW | IND));
    rig.lands(read(VA).privileged().instruction());
}

#[test]
fn pxn_refuses_privileged_instruction_fetches_only() {
    let mut rig = with_leaf(|page| page | AP | PXN);
    rig.lands(read(VA).privileged());
    rig.aborts(
        read(VA).privileged().instruction(),
        fault(PERMISSION, VA, RNW | PNU | IND),
    );
    rig.lands(read(VA).instruction());
}

#[test]
fn what_users_can_write_is_never_executed_with_privilege() {
    let mut rig = stage1();
    rig.lands(read(VA).instruction());
    rig.aborts(
        read(VA).privileged().instruction(),
        fault(PERMISSION, VA, RNW | PNU | IND),
    );
}

#[test]
fn wxn_refuses_instruction_fetches_from_writable_pages() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 36, 36, 1));
    rig.reaches(VA);
    rig.aborts(read(VA).instruction(), fault(PERMISSION, VA, RNW | IND));
    // Read-only: still executable.
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 36, 36, 1));
    rig.bench.store(rig.s1[2] + 5 * 8, s1_page(rig.page) | AP);
    rig.bench.publish();
    rig.lands(read(VA).instruction());
}

#[test]
fn a_write_is_data_whatever_it_says() {
    let mut rig = with_leaf(|page| page | AP);
    rig.aborts(write(VA).instruction(), fault(PERMISSION, VA, 0));
}

#[test]
fn aptable_1_removes_unprivileged_access() {
    let mut rig = with_table_bits(1 << 61);
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
    rig.lands(read(VA).privileged());
}

#[test]
fn aptable_2_removes_write_access() {
    let mut rig = with_table_bits(2 << 61);
    rig.reaches(VA);
    rig.aborts(write(VA), fault(PERMISSION, VA, 0));
}

#[test]
fn aptable_3_removes_both() {
    let mut rig = with_table_bits(3 << 61);
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
    rig.lands(read(VA).privileged());
    rig.aborts(write(VA).privileged(), fault(PERMISSION, VA, PNU));
}

#[test]
fn uxntable_removes_unprivileged_execution() {
    let mut rig = with_table_bits(1 << 60);
    rig.reaches(VA);
    rig.aborts(read(VA).instruction(), fault(PERMISSION, VA, RNW | IND));
}

#[test]
fn pxntable_removes_privileged_execution() {
    let mut rig = with_table_bits(1 << 59);
    rig.bench.store(rig.s1[2] + 5 * 8, s1_page(rig.page) | AP);
    rig.bench.publish();
    rig.lands(read(VA).instruction());
    rig.aborts(
        read(VA).privileged().instruction(),
        fault(PERMISSION, VA, RNW | PNU | IND),
    );
}

#[test]
fn hierarchical_attributes_can_be_switched_off() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 1, 1, 1, 1));
    rig.bench.store(rig.s1[1], table(rig.s1[2]) | 0xf << 59);
    rig.bench.publish();
    rig.reaches(VA);
}

#[test]
fn hierarchical_attributes_stay_without_had() {
    let identity = Identity {
        had: false,
        ..Identity::full()
    };
    let mut rig = rig_with(identity, |rig| with(rig.cd(), 1, 1, 1, 1));
    rig.bench.store(rig.s1[1], table(rig.s1[2]) | 1 << 61);
    rig.bench.publish();
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
}

#[test]
fn pan_keeps_privileged_data_accesses_from_user_pages() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 40, 40, 1));
    rig.aborts(read(VA).privileged(), fault(PERMISSION, VA, RNW | PNU));
    rig.reaches(VA);
}

#[test]
fn pan_leaves_privileged_pages_alone() {
    let mut rig = rig_with(Identity::full(), |rig| with(rig.cd(), 0, 40, 40, 1));
    rig.bench.store(rig.s1[2] + 5 * 8, s1_page(rig.page) & !AP);
    rig.bench.publish();
    rig.lands(read(VA).privileged());
}

#[test]
fn the_el2_world_knows_no_unprivileged_access() {
    let mut rig = Rig::full();
    rig.bench.store(rig.s1[2] + 5 * 8, s1_page(rig.page) & !AP);
    rig.install(&rig.el2());
    rig.reaches(VA);
}

#[test]
fn the_el2_world_still_refuses_writes_to_read_only_pages() {
    let mut rig = Rig::full();
    rig.bench
        .store(rig.s1[2] + 5 * 8, s1_page(rig.page) | 2 << 6);
    rig.install(&rig.el2());
    rig.reaches(VA);
    rig.aborts(write(VA), fault(PERMISSION, VA, 0));
}

#[test]
fn the_el2_world_has_no_upper_half() {
    let mut rig = Rig::full();
    rig.put_cd(0, &rig.cd_both_halves());
    rig.install(&rig.el2());
    rig.aborts(read(VA_HIGH), fault(TRANSLATION, VA_HIGH, RNW));
}

#[test]
fn the_el2_e2h_world_has_both_halves_and_both_privileges() {
    let mut rig = Rig::full();
    rig.set_cr2(0x3);
    rig.bench.store(rig.s1[2] + 5 * 8, s1_page(rig.page) & !AP);
    rig.put_cd(0, &rig.cd_both_halves());
    rig.install(&rig.el2());
    rig.lands(read(VA_HIGH).privileged());
    rig.aborts(read(VA_HIGH), fault(PERMISSION, VA_HIGH, RNW));
}

/// An entry whose PRIVCFG and INSTCFG are these, over a page that `leaf` makes.
fn overridden(identity: Identity, privilege: u64, instruction: u64, leaf: u64) -> Rig {
    let mut rig = Rig::new(identity);
    rig.bench
        .store(rig.s1[2] + 5 * 8, s1_page(rig.page) & !AP | leaf);
    let entry = with(rig.stage1(), 1, 49, 48, privilege);
    rig.install(&with(entry, 1, 51, 50, instruction));
    rig
}

#[test]
fn privcfg_3_makes_everything_privileged() {
    overridden(Identity::full(), 3, 0, 0).reaches(VA);
}

#[test]
fn privcfg_2_makes_everything_unprivileged() {
    let mut rig = overridden(Identity::full(), 2, 0, 0);
    rig.aborts(read(VA).privileged(), fault(PERMISSION, VA, RNW));
}

#[test]
fn privcfg_1_acts_as_0() {
    let mut rig = overridden(Identity::full(), 1, 0, 0);
    rig.lands(read(VA).privileged());
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
}

#[test]
fn instcfg_3_makes_reads_instruction_fetches() {
    let mut rig = overridden(Identity::full(), 0, 3, AP | UXN);
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW | IND));
}

#[test]
fn instcfg_2_makes_instruction_fetches_data() {
    let mut rig = overridden(Identity::full(), 0, 2, AP | UXN);
    rig.lands(read(VA).instruction());
}

#[test]
fn permission_overrides_need_attr_perms_ovr() {
    let identity = Identity {
        attr_perms_ovr: false,
        ..Identity::full()
    };
    let mut rig = overridden(identity, 3, 0, 0);
    rig.aborts(read(VA), fault(PERMISSION, VA, RNW));
}

const EPAN: Identity = Identity {
    epan: true,
    ..Identity::full()
};

/// PAN and, where it is there, EPAN.
fn epan(rig: &Rig) -> [u64; 8] {
    with(with(rig.cd(), 0, 40, 40, 1), 1, 59, 59, 1)
}

#[test]
fn epan_keeps_privileged_data_accesses_from_what_users_may_execute() {
    let mut rig = rig_with(EPAN, epan);
    rig.bench.store(rig.s1[2] + 40, s1_page(rig.page) & !AP);
    rig.bench.publish();
    rig.aborts(read(VA).privileged(), fault(PERMISSION, VA, RNW | PNU));
    let mut rig = rig_with(EPAN, epan);
    rig.bench
        .store(rig.s1[2] + 40, s1_page(rig.page) & !AP | UXN);
    rig.bench.publish();
    rig.lands(read(VA).privileged());
}
