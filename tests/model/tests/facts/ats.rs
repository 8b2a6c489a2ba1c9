//! ATS translation requests: what is refused, aborted and granted (§3.9, §5.2 EATS).

use smmu_model::{AtsAnswer, AtsGrant, Faults, Fetch, Identity, Kind, Outcome, Transaction};

use crate::kit::{Rig, SID_BITS, VA, read, s1_block, s1_page, s2_page, table, with, write};

/// F_BAD_ATS_TREQ.
const BAD_REQUEST: u64 = 0x05 | SID_BITS;

/// A rig with ATSCHK on.
pub(crate) fn checked(identity: Identity) -> Rig {
    let rig = Rig::new(identity);
    rig.bench.cr0(0x1d);
    rig
}

pub(crate) fn with_eats(entry: [u64; 8], eats: u64) -> [u64; 8] {
    with(entry, 1, 29, 28, eats)
}

/// A rig whose stream is stage 1 with full ATS.
pub(crate) fn full_stage1() -> Rig {
    let mut rig = checked(Identity::full());
    rig.install(&with_eats(rig.stage1(), 1));
    rig
}

fn ask(rig: &Rig, transaction: Transaction) -> AtsAnswer {
    match rig.transact(transaction.of_kind(Kind::AtsRequest)) {
        Outcome::Ats(answer) => answer,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn grant(rig: &mut Rig, transaction: Transaction) -> AtsGrant {
    let AtsAnswer::Success(grant) = ask(rig, transaction) else {
        panic!("{:x?}", rig.bench.next_raw_event());
    };
    assert_eq!(rig.bench.next_raw_event(), None);
    grant
}

/// The request is refused as unsupported, and F_BAD_ATS_TREQ is recorded.
#[track_caller]
fn refused_and_recorded(rig: &mut Rig) {
    assert_eq!(ask(rig, read(VA)), AtsAnswer::UnsupportedRequest);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], BAD_REQUEST);
    assert_eq!(record[2] & !0xfff, VA);
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn a_request_is_refused_while_the_smmu_is_off() {
    let mut rig = full_stage1();
    rig.bench.cr0(0xc);
    refused_and_recorded(&mut rig);
}

#[test]
fn a_request_of_a_bypassed_stream_is_refused() {
    let mut rig = checked(Identity::full());
    rig.install(&with_eats(rig.bypass(), 1));
    refused_and_recorded(&mut rig);
}

#[test]
fn a_request_with_eats_0_is_refused() {
    let mut rig = checked(Identity::full());
    rig.install(&rig.stage1());
    refused_and_recorded(&mut rig);
}

#[test]
fn a_request_with_split_ats_is_refused_without_atschk() {
    let mut rig = Rig::full();
    rig.install(&with_eats(rig.nested(), 2));
    refused_and_recorded(&mut rig);
}

#[test]
fn a_request_with_eats_3_is_refused_without_dpt() {
    let mut rig = checked(Identity::full());
    rig.install(&with_eats(rig.stage1(), 3));
    refused_and_recorded(&mut rig);
}

#[test]
fn a_request_of_a_disabled_stream_is_refused_silently() {
    let mut rig = checked(Identity::full());
    rig.install(&with(with_eats(rig.stage1(), 1), 0, 3, 1, 0));
    assert_eq!(ask(&rig, read(VA)), AtsAnswer::UnsupportedRequest);
    assert_eq!(rig.bench.next_raw_event(), None);
}

/// A request that meets a broken configuration is aborted: silently, or with a record that starts
/// with this word where CR2.REC_CFG_ATS asks for it.
macro_rules! broken {
    ($($name:ident: $record:expr, $request:expr, $break_it:expr;)+) => {$(
        #[test]
        fn $name() {
            for (cr2, is_recorded) in [(0x2, false), (0xa, true)] {
                let mut rig = Rig::full();
                rig.set_cr2(cr2);
                rig.bench.cr0(0x1d);
                let break_it: fn(&mut Rig) = $break_it;
                break_it(&mut rig);
                assert_eq!(ask(&rig, $request), AtsAnswer::CompleterAbort);
                let record = rig.bench.next_raw_event();
                assert_eq!(record.map(|words| words[0]), is_recorded.then_some($record));
                assert_eq!(rig.bench.next_raw_event(), None);
            }
        }
    )+};
}

broken! {
    a_request_of_a_bad_stream_is_aborted: 0x02 | 77 << 32, Transaction { stream: 77, ..read(VA) }, |_| {};
    a_request_of_a_bad_entry_is_aborted: 0x04 | SID_BITS, read(VA), |_| {};
    a_request_whose_entry_cannot_be_read_is_aborted: 0x03 | SID_BITS, read(VA), |rig| {
        rig.bench.machine.smmu(0).set_faults(Faults { aborts: vec![Fetch::Stream], ..Faults::default() });
    };
    a_request_of_a_bad_substream_is_aborted: 0x08 | 9 << 12 | SID_BITS, read(VA).with_substream(9), |rig| {
        rig.install(&with_eats(rig.stage1(), 1));
    };
    a_request_of_a_disabled_substream_is_aborted: 0x06 | SID_BITS, read(VA), |rig| {
        rig.install(&with(with_eats(rig.stage1(), 1), 0, 63, 59, 2));
    };
    a_request_of_a_bad_descriptor_is_aborted: 0x0a | SID_BITS, read(VA), |rig| {
        rig.put_cd(0, &[0; 8]);
        rig.install(&with_eats(rig.stage1(), 1));
    };
    a_request_whose_descriptor_cannot_be_read_is_aborted: 0x09 | SID_BITS, read(VA), |rig| {
        rig.install(&with(with_eats(rig.stage1(), 1), 0, 55, 6, 0x10_0000_0000 >> 6));
    };
    a_request_whose_walk_cannot_be_read_is_aborted: 0x0b | SID_BITS, read(VA), |rig| {
        rig.bench.store(rig.s1[1], table(0x10_0000_0000));
        rig.install(&with_eats(rig.stage1(), 1));
    };
}

/// A request whose leaf `change` makes finds no translation and records nothing.
macro_rules! nothing {
    ($($name:ident: $change:expr;)+) => {$(
        #[test]
        fn $name() {
            let rig = full_stage1();
            let change: fn(u64) -> u64 = $change;
            rig.bench.store(rig.s1[2] + 40, change(s1_page(rig.page)));
            rig.bench.publish();
            let mut rig = rig;
            let granted = grant(&mut rig, read(VA));
            assert!(!granted.can_read && !granted.can_write, "{granted:?}");
        }
    )+};
}

nothing! {
    an_unmapped_page_is_granted_nothing: |_| 0;
    a_page_beyond_ips_is_granted_nothing: |page| page | 1 << 40;
    a_page_with_a_clear_access_flag_is_granted_nothing: |page| page & !(1 << 10);
    a_privileged_page_is_granted_nothing: |page| page & !(3 << 6);
}

#[test]
fn a_request_never_stalls() {
    let mut rig = checked(Identity::full());
    rig.put_cd(0, &with(rig.cd(), 0, 44, 44, 1));
    rig.install(&with_eats(rig.stage1(), 1));
    let granted = grant(&mut rig, read(VA + 0x2000));
    assert!(!granted.can_read && !granted.can_write);
    assert_eq!(rig.bench.machine.smmu(0).stalled(), 0);
}

#[test]
fn a_stage_2_fault_on_a_request_is_granted_nothing() {
    let mut rig = checked(Identity::full());
    rig.bench.store(rig.s1[2] + 40, s1_page(0xc000_0000));
    rig.install(&with_eats(rig.nested(), 1));
    let granted = grant(&mut rig, read(VA));
    assert!(!granted.can_read && !granted.can_write);
}

#[test]
fn a_stage_2_fault_on_the_descriptor_of_a_request_is_granted_nothing() {
    let mut rig = checked(Identity::full());
    let entry = with_eats(rig.nested(), 1);
    rig.install(&with(entry, 0, 55, 6, 0xc000_0000 >> 6));
    let granted = grant(&mut rig, read(VA));
    assert!(!granted.can_read && !granted.can_write);
}

#[test]
fn full_ats_of_stage_1_gives_the_physical_page() {
    let mut rig = full_stage1();
    let granted = grant(&mut rig, write(VA));
    assert_eq!(granted.address, rig.page);
    assert_eq!(granted.log2_bytes, 12);
    assert!(granted.can_read && granted.can_write && !granted.can_execute);
}

#[test]
fn full_ats_of_stage_2_gives_the_physical_page() {
    let mut rig = checked(Identity::full());
    rig.install(&with_eats(rig.stage2(), 1));
    let granted = grant(&mut rig, write(VA));
    assert_eq!(granted.address, rig.page);
    assert!(granted.can_read && granted.can_write);
}

#[test]
fn full_ats_of_both_stages_gives_the_physical_page() {
    let mut rig = checked(Identity::full());
    rig.bench.store(rig.s1[2] + 40, s1_page(VA));
    rig.install(&with_eats(rig.nested(), 1));
    let granted = grant(&mut rig, write(VA));
    assert_eq!(granted.address, rig.page);
}

#[test]
fn split_ats_gives_the_intermediate_page_with_the_permissions_of_both_stages() {
    let mut rig = checked(Identity::full());
    // Stage 1 maps to an intermediate page that stage 2 lets be read only.
    rig.bench.store(rig.s1[2] + 40, s1_page(VA));
    rig.bench
        .store(rig.s2[2] + 40, s2_page(rig.page) & !(2 << 6));
    rig.install(&with_eats(rig.nested(), 2));
    let granted = grant(&mut rig, write(VA));
    assert_eq!(granted.address, VA);
    assert!(granted.can_read && !granted.can_write);
}

#[test]
fn a_read_only_page_is_granted_for_reading() {
    let mut rig = full_stage1();
    rig.bench.store(rig.s1[2] + 40, s1_page(rig.page) | 2 << 6);
    rig.bench.publish();
    let granted = grant(&mut rig, write(VA));
    assert_eq!(granted.address, rig.page);
    assert!(granted.can_read && !granted.can_write);
}

#[test]
fn execution_is_granted_only_with_a_substream_and_if_asked_for() {
    let mut rig = checked(Identity::full());
    rig.put_cd(1, &rig.cd());
    rig.install(&with(with_eats(rig.stage1(), 1), 0, 63, 59, 1));
    let asked = read(VA).with_substream(1).instruction();
    assert!(grant(&mut rig, asked).can_execute);
    let not_asked = read(VA).with_substream(1);
    assert!(!grant(&mut rig, not_asked).can_execute);
}

#[test]
fn execution_is_not_granted_where_the_page_forbids_it() {
    let mut rig = checked(Identity::full());
    rig.put_cd(1, &rig.cd());
    rig.bench.store(rig.s1[2] + 40, s1_page(rig.page) | 1 << 54);
    rig.install(&with(with_eats(rig.stage1(), 1), 0, 63, 59, 1));
    let granted = grant(&mut rig, read(VA).with_substream(1).instruction());
    assert!(granted.can_read && !granted.can_execute);
}

#[test]
fn a_block_may_be_granted_but_never_more_than_the_smaller_stage() {
    let mut rig = full_stage1();
    rig.bench.store(rig.s1[1], s1_block(0x8000_0000));
    rig.bench.publish();
    let granted = grant(&mut rig, read(VA));
    assert!((12..=21).contains(&granted.log2_bytes), "{granted:?}");
    let mask = (1 << granted.log2_bytes) - 1;
    assert_eq!(granted.address, 0x8000_5000 & !mask);

    // Stage 2 maps by pages what stage 1 maps by a block.
    let mut rig = checked(Identity::full());
    let level3 = rig.bench.frames(12);
    for page in 0..512 {
        let at = 0x8000_0000 + page * 0x1000;
        rig.bench.store(level3 + page * 8, s2_page(at));
    }
    rig.bench.store(rig.s2[3], table(level3));
    rig.bench.store(rig.s1[1], s1_block(0x8000_0000));
    rig.install(&with_eats(rig.nested(), 1));
    let granted = grant(&mut rig, read(VA));
    assert_eq!((granted.address, granted.log2_bytes), (0x8000_5000, 12));
}

#[test]
fn s1dss_1_grants_identity_to_requests_without_substream() {
    let mut rig = checked(Identity::full());
    let entry = with(with_eats(rig.stage1(), 1), 0, 63, 59, 2);
    rig.install(&with(entry, 1, 1, 0, 1));
    let granted = grant(&mut rig, write(VA));
    assert_eq!(granted.address >> 12 << 12, granted.address);
    let mask = (1_u64 << granted.log2_bytes) - 1;
    assert_eq!(granted.address, VA & !mask);
    assert!(granted.can_read && granted.can_write);
}

#[test]
fn s1dss_1_grants_stage_2_to_requests_without_substream() {
    let mut rig = checked(Identity::full());
    let entry = with(with_eats(rig.nested(), 1), 0, 63, 59, 2);
    rig.install(&with(entry, 1, 1, 0, 1));
    let granted = grant(&mut rig, write(VA));
    assert_eq!(granted.address, rig.page);
}

// Translated traffic.

#[test]
fn rec_cfg_ats_means_nothing_without_atsrecerr() {
    let mut rig = Rig::new(Identity {
        atsrecerr: false,
        ..Identity::full()
    });
    rig.set_cr2(0xa);
    rig.bench.cr0(0x1d);
    assert_eq!(ask(&rig, read(VA)), AtsAnswer::CompleterAbort);
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn a_bad_stream_of_a_request_is_recorded_only_with_recinvsid_too() {
    let mut rig = Rig::full();
    rig.set_cr2(0x8);
    rig.bench.cr0(0x1d);
    let request = Transaction {
        stream: 77,
        ..read(VA)
    };
    assert_eq!(ask(&rig, request), AtsAnswer::CompleterAbort);
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn a_request_with_substream_goes_through_its_descriptor() {
    let mut rig = checked(Identity::full());
    let (root, page) = rig.another_space(1);
    rig.put_cd(3, &with(with(rig.cd(), 1, 63, 0, root), 0, 63, 48, 9));
    rig.install(&with(with_eats(rig.stage1(), 1), 0, 63, 59, 2));
    let granted = grant(&mut rig, write(VA).with_substream(3));
    assert_eq!(granted.address, page);
}
