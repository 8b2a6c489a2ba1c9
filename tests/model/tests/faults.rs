//! Faults put in: what the hardware may do to a driver that did nothing wrong.
//!
//! The driver is the rogues' gallery's right one; it never breaks a rule here, and every wait of it
//! ends.

#[path = "rogues/driver/mod.rs"]
#[expect(dead_code, reason = "the gallery uses the rest")]
mod driver;
#[path = "rogues/step.rs"]
#[expect(dead_code, reason = "the gallery uses the rest")]
mod step;
#[path = "rogues/stories/mod.rs"]
#[expect(dead_code, reason = "the gallery uses the rest")]
mod stories;
#[path = "rogues/words.rs"]
#[expect(dead_code, reason = "the gallery uses the rest")]
mod words;

use driver::{Atc, BASE, Driver, Setup, Trouble};
use smmu_model::bench::{SYNC, ste_stage2};
use smmu_model::device::{Device, End, Misconduct, frame};
use smmu_model::{
    Faults, Fetch, Identity, Interrupt, Line, Mode, ResponseCode, Rule, StallModel, offset,
};
use step::{Edit, Operation, Step};
use stories::{PASID, STREAM, VA, VMID, fire};

const PAGE: u64 = 0x1000;
/// Where the command queue lies.
const CMDQ: u64 = BASE;

fn off(mode: Mode) -> Driver {
    Driver::off(Setup::new(Identity::full(), mode), None)
}

fn up(mode: Mode) -> Driver {
    let mut driver = off(mode);
    driver.bring_up().expect("nothing is wrong yet");
    driver
}

fn put_in(driver: &Driver, faults: Faults) {
    driver.machine.smmu(0).set_faults(faults);
}

fn assert_clean(driver: &Driver) {
    let violations = driver.machine.record().violations();
    assert!(violations.is_empty(), "{}", violations[0]);
}

/// The position of CMDQ_CONS, wrap bit included.
fn consumer(driver: &Driver) -> u32 {
    driver.read(offset::CMDQ_CONS) & 0xf_ffff
}

// CMD_SYNC.

#[test]
fn a_sync_that_never_completes_ends_in_a_named_error() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 1 }] {
        let mut driver = up(mode);
        let world = stories::plain(&mut driver).expect("nothing is wrong yet");
        let syncs = driver.machine.smmu(0).syncs();
        put_in(
            &driver,
            Faults {
                sync_never: true,
                ..Faults::default()
            },
        );
        let end = driver.retract_ste(STREAM, VMID, &[(world.pages, 4 * PAGE)]);
        assert_eq!(end, Err(Trouble::NotConsumed));
        assert_eq!(driver.machine.smmu(0).syncs(), syncs);
        // Nothing was given back, so nothing was reached that should not have been.
        assert_clean(&driver);
    }
}

#[test]
fn a_sync_that_was_given_up_may_complete_later() {
    let mut driver = up(Mode::Hoarding);
    stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            sync_never: true,
            ..Faults::default()
        },
    );
    assert_eq!(driver.retract_ste_only(STREAM), Err(Trouble::NotConsumed));
    let (before, syncs) = (consumer(&driver), driver.machine.smmu(0).syncs());
    put_in(&driver, Faults::default());
    for _ in 0..10 {
        driver.pass();
    }
    assert_eq!(driver.outstanding(), 0);
    assert_ne!(consumer(&driver), before);
    assert_eq!(driver.machine.smmu(0).syncs(), syncs + 1);
}

#[test]
fn a_late_sync_is_waited_for() {
    let mut driver = up(Mode::Polite);
    put_in(
        &driver,
        Faults {
            sync_late_us: 500,
            ..Faults::default()
        },
    );
    let before = driver.machine.record().now_us();
    assert_eq!(driver.retract_ste_only(STREAM), Ok(()));
    assert!(driver.machine.record().now_us() - before >= 500);
    assert_clean(&driver);
}

// CMDQ_CONS.ERR.

#[test]
fn an_illegal_command_stops_the_queue_until_it_is_replaced() {
    let mut driver = up(Mode::Polite);
    let first = consumer(&driver);
    put_in(
        &driver,
        Faults {
            illegal_after: Some(0),
            ..Faults::default()
        },
    );
    assert_eq!(
        driver.retract_ste_only(STREAM),
        Err(Trouble::CommandError(1))
    );
    // CONS points at the command that failed.
    assert_eq!(consumer(&driver), first);
    assert_eq!(
        driver.read(offset::GERROR) ^ driver.read(offset::GERRORN),
        1
    );
    let slot = CMDQ + u64::from(first & (driver.entries() - 1)) * 16;
    let steps = vec![
        Step::Enter(slot, SYNC),
        Step::Clean(slot, 16),
        Step::Barrier,
        Step::Write(offset::GERRORN, driver.read(offset::GERROR)),
        Step::AwaitConsumed,
    ];
    assert_eq!(driver.run(Operation::Acknowledge, steps), Ok(()));
    assert_clean(&driver);
}

#[test]
fn an_aborted_fetch_of_a_command_is_tried_again_after_the_acknowledgement() {
    let mut driver = up(Mode::Hoarding);
    put_in(
        &driver,
        Faults {
            abort_after: Some(1),
            ..Faults::default()
        },
    );
    assert_eq!(
        driver.retract_ste_only(STREAM),
        Err(Trouble::CommandError(2))
    );
    assert_eq!(driver.outstanding(), 1);
    driver.acknowledge();
    assert_eq!(driver.finish(), Ok(()));
    assert_clean(&driver);
}

#[test]
fn a_queue_in_memory_that_does_not_answer_aborts_every_time() {
    let mut driver = up(Mode::Polite);
    put_in(
        &driver,
        Faults {
            aborts: vec![Fetch::Command],
            ..Faults::default()
        },
    );
    for _ in 0..2 {
        let end = driver.run(Operation::Finish, vec![Step::Command(SYNC), Step::Submit]);
        assert_eq!(end, Ok(()));
        let end = driver.finish();
        assert_eq!(end, Err(Trouble::CommandError(2)));
        driver.acknowledge();
    }
}

#[test]
fn a_sync_after_a_failed_invalidation_is_executed_again() {
    let mut driver = up(Mode::Hoarding);
    put_in(
        &driver,
        Faults {
            atc_sync_errors: 1,
            ..Faults::default()
        },
    );
    let syncs = driver.machine.smmu(0).syncs();
    assert_eq!(
        driver.retract_ste_only(STREAM),
        Err(Trouble::CommandError(3))
    );
    assert_eq!(driver.outstanding(), 1);
    assert_eq!(driver.machine.smmu(0).syncs(), syncs);
    driver.acknowledge();
    assert_eq!(driver.finish(), Ok(()));
    assert_eq!(driver.machine.smmu(0).syncs(), syncs + 1);
}

// GERROR.

const CMDQ_ERR: u32 = 1 << 0;
const EVENTQ_ABT_ERR: u32 = 1 << 2;
const PRIQ_ABT_ERR: u32 = 1 << 3;
const MSI_CMDQ_ABT_ERR: u32 = 1 << 4;
const MSI_EVENTQ_ABT_ERR: u32 = 1 << 5;
const MSI_PRIQ_ABT_ERR: u32 = 1 << 6;
const MSI_GERROR_ABT_ERR: u32 = 1 << 7;
const SFM_ERR: u32 = 1 << 8;

fn active(driver: &Driver) -> u32 {
    driver.read(offset::GERROR) ^ driver.read(offset::GERRORN)
}

#[test]
fn every_global_error_becomes_active_interrupts_and_can_be_acknowledged() {
    let errors = [
        CMDQ_ERR,
        EVENTQ_ABT_ERR,
        PRIQ_ABT_ERR,
        MSI_CMDQ_ABT_ERR,
        MSI_EVENTQ_ABT_ERR,
        MSI_PRIQ_ABT_ERR,
        MSI_GERROR_ABT_ERR,
        SFM_ERR,
    ];
    for error in errors {
        let mut driver = up(Mode::Polite);
        driver.machine.smmu(0).take_interrupts();
        driver.machine.smmu(0).raise_error(error);
        assert_eq!(active(&driver), error);
        let interrupts = driver.machine.smmu(0).take_interrupts();
        let expected: &[Interrupt] = if error == MSI_GERROR_ABT_ERR {
            &[]
        } else {
            &[Interrupt::Wired(Line::GlobalError)]
        };
        assert_eq!(interrupts, expected, "{error:#x}");
        driver.acknowledge();
        // A stopped SMMU stays stopped.
        let left = if error == SFM_ERR { SFM_ERR } else { 0 };
        assert_eq!(active(&driver), left, "{error:#x}");
        // Active again: the bit toggles back.
        driver.machine.smmu(0).raise_error(error);
        assert_eq!(active(&driver), error);
        assert_clean(&driver);
    }
}

#[test]
fn a_stopped_smmu_consumes_no_command_and_lets_nothing_through() {
    let mut driver = up(Mode::Hoarding);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    driver.machine.smmu(0).raise_sfm();
    assert_eq!(active(&driver), SFM_ERR);
    assert_eq!(driver.retract_ste_only(STREAM), Err(Trouble::NotConsumed));
    assert_eq!(fire(&world.device, None, world.pages), End::Aborted);
    assert_clean(&driver);
}

/// Messages for all three sources, to a page after everything else.
fn with_messages() -> Driver {
    let configure = |steps: &mut Vec<Step>| {
        let at = steps.iter().position(step::write_to(offset::IRQ_CTRL));
        let sources = [
            offset::GERROR_IRQ_CFG0,
            offset::EVENTQ_IRQ_CFG0,
            offset::PRIQ_IRQ_CFG0,
        ];
        for (source, number) in sources.into_iter().zip(0..) {
            let config = [
                Step::Write64(source, MESSAGES + number * 4),
                Step::Write(source + 8, 0x100 + number as u32),
                Step::Write(source + 12, 0x3f),
            ];
            let place = at.unwrap_or(0);
            steps.splice(place..place, config);
        }
        for step in steps.iter_mut() {
            match step {
                Step::Write(offset::IRQ_CTRL, value)
                | Step::AwaitRegister(offset::IRQ_CTRLACK, _, value) => *value = 7,
                _ => {}
            }
        }
        at.is_some()
    };
    let edit = Edit::new(Operation::BringUp, configure);
    let mut driver = Driver::off(Setup::new(Identity::full(), Mode::Polite), Some(edit));
    driver.bring_up().expect("nothing is wrong yet");
    driver
}

const MESSAGES: u64 = BASE + 0x7_f000;

#[test]
fn an_aborted_message_is_told_of_by_its_own_error() {
    let cases: [Case; 3] = [
        (provoke_event, MSI_EVENTQ_ABT_ERR),
        (provoke_page_request, MSI_PRIQ_ABT_ERR),
        (provoke_sync_message, MSI_CMDQ_ABT_ERR),
    ];
    for (provoke, error) in cases {
        let mut driver = with_messages();
        stories::plain(&mut driver).expect("nothing is wrong yet");
        put_in(
            &driver,
            Faults {
                aborts: vec![Fetch::Msi],
                ..Faults::default()
            },
        );
        provoke(&mut driver);
        // The message that tells of the error aborts, too.
        assert_eq!(active(&driver), error | MSI_GERROR_ABT_ERR);
        put_in(&driver, Faults::default());
        driver.acknowledge();
        assert_eq!(active(&driver), 0);
        assert_clean(&driver);
    }
}

#[test]
fn messages_arrive_where_and_with_what_they_are_told() {
    let mut driver = with_messages();
    stories::plain(&mut driver).expect("nothing is wrong yet");
    driver.machine.smmu(0).raise_error(PRIQ_ABT_ERR);
    driver.acknowledge();
    provoke_event(&mut driver);
    provoke_page_request(&mut driver);
    provoke_sync_message(&mut driver);
    let word = |at| driver.machine.load(MESSAGES + at).expect("in memory");
    assert_eq!(word(0), 0x101 << 32 | 0x100);
    assert_eq!(word(8), 0x5a5a << 32 | 0x102);
}

/// What provokes a message, and the error that tells of its abort.
type Case = (fn(&mut Driver), u32);

fn provoke_event(driver: &mut Driver) {
    let device = device_of(driver);
    assert_eq!(fire(&device, None, 0x1000), End::Aborted);
}

fn provoke_page_request(driver: &mut Driver) {
    request_page(&device_of(driver), 1, 1 << 20 | 1 << 16);
}

fn provoke_sync_message(driver: &mut Driver) {
    // CS = 1, MSIData = 0x5a5a.
    let sync = [
        0x46 | 1 << 12 | 3 << 22 | 0xf << 24 | 0x5a5a << 32,
        MESSAGES + 12,
    ];
    let steps = vec![Step::Command(sync), Step::Submit, Step::AwaitConsumed];
    assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
}

fn device_of(driver: &Driver) -> std::sync::Arc<Device> {
    std::sync::Arc::clone(&driver.devices[0])
}

fn request_page(device: &Device, group: u32, bits: u32) {
    use frame::control::{ENABLE, PRI};
    device.write32(frame::CONTROL, ENABLE | PRI);
    device.write32(frame::PASID, 0);
    device.write64(frame::IOVA, 0x4_2000);
    device.write32(frame::GROUP, group | bits);
    device.write32(frame::COMMAND, frame::command::REQUEST_PAGE);
    assert_eq!(device.read32(frame::STATUS) & frame::status::REFUSED, 0);
}

// External aborts.

#[test]
fn an_external_abort_on_any_fetch_is_recorded_as_what_it_is() {
    // Type, S2, CLASS of the record.
    let cases = [
        (Fetch::Stream, 0x03, 0),
        (Fetch::Context, 0x09, 0),
        (Fetch::Stage1, 0x0b, 1 << 40),
        (Fetch::Stage2, 0x0b, 1 << 39),
    ];
    for (fetch, number, flags) in cases {
        let mut driver = up(Mode::Polite);
        let world = stories::nested(&mut driver).expect("nothing is wrong yet");
        // What was used is forgotten, so that everything is fetched again.
        let flush = [
            smmu_model::bench::CFGI_ALL,
            SYNC,
            smmu_model::bench::NSNH_ALL,
        ];
        let mut steps: Vec<Step> = flush.map(Step::Command).to_vec();
        steps.push(Step::Sync);
        assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
        put_in(
            &driver,
            Faults {
                aborts: vec![fetch],
                ..Faults::default()
            },
        );
        assert_eq!(fire(&world.device, Some(PASID), VA), End::Aborted);
        let event = driver.take_event().expect("a record");
        assert_eq!(event[0] & 0xff, number, "{fetch:?}");
        assert_eq!(event[0] >> 32, u64::from(STREAM), "{fetch:?}");
        let seen = event[1] & (1 << 39 | 1 << 40);
        assert_eq!(seen & flags, flags, "{fetch:?}: {:#x}", event[1]);
        put_in(&driver, Faults::default());
        // A failed fetch is not remembered.
        assert_eq!(fire(&world.device, Some(PASID), VA), End::Done, "{fetch:?}");
        assert_clean(&driver);
    }
}

#[test]
fn an_external_abort_on_one_word_is_met_there_alone() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    let flush = [
        smmu_model::bench::CFGI_ALL,
        SYNC,
        smmu_model::bench::NSNH_ALL,
    ];
    let mut steps: Vec<Step> = flush.map(Step::Command).to_vec();
    steps.push(Step::Sync);
    assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
    let word = driver::stage2_slot(&world.guest, world.pages + PAGE);
    put_in(
        &driver,
        Faults {
            abort_at: Some(word),
            ..Faults::default()
        },
    );
    assert_eq!(fire(&world.device, None, world.pages), End::Done);
    assert_eq!(fire(&world.device, None, world.pages + PAGE), End::Aborted);
    let event = driver.take_event().expect("a record");
    // F_WALK_EABT tells the physical address of the descriptor.
    assert_eq!((event[0] & 0xff, event[3]), (0x0b, word));
}

#[test]
fn an_event_queue_that_aborts_stops_until_it_is_acknowledged() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            aborts: vec![Fetch::Event],
            ..Faults::default()
        },
    );
    assert_eq!(fire(&world.device, None, 0x1000), End::Aborted);
    assert_eq!(active(&driver), EVENTQ_ABT_ERR);
    put_in(&driver, Faults::default());
    assert_eq!(fire(&world.device, None, 0x2000), End::Aborted);
    assert_eq!(driver.take_event(), None);
    driver.acknowledge();
    assert_eq!(fire(&world.device, None, 0x3000), End::Aborted);
    assert_eq!(driver.take_event().map(|event| event[2]), Some(0x3000));
    // It was not full: nothing overflowed.
    assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 0);
}

#[test]
fn a_pri_queue_that_aborts_fails_every_request() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            aborts: vec![Fetch::PageRequest],
            ..Faults::default()
        },
    );
    for group in [3, 4] {
        request_page(&world.device, group, 1 << 20 | 1 << 16);
        assert_eq!(active(&driver), PRIQ_ABT_ERR);
        // Failure.
        let expected = group | 2 << 16 | 1 << 31;
        assert_eq!(world.device.read32(frame::LAST_RESPONSE), expected);
    }
    driver.acknowledge();
}

// Overflow.

#[test]
fn a_full_event_queue_drops_records_and_says_so_once() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 9 }] {
        let mut driver = up(mode);
        let world = stories::plain(&mut driver).expect("nothing is wrong yet");
        for fault in 0..40 {
            assert_eq!(fire(&world.device, None, fault * PAGE), End::Aborted);
        }
        driver.pass();
        assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 1);
        let mut read = 0;
        while let Some(event) = driver.take_event() {
            assert_eq!(event[2], read * PAGE);
            read += 1;
        }
        assert_eq!(read, 32);
        // Acknowledged, and recording again.
        assert_eq!(driver.read(offset::EVENTQ_CONS) >> 31, 1);
        assert_eq!(fire(&world.device, None, 0x77_7000), End::Aborted);
        driver.pass();
        assert_eq!(driver.take_event().map(|event| event[2]), Some(0x77_7000));
        assert_clean(&driver);
    }
}

#[test]
fn an_event_queue_can_be_made_full() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    put_in(
        &driver,
        Faults {
            event_queue_full: true,
            ..Faults::default()
        },
    );
    assert_eq!(fire(&world.device, None, 0x1000), End::Aborted);
    assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 1);
    assert_eq!(driver.take_event(), None);
}

#[test]
fn a_full_event_queue_keeps_the_record_of_a_stall() {
    for mode in [Mode::Polite, Mode::Hoarding] {
        let mut driver = up(mode);
        let guest = driver.guest(VMID);
        let mut ste = ste_stage2(VMID, guest.root);
        // S2S.
        ste[2] |= 1 << 57;
        driver.publish_ste(STREAM, &ste).expect("nothing is wrong");
        let device = driver.device(STREAM);
        put_in(
            &driver,
            Faults {
                event_queue_full: true,
                ..Faults::default()
            },
        );
        assert_eq!(fire(&device, None, 0x1000), End::Stalled);
        driver.pass();
        assert_eq!(driver.take_event(), None);
        assert_eq!(driver.read(offset::EVENTQ_PROD) >> 31, 0);
        put_in(&driver, Faults::default());
        driver.pass();
        let event = driver.take_event().expect("the record was kept");
        // F_TRANSLATION with Stall.
        assert_eq!((event[0] & 0xff, event[1] >> 31 & 1), (0x10, 1));
        let stag = event[1] as u16;
        let abort = words::resume_abort(STREAM, stag);
        let steps = vec![Step::Command(abort), Step::Sync];
        assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
        for _ in 0..10 {
            driver.pass();
        }
        assert_eq!(device.read32(frame::PENDING), 0);
        assert_eq!(device.read32(frame::LAST_END), End::Aborted as u32);
        assert_clean(&driver);
    }
}

#[test]
fn a_full_pri_queue_answers_the_last_request_of_a_group_by_itself() {
    let mut driver = up(Mode::Polite);
    let world = stories::plain(&mut driver).expect("nothing is wrong yet");
    for group in 0..32 {
        request_page(&world.device, group, 1 << 16);
    }
    assert_eq!(driver.read(offset::PRIQ_PROD) & 0x3f, 32);
    assert_eq!(driver.read(offset::PRIQ_PROD) >> 31, 0);
    // One more without Last, one with.
    request_page(&world.device, 40, 1 << 16);
    assert_eq!(driver.read(offset::PRIQ_PROD) >> 31, 1);
    assert_eq!(world.device.read32(frame::RESPONSES), 0);
    request_page(&world.device, 41, 1 << 20 | 1 << 16);
    assert_eq!(world.device.read32(frame::RESPONSES), 1);
    assert_eq!(world.device.read32(frame::LAST_RESPONSE), 41 | 1 << 31);
    assert_clean(&driver);
    assert_eq!(
        ResponseCode::Success as u32,
        world.device.read32(frame::LAST_RESPONSE) >> 16 & 3
    );
    driver.pass();
}

// Devices.

#[test]
fn a_silent_atc_blocks_the_sync_until_its_time_is_over() {
    let mut driver = up(Mode::Hoarding);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    world.device.misbehave(Misconduct::Silent);
    let end = driver.release(&world.space, Atc::Used, &[]);
    assert_eq!(end, Err(Trouble::NotConsumed));
    assert_eq!(active(&driver), 0);
    driver.machine.advance(100_000);
    let end = driver.finish();
    assert_eq!(end, Err(Trouble::CommandError(3)));
    // The SYNC is executed again, and has nothing left to wait for.
    driver.acknowledge();
    let end = driver.finish();
    assert_eq!(end, Ok(()));
    // The device still has the translation: the stream has to be fenced.
    assert_eq!(fire(&world.device, Some(PASID), VA), End::Done);
}

#[test]
fn a_silent_device_is_found_among_others_by_single_invalidations() {
    let mut driver = up(Mode::Hoarding);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    let good = driver.device(stories::OTHER_STREAM);
    world.device.misbehave(Misconduct::Silent);
    let mut ends = Vec::new();
    for stream in [STREAM, stories::OTHER_STREAM] {
        let inv = words::atc_inv_all(stream, Some(PASID));
        let steps = vec![Step::Command(inv), Step::Command(SYNC), Step::Submit];
        assert_eq!(driver.run(Operation::Finish, steps), Ok(()));
        driver.machine.advance(10);
        driver.machine.advance(100_000);
        let end = driver.finish();
        ends.push(end);
        if end.is_err() {
            driver.acknowledge();
        }
    }
    assert_eq!(ends, [Err(Trouble::CommandError(3)), Ok(())]);
    assert_eq!(good.read32(frame::INVALIDATIONS), 1);
}

#[test]
fn a_late_atc_delays_the_sync_and_is_empty_after_it() {
    for mode in [Mode::Polite, Mode::Hoarding, Mode::Chaotic { seed: 3 }] {
        let mut driver = up(mode);
        let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
        world.device.misbehave(Misconduct::Late);
        world.device.write32(frame::LATENESS_US, 700);
        let before = driver.machine.record().now_us();
        assert_eq!(driver.release(&world.space, Atc::Used, &[]), Ok(()));
        assert!(driver.machine.record().now_us() - before >= 700);
        assert_eq!(world.device.read32(frame::ATC_ENTRIES), 0);
        assert_ne!(fire(&world.device, Some(PASID), VA), End::Done);
        assert_clean(&driver);
    }
}

#[test]
fn an_unsupported_request_completes_an_invalidation_and_proves_nothing() {
    for misconduct in [Misconduct::Unsupported, Misconduct::Lies] {
        let mut driver = up(Mode::Polite);
        let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
        world.device.misbehave(misconduct);
        // No error: the driver cannot know.
        assert_eq!(driver.release(&world.space, Atc::Used, &[]), Ok(()));
        assert_eq!(active(&driver), 0);
        assert_clean(&driver);
        // The model does.
        assert_eq!(fire(&world.device, Some(PASID), VA), End::Done);
        assert_eq!(driver.machine.record().count(Rule::AtcStale), 1);
        // Split ATS: it reached only what stage 2 of its own guest maps.
        let landed = driver.machine.record().violations();
        assert!(landed.iter().all(|of| of.rule == Rule::AtcStale));
    }
}

#[test]
fn a_reset_empties_the_atc_of_a_device_that_lied() {
    let mut driver = up(Mode::Polite);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    world.device.misbehave(Misconduct::Lies);
    assert_eq!(driver.release(&world.space, Atc::Used, &[]), Ok(()));
    world.device.write32(frame::COMMAND, frame::command::RESET);
    use frame::control::{ATS, ENABLE};
    world.device.write32(frame::CONTROL, ENABLE | ATS);
    assert_eq!(fire(&world.device, Some(PASID), VA), End::NotGranted);
    assert_clean(&driver);
}

#[test]
fn a_device_that_was_unplugged_answers_nothing() {
    let mut driver = up(Mode::Polite);
    let world = stories::with_ats(&mut driver).expect("nothing is wrong yet");
    driver.devices.clear();
    drop(world.device);
    let end = driver.release(&world.space, Atc::Used, &[]);
    assert_eq!(end, Err(Trouble::NotConsumed));
}

// Handshakes.

#[test]
fn cr0ack_that_never_comes_ends_bring_up_by_name() {
    let mut driver = off(Mode::Hoarding);
    let late_enough = Faults {
        acknowledge_never: true,
        ..Faults::default()
    };
    put_in(&driver, late_enough);
    let end = driver.bring_up();
    // GBPA is the first handshake.
    assert_eq!(end, Err(Trouble::NotAcknowledged(offset::GBPA)));
    assert_clean(&driver);

    let mut driver = up(Mode::Hoarding);
    put_in(
        &driver,
        Faults {
            acknowledge_never: true,
            ..Faults::default()
        },
    );
    let end = driver.shut_down(&[]);
    assert_eq!(end, Err(Trouble::NotAcknowledged(offset::CR0ACK)));
    assert_eq!(driver.read(offset::CR0), 0x8);
    assert_ne!(driver.read(offset::CR0ACK), 0x8);
    assert_clean(&driver);
}

#[test]
fn late_acknowledgements_are_waited_for() {
    let mut driver = off(Mode::Polite);
    put_in(
        &driver,
        Faults {
            acknowledge_late_us: 300,
            ..Faults::default()
        },
    );
    assert_eq!(driver.bring_up(), Ok(()));
    assert!(driver.machine.record().now_us() >= 6 * 300);
    assert_clean(&driver);
}

// What the model itself may be told.

#[test]
fn an_injected_conflict_ends_a_transaction_in_its_event() {
    use smmu_model::EventType;
    let cases = [
        (EventType::UnsupportedTransaction, 0x01),
        (EventType::TlbConflict, 0x20),
        (EventType::ConfigConflict, 0x21),
    ];
    for (event_type, number) in cases {
        let mut driver = up(Mode::Polite);
        let world = stories::plain(&mut driver).expect("nothing is wrong yet");
        put_in(
            &driver,
            Faults {
                conflict: Some(event_type),
                ..Faults::default()
            },
        );
        assert_eq!(fire(&world.device, None, world.pages), End::Aborted);
        let event = driver.take_event().expect("a record");
        assert_eq!(event[0] & 0xff, number);
    }
}

#[test]
fn where_stalls_are_forced_every_fault_stalls() {
    let identity = Identity::with_stalls(StallModel::StallForced);
    let mut driver = Driver::off(Setup::new(identity, Mode::Polite), None);
    driver.bring_up().expect("nothing is wrong yet");
    let guest = driver.guest(VMID);
    let mut ste = ste_stage2(VMID, guest.root);
    ste[2] |= 1 << 57;
    driver.publish_ste(STREAM, &ste).expect("nothing is wrong");
    let device = driver.device(STREAM);
    assert_eq!(fire(&device, None, 0x1000), End::Stalled);
    device.write32(frame::COMMAND, frame::command::RESET);
    // A reset of the device does not end what is stalled.
    assert_eq!(device.read32(frame::PENDING), 1);
    let mut steps = driver::visible(driver.ste_at(STREAM), 1);
    steps.extend([
        Step::Command(smmu_model::bench::cfgi_ste(STREAM)),
        Step::Sync,
        Step::Command(words::stall_term(STREAM)),
        Step::Sync,
    ]);
    assert_eq!(driver.run(Operation::RetractSte, steps), Ok(()));
    for _ in 0..10 {
        driver.pass();
    }
    assert_eq!(device.read32(frame::PENDING), 0);
    assert_eq!(device.read32(frame::ABORTED), 0);
    assert_clean(&driver);
}
