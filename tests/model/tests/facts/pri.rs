//! The PRI queue and page request responses (§8, §4.5.2).

use smmu_model::bench::{PRIQ, PRIQ_LOG2, SYNC};
use smmu_model::{
    Barrier, Faults, Fetch, Identity, Interrupt, Line, PageRequest, PageResponse, ResponseCode,
    offset,
};

use crate::kit::{Device, Rig, SID, SID_BITS, with};

/// A rig with the PRI queue on, and a device behind its stream.
fn rig_of(identity: Identity) -> (Rig, std::sync::Arc<Device>) {
    with_queue(Rig::new(identity))
}

fn with_queue(rig: Rig) -> (Rig, std::sync::Arc<Device>) {
    rig.bench
        .write64(offset::PRIQ_BASE, PRIQ | u64::from(PRIQ_LOG2));
    rig.bench.write(offset::PRIQ_PROD, 0);
    rig.bench.write(offset::PRIQ_CONS, 0);
    rig.bench.cr0(0xf);
    let device = Device::behind(&rig);
    (rig, device)
}

fn rig() -> (Rig, std::sync::Arc<Device>) {
    rig_of(Identity::full())
}

/// A read request, last of its group, without SubstreamID.
const fn request(group: u16) -> PageRequest {
    PageRequest {
        stream: SID,
        substream: None,
        address: 0x7f_1234_5000,
        group,
        wants_read: true,
        wants_write: false,
        wants_execute: false,
        is_privileged: false,
        is_last: true,
    }
}

fn ask(rig: &Rig, request: PageRequest) {
    rig.bench.machine.smmu(0).page_request(request);
}

fn record(rig: &Rig, index: u64) -> [u64; 2] {
    rig.bench.machine.barrier(Barrier::Observe);
    [0, 8].map(|byte| {
        rig.bench
            .machine
            .load(PRIQ + index * 16 + byte)
            .expect("in memory")
    })
}

fn response(group: u16, substream: Option<u32>, code: ResponseCode) -> PageResponse {
    PageResponse {
        stream: SID,
        substream,
        group,
        code,
        is_automatic: true,
    }
}

#[test]
fn a_request_is_recorded_with_every_field_in_its_place() {
    let (rig, device) = rig();
    ask(
        &rig,
        PageRequest {
            stream: SID,
            substream: Some(0x9_8765),
            address: 0xfedc_ba98_7654_3000,
            group: 0x1a5,
            wants_read: false,
            wants_write: true,
            wants_execute: true,
            is_privileged: true,
            is_last: true,
        },
    );
    // SSV, Last, W, X, Priv; SSID; SID. Address; PRGIndex.
    assert_eq!(
        record(&rig, 0),
        [
            1 << 63 | 1 << 62 | 1 << 61 | 1 << 59 | 1 << 58 | 0x9_8765 << 32 | 5,
            0xfedc_ba98_7654_31a5
        ]
    );
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 1);
    assert_eq!(device.take_responses(), []);
}

#[test]
fn a_read_request_has_its_bit_and_last_may_be_clear() {
    let (rig, _) = rig();
    ask(
        &rig,
        PageRequest {
            is_last: false,
            ..request(3)
        },
    );
    assert_eq!(record(&rig, 0)[0], 1 << 60 | 5);
}

#[test]
fn without_substream_execute_and_privilege_are_zero() {
    let (rig, _) = rig();
    ask(
        &rig,
        PageRequest {
            wants_execute: true,
            is_privileged: true,
            ..request(3)
        },
    );
    assert_eq!(record(&rig, 0)[0], 1 << 62 | 1 << 60 | 5);
}

#[test]
fn a_stop_marker_is_recorded() {
    let (rig, device) = rig();
    ask(&rig, marker());
    assert_eq!(record(&rig, 0)[0], 1 << 63 | 1 << 62 | 7 << 32 | 5);
    assert_eq!(device.take_responses(), []);
}

const fn marker() -> PageRequest {
    PageRequest {
        substream: Some(7),
        wants_read: false,
        ..request(0)
    }
}

#[test]
fn requests_are_taken_whatever_the_entry_and_atschk_say() {
    // The entry is not even valid.
    let (rig, _) = rig();
    rig.bench.cr0(0x1f);
    ask(&rig, request(1));
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 1);
}

#[test]
fn a_request_fails_while_the_queue_is_off() {
    let (rig, device) = rig();
    rig.bench.cr0(0xd);
    ask(&rig, request(1));
    assert_eq!(
        device.take_responses(),
        [response(1, None, ResponseCode::Failure)]
    );
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 0);
}

#[test]
fn every_request_fails_while_the_queue_is_off_last_or_not() {
    let (rig, device) = rig();
    rig.bench.cr0(0xd);
    ask(
        &rig,
        PageRequest {
            is_last: false,
            ..request(1)
        },
    );
    assert_eq!(device.take_responses().len(), 1);
}

#[test]
fn a_failing_answer_has_no_substream() {
    let (rig, device) = rig_of(Identity {
        pps: true,
        ..Identity::full()
    });
    rig.bench.cr0(0xd);
    ask(
        &rig,
        PageRequest {
            substream: Some(7),
            ..request(1)
        },
    );
    assert_eq!(
        device.take_responses(),
        [response(1, None, ResponseCode::Failure)]
    );
}

#[test]
fn a_request_fails_while_the_smmu_is_off() {
    let (rig, device) = rig();
    rig.bench.cr0(0xe);
    ask(&rig, request(1));
    assert_eq!(
        device.take_responses(),
        [response(1, None, ResponseCode::Failure)]
    );
}

#[test]
fn a_stop_marker_is_never_answered() {
    let (rig, device) = rig();
    rig.bench.cr0(0xd);
    ask(&rig, marker());
    assert_eq!(device.take_responses(), []);
}

#[test]
fn a_request_that_looks_like_a_marker_but_has_no_substream_is_answered() {
    let (rig, device) = rig();
    rig.bench.cr0(0xd);
    ask(
        &rig,
        PageRequest {
            wants_read: false,
            ..request(2)
        },
    );
    assert_eq!(device.take_responses().len(), 1);
}

/// Fills the queue's 32 entries.
fn fill(rig: &Rig) {
    for group in 0..32 {
        ask(
            rig,
            PageRequest {
                is_last: false,
                ..request(group)
            },
        );
    }
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 32);
}

#[test]
fn overflow_toggles_the_flag_and_answers_the_last_of_a_group() {
    let (mut rig, device) = rig();
    rig.install(&rig.stage1());
    fill(&rig);
    ask(&rig, request(40));
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 1 << 31 | 32);
    assert_eq!(
        device.take_responses(),
        [response(40, None, ResponseCode::Success)]
    );
}

#[test]
fn overflow_drops_what_is_not_last_without_an_answer() {
    let (rig, device) = rig();
    fill(&rig);
    ask(
        &rig,
        PageRequest {
            is_last: false,
            ..request(40)
        },
    );
    ask(&rig, marker());
    assert_eq!(device.take_responses(), []);
}

#[test]
fn nothing_is_written_until_overflow_is_acknowledged() {
    let (mut rig, _) = rig();
    rig.install(&rig.stage1());
    fill(&rig);
    ask(&rig, request(40));
    rig.bench.machine.barrier(Barrier::Observe);
    rig.bench.machine.barrier(Barrier::Release);
    rig.bench.write(offset::PRIQ_CONS, 4);
    ask(&rig, request(41));
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 1 << 31 | 32);
    rig.bench.write(offset::PRIQ_CONS, 1 << 31 | 4);
    ask(&rig, request(42));
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 1 << 31 | 33);
    assert_eq!(record(&rig, 0)[1] & 0x1ff, 42);
}

#[test]
fn an_overflow_answer_without_substream_succeeds_even_with_a_bad_entry() {
    let (rig, device) = rig();
    fill(&rig);
    ask(&rig, request(40));
    assert_eq!(
        device.take_responses(),
        [response(40, None, ResponseCode::Success)]
    );
}

#[test]
fn an_overflow_answer_has_the_substream_with_pps() {
    // STE.PPAR is not looked at: the entry is not valid.
    let (rig, device) = rig_of(Identity {
        pps: true,
        ..Identity::full()
    });
    fill(&rig);
    ask(
        &rig,
        PageRequest {
            substream: Some(7),
            ..request(40)
        },
    );
    assert_eq!(
        device.take_responses(),
        [response(40, Some(7), ResponseCode::Success)]
    );
}

#[test]
fn an_overflow_answer_has_the_substream_if_ppar_says_so() {
    for (ppar, substream) in [(0, None), (1, Some(7))] {
        let (mut rig, device) = rig();
        rig.install(&with(rig.stage1(), 1, 18, 18, ppar));
        fill(&rig);
        ask(
            &rig,
            PageRequest {
                substream: Some(7),
                ..request(40)
            },
        );
        assert_eq!(
            device.take_responses(),
            [response(40, substream, ResponseCode::Success)]
        );
    }
}

#[test]
fn an_overflow_answer_with_substream_fails_where_the_entry_is_bad() {
    let (mut rig, device) = rig();
    fill(&rig);
    ask(
        &rig,
        PageRequest {
            substream: Some(7),
            ..request(40)
        },
    );
    assert_eq!(
        device.take_responses(),
        [response(40, None, ResponseCode::Failure)]
    );
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn a_bad_entry_behind_an_overflow_answer_is_recorded_if_asked_for() {
    let mut rig = Rig::full();
    rig.set_cr2(0xa);
    let (mut rig, _) = with_queue(rig);
    fill(&rig);
    ask(
        &rig,
        PageRequest {
            substream: Some(7),
            ..request(40)
        },
    );
    rig.recorded([0x04 | 1 << 11 | 7 << 12 | SID_BITS, 0, 0, 0]);
}

#[test]
fn an_abort_of_a_record_is_a_global_error_and_requests_fail_until_it_is_acknowledged() {
    let (rig, device) = rig();
    rig.bench.machine.smmu(0).set_faults(Faults {
        aborts: vec![Fetch::PageRequest],
        ..Faults::default()
    });
    ask(&rig, request(1));
    assert_eq!(rig.bench.read(0x60) ^ rig.bench.read(0x64), 1 << 3);
    rig.bench.machine.smmu(0).set_faults(Faults::default());
    device.take_responses();
    ask(&rig, request(2));
    assert_eq!(
        device.take_responses(),
        [response(2, None, ResponseCode::Failure)]
    );
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 0);
    rig.bench.write(0x64, rig.bench.read(0x60));
    ask(&rig, request(3));
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 1);
}

#[test]
fn cmd_pri_resp_sends_each_code() {
    let codes = [
        (0, ResponseCode::Failure),
        (1, ResponseCode::InvalidRequest),
        (2, ResponseCode::Success),
    ];
    for (number, code) in codes {
        let (mut rig, device) = rig();
        rig.bench.commands(&[
            [
                0x41 | SID_BITS | 1 << 11 | 0x12345 << 12,
                number << 12 | 0x1ab,
            ],
            SYNC,
        ]);
        assert_eq!(
            device.take_responses(),
            [PageResponse {
                stream: SID,
                substream: Some(0x12345),
                group: 0x1ab,
                code,
                is_automatic: false,
            }]
        );
    }
}

#[test]
fn cmd_pri_resp_is_ignored_while_the_smmu_is_off() {
    let (mut rig, device) = rig();
    rig.bench.cr0(0xc);
    rig.bench.commands(&[[0x41 | SID_BITS, 2 << 12], SYNC]);
    assert_eq!(device.take_responses(), []);
}

#[test]
fn an_smmu_without_pri_takes_no_requests() {
    let rig = Rig::new(Identity {
        pri: false,
        ..Identity::full()
    });
    let device = Device::behind(&rig);
    ask(&rig, request(1));
    assert_eq!(device.take_responses(), []);
    assert_eq!(rig.bench.read(offset::PRIQ_PROD), 0);
}

/// How often the PRI queue's wire pulsed.
fn pulses(rig: &Rig) -> usize {
    let interrupts = rig.bench.machine.smmu(0).take_interrupts();
    interrupts
        .iter()
        .filter(|&&one| one == Interrupt::Wired(Line::PriQueue))
        .count()
}

#[test]
fn the_pri_interrupt_comes_when_the_queue_becomes_non_empty() {
    let (rig, _) = rig();
    rig.bench.write(0x50, 0x2);
    rig.bench.wait(|bench| bench.read(0x54) == 0x2);
    ask(&rig, request(1));
    assert_eq!(pulses(&rig), 1);
    ask(&rig, request(2));
    assert_eq!(pulses(&rig), 0);
}

#[test]
fn the_pri_interrupt_can_wait_for_the_last_of_a_group() {
    let (rig, _) = rig();
    rig.bench.write(0xdc, 1 << 31);
    rig.bench.write(0x50, 0x2);
    rig.bench.wait(|bench| bench.read(0x54) == 0x2);
    let first = PageRequest {
        is_last: false,
        ..request(1)
    };
    ask(&rig, first);
    assert_eq!(pulses(&rig), 0);
    ask(&rig, request(1));
    assert_eq!(pulses(&rig), 1);
    ask(&rig, request(2));
    assert_eq!(pulses(&rig), 1);
}
