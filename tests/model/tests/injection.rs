//! What the DMA device is for besides DMA: faults put into its SMMU, the port above it, marks.

use std::sync::Arc;

use smmu_model::bench::{Bench, SYNC, s2_page, ste_stage2, table};
use smmu_model::device::{Device, End, Mark, MarkKind, Wiring, frame};
use smmu_model::{Identity, Mode, offset};

const STREAM: u32 = 3;
const IPA: u64 = 0x4000_0000;

/// A bench whose stream 3 sees a page at [`IPA`], and the device of that stream.
fn bench() -> (Bench, Arc<Device>, u64) {
    let mut bench = Bench::up(Identity::full(), Mode::Polite);
    let (root, level2, level3, page) = (
        bench.frames(12),
        bench.frames(12),
        bench.frames(12),
        bench.frames(12),
    );
    bench.store(root + 8, table(level2));
    bench.store(level2, table(level3));
    bench.store(level3, s2_page(page));
    bench.publish_ste(STREAM, &ste_stage2(7, root));
    let device = Device::new(bench.machine.smmu(0), Wiring::full(STREAM));
    device.write32(frame::CONTROL, frame::control::ENABLE);
    device.write64(frame::IOVA, IPA);
    device.write32(frame::LENGTH, 8);
    device.write32(frame::FLAGS, frame::flags::WRITE);
    (bench, device, page)
}

fn put_in(device: &Device, kind: u32, skip: u32) {
    device.write32(frame::SMMU_FAULT_SKIP, skip);
    device.write32(frame::SMMU_FAULT, kind);
}

/// Whether a SYNC that is submitted now completes within `us`.
fn syncs_within(bench: &mut Bench, us: u64) -> bool {
    bench.submit(&[SYNC]);
    bench.machine.advance(us);
    bench.is_idle()
}

#[test]
fn no_sync_completes_from_the_one_that_was_named_on_until_the_fault_is_taken_out() {
    let (mut bench, device, _) = bench();
    put_in(&device, frame::smmu_fault::SYNC_NEVER, 2);
    assert_eq!(device.read32(frame::SMMU_FAULT), 1);
    assert!(syncs_within(&mut bench, 50));
    assert!(syncs_within(&mut bench, 50));
    assert!(!syncs_within(&mut bench, 1_000_000));
    device.write32(frame::COMMAND, frame::command::RESET);
    assert_eq!(device.read32(frame::SMMU_FAULT), 1, "a reset keeps it");
    put_in(&device, frame::smmu_fault::NONE, 0);
    bench.machine.advance(50);
    assert!(bench.is_idle());
    bench.assert_clean();
}

#[test]
fn as_many_syncs_are_late_as_were_named() {
    let (mut bench, device, _) = bench();
    device.write32(frame::SMMU_FAULT_US, 500);
    device.write32(frame::SMMU_FAULT_COUNT, 1);
    put_in(&device, frame::smmu_fault::SYNC_LATE, 1);
    assert!(syncs_within(&mut bench, 50));
    assert!(!syncs_within(&mut bench, 499));
    bench.machine.advance(50);
    assert!(bench.is_idle());
    assert!(syncs_within(&mut bench, 50));
    bench.assert_clean();
}

#[test]
fn an_smmu_stops_and_its_queue_stops() {
    let (mut bench, device, page) = bench();
    put_in(&device, frame::smmu_fault::QUEUE_ABORT, 1);
    bench.commands(&[SYNC]);
    bench.submit(&[SYNC]);
    bench.machine.advance(50);
    // CERROR_ABT, and GERROR.CMDQ_ERR.
    assert_eq!(bench.read(offset::CMDQ_CONS) >> 24, 2);
    assert_eq!(bench.read(offset::GERROR) & 1, 1);
    put_in(&device, frame::smmu_fault::STOP, 0);
    assert_eq!(bench.read(offset::GERROR) >> 8 & 1, 1);
    device.write64(frame::PATTERN, u64::MAX);
    device.write32(frame::COMMAND, frame::command::START);
    assert_eq!(device.read32(frame::LAST_END), End::Aborted as u32);
    assert_eq!(bench.machine.load(page), Ok(0));
}

#[test]
fn records_of_events_abort() {
    let (mut bench, device, _) = bench();
    put_in(&device, frame::smmu_fault::EVENT_ABORT, 0);
    device.write64(frame::IOVA, IPA + 0x10_0000);
    device.write32(frame::COMMAND, frame::command::START);
    bench.machine.advance(50);
    // EVENTQ_ABT_ERR.
    assert_eq!(bench.read(offset::GERROR) >> 2 & 1, 1);
    assert_eq!(bench.next_raw_event(), None);
}

#[test]
fn a_closed_port_lets_nothing_through_whatever_the_device_is_told() {
    let (bench, device, page) = bench();
    device.write32(frame::PORT, frame::port::CLOSED);
    device.write64(frame::PATTERN, u64::MAX);
    let mark = bench.machine.record().mark();
    let fires = |device: &Device| {
        device.write32(frame::CONTROL, frame::control::ALL);
        device.write64(frame::IOVA, IPA);
        device.write32(frame::LENGTH, 8);
        device.write32(frame::FLAGS, frame::flags::WRITE);
        device.write64(frame::PATTERN, u64::MAX);
        device.write32(frame::COMMAND, frame::command::START);
        device.read32(frame::LAST_END)
    };
    // Without ATS and with it; neither enables nor a reset open the port.
    device.write32(frame::COMMAND, frame::command::START);
    assert_eq!(device.read32(frame::LAST_END), End::Aborted as u32);
    assert_eq!(fires(&device), End::Aborted as u32);
    device.write32(frame::COMMAND, frame::command::TRANSLATE);
    assert_eq!(device.read32(frame::ATC_ENTRIES), 0);
    device.write32(frame::COMMAND, frame::command::RESET);
    assert_eq!(fires(&device), End::Aborted as u32);
    assert!(bench.machine.record().landed_since(mark).is_empty());
    let shown = |at: u64| {
        let mut found = None;
        device.export(|offset, value| found = found.or((offset == at).then_some(value)));
        found
    };
    assert_eq!(shown(frame::PORT), Some(1));
    device.write32(frame::PORT, 0);
    device.write32(frame::CONTROL, frame::control::ENABLE);
    device.write32(frame::COMMAND, frame::command::START);
    assert_eq!(bench.machine.load(page), Ok(u64::MAX));
}

#[test]
fn marks_tell_what_was_tried_by_then_with_their_pasid() {
    let (_bench, device, _) = bench();
    let with = |pasid: u32| frame::witness::WITH_PASID | pasid;
    device.write32(frame::STORY, 7);
    device.write32(frame::PASID, 5 | 1 << 31);
    device.write32(frame::SHOTS, 3);
    device.write32(frame::COMMAND, frame::command::START);
    device.write32(frame::WITNESS, with(5) | frame::witness::BEGIN);
    device.write32(frame::WITNESS, frame::witness::BEGIN);
    device.write32(frame::COMMAND, frame::command::START);
    device.write32(frame::COMMAND, frame::command::RESET);
    device.write32(frame::WITNESS, with(5));
    let mark = |kind, pasid, tried| Mark {
        kind,
        story: 7,
        pasid,
        tried,
    };
    let marks = [
        mark(MarkKind::Begin, Some(5), 3),
        mark(MarkKind::Begin, None, 0),
        mark(MarkKind::End, Some(5), 6),
    ];
    assert_eq!(device.take_marks(), marks);
    assert_eq!(device.take_marks(), []);
    assert_eq!((device.tried(Some(5)), device.tried(Some(6))), (6, 0));
}
