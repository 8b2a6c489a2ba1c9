//! Guests, spaces and devices by the public API of the heart, against the hostile model.

use portcullis::addr::Iova;
use portcullis::space::{By, SpaceError, SpaceState};
use portcullis::spec::ste::Ats;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::world::{VA, World, modes, take_over};
use smmu_model::Identity;

#[test]
fn a_space_lives_is_released_and_its_number_comes_back_after_the_last_handle() {
    for mode in modes() {
        for ats in [Ats::Off, Ats::Split, Ats::Full] {
            let host = Hypervisor::new(Identity::full(), mode);
            let smmu = take_over(&host);
            let mut world = World::new(&host, &smmu, ats);
            let dma = world.dma(ats);
            let (guest, device) = (world.guest, world.device);
            let (space, at) = world.space();
            let (other, other_at) = world.space();
            let iommu = &world.iommu;
            let pasid = iommu.pasid_of(guest, space).expect("it is there").pasid;
            let other_pasid = iommu.pasid_of(guest, other).expect("it is there").pasid;
            assert_ne!(pasid, other_pasid);
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), None, "not bound");
            let first = iommu.bind(guest, space, device, By::Pasid).expect("bound");
            let second = iommu
                .bind(guest, space, device, By::Pasid)
                .expect("bound again");
            let third = iommu.bind(guest, other, device, By::Pasid).expect("bound");
            assert_ne!(first, second);
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), Some(at));
            assert_eq!(dma.write(Some(other_pasid.as_u32()), VA), Some(other_at));
            iommu.unbind(guest, first).expect("dropped");
            assert_eq!(iommu.unbind(guest, first), Err(SpaceError::NoSuchHandle));
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), Some(at));
            iommu.release(guest, space).expect("released");
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), None);
            assert_eq!(dma.write(Some(other_pasid.as_u32()), VA), Some(other_at));
            assert_eq!(
                iommu.release(guest, space),
                Err(SpaceError::AlreadyReleased)
            );
            assert_eq!(
                iommu.bind(guest, space, device, By::Pasid),
                Err(SpaceError::Released)
            );
            assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Parked));
            iommu.unbind(guest, second).expect("dropped");
            assert_eq!(iommu.space_state(guest, space), Ok(SpaceState::Draining));
            assert_eq!(dma.write(Some(pasid.as_u32()), VA), None);
            host.machine().advance(20_000);
            iommu.service(1000);
            let state = iommu.space_state(guest, space);
            assert_eq!(state, Ok(SpaceState::Draining), "it was heard of");
            host.machine().advance(20_000);
            iommu.service(1000);
            assert_eq!(
                iommu.space_state(guest, space),
                Err(SpaceError::NoSuchSpace)
            );
            iommu
                .invalidate(guest, other, Iova::new(VA), 0x1000)
                .expect("invalidated");
            assert_eq!(dma.write(Some(other_pasid.as_u32()), VA), Some(other_at));
            iommu.tidy(guest).expect("tidied");
            iommu.unbind(guest, third).expect("dropped");
            world.end();
            assert_eq!(host.machine().record().violations(), [], "{mode:?} {ats:?}");
        }
    }
}
