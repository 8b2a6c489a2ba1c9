//! GERROR, and messages that are aborted.

use super::*;

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
