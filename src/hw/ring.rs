//! A queue of bounded length, in frames of its own.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::{Frames, NoFrames, Platform};

/// At most as many entries as fit into its frames, first in, first out.
///
/// Dropping it leaks the frames. `T` is `Copy`, so that no entry needs to be dropped.
pub(crate) struct Ring<'p, P, T: Copy> {
    platform: &'p P,
    frames: Frames,
    /// Where the oldest entry is.
    first: usize,
    len: usize,
    entries: PhantomData<T>,
}

impl<'p, P: Platform, T: Copy> Ring<'p, P, T> {
    /// An empty ring in `2^log2_bytes` bytes; more, if one entry or a page needs more.
    ///
    /// # Errors
    ///
    /// [`NoFrames`].
    pub(crate) fn new(platform: &'p P, log2_bytes: u8) -> Result<Self, NoFrames> {
        const { assert!(size_of::<T>() != 0, "an entry is something") };
        let log2_entry = size_of::<T>().next_power_of_two().trailing_zeros() as u8;
        let log2_bytes = log2_bytes.max(log2_entry).max(12);
        Ok(Self {
            platform,
            frames: Frames::allocate(platform, log2_bytes)?,
            first: 0,
            len: 0,
            entries: PhantomData,
        })
    }

    /// How many entries there can be.
    pub(crate) const fn capacity(&self) -> usize {
        self.frames.size_bytes() as usize / size_of::<T>()
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// How much memory it has from the platform, in bytes.
    pub(crate) const fn size_bytes(&self) -> u64 {
        self.frames.size_bytes()
    }

    /// The place of the entry `number`, counted from the oldest; `number` is below the capacity.
    fn place(&self, number: usize) -> NonNull<T> {
        let before_end = self.capacity() - self.first;
        let index = if number < before_end {
            self.first + number
        } else {
            number - before_end
        };
        assert!(index < self.capacity(), "entry {number} is in the ring");
        let first = self.platform.pointer(self.frames.base()).cast::<T>();
        // SAFETY: the frames are ours, aligned to their size, and have `capacity` places.
        unsafe { first.add(index) }
    }

    /// The entry `number`, counted from the oldest, which is there.
    fn read(&self, number: usize) -> T {
        let place = self.place(number);
        // SAFETY: the first `len` entries were written, by `write`, and a `T` is `Copy`.
        unsafe { place.read() }
    }

    fn write(&mut self, number: usize, entry: T) {
        let place = self.place(number);
        // SAFETY: the place is ours, and no reference to it is ever made.
        unsafe { place.write(entry) }
    }

    /// Puts `entry` behind the others.
    ///
    /// # Errors
    ///
    /// `entry`, if the ring is full.
    pub(crate) fn push(&mut self, entry: T) -> Result<(), T> {
        if self.len == self.capacity() {
            return Err(entry);
        }
        self.write(self.len, entry);
        self.len += 1;
        Ok(())
    }

    /// Takes the oldest entry out.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let oldest = (self.len != 0).then(|| self.read(0))?;
        self.len -= 1;
        self.first += 1;
        if self.first == self.capacity() {
            self.first = 0;
        }
        Some(oldest)
    }

    /// Takes out the entries that `keep` does not want, which sees each of them once, the oldest
    /// first; the others keep their order. Time grows with the length.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut kept = 0;
        for number in 0..self.len {
            let entry = self.read(number);
            if keep(&entry) {
                self.write(kept, entry);
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Gives the memory back; the entries are forgotten.
    pub(crate) fn free(self) {
        self.platform.free(self.frames);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::super::testing::HostPlatform;
    use super::*;

    #[test]
    fn the_size_is_that_of_the_frames() {
        let platform = HostPlatform::new();
        let small = Ring::<_, [u64; 3]>::new(&platform, 0).expect("memory");
        assert_eq!((small.capacity(), small.size_bytes()), (170, 1 << 12));
        let large = Ring::<_, u32>::new(&platform, 14).expect("memory");
        assert_eq!((large.capacity(), large.len()), (4096, 0));
        let one = Ring::<_, [u8; 5000]>::new(&platform, 12).expect("memory");
        assert_eq!((one.capacity(), one.size_bytes()), (1, 1 << 13));
        platform.fail_after(Some(0));
        let refused = Ring::<_, u32>::new(&platform, 14).map(|_| ());
        assert_eq!(refused, Err(NoFrames { log2_bytes: 14 }));
        small.free();
        large.free();
        one.free();
        assert_eq!(platform.bytes_out(), 0);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push(u8),
        Pop(u8),
        /// Keeps what has one of these bits.
        Retain(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => any::<u8>().prop_map(Step::Push),
            7 => any::<u8>().prop_map(Step::Pop),
            2 => any::<u64>().prop_map(|bits| Step::Retain(bits & 0x7)),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn it_behaves_as_a_queue_does(steps in steps()) {
            let platform = HostPlatform::new();
            let mut ring = Ring::new(&platform, 12).expect("memory");
            let mut queue = VecDeque::new();
            let mut number = 0_u64;
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        number += 1;
                        let entry = [number, !number, number << 7];
                        if queue.len() < 170 {
                            queue.push_back(entry);
                            prop_assert_eq!(ring.push(entry), Ok(()));
                        } else {
                            prop_assert_eq!(ring.push(entry), Err(entry));
                        }
                    },
                    Step::Pop(count) => for _ in 0..count {
                        prop_assert_eq!(ring.pop(), queue.pop_front());
                    },
                    Step::Retain(bits) => {
                        let mut seen = Vec::new();
                        let expected: Vec<_> = queue.iter().copied().collect();
                        ring.retain(|entry| {
                            seen.push(*entry);
                            entry[0] & bits != 0
                        });
                        queue.retain(|entry| entry[0] & bits != 0);
                        prop_assert_eq!(seen, expected);
                    }
                }
                prop_assert_eq!(ring.len(), queue.len());
            }
            while let Some(entry) = ring.pop() {
                prop_assert_eq!(Some(entry), queue.pop_front());
            }
            prop_assert!(queue.is_empty());
            ring.free();
            prop_assert_eq!(platform.bytes_out(), 0);
        }
    }
}
