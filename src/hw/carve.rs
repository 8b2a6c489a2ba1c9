//! Frames cut out of larger ones, and put back.

use super::page_map::{MAX_PAGES, PageMap};
use super::{Frames, NoFrames, Platform};
use crate::addr::Pa;

/// One piece of memory from the platform, given out in smaller pieces. Dropping it leaks all.
pub(crate) struct Carve<'p, P> {
    whole: Frames,
    log2_page: u8,
    map: PageMap<'p, P>,
}

impl<'p, P: Platform> Carve<'p, P> {
    /// `2^log2_bytes` bytes, to be given out in pages of `2^log2_page` and more; at most
    /// [`MAX_PAGES`] of them.
    pub(crate) fn new(platform: &'p P, log2_bytes: u8, log2_page: u8) -> Result<Self, NoFrames> {
        let pages = 1_u64
            .checked_shl(log2_bytes.saturating_sub(log2_page).into())
            .filter(|pages| *pages <= MAX_PAGES)
            .ok_or(NoFrames { log2_bytes })?;
        let map = PageMap::new(platform, pages)?;
        match platform.allocate(log2_bytes) {
            Some(whole) => Ok(Self {
                whole,
                log2_page,
                map,
            }),
            None => {
                map.free();
                Err(NoFrames { log2_bytes })
            }
        }
    }

    /// Where it begins.
    pub(crate) const fn base(&self) -> Pa {
        self.whole.base()
    }

    /// How many bytes there are, as a power of two.
    pub(crate) const fn log2_bytes(&self) -> u8 {
        self.whole.log2_bytes()
    }

    /// How many bytes are out.
    pub(crate) fn bytes_out(&self) -> u64 {
        self.map.taken() << self.log2_page
    }

    /// `2^log2_bytes` bytes, a page at least, aligned to their size; and where they are in the whole.
    pub(crate) fn take(&mut self, log2_bytes: u8) -> Option<(Frames, u64)> {
        let log2_bytes = log2_bytes.max(self.log2_page);
        let log2_pages = log2_bytes - self.log2_page;
        let first = self.map.find(0, log2_pages)?;
        self.map.take(first, log2_pages);
        let offset = first << self.log2_page;
        let base = Pa::new(self.whole.base().as_u64() + offset);
        // SAFETY: the whole is ours alone and stays so as long as this value; the map says that
        // nobody has this part of it, and says from now on that somebody has. The whole is aligned
        // to its size, so a part is aligned to its own.
        let frames = unsafe { Frames::new(base, log2_bytes) };
        Some((frames, offset))
    }

    /// Takes back what `take` gave.
    ///
    /// # Errors
    ///
    /// The frames, if they are none of its parts.
    pub(crate) fn put_back(&mut self, frames: Frames) -> Result<(), Frames> {
        let offset = frames.base().as_u64().checked_sub(self.base().as_u64());
        let place = offset.zip(frames.log2_bytes().checked_sub(self.log2_page));
        match place {
            Some((offset, log2_pages))
                if self.map.are_taken(offset >> self.log2_page, log2_pages) =>
            {
                self.map.give_back(offset >> self.log2_page, log2_pages);
                Ok(())
            }
            _ => Err(frames),
        }
    }

    /// Gives the whole back to the platform, of which nothing is out.
    ///
    /// # Errors
    ///
    /// The value, if something is.
    pub(crate) fn free(self, platform: &P) -> Result<(), Self> {
        if self.map.taken() != 0 {
            return Err(self);
        }
        self.map.free();
        platform.free(self.whole);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::HostPlatform;
    use super::*;

    #[test]
    fn parts_are_aligned_and_nobody_elses_and_come_back() {
        let platform = HostPlatform::new();
        let mut carve = Carve::new(&platform, 16, 12).expect("there is memory");
        let (page, at) = carve.take(12).expect("there is room");
        assert_eq!((at, page.log2_bytes()), (0, 12));
        let (large, at) = carve.take(14).expect("there is room");
        assert_eq!(at, 0x4000, "aligned to its size");
        let (second, at) = carve.take(0).expect("there is room");
        assert_eq!((at, second.log2_bytes()), (0x1000, 12), "a page at least");
        assert!(carve.take(16).is_none(), "it is not whole any more");
        assert_eq!(carve.bytes_out(), 0x6000);
        for frames in [large, page, second] {
            assert!(carve.put_back(frames).is_ok());
        }
        assert!(carve.free(&platform).is_ok());
        assert_eq!(platform.bytes_out(), 0);
    }

    #[test]
    fn what_is_another_ones_is_not_taken_back_and_what_is_out_keeps_the_whole() {
        let platform = HostPlatform::new();
        let mut carve = Carve::new(&platform, 16, 12).expect("there is memory");
        let (page, _) = carve.take(12).expect("there is room");
        let foreign = platform.allocate(12).expect("there is memory");
        let Err(foreign) = carve.put_back(foreign) else {
            panic!("it is none of its parts");
        };
        platform.free(foreign);
        let mut carve = match carve.free(&platform) {
            Err(carve) => carve,
            Ok(()) => panic!("a page is out"),
        };
        assert!(carve.put_back(page).is_ok());
        assert!(carve.free(&platform).is_ok());
        assert_eq!(platform.bytes_out(), 0);
    }
}
