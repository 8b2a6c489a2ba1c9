//! Every operation on a machine with a bystander, so that it can be seen what it costs.

use std::fmt;

use portcullis::addr::{Iova, Ipa};
use portcullis::hw::{Frames, Platform};
use portcullis::id::{StreamId, Vmid};
use portcullis::smmu::Smmu;
use portcullis::space::handover::{DeviceCaches, stop};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{GroupId, GuestId, Handle, MAX_RANGES, Ownership};
use portcullis::spec::command::{CfgiScope, Command};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::{Attributes, Permissions};
use portcullis_proof::{Board, Counts, DATA, Space, Tap, VA, Wanted, World, take_over};
use smmu_model::{Identity, Landing, Mode, Settings};

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scene {
    Attach,
    BindFirst,
    BindFurther,
    BindAgain,
    UnbindNotLast,
    UnbindLast,
    UnbindReleased,
    Release,
    ReleaseAll,
    Detach,
    GuestDeath,
    HandOver,
    ChangeHands,
    Map,
    Unmap,
    UnmapStage2,
    Protect,
    Invalidate,
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Attach => "attach a group of n devices",
            Self::BindFirst => "bind, first CD of its leaf",
            Self::BindFurther => "bind a further PASID",
            Self::BindAgain => "bind the same pair again",
            Self::UnbindNotLast => "unbind, not the last handle",
            Self::UnbindLast => "unbind, the last handle of a living space",
            Self::UnbindReleased => "unbind, the last handle of a released space",
            Self::Release => "release a space with n bindings",
            Self::ReleaseAll => "release all of n spaces, one device an SMMU",
            Self::Detach => "detach a group of n devices",
            Self::GuestDeath => "a guest with n devices dies",
            Self::HandOver => "hand n streams over, stage 2 alone",
            Self::ChangeHands => "hand n devices over, with contexts",
            Self::Map => "map n pages",
            Self::Unmap => "unmap n pages, nested",
            Self::UnmapStage2 => "unmap n pages, stage 2 alone",
            Self::Protect => "protect n pages, nested",
            Self::Invalidate => "invalidate n ranges of a space",
        })
    }
}

/// A guest that has nothing to do with it, with a device behind each SMMU.
struct Bystander<'p> {
    devices: Vec<(Board<'p>, Space)>,
}

impl<'p> Bystander<'p> {
    fn new(world: &mut World<'p>, smmus: usize) -> Self {
        let guest = world.guest();
        let devices = (0..smmus).map(|smmu| {
            let (board, _) = world.attached(guest, Wanted::new(smmu, &[StreamId::new(0x8000)]));
            let (space, _) = world.space(guest);
            world.bind(guest, space, &board);
            (board, space)
        });
        let it = Self {
            devices: devices.collect(),
        };
        it.fire();
        it
    }

    fn fire(&self) -> Vec<Landing> {
        let shots = self.devices.iter().map(|(board, space)| {
            let landing = board.guns[0].fire(Some(space.pasid), VA);
            landing.expect("it goes on")
        });
        shots.collect()
    }

    /// What of it the SMMUs have fetched again since `before`, of what they kept.
    fn evictions(&self, before: &[Landing]) -> u64 {
        let after = self.fire();
        let again = before.iter().zip(&after).flat_map(|(before, after)| {
            [
                (before.ste, after.ste),
                (before.cd, after.cd),
                (before.translation, after.translation),
            ]
        });
        again.filter(|(before, after)| before != after).count() as u64
    }
}

/// A guest with `n` devices, device `i` behind SMMU `i % k`.
struct Cast<'p> {
    world: World<'p>,
    bystander: Bystander<'p>,
    guest: GuestId,
    boards: Vec<Board<'p>>,
    tokens: Vec<Ownership>,
    /// What the guest has.
    frames: Vec<Frames>,
}

/// Few bits of PASID where devices are many: one page of CDs each.
const FEW_BITS: u8 = 6;

impl<'p> Cast<'p> {
    fn new(tap: &'p Tap, smmus: &'p [Smmu<'p, Tap>]) -> Self {
        let mut world = World::new(tap, smmus);
        let bystander = Bystander::new(&mut world, smmus.len());
        let guest = world.guest();
        Self {
            world,
            bystander,
            guest,
            boards: Vec::new(),
            tokens: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// What `work` costs; the bystander is looked after.
    fn measure<R>(&self, work: impl FnOnce(&World<'p>) -> R) -> (Counts, R) {
        let before = self.bystander.fire();
        let (counts, result) = self.world.tap.count(|| work(&self.world));
        let evictions = self.bystander.evictions(&before);
        let all = self.world.tap.machine().record().foreign_evictions();
        assert_eq!(all, 0, "everything of everybody was invalidated");
        (
            Counts {
                evictions,
                ..counts
            },
            result,
        )
    }

    /// As [`measure`](Self::measure), of work that gives nothing.
    fn cost(&self, work: impl FnOnce(&World<'p>)) -> Counts {
        self.measure(work).0
    }

    fn group(&mut self, n: usize, k: usize, ats: Ats, pasid_bits: u8) -> GroupId {
        let group = self.world.group();
        for i in 0..n {
            let streams = [stream(i)];
            let wanted = Wanted {
                smmu: i % k,
                streams: &streams,
                pasid_bits,
                ats,
                ..Wanted::new(i % k, &streams)
            };
            let board = self.world.device(group, wanted);
            self.boards.push(board);
        }
        group
    }

    /// `n` devices, each in a group of its own, attached.
    fn attach_each(&mut self, n: usize, k: usize, ats: Ats, pasid_bits: u8) {
        for i in 0..n {
            let streams = [stream(i)];
            let wanted = Wanted {
                smmu: i % k,
                streams: &streams,
                pasid_bits,
                ats,
                ..Wanted::new(i % k, &streams)
            };
            let (board, token) = self.world.attached(self.guest, wanted);
            self.boards.push(board);
            self.tokens.push(token);
        }
    }

    fn space(&mut self) -> Space {
        let (space, frames) = self.world.space(self.guest);
        self.frames.extend(frames);
        space
    }

    fn bind_all(&self, space: Space) -> Vec<Handle> {
        let handles = self.boards.iter().map(|board| {
            let handle = self.world.bind(self.guest, space, board);
            let landed = board.guns[0].hits(Some(space.pasid), VA);
            assert_eq!(landed, Some(space.data));
            handle
        });
        handles.collect()
    }

    /// `n` pages more, from [`DATA`] + 1 GiB on.
    fn give(&mut self, n: usize) -> Ipa {
        let at = DATA + (1 << 30);
        for i in 0..n as u64 {
            let page = self.world.give(self.guest, Ipa::new(at + i * 0x1000));
            self.frames.push(page);
        }
        Ipa::new(at)
    }
}

fn stream(i: usize) -> StreamId {
    StreamId::new(0x100 + i as u32)
}

/// What an operation costs on `n` of what it has many of, and `k` SMMUs.
pub(crate) fn measure(what: Scene, (n, k, ats): (usize, usize, bool), mode: Mode) -> Counts {
    let settings = vec![Settings::new(Identity::full(), mode); k];
    let tap = Tap::new(&settings);
    let smmus: Vec<_> = (0..k).map(|smmu| take_over(&tap, smmu)).collect();
    let mut cast = Cast::new(&tap, &smmus);
    let ats = if ats { Ats::Split } else { Ats::Off };
    let counts = play(what, &mut cast, &smmus, (n, k, ats));
    cast.world.expect_clean();
    counts
}

fn play<'p>(
    what: Scene,
    cast: &mut Cast<'p>,
    smmus: &'p [Smmu<'p, Tap>],
    (n, k, ats): (usize, usize, Ats),
) -> Counts {
    let guest = cast.guest;
    match what {
        Scene::Attach => {
            let group = cast.group(n, k, ats, 12);
            let _token = cast.world.own(guest, group);
            cast.cost(|world| {
                let attached = world.iommu.attach_group(guest, group, Untagged::Abort);
                attached.expect("attached");
            })
        }
        Scene::BindFirst | Scene::BindFurther | Scene::BindAgain => {
            cast.attach_each(n, k, ats, 12);
            let (first, further) = (cast.space(), cast.space());
            if what != Scene::BindFirst {
                cast.bind_all(first);
            }
            let bound = if what == Scene::BindFurther {
                further
            } else {
                first
            };
            let (counts, _) = cast.measure(|world| world.bind(guest, bound, &cast.boards[0]));
            let landed = cast.boards[0].guns[0].hits(Some(bound.pasid), VA);
            assert_eq!(landed, Some(bound.data));
            counts
        }
        Scene::UnbindNotLast | Scene::UnbindLast | Scene::UnbindReleased => {
            cast.attach_each(n, k, ats, 12);
            let space = cast.space();
            let handles = cast.bind_all(space);
            if what == Scene::UnbindNotLast {
                cast.bind_all(space);
            }
            if what == Scene::UnbindReleased {
                cast.world.iommu.release(guest, space.id).expect("released");
            }
            let counts = cast.cost(|world| {
                world.iommu.unbind(guest, handles[0]).expect("unbound");
            });
            let landed = cast.boards[0].guns[0].hits(Some(space.pasid), VA);
            let is_bound = what == Scene::UnbindNotLast;
            assert_eq!(landed, is_bound.then_some(space.data));
            counts
        }
        Scene::Release => {
            cast.attach_each(n, k, ats, FEW_BITS);
            let space = cast.space();
            cast.bind_all(space);
            let counts = cast.cost(|world| {
                world.iommu.release(guest, space.id).expect("released");
            });
            for board in &cast.boards {
                assert_eq!(board.guns[0].hits(Some(space.pasid), VA), None);
            }
            counts
        }
        Scene::ReleaseAll => {
            cast.attach_each(k, k, ats, 12);
            for _ in 0..n {
                let space = cast.space();
                cast.bind_all(space);
            }
            let counts = cast.cost(|world| {
                world.iommu.release_all(guest).expect("released");
            });
            assert_eq!(cast.world.iommu.counts(guest).expect("there").handles, 0);
            counts
        }
        Scene::Detach => {
            let group = cast.group(n, k, ats, 12);
            let _token = cast.world.own(guest, group);
            let attached = cast
                .world
                .iommu
                .attach_group(guest, group, Untagged::Stage2);
            attached.expect("attached");
            cast.cost(|world| {
                world.iommu.detach_group(guest, group).expect("detached");
            })
        }
        Scene::GuestDeath => {
            cast.attach_each(n, k, ats, FEW_BITS);
            let space = cast.space();
            cast.bind_all(space);
            let counts = cast.cost(|world| {
                world.iommu.destroy_guest(guest).expect("it ends");
            });
            for frames in cast.frames.drain(..) {
                cast.world.tap.free(frames);
            }
            for board in &cast.boards {
                assert_eq!(board.guns[0].hits(Some(space.pasid), VA), None);
            }
            counts
        }
        Scene::HandOver => {
            let next = cast.world.guest();
            let walk = |of| cast.world.iommu.stage2_of(of).expect("there");
            let (from, to) = (walk(guest), walk(next));
            let streams: Vec<_> = (0..n).map(stream).collect();
            let smmu = &smmus[0];
            smmu.publish(&streams, &from).expect("published");
            let caches = match ats {
                Ats::Off => DeviceCaches::None,
                _ => DeviceCaches::Ats,
            };
            let counts = cast.cost(|_| {
                let stopped = stop(smmu, &streams, caches).expect("stopped");
                let quiet = stopped.reset(|| Ok::<(), ()>(())).expect("reset");
                let given = quiet.give(&to).expect("given");
                assert_eq!(given.streams, n);
            });
            smmu.retract(&streams).expect("retracted");
            counts
        }
        Scene::ChangeHands => {
            let next = cast.world.guest();
            let group = cast.group(n, k, ats, 12);
            let token = cast.world.own(guest, group);
            let attached = cast
                .world
                .iommu
                .attach_group(guest, group, Untagged::Stage2);
            attached.expect("attached");
            cast.cost(|world| {
                world.iommu.detach_group(guest, group).expect("detached");
                world.iommu.disown(token).expect("given up");
                let _token = world.own(next, group);
                let attached = world.iommu.attach_group(next, group, Untagged::Stage2);
                attached.expect("attached");
            })
        }
        Scene::Map | Scene::Unmap | Scene::UnmapStage2 | Scene::Protect => {
            let bits = if what == Scene::UnmapStage2 { 0 } else { 12 };
            let group = cast.group(k, k, ats, bits);
            let _token = cast.world.own(guest, group);
            let attached = cast
                .world
                .iommu
                .attach_group(guest, group, Untagged::Stage2);
            attached.expect("attached");
            if what == Scene::Map {
                // Its tables are there already.
                cast.give(1);
                let at = Ipa::new(DATA + (1 << 30) + 0x1000);
                let page = cast.world.tap.allocate(12).expect("memory");
                let counts = cast.cost(|world| {
                    let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
                    world
                        .iommu
                        .map(guest, at, page.base(), 0x1000, attributes, sizes)
                        .expect("mapped");
                });
                cast.frames.push(page);
                return counts;
            }
            let at = cast.give(n);
            let fire = || cast.boards[0].guns[0].hits(None, at.as_u64());
            assert!(fire().is_some());
            let bytes = n as u64 * 0x1000;
            let counts = cast.cost(|world| {
                let done = if what == Scene::Protect {
                    world
                        .iommu
                        .protect(guest, at, bytes, Permissions::READ_ONLY)
                } else {
                    world.iommu.unmap(guest, at, bytes)
                };
                done.expect("done");
            });
            assert_eq!(fire(), None);
            counts
        }
        Scene::Invalidate => {
            cast.attach_each(k, k, ats, 12);
            let space = cast.space();
            cast.bind_all(space);
            assert!(n <= MAX_RANGES);
            let ranges: Vec<_> = (0..n as u64)
                .map(|i| (Iova::new(VA + i * 0x10_0000), 0x1000))
                .collect();
            cast.cost(|world| {
                world
                    .iommu
                    .invalidate_list(guest, space.id, &ranges)
                    .expect("invalidated");
            })
        }
    }
}

/// How much a bystander loses by a train of nothing, by one about its stream, by one about its
/// translations, and by both.
pub(crate) fn bystander_loses() -> [u64; 4] {
    let tap = Tap::new(&[Settings::new(Identity::full(), Mode::Polite)]);
    let smmus = [take_over(&tap, 0)];
    let cast = Cast::new(&tap, &smmus);
    let entry = Command::cfgi_ste(StreamId::new(0x8000), CfgiScope::Leaf);
    // The bystander is the first guest of all.
    let translations = Command::tlbi_s12_vmall(Vmid::new(1));
    let trains: [&[Command]; 4] = [&[], &[entry], &[translations], &[entry, translations]];
    trains.map(|train| {
        let counts = cast.cost(|_| {
            let ticket = smmus[0].submit(&[train]).expect("there is room");
            smmus[0].wait(ticket).expect("confirmed");
        });
        assert_eq!(counts.commands, train.len() as u64 + 1);
        counts.evictions
    })
}
