//! What stands beside the machine: the baton, the trace, and the hands for devices.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis::hw::{DeviceTag, NotDone};
use portcullis_embedder::{Bystander, Deed};
use smmu_model::device::{self, frame};

use crate::schedule::Schedule;
use crate::trace::Trace;

/// A device's hardware, by the tag that the host gave it.
struct Hardware {
    tag: DeviceTag,
    device: Arc<device::Device>,
    is_cut_off: bool,
}

/// The baton, the trace, and the hands for devices.
#[derive(Default)]
pub struct Stage {
    /// Who runs when.
    pub schedule: Schedule,
    /// Who tells.
    pub trace: Trace,
    hardware: Mutex<Vec<Hardware>>,
    turn_us: AtomicU64,
    has_ports: AtomicBool,
    fails_resets: AtomicBool,
}

impl Stage {
    /// A stage that tells everything, if `tells`.
    pub fn new(tells: bool) -> Self {
        Self {
            trace: Trace::new(tells),
            turn_us: AtomicU64::new(1),
            ..Self::default()
        }
    }

    fn hardware(&self) -> MutexGuard<'_, Vec<Hardware>> {
        self.hardware.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn plug_in(&self, tag: DeviceTag, device: Arc<device::Device>) {
        self.hardware().push(Hardware {
            tag,
            device,
            is_cut_off: false,
        });
    }

    /// Whether a device's port lets its transactions through.
    pub fn is_cut_off(&self, tag: DeviceTag) -> bool {
        self.hardware().iter().any(|it| it.tag == tag && it.is_cut_off)
    }

    /// How long a turn of a wait is from now on: long turns make waits that end in time-outs cheap.
    pub fn set_turn_us(&self, turn_us: u64) {
        self.turn_us.store(turn_us, Ordering::Relaxed);
    }

    /// Whether the host has gates above its devices; not at first.
    pub fn set_ports(&self, are_there: bool) {
        self.has_ports.store(are_there, Ordering::Relaxed);
    }

    /// Whether resets fail from now on.
    pub fn fail_resets(&self, fail: bool) {
        self.fails_resets.store(fail, Ordering::Relaxed);
    }

    fn gate(&self, tag: DeviceTag, is_cut_off: bool) -> Result<(), NotDone> {
        if !self.has_ports.load(Ordering::Relaxed) {
            return Err(NotDone {
                because: "the host has no gate above it",
            });
        }
        let verb = if is_cut_off { "cuts off" } else { "lets on again" };
        self.trace.say(|| format!("  the host {verb} device {}", tag.0));
        for it in self.hardware().iter_mut().filter(|it| it.tag == tag) {
            it.is_cut_off = is_cut_off;
        }
        Ok(())
    }
}

impl Bystander for Stage {
    fn before(&self, deed: Deed) {
        self.schedule.point(deed == Deed::Relax);
        self.trace.tell(deed);
    }

    fn turn_us(&self) -> u64 {
        self.turn_us.load(Ordering::Relaxed)
    }

    fn reset_device(&self, tag: DeviceTag) -> Result<(), NotDone> {
        if self.fails_resets.load(Ordering::Relaxed) {
            self.trace.say(|| format!("  the reset of device {} fails", tag.0));
            return Err(NotDone {
                because: "it does not come back",
            });
        }
        self.trace.say(|| format!("  device {} is reset", tag.0));
        let found = self.hardware();
        for it in found.iter().filter(|it| it.tag == tag) {
            it.device.write32(frame::COMMAND, frame::command::RESET);
        }
        Ok(())
    }

    fn fence_port(&self, tag: DeviceTag) -> Result<(), NotDone> {
        self.gate(tag, true)
    }

    fn unfence_port(&self, tag: DeviceTag) -> Result<(), NotDone> {
        self.gate(tag, false)
    }
}
