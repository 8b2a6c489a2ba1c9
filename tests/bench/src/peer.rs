//! Tables by the crate `aarch64-paging`, with a pool like ours below them.
#![expect(
    unsafe_code,
    reason = "implementing `Translation` takes an unsafe method"
)]

use std::ptr::NonNull;

use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{
    Descriptor, PhysicalAddress, Stage2Attributes, UpdatableDescriptor,
};
use aarch64_paging::paging::{Constraints, MemoryRegion, PageTable, Stage2, Translation};

use crate::arena::Arena;
use crate::tables::{self, Leaves};

/// What the rows call it.
pub const PEER: &str = "aarch64-paging 0.12";

/// Pages of an arena, as the peer takes them: one by one, full of zeros.
pub struct Pool<'a> {
    arena: &'a Arena,
    /// Taken from the arena beforehand, so that no lock is paid for.
    free: Vec<u64>,
    tables: u64,
}

/// As many as any workload takes.
const POOL_PAGES: usize = 1024;

impl<'a> Pool<'a> {
    fn new(arena: &'a Arena) -> Self {
        let pages = (0..POOL_PAGES).map(|_| arena.take_page().expect("the arena is large enough"));
        Self {
            arena,
            free: pages.collect(),
            tables: 0,
        }
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.free
            .drain(..)
            .for_each(|page| self.arena.give_page(page));
    }
}

impl Translation<Stage2Attributes> for Pool<'_> {
    fn allocate_table(&mut self) -> (NonNull<PageTable<Stage2Attributes>>, PhysicalAddress) {
        let base = self.free.pop().expect("the pool is large enough");
        self.tables += 1;
        let table = self.physical_to_virtual(PhysicalAddress(base as usize));
        // SAFETY: a page of the arena's, 4096 bytes, that is nobody else's now.
        unsafe { table.cast::<[u8; 4096]>().write([0; 4096]) };
        (table, PhysicalAddress(base as usize))
    }

    unsafe fn deallocate_table(&mut self, page_table: NonNull<PageTable<Stage2Attributes>>) {
        self.tables -= 1;
        self.free.push(page_table.addr().get() as u64);
    }

    fn physical_to_virtual(&self, pa: PhysicalAddress) -> NonNull<PageTable<Stage2Attributes>> {
        let pointer = std::ptr::with_exposed_provenance_mut(pa.0);
        NonNull::new(pointer).expect("no page is at address 0")
    }
}

/// The peer's tables of one guest, which no walker uses: there is nothing to invalidate, and it
/// does not gather what would be.
pub struct Tables<'a>(Mapping<Pool<'a>, Stage2>);

/// 40 bits of address take four levels here: there are no concatenated roots.
const ROOT_LEVEL: usize = 0;
const LAST_LEVEL: usize = 3;

const MEMORY: Stage2Attributes = Stage2Attributes::VALID
    .union(Stage2Attributes::ACCESS_FLAG)
    .union(Stage2Attributes::XN)
    .union(Stage2Attributes::SH_INNER)
    .union(Stage2Attributes::MEMATTR_NORMAL_OUTER_WB)
    .union(Stage2Attributes::MEMATTR_NORMAL_INNER_WB)
    .union(Stage2Attributes::S2AP_ACCESS_RW);

fn region(ipa: u64, bytes: u64) -> MemoryRegion {
    MemoryRegion::new(ipa as usize, (ipa + bytes) as usize)
}

impl<'a> tables::Tables<'a> for Tables<'a> {
    fn new(arena: &'a Arena) -> Self {
        Self(Mapping::new(Pool::new(arena), ROOT_LEVEL, Stage2))
    }

    #[inline]
    fn map(&mut self, ipa: u64, pa: u64, bytes: u64, leaves: Leaves) {
        let constraints = match leaves {
            Leaves::Largest => Constraints::NO_CONTIGUOUS_HINT,
            Leaves::Pages => Constraints::NO_CONTIGUOUS_HINT | Constraints::NO_BLOCK_MAPPINGS,
        };
        let mapped = self.0.map_range(
            &region(ipa, bytes),
            PhysicalAddress(pa as usize),
            MEMORY,
            constraints,
        );
        mapped.expect("it is mapped");
    }

    #[inline]
    fn unmap(&mut self, ipa: u64, bytes: u64) {
        let gone = self.0.map_range(
            &region(ipa, bytes),
            PhysicalAddress(0),
            Stage2Attributes::empty(),
            Constraints::empty(),
        );
        gone.expect("it is unmapped");
    }

    fn settle(&mut self) {}

    #[inline]
    fn protect(&mut self, ipa: u64, bytes: u64) {
        let no_write = |_: &MemoryRegion, entry: &mut UpdatableDescriptor<Stage2Attributes>| {
            entry.modify_flags(Stage2Attributes::empty(), Stage2Attributes::S2AP_ACCESS_WO)
        };
        let changed = self.0.modify_range(&region(ipa, bytes), &no_write);
        changed.expect("it is mapped");
    }

    #[inline]
    fn walk(&self, ipa: u64) -> Option<u64> {
        let mut found = None;
        let mut look = |_: &MemoryRegion, entry: &Descriptor<Stage2Attributes>, level: usize| {
            if entry.is_valid() {
                let span = 1 << (12 + 9 * (LAST_LEVEL - level));
                found = Some((entry.output_address().0 as u64) + (ipa & (span - 1)));
            }
            Ok(())
        };
        let visited = self.0.walk_range(&region(ipa, 0x1000), &mut look);
        visited.ok().and(found)
    }

    fn table_bytes(&self) -> u64 {
        self.0.translation().tables << 12
    }
}
