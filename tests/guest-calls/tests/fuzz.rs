//! Random calls from random CPUs: no panic, no leak, no broken invariant.
//!
//! 100,000 calls in the ordinary run. `PORTCULLIS_CALLS` says how many it is to be, say `10000000`;
//! `PORTCULLIS_SEED` with which seeds to begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis::guest::calls::Code;
use portcullis::space::Counts;
use portcullis_guest::{Call, Conduit, Registers};
use portcullis_guest_calls::{Board, GUESTS, Guest, Random, Stranger, VA, Vcpu, on_board};
use smmu_model::Mode;
use smmu_model::device::frame;

/// Calls on one machine, before the next one is built.
const ROUND: u64 = 2_500;
/// The calls of an ordinary run: of one CPU at a time, and of several at once.
const ORDINARY: u64 = 100_000;

fn setting(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(value) => value.parse().expect("a number"),
        Err(_) => otherwise,
    }
}

fn mode(seed: u64) -> Mode {
    match seed % 8 {
        0 => Mode::Hoarding,
        1 => Mode::Polite,
        2 => Mode::Forgetful,
        _ => Mode::Chaotic { seed },
    }
}

/// How many words from `x1` on a call may change when it is done; `None`: none of ours.
fn answered(registers: &Registers) -> Option<usize> {
    let function = registers[0] as u32;
    let (call, _) = Call::ALL
        .iter()
        .find(|(call, _)| call.function() == function)?;
    Some(match call {
        Call::Features => match registers[1] {
            0 => 4,
            1 => 5,
            _ => 3,
        },
        Call::DeviceInfo | Call::SpaceCreate => 4,
        Call::FaultNext => 9,
        Call::LogRead => 17,
        _ => 3,
    })
}

/// What must hold of any answer.
fn judge(call: &Registers, answer: &Registers) {
    let x0 = answer[0].cast_signed();
    match answered(call) {
        Some(most) => {
            let is_code = Code::ALL.iter().any(|(code, _)| *code as i64 == x0);
            assert!(x0 == 0 || is_code, "{call:x?} answers {x0}");
            assert!(x0 == 0 || x0 > -96, "{call:x?} answers EL2's own {x0}");
            assert_ne!(x0, -1, "{call:x?} is there");
            let most = if x0 == 0 { most } else { 3 };
            assert_eq!(call[1 + most..], answer[1 + most..], "{call:x?}");
        }
        None => {
            let function = call[0] as u32;
            let results = match function {
                0x8600_FF01 => 4,
                0x8600_FF03 => 2,
                _ => 1,
            };
            assert_eq!(call[results..], answer[results..], "{call:x?}");
            let is_known = matches!(
                function,
                0x8000_0000 | 0x8000_0001 | 0x8600_FF01 | 0x8600_FF03
            );
            assert!(is_known || x0 == -1, "{call:x?} answers {x0}");
        }
    }
}

/// What nothing but a call of the guest changes.
fn held(counts: &Counts) -> [u32; 3] {
    [counts.bindings, counts.handles, counts.devices]
}

/// A device of a guest does something, with a PASID or without.
fn fire(board: &Board<'_>, guest: usize, pasid: u32, random: &mut Random) {
    let device = &board.guests[guest].models[random.below(2) as usize];
    let controls = [
        0,
        frame::control::ENABLE,
        frame::control::ENABLE,
        frame::control::ENABLE | frame::control::ATS,
        frame::control::ENABLE | frame::control::ATS | frame::control::EAGER,
    ];
    device.write32(frame::CONTROL, random.one_of(&controls).unwrap_or(0));
    let pasid = match random.below(4) {
        0 => 0,
        _ => pasid | 1 << 31,
    };
    let flags = [
        0,
        frame::flags::WRITE,
        frame::flags::WRITE | frame::flags::REPEAT,
    ];
    device.write32(frame::PASID, pasid);
    device.write64(frame::IOVA, VA + random.below(0x2000));
    device.write32(frame::LENGTH, 1 + random.below(64) as u32);
    device.write32(frame::FLAGS, random.one_of(&flags).unwrap_or(0));
    // Nobody's tables: what lands may land anywhere in the guest's pages of data.
    device.write64(frame::PATTERN, random.word());
    device.write32(frame::COMMAND, frame::command::START);
}

/// What has reached memory is of the guest whose device it was.
fn judge_landings(board: &Board<'_>) {
    for landing in board.host.machine().record().take_landings() {
        let owner = owner(board, landing.stream);
        assert!(owner.owns(landing.pa), "{landing:x?}");
    }
}

fn owner<'a>(board: &'a Board<'_>, stream: u32) -> &'a Guest {
    &board.guests[((stream - 0x10) / 0x20) as usize]
}

/// How often each call was answered in each way, by function and `x0`.
type Answers = BTreeMap<(u32, i64), u64>;

/// Two CPUs of two guests take turns.
fn take_turns(board: &Board<'_>, seed: u64, calls: u64, answers: &mut Answers) {
    let mut strangers: Vec<_> = (0..GUESTS as u64)
        .map(|n| Stranger::new(seed << 8 | n))
        .collect();
    let mut random = Random::new(!seed);
    for call in 0..calls {
        let guest = random.below(GUESTS as u64) as usize;
        if random.once_in(16) {
            let other = strangers[1 - guest].clone();
            strangers[guest].overhear(&other);
        }
        let before = board.guests.iter().map(|it| board.iommu.counts(it.id));
        let before: Vec<_> = before.map(|it| it.expect("it runs")).collect();
        let asked = strangers[guest].next_call();
        let mut answer = asked;
        let vcpu = random.below(2) as u32;
        Vcpu { board, guest, vcpu }.call(&mut answer);
        judge(&asked, &answer);
        let x0 = answer[0].cast_signed();
        *answers.entry((asked[0] as u32, x0)).or_default() += 1;
        strangers[guest].learn(&asked, &answer);
        for (n, before) in before.iter().enumerate() {
            let after = board.iommu.counts(board.guests[n].id).expect("it runs");
            let is_refused = x0 < 0 && x0 > -64;
            if n != guest || is_refused {
                assert_eq!(held(before), held(&after), "{asked:x?}: {answer:x?}");
            }
        }
        if random.once_in(4) {
            let guest = random.below(GUESTS as u64) as usize;
            let pasid = strangers[guest].pasid();
            fire(board, guest, pasid, &mut random);
        }
        if random.once_in(8) {
            board.pass(random.below(300));
        }
        if random.once_in(8) {
            board.iommu.service(random.below(64) as u32);
        }
        judge_landings(board);
        if call % 64 == 0 {
            judge_model(board);
        }
    }
}

fn judge_model(board: &Board<'_>) {
    let violations = board.host.machine().record().violations_after(0);
    assert!(violations.is_empty(), "{}", violations[0]);
}

#[test]
fn random_calls_of_one_cpu_at_a_time_break_nothing() {
    let calls = setting("PORTCULLIS_CALLS", ORDINARY);
    let first = setting("PORTCULLIS_SEED", 0);
    let mut answers = Answers::new();
    for round in 0..calls.div_ceil(ROUND) {
        let seed = first + round;
        println!("seed {seed}, {:?}", mode(seed));
        let calls = ROUND.min(calls - round * ROUND);
        on_board(mode(seed), |board| {
            take_turns(board, seed, calls, &mut answers);
        });
    }
    for (call, name) in Call::ALL {
        let done = answers.get(&(call.function(), 0)).copied().unwrap_or(0);
        println!("{name}: {done} done");
        assert!(done > calls / 5_000, "{name} was done {done} times");
    }
    let codes: BTreeSet<_> = answers.keys().map(|(_, x0)| *x0).collect();
    println!("{codes:?}");
    assert!(codes.len() > 25, "{codes:?}");
}

#[test]
fn random_calls_of_several_cpus_at_once_break_nothing() {
    let calls = setting("PORTCULLIS_CALLS", ORDINARY) / 5;
    let first = setting("PORTCULLIS_SEED", 0);
    for round in 0..calls.div_ceil(ROUND) {
        let seed = first + round;
        println!("seed {seed}, {:?}", mode(seed));
        on_board(mode(seed), |board| all_at_once(board, seed));
    }
}

/// Two CPUs of each guest, a device that fires, and the CPU that serves.
fn all_at_once(board: &Board<'_>, seed: u64) {
    let is_over = AtomicBool::new(false);
    // Both CPUs of a guest know what the guest knows.
    let knowledge: Vec<_> = (0..GUESTS as u64)
        .map(|n| Mutex::new(Stranger::new(seed << 8 | n)))
        .collect();
    std::thread::scope(|scope| {
        let cpus: Vec<_> = (0..GUESTS * 2)
            .map(|n| {
                let (guest, vcpu) = (n / 2, (n % 2) as u32);
                let knowledge = &knowledge[guest];
                scope.spawn(move || {
                    for _ in 0..ROUND / 4 {
                        let asked = knowledge.lock().expect("nobody panicked").next_call();
                        let mut answer = asked;
                        Vcpu { board, guest, vcpu }.call(&mut answer);
                        judge(&asked, &answer);
                        let mut knowledge = knowledge.lock().expect("nobody panicked");
                        knowledge.learn(&asked, &answer);
                    }
                })
            })
            .collect();
        let (is_over, knowledge) = (&is_over, &knowledge);
        scope.spawn(move || {
            let mut random = Random::new(!seed);
            while !is_over.load(Ordering::Relaxed) {
                let guest = random.below(GUESTS as u64) as usize;
                let pasid = knowledge[guest].lock().expect("nobody panicked").pasid();
                fire(board, guest, pasid, &mut random);
                board.pass(random.below(50));
                board.iommu.service(random.below(64) as u32);
                judge_landings(board);
                std::thread::yield_now();
            }
        });
        let outcomes: Vec<_> = cpus.into_iter().map(|cpu| cpu.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            assert!(outcome.is_ok(), "a CPU panicked; seed {seed}");
        }
    });
    judge_landings(board);
    judge_model(board);
}
