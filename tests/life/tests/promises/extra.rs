//! What some operations need beside the world: a group of two devices, a guest of the host's.

use std::cell::RefCell;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::{Barrier, Frames, Platform};
use portcullis::id::Vmid;
use portcullis::space::{
    Acquired, GroupId, GuestId, HostChange, HostedConfig, Iommu, Owner, Quota, SpaceError,
    WindowWanted,
};
use portcullis::spec::ste::Untagged;
use portcullis::spec::vmsa::{Geometry, Granule, Stage2Walk, WalkCoherency};
use portcullis_life::host::Host;
use portcullis_life::world::World;

use super::act::Act;
use super::{DATA, GUEST};

/// Those of the group.
const DEVICES: [usize; 2] = [2, 3];
/// In the first gigabyte, so that one entry of the root (level 1, 39 bits of address) leads there.
const WINDOW: u64 = 0x3fe0_0000;
const LOG2_WINDOW: u8 = 14;
/// Where the page of the guest of the host's is.
const PAGE_AT: u64 = 0x0010_2000;

// Of DDI 0487 D8.3: valid, page or table; AF; inner shareable; S2AP; MemAttr 0b1111.
const TABLE: u64 = 0b11;
const PAGE: u64 = 0b11 | 0b1111 << 2 | 0b11 << 8 | 1 << 10;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;

/// What is there for one act.
#[derive(Default)]
pub(super) struct Extra {
    group: Option<GroupId>,
    pub(super) tables: Option<Tables>,
    hosted: Option<GuestId>,
    /// What was not confirmed.
    change: RefCell<Option<HostChange>>,
}

impl Extra {
    /// Makes what `act` needs.
    pub(super) fn new(world: &mut World<'_>, act: Act, page: &Frames) -> Self {
        let mut extra = Self::default();
        let guest = world.guest(GUEST);
        match act {
            Act::AttachGroup => extra.add_group(world, guest),
            Act::DetachGroup => {
                extra.add_group(world, guest);
                extra.attach(world, guest);
            }
            Act::AdoptGuest => extra.tables = Some(Tables::new(world.host())),
            Act::HostChange => extra.adopt(world, page),
            _ => {}
        }
        extra
    }

    fn add_group(&mut self, world: &mut World<'_>, guest: GuestId) {
        let group = world.join(&DEVICES, false);
        let iommu = &world.iommu;
        let Ok(Acquired::Owned(token)) = iommu.acquire(group, Owner::Guest(guest)) else {
            panic!("it is free");
        };
        self.group = Some(token.group());
    }

    fn attach(&self, world: &World<'_>, guest: GuestId) {
        let attached = world
            .iommu
            .attach_group(guest, self.group(), Untagged::Stage2);
        attached.expect("nothing fails yet");
        assert!(self.reaches(world), "it is attached");
    }

    fn adopt(&mut self, world: &mut World<'_>, page: &Frames) {
        let tables = Tables::new(world.host());
        let (guest, wanted) = world
            .iommu
            .adopt_guest(&tables.config())
            .expect("there is room");
        tables.map_window(world.host(), &wanted);
        world.iommu.window_mapped(wanted).expect("it is mapped");
        tables.map(world.host(), PAGE_AT, page.base(), READ | WRITE);
        (self.tables, self.hosted) = (Some(tables), Some(guest));
        self.add_group(world, guest);
        self.attach(world, guest);
        tables_of(self).map(world.host(), PAGE_AT, Pa::new(0), 0);
        // Cached it is, until that is confirmed.
        assert!(self.reaches(world), "it is cached");
    }

    pub(super) fn group(&self) -> GroupId {
        self.group.expect("it is made")
    }

    /// Says that the page was taken away; where that is not confirmed, the change is kept.
    pub(super) fn take_away(&self, iommu: &Iommu<'_, Host>) -> Result<(), SpaceError> {
        let guest = self.hosted.expect("it is taken in");
        let change = iommu.host_unmapped(guest, Ipa::new(PAGE_AT), 0x1000)?;
        iommu.confirm_host_change(change).map_err(|unconfirmed| {
            *self.change.borrow_mut() = Some(unconfirmed.change);
            unconfirmed.error
        })
    }

    /// Whether either device of the group reaches its guest's page.
    pub(super) fn reaches(&self, world: &World<'_>) -> bool {
        let at = if self.hosted.is_some() {
            PAGE_AT
        } else {
            DATA.as_u64()
        };
        let mut devices = DEVICES.iter();
        devices.any(|device| world.host().write(*device, None, at).is_some())
    }

    /// Puts the devices right, once the SMMU is.
    pub(super) fn restore(&self, world: &World<'_>, what: &str) {
        for device in DEVICES {
            assert_eq!(world.iommu.restore(world.device(device)), Ok(()), "{what}");
        }
    }

    /// Ends all that [`new`](Self::new) made, and what was not confirmed is.
    pub(super) fn end(&mut self, world: &World<'_>, what: &str) {
        if let Some(guest) = self.hosted {
            if let Some(change) = self.change.take() {
                let again = world.iommu.confirm_host_change(change);
                assert!(again.is_ok(), "{what}: {again:?}");
            }
            let ended = world.iommu.destroy_guest(guest);
            assert!(
                matches!(ended, Ok(()) | Err(SpaceError::NoSuchGuest)),
                "{what}: {ended:?}"
            );
        }
        if let Some(tables) = self.tables.take() {
            for frames in tables.frames {
                world.host().free(frames);
            }
        }
    }
}

fn tables_of(extra: &Extra) -> &Tables {
    extra.tables.as_ref().expect("they are made")
}

/// The host's tables: a root of level 1 of one entry that counts, a level 2, and two level 3.
pub(super) struct Tables {
    frames: [Frames; 4],
}

impl Tables {
    fn new(host: &Host) -> Self {
        let frames = [(); 4].map(|()| {
            let frames = host.allocate(12).expect("there is memory");
            frames.fill(host, 0);
            frames
        });
        let tables = Self { frames };
        let at = |n: usize| tables.frames[n].base().as_u64();
        tables.store(host, (0, 0), at(1) | TABLE);
        tables.store(host, (1, PAGE_AT >> 21), at(2) | TABLE);
        tables.store(host, (1, WINDOW >> 21), at(3) | TABLE);
        tables
    }

    fn store(&self, host: &Host, (table, index): (usize, u64), word: u64) {
        host.store(&self.frames[table].words(host)[index as usize], word);
        host.barrier(Barrier::Publish);
    }

    /// Maps a page, or takes it away if nothing is permitted.
    fn map(&self, host: &Host, ipa: u64, pa: Pa, permissions: u64) {
        let table = if ipa >> 21 == WINDOW >> 21 { 3 } else { 2 };
        let word = match permissions {
            0 => 0,
            permissions => pa.as_u64() | PAGE | permissions,
        };
        self.store(host, (table, ipa >> 12 & 511), word);
    }

    pub(super) fn map_window(&self, host: &Host, wanted: &WindowWanted) {
        for offset in (0..wanted.size_bytes).step_by(0x1000) {
            let pa = Pa::new(wanted.pa.as_u64() + offset);
            self.map(host, wanted.ipa.as_u64() + offset, pa, READ);
        }
    }

    pub(super) fn config(&self) -> HostedConfig {
        HostedConfig {
            walk: Stage2Walk {
                root: self.frames[0].base(),
                geometry: Geometry::new(Granule::Kib4, 39, 40).expect("there are such tables"),
                vmid: Vmid::new(0x33),
                coherency: WalkCoherency::Coherent,
                flushes_new_tables: false,
            },
            window: Ipa::new(WINDOW),
            log2_window_bytes: LOG2_WINDOW,
            pasid_bits: 4,
            quota: Quota::default(),
        }
    }
}
