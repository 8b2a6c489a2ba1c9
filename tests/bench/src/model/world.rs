//! Guests, devices and spaces on the model, as many as are wanted.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, DeviceTag, Frames, Platform, PoolShape};
use portcullis::id::{Asid, StreamId};
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, Ask, By, DeviceDescription, DeviceId, GroupId, GuestConfig, GuestId, Handle, Iommu,
    IommuSettings, MAX_GROUP_DEVICES, Owner, Ownership, Quota, ResetPolicy, SmmuId, SpaceConfig,
    SpaceId,
};
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{
    Attributes, BbmLevel, Cacheability, Granule, Shareability, WalkCoherency,
};
use smmu_model::{Faults, Identity, Mode};

use super::host::Host;

/// Where a guest's memory begins.
const DATA: u64 = 0x4_0000_0000;
/// Where its own tables are.
const TABLES: u64 = 0x5_0000_0000;
/// The address that its spaces map, to one page each.
pub const VA: u64 = 0x1234_5000;
/// StreamIDs begin here, on each SMMU.
const FIRST_STREAM: u32 = 0x100;

/// How large a world is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// SMMUs.
    pub smmus: usize,
    /// Devices of the first guest behind each of them.
    pub devices: usize,
    /// What they do with ATS.
    pub ats: Ats,
    /// What the SMMUs keep in their caches.
    pub mode: Mode,
    /// Threads that take turns; 0: none do.
    pub threads: usize,
}

impl Shape {
    /// One SMMU with so many devices, without ATS.
    pub const fn new(devices: usize) -> Self {
        Self {
            smmus: 1,
            devices,
            ats: Ats::Off,
            mode: Mode::Polite,
            threads: 0,
        }
    }

    fn host(&self) -> Host {
        let settings = smmu_model::Settings::new(Identity::full(), self.mode);
        // 32 KiB a device, and as much again for everything else.
        let bytes = (self.smmus * self.devices * (64 << 10)) as u64 + (64 << 20);
        let host = Host::new(bytes, &vec![settings; self.smmus]);
        match self.threads {
            0 => host,
            threads => host.with_turns(threads),
        }
    }

    /// Makes the host and takes its SMMUs over, for `work`.
    pub fn run<R>(&self, work: impl FnOnce(&Host, &[Smmu<'_, Host>]) -> R) -> R {
        let host = self.host();
        let smmus: Vec<_> = (0..self.smmus).map(|at| take_over(&host, at)).collect();
        let result = work(&host, &smmus);
        host.assert_clean();
        result
    }

    /// As [`run`](Self::run), with a guest that has all the devices, attached.
    pub fn with_guest<R>(&self, work: impl FnOnce(World<'_>) -> R) -> R {
        self.run(|host, smmus| work(World::new(host, smmus, self)))
    }
}

/// Takes an SMMU over as a host with 2^16 streams does.
pub fn take_over(host: &Host, at: usize) -> Smmu<'_, Host> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let settings = Settings::new(StreamId::new(0xffff));
    let smmu = Smmu::take_over(host, host.registers(at), firmware, settings);
    smmu.expect("it is taken over")
}

/// How many bits the PASIDs of guests have where nobody says otherwise.
pub const PASID_BITS: u8 = 16;

/// What guests here are made with.
pub fn guest_config(pasid_bits: u8) -> GuestConfig {
    GuestConfig {
        granule: Granule::Kib4,
        ipa_bits: 40,
        oas_bits: 40,
        bbm: BbmLevel::Level0,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 4096,
            log2_pages_per_chunk: 3,
        },
        window: Ipa::new(0x70_0000_0000),
        window_bytes: 128 << 20,
        pasid_bits,
        quota: Quota {
            spaces: 1 << 16,
            bindings: 1 << 16,
            handles: 1 << 16,
            stalls: 16,
        },
    }
}

/// A guest, and its devices.
pub struct World<'p> {
    /// The host.
    pub host: &'p Host,
    /// All of it.
    pub iommu: Iommu<'p, Host>,
    /// The first guest.
    pub guest: GuestId,
    /// Its groups, with the proof that they are its own.
    pub groups: Vec<(GroupId, Ownership)>,
    /// Its devices, those of the first SMMU first.
    pub devices: Vec<DeviceId>,
    pages: Vec<Frames>,
    spaces: u64,
}

impl<'p> World<'p> {
    /// Devices in groups of as many as a group can have; all of them attached.
    pub fn new(host: &'p Host, smmus: &'p [Smmu<'p, Host>], shape: &Shape) -> Self {
        let mut world = Self::without_devices(host, smmus);
        for smmu in 0..shape.smmus {
            let streams: Vec<u32> = (0..shape.devices as u32).collect();
            for some in streams.chunks(MAX_GROUP_DEVICES) {
                world.add_group(smmu, some, shape.ats);
            }
        }
        for (group, _) in &world.groups {
            world
                .iommu
                .attach_group(world.guest, *group, Untagged::Abort)
                .expect("attached");
        }
        world
    }

    /// A guest that has nothing yet.
    pub fn without_devices(host: &'p Host, smmus: &'p [Smmu<'p, Host>]) -> Self {
        Self::with_pasids(host, smmus, PASID_BITS)
    }

    /// A guest that has nothing yet, and whose PASIDs have so many bits.
    pub fn with_pasids(host: &'p Host, smmus: &'p [Smmu<'p, Host>], pasid_bits: u8) -> Self {
        let iommu = Iommu::new(host, IommuSettings::default()).expect("there is memory");
        for (at, smmu) in smmus.iter().enumerate() {
            iommu.add_smmu(smmu_id(at), smmu).expect("it is new");
        }
        let guest = iommu
            .create_guest(&guest_config(pasid_bits))
            .expect("there is room");
        Self {
            host,
            iommu,
            guest,
            groups: Vec::new(),
            devices: Vec::new(),
            pages: Vec::new(),
            spaces: 0,
        }
    }

    /// A group of the first guest's with a device for each of these streams.
    pub fn add_group(&mut self, smmu: usize, streams: &[u32], ats: Ats) {
        let group = self.iommu.add_group().expect("there is room");
        for stream in streams {
            let device = self.add_device(group, smmu, *stream, ats);
            self.devices.push(device);
        }
        let owner = Owner::Guest(self.guest);
        let Ok(Acquired::Owned(token)) = self.iommu.acquire(group, owner) else {
            panic!("it is free");
        };
        self.groups.push((group, token));
    }

    fn add_device(&self, group: GroupId, smmu: usize, stream: u32, ats: Ats) -> DeviceId {
        let stream = StreamId::new(FIRST_STREAM + stream);
        let description = DeviceDescription {
            tag: DeviceTag(u64::from(stream.as_u32())),
            smmu: Some(smmu_id(smmu)),
            streams: &[stream],
            pasid_bits: 16,
            can_stall: false,
            ats,
            reset: ResetPolicy::Needed,
        };
        let device = self.iommu.add_device(group, &description);
        device.expect("it is new")
    }

    /// Maps a fresh page of zeros for a guest.
    pub fn give(&mut self, guest: GuestId, ipa: u64) -> Pa {
        let page = self.host.allocate(12).expect("there is memory");
        page.fill(self.host, 0);
        let base = page.base();
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        self.iommu
            .map(guest, Ipa::new(ipa), base, 0x1000, attributes, sizes)
            .expect("it is mapped");
        self.pages.push(page);
        base
    }

    /// A space of the first guest's, that maps [`VA`] to a page.
    pub fn space(&mut self) -> SpaceId {
        self.space_of(self.guest)
    }

    /// A space of a guest's, that maps [`VA`] to a page.
    pub fn space_of(&mut self, guest: GuestId) -> SpaceId {
        let number = self.spaces;
        self.spaces += 1;
        let (root, data) = (TABLES + number * 0x2000, DATA + number * 0x1000);
        let leads = [
            (root, 21, Stage1Descriptor::table(Ipa::new(root + 0x1000))),
            (
                root + 0x1000,
                12,
                Stage1Descriptor::page(Ipa::new(data), PageAccess::ReadWrite),
            ),
        ];
        for (table, shift, descriptor) in leads {
            self.give(guest, table);
            let page = self.pages.last().expect("just given");
            let index = (VA >> shift & 511) as usize;
            self.host
                .store(&page.words(self.host)[index], descriptor.as_u64());
        }
        self.host.barrier(Barrier::Publish);
        self.give(guest, data);
        self.space_at(guest, root)
    }

    /// A space of a guest's whose tables begin at `root`, whatever is there.
    pub fn space_at(&self, guest: GuestId, root: u64) -> SpaceId {
        let config = SpaceConfig {
            walk: Stage1Walk {
                asid: Asid::new(0),
                low: Some(Half {
                    root: Ipa::new(root),
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
            },
            pasid: Ask::Any,
            promises_no_global: false,
        };
        self.iommu.create_space(guest, &config).expect("a space")
    }

    /// Binds a space of the first guest's to one of its devices.
    pub fn bind(&self, space: SpaceId, device: DeviceId) -> Handle {
        let bound = self.iommu.bind(self.guest, space, device, By::Pasid);
        bound.expect("bound")
    }

    /// A space, bound to every device.
    pub fn space_on_all(&mut self) -> SpaceId {
        let space = self.space();
        for device in &self.devices {
            let _handle = self.bind(space, *device);
        }
        space
    }

    /// Lets each CMD_SYNC of every SMMU take so long.
    pub fn delay_syncs(&self, smmus: usize, us: u64) {
        for at in 0..smmus {
            let faults = Faults {
                sync_late_us: us,
                ..Faults::default()
            };
            self.host.inner().machine().smmu(at).set_faults(faults);
        }
    }
}

/// The number of an SMMU.
pub fn smmu_id(at: usize) -> SmmuId {
    u8::try_from(at)
        .ok()
        .and_then(SmmuId::new)
        .expect("there are at most 16")
}
