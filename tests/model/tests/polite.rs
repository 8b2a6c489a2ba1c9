//! The shortest way through the model: bring-up and one stage-2 translation.

use smmu_model::bench::{Bench, s2_page, ste_stage2, table};
use smmu_model::{EventType, Identity, Mode, Outcome, Transaction};

#[test]
fn a_stage_2_stream_reaches_what_its_tables_say() {
    let mut bench = Bench::up(Identity::full(), Mode::Polite);
    let root = bench.frames(12);
    let level2 = bench.frames(12);
    let level3 = bench.frames(12);
    let page = bench.frames(12);
    // IPA 0x4000_0000 + 0x5000.
    bench.store(root + 8, table(level2));
    bench.store(level2, table(level3));
    bench.store(level3 + 5 * 8, s2_page(page));
    bench.publish_ste(3, &ste_stage2(7, root));

    let mark = bench.machine.record().mark();
    let outcome = bench
        .machine
        .smmu(0)
        .transact(Transaction::write(3, 0x4000_5010, b"portcull"));
    let Outcome::Done { pa, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(pa, page + 0x10);
    assert_eq!(
        bench.machine.load(page + 0x10),
        Ok(u64::from_le_bytes(*b"portcull"))
    );
    let landed = bench.machine.record().landed_since(mark);
    assert_eq!(landed.len(), 1);
    assert_eq!(
        landed[0].translation.map(|origin| origin.pa),
        Some(level3 + 5 * 8)
    );
    bench.assert_clean();
}

#[test]
fn an_unmapped_address_aborts_and_is_recorded() {
    let mut bench = Bench::up(Identity::full(), Mode::Polite);
    let root = bench.frames(12);
    bench.publish_ste(3, &ste_stage2(7, root));
    let outcome = bench
        .machine
        .smmu(0)
        .transact(Transaction::read(3, 0x4000_5018, 8));
    assert_eq!(outcome, Outcome::Aborted);
    // F_TRANSLATION, SID 3; RnW, S2, CLASS = IN; InputAddr; IPA.
    let words = bench.next_raw_event().expect("a record");
    assert_eq!(
        words,
        [
            0x0000_0003_0000_0010,
            0x0000_0288_0000_0000,
            0x4000_5018,
            0x4000_5000
        ]
    );
    assert_eq!(bench.next_event(), None);
    assert_eq!(EventType::from_number(0x10), Some(EventType::Translation));
    bench.assert_clean();
}
