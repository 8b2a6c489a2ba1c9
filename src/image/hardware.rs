//! What the image has of devices beside their SMMUs: how they are reset, and cut off above them.

use core::sync::atomic::{AtomicU64, Ordering};

use portcullis::arch::{Devices, Timer};
use portcullis::check::{reset_dma_test, set_dma_test_port};
use portcullis::discover::Machine;
use portcullis::guest::description::PlannedDevice;
use portcullis::hw::{DeviceTag, Mmio, NotDone, TimedOut};
use portcullis::pci::{Ecam, Function};

use super::devices::{Ecams, Functions, MAX_FUNCTIONS, is_below};
use super::sites::{TestFrame, TestFrames};

/// All devices of the machine.
pub(crate) struct Hardware {
    pub(crate) machine: &'static Machine,
    pub(crate) functions: &'static Functions,
    pub(crate) ecams: &'static Ecams,
    tests: &'static TestFrames,
    /// A bit for each function that is cut off.
    fenced: [AtomicU64; MAX_FUNCTIONS / 64],
}

/// Tags of PCI functions have this bit, and the place in the list below.
const FUNCTION: u64 = 1 << 32;

const ABSENT: NotDone = NotDone {
    because: "there is no such device",
};

/// What the library calls a device.
pub(crate) const fn tag(device: PlannedDevice) -> DeviceTag {
    DeviceTag(match device {
        PlannedDevice::Platform(place) => place as u64,
        PlannedDevice::Function(place) => FUNCTION | place as u64,
    })
}

impl Hardware {
    pub(crate) const fn new(
        machine: &'static Machine,
        functions: &'static Functions,
        ecams: &'static Ecams,
        tests: &'static TestFrames,
    ) -> Self {
        Self {
            machine,
            functions,
            ecams,
            tests,
            fenced: [const { AtomicU64::new(0) }; MAX_FUNCTIONS / 64],
        }
    }

    /// The configuration space that a function is in.
    pub(crate) fn ecam_of(&self, function: &Function) -> Option<&'static Ecam<Mmio>> {
        let mut bridges = self.machine.bridges.iter();
        let place = bridges.position(|bridge| is_below(bridge, function))?;
        let mut ecams = self.ecams.iter();
        let (_, ecam) = ecams.find(|(bridge, _)| *bridge == place)?;
        Some(ecam)
    }

    /// The function that a tag means, its place, and its configuration space.
    fn function(&self, tag: DeviceTag) -> Option<(usize, &'static Function, &'static Ecam<Mmio>)> {
        let place = tag.0.checked_sub(FUNCTION)? as usize;
        let function = self.functions.get(place)?;
        Some((place, function, self.ecam_of(function)?))
    }

    /// The test device that a tag means.
    fn test(&self, tag: DeviceTag) -> Option<&'static TestFrame> {
        self.tests.iter().find(|test| test.place as u64 == tag.0)
    }

    fn fence_bit(&self, place: usize) -> Option<(&AtomicU64, u64)> {
        Some((self.fenced.get(place / 64)?, 1 << (place % 64)))
    }

    fn is_fenced(&self, place: usize) -> bool {
        let bit = self.fence_bit(place);
        bit.is_none_or(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Turns off every function that is not `kept`: nobody drives it.
    pub(crate) fn silence(&self, is_kept: impl Fn(usize) -> bool) {
        for (place, function) in self.functions.iter().enumerate() {
            let is_endpoint = function.kind == portcullis::pci::Kind::Endpoint;
            if is_endpoint
                && !is_kept(place)
                && let Some(ecam) = self.ecam_of(function)
            {
                // One that does not obey is behind an SMMU that aborts it, or told as unprotected.
                let _ = ecam.disable_bus_master(function.rid);
            }
        }
    }
}

impl Devices for Hardware {
    fn reset(&self, device: DeviceTag) -> Result<(), NotDone> {
        let Some((place, function, ecam)) = self.function(device) else {
            let test = self.test(device).ok_or(NotDone {
                because: "the board knows no reset for it",
            })?;
            return reset_dma_test(&test.registers, &Timer).map_err(|TimedOut { .. }| NotDone {
                because: "its reset does not end",
            });
        };
        if !function.can_reset {
            return Err(NotDone {
                because: "it has no function level reset",
            });
        }
        let is_done = ecam.reset(function.rid, &Timer).is_ok()
            && (self.is_fenced(place) || ecam.enable_bus_master(function.rid).is_ok());
        is_done.then_some(()).ok_or(NotDone {
            because: "its function level reset fails",
        })
    }

    fn fence(&self, device: DeviceTag) -> Result<(), NotDone> {
        let Some((place, function, ecam)) = self.function(device) else {
            let test = self.test(device).ok_or(NotDone {
                because: "the board has no gate above it",
            })?;
            set_dma_test_port(&test.port, true);
            return Ok(());
        };
        let (word, bit) = self.fence_bit(place).ok_or(ABSENT)?;
        word.fetch_or(bit, Ordering::Relaxed);
        ecam.disable_bus_master(function.rid).map_err(|_| NotDone {
            because: "it does not take that its bus mastering is off",
        })
    }

    fn unfence(&self, device: DeviceTag) -> Result<(), NotDone> {
        let Some((place, function, ecam)) = self.function(device) else {
            set_dma_test_port(&self.test(device).ok_or(ABSENT)?.port, false);
            return Ok(());
        };
        let (word, bit) = self.fence_bit(place).ok_or(ABSENT)?;
        word.fetch_and(!bit, Ordering::Relaxed);
        ecam.enable_bus_master(function.rid).map_err(|_| NotDone {
            because: "it does not take that its bus mastering is on",
        })
    }
}
