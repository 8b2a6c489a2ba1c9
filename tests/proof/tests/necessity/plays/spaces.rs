//! Operations on streams, spaces, devices and guests.

use super::memory::guest_stores;
use crate::stage::{ALIAS, Cast, OTHER, STREAM, Stage};
use portcullis::addr::{Iova, Ipa, Pa};
use portcullis::hw::Frames;
use portcullis::space::handover::DeviceCaches;
use portcullis::space::handover::stop;
use portcullis::space::{Acquired, Ask, By, Owner, SpaceConfig};
use portcullis::spec::ste::Untagged;
use portcullis_proof::walk;
use portcullis_proof::{DATA, Gun, Space, VA, try_take_over};
use smmu_model::Claim;

pub(super) const BY_PASID: (u8, Untagged) = (12, Untagged::Abort);

/// The device holds no translation any more.
pub(super) fn forgotten(stage: &mut Stage<'_>, cast: &Cast<'_>) {
    let cached = [0, 1].map(|it| cast.board.guns[it].cached());
    stage.expect("translations in the device", cached, [0; 2]);
}

/// The space is bound to the device, which reaches it by both of its streams, and the other device
/// does not.
pub(super) fn binds(stage: &mut Stage<'_>, cast: &Cast<'_>, space: Space) {
    let bound = cast
        .iommu()
        .bind(cast.guest, space.id, cast.board.id, By::Pasid);
    stage.ok("bind", bound);
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("DMA", found, [Some(space.data), Some(space.data), None]);
}

/// Every transaction of a space aborts, from every stream.
pub(super) fn gone(stage: &mut Stage<'_>, cast: &Cast<'_>, space: Space) {
    stage.expect("late DMA", cast.all(Some(space.pasid), VA), [None; 3]);
}

pub(super) fn take_over(stage: &mut Stage<'_>) {
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

pub(super) fn shut_down(stage: &mut Stage<'_>) {
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

pub(super) fn attach(stage: &mut Stage<'_>) {
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
    binds(stage, &cast, space);
}

pub(super) fn attach_stage2(stage: &mut Stage<'_>) {
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

pub(super) fn bind_first(stage: &mut Stage<'_>) {
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

pub(super) fn bind_further(stage: &mut Stage<'_>) {
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

pub(super) fn bind_whole(stage: &mut Stage<'_>) {
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

pub(super) fn unbind(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, [_, _, bottom], handles) = cast.bound();
    stage.act_ok(|| cast.iommu().unbind(cast.guest, handles[0]));
    forgotten(stage, &cast);
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
pub(super) fn move_page(
    stage: &mut Stage<'_>,
    cast: &Cast<'_>,
    space: Space,
    bottom: &Frames,
) -> Pa {
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
pub(super) const OUTPUT: u64 = 0xffff_ffff_f000;

pub(super) fn unbind_whole(stage: &mut Stage<'_>) {
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
pub(super) fn quarantine(stage: &Stage<'_>, cast: &Cast<'_>) {
    // Without a SYNC: what is to have been confirmed is. Where a queue still holds records of before,
    // quarantines begin again.
    for _ in 0..3 {
        cast.iommu().service(1000);
        stage.tap.machine().advance(20_000);
    }
    cast.iommu().service(1000);
}

/// A new space that gets the numbers of `space`, which was let go: nobody has anything of before.
pub(super) fn next_owner(
    stage: &mut Stage<'_>,
    cast: &mut Cast<'_>,
    space: Space,
    (vmid, asid): (u16, u16),
) {
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
    binds(stage, cast, taken);
}

pub(super) fn unbind_released(stage: &mut Stage<'_>) {
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

pub(super) fn release(stage: &mut Stage<'_>) {
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

pub(super) fn release_without_globals(stage: &mut Stage<'_>) {
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

pub(super) fn release_whole(stage: &mut Stage<'_>) {
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

pub(super) fn release_all(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, ..) = cast.bound();
    let (vmid, asid) = cast.tags(space);
    stage.claim(Claim::ReleaseBegins { vmid, asid });
    stage.act_ok(|| cast.iommu().release_all(cast.guest));
    stage.claim(Claim::ReleaseEnds { vmid, asid });
    next_owner(stage, &mut cast, space, (vmid, asid));
}

pub(super) fn detach(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, frames, handles) = cast.bound();
    let at = space.ipa.as_u64();
    cast.warm(None, at);
    cast.iommu()
        .unbind(cast.guest, handles[0])
        .expect("unbound");
    stage.act_ok(|| cast.iommu().detach(cast.guest, cast.board.id));
    forgotten(stage, &cast);
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

pub(super) fn remove(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, BY_PASID);
    let (space, ..) = cast.bound();
    stage.act_ok(|| cast.iommu().remove_device(cast.board.id));
    let found = cast.all(Some(space.pasid), VA);
    stage.expect("late DMA", found, [None, None, Some(space.data)]);
    let tidied = cast.iommu().tidy(cast.guest);
    stage.ok("tidy", tidied);
}

pub(super) fn destroy(stage: &mut Stage<'_>) {
    let smmus = [stage.take_over()];
    let mut cast = Cast::attached(stage, &smmus, (12, Untagged::Stage2));
    let (space, frames, _) = cast.bound();
    let at = space.ipa.as_u64();
    cast.warm(None, at);
    let (vmid, _) = cast.tags(space);
    stage.act_ok(|| cast.iommu().destroy_guest(cast.guest));
    forgotten(stage, &cast);
    stage.free(frames);
    stage.claim(Claim::VmidTaken { vmid });
    gone(stage, &cast, space);
    stage.expect("late DMA", cast.all(None, at), [None; 3]);
}

pub(super) fn change_hands(stage: &mut Stage<'_>) {
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

pub(super) fn hand_over(stage: &mut Stage<'_>) {
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
