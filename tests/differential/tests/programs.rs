//! The programs themselves: that they say something, and that they can tell SMMUs apart.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use differential::{Log, exceptions, run_on, run_on_model};
use smmu_model::{Identity, Mode, Settings};

const ARENA: u64 = 0x4820_0000;

/// What the model that QEMU is compared with shows.
static POLITE: LazyLock<Log> = LazyLock::new(|| run_on_model(ARENA));

fn lines(log: &Log) -> impl Iterator<Item = &str> {
    let programs = log.programs.iter();
    programs.flat_map(|program| program.lines.iter().map(String::as_str))
}

/// The names of the programs that show something else.
fn differing<'a>(one: &'a Log, other: &Log) -> Vec<&'a str> {
    let both = one.programs.iter().zip(&other.programs);
    both.filter(|(one, other)| one.lines != other.lines)
        .map(|(one, _)| one.name.as_str())
        .collect()
}

#[test]
fn every_program_has_a_name_of_its_own() {
    let names: BTreeSet<_> = differential_programs::programs()
        .map(|program| program.name)
        .collect();
    assert_eq!(names.len(), differential_programs::programs().count());
    assert!(names.len() >= 300, "{}", names.len());
}

#[test]
fn the_programs_are_seen_through_on_the_model() {
    let log = &*POLITE;
    assert!(!lines(log).any(|line| line.starts_with("stuck")));
    let ends = lines(log).filter(|line| line.starts_with("commands consumed"));
    assert!(ends.count() >= log.programs.len());
}

#[test]
fn every_event_that_both_can_record_is_seen() {
    let log = &*POLITE;
    let seen: BTreeSet<_> = lines(log)
        .filter_map(|line| line.strip_prefix("event "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let all = [
        "C_BAD_CD",
        "C_BAD_STE",
        "C_BAD_STREAMID",
        "F_ACCESS",
        "F_ADDR_SIZE",
        "F_CD_FETCH",
        "F_PERMISSION",
        "F_STE_FETCH",
        "F_TRANSLATION",
        "F_WALK_EABT",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn no_record_has_a_bit_that_is_not_told() {
    let log = &*POLITE;
    assert_eq!(lines(log).find(|line| line.contains("other bits")), None);
}

#[test]
fn accesses_are_let_through_and_stopped() {
    let log = &*POLITE;
    let count = |what: &str| lines(log).filter(|line| line.contains(what)).count();
    assert!(count("writes at") > 600);
    assert!(count(": landed at arena+") > 400);
    assert!(count(": did not land") > 200);
    assert!(count(": 0x7ead") > 8);
}

#[test]
fn what_is_seen_does_not_tell_where_the_arena_is() {
    let here = &*POLITE;
    let there = run_on_model(0x5560_0000);
    assert_eq!(here.programs, there.programs);
}

#[test]
fn an_smmu_without_a_granule_is_told_apart_by_the_programs_that_use_it() {
    let identity = Identity {
        granule_16k: false,
        ..Identity::qemu()
    };
    let without = run_on(Settings::new(identity, Mode::Polite), ARENA);
    let with = &*POLITE;
    let using: Vec<_> = with
        .programs
        .iter()
        .map(|program| program.name.as_str())
        .filter(|name| name.contains("-16k"))
        .collect();
    assert!(using.len() >= 8);
    assert_eq!(differing(with, &without), using);
}

#[test]
fn an_smmu_that_forgets_is_told_apart_by_the_programs_of_caches() {
    let forgetful = run_on(Settings::new(Identity::qemu(), Mode::Forgetful), ARENA);
    let polite = &*POLITE;
    let told = differing(polite, &forgetful);
    for name in [
        "stage2-change-is-not-seen-without-tlbi",
        "stage2-change-after-s2-ipa-of-another-vmid",
        "range-of-7-pages-leaves-the-eighth",
        "stage1-change-after-nh-asid-of-another",
        "nested-change-of-stage-2-after-s2-ipa-alone",
        "entry-change-after-cfgi-ste-of-another",
        "cd-change-after-cfgi-cd-of-another-stream",
        "what-is-cached-survives-smmuen",
    ] {
        assert!(told.contains(&name), "{name}: {told:?}");
    }
    // Every other program shows only what is in memory.
    assert!(told.len() < 100, "{told:?}");
}

#[test]
fn every_exception_names_lines_and_a_reason() {
    for exception in exceptions() {
        assert!(!exception.programs.is_empty());
        assert!(!exception.why.is_empty(), "{exception:?}");
        assert!(
            !exception.model.is_empty() || !exception.qemu.is_empty(),
            "{exception:?}"
        );
    }
}
