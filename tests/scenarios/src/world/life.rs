//! What kernels do with the spaces of their processes.

use portcullis::addr::Iova;
use portcullis::id::{StreamId, SubstreamId};
use portcullis::space::{Answer, By, Fault, GuestId, Handle, SpaceError, SpaceState};
use smmu_model::Claim;

use super::guest::Guest;
use super::hardware::Device;
use super::process::{Process, VA};
use super::{QUARANTINE_US, World};

impl<'h> World<'h> {
    /// A process opens a device's queue.
    pub fn bind(&self, process: &Process, device: &Device) -> Handle {
        let bound = self.try_bind(process, device);
        bound.expect("nothing speaks against it")
    }

    /// As [`bind`](Self::bind), where something may.
    ///
    /// # Errors
    ///
    /// What the library refuses.
    pub fn try_bind(&self, process: &Process, device: &Device) -> Result<Handle, SpaceError> {
        self.say(|| format!("{} is bound to {}", process.name, device.name));
        let bound = self
            .iommu
            .bind(process.guest, process.space, device.id, By::Pasid);
        match &bound {
            Ok(_) => self.expect_known_asid(process, device),
            Err(error) => self.say(|| format!("  refused: {error}")),
        }
        bound
    }

    /// What the model was told of the space's ASID is true.
    fn expect_known_asid(&self, process: &Process, device: &Device) {
        let Some(asid) = process.asid else { return };
        let substream = SubstreamId::new(process.pasid);
        let stream = StreamId::new(device.stream);
        let seen = self.smmus[device.smmu].explain(stream, substream, Iova::new(VA));
        // In a race it may be gone again.
        if let Some(context) = seen.context
            && context.word >> 31 & 1 != 0
        {
            assert_eq!(context.asid.as_u16(), asid, "the ASID of {}", process.name);
        }
    }

    /// A handle is dropped.
    pub fn close(&self, guest: &Guest, handle: Handle) {
        self.try_close(guest, handle).expect("it is open");
    }

    /// As [`close`](Self::close), where it may be refused, or not confirmed.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn try_close(&self, guest: &Guest, handle: Handle) -> Result<(), SpaceError> {
        self.say(|| format!("{} drops a handle", guest.name));
        let closed = self.iommu.unbind(guest.id, handle);
        if let Err(error) = &closed {
            self.say(|| format!("  {error}"));
        }
        closed
    }

    /// A process' space is released: it exits, or replaces it. Its memory is used again at once.
    pub fn release(&self, process: &Process) {
        self.try_release(process).expect("hardware confirms");
        self.reuse_memory(process);
    }

    /// As [`release`](Self::release), where it may be refused, or not confirmed; the memory is not
    /// used again.
    ///
    /// # Errors
    ///
    /// What the library says.
    pub fn try_release(&self, process: &Process) -> Result<(), SpaceError> {
        self.say(|| format!("{} is released", process.name));
        self.claim_release(process, true);
        let released = self.iommu.release(process.guest, process.space);
        match &released {
            Ok(()) => self.claim_release(process, false),
            Err(error) => self.say(|| format!("  {error}")),
        }
        released
    }

    /// The model hears that a release begins, or that it has ended: then nothing may be left.
    pub fn claim_release(&self, process: &Process, begins: bool) {
        let vmid = process.vmid;
        if let Some(asid) = process.asid {
            self.host.machine().claim(if begins {
                Claim::ReleaseBegins { vmid, asid }
            } else {
                Claim::ReleaseEnds { vmid, asid }
            });
        }
    }

    /// A guest starts over: all of its spaces are released, and all of its handles dropped.
    pub fn start_over(&self, guest: &Guest) {
        self.say(|| format!("{} starts over", guest.name));
        let live: Vec<_> = self
            .all_processes()
            .into_iter()
            .filter(|it| it.guest == guest.id && self.state(it) == Ok(SpaceState::Live))
            .collect();
        live.iter().for_each(|it| self.claim_release(it, true));
        self.iommu.release_all(guest.id).expect("hardware confirms");
        live.iter().for_each(|it| self.claim_release(it, false));
        live.iter().for_each(|it| self.reuse_memory(it));
    }

    /// Where the space of a process is in its life.
    ///
    /// # Errors
    ///
    /// [`NoSuchSpace`](SpaceError::NoSuchSpace) when its number is free, or another's.
    pub fn state(&self, process: &Process) -> Result<SpaceState, SpaceError> {
        self.iommu.space_state(process.guest, process.space)
    }

    /// The number is reserved by a handle that is open.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn is_parked(&self, process: &Process) {
        assert_eq!(
            self.state(process),
            Ok(SpaceState::Parked),
            "{}",
            process.name
        );
    }

    /// Nobody holds the number any more: it drains, and after its silence it is free.
    ///
    /// # Panics
    ///
    /// If it is reserved, free too early, or not free then.
    pub fn becomes_free(&self, process: &Process) {
        assert_eq!(
            self.state(process),
            Ok(SpaceState::Draining),
            "{}",
            process.name
        );
        // What was recorded of it is read late, and begins its silence again; not more than that.
        for _ in 0..3 {
            self.pass(QUARANTINE_US);
        }
        assert_eq!(
            self.state(process),
            Err(SpaceError::NoSuchSpace),
            "{}",
            process.name
        );
        self.say(|| format!("the number of {} is free", process.name));
    }

    /// A space that was released without a handle comes to its end.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn becomes_gone(&self, process: &Process) {
        if self.state(process).is_ok() {
            self.becomes_free(process);
        }
    }

    /// The guest says that it changed its tables at [`VA`].
    pub fn invalidate(&self, process: &Process) {
        self.say(|| format!("{} has {VA:#x} invalidated", process.name));
        self.iommu
            .invalidate(process.guest, process.space, Iova::new(VA), 0x1000)
            .expect("hardware confirms");
    }

    /// A guest detaches a device to which nothing is bound.
    pub fn detach(&self, device: &Device, guest: &Guest) {
        self.say(|| format!("{} detaches {}", guest.name, device.name));
        let detached = self.iommu.detach(guest.id, device.id);
        detached.expect("hardware confirms");
        self.note_attached(device, None);
    }

    /// A guest reads its faults and has all that waits for an answer aborted.
    pub fn answer_all(&self, guest: &Guest) {
        self.pass(10);
        for fault in self.faults(guest) {
            if let Some(id) = fault.id {
                let answered = self.iommu.answer(guest.id, id, Answer::Abort);
                answered.expect("it waits");
            }
        }
        self.pass(10);
        self.settle();
    }

    /// The next fault that a guest reads.
    pub fn fault(&self, guest: &Guest) -> Option<Fault> {
        let fault = self.iommu.next_fault(guest.id).expect("it runs");
        if let Some(fault) = &fault {
            self.say(|| {
                format!(
                    "{} reads {:?} at {:?}",
                    guest.name, fault.kind, fault.address
                )
            });
        }
        fault
    }

    /// All faults that a guest has not read yet.
    pub fn faults(&self, guest: &Guest) -> Vec<Fault> {
        std::iter::from_fn(|| self.fault(guest)).collect()
    }

    /// Handles, bindings and numbers that a guest has.
    ///
    /// # Panics
    ///
    /// If the guest is gone.
    pub fn has(&self, guest: GuestId) -> [u32; 3] {
        let counts = self.iommu.counts(guest).expect("it is there");
        [counts.handles, counts.bindings, counts.pasids]
    }
}
