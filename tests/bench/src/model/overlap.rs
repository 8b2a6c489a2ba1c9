//! A release over several SMMUs whose SYNC takes a while each: all are told before any is waited for.

use super::world::Shape;
use crate::{Row, linux};

/// Microseconds that a CMD_SYNC takes.
const SYNC_US: u64 = 10;

/// Model time of a release over K SMMUs with so many bindings on each, and what Linux's SYNCs, one
/// SMMU after the other, would take of it.
fn release_us(smmus: usize, devices: usize) -> (u64, u64) {
    let shape = Shape {
        smmus,
        ..Shape::new(devices)
    };
    shape.with_guest(|mut world| {
        let space = world.space_on_all();
        world.delay_syncs(smmus, SYNC_US);
        let release = || world.iommu.release(world.guest, space);
        let (done, released) = world.host.count(release);
        released.expect("released");
        let linux = smmus as u64 * linux::release(devices as u64, false) * SYNC_US;
        (done.us, linux)
    })
}

/// The rows.
pub fn rows(each: &mut impl FnMut(Row)) {
    for smmus in [1, 2, 4, 8, 16] {
        let (ours, linux) = release_us(smmus, 8);
        let row = Row::new(
            format!("overlap.release_us.n8.k{smmus}"),
            ours,
            "µs (model)",
        );
        each(row.beside(linux::PEER, linux));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_smmus_take_no_longer_than_one() {
        let (one, _) = release_us(1, 2);
        let (eight, _) = release_us(8, 2);
        assert!(one >= 2 * SYNC_US, "two SYNCs: {one}");
        assert_eq!(one, eight);
    }
}
