//! The guests that play the scenarios on the model: `guest-kernel`, once or twice, each with devices of
//! its own behind SMMUs that they share.

use std::path::Path;

use super::layout::{Device, Layout};
use crate::guests::Guest;

/// The kernel, as the guests' description has it.
pub(crate) const PLAYER: &str = "player";
/// The guest that lives beside the player.
pub(crate) const NEIGHBOUR: &str = "neighbour";
/// Memory of a guest.
const MEMORY_BYTES: u64 = 32 << 20;

/// Who plays: so many CPUs, alone or beside a neighbour, which has the last CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cast {
    pub(crate) player_cpus: u32,
    pub(crate) has_neighbour: bool,
}

impl Cast {
    /// The casts that together play all that a machine of so many CPUs can.
    pub(crate) fn all(cpus: u32) -> Vec<Self> {
        let alone = |player_cpus| Self {
            player_cpus,
            has_neighbour: false,
        };
        let together = |player_cpus| Self {
            player_cpus,
            has_neighbour: true,
        };
        match cpus {
            0 | 1 => vec![alone(1)],
            2 => vec![together(1), alone(2)],
            _ => vec![together(2)],
        }
    }

    /// The guests on the machine of `layout`, with the kernel at `image`.
    pub(crate) fn guests(self, layout: &Layout, image: &Path) -> Vec<Guest> {
        let of_neighbour = |device: &Device| self.has_neighbour && device.stream & !0xf == 0x30;
        let devices = |is_its: &dyn Fn(&Device) -> bool| {
            let its = layout.devices.iter().filter(|it| is_its(it));
            its.map(Device::node).collect()
        };
        let guest = |name: &str, cpus, devices| Guest {
            name: name.into(),
            image: image.to_path_buf(),
            memory_bytes: MEMORY_BYTES,
            cpus,
            devices,
        };
        let first = self.player_cpus;
        let player = guest(PLAYER, 0..first, devices(&|it| !of_neighbour(it)));
        let neighbour = guest(NEIGHBOUR, first..first + 1, devices(&of_neighbour));
        let neighbour = self.has_neighbour.then_some(neighbour);
        [player].into_iter().chain(neighbour).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::DEVICES;
    use super::*;

    #[test]
    fn every_device_is_one_guests_and_the_neighbour_has_one_behind_each_smmu() {
        let layout = Layout::new(512 << 20, 2, DEVICES).expect("enough memory");
        let both = Cast {
            player_cpus: 2,
            has_neighbour: true,
        };
        let guests = both.guests(&layout, Path::new("kernel.img"));
        let given: Vec<&String> = guests.iter().flat_map(|it| &it.devices).collect();
        assert_eq!(given.len(), layout.devices.len());
        let its: Vec<&Device> = layout
            .devices
            .iter()
            .filter(|it| guests[1].devices.contains(&it.node()))
            .collect();
        assert_eq!(its.iter().map(|it| it.smmu).collect::<Vec<_>>(), [0, 1]);
        assert!(its.iter().all(|it| it.can_stall));
        assert_eq!(guests[1].cpus, 2..3);
        let alone = Cast {
            player_cpus: 1,
            has_neighbour: false,
        };
        let alone = alone.guests(&layout, Path::new("kernel.img"));
        assert_eq!(alone[0].devices.len(), layout.devices.len());
        assert_eq!(alone.len(), 1);
    }

    #[test]
    fn together_the_casts_have_two_cpus_and_two_guests_wherever_there_are_two_cpus() {
        for cpus in [2, 4] {
            let casts = Cast::all(cpus);
            assert!(casts.iter().any(|it| it.player_cpus > 1));
            assert!(casts.iter().any(|it| it.has_neighbour));
            let used = |it: &Cast| it.player_cpus + u32::from(it.has_neighbour);
            assert!(casts.iter().all(|it| used(it) <= cpus));
        }
        assert_eq!(Cast::all(1).len(), 1);
    }
}
