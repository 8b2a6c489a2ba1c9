//! What stands beside the machine: the baton, the trace, and the hands for devices.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis::hw::{DeviceTag, NotDone};
use portcullis_embedder::{Bystander, Deed};
use smmu_model::device;

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
    /// Commands of this opcode do nothing.
    swallows: Option<u8>,
    hardware: Mutex<Vec<Hardware>>,
    turn_us: AtomicU64,
    has_ports: AtomicBool,
    fails_resets: AtomicBool,
    has_late_devices: AtomicBool,
    stores: AtomicU64,
    /// How many commands were sent, by opcode.
    sent: Mutex<BTreeMap<u8, u64>>,
}

impl Stage {
    /// A stage that tells everything, if `tells`, and on which commands of an opcode do nothing.
    pub fn new(tells: bool, swallows: Option<u8>) -> Self {
        Self {
            trace: Trace::new(tells),
            swallows,
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
        self.hardware()
            .iter()
            .any(|it| it.tag == tag && it.is_cut_off)
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

    /// Whether devices go on while somebody waits: for those that answer late.
    pub fn has_late_devices(&self, are_there: bool) {
        self.has_late_devices.store(are_there, Ordering::Relaxed);
    }

    fn let_devices_go_on(&self) {
        if !self.has_late_devices.load(Ordering::Relaxed) {
            return;
        }
        let devices: Vec<_> = {
            let hardware = self.hardware();
            hardware.iter().map(|it| Arc::clone(&it.device)).collect()
        };
        let now = self.trace.now_us();
        devices.iter().for_each(|device| device.tick(now));
    }

    fn count(&self, opcode: u8) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        *sent.entry(opcode).or_default() += 1;
    }

    /// How many commands of this opcode were sent to all SMMUs so far.
    pub fn sent(&self, opcode: u8) -> u64 {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(&opcode).copied().unwrap_or(0)
    }

    /// How many stores to shared memory there were so far.
    pub fn stores(&self) -> u64 {
        self.stores.load(Ordering::Relaxed)
    }

    fn gate(&self, tag: DeviceTag, is_cut_off: bool) -> Result<(), NotDone> {
        if !self.has_ports.load(Ordering::Relaxed) {
            return Err(NotDone {
                because: "the host has no gate above it",
            });
        }
        let verb = if is_cut_off {
            "cuts off"
        } else {
            "lets on again"
        };
        self.trace
            .say(|| format!("  the host {verb} device {}", tag.0));
        for it in self.hardware().iter_mut().filter(|it| it.tag == tag) {
            it.is_cut_off = is_cut_off;
        }
        Ok(())
    }
}

impl Bystander for Stage {
    fn before(&self, deed: Deed) {
        self.schedule.point(deed == Deed::Relax);
        match deed {
            Deed::Relax => self.let_devices_go_on(),
            Deed::Store { .. } => {
                self.stores.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        if let Some(opcode) = self.swallows {
            self.trace.swallow(deed, opcode);
        }
        for words in self.trace.announced(deed) {
            self.count(words[0] as u8);
        }
        self.trace.tell(deed);
    }

    fn turn_us(&self) -> u64 {
        self.turn_us.load(Ordering::Relaxed)
    }

    fn may_reset(&self, tag: DeviceTag) -> Result<(), NotDone> {
        if self.fails_resets.load(Ordering::Relaxed) {
            self.trace
                .say(|| format!("  the reset of device {} fails", tag.0));
            return Err(NotDone {
                because: "it does not come back",
            });
        }
        self.trace.say(|| format!("  device {} is reset", tag.0));
        Ok(())
    }

    fn fence_port(&self, tag: DeviceTag) -> Result<(), NotDone> {
        self.gate(tag, true)
    }

    fn unfence_port(&self, tag: DeviceTag) -> Result<(), NotDone> {
        self.gate(tag, false)
    }
}
