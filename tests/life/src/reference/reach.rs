//! What devices reach.

use super::{Reach, Reference, Stream};

impl Reference {
    /// Whether a device reaches a space by its PASID; `None`: whether what has no PASID reaches the
    /// guest's memory.
    pub fn reaches(&self, device: usize, space: Option<usize>) -> bool {
        let state = &self.state;
        let at = &state.devices[device];
        if at.is_fenced || self.is_down(device) || at.stream != Stream::Free {
            return false;
        }
        match (at.reach, space) {
            (Reach::Pasids { stage2 }, None) => {
                stage2
                    && at
                        .attached
                        .is_some_and(|guest| state.guests[guest].has_page)
            }
            (Reach::Pasids { .. }, Some(space)) => state.is_bound(space, device),
            (Reach::Nothing | Reach::Whole, _) => false,
        }
    }

    /// The space that a device reaches by all its traffic.
    pub fn reaches_whole(&self, device: usize) -> Option<usize> {
        let state = &self.state;
        let at = &state.devices[device];
        if at.is_fenced || self.is_down(device) || at.stream != Stream::Free {
            return None;
        }
        let all = 0..state.spaces.len();
        (at.reach == Reach::Whole)
            .then(|| all.into_iter().find(|it| state.is_bound(*it, device)))
            .flatten()
    }
}
