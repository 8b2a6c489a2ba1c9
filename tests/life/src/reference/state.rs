//! Where everything stands.

/// What a world has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    /// How many SMMUs.
    pub smmus: usize,
    /// The SMMU that each device is behind.
    pub devices: Vec<usize>,
    /// What devices may do with ATS.
    pub ats: portcullis::spec::ste::Ats,
    /// How many guests, spaces and handles there is room for.
    pub guests: usize,
    /// See `guests`.
    pub spaces: usize,
    /// See `guests`.
    pub handles: usize,
    /// Whether devices can be cut off at a port above their SMMU.
    pub has_ports: bool,
}

impl Shape {
    /// Whether devices ask for translations.
    pub fn has_ats(&self) -> bool {
        self.ats != portcullis::spec::ste::Ats::Off
    }
}

/// SMMUs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Set(u8);

impl Set {
    /// Puts one in.
    pub fn insert(&mut self, smmu: usize) {
        self.0 |= 1 << smmu;
    }

    /// Takes one out.
    pub fn remove(&mut self, smmu: usize) {
        self.0 &= !(1 << smmu);
    }

    /// Whether one is in.
    pub fn has(self, smmu: usize) -> bool {
        self.0 >> smmu & 1 != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..8).filter(move |smmu| self.has(*smmu))
    }
}

/// Where a guest is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Life {
    /// It is not there.
    Gone,
    /// It does what it likes.
    Running,
    /// It ended, and that was not confirmed.
    Lost,
}

/// A guest.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Guest {
    /// Where it is in its life.
    pub life: Life,
    /// Where its VMID was used.
    pub live: Set,
    /// What did not confirm something of its memory, or its end.
    pub unproven: Set,
    /// It has the page that can be taken from it.
    pub has_page: bool,
}

impl Guest {
    /// A new one.
    pub fn running() -> Self {
        Self {
            life: Life::Running,
            live: Set::default(),
            unproven: Set::default(),
            has_page: true,
        }
    }

    /// None.
    pub fn gone() -> Self {
        Self {
            life: Life::Gone,
            ..Self::running()
        }
    }
}

/// An SMMU.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Debug)]
pub struct Smmu {
    /// It was stopped.
    pub is_down: bool,
    /// Its CMD_SYNCs do not complete.
    pub is_mute: bool,
}

/// What a device's traffic meets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// It aborts.
    Nothing,
    /// A space for each PASID; what has none goes through stage 2, or aborts.
    Pasids {
        /// What has none goes through stage 2.
        stage2: bool,
    },
    /// One space for all of it.
    Whole,
}

/// What is known of a device's stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Stream {
    /// It does what its entry says.
    Free,
    /// Nobody confirmed its entry.
    Lost,
    /// As the SMMU is concerned it is free; what its device cached nobody knows.
    AwaitsReset,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Device {
    /// Whose it is.
    pub owner: Option<usize>,
    /// Whose it was last, if that is there.
    pub last: Option<usize>,
    /// Whether there is a token for it, and whether it is good.
    pub token: Option<bool>,
    /// Whom it is attached to.
    pub attached: Option<usize>,
    /// What its traffic meets.
    pub reach: Reach,
    /// What is known of its stream.
    pub stream: Stream,
    /// It is cut off until it is reset.
    pub is_fenced: bool,
    /// Somebody has had it since its last reset.
    pub is_dirty: bool,
    /// It kept translations that it was told to drop.
    pub has_kept: bool,
    /// It keeps them from now on.
    pub is_silent: bool,
    /// It cannot be reset.
    pub is_jammed: bool,
}

impl Device {
    /// It is attached to nobody.
    pub fn leave(&mut self) {
        self.attached = None;
        self.reach = Reach::Nothing;
    }
}

/// Where a space is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum SpaceState {
    /// It is not there.
    Gone,
    /// It can be bound.
    Live,
    /// It was released, and somebody holds it.
    Parked,
    /// Its number waits.
    Draining,
}

/// A space.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Space {
    /// Whose it is.
    pub guest: usize,
    /// Where it is in its life.
    pub state: SpaceState,
    /// It was bound once.
    pub was_bound: bool,
    /// Where its tag was used.
    pub live: Set,
    /// What did not confirm something of it.
    pub unproven: Set,
}

impl Space {
    /// A new one.
    pub fn new(guest: usize) -> Self {
        Self {
            guest,
            state: SpaceState::Live,
            was_bound: false,
            live: Set::default(),
            unproven: Set::default(),
        }
    }

    /// None.
    pub fn gone() -> Self {
        Self {
            state: SpaceState::Gone,
            ..Self::new(0)
        }
    }
}

/// Where a binding is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum BindingState {
    /// Its CD is live, or quiet.
    Bound,
    /// Nothing of it is in hardware.
    Ended,
    /// Nobody knows.
    Lost,
}

/// A space that is bound to a device.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Binding {
    /// The space.
    pub space: usize,
    /// The device.
    pub device: usize,
    /// By all of the device's traffic.
    pub whole: bool,
    /// Where it is in its life.
    pub state: BindingState,
    /// The device kept translations of it.
    pub has_kept: bool,
    /// Who holds it.
    pub handles: Vec<usize>,
}

/// Where everything stands.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct State {
    /// By place.
    pub guests: Vec<Guest>,
    /// By place.
    pub devices: Vec<Device>,
    /// By place.
    pub spaces: Vec<Space>,
    /// In no order.
    pub bindings: Vec<Binding>,
    /// By number.
    pub smmus: Vec<Smmu>,
    handles: usize,
}

impl State {
    /// Nothing.
    pub fn new(shape: &Shape) -> Self {
        let device = Device {
            owner: None,
            last: None,
            token: None,
            attached: None,
            reach: Reach::Nothing,
            stream: Stream::Free,
            is_fenced: false,
            is_dirty: false,
            has_kept: false,
            is_silent: false,
            is_jammed: false,
        };
        Self {
            guests: vec![Guest::gone(); shape.guests],
            devices: vec![device; shape.devices.len()],
            spaces: vec![Space::gone(); shape.spaces],
            bindings: Vec::new(),
            smmus: vec![Smmu::default(); shape.smmus],
            handles: shape.handles,
        }
    }

    /// How many places for handles there are.
    pub fn handles(&self) -> usize {
        self.handles
    }

    /// The first place for a handle that is free.
    pub fn free_handle(&self) -> Option<usize> {
        (0..self.handles).find(|handle| {
            let mut all = self.bindings.iter();
            all.all(|binding| !binding.handles.contains(handle))
        })
    }

    /// The binding that a handle stands for.
    pub fn holding(&mut self, handle: usize) -> Option<&mut Binding> {
        let mut all = self.bindings.iter_mut();
        all.find(|binding| binding.handles.contains(&handle))
    }

    /// The binding of a pair.
    pub fn binding_mut(&mut self, space: usize, device: usize) -> Option<&mut Binding> {
        let mut all = self.bindings.iter_mut();
        all.find(|it| (it.space, it.device) == (space, device))
    }

    /// Whether a space can be reached by a device, as far as both are concerned.
    pub fn is_bound(&self, space: usize, device: usize) -> bool {
        self.spaces[space].state == SpaceState::Live
            && self.bound_to(space).any(|bound| bound == device)
    }

    /// Devices that a space is bound to, in hardware.
    pub fn bound_to(&self, space: usize) -> impl Iterator<Item = usize> {
        let bound = self
            .bindings
            .iter()
            .filter(move |it| it.space == space && it.state == BindingState::Bound);
        bound.map(|it| it.device)
    }

    /// Devices that a space is bound to, in whatever state.
    pub fn devices_of(&self, space: usize) -> impl Iterator<Item = usize> {
        let bound = self.bindings.iter().filter(move |it| it.space == space);
        bound.map(|it| it.device)
    }

    /// Spaces that are bound to a device, in whatever state.
    pub fn spaces_of(&self, device: usize) -> impl Iterator<Item = usize> {
        let bound = self.bindings.iter().filter(move |it| it.device == device);
        bound.map(|it| it.space)
    }

    /// A guest's spaces that are not gone.
    pub fn spaces_of_guest(&self, guest: usize) -> impl Iterator<Item = usize> {
        let all = self.spaces.iter().enumerate();
        all.filter(move |(_, it)| it.guest == guest && it.state != SpaceState::Gone)
            .map(|(space, _)| space)
    }

    /// Forgets bindings that nobody holds and of which nothing is in hardware, and moves on what was
    /// released and is kept by nothing.
    pub fn settle(&mut self) {
        self.bindings
            .retain(|it| it.state != BindingState::Ended || it.has_kept || !it.handles.is_empty());
        for space in 0..self.spaces.len() {
            let is_kept = self.devices_of(space).next().is_some();
            let at = &mut self.spaces[space];
            if at.state == SpaceState::Parked && at.unproven.is_empty() && !is_kept {
                match at.was_bound {
                    true => at.state = SpaceState::Draining,
                    false => *at = Space::gone(),
                }
            }
        }
    }

    /// Every number that drains was silent for long enough.
    pub fn end_quarantines(&mut self) {
        for space in &mut self.spaces {
            if space.state == SpaceState::Draining {
                *space = Space::gone();
            }
        }
    }

    /// A guest is gone, with everything that it had.
    pub fn bury(&mut self, guest: usize) {
        for device in &mut self.devices {
            if device.attached == Some(guest) {
                device.leave();
            }
            if device.owner == Some(guest) {
                device.owner = None;
                device.token = device.token.map(|_| false);
            }
            device.last = device.last.filter(|last| *last != guest);
        }
        let spaces: Vec<_> = self.spaces_of_guest(guest).collect();
        self.bindings.retain(|it| !spaces.contains(&it.space));
        for space in spaces {
            self.spaces[space] = Space::gone();
        }
        self.guests[guest] = Guest::gone();
    }
}
