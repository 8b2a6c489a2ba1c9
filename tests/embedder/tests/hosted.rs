//! A guest whose stage 2 is the host's own: tables of hand-assembled words.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, DeviceTag, Frames, Platform};
use portcullis::id::{Asid, StreamId, Vmid};
use portcullis::smmu::Smmu;
use portcullis::space::{
    Acquired, Ask, By, DeviceDescription, DeviceId, GuestId, HostedConfig, Iommu, IommuSettings,
    Owner, Quota, ResetPolicy, SmmuId, SpaceConfig, SpaceError, WindowFault, WindowWanted,
};
use portcullis::spec::stage1::{Half, Stage1Walk, TopByte};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{
    Cacheability, Geometry, Granule, Shareability, Stage2Walk, WalkCoherency,
};
use portcullis_embedder::Hypervisor;
use portcullis_embedder::dma::Dma;
use portcullis_embedder::guest::{modes, take_over};
use smmu_model::{Identity, Mode};

const STREAM: StreamId = StreamId::new(0x110);
const VMID: Vmid = Vmid::new(0x33);
/// In the first gigabyte, so that one entry of the root (level 1, 39 bits of address) leads there.
const WINDOW: u64 = 0x3fe0_0000;
const LOG2_WINDOW: u8 = 14;
/// Where the guest's tables and its page are.
const L2: u64 = 0x0010_0000;
const L3: u64 = 0x0010_1000;
const DATA: u64 = 0x0010_2000;
const VA: u64 = 0x1234_5000;

// Of DDI 0487 D8.3: valid, page or table; AF; inner shareable; S2AP; MemAttr 0b1111.
const TABLE: u64 = 0b11;
const PAGE: u64 = 0b11 | 0b1111 << 2 | 0b11 << 8 | 1 << 10;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
const DIRTY_MODIFIER: u64 = 1 << 51;

/// The host's tables: a root of level 1 of one entry that counts, a level 2, and two level 3.
struct Tables<'p> {
    host: &'p Hypervisor,
    frames: [Frames; 4],
}

impl<'p> Tables<'p> {
    fn new(host: &'p Hypervisor) -> Self {
        let frames = [(); 4].map(|()| {
            let frames = host.allocate(12).expect("there is memory");
            frames.fill(host, 0);
            frames
        });
        let tables = Self { host, frames };
        let at = |n: usize| tables.frames[n].base().as_u64();
        tables.store(0, 0, at(1) | TABLE);
        tables.store(1, (L2 >> 21) as usize, at(2) | TABLE);
        tables.store(1, (WINDOW >> 21) as usize, at(3) | TABLE);
        tables
    }

    fn store(&self, table: usize, index: usize, word: u64) {
        let words = self.frames[table].words(self.host);
        self.host.store(&words[index], word);
        self.host.barrier(Barrier::Publish);
    }

    fn page(&self, ipa: u64, pa: Pa, permissions: u64) {
        let index = (ipa >> 12 & 511) as usize;
        let table = if ipa >> 21 == WINDOW >> 21 { 3 } else { 2 };
        self.store(table, index, pa.as_u64() | PAGE | permissions);
    }

    fn window(&self, wanted: &WindowWanted, permissions: u64) {
        for offset in (0..wanted.size_bytes).step_by(0x1000) {
            let pa = Pa::new(wanted.pa.as_u64() + offset);
            self.page(wanted.ipa.as_u64() + offset, pa, permissions);
        }
    }

    fn walk(&self) -> Stage2Walk {
        Stage2Walk {
            root: self.frames[0].base(),
            geometry: Geometry::new(Granule::Kib4, 39, 40).expect("there are such tables"),
            vmid: VMID,
            coherency: WalkCoherency::Coherent,
            flushes_new_tables: false,
        }
    }
}

fn adopt<'p>(
    host: &'p Hypervisor,
    smmu: &'p Smmu<'p, Hypervisor>,
    tables: &Tables<'_>,
) -> (Iommu<'p, Hypervisor>, GuestId, WindowWanted, DeviceId) {
    let iommu = Iommu::new(host, IommuSettings::default()).expect("there is memory");
    let id = SmmuId::new(0).expect("below 16");
    iommu.add_smmu(id, smmu).expect("it is new");
    let config = HostedConfig {
        walk: tables.walk(),
        window: Ipa::new(WINDOW),
        log2_window_bytes: LOG2_WINDOW,
        pasid_bits: 4,
        quota: Quota::default(),
    };
    let (guest, wanted) = iommu.adopt_guest(&config).expect("it is taken in");
    assert_eq!(
        iommu.adopt_guest(&config).err(),
        Some(SpaceError::VmidTaken)
    );
    let group = iommu.add_group().expect("there is room");
    let device = DeviceDescription {
        tag: DeviceTag(1),
        smmu: Some(id),
        streams: &[STREAM],
        pasid_bits: 4,
        can_stall: false,
        ats: Ats::Off,
        reset: ResetPolicy::Needed,
    };
    let device = iommu.add_device(group, &device).expect("it is new");
    let Ok(Acquired::Owned(token)) = iommu.acquire(group, Owner::Guest(guest)) else {
        panic!("it is free");
    };
    assert_eq!(token.group(), group);
    (iommu, guest, wanted, device)
}

#[test]
fn a_window_that_the_host_did_not_map_as_it_must_is_refused_by_name() {
    let host = Hypervisor::new(Identity::full(), Mode::Hoarding);
    let smmu = take_over(&host);
    let tables = Tables::new(&host);
    let (iommu, guest, wanted, device) = adopt(&host, &smmu, &tables);
    let refused = |ipa: u64, why| {
        let ipa = Ipa::new(ipa);
        Err(SpaceError::WindowNotMapped { ipa, why })
    };
    let attach = || iommu.attach(guest, device, Untagged::Abort);
    assert_eq!(attach(), refused(WINDOW, WindowFault::NotMapped));
    tables.window(&wanted, READ | WRITE);
    assert_eq!(attach(), refused(WINDOW, WindowFault::Writable));
    tables.window(&wanted, READ | DIRTY_MODIFIER);
    assert_eq!(attach(), refused(WINDOW, WindowFault::Writable));
    tables.window(&wanted, 0);
    assert_eq!(attach(), refused(WINDOW, WindowFault::Attributes));
    tables.window(&wanted, READ);
    let elsewhere = Pa::new(wanted.pa.as_u64() + 0x10_0000);
    tables.page(WINDOW + 0x3000, elsewhere, READ);
    let error = refused(WINDOW + 0x3000, WindowFault::OtherMemory { pa: elsewhere });
    assert_eq!(attach(), error);
    let refused = iommu.window_mapped(wanted).expect_err("a page is wrong");
    assert_eq!(Err(refused.error), error);
    tables.window(&refused.wanted, READ);
    iommu.window_mapped(refused.wanted).expect("it is there");
    assert_eq!(attach(), Ok(()));
    iommu.destroy_guest(guest).expect("it ends");
}

#[test]
fn what_the_host_takes_away_is_out_of_reach_once_it_spent_the_change() {
    for mode in modes() {
        let host = Hypervisor::new(Identity::full(), mode);
        let smmu = take_over(&host);
        let dma = Dma::new(&host, STREAM);
        let tables = Tables::new(&host);
        let before = host.bytes_out();
        let (iommu, guest, wanted, device) = adopt(&host, &smmu, &tables);
        tables.window(&wanted, READ);
        iommu.window_mapped(wanted).expect("it is there");
        let pages = [L2, L3, DATA].map(|ipa| {
            let page = host.allocate(12).expect("there is memory");
            page.fill(&host, 0);
            tables.page(ipa, page.base(), READ | WRITE);
            page
        });
        // Stage 1 of 30 bits: L2 leads to L3 leads to the page; AF, nG, read and write at EL0.
        let leaf = DATA | 0b11 | 1 << 6 | 0b11 << 8 | 1 << 10 | 1 << 11;
        host.store(
            &pages[0].words(&host)[(VA >> 21 & 511) as usize],
            L3 | TABLE,
        );
        host.store(&pages[1].words(&host)[(VA >> 12 & 511) as usize], leaf);
        host.barrier(Barrier::Publish);
        let walk = Stage1Walk {
            asid: Asid::new(0),
            low: Some(Half {
                root: Ipa::new(L2),
                granule: Granule::Kib4,
                va_bits: 30,
                top_byte: TopByte::Checked,
                inner: Cacheability::WriteBack,
                outer: Cacheability::WriteBack,
                shareability: Shareability::Inner,
            }),
            high: None,
            output_bits: 32,
            memory_types: 0xff,
        };
        iommu
            .attach(guest, device, Untagged::Abort)
            .expect("it is attached");
        let config = SpaceConfig {
            walk,
            pasid: Ask::Exactly(5),
            promises_no_global: true,
        };
        let space = iommu.create_space(guest, &config).expect("a space");
        iommu
            .bind(guest, space, device, By::Pasid)
            .expect("it is bound");
        assert_eq!(dma.write(Some(5), VA), Some(pages[2].base()), "{mode:?}");
        assert_eq!(
            iommu.unmap(guest, Ipa::new(DATA), 0x1000),
            Err(SpaceError::HostsTables)
        );
        tables.store(2, (DATA >> 12 & 511) as usize, 0);
        let change = iommu
            .host_unmapped(guest, Ipa::new(DATA), 0x1000)
            .expect("it is the host's");
        iommu.confirm_host_change(change).expect("it is confirmed");
        assert_eq!(dma.write(Some(5), VA), None, "{mode:?}");
        iommu.destroy_guest(guest).expect("it ends");
        for page in pages {
            host.free(page);
        }
        let Ok(()) = iommu.dismantle() else {
            panic!("nothing is left");
        };
        // The array of streams is the SMMU's.
        assert_eq!(host.bytes_out(), before + (16 << 10), "{mode:?}");
        assert_eq!(host.machine().record().violations(), [], "{mode:?}");
    }
}
