//! The life of one space: bind, DMA, unmap, release, and its numbers given out again.

use super::tables::{cd, quiet_word0, ste_nested};
use super::{Bench, SYNC, cfgi_cd, nh_all, nh_asid, s2_ipa};
use crate::{Claim, Identity, Mode, Outcome, Transaction};

const STREAM: u32 = 5;
const VMID: u16 = 7;
const ASID: u16 = 0x21;
const PASID: u32 = 3;
const VA: u64 = 0x1_2345_6000;

/// A right driver's bind, DMA, unmap and release on one nested stream.
///
/// Returns the bench for what a test wants to ask of it.
///
/// # Panics
///
/// If the model lets a transaction through that must not pass, or refuses one that must.
pub fn bind_dma_release(identity: Identity, mode: Mode) -> Bench {
    let mut bench = Bench::up(identity, mode);
    let root2 = bench.frames(12);
    let contexts = bench.frames(12);
    let root1 = bench.frames(12);
    let (page, other) = (bench.frames(12), bench.frames(12));
    // The guest's IPAs are the physical addresses; tables that do not exist yet are mapped, too.
    for frame in 0..16 {
        let at = contexts + frame * 0x1000;
        bench.map2(root2, at, at);
    }
    bench.publish_ste(STREAM, &ste_nested(VMID, root2, contexts, 4));
    bench.map1(root1, VA, page);
    bench.map1(root1, VA + 0x1000, other);

    let at = contexts + u64::from(PASID) * 64;
    bench.publish_cd(STREAM, PASID, at, &cd(ASID, root1));
    let write = |bench: &Bench, va| {
        bench
            .machine
            .smmu(0)
            .transact(Transaction::write(STREAM, va, &[1; 8]).with_substream(PASID))
    };
    assert!(matches!(write(&bench, VA + 8), Outcome::Done { pa, .. } if pa == page + 8));
    assert!(matches!(write(&bench, VA + 0x1000), Outcome::Done { pa, .. } if pa == other));

    unmap(&mut bench, root1);
    assert_eq!(write(&bench, VA + 0x1000), Outcome::Aborted);

    release(&mut bench, at);
    let mark = bench.machine.record().mark();
    assert_eq!(write(&bench, VA), Outcome::Aborted);
    assert!(bench.machine.record().landed_since(mark).is_empty());
    retract(&mut bench, at);
    take_away(&mut bench, root2, &[root1, page, other]);
    for frame in [root1, page, other] {
        bench.machine.claim(Claim::FrameFreed {
            pa: frame,
            bytes: 4096,
        });
    }
    bench.machine.claim(Claim::AsidTaken {
        vmid: VMID,
        asid: ASID,
    });
    bench.machine.claim(Claim::PasidTaken {
        smmu: 0,
        stream: STREAM,
        substream: PASID,
    });
    bench
}

fn unmap(bench: &mut Bench, root1: u64) {
    let leaf = bench.leaf(root1, VA + 0x1000);
    bench.store(leaf, 0);
    bench.publish();
    bench.commands(&[nh_asid(VMID, ASID), SYNC]);
}

/// Unmaps frames from stage 2: its own entries first, then, after a SYNC, the combined ones.
fn take_away(bench: &mut Bench, root2: u64, frames: &[u64]) {
    let mut commands = Vec::new();
    for frame in frames {
        let leaf = bench.leaf(root2, *frame);
        bench.store(leaf, 0);
        commands.push(s2_ipa(VMID, *frame));
    }
    bench.publish();
    commands.extend([SYNC, nh_all(VMID), SYNC]);
    bench.commands(&commands);
}

fn release(bench: &mut Bench, cd: u64) {
    bench.machine.claim(Claim::ReleaseBegins {
        vmid: VMID,
        asid: ASID,
    });
    bench.store(cd, quiet_word0(ASID));
    bench.publish();
    bench.commands(&[cfgi_cd(STREAM, PASID), SYNC, nh_all(VMID), SYNC]);
    bench.machine.claim(Claim::ReleaseEnds {
        vmid: VMID,
        asid: ASID,
    });
}

fn retract(bench: &mut Bench, cd: u64) {
    bench.store(cd, 0);
    bench.publish();
    bench.commands(&[cfgi_cd(STREAM, PASID), SYNC]);
    for word in 1..8 {
        bench.store(cd + 8 * word, 0);
    }
    bench.publish();
    bench.commands(&[cfgi_cd(STREAM, PASID), SYNC]);
}
