//! How the world is compared with the reference, and how both are driven together.

use portcullis::space::{Counts, DeviceState, GuestLife, SpaceError, SpaceState as RealSpaceState};

use portcullis::hw::Platform;

use super::{DATA, VA, World};
use crate::operation::Op;
use crate::reference::{Life, Reference, SpaceState, Stream};

impl World<'_> {
    /// Takes back the memory of guests that are gone.
    pub fn bury(&mut self) {
        for guest in &mut self.guests {
            if self.iommu.life_of(guest.id) == Err(SpaceError::NoSuchGuest) {
                let gone = guest.block.take().into_iter().chain(guest.data.take());
                for frames in gone.chain(guest.kept.drain(..)) {
                    self.host.free(frames);
                }
            }
        }
    }

    /// Compares what is now with the reference; every device fires at everything.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn compare(&mut self, reference: &Reference) -> Result<(), String> {
        self.bury();
        self.compare_books(reference)?;
        self.compare_reach(reference)?;
        let violations = self.host.machine().record().violations();
        let mut all = violations.iter();
        match all.find(|it| !self.borne.contains(&it.rule)) {
            None => Ok(()),
            Some(violation) => Err(format!("{violation}")),
        }
    }

    fn compare_books(&self, reference: &Reference) -> Result<(), String> {
        let state = &reference.state;
        for (guest, expected) in self.guests.iter().zip(&state.guests) {
            let life = self.iommu.life_of(guest.id).ok();
            let wanted = match expected.life {
                Life::Gone => None,
                Life::Running => Some(GuestLife::Running),
                Life::Lost => Some(GuestLife::Lost),
            };
            same("life of a guest", life, wanted)?;
        }
        for (guest, at) in self.guests.iter().enumerate() {
            if state.guests[guest].life == Life::Running {
                let counts = self.iommu.counts(at.id).map_err(|it| format!("{it}"))?;
                // Who reads faults is not the matter here.
                let counts = Counts {
                    faults: 0,
                    ..counts
                };
                same(
                    "counts of a guest",
                    counts,
                    expected_counts(reference, guest),
                )?;
            }
        }
        for (space, expected) in self.spaces.iter().zip(&state.spaces) {
            let wanted = match expected.state {
                SpaceState::Gone => continue,
                SpaceState::Live => RealSpaceState::Live,
                SpaceState::Parked => RealSpaceState::Parked,
                SpaceState::Draining => RealSpaceState::Draining,
            };
            let guest = self.guests[expected.guest].id;
            same(
                "a space",
                self.iommu.space_state(guest, space.id),
                Ok(wanted),
            )?;
        }
        for (device, expected) in self.devices.iter().zip(&state.devices) {
            let wanted = match (expected.is_fenced, expected.attached) {
                (true, _) => DeviceState::Fenced,
                (false, Some(guest)) => DeviceState::Attached(self.guests[guest].id),
                (false, None) => DeviceState::Detached,
            };
            same("a device", self.iommu.device_state(device.id), Ok(wanted))?;
        }
        for (device, resets) in reference.resets.iter().enumerate() {
            same("resets", self.host.resets(device), *resets)?;
        }
        Ok(())
    }

    /// Every device fires at everything.
    fn compare_reach(&self, reference: &Reference) -> Result<(), String> {
        for device in 0..self.devices.len() {
            let guest = reference.state.devices[device].attached;
            let data = guest
                .filter(|_| reference.reaches(device, None))
                .and_then(|guest| Some(self.guests[guest].data.as_ref()?.base()));
            let landed = self.host.write(device, None, DATA.as_u64());
            same(
                &format!("device {device} without PASID, stage 2"),
                landed,
                data,
            )?;
            let whole = reference.reaches_whole(device);
            let landed = self.host.write(device, None, VA);
            let wanted = whole.map(|space| self.spaces[space].page);
            same(
                &format!("device {device} without PASID, stage 1"),
                landed,
                wanted,
            )?;
            for number in self.spaces.iter().filter_map(|it| it.pasid) {
                let landed = self.host.write(device, Some(number), VA);
                let is_it = |space: &usize| {
                    self.spaces[*space].pasid == Some(number)
                        && reference.reaches(device, Some(*space))
                };
                let space = (0..self.spaces.len()).find(is_it);
                let wanted = space.map(|space| self.spaces[space].page);
                same(&format!("device {device} PASID {number}"), landed, wanted)?;
            }
        }
        self.iommu.service(u32::MAX);
        // Faults are told of; who reads them is not the matter here.
        for guest in &self.guests {
            while let Ok(Some(_)) = self.iommu.next_fault(guest.id) {}
        }
        Ok(())
    }

    /// Puts everything right and ends everything; `reference` says what each step may say.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn end(&mut self, reference: &mut Reference) -> Result<(), String> {
        let mut ops = Vec::new();
        for smmu in 0..self.shape.smmus {
            ops.push(Op::Mute { smmu, on: false });
        }
        for device in 0..self.shape.devices.len() {
            ops.push(Op::Silence { device, on: false });
            ops.push(Op::Jam { device, on: false });
        }
        for smmu in 0..self.shape.smmus {
            ops.push(Op::Recover { smmu });
        }
        for device in 0..self.shape.devices.len() {
            ops.push(Op::Restore { device });
        }
        for guest in 0..self.shape.guests {
            ops.push(Op::DestroyGuest { guest });
        }
        for op in ops {
            self.step(op, reference)?;
        }
        let state = &reference.state;
        let all_gone = state.guests.iter().all(|guest| guest.life == Life::Gone);
        let all_free = state.devices.iter().all(|device| {
            !device.is_fenced && device.stream == Stream::Free && device.owner.is_none()
        });
        same("all is gone", (all_gone, all_free), (true, true))
    }

    /// As [`live`](Self::live), in a world in which everything that was is gone.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn live_again(&mut self, ops: &[Op]) -> Result<(), String> {
        self.bury();
        let mut reference = Reference::new(self.shape.clone());
        let devices = 0..self.shape.devices.len();
        reference.resets = devices.map(|device| self.host.resets(device)).collect();
        self.live_from(ops, &mut reference)
    }

    fn live_from(&mut self, ops: &[Op], reference: &mut Reference) -> Result<(), String> {
        for op in ops {
            self.step(*op, reference)?;
        }
        self.end(reference)
    }

    /// Does operations here and there, ends everything, and compares after each step.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn live(&mut self, ops: &[Op]) -> Result<(), String> {
        self.live_from(ops, &mut Reference::new(self.shape.clone()))
    }

    /// Does an operation here and there, and compares; nothing if it is not possible.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn step(&mut self, op: Op, reference: &mut Reference) -> Result<(), String> {
        if !reference.is_possible(op) {
            return Ok(());
        }
        self.say(op, reference)
            .and_then(|()| self.compare(reference))
            .map_err(|differs| format!("{op:?}: {differs}"))
    }

    /// As [`step`](Self::step), for what is to change nothing: no device fires.
    ///
    /// # Errors
    ///
    /// What differs, in words.
    pub fn step_in_place(&mut self, op: Op, reference: &mut Reference) -> Result<(), String> {
        self.say(op, reference)
            .and_then(|()| self.compare_books(reference))
            .map_err(|differs| format!("{op:?}: {differs}"))
    }

    /// Does an operation here and there, and compares what both say.
    fn say(&mut self, op: Op, reference: &mut Reference) -> Result<(), String> {
        let said = self.apply(op, reference);
        let expected = reference.apply(op);
        match said {
            Ok(()) if expected.is_empty() => Ok(()),
            Err(error) if expected.iter().any(|why| why.is(&error)) => Ok(()),
            said => Err(format!("it said {said:?}, and not {expected:?}")),
        }
    }

    /// Has guests give back what their devices need no more.
    ///
    /// # Errors
    ///
    /// What was refused, in words.
    pub fn tidy(&mut self) -> Result<(), String> {
        for guest in &self.guests {
            let tidied = self.iommu.tidy(guest.id);
            let is_gone = tidied == Err(SpaceError::NoSuchGuest);
            same("a guest is tidied", is_gone || tidied.is_ok(), true)?;
        }
        Ok(())
    }
}

fn expected_counts(reference: &Reference, guest: usize) -> Counts {
    let state = &reference.state;
    let spaces: Vec<_> = state.spaces_of_guest(guest).collect();
    let count = |is_it: &dyn Fn(usize) -> bool| spaces.iter().filter(|it| is_it(**it)).count();
    let bindings = || {
        let all = state.bindings.iter();
        all.filter(|it| spaces.contains(&it.space))
    };
    let is_lost = |space: usize| {
        !state.spaces[space].unproven.is_empty()
            || bindings().any(|it| it.space == space && it.has_kept)
    };
    let attached = state.devices.iter();
    Counts {
        spaces: spaces.len() as u32,
        parked: count(&|it| state.spaces[it].state == SpaceState::Parked) as u32,
        draining: count(&|it| state.spaces[it].state == SpaceState::Draining) as u32,
        lost: count(&is_lost) as u32,
        bindings: bindings().count() as u32,
        handles: bindings().map(|it| it.handles.len()).sum::<usize>() as u32,
        devices: attached.filter(|it| it.attached == Some(guest)).count() as u32,
        stalls: 0,
        faults: 0,
        pasids: spaces.len() as u32,
        asids: spaces.len() as u32,
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Result<(), String> {
    if found == wanted {
        return Ok(());
    }
    Err(format!("{what}: {found:?}, and not {wanted:?}"))
}
