//! Capabilities and commands.

use super::*;

#[test]
fn an_msi_is_programmed_as_the_capability_is_laid_out() {
    for (control, data_at) in [(0x0080, 0x6c), (0x0000, 0x68)] {
        let fake = Fake::endpoint(1, 2, 0).msi(control | 0x0070);
        let fabric = Fabric::new(0, [((1, 0), fake)].into());
        let bridge = bridge(0, 255);
        let msi = Msi {
            address: Iova::new(0x8765_4320),
            data: 0xabcd,
        };
        let ecam = Ecam::new(&fabric, &bridge);
        ecam.set_msi(rid(0, 1, 0), msi)
            .expect("it takes the message");
        let get = |at| {
            fabric
                .with(0, 1, 0, |fake| fake.get(at))
                .expect("it is there")
        };
        assert_eq!(get(0x60), (control | 1) << 16 | 0x05);
        assert_eq!(get(0x64), 0x8765_4320);
        assert_eq!(get(data_at), 0xabcd);
    }
}

#[test]
fn an_msi_that_the_function_cannot_send_is_refused_and_left_off() {
    let fabric = Fabric::new(
        0,
        [
            ((1, 0), Fake::endpoint(1, 2, 0).msi(0x0001)),
            ((2, 0), Fake::endpoint(1, 2, 0).msi(0x0081)),
            ((3, 0), nvme()),
        ]
        .into(),
    );
    let bridge = bridge(0, 255);
    let ecam = Ecam::new(&fabric, &bridge);
    let send = |device, address| {
        let address = Iova::new(address);
        ecam.set_msi(rid(0, device, 0), Msi { address, data: 1 })
    };
    let refusal = |device, address| {
        Err(Refusal::MsiAddress {
            rid: rid(0, device, 0),
            address: Iova::new(address),
        })
    };
    assert_eq!(send(1, 1 << 32), refusal(1, 1 << 32));
    assert_eq!(send(2, 0x1002), refusal(2, 0x1002));
    for device in [1, 2] {
        assert_eq!(
            fabric.with(0, device, 0, |fake| fake.get(0x60) >> 16 & 1),
            Some(0)
        );
    }
    assert_eq!(send(2, 1 << 63), Ok(()));
    assert_eq!(
        fabric.with(0, 2, 0, |fake| fake.get(0x68)),
        Some(0x8000_0000)
    );
    let absent = Refusal::NoCapability {
        rid: rid(0, 3, 0),
        id: 5,
    };
    assert_eq!(send(3, 0x1000), Err(absent));
}

#[test]
fn capabilities_that_loop_or_lie_in_the_header_are_refused() {
    let mut looping = edu();
    looping.capability(0x40, 0x01, 0x50, 0);
    looping.capability(0x50, 0x09, 0x40, 0);
    let mut low = edu();
    low.capability(0x40, 0x01, 0x3c, 0);
    let mut last = edu();
    last.capability(0xfc, 0x11, 0x60, 0);
    let root = [((1, 0), looping), ((2, 0), low), ((3, 0), last)];
    let fabric = Fabric::new(0, root.into());
    let bridge = bridge(0, 255);
    let ecam = Ecam::new(&fabric, &bridge);
    let (first, second, third) = (rid(0, 1, 0), rid(0, 2, 0), rid(0, 3, 0));
    let endless = Refusal::CapabilityLoop { rid: first };
    assert_eq!(ecam.capability(first, 5), Err(endless));
    assert_eq!(ecam.capability(first, 9), Ok(0x50));
    let place = Refusal::CapabilityPlace {
        rid: second,
        offset: 0x3c,
    };
    assert_eq!(ecam.capability(second, 5), Err(place));
    assert_eq!(ecam.capability(third, 5), Ok(0x60));
}

#[test]
fn commands_change_one_bit_and_leave_the_status_alone() {
    let mut fake = edu();
    fake.registers.insert(0x04, 0xf910_0400);
    let fabric = Fabric::new(0, [((1, 0), fake)].into());
    let bridge = bridge(0, 255);
    let ecam = Ecam::new(&fabric, &bridge);
    let command = || fabric.with(0, 1, 0, |fake| fake.get(0x04));
    let rid = rid(0, 1, 0);
    ecam.enable_memory(rid).expect("it takes the command");
    assert_eq!(command(), Some(0xf910_0402));
    ecam.enable_bus_master(rid).expect("it takes the command");
    assert_eq!(command(), Some(0xf910_0406));
    ecam.disable_bus_master(rid).expect("it takes the command");
    assert_eq!(command(), Some(0xf910_0402));
}

#[test]
fn what_is_not_there_is_refused() {
    let fabric = Fabric::new(4, Bus::new());
    let bridge = bridge(4, 5);
    let ecam = Ecam::new(&fabric, &bridge);
    let absent = Refusal::Absent { rid: rid(4, 0, 0) };
    assert_eq!(ecam.enable_memory(rid(4, 0, 0)), Err(absent));
    let no_bus = Refusal::NoSuchBus { bus: 6 };
    assert_eq!(ecam.read(rid(6, 0, 0), 0), Err(no_bus));
    assert_eq!(
        ecam.read(rid(3, 0, 0), 0),
        Err(Refusal::NoSuchBus { bus: 3 })
    );
}
