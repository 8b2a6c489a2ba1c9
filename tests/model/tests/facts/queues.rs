//! Queues: indices, wrap bits, sizes, bases (§3.5, §6.3.26 and on).

use smmu_model::bench::{Bench, CMDQ, EVENTQ, SYNC};
use smmu_model::{Faults, Fetch, Identity, Mode, Rule, Transaction, offset};

use crate::kit::{Rig, read};

const PROD: u64 = 0x98;
const CONS: u64 = 0x9c;

/// A bench whose command queue has `1 << log2` entries at `base`.
fn with_queue(identity: Identity, base: u64, log2: u64) -> Bench {
    let bench = Bench::up(identity, Mode::Polite);
    bench.cr0(0x5);
    bench.write64(0x90, base | log2);
    bench.write(PROD, 0);
    bench.write(CONS, 0);
    bench.cr0(0xd);
    bench
}

fn put(bench: &Bench, at: u64, command: [u64; 2]) {
    bench.store(at, command[0]);
    bench.store(at + 8, command[1]);
    bench.publish();
}

#[test]
fn a_full_command_queue_is_consumed_whole() {
    let mut bench = Bench::up(Identity::full(), Mode::Polite);
    let before = bench.read(CONS);
    bench.commands(&[SYNC; 64]);
    assert_eq!(bench.read(CONS), before ^ 64);
    bench.assert_clean();
}

#[test]
fn the_index_wraps_with_the_bit_above_it() {
    let bench = with_queue(Identity::full(), CMDQ, 1);
    for (at, producer) in [(0, 1), (1, 2), (0, 3), (1, 0), (0, 1)] {
        put(&bench, CMDQ + at * 16, SYNC);
        bench.write(PROD, producer);
        assert_eq!(bench.read(CONS), producer);
    }
    bench.assert_clean();
}

#[test]
fn a_queue_of_one_entry_uses_bit_0_as_its_wrap_bit() {
    let bench = with_queue(Identity::full(), CMDQ, 0);
    for producer in [1, 0, 1] {
        put(&bench, CMDQ, SYNC);
        bench.write(PROD, producer);
        assert_eq!(bench.read(CONS), producer);
    }
    bench.assert_clean();
}

#[test]
fn the_size_of_a_queue_is_capped_to_what_is_implemented() {
    let identity = Identity {
        cmdq_log2: 1,
        ..Identity::full()
    };
    let mut bench = Bench::off(identity, Mode::Polite);
    bench.write64(0x90, CMDQ | 5);
    bench.write(PROD, 0);
    bench.write(CONS, 0);
    bench.cr0(0x8);
    // Two entries: index bit 0, wrap bit 1; the third command lies in the first slot again.
    put(&bench, CMDQ, SYNC);
    put(&bench, CMDQ + 16, SYNC);
    bench.write(PROD, 2);
    assert_eq!(bench.read(CONS), 2);
    put(&bench, CMDQ, [0xff, 0]);
    put(&bench, CMDQ + 32, SYNC);
    bench.write(PROD, 3);
    assert_eq!(bench.read(CONS), 2 | 1 << 24);
    bench.next_event();
}

#[test]
fn the_low_bits_of_a_queues_base_are_ignored_up_to_its_size() {
    // 64 entries of 16 bytes: aligned to 1 KiB.
    let bench = with_queue(Identity::full(), CMDQ + 0x3e0, 6);
    put(&bench, CMDQ, SYNC);
    bench.write(PROD, 1);
    assert_eq!(bench.read(CONS), 1);
}

#[test]
fn commands_beyond_the_producer_index_are_not_executed() {
    let bench = with_queue(Identity::full(), CMDQ, 4);
    put(&bench, CMDQ, SYNC);
    put(&bench, CMDQ + 16, [0xff, 0]);
    bench.write(PROD, 1);
    assert_eq!(bench.read(CONS), 1);
    assert_eq!(bench.read(0x60), 0);
}

#[test]
fn more_commands_than_entries_are_named_and_not_consumed() {
    let bench = with_queue(Identity::full(), CMDQ, 2);
    bench.write(PROD, 5);
    assert_eq!(bench.read(CONS), 0);
    assert_eq!(bench.machine.record().count(Rule::QueueOverrun), 1);
}

#[test]
fn a_producer_index_that_moves_back_is_named() {
    let bench = with_queue(Identity::full(), CMDQ, 4);
    bench.machine.smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    for slot in 0..3 {
        put(&bench, CMDQ + slot * 16, SYNC);
    }
    bench.write(PROD, 3);
    bench.write(PROD, 2);
    assert_eq!(bench.machine.record().count(Rule::ProducerMovedBack), 1);
}

#[test]
fn a_producer_index_may_move_back_while_the_queue_has_stopped() {
    let bench = with_queue(Identity::full(), CMDQ, 4);
    put(&bench, CMDQ, [0xff, 0]);
    put(&bench, CMDQ + 16, SYNC);
    bench.write(PROD, 2);
    bench.write(PROD, 1);
    assert_eq!(bench.machine.record().count(Rule::ProducerMovedBack), 0);
}

/// `count` transactions whose STE is invalid, from streams 0 and up.
fn provoke(rig: &Rig, count: u32) {
    for stream in 0..count {
        rig.transact(Transaction {
            stream,
            ..read(0x1000)
        });
    }
}

/// C_BAD_STE of `stream`.
const fn bad_ste(stream: u64) -> [u64; 4] {
    [0x04 | stream << 32, 0, 0, 0]
}

#[test]
fn records_are_32_bytes_apart_in_the_order_they_happened() {
    let rig = Rig::full();
    provoke(&rig, 3);
    rig.bench.machine.barrier(smmu_model::Barrier::Observe);
    for stream in 0..3 {
        for (word, value) in bad_ste(stream).into_iter().enumerate() {
            let at = EVENTQ + stream * 32 + word as u64 * 8;
            assert_eq!(rig.bench.machine.load(at), Ok(value));
        }
    }
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 3);
}

#[test]
fn a_full_event_queue_drops_records_and_toggles_overflow_once() {
    let mut rig = Rig::full();
    provoke(&rig, 34);
    let producer = rig.bench.read(offset::EVENTQ_PROD);
    assert_eq!(producer, 1 << 31 | 32);
    for stream in 0..32 {
        assert_eq!(rig.bench.next_raw_event(), Some(bad_ste(stream)));
    }
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn overflow_does_not_stop_later_records() {
    let mut rig = Rig::full();
    provoke(&rig, 33);
    // One place is given back without acknowledging the overflow.
    rig.bench.machine.barrier(smmu_model::Barrier::Observe);
    rig.bench.machine.barrier(smmu_model::Barrier::Release);
    rig.bench.write(offset::EVENTQ_CONS, 1);
    provoke(&rig, 1);
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 1 << 31 | 33);
    for _ in 0..31 {
        rig.bench.next_raw_event();
    }
}

#[test]
fn overflow_toggles_again_only_after_its_acknowledgement() {
    let mut rig = Rig::full();
    provoke(&rig, 33);
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD) >> 31, 1);
    // Reading one record acknowledges; two more fill the place and overflow again.
    rig.bench.next_raw_event();
    assert_eq!(rig.bench.read(offset::EVENTQ_CONS) >> 31, 1);
    provoke(&rig, 2);
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 33);
}

#[test]
fn an_event_queue_that_is_off_drops_records() {
    let mut rig = Rig::full();
    rig.bench.cr0(0x9);
    provoke(&rig, 1);
    rig.bench.cr0(0xd);
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 0);
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn an_abort_of_a_record_is_a_global_error_and_no_overflow() {
    let mut rig = Rig::full();
    rig.bench.machine.smmu(0).set_faults(Faults {
        aborts: vec![Fetch::Event],
        ..Faults::default()
    });
    provoke(&rig, 1);
    assert_eq!(rig.bench.read(0x60) ^ rig.bench.read(0x64), 1 << 2);
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 0);
    // Nothing is written until the error is acknowledged.
    rig.bench.machine.smmu(0).set_faults(Faults::default());
    provoke(&rig, 1);
    assert_eq!(rig.bench.next_raw_event(), None);
    rig.bench.write(0x64, rig.bench.read(0x60));
    provoke(&rig, 1);
    assert_eq!(rig.bench.next_raw_event(), Some(bad_ste(0)));
}

#[test]
fn the_event_queue_wraps_with_the_bit_above_its_index() {
    let mut rig = Rig::full();
    for round in 0..70 {
        provoke(&rig, 1);
        assert_eq!(rig.bench.next_raw_event(), Some(bad_ste(0)), "{round}");
    }
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 70 & 63);
    rig.bench.assert_clean();
}

#[test]
fn an_event_queue_of_one_entry_holds_one_record() {
    let rig = Rig::full();
    rig.bench.cr0(0x9);
    rig.bench.write64(offset::EVENTQ_BASE, EVENTQ);
    rig.bench.write(offset::EVENTQ_PROD, 0);
    rig.bench.write(offset::EVENTQ_CONS, 0);
    rig.bench.cr0(0xd);
    provoke(&rig, 2);
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 1 << 31 | 1);
}
