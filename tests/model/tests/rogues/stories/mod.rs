//! What the right driver and its rogues do.

pub(crate) mod contexts;
pub(crate) mod machine;
pub(crate) mod streams;
pub(crate) mod tables;

use std::sync::Arc;

use smmu_model::bench::{self, nh_all, s1_page, s12_vmall, ste_stage2};
use smmu_model::device::{Device, End, frame};
use smmu_model::{Claim, Faults, offset};

use crate::driver::{Atc, Binding, Driver, Guest, Space, Trouble};
use crate::step::Step;
use crate::words::{self, ContextTable, s1_global_page};

/// Where the page of a space stands.
pub(crate) const VA: u64 = 0x5000;
/// The stream of most stories.
pub(crate) const STREAM: u32 = 3;
/// Another one.
pub(crate) const OTHER_STREAM: u32 = 9;
/// The VMID of most stories.
pub(crate) const VMID: u16 = 7;
/// The SubstreamID of most stories.
pub(crate) const PASID: u32 = 5;
/// Another one.
pub(crate) const OTHER_PASID: u32 = 6;

/// The root of stage 2 of the guest that is made first, and of the one after it.
pub(crate) const ROOTS: [u64; 2] = [crate::driver::FREE, crate::driver::FREE + 0x3000];

/// How a story ends.
pub(crate) type Told = Result<(), Trouble>;

const PAGE: u64 = 0x1000;

/// What a single write of a device ends in.
pub(crate) fn fire(device: &Device, pasid: Option<u32>, iova: u64) -> End {
    start(device, pasid, iova, frame::flags::WRITE);
    let last = device.read32(frame::LAST_END);
    let ends = [
        End::Done,
        End::Aborted,
        End::Ignored,
        End::Stalled,
        End::NotGranted,
        End::UnsupportedRequest,
        End::CompleterAbort,
    ];
    let named = ends.into_iter().find(|end| *end as u32 == last);
    named.unwrap_or(End::None)
}

/// Keeps a device writing at `iova`, once a microsecond.
pub(crate) fn keep_firing(device: &Device, pasid: Option<u32>, iova: u64) {
    start(
        device,
        pasid,
        iova,
        frame::flags::WRITE | frame::flags::REPEAT,
    );
}

fn start(device: &Device, pasid: Option<u32>, iova: u64, flags: u32) {
    device.write32(frame::PASID, pasid.map_or(0, |pasid| 1 << 31 | pasid));
    device.write64(frame::IOVA, iova);
    device.write32(frame::LENGTH, 8);
    device.write32(frame::FLAGS, flags);
    device.write64(frame::PATTERN, 0x6465_6c69_7665_7200);
    device.write32(frame::COMMAND, frame::command::START);
}

fn expect_landing(driver: &mut Driver, end: End) {
    driver.expect(end == End::Done, "a write that was allowed did not land");
}

fn expect_abort(driver: &mut Driver, end: End) {
    driver.expect(
        !matches!(end, End::Done | End::Stalled | End::Ignored),
        "a write that was not allowed landed",
    );
}

fn page(frame: u64) -> (u64, u64) {
    (frame, PAGE)
}

/// A stream of stage 2 alone, with four pages behind it.
pub(crate) struct Plain {
    pub(crate) guest: Guest,
    pub(crate) pages: u64,
    pub(crate) device: Arc<Device>,
}

/// Attaches [`STREAM`] to stage 2 alone and writes through it.
pub(crate) fn plain(driver: &mut Driver) -> Result<Plain, Trouble> {
    let guest = driver.guest(VMID);
    let pages = driver.frames(14);
    for at in 0..4 {
        driver.map_same(&guest, pages + at * PAGE);
    }
    driver.publish_ste(STREAM, &ste_stage2(VMID, guest.root))?;
    let device = driver.device(STREAM);
    for at in 0..4 {
        let end = fire(&device, None, pages + at * PAGE);
        expect_landing(driver, end);
    }
    Ok(Plain {
        guest,
        pages,
        device,
    })
}

/// A stream with contexts: one space of two pages, bound as [`PASID`].
pub(crate) struct Contexts {
    /// Where stage 2 is on.
    pub(crate) guest: Option<Guest>,
    pub(crate) table: ContextTable,
    pub(crate) space: Space,
    pub(crate) pages: u64,
    pub(crate) binding: Binding,
    pub(crate) device: Arc<Device>,
}

impl Contexts {
    /// The frames of the space: its tables and its pages.
    pub(crate) fn frames(&self) -> [(u64, u64); 4] {
        let space = self.space;
        [
            page(space.root),
            page(space.level2),
            page(space.level3),
            (self.pages, 2 * PAGE),
        ]
    }
}

/// How a [`Contexts`] is made.
#[derive(Clone, Copy)]
struct Shape {
    is_nested: bool,
    has_leaves: bool,
    descriptor: fn(u64) -> u64,
}

/// Stage 1 alone, one table, pages of one address space.
const STAGE1: Shape = Shape {
    is_nested: false,
    has_leaves: false,
    descriptor: s1_page,
};

/// The same under stage 2.
const NESTED: Shape = Shape {
    is_nested: true,
    ..STAGE1
};

fn contexts(driver: &mut Driver, shape: Shape) -> Result<Contexts, Trouble> {
    let guest = shape.is_nested.then(|| driver.guest(VMID));
    let table = driver.context_table(shape.has_leaves);
    let (ContextTable::Linear(at) | ContextTable::TwoLevel(at)) = table;
    let ste = match &guest {
        Some(guest) => {
            driver.map_same(guest, at);
            words::ste_nested(VMID, guest.root, table)
        }
        None => words::ste_stage1(VMID, table),
    };
    driver.publish_ste(STREAM, &ste)?;
    if shape.has_leaves {
        let leaf = driver.add_leaf(table, PASID >> 6, &[STREAM], guest.as_ref())?;
        driver.expect(leaf != 0, "there is no leaf");
    }
    let space = driver.space(VMID, 1, guest.as_ref());
    let pages = driver.frames(13);
    for at in [0, PAGE] {
        if let Some(guest) = &guest {
            driver.map_same(guest, pages + at);
        }
        driver.map(&space, VA + at, (shape.descriptor)(pages + at));
    }
    let binding = driver.bind(STREAM, table, PASID, &space)?;
    let device = driver.device(STREAM);
    for at in [0, PAGE] {
        let end = fire(&device, Some(PASID), VA + at);
        expect_landing(driver, end);
    }
    Ok(Contexts {
        guest,
        table,
        space,
        pages,
        binding,
        device,
    })
}

/// A second space like the first, bound as [`OTHER_PASID`].
fn sibling(
    driver: &mut Driver,
    world: &Contexts,
    descriptor: fn(u64) -> u64,
) -> Result<Space, Trouble> {
    let space = driver.space(VMID, 2, world.guest.as_ref());
    let frame = driver.frames(12);
    if let Some(guest) = &world.guest {
        driver.map_same(guest, frame);
    }
    driver.map(&space, VA, descriptor(frame));
    driver.bind(STREAM, world.table, OTHER_PASID, &space)?;
    let end = fire(&world.device, Some(OTHER_PASID), VA);
    expect_landing(driver, end);
    Ok(space)
}

/// A second stream of the same guest, its own context table, the same space as [`PASID`].
fn second_stream(driver: &mut Driver, world: &Contexts) -> Result<Arc<Device>, Trouble> {
    let table = driver.context_table(false);
    let (ContextTable::Linear(at) | ContextTable::TwoLevel(at)) = table;
    let ste = match &world.guest {
        Some(guest) => {
            driver.map_same(guest, at);
            words::ste_nested(VMID, guest.root, table)
        }
        None => words::ste_stage1(VMID, table),
    };
    driver.publish_ste(OTHER_STREAM, &ste)?;
    driver.bind(OTHER_STREAM, table, PASID, &world.space)?;
    let device = driver.device(OTHER_STREAM);
    let end = fire(&device, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(device)
}

/// A nested stream with one space.
pub(crate) fn nested(driver: &mut Driver) -> Result<Contexts, Trouble> {
    contexts(driver, NESTED)
}

/// A nested stream whose device holds the translations of both pages in its ATC.
pub(crate) fn with_ats(driver: &mut Driver) -> Result<Contexts, Trouble> {
    let world = nested(driver)?;
    driver.enable_ats(STREAM, words::EATS_SPLIT)?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_landing(driver, end);
    }
    Ok(world)
}
