//! Interrupts and global errors (§3.18, §6.3.15 to §6.3.18).

use smmu_model::bench::SYNC;
use smmu_model::{Barrier, Faults, Fetch, Identity, Interrupt, Line, Outcome};

use crate::kit::{Rig, VA, read};

fn enable(rig: &Rig, value: u32) {
    rig.bench.write(0x50, value);
    assert!(rig.bench.wait(|bench| bench.read(0x54) == value));
    rig.bench.machine.smmu(0).take_interrupts();
}

fn interrupts(rig: &Rig) -> Vec<Interrupt> {
    rig.bench.machine.smmu(0).take_interrupts()
}

/// Which errors are active.
fn active(rig: &Rig) -> u32 {
    rig.bench.read(0x60) ^ rig.bench.read(0x64)
}

/// One record: the stream's entry is invalid.
fn provoke(rig: &Rig) {
    assert_eq!(rig.transact(read(VA)), Outcome::Aborted);
}

#[test]
fn the_event_interrupt_comes_when_the_queue_becomes_non_empty() {
    let mut rig = Rig::full();
    enable(&rig, 0x4);
    provoke(&rig);
    assert_eq!(interrupts(&rig), [Interrupt::Wired(Line::EventQueue)]);
    provoke(&rig);
    assert_eq!(interrupts(&rig), []);
    rig.bench.next_raw_event();
    rig.bench.next_raw_event();
    provoke(&rig);
    assert_eq!(interrupts(&rig), [Interrupt::Wired(Line::EventQueue)]);
}

#[test]
fn the_event_interrupt_stays_away_while_it_is_off() {
    let rig = Rig::full();
    enable(&rig, 0x3);
    provoke(&rig);
    assert_eq!(interrupts(&rig), []);
}

/// Configures the message of one source: address and data.
fn configure(rig: &mut Rig, at: u64) -> u64 {
    let target = rig.bench.frames(12);
    rig.bench.write64(at, target | 8);
    rig.bench.write(at + 8, 0x0bad_cafe);
    rig.bench.write(at + 12, 0);
    target | 8
}

/// The source's message is there, and its wire pulsed.
fn has_message(rig: &Rig, line: Line, target: u64) {
    rig.bench.machine.barrier(Barrier::Observe);
    assert_eq!(rig.bench.machine.load(target), Ok(0x0bad_cafe));
    let got = interrupts(rig);
    let message = Interrupt::Message {
        line,
        pa: target,
        data: 0x0bad_cafe,
    };
    assert!(got.contains(&message), "{got:?}");
    assert!(got.contains(&Interrupt::Wired(line)), "{got:?}");
    assert_eq!(got.len(), 2);
}

#[test]
fn the_event_interrupt_may_be_a_message() {
    let mut rig = Rig::full();
    let target = configure(&mut rig, 0xb0);
    enable(&rig, 0x4);
    provoke(&rig);
    has_message(&rig, Line::EventQueue, target);
}

#[test]
fn the_error_interrupt_may_be_a_message() {
    let mut rig = Rig::full();
    let target = configure(&mut rig, 0x68);
    enable(&rig, 0x1);
    rig.bench.submit(&[[0xff, 0]]);
    has_message(&rig, Line::GlobalError, target);
}

#[test]
fn an_smmu_without_messages_only_pulses_its_wires() {
    let mut rig = Rig::new(Identity {
        msi: false,
        ..Identity::full()
    });
    let target = configure(&mut rig, 0xb0);
    enable(&rig, 0x4);
    provoke(&rig);
    assert_eq!(interrupts(&rig), [Interrupt::Wired(Line::EventQueue)]);
    assert_eq!(rig.bench.machine.load(target), Ok(0));
}

#[test]
fn the_error_interrupt_comes_once_for_each_error() {
    let mut rig = Rig::full();
    enable(&rig, 0x1);
    rig.bench.submit(&[[0xff, 0]]);
    assert_eq!(interrupts(&rig), [Interrupt::Wired(Line::GlobalError)]);
    assert_eq!(active(&rig), 1);
}

#[test]
fn the_error_interrupt_stays_away_while_it_is_off() {
    let mut rig = Rig::full();
    enable(&rig, 0x6);
    rig.bench.submit(&[[0xff, 0]]);
    assert_eq!(active(&rig), 1);
    assert_eq!(interrupts(&rig), []);
}

fn abort_messages(rig: &Rig) {
    rig.bench.machine.smmu(0).set_faults(Faults {
        aborts: vec![Fetch::Msi],
        ..Faults::default()
    });
}

#[test]
fn an_abort_of_the_event_message_is_its_own_error() {
    let mut rig = Rig::full();
    configure(&mut rig, 0xb0);
    enable(&rig, 0x4);
    abort_messages(&rig);
    provoke(&rig);
    assert_eq!(active(&rig), 1 << 5);
    // It stops nothing.
    provoke(&rig);
    assert!(rig.bench.next_raw_event().is_some());
    assert!(rig.bench.next_raw_event().is_some());
}

#[test]
fn an_abort_of_the_error_message_is_its_own_error_without_an_interrupt() {
    let mut rig = Rig::full();
    configure(&mut rig, 0x68);
    enable(&rig, 0x1);
    abort_messages(&rig);
    rig.bench.submit(&[[0xff, 0]]);
    assert_eq!(active(&rig), 1 << 7 | 1);
    let wires = interrupts(&rig)
        .iter()
        .filter(|&&one| one == Interrupt::Wired(Line::GlobalError))
        .count();
    assert_eq!(wires, 1);
}

#[test]
fn an_abort_of_a_syncs_message_raises_the_error_interrupt() {
    let mut rig = Rig::full();
    enable(&rig, 0x1);
    abort_messages(&rig);
    rig.bench
        .commands(&[[0x46 | 1 << 12, rig_page(&rig)], SYNC]);
    assert_eq!(active(&rig), 1 << 4);
    assert!(interrupts(&rig).contains(&Interrupt::Wired(Line::GlobalError)));
}

const fn rig_page(rig: &Rig) -> u64 {
    rig.page
}

#[test]
fn every_error_of_gerror_can_become_active_and_be_acknowledged() {
    for bit in [0, 2, 3, 4, 5, 6, 7] {
        let rig = Rig::full();
        rig.bench.machine.smmu(0).raise_error(1 << bit);
        assert_eq!(active(&rig), 1 << bit);
        rig.bench.write(0x64, rig.bench.read(0x60));
        assert_eq!(active(&rig), 0);
        rig.bench.assert_clean();
    }
}

#[test]
fn an_error_that_is_active_does_not_toggle_again() {
    let rig = Rig::full();
    rig.bench.machine.smmu(0).raise_error(1 << 5);
    rig.bench.machine.smmu(0).raise_error(1 << 5);
    assert_eq!(active(&rig), 1 << 5);
}

#[test]
fn service_failure_mode_stops_commands_and_cannot_be_acknowledged() {
    let mut rig = Rig::full();
    rig.bench.machine.smmu(0).raise_sfm();
    assert_eq!(active(&rig), 1 << 8);
    rig.bench.write(0x64, rig.bench.read(0x60));
    assert_eq!(active(&rig), 1 << 8);
    rig.bench.submit(&[SYNC]);
    assert!(!rig.bench.wait(smmu_model::bench::Bench::is_idle));
}

#[test]
fn service_failure_mode_lets_no_traffic_through() {
    let mut rig = Rig::full();
    rig.install(&rig.bypass());
    let page = rig.page;
    rig.reaches(page);
    rig.bench.machine.smmu(0).raise_sfm();
    assert_eq!(rig.transact(read(page)), Outcome::Aborted);
}

#[test]
fn service_failure_mode_aborts_translation_requests() {
    let rig = Rig::full();
    rig.bench.machine.smmu(0).raise_sfm();
    let request = read(VA).of_kind(smmu_model::Kind::AtsRequest);
    assert_eq!(
        rig.transact(request),
        Outcome::Ats(smmu_model::AtsAnswer::CompleterAbort)
    );
}
