//! What a window of CDs asks of its stage 2, and nobody else may (`space::window`).

use super::range::Range;
use super::{PageSizes, Reclaim, Stage2, Stage2Error, View};
use crate::addr::{Ipa, Pa};
use crate::hw::{Node, Platform, Roots};
use crate::smmu::Unsynced;
use crate::spec::vmsa::{Attributes, Permissions};

impl<'p, P: Platform> Stage2<'p, P> {
    /// Sets a range apart, in which nothing is mapped, for one window.
    pub(in crate::space) fn set_window(
        &mut self,
        ipa: Ipa,
        size_bytes: u64,
    ) -> Result<(), Stage2Error> {
        let range = self.any_range(ipa, size_bytes)?;
        if let Some(window) = self.window {
            let window = window.base();
            return Err(Stage2Error::InWindow { window });
        }
        expect_unmapped(self.tree.root(), range)?;
        self.window = Some(range);
        Ok(())
    }

    /// Where the range begins that was set apart.
    pub(in crate::space) fn window(&self) -> Option<Ipa> {
        self.window.map(Range::base)
    }

    /// The range that was set apart is like any other again.
    pub(in crate::space) const fn clear_window(&mut self) {
        self.window = None;
    }

    /// Maps pages of the window, read-only; for devices alone where CPUs have a root of their own.
    pub(in crate::space) fn map_in_window(
        &mut self,
        ipa: Ipa,
        pa: Pa,
        size_bytes: u64,
    ) -> Result<Unsynced<()>, Stage2Error> {
        let range = self.any_range(ipa, size_bytes)?;
        let view = match self.tree.roots() {
            Roots::One => View::Both,
            Roots::Two => View::Devices,
        };
        let attributes = Attributes {
            permissions: Permissions::READ_ONLY,
            ..Attributes::MEMORY
        };
        self.flush_after(range, |stage2| {
            stage2.map_unflushed(view, range, pa, attributes, PageSizes::PagesOnly)
        })
    }

    /// Whether what [`map_in_window`](Self::map_in_window) owes may be more than nothing.
    pub(in crate::space) const fn may_owe(&self) -> bool {
        self.flushes_new_tables
    }

    /// As [`unmap_into`](Self::unmap_into), for pages of the window.
    pub(in crate::space) fn unmap_in_window(
        &mut self,
        change: &mut Unsynced<Reclaim<'p, P>>,
        ipa: Ipa,
        size_bytes: u64,
    ) -> Result<(), Stage2Error> {
        let range = self.any_range(ipa, size_bytes)?;
        self.unmap_range_into(change, range)
    }
}

/// Refuses a range of which anything is mapped.
fn expect_unmapped<P: Platform>(node: Node<'_, '_, P>, range: Range) -> Result<(), Stage2Error> {
    let log2_span = node.log2_span();
    for (index, part) in (node.index(range.base())..).zip(range.entries(log2_span)) {
        match node.child(index) {
            Some(child) => expect_unmapped(child, part)?,
            None if node.descriptor(index).is_valid() => {
                return Err(Stage2Error::AlreadyMapped { ipa: part.base() });
            }
            None => {}
        }
    }
    Ok(())
}
