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
#[derive(Clone, Copy, Debug)]
pub struct DeviceTree {
    /// Where it is: not free memory.
    pub extent: Extent<Pa>,
    /// What it says.
    pub bytes: &'static [u8],
}

impl Start {
    /// Maps the device tree, read-only, for as long as the image runs, and gives its bytes.
    ///
    /// Only its place, its magic number and its size have been checked.
    ///
    /// # Errors
    ///
    /// Each [`TreeError`].
    pub fn device_tree(self) -> Result<DeviceTree, TreeError> {
        let at = self.tree;
        let image = image::layout().whole;
        let header = read_only(tree::header(at, image)?, None)?;
        let mut first = [0; tree::HEADER_BYTES as usize];
        first.copy_from_slice(header);
        let extent = tree::whole(at, first, image)?;
        let bytes = read_only(extent, Some(header))?;
        Ok(DeviceTree { extent, bytes })
    }
}

/// Maps the pages of `bytes` that those of `mapped`, which begins at the same place, lack.
fn read_only(bytes: Extent<Pa>, mapped: Option<&[u8]>) -> Result<&'static [u8], TreeError> {
    let at = bytes.base();
    let unreachable = TreeError::Unreachable { at };
    let pages_of = |size_bytes| mmu::pages(at, size_bytes).map_err(|_| unreachable);
    let all = pages_of(bytes.size_bytes())?;
    let rest = match mapped {
        Some(mapped) => {
            let done = pages_of(mapped.len() as u64)?.end();
            Extent::<Pa>::new(done, all.end().as_u64() - done.as_u64()).ok_or(unreachable)?
        }
        None => all,
    };
    if rest.size_bytes() != 0 {
        mmu::map(rest, Kind::ReadOnly).map_err(|_| unreachable)?;
    }
    let first = core::ptr::with_exposed_provenance(at.as_u64() as usize);
    // SAFETY: just mapped as memory, by nobody before, so nobody writes it: `Host` cannot have it,
    // since it could not map it either.
    Ok(unsafe { core::slice::from_raw_parts(first, bytes.size_bytes() as usize) })
}
