//! ATS: translated traffic and ATC invalidations (§3.9, §4.5.1, §5.2 EATS).

use std::sync::atomic::Ordering;

use smmu_model::bench::{Bench, SYNC};
use smmu_model::{Identity, Kind, Outcome, Transaction};

use crate::ats::{checked, full_stage1, grant, with_eats};
use crate::kit::{Device, IN, RNW, Rig, S2, SID, SID_BITS, V, VA, read, s2_page, with, write};

/// F_TRANSL_FORBIDDEN.
const FORBIDDEN: u64 = 0x07 | SID_BITS;

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
