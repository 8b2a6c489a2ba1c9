//! Commands against words assembled by hand from §4.

use super::*;
use crate::addr::{Iova, Ipa};
use crate::id::{Asid, Vmid};

const VMID_7: Vmid = Vmid::new(0x1234);

/// Each row assembled by hand from §4.
#[test]
fn commands_are_as_assembled_by_hand() {
    let stream = StreamId::new(0x4_0900);
    let at = Ipa::new(0x8765_4321_0000);
    let index = SubstreamId::new(0xabcde).expect("20 bits");
    let rows: [(Command, [u64; 2]); 13] = [
        (
            Command::cfgi_ste(stream, CfgiScope::Leaf),
            [0x0004_0900_0000_0003, 1],
        ),
        (
            Command::cfgi_ste(stream, CfgiScope::Path),
            [0x0004_0900_0000_0003, 0],
        ),
        (Command::cfgi_all(), [0x04, 0x1f]),
        (Command::cfgi_cd(stream, index), [0x0004_0900_abcd_e005, 0]),
        (Command::cfgi_cd_all(stream), [0x0004_0900_0000_0006, 0]),
        (
            Command::tlbi_nh_asid(VMID_7, Asid::new(0x5678)),
            [0x5678_1234_0000_0011, 0],
        ),
        (Command::tlbi_s12_vmall(VMID_7), [0x0000_1234_0000_0028, 0]),
        (
            Command::tlbi_s2_ipa(VMID_7, at, TlbiScope::Leaf),
            [0x0000_1234_0000_002a, 0x8765_4321_0001],
        ),
        (Command::tlbi_nh_all(VMID_7), [0x0000_1234_0000_0010, 0]),
        (Command::tlbi_el2_all(), [0x20, 0]),
        (Command::tlbi_nsnh_all(), [0x30, 0]),
        (Command::atc_inv_all(stream), [0x0004_0900_0000_0040, 0x34]),
        (Command::sync(), [0x46, 0]),
    ];
    for (command, words) in rows {
        assert_eq!(command.words(), words, "{command:x?}");
    }
}

#[test]
fn a_range_has_its_own_granule_encoding() {
    let range = |log2_granule| TlbiRange {
        base: Ipa::new(0x40_0000),
        num: 31,
        scale: 2,
        log2_granule,
    };
    let words = |log2| {
        Command::tlbi_s2_ipa_range(VMID_7, range(log2), TlbiScope::Walk).map(|it| it.words())
    };
    // NUM 31 << 12 | SCALE 2 << 20; TG at dw1[11:10].
    assert_eq!(words(12), Some([0x0000_1234_0021_f02a, 0x40_0400]));
    assert_eq!(words(14), Some([0x0000_1234_0021_f02a, 0x40_0800]));
    assert_eq!(words(16), Some([0x0000_1234_0021_f02a, 0x40_0c00]));
    assert_eq!(words(13), None);
}

#[test]
fn the_reserved_range_of_one_granule_is_never_made() {
    let range = TlbiRange {
        base: Ipa::new(0),
        num: 0,
        scale: 0,
        log2_granule: 12,
    };
    assert_eq!(
        Command::tlbi_s2_ipa_range(VMID_7, range, TlbiScope::Leaf),
        None
    );
}

/// §4.5.1, §4.7.1, §4.7.2, by hand: SSV 11, G 9, Ac 12, Ab 13, Size at dw1[5:0].
#[test]
fn commands_to_devices_are_as_assembled_by_hand() {
    let stream = StreamId::new(0x4_0900);
    let substream = SubstreamId::new(0xabcde).expect("20 bits");
    let resume = |action| Command::resume(stream, 0xbeef, action);
    let rows: [(Command, [u64; 2]); 7] = [
        (Command::atc_inv_all(stream), [0x0004_0900_0000_0040, 0x34]),
        (
            Command::atc_inv_all_substreams(stream),
            [0x0004_0900_0000_0a40, 0x34],
        ),
        (
            Command::atc_inv_substream(stream, substream),
            [0x0004_0900_abcd_e840, 0x34],
        ),
        (resume(ResumeAction::Retry), [0x0004_0900_0000_1044, 0xbeef]),
        (
            resume(ResumeAction::Terminate),
            [0x0004_0900_0000_0044, 0xbeef],
        ),
        (resume(ResumeAction::Abort), [0x0004_0900_0000_2044, 0xbeef]),
        (Command::stall_term(stream), [0x0004_0900_0000_0045, 0]),
    ];
    for (command, words) in rows {
        assert_eq!(command.words(), words, "{command:x?}");
        assert_eq!(command.stream(), stream);
    }
}

/// §4.5.1: 4096 << Size bytes, aligned.
#[test]
fn a_span_of_an_atc_is_the_smallest_that_holds_both_ends() {
    let stream = StreamId::new(1);
    let span = |first, last| {
        Command::atc_inv_range(stream, None, Iova::new(first), Iova::new(last)).words()[1]
    };
    assert_eq!(span(0x5000, 0x5fff), 0x5000);
    assert_eq!(span(0x5234, 0x5235), 0x5000);
    assert_eq!(span(0x6000, 0x7fff), 0x6001);
    // It crosses 0x8000: from 0 to 0xffff.
    assert_eq!(span(0x7000, 0x8fff), 0x0004);
    assert_eq!(
        span(0xffff_8000_0000_0000, 0xffff_8000_001f_ffff),
        0xffff_8000_0000_0009
    );
    assert_eq!(span(0, u64::MAX), 0x34);
    assert_eq!(span(u64::MAX, u64::MAX), 0xffff_ffff_ffff_f000);
    let substream = SubstreamId::new(5);
    let tagged = Command::atc_inv_range(stream, substream, Iova::new(0), Iova::new(1));
    assert_eq!(tagged.words(), [0x1_0000_5840, 0]);
}

/// §4.4.2, by hand: VMID [47:32], ASID [63:48], Leaf dw1[0], the address from dw1[12] to the top.
#[test]
fn invalidations_by_address_are_as_assembled_by_hand() {
    let at = Iova::new(0xffff_8765_4321_0fff);
    let asid = Some(Asid::new(0x5678));
    assert_eq!(
        Command::tlbi_nh_va(VMID_7, asid, at, TlbiScope::Leaf).words(),
        [0x5678_1234_0000_0012, 0xffff_8765_4321_0001]
    );
    assert_eq!(
        Command::tlbi_nh_va(VMID_7, None, at, TlbiScope::Walk).words(),
        [0x0000_1234_0000_0013, 0xffff_8765_4321_0000]
    );
    let range = TlbiRange {
        base: Iova::new(0xffff_ffff_fff0_0000),
        num: 31,
        scale: 2,
        log2_granule: 16,
    };
    // NUM 31 << 12 | SCALE 2 << 20; TG 3 at dw1[11:10].
    assert_eq!(
        Command::tlbi_nh_va_range(VMID_7, asid, range, TlbiScope::Leaf).map(|it| it.words()),
        Some([0x5678_1234_0021_f012, 0xffff_ffff_fff0_0c01])
    );
    let one = TlbiRange {
        num: 0,
        scale: 0,
        ..range
    };
    assert_eq!(
        Command::tlbi_nh_va_range(VMID_7, None, one, TlbiScope::Leaf),
        None
    );
}
