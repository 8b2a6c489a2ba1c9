//! Acknowledgements that are late or never come.

use super::*;

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
