use loom::cell::UnsafeCell;
use loom::thread;
use std::boxed::Box;

use super::super::testing::HostPlatform;
use super::*;

/// A value whose every use is known to loom, which objects if two are not ordered.
struct Watched(UnsafeCell<u32>);

// SAFETY: loom sees each access, and fails where they could meet.
unsafe impl Sync for Watched {}

impl Watched {
    fn new() -> Self {
        Self(UnsafeCell::new(7))
    }

    fn read(&self) -> u32 {
        // SAFETY: loom fails if somebody could write meanwhile.
        self.0.with(|value| unsafe { *value })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: loom fails if somebody could read or write meanwhile.
        self.0.with_mut(|value| unsafe { *value = 0 });
    }
}

/// A platform for the length of a test process, as threads of loom's borrow nothing.
fn platform() -> &'static HostPlatform {
    Box::leak(Box::new(HostPlatform::new()))
}

fn shared(platform: &'static HostPlatform) -> Shared<'static, HostPlatform, Watched> {
    match Shared::new(platform, Watched::new()) {
        Ok(shared) => shared,
        Err((_, why)) => panic!("no memory: {why:?}"),
    }
}

#[test]
fn the_last_owner_drops_after_every_use() {
    loom::model(|| {
        let platform = platform();
        let first = shared(platform);
        let others: [_; 2] = core::array::from_fn(|_| {
            let mine = first.clone();
            thread::spawn(move || {
                let another = mine.clone();
                drop(mine);
                assert_eq!(another.read(), 7);
            })
        });
        assert_eq!(first.read(), 7);
        drop(first);
        for other in others {
            other.join().expect("it does not panic");
        }
        assert_eq!(platform.bytes_out(), 0);
    });
}

#[test]
fn the_value_is_taken_out_after_every_use_and_at_most_once() {
    loom::model(|| {
        let platform = platform();
        let first = shared(platform);
        let second = first.clone();
        let other = thread::spawn(move || {
            assert_eq!(second.read(), 7);
            second.try_into_inner().is_ok()
        });
        assert_eq!(first.read(), 7);
        let mine = match first.try_into_inner() {
            Ok(value) => value.read() == 7,
            Err(first) => {
                drop(first);
                false
            }
        };
        let theirs = other.join().expect("it does not panic");
        assert!(!(mine && theirs), "both took it");
        assert_eq!(platform.bytes_out(), 0);
    });
}

#[test]
fn an_owner_that_is_left_alone_takes_the_value() {
    loom::model(|| {
        let platform = platform();
        let first = shared(platform);
        let second = first.clone();
        let other = thread::spawn(move || assert_eq!(second.read(), 7));
        let mut mine = Some(first);
        // Once the other one is seen to be gone, its use of the value is over as well.
        while let Some(first) = mine.take() {
            match first.try_into_inner() {
                Ok(value) => drop(value),
                Err(first) => {
                    mine = Some(first);
                    thread::yield_now();
                }
            }
        }
        other.join().expect("it does not panic");
        assert_eq!(platform.bytes_out(), 0);
    });
}
