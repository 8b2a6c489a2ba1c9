//! What a call needs of the hypervisor around it.

use crate::addr::Ipa;
use crate::hw::Platform;
use crate::space::{DeviceId, GuestId, Iommu, Quota};

/// What the hypervisor around the calls knows of guests, and does for them.
///
/// All methods may be called from any CPU at once, for a guest that runs.
pub trait GuestWorld<'p, P: Platform> {
    /// All SMMUs.
    fn iommu(&self) -> &Iommu<'p, P>;

    /// What a guest may have, and how long it may have to wait.
    fn limits(&self, guest: GuestId) -> Limits;

    /// A guest's device of this number; numbers go from 0 without a gap, and stay.
    fn device(&self, guest: GuestId, number: u32) -> Option<GuestDevice>;

    /// Copies bytes of a guest's own memory, whatever it does to them meanwhile.
    ///
    /// # Errors
    ///
    /// [`NotItsMemory`]: some of it is none; `into` holds anything then.
    fn read(&self, guest: GuestId, from: Ipa, into: &mut [u8]) -> Result<(), NotItsMemory>;

    /// Puts bytes of a guest onto the console; each line with the guest's name before it.
    fn console(&self, guest: GuestId, vcpu: u32, bytes: &[u8]);

    /// Takes the oldest bytes out of what EL2 has logged of a guest; how many there were.
    fn log(&self, guest: GuestId, into: &mut [u8]) -> usize;
}

/// What a guest may have, and how long it may have to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How many CPUs it has.
    pub vcpus: u32,
    /// How much it may have.
    pub quota: Quota,
    /// Its PASIDs have so many bits.
    pub pasid_bits: u8,
    /// After how long a stalled transaction is aborted, in microseconds.
    pub stall_deadline_us: u64,
    /// How long a number that nobody holds must not be heard of, in microseconds.
    pub quarantine_us: u64,
    /// How long a call waits for another CPU's on the same object, in microseconds.
    pub wait_us: u64,
}

/// A device of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestDevice {
    /// What it is to the library.
    pub id: DeviceId,
    /// Where the guest finds it.
    pub place: Place,
    /// Its PASIDs have so many bits; 0: it has none.
    pub pasid_bits: u8,
    /// Its transactions bear to wait.
    pub can_stall: bool,
    /// It may cache translations.
    pub has_ats: bool,
}

/// Where a guest finds a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At this address.
    Mmio(Ipa),
    /// On PCI.
    Pci {
        /// The segment.
        segment: u16,
        /// The bus.
        bus: u8,
        /// The device, 0 to 31.
        device: u8,
        /// The function, 0 to 7.
        function: u8,
    },
}

/// Some bytes are not the guest's own memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotItsMemory {
    /// The first byte that is not.
    pub at: Ipa,
}
