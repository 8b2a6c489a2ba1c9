//! What goes wrong in a story, and how it is mended.

use std::sync::atomic::Ordering;

use portcullis::space::{DeviceState, GuestLife, SpaceError};
use smmu_model::device::Misconduct;
use smmu_model::{Faults, Rule};

use super::hardware::Device;
use super::{World, lock, smmu_id};

impl<'h> World<'h> {
    /// The SMMU meets these faults from now on, in place of those before.
    pub fn set_faults(&self, smmu: usize, faults: Faults) {
        self.say(|| format!("SMMU {smmu} meets {faults:?}"));
        self.host.machine().smmu(smmu).set_faults(faults);
    }

    /// The SMMU completes no CMD_SYNC any more; waits for it cost few turns.
    pub fn silence(&self, smmu: usize) {
        self.stage.set_turn_us(200);
        self.set_faults(
            smmu,
            Faults {
                sync_never: true,
                ..Faults::default()
            },
        );
    }

    /// Nothing is wrong with the SMMU any more.
    pub fn cure(&self, smmu: usize) {
        self.stage.set_turn_us(1);
        self.set_faults(smmu, Faults::default());
    }

    /// Whether the device is cut off until it is reset.
    pub fn is_fenced(&self, device: &Device) -> bool {
        self.iommu.device_state(device.id) == Ok(DeviceState::Fenced)
    }

    /// Whether the device is nobody's.
    pub fn is_detached(&self, device: &Device) -> bool {
        self.iommu.device_state(device.id) == Ok(DeviceState::Detached)
    }

    /// Cures everything, resets what was fenced or kept something, recovers every SMMU.
    ///
    /// # Panics
    ///
    /// If something does not come back.
    pub fn mend(&self) {
        self.say(|| "everything is mended".into());
        self.stage.fail_resets(false);
        for smmu in 0..self.smmus.len() {
            self.cure(smmu);
        }
        for device in self.all_devices() {
            device.misbehave(Misconduct::None);
        }
        self.settle();
        for smmu in 0..self.smmus.len() {
            let id = smmu_id(smmu);
            match self.iommu.recover(id) {
                Ok(()) | Err(SpaceError::NoSuchSmmu) => {}
                Err(SpaceError::NotRecovered { .. }) => {
                    // A queue that lives and did not complete: only by way of its halt.
                    self.iommu.halt(id).expect("it is there");
                    self.iommu.recover(id).expect("it comes back");
                }
                Err(error) => panic!("SMMU {smmu} does not come back: {error}"),
            }
        }
        for device in self.all_devices() {
            match self.iommu.restore(device.id) {
                Ok(()) | Err(SpaceError::NoSuchDevice) => {}
                Err(error) => panic!("{} does not come back: {error}", device.name),
            }
        }
    }

    /// Devices of this story break a rule, which is not the library's fault.
    pub fn bear(&self, rule: Rule) {
        lock(&self.borne).push(rule);
    }

    pub(crate) fn borne(&self) -> Vec<Rule> {
        lock(&self.borne).clone()
    }

    /// An SMMU stopped for good: only a reset of the machine would bring it back.
    pub fn give_up(&self) {
        self.is_beyond_repair.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_beyond_repair(&self) -> bool {
        self.is_beyond_repair.load(Ordering::Relaxed)
    }

    /// Gives back what the library holds of nobody; then the model has nothing to say either.
    ///
    /// # Panics
    ///
    /// If somebody is left, or the model objects.
    pub(crate) fn let_go(self) {
        let host = self.host;
        let told = host.machine().record().violations().len();
        assert!(self.iommu.dismantle().is_ok(), "a guest is left");
        let found = host.machine().record().violations_after(told);
        assert!(found.is_empty(), "{}", found[0]);
    }

    /// Ends every guest that is left, mending what a story broke.
    pub(crate) fn end_all_guests(&self) {
        for guest in self.all_guests() {
            match self.iommu.life_of(guest.id) {
                Err(SpaceError::NoSuchGuest) => {}
                Ok(GuestLife::Running | GuestLife::Dying) => {
                    let ended = self.iommu.destroy_guest(guest.id);
                    ended.unwrap_or_else(|error| panic!("{} does not end: {error}", guest.name));
                }
                Ok(GuestLife::Lost) => panic!("{} is lost, and nobody proved it", guest.name),
                Err(error) => panic!("{}: {error}", guest.name),
            }
            self.take_memory_of(&guest);
        }
    }
}
