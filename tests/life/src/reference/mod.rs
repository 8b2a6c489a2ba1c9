//! What must be true after each operation: the lives of the design, and nothing of how they are
//! kept.
//!
//! ```text
//! space    Live ─release► Parked ─last handle► Draining ─silence► gone
//! binding  Bound ─its device goes► Ended;  Bound ─not confirmed► Lost ─proof► Ended
//! stream   aborting ⇄ attached;  ─not confirmed► Lost ─proof [and reset]► aborting
//! guest    Running ─► gone, or Lost ─proof► gone
//! ```
//!
//! An operation says which SMMUs must confirm it. One that does not leaves what was involved lost,
//! and its devices fenced. A device that is fenced, or behind an SMMU that is stopped, reaches
//! nothing.

mod canonical;
mod ends;
mod reach;
mod state;

use crate::operation::{Op, Why};
pub use canonical::{Renaming, Symmetry};
pub use state::{
    Binding, BindingState, Device, Guest, Life, Reach, Set, Shape, Smmu, Space, SpaceState, State,
    Stream,
};

/// What an operation may say; nothing: that it is done.
pub type Expected = Vec<Why>;

/// The reference of one world.
#[derive(Clone, Debug)]
pub struct Reference {
    /// What there is.
    pub shape: Shape,
    /// Where all of it stands.
    pub state: State,
    /// How often each device was reset.
    pub resets: Vec<u32>,
}

impl Reference {
    /// A world in which there is nothing yet but SMMUs and devices.
    pub fn new(shape: Shape) -> Self {
        let state = State::new(&shape);
        Self::at(shape, state)
    }

    /// A world that stands so.
    pub fn at(shape: Shape, state: State) -> Self {
        Self {
            state,
            resets: vec![0; shape.devices.len()],
            shape,
        }
    }

    /// Whether there is room for what an operation makes, and what else only the world must have.
    pub fn is_possible(&self, op: Op) -> bool {
        let state = &self.state;
        match op {
            Op::CreateGuest { guest } => state.guests[guest].life == Life::Gone,
            Op::CreateSpace { space, .. } => state.spaces[space].state == SpaceState::Gone,
            Op::Bind { .. } => state.free_handle().is_some(),
            Op::Disown { device } => state.devices[device].token.is_some(),
            Op::Mute { smmu, on } => state.smmus[smmu].is_mute != on,
            Op::Silence { device, on } => {
                self.shape.has_ats() && state.devices[device].is_silent != on
            }
            Op::Jam { device, on } => state.devices[device].is_jammed != on,
            _ => true,
        }
    }

    /// Does one operation.
    pub fn apply(&mut self, op: Op) -> Expected {
        let outcome = match op {
            Op::CreateGuest { guest } => {
                self.state.guests[guest] = Guest::running();
                Ok(())
            }
            Op::DestroyGuest { guest } => self.destroy(guest),
            Op::Acquire { guest, device } => self.acquire(guest, device),
            Op::Disown { device } => self.disown(device),
            Op::Attach {
                guest,
                device,
                stage2,
            } => self.attach(guest, device, stage2),
            Op::Detach { guest, device } => self.detach(guest, device),
            Op::CreateSpace { guest, space } => self.create_space(guest, space),
            Op::Release { guest, space } => self.release(guest, space),
            Op::ReleaseAll { guest } => self.release_all(guest),
            Op::Bind {
                guest,
                space,
                device,
                whole,
            } => self.bind(guest, space, device, whole),
            Op::Unbind { guest, handle } => self.unbind(guest, handle),
            Op::Invalidate { guest, space } => self.invalidate(guest, space),
            Op::Remap { guest } => self.remap(guest),
            Op::Reset { guest, device } => self
                .running(guest)
                .and_then(|()| self.owns(guest, device))
                .and_then(|()| self.restore(device)),
            Op::Restore { device } => self.restore(device),
            Op::Wait => {
                self.state.end_quarantines();
                Ok(())
            }
            Op::Halt { smmu } => {
                self.state.smmus[smmu].is_down = true;
                Ok(())
            }
            Op::Recover { smmu } => self.recover(smmu),
            Op::Mute { smmu, on } => {
                self.state.smmus[smmu].is_mute = on;
                Ok(())
            }
            Op::Silence { device, on } => {
                self.state.devices[device].is_silent = on;
                Ok(())
            }
            Op::Jam { device, on } => {
                self.state.devices[device].is_jammed = on;
                Ok(())
            }
        };
        outcome.err().unwrap_or_default()
    }

    fn is_down(&self, device: usize) -> bool {
        self.state.smmus[self.shape.devices[device]].is_down
    }

    fn confirms(&self, smmu: usize) -> bool {
        let smmu = &self.state.smmus[smmu];
        !smmu.is_down && !smmu.is_mute
    }

    /// Cuts devices off: at their ports, or else with everything behind their SMMU, and so that they
    /// stay cut off when that comes back.
    fn fence(&mut self, devices: &[usize]) {
        for &device in devices {
            self.state.devices[device].is_fenced = true;
            if !self.shape.has_ports {
                self.state.smmus[self.shape.devices[device]].is_down = true;
                self.lose_stream(device);
            }
        }
    }

    /// What devices cached of a space nobody knows.
    fn keep_all(&mut self, space: usize, devices: &[usize]) {
        for &device in devices.iter().filter(|_| self.shape.has_ats()) {
            self.state.devices[device].has_kept = true;
            let binding = self.state.binding_mut(space, device);
            binding.expect("it is bound").has_kept = true;
        }
    }

    /// Those of `devices` that keep what they are told to drop. They are cut off, and nobody else is.
    fn keep(&mut self, devices: &[usize]) -> Vec<usize> {
        let is_silent = |device: &usize| {
            let at = &self.state.devices[*device];
            self.shape.has_ats() && at.is_silent && at.reach != Reach::Nothing
        };
        let silent: Vec<_> = devices.iter().copied().filter(is_silent).collect();
        for &device in &silent {
            self.state.devices[device].is_fenced = true;
            self.state.devices[device].has_kept = true;
        }
        silent
    }

    fn running(&self, guest: usize) -> Result<(), Expected> {
        match self.state.guests[guest].life {
            Life::Gone => Err(vec![Why::NoSuchGuest]),
            Life::Lost => Err(vec![Why::GuestEnding]),
            Life::Running => Ok(()),
        }
    }

    fn owns(&self, guest: usize, device: usize) -> Result<(), Expected> {
        let is_owner = self.state.devices[device].owner == Some(guest);
        refuse([(!is_owner, Why::NotOwner)])
    }

    /// The guest's space, in whatever state but gone.
    fn space(&self, guest: usize, space: usize) -> Result<(), Expected> {
        let at = &self.state.spaces[space];
        match at.state {
            SpaceState::Gone => Err(vec![Why::NoSuchSpace]),
            // Its number alone remembers it.
            SpaceState::Draining => Err(vec![Why::NoSuchSpace, Why::ForeignSpace]),
            _ => refuse([(at.guest != guest, Why::ForeignSpace)]),
        }
    }

    fn acquire(&mut self, guest: usize, device: usize) -> Result<(), Expected> {
        self.running(guest)?;
        let at = &self.state.devices[device];
        refuse([
            (at.owner.is_some(), Why::Owned),
            (at.is_fenced, Why::Fenced),
        ])?;
        if at.is_dirty && at.last != Some(guest) {
            if at.is_jammed {
                self.state.devices[device].is_fenced = true;
                return Err(vec![Why::NotReset]);
            }
            self.reset(device);
        }
        let at = &mut self.state.devices[device];
        (at.owner, at.last, at.token) = (Some(guest), Some(guest), Some(true));
        // Whoever has it may give it work.
        at.is_dirty = true;
        Ok(())
    }

    fn disown(&mut self, device: usize) -> Result<(), Expected> {
        let at = &mut self.state.devices[device];
        if at.token == Some(false) {
            // Who shows a token of an owner that is gone has none any more.
            at.token = None;
            return Err(vec![Why::StaleOwnership]);
        }
        refuse([(at.attached.is_some(), Why::GroupAttached)])?;
        (at.owner, at.token) = (None, None);
        Ok(())
    }

    fn attach(&mut self, guest: usize, device: usize, stage2: bool) -> Result<(), Expected> {
        self.running(guest)?;
        self.owns(guest, device)?;
        let smmu = self.shape.devices[device];
        let at = &self.state.devices[device];
        refuse([
            (at.is_fenced, Why::Fenced),
            (at.attached.is_some(), Why::Attached),
            (self.state.smmus[smmu].is_down, Why::SmmuDown),
            // What was not confirmed of the guest's memory it may still be translated by.
            (self.state.guests[guest].unproven.has(smmu), Why::SmmuDown),
            (at.stream != Stream::Free, Why::Stream),
        ])?;
        let is_confirmed = self.confirms(smmu);
        self.state.guests[guest].live.insert(smmu);
        let at = &mut self.state.devices[device];
        at.attached = Some(guest);
        at.reach = Reach::Pasids { stage2 };
        if !is_confirmed {
            self.lose_streams(&[device]);
            return Err(vec![Why::NotConfirmed]);
        }
        Ok(())
    }

    fn detach(&mut self, guest: usize, device: usize) -> Result<(), Expected> {
        self.running(guest)?;
        self.owns(guest, device)?;
        let at = &self.state.devices[device];
        let is_bound = self.state.bindings.iter().any(|it| it.device == device);
        refuse([
            (at.is_fenced, Why::Fenced),
            (at.attached != Some(guest), Why::NotAttached),
            (is_bound, Why::Bound),
        ])?;
        self.stop(&[device])?;
        self.state.devices[device].leave();
        Ok(())
    }

    fn create_space(&mut self, guest: usize, space: usize) -> Result<(), Expected> {
        self.running(guest)?;
        self.state.spaces[space] = Space::new(guest);
        Ok(())
    }

    fn bind(
        &mut self,
        guest: usize,
        space: usize,
        device: usize,
        whole: bool,
    ) -> Result<(), Expected> {
        self.running(guest)?;
        self.space(guest, space)?;
        let at = &self.state.devices[device];
        refuse([
            (
                self.state.spaces[space].state != SpaceState::Live,
                Why::Released,
            ),
            (at.owner != Some(guest), Why::NotOwner),
            (at.is_fenced, Why::Fenced),
            (at.attached != Some(guest), Why::NotAttached),
        ])?;
        let (smmu, reach) = (self.shape.devices[device], at.reach);
        let handle = self.state.free_handle();
        if let Some(binding) = self.state.binding_mut(space, device) {
            let is_over = binding.state != BindingState::Bound;
            refuse([
                (is_over, Why::PublishOverLive),
                (binding.whole != whole, Why::BoundOtherwise),
            ])?;
            binding.handles.extend(handle);
            return Ok(());
        }
        let is_taken = match whole {
            true => self.state.bindings.iter().any(|it| it.device == device),
            false => reach == Reach::Whole,
        };
        refuse([
            (self.state.smmus[smmu].is_down, Why::SmmuDown),
            (is_taken, Why::BoundOtherwise),
        ])?;
        if whole {
            self.state.devices[device].reach = Reach::Whole;
        }
        let is_confirmed = self.confirms(smmu);
        let at = &mut self.state.spaces[space];
        at.live.insert(smmu);
        at.was_bound = true;
        self.state.bindings.push(Binding {
            space,
            device,
            whole,
            state: BindingState::Bound,
            has_kept: false,
            handles: handle.filter(|_| is_confirmed).into_iter().collect(),
        });
        if !is_confirmed {
            self.lose_binding(space, device);
            match whole {
                true => self.lose_streams(&[device]),
                false => self.fence(&[device]),
            }
            return Err(vec![Why::NotConfirmed]);
        }
        // What it cached without a PASID is not to outlive the space's coming.
        if whole && !self.keep(&[device]).is_empty() {
            let binding = self.state.binding_mut(space, device).expect("just made");
            binding.has_kept = true;
            binding.handles.clear();
            return Err(vec![Why::CachesKept]);
        }
        Ok(())
    }

    fn unbind(&mut self, guest: usize, handle: usize) -> Result<(), Expected> {
        self.state
            .guests
            .get(guest)
            .filter(|it| it.life != Life::Gone)
            .ok_or_else(|| vec![Why::NoSuchGuest])?;
        let found = self.state.holding(handle).ok_or_else(|| {
            // A handle is forgotten with its guest; of one that is lost nothing is said.
            vec![Why::NoSuchHandle]
        })?;
        let (space, device) = (found.space, found.device);
        let owner = self.state.spaces[space].guest;
        refuse([(owner != guest, Why::ForeignHandle)])?;
        self.running(guest)?;
        let found = self.state.holding(handle).expect("found above");
        found.handles.retain(|it| *it != handle);
        let (whole, is_last) = (found.whole, found.handles.is_empty());
        let is_out = found.state == BindingState::Bound && !found.has_kept;
        let outcome = match (is_last, is_out, whole) {
            (true, true, true) => self.end_device(device),
            (true, true, false) => self.retract(space, device),
            _ => Ok(()),
        };
        self.state.settle();
        outcome
    }

    /// The last handle of a pair is dropped: its CD is retracted.
    fn retract(&mut self, space: usize, device: usize) -> Result<(), Expected> {
        if !self.confirms(self.shape.devices[device]) {
            self.lose_binding(space, device);
            self.fence(&[device]);
            return Err(vec![Why::NotConfirmed]);
        }
        let is_live = self.state.spaces[space].state == SpaceState::Live;
        let silent = if is_live {
            self.keep(&[device])
        } else {
            Vec::new()
        };
        let binding = self.state.binding_mut(space, device).expect("it is bound");
        binding.state = BindingState::Ended;
        binding.has_kept |= !silent.is_empty();
        refuse([(!silent.is_empty(), Why::CachesKept)])
    }

    fn invalidate(&mut self, guest: usize, space: usize) -> Result<(), Expected> {
        self.running(guest)?;
        self.space(guest, space)?;
        let is_live = self.state.spaces[space].state == SpaceState::Live;
        refuse([(!is_live, Why::Released)])?;
        let live = self.state.spaces[space].live;
        self.flush(space, live, false)
    }

    /// Has SMMUs, and the devices that a space is bound to, forget what they cached of it.
    fn flush(&mut self, space: usize, smmus: Set, is_end: bool) -> Result<(), Expected> {
        let mut said = Vec::new();
        for smmu in smmus.iter() {
            let bound: Vec<_> = self
                .state
                .bound_to(space)
                .filter(|device| self.shape.devices[*device] == smmu)
                .collect();
            if !self.confirms(smmu) {
                if is_end {
                    self.state.spaces[space].unproven.insert(smmu);
                    // Devices are told last: nobody knows whether they were.
                    self.keep_all(space, &bound);
                }
                self.fence(&bound);
                said.push(Why::NotConfirmed);
                continue;
            }
            let silent = self.keep(&bound);
            self.keep_all(space, &silent);
            said.extend(silent.first().map(|_| Why::CachesKept));
        }
        if said.is_empty() { Ok(()) } else { Err(said) }
    }

    fn release(&mut self, guest: usize, space: usize) -> Result<(), Expected> {
        self.running(guest)?;
        self.space(guest, space)?;
        let is_live = self.state.spaces[space].state == SpaceState::Live;
        refuse([(!is_live, Why::AlreadyReleased)])?;
        let live = self.state.spaces[space].live;
        let outcome = self.flush(space, live, true);
        let at = &mut self.state.spaces[space];
        at.state = SpaceState::Parked;
        at.live = at.unproven;
        self.state.settle();
        outcome
    }

    /// A page of the guest's goes, whoever cached it, and another comes, if nobody can confuse them.
    fn remap(&mut self, guest: usize) -> Result<(), Expected> {
        self.running(guest)?;
        let at = &mut self.state.guests[guest];
        if !at.has_page {
            refuse([(!at.unproven.is_empty(), Why::SmmuDown)])?;
            at.has_page = true;
            return Ok(());
        }
        let mut said = Vec::new();
        for smmu in self.state.guests[guest].live.iter() {
            let devices = self.devices_behind(guest, smmu);
            if !self.confirms(smmu) {
                self.fence(&devices);
                self.state.guests[guest].unproven.insert(smmu);
                self.state.guests[guest].has_page = false;
                said.push(Why::NotConfirmed);
            } else if !self.keep(&devices).is_empty() {
                said.push(Why::CachesKept);
            }
        }
        if said.is_empty() { Ok(()) } else { Err(said) }
    }

    fn devices_behind(&self, guest: usize, smmu: usize) -> Vec<usize> {
        let all = 0..self.shape.devices.len();
        all.filter(|device| {
            self.state.devices[*device].attached == Some(guest)
                && self.shape.devices[*device] == smmu
        })
        .collect()
    }
}

/// Refuses for whichever of these reasons hold.
fn refuse<const N: usize>(reasons: [(bool, Why); N]) -> Result<(), Expected> {
    let said: Vec<_> = reasons
        .into_iter()
        .filter_map(|(holds, why)| holds.then_some(why))
        .collect();
    if said.is_empty() { Ok(()) } else { Err(said) }
}
