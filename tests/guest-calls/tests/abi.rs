//! ABI.md, the client, the C header and the dispatcher say the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use portcullis::guest::calls::number;
use portcullis::guest::calls::{ABI_VERSION, Code, Refused, UID};
use portcullis::id::Pasid;
use portcullis::smmu::{CommandError, Misfit, Unwalkable};
use portcullis::space::{DeviceId, Fence, Quantity, SmmuId, SpaceError};

fn text(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(root.join(path)).expect("it is there")
}

/// Rows of ABI.md's tables whose first two cells are a number and a name in backquotes.
fn rows(of: &str) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for line in of.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(number), Some(name)) = (cells.next(), cells.next()) else {
            continue;
        };
        let name = name.strip_prefix('`').and_then(|it| it.strip_suffix('`'));
        if let (Ok(number), Some(name)) = (number.parse(), name) {
            let twice = rows.insert(name.to_owned(), number);
            assert_eq!(twice, None, "{name} stands twice");
        }
    }
    rows
}

/// The part of ABI.md from one heading to the next.
fn part(abi: &str, from: &str, to: &str) -> String {
    let (_, rest) = abi.split_once(from).expect("a heading");
    let (part, _) = rest.split_once(to).expect("a heading");
    part.to_owned()
}

/// What the header defines as numbers.
fn defines() -> BTreeMap<String, i64> {
    let header = text("tests/guests/client/include/portcullis.h");
    let mut found = BTreeMap::new();
    for line in header.lines() {
        let Some(rest) = line.strip_prefix("#define PORTCULLIS_") else {
            continue;
        };
        let Some((name, value)) = rest.split_once(' ') else {
            continue;
        };
        let value = value.trim().trim_matches(['(', ')', 'u']);
        let number = match value.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16),
            None => value.parse(),
        };
        found.insert(name.to_owned(), number.expect("a number"));
    }
    found
}

#[test]
fn every_code_has_one_name_and_one_number_everywhere() {
    let abi = text("ABI.md");
    let (_, codes) = abi.split_once("\n## Codes").expect("a heading");
    let written = rows(codes);
    let dispatcher: BTreeMap<_, _> = Code::ALL
        .iter()
        .map(|(code, name)| (String::from(*name), *code as i64))
        .collect();
    let client: BTreeMap<_, _> = portcullis_guest::Code::ALL
        .iter()
        .map(|(code, name)| (String::from(*name), *code as i64))
        .collect();
    assert!(written.len() > 50);
    assert_eq!(dispatcher, written);
    assert_eq!(client, written);
    let defined = defines();
    for (name, number) in &written {
        assert_eq!(defined.get(name), Some(number), "{name} in the header");
    }
    let negative = defined.values().filter(|number| **number < 0).count();
    assert_eq!(negative, written.len(), "the header has no other codes");
    let mut numbers: Vec<_> = written.values().collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), written.len(), "no number is used twice");
}

#[test]
fn every_call_has_one_name_and_one_number_everywhere() {
    let abi = text("ABI.md");
    let written = rows(&part(&abi, "\n## The calls", "\n### `features`"));
    let client: BTreeMap<_, _> = portcullis_guest::Call::ALL
        .iter()
        .map(|(call, name)| (String::from(*name), i64::from(*call as u32)))
        .collect();
    assert_eq!(client, written);
    let dispatcher = number::Call::ALL.iter().map(|call| call.function());
    let clients = portcullis_guest::Call::ALL
        .iter()
        .map(|(call, _)| call.function());
    assert!(dispatcher.eq(clients));
    let defined = defines();
    for (name, n) in &written {
        let function = defined.get(&name.to_uppercase());
        assert_eq!(function, Some(&(0xC600_0000 + n)), "{name} in the header");
        assert!(
            abi.contains(&format!("`{name}`")),
            "{name} has a section or is told of"
        );
    }
}

#[test]
fn who_it_is_stands_the_same_everywhere() {
    let abi = text("ABI.md");
    let defined = defines();
    for (n, word) in UID.iter().enumerate() {
        let hex = format!("`{:#06x}_{:04x}`", word >> 16, word & 0xffff);
        assert!(abi.contains(&hex), "{hex}");
        assert_eq!(defined[&format!("UID_{n}")], i64::from(*word));
    }
    assert_eq!(defined["ABI_MAJOR"], i64::from(ABI_VERSION >> 16));
    assert_eq!(defined["ABI_MINOR"], i64::from(ABI_VERSION & 0xffff));
    assert_eq!(defined["UID_CALL"], i64::from(number::UID));
    assert_eq!(defined["REVISION_CALL"], i64::from(number::REVISION));
    for function in [
        number::SMCCC_VERSION,
        number::SMCCC_ARCH_FEATURES,
        number::UID,
        number::REVISION,
    ] {
        let written = format!("`0x{:04X}_{:04X}`", function >> 16, function & 0xffff);
        assert!(abi.contains(&written), "{written}");
    }
}

/// One error of each kind that has something to say, and what it says.
#[test]
fn what_an_error_says_beside_its_code_is_as_written() {
    let smmu = SmmuId::new(3).expect("below 16");
    let device = DeviceId::from_parts(9, 9);
    let pasid = Pasid::new(0x123).expect("a number");
    let error = CommandError::SyncTimeout { waited_us: 5 };
    let fences = [
        Fence::NotNeeded,
        Fence::Port,
        Fence::Stream,
        Fence::Smmu,
        Fence::Failed,
    ];
    let mut cases = vec![
        (SpaceError::SmmuDown { smmu }, Code::SmmuDown, [3, 0, 0]),
        (SpaceError::NotYet { smmu }, Code::NotYet, [3, 0, 0]),
        (SpaceError::NeverCame { smmu }, Code::NeverCame, [3, 0, 0]),
        (
            SpaceError::PasidTooWide { pasid, bits: 8 },
            Code::PasidTooWide,
            [0x123, 8, 0],
        ),
        (
            SpaceError::Misfit {
                smmu,
                why: Misfit::Granule { log2_granule: 14 },
            },
            Code::Misfit,
            [3, 4, 14],
        ),
        (
            SpaceError::Unwalkable {
                smmu,
                why: Unwalkable::VmidSize,
            },
            Code::Unwalkable,
            [3, 3, 0],
        ),
        (
            SpaceError::NoFrames { log2_bytes: 16 },
            Code::NoMemory,
            [16, 0, 0],
        ),
        (SpaceError::Busy { waited_us: 7 }, Code::Busy, [7, 0, 0]),
        (
            SpaceError::Unprotected { device },
            Code::Unprotected,
            [42, 0, 0],
        ),
        (
            SpaceError::NotReset {
                device,
                because: "it is gone",
            },
            Code::NotReset,
            [42, 0, 0],
        ),
        (
            SpaceError::Quota(Quantity::Handles),
            Code::QuotaHandles,
            [0, 0, 0],
        ),
        (SpaceError::Released, Code::Released, [0, 0, 0]),
    ];
    for (word, fence) in (0..).zip(fences) {
        cases.extend([
            (
                SpaceError::NotConfirmed { smmu, error, fence },
                Code::NotConfirmed,
                [3, word, 0],
            ),
            (
                SpaceError::NotHeld { smmu, fence },
                Code::NotHeld,
                [3, word, 0],
            ),
            (
                SpaceError::CachesKept { device, fence },
                Code::CachesKept,
                [42, word, 0],
            ),
        ]);
    }
    for (error, code, details) in cases {
        let number = |it| if it == device { 42 } else { 0 };
        let refused = Refused::of(error, number);
        assert_eq!((refused.code, refused.details), (code, details), "{error}");
    }
}
