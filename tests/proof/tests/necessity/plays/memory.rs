//! Operations on what spaces and guests map, and on what is left over.

use super::spaces::{BY_PASID, OUTPUT, binds, gone};
use crate::stage::{Cast, Stage};
use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::Frames;
use portcullis::hw::Platform;
use portcullis::space::stage2::PageSizes;
use portcullis::spec::ste::Untagged;
use portcullis::spec::vmsa::{Attributes, Permissions};
use portcullis_proof::{DATA, Space, VA, WINDOW};

pub(super) fn map(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let cast = Cast::attached(stage, &smmus, (0, Untagged::Stage2));
    let at = Ipa::new(DATA + (1 << 30));
    cast.warm(None, at.as_u64());
    let page = stage.tap.allocate(12).expect("memory");
    let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
    stage.act_ok(|| {
        cast.iommu()
            .map(cast.guest, at, page.base(), 0x1000, attributes, sizes)
    });
    stage.expect("DMA", cast.all(None, at.as_u64()), [Some(page.base()); 3]);
    // Beside it, in every table that came with it, there is nothing.
    for beside in [0x1000, 0x10_0000, 0x20_0000, 0x1000_0000] {
        let found = cast.all(None, at.as_u64() + beside);
        stage.expect("beside", found, [None; 3]);
    }
}

pub(super) fn unmap_with(stage: &mut Stage<'_>, pasid_bits: u8, is_table: bool) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (pasid_bits, Untagged::Stage2));
    let (at, mut pages) = cast.give(3);
    let tagged = (pasid_bits != 0).then(|| {
        let (space, [_, _, bottom], _) = cast.bound();
        lead(stage, &bottom, at, 3);
        space
    });
    for n in 0..3 {
        cast.warm(None, at.as_u64() + n * 0x1000);
        if let Some(space) = tagged {
            cast.warm(Some(space.pasid), FURTHER + n * 0x1000);
        }
    }
    let bytes = if is_table { 0x3000 } else { 0x1000 };
    stage.act_ok(|| cast.iommu().unmap(cast.guest, at, bytes));
    stage.expect("late DMA", cast.all(None, at.as_u64()), [None; 3]);
    if let Some(space) = tagged {
        let found = cast.all(Some(space.pasid), FURTHER);
        stage.expect("late DMA, tagged", found, [None; 3]);
    }
    if is_table {
        stage.free(pages);
    } else {
        stage.free([pages.remove(0)]);
        let kept = Some(pages[0].base());
        let found = cast.all(None, at.as_u64() + 0x1000);
        stage.expect("what stays", found, [kept; 3]);
    }
    // What was mapped there is another's now.
    let new = cast.world.give(cast.guest, at);
    let found = cast.all(None, at.as_u64());
    stage.expect("DMA", found, [Some(new.base()); 3]);
}

/// Where a space sees more pages of the guest, by the same table.
pub(super) const FURTHER: u64 = VA + 0x1_0000;

/// The guest leads [`FURTHER`] on to `n` pages from `at` on.
pub(super) fn lead(stage: &Stage<'_>, bottom: &Frames, at: Ipa, n: u64) {
    let own = bottom.base().as_u64() + 8 * (VA >> 12 & 511);
    let like = stage.tap.machine().load(own).expect("inside") & !OUTPUT;
    for i in 0..n {
        let index = (FURTHER >> 12 & 511) + i;
        guest_stores(stage, bottom, index, like | (at.as_u64() + i * 0x1000));
    }
}

pub(super) fn unmap_stage2(stage: &mut Stage<'_>) {
    unmap_with(stage, 0, false);
}

pub(super) fn unmap(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, [page, top, bottom], _) = cast.bound();
    let at = space.ipa;
    cast.warm(None, at.as_u64());
    stage.act_ok(|| cast.iommu().unmap(cast.guest, at, 0x1000));
    stage.free([page]);
    gone(stage, &cast, space);
    stage.expect("late DMA", cast.all(None, at.as_u64()), [None; 3]);
    let new = cast.world.give(cast.guest, at);
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(new.base()); 3]);
    let _ = (top, bottom);
}

pub(super) fn unmap_table(stage: &mut Stage<'_>) {
    unmap_with(stage, 12, true);
}

pub(super) fn unmap_in_block(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, [_, _, bottom], _) = cast.bound();
    let at = Ipa::new(DATA + (1 << 30));
    let block = stage.tap.allocate(21).expect("memory");
    let mapped = cast.iommu().map(
        cast.guest,
        at,
        block.base(),
        2 << 20,
        Attributes::MEMORY,
        PageSizes::Largest,
    );
    mapped.expect("mapped");
    let [hole, kept] = [0x5000, 0x6000];
    cast.warm(None, at.as_u64() + hole);
    cast.warm(None, at.as_u64() + kept);
    lead(stage, &bottom, at, 8);
    for n in 0..8 {
        cast.warm(Some(space.pasid), FURTHER + n * 0x1000);
    }
    let gap = Ipa::new(at.as_u64() + hole);
    stage.act_ok(|| cast.iommu().unmap(cast.guest, gap, 0x1000));
    stage.expect("late DMA", cast.all(None, gap.as_u64()), [None; 3]);
    let found = cast.all(None, at.as_u64() + kept);
    let there = Some(Pa::new(block.base().as_u64() + kept));
    stage.expect("what stays", found, [there; 3]);
    let found = cast.all(Some(space.pasid), FURTHER + hole);
    stage.expect("late DMA, tagged", found, [None; 3]);
    let found = cast.all(Some(space.pasid), FURTHER + kept);
    stage.expect("what stays, tagged", found, [there; 3]);
    // And all of it goes: nothing leads to the frames any more.
    let unmapped = cast.iommu().unmap(cast.guest, at, 2 << 20);
    stage.ok("unmap", unmapped);
    stage.free([block]);
    stage.expect("late DMA", cast.all(None, at.as_u64() + kept), [None; 3]);
}

pub(super) fn protect(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, ..) = cast.bound();
    let at = space.ipa;
    cast.warm(None, at.as_u64());
    stage.act_ok(|| {
        cast.iommu()
            .protect(cast.guest, at, 0x1000, Permissions::READ_ONLY)
    });
    gone(stage, &cast, space);
    stage.expect("late DMA", cast.all(None, at.as_u64()), [None; 3]);
}

/// The guest's own store, to the table at `index` of a space's two.
pub(super) fn guest_stores(stage: &Stage<'_>, table: &Frames, index: u64, value: u64) {
    let memory = stage.tap.machine().memory();
    let stored = memory.set(table.base().as_u64() + 8 * index, value);
    stored.expect("inside");
}

pub(super) fn invalidate_page(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, [_, _, bottom], _) = cast.bound();
    let index = VA >> 12 & 511;
    let at = bottom.base().as_u64() + 8 * index;
    let was = stage.tap.machine().load(at).expect("inside");
    guest_stores(stage, &bottom, index, 0);
    stage.act_ok(|| {
        cast.iommu()
            .invalidate(cast.guest, space.id, Iova::new(VA), 0x1000)
    });
    gone(stage, &cast, space);
    // Another page of the guest takes its place.
    let (to, pages) = cast.give(1);
    let new = was & !OUTPUT | to.as_u64();
    guest_stores(stage, &bottom, index, new);
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(pages[0].base()); 3]);
}

pub(super) fn invalidate_table(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, [_, top, bottom], _) = cast.bound();
    guest_stores(stage, &top, VA >> 21 & 511, 0);
    stage.act_ok(|| {
        let va = Iova::new(VA & !0x1f_ffff);
        cast.iommu().invalidate(cast.guest, space.id, va, 2 << 20)
    });
    gone(stage, &cast, space);
    // The table's page is data now, and what is written there is no descriptor: what walked on by
    // the old one would be led astray.
    let (to, _pages) = cast.give(1);
    lead(stage, &bottom, to, 1);
    stage.expect("astray", cast.all(Some(space.pasid), FURTHER), [None; 3]);
}

/// The guest has its devices read the CDs, as it can: that is cached as any other page.
pub(super) fn look_at_window(stage: &Stage<'_>, cast: &Cast<'_>, space: Space, bottom: &Frames) {
    lead(stage, bottom, WINDOW, 8);
    for n in 0..8 {
        for board in [&cast.board, &cast.other] {
            board.guns[0].reads(Some(space.pasid), FURTHER + n * 0x1000);
        }
    }
}

pub(super) fn tidy_leaf(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, [_, _, bottom], handles) = cast.bound();
    look_at_window(stage, &cast, space, &bottom);
    // One leaf goes before, and one is left.
    let [last, first] = handles;
    cast.iommu().unbind(cast.guest, first).expect("unbound");
    cast.iommu().tidy(cast.guest).expect("tidied");
    look_at_window(stage, &cast, space, &bottom);
    cast.iommu().unbind(cast.guest, last).expect("unbound");
    cast.warm(Some(space.pasid), VA);
    stage.act_ok(|| cast.iommu().tidy(cast.guest));
    gone(stage, &cast, space);
    binds(stage, &cast, space);
}

pub(super) fn tidy_device(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, [_, _, bottom], handles) = cast.bound();
    look_at_window(stage, &cast, space, &bottom);
    cast.iommu()
        .unbind(cast.guest, handles[0])
        .expect("unbound");
    cast.iommu()
        .detach(cast.guest, cast.board.id)
        .expect("detached");
    cast.warm(Some(space.pasid), VA);
    stage.act_ok(|| cast.iommu().tidy(cast.guest));
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [None, None, Some(space.data)]);
}

/// Three events are taken, and the places of the records given back.
pub(super) fn take_event(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let cast = Cast::attached(stage, &smmus, BY_PASID);
    let mut told = 0;
    for pasid in 1..4 {
        cast.board.guns[0].fire(Some(pasid), VA);
    }
    told += stage.act(|| cast.iommu().service(100).events);
    let ticket = cast.smmu.submit(&[&[]]).expect("there is room");
    cast.smmu.wait(ticket).expect("confirmed");
    told += cast.iommu().service(100).events;
    stage.expect("there were events", told >= 3, true);
}
