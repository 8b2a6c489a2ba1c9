//! Devices: what they are, what they do, and what became of it.

use std::sync::Arc;

use portcullis::addr::Pa;
use portcullis::hw::DeviceTag;
use portcullis::id::StreamId;
use portcullis::space::{
    Acquired, DeviceDescription, DeviceId, GroupId, GuestId, Owner, Ownership, ResetPolicy,
};
use portcullis::spec::ste::{Ats, Untagged};
use smmu_model::Claim;
use smmu_model::device::{self, End, Misconduct, Wiring, frame};

use super::guest::Guest;
use super::process::{Process, VA};
use super::{World, lock, smmu_id};

/// Streams of devices start here.
const FIRST_STREAM: u32 = 0x10;

/// A device and its hardware.
#[derive(Debug)]
pub struct Device {
    /// Its name in the trace.
    pub name: String,
    /// The library's name for it.
    pub id: DeviceId,
    /// Its group's.
    pub group: GroupId,
    /// The host's.
    pub tag: DeviceTag,
    /// The SMMU that it is behind.
    pub smmu: usize,
    /// Its StreamID there.
    pub stream: u32,
    hardware: Arc<device::Device>,
    has_ats: bool,
    guest: std::sync::Mutex<Option<GuestId>>,
}

/// What a story wants of a device.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// The SMMU that it is to be behind.
    pub smmu: usize,
    /// What it may do with ATS.
    pub ats: Ats,
    /// Whether it bears to wait.
    pub can_stall: bool,
    /// Bits of its PASIDs.
    pub pasid_bits: u8,
    /// What happens to it between two owners.
    pub reset: ResetPolicy,
}

/// What became of a shot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// It reached memory here.
    Landed(Pa),
    /// It did not, and will not.
    Blocked,
    /// It waits for an answer.
    Stalled,
}

impl Device {
    pub(super) fn is_attached_to(&self, guest: GuestId) -> bool {
        *lock(&self.guest) == Some(guest)
    }

    /// Chooses how its ATC behaves.
    pub fn misbehave(&self, misconduct: Misconduct) {
        self.hardware.misbehave(misconduct);
    }

    /// How late its ATC answers, if it is late.
    pub fn set_lateness_us(&self, us: u32) {
        self.hardware.write32(frame::LATENESS_US, us);
    }

    /// How many of its transactions are stalled now.
    pub fn pending(&self) -> u32 {
        self.hardware.read32(frame::PENDING)
    }

    /// How many of its transactions were aborted.
    pub fn aborted(&self) -> u32 {
        self.hardware.read32(frame::ABORTED)
    }

    /// How many of its transactions reached memory.
    pub fn landed(&self) -> u32 {
        self.hardware.read32(frame::LANDED)
    }
}

impl<'h> World<'h> {
    /// What the devices of this machine are like.
    pub fn usual(&self) -> Wanted {
        Wanted {
            smmu: 0,
            ats: self.configuration.ats,
            can_stall: self.configuration.has_stalls(),
            pasid_bits: 16,
            reset: ResetPolicy::Needed,
        }
    }

    /// A device in a group of its own that nobody owns.
    pub fn spare_device(&self, wanted: Wanted) -> Arc<Device> {
        let group = self.iommu.add_group().expect("there is room");
        self.device_in(group, wanted)
    }

    /// A device in a group.
    pub fn device_in(&self, group: GroupId, wanted: Wanted) -> Arc<Device> {
        let number = self.next_tag();
        let stream = FIRST_STREAM + number as u32;
        let tag = DeviceTag(number);
        let id = self
            .iommu
            .add_device(
                group,
                &DeviceDescription {
                    tag,
                    smmu: Some(smmu_id(wanted.smmu)),
                    streams: &[StreamId::new(stream)],
                    pasid_bits: wanted.pasid_bits,
                    can_stall: wanted.can_stall,
                    ats: wanted.ats,
                    reset: wanted.reset,
                },
            )
            .expect("it is new");
        let smmu = self.host.machine().smmu(wanted.smmu);
        let hardware = device::Device::new(smmu, Wiring::full(stream));
        self.host.wire(tag, Arc::clone(&hardware));
        self.stage.plug_in(tag, Arc::clone(&hardware));
        let device = Arc::new(Device {
            name: format!("device {number} of SMMU {}", wanted.smmu),
            id,
            group,
            tag,
            smmu: wanted.smmu,
            stream,
            hardware,
            has_ats: wanted.ats != Ats::Off,
            guest: std::sync::Mutex::new(None),
        });
        lock(&self.devices).push(Arc::clone(&device));
        device
    }

    /// A device that a guest has.
    pub fn device(&self, guest: &Guest) -> Arc<Device> {
        self.device_with(guest, self.usual())
    }

    /// A device behind an SMMU that a guest has.
    pub fn device_on(&self, guest: &Guest, smmu: usize) -> Arc<Device> {
        let usual = self.usual();
        self.device_with(guest, Wanted { smmu, ..usual })
    }

    /// A device as wanted that a guest has; that the guest owns it is told nobody any more.
    pub fn device_with(&self, guest: &Guest, wanted: Wanted) -> Arc<Device> {
        let device = self.spare_device(wanted);
        // Its group goes with the guest.
        let _token = self.acquire(&device, guest);
        self.attach(&device, guest);
        device
    }

    /// A guest acquires a device's group, which is free.
    pub fn acquire(&self, device: &Device, guest: &Guest) -> Ownership {
        self.say(|| format!("{} acquires {}", guest.name, device.name));
        match self.iommu.acquire(device.group, Owner::Guest(guest.id)) {
            Ok(Acquired::Owned(token)) => token,
            Ok(Acquired::Deferred(_)) => panic!("its SMMU is there"),
            Err(error) => panic!("it is free: {error}"),
        }
    }

    /// A guest attaches a device that it owns.
    pub fn attach(&self, device: &Device, guest: &Guest) {
        self.say(|| format!("{} attaches {}", guest.name, device.name));
        self.iommu
            .attach(guest.id, device.id, Untagged::Abort)
            .expect("it is the guest's");
        self.note_attached(device, Some(guest));
    }

    /// Whose numbers the device issues from now on.
    pub fn note_attached(&self, device: &Device, guest: Option<&Guest>) {
        *lock(&device.guest) = guest.map(|guest| guest.id);
        let Some(guest) = guest else { return };
        for process in self.all_processes() {
            if process.guest == guest.id {
                self.host.machine().claim(Claim::PasidTaken {
                    smmu: device.smmu,
                    stream: device.stream,
                    substream: process.pasid,
                });
            }
        }
    }

    /// The device is pulled out: it forgets everything, and answers nothing any more.
    pub fn unplug(&self, device: &Device) {
        self.say(|| format!("{} is pulled out", device.name));
        device
            .hardware
            .write32(frame::COMMAND, frame::command::RESET);
        device.misbehave(Misconduct::Silent);
    }

    /// The device reads 8 bytes at `address` with this PASID, if it may.
    pub fn read(&self, device: &Device, pasid: u32, address: u64) -> Option<u64> {
        let hardware = &device.hardware;
        let landed = device.landed();
        self.arm(device, Some(pasid), address, (0, 1));
        hardware.write32(frame::COMMAND, frame::command::START);
        (device.landed() != landed).then(|| hardware.read64(frame::BUFFER))
    }

    /// The device writes so often at `address` with this PASID; how many of the shots landed.
    pub fn burst(&self, device: &Device, pasid: u32, address: u64, shots: u32) -> u32 {
        let landed = device.landed();
        self.arm(device, Some(pasid), address, (frame::flags::WRITE, shots));
        device
            .hardware
            .write32(frame::COMMAND, frame::command::START);
        let landed = device.landed() - landed;
        let name = &device.name;
        self.say(|| format!("{name} writes {shots} times with PASID {pasid}: {landed} land"));
        landed
    }

    fn arm(&self, device: &Device, pasid: Option<u32>, address: u64, (flags, shots): (u32, u32)) {
        let hardware = &device.hardware;
        let ats = if device.has_ats {
            frame::control::ATS
        } else {
            0
        };
        hardware.write32(frame::CONTROL, frame::control::ENABLE | ats);
        hardware.write32(frame::PASID, pasid.map_or(0, |pasid| pasid | 1 << 31));
        hardware.write64(frame::IOVA, address);
        hardware.write32(frame::LENGTH, 8);
        hardware.write32(frame::FLAGS, flags);
        hardware.write32(frame::SHOTS, shots);
    }

    /// The device writes 8 bytes at `address` with this PASID, or with none.
    pub fn shoot(&self, device: &Device, pasid: Option<u32>, address: u64) -> Ends {
        let hardware = &device.hardware;
        self.stage.schedule.point(false);
        if self.stage.is_cut_off(device.tag) {
            self.say(|| format!("{} is cut off", device.name));
            return Ends::Blocked;
        }
        let landed = hardware.read32(frame::LANDED);
        self.arm(device, pasid, address, (frame::flags::WRITE, 1));
        hardware.write32(frame::COMMAND, frame::command::START);
        let ends = if hardware.read32(frame::LANDED) != landed {
            let entry = frame::LOG + u64::from(landed) % frame::LOG_ENTRIES * 32;
            Ends::Landed(Pa::new(hardware.read64(entry + 8)))
        } else if hardware.read32(frame::LAST_END) == End::Stalled as u32 {
            Ends::Stalled
        } else {
            Ends::Blocked
        };
        self.say(|| {
            let with = pasid.map_or_else(|| "no PASID".into(), |it| format!("PASID {it}"));
            let ended = match ends {
                Ends::Landed(pa) => format!("lands at {pa}"),
                Ends::Blocked => "is blocked".into(),
                Ends::Stalled => "waits".into(),
            };
            format!(
                "{} writes at {address:#x} with {with}: {ended}",
                device.name
            )
        });
        ends
    }

    /// The device writes at the page of a process, with its number.
    pub fn fire(&self, device: &Device, process: &Process) -> Ends {
        self.shoot(device, Some(process.pasid), VA)
    }

    /// The device reaches the page of the process.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn reaches(&self, device: &Device, process: &Process) {
        let ends = self.fire(device, process);
        assert_eq!(
            ends,
            Ends::Landed(process.page),
            "{} at {}",
            device.name,
            process.name
        );
    }

    /// The device reaches nothing by the number of the process.
    ///
    /// # Panics
    ///
    /// If it does, or waits for an answer.
    pub fn blocked(&self, device: &Device, process: &Process) {
        let ends = self.fire(device, process);
        assert_eq!(ends, Ends::Blocked, "{} at {}", device.name, process.name);
    }

    /// Lets devices go on: late ATCs answer, and what was stalled and has ended is told.
    pub fn settle(&self) {
        let machine = self.host.machine();
        let now = machine.record().now_us();
        for smmu in 0..self.smmus.len() {
            for finished in machine.smmu(smmu).take_finished() {
                for device in self.all_devices() {
                    if device.smmu == smmu {
                        device.hardware.finish(&finished);
                    }
                }
            }
        }
        for device in self.all_devices() {
            device.hardware.tick(now);
        }
    }
}
