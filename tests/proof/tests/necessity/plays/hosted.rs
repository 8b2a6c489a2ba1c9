//! A guest whose tables the host has.

use crate::stage::{NEIGHBOUR, STREAM, Stage};
use portcullis::addr::{Iova, Ipa};
use portcullis::hw::{Barrier, Frames, Platform};
use portcullis::id::Vmid;
use portcullis::smmu::Smmu;
use portcullis::space::{
    Ask, By, GuestId, HostedConfig, Ownership, Quota, SpaceConfig, WindowWanted,
};
use portcullis::spec::stage1::{PageAccess, Stage1Descriptor};
use portcullis::spec::ste::Untagged;
use portcullis::spec::vmsa::{Geometry, Granule, Stage2Walk, WalkCoherency};
use portcullis_proof::{Board, Tap, VA, Wanted, World, walk};
use smmu_model::Claim;

const VMID: Vmid = Vmid::new(0x33);
/// All in the first gigabyte: one entry of the root leads there.
const WINDOW: u64 = 0x3fe0_0000;
const LOG2_WINDOW: u8 = 14;
/// The guest's own tables, its page, and another, by one table of the host's.
const ROOT: u64 = 0x10_0000;
const BOTTOM: u64 = 0x10_1000;
const PAGE: u64 = 0x10_2000;

// Of DDI 0487 D8.3: valid; MemAttr 0b1111, inner shareable, AF; S2AP.
const TABLE: u64 = 0b11;
const LEAF: u64 = 0b11 | 0b1111 << 2 | 0b11 << 8 | 1 << 10;
const READ: u64 = 1 << 6;
const READ_WRITE: u64 = 3 << 6;

/// The host's tables: a root, a level 2, a level 3 of memory and one of the window.
struct Tables<'p> {
    tap: &'p Tap,
    frames: [Frames; 4],
}

impl<'p> Tables<'p> {
    fn new(tap: &'p Tap) -> Self {
        let frames = [(); 4].map(|()| page(tap));
        let tables = Self { tap, frames };
        let at = |n: usize| tables.frames[n].base().as_u64() | TABLE;
        tables.store(0, 0, at(1));
        tables.store(1, ROOT >> 21, at(2));
        tables.store(1, WINDOW >> 21, at(3));
        tables
    }

    fn store(&self, table: usize, index: u64, word: u64) {
        let words = self.frames[table].words(self.tap);
        self.tap.store(&words[index as usize], word);
        self.tap.barrier(Barrier::Publish);
    }

    fn lead(&self, ipa: u64, to: &Frames) {
        let word = to.base().as_u64() | LEAF | READ_WRITE;
        self.store(2, ipa >> 12 & 511, word);
    }

    fn window(&self, wanted: &WindowWanted) {
        for offset in (0..wanted.size_bytes).step_by(0x1000) {
            let index = (wanted.ipa.as_u64() + offset) >> 12 & 511;
            self.store(3, index, (wanted.pa.as_u64() + offset) | LEAF | READ);
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

fn page(tap: &Tap) -> Frames {
    let page = tap.allocate(12).expect("there is memory");
    page.fill(tap, 0);
    page
}

/// Such a guest, with a device that is its own, and not attached.
struct Hosted<'p> {
    world: World<'p>,
    tables: Tables<'p>,
    guest: GuestId,
    board: Board<'p>,
    _token: Ownership,
    /// Its tables, and then its page.
    frames: [Frames; 3],
}

impl<'p> Hosted<'p> {
    fn new(stage: &Stage<'p>, smmus: &'p [Smmu<'p, Tap>; 1]) -> Self {
        let tap = stage.tap;
        let mut world = World::new(tap, smmus);
        let tables = Tables::new(tap);
        let config = HostedConfig {
            walk: tables.walk(),
            window: Ipa::new(WINDOW),
            log2_window_bytes: LOG2_WINDOW,
            pasid_bits: 4,
            quota: Quota::default(),
        };
        let (guest, wanted) = world.iommu.adopt_guest(&config).expect("taken in");
        tables.window(&wanted);
        world.iommu.window_mapped(wanted).expect("it is");
        let frames = [(); 3].map(|()| page(tap));
        for (ipa, frame) in [ROOT, BOTTOM, PAGE].into_iter().zip(&frames) {
            tables.lead(ipa, frame);
        }
        let leads = [
            (VA >> 21 & 511, Stage1Descriptor::table(Ipa::new(BOTTOM))),
            (
                VA >> 12 & 511,
                Stage1Descriptor::page(Ipa::new(PAGE), PageAccess::ReadWrite),
            ),
        ];
        for (table, (index, descriptor)) in frames.iter().zip(leads) {
            let words = table.words(tap);
            tap.store(&words[index as usize], descriptor.as_u64());
        }
        tap.barrier(Barrier::Publish);
        let group = world.group();
        let wanted = Wanted {
            pasid_bits: 4,
            ats: stage.setup.ats,
            ..Wanted::new(0, &[STREAM])
        };
        let board = world.device(group, wanted);
        let token = world.own(guest, group);
        // In the same part of the stream table.
        let next = world.guest();
        let (_, _token) = world.attached(next, Wanted::new(0, &[NEIGHBOUR]));
        // What an SMMU can know of an entry that aborts, it knows.
        board.guns[0].fire(None, PAGE);
        board.guns[0].fire(Some(1), VA);
        Self {
            world,
            tables,
            guest,
            board,
            _token: token,
            frames,
        }
    }

    /// A space of it, bound: its number.
    fn bind(&self, stage: &mut Stage<'_>) -> Option<u32> {
        let iommu = &self.world.iommu;
        let config = SpaceConfig {
            walk: walk(ROOT),
            pasid: Ask::Any,
            promises_no_global: false,
        };
        let space = iommu.create_space(self.guest, &config).expect("a space");
        let bound = iommu.bind(self.guest, space, self.board.id, By::Pasid);
        stage.ok("bind", bound)?;
        let number = iommu.pasid_of(self.guest, space).expect("there").pasid;
        Some(number.as_u32())
    }

    /// Attached, bound, and warm: its number.
    fn warm(&self, stage: &mut Stage<'_>) -> u32 {
        let (iommu, device) = (&self.world.iommu, self.board.id);
        let attached = iommu.attach(self.guest, device, Untagged::Stage2);
        attached.expect("attached");
        let pasid = self.bind(stage).expect("bound");
        let page = Some(self.frames[2].base());
        assert_eq!(self.reaches(pasid), [page; 3]);
        pasid
    }

    /// Where the device lands by its space, asking for a translation if it can, and not; and without
    /// a space.
    fn reaches(&self, pasid: u32) -> [Option<portcullis::addr::Pa>; 3] {
        let gun = &self.board.guns[0];
        [
            gun.hits(Some(pasid), VA),
            gun.hits_unasked(Some(pasid), VA),
            gun.hits(None, PAGE),
        ]
    }
}

pub(super) fn attach(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let hosted = Hosted::new(stage, &smmus);
    let (iommu, device) = (&hosted.world.iommu, hosted.board.id);
    stage.act_ok(|| iommu.attach(hosted.guest, device, Untagged::Stage2));
    let page = Some(hosted.frames[2].base());
    let found = hosted.board.guns[0].hits(None, PAGE);
    stage.expect("untagged", found, page);
    let Some(pasid) = hosted.bind(stage) else {
        return;
    };
    stage.expect("DMA", hosted.reaches(pasid), [page; 3]);
}

pub(super) fn confirm(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let hosted = Hosted::new(stage, &smmus);
    let pasid = hosted.warm(stage);
    hosted.tables.store(2, PAGE >> 12 & 511, 0);
    stage.act_ok(|| {
        let iommu = &hosted.world.iommu;
        let change = iommu
            .host_unmapped(hosted.guest, Ipa::new(PAGE), 0x1000)
            .map_err(|_| "not taken")?;
        iommu.confirm_host_change(change).map_err(|_| "unconfirmed")
    });
    stage.expect("late DMA", hosted.reaches(pasid), [None; 3]);
    // Another page takes its place.
    let new = page(stage.tap);
    hosted.tables.lead(PAGE, &new);
    let there = Some(new.base());
    stage.expect("DMA", hosted.reaches(pasid), [there; 3]);
}

pub(super) fn destroy(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let hosted = Hosted::new(stage, &smmus);
    let pasid = hosted.warm(stage);
    let explained = smmus[0].explain(
        STREAM,
        portcullis::id::SubstreamId::new(pasid),
        Iova::new(VA),
    );
    assert!(explained.context.is_some());
    stage.act_ok(|| hosted.world.iommu.destroy_guest(hosted.guest));
    stage.claim(Claim::VmidTaken {
        vmid: VMID.as_u16(),
    });
    stage.expect("late DMA", hosted.reaches(pasid), [None; 3]);
    let Hosted { tables, frames, .. } = hosted;
    stage.free(frames);
    stage.free(tables.frames);
}
