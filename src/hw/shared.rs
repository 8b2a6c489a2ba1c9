//! A value with several owners, in frames of its own.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use super::atomic::{AtomicUsize, Ordering, fence};
use super::{Frames, NoFrames, Platform};

/// What is in the frames.
struct Inner<T> {
    owners: AtomicUsize,
    frames: Frames,
    value: T,
}

/// One of the owners of a value that lies in frames of its own: at least 4 KiB.
///
/// What `Arc` is, where memory comes from a [`Platform`] and may be refused. The last owner that
/// goes drops the value and gives the frames back.
pub(crate) struct Shared<'p, P: Platform, T> {
    platform: &'p P,
    inner: NonNull<Inner<T>>,
    /// It may be the one that drops the value.
    owned: PhantomData<Inner<T>>,
}

// SAFETY: an owner gives others access to the value (`T: Sync`), and may be the one that drops it
// or takes it out, on whichever CPU it is then (`T: Send`); the count is atomic. A `Platform` may
// be used from any CPU.
unsafe impl<P: Platform, T: Send + Sync> Send for Shared<'_, P, T> {}
// SAFETY: as above: from a reference another owner can be cloned.
unsafe impl<P: Platform, T: Send + Sync> Sync for Shared<'_, P, T> {}

impl<'p, P: Platform, T> Shared<'p, P, T> {
    const LOG2_BYTES: u8 = {
        let log2_bytes = size_of::<Inner<T>>().next_power_of_two().trailing_zeros() as u8;
        if log2_bytes > 12 { log2_bytes } else { 12 }
    };

    /// `value` in frames from `platform`, with one owner.
    ///
    /// # Errors
    ///
    /// `value`, and [`NoFrames`].
    pub(crate) fn new(platform: &'p P, value: T) -> Result<Self, (T, NoFrames)> {
        let frames = match Frames::allocate(platform, Self::LOG2_BYTES) {
            Ok(frames) => frames,
            Err(why) => return Err((value, why)),
        };
        let inner = platform.pointer(frames.base()).cast();
        let owners = AtomicUsize::new(1);
        // SAFETY: the frames are ours, aligned to their size, and have room for one `Inner`.
        unsafe {
            inner.write(Inner {
                owners,
                frames,
                value,
            });
        }
        Ok(Self {
            platform,
            inner,
            owned: PhantomData,
        })
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: `new` wrote it, and it stays until the last owner is gone, which this one is
        // not. A mutable reference to it is made by nobody.
        unsafe { self.inner.as_ref() }
    }

    /// Takes the value out of the frames, which go back: by the last owner, who is no more.
    ///
    /// # Safety
    ///
    /// There is no owner any more, and everything that owners did happened before.
    unsafe fn dissolve(&self) -> T {
        // SAFETY: the frames hold an `Inner` that nobody else refers to, and goes out of use here.
        let Inner { frames, value, .. } = unsafe { self.inner.read() };
        self.platform.free(frames);
        value
    }

    /// The value itself, of its only owner; the frames go back.
    ///
    /// Of several owners that try at once none may succeed; one that is alone always does.
    ///
    /// # Errors
    ///
    /// The owner, if it is not the only one.
    pub(crate) fn try_into_inner(self) -> Result<T, Self> {
        // From 1 to 0 and nothing else: while it is 1 there is no other owner, and nobody but an
        // owner can make one. Acquire pairs with the release of every owner that went (`drop`).
        let owners = &self.inner().owners;
        let alone = owners.compare_exchange(1, 0, Ordering::Acquire, Ordering::Relaxed);
        if alone.is_err() {
            return Err(self);
        }
        let this = core::mem::ManuallyDrop::new(self);
        // SAFETY: it was the only owner, as just found, and is none any more: it is not dropped.
        Ok(unsafe { this.dissolve() })
    }
}

impl<P: Platform, T> Clone for Shared<'_, P, T> {
    fn clone(&self) -> Self {
        // Relaxed: who has an owner at hand knows all that it needs, and the count is not 0. What
        // the value is handed to another CPU by orders the rest.
        let before = self.inner().owners.fetch_add(1, Ordering::Relaxed);
        // So many owners can only have been forgotten; one more round and the value would be freed
        // while it has some.
        assert!(
            before <= isize::MAX as usize,
            "owners are forgotten, not dropped"
        );
        Self {
            platform: self.platform,
            inner: self.inner,
            owned: PhantomData,
        }
    }
}

impl<P: Platform, T> Deref for Shared<'_, P, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<P: Platform, T> Drop for Shared<'_, P, T> {
    fn drop(&mut self) {
        // Release: all that this owner did with the value comes before the last one drops it.
        if self.inner().owners.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        // Pairs with the releases of all the others; a fence, so that only the last one pays.
        fence(Ordering::Acquire);
        // SAFETY: the count went to 0 here, so there is no owner, and the fence puts what they did
        // before this.
        drop(unsafe { self.dissolve() });
    }
}

impl<P: Platform, T: fmt::Debug> fmt::Debug for Shared<'_, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::testing::HostPlatform;
    use super::*;
    use std::boxed::Box;
    use std::sync::atomic::AtomicU32;

    struct Counted<'a>(u64, &'a AtomicU32);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn shared<T>(platform: &HostPlatform, value: T) -> Shared<'_, HostPlatform, T> {
        match Shared::new(platform, value) {
            Ok(shared) => shared,
            Err((_, why)) => panic!("no memory: {why:?}"),
        }
    }

    #[test]
    fn the_last_owner_drops_the_value_and_gives_the_frames_back() {
        let (platform, drops) = (HostPlatform::new(), AtomicU32::new(0));
        let first = shared(&platform, Counted(7, &drops));
        let second = first.clone();
        assert_eq!(platform.bytes_out(), 1 << 12);
        drop(first);
        assert_eq!((second.0, drops.load(Ordering::Relaxed)), (7, 0));
        drop(second);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(platform.bytes_out(), 0);
    }

    #[test]
    fn the_only_owner_takes_the_value_out() {
        let (platform, drops) = (HostPlatform::new(), AtomicU32::new(0));
        let first = shared(&platform, Counted(7, &drops));
        let second = first.clone();
        let Err(first) = first.try_into_inner() else {
            panic!("there were two")
        };
        drop(second);
        let Ok(value) = first.try_into_inner() else {
            panic!("there was one")
        };
        assert_eq!((value.0, drops.load(Ordering::Relaxed)), (7, 0));
        assert_eq!(platform.bytes_out(), 0);
    }

    #[test]
    fn a_value_without_a_place_comes_back() {
        let platform = HostPlatform::new();
        platform.fail_after(Some(0));
        let Err((value, why)) = Shared::new(&platform, Box::new([1_u8; 9000])) else {
            panic!("there is no memory")
        };
        assert_eq!((value[8999], why), (1, NoFrames { log2_bytes: 12 }));
        let Err((value, why)) = Shared::new(&platform, [1_u8; 9000]) else {
            panic!("there is no memory")
        };
        assert_eq!((value[8999], why), (1, NoFrames { log2_bytes: 14 }));
    }

    #[test]
    fn owners_on_many_cpus_drop_it_once() {
        let (platform, drops) = (HostPlatform::new(), AtomicU32::new(0));
        let first = shared(&platform, Counted(7, &drops));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mine = first.clone();
                scope.spawn(move || {
                    for _ in 0..1000 {
                        assert_eq!(mine.clone().0, 7);
                    }
                });
            }
            drop(first);
        });
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        assert_eq!(platform.bytes_out(), 0);
    }
}

/// All interleavings, and all values that relaxed loads may return.
#[cfg(all(test, loom))]
#[path = "shared/loom_tests.rs"]
mod loom_tests;
