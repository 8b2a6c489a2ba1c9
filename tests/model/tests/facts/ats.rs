//! ATS: translation requests, translated traffic, ATC invalidations (§3.9, §4.5.1, §5.2 EATS).

use std::sync::atomic::Ordering;

use smmu_model::bench::{Bench, SYNC};
use smmu_model::{AtsAnswer, AtsGrant, Faults, Fetch, Identity, Kind, Outcome, Transaction};

use crate::kit::{
    Device, IN, RNW, Rig, S2, SID, SID_BITS, V, VA, read, s1_block, s1_page, s2_page, table, with,
    write,
};

/// F_BAD_ATS_TREQ, F_TRANSL_FORBIDDEN.
const BAD_REQUEST: u64 = 0x05 | SID_BITS;
const FORBIDDEN: u64 = 0x07 | SID_BITS;
/// A rig with ATSCHK on.
fn checked(identity: Identity) -> Rig {
    let rig = Rig::new(identity);
    rig.bench.cr0(0x1d);
    rig
}

fn with_eats(entry: [u64; 8], eats: u64) -> [u64; 8] {
    with(entry, 1, 29, 28, eats)
}

/// A rig whose stream is stage 1 with full ATS.
fn full_stage1() -> Rig {
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
fn grant(rig: &mut Rig, transaction: Transaction) -> AtsGrant {
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

fn translated(address: u64) -> Transaction {
    read(address).of_kind(Kind::Translated)
}

#[test]
fn translated_traffic_is_forbidden_while_the_smmu_is_off() {
    let mut rig = full_stage1();
    rig.bench.cr0(0xc);
    let address = rig.page;
    rig.aborts(translated(address), [FORBIDDEN, RNW, address | 0x10, 0]);
}

#[test]
fn translated_traffic_passes_without_a_look_where_atschk_is_off() {
    // The stream's entry is not even valid.
    let mut rig = Rig::full();
    rig.lands(translated(rig.page));
}

#[test]
fn translated_traffic_beyond_the_output_size_is_aborted_where_atschk_is_off() {
    let mut rig = Rig::new(Identity {
        oas_bits: 40,
        ..Identity::full()
    });
    rig.aborts_silently(translated(1 << 40 | rig.page));
}

#[test]
fn translated_traffic_of_full_ats_passes() {
    let mut rig = full_stage1();
    rig.lands(translated(rig.page));
}

#[test]
fn translated_traffic_with_eats_0_is_forbidden() {
    let mut rig = checked(Identity::full());
    rig.install(&rig.stage1());
    let address = rig.page;
    rig.aborts(translated(address), [FORBIDDEN, RNW, address | 0x10, 0]);
}

#[test]
fn translated_writes_are_told_from_reads() {
    let mut rig = checked(Identity::full());
    rig.install(&rig.stage1());
    let address = rig.page;
    rig.aborts(
        write(address).of_kind(Kind::Translated),
        [FORBIDDEN, 0, address | 0x10, 0],
    );
}

#[test]
fn translated_traffic_of_a_bypassed_stream_is_forbidden() {
    let mut rig = checked(Identity::full());
    rig.install(&with_eats(rig.bypass(), 1));
    let address = rig.page;
    rig.aborts(translated(address), [FORBIDDEN, RNW, address | 0x10, 0]);
}

#[test]
fn translated_traffic_of_a_disabled_stream_is_aborted_silently() {
    let mut rig = checked(Identity::full());
    rig.install(&with(with_eats(rig.stage1(), 1), 0, 3, 1, 0));
    rig.aborts_silently(translated(rig.page));
}

#[test]
fn translated_traffic_of_a_bad_entry_is_aborted_and_recorded_only_if_asked_for() {
    let mut rig = checked(Identity::full());
    rig.aborts_silently(translated(rig.page));
    let mut rig = Rig::full();
    rig.set_cr2(0xa);
    rig.bench.cr0(0x1d);
    rig.aborts(translated(rig.page), [0x04 | SID_BITS, 0, 0, 0]);
}

#[test]
fn translated_traffic_of_split_ats_goes_through_stage_2() {
    let mut rig = checked(Identity::full());
    rig.install(&with_eats(rig.nested(), 2));
    // An intermediate address, which stage 2 maps to the page.
    rig.lands(translated(VA));
    let hole = VA + 0x2000;
    rig.aborts(
        translated(hole),
        [0x10 | SID_BITS, RNW | S2 | IN, hole | 0x10, hole],
    );
}

#[test]
fn translated_traffic_of_split_ats_is_refused_by_stage_2s_permissions() {
    let mut rig = checked(Identity::full());
    rig.bench
        .store(rig.s2[2] + 40, s2_page(rig.page) & !(2 << 6));
    rig.install(&with_eats(rig.nested(), 2));
    rig.aborts(
        write(VA).of_kind(Kind::Translated),
        [0x13 | SID_BITS, S2 | IN, VA | 0x10, VA],
    );
}

#[test]
fn translated_traffic_of_split_ats_beyond_the_intermediate_size_is_an_address_size_fault() {
    let mut rig = checked(Identity::full());
    rig.install(&with_eats(rig.nested(), 2));
    let address = 1 << 48 | VA;
    assert_eq!(rig.transact(translated(address)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[..3], [0x11 | SID_BITS, RNW | IN, address | 0x10]);
}

// ATC invalidations.

const SSV: u64 = 1 << 11;
const GLOBAL: u64 = 1 << 9;

#[test]
fn atc_inv_tells_the_device_the_span_and_the_substream() {
    let mut rig = full_stage1();
    let device = Device::behind(&rig);
    rig.bench
        .commands(&[[0x40 | SID_BITS | SSV | 0xabcde << 12, VA | 3], SYNC]);
    let got = device.take_invalidations();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].stream, SID);
    assert_eq!(got[0].substream, Some(0xabcde));
    assert!(!got[0].is_global);
    // 8 pages, aligned down.
    assert_eq!((got[0].address, got[0].log2_bytes), (0x4000_0000, 15));
}

#[test]
fn atc_inv_of_size_52_is_everything() {
    let mut rig = full_stage1();
    let device = Device::behind(&rig);
    rig.bench.commands(&[[0x40 | SID_BITS, VA | 52], SYNC]);
    let got = device.take_invalidations();
    assert_eq!((got[0].address, got[0].log2_bytes), (0, 64));
    assert_eq!(got[0].substream, None);
}

#[test]
fn atc_inv_of_size_0_is_one_page() {
    let mut rig = full_stage1();
    let device = Device::behind(&rig);
    rig.bench.commands(&[[0x40 | SID_BITS, VA], SYNC]);
    let got = device.take_invalidations();
    assert_eq!((got[0].address, got[0].log2_bytes), (VA, 12));
}

#[test]
fn atc_inv_is_global_only_with_a_substream() {
    let mut rig = full_stage1();
    let device = Device::behind(&rig);
    rig.bench.commands(&[
        [0x40 | SID_BITS | GLOBAL, 52],
        [0x40 | SID_BITS | GLOBAL | SSV | 3 << 12, 52],
        SYNC,
    ]);
    let got = device.take_invalidations();
    let globals: Vec<bool> = got.iter().map(|one| one.is_global).collect();
    assert_eq!(globals, [false, true]);
}

#[test]
fn atc_inv_is_ignored_while_the_smmu_is_off() {
    let mut rig = full_stage1();
    let device = Device::behind(&rig);
    rig.bench.cr0(0xc);
    rig.bench.commands(&[[0x40 | SID_BITS, 52], SYNC]);
    assert_eq!(device.take_invalidations(), []);
}

#[test]
fn a_sync_waits_for_the_devices_answer() {
    let mut rig = full_stage1();
    let device = Device::behind(&rig);
    device.is_slow.store(true, Ordering::Relaxed);
    rig.bench.submit(&[[0x40 | SID_BITS, 52], SYNC]);
    assert!(!rig.bench.is_idle());
    let id = device.take_invalidations()[0].id;
    rig.bench.machine.smmu(0).answer_invalidation(id);
    assert!(rig.bench.wait(Bench::is_idle));
    assert_eq!(rig.bench.read(0x60), 0);
}

#[test]
fn atc_inv_where_no_device_is_completes_without_error() {
    let mut rig = full_stage1();
    rig.bench.commands(&[[0x40 | SID_BITS, 52], SYNC]);
    assert_eq!(rig.bench.read(0x60), 0);
}

#[test]
fn a_request_caches_what_translated_traffic_of_split_ats_then_needs() {
    // Config fetched for the request is kept: the entry's V is cleared without invalidation.
    let mut rig = full_stage1();
    grant(&mut rig, read(VA));
    let word = rig
        .bench
        .machine
        .load(crate::kit::entry_address(SID))
        .expect("in memory");
    rig.bench.store(crate::kit::entry_address(SID), word & !V);
    rig.bench.publish();
    rig.lands(translated(rig.page));
    rig.bench.commands(&[[0x03 | SID_BITS, 1], SYNC]);
    rig.aborts_silently(translated(rig.page));
}

#[test]
fn a_device_that_never_answers_fails_the_sync() {
    let mut rig = full_stage1();
    let device = Device::behind(&rig);
    device.is_slow.store(true, Ordering::Relaxed);
    let at = rig.bench.read(0x9c);
    rig.bench.submit(&[[0x40 | SID_BITS, 52], SYNC]);
    // PCIe's timeout is minutes of model time.
    for _ in 0..200 {
        rig.bench.machine.advance(1_000_000);
    }
    assert_eq!(rig.bench.read(0x9c), (at + 1) | 3 << 24);
    assert_eq!(rig.bench.read(0x60) ^ rig.bench.read(0x64), 1);
    // After the acknowledgement the same SYNC completes: nothing is outstanding any more.
    rig.bench.write(0x64, rig.bench.read(0x60));
    assert!(rig.bench.wait(Bench::is_idle));
    assert_eq!(rig.bench.read(0x60) ^ rig.bench.read(0x64), 0);
}

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

/// Full ATS without substreams, on an SMMU with this PASIDTT.
fn pasidtt(pasidtt: bool) -> Rig {
    let mut rig = checked(Identity {
        pasidtt,
        ..Identity::full()
    });
    rig.install(&with_eats(rig.stage1(), 1));
    rig
}

#[test]
fn a_substream_of_translated_traffic_is_ignored_without_pasidtt() {
    let mut rig = pasidtt(false);
    rig.lands(translated(rig.page).with_substream(3));
}

#[test]
fn a_substream_of_translated_traffic_is_checked_with_pasidtt() {
    let mut rig = pasidtt(true);
    rig.lands(translated(rig.page));
    let outcome = rig.transact(translated(rig.page).with_substream(3));
    assert_eq!(outcome, Outcome::Aborted);
}
