//! Which translations are shared: worlds, VMIDs, ASIDs, global entries and ASET (§3.17).

use smmu_model::{Outcome, Transaction};

use crate::kit::{Rig, VA, read, s1_page, with};

/// Another stream with the same tables but `entry` and a descriptor of its own, whose page is
/// cleared before it is used; tells whether it hits what the first stream left.
fn hits(
    change_entry: fn([u64; 8]) -> [u64; 8],
    change_cd: fn([u64; 8]) -> [u64; 8],
    leaf: u64,
) -> bool {
    let mut rig = Rig::full();
    rig.bench.store(rig.s1[2] + 40, leaf | rig.page);
    rig.put_cd(1, &change_cd(rig.cd()));
    rig.install(&rig.stage1());
    let other = change_entry(with(rig.stage1(), 0, 55, 6, (rig.cds + 64) >> 6));
    rig.bench.publish_ste(6, &other);
    rig.reaches(VA);
    rig.bench.store(rig.s1[2] + 40, 0);
    rig.bench.publish();
    let outcome = rig.transact(Transaction {
        stream: 6,
        ..read(VA)
    });
    matches!(outcome, Outcome::Done { .. })
}

const NOT_GLOBAL: u64 = s1_page(0);
const GLOBAL: u64 = s1_page(0) & !(1 << 11);

#[test]
fn streams_of_one_vmid_and_asid_share_translations() {
    assert!(hits(|entry| entry, |cd| cd, NOT_GLOBAL));
}

#[test]
fn another_asid_does_not_match() {
    assert!(!hits(
        |entry| entry,
        |cd| with(cd, 0, 63, 48, 2),
        NOT_GLOBAL
    ));
}

#[test]
fn another_vmid_does_not_match() {
    assert!(!hits(|entry| with(entry, 2, 15, 0, 8), |cd| cd, NOT_GLOBAL));
    assert!(!hits(|entry| with(entry, 2, 15, 0, 8), |cd| cd, GLOBAL));
}

#[test]
fn another_world_does_not_match() {
    assert!(!hits(
        |entry| with(entry, 1, 31, 30, 2),
        |cd| cd,
        NOT_GLOBAL
    ));
}

#[test]
fn a_global_translation_matches_every_asid() {
    assert!(hits(|entry| entry, |cd| with(cd, 0, 63, 48, 2), GLOBAL));
}

/// Whether a global page left by a space with the one ASET is hit by one with the other.
fn aset_hits(first: u64, second: u64) -> bool {
    let mut rig = Rig::full();
    rig.bench.store(rig.s1[2] + 40, GLOBAL | rig.page);
    rig.put_cd(0, &with(rig.cd(), 0, 47, 47, first));
    let other = with(with(rig.cd(), 0, 63, 48, 2), 0, 47, 47, second);
    rig.put_cd(1, &other);
    rig.install(&with(rig.stage1(), 0, 63, 59, 1));
    rig.lands(read(VA).with_substream(0));
    rig.bench.store(rig.s1[2] + 40, 0);
    rig.bench.publish();
    let outcome = rig.transact(read(VA).with_substream(1));
    matches!(outcome, Outcome::Done { .. })
}

#[test]
fn a_global_translation_matches_only_its_own_aset() {
    assert!(aset_hits(0, 0));
    assert!(aset_hits(1, 1));
    assert!(!aset_hits(0, 1));
    assert!(!aset_hits(1, 0));
}

/// Whether stream 6, with this entry and descriptor, hits what stream 5 left in the same world.
fn hits_in(cr2: u32, entry: fn(&Rig) -> [u64; 8], change_cd: fn([u64; 8]) -> [u64; 8]) -> bool {
    let mut rig = Rig::full();
    rig.set_cr2(cr2);
    rig.put_cd(1, &change_cd(rig.cd()));
    let first = entry(&rig);
    rig.install(&first);
    rig.bench
        .publish_ste(6, &with(first, 0, 55, 6, (rig.cds + 64) >> 6));
    rig.reaches(VA);
    let leaf = if first[0] >> 1 & 7 == 6 {
        rig.s2[2]
    } else {
        rig.s1[2]
    };
    rig.bench.store(leaf + 40, 0);
    rig.bench.publish();
    let outcome = rig.transact(Transaction {
        stream: 6,
        ..read(VA)
    });
    matches!(outcome, Outcome::Done { .. })
}

#[test]
fn the_el2_world_has_no_asids() {
    assert!(hits_in(0x2, Rig::el2, |cd| with(cd, 0, 63, 48, 2)));
}

#[test]
fn the_el2_e2h_world_has_asids() {
    assert!(hits_in(0x3, Rig::el2, |cd| cd));
    assert!(!hits_in(0x3, Rig::el2, |cd| with(cd, 0, 63, 48, 2)));
}

#[test]
fn stage_2_streams_of_one_vmid_share_translations() {
    assert!(hits_in(0x2, Rig::stage2, |cd| cd));
}

#[test]
fn the_el2_world_has_no_vmids() {
    let mut rig = Rig::full();
    rig.install(&rig.el2());
    rig.bench.publish_ste(6, &with(rig.el2(), 2, 15, 0, 9));
    rig.reaches(VA);
    rig.bench.store(rig.s1[2] + 40, 0);
    rig.bench.publish();
    let outcome = rig.transact(Transaction {
        stream: 6,
        ..read(VA)
    });
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
}
