//! Faults put in: what the hardware may do to a driver that did nothing wrong.
//!
//! The driver is the rogues' gallery's right one; it never breaks a rule here, and every wait of it
//! ends.

mod aborts;
mod commands;
mod devices;
mod errors;
mod handshakes;
mod model;
mod overflow;
mod sync;

#[path = "../rogues/driver/mod.rs"]
#[expect(dead_code, reason = "the gallery uses the rest")]
mod driver;
#[path = "../rogues/step.rs"]
#[expect(dead_code, reason = "the gallery uses the rest")]
mod step;
#[path = "../rogues/stories/mod.rs"]
#[expect(dead_code, reason = "the gallery uses the rest")]
mod stories;
#[path = "../rogues/words.rs"]
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

const CMDQ_ERR: u32 = 1 << 0;
const EVENTQ_ABT_ERR: u32 = 1 << 2;
const PRIQ_ABT_ERR: u32 = 1 << 3;
const MSI_CMDQ_ABT_ERR: u32 = 1 << 4;
const MSI_EVENTQ_ABT_ERR: u32 = 1 << 5;
const MSI_PRIQ_ABT_ERR: u32 = 1 << 6;
const MSI_GERROR_ABT_ERR: u32 = 1 << 7;
const SFM_ERR: u32 = 1 << 8;

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

/// The errors that are active.
fn active(driver: &Driver) -> u32 {
    driver.read(offset::GERROR) ^ driver.read(offset::GERRORN)
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
