//! Guests, spaces and devices by the public API of the heart, against the hostile model.

use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::{Barrier, DeviceTag, Frames, Platform, PoolShape};
use portcullis::id::{Asid, StreamId};
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, Ask, By, DeviceDescription, DeviceId, GuestConfig, GuestId, Iommu, IommuSettings,
    Owner, Ownership, Quota, ResetPolicy, SmmuId, SpaceConfig, SpaceError, SpaceId, SpaceState,
};
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{
    Attributes, BbmLevel, Cacheability, Granule, Shareability, WalkCoherency,
};
use portcullis_embedder::Hypervisor;
use portcullis_embedder::dma::Dma;
use smmu_model::{Identity, Mode};

const STREAM: StreamId = StreamId::new(0x110);
const VA: u64 = 0x1234_5000;
const WINDOW: Ipa = Ipa::new(0x70_0000_0000);
const TABLES: u64 = 0x4_0010_0000;
const DATA: u64 = 0x4_0000_0000;

fn modes() -> impl Iterator<Item = Mode> {
    let seeds = (0..24).map(|seed| Mode::Chaotic { seed });
    [Mode::Polite, Mode::Forgetful, Mode::Hoarding]
        .into_iter()
        .chain(seeds)
}

fn take_over(host: &Hypervisor) -> Smmu<'_, Hypervisor> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let settings = Settings::new(StreamId::new(0xffff));
    Smmu::take_over(host, host.registers(0), firmware, settings).expect("it is taken over")
}

fn config() -> GuestConfig {
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
struct World<'p> {
    host: &'p Hypervisor,
    iommu: Iommu<'p, Hypervisor>,
    guest: GuestId,
    device: DeviceId,
    token: Ownership,
    memory: Vec<Frames>,
    spaces: u64,
}

impl<'p> World<'p> {
    fn new(host: &'p Hypervisor, smmu: &'p Smmu<'p, Hypervisor>, ats: Ats) -> Self {
        let iommu = Iommu::new(host, IommuSettings::default()).expect("there is memory");
        let id = SmmuId::new(0).expect("below 16");
        iommu.add_smmu(id, smmu).expect("it is new");
        let group = iommu.add_group().expect("there is room");
        let device = iommu
            .add_device(
                group,
                &DeviceDescription {
                    tag: DeviceTag(1),
                    smmu: Some(id),
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
            token,
            memory: Vec::new(),
            spaces: 0,
        }
    }

    fn give(&mut self, ipa: u64) -> Pa {
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
    fn space(&mut self) -> (SpaceId, Pa) {
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

    fn end(self) {
        let Self {
            host,
            iommu,
            guest,
            token,
            memory,
            ..
        } = self;
        iommu.destroy_guest(guest).expect("it ends");
        let kept = iommu.disown(token).expect_err("its owner is gone");
        assert_eq!(kept.error, SpaceError::StaleOwnership);
        for page in memory {
            host.free(page);
        }
    }
}

#[test]
fn a_space_lives_is_released_and_its_number_comes_back_after_the_last_handle() {
    for mode in modes() {
        for ats in [Ats::Off, Ats::Split, Ats::Full] {
            let host = Hypervisor::new(Identity::full(), mode);
            let smmu = take_over(&host);
            let dma = match ats {
                Ats::Off => Dma::new(&host, STREAM),
                _ => Dma::with_ats(&host, STREAM),
            };
            let mut world = World::new(&host, &smmu, ats);
            let (guest, device) = (world.guest, world.device);
            let (space, at) = world.space();
            let (other, other_at) = world.space();
            let iommu = &world.iommu;
            let pasid = iommu.pasid_of(guest, space).expect("it is there").pasid;
            let other_pasid = iommu.pasid_of(guest, other).expect("it is there").pasid;
            assert_ne!(pasid, other_pasid);
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), None, "not bound");
            let first = iommu.bind(guest, space, device, By::Pasid).expect("bound");
            let second = iommu
                .bind(guest, space, device, By::Pasid)
                .expect("bound again");
            let third = iommu.bind(guest, other, device, By::Pasid).expect("bound");
            assert_ne!(first, second);
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), Some(at));
            assert_eq!(dma.write(Some(other_pasid.as_u32()), VA), Some(other_at));
            iommu.unbind(guest, first).expect("dropped");
            assert_eq!(iommu.unbind(guest, first), Err(SpaceError::NoSuchHandle));
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), Some(at));
            iommu.release(guest, space).expect("released");
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), None);
            assert_eq!(dma.write(Some(other_pasid.as_u32()), VA), Some(other_at));
            assert_eq!(
                iommu.release(guest, space),
                Err(SpaceError::AlreadyReleased)
            );
            assert_eq!(
                iommu.bind(guest, space, device, By::Pasid),
                Err(SpaceError::Released)
            );
            assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Parked));
            iommu.unbind(guest, second).expect("dropped");
            assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Draining));
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), None);
            host.machine().advance(20_000);
            iommu.service(1000);
            if ats == Ats::Off {
                let state = iommu.space_state(guest, space);
                assert_eq!(state, Ok(SpaceState::Draining), "it was heard of");
            }
            host.machine().advance(20_000);
            iommu.service(1000);
            assert_eq!(
                iommu.space_state(guest, space),
                Err(SpaceError::NoSuchSpace)
            );
            iommu
                .invalidate(guest, other, Iova::new(VA), 0x1000)
                .expect("invalidated");
            assert_eq!(dma.write(Some(other_pasid.as_u32()), VA), Some(other_at));
            iommu.tidy(guest).expect("tidied");
            iommu.unbind(guest, third).expect("dropped");
            world.end();
            assert_eq!(host.machine().record().violations(), [], "{mode:?} {ats:?}");
        }
    }
}
