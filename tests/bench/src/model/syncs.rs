//! SYNCs, waits and commands of each operation, beside Linux's formulas and the architecture's floor.

use portcullis::addr::Ipa;
use portcullis::hw::{DeviceTag, Platform};
use portcullis::id::StreamId;
use portcullis::space::stage2::PageSizes;
use portcullis::space::{Acquired, By, DeviceDescription, Owner, ResetPolicy};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::Attributes;
use smmu_model::{Mode, Transaction};

use super::host::Done;
use super::world::{PASID_BITS, Shape, VA, World, smmu_id};
use crate::{Row, linux};

/// The least that the architecture lets anybody do with.
const FLOOR: &str = "the architecture's floor";
/// A published driver of a hypervisor that nests.
const PKVM: &str = "pKVM, per page";

/// How much is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// The names that every report has.
    Fixed,
    /// What plots need, too.
    Full,
}

const fn is_on(ats: Ats) -> bool {
    !matches!(ats, Ats::Off)
}

const fn part(ats: Ats) -> &'static str {
    if is_on(ats) { "ats." } else { "" }
}

/// A release with so many bindings on each of so many SMMUs.
fn release(bindings: usize, smmus: usize, ats: Ats) -> Done {
    let shape = Shape {
        smmus,
        ats,
        ..Shape::new(bindings)
    };
    shape.with_guest(|mut world| {
        let space = world.space_on_all();
        world.delay_syncs(smmus, 1);
        let (done, released) = world.host.count(|| world.iommu.release(world.guest, space));
        released.expect("released");
        done
    })
}

fn releases(extent: Extent, each: &mut impl FnMut(Row)) {
    let fixed = [(1, 1), (64, 1), (512, 8)];
    let full = [2, 4, 8, 16, 32, 128, 256, 512].map(|bindings| (bindings, 1));
    let further = [2, 4, 8, 16].map(|smmus| (8, smmus));
    let mut shapes = fixed.to_vec();
    if extent == Extent::Full {
        shapes.extend(full.into_iter().chain(further));
    }
    for ats in [Ats::Off, Ats::Split] {
        for (bindings, smmus) in shapes.iter().copied() {
            let done = release(bindings, smmus, ats);
            let name = |what: &str| format!("release.{what}.{}n{bindings}.k{smmus}", part(ats));
            let (per_smmu, count) = (done.syncs / smmus as u64, bindings as u64);
            assert_eq!(done.syncs % smmus as u64, 0, "as many on each");
            let linux = linux::release(count, is_on(ats));
            let row = Row::new(name("syncs_per_smmu"), per_smmu, "SYNCs");
            each(row.beside(linux::PEER, linux));
            let floor = 2 + u64::from(is_on(ats));
            let row = Row::new(name("syncs_per_smmu.over_floor"), per_smmu, "SYNCs");
            each(row.beside(FLOOR, floor));
            let commands = done.commands / smmus as u64;
            let theirs = linux + 2 * count + 1 + count * u64::from(is_on(ats));
            let row = Row::new(name("commands_per_smmu"), commands, "commands");
            each(row.beside(linux::PEER, theirs));
            // Linux waits for each of its SYNCs; here waits for several SMMUs are one.
            let waits = Row::new(
                name("waits_per_smmu"),
                done.waits.div_ceil(smmus as u64),
                "waits",
            );
            each(waits.beside(linux::PEER, linux));
            let waits = Row::new(name("waits"), done.waits, "waits");
            each(waits.beside(linux::PEER, linux * smmus as u64));
            each(Row::new(
                name("allocations"),
                done.allocations,
                "allocations",
            ));
        }
    }
}

/// What another guest loses by a release: entries that the model saw go, and commands that could have
/// taken some.
fn evicted(each: &mut impl FnMut(Row)) {
    let shape = Shape {
        mode: Mode::Hoarding,
        ..Shape::new(64)
    };
    shape.with_guest(|mut world| {
        let neighbour = Neighbour::new(&mut world);
        let space = world.space_on_all();
        neighbour.write(&world);
        let cached = world.host.inner().machine().smmu(0).cached();
        assert_ne!(cached, 0, "there is something to lose");
        let (done, released) = world.host.count(|| world.iommu.release(world.guest, space));
        released.expect("released");
        neighbour.write(&world);
        let lost = done.evicted + done.wide;
        each(Row::new("release.evicted_foreign.n64.k1", lost, "entries").beside(linux::PEER, 0));
    });
}

/// A guest beside the first, with a device and a space of its own.
struct Neighbour {
    stream: u32,
    pasid: u32,
}

impl Neighbour {
    fn new(world: &mut World<'_>) -> Self {
        let iommu = &world.iommu;
        let config = super::world::guest_config(PASID_BITS);
        let guest = iommu.create_guest(&config).expect("there is room");
        let group = iommu.add_group().expect("there is room");
        let stream = StreamId::new(0x8000);
        let description = DeviceDescription {
            tag: DeviceTag(0x8000),
            smmu: Some(smmu_id(0)),
            streams: &[stream],
            pasid_bits: 16,
            can_stall: false,
            ats: Ats::Off,
            reset: ResetPolicy::Needed,
        };
        let device = iommu.add_device(group, &description).expect("it is new");
        let Ok(Acquired::Owned(_token)) = iommu.acquire(group, Owner::Guest(guest)) else {
            panic!("it is free");
        };
        iommu
            .attach(guest, device, Untagged::Abort)
            .expect("attached");
        let space = world.space_of(guest);
        let iommu = &world.iommu;
        let pasid = iommu.pasid_of(guest, space).expect("it is there").pasid;
        let _handle = iommu.bind(guest, space, device, By::Pasid).expect("bound");
        Self {
            stream: stream.as_u32(),
            pasid: pasid.as_u32(),
        }
    }

    /// Its device writes, and gets through.
    fn write(&self, world: &World<'_>) {
        let machine = world.host.inner().machine();
        let mark = machine.record().mark();
        let write = Transaction::write(self.stream, VA, b"neighbor").with_substream(self.pasid);
        let _ = machine.smmu(0).transact(write);
        assert_eq!(
            machine.record().landed_since(mark).len(),
            1,
            "it is not disturbed"
        );
    }
}

/// Attaching, binding, unbinding, detaching one device.
fn bindings(ats: Ats, each: &mut impl FnMut(Row)) {
    let shape = Shape::new(0);
    shape.run(|host, smmus| {
        let mut world = World::without_devices(host, smmus);
        world.add_group(0, &[0], ats);
        let (guest, device) = (world.guest, world.devices[0]);
        let (first, second) = (world.space(), world.space());
        let name = |what: &str, of: &str| match of {
            "" => format!("{what}.{}", part(ats).trim_end_matches('.')),
            of => format!("{what}.{}{of}", part(ats)),
        };
        let name = |what: &str, of: &str| name(what, of).trim_end_matches('.').to_owned();
        let has_ats = is_on(ats);
        let syncs = |name: String, done: Done, linux: u64| {
            Row::new(name, done.syncs, "SYNCs").beside(linux::PEER, linux)
        };
        let iommu = &world.iommu;
        let (done, _) = host.count(|| {
            iommu
                .attach(guest, device, Untagged::Abort)
                .expect("attached")
        });
        each(syncs(
            name("attach.syncs", ""),
            done,
            linux::attach(has_ats),
        ));
        let (done, one) = host.count(|| world.bind(first, device));
        each(syncs(
            name("bind.syncs", "first"),
            done,
            linux::first_bind(has_ats),
        ));
        let (done, two) = host.count(|| world.bind(second, device));
        each(syncs(
            name("bind.syncs", "further"),
            done,
            linux::further_bind(has_ats),
        ));
        let (done, again) = host.count(|| world.bind(first, device));
        each(
            Row::new(name("bind.commands", "again"), done.commands, "commands")
                .beside(linux::PEER, 0),
        );
        let (done, _) = host.count(|| iommu.unbind(guest, again).expect("dropped"));
        let row = Row::new(
            name("unbind.commands", "not_last"),
            done.commands,
            "commands",
        );
        each(row.beside(linux::PEER, 0));
        let (done, _) = host.count(|| iommu.unbind(guest, one).expect("dropped"));
        each(syncs(
            name("unbind.syncs", ""),
            done,
            linux::unbind(has_ats),
        ));
        let (done, _) = host.count(|| iommu.unbind(guest, two).expect("dropped"));
        // The last PASID of a device, too: Linux gives the stream its former entry back.
        let linux_last = linux::unbind(has_ats) + 2 + u64::from(has_ats);
        each(syncs(
            name("unbind.syncs", "last_of_device"),
            done,
            linux_last,
        ));
        let (done, _) = host.count(|| iommu.detach(guest, device).expect("detached"));
        each(syncs(
            name("detach.syncs", ""),
            done,
            linux::detach(has_ats),
        ));
    });
}

/// A guest with so many devices on one SMMU ends.
fn guest_death(devices: usize, ats: Ats, each: &mut impl FnMut(Row)) {
    let shape = Shape {
        ats,
        ..Shape::new(devices)
    };
    shape.with_guest(|mut world| {
        let _space = world.space_on_all();
        let (done, ended) = world.host.count(|| world.iommu.destroy_guest(world.guest));
        ended.expect("it ends");
        let name = format!("guest_death.syncs_per_smmu.{}n{devices}", part(ats));
        let linux = linux::guest_death(devices as u64, is_on(ats));
        each(Row::new(name, done.syncs, "SYNCs").beside(linux::PEER, linux));
    });
}

/// A group of so many devices goes from one guest to another.
fn handover(streams: usize, ats: Ats, each: &mut impl FnMut(Row)) {
    let shape = Shape {
        ats,
        ..Shape::new(streams)
    };
    shape.with_guest(|mut world| {
        let config = super::world::guest_config(PASID_BITS);
        let next = world.iommu.create_guest(&config).expect("there is room");
        let (group, token) = world.groups.remove(0);
        let iommu = &world.iommu;
        let (done, ()) = world.host.count(|| {
            iommu.detach_group(world.guest, group).expect("detached");
            iommu.disown(token).expect("given up");
            let Ok(Acquired::Owned(_token)) = iommu.acquire(group, Owner::Guest(next)) else {
                panic!("it is free");
            };
            iommu
                .attach_group(next, group, Untagged::Abort)
                .expect("attached");
        });
        let name = format!("handover.syncs.{}n{streams}", part(ats));
        let linux = linux::handover(streams as u64, is_on(ats));
        each(Row::new(name, done.syncs, "SYNCs").beside(linux::PEER, linux));
    });
}

/// A range of a guest's memory is unmapped while a device of it nests.
fn nested_unmap(pages: u64, ats: Ats) -> Done {
    const AT: Ipa = Ipa::new(0x6_0000_0000);
    let shape = Shape {
        ats,
        ..Shape::new(1)
    };
    shape.with_guest(|mut world| {
        let _space = world.space_on_all();
        let (iommu, guest) = (&world.iommu, world.guest);
        // What is mapped is not looked into: any memory will do.
        let memory = world.host.allocate(12).expect("there is memory");
        for page in 0..pages {
            let at = Ipa::new(AT.as_u64() + (page << 12));
            let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
            iommu
                .map(guest, at, memory.base(), 0x1000, attributes, sizes)
                .expect("mapped");
        }
        let unmap = || iommu.unmap(guest, AT, pages << 12).expect("unmapped");
        world.host.count(unmap).0
    })
}

fn unmaps(extent: Extent, each: &mut impl FnMut(Row)) {
    for ats in [Ats::Off, Ats::Split] {
        let done = nested_unmap(512, ats);
        let name = format!("unmap.syncs_per_smmu.{}nested", part(ats));
        let linux = linux::nested_unmap(is_on(ats));
        each(Row::new(name, done.syncs, "SYNCs").beside(linux::PEER, linux));
    }
    if extent == Extent::Full {
        for pages in [1, 8, 64, 512, 4096] {
            let done = nested_unmap(pages, Ats::Off);
            let name = format!("unmap.syncs_per_smmu.nested.pages{pages}");
            each(Row::new(name, done.syncs, "SYNCs").beside(PKVM, 2 * pages));
            let name = format!("unmap.commands_per_smmu.nested.pages{pages}");
            each(Row::new(name, done.commands, "commands").beside(PKVM, 4 * pages));
        }
    }
}

/// The rows.
pub fn rows(extent: Extent, each: &mut impl FnMut(Row)) {
    releases(extent, each);
    evicted(each);
    for ats in [Ats::Off, Ats::Split] {
        bindings(ats, each);
        guest_death(64, ats, each);
        handover(8, ats, each);
    }
    unmaps(extent, each);
}
