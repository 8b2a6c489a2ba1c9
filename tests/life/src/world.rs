//! The real library on the model, driven by the same operations as the reference.

use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::{Barrier, DeviceTag, Frames, Platform, PoolShape};
use portcullis::id::{Asid, StreamId};
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, Ask, By, Counts, DeviceDescription, DeviceId, DeviceState, GroupId, GuestConfig,
    GuestId, GuestLife, Handle, Iommu, IommuSettings, Owner, Ownership, Quota, ResetPolicy, SmmuId,
    SpaceConfig, SpaceError, SpaceId, SpaceState as RealSpaceState,
};
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use portcullis::spec::ste::Untagged;
use portcullis::spec::vmsa::{
    Attributes, BbmLevel, Cacheability, Granule, Shareability, WalkCoherency,
};
use smmu_model::device::Misconduct;
use smmu_model::{Faults, Identity, Mode, Rule};

use crate::host::{DeviceAt, Host};
use crate::operation::Op;
use crate::reference::{Life, Reference, Shape, SpaceState, Stream};

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

/// How guests are made.
pub fn guest_config() -> GuestConfig {
    GuestConfig {
        granule: Granule::Kib4,
        ipa_bits: 39,
        oas_bits: 40,
        bbm: BbmLevel::Level0,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 64,
            log2_pages_per_chunk: 0,
        },
        window: WINDOW,
        window_bytes: 1 << 20,
        pasid_bits: 6,
        quota: Quota::default(),
    }
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
            .map(|device| Device::new(&iommu, shape, device))
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

    /// Takes back the memory of guests that are gone.
    pub fn bury(&mut self) {
        for guest in &mut self.guests {
            if self.iommu.life_of(guest.id) == Err(SpaceError::NoSuchGuest) {
                let gone = guest.block.take().into_iter().chain(guest.data.take());
                for frames in gone.chain(guest.kept.drain(..)) {
                    self.host.free(frames);
                }
            }
        }
    }

    /// Compares what is now with the reference; every device fires at everything.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn compare(&mut self, reference: &Reference) -> Result<(), String> {
        self.bury();
        self.compare_books(reference)?;
        self.compare_reach(reference)?;
        let violations = self.host.machine().record().violations();
        let mut all = violations.iter();
        match all.find(|it| !self.borne.contains(&it.rule)) {
            None => Ok(()),
            Some(violation) => Err(format!("{violation}")),
        }
    }

    fn compare_books(&self, reference: &Reference) -> Result<(), String> {
        let state = &reference.state;
        for (guest, expected) in self.guests.iter().zip(&state.guests) {
            let life = self.iommu.life_of(guest.id).ok();
            let wanted = match expected.life {
                Life::Gone => None,
                Life::Running => Some(GuestLife::Running),
                Life::Lost => Some(GuestLife::Lost),
            };
            same("life of a guest", life, wanted)?;
        }
        for (guest, at) in self.guests.iter().enumerate() {
            if state.guests[guest].life == Life::Running {
                let counts = self.iommu.counts(at.id).map_err(|it| format!("{it}"))?;
                // Who reads faults is not the matter here.
                let counts = Counts {
                    faults: 0,
                    ..counts
                };
                same(
                    "counts of a guest",
                    counts,
                    expected_counts(reference, guest),
                )?;
            }
        }
        for (space, expected) in self.spaces.iter().zip(&state.spaces) {
            let wanted = match expected.state {
                SpaceState::Gone => continue,
                SpaceState::Live => RealSpaceState::Live,
                SpaceState::Parked => RealSpaceState::Parked,
                SpaceState::Draining => RealSpaceState::Draining,
            };
            let guest = self.guests[expected.guest].id;
            same(
                "a space",
                self.iommu.space_state(guest, space.id),
                Ok(wanted),
            )?;
        }
        for (device, expected) in self.devices.iter().zip(&state.devices) {
            let wanted = match (expected.is_fenced, expected.attached) {
                (true, _) => DeviceState::Fenced,
                (false, Some(guest)) => DeviceState::Attached(self.guests[guest].id),
                (false, None) => DeviceState::Detached,
            };
            same("a device", self.iommu.device_state(device.id), Ok(wanted))?;
        }
        for (device, resets) in reference.resets.iter().enumerate() {
            same("resets", self.host.resets(device), *resets)?;
        }
        Ok(())
    }

    /// Every device fires at everything.
    fn compare_reach(&self, reference: &Reference) -> Result<(), String> {
        for device in 0..self.devices.len() {
            let guest = reference.state.devices[device].attached;
            let data = guest
                .filter(|_| reference.reaches(device, None))
                .and_then(|guest| Some(self.guests[guest].data.as_ref()?.base()));
            let landed = self.host.write(device, None, DATA.as_u64());
            same(
                &format!("device {device} without PASID, stage 2"),
                landed,
                data,
            )?;
            let whole = reference.reaches_whole(device);
            let landed = self.host.write(device, None, VA);
            let wanted = whole.map(|space| self.spaces[space].page);
            same(
                &format!("device {device} without PASID, stage 1"),
                landed,
                wanted,
            )?;
            for number in self.spaces.iter().filter_map(|it| it.pasid) {
                let landed = self.host.write(device, Some(number), VA);
                let is_it = |space: &usize| {
                    self.spaces[*space].pasid == Some(number)
                        && reference.reaches(device, Some(*space))
                };
                let space = (0..self.spaces.len()).find(is_it);
                let wanted = space.map(|space| self.spaces[space].page);
                same(&format!("device {device} PASID {number}"), landed, wanted)?;
            }
        }
        self.iommu.service(u32::MAX);
        // Faults are told of; who reads them is not the matter here.
        for guest in &self.guests {
            while let Ok(Some(_)) = self.iommu.next_fault(guest.id) {}
        }
        Ok(())
    }

    /// Puts everything right and ends everything; `reference` says what each step may say.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn end(&mut self, reference: &mut Reference) -> Result<(), String> {
        let mut ops = Vec::new();
        for smmu in 0..self.shape.smmus {
            ops.push(Op::Mute { smmu, on: false });
        }
        for device in 0..self.shape.devices.len() {
            ops.push(Op::Silence { device, on: false });
            ops.push(Op::Jam { device, on: false });
        }
        for smmu in 0..self.shape.smmus {
            ops.push(Op::Recover { smmu });
        }
        for device in 0..self.shape.devices.len() {
            ops.push(Op::Restore { device });
        }
        for guest in 0..self.shape.guests {
            ops.push(Op::DestroyGuest { guest });
        }
        for op in ops {
            self.step(op, reference)?;
        }
        let state = &reference.state;
        let all_gone = state.guests.iter().all(|guest| guest.life == Life::Gone);
        let all_free = state.devices.iter().all(|device| {
            !device.is_fenced && device.stream == Stream::Free && device.owner.is_none()
        });
        same("all is gone", (all_gone, all_free), (true, true))
    }

    /// As [`live`](Self::live), in a world in which everything that was is gone.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn live_again(&mut self, ops: &[Op]) -> Result<(), String> {
        self.bury();
        let mut reference = Reference::new(self.shape.clone());
        let devices = 0..self.shape.devices.len();
        reference.resets = devices.map(|device| self.host.resets(device)).collect();
        self.live_from(ops, &mut reference)
    }

    fn live_from(&mut self, ops: &[Op], reference: &mut Reference) -> Result<(), String> {
        for op in ops {
            self.step(*op, reference)?;
        }
        self.end(reference)
    }

    /// Does operations here and there, ends everything, and compares after each step.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn live(&mut self, ops: &[Op]) -> Result<(), String> {
        self.live_from(ops, &mut Reference::new(self.shape.clone()))
    }

    /// The guest that is in a place, or was last.
    pub fn guest(&self, guest: usize) -> GuestId {
        self.guests[guest].id
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

    /// Does an operation here and there, and compares; nothing if it is not possible.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn step(&mut self, op: Op, reference: &mut Reference) -> Result<(), String> {
        if !reference.is_possible(op) {
            return Ok(());
        }
        self.say(op, reference)
            .and_then(|()| self.compare(reference))
            .map_err(|differs| format!("{op:?}: {differs}"))
    }

    /// As [`step`](Self::step), for what is to change nothing: no device fires.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn step_in_place(&mut self, op: Op, reference: &mut Reference) -> Result<(), String> {
        self.say(op, reference)
            .and_then(|()| self.compare_books(reference))
            .map_err(|differs| format!("{op:?}: {differs}"))
    }

    /// Does an operation here and there, and compares what both say.
    fn say(&mut self, op: Op, reference: &mut Reference) -> Result<(), String> {
        let said = self.apply(op, reference);
        let expected = reference.apply(op);
        match said {
            Ok(()) if expected.is_empty() => Ok(()),
            Err(error) if expected.iter().any(|why| why.is(&error)) => Ok(()),
            said => Err(format!("it said {said:?}, and not {expected:?}")),
        }
    }

    /// Has guests give back what their devices need no more.
    ///
    /// # Errors
    ///
    /// What was refused, in words.
    pub fn tidy(&mut self) -> Result<(), String> {
        for guest in &self.guests {
            let tidied = self.iommu.tidy(guest.id);
            let is_gone = tidied == Err(SpaceError::NoSuchGuest);
            same("a guest is tidied", is_gone || tidied.is_ok(), true)?;
        }
        Ok(())
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
    fn new(iommu: &Iommu<'_, Host>, shape: &Shape, device: usize) -> Self {
        let group = iommu.add_group().expect("there is room");
        let description = DeviceDescription {
            tag: DeviceTag(device as u64),
            smmu: Some(smmu_id(shape.devices[device])),
            streams: &[stream_of(device)],
            pasid_bits: 16,
            can_stall: false,
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

fn walk_from(root: Ipa) -> Stage1Walk {
    Stage1Walk {
        asid: Asid::new(0),
        low: Some(Half {
            root,
            granule: Granule::Kib4,
            va_bits: 30,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        }),
        high: None,
        output_bits: 40,
        memory_types: 0xff,
    }
}

fn expected_counts(reference: &Reference, guest: usize) -> Counts {
    let state = &reference.state;
    let spaces: Vec<_> = state.spaces_of_guest(guest).collect();
    let count = |is_it: &dyn Fn(usize) -> bool| spaces.iter().filter(|it| is_it(**it)).count();
    let bindings = || {
        let all = state.bindings.iter();
        all.filter(|it| spaces.contains(&it.space))
    };
    let is_lost = |space: usize| {
        !state.spaces[space].unproven.is_empty()
            || bindings().any(|it| it.space == space && it.has_kept)
    };
    let attached = state.devices.iter();
    Counts {
        spaces: spaces.len() as u32,
        parked: count(&|it| state.spaces[it].state == SpaceState::Parked) as u32,
        draining: count(&|it| state.spaces[it].state == SpaceState::Draining) as u32,
        lost: count(&is_lost) as u32,
        bindings: bindings().count() as u32,
        handles: bindings().map(|it| it.handles.len()).sum::<usize>() as u32,
        devices: attached.filter(|it| it.attached == Some(guest)).count() as u32,
        stalls: 0,
        faults: 0,
        pasids: spaces.len() as u32,
        asids: spaces.len() as u32,
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, and not {wanted:?}"))
}
