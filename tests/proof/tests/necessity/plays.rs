//! The operations: what comes before each, and what must be seen after it.

use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::{Frames, Platform};
use portcullis::space::handover::{DeviceCaches, stop};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{Acquired, Ask, By, Owner, SpaceConfig};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{Attributes, Permissions};
use portcullis_proof::{DATA, Gun, Space, VA, WINDOW, try_take_over, walk};
use smmu_model::Claim;

use crate::stage::{ALIAS, Cast, OTHER, Play, STREAM, Setup, Stage};

const OFF: Setup = Setup {
    ats: Ats::Off,
    is_coherent: true,
};
const SPLIT: Setup = Setup {
    ats: Ats::Split,
    is_coherent: true,
};
const FULL: Setup = Setup {
    ats: Ats::Full,
    is_coherent: true,
};
const CLEANED: Setup = Setup {
    ats: Ats::Off,
    is_coherent: false,
};

const fn play(name: &'static str, setup: Setup, play: fn(&mut Stage<'_>)) -> Play {
    Play { name, setup, play }
}

pub(crate) const PLAYS: &[Play] = &[
    play("take over", OFF, take_over),
    play("shut down", OFF, shut_down),
    play("attach", OFF, attach),
    play("attach, full ATS", FULL, attach),
    play("attach to stage 2", OFF, attach_stage2),
    play("bind, first of its leaf", OFF, bind_first),
    play("bind a further one", OFF, bind_further),
    play("bind the whole stream", OFF, bind_whole),
    play("unbind", OFF, unbind),
    play("unbind, split ATS", SPLIT, unbind),
    play("unbind, full ATS", FULL, unbind),
    play("unbind the whole stream", OFF, unbind_whole),
    play("unbind after release", OFF, unbind_released),
    play("release", OFF, release),
    play("release, no globals", OFF, release_without_globals),
    play("release, split ATS", SPLIT, release),
    play("release, full ATS", FULL, release),
    play("release the whole stream", OFF, release_whole),
    play("release all", OFF, release_all),
    play("release all, full ATS", FULL, release_all),
    play("detach", OFF, detach),
    play("detach, full ATS", FULL, detach),
    play("remove a device", OFF, remove),
    play("destroy a guest", OFF, destroy),
    play("destroy a guest, full ATS", FULL, destroy),
    play("change hands", OFF, change_hands),
    play("change hands, full ATS", FULL, change_hands),
    play("hand over", OFF, hand_over),
    play("map", OFF, map),
    play("unmap, stage 2 alone", OFF, unmap_stage2),
    play("unmap, nested", OFF, unmap),
    play("unmap, split ATS", SPLIT, unmap),
    play("unmap, full ATS", FULL, unmap),
    play("unmap a table", OFF, unmap_table),
    play("unmap in a block", OFF, unmap_in_block),
    play("protect", OFF, protect),
    play("invalidate a page", OFF, invalidate_page),
    play("invalidate a page, full ATS", FULL, invalidate_page),
    play("invalidate a table", OFF, invalidate_table),
    play("tidy a leaf", OFF, tidy_leaf),
    play("tidy a device", OFF, tidy_device),
    play("take an event", OFF, take_event),
    play("attach, cleaned", CLEANED, attach),
    play("bind, first of its leaf, cleaned", CLEANED, bind_first),
    play("bind the whole stream, cleaned", CLEANED, bind_whole),
    play("destroy a guest, cleaned", CLEANED, destroy),
    play("map, cleaned", CLEANED, map),
    play("unmap, cleaned", CLEANED, unmap),
    play("protect, cleaned", CLEANED, protect),
    play("tidy a leaf, cleaned", CLEANED, tidy_leaf),
];

const BY_PASID: (u8, Untagged) = (12, Untagged::Abort);

/// Every transaction of a space aborts, from every stream.
fn gone(stage: &mut Stage<'_>, cast: &Cast<'_>, space: Space) {
    stage.expect("late DMA", cast.all(Some(space.pasid), VA), [None; 3]);
}

fn take_over(stage: &mut Stage<'_>) {
    let tap = stage.tap;
    let Some(smmu) = stage.act_ok(|| try_take_over(tap, 0, Some(1000))) else {
        return;
    };
    let smmus = [smmu];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, ..) = cast.bound();
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(space.data); 3]);
    cast.smmu.service(100, |_| {});
}

fn shut_down(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let (space, frames) = {
        let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
        let (space, frames, _) = cast.bound();
        cast.warm(None, space.ipa.as_u64());
        (space, frames)
    };
    let [smmu] = smmus;
    stage.act_ok(|| smmu.shut_down());
    // What was the guests' is somebody else's now.
    stage.free(frames);
    let machine = stage.tap.machine();
    let gun = Gun::new(machine.record(), machine.smmu(0), STREAM.as_u32(), false);
    stage.expect("late DMA", gun.hits(Some(space.pasid), VA), None);
    stage.expect("late DMA", gun.hits(None, space.ipa.as_u64()), None);
}

fn attach(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::new(stage, &smmus, 12);
    cast.warm(None, DATA);
    stage.act_ok(|| {
        cast.iommu()
            .attach(cast.guest, cast.board.id, Untagged::Stage2)
    });
    let (space, _) = cast.world.space(cast.guest);
    let untagged = cast.all(None, space.ipa.as_u64());
    stage.expect(
        "untagged",
        untagged,
        [Some(space.data), Some(space.data), None],
    );
    let bound = cast
        .iommu()
        .bind(cast.guest, space.id, cast.board.id, By::Pasid);
    stage.ok("bind", bound);
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(space.data), Some(space.data), None]);
}

fn attach_stage2(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let cast = Cast::new(stage, &smmus, 0);
    let (at, pages) = cast.give(1);
    cast.warm(None, at.as_u64());
    stage.act_ok(|| {
        cast.iommu()
            .attach(cast.guest, cast.board.id, Untagged::Stage2)
    });
    let found = cast.all(None, at.as_u64());
    let there = Some(pages[0].base());
    stage.expect("DMA", found, [there, there, None]);
}

fn bind_first(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, _) = cast.world.space(cast.guest);
    cast.warm(Some(space.pasid), VA);
    stage.act_ok(|| {
        cast.iommu()
            .bind(cast.guest, space.id, cast.board.id, By::Pasid)
    });
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(space.data), Some(space.data), None]);
}

fn bind_further(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (first, ..) = cast.bound();
    let (space, _) = cast.world.space(cast.guest);
    cast.warm(Some(space.pasid), VA);
    stage.act_ok(|| {
        cast.iommu()
            .bind(cast.guest, space.id, cast.board.id, By::Pasid)
    });
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(space.data), Some(space.data), None]);
    let found = cast.all(Some(first.pasid), VA);
    stage.expect("the first", found, [Some(first.data); 3]);
}

fn bind_whole(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (0, Untagged::Stage2));
    let (space, _) = cast.world.space(cast.guest);
    cast.warm(None, VA);
    cast.warm(None, space.ipa.as_u64());
    stage.act_ok(|| {
        cast.iommu()
            .bind(cast.guest, space.id, cast.board.id, By::WholeStream)
    });
    let found = cast.all(None, VA);
    stage.expect("DMA", found, [Some(space.data), Some(space.data), None]);
    let found = cast.all(None, space.ipa.as_u64());
    stage.expect("as before", found, [None, None, Some(space.data)]);
}

fn unbind(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, [_, _, bottom], handles) = cast.bound();
    stage.act_ok(|| cast.iommu().unbind(cast.guest, handles[0]));
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("late DMA", found, [None, None, Some(space.data)]);
    // The guest puts another page there, and says so; the device that is not bound is not asked.
    let new = move_page(stage, &cast, space, &bottom);
    let bound = cast
        .iommu()
        .bind(cast.guest, space.id, cast.board.id, By::Pasid);
    stage.ok("bind", bound);
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(new); 3]);
}

/// The guest leads [`VA`] of a space to another page: where that is.
fn move_page(stage: &mut Stage<'_>, cast: &Cast<'_>, space: Space, bottom: &Frames) -> Pa {
    let index = VA >> 12 & 511;
    let at = bottom.base().as_u64() + 8 * index;
    let was = stage.tap.machine().load(at).expect("inside");
    guest_stores(stage, bottom, index, 0);
    let told = cast
        .iommu()
        .invalidate(cast.guest, space.id, Iova::new(VA), 0x1000);
    stage.ok("invalidate", told);
    let (to, pages) = cast.give(1);
    guest_stores(stage, bottom, index, was & !OUTPUT | to.as_u64());
    pages[0].base()
}

/// The address in a descriptor.
const OUTPUT: u64 = 0xffff_ffff_f000;

fn unbind_whole(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (0, Untagged::Abort));
    let (space, _) = cast.world.space(cast.guest);
    let bound = cast
        .iommu()
        .bind(cast.guest, space.id, cast.board.id, By::WholeStream);
    let handle = bound.expect("bound");
    cast.warm(None, VA);
    stage.act_ok(|| cast.iommu().unbind(cast.guest, handle));
    stage.expect("late DMA", cast.all(None, VA), [None; 3]);
    let tidied = cast.iommu().tidy(cast.guest);
    stage.ok("tidy", tidied);
    stage.expect("late DMA", cast.all(None, VA), [None; 3]);
}

/// Lets the quarantine of all numbers pass.
fn quarantine(stage: &Stage<'_>, cast: &Cast<'_>) {
    // Without a SYNC: what is to have been confirmed is. Where a queue still holds records of before,
    // quarantines begin again.
    for _ in 0..3 {
        cast.iommu().service(1000);
        stage.tap.machine().advance(20_000);
    }
    cast.iommu().service(1000);
}

/// A new space that gets the numbers of `space`, which was let go: nobody has anything of before.
fn next_owner(stage: &mut Stage<'_>, cast: &mut Cast<'_>, space: Space, (vmid, asid): (u16, u16)) {
    quarantine(stage, cast);
    let (taken, _) = cast.world.space(cast.guest);
    stage.expect("the number", taken.pasid, space.pasid);
    stage.claim(Claim::AsidTaken { vmid, asid });
    for stream in [STREAM, ALIAS, OTHER] {
        stage.claim(Claim::PasidTaken {
            smmu: 0,
            stream: stream.as_u32(),
            substream: space.pasid,
        });
    }
    gone(stage, cast, space);
    let bound = cast
        .iommu()
        .bind(cast.guest, taken.id, cast.board.id, By::Pasid);
    stage.ok("bind", bound);
    let found = cast.all(Some(taken.pasid), VA);
    stage.expect("DMA", found, [Some(taken.data), Some(taken.data), None]);
}

fn unbind_released(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, _, handles) = cast.bound();
    let tags = cast.tags(space);
    cast.iommu()
        .release(cast.guest, space.id)
        .expect("released");
    cast.iommu()
        .unbind(cast.guest, handles[1])
        .expect("unbound");
    stage.act_ok(|| cast.iommu().unbind(cast.guest, handles[0]));
    next_owner(stage, &mut cast, space, tags);
}

fn release(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (other, ..) = cast.bound();
    let (space, _, handles) = cast.bound();
    let (vmid, asid) = cast.tags(space);
    stage.claim(Claim::ReleaseBegins { vmid, asid });
    stage.act_ok(|| cast.iommu().release(cast.guest, space.id));
    stage.claim(Claim::ReleaseEnds { vmid, asid });
    gone(stage, &cast, space);
    let found = cast.all(Some(other.pasid), VA);
    stage.expect("the other", found, [Some(other.data); 3]);
    for handle in handles {
        let unbound = cast.iommu().unbind(cast.guest, handle);
        stage.ok("unbind", unbound);
    }
    next_owner(stage, &mut cast, space, (vmid, asid));
}

fn release_without_globals(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (shape, _) = cast.world.space(cast.guest);
    let config = SpaceConfig {
        walk: walk(shape.root.as_u64()),
        pasid: Ask::Any,
        promises_no_global: true,
    };
    let made = cast.iommu().create_space(cast.guest, &config);
    let id = made.expect("a space");
    let pasid = cast.iommu().pasid_of(cast.guest, id).expect("there").pasid;
    let space = Space {
        id,
        pasid: pasid.as_u32(),
        ..shape
    };
    cast.bind(space.id, cast.board.id);
    cast.bind(space.id, cast.other.id);
    cast.warm(Some(space.pasid), VA);
    let (vmid, asid) = cast.tags(space);
    stage.claim(Claim::ReleaseBegins { vmid, asid });
    stage.act_ok(|| cast.iommu().release(cast.guest, space.id));
    stage.claim(Claim::ReleaseEnds { vmid, asid });
    gone(stage, &cast, space);
}

fn release_whole(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (0, Untagged::Abort));
    let (space, _) = cast.world.space(cast.guest);
    let bound = cast
        .iommu()
        .bind(cast.guest, space.id, cast.board.id, By::WholeStream);
    bound.expect("bound");
    cast.warm(None, VA);
    let seen = cast.smmu.explain(STREAM, None, Iova::new(VA)).context;
    let asid = seen.expect("bound").asid.as_u16();
    let walk = cast.iommu().stage2_of(cast.guest).expect("there");
    let vmid = walk.vmid.as_u16();
    stage.claim(Claim::ReleaseBegins { vmid, asid });
    stage.act_ok(|| cast.iommu().release(cast.guest, space.id));
    stage.claim(Claim::ReleaseEnds { vmid, asid });
    stage.expect("late DMA", cast.all(None, VA), [None; 3]);
}

fn release_all(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, ..) = cast.bound();
    let (vmid, asid) = cast.tags(space);
    stage.claim(Claim::ReleaseBegins { vmid, asid });
    stage.act_ok(|| cast.iommu().release_all(cast.guest));
    stage.claim(Claim::ReleaseEnds { vmid, asid });
    next_owner(stage, &mut cast, space, (vmid, asid));
}

fn detach(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, frames, handles) = cast.bound();
    let at = space.ipa.as_u64();
    cast.warm(None, at);
    cast.iommu()
        .unbind(cast.guest, handles[0])
        .expect("unbound");
    stage.act_ok(|| cast.iommu().detach(cast.guest, cast.board.id));
    stage.expect(
        "late DMA",
        cast.all(None, at),
        [None, None, Some(space.data)],
    );
    let tidied = cast.iommu().tidy(cast.guest);
    stage.ok("tidy", tidied);
    stage.expect(
        "late DMA",
        cast.all(None, at),
        [None, None, Some(space.data)],
    );
    // The page goes while the device is nobody's, and is not asked.
    let unmapped = cast.iommu().unmap(cast.guest, space.ipa, 0x1000);
    stage.ok("unmap", unmapped);
    let [page, ..] = frames;
    stage.free([page]);
    let attached = cast
        .iommu()
        .attach(cast.guest, cast.board.id, Untagged::Stage2);
    stage.ok("attach", attached);
    stage.expect("late DMA", cast.all(None, at), [None; 3]);
}

fn remove(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, ..) = cast.bound();
    stage.act_ok(|| cast.iommu().remove_device(cast.board.id));
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("late DMA", found, [None, None, Some(space.data)]);
    let tidied = cast.iommu().tidy(cast.guest);
    stage.ok("tidy", tidied);
}

fn destroy(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, frames, _) = cast.bound();
    let at = space.ipa.as_u64();
    cast.warm(None, at);
    let (vmid, _) = cast.tags(space);
    stage.act_ok(|| cast.iommu().destroy_guest(cast.guest));
    stage.free(frames);
    stage.claim(Claim::VmidTaken { vmid });
    gone(stage, &cast, space);
    stage.expect("late DMA", cast.all(None, at), [None; 3]);
}

fn change_hands(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, _, handles) = cast.bound();
    let at = space.ipa.as_u64();
    cast.warm(None, at);
    cast.iommu()
        .unbind(cast.guest, handles[0])
        .expect("unbound");
    let token = cast.tokens.remove(0);
    // A reset would empty the caches of the device; the board allows that there is none.
    stage.tap.refuse_resets();
    let new = cast.world.give(cast.next, Ipa::new(DATA + (1 << 31)));
    stage.act_ok(|| {
        let (iommu, group) = (cast.iommu(), cast.board.group);
        iommu.detach_group(cast.guest, group)?;
        iommu.disown(token).map_err(|kept| kept.error)?;
        match iommu.acquire(group, Owner::Guest(cast.next))? {
            Acquired::Owned(_) => {}
            Acquired::Deferred(_) => panic!("its SMMU is there"),
        }
        iommu.attach_group(cast.next, group, Untagged::Stage2)
    });
    stage.expect(
        "late DMA",
        cast.all(None, at),
        [None, None, Some(space.data)],
    );
    let found = cast.all(None, DATA + (1 << 31));
    stage.expect("DMA", found, [Some(new.base()), Some(new.base()), None]);
    let tidied = cast.iommu().tidy(cast.guest);
    stage.ok("tidy", tidied);
}

fn hand_over(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let cast = Cast::new(stage, &smmus, 12);
    let (at, pages) = cast.give(1);
    let new = cast.world.give(cast.next, Ipa::new(DATA + (1 << 31)));
    let walk_of = |guest| cast.iommu().stage2_of(guest).expect("there");
    let streams = [STREAM, ALIAS];
    cast.smmu
        .publish(&streams, &walk_of(cast.guest))
        .expect("published");
    cast.warm(None, at.as_u64());
    let to = walk_of(cast.next);
    stage.act_ok(|| {
        let stopped = stop(cast.smmu, &streams, DeviceCaches::None).map_err(|_| "not stopped")?;
        let quiet = stopped
            .reset(|| Ok::<(), ()>(()))
            .map_err(|_| "not reset")?;
        quiet.give(&to).map(|_| ()).map_err(|_| "not given")
    });
    stage.expect("late DMA", cast.all(None, at.as_u64()), [None; 3]);
    let found = cast.all(None, DATA + (1 << 31));
    stage.expect("DMA", found, [Some(new.base()), Some(new.base()), None]);
    let _ = pages;
}

fn map(stage: &mut Stage<'_>) {
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
}

fn unmap_with(stage: &mut Stage<'_>, pasid_bits: u8, is_table: bool) {
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
const FURTHER: u64 = VA + 0x1_0000;

/// The guest leads [`FURTHER`] on to `n` pages from `at` on.
fn lead(stage: &Stage<'_>, bottom: &Frames, at: Ipa, n: u64) {
    let own = bottom.base().as_u64() + 8 * (VA >> 12 & 511);
    let like = stage.tap.machine().load(own).expect("inside") & !OUTPUT;
    for i in 0..n {
        let index = (FURTHER >> 12 & 511) + i;
        guest_stores(stage, bottom, index, like | (at.as_u64() + i * 0x1000));
    }
}

fn unmap_stage2(stage: &mut Stage<'_>) {
    unmap_with(stage, 0, false);
}

fn unmap(stage: &mut Stage<'_>) {
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

fn unmap_table(stage: &mut Stage<'_>) {
    unmap_with(stage, 12, true);
}

fn unmap_in_block(stage: &mut Stage<'_>) {
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

fn protect(stage: &mut Stage<'_>) {
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
fn guest_stores(stage: &Stage<'_>, table: &Frames, index: u64, value: u64) {
    let memory = stage.tap.machine().memory();
    let stored = memory.set(table.base().as_u64() + 8 * index, value);
    stored.expect("inside");
}

fn invalidate_page(stage: &mut Stage<'_>) {
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

fn invalidate_table(stage: &mut Stage<'_>) {
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
fn look_at_window(stage: &Stage<'_>, cast: &Cast<'_>, space: Space, bottom: &Frames) {
    lead(stage, bottom, WINDOW, 8);
    for n in 0..8 {
        for board in [&cast.board, &cast.other] {
            board.guns[0].reads(Some(space.pasid), FURTHER + n * 0x1000);
        }
    }
}

fn tidy_leaf(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, [_, _, bottom], handles) = cast.bound();
    look_at_window(stage, &cast, space, &bottom);
    for handle in handles {
        cast.iommu().unbind(cast.guest, handle).expect("unbound");
    }
    cast.warm(Some(space.pasid), VA);
    stage.act_ok(|| cast.iommu().tidy(cast.guest));
    gone(stage, &cast, space);
    let bound = cast
        .iommu()
        .bind(cast.guest, space.id, cast.board.id, By::Pasid);
    stage.ok("bind", bound);
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(space.data), Some(space.data), None]);
}

fn tidy_device(stage: &mut Stage<'_>) {
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
fn take_event(stage: &mut Stage<'_>) {
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
