//! What the model itself may be told.

use super::*;

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
