//! The SMMUs that the self-check has a device to work with, and these devices.

use portcullis::addr::Pa;
use portcullis::arch::tlbi::Tlbi;
use portcullis::arch::{Host, cpu, mmu, println};
use portcullis::check::{
    COMPATIBLE, Declared, Devices, DmaTest, FRAME_BYTES, PORT_BYTES, Saboteur, Site,
};
use portcullis::discover::{Device, List, Machine, Stream, StreamsOf};
use portcullis::hw::Mmio;
use portcullis::id::StreamId;

use super::devices::{AllDriven, firmware};
use super::{Refusal, gates};

/// All that there are: as many as a [`Machine`] has SMMUs.
pub(crate) type Sites<'m> = List<Site<'m, Host>, 16>;

/// As many test devices as are used.
pub(crate) type TestFrames = List<TestFrame, 128>;

/// A test device: where its traffic goes, and its registers.
pub(crate) struct TestFrame {
    /// Its place among the machine's devices.
    pub(crate) place: usize,
    stream: Stream,
    declared: Declared,
    pub(crate) registers: Mmio,
    /// The port above it.
    pub(crate) port: Mmio,
}

/// Maps the registers of the machine's test devices.
pub(crate) fn map_test_devices(machine: &Machine) -> Result<TestFrames, Refusal> {
    let mut frames = TestFrames::new();
    let is_test = |(_, device): &(usize, &Device)| device.compatible.as_str() == COMPATIBLE;
    for (place, device) in machine.devices.iter().enumerate().filter(is_test) {
        let registers = device.registers;
        let registers = registers.filter(|at| at.size_bytes() >= FRAME_BYTES);
        let (Some(registers), StreamsOf::Behind(&[stream])) =
            (registers, machine.streams_of_device(device))
        else {
            println!(
                "device {}: not used: no frame, or not one stream",
                device.name
            );
            continue;
        };
        let declared = Declared {
            stream: stream.id,
            pasid_bits: device.pasid_bits,
            can_stall: device.can_stall,
        };
        let registers_at = registers.base();
        let registers = mmu::map_device(registers_at, FRAME_BYTES).map_err(Refusal::Device)?;
        let port = Pa::new(registers_at.as_u64() + FRAME_BYTES);
        let port = mmu::map_device(port, PORT_BYTES).map_err(Refusal::Device)?;
        let frame = TestFrame {
            place,
            stream,
            declared,
            registers,
            port,
        };
        if frames.push(frame).is_err() {
            break;
        }
    }
    Ok(frames)
}

/// The SMMUs that have a device to work with.
pub(crate) fn all<'m>(
    machine: &Machine,
    driven: &'m AllDriven<'m>,
    tests: &'m TestFrames,
) -> Result<Sites<'m>, Refusal> {
    let mut sites = Sites::new();
    for (place, smmu) in machine.smmus.iter().enumerate() {
        let is_behind = move |stream: Stream| stream.smmu.as_usize() == place;
        let functions = || driven.iter().filter(move |it| is_behind(it.stream()));
        let mut edus = functions().filter_map(|it| it.edu());
        let mut frames = tests
            .iter()
            .filter(move |it| is_behind(it.stream))
            .filter_map(driver);
        let site = Site {
            place,
            registers: gates::registers(smmu.registers.base()).ok_or(Refusal::NoSmmu)?,
            firmware: firmware(smmu),
            last_stream: last_stream(machine, place),
            edus: core::array::from_fn(|_: usize| edus.next()),
            tests: core::array::from_fn(|_| frames.next()),
            nvme: functions().find_map(|it| it.nvme()),
        };
        let left =
            edus.count() + frames.count() + functions().filter_map(|it| it.nvme()).skip(1).count();
        if left != 0 {
            println!("smmu {place}: {left} devices more than the self-check uses");
        }
        let has_any = site.edus[0].is_some() || site.tests[0].is_some() || site.nvme.is_some();
        if has_any {
            // As many as there are SMMUs.
            let _ = sites.push(site);
        }
    }
    if sites.is_empty() {
        return Err(Refusal::NothingToCheckWith);
    }
    Ok(sites)
}

/// The driver of a test device, if it is one.
fn driver(frame: &TestFrame) -> Option<DmaTest<'_>> {
    let stream = frame.declared.stream;
    DmaTest::new(&frame.registers, frame.declared)
        .inspect_err(|why| println!("test device of stream {stream}: not used: {why}"))
        .ok()
}

/// The highest StreamID that any device behind the SMMU at `place` can have.
pub(crate) fn last_stream(machine: &Machine, place: usize) -> StreamId {
    let maps = machine.bridges.iter().flat_map(|bridge| &bridge.streams);
    let of_maps = maps
        .filter(|map| map.first.smmu.as_usize() == place)
        .map(|map| map.first.id.as_u32().saturating_add(map.count - 1));
    let devices = machine.devices.iter();
    let of_devices = devices
        .flat_map(|device| machine.known_streams_of_device(device))
        .filter(|stream| stream.smmu.as_usize() == place)
        .map(|stream| stream.id.as_u32());
    StreamId::new(of_maps.chain(of_devices).max().unwrap_or(0))
}

/// What the self-check works with.
pub(crate) fn for_self_check<'m, 'p>(
    platform: &'p Host,
    sites: &'m Sites<'m>,
) -> Devices<'m, 'p, Host> {
    Devices {
        platform,
        sites,
        cpu_output_bits: cpu::pa_bits(),
        cpu_tlb: &Tlbi,
        cpu: Some(super::cpu::cpu()),
        saboteur: saboteur(),
    }
}

#[cfg(feature = "sabotage")]
fn saboteur() -> Option<Saboteur> {
    use portcullis::arch::sabotage;
    Some(Saboteur {
        arm: sabotage::arm,
        disarm: sabotage::disarm,
    })
}

#[cfg(not(feature = "sabotage"))]
fn saboteur() -> Option<Saboteur> {
    None
}
