//! The devices that the image gives: an edu function, or an NVMe controller.

use core::cell::Cell;

use portcullis_guest::{Device, Hvc, Place, Portcullis};

use crate::memory::{Page, Registers, within};
use crate::tree::Tree;

const BAR0: u64 = 0x10;

/// A device that moves memory.
pub(crate) enum Driver {
    Edu(Registers),
    Nvme(Nvme),
}

impl Driver {
    /// The driver of our first device.
    pub(crate) fn find(tree: Tree) -> Result<(Device, Self), &'static str> {
        let device = Device(0);
        let info = Portcullis::new(Hvc).device_info(device);
        let info = info.map_err(|_| "there is no device 0")?;
        let Place::Pci {
            bus,
            device: number,
            function,
            ..
        } = info.place
        else {
            return Err("device 0 is no PCI function");
        };
        let rid = u64::from(bus) << 8 | u64::from(number) << 3 | u64::from(function);
        let ecam = tree.ecam().ok_or("no host bridge in the tree")?;
        let config = Registers(ecam + (rid << 12));
        let others = Registers(ecam + ((rid ^ 8) << 12));
        if others.read32(0) != u32::MAX {
            return Err("a function that is not ours is seen");
        }
        let low = config.read32(BAR0);
        let high = if low & 6 == 4 {
            config.read32(BAR0 + 4)
        } else {
            0
        };
        let bar = Registers(u64::from(high) << 32 | u64::from(low & !0xf));
        config.write32(BAR0, 0);
        if config.read32(BAR0) != low {
            return Err("a BAR can be moved");
        }
        let ids = config.read32(0);
        match ids {
            0x11e8_1234 => Ok((device, Self::Edu(bar))),
            _ if config.read32(8) >> 8 == 0x01_0802 => {
                let (submission, completion) = (Page::new()?, Page::new()?);
                Ok((
                    device,
                    Self::Nvme(Nvme {
                        registers: bar,
                        vendor: u64::from(ids & 0xffff),
                        submission,
                        completion,
                        moved: Cell::new(0),
                    }),
                ))
            }
            _ => Err("device 0 is one that we do not know"),
        }
    }

    /// Addresses that the device itself uses beside those it is told.
    pub(crate) fn own(&self) -> [Option<Page>; 2] {
        match self {
            Self::Edu(_) => [None; 2],
            Self::Nvme(nvme) => [Some(nvme.submission), Some(nvme.completion)],
        }
    }

    /// From now on the device finds what it uses itself so far above where it is.
    pub(crate) fn move_by(&self, bytes: u64) {
        if let Self::Nvme(nvme) = self {
            nvme.moved.set(bytes);
        }
    }

    /// Has the device write the page at `to`, as it sees it; what it writes has to do with the page
    /// at `from`, if it copies. Whether the device says that it is done.
    pub(crate) fn write(&self, from: u64, to: u64) -> bool {
        match self {
            Self::Edu(registers) => {
                edu(*registers, from, BUFFER, 0) && edu(*registers, BUFFER, to, TO_MEMORY)
            }
            Self::Nvme(nvme) => nvme.identify(to),
        }
    }

    /// Has the device read at `from` and write what it read at `to`; `None` if it does not copy.
    pub(crate) fn steal(&self, from: u64, to: u64) -> Option<bool> {
        match self {
            Self::Edu(_) => Some(self.write(from, to)),
            Self::Nvme(_) => None,
        }
    }

    /// The first word of what [`write`](Self::write) writes, with `word` at `from`, and the mask of
    /// what is known of it.
    pub(crate) fn written(&self, word: u64) -> (u64, u64) {
        match self {
            Self::Edu(_) => (word, u64::MAX),
            Self::Nvme(nvme) => (nvme.vendor, 0xffff),
        }
    }
}

/// edu's own buffer.
const BUFFER: u64 = 0x4_0000;
const TO_MEMORY: u32 = 2;
/// Its engine takes 100 ms.
const EDU_TIMEOUT_US: u64 = 5_000_000;

fn edu(registers: Registers, from: u64, to: u64, direction: u32) -> bool {
    registers.write64(0x80, from);
    registers.write64(0x88, to);
    registers.write32(0x90, 8);
    registers.write32(0x98, direction | 1);
    within(EDU_TIMEOUT_US, || registers.read32(0x98) & 1 == 0)
}

/// A controller, with an admin queue of one command after another.
pub(crate) struct Nvme {
    registers: Registers,
    vendor: u64,
    submission: Page,
    completion: Page,
    /// The controller finds its queues so far above where they are.
    moved: Cell<u64>,
}

const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
/// Entries of 64 and 16 bytes, enabled.
const ENABLED: u32 = 4 << 20 | 6 << 16 | 1;
const NVME_TIMEOUT_US: u64 = 500_000;

impl Nvme {
    /// Enables the controller, identifies it into the page at `to`, and disables it.
    fn identify(&self, to: u64) -> bool {
        let Self { registers, .. } = self;
        registers.write32(CC, 0);
        if !within(NVME_TIMEOUT_US, || registers.read32(CSTS) & 1 == 0) {
            return false;
        }
        for word in 0..16 {
            self.submission.put(word, 0);
            self.completion.put(word, 0);
        }
        registers.write32(0x24, 15 << 16 | 15);
        registers.write64(0x28, self.submission.0.wrapping_add(self.moved.get()));
        registers.write64(0x30, self.completion.0.wrapping_add(self.moved.get()));
        registers.write32(CC, ENABLED);
        if !within(NVME_TIMEOUT_US, || registers.read32(CSTS) & 1 == 1) {
            return false;
        }
        self.submission.put(0, 0x5a5a_0006);
        self.submission.put(3, to);
        self.submission.put(5, 1);
        registers.write32(0x1000, 1);
        let is_done = within(NVME_TIMEOUT_US, || self.completion.word(1) >> 48 & 1 == 1);
        registers.write32(CC, 0);
        within(NVME_TIMEOUT_US, || registers.read32(CSTS) & 1 == 0) && is_done
    }
}
