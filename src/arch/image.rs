//! The image as it lies in memory: its header, its parts, where it was loaded.

use crate::addr::{Extent, Pa};

/// `flags` of the arm64 Image header: little-endian, 4 KiB pages, loaded anywhere in memory at a
/// multiple of 2 MiB.
///
/// Linux, `Documentation/arch/arm64/booting.rst`: bit 0 endianness, bits 2:1 page size, bit 3
/// placement.
pub const HEADER_FLAGS: u64 = 0b1010;

/// `magic` of the arm64 Image header, "ARM\x64".
pub const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"ARM\x64");

/// The parts of the image, as physical addresses; each on pages of its own.
///
/// What lies between [`data`](Self::data) and [`stack`](Self::stack), and between that and
/// [`exception_stack`](Self::exception_stack), is a guard page each.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// All of it, guard pages included.
    pub whole: Extent<Pa>,
    /// Code.
    pub text: Extent<Pa>,
    /// Constants, and what the entry has relocated.
    pub rodata: Extent<Pa>,
    /// What is written: data, zeroed data, the tables of [`mmu`](super::mmu).
    pub data: Extent<Pa>,
    /// The first CPU's stack.
    pub stack: Extent<Pa>,
    /// The stack that exceptions run on.
    pub exception_stack: Extent<Pa>,
}

impl Layout {
    /// Which guard page `address` lies in, in words; `None` if in none.
    pub fn guard(&self, address: Pa) -> Option<&'static str> {
        let between = |below: &Extent<Pa>, above: &Extent<Pa>| {
            below.end() <= address && address < above.base()
        };
        if between(&self.data, &self.stack) {
            Some("the stack's guard page: the stack overflowed")
        } else if between(&self.stack, &self.exception_stack) {
            Some("the exception stack's guard page: that stack overflowed")
        } else {
            None
        }
    }

    /// How far into the image `address` lies; `None` if it does not.
    ///
    /// The image is linked at 0, so this is the address that symbol tables and line tables know.
    pub fn offset(&self, address: Pa) -> Option<u64> {
        self.whole
            .contains(address)
            .then(|| address.as_u64() - self.whole.base().as_u64())
    }
}

/// Where the parts of this image are.
#[cfg(target_os = "none")]
pub fn layout() -> Layout {
    unsafe extern "C" {
        safe static __image_start: u8;
        safe static __text_end: u8;
        safe static __rodata_end: u8;
        safe static __data_end: u8;
        safe static __stack_start: u8;
        safe static __stack_end: u8;
        safe static __exception_stack_start: u8;
        safe static __exception_stack_end: u8;
        safe static __image_end: u8;
    }
    let part = |start: *const u8, end: *const u8| {
        let base = Pa::new(start.addr() as u64);
        let size_bytes = (end.addr() - start.addr()) as u64;
        Extent::<Pa>::new(base, size_bytes).expect("the image does not end past the top")
    };
    Layout {
        whole: part(&raw const __image_start, &raw const __image_end),
        text: part(&raw const __image_start, &raw const __text_end),
        rodata: part(&raw const __text_end, &raw const __rodata_end),
        data: part(&raw const __rodata_end, &raw const __data_end),
        stack: part(&raw const __stack_start, &raw const __stack_end),
        exception_stack: part(
            &raw const __exception_stack_start,
            &raw const __exception_stack_end,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let part = |base, size| Extent::<Pa>::new(Pa::new(base), size).expect("it fits");
        Layout {
            whole: part(0x20_0000, 0x8000),
            text: part(0x20_0000, 0x1000),
            rodata: part(0x20_1000, 0x1000),
            data: part(0x20_2000, 0x1000),
            stack: part(0x20_4000, 0x1000),
            exception_stack: part(0x20_6000, 0x1000),
        }
    }

    #[test]
    fn the_page_below_each_stack_is_its_guard() {
        let guard = |address| layout().guard(Pa::new(address));
        assert_eq!(guard(0x20_2fff), None);
        assert!(guard(0x20_3000).is_some_and(|words| words.starts_with("the stack's")));
        assert!(guard(0x20_3fff).is_some());
        assert_eq!(guard(0x20_4000), None);
        assert!(guard(0x20_5800).is_some_and(|words| words.starts_with("the exception stack's")));
        assert_eq!(guard(0x20_6000), None);
    }

    #[test]
    fn an_offset_is_given_inside_the_image_only() {
        assert_eq!(layout().offset(Pa::new(0x20_1234)), Some(0x1234));
        assert_eq!(layout().offset(Pa::new(0x20_8000)), None);
        assert_eq!(layout().offset(Pa::new(0x1f_ffff)), None);
    }
}
