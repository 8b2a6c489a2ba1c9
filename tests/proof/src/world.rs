//! A machine with guests, their spaces, and devices.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, DeviceTag, Frames, Platform, PoolShape};
use portcullis::id::{Asid, StreamId};
use portcullis::smmu::{Firmware, QueueIndices, Settings, Smmu, TakeOverError};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, Ask, By, DeviceDescription, DeviceId, GroupId, GuestConfig, GuestId, Handle, Iommu,
    IommuSettings, Owner, Ownership, Quota, ResetPolicy, SmmuId, SpaceConfig, SpaceId,
};
use portcullis::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{
    Attributes, BbmLevel, Cacheability, Granule, Shareability, WalkCoherency,
};

use crate::device::Gun;
use crate::tap::Tap;

/// Where each space has its one page: 30 bits of address, so one level leads to it.
pub const VA: u64 = 0x1234_5000;
/// Where guests have their data, a page for each space.
pub const DATA: u64 = 0x4_0000_0000;
/// Where guests have the tables of their spaces, two pages for each.
const TABLES: u64 = 0x4_1000_0000;
/// Where guests' devices see their contexts.
pub const WINDOW: Ipa = Ipa::new(0x70_0000_0000);

/// Takes the SMMU of this index over, with 2^16 streams.
pub fn take_over(tap: &Tap, smmu: usize) -> Smmu<'_, Tap> {
    take_over_for(tap, smmu, None)
}

/// As [`take_over`], with another time-out of a CMD_SYNC.
pub fn take_over_for(tap: &Tap, smmu: usize, sync_timeout_us: Option<u64>) -> Smmu<'_, Tap> {
    try_take_over(tap, smmu, sync_timeout_us).expect("it is taken over")
}

/// As [`take_over_for`], whatever comes of it.
///
/// # Errors
///
/// Every [`TakeOverError`].
pub fn try_take_over(
    tap: &Tap,
    smmu: usize,
    sync_timeout_us: Option<u64>,
) -> Result<Smmu<'_, Tap>, TakeOverError> {
    let firmware = Firmware {
        is_coherent: true,
        queue_indices: QueueIndices::Page1,
    };
    let mut settings = Settings::new(StreamId::new(0xffff));
    if let Some(sync_timeout_us) = sync_timeout_us {
        settings.sync_timeout_us = sync_timeout_us;
    }
    Smmu::take_over(tap, tap.registers(smmu), firmware, settings)
}

/// A guest with 4 KiB pages and a window for CDs of 16 MiB.
pub fn config() -> GuestConfig {
    GuestConfig {
        granule: Granule::Kib4,
        ipa_bits: 40,
        oas_bits: 40,
        bbm: BbmLevel::Level1,
        coherency: WalkCoherency::Coherent,
        tables: PoolShape {
            quota_pages: 256,
            log2_pages_per_chunk: 3,
        },
        window: WINDOW,
        window_bytes: 16 << 20,
        pasid_bits: 12,
        quota: Quota::default(),
    }
}

/// A space of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Which.
    pub id: SpaceId,
    /// Its number.
    pub pasid: u32,
    /// Where [`VA`] leads.
    pub data: Pa,
    /// How the guest sees that page.
    pub ipa: Ipa,
    /// How the guest sees the root of its tables; the next page is the other table.
    pub root: Ipa,
}

/// A device, with all of its streams.
pub struct Board<'p> {
    /// Which.
    pub id: DeviceId,
    /// The group that it is alone in, or not.
    pub group: GroupId,
    /// What fires, a stream each.
    pub guns: Vec<Gun<'p>>,
}

/// What a device is like.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Behind which SMMU.
    pub smmu: usize,
    /// With which streams.
    pub streams: &'a [StreamId],
    /// How many bits of PASID it issues.
    pub pasid_bits: u8,
    /// Whether its transactions can stall.
    pub can_stall: bool,
    /// What it may do with ATS.
    pub ats: Ats,
    /// What must happen to it between two owners.
    pub reset: ResetPolicy,
}

impl<'a> Wanted<'a> {
    /// A device with 12 bits of PASID, and no ATS.
    pub const fn new(smmu: usize, streams: &'a [StreamId]) -> Self {
        Self {
            smmu,
            streams,
            pasid_bits: 12,
            can_stall: false,
            ats: Ats::Off,
            reset: ResetPolicy::Needed,
        }
    }
}

/// A machine with all that is on it.
pub struct World<'p> {
    /// The host.
    pub tap: &'p Tap,
    /// The library.
    pub iommu: Iommu<'p, Tap>,
    spaces: u64,
    devices: u64,
}

impl<'p> World<'p> {
    /// A machine without guests and devices.
    pub fn new(tap: &'p Tap, smmus: &'p [Smmu<'p, Tap>]) -> Self {
        let iommu = Iommu::new(tap, IommuSettings::default()).expect("there is memory");
        for (index, smmu) in smmus.iter().enumerate() {
            iommu.add_smmu(smmu_id(index), smmu).expect("it is new");
        }
        Self {
            tap,
            iommu,
            spaces: 0,
            devices: 0,
        }
    }

    /// A guest made with [`config`].
    pub fn guest(&self) -> GuestId {
        self.iommu.create_guest(&config()).expect("there is memory")
    }

    /// A group of its own.
    pub fn group(&self) -> GroupId {
        self.iommu.add_group().expect("there is room")
    }

    /// A device in a group.
    pub fn device(&mut self, group: GroupId, wanted: Wanted<'_>) -> Board<'p> {
        self.devices += 1;
        let tag = DeviceTag(self.devices);
        let description = DeviceDescription {
            tag,
            smmu: Some(smmu_id(wanted.smmu)),
            streams: wanted.streams,
            pasid_bits: wanted.pasid_bits,
            can_stall: wanted.can_stall,
            ats: wanted.ats,
            reset: wanted.reset,
        };
        let id = self
            .iommu
            .add_device(group, &description)
            .expect("it is new");
        let machine = self.tap.machine();
        let guns = wanted.streams.iter().map(|stream| {
            let smmu = machine.smmu(wanted.smmu);
            let has_ats = wanted.ats != Ats::Off;
            let gun = Gun::new(machine.record(), smmu, stream.as_u32(), has_ats);
            self.tap.wire(tag, gun.device());
            gun
        });
        Board {
            id,
            group,
            guns: guns.collect(),
        }
    }

    /// Makes a guest the owner of a group.
    pub fn own(&self, guest: GuestId, group: GroupId) -> Ownership {
        match self.iommu.acquire(group, Owner::Guest(guest)) {
            Ok(Acquired::Owned(token)) => token,
            Ok(Acquired::Deferred(_)) => panic!("its SMMU is there"),
            Err(error) => panic!("{error}"),
        }
    }

    /// A device in a group of its own, owned by a guest and attached.
    pub fn attached(&mut self, guest: GuestId, wanted: Wanted<'_>) -> (Board<'p>, Ownership) {
        let group = self.group();
        let board = self.device(group, wanted);
        let token = self.own(guest, group);
        self.iommu
            .attach(guest, board.id, Untagged::Abort)
            .expect("it is attached");
        (board, token)
    }

    /// Maps a fresh page of zeros into a guest.
    pub fn give(&self, guest: GuestId, ipa: Ipa) -> Frames {
        let page = self.tap.allocate(12).expect("there is memory");
        page.fill(self.tap, 0);
        self.tap.clean(page.words(self.tap));
        self.tap.barrier(Barrier::Publish);
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        self.iommu
            .map(guest, ipa, page.base(), 0x1000, attributes, sizes)
            .expect("it is mapped");
        page
    }

    /// A space of a guest that maps [`VA`] to a page of its own, and its frames: that page, and two
    /// tables.
    pub fn space(&mut self, guest: GuestId) -> (Space, [Frames; 3]) {
        let n = self.spaces;
        self.spaces += 1;
        let (root, data) = (TABLES + n * 0x2000, DATA + n * 0x1000);
        let (space, frames) = self.tables(guest, root, data);
        let config = SpaceConfig {
            walk: walk(root),
            pasid: Ask::Any,
            promises_no_global: false,
        };
        let id = self.iommu.create_space(guest, &config).expect("a space");
        let pasid = self.iommu.pasid_of(guest, id).expect("there").pasid;
        let space = Space {
            id,
            pasid: pasid.as_u32(),
            data: space,
            ipa: Ipa::new(data),
            root: Ipa::new(root),
        };
        (space, frames)
    }

    /// Tables at address 0 of a guest, that lead [`VA`] to a page of their own: where walks go by a CD
    /// whose root was not seen yet. That page.
    pub fn lay_trap(&self, guest: GuestId) -> (Pa, [Frames; 3]) {
        self.tables(guest, 0, DATA - 0x1000)
    }

    /// Two tables from `root` on that map [`VA`] to a fresh page at `data`: where that is.
    fn tables(&self, guest: GuestId, root: u64, data: u64) -> (Pa, [Frames; 3]) {
        let page = self.give(guest, Ipa::new(data));
        let [top, bottom] = [root, root + 0x1000].map(|at| self.give(guest, Ipa::new(at)));
        let leads = [
            (
                &top,
                VA >> 21 & 511,
                Stage1Descriptor::table(Ipa::new(root + 0x1000)),
            ),
            (
                &bottom,
                VA >> 12 & 511,
                Stage1Descriptor::page(Ipa::new(data), PageAccess::ReadWrite),
            ),
        ];
        for (table, index, descriptor) in leads {
            let words = table.words(self.tap);
            self.tap.store(&words[index as usize], descriptor.as_u64());
            self.tap.clean(words);
        }
        self.tap.barrier(Barrier::Publish);
        (page.base(), [page, top, bottom])
    }

    /// Binds a space to a device by its number.
    pub fn bind(&self, guest: GuestId, space: Space, board: &Board<'_>) -> Handle {
        self.iommu
            .bind(guest, space.id, board.id, By::Pasid)
            .expect("it is bound")
    }

    /// Panics if the model has found a violation.
    pub fn expect_clean(&self) {
        let violations = self.tap.machine().record().violations();
        assert!(violations.is_empty(), "{}", violations[0]);
    }
}

/// The library's name of the machine's SMMU with this index.
pub fn smmu_id(index: usize) -> SmmuId {
    u8::try_from(index)
        .ok()
        .and_then(SmmuId::new)
        .expect("below 16")
}

/// A stage 1 of 30 bits from `root` on.
pub const fn walk(root: u64) -> Stage1Walk {
    Stage1Walk {
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
    }
}
