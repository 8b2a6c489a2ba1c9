//! A number that nobody holds: how much silence frees it, and whose silence counts.

use portcullis::space::{Fence, SpaceError, SpaceId, SpaceState};
use portcullis::spec::ste::Ats;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::world::{SMMU, VA, World, host, modes, take_over};
use smmu_model::Identity;

/// More than any number has to be silent.
const LONG_US: u64 = 20_000;

/// A space whose number drains: the space, and the number.
fn draining(world: &mut World<'_>) -> (SpaceId, u32) {
    let (space, _) = world.space();
    let (handle, pasid) = world.bind(space);
    world.iommu.release(world.guest, space).expect("released");
    world.iommu.unbind(world.guest, handle).expect("dropped");
    let state = world.iommu.space_state(world.guest, space);
    assert_eq!(state, Ok(SpaceState::Draining));
    (space, pasid)
}

/// Makes a space, by any number: which it got.
fn next_number(world: &mut World<'_>) -> u32 {
    let (space, _) = world.space();
    let found = world.iommu.pasid_of(world.guest, space);
    found.expect("it is there").pasid.as_u32()
}

fn silence(world: &World<'_>, host: &Hypervisor) {
    host.machine().advance(LONG_US);
    world.iommu.service(1000);
}

/// Bug: a guest that made a space got the number of one whose device had just used it, for nobody
/// had read the event yet.
#[test]
fn silence_is_what_was_read_to_the_end_and_not_what_nobody_looked_at() {
    for mode in modes() {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, Ats::Off);
        let dma = world.dma(Ats::Off);
        let (space, pasid) = draining(&mut world);
        assert_eq!(dma.write(Some(pasid), VA), None, "it leads nowhere");
        host.machine().advance(LONG_US);
        assert_ne!(next_number(&mut world), pasid, "{mode:?}: it was used");
        let state = world.iommu.space_state(world.guest, space);
        assert_eq!(state, Ok(SpaceState::Draining), "{mode:?}");

        assert_eq!(world.iommu.service(1000).events, 1, "{mode:?}");
        assert_ne!(next_number(&mut world), pasid, "{mode:?}: it was heard of");
        silence(&world, &host);
        let state = world.iommu.space_state(world.guest, space);
        assert_eq!(state, Err(SpaceError::NoSuchSpace), "{mode:?}");
        assert_eq!(next_number(&mut world), pasid, "{mode:?}");
        world.end();
        assert_eq!(host.machine().record().violations(), []);
    }
}

/// Bug: an SMMU that is stopped records nothing, which was taken for the silence of its devices.
#[test]
fn the_silence_of_an_smmu_that_is_down_frees_no_number() {
    for mode in modes() {
        let host = host(Identity::full(), mode);
        let smmu = take_over(&host);
        let mut world = World::new(&host, &smmu, Ats::Off);
        let dma = world.dma(Ats::Off);
        let (space, pasid) = draining(&mut world);
        assert_eq!(world.iommu.halt(SMMU), Ok(Fence::Smmu));
        silence(&world, &host);
        assert_eq!(dma.write(Some(pasid), VA), None, "it fires all the same");
        silence(&world, &host);
        let state = world.iommu.space_state(world.guest, space);
        assert_eq!(state, Ok(SpaceState::Draining), "{mode:?}");

        world.iommu.recover(SMMU).expect("it is proven");
        world.iommu.service(1000);
        let state = world.iommu.space_state(world.guest, space);
        assert_eq!(state, Ok(SpaceState::Draining), "{mode:?}: from now on");
        silence(&world, &host);
        let state = world.iommu.space_state(world.guest, space);
        assert_eq!(state, Err(SpaceError::NoSuchSpace), "{mode:?}");
        assert_eq!(next_number(&mut world), pasid, "{mode:?}");
        world.end();
        assert_eq!(host.machine().record().violations(), []);
    }
}
