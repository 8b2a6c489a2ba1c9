//! What ends: streams, devices, guests; and what comes back on proof.

use super::state::{BindingState, Life, Reach, SpaceState, Stream};
use super::{Expected, Reference, refuse};
use crate::operation::Why;

impl Reference {
    /// Streams of devices were not confirmed to be stopped, or started: what they lead to, and what
    /// they cached of it, is out of use.
    pub(super) fn lose_streams(&mut self, devices: &[usize]) {
        for &device in devices {
            self.lose_stream(device);
        }
        self.fence(devices);
    }

    pub(super) fn lose_stream(&mut self, device: usize) {
        let at = &mut self.state.devices[device];
        at.stream = Stream::Lost;
        at.has_kept |= self.shape.has_ats();
        if let Some(guest) = at.attached {
            let smmu = self.shape.devices[device];
            self.state.guests[guest].unproven.insert(smmu);
        }
    }

    /// An SMMU did not confirm a change of a binding.
    pub(super) fn lose_binding(&mut self, space: usize, device: usize) {
        let smmu = self.shape.devices[device];
        self.state.spaces[space].unproven.insert(smmu);
        let binding = self.state.binding_mut(space, device);
        binding.expect("it is there").state = BindingState::Lost;
        self.keep_all(space, &[device]);
    }

    /// All traffic of devices behind one SMMU stops, and they forget what they cached.
    pub(super) fn stop(&mut self, devices: &[usize]) -> Result<(), Expected> {
        let Some(&first) = devices.first() else {
            return Ok(());
        };
        if !self.confirms(self.shape.devices[first]) {
            self.lose_streams(devices);
            return Err(vec![Why::NotConfirmed]);
        }
        let silent = self.keep(devices);
        refuse([(!silent.is_empty(), Why::CachesKept)])
    }

    /// A device is stopped, and what is bound to it ends. It is nobody's then, unless it kept what it
    /// cached.
    pub(super) fn end_device(&mut self, device: usize) -> Result<(), Expected> {
        let outcome = self.stop(&[device]);
        let bound: Vec<_> = self.state.spaces_of(device).collect();
        if outcome == Err(vec![Why::NotConfirmed]) {
            for space in bound {
                self.lose_binding(space, device);
            }
            return outcome;
        }
        for binding in self
            .state
            .bindings
            .iter_mut()
            .filter(|it| it.device == device)
        {
            binding.has_kept |= outcome.is_err();
            binding.state = BindingState::Ended;
        }
        if outcome.is_ok() {
            self.state.devices[device].leave();
        }
        self.state.settle();
        outcome
    }

    /// A device is as at power-on: whatever it kept is gone.
    pub(super) fn reset(&mut self, device: usize) {
        self.resets[device] += 1;
        let at = &mut self.state.devices[device];
        // Whoever has it may give it work again.
        at.is_dirty = at.owner.is_some();
        at.has_kept = false;
        if at.stream == Stream::AwaitsReset {
            at.stream = Stream::Free;
        }
        for binding in self
            .state
            .bindings
            .iter_mut()
            .filter(|it| it.device == device)
        {
            binding.has_kept = false;
        }
        self.state.settle();
    }

    pub(super) fn restore(&mut self, device: usize) -> Result<(), Expected> {
        let at = &self.state.devices[device];
        let (guest, was_fenced) = (at.attached, at.is_fenced);
        let outcome = self.restore_alone(device, was_fenced);
        if let Some(guest) = guest {
            self.bury_if_proven(guest);
        }
        outcome
    }

    fn restore_alone(&mut self, device: usize, was_fenced: bool) -> Result<(), Expected> {
        // What it kept is no reason to leave it: the reset is the proof.
        let stop = |reference: &mut Self| match reference.state.devices[device].attached {
            Some(_) => match reference.end_device(device) {
                Err(said) if said == [Why::NotConfirmed] => Err(said),
                _ => Ok(()),
            },
            None => Ok(()),
        };
        if was_fenced {
            stop(self)?;
        }
        if self.state.devices[device].is_jammed {
            self.state.devices[device].is_fenced = true;
            if !was_fenced {
                stop(self)?;
            }
            return Err(vec![Why::NotReset]);
        }
        self.reset(device);
        if was_fenced {
            self.state.devices[device].is_fenced = false;
            self.state.devices[device].leave();
        }
        Ok(())
    }

    pub(super) fn destroy(&mut self, guest: usize) -> Result<(), Expected> {
        self.running(guest)?;
        let mut said = Vec::new();
        for smmu in self.state.guests[guest].live.iter() {
            let devices = self.devices_behind(guest, smmu);
            if self.confirms(smmu) {
                said.extend(self.stop(&devices).err().unwrap_or_default());
            } else {
                self.lose_streams(&devices);
                self.state.guests[guest].unproven.insert(smmu);
                said.push(Why::NotConfirmed);
            }
        }
        // Also what was lost before.
        let mut devices = self.state.devices.iter();
        if devices.any(|it| it.attached == Some(guest) && it.has_kept) {
            said.push(Why::CachesKept);
        }
        if !self.state.guests[guest].unproven.is_empty() {
            said.push(Why::NotConfirmed);
        }
        self.state.guests[guest].life = Life::Lost;
        self.bury_if_proven(guest);
        if said.is_empty() { Ok(()) } else { Err(said) }
    }

    fn bury_if_proven(&mut self, guest: usize) {
        let at = &self.state.guests[guest];
        let is_proven = at.life == Life::Lost && at.unproven.is_empty();
        let mut devices = self.state.devices.iter();
        if is_proven && !devices.any(|it| it.attached == Some(guest) && it.has_kept) {
            self.state.bury(guest);
        }
    }

    /// As if each space was released, and then each handle dropped.
    pub(super) fn release_all(&mut self, guest: usize) -> Result<(), Expected> {
        self.running(guest)?;
        let mut said = Vec::new();
        let spaces: Vec<_> = self.state.spaces_of_guest(guest).collect();
        // One train for all: what a device says, or does not, it says of all its spaces.
        for &space in &spaces {
            if self.state.spaces[space].state == SpaceState::Live {
                said.extend(self.release(guest, space).err().unwrap_or_default());
            }
        }
        for space in spaces {
            for device in self.state.devices_of(space).collect::<Vec<_>>() {
                let Some(binding) = self.state.binding_mut(space, device) else {
                    continue;
                };
                binding.handles.clear();
                if binding.state != BindingState::Bound {
                    continue;
                }
                let outcome = match binding.whole {
                    true => self.end_device(device),
                    false => self.retract(space, device),
                };
                said.extend(outcome.err().unwrap_or_default());
            }
        }
        self.state.settle();
        if said.is_empty() { Ok(()) } else { Err(said) }
    }

    /// An SMMU is proven to hold nothing of what was lost.
    pub(super) fn recover(&mut self, smmu: usize) -> Result<(), Expected> {
        refuse([(self.state.smmus[smmu].is_mute, Why::NotRecovered)])?;
        self.state.smmus[smmu].is_down = false;
        let has_ats = self.shape.has_ats();
        for (device, at) in self.state.devices.iter_mut().enumerate() {
            if self.shape.devices[device] == smmu && at.stream == Stream::Lost {
                at.stream = match has_ats {
                    true => Stream::AwaitsReset,
                    false => Stream::Free,
                };
            }
        }
        for binding in &mut self.state.bindings {
            let is_here = self.shape.devices[binding.device] == smmu;
            if is_here && binding.state == BindingState::Lost {
                binding.state = BindingState::Ended;
                let device = &mut self.state.devices[binding.device];
                if device.reach == Reach::Whole {
                    device.leave();
                }
            }
        }
        for space in &mut self.state.spaces {
            space.unproven.remove(smmu);
            if space.state != SpaceState::Live {
                space.live.remove(smmu);
            }
        }
        self.state.settle();
        for guest in 0..self.state.guests.len() {
            self.state.guests[guest].unproven.remove(smmu);
            self.bury_if_proven(guest);
        }
        Ok(())
    }
}
