//! Every operation in every state of a small world, on the real code.

use portcullis::spec::ste::Ats;
use portcullis_life::graph::{Graph, Tally};
use portcullis_life::operation::Op;
use portcullis_life::reference::Shape;
use portcullis_life::world::Machine;
use smmu_model::{Identity, Mode};

const GUESTS: usize = 2;
const DEVICES: usize = 2;
const SPACES: usize = 2;
const HANDLES: usize = 3;

/// Everything that can be done without faults.
fn ops() -> Vec<Op> {
    let mut all = vec![Op::Wait];
    for guest in 0..GUESTS {
        all.extend([
            Op::CreateGuest { guest },
            Op::DestroyGuest { guest },
            Op::ReleaseAll { guest },
            Op::Remap { guest },
        ]);
        for device in 0..DEVICES {
            let stage2 = false;
            all.extend([
                Op::Acquire { guest, device },
                Op::Attach {
                    guest,
                    device,
                    stage2,
                },
                Op::Detach { guest, device },
                Op::Reset { guest, device },
            ]);
        }
        for space in 0..SPACES {
            all.extend([
                Op::CreateSpace { guest, space },
                Op::Release { guest, space },
                Op::Invalidate { guest, space },
            ]);
            all.extend((0..DEVICES).map(|device| Op::Bind {
                guest,
                space,
                device,
                whole: false,
            }));
        }
        all.extend((0..HANDLES).map(|handle| Op::Unbind { guest, handle }));
    }
    for device in 0..DEVICES {
        all.extend([Op::Disown { device }, Op::Restore { device }]);
    }
    all
}

/// Two threads, each with a world of its own and half of the states.
fn walk_all(graph: &Graph) -> Tally {
    let walk = |part: usize| {
        let machine = Machine {
            identity: Identity::full(),
            mode: Mode::Chaotic { seed: part as u64 },
        };
        graph
            .walk(machine, (part, 2))
            .unwrap_or_else(|(differs, ops)| {
                let last = ops.len().saturating_sub(40);
                panic!(
                    "{differs}\nafter {} operations, the last ones {:?}",
                    ops.len(),
                    &ops[last..]
                )
            })
    };
    let [one, other] = std::thread::scope(|scope| {
        [0, 1]
            .map(|part| scope.spawn(move || walk(part)))
            .map(|thread| thread.join().expect("it has told what differs"))
    });
    Tally {
        states: one.states + other.states,
        tried: one.tried + other.tried,
        refused: one.refused + other.refused,
        changing: one.changing + other.changing,
    }
}

#[test]
fn every_operation_in_every_state_of_a_small_world_does_what_the_reference_says() {
    let shape = Shape {
        smmus: 1,
        devices: vec![0; DEVICES],
        ats: Ats::Off,
        guests: GUESTS,
        spaces: SPACES,
        handles: HANDLES,
        has_ports: true,
    };
    let graph = Graph::explore(&shape, &ops());
    let all = graph.tally();
    let expected = Tally {
        states: 3_929,
        tried: 188_248,
        refused: 124_782,
        changing: 38_139,
    };
    assert_eq!(all, expected);
    assert_eq!(walk_all(&graph), all);
}
