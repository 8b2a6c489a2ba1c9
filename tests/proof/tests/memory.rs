//! What everything takes, that it comes back, and how much of it a guest may have.

use portcullis::addr::Ipa;
use portcullis::hw::{DeviceTag, Frames, Platform, PoolShape};
use portcullis::id::StreamId;
use portcullis::smmu::Smmu;
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Ask, By, Counts, DeviceDescription, GuestConfig, GuestId, Handle, Quantity, Quota, ResetPolicy,
    SpaceConfig, SpaceError, SpaceId,
};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::Attributes;
use portcullis_proof::{Board, DATA, Tap, Wanted, World, config, take_over, walk};
use smmu_model::{Identity, Mode, Settings};

const STREAM: StreamId = StreamId::new(0x110);
const PAGE: u64 = 4096;

fn tap() -> Tap {
    Tap::new(&[Settings::new(Identity::full(), Mode::Polite)])
}

fn roomy() -> GuestConfig {
    GuestConfig {
        quota: Quota {
            spaces: 1 << 12,
            bindings: 1 << 12,
            handles: 1 << 13,
            stalls: 16,
        },
        ..config()
    }
}

const fn any() -> SpaceConfig {
    SpaceConfig {
        walk: walk(DATA),
        pasid: Ask::Any,
        promises_no_global: false,
    }
}

/// A guest with one device, attached.
struct Scene<'p> {
    world: World<'p>,
    guest: GuestId,
    board: Board<'p>,
}

impl<'p> Scene<'p> {
    fn new(tap: &'p Tap, smmus: &'p [Smmu<'p, Tap>]) -> Self {
        let mut world = World::new(tap, smmus);
        let guest = world.iommu.create_guest(&roomy()).expect("a guest");
        let (board, _) = world.attached(guest, Wanted::new(0, &[STREAM]));
        Self {
            world,
            guest,
            board,
        }
    }

    fn create(&self) -> SpaceId {
        let made = self.world.iommu.create_space(self.guest, &any());
        made.expect("a space")
    }

    fn bind(&self, space: SpaceId) -> Handle {
        let bound = self
            .world
            .iommu
            .bind(self.guest, space, self.board.id, By::Pasid);
        bound.expect("bound")
    }

    /// How many of what `add` makes are in a page of the books. The books grow by a page and then by
    /// two, and nothing else of them grows meanwhile.
    fn in_a_page(&self, mut add: impl FnMut()) -> u64 {
        let size = || self.world.iommu.size_bytes();
        let mut until_growth = |bytes| {
            let before = size();
            let mut added = 0;
            while size() == before {
                add();
                added += 1;
                assert!(added < 1000, "the books do not grow");
            }
            assert_eq!(size() - before, bytes);
            added
        };
        // Up to the end of the pages that there are; then a new chunk, full up to the next.
        until_growth(2 * PAGE);
        let in_two = until_growth(4 * PAGE);
        assert_eq!(in_two % 2, 0);
        in_two / 2
    }
}

/// Of records, how many there are in a page of 4 KiB; the table in the docs of `portcullis::space`.
#[test]
fn records_are_as_many_in_a_page_as_is_said() {
    let tap = tap();
    let smmus = [take_over(&tap, 0)];
    let scene = Scene::new(&tap, &smmus);
    let (iommu, guest) = (&scene.world.iommu, scene.guest);
    // The records of numbers stay; so do two of everything, and a page of each with them.
    let many: Vec<_> = (0..1000).map(|_| scene.create()).collect();
    for space in many {
        iommu.release(guest, space).expect("released");
    }
    let first = scene.create();
    scene.bind(first);
    let spaces = scene.in_a_page(|| {
        scene.create();
    });
    let mut handles = Vec::new();
    let in_handles = scene.in_a_page(|| handles.push(scene.bind(first)));
    // So that there is room for handles while bindings come.
    while handles.len() < 1000 {
        handles.push(scene.bind(first));
    }
    for handle in handles.drain(..999) {
        iommu.unbind(guest, handle).expect("dropped");
    }
    let mut numbers = Vec::new();
    while numbers.len() < 400 {
        numbers.push(scene.create());
    }
    let in_bindings = scene.in_a_page(|| {
        scene.bind(numbers.pop().expect("enough"));
    });
    let in_groups = scene.in_a_page(|| {
        scene.world.group();
    });
    let group = scene.world.group();
    let in_devices = scene.in_a_page(|| {
        // Behind no SMMU: it has no streams, which are in a table of their own.
        let description = DeviceDescription {
            tag: DeviceTag(7),
            smmu: None,
            streams: &[],
            pasid_bits: 0,
            can_stall: false,
            ats: Ats::Off,
            reset: ResetPolicy::Needed,
        };
        let group = iommu.add_group().unwrap_or(group);
        iommu.add_device(group, &description).expect("added");
    });
    assert_eq!((spaces, in_handles, in_bindings), (15, 46, 20));
    assert_eq!((in_groups, in_devices), (30, 12));
}

/// Numbers have their records for ever, so that no two spaces ever have a number and its generation
/// in common: a page for each 128, of PASIDs and of ASIDs, and a page that leads there.
#[test]
fn numbers_take_what_is_said() {
    let tap = tap();
    let smmus = [take_over(&tap, 0)];
    let scene = Scene::new(&tap, &smmus);
    let (iommu, guest) = (&scene.world.iommu, scene.guest);
    let before = iommu.size_bytes();
    // Released spaces leave their records of numbers, and one page of the spaces' own.
    let numbers = |spaces: Vec<SpaceId>| {
        for space in spaces {
            iommu.release(guest, space).expect("released");
        }
        (iommu.size_bytes() - before) / PAGE - 1
    };
    // Number 0 is nobody's.
    let found = [1, 127, 128, 4095].map(|n| numbers((0..n).map(|_| scene.create()).collect()));
    assert_eq!(found, [4, 4, 6, 66]);
    let all: Vec<_> = (0..4095).map(|_| scene.create()).collect();
    let refused = iommu.create_space(guest, &any());
    assert_eq!(refused, Err(SpaceError::NoPasid));
    numbers(all);
}

/// A guest, and a device that is attached to it: pages that are asked of the host.
#[test]
fn guests_and_attached_devices_take_what_is_said() {
    let tap = tap();
    let smmus = [take_over(&tap, 0)];
    let mut world = World::new(&tap, &smmus);
    world.guest();
    let before = tap.host().bytes_out();
    let guest = world.iommu.create_guest(&GuestConfig {
        pasid_bits: 20,
        ..config()
    });
    let guest = guest.expect("a guest");
    // A root of 2 for 40 bits, the way to it all, faults, and the books of the window.
    assert_eq!((tap.host().bytes_out() - before) / PAGE, 5);
    // Of the books, a page of faults each, and 2 records in a page: there were 2, then there is room
    // for 4, and for 8.
    let grows = [(); 6].map(|()| {
        let before = world.iommu.size_bytes();
        world.guest();
        (world.iommu.size_bytes() - before) / PAGE
    });
    assert_eq!(grows, [3, 1, 1, 1, 5, 1]);
    // So that tables and the array of streams are there.
    let (_, _token) = world.attached(guest, Wanted::new(0, &[StreamId::new(0x200)]));
    let mut found = Vec::new();
    for (n, pasid_bits) in [0, 1, 6, 7, 12, 16, 17, 20].into_iter().enumerate() {
        let streams = [StreamId::new(0x201 + n as u32)];
        let wanted = Wanted {
            pasid_bits,
            ..Wanted::new(0, &streams)
        };
        let group = world.group();
        let board = world.device(group, wanted);
        let _token = world.own(guest, group);
        let sealed = || world.iommu.sealed_bytes(guest).expect("there") / PAGE;
        let out = || tap.host().bytes_out() / PAGE;
        let (was_out, was_sealed) = (out(), sealed());
        let attached = world.iommu.attach(guest, board.id, Untagged::Abort);
        attached.expect("attached");
        let (attached, attached_sealed) = (out() - was_out, sealed() - was_sealed);
        if pasid_bits == 0 {
            found.push((pasid_bits, attached, attached_sealed, 0));
            continue;
        }
        let space = world.iommu.create_space(guest, &any()).expect("a space");
        let was_sealed = sealed();
        if pasid_bits == 1 {
            // Only number 1 is so small, and it is taken by the first.
            assert_eq!(
                world
                    .iommu
                    .pasid_of(guest, space)
                    .expect("there")
                    .pasid
                    .as_u32(),
                1
            );
        }
        let bound = world.iommu.bind(guest, space, board.id, By::Pasid);
        bound.expect("bound");
        found.push((pasid_bits, attached, attached_sealed, sealed() - was_sealed));
    }
    // Bits of PASID; pages when it is attached, and how many of them devices see; pages that they
    // see more with the first binding.
    let expected = [
        (0, 0, 0, 0),
        (1, 2, 1, 0),
        (6, 2, 1, 0),
        (7, 3, 1, 1),
        (12, 3, 1, 1),
        (16, 7, 2, 1),
        (17, 3, 1, 16),
        (20, 7, 2, 16),
    ];
    assert_eq!(found, expected);
}

/// 130 spaces on one device, in three leaves; when they go, the leaves do.
#[test]
fn leaves_come_back_when_they_are_empty() {
    let tap = tap();
    let smmus = [take_over(&tap, 0)];
    let scene = Scene::new(&tap, &smmus);
    let (iommu, guest) = (&scene.world.iommu, scene.guest);
    let sealed = || iommu.sealed_bytes(guest).expect("there") / PAGE;
    assert_eq!(sealed(), 1);
    let spaces: Vec<_> = (0..130).map(|_| scene.create()).collect();
    // Beside the books.
    let out = || tap.host().bytes_out() - iommu.size_bytes();
    let before = out();
    let handles: Vec<_> = spaces.iter().map(|space| scene.bind(*space)).collect();
    // Numbers 1 to 130: 63 in the first leaf, 64 in the second, 3 in the third.
    assert_eq!(sealed(), 4);
    iommu.tidy(guest).expect("tidied");
    assert_eq!(sealed(), 4, "all are in use");
    for handle in &handles[63..127] {
        iommu.unbind(guest, *handle).expect("unbound");
    }
    iommu.tidy(guest).expect("tidied");
    assert_eq!(sealed(), 3, "the one in the middle is empty");
    for handle in handles[..63].iter().chain(&handles[127..]) {
        iommu.unbind(guest, *handle).expect("unbound");
    }
    let (counts, ()) = tap.count(|| iommu.tidy(guest).expect("tidied"));
    assert_eq!(sealed(), 1);
    // One SYNC to take a leaf out of the table, two to take it out of the guest's memory.
    assert_eq!(counts.syncs, 6);
    assert_eq!(out(), before);
    let again = scene.bind(spaces[64]);
    assert_eq!(sealed(), 2);
    let pasid = iommu.pasid_of(guest, spaces[64]).expect("there").pasid;
    assert_eq!(pasid.as_u32(), 65);
    iommu.unbind(guest, again).expect("unbound");
    scene.world.expect_clean();
}

/// When no frame is left, whatever ends still ends, whole: every page comes back in the end.
#[test]
fn whatever_ends_takes_no_memory_and_gives_all_back() {
    for by in [By::Pasid, By::WholeStream] {
        let tap = tap();
        let smmus = [take_over(&tap, 0)];
        let at_rest = tap.host().bytes_out();
        {
            let mut world = World::new(&tap, &smmus);
            let pasid_bits = if by == By::Pasid { 12 } else { 0 };
            let streams: Vec<_> = (0..64).map(|n| StreamId::new(0x200 + n)).collect();
            let mut boards = Vec::new();
            let mut groups = Vec::new();
            let guests = [world.guest(), world.guest()];
            for (n, stream) in streams.chunks(1).enumerate() {
                let wanted = Wanted {
                    pasid_bits,
                    ..Wanted::new(0, stream)
                };
                if n % 16 == 0 {
                    groups.push(world.group());
                }
                boards.push(world.device(groups[n / 16], wanted));
            }
            let mut tokens = Vec::new();
            for (n, group) in groups.iter().enumerate() {
                tokens.push(world.own(guests[n / 2], *group));
                let attached = world
                    .iommu
                    .attach_group(guests[n / 2], *group, Untagged::Stage2);
                attached.expect("attached");
            }
            let spaces = guests.map(|guest| {
                let space = world.iommu.create_space(guest, &any());
                space.expect("a space")
            });
            let mut handles = Vec::new();
            for (n, board) in boards.iter().enumerate().skip(16) {
                let (guest, space) = (guests[n / 32], spaces[n / 32]);
                let bound = world.iommu.bind(guest, space, board.id, by);
                handles.push(bound.expect("bound"));
            }
            let [first, second] = guests;
            tap.host().fail_after(Some(0));
            let (counts, ()) = tap.count(|| {
                let iommu = &world.iommu;
                iommu.detach_group(first, groups[0]).expect("detached");
                iommu.unbind(first, handles[0]).expect("unbound");
                iommu.release(first, spaces[0]).expect("released");
                iommu.remove_device(boards[17].id).expect("removed");
                iommu.restore(boards[18].id).expect("reset");
                iommu.release_all(first).expect("released");
                iommu.tidy(first).expect("tidied");
                iommu.destroy_guest(first).expect("it ends");
                iommu.destroy_guest(second).expect("it ends");
            });
            assert_eq!(counts.allocations, 0, "{by:?}");
            assert!(world.iommu.dismantle().is_ok());
            tap.host().fail_after(None);
        }
        // The array of 256 entries stays the SMMU's.
        assert_eq!(tap.host().bytes_out() - at_rest, 4 * PAGE, "{by:?}");
        assert_eq!(tap.machine().record().violations(), []);
        for smmu in smmus {
            smmu.shut_down().expect("it shuts");
        }
        assert_eq!(tap.host().bytes_out(), 0, "{by:?}");
    }
}

/// What a refusal must leave as it was: counts, memory of the books and of the host, what was sent.
fn seen(scene: &Scene<'_>) -> (Counts, u64, u64, u64) {
    let iommu = &scene.world.iommu;
    let tap = scene.world.tap;
    (
        iommu.counts(scene.guest).expect("there"),
        iommu.size_bytes(),
        tap.host().bytes_out(),
        tap.counts().commands,
    )
}

fn refused<T: std::fmt::Debug>(
    scene: &Scene<'_>,
    what: Quantity,
    ask: impl FnOnce() -> Result<T, SpaceError>,
) {
    let before = seen(scene);
    assert_eq!(ask().map(|_| ()), Err(SpaceError::Quota(what)));
    assert_eq!(seen(scene), before, "{what:?}: nothing has changed");
}

/// Each quota has its refusal, which changes nothing, and which another guest does not feel.
#[test]
fn each_quota_is_held_for_each_guest() {
    let tap = tap();
    let smmus = [take_over(&tap, 0)];
    let mut world = World::new(&tap, &smmus);
    let quota = Quota {
        spaces: 4,
        bindings: 3,
        handles: 5,
        stalls: 0,
    };
    let tables = PoolShape {
        quota_pages: 8,
        log2_pages_per_chunk: 2,
    };
    let config = GuestConfig {
        quota,
        tables,
        ..config()
    };
    let guest = world.iommu.create_guest(&config).expect("a guest");
    let other = world.iommu.create_guest(&config).expect("a guest");
    let (board, _) = world.attached(guest, Wanted::new(0, &[STREAM]));
    let (others, _) = world.attached(other, Wanted::new(0, &[StreamId::new(0x111)]));
    let scene = Scene {
        world,
        guest,
        board,
    };
    let iommu = &scene.world.iommu;

    let spaces: Vec<_> = (0..4).map(|_| scene.create()).collect();
    refused(&scene, Quantity::Spaces, || {
        iommu.create_space(guest, &any())
    });
    let handles: Vec<_> = spaces[..3].iter().map(|it| scene.bind(*it)).collect();
    let bind = |space| iommu.bind(guest, space, scene.board.id, By::Pasid);
    refused(&scene, Quantity::Bindings, || bind(spaces[3]));
    scene.bind(spaces[0]);
    scene.bind(spaces[0]);
    refused(&scene, Quantity::Handles, || bind(spaces[0]));
    // With room for a binding, and none for its handle.
    iommu.unbind(guest, handles[2]).expect("unbound");
    scene.bind(spaces[0]);
    refused(&scene, Quantity::Handles, || bind(spaces[3]));
    // A page of memory in each gigabyte takes two tables each, until there are too many.
    let page: Frames = tap.allocate(12).expect("memory");
    let map = |gigabyte: u64| {
        let at = Ipa::new(gigabyte << 30);
        let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
        iommu.map(guest, at, page.base(), PAGE, attributes, sizes)
    };
    let mapped = (1..).take_while(|n| map(*n).is_ok()).count() as u64;
    assert_eq!(mapped, 3);
    refused(&scene, Quantity::Tables, || map(mapped + 1));

    // The other guest has as much.
    let space = iommu.create_space(other, &any()).expect("a space");
    iommu
        .bind(other, space, others.id, By::Pasid)
        .expect("bound");
    // What was given back can be had again; parked spaces count.
    iommu.release(guest, spaces[0]).expect("released");
    refused(&scene, Quantity::Spaces, || {
        iommu.create_space(guest, &any())
    });
    iommu.release(guest, spaces[3]).expect("released");
    iommu
        .create_space(guest, &any())
        .expect("it was never bound");
    iommu.destroy_guest(guest).expect("it ends");
    iommu.destroy_guest(other).expect("it ends");
    tap.free(page);
    scene.world.expect_clean();
}
