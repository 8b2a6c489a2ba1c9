//! Event records: each kind's words, and which fault wins where several could be told (§7.3).

use smmu_model::{Event, EventType, Faults, Fetch, Identity, Mode, Outcome, Transaction};

use crate::kit::{IN, RNW, Rig, S2, SID, SID_BITS, VA, read, s1_page, s2_page, table, with, write};

const SSV: u64 = 1 << 11;
const PNU: u64 = 1 << 33;
const IND: u64 = 1 << 34;

#[test]
fn f_uut_tells_the_raw_transaction() {
    // An access that does not lie within one page.
    let mut rig = Rig::full();
    rig.install(&rig.bypass());
    let address = rig.page + 0xffc;
    let transaction = Transaction::read(SID, address, 8)
        .privileged()
        .instruction();
    assert_eq!(rig.transact(transaction), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x01 | SID_BITS);
    assert_eq!(record[1] & !0xffff, RNW | PNU | IND);
    assert_eq!(record[2], address);
}

#[test]
fn f_uut_does_not_show_what_the_entry_overrides() {
    let mut rig = Rig::full();
    // PRIVCFG = privileged.
    rig.install(&with(rig.bypass(), 1, 49, 48, 3));
    let address = rig.page + 0xffc;
    assert_eq!(
        rig.transact(Transaction::read(SID, address, 8)),
        Outcome::Aborted
    );
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[1] & !0xffff, RNW);
}

#[test]
fn other_records_show_what_the_entry_overrides() {
    let mut rig = Rig::full();
    rig.install(&with(with(rig.stage1(), 1, 49, 48, 3), 1, 51, 50, 3));
    let hole = VA + 0x2000;
    rig.aborts(
        read(hole),
        [0x10 | SID_BITS, RNW | PNU | IND | IN, hole | 0x10, 0],
    );
    // A write is data whatever INSTCFG says.
    rig.aborts(write(hole), [0x10 | SID_BITS, PNU | IN, hole | 0x10, 0]);
}

#[test]
fn f_ste_fetch_tells_the_address() {
    let mut rig = Rig::full();
    rig.bench.machine.smmu(0).set_faults(Faults {
        aborts: vec![Fetch::Stream],
        ..Faults::default()
    });
    assert_eq!(
        rig.transact(read(VA).with_substream(0x12)),
        Outcome::Aborted
    );
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x03 | SSV | 0x12 << 12 | SID_BITS);
    assert_eq!(record[1] & !0xffff, 0);
    assert_eq!(record[2], 0);
    assert_eq!(record[3] & !0x3f, crate::kit::entry_address(SID));
}

#[test]
fn c_bad_ste_has_the_substream_and_nothing_else() {
    let mut rig = Rig::full();
    rig.aborts(
        read(VA).with_substream(0x12),
        [0x04 | SSV | 0x12 << 12 | SID_BITS, 0, 0, 0],
    );
}

#[test]
fn f_tlb_conflict_tells_the_transaction() {
    let mut rig = Rig::full();
    rig.install(&rig.stage1());
    rig.bench.machine.smmu(0).set_faults(Faults {
        conflict: Some(EventType::TlbConflict),
        ..Faults::default()
    });
    assert_eq!(rig.transact(write(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x20 | SID_BITS);
    assert_eq!(record[1] & (RNW | PNU | IND), 0);
    assert_eq!(record[2], VA | 0x10);
}

#[test]
fn f_cfg_conflict_tells_the_stream() {
    let mut rig = Rig::full();
    rig.install(&rig.stage1());
    rig.bench.machine.smmu(0).set_faults(Faults {
        conflict: Some(EventType::ConfigConflict),
        ..Faults::default()
    });
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
    let record = rig.bench.next_raw_event().expect("a record");
    assert_eq!(record[0], 0x21 | SID_BITS);
    assert_eq!((record[2], record[3]), (0, 0));
}

#[test]
fn event_numbers_are_the_architectures() {
    for (number, kind) in [
        (0x01, EventType::UnsupportedTransaction),
        (0x02, EventType::BadStreamId),
        (0x03, EventType::SteFetch),
        (0x04, EventType::BadSte),
        (0x05, EventType::BadAtsRequest),
        (0x06, EventType::StreamDisabled),
        (0x07, EventType::TranslationForbidden),
        (0x08, EventType::BadSubstreamId),
        (0x09, EventType::CdFetch),
        (0x0a, EventType::BadCd),
        (0x0b, EventType::WalkAbort),
        (0x10, EventType::Translation),
        (0x11, EventType::AddressSize),
        (0x12, EventType::AccessFlag),
        (0x13, EventType::Permission),
        (0x20, EventType::TlbConflict),
        (0x21, EventType::ConfigConflict),
        (0x24, EventType::PageRequest),
    ] {
        let words = [number | SID_BITS, 0, 0, 0];
        let event = Event::decode(&words).expect("a known kind");
        assert_eq!((event.event_type, event.stream), (kind, SID));
    }
    for number in [0x00, 0x0c, 0x0f, 0x14, 0x22, 0x23, 0x26, 0xff] {
        assert_eq!(Event::decode(&[number, 0, 0, 0]), None, "{number:#x}");
    }
}

#[test]
fn a_transaction_makes_one_record_at_most() {
    // Everything is wrong at once.
    let mut rig = Rig::full();
    rig.put_cd(0, &[0; 8]);
    rig.install(&with(rig.stage1(), 0, 63, 59, 31));
    rig.transact(read(!0xfff));
    assert!(rig.bench.next_raw_event().is_some());
    assert_eq!(rig.bench.next_raw_event(), None);
}

#[test]
fn identical_faults_are_recorded_each_without_mev() {
    for mode in [Mode::Polite, Mode::Hoarding] {
        let mut rig = Rig::in_mode(Identity::full(), mode);
        rig.install(&rig.stage1());
        let hole = VA + 0x2000;
        for _ in 0..3 {
            rig.transact(read(hole));
        }
        rig.bench.commands(&[smmu_model::bench::SYNC]);
        for _ in 0..3 {
            let record = rig.bench.next_raw_event();
            assert_eq!(record, Some([0x10 | SID_BITS, RNW | IN, hole | 0x10, 0]));
        }
        assert_eq!(rig.bench.next_raw_event(), None);
    }
}

// Which fault wins.

/// A stream 5 with stage 1, both stages or as given, in which two things are wrong; the record
/// starts with this word.
macro_rules! first {
    ($($name:ident: $number:expr, $request:expr, $set_up:expr;)+) => {$(
        #[test]
        fn $name() {
            let mut rig = Rig::full();
            let set_up: fn(&mut Rig) = $set_up;
            set_up(&mut rig);
            assert_eq!(rig.transact($request), Outcome::Aborted);
            let record = rig.bench.next_raw_event().expect("a record");
            assert_eq!(record[0] & 0xff, $number, "{record:x?}");
            assert_eq!(rig.bench.next_raw_event(), None);
        }
    )+};
}

/// A page outside memory, to abort whatever is fetched from it.
const NOWHERE: u64 = 0x10_0000_0000;

first! {
    a_bad_stream_comes_before_its_substream: 0x02, Transaction { stream: 64, ..read(VA) }.with_substream(9), |_| {};
    an_entry_that_cannot_be_read_comes_before_its_legality: 0x03, read(VA), |rig| {
        rig.bench.machine.smmu(0).set_faults(Faults { aborts: vec![Fetch::Stream], ..Faults::default() });
    };
    a_bad_entry_comes_before_the_substream: 0x04, read(VA).with_substream(9), |rig| {
        rig.install(&with(rig.bypass(), 0, 0, 0, 0));
    };
    a_bad_substream_comes_before_the_context_descriptor: 0x08, read(VA).with_substream(9), |rig| {
        rig.install(&with(rig.stage1(), 0, 55, 6, NOWHERE >> 6));
    };
    a_disabled_stream_comes_before_the_context_descriptor: 0x06, read(VA), |rig| {
        rig.install(&with(with(rig.stage1(), 0, 55, 6, NOWHERE >> 6), 0, 63, 59, 2));
    };
    stage_2_of_a_context_descriptor_comes_before_its_fetch: 0x10, read(VA), |rig| {
        rig.install(&with(rig.nested(), 0, 55, 6, 0xc000_0000 >> 6));
    };
    a_bad_context_descriptor_comes_before_the_address: 0x0a, read(1 << 60), |rig| {
        rig.put_cd(0, &[0; 8]);
        rig.install(&rig.stage1());
    };
    an_address_out_of_range_comes_before_the_walk: 0x10, read(1 << 45), |rig| {
        rig.put_cd(0, &with(rig.cd(), 1, 63, 0, NOWHERE));
        rig.install(&rig.stage1());
    };
    a_table_that_cannot_be_read_comes_before_its_descriptor: 0x0b, read(VA), |rig| {
        rig.bench.store(rig.s1[1], table(NOWHERE));
        rig.install(&rig.stage1());
    };
    an_invalid_descriptor_comes_before_its_address: 0x10, read(VA), |rig| {
        rig.bench.store(rig.s1[2] + 40, (s1_page(rig.page) | 1 << 40) & !1);
        rig.install(&rig.stage1());
    };
    the_address_size_comes_before_the_access_flag: 0x11, read(VA), |rig| {
        rig.bench.store(rig.s1[2] + 40, (s1_page(rig.page) | 1 << 40) & !(1 << 10));
        rig.install(&rig.stage1());
    };
    the_access_flag_comes_before_the_permission: 0x12, write(VA), |rig| {
        rig.bench.store(rig.s1[2] + 40, (s1_page(rig.page) | 2 << 6) & !(1 << 10));
        rig.install(&rig.stage1());
    };
    the_address_size_of_stage_2_comes_before_its_access_flag: 0x11, read(VA), |rig| {
        rig.bench.store(rig.s2[2] + 40, (s2_page(rig.page) | 1 << 40) & !(1 << 10));
        rig.install(&rig.stage2());
    };
    the_access_flag_of_stage_2_comes_before_its_permission: 0x12, read(VA), |rig| {
        rig.bench.store(rig.s2[2] + 40, s2_page(rig.page) & !(1 << 10 | 3 << 6));
        rig.install(&rig.stage2());
    };
    stage_2_of_a_table_comes_before_stage_1s_descriptor: 0x12, read(VA), |rig| {
        // The level-3 table's page has a clear access flag at stage 2; its descriptor is invalid.
        let level3 = rig.bench.frames(12);
        for page in 0..512 {
            let at = 0x8000_0000 + page * 0x1000;
            let word = s2_page(at);
            let word = if at == rig.s1[2] { word & !(1 << 10) } else { word };
            rig.bench.store(level3 + page * 8, word);
        }
        rig.bench.store(rig.s2[3], table(level3));
        rig.bench.store(rig.s1[2] + 40, 0);
        rig.install(&rig.nested());
    };
}

#[test]
fn a_fault_of_stage_2_has_its_bit_and_one_of_stage_1_does_not() {
    let mut rig = Rig::full();
    rig.install(&rig.stage2());
    let hole = VA + 0x2000;
    rig.aborts(
        read(hole),
        [0x10 | SID_BITS, RNW | S2 | IN, hole | 0x10, hole],
    );
    let mut rig = Rig::full();
    rig.install(&rig.stage1());
    rig.aborts(read(hole), [0x10 | SID_BITS, RNW | IN, hole | 0x10, 0]);
}
