//! Stalled transactions: their records, RESUME, STALL_TERM, retries (§3.12.2, §4.7.1, §4.7.2).

use smmu_model::bench::SYNC;
use smmu_model::{Finished, Identity, Outcome, Rule, StallModel, Transaction, offset};

use crate::kit::{
    IN, RNW, Rig, S2, SID, SID_BITS, TT, VA, entry_address, read, s1_page, s2_page, table, with,
    write,
};

const TRANSLATION: u64 = 0x10;
const STALL: u64 = 1 << 31;
/// A page that is not mapped.
const HOLE: u64 = VA + 0x2000;

/// A rig whose stage 1 stalls.
fn stalling() -> Rig {
    stalling_over(Identity::full())
}

fn stalling_over(identity: Identity) -> Rig {
    let mut rig = Rig::new(identity);
    rig.put_cd(0, &with(rig.cd(), 0, 44, 44, 1));
    rig.install(&rig.stage1());
    rig
}

/// `transaction` stalls; gives its ticket and the tag in its record, which is otherwise `record`.
#[track_caller]
fn stalls(rig: &mut Rig, transaction: Transaction, record: [u64; 4]) -> (u64, u64) {
    let outcome = rig.transact(transaction);
    let Outcome::Stalled { ticket } = outcome else {
        panic!("{outcome:?}, {:x?}", rig.bench.next_raw_event());
    };
    let got = rig.bench.next_raw_event().expect("a record");
    assert_eq!(
        [got[0], got[1] & !0xffff, got[2], got[3]],
        record,
        "{got:x?}"
    );
    (ticket, got[1] & 0xffff)
}

/// The record of a stalled stage-1 translation fault.
const fn stalled(address: u64, flags: u64) -> [u64; 4] {
    [
        TRANSLATION | SID_BITS,
        STALL | flags | IN,
        address | 0x10,
        0,
    ]
}

const fn resume(stag: u64, retry: u64, abort: u64) -> [u64; 2] {
    [0x44 | retry << 12 | abort << 13 | SID_BITS, stag]
}

/// What ended since the last call.
fn finished(rig: &Rig) -> Vec<Finished> {
    rig.bench.machine.smmu(0).take_finished()
}

#[track_caller]
fn ended(rig: &Rig, ticket: u64, outcome: Outcome) {
    assert_eq!(finished(rig), [Finished { ticket, outcome }]);
}

fn map_hole(rig: &Rig) {
    rig.bench.store(rig.s1[2] + 7 * 8, s1_page(rig.page));
    rig.bench.publish();
}

#[test]
fn a_stage_1_fault_stalls_with_s_1() {
    let mut rig = stalling();
    stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    assert_eq!(finished(&rig), []);
}

#[test]
fn a_stall_is_recorded_whatever_r_and_a_say() {
    let mut rig = Rig::full();
    rig.put_cd(0, &with(rig.cd(), 0, 46, 44, 1));
    rig.install(&rig.stage1());
    stalls(&mut rig, write(HOLE), stalled(HOLE, 0));
}

#[test]
fn a_stage_2_fault_stalls_with_s2s_1() {
    let mut rig = Rig::full();
    rig.install(&with(rig.stage2(), 2, 57, 57, 1));
    let record = [
        TRANSLATION | SID_BITS,
        STALL | RNW | S2 | IN,
        HOLE | 0x10,
        HOLE,
    ];
    let (ticket, stag) = stalls(&mut rig, read(HOLE), record);
    rig.bench.store(rig.s2[2] + 7 * 8, s2_page(rig.page));
    rig.bench.publish();
    rig.bench.commands(&[resume(stag, 1, 0)]);
    let done = finished(&rig);
    assert_eq!(done[0].ticket, ticket);
    assert!(matches!(done[0].outcome, Outcome::Done { .. }));
}

#[test]
fn a_stall_of_stage_2_is_recorded_with_s2r_0() {
    let mut rig = Rig::full();
    rig.install(&with(rig.stage2(), 2, 58, 57, 1));
    let record = [
        TRANSLATION | SID_BITS,
        STALL | RNW | S2 | IN,
        HOLE | 0x10,
        HOLE,
    ];
    stalls(&mut rig, read(HOLE), record);
}

#[test]
fn a_stage_2_fault_on_a_context_descriptor_stalls_as_stage_2_says() {
    let mut rig = Rig::full();
    let entry = with(rig.nested(), 2, 57, 57, 1);
    rig.install(&with(entry, 0, 55, 6, 0xc000_0000 >> 6));
    let record = [
        TRANSLATION | SID_BITS,
        STALL | RNW | S2,
        VA | 0x10,
        0xc000_0000,
    ];
    let (ticket, stag) = stalls(&mut rig, read(VA), record);
    // Stage 2 now maps the descriptor's gigabyte to memory; no configuration invalidation is needed.
    rig.bench.store(rig.s2[0] + 3 * 8, table(rig.s2[3]));
    rig.bench.store_words(0x8000_0000 + 0x3f_0000, &rig.cd());
    let level3 = rig.bench.frames(12);
    rig.bench.store(level3, s2_page(rig.cds));
    let level2 = rig.bench.frames(12);
    rig.bench.store(level2, table(level3));
    rig.bench.store(rig.s2[0] + 3 * 8, table(level2));
    rig.bench.publish();
    rig.bench.commands(&[resume(stag, 1, 0)]);
    let done = finished(&rig);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].ticket, ticket);
    assert!(matches!(done[0].outcome, Outcome::Done { .. }), "{done:?}");
}

#[test]
fn a_stage_2_fault_on_a_stage_1_table_stalls_as_stage_2_says() {
    let mut rig = Rig::full();
    rig.bench.store(rig.s1[0] + 8, table(0xc000_0000));
    rig.install(&with(rig.nested(), 2, 57, 57, 1));
    let record = [
        TRANSLATION | SID_BITS,
        STALL | RNW | S2 | TT,
        VA | 0x10,
        0xc000_0000,
    ];
    stalls(&mut rig, read(VA), record);
}

#[test]
fn stage_1s_s_bit_says_nothing_about_stage_2_faults() {
    let mut rig = Rig::full();
    rig.put_cd(0, &with(rig.cd(), 0, 44, 44, 1));
    rig.bench.store(rig.s1[2] + 40, s1_page(0xc000_0000));
    rig.install(&rig.nested());
    rig.aborts(
        read(VA),
        [
            TRANSLATION | SID_BITS,
            RNW | S2 | IN,
            VA | 0x10,
            0xc000_0000,
        ],
    );
}

#[test]
fn under_model_2_everything_that_faults_stalls() {
    let mut rig = Rig::new(Identity::with_stalls(StallModel::StallForced));
    rig.install(&rig.stage1());
    stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
}

#[test]
fn configuration_errors_never_stall() {
    let mut rig = Rig::full();
    rig.put_cd(0, &with(with(rig.cd(), 0, 44, 44, 1), 0, 31, 31, 0));
    rig.install(&rig.stage1());
    rig.aborts(read(VA), [0x0a | SID_BITS, 0, 0, 0]);
}

#[test]
fn walk_aborts_never_stall() {
    let rig = stalling();
    rig.bench.store(rig.s1[1], table(0x10_0000_0000));
    rig.bench.publish();
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
}

#[test]
fn speculative_reads_never_stall() {
    let mut rig = stalling();
    rig.aborts_silently(read(HOLE).of_kind(smmu_model::Kind::Speculative));
}

#[test]
fn a_retry_after_the_fault_is_mended_completes() {
    let mut rig = stalling();
    let (ticket, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    map_hole(&rig);
    rig.bench.commands(&[resume(stag, 1, 0)]);
    let done = finished(&rig);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].ticket, ticket);
    let Outcome::Done { pa, data, .. } = &done[0].outcome else {
        panic!("{done:?}");
    };
    assert_eq!(*pa, rig.page + 0x10);
    assert_eq!(*data, crate::kit::MARK.to_le_bytes());
}

#[test]
fn a_retried_write_writes() {
    let mut rig = stalling();
    let (_, stag) = stalls(&mut rig, write(HOLE), stalled(HOLE, 0));
    map_hole(&rig);
    rig.bench.commands(&[resume(stag, 1, 0)]);
    rig.bench.machine.barrier(smmu_model::Barrier::Observe);
    assert_eq!(
        rig.bench.machine.load(rig.page + 0x10),
        Ok(u64::from_le_bytes(*b"portcull"))
    );
}

#[test]
fn a_retry_that_faults_again_stalls_again_with_a_new_record() {
    let mut rig = stalling();
    let (_, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.commands(&[resume(stag, 1, 0)]);
    assert_eq!(finished(&rig), []);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], TRANSLATION | SID_BITS);
    assert_eq!(record[1] & !0xffff, STALL | RNW | IN);
}

#[test]
fn a_retry_ignores_the_abort_parameter() {
    let mut rig = stalling();
    let (_, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    map_hole(&rig);
    rig.bench.commands(&[resume(stag, 1, 1)]);
    assert!(matches!(finished(&rig)[0].outcome, Outcome::Done { .. }));
}

#[test]
fn a_termination_with_abort_aborts() {
    let mut rig = stalling();
    let (ticket, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.commands(&[resume(stag, 0, 1)]);
    rig.bench.wait(|_| false);
    ended(&rig, ticket, Outcome::Aborted);
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn a_termination_without_abort_reads_zero() {
    let mut rig = stalling();
    let (ticket, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.commands(&[resume(stag, 0, 0)]);
    rig.bench.wait(|_| false);
    ended(&rig, ticket, Outcome::RazWi);
}

#[test]
fn a_termination_aborts_where_that_is_all_there_is() {
    let mut rig = stalling_over(Identity {
        term_abort_only: true,
        ..Identity::full()
    });
    let (ticket, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.commands(&[resume(stag, 0, 0)]);
    rig.bench.wait(|_| false);
    ended(&rig, ticket, Outcome::Aborted);
}

#[test]
fn resume_with_another_tag_does_nothing() {
    let mut rig = stalling();
    let (_, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.commands(&[resume(stag ^ 0x4000, 0, 1), SYNC]);
    rig.bench.wait(|_| false);
    assert_eq!(finished(&rig), []);
    assert_eq!(rig.bench.machine.smmu(0).stalled(), 1);
}

#[test]
fn resume_with_another_stream_does_nothing() {
    let mut rig = stalling();
    let (_, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench
        .commands(&[[0x44 | 1 << 13 | 6 << 32, stag], SYNC]);
    rig.bench.wait(|_| false);
    assert_eq!(finished(&rig), []);
    assert_eq!(rig.bench.machine.smmu(0).stalled(), 1);
}

#[test]
fn outstanding_tags_are_distinct_and_each_resume_ends_its_own() {
    let mut rig = stalling();
    let (first, one) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    let next = HOLE + 0x1000;
    let (second, two) = stalls(&mut rig, read(next), stalled(next, RNW));
    assert_ne!(one, two);
    rig.bench.commands(&[resume(two, 0, 1)]);
    rig.bench.wait(|_| false);
    ended(&rig, second, Outcome::Aborted);
    rig.bench.commands(&[resume(one, 0, 0)]);
    rig.bench.wait(|_| false);
    ended(&rig, first, Outcome::RazWi);
}

/// Makes the rig's entry abort everything, by the architecture's sequence.
fn quiet(rig: &mut Rig) {
    let abort = with(rig.stage1(), 0, 3, 1, 0);
    rig.bench.store(entry_address(SID), abort[0]);
    rig.bench.publish();
    rig.bench.commands(&[[0x03 | SID_BITS, 1], SYNC]);
}

#[test]
fn stall_term_ends_every_stalled_transaction_of_its_stream() {
    let mut rig = stalling();
    stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    let next = HOLE + 0x1000;
    stalls(&mut rig, read(next), stalled(next, RNW));
    quiet(&mut rig);
    rig.bench.commands(&[[0x45 | SID_BITS, 0], SYNC]);
    rig.bench.wait(|_| false);
    let ends = finished(&rig);
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|end| end.outcome == Outcome::Aborted));
    assert_eq!(rig.bench.machine.smmu(0).stalled(), 0);
    rig.bench.assert_clean();
}

#[test]
fn stall_term_leaves_other_streams_alone() {
    let mut rig = stalling();
    stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.commands(&[[0x45 | 6 << 32, 0], SYNC]);
    rig.bench.wait(|_| false);
    assert_eq!(finished(&rig), []);
}

#[test]
fn stall_term_of_a_live_stream_is_named() {
    let mut rig = stalling();
    stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.commands(&[[0x45 | SID_BITS, 0], SYNC]);
    assert_eq!(
        rig.bench.machine.record().count(Rule::StallTermWhileLive),
        1
    );
}

#[test]
fn switching_the_smmu_off_ends_every_stalled_transaction() {
    let mut rig = stalling();
    let (ticket, _) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    rig.bench.cr0(0xc);
    rig.bench.wait(|_| false);
    ended(&rig, ticket, Outcome::Aborted);
    assert_eq!(rig.bench.machine.smmu(0).stalled(), 0);
}

/// Fills the event queue with 32 records of a stream whose entry is invalid.
fn fill(rig: &Rig) {
    for _ in 0..32 {
        rig.transact(Transaction {
            stream: 9,
            ..read(VA)
        });
    }
}

#[test]
fn a_stall_waits_for_room_and_sets_no_overflow() {
    let mut rig = stalling();
    fill(&rig);
    let outcome = rig.transact(read(HOLE));
    assert!(matches!(outcome, Outcome::Stalled { .. }), "{outcome:?}");
    assert_eq!(rig.bench.read(offset::EVENTQ_PROD), 32);
    for _ in 0..32 {
        let record = rig.bench.next_raw_event().expect("a record");
        assert_eq!(record[0], 0x04 | 9 << 32);
    }
    assert!(
        rig.bench
            .wait(|bench| bench.read(offset::EVENTQ_PROD) == 33)
    );
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], TRANSLATION | SID_BITS);
    assert_eq!(record[1] & !0xffff, STALL | RNW | IN);
}

#[test]
fn no_more_than_stall_max_records_are_outstanding() {
    let mut rig = stalling_over(Identity {
        stall_max: 2,
        ..Identity::full()
    });
    let mut tags = Vec::new();
    for page in 0..3 {
        let outcome = rig.transact(read(HOLE + page * 0x1000));
        assert!(matches!(outcome, Outcome::Stalled { .. }), "{outcome:?}");
    }
    while let Some(record) = rig.bench.next_raw_event() {
        tags.push(record[1] & 0xffff);
    }
    assert_eq!(tags.len(), 2);
    rig.bench.commands(&[resume(tags[0], 0, 1)]);
    assert!(rig.bench.wait(|bench| bench.read(offset::EVENTQ_PROD) == 3));
}

#[test]
fn a_retry_does_not_use_what_was_invalidated_meanwhile() {
    let mut rig = stalling();
    let (_, stag) = stalls(&mut rig, read(HOLE), stalled(HOLE, RNW));
    // The descriptor is replaced by one of another space, which maps the hole.
    let (root, page) = rig.another_space(0x99);
    let level2 = rig.bench.machine.load(root + 8).expect("in memory") & !3;
    let level3 = rig.bench.machine.load(level2).expect("in memory") & !3;
    rig.bench.store(level3 + 7 * 8, s1_page(page));
    rig.bench.store(rig.cds, 0);
    rig.bench.publish();
    rig.bench.commands(&[[0x05 | SID_BITS, 1], SYNC]);
    rig.put_cd(0, &with(with(rig.cd(), 1, 63, 0, root), 0, 63, 48, 9));
    rig.bench.commands(&[[0x05 | SID_BITS, 1], SYNC]);
    rig.bench.commands(&[resume(stag, 1, 0)]);
    let done = finished(&rig);
    let Outcome::Done { pa, .. } = done[0].outcome else {
        panic!("{done:?}");
    };
    assert_eq!(pa, page + 0x10);
}

#[test]
fn a_stall_that_found_no_room_is_retried_when_there_is_room() {
    let mut rig = stalling();
    fill(&rig);
    let outcome = rig.transact(read(HOLE));
    let Outcome::Stalled { ticket } = outcome else {
        panic!("{outcome:?}");
    };
    // Mended before the record could be written: the retry succeeds, and there is nothing to tell.
    map_hole(&rig);
    for _ in 0..32 {
        assert!(rig.bench.next_raw_event().is_some());
    }
    rig.bench.wait(|_| false);
    let done = finished(&rig);
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].ticket, ticket);
    assert!(matches!(done[0].outcome, Outcome::Done { .. }), "{done:?}");
    assert_eq!(rig.bench.next_raw_event(), None);
    assert_eq!(rig.bench.machine.smmu(0).stalled(), 0);
}
