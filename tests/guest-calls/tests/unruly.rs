//! Random calls while hardware misbehaves: no panic, nothing reached that is another's; and once it
//! behaves again, all memory comes back.
//!
//! 20,000 calls in the ordinary run. `PORTCULLIS_CALLS` and `PORTCULLIS_SEED` as in `fuzz.rs`, a
//! fifth as many calls.

use std::collections::BTreeSet;

use portcullis::guest::calls::Code;
use portcullis_guest::Conduit;
use portcullis_guest_calls::{Board, GUESTS, Random, Stranger, VA, Vcpu, on_unruly_board};
use smmu_model::device::{Misconduct, frame};
use smmu_model::{Faults, Mode};

const ROUND: u64 = 1_000;
const ORDINARY: u64 = 20_000;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

fn mode(seed: u64) -> Mode {
    match seed % 6 {
        0 => Mode::Hoarding,
        1 => Mode::Forgetful,
        _ => Mode::Chaotic { seed },
    }
}

/// Something that an SMMU does wrong.
fn a_fault(random: &mut Random) -> Faults {
    let none = Faults::default();
    let few = random.below(12) as u32;
    match random.below(6) {
        0 => Faults {
            sync_never: true,
            sync_skip: few,
            ..none
        },
        1 => Faults {
            sync_late_us: 10_000,
            sync_late_count: Some(1),
            sync_skip: few,
            ..none
        },
        2 => Faults {
            illegal_after: Some(few),
            ..none
        },
        3 => Faults {
            abort_after: Some(few),
            ..none
        },
        4 => Faults {
            atc_sync_errors: 1,
            ..none
        },
        _ => Faults {
            event_queue_full: true,
            ..none
        },
    }
}

/// A device does DMA, and its cache of translations answers when it likes, or not; it never lies, as
/// one would that says Unsupported Request and keeps what it has (§3.9.1.5).
fn stir(board: &Board<'_>, guest: usize, pasid: u32, random: &mut Random) {
    let device = &board.guests[guest].models[random.below(2) as usize];
    let ways = [
        Misconduct::None,
        Misconduct::None,
        Misconduct::Silent,
        Misconduct::Late,
    ];
    if random.once_in(8) {
        device.misbehave(random.one_of(&ways).unwrap_or(Misconduct::None));
        device.write32(frame::LATENESS_US, 500);
    }
    let controls = frame::control::ENABLE | frame::control::ATS;
    device.write32(frame::CONTROL, controls);
    device.write32(frame::PASID, pasid | 1 << 31);
    device.write64(frame::IOVA, VA + random.below(0x1800));
    device.write32(frame::LENGTH, 8);
    device.write32(frame::FLAGS, frame::flags::WRITE);
    device.write32(frame::COMMAND, frame::command::START);
}

fn round(board: &Board<'_>, seed: u64, codes: &mut BTreeSet<i64>) {
    let mut strangers: Vec<_> = (0..GUESTS as u64)
        .map(|n| Stranger::new(seed << 8 | n))
        .collect();
    let mut random = Random::new(!seed);
    let machine = board.host.machine();
    for _ in 0..ROUND {
        let smmu = random.below(2) as usize;
        if random.once_in(12) {
            machine.smmu(smmu).set_faults(a_fault(&mut random));
        }
        if random.once_in(6) {
            machine.smmu(smmu).set_faults(Faults::default());
        }
        let guest = random.below(GUESTS as u64) as usize;
        let asked = strangers[guest].next_call();
        let mut answer = asked;
        let vcpu = 0;
        Vcpu { board, guest, vcpu }.call(&mut answer);
        codes.insert(answer[0].cast_signed());
        strangers[guest].learn(&asked, &answer);
        if random.once_in(3) {
            let pasid = strangers[guest].pasid();
            stir(board, guest, pasid, &mut random);
        }
        if random.once_in(6) {
            board.pass(random.below(300));
            board.iommu.service(16);
        }
        if random.once_in(20) {
            for smmu in board.iommu.unproven().iter() {
                // It may go on misbehaving.
                let _ = board.recover(smmu);
            }
        }
        for landing in machine.record().take_landings() {
            let owner = &board.guests[((landing.stream - 0x10) / 0x20) as usize];
            assert!(owner.owns(landing.pa), "{landing:x?}");
        }
    }
}

#[test]
fn random_calls_on_hardware_that_misbehaves_leak_nothing() {
    let calls = setting("PORTCULLIS_CALLS").map_or(ORDINARY, |calls| calls / 5);
    let first = setting("PORTCULLIS_SEED").unwrap_or(0);
    let mut codes = BTreeSet::new();
    for seed in first..first + calls.div_ceil(ROUND) {
        println!("seed {seed}, {:?}", mode(seed));
        on_unruly_board(mode(seed), |board| round(board, seed, &mut codes));
    }
    println!("{codes:?}");
    for code in [
        Code::NotConfirmed,
        Code::CachesKept,
        Code::Fenced,
        Code::SmmuDown,
    ] {
        assert!(codes.contains(&(code as i64)), "{code:?} never came");
    }
}
