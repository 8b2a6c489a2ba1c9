//! What the loader handed over.

use super::tables::Kind;
use super::tree::{self, TreeError};
use super::{image, mmu};
use crate::addr::{Extent, Pa};

/// What the loader handed over: the device tree.
#[derive(Debug)]
pub struct Start {
    pub(super) tree: Pa,
}

/// A device tree that can be read; its content is not checked yet.
#[derive(Debug)]
pub struct DeviceTree {
    /// Where it is: not free memory.
    pub extent: Extent<Pa>,
    /// What it says.
    pub bytes: &'static mut [u8],
}

impl Start {
    /// Maps the device tree for as long as the image runs, and gives its bytes.
    ///
    /// Writable, for who reads it may have to tidy it. Only its place, its magic number and its
    /// size have been checked.
    ///
    /// # Errors
    ///
    /// Each [`TreeError`].
    pub fn device_tree(self) -> Result<DeviceTree, TreeError> {
        let at = self.tree;
        let image = image::layout().whole;
        let header = map(tree::header(at, image)?, None)?;
        let mut first = [0; tree::HEADER_BYTES as usize];
        first.copy_from_slice(header);
        let extent = tree::whole(at, first, image)?;
        let bytes = map(extent, Some(header.len() as u64))?;
        Ok(DeviceTree { extent, bytes })
    }
}

/// The bytes at `at`: of the image's own constants, or of memory that is nobody's and was mapped by
/// nobody before, which is mapped for ever. `None` if it is neither.
pub fn bytes_at(at: Extent<Pa>) -> Option<&'static [u8]> {
    let rodata = image::layout().rodata;
    let is_constant = rodata.base() <= at.base() && at.end() <= rodata.end();
    if !is_constant {
        let pages = mmu::pages(at.base(), at.size_bytes()).ok()?;
        mmu::map(pages, Kind::ReadOnly).ok()?;
    }
    let first = core::ptr::with_exposed_provenance(at.base().as_u64() as usize);
    // SAFETY: constants, or just mapped as memory that nobody writes: `Host` cannot have it, since it
    // could not map it either.
    Some(unsafe { core::slice::from_raw_parts(first, at.size_bytes() as usize) })
}

/// Maps the pages of `bytes` but those of its first `mapped_bytes`, which are mapped already.
fn map(bytes: Extent<Pa>, mapped_bytes: Option<u64>) -> Result<&'static mut [u8], TreeError> {
    let at = bytes.base();
    let unreachable = TreeError::Unreachable { at };
    let pages_of = |size_bytes| mmu::pages(at, size_bytes).map_err(|_| unreachable);
    let all = pages_of(bytes.size_bytes())?;
    let rest = match mapped_bytes {
        Some(mapped_bytes) => {
            let done = pages_of(mapped_bytes)?.end();
            Extent::<Pa>::new(done, all.end().as_u64() - done.as_u64()).ok_or(unreachable)?
        }
        None => all,
    };
    if rest.size_bytes() != 0 {
        mmu::map(rest, Kind::Data).map_err(|_| unreachable)?;
    }
    let first = core::ptr::with_exposed_provenance_mut(at.as_u64() as usize);
    // SAFETY: just mapped as memory, by nobody before: `Host` cannot have it, since it could not
    // map it either. `device_tree` takes `self`, and its first look is over when this is the whole.
    Ok(unsafe { core::slice::from_raw_parts_mut(first, bytes.size_bytes() as usize) })
}
