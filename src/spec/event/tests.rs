//! Records assembled by hand.

use super::*;
use std::format;

fn event(words: [u64; 4]) -> Event {
    Event::decode(words)
}

/// Seen from QEMU 10.0.2: a write to an unmapped page of a stage-2 stream.
#[test]
fn a_stage_2_fault_seen_on_qemu_decodes() {
    let it = event([0x10_0000_0010, 0x280_0000_0000, 0x1000_1000, 0x1000_1000]);
    assert_eq!(it.stream, StreamId::new(0x10));
    assert_eq!(it.substream, None);
    let EventKind::Translation(fault) = it.kind else {
        panic!("{it:?}")
    };
    assert!(!fault.access.is_read);
    assert_eq!(fault.class, Class::In);
    assert_eq!(fault.stage2_ipa, Some(Ipa::new(0x1000_1000)));
    assert_eq!(fault.address, Iova::new(0x1000_1000));
    assert_eq!(it.stall_tag(), None);
}

/// Assembled by hand from the positions in §7.3: RnW 99, InD 98, PnU 97, S2 103, CLASS 105:104,
/// Stall 95, STAG 79:64, TTRnW 108, SSV 11, SSID 31:12.
#[test]
fn every_flag_of_a_fault_has_its_own_place() {
    let base = [
        0x0000_0042_1234_5813,
        0,
        0xfedc_ba98_7654_3210,
        0x00ff_ffff_ffff_f000,
    ];
    let flags = |word1| {
        let EventKind::Permission {
            fault,
            is_table_read,
        } = event([base[0], word1, base[2], base[3]]).kind
        else {
            panic!("0x13 is F_PERMISSION")
        };
        (fault, is_table_read)
    };
    assert!(flags(1 << 35).0.access.is_read);
    assert!(flags(1 << 34).0.access.is_instruction);
    assert!(flags(1 << 33).0.access.is_privileged);
    assert_eq!(
        flags(1 << 39).0.stage2_ipa,
        Some(Ipa::new(0x00ff_ffff_ffff_f000))
    );
    assert_eq!(flags(0).0.stage2_ipa, None);
    assert_eq!(flags(0).0.class, Class::Cd);
    assert_eq!(flags(1 << 40).0.class, Class::Tt);
    assert_eq!(flags(3 << 40).0.class, Class::Reserved);
    assert_eq!(flags(1 << 31 | 0xbeef).0.stall_tag, Some(0xbeef));
    assert_eq!(flags(0xbeef).0.stall_tag, None);
    assert!(flags(1 << 44).1);
    assert_eq!(event(base).substream, SubstreamId::new(0x1_2345));
    assert_eq!(flags(0).0.address, Iova::new(0xfedc_ba98_7654_3210));
}

#[test]
fn every_number_of_the_architecture_has_its_name() {
    let names = [
        (0x01, "F_UUT"),
        (0x02, "C_BAD_STREAMID"),
        (0x03, "F_STE_FETCH"),
        (0x04, "C_BAD_STE"),
        (0x05, "F_BAD_ATS_TREQ"),
        (0x06, "F_STREAM_DISABLED"),
        (0x07, "F_TRANSL_FORBIDDEN"),
        (0x08, "C_BAD_SUBSTREAMID"),
        (0x09, "F_CD_FETCH"),
        (0x0a, "C_BAD_CD"),
        (0x0b, "F_WALK_EABT"),
        (0x10, "F_TRANSLATION"),
        (0x11, "F_ADDR_SIZE"),
        (0x12, "F_ACCESS"),
        (0x13, "F_PERMISSION"),
        (0x20, "F_TLB_CONFLICT"),
        (0x21, "F_CFG_CONFLICT"),
        (0x24, "E_PAGE_REQUEST"),
        (0x25, "F_VMS_FETCH"),
    ];
    for number in 0..=0xff {
        let name = event([number, 0, 0, 0]).kind.name();
        match names.iter().find(|(it, _)| *it == number) {
            Some((_, expected)) => assert_eq!(name, *expected),
            None if (0xe0..=0xef).contains(&number) => {
                assert_eq!(name, "an implementation defined event");
            }
            None => assert_eq!(name, "an unknown event", "{number:#x}"),
        }
    }
}

#[test]
fn a_substream_is_believed_only_where_the_record_carries_one() {
    let word0 = |number: u64, ssv: u64| 0x5_5000 | ssv << 11 | number;
    let of = |number, ssv| event([word0(number, ssv), 0, 0, 0]).substream;
    assert_eq!(of(0x0a, 1), SubstreamId::new(0x55));
    assert_eq!(of(0x0a, 0), None);
    assert_eq!(of(0x08, 0), SubstreamId::new(0x55));
    assert_eq!(of(0x06, 1), None);
    assert_eq!(of(0x07, 1), None);
}

#[test]
fn an_abort_of_the_smmus_own_read_says_where() {
    let it = event([0x7_0000_0003, 0x1_0012, 0, 0x00ab_cdef_0123_4568]);
    let EventKind::SteFetch(abort) = it.kind else {
        panic!("{it:?}")
    };
    assert_eq!(abort.address, Pa::new(0x00ab_cdef_0123_4568));
    assert!(abort.is_granule_protection);
    assert_eq!(abort.reason, 0x12);
    let it = event([0x0b, 1 << 35 | 1 << 39 | 1 << 40, 0x4000, 0x8000]);
    let EventKind::WalkEabt {
        access,
        class,
        is_stage2,
        address,
        abort,
    } = it.kind
    else {
        panic!("{it:?}")
    };
    assert!(access.is_read && is_stage2 && class == Class::Tt);
    assert_eq!(
        (address, abort.address),
        (Iova::new(0x4000), Pa::new(0x8000))
    );
}

#[test]
fn page_hints_and_conflicts_keep_their_payload() {
    let hint = event([0x24, 5 << 44 | 0b10_0100 << 33, 0x7654_3000, 0]);
    assert_eq!(
        hint.kind,
        EventKind::PageRequest {
            address: Iova::new(0x7654_3000),
            span: 5,
            wanted: 0b10_0100
        }
    );
    let conflict = event([0x21, 0xdead_beef, 0, 0]);
    assert_eq!(
        conflict.kind,
        EventKind::CfgConflict {
            reason: 0xdead_beef
        }
    );
}

#[test]
fn any_words_decode_and_print() {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..20_000 {
        let words = core::array::from_fn(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        });
        assert!(format!("{}", event(words)).len() > 10);
    }
}
