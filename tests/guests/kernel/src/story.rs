//! Stories: how they are told, and what they have to play with.

use alloc::format;
use alloc::string::String;
use core::fmt;

use portcullis_guest::{Answer, Ask, Code, Counter, Error, Untagged};

use crate::arch;
use crate::calls::EL2;
use crate::device::{Device, End};
use crate::memory::Memory;
use crate::process::Process;

/// Why a story did not come to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// Something was not as it must be.
    Failed(String),
    /// It cannot be played here.
    Skipped(&'static str),
}

/// Told to the end, or not.
pub(crate) type Told = Result<(), Trouble>;

impl Trouble {
    pub(crate) fn failed(why: fmt::Arguments<'_>) -> Self {
        Self::Failed(format!("{why}"))
    }
}

impl From<Error> for Trouble {
    fn from(refused: Error) -> Self {
        Self::Failed(format!("a call was refused: {refused}"))
    }
}

/// Leaves the story unless it is so.
#[macro_export]
macro_rules! ensure {
    ($is_so:expr, $($why:tt)*) => {
        if !$is_so {
            return Err($crate::story::Trouble::failed(format_args!($($why)*)));
        }
    };
}

/// A story: its name in `scenarios.md`, and how it goes.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) play: fn(&Stage) -> Told,
    /// What it breaks stays broken: something is left over, and it is the last.
    pub(crate) is_last: bool,
}

/// What a story has to play with.
pub(crate) struct Stage {
    /// Of the story that is played.
    pub(crate) number: u32,
    pub(crate) devices: alloc::vec::Vec<Device>,
    /// The guest died in this story, and plays on in its next life.
    pub(crate) lives_again: bool,
    /// How many CPUs the guest has.
    pub(crate) cpus: u32,
    pub(crate) quarantine_us: u64,
}

impl Stage {
    /// The devices that have PASIDs.
    pub(crate) fn with_pasids(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|it| it.pasid_bits != 0)
    }

    /// One that does not wait when it finds nothing.
    pub(crate) fn impatient(&self) -> Result<&Device, Trouble> {
        let mut devices = self.with_pasids();
        devices.find(|it| !it.can_stall).ok_or(Trouble::Skipped(
            "no device with PASIDs that does not stall",
        ))
    }

    /// One that waits.
    pub(crate) fn patient(&self) -> Result<&Device, Trouble> {
        let mut devices = self.with_pasids();
        devices
            .find(|it| it.can_stall)
            .ok_or(Trouble::Skipped("no device that stalls"))
    }

    /// Has the device write at `va`, which must come to nothing; one that waits is told not to.
    pub(crate) fn is_blocked(&self, device: &Device, pasid: u32, va: u64) -> Told {
        let mut end = device.write(pasid, va, 0xbad)?;
        if end == End::Stalled {
            self.abort_all_stalls()?;
            device.has_none_pending()?;
            end = End::Aborted;
        }
        ensure!(
            end == End::Aborted || end == End::NotTranslated,
            "device {} ends with {end:?} at {va:#x} by PASID {pasid:#x}",
            device.id.0
        );
        Ok(())
    }

    /// Has the device write `value` at `va`, which must reach memory.
    pub(crate) fn reaches(&self, device: &Device, pasid: u32, va: u64, value: u64) -> Told {
        let end = device.write(pasid, va, value)?;
        ensure!(
            end == End::Done,
            "device {} ends with {end:?} at {va:#x} by PASID {pasid:#x}",
            device.id.0
        );
        Ok(())
    }

    /// Aborts whatever stalls are told of, and reads all other faults.
    pub(crate) fn abort_all_stalls(&self) -> Told {
        let is_over = arch::within(10_000, || match EL2.fault_next() {
            Ok(Some(fault)) => match fault.id {
                Some(id) => {
                    // It may have been answered already, when its time was up.
                    let _ = EL2.fault_answer(id, Answer::Abort);
                    true
                }
                None => false,
            },
            _ => false,
        });
        ensure!(is_over, "no fault tells of a stalled access");
        self.read_all_faults()
    }

    /// Reads all faults; stalls among them are aborted.
    pub(crate) fn read_all_faults(&self) -> Told {
        while let Some(fault) = EL2.fault_next()? {
            if let Some(id) = fault.id {
                let _ = EL2.fault_answer(id, Answer::Abort);
            }
        }
        Ok(())
    }

    /// Wants a call to be refused so.
    pub(crate) fn is_refused<T>(&self, wanted: Code, found: Result<T, Error>, what: &str) -> Told {
        match found {
            Err(refused) if refused.code() == Some(wanted) => Ok(()),
            Err(refused) => Err(Trouble::failed(format_args!(
                "{what}: refused with {refused}, not {}",
                wanted.name()
            ))),
            Ok(_) => Err(Trouble::failed(format_args!("{what}: not refused"))),
        }
    }

    /// As [`reaches`](Self::reaches), and claims it.
    pub(crate) fn lands(&self, device: &Device, pasid: u32, va: u64, value: u64) -> Told {
        let watch = device.watch(pasid);
        self.reaches(device, pasid, va, value)?;
        let count = watch.landed(self.number);
        ensure!(count == 1, "{count} accesses landed, not one");
        Ok(())
    }

    /// A process whose space has exactly this number, as soon as that is free again: not at once.
    pub(crate) fn heir_of(&self, number: u32) -> Result<Process, Trouble> {
        let mut memory = Memory::new();
        let ask = Ask::Exactly(number);
        let first = memory.space_as(ask);
        self.is_refused(Code::PasidTaken, first, "a number that drains")?;
        let mut refused = None;
        // What the device did with it may be told late: each event keeps the number for longer.
        let is_free = arch::within(100 * self.quarantine_us, || match memory.space_as(ask) {
            Ok(_) => true,
            Err(why) => {
                refused = Some(why);
                why.code() != Some(Code::PasidTaken)
            }
        });
        let space = memory.space()?;
        ensure!(
            is_free && space.pasid.number == number,
            "number {number:#x} does not come free: {refused:?}"
        );
        Ok(Process::of(memory))
    }

    /// Attaches the device for the story.
    pub(crate) fn attach(&self, device: &Device) -> Told {
        EL2.attach(device.id, Untagged::Abort)?;
        Ok(())
    }

    /// What a story must leave: nothing bound, held, parked or lost.
    pub(crate) fn is_clean(&self) -> Told {
        for device in &self.devices {
            device.stop();
        }
        self.read_all_faults()?;
        for (which, name) in [
            (Counter::Bindings, "bindings"),
            (Counter::Handles, "handles"),
            (Counter::Parked, "parked spaces"),
            (Counter::Lost, "lost numbers"),
            (Counter::Stalls, "stalls"),
        ] {
            let count = EL2.stats(which)?;
            ensure!(count == 0, "{count} {name} are left over");
        }
        let (spaces, draining) = (EL2.stats(Counter::Spaces)?, EL2.stats(Counter::Draining)?);
        ensure!(
            spaces == draining,
            "{spaces} spaces are left over, {draining} of them draining"
        );
        ensure!(
            crate::process::failed_closes() == 0,
            "a handle could not be dropped"
        );
        Ok(())
    }

    /// Detaches what is attached; after trouble, takes everything back.
    pub(crate) fn clear(&self, after_trouble: bool) {
        if after_trouble {
            for device in &self.devices {
                device.stop();
                device.put_in(crate::device::SmmuFault::None);
                device.behave(crate::device::Atc::Right, 0);
                device.reset_takes(0);
                // Whatever is possible; the next story begins with what is left.
                let _ = EL2.device_reset(device.id);
            }
            let _ = EL2.release_all();
        }
        for device in &self.devices {
            device.use_ats(false);
            // Most are not attached.
            let _ = EL2.detach(device.id);
        }
    }
}
