//! Guests: their memory, their numbers, and their end.

use super::books::{Drains, OfGuest, Space};
use super::device::Device;
use super::error::SpaceError;
use super::faults::{Fault, Stall};
use super::ids::{GuestId, SmmuSet};
use super::iommu::{Gate, Iommu};
use super::leftovers::Leftovers;
use super::list::List;
use super::memory::Memory;
use super::numbers::{Ask, Numbers};
use super::settings::{GuestConfig, Quota};
use crate::hw::{CpuTlb, Lock, NoFrames, Platform, Ring, Shared};
use crate::id::Vmid;
use crate::spec::vmsa::{CpuWalk, Stage2Walk};

/// Number 0 is nobody's, of PASIDs and of ASIDs.
const FIRST_NUMBER: u32 = 1;
const ASID_BITS: u8 = 16;
const PASID_BITS_MAX: u8 = 20;
/// The faults that are kept for a guest: a page of them.
const LOG2_FAULT_BYTES: u8 = 12;

/// Where a guest is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestLife {
    /// It does what it likes.
    Running,
    /// Its streams are being stopped.
    Dying,
    /// Its streams were stopped, and hardware did not confirm all of it: its memory and its VMID
    /// stay out of use.
    Lost,
}

/// A guest's PASIDs, its ASIDs, and its faults.
type Parts<'p, P> = (Numbers<'p, P>, Numbers<'p, P>, Ring<'p, P, Fault>);

/// A guest's memory, for whoever is at work on it.
pub(super) type SharedMemory<'p, P> = Shared<'p, P, Lock<Memory<'p, P>>>;

/// One guest.
pub(super) struct Guest<'p, P: Platform> {
    pub(super) memory: SharedMemory<'p, P>,
    pub(super) vmid: Vmid,
    pub(super) life: GuestLife,
    pub(super) gate: Gate,
    pub(super) quota: Quota,
    pub(super) pasid_bits: u8,
    pub(super) pasids: Numbers<'p, P>,
    pub(super) asids: Numbers<'p, P>,
    pub(super) spaces: List<Space, OfGuest>,
    pub(super) draining: List<Space, Drains>,
    pub(super) devices: List<Device<'p, P>, OfGuest>,
    pub(super) stalls: List<Stall, OfGuest>,
    pub(super) leftovers: Leftovers<'p, P>,
    pub(super) bindings: u32,
    pub(super) handles: u32,
    pub(super) faults: Ring<'p, P, Fault>,
    pub(super) lost_faults: u64,
    /// SMMUs on which its VMID has been used since it was last clean there.
    pub(super) live_on: SmmuSet,
    /// SMMUs that did not confirm that they forgot something of its memory.
    pub(super) unproven: SmmuSet,
    /// How many recoveries had begun when one of them did not, last.
    pub(super) lost_at: u64,
    /// What was said of it then.
    pub(super) lost_by: Option<SpaceError>,
    /// Where it was unmapped while one of them did not confirm that: from the first such address to
    /// the end of the last.
    pub(super) lost_range: Option<(u64, u64)>,
}

impl<'p, P: Platform> Guest<'p, P> {
    /// A guest with nothing but its memory, which is given back if there is no room for the rest.
    pub(super) fn new(
        platform: &'p P,
        (pasid_bits, quota, vmid): (u8, Quota, Vmid),
        memory: Memory<'p, P>,
    ) -> Result<Self, SpaceError> {
        match Self::parts(platform, pasid_bits) {
            Ok((pasids, asids, faults)) => match Shared::new(platform, Lock::new(memory)) {
                Ok(memory) => Ok(Self {
                    memory,
                    vmid,
                    life: GuestLife::Running,
                    gate: Gate::default(),
                    quota,
                    pasid_bits,
                    pasids,
                    asids,
                    spaces: List::default(),
                    draining: List::default(),
                    devices: List::default(),
                    stalls: List::default(),
                    leftovers: Leftovers::new(),
                    bindings: 0,
                    handles: 0,
                    faults,
                    lost_faults: 0,
                    live_on: SmmuSet::EMPTY,
                    unproven: SmmuSet::EMPTY,
                    lost_at: 0,
                    lost_by: None,
                    lost_range: None,
                }),
                Err((memory, NoFrames { log2_bytes })) => {
                    pasids.free();
                    asids.free();
                    faults.free();
                    memory.into_inner().free(platform);
                    Err(SpaceError::NoFrames { log2_bytes })
                }
            },
            Err(error) => {
                memory.free(platform);
                Err(error)
            }
        }
    }

    fn parts(platform: &'p P, pasid_bits: u8) -> Result<Parts<'p, P>, SpaceError> {
        if !(1..=PASID_BITS_MAX).contains(&pasid_bits) {
            return Err(SpaceError::PasidOutOfRange);
        }
        let pasids =
            Numbers::new(platform, FIRST_NUMBER, pasid_bits).map_err(SpaceError::of_pasid)?;
        let asids = match Numbers::new(platform, FIRST_NUMBER, ASID_BITS) {
            Ok(asids) => asids,
            Err(why) => {
                pasids.free();
                return Err(SpaceError::of_asid(why));
            }
        };
        match Ring::new(platform, LOG2_FAULT_BYTES) {
            Ok(faults) => Ok((pasids, asids, faults)),
            Err(NoFrames { log2_bytes }) => {
                pasids.free();
                asids.free();
                Err(SpaceError::NoFrames { log2_bytes })
            }
        }
    }

    /// Gives all of its memory back: nothing of it is in hardware, and nobody is at work on it.
    pub(super) fn free(self, platform: &P) {
        self.pasids.free();
        self.asids.free();
        self.faults.free();
        if let Ok(memory) = self.memory.try_into_inner() {
            memory.into_inner().free(platform);
        }
    }
}

impl<'p, P: Platform> Iommu<'p, P> {
    /// Makes a guest: a stage 2 that maps nothing, a window of CDs in it, and number spaces.
    ///
    /// All SMMUs that were added can walk its tables; one that is added later and cannot refuses at
    /// [`attach`](Self::attach). Takes the root of the tables and 3 pages, and
    /// a record; the books of numbers come with the first numbers.
    ///
    /// # Errors
    ///
    /// [`NoVmid`](SpaceError::NoVmid), [`NoFrames`](SpaceError::NoFrames), [`Full`](SpaceError::Full),
    /// [`Unwalkable`](SpaceError::Unwalkable), [`Stage2`](SpaceError::Stage2),
    /// [`Window`](SpaceError::Window); [`PasidOutOfRange`](SpaceError::PasidOutOfRange) if
    /// `pasid_bits` is not 1 to 20.
    pub fn create_guest(&self, config: &GuestConfig) -> Result<GuestId, SpaceError> {
        self.make_guest(config, None)
    }

    /// As [`create_guest`](Self::create_guest), for CPUs too: they walk the same tables from a root
    /// of their own ([`cpu_walk_of`](Self::cpu_walk_of)), and `tlb` tells them of every change.
    ///
    /// What the window of CDs lies in, a whole entry of the root, is not in the CPUs' view. Takes as
    /// much memory again for their root.
    ///
    /// # Errors
    ///
    /// As [`create_guest`](Self::create_guest).
    pub fn create_guest_with_cpus(
        &self,
        config: &GuestConfig,
        tlb: &'p dyn CpuTlb,
    ) -> Result<GuestId, SpaceError> {
        self.make_guest(config, Some(tlb))
    }

    fn make_guest(
        &self,
        config: &GuestConfig,
        cpus: Option<&'p dyn CpuTlb>,
    ) -> Result<GuestId, SpaceError> {
        let bits = self.least(|features| features.vmid_bits).min(16);
        let number = self
            .books()
            .vmids
            .take(Ask::AtMostBits(bits))
            .map_err(SpaceError::of_vmid)?;
        // At most 16 bits, as `Numbers` was made.
        let vmid = Vmid::new(number as u16);
        let features = self.all().map(|(id, smmu)| (id, smmu.features()));
        let made = Memory::new(self.platform(), config, vmid, features, cpus).and_then(|memory| {
            let parts = (config.pasid_bits, config.quota, vmid);
            Guest::new(self.platform(), parts, memory)
        });
        let mut books = self.books();
        let inserted = made.and_then(|guest| {
            books.guests.insert(guest).map_err(|(guest, why)| {
                guest.free(self.platform());
                why.into()
            })
        });
        if inserted.is_err() {
            // It was taken above, and nothing ever had it.
            let _ = books.vmids.put_back(number);
        }
        inserted.map(GuestId::of)
    }

    /// What CPUs and streams must say to walk the guest's stage 2.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Busy`](SpaceError::Busy).
    pub fn stage2_of(&self, guest: GuestId) -> Result<Stage2Walk, SpaceError> {
        let (memory, _visit) = self.join(guest, None, |books| {
            Ok(books.running(guest)?.memory.clone())
        })?;
        let walk = memory.lock(self.platform()).walk();
        Ok(walk)
    }

    /// What a CPU's registers must say to walk the guest's stage 2 from the CPUs' root; `None` for a
    /// guest that was made without CPUs.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest), [`GuestEnding`](SpaceError::GuestEnding),
    /// [`Busy`](SpaceError::Busy).
    pub fn cpu_walk_of(&self, guest: GuestId) -> Result<Option<CpuWalk>, SpaceError> {
        let (memory, _visit) = self.join(guest, None, |books| {
            Ok(books.running(guest)?.memory.clone())
        })?;
        let walk = memory.lock(self.platform()).cpu_walk();
        Ok(walk)
    }

    /// Where a guest is in its life.
    ///
    /// # Errors
    ///
    /// [`NoSuchGuest`](SpaceError::NoSuchGuest): it never was, or is gone with all its numbers and
    /// frames given back.
    pub fn life_of(&self, guest: GuestId) -> Result<GuestLife, SpaceError> {
        Ok(self.books().guest(guest)?.life)
    }

    pub(super) fn memory_of(&self, guest: GuestId) -> Result<SharedMemory<'p, P>, SpaceError> {
        Ok(self.books().guest(guest)?.memory.clone())
    }
}
