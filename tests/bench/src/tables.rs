//! Stage-2 tables: the same work by ours and by a peer's.
//!
//! Ours gathers what an invalidation would have to name, and keeps removed tables until that is
//! confirmed, as it must where an SMMU walks; the peer does neither while its tables are inactive.
//! Both take their tables from an [`Arena`], and giving them back counts.

use portcullis::addr::{Ipa, Pa};
use portcullis::hw::PoolShape;
use portcullis::id::Vmid;
use portcullis::smmu::Unsynced;
use portcullis::space::stage2::{PageSizes, Reclaim, Stage2, Stage2Config};
use portcullis::spec::vmsa::{Attributes, BbmLevel, Granule, Permissions, WalkCoherency};

use crate::arena::Arena;

const KIB4: u64 = 1 << 12;
const MIB2: u64 = 2 << 20;
const GIB: u64 = 1 << 30;

/// Which leaves a mapping is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// The largest that fit.
    Largest,
    /// Pages of 4 KiB alone.
    Pages,
}

/// A guest's stage 2, of whoever's.
pub trait Tables<'a>: Sized {
    /// One that maps nothing.
    fn new(arena: &'a Arena) -> Self;
    /// Maps normal memory.
    fn map(&mut self, ipa: u64, pa: u64, bytes: u64, leaves: Leaves);
    /// Unmaps.
    fn unmap(&mut self, ipa: u64, bytes: u64);
    /// Gives removed tables back, as if every SMMU had confirmed.
    fn settle(&mut self);
    /// Takes the right to write away.
    fn protect(&mut self, ipa: u64, bytes: u64);
    /// Where the page at `ipa` leads.
    fn walk(&self, ipa: u64) -> Option<u64>;
    /// Bytes of tables, the root too.
    fn table_bytes(&self) -> u64;
}

/// Our tables.
pub struct Ours<'a> {
    arena: &'a Arena,
    /// There until it is dropped.
    stage2: Option<Stage2<'a, Arena>>,
    owed: Option<Unsynced<Reclaim<'a, Arena>>>,
}

impl<'a> Ours<'a> {
    fn stage2(&mut self) -> &mut Stage2<'a, Arena> {
        self.stage2.as_mut().expect("it is there")
    }
}

impl<'a> Tables<'a> for Ours<'a> {
    fn new(arena: &'a Arena) -> Self {
        let config = Stage2Config {
            granule: Granule::Kib4,
            ipa_bits: 40,
            oas_bits: 48,
            // The contiguous hint is not compared: the peer is told to leave it out.
            bbm: BbmLevel::Level0,
            coherency: WalkCoherency::Coherent,
            tables: PoolShape {
                quota_pages: 1 << 20,
                log2_pages_per_chunk: 5,
            },
            vmid: Vmid::new(1),
        };
        Self {
            arena,
            stage2: Some(Stage2::new(arena, config).expect("the arena is large enough")),
            owed: None,
        }
    }

    #[inline]
    fn map(&mut self, ipa: u64, pa: u64, bytes: u64, leaves: Leaves) {
        let sizes = match leaves {
            Leaves::Largest => PageSizes::Largest,
            Leaves::Pages => PageSizes::PagesOnly,
        };
        let (ipa, pa) = (Ipa::new(ipa), Pa::new(pa));
        let mapped = self.stage2().map(ipa, pa, bytes, Attributes::MEMORY, sizes);
        mapped.expect("it is free");
    }

    #[inline]
    fn unmap(&mut self, ipa: u64, bytes: u64) {
        let stage2 = self.stage2.as_mut().expect("it is there");
        let owed = self.owed.get_or_insert_with(|| stage2.nothing_owed());
        stage2
            .unmap_into(owed, Ipa::new(ipa), bytes)
            .expect("no leaf is cut");
    }

    fn settle(&mut self) {
        if let Some(owed) = self.owed.take() {
            let taken = self.stage2().reclaim(owed.without_any_smmu());
            assert!(taken.is_ok(), "they are its own");
        }
    }

    #[inline]
    fn protect(&mut self, ipa: u64, bytes: u64) {
        let stage2 = self.stage2.as_mut().expect("it is there");
        let owed = self.owed.get_or_insert_with(|| stage2.nothing_owed());
        stage2
            .protect_into(owed, Ipa::new(ipa), bytes, Permissions::READ_ONLY)
            .expect("it is mapped");
    }

    #[inline]
    fn walk(&self, ipa: u64) -> Option<u64> {
        let found = self.stage2.as_ref()?.query(Ipa::new(ipa));
        found.map(|mapping| mapping.pa.as_u64())
    }

    fn table_bytes(&self) -> u64 {
        self.stage2.as_ref().map_or(0, |stage2| {
            (stage2.table_pages() << 12) + (1 << stage2.geometry().log2_root_bytes())
        })
    }
}

impl Drop for Ours<'_> {
    fn drop(&mut self) {
        self.settle();
        if let Some(stage2) = self.stage2.take() {
            let over = stage2.dismantle().without_any_smmu();
            assert_eq!(over.free(), 0, "no table is left behind");
        }
        // The arena outlives it.
        let _ = self.arena;
    }
}

/// A piece of work on tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Workload {
    /// Its name in reports, after `stage2.`.
    pub name: &'static str,
    /// What one unit of it is.
    pub per: &'static str,
    /// How many units there are in one run.
    pub units: u64,
    what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    /// In one call.
    Map(Part),
    /// One call for each so many bytes.
    Unmap(Part, u64),
    Protect(Part, u64),
    Walk(Part, u64),
}

/// What is mapped, before or in the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// 1 GiB of pages.
    Pages,
    /// 64 GiB of 2 MiB blocks: memory that is never aligned to 1 GiB.
    Blocks,
    /// A guest of 64 GiB of which a little is there.
    Sparse,
}

const PAGES: u64 = GIB / KIB4;
const BLOCKS: u64 = 64 * GIB / MIB2;

/// Where memory begins for the guest, and where it is.
const IPA: u64 = 0x40_0000_0000;
const PA: u64 = 0x80_0000_0000;

/// For each GiB of the sparse guest: where something begins in it, and how large it is. A page
/// alone, a run within one last-level table, a run that begins and ends with pages around a block,
/// and a block.
const SPARSE: [(u64, u64); 4] = [
    (0x0000_3000, KIB4),
    (0x0640_1000, 9 * KIB4),
    (0x0fff_e000, MIB2 + 5 * KIB4),
    (0x3c00_0000, MIB2),
];

/// All of it.
pub const WORKLOADS: &[Workload] = &[
    workload("map_4k", "page", PAGES, What::Map(Part::Pages)),
    workload("unmap_4k", "page", PAGES, What::Unmap(Part::Pages, KIB4)),
    workload("unmap_4k_all", "page", PAGES, What::Unmap(Part::Pages, GIB)),
    workload(
        "protect_4k",
        "page",
        PAGES,
        What::Protect(Part::Pages, KIB4),
    ),
    workload(
        "protect_4k_all",
        "page",
        PAGES,
        What::Protect(Part::Pages, GIB),
    ),
    workload("walk_4k", "page", PAGES, What::Walk(Part::Pages, KIB4)),
    workload("map_2m", "block", BLOCKS, What::Map(Part::Blocks)),
    workload("unmap_2m", "block", BLOCKS, What::Unmap(Part::Blocks, MIB2)),
    workload(
        "unmap_2m_all",
        "block",
        BLOCKS,
        What::Unmap(Part::Blocks, 64 * GIB),
    ),
    workload(
        "protect_2m",
        "block",
        BLOCKS,
        What::Protect(Part::Blocks, MIB2),
    ),
    workload("walk_2m", "block", BLOCKS, What::Walk(Part::Blocks, MIB2)),
    workload("map_sparse", "piece", 64 * 4, What::Map(Part::Sparse)),
    workload(
        "unmap_sparse",
        "piece",
        64 * 4,
        What::Unmap(Part::Sparse, 0),
    ),
];

const fn workload(name: &'static str, per: &'static str, units: u64, what: What) -> Workload {
    Workload {
        name,
        per,
        units,
        what,
    }
}

/// The pieces of the sparse guest.
fn sparse() -> impl Iterator<Item = (u64, u64)> {
    (0..64).flat_map(|gib| SPARSE.map(|(at, bytes)| (gib * GIB + at, bytes)))
}

impl Part {
    fn map<'a, T: Tables<'a>>(self, tables: &mut T) {
        match self {
            Self::Pages => tables.map(IPA, PA, GIB, Leaves::Pages),
            Self::Blocks => tables.map(IPA, PA + MIB2, 64 * GIB, Leaves::Largest),
            Self::Sparse => {
                for (at, bytes) in sparse() {
                    tables.map(IPA + at, PA + at, bytes, Leaves::Largest);
                }
            }
        }
    }

    const fn bytes(self) -> u64 {
        match self {
            Self::Pages => GIB,
            Self::Blocks | Self::Sparse => 64 * GIB,
        }
    }

    fn pieces(self, step: u64) -> impl Iterator<Item = u64> {
        (IPA..IPA + self.bytes()).step_by(step as usize)
    }
}

impl Workload {
    /// The one of this name.
    pub fn of(name: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name)
    }

    /// What is there before a run.
    pub fn prepare<'a, T: Tables<'a>>(&self, arena: &'a Arena) -> T {
        let mut tables = T::new(arena);
        match self.what {
            What::Map(_) => {}
            What::Unmap(part, _) | What::Protect(part, _) | What::Walk(part, _) => {
                part.map(&mut tables);
            }
        }
        tables
    }

    /// A run; a walk says what it found, summed up.
    #[inline(never)]
    pub fn run<'a, T: Tables<'a>>(&self, tables: &mut T) -> u64 {
        match self.what {
            What::Map(part) => part.map(tables),
            What::Unmap(Part::Sparse, _) => {
                for (at, bytes) in sparse() {
                    tables.unmap(IPA + at, bytes);
                }
                tables.settle();
            }
            What::Unmap(part, step) => {
                for at in part.pieces(step) {
                    tables.unmap(at, step);
                }
                tables.settle();
            }
            What::Protect(part, step) => {
                for at in part.pieces(step) {
                    tables.protect(at, step);
                }
            }
            What::Walk(part, step) => {
                let found = part.pieces(step).map(|at| tables.walk(at).unwrap_or(0));
                return found.fold(0, u64::wrapping_add);
            }
        }
        0
    }
}

/// Bytes of tables for the sparse guest: of the tables themselves, and of all that was taken from
/// the host for them.
pub fn sparse_bytes<'a, T: Tables<'a>>(arena: &'a Arena) -> (u64, u64) {
    let before = arena.bytes_out();
    let mut tables = T::new(arena);
    Part::Sparse.map(&mut tables);
    (tables.table_bytes(), arena.bytes_out() - before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer;

    /// What is compared is the same work: both map the same memory, and both forget it.
    #[test]
    fn ours_and_the_peers_do_the_same() {
        let arena = &Arena::new(16);
        let mut ours = Ours::new(arena);
        let mut theirs = peer::Tables::new(arena);
        for part in [Part::Pages, Part::Sparse, Part::Blocks] {
            part.map(&mut ours);
            part.map(&mut theirs);
            let mut mapped = 0;
            for at in (IPA..IPA + 64 * GIB).step_by(0x1_f000) {
                let found = ours.walk(at);
                assert_eq!(found, theirs.walk(at), "{part:?} at {at:#x}");
                mapped += u32::from(found.is_some());
            }
            assert_ne!(mapped, 0);
            ours.unmap(IPA, 64 * GIB);
            theirs.unmap(IPA, 64 * GIB);
            ours.settle();
            assert_eq!((ours.walk(IPA), theirs.walk(IPA)), (None, None));
        }
    }

    #[test]
    fn every_workload_runs_on_both_and_leaves_nothing_behind() {
        let arena = &Arena::new(32);
        for workload in WORKLOADS {
            let mut ours: Ours<'_> = workload.prepare(arena);
            let mut theirs: peer::Tables<'_> = workload.prepare(arena);
            let found = (workload.run(&mut ours), workload.run(&mut theirs));
            assert_eq!(found.0, found.1, "{}", workload.name);
            drop((ours, theirs));
            assert_eq!(arena.bytes_out(), 0, "{}", workload.name);
        }
    }
}
