//! Release and bind of one space run on two CPUs, while the device fires.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis::space::SpaceError;

use crate::{Ends, Story, Task, World};

pub(super) const STORY: Story = Story::new(
    "release-races-bind",
    "release and bind of one space on two CPUs, and the device firing beside them",
    play,
);

const SHOTS: usize = 6;

fn play(world: &World<'_>) {
    let guest = world.guest();
    let device = world.device(&guest);
    for _ in 0..6 {
        let process = world.process(&guest);
        let bound = Mutex::new(None);
        let is_released = AtomicBool::new(false);
        let release: Task<'_> = Box::new(|| {
            world
                .try_release(&process)
                .expect("nobody else releases it");
            is_released.store(true, Ordering::SeqCst);
        });
        let bind: Task<'_> = Box::new(|| {
            *bound.lock().expect("whole") = Some(world.try_bind(&process, &device));
        });
        let fire: Task<'_> = Box::new(|| {
            for _ in 0..SHOTS {
                let was_released = is_released.load(Ordering::SeqCst);
                match world.fire(&device, &process) {
                    Ends::Landed(pa) => {
                        assert!(!was_released, "a live CD after release returned");
                        assert_eq!(pa, process.page);
                    }
                    Ends::Blocked => {}
                    Ends::Stalled => panic!("what is not bound does not wait"),
                }
            }
        });
        world.race(vec![release, bind, fire]);
        world.blocked(&device, &process);
        let bound = bound.into_inner().expect("whole").expect("it ran");
        match bound {
            // Bound, and then quieted.
            Ok(handle) => {
                world.is_parked(&process);
                world.close(&guest, handle);
                world.becomes_free(&process);
            }
            Err(error) => {
                let is_named = matches!(error, SpaceError::Released | SpaceError::NoSuchSpace);
                assert!(is_named, "{error}");
                world.pass(50_000);
            }
        }
        assert_eq!(world.state(&process), Err(SpaceError::NoSuchSpace));
        assert_eq!(world.has(guest.id), [0, 0, 0]);
    }
}
