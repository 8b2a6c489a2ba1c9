//! One state for all that differ only in which place is which.

use super::state::{Shape, SpaceState, State};
use crate::operation::Op;

/// Which place becomes which.
#[derive(Clone, Debug, Default)]
pub struct Renaming {
    guests: Vec<usize>,
    devices: Vec<usize>,
    spaces: Vec<usize>,
    handles: Vec<usize>,
}

/// All renamings of guests, of devices behind the same SMMU, and of spaces.
#[derive(Debug)]
pub struct Symmetry {
    all: Vec<Renaming>,
}

impl Symmetry {
    /// Those of a world.
    pub fn new(shape: &Shape) -> Self {
        let behind_same = |order: &&Vec<usize>| {
            let mut all = order.iter().enumerate();
            all.all(|(from, to)| shape.devices[from] == shape.devices[*to])
        };
        let mut all = Vec::new();
        for devices in orders(shape.devices.len()).iter().filter(behind_same) {
            for guests in orders(shape.guests) {
                for spaces in orders(shape.spaces) {
                    all.push(Renaming {
                        guests: guests.clone(),
                        devices: devices.clone(),
                        spaces,
                        handles: Vec::new(),
                    });
                }
            }
        }
        Self { all }
    }

    /// The least of all states that a state becomes by renaming, and how it becomes that.
    pub fn canonical(&self, state: &State) -> (State, Renaming) {
        let renamed = self.all.iter().map(|renaming| renaming.apply(state));
        renamed
            .min_by(|(one, _), (other, _)| one.cmp(other))
            .expect("nothing is renamed in one of them")
    }
}

impl Renaming {
    /// A state with everything at its new place, handles too: which is which does not matter, only
    /// whose it is.
    fn apply(&self, state: &State) -> (State, Self) {
        let mut new = state.clone();
        for (from, guest) in state.guests.iter().enumerate() {
            new.guests[self.guests[from]] = guest.clone();
        }
        for (from, device) in state.devices.iter().enumerate() {
            let to = &mut new.devices[self.devices[from]];
            *to = device.clone();
            for guest in [&mut to.owner, &mut to.last, &mut to.attached] {
                *guest = guest.map(|guest| self.guests[guest]);
            }
        }
        for (from, space) in state.spaces.iter().enumerate() {
            let to = &mut new.spaces[self.spaces[from]];
            *to = space.clone();
            if space.state != SpaceState::Gone {
                to.guest = self.guests[space.guest];
            }
        }
        for binding in &mut new.bindings {
            binding.space = self.spaces[binding.space];
            binding.device = self.devices[binding.device];
        }
        new.bindings.sort();
        // Held ones first, in the order of their bindings, then those that are free.
        let held = new.bindings.iter().flat_map(|it| it.handles.clone());
        let mut order: Vec<_> = held.collect();
        let free = (0..state.handles()).filter(|it| !order.contains(it));
        order.extend(free.collect::<Vec<_>>());
        let mut renaming = self.clone();
        renaming.handles = vec![0; order.len()];
        for (to, from) in order.into_iter().enumerate() {
            renaming.handles[from] = to;
        }
        for handle in new.bindings.iter_mut().flat_map(|it| &mut it.handles) {
            *handle = renaming.handles[*handle];
        }
        (new, renaming)
    }

    /// The operation that is `op` when everything has its new place.
    pub fn undo(&self, op: Op) -> Op {
        let from = |places: &[usize], to: usize| {
            let found = places.iter().position(|it| *it == to);
            found.expect("every place has a new one")
        };
        op.at_places(
            |guest| from(&self.guests, guest),
            |device| from(&self.devices, device),
            |space| from(&self.spaces, space),
            |handle| from(&self.handles, handle),
        )
    }
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for place in 0..count {
        all = all
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=place).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, place);
                    longer
                })
            })
            .collect();
    }
    all
}
