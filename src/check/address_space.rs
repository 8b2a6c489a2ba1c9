//! A guest's address space for the checks: three tables of stage 1, in the guest's own memory.

use super::Failure;
use super::bench::map;
use super::page::Page;
use crate::addr::{Iova, Ipa};
use crate::hw::{Barrier, Platform};
use crate::id::Asid;
use crate::space::stage2::Stage2;
use crate::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use crate::spec::vmsa::{Cacheability, Granule, Shareability};

/// The guest's addresses: 39 bits, so three levels of tables.
const VA_BITS: u8 = 39;
/// The 2 MiB that its pages lie in.
const REGION: u64 = 0x55_4000_0000;
/// The 2 MiB behind, whose table is nowhere.
const ASTRAY: u64 = REGION + (1 << 21);
/// Where the guest has nothing.
pub(super) const NOWHERE: Ipa = Ipa::new(0x2f00_0000);
/// Normal memory, write-back, as attribute 0.
const MEMORY_TYPES: u64 = 0xff;

/// The address of page number `number`, below 512, of any address space.
pub(super) const fn va(number: u64) -> Iova {
    Iova::new(REGION + (number << 12))
}

/// An address at which the tables lead astray.
pub(super) const fn astray() -> Iova {
    Iova::new(ASTRAY)
}

/// One address space.
pub(super) struct AddressSpace<'p, P: Platform> {
    platform: &'p P,
    walk: Stage1Walk,
    tables: [Page<'p, P>; 3],
}

impl<'p, P: Platform> AddressSpace<'p, P> {
    /// An address space of the guest of `stage2`, tagged `asid`, with its three tables from `at` on
    /// in the guest's memory.
    pub(super) fn new(
        platform: &'p P,
        stage2: &mut Stage2<'p, P>,
        at: Ipa,
        asid: Asid,
    ) -> Result<Self, Failure> {
        let page = || Page::new(platform);
        let tables = [page()?, page()?, page()?];
        let ipas = [0, 1, 2].map(|i: u64| Ipa::new(at.as_u64() + (i << 12)));
        for (page, ipa) in tables.iter().zip(ipas) {
            page.frames().fill(platform, 0);
            map(stage2, ipa, page)?;
        }
        let space = Self {
            platform,
            walk: walk(asid, at),
            tables,
        };
        let [_, l2, l3] = ipas;
        space.put(0, index(REGION, 30), Stage1Descriptor::table(l2));
        space.put(1, index(REGION, 21), Stage1Descriptor::table(l3));
        space.put(1, index(ASTRAY, 21), Stage1Descriptor::table(NOWHERE));
        Ok(space)
    }

    /// What a CD says of it.
    pub(super) const fn walk(&self) -> &Stage1Walk {
        &self.walk
    }

    /// Maps page number `number` to `to`, where nothing was.
    pub(super) fn map(&self, number: u64, to: Ipa, access: PageAccess) {
        self.put(2, number as usize, Stage1Descriptor::page(to, access));
    }

    /// As [`map`](Self::map), readable and writable, and said to be so in every address space.
    pub(super) fn map_global(&self, number: u64, to: Ipa) {
        let page = Stage1Descriptor::page(to, PageAccess::ReadWrite);
        self.put(2, number as usize, page.global());
    }

    fn put(&self, table: usize, index: usize, descriptor: Stage1Descriptor) {
        let words = self.tables[table].frames().words(self.platform);
        if let Some(word) = words.get(index) {
            self.platform.store(word, descriptor.as_u64());
            // A walk of the SMMU's sees the whole descriptor from here on.
            self.platform.barrier(Barrier::Publish);
        }
    }

    /// Gives its tables back, which nobody walks any more.
    pub(super) fn free(self) {
        self.tables.into_iter().for_each(Page::free);
    }
}

const fn walk(asid: Asid, root: Ipa) -> Stage1Walk {
    Stage1Walk {
        asid,
        low: Some(Half {
            root,
            granule: Granule::Kib4,
            va_bits: VA_BITS,
            top_byte: TopByte::Checked,
            inner: Cacheability::WriteBack,
            outer: Cacheability::WriteBack,
            shareability: Shareability::Inner,
        }),
        high: None,
        output_bits: 40,
        memory_types: MEMORY_TYPES,
    }
}

/// Which entry of a table, each of which spans `2^log2_span` bytes, is for `va`.
const fn index(va: u64, log2_span: u8) -> usize {
    (va >> log2_span) as usize & 511
}
