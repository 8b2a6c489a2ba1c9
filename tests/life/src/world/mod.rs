//! The real library on the model, driven by the same operations as the reference.

use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::{Barrier, DeviceTag, Frames, Platform};
use portcullis::id::StreamId;
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, Ask, By, DeviceDescription, DeviceId, GroupId, GuestId, Handle, Iommu, IommuSettings,
    Owner, Ownership, ResetPolicy, SmmuId, SpaceConfig, SpaceError, SpaceId,
};
use portcullis::spec::stage1::{PageAccess, Stage1Descriptor};
use portcullis::spec::ste::Untagged;
use portcullis::spec::vmsa::Attributes;
use smmu_model::device::Misconduct;
use smmu_model::{Faults, Identity, Mode, Rule};

use crate::host::{DeviceAt, Host};
use crate::operation::Op;
use crate::reference::{Reference, Shape};

mod compare;
mod config;

pub use config::guest_config;
use config::walk_from;

/// Longer than all that any program waits for.
const QUARANTINE_US: u64 = 1_000_000_000;
/// Longer than a silent device is waited for.
const SYNC_TIMEOUT_US: u64 = 60;
const ATC_TIMEOUT_US: u64 = 20;
/// Where a guest's page is that what has no PASID may reach.
const DATA: Ipa = Ipa::new(0x4_0000_0000);
/// Where its tables are, and the pages of its spaces.
const BLOCK: u64 = 0x4_0010_0000;
const WINDOW: Ipa = Ipa::new(0x70_0000_0000);
/// Where each space has its one page: 30 bits of address, so one level leads to it.
const VA: u64 = 0x1234_5000;
const LOG2_SPACE_BYTES: u8 = 14;
const MEMORY_BYTES: u64 = 2 << 20;

/// How the machine is, beside what there is on it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// What its SMMUs can do.
    pub identity: Identity,
    /// How hostile they are.
    pub mode: Mode,
}

/// A guest's place, with the last guest that was there and what it has of the host's memory.
struct Guest {
    id: GuestId,
    block: Option<Frames>,
    data: Option<Frames>,
    /// What it was not confirmed to have lost.
    kept: Vec<Frames>,
}

/// A space's place, with the last space that was there.
#[derive(Clone, Copy)]
struct Space {
    id: SpaceId,
    pasid: Option<u32>,
    page: Pa,
    /// Which of its two pages.
    is_second: bool,
}

struct Device {
    group: GroupId,
    id: DeviceId,
    token: Option<Ownership>,
}

/// The library and its host.
pub struct World<'p> {
    shape: Shape,
    host: &'p Host,
    smmus: &'p [Smmu<'p, Host>],
    /// All SMMUs of the library.
    pub iommu: Iommu<'p, Host>,
    guests: Vec<Guest>,
    spaces: Vec<Space>,
    handles: Vec<Handle>,
    devices: Vec<Device>,
    /// Rules that are broken where nothing better is left to do.
    borne: Vec<Rule>,
}

/// Makes a host and its SMMUs, and has `work` done on a new world there.
///
/// # Panics
///
/// If there is no guest left then, and yet some memory did not come back.
pub fn with_world<R>(
    shape: &Shape,
    machine: Machine,
    work: impl for<'p> FnOnce(&mut World<'p>) -> R,
) -> R {
    let settings = smmu_model::Settings {
        atc_timeout_us: ATC_TIMEOUT_US,
        // Time passes by [`Op::Wait`] too, for which no driver is to blame.
        wait_limit_us: u64::MAX,
        ..smmu_model::Settings::new(machine.identity, machine.mode)
    };
    let devices: Vec<_> = shape
        .devices
        .iter()
        .enumerate()
        .map(|(device, &smmu)| DeviceAt {
            smmu,
            stream: stream_of(device).as_u32(),
            has_ats: shape.has_ats(),
        })
        .collect();
    let all = vec![settings; shape.smmus];
    let host = Host::new(MEMORY_BYTES, &all, &devices, shape.has_ports);
    let smmus: Vec<_> = (0..shape.smmus).map(|it| take_over(&host, it)).collect();
    let (result, is_over) = {
        let mut world = World::new(shape, &host, &smmus);
        let result = work(&mut world);
        let is_over = world.guests.iter().all(|guest| guest.block.is_none());
        if is_over {
            assert!(world.iommu.dismantle().is_ok(), "there is no guest");
        }
        (result, is_over)
    };
    if is_over {
        for smmu in smmus {
            smmu.shut_down().expect("it shuts");
        }
        assert_eq!(host.bytes_out(), 0, "all memory came back");
    }
    result
}

fn stream_of(device: usize) -> StreamId {
    StreamId::new(8 + device as u32)
}

fn take_over(host: &Host, smmu: usize) -> Smmu<'_, Host> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(15));
    settings.log2_events = 7;
    settings.sync_timeout_us = SYNC_TIMEOUT_US;
    Smmu::take_over(host, host.registers(smmu), firmware, settings).expect("it is taken over")
}

impl<'p> World<'p> {
    fn new(shape: &Shape, host: &'p Host, smmus: &'p [Smmu<'p, Host>]) -> Self {
        let settings = IommuSettings {
            quarantine_us: QUARANTINE_US,
            ..IommuSettings::default()
        };
        let iommu = Iommu::new(host, settings).expect("there is memory");
        for (number, smmu) in smmus.iter().enumerate() {
            iommu.add_smmu(smmu_id(number), smmu).expect("it is new");
        }
        iommu.end_discovery();
        let devices = (0..shape.devices.len())
            .map(|device| {
                let group = iommu.add_group().expect("there is room");
                Device::new(&iommu, shape, (group, false), device)
            })
            .collect();
        let nobody = Guest {
            id: GuestId::from_parts(77, 77),
            block: None,
            data: None,
            kept: Vec::new(),
        };
        let nothing = Space {
            id: SpaceId::from_parts(77, 77),
            pasid: None,
            page: Pa::new(0),
            is_second: false,
        };
        Self {
            shape: shape.clone(),
            host,
            smmus,
            iommu,
            guests: (0..shape.guests).map(|_| nobody.empty()).collect(),
            spaces: vec![nothing; shape.spaces],
            handles: vec![Handle::from_parts(77, 77); shape.handles],
            devices,
            // Who stops an SMMU as the last fence cannot take ATS from its streams first (§3.9.1).
            borne: vec![Rule::DisabledWithAts],
        }
    }

    /// From now on it is borne that this rule is broken.
    pub fn bear(&mut self, rule: Rule) {
        self.borne.push(rule);
    }

    /// The host.
    pub fn host(&self) -> &'p Host {
        self.host
    }

    /// Does an operation, which the reference `before` it says is possible.
    pub fn apply(&mut self, op: Op, before: &Reference) -> Result<(), SpaceError> {
        let iommu = &self.iommu;
        match op {
            Op::CreateGuest { guest } => self.create_guest(guest),
            Op::DestroyGuest { guest } => iommu.destroy_guest(self.guests[guest].id),
            Op::Acquire { guest, device } => {
                let owner = Owner::Guest(self.guests[guest].id);
                let Acquired::Owned(token) = iommu.acquire(self.devices[device].group, owner)?
                else {
                    panic!("all SMMUs are there");
                };
                self.devices[device].token = Some(token);
                Ok(())
            }
            Op::Disown { device } => {
                let token = self.devices[device].token.take().expect("it is possible");
                iommu.disown(token).map_err(|kept| {
                    if kept.error != SpaceError::StaleOwnership {
                        self.devices[device].token = Some(kept.token);
                    }
                    kept.error
                })
            }
            Op::Attach {
                guest,
                device,
                stage2,
            } => {
                let untagged = match stage2 {
                    true => Untagged::Stage2,
                    false => Untagged::Abort,
                };
                iommu.attach(self.guests[guest].id, self.devices[device].id, untagged)
            }
            Op::Detach { guest, device } => {
                iommu.detach(self.guests[guest].id, self.devices[device].id)
            }
            Op::CreateSpace { guest, space } => self.create_space(guest, space),
            Op::Release { guest, space } => {
                iommu.release(self.guests[guest].id, self.spaces[space].id)
            }
            Op::ReleaseAll { guest } => iommu.release_all(self.guests[guest].id),
            Op::Bind {
                guest,
                space,
                device,
                whole,
            } => {
                let by = if whole { By::WholeStream } else { By::Pasid };
                let (guest, space) = (self.guests[guest].id, self.spaces[space].id);
                let handle = iommu.bind(guest, space, self.devices[device].id, by)?;
                let place = before.state.free_handle().expect("it is possible");
                self.handles[place] = handle;
                Ok(())
            }
            Op::Unbind { guest, handle } => {
                iommu.unbind(self.guests[guest].id, self.handles[handle])
            }
            Op::Invalidate { guest, space } => {
                let (guest, space) = (self.guests[guest].id, self.spaces[space].id);
                iommu.invalidate(guest, space, Iova::new(VA), 0x1000)
            }
            Op::Remap { guest } => self.remap(guest),
            Op::Reset { guest, device } => {
                iommu.reset_device(self.guests[guest].id, self.devices[device].id)
            }
            Op::Restore { device } => iommu.restore(self.devices[device].id),
            Op::Wait => {
                // What was fired by now may be told of late, and is heard of then.
                for _ in 0..10 {
                    iommu.service(u32::MAX);
                    self.host.machine().advance(QUARANTINE_US);
                    if iommu.service(u32::MAX).events == 0 {
                        break;
                    }
                }
                Ok(())
            }
            Op::Halt { smmu } => iommu.halt(smmu_id(smmu)).map(|_| ()),
            Op::Recover { smmu } => iommu.recover(smmu_id(smmu)),
            Op::Mute { smmu, on } => {
                let faults = Faults {
                    sync_never: on,
                    ..Faults::default()
                };
                self.set_faults(smmu, faults);
                Ok(())
            }
            Op::Silence { device, on } => {
                let how = if on {
                    Misconduct::Silent
                } else {
                    Misconduct::None
                };
                self.host.device(device).misbehave(how);
                Ok(())
            }
            Op::Jam { device, on } => {
                self.host.jam(device, on);
                Ok(())
            }
        }
    }

    fn create_guest(&mut self, guest: usize) -> Result<(), SpaceError> {
        let host = self.host;
        let id = self.iommu.create_guest(&guest_config())?;
        let log2_bytes = LOG2_SPACE_BYTES + self.shape.spaces.next_power_of_two().ilog2() as u8;
        let block = host.allocate(log2_bytes).expect("there is memory");
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        self.iommu.map(
            id,
            Ipa::new(BLOCK),
            block.base(),
            block.size_bytes(),
            attributes,
            sizes,
        )?;
        let data = self.give_data(id)?;
        self.guests[guest] = Guest {
            id,
            block: Some(block),
            data: Some(data),
            kept: Vec::new(),
        };
        Ok(())
    }

    /// Maps a fresh page at [`DATA`].
    fn give_data(&self, guest: GuestId) -> Result<Frames, SpaceError> {
        let page = self.host.allocate(12).expect("there is memory");
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        let mapped = self
            .iommu
            .map(guest, DATA, page.base(), 0x1000, attributes, sizes);
        match mapped {
            Ok(()) => Ok(page),
            Err(error) => {
                self.host.free(page);
                Err(error)
            }
        }
    }

    /// The guest makes tables for a space in a place where the last one is gone, over those of that.
    fn create_space(&mut self, guest: usize, space: usize) -> Result<(), SpaceError> {
        let at = BLOCK + ((space as u64) << LOG2_SPACE_BYTES);
        let config = SpaceConfig {
            walk: walk_from(Ipa::new(at)),
            pasid: Ask::Any,
            promises_no_global: false,
        };
        let owner = &self.guests[guest];
        let id = self.iommu.create_space(owner.id, &config)?;
        let number = self.iommu.pasid_of(owner.id, id)?.pasid;
        let is_second = !self.spaces[space].is_second;
        let page = 0x2000 + u64::from(is_second) * 0x1000;
        let leads = [
            (
                0,
                VA >> 21 & 511,
                Stage1Descriptor::table(Ipa::new(at + 0x1000)),
            ),
            (
                0x1000,
                VA >> 12 & 511,
                Stage1Descriptor::page(Ipa::new(at + page), PageAccess::ReadWrite),
            ),
        ];
        let block = owner.block.as_ref().expect("it is there");
        let words = block.words(self.host);
        let first = at - BLOCK;
        for (table, index, descriptor) in leads {
            let word = (first + table) / 8 + index;
            self.host.store(&words[word as usize], descriptor.as_u64());
        }
        self.host.barrier(Barrier::Publish);
        self.spaces[space] = Space {
            id,
            pasid: Some(number.as_u32()),
            page: Pa::new(block.base().as_u64() + first + page),
            is_second,
        };
        Ok(())
    }

    /// Takes the guest's page, gives it to somebody else if that was confirmed, and maps another.
    fn remap(&mut self, guest: usize) -> Result<(), SpaceError> {
        let id = self.guests[guest].id;
        let Some(former) = self.guests[guest].data.take() else {
            self.guests[guest].data = Some(self.give_data(id)?);
            return Ok(());
        };
        let outcome = self.iommu.unmap(id, DATA, 0x1000);
        match outcome {
            Ok(()) => self.host.free(former),
            Err(SpaceError::NotConfirmed { .. } | SpaceError::CachesKept { .. }) => {
                self.guests[guest].kept.push(former);
            }
            Err(_) => {
                self.guests[guest].data = Some(former);
                return outcome;
            }
        }
        // Not where an SMMU may translate to the former one.
        self.guests[guest].data = self.give_data(id).ok();
        outcome
    }

    /// The guest that is in a place, or was last.
    pub fn guest(&self, guest: usize) -> GuestId {
        self.guests[guest].id
    }

    /// The space that is in a place, or was last.
    pub fn space(&self, space: usize) -> SpaceId {
        self.spaces[space].id
    }

    /// The group of the device in a place.
    pub fn group(&self, device: usize) -> GroupId {
        self.devices[device].group
    }

    /// The device in a place.
    pub fn device(&self, device: usize) -> DeviceId {
        self.devices[device].id
    }

    /// Whether a device reaches the page of the space in a place, by its PASID.
    pub fn reaches(&self, device: usize, space: usize) -> bool {
        let at = self.spaces[space];
        let landed = self.host.write(device, at.pasid, VA);
        at.pasid.is_some() && landed == Some(at.page)
    }

    /// Whether a device reaches the page that its guest has beside its spaces'.
    pub fn reaches_data(&self, device: usize, guest: usize) -> bool {
        let page = self.guests[guest].data.as_ref().map(Frames::base);
        let landed = self.host.write(device, None, DATA.as_u64());
        page.is_some() && landed == page
    }

    /// What an SMMU is to do wrong from now on; with no fault, what it had not done yet it does.
    pub fn set_faults(&self, smmu: usize, faults: Faults) {
        self.host.machine().smmu(smmu).set_faults(faults);
        for _ in 0..100 {
            self.host.machine().advance(20);
        }
    }
}

impl Guest {
    fn empty(&self) -> Self {
        Self {
            id: self.id,
            block: None,
            data: None,
            kept: Vec::new(),
        }
    }
}

impl Device {
    fn new(
        iommu: &Iommu<'_, Host>,
        shape: &Shape,
        (group, can_stall): (GroupId, bool),
        device: usize,
    ) -> Self {
        let description = DeviceDescription {
            tag: DeviceTag(device as u64),
            smmu: Some(smmu_id(shape.devices[device])),
            streams: &[stream_of(device)],
            pasid_bits: 16,
            can_stall,
            ats: shape.ats,
            reset: ResetPolicy::Needed,
        };
        let id = iommu.add_device(group, &description).expect("it is new");
        Self {
            group,
            id,
            token: None,
        }
    }
}

fn smmu_id(number: usize) -> SmmuId {
    SmmuId::new(number as u8).expect("below 16")
}
