//! Threads that bind and release spaces of their own, on one SMMU and on several.
//!
//! In model time, where a CMD_SYNC takes 10 µs and the work of CPUs takes none: what is seen is what
//! threads cost each other by waiting.

use std::thread;

use portcullis::space::By;

use super::world::{Shape, World};
use crate::Row;

const SYNC_US: u64 = 10;
/// Spaces that each thread makes, binds and releases.
const ROUNDS: u64 = 24;

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outcome {
    /// Microseconds from the first to the last of all.
    us: u64,
    /// The longest that one call took, bind or release.
    longest_us: u64,
}

/// So many threads, each with devices of its own, at work on so many SMMUs: the thread number t on
/// SMMU t mod K.
fn run(threads: usize, smmus: usize) -> Outcome {
    let shape = Shape {
        smmus,
        threads,
        ..Shape::new(threads)
    };
    shape.with_guest(|mut world| {
        let spaces: Vec<Vec<_>> = (0..threads)
            .map(|_| (0..ROUNDS).map(|_| world.space()).collect())
            .collect();
        world.delay_syncs(smmus, SYNC_US);
        let world = &world;
        let begun = now(world);
        let longest = thread::scope(|scope| {
            let each: Vec<_> = spaces
                .iter()
                .enumerate()
                .map(|(me, spaces)| {
                    let device = world.devices[(me % smmus) * threads + me];
                    scope.spawn(move || {
                        let turns = world.host.turns().expect("they were asked for");
                        turns.take(me, || work(world, spaces, device))
                    })
                })
                .collect();
            let joined = each
                .into_iter()
                .map(|thread| thread.join().expect("it ends well"));
            joined.max().unwrap_or(0)
        });
        Outcome {
            us: now(world) - begun,
            longest_us: longest,
        }
    })
}

fn now(world: &World<'_>) -> u64 {
    world.host.inner().machine().record().now_us()
}

/// One thread's work; the longest call of it.
fn work(
    world: &World<'_>,
    spaces: &[portcullis::space::SpaceId],
    device: portcullis::space::DeviceId,
) -> u64 {
    let (iommu, guest) = (&world.iommu, world.guest);
    let mut longest = 0;
    let mut timed = |call: &mut dyn FnMut()| {
        let before = now(world);
        call();
        longest = longest.max(now(world) - before);
    };
    for space in spaces {
        timed(&mut || {
            let bound = iommu.bind(guest, *space, device, By::Pasid);
            bound.expect("bound");
        });
        timed(&mut || iommu.release(guest, *space).expect("released"));
    }
    longest
}

/// The rows: against one thread on one SMMU there is nothing to compare with, so there is no peer.
pub fn rows(each: &mut impl FnMut(Row)) {
    for smmus in [1, 4] {
        for threads in [1, 2, 4, 8] {
            let Outcome { us, longest_us } = run(threads, smmus);
            let pairs = threads as u64 * ROUNDS;
            let per_second = pairs * 1_000_000 / us;
            let name = |what: &str| format!("contention.{what}.t{threads}.k{smmus}");
            each(Row::new(
                name("pairs_per_second"),
                per_second,
                "bind and release a second (model)",
            ));
            each(Row::new(name("longest_us"), longest_us, "µs (model)"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_in_every_run_and_threads_on_smmus_of_their_own_do_not_slow_each_other() {
        let alone = run(1, 1);
        assert_eq!(run(2, 1), run(2, 1));
        assert_eq!(run(4, 4).us, alone.us);
    }
}
