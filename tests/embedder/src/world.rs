//! A guest of the heart with one device of its own, for tests of what becomes of both.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, DeviceTag, Frames, Platform, PoolShape};
use portcullis::id::{Asid, StreamId};
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, Ask, By, DeviceDescription, DeviceId, GroupId, GuestConfig, GuestId, Handle, Iommu,
    IommuSettings, Owner, Ownership, Quota, ResetPolicy, SmmuId, SpaceConfig, SpaceError, SpaceId,
};
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{
    Attributes, BbmLevel, Cacheability, Granule, Shareability, WalkCoherency,
};
use smmu_model::{Identity, Mode};

use crate::Hypervisor;
use crate::dma::Dma;

/// The device's stream.
pub const STREAM: StreamId = StreamId::new(0x110);
/// Where each space has its one page.
pub const VA: u64 = 0x1234_5000;
/// The host's number for the device.
pub const TAG: DeviceTag = DeviceTag(1);
/// The SMMU.
pub const SMMU: SmmuId = match SmmuId::new(0) {
    Some(id) => id,
    None => panic!("0 is below 16"),
};
const WINDOW: Ipa = Ipa::new(0x70_0000_0000);
const TABLES: u64 = 0x4_0010_0000;
const DATA: u64 = 0x4_0000_0000;

/// Every way of being hostile, and as many seeds as are quick.
pub fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..24).map(|seed| Mode::Chaotic { seed });
    [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(seeds)
}

/// A host on whose machine devices have 200 us to answer an invalidation, so that the model need not
/// count far.
pub fn host(identity: Identity, mode: Mode) -> Hypervisor {
    Hypervisor::with_smmus(&[smmu_model::Settings {
        atc_timeout_us: 200,
        ..smmu_model::Settings::new(identity, mode)
    }])
}

/// Takes the first SMMU over; a SYNC may take a millisecond, so that the model need not count far.
pub fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(0xffff));
    settings.sync_timeout_us = 1000;
    Smmu::take_over(host, host.registers(0), firmware, settings).expect("it is taken over")
}

/// What guests are made with.
pub fn config() -> GuestConfig {
    GuestConfig {
        granule: Granule::Kib4,
        ipa_bits: 40,
        oas_bits: 40,
        bbm: BbmLevel::Level0,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 64,
            log2_pages_per_chunk: 3,
        },
        window: WINDOW,
        window_bytes: 4 << 20,
        pasid_bits: 12,
        quota: Quota::default(),
    }
}

/// One guest, with one device.
pub struct World<'p> {
    host: &'p Hypervisor,
    /// All that is known of both.
    pub iommu: Iommu<'p, Hypervisor>,
    /// The guest.
    pub guest: GuestId,
    /// Its device.
    pub device: DeviceId,
    /// The device's group.
    pub group: GroupId,
    token: Option<Ownership>,
    memory: Vec<Frames>,
    spaces: u64,
}

impl<'p> World<'p> {
    /// A guest and a device with PASIDs, attached to it; what has none aborts.
    pub fn new(host: &'p Hypervisor, smmu: &'p Smmu<'p, Hypervisor>, ats: Ats) -> Self {
        let iommu = Iommu::new(host, IommuSettings::default()).expect("there is memory");
        iommu.add_smmu(SMMU, smmu).expect("it is new");
        let group = iommu.add_group().expect("there is room");
        let device = iommu
            .add_device(
                group,
                &DeviceDescription {
                    tag: TAG,
                    smmu: Some(SMMU),
                    streams: &[STREAM],
                    pasid_bits: 16,
                    can_stall: false,
                    ats,
                    reset: ResetPolicy::Needed,
                },
            )
            .expect("it is new");
        let guest = iommu.create_guest(&config()).expect("there is memory");
        let Ok(Acquired::Owned(token)) = iommu.acquire(group, Owner::Guest(guest)) else {
            panic!("it is free");
        };
        iommu
            .attach(guest, device, Untagged::Abort)
            .expect("it is attached");
        Self {
            host,
            iommu,
            guest,
            device,
            group,
            token: Some(token),
            memory: Vec::new(),
            spaces: 0,
        }
    }

    /// The device, wired so that the host can reset it.
    pub fn dma(&self, ats: Ats) -> Dma<'p> {
        let dma = match ats {
            Ats::Off => Dma::new(self.host, STREAM),
            Ats::Split | Ats::Full => Dma::with_ats(self.host, STREAM),
        };
        dma.wire(TAG);
        dma
    }

    /// Binds a space to the device by its number: the handle, and the number.
    pub fn bind(&self, space: SpaceId) -> (Handle, u32) {
        let handle = self.iommu.bind(self.guest, space, self.device, By::Pasid);
        let pasid = self.iommu.pasid_of(self.guest, space).expect("it is there");
        (handle.expect("bound"), pasid.pasid.as_u32())
    }

    /// Maps a fresh page, full of zeros, into the guest.
    pub fn give(&mut self, ipa: u64) -> Pa {
        let page = self.host.allocate(12).expect("there is memory");
        page.fill(self.host, 0);
        let base = page.base();
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        self.iommu
            .map(self.guest, Ipa::new(ipa), base, 0x1000, attributes, sizes)
            .expect("it is mapped");
        self.memory.push(page);
        base
    }

    /// A space that maps [`VA`] to a page of its own: where that is.
    pub fn space(&mut self) -> (SpaceId, Pa) {
        let n = self.spaces;
        self.spaces += 1;
        let root = TABLES + n * 0x2000;
        let data = DATA + n * 0x1000;
        let leads = [
            (
                root,
                VA >> 21 & 511,
                Stage1Descriptor::table(Ipa::new(root + 0x1000)),
            ),
            (
                root + 0x1000,
                VA >> 12 & 511,
                Stage1Descriptor::page(Ipa::new(data), PageAccess::ReadWrite),
            ),
        ];
        for (table, index, descriptor) in leads {
            self.give(table);
            let page = self.memory.last().expect("just given");
            self.host
                .store(&page.words(self.host)[index as usize], descriptor.as_u64());
        }
        self.host.barrier(Barrier::Publish);
        let at = self.give(data);
        let walk = Stage1Walk {
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
        };
        let config = SpaceConfig {
            walk,
            pasid: Ask::Any,
            promises_no_global: false,
        };
        let space = self
            .iommu
            .create_space(self.guest, &config)
            .expect("a space");
        (space, at)
    }

    /// Has the guest give the device up, which is detached.
    pub fn disown(&mut self) {
        let token = self.token.take().expect("it has it");
        self.iommu.disown(token).expect("it is detached");
    }

    /// Takes the guest's memory back from whoever ended it.
    pub fn free_memory(self) {
        for page in self.memory {
            self.host.free(page);
        }
    }

    /// Ends the guest, and takes its memory back.
    pub fn end(self) {
        let Self {
            host,
            iommu,
            guest,
            token,
            memory,
            ..
        } = self;
        iommu.destroy_guest(guest).expect("it ends");
        if let Some(token) = token {
            let kept = iommu.disown(token).expect_err("its owner is gone");
            assert_eq!(kept.error, SpaceError::StaleOwnership);
        }
        for page in memory {
            host.free(page);
        }
    }
}
