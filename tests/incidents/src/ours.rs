//! Portcullis on the same steps, by its public API.

use std::collections::BTreeMap;

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::Platform;
use portcullis::smmu::Smmu;
use portcullis::space::stage2::PageSizes;
use portcullis::space::{
    Acquired, By, Claim, DeviceDescription, DeviceId, GroupId, GuestId, Handle, Iommu,
    IommuSettings, Owner, Ownership, ResetPolicy, Settled, SpaceError, SpaceId,
};
use portcullis::spec::ste::{Ats, Untagged};
use portcullis::spec::vmsa::Attributes;
use portcullis_embedder::Hypervisor;
use portcullis_embedder::dma::Dma;
use portcullis_embedder::world::{self, SMMU, STREAM, TAG, VA, World};
use smmu_model::{Identity, Mode, Rule};

use crate::side::{Exit, Groups, Spaces, rules};
use crate::tell::Played;

struct Process {
    space: SpaceId,
    page: Pa,
}

struct Ours<'p> {
    host: &'p Hypervisor,
    world: World<'p>,
    dma: Dma<'p>,
    processes: BTreeMap<&'static str, Process>,
    files: BTreeMap<&'static str, Handle>,
}

/// Plays on a guest of Portcullis' whose processes bind one device.
pub(crate) fn with_spaces(play: impl FnOnce(&mut dyn Spaces) -> Played) -> Played {
    let host = world::host(Identity::full(), Mode::Hoarding);
    let smmu = world::take_over(&host);
    let world = World::new(&host, &smmu, Ats::Off);
    let dma = world.dma(Ats::Off);
    let mut ours = Ours {
        host: &host,
        world,
        dma,
        processes: BTreeMap::new(),
        files: BTreeMap::new(),
    };
    let mut played = play(&mut ours);
    ours.world.end();
    // What is left when all is over counts as well.
    played.objections = rules(host.machine().record());
    played
}

fn said(error: SpaceError) -> String {
    format!("refused: {error}")
}

impl Spaces for Ours<'_> {
    fn start(&mut self, process: &'static str) {
        let (space, page) = self.world.space();
        self.processes.insert(process, Process { space, page });
    }

    fn page(&self, process: &str) -> u64 {
        self.processes[process].page.as_u64()
    }

    fn bind(&mut self, process: &str, holder: &'static str) -> Result<u32, String> {
        let World {
            iommu,
            guest,
            device,
            ..
        } = &self.world;
        let space = self.processes[process].space;
        let handle = iommu
            .bind(*guest, space, *device, By::Pasid)
            .map_err(said)?;
        self.files.insert(holder, handle);
        let number = iommu.pasid_of(*guest, space).map_err(said)?;
        Ok(number.pasid.as_u32())
    }

    fn exit(&mut self, process: &str) -> Exit {
        let space = self.processes[process].space;
        match self.world.iommu.release(self.world.guest, space) {
            Ok(()) => Exit::Gone,
            Err(error) => Exit::Kept(said(error)),
        }
    }

    fn close(&mut self, holder: &str) -> Result<(), String> {
        let handle = self
            .files
            .remove(holder)
            .ok_or_else(|| "it is not open".to_owned())?;
        self.world
            .iommu
            .unbind(self.world.guest, handle)
            .map_err(said)
    }

    /// Nobody asks holders anything.
    fn fall_silent(&mut self, _: &'static str) {}

    /// A mapping keeps the handle, which keeps the number, and nothing else.
    fn map_file(&mut self, _: &'static str, _: &'static str) {}

    fn fire(&mut self, number: u32) -> Option<u64> {
        let landed = self.dma.write(Some(number), VA).map(Pa::as_u64);
        self.world.iommu.service(64);
        landed
    }

    fn objections(&self) -> Vec<Rule> {
        rules(self.host.machine().record())
    }
}

struct OurGroup<'a, 'p> {
    host: &'p Hypervisor,
    smmu: &'p Smmu<'p, Hypervisor>,
    iommu: &'a Iommu<'p, Hypervisor>,
    group: GroupId,
    device: DeviceId,
    guest: GuestId,
    dma: Dma<'p>,
    page: u64,
    claim: Option<Claim<'a, 'p, Hypervisor>>,
    token: Option<Ownership>,
}

/// Plays on a group whose SMMU is not there yet, and a guest that may get it.
pub(crate) fn with_groups(play: impl FnOnce(&mut dyn Groups) -> Played) -> Played {
    let host = world::host(Identity::full(), Mode::Hoarding);
    let smmu = world::take_over(&host);
    let iommu = Iommu::new(&host, IommuSettings::default()).expect("there is memory");
    let group = iommu.add_group().expect("there is room");
    let description = DeviceDescription {
        tag: TAG,
        smmu: Some(SMMU),
        streams: &[STREAM],
        pasid_bits: 0,
        can_stall: false,
        ats: Ats::Off,
        reset: ResetPolicy::Needed,
    };
    let device = iommu.add_device(group, &description).expect("it is new");
    let guest = iommu
        .create_guest(&world::config())
        .expect("there is memory");
    let page = host.allocate(12).expect("there is memory");
    let (ipa, sizes) = (Ipa::new(VA), PageSizes::PagesOnly);
    iommu
        .map(guest, ipa, page.base(), 0x1000, Attributes::MEMORY, sizes)
        .expect("it is mapped");
    let dma = Dma::new(&host, STREAM);
    dma.wire(TAG);
    let mut ours = OurGroup {
        host: &host,
        smmu: &smmu,
        iommu: &iommu,
        group,
        device,
        guest,
        dma,
        page: page.base().as_u64(),
        claim: None,
        token: None,
    };
    let mut played = play(&mut ours);
    drop(ours);
    iommu.destroy_guest(guest).expect("it ends");
    host.free(page);
    played.objections = rules(host.machine().record());
    played
}

impl Groups for OurGroup<'_, '_> {
    fn use_early(&mut self) -> String {
        match self.iommu.acquire(self.group, Owner::Host) {
            Ok(Acquired::Owned(token)) => {
                self.token = Some(token);
                "owned".to_owned()
            }
            Ok(Acquired::Deferred(claim)) => {
                self.claim = Some(claim);
                "deferred: a claim, no success".to_owned()
            }
            Err(error) => said(error),
        }
    }

    fn smmu_comes(&mut self) -> String {
        if let Err(error) = self.iommu.add_smmu(SMMU, self.smmu) {
            return said(error);
        }
        match self.claim.take().map(Claim::settle) {
            Some(Ok(Settled::Owned(token))) => {
                self.token = Some(token);
                "the claim is settled: host's".to_owned()
            }
            Some(Ok(Settled::Waiting(claim))) => {
                self.claim = Some(claim);
                "still deferred".to_owned()
            }
            Some(Err(error)) => said(error),
            None => "nobody claims it".to_owned(),
        }
    }

    fn unuse(&mut self) -> Result<String, String> {
        let token = self
            .token
            .take()
            .ok_or_else(|| "there is no token".to_owned())?;
        match self.iommu.disown(token) {
            Ok(()) => Ok("the token is spent".to_owned()),
            Err(kept) => Err(said(kept.error)),
        }
    }

    fn assign(&mut self) -> Result<(), String> {
        let owner = Owner::Guest(self.guest);
        // The guest's token goes with the guest.
        let _token = self.iommu.acquire(self.group, owner).map_err(said)?;
        self.iommu
            .attach(self.guest, self.device, Untagged::Stage2)
            .map_err(said)
    }

    fn fire(&mut self) -> Option<u64> {
        self.dma.write(None, VA).map(Pa::as_u64)
    }

    fn guest_page(&self) -> u64 {
        self.page
    }

    fn objections(&self) -> Vec<Rule> {
        rules(self.host.machine().record())
    }
}
