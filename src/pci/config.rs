//! Configuration space of one host bridge, and what is done to one function through it.

use super::refusal::Refusal;
use crate::addr::Iova;
use crate::discover::{Bridge, Rid};
use crate::hw::Registers;

/// PCI §6.2.2 and 6.2.3: command in the lower half, status in the upper.
pub(super) const COMMAND: u16 = 0x04;
const STATUS_HAS_CAPABILITIES: u32 = 1 << 20;
pub(super) const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
/// The command register without its status. Status bits are cleared by writing ones, so writing
/// zeroes there changes nothing.
pub(super) const COMMAND_MASK: u32 = 0xffff;

const CAPABILITIES: u16 = 0x34;
const MSI_CAPABILITY: u8 = 0x05;
/// Standard capabilities lie between the header and 0x100, 4 bytes apart at least.
const MAX_CAPABILITIES: usize = (0x100 - 0x40) / 4;

/// MSI (PCI §6.8.1): the control word is the upper half of the first register.
const MSI_ENABLE: u32 = 1 << 16;
const MSI_MESSAGES: u32 = 7 << 20;
const MSI_64_BIT: u32 = 1 << 23;

/// The message a function sends as its interrupt: a write of 4 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msi {
    /// Where it is written, as the function puts it on the bus.
    pub address: Iova,
    /// What is written; the upper half of the four bytes is 0.
    pub data: u16,
}

/// Configuration space of the buses of one host bridge, as ECAM (PCIe §7.2.2).
///
/// Every access is one aligned 32-bit access. Two CPUs must not use one function at once.
#[derive(Debug)]
pub struct Ecam<R> {
    registers: R,
    segment: u16,
    first_bus: u8,
    last_bus: u8,
}

impl<R: Registers> Ecam<R> {
    /// The configuration space of `bridge`, whose [`ecam`](Bridge::ecam) `registers` reaches whole.
    pub fn new(registers: R, bridge: &Bridge) -> Self {
        Self {
            registers,
            segment: bridge.segment,
            first_bus: bridge.first_bus,
            last_bus: bridge.last_bus,
        }
    }

    pub(super) const fn segment(&self) -> u16 {
        self.segment
    }

    pub(super) const fn first_bus(&self) -> u8 {
        self.first_bus
    }

    pub(super) const fn last_bus(&self) -> u8 {
        self.last_bus
    }

    fn place(&self, rid: Rid, offset: u16) -> Result<usize, Refusal> {
        let bus = rid.bus();
        if bus < self.first_bus || bus > self.last_bus {
            return Err(Refusal::NoSuchBus { bus });
        }
        let function = usize::from(rid.as_u16()) - (usize::from(self.first_bus) << 8);
        Ok(function << 12 | usize::from(offset & 0xffc))
    }

    /// Reads the register at `offset`, a multiple of 4 below 4096; all ones if nothing is there.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoSuchBus`].
    pub fn read(&self, rid: Rid, offset: u16) -> Result<u32, Refusal> {
        Ok(self.registers.read32(self.place(rid, offset)?))
    }

    pub(super) fn write(&self, rid: Rid, offset: u16, value: u32) -> Result<(), Refusal> {
        self.registers.write32(self.place(rid, offset)?, value);
        Ok(())
    }

    /// Writes `value` and sees that the bits in `mask` are in the register.
    pub(super) fn write_checked(
        &self,
        rid: Rid,
        offset: u16,
        value: u32,
        mask: u32,
    ) -> Result<(), Refusal> {
        self.write(rid, offset, value)?;
        let found = self.read(rid, offset)? & mask;
        let wrote = value & mask;
        if found == wrote {
            return Ok(());
        }
        Err(Refusal::Forgets {
            rid,
            offset,
            wrote,
            found,
        })
    }

    /// Lets the function answer at its BARs.
    ///
    /// # Errors
    ///
    /// [`Refusal::Forgets`] if it does not take the command; it may or may not answer then.
    pub fn enable_memory(&self, rid: Rid) -> Result<(), Refusal> {
        self.change_command(rid, 0, COMMAND_MEMORY)
    }

    /// Lets the function do DMA, and send MSIs. Where these go is the SMMU's decision.
    ///
    /// # Errors
    ///
    /// [`Refusal::Forgets`] if it does not take the command.
    pub fn enable_bus_master(&self, rid: Rid) -> Result<(), Refusal> {
        self.change_command(rid, 0, COMMAND_BUS_MASTER)
    }

    /// Forbids the function DMA and MSIs. What it has on the way may still arrive.
    ///
    /// # Errors
    ///
    /// [`Refusal::Forgets`] if it does not obey: nothing but the SMMU holds it then.
    pub fn disable_bus_master(&self, rid: Rid) -> Result<(), Refusal> {
        self.change_command(rid, COMMAND_BUS_MASTER, 0)
    }

    /// Turns memory, I/O, bus mastering and all else off that the command register turns on.
    pub(super) fn turn_off(&self, rid: Rid) -> Result<(), Refusal> {
        let may_stay = COMMAND_MEMORY | COMMAND_BUS_MASTER | 1;
        self.write_checked(rid, COMMAND, 0, may_stay)
    }

    fn change_command(&self, rid: Rid, clear: u32, set: u32) -> Result<(), Refusal> {
        let old = self.read(rid, COMMAND)?;
        if old == u32::MAX {
            return Err(Refusal::Absent { rid });
        }
        let new = old & COMMAND_MASK & !clear | set;
        self.write_checked(rid, COMMAND, new, clear | set)
    }

    /// Where the capability `id` of the function is, in bytes.
    ///
    /// # Errors
    ///
    /// [`Refusal::CapabilityPlace`] and [`Refusal::CapabilityLoop`] if its list makes no sense,
    /// [`Refusal::NoCapability`] if it is not in it.
    pub fn capability(&self, rid: Rid, id: u8) -> Result<u16, Refusal> {
        let absent = Refusal::NoCapability { rid, id };
        let status = self.read(rid, COMMAND)?;
        if status == u32::MAX || status & STATUS_HAS_CAPABILITIES == 0 {
            return Err(absent);
        }
        let mut next = self.read(rid, CAPABILITIES)? as u8;
        for _ in 0..MAX_CAPABILITIES {
            // The lowest two bits are reserved (PCI §6.7).
            let offset = next & !3;
            match offset {
                0 => return Err(absent),
                1..0x40 => return Err(Refusal::CapabilityPlace { rid, offset }),
                _ => {}
            }
            let [found, after, ..] = self.read(rid, offset.into())?.to_le_bytes();
            if found == id {
                return Ok(offset.into());
            }
            next = after;
        }
        Err(Refusal::CapabilityLoop { rid })
    }

    /// Makes the function send `msi`, and no other message, as its interrupt.
    ///
    /// # Errors
    ///
    /// Those of [`Ecam::capability`], [`Refusal::MsiAddress`], and [`Refusal::Forgets`]; its MSIs
    /// are off then, if it obeys.
    pub fn set_msi(&self, rid: Rid, msi: Msi) -> Result<(), Refusal> {
        let at = self.capability(rid, MSI_CAPABILITY)?;
        let control = self.read(rid, at)?;
        let off = control & !(MSI_ENABLE | MSI_MESSAGES);
        self.write_checked(rid, at, off, MSI_ENABLE)?;
        let address = msi.address.as_u64();
        let is_64_bit = control & MSI_64_BIT != 0;
        if !msi.address.is_aligned(2) || (!is_64_bit && address >> 32 != 0) {
            return Err(Refusal::MsiAddress {
                rid,
                address: msi.address,
            });
        }
        self.write_checked(rid, at + 4, address as u32, !3)?;
        let data_at = if is_64_bit {
            self.write_checked(rid, at + 8, (address >> 32) as u32, u32::MAX)?;
            at + 12
        } else {
            at + 8
        };
        self.write_checked(rid, data_at, msi.data.into(), 0xffff)?;
        self.write_checked(rid, at, off | MSI_ENABLE, MSI_ENABLE | MSI_MESSAGES)
    }
}
