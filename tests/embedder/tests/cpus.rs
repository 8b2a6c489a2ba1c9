//! CPUs beside devices: what a guest's CPUs walk, and what an SMMU still owes proof of.

use std::sync::Mutex;

use portcullis::addr::{Extent, Ipa, Pa};
use portcullis::hw::{CpuTlb, CpuWalk, Platform, View};
use portcullis::space::stage2::PageSizes;
use portcullis::space::{Iommu, IommuSettings, SpaceError};
use portcullis::spec::ste::Ats;
use portcullis::spec::vmsa::Attributes;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::world::{SMMU, World, config, host, modes, take_over};
use smmu_model::{Faults, Identity, Mode};

/// CPUs that count what they are told to forget.
#[derive(Default)]
struct Cpus(Mutex<Vec<CpuWalk>>);

impl CpuTlb for Cpus {
    fn forget(&self, walk: &CpuWalk, _: Option<&[Extent<Ipa>]>, _: u8) {
        self.0.lock().expect("nobody panics there").push(*walk);
    }
}

const VALID_TABLE: u64 = 0b11;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Whether a walk of 40 bits from the root at `root` finds something at `ipa`, by the manual's
/// indices: 10 bits, then 9, then 9.
fn finds(host: &Hypervisor, root: u64, ipa: u64) -> bool {
    let mut table = root;
    for (shift, mask) in [(30, 0x3ff), (21, 0x1ff), (12, 0x1ff)] {
        let at = Pa::new(table + 8 * (ipa >> shift & mask));
        let entry = host.peek(at).expect("a table is memory");
        if entry & 1 == 0 {
            return false;
        }
        if entry & VALID_TABLE != VALID_TABLE {
            return true;
        }
        table = entry & ADDRESS;
    }
    true
}

#[test]
fn a_guests_cpus_see_its_registers_and_no_window_and_its_devices_the_other_way_round() {
    const MEMORY: u64 = 0x4000_0000;
    const REGISTERS: u64 = 0x900_0000;
    let host = host(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let cpus = Cpus::default();
    let iommu = Iommu::new(&host, IommuSettings::default()).expect("there is memory");
    iommu.add_smmu(SMMU, &smmu).expect("it is new");
    let guest = iommu.create_guest_with_cpus(&config(), &cpus);
    let guest = guest.expect("there is memory");
    let page = host.allocate(12).expect("there is memory");
    let (attributes, sizes) = (Attributes::MEMORY, PageSizes::PagesOnly);
    let map = |view, ipa| {
        iommu.map_for(
            guest,
            view,
            Ipa::new(ipa),
            page.base(),
            0x1000,
            attributes,
            sizes,
        )
    };
    map(View::Both, MEMORY).expect("it is free");
    map(View::Cpus, REGISTERS).expect("it is free");
    let other_view = map(View::Both, REGISTERS + 0x1000).expect_err("another view's");
    assert!(
        matches!(other_view, SpaceError::Stage2(_)),
        "{other_view:?}"
    );
    let walk = iommu
        .cpu_walk_of(guest)
        .expect("it lives")
        .expect("it has CPUs");
    let of_cpus = walk.vttbr & ADDRESS;
    let of_devices = iommu.stage2_of(guest).expect("it lives").root.as_u64();
    assert_ne!(of_cpus, of_devices);
    assert!(finds(&host, of_cpus, MEMORY) && finds(&host, of_devices, MEMORY));
    assert!(finds(&host, of_cpus, REGISTERS) && !finds(&host, of_devices, REGISTERS));
    // CPUs are told of what goes, under the walk that they use.
    iommu
        .unmap(guest, Ipa::new(MEMORY), 0x1000)
        .expect("it is mapped");
    assert!(!finds(&host, of_cpus, MEMORY) && !finds(&host, of_devices, MEMORY));
    assert_eq!(*cpus.0.lock().expect("nobody panics there"), [walk]);
    iommu.destroy_guest(guest).expect("nothing is attached");
    host.free(page);
}

#[test]
fn a_guest_without_cpus_has_no_walk_for_them() {
    let host = host(Identity::full(), Mode::Polite);
    let smmu = take_over(&host);
    let world = World::new(&host, &smmu, Ats::Off);
    assert_eq!(world.iommu.cpu_walk_of(world.guest), Ok(None));
    world.end();
}

/// What the image asks before it asks an SMMU for proof.
#[test]
fn an_smmu_that_lost_something_is_named_until_it_is_proven() {
    for mode in modes() {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, Ats::Off);
        let _wired = world.dma(Ats::Off);
        let (space, _) = world.space();
        let (handle, _) = world.bind(space);
        assert!(world.iommu.unproven().is_empty(), "{mode:?}");
        host.machine().smmu(0).set_faults(Faults {
            sync_never: true,
            ..Faults::default()
        });
        let lost = world.iommu.release(world.guest, space);
        assert!(
            matches!(lost, Err(SpaceError::NotConfirmed { .. })),
            "{mode:?}"
        );
        assert!(world.iommu.unproven().has(SMMU), "{mode:?}");
        assert!(world.iommu.unproven_of(world.guest).has(SMMU), "{mode:?}");
        let bystander = world.iommu.create_guest(&config()).expect("memory");
        assert!(
            world.iommu.unproven_of(bystander).is_empty(),
            "not its loss"
        );
        world
            .iommu
            .destroy_guest(bystander)
            .expect("it had nothing");
        assert!(world.iommu.unproven_of(bystander).is_empty(), "nobody's");
        assert!(world.iommu.recover(SMMU).is_err() || world.iommu.unproven().is_empty());
        host.machine().smmu(0).set_faults(Faults::default());
        host.machine().advance(10);
        world.iommu.recover(SMMU).expect("it is proven");
        assert!(world.iommu.unproven().is_empty(), "{mode:?}");
        assert!(world.iommu.unproven_of(world.guest).is_empty(), "{mode:?}");
        world.iommu.unbind(world.guest, handle).expect("the last");
        world.iommu.restore(world.device).expect("it is reset");
        world.end();
    }
}
