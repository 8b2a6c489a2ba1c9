//! What the right driver and its rogues do.

use std::sync::Arc;

use smmu_model::bench::{self, nh_all, s1_page, s12_vmall, ste_stage2};
use smmu_model::device::{Device, End, frame};
use smmu_model::{Claim, Faults, offset};

use super::driver::{Atc, Binding, Driver, Guest, Space, Trouble};
use super::step::Step;
use super::words::{self, ContextTable, s1_global_page};

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
pub(crate) const ROOTS: [u64; 2] = [super::driver::FREE, super::driver::FREE + 0x3000];

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

// Worlds.

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

// Streams.

/// Only brings the SMMU up.
pub(crate) fn nothing(_driver: &mut Driver) -> Told {
    Ok(())
}

/// A stream comes and works.
pub(crate) fn a_stream_comes(driver: &mut Driver) -> Told {
    plain(driver).map(|_| ())
}

/// A stream loses its guest; stage 2 and pages are given back; the device fires on.
pub(crate) fn a_stream_goes(driver: &mut Driver) -> Told {
    let Plain {
        guest,
        pages,
        device,
    } = plain(driver)?;
    keep_firing(&device, None, pages);
    let mut frees = [guest.root, guest.level2, guest.level3].map(page).to_vec();
    frees.push((pages, 4 * PAGE));
    driver.retract_ste(STREAM, VMID, &frees)?;
    let end = fire(&device, None, pages);
    expect_abort(driver, end);
    Ok(())
}

/// A stream goes; one barrier makes entry and command visible together.
pub(crate) fn a_stream_goes_by_one_barrier(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    driver.retract_ste_by_one_barrier(STREAM)?;
    let end = fire(&world.device, None, world.pages);
    // What the TLB holds may still be there; the entry is not.
    expect_abort(driver, end);
    Ok(())
}

/// A stream of stage 1 goes, with its context table, its space and its pages.
pub(crate) fn a_stream_with_contexts_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    keep_firing(&world.device, Some(PASID), VA);
    let ContextTable::Linear(table) = world.table else {
        return Ok(());
    };
    let mut frees = vec![page(table)];
    frees.extend(world.frames());
    driver.retract_ste(STREAM, VMID, &frees)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// An array of streams is linked, used, emptied and given back.
pub(crate) fn an_array_goes(driver: &mut Driver) -> Told {
    driver.add_array(STREAM >> 6)?;
    let world = plain(driver)?;
    driver.retract_ste(STREAM, VMID, &[])?;
    driver.remove_array(STREAM >> 6)?;
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// A stream moves from one stage 2 to another of the same VMID.
pub(crate) fn a_stream_moves(driver: &mut Driver) -> Told {
    let new = driver.guest(VMID);
    let world = plain(driver)?;
    let old = world.guest;
    driver.expect([new.root, old.root] == ROOTS, "the roots are elsewhere");
    let frame = driver.frames(12);
    driver.map_stage2(&new, world.pages, frame);
    driver.retract_ste(STREAM, VMID, &[])?;
    driver.publish_ste(STREAM, &ste_stage2(VMID, new.root))?;
    driver.free(&[
        page(old.root),
        page(old.level2),
        page(old.level3),
        (world.pages, 4 * PAGE),
    ]);
    let mark = driver.machine.record().mark();
    let end = fire(&world.device, None, world.pages);
    expect_landing(driver, end);
    let landed = driver.machine.record().landed_since(mark);
    let is_new = landed.iter().all(|landing| landing.pa & !0xfff == frame);
    driver.expect(is_new, "a write went where the old stage 2 leads");
    Ok(())
}

/// The memory attributes of a live stream change: one word.
pub(crate) fn a_stream_changes(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    let word1 = ste_stage2(VMID, world.guest.root)[1];
    // SHCFG from incoming to inner shareable.
    driver.change_ste(STREAM, 1, word1 | 3 << 44)?;
    let end = fire(&world.device, None, world.pages);
    expect_landing(driver, end);
    Ok(())
}

/// Two guests come, each with a stream and a VMID of its own.
pub(crate) fn two_guests_come(driver: &mut Driver) -> Told {
    plain(driver)?;
    let guest = driver.guest(VMID + 1);
    driver.publish_ste(OTHER_STREAM, &ste_stage2(guest.vmid, guest.root))
}

/// A guest comes with a stream of stage 2, and the host with one of stage 1.
pub(crate) fn a_guest_and_the_host_come(driver: &mut Driver) -> Told {
    plain(driver)?;
    let table = driver.context_table(false);
    driver.publish_ste(OTHER_STREAM, &words::ste_stage1(VMID + 1, table))
}

/// A stream whose accesses to what is not mapped stall, and one that does.
fn with_a_stall(driver: &mut Driver) -> Result<Arc<Device>, Trouble> {
    let guest = driver.guest(VMID);
    let mut ste = ste_stage2(VMID, guest.root);
    // S2S.
    ste[2] |= 1 << 57;
    driver.publish_ste(STREAM, &ste)?;
    let device = driver.device(STREAM);
    let end = fire(&device, None, VA);
    driver.expect(end == End::Stalled, "the access did not stall");
    Ok(device)
}

fn expect_no_stall(driver: &mut Driver, device: &Device) {
    for _ in 0..10 {
        driver.pass();
    }
    let pending = device.read32(frame::PENDING);
    driver.expect(pending == 0, "an access is still stalled");
}

/// A stream goes while an access of it is stalled.
pub(crate) fn a_stream_with_a_stall_goes(driver: &mut Driver) -> Told {
    let device = with_a_stall(driver)?;
    driver.end_stalls(STREAM)?;
    expect_no_stall(driver, &device);
    Ok(())
}

/// A stalled access is ended by its tag; its stream lives on.
pub(crate) fn a_stall_is_answered(driver: &mut Driver) -> Told {
    let device = with_a_stall(driver)?;
    driver.pass();
    let event = driver.take_event();
    driver.expect(event.is_some(), "a stall was not told");
    let stag = event.map_or(0, |words| words[1] as u16);
    driver.answer_stall(STREAM, stag)?;
    expect_no_stall(driver, &device);
    Ok(())
}

// Contexts.

/// Two spaces come, each with an ASID of its own.
pub(crate) fn two_spaces_come(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    sibling(driver, &world, s1_page).map(|_| ())
}

/// A space of stage 1 is unbound; its tables and pages are given back; the device fires on.
pub(crate) fn a_context_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    keep_firing(&world.device, Some(PASID), VA);
    driver.unbind(&world.binding, VMID, Atc::Unused, &world.frames())?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A space is bound in a leaf; it goes, then the leaf.
pub(crate) fn a_leaf_goes(driver: &mut Driver) -> Told {
    let shape = Shape {
        has_leaves: true,
        ..STAGE1
    };
    let world = contexts(driver, shape)?;
    driver.unbind(&world.binding, VMID, Atc::Unused, &world.frames())?;
    driver.remove_leaf(world.table, PASID >> 6, &[STREAM])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// Two streams use one table of contexts; a space in it goes.
pub(crate) fn a_shared_context_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    driver.publish_ste(OTHER_STREAM, &words::ste_stage1(VMID, world.table))?;
    let other = driver.device(OTHER_STREAM);
    let end = fire(&other, Some(PASID), VA);
    expect_landing(driver, end);
    driver.unbind_shared(&world.binding, OTHER_STREAM, VMID, &world.frames())?;
    let end = fire(&other, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A living context no longer records its faults: one word.
pub(crate) fn a_context_changes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let word0 = bench::cd(world.space.asid, world.space.root)[0] & !words::cd::R;
    driver.change_cd(&world.binding, VMID, word0)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

/// A context gets another ASID and another root: not possible in one word.
pub(crate) fn a_context_moves(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let new = driver.space(VMID, 2, None);
    let frame = driver.frames(12);
    driver.map(&new, VA, s1_page(frame));
    driver.unbind(&world.binding, VMID, Atc::Unused, &[])?;
    driver.bind(STREAM, world.table, PASID, &new)?;
    driver.free(&world.frames());
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

// Release.

/// A nested space is released while its device fires.
pub(crate) fn a_space_is_released(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    keep_firing(&world.device, Some(PASID), VA);
    driver.release(&world.space, Atc::Unused, &[])?;
    for _ in 0..3 {
        driver.pass();
    }
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// The same with a space that two streams were bound to.
pub(crate) fn a_space_of_two_streams_is_released(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    let other = second_stream(driver, &world)?;
    driver.release(&world.space, Atc::Unused, &[])?;
    for device in [&world.device, &other] {
        let end = fire(device, Some(PASID), VA);
        expect_abort(driver, end);
    }
    Ok(())
}

/// One of two streams loses a space that lives on.
pub(crate) fn one_of_two_bindings_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    let other = second_stream(driver, &world)?;
    driver.unbind(&world.binding, VMID, Atc::Unused, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    let end = fire(&other, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

/// A space whose pages are global is released.
pub(crate) fn a_space_with_global_pages_is_released(driver: &mut Driver) -> Told {
    let shape = Shape {
        descriptor: s1_global_page,
        ..NESTED
    };
    let world = contexts(driver, shape)?;
    driver.release(&world.space, Atc::Unused, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A space is released while a sibling with global pages lives.
pub(crate) fn a_space_beside_global_pages_is_released(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    driver.unmap(&world.space, VA, 1, Atc::Unused, &[])?;
    sibling(driver, &world, s1_global_page)?;
    driver.release(&world.space, Atc::Unused, &[])?;
    let end = fire(&world.device, Some(OTHER_PASID), VA);
    expect_landing(driver, end);
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// A space whose translations are in a device's ATC is released.
pub(crate) fn a_space_in_an_atc_is_released(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.release(&world.space, Atc::Used, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// The same with a device that asks at once for what was invalidated.
pub(crate) fn a_space_in_an_eager_atc_is_released(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    use frame::control::{ATS, EAGER, ENABLE};
    world.device.write32(frame::CONTROL, ENABLE | ATS | EAGER);
    driver.release(&world.space, Atc::Used, &[])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

// Tags.

/// An ASID is given to another space.
pub(crate) fn an_asid_is_used_again(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let (vmid, asid) = (VMID, world.space.asid);
    driver.unbind_only(&world.binding)?;
    driver.take_tag(nh_all(VMID), Claim::AsidTaken { vmid, asid })
}

/// A VMID is given to another guest.
pub(crate) fn a_vmid_is_used_again(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.retract_ste_only(STREAM)?;
    driver.take_tag(s12_vmall(VMID), Claim::VmidTaken { vmid: VMID })
}

/// A SubstreamID is given to another space, while its old translations were in an ATC.
pub(crate) fn a_pasid_is_used_again(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.unbind(&world.binding, VMID, Atc::Unused, &[])?;
    let flush = words::atc_inv_all(STREAM, Some(PASID));
    let claim = Claim::PasidTaken {
        smmu: 0,
        stream: STREAM,
        substream: PASID,
    };
    driver.take_tag(flush, claim)?;
    let new = driver.space(VMID, 2, world.guest.as_ref());
    let frame = driver.frames(12);
    if let Some(guest) = &world.guest {
        driver.map_same(guest, frame);
    }
    driver.map(&new, VA, s1_page(frame));
    driver.bind(STREAM, world.table, PASID, &new)?;
    let mark = driver.machine.record().mark();
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    let landed = driver.machine.record().landed_since(mark);
    let is_new = landed.iter().all(|landing| landing.pa & !0xfff == frame);
    driver.expect(is_new, "a write went where the old space leads");
    Ok(())
}

// Tables.

/// Two pages of a living space of stage 1 go.
pub(crate) fn pages_of_a_space_go(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    keep_firing(&world.device, Some(PASID), VA);
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap(&world.space, VA, 2, Atc::Unused, &frees)?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}

/// A page of a living space is exchanged for another one.
pub(crate) fn a_page_is_exchanged(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    let frame = driver.frames(12);
    driver.exchange(&world.space, VA, s1_page(frame))?;
    let mark = driver.machine.record().mark();
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    let landed = driver.machine.record().landed_since(mark);
    let is_new = landed.iter().all(|landing| landing.pa & !0xfff == frame);
    driver.expect(is_new, "a write went to the old page");
    Ok(())
}

/// A level-3 table of a living space goes, its pages with it.
pub(crate) fn a_table_goes(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    driver.free_table(&world.space)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// Two pages go from the stage 2 of a stream without stage 1.
pub(crate) fn stage_2_pages_go(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    keep_firing(&world.device, None, world.pages);
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap_stage2(&world.guest, world.pages, 2, &frees)?;
    for at in 0..4 {
        let end = fire(&world.device, None, world.pages + at * PAGE);
        if at < 2 {
            expect_abort(driver, end);
        } else {
            expect_landing(driver, end);
        }
    }
    Ok(())
}

/// The same with pages at the start of a block of level 2.
pub(crate) fn aligned_stage_2_pages_go(driver: &mut Driver) -> Told {
    let guest = driver.guest(VMID);
    let pages = driver.frames(13);
    let ipa = super::driver::BASE;
    for at in [0, PAGE] {
        driver.map_stage2(&guest, ipa + at, pages + at);
    }
    driver.publish_ste(STREAM, &ste_stage2(VMID, guest.root))?;
    let device = driver.device(STREAM);
    for at in [0, PAGE] {
        let end = fire(&device, None, ipa + at);
        expect_landing(driver, end);
    }
    driver.unmap_stage2(&guest, ipa, 2, &[(pages, 2 * PAGE)])?;
    let end = fire(&device, None, ipa);
    expect_abort(driver, end);
    Ok(())
}

/// Pages go from stage 2 under a nested stream.
pub(crate) fn nested_pages_go(driver: &mut Driver) -> Told {
    let world = contexts(driver, NESTED)?;
    let Some(guest) = world.guest else {
        return Ok(());
    };
    keep_firing(&world.device, Some(PASID), VA);
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap_stage2(&guest, world.pages, 2, &frees)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// Pages that a device's ATC knows go from stage 1.
pub(crate) fn pages_in_an_atc_go(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.unmap(&world.space, VA, 2, Atc::Used, &[])?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}

/// The same with a device that asks at once for what was invalidated.
pub(crate) fn pages_in_an_eager_atc_go(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    use frame::control::{ATS, EAGER, ENABLE};
    world.device.write32(frame::CONTROL, ENABLE | ATS | EAGER);
    driver.unmap(&world.space, VA, 2, Atc::Used, &[])?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}

/// Pages of stage 1 alone that a device's ATC knows are unmapped and given back.
pub(crate) fn pages_in_an_atc_are_given_back(driver: &mut Driver) -> Told {
    let world = contexts(driver, STAGE1)?;
    driver.enable_ats(STREAM, words::EATS_FULL)?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_landing(driver, end);
    }
    let frees = [(world.pages, 2 * PAGE)];
    driver.unmap(&world.space, VA, 2, Atc::Used, &frees)?;
    for at in [0, PAGE] {
        let end = fire(&world.device, Some(PASID), VA + at);
        expect_abort(driver, end);
    }
    Ok(())
}

// The SMMU itself.

/// A SYNC never completes; the driver gives up.
pub(crate) fn a_sync_never_comes(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.machine.smmu(0).set_faults(Faults {
        sync_never: true,
        ..Faults::default()
    });
    let end = driver.retract_ste_only(STREAM);
    let is_named = end == Err(Trouble::NotConsumed);
    driver.expect(is_named, "the driver did not give up");
    Ok(())
}

/// The queue stops at a command that could not be fetched, and goes on.
pub(crate) fn a_command_error_is_acknowledged(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.machine.smmu(0).set_faults(Faults {
        abort_after: Some(1),
        ..Faults::default()
    });
    let end = driver.retract_ste_only(STREAM);
    let is_named = end == Err(Trouble::CommandError(2));
    driver.expect(is_named, "the queue did not stop");
    driver.acknowledge();
    driver.finish()
}

/// The SMMU goes off; without it, traffic is aborted.
pub(crate) fn the_smmu_of_a_plain_stream_goes_off(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    driver.shut_down(&[])?;
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// The SMMU is found working, with another's tables: it is brought up anew.
pub(crate) fn the_smmu_is_taken_over(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    driver.stop_abruptly(STREAM)?;
    driver.bring_up()?;
    let guest = world.guest;
    let mut frees = [guest.root, guest.level2, guest.level3].map(page).to_vec();
    frees.push((world.pages, 4 * PAGE));
    driver.free(&frees);
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// The event queue overflows, is read, and takes another record.
pub(crate) fn an_event_queue_overflows(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    for fault in 0..40 {
        let end = fire(&world.device, None, fault * PAGE);
        expect_abort(driver, end);
    }
    driver.pass();
    let is_told = driver.read(offset::EVENTQ_PROD) >> 31 == 1;
    driver.expect(is_told, "an overflow is not told");
    while driver.take_event().is_some() {}
    let flags = driver.read(offset::EVENTQ_PROD) ^ driver.read(offset::EVENTQ_CONS);
    driver.expect(flags >> 31 == 0, "an overflow is told that is over");
    Ok(())
}

/// A stream with ATS, then the SMMU goes off.
pub(crate) fn the_smmu_goes_off(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.shut_down(&[STREAM])?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_abort(driver, end);
    Ok(())
}

/// ATS is enabled and disabled again.
pub(crate) fn ats_comes_and_goes(driver: &mut Driver) -> Told {
    let world = with_ats(driver)?;
    driver.disable_ats(STREAM)?;
    let end = fire(&world.device, Some(PASID), VA);
    expect_landing(driver, end);
    Ok(())
}

/// A device faults once; the record is read.
pub(crate) fn a_fault_is_read(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    let end = fire(&world.device, None, world.pages + 0x10_0000);
    expect_abort(driver, end);
    // A record may come later than the abort that it tells of.
    driver.pass();
    let event = driver.take_event();
    // F_TRANSLATION of this stream.
    let is_right = event.is_some_and(|words| words[0] == u64::from(STREAM) << 32 | 0x10);
    driver.expect(is_right, "the record is not the fault's");
    Ok(())
}

// The command queue.

/// A stream goes by a train of commands that fills the queue to the last entry.
pub(crate) fn a_train_fills_the_queue(driver: &mut Driver) -> Told {
    let world = plain(driver)?;
    let frees = [page(world.guest.root)];
    driver.retract_in_a_long_train(STREAM, VMID, Step::Sync, &frees)?;
    let end = fire(&world.device, None, world.pages);
    expect_abort(driver, end);
    Ok(())
}

/// The same, and more commands follow before any of them is consumed.
pub(crate) fn a_train_overfills_the_queue(driver: &mut Driver) -> Told {
    plain(driver)?;
    driver.retract_in_a_long_train(STREAM, VMID, Step::Submit, &[])?;
    driver.retract_ste_only(OTHER_STREAM)
}
