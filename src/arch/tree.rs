//! The device tree, as far as it must be known to be read at all.

use core::fmt;

use crate::addr::{Extent, Pa};

/// The largest tree that is read: Linux' own limit.
pub const TREE_MAX_BYTES: u32 = 2 << 20;

/// How many bytes of the header are looked at: `magic` and `totalsize`.
pub const HEADER_BYTES: u64 = 8;

/// How many bytes a whole header has.
const FULL_HEADER_BYTES: u32 = 40;

/// `magic` of a flattened device tree (Devicetree Specification 0.4, 5.2).
const MAGIC: u32 = 0xd00d_feed;

/// Why there is no device tree to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TreeError {
    /// The loader passed 0.
    Missing,
    /// The tree is not at a multiple of 8.
    Misaligned {
        /// Where it is said to be.
        at: Pa,
    },
    /// The tree is said to be where the image is, or where nothing can be mapped.
    Unreachable {
        /// Where it is said to be.
        at: Pa,
    },
    /// There is something else than a tree.
    NoMagic {
        /// Where it is said to be.
        at: Pa,
        /// The first four bytes, big-endian.
        found: u32,
    },
    /// Its header says that it has no header's size, or more than [`TREE_MAX_BYTES`].
    Size {
        /// What the header says.
        size_bytes: u32,
    },
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("no device tree: the loader left x0 at 0"),
            Self::Misaligned { at } => {
                write!(f, "no device tree: x0 is {at}, not a multiple of 8")
            }
            Self::Unreachable { at } => {
                write!(
                    f,
                    "no device tree: x0 is {at}, where nothing of the loader's can be"
                )
            }
            Self::NoMagic { at, found } => write!(
                f,
                "no device tree: {found:#010x} at {at} is not its magic number {MAGIC:#010x}"
            ),
            Self::Size { size_bytes } => write!(
                f,
                "the device tree says it has {size_bytes} bytes, \
                 {FULL_HEADER_BYTES} to {TREE_MAX_BYTES} are possible"
            ),
        }
    }
}

/// Where the first bytes of a tree at `at` are.
///
/// # Errors
///
/// [`TreeError::Missing`], [`TreeError::Misaligned`] and [`TreeError::Unreachable`].
pub fn header(at: Pa, image: Extent<Pa>) -> Result<Extent<Pa>, TreeError> {
    if at.as_u64() == 0 {
        return Err(TreeError::Missing);
    }
    if !at.is_aligned(3) {
        return Err(TreeError::Misaligned { at });
    }
    reachable(at, HEADER_BYTES, image)
}

/// Where the whole tree at `at` is, by its first bytes.
///
/// # Errors
///
/// [`TreeError::NoMagic`], [`TreeError::Size`] and [`TreeError::Unreachable`].
pub fn whole(at: Pa, header: [u8; 8], image: Extent<Pa>) -> Result<Extent<Pa>, TreeError> {
    let [m0, m1, m2, m3, s0, s1, s2, s3] = header;
    let found = u32::from_be_bytes([m0, m1, m2, m3]);
    let size_bytes = u32::from_be_bytes([s0, s1, s2, s3]);
    if found != MAGIC {
        return Err(TreeError::NoMagic { at, found });
    }
    if !(FULL_HEADER_BYTES..=TREE_MAX_BYTES).contains(&size_bytes) {
        return Err(TreeError::Size { size_bytes });
    }
    reachable(at, u64::from(size_bytes), image)
}

fn reachable(at: Pa, size_bytes: u64, image: Extent<Pa>) -> Result<Extent<Pa>, TreeError> {
    match Extent::<Pa>::new(at, size_bytes) {
        Some(extent) if !extent.overlaps(&image) => Ok(extent),
        _ => Err(TreeError::Unreachable { at }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Extent<Pa> {
        Extent::<Pa>::new(Pa::new(0x4020_0000), 0x8_0000).expect("it fits")
    }

    fn sized(size_bytes: u32) -> Result<Extent<Pa>, TreeError> {
        let mut bytes = [0xd0, 0x0d, 0xfe, 0xed, 0, 0, 0, 0];
        bytes[4..].copy_from_slice(&size_bytes.to_be_bytes());
        whole(Pa::new(0x4800_0000), bytes, image())
    }

    #[test]
    fn a_size_is_believed_between_a_header_and_two_megabytes() {
        assert_eq!(sized(39), Err(TreeError::Size { size_bytes: 39 }));
        assert_eq!(sized(40).map(|tree| tree.size_bytes()), Ok(40));
        assert_eq!(
            sized(0x20_0000).map(|tree| tree.size_bytes()),
            Ok(0x20_0000)
        );
        assert_eq!(
            sized(0x20_0001),
            Err(TreeError::Size {
                size_bytes: 0x20_0001
            })
        );
    }

    #[test]
    fn what_has_no_magic_is_no_tree() {
        let at = Pa::new(0x4800_0000);
        let found = 0xedfe_0dd0;
        assert_eq!(
            whole(at, [0xed, 0xfe, 0x0d, 0xd0, 0, 0, 1, 0], image()),
            Err(TreeError::NoMagic { at, found })
        );
    }

    #[test]
    fn an_address_is_refused_that_no_loader_can_mean() {
        let refused = |at| header(Pa::new(at), image()).expect_err("it is refused");
        assert_eq!(refused(0), TreeError::Missing);
        assert_eq!(
            refused(0x4800_0004),
            TreeError::Misaligned {
                at: Pa::new(0x4800_0004)
            }
        );
        assert_eq!(
            refused(0x4020_1000),
            TreeError::Unreachable {
                at: Pa::new(0x4020_1000)
            }
        );
        assert_eq!(refused(!7), TreeError::Unreachable { at: Pa::new(!7) });
    }

    #[test]
    fn a_tree_that_runs_into_the_image_is_refused() {
        let at = Pa::new(0x401f_0000);
        let header = [0xd0, 0x0d, 0xfe, 0xed, 0, 1, 0, 1];
        assert_eq!(
            whole(at, header, image()),
            Err(TreeError::Unreachable { at })
        );
    }
}
