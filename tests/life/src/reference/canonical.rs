//! One state for all that differ only in which place is which.

use super::state::{Set, State};

impl State {
    /// The least of all states that this one becomes by giving guests, devices behind the same SMMU,
    /// spaces and handles other places.
    ///
    /// `devices` is the SMMU that each device is behind.
    pub fn canonical(&self, devices: &[usize]) -> Self {
        let behind_same = |order: &&Vec<usize>| {
            let mut all = order.iter().enumerate();
            all.all(|(from, to)| devices[from] == devices[*to])
        };
        let guests = orders(self.guests.len());
        let spaces = orders(self.spaces.len());
        let all_devices = orders(self.devices.len());
        let mut least: Option<Self> = None;
        for devices in all_devices.iter().filter(behind_same) {
            for guests in &guests {
                for spaces in &spaces {
                    let one = self.renamed(guests, devices, spaces);
                    if least.as_ref().is_none_or(|least| one < *least) {
                        least = Some(one);
                    }
                }
            }
        }
        least.expect("nothing is renamed in one of the orders")
    }

    /// With everything at the places that these lists say.
    fn renamed(&self, guests: &[usize], devices: &[usize], spaces: &[usize]) -> Self {
        let mut state = self.clone();
        for (from, guest) in self.guests.iter().enumerate() {
            state.guests[guests[from]] = guest.clone();
        }
        for (from, device) in self.devices.iter().enumerate() {
            let to = &mut state.devices[devices[from]];
            *to = device.clone();
            for guest in [&mut to.owner, &mut to.last, &mut to.attached] {
                *guest = guest.map(|guest| guests[guest]);
            }
        }
        for (from, space) in self.spaces.iter().enumerate() {
            let to = &mut state.spaces[spaces[from]];
            *to = space.clone();
            if space.live != Set::default() || *space != super::Space::gone() {
                to.guest = guests[space.guest];
            }
        }
        for binding in &mut state.bindings {
            binding.space = spaces[binding.space];
            binding.device = devices[binding.device];
        }
        state.bindings.sort();
        let mut next = 0..;
        for binding in &mut state.bindings {
            // Which handle is which does not matter, only whose.
            binding.handles = next.by_ref().take(binding.handles.len()).collect();
        }
        state
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
