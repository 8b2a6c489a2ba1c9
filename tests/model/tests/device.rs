//! The DMA device, by its register frame alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use smmu_model::bench::{self, Bench, SYNC, s2_page, ste_stage1, ste_stage2, table};
use smmu_model::device::{Device, End, Wiring, frame};
use smmu_model::{Identity, Mode};

const STREAM: u32 = 3;
const IPA: u64 = 0x4000_0000;

/// A bench whose stream 3 sees four pages from [`IPA`] on.
fn bench() -> (Bench, u64) {
    let mut bench = Bench::up(Identity::full(), Mode::Polite);
    let root = bench.frames(12);
    let level2 = bench.frames(12);
    let level3 = bench.frames(12);
    let pages = bench.frames(14);
    bench.store(root + 8, table(level2));
    bench.store(level2, table(level3));
    for page in 0..4 {
        bench.store(level3 + 8 * page, s2_page(pages + 0x1000 * page));
    }
    bench.publish_ste(STREAM, &ste_stage2(7, root));
    (bench, pages)
}

fn device(bench: &Bench) -> Arc<Device> {
    let device = Device::new(bench.machine.smmu(0), Wiring::full(STREAM));
    device.write32(frame::CONTROL, frame::control::ENABLE);
    device
}

fn job(device: &Device, iova: u64, length: u32, flags: u32) {
    device.write64(frame::IOVA, iova);
    device.write32(frame::LENGTH, length);
    device.write32(frame::FLAGS, flags);
    device.write32(frame::COMMAND, frame::command::START);
}

#[test]
fn a_device_that_is_not_enabled_refuses_its_job() {
    let (bench, pages) = bench();
    let device = Device::new(bench.machine.smmu(0), Wiring::plain(STREAM));
    device.write64(frame::PATTERN, u64::MAX);
    job(&device, IPA, 8, frame::flags::WRITE);
    assert_eq!(device.read32(frame::STATUS), frame::status::REFUSED);
    assert_eq!(device.read32(frame::LAST_END), End::None as u32);
    assert_eq!(bench.machine.load(pages), Ok(0));
}

#[test]
fn a_small_write_lands_byte_for_byte_and_is_logged() {
    let (bench, pages) = bench();
    let device = device(&bench);
    device.write64(frame::PATTERN, 0x8877_6655_4433_2211);
    job(&device, IPA + 0x2003, 3, frame::flags::WRITE);
    assert_eq!(
        bench.machine.load(pages + 0x2000),
        Ok(0x0000_3322_1100_0000)
    );
    assert_eq!(device.read32(frame::LANDED), 1);
    assert_eq!(device.read64(frame::LOG), IPA + 0x2003);
    assert_eq!(device.read64(frame::LOG + 8), pages + 0x2003);
    assert_eq!(device.read64(frame::LOG + 16), 3 | 1 << 53);
    bench.assert_clean();
}

#[test]
fn a_large_transfer_is_split_at_pages_and_keeps_its_bytes_in_order() {
    let (bench, pages) = bench();
    let device = device(&bench);
    for word in 0..512 {
        device.write64(frame::BUFFER + 8 * word, word << 32 | 0xabcd);
    }
    let from_buffer = frame::flags::WRITE | frame::flags::FROM_BUFFER;
    job(&device, IPA + 0x800, 0x2000, from_buffer);
    assert_eq!(device.read32(frame::DONE), 3);
    assert_eq!(bench.machine.load(pages + 0x7f8), Ok(0));
    assert_eq!(bench.machine.load(pages + 0x800), Ok(0xabcd));
    assert_eq!(bench.machine.load(pages + 0x1000), Ok(256 << 32 | 0xabcd));
    assert_eq!(bench.machine.load(pages + 0x27f8), Ok(511 << 32 | 0xabcd));
    assert_eq!(bench.machine.load(pages + 0x2800), Ok(0));
    bench.assert_clean();
}

#[test]
fn a_read_fills_the_buffer() {
    let (bench, pages) = bench();
    bench.store(pages + 0x1ff8, 0x0102_0304_0506_0708);
    bench.store(pages + 0x2000, 0x1112_1314_1516_1718);
    bench.publish();
    let device = device(&bench);
    job(&device, IPA + 0x1ff8, 16, 0);
    assert_eq!(device.read64(frame::BUFFER), 0x0102_0304_0506_0708);
    assert_eq!(device.read64(frame::BUFFER + 8), 0x1112_1314_1516_1718);
}

#[test]
fn a_burst_strides_through_memory_and_counts_what_aborts() {
    let (mut bench, pages) = bench();
    let device = device(&bench);
    device.write64(frame::PATTERN, 5);
    device.write32(frame::SHOTS, 6);
    device.write64(frame::STRIDE, 0x1000);
    job(&device, IPA, 8, frame::flags::WRITE);
    assert_eq!(device.read32(frame::DONE), 4);
    assert_eq!(device.read32(frame::ABORTED), 2);
    assert_eq!(device.read32(frame::LAST_END), End::Aborted as u32);
    assert_eq!(device.read64(frame::LAST_IOVA), IPA + 0x5000);
    for page in 0..4 {
        assert_eq!(bench.machine.load(pages + page * 0x1000), Ok(5));
    }
    let addresses = [bench.next_raw_event(), bench.next_raw_event()].map(|event| event.unwrap()[2]);
    assert_eq!(addresses, [IPA + 0x4000, IPA + 0x5000]);
}

#[test]
fn a_repeating_job_fires_at_every_tick_until_it_is_stopped() {
    let (bench, _) = bench();
    let device = device(&bench);
    device.write32(frame::RATE, 3);
    job(&device, IPA, 8, frame::flags::REPEAT);
    assert_eq!(device.read32(frame::DONE), 0);
    assert_eq!(device.read32(frame::STATUS), frame::status::BUSY);
    device.tick(1);
    device.tick(2);
    assert_eq!(device.read32(frame::DONE), 6);
    device.write32(frame::COMMAND, frame::command::STOP);
    device.tick(3);
    assert_eq!(device.read32(frame::DONE), 6);
    assert_eq!(device.read32(frame::STATUS), 0);
}

#[test]
fn a_reset_takes_its_time_and_leaves_nothing_of_the_job() {
    let (bench, _) = bench();
    let device = device(&bench);
    device.write32(frame::RESET_US, 10);
    job(&device, IPA, 8, frame::flags::REPEAT);
    device.tick(5);
    device.write32(frame::COMMAND, frame::command::RESET);
    assert_eq!(device.read32(frame::STATUS), frame::status::RESETTING);
    job(&device, IPA, 8, 0);
    assert_eq!(
        device.read32(frame::STATUS),
        frame::status::RESETTING | frame::status::REFUSED
    );
    device.tick(15);
    assert_eq!(device.read32(frame::STATUS), frame::status::REFUSED);
    assert_eq!(device.read32(frame::DONE), 0);
    assert_eq!(device.read32(frame::CONTROL), 0);
    assert_eq!(device.read32(frame::RESET_US), 10);
}

#[test]
fn a_reset_may_never_end() {
    let (bench, _) = bench();
    let device = device(&bench);
    device.write32(frame::RESET_US, u32::MAX);
    device.write32(frame::COMMAND, frame::command::RESET);
    device.tick(u64::MAX - 1);
    assert_eq!(device.read32(frame::STATUS), frame::status::RESETTING);
    // Until it is told otherwise.
    device.write32(frame::RESET_US, 0);
    assert_eq!(device.read32(frame::STATUS), 0);
}

#[test]
fn a_device_never_issues_a_pasid_that_it_has_no_bits_for() {
    let (bench, _) = bench();
    let wiring = Wiring {
        pasid_bits: 4,
        ..Wiring::full(STREAM)
    };
    let device = Device::new(bench.machine.smmu(0), wiring);
    device.write32(frame::CONTROL, frame::control::ENABLE);
    let mark = bench.machine.record().mark();
    device.write32(frame::PASID, 1 << 31 | 16);
    job(&device, IPA, 8, 0);
    assert_eq!(device.read32(frame::STATUS), frame::status::REFUSED);
    assert!(bench.machine.record().landed_since(mark).is_empty());
    // 15 fits; a stage-2-only stream refuses every PASID.
    device.write32(frame::PASID, 1 << 31 | 15);
    job(&device, IPA, 8, 0);
    assert_eq!(device.read32(frame::ABORTED), 1);
}

#[test]
fn enables_that_the_wiring_does_not_have_stay_off() {
    let (bench, _) = bench();
    let device = Device::new(bench.machine.smmu(0), Wiring::plain(STREAM));
    device.write32(frame::CONTROL, u32::MAX);
    assert_eq!(device.read32(frame::CONTROL), frame::control::ENABLE);
    assert_eq!(device.read32(frame::FEATURES), 0);
    let full = Device::new(bench.machine.smmu(0), Wiring::full(STREAM));
    full.write32(frame::CONTROL, u32::MAX);
    assert_eq!(full.read32(frame::CONTROL), frame::control::ALL);
    assert_eq!(full.read32(frame::FEATURES), 3 | 20 << 8);
}

/// A plain memory behind the frame, as an emulator has it: the store lands first, then the device
/// is told, then it says what memory must hold.
struct Noticed {
    device: Arc<Device>,
    memory: BTreeMap<u64, u64>,
}

impl Noticed {
    fn store64(&mut self, offset: u64, value: u64) {
        self.memory.insert(offset, value);
        self.device.write64(offset, value);
        let memory = &mut self.memory;
        self.device.export(|offset, value| {
            memory.insert(offset, value);
        });
    }

    fn load(&self, offset: u64) -> u64 {
        self.memory.get(&offset).copied().unwrap_or(0)
    }
}

#[test]
fn a_frame_whose_stores_are_noticed_after_the_fact_reads_as_the_device() {
    let (bench, pages) = bench();
    bench.store(pages + 0x10, 0x99);
    bench.publish();
    let device = Device::new(bench.machine.smmu(0), Wiring::plain(STREAM));
    let mut noticed = Noticed {
        device: Arc::clone(&device),
        memory: BTreeMap::new(),
    };
    noticed.store64(frame::ID, u64::MAX);
    assert_eq!(noticed.load(frame::ID), u64::from(frame::ID_VALUE));
    noticed.store64(frame::LOG, u64::MAX);
    assert_eq!(noticed.load(frame::LOG), 0);
    noticed.store64(0x800, 7);
    assert_eq!(noticed.load(0x800), 0);
    noticed.store64(frame::CONTROL, u64::from(frame::control::ENABLE));
    noticed.store64(frame::IOVA, IPA + 0x10);
    noticed.store64(frame::PASID, 8 << 32);
    noticed.store64(frame::COMMAND, u64::from(frame::command::START));
    assert_eq!(noticed.load(frame::COMMAND), 0);
    assert_eq!(noticed.load(frame::BUFFER), 0x99);
    assert_eq!(noticed.load(frame::LOG), IPA + 0x10);
    assert_eq!(noticed.load(frame::DONE), 1);
}

// The ATC.

const VA: u64 = 0x7000;
const PASID: u32 = 9;

/// A bench whose stream 3 has one space as PASID 9, pages from [`VA`] on, and full ATS; the second
/// page is read-only. Gives the pages and the last-level table.
fn bench_with_ats() -> (Bench, u64, u64) {
    let mut bench = Bench::up(Identity::full(), Mode::Polite);
    // ATSCHK.
    bench.cr0(0x1d);
    let contexts = bench.frames(12);
    let root = bench.frames(12);
    let pages = bench.frames(13);
    bench.map1(root, VA, pages);
    bench.map1(root, VA + 0x1000, pages + 0x1000);
    let leaf = bench.leaf(root, VA);
    // AP[2].
    let read_only = bench::s1_page(pages + 0x1000) | 1 << 7;
    bench.store(leaf + 8, read_only);
    bench.publish();
    let mut ste = ste_stage1(7, contexts, 4);
    // EATS = 1.
    ste[1] |= 1 << 28;
    bench.publish_ste(STREAM, &ste);
    let at = contexts + u64::from(PASID) * 64;
    bench.publish_cd(STREAM, PASID, at, &bench::cd(1, root));
    (bench, pages, leaf)
}

fn device_with_ats(bench: &Bench) -> Arc<Device> {
    let device = device(bench);
    device.write32(frame::CONTROL, frame::control::ENABLE | frame::control::ATS);
    device.write32(frame::PASID, 1 << 31 | PASID);
    device
}

/// CMD_ATC_INV of everything of a PASID.
fn atc_inv(pasid: u32) -> [u64; 2] {
    [
        0x40 | 1 << 11 | u64::from(pasid) << 12 | u64::from(STREAM) << 32,
        52,
    ]
}

#[test]
fn an_atc_keeps_a_translation_until_it_is_invalidated() {
    let (mut bench, pages, leaf) = bench_with_ats();
    let device = device_with_ats(&bench);
    job(&device, VA, 8, frame::flags::WRITE);
    assert_eq!(device.read32(frame::ATC_ENTRIES), 1);
    assert_eq!(device.read32(frame::ATC_HITS), 0);
    // Logged as translated, with its PASID.
    assert_eq!(device.read64(frame::LOG + 8), pages);
    assert_eq!(
        device.read64(frame::LOG + 16),
        8 | u64::from(PASID) << 32 | 7 << 52
    );
    // The TLB is told, the ATC is not.
    bench.store(leaf, 0);
    bench.publish();
    bench.commands(&[bench::nh_all(7), SYNC]);
    job(&device, VA, 8, frame::flags::WRITE);
    assert_eq!(device.read32(frame::ATC_HITS), 1);
    assert_eq!(device.read32(frame::DONE), 2);
    bench.commands(&[atc_inv(PASID), SYNC]);
    assert_eq!(device.read32(frame::INVALIDATIONS), 1);
    assert_eq!(device.read32(frame::ATC_ENTRIES), 0);
    job(&device, VA, 8, frame::flags::WRITE);
    assert_eq!(device.read32(frame::LAST_END), End::NotGranted as u32);
    assert_eq!(device.read32(frame::UNTRANSLATED), 1);
    bench.assert_clean();
}

#[test]
fn an_atc_uses_no_more_than_it_was_granted() {
    let (mut bench, _, _) = bench_with_ats();
    let device = device_with_ats(&bench);
    job(&device, VA + 0x1000, 8, 0);
    assert_eq!(device.read32(frame::LAST_END), End::Done as u32);
    job(&device, VA + 0x1000, 8, frame::flags::WRITE);
    assert_eq!(device.read32(frame::LAST_END), End::NotGranted as u32);
    // A translation that was asked for reading is asked for again to write.
    job(&device, VA, 8, 0);
    job(&device, VA, 8, frame::flags::WRITE);
    assert_eq!(device.read32(frame::LAST_END), End::Done as u32);
    // No faults: translation requests record none.
    assert_eq!(bench.next_raw_event(), None);
}

#[test]
fn a_translation_can_be_asked_for_without_an_access() {
    let (bench, _, _) = bench_with_ats();
    let device = device_with_ats(&bench);
    device.write64(frame::IOVA, VA);
    device.write32(frame::COMMAND, frame::command::TRANSLATE);
    assert_eq!(device.read32(frame::ATC_ENTRIES), 1);
    assert_eq!(device.read32(frame::DONE), 0);
    device.write32(frame::COMMAND, frame::command::RESET);
    assert_eq!(device.read32(frame::ATC_ENTRIES), 0);
    device.write32(frame::COMMAND, frame::command::TRANSLATE);
    assert_eq!(device.read32(frame::STATUS), frame::status::REFUSED);
}

#[test]
fn a_stream_without_ats_answers_unsupported_and_nothing_is_issued() {
    let (mut bench, pages) = bench();
    let device = device_with_ats(&bench);
    device.write32(frame::PASID, 0);
    let mark = bench.machine.record().mark();
    job(&device, IPA, 8, frame::flags::WRITE);
    assert_eq!(
        device.read32(frame::LAST_END),
        End::UnsupportedRequest as u32
    );
    assert!(bench.machine.record().landed_since(mark).is_empty());
    assert_eq!(bench.machine.load(pages), Ok(0));
    // F_BAD_ATS_TREQ.
    assert_eq!(
        bench.next_raw_event().map(|event| event[0] & 0xff),
        Some(0x05)
    );
}

#[test]
fn an_eager_device_asks_again_for_what_was_invalidated() {
    let (mut bench, _, leaf) = bench_with_ats();
    let device = device_with_ats(&bench);
    use frame::control::{ATS, EAGER, ENABLE};
    device.write32(frame::CONTROL, ENABLE | ATS | EAGER);
    job(&device, VA, 8, frame::flags::WRITE);
    bench.commands(&[atc_inv(PASID), SYNC]);
    assert_eq!(device.read32(frame::INVALIDATIONS), 1);
    assert_eq!(device.read32(frame::ATC_ENTRIES), 1);
    bench.store(leaf, 0);
    bench.publish();
    bench.commands(&[bench::nh_all(7), SYNC, atc_inv(PASID), SYNC]);
    assert_eq!(device.read32(frame::ATC_ENTRIES), 0);
    bench.assert_clean();
}

#[test]
fn every_misconduct_can_be_chosen_by_a_store() {
    let (mut bench, _, _) = bench_with_ats();
    let device = device_with_ats(&bench);
    job(&device, VA, 8, 0);
    // Unsupported, lies: answered, and nothing is forgotten.
    for misconduct in [3, 4] {
        device.write32(frame::MISCONDUCT, misconduct);
        bench.commands(&[atc_inv(PASID), SYNC]);
        assert_eq!(device.read32(frame::ATC_ENTRIES), 1);
    }
    // Late: not before its time.
    device.write32(frame::MISCONDUCT, 2);
    device.write32(frame::LATENESS_US, 50);
    bench.submit(&[atc_inv(PASID), SYNC]);
    device.tick(bench.machine.record().now_us() + 49);
    assert!(!bench.is_idle());
    device.tick(bench.machine.record().now_us() + 50);
    assert!(bench.is_idle());
    assert_eq!(device.read32(frame::ATC_ENTRIES), 0);
    // Silent: never.
    device.write32(frame::MISCONDUCT, 1);
    bench.submit(&[atc_inv(PASID), SYNC]);
    device.tick(bench.machine.record().now_us() + 1_000_000);
    assert!(!bench.is_idle());
    device.write32(frame::COMMAND, frame::command::RESET);
    assert_eq!(device.read32(frame::MISCONDUCT), 1);
}
