//! One function is reset and comes back, or the refusal says what it is like.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis::discover::Rid;
use portcullis::hw::{Clock, Registers};
use portcullis::pci::{Ecam, Refusal};

use super::fabric::{Bus, Fabric, Function as Fake, Reset};
use super::noise::Noise;
use super::{MEMORY_64, ROOT_PORT, bridge, edu, look, rid};

const AT: (u8, u8) = (1, 0);

fn target() -> Rid {
    rid(0, AT.0, AT.1)
}

/// A millisecond goes by in each turn of a wait.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Clock for Ticks {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn relax(&self) {
        self.0.fetch_add(1000, Ordering::Relaxed);
    }
}

/// A fabric that notes when which register was written with what; reads are noted as `None`.
struct Timed<'a> {
    fabric: &'a Fabric,
    clock: &'a Ticks,
    log: Mutex<Vec<(u64, u16, Option<u32>)>>,
}

impl Timed<'_> {
    fn note(&self, offset: usize, value: Option<u32>) {
        let mut log = self.log.lock().expect("no panic before");
        log.push((self.clock.now_us(), (offset & 0xfff) as u16, value));
    }
}

impl Registers for &Timed<'_> {
    fn read32(&self, offset: usize) -> u32 {
        self.note(offset, None);
        self.fabric.read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.note(offset, Some(value));
        self.fabric.write32(offset, value);
    }

    fn read64(&self, offset: usize) -> u64 {
        self.fabric.read64(offset)
    }

    fn write64(&self, offset: usize, value: u64) {
        self.fabric.write64(offset, value);
    }
}

/// An NVMe controller in use: memory, bus mastering and MSIs on, larger payloads than at power-on.
fn in_use(reset: Reset) -> Fake {
    let mut fake = Fake::endpoint(0x1b36, 0x0010, 0x01_0802)
        .bar(0, 1 << 14, MEMORY_64)
        .bar(2, 1 << 12, 0)
        .msi(0x0080)
        .resettable(reset);
    for (register, value) in [
        (0x04, 0x0010_0406),
        (0x10, 0x0000_8004),
        (0x14, 0x80),
        (0x18, 0x1000_0000),
        (0x48, 0x5830),
        (0x60, 0x0081_0005),
    ] {
        fake.registers.insert(register, value);
    }
    fake
}

fn reset(fake: Fake) -> (Fabric, u64, Result<(), Refusal>) {
    let fabric = Fabric::new(0, [(AT, fake)].into());
    let clock = Ticks::default();
    let outcome = Ecam::new(&fabric, &bridge(0, 255)).reset(target(), &clock);
    (fabric, clock.now_us(), outcome)
}

fn get(fabric: &Fabric, register: u16) -> u32 {
    let found = fabric.with(0, AT.0, AT.1, |fake| fake.get(register));
    found.expect("it is there")
}

fn count(fabric: &Fabric) -> u32 {
    let found = fabric.with(0, AT.0, AT.1, |fake| fake.reset.clone());
    found.flatten().expect("it can be reset").count
}

#[test]
fn a_reset_function_is_where_it_was_and_silent() {
    let (fabric, took_us, outcome) = reset(in_use(Reset::default()));
    assert_eq!(outcome, Ok(()));
    assert_eq!(count(&fabric), 1);
    for (register, value) in [
        (0x04, 0x0010_0002),
        (0x10, 0x0000_8004),
        (0x14, 0x80),
        (0x18, 0x1000_0000),
        (0x48, 0x5830),
        (0x60, 0x0080_0005),
    ] {
        assert_eq!(get(&fabric, register), value, "{register:#x}");
    }
    assert!((100_000..110_000).contains(&took_us), "{took_us}");
}

#[test]
fn the_list_says_which_functions_can_be_reset() {
    let root = [
        ((1, 0), in_use(Reset::default())),
        ((2, 0), edu()),
        ((3, 0), Fake::bridge(ROOT_PORT, Bus::new())),
    ];
    let fabric = Fabric::new(0, root.into());
    let found = look(&fabric, &bridge(0, 255)).expect("room for all");
    let can: Vec<_> = found.iter().map(|function| function.can_reset).collect();
    assert_eq!(can, [true, false, false]);
}

#[test]
fn memory_that_was_off_stays_off() {
    let mut fake = in_use(Reset::default());
    fake.registers.insert(0x04, 0x0010_0000);
    let (fabric, _, outcome) = reset(fake);
    assert_eq!(outcome, Ok(()));
    assert_eq!(get(&fabric, 0x04), 0x0010_0000);
}

#[test]
fn a_function_that_comes_back_on_is_turned_off() {
    let mut fake = in_use(Reset::default());
    if let Some(reset) = &mut fake.reset {
        reset.registers.insert(0x04, 0x0010_0407);
    }
    let (fabric, _, outcome) = reset(fake);
    assert_eq!(outcome, Ok(()));
    assert_eq!(get(&fabric, 0x04), 0x0010_0002);
}

#[test]
fn a_function_that_asks_to_be_reset_again_is_reset_once() {
    let mut fake = in_use(Reset::default());
    fake.registers.insert(0x48, 0xd830);
    let (fabric, _, outcome) = reset(fake);
    assert_eq!(outcome, Ok(()));
    assert_eq!(count(&fabric), 1);
}

#[test]
fn it_is_silent_before_its_reset_and_asked_nothing_for_100_ms_after() {
    let fabric = Fabric::new(0, [(AT, in_use(Reset::default()))].into());
    let clock = Ticks::default();
    let timed = Timed {
        fabric: &fabric,
        clock: &clock,
        log: Mutex::default(),
    };
    let outcome = Ecam::new(&timed, &bridge(0, 255)).reset(target(), &clock);
    assert_eq!(outcome, Ok(()));
    let log = timed.log.lock().expect("no panic before");
    let position = |wanted: &dyn Fn(u16, u32) -> bool| {
        log.iter()
            .position(|(_, register, value)| value.is_some_and(|value| wanted(*register, value)))
            .expect("it is written")
    };
    let silenced = position(&|register, value| register == 4 && value & 4 == 0);
    let begun = position(&|register, value| register == 0x48 && value & 1 << 15 != 0);
    assert!(silenced < begun);
    // Nothing that is cleared by writing ones is cleared: the status is the upper half.
    assert_eq!(log[begun].2, Some(0xd830));
    assert!(log[begun + 1].0 - log[begun].0 >= 100_000);
}

#[test]
fn what_is_pending_is_waited_for_before_and_after() {
    let patient = Reset {
        pending: [20, 30],
        absent: 40,
        ..Reset::default()
    };
    let (fabric, took_us, outcome) = reset(in_use(patient));
    assert_eq!(outcome, Ok(()));
    assert_eq!(count(&fabric), 1);
    assert!((180_000..200_000).contains(&took_us), "{took_us}");
}

fn pending(outcome: Result<(), Refusal>) -> bool {
    matches!(outcome, Err(Refusal::Pending { rid, waited_us })
        if rid == target() && waited_us >= 1_000_000)
}

#[test]
fn a_function_with_transactions_pending_is_never_reset_under_them() {
    let (fabric, took_us, outcome) = reset(in_use(Reset {
        pending: [u32::MAX, 0],
        ..Reset::default()
    }));
    assert!(pending(outcome), "{outcome:?}");
    assert_eq!(count(&fabric), 0);
    assert_eq!(get(&fabric, 0x04) & 4, 0, "its bus mastering is off");
    assert!(took_us < 1_100_000, "{took_us}");
}

#[test]
fn a_function_with_transactions_pending_after_its_reset_is_refused() {
    let (fabric, _, outcome) = reset(in_use(Reset {
        pending: [0, u32::MAX],
        ..Reset::default()
    }));
    assert!(pending(outcome), "{outcome:?}");
    assert_eq!(count(&fabric), 1);
    assert_eq!(get(&fabric, 0x04) & 6, 0, "it is off");
}

fn not_back(outcome: Result<(), Refusal>) -> bool {
    matches!(outcome, Err(Refusal::NotBack { rid, waited_us })
        if rid == target() && waited_us >= 1_000_000)
}

#[test]
fn a_function_that_does_not_come_back_is_refused_in_bounded_time() {
    let (_, took_us, outcome) = reset(in_use(Reset {
        absent: u32::MAX,
        ..Reset::default()
    }));
    assert!(not_back(outcome), "{outcome:?}");
    assert!(took_us < 1_200_000, "{took_us}");
}

#[test]
fn a_function_that_comes_back_as_another_is_refused() {
    let mut fake = in_use(Reset::default());
    if let Some(reset) = &mut fake.reset {
        reset.registers.insert(0, 0x0011_1b36);
    }
    let (_, _, outcome) = reset(fake);
    assert!(not_back(outcome), "{outcome:?}");
}

#[test]
fn a_function_that_forgets_its_place_after_a_reset_is_refused() {
    let mut fake = in_use(Reset::default());
    // The size of its BAR has changed.
    fake.writable.insert(0x18, 0xf000_0000);
    fake.registers.insert(0x18, 0x1230_0000);
    let (fabric, _, outcome) = reset(fake);
    let forgets = Refusal::Forgets {
        rid: target(),
        offset: 0x18,
        wrote: 0x1230_0000,
        found: 0x1000_0000,
    };
    assert_eq!(outcome, Err(forgets));
    assert_eq!(get(&fabric, 0x04) & 6, 0, "it is off");
}

#[test]
fn what_cannot_be_reset_is_refused_and_left_alone() {
    let mut without = in_use(Reset::default());
    without.registers.insert(0x44, 0);
    let port = Fake::bridge(ROOT_PORT, Bus::new());
    let no_reset = Refusal::NoReset { rid: target() };
    let header = Refusal::Header {
        rid: target(),
        header: 1,
    };
    for (fake, refusal) in [(edu(), no_reset), (without, no_reset), (port, header)] {
        let before = fake.registers.clone();
        let fabric = Fabric::new(0, [(AT, fake)].into());
        let ecam = Ecam::new(&fabric, &bridge(0, 255));
        assert_eq!(ecam.can_reset(target()), Err(refusal));
        assert_eq!(ecam.reset(target(), &Ticks::default()), Err(refusal));
        let after = fabric.with(0, AT.0, AT.1, |fake| fake.registers.clone());
        assert_eq!(after, Some(before));
    }
    let empty = Fabric::new(0, Bus::new());
    let ecam = Ecam::new(&empty, &bridge(0, 255));
    let absent = Refusal::Absent { rid: target() };
    assert_eq!(ecam.reset(target(), &Ticks::default()), Err(absent));
}

#[test]
fn a_fabric_that_answers_anything_is_reset_or_refused_in_bounded_time() {
    let mut refusals = 0;
    for seed in 0..2000 {
        let noise = Noise::new(seed << 20);
        let clock = Ticks::default();
        let ended = Ecam::new(&noise, &bridge(0, 255)).reset(target(), &clock);
        refusals += u32::from(ended.is_err());
        assert!(clock.now_us() < 3_200_000, "{seed}");
    }
    assert!(refusals > 1000, "{refusals}");
}
