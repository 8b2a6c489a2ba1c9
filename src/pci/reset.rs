//! Function level reset (PCIe §6.6.2): one function becomes what it was at power-on, and nothing
//! of its former owner's is left in it.

use super::bar::BAR0;
use super::config::{COMMAND, COMMAND_MASK, COMMAND_MEMORY, Ecam};
use super::refusal::Refusal;
use super::scan::EXPRESS_CAPABILITY;
use crate::discover::Rid;
use crate::hw::{Clock, Registers, TimedOut, wait_until};

const HEADER: u16 = 0x0c;
/// From the capability's start (PCIe §7.5.3.3, 7.5.3.4): what the device can do, then its control
/// in the lower half and its status in the upper.
const DEVICE_CAPABILITIES: u16 = 4;
const DEVICE_CONTROL: u16 = 8;
const CAN_RESET: u32 = 1 << 28;
const INITIATE_RESET: u32 = 1 << 15;
const TRANSACTIONS_PENDING: u32 = 1 << 21;
/// Device control without its status, which is cleared by writing ones.
const CONTROL_MASK: u32 = 0xffff;

/// How long a function may have transactions pending after its bus mastering went off: what it
/// waits for is answered or given up within its completion timeout, 50 ms unless set otherwise.
const PENDING_TIMEOUT_US: u64 = 1_000_000;
/// For so long the function need not answer, and may not be asked (PCIe §6.6.2).
const SILENCE_US: u64 = 100_000;
/// How long it may then go on not to answer (PCIe §6.6.1: 1 s from the reset).
const READY_TIMEOUT_US: u64 = 1_000_000;

/// What a reset clears and the function's place in the machine depends on.
struct Saved {
    ids: u32,
    command: u32,
    bars: [u32; 6],
    control: u32,
}

impl<R: Registers> Ecam<R> {
    /// Whether the function can be reset by itself.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoReset`] if not; [`Refusal::Absent`], [`Refusal::Header`] if it is a bridge, and
    /// those of [`Ecam::capability`].
    pub fn can_reset(&self, rid: Rid) -> Result<(), Refusal> {
        self.express(rid).map(|_| ())
    }

    /// Resets the function, and waits until it is back with nothing pending.
    ///
    /// Afterwards it holds nothing of its former owner's: its BARs are where they were and its
    /// memory answers as before, bus mastering is off, and so is everything else that a
    /// capability can turn on. What is behind the BARs is as at power-on.
    ///
    /// It is first made silent, and what it had asked for is answered: a completion that came
    /// after the reset could be taken for the answer to the next owner's read. Waits 100 ms, at
    /// most 3.1 s; nothing is asked of the function for 100 ms after the reset was begun.
    ///
    /// # Errors
    ///
    /// As [`can_reset`](Self::can_reset), and nothing was changed. [`Refusal::Pending`],
    /// [`Refusal::NotBack`], [`Refusal::Forgets`]: its bus mastering is off, unless that is what it
    /// forgets, and it may hold anything.
    pub fn reset(&self, rid: Rid, clock: &impl Clock) -> Result<(), Refusal> {
        let express = self.express(rid)?;
        let saved = self.save(rid, express)?;
        self.disable_bus_master(rid)?;
        self.until_nothing_pending(rid, express, clock)?;
        let control = express + DEVICE_CONTROL;
        self.write(rid, control, saved.control | INITIATE_RESET)?;
        // It has nothing to answer to: the whole time goes by.
        let _: Result<(), TimedOut> = wait_until(clock, SILENCE_US, || None);
        self.until_back(rid, saved.ids, clock)?;
        self.until_nothing_pending(rid, express, clock)?;
        self.restore(rid, express, &saved)
    }

    /// Where the PCIe capability of a function that can be reset is.
    fn express(&self, rid: Rid) -> Result<u16, Refusal> {
        if self.read(rid, 0)? == u32::MAX {
            return Err(Refusal::Absent { rid });
        }
        let header = (self.read(rid, HEADER)? >> 16) as u8 & 0x7f;
        if header != 0 {
            return Err(Refusal::Header { rid, header });
        }
        let express = match self.capability(rid, EXPRESS_CAPABILITY) {
            Err(Refusal::NoCapability { .. }) => Err(Refusal::NoReset { rid }),
            found => found,
        }?;
        if self.read(rid, express + DEVICE_CAPABILITIES)? & CAN_RESET == 0 {
            return Err(Refusal::NoReset { rid });
        }
        Ok(express)
    }

    fn save(&self, rid: Rid, express: u16) -> Result<Saved, Refusal> {
        let mut bars = [0; 6];
        for (bar, value) in (0..).zip(&mut bars) {
            *value = self.read(rid, BAR0 + 4 * bar)?;
        }
        Ok(Saved {
            ids: self.read(rid, 0)?,
            command: self.read(rid, COMMAND)? & COMMAND_MASK,
            bars,
            control: self.read(rid, express + DEVICE_CONTROL)? & CONTROL_MASK & !INITIATE_RESET,
        })
    }

    fn until_nothing_pending(
        &self,
        rid: Rid,
        express: u16,
        clock: &impl Clock,
    ) -> Result<(), Refusal> {
        wait_until(clock, PENDING_TIMEOUT_US, || {
            let status = self.read(rid, express + DEVICE_CONTROL);
            status
                .map(|status| (status & TRANSACTIONS_PENDING == 0).then_some(()))
                .transpose()
        })
        .unwrap_or_else(|TimedOut { waited_us }| Err(Refusal::Pending { rid, waited_us }))
    }

    fn until_back(&self, rid: Rid, ids: u32, clock: &impl Clock) -> Result<(), Refusal> {
        wait_until(clock, READY_TIMEOUT_US, || {
            let found = self.read(rid, 0);
            found.map(|found| (found == ids).then_some(())).transpose()
        })
        .unwrap_or_else(|TimedOut { waited_us }| Err(Refusal::NotBack { rid, waited_us }))
    }

    /// Puts the function where it was; its bus mastering stays off.
    fn restore(&self, rid: Rid, express: u16, saved: &Saved) -> Result<(), Refusal> {
        // What should be off now is seen to be off, also in a function that resets half of itself.
        self.turn_off(rid)?;
        for (bar, value) in (0..).zip(saved.bars) {
            self.write_checked(rid, BAR0 + 4 * bar, value, u32::MAX)?;
        }
        // The largest payload must be what the path to it expects.
        let control = express + DEVICE_CONTROL;
        self.write_checked(rid, control, saved.control, CONTROL_MASK)?;
        if saved.command & COMMAND_MEMORY != 0 {
            self.enable_memory(rid)?;
        }
        Ok(())
    }
}
