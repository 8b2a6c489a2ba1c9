//! A guest for the checks: its stage-1 tables, in its own memory, and a device that uses them.

use core::cell::RefCell;

use super::bench::{Bench, Page};
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa};
use crate::hw::{Barrier, Platform};
use crate::id::{Asid, StreamId};
use crate::smmu::{Context, ContextShape, Contexts};
use crate::space::nesting::Nesting;
use crate::space::window::Window;
use crate::spec::cd::{Cd, Faults};
use crate::spec::stage1::{Half, PageAccess, Stage1Descriptor, Stage1Walk, TopByte};
use crate::spec::vmsa::{Cacheability, Granule, Shareability};

/// The guest's addresses: 39 bits, so three levels of tables.
const VA_BITS: u8 = 39;
/// The 2 MiB that its pages lie in.
const REGION: u64 = 0x55_4000_0000;
/// The 2 MiB behind, whose table is nowhere.
const ASTRAY: u64 = REGION + (1 << 21);
/// Where the guest's memory has its tables.
const L1: Ipa = Ipa::new(0x2000_0000);
const L2: Ipa = Ipa::new(0x2000_1000);
const L3: Ipa = Ipa::new(0x2000_2000);
/// Where it has nothing.
pub(super) const NOWHERE: Ipa = Ipa::new(0x2f00_0000);
/// The tag of its one address space.
pub(super) const ASID: Asid = Asid::new(9);
/// Normal memory, write-back, as attribute 0.
const MEMORY_TYPES: u64 = 0xff;

const WINDOW: Ipa = Ipa::new(0x7f_0000_0000);
const WINDOW_BYTES: u64 = 1 << 21;

/// The address of the guest's page number `number`, below 512.
pub(super) const fn va(number: u64) -> Iova {
    Iova::new(REGION + (number << 12))
}

/// An address that the guest's tables lead astray at.
pub(super) const fn astray() -> Iova {
    Iova::new(ASTRAY)
}

/// A guest with one address space, and one device that uses it for all its traffic.
pub(super) struct Guest<'p, P: Platform> {
    pub(super) bench: Bench<'p, P>,
    window: RefCell<Window<'p, P>>,
    tables: [Page<'p, P>; 3],
    pub(super) contexts: Contexts<'p, P>,
}

impl<'p, P: Platform<Registers: Clone>> Guest<'p, P> {
    /// Takes the SMMU over, and attaches `stream`.
    pub(super) fn new(rig: &Rig<'_, '_, 'p, P>, stream: StreamId) -> Result<Self, Failure> {
        let bench = Bench::new(rig)?;
        let platform = rig.platform();
        let tables = [
            Page::new(platform)?,
            Page::new(platform)?,
            Page::new(platform)?,
        ];
        for (page, ipa) in tables.iter().zip([L1, L2, L3]) {
            page.frames().fill(platform, 0);
            bench.map(ipa, page)?;
        }
        put(
            platform,
            &tables[0],
            index(REGION, 30),
            Stage1Descriptor::table(L2),
        );
        put(
            platform,
            &tables[1],
            index(REGION, 21),
            Stage1Descriptor::table(L3),
        );
        put(
            platform,
            &tables[1],
            index(ASTRAY, 21),
            Stage1Descriptor::table(NOWHERE),
        );
        let mut window = {
            let stage2 = &mut bench.stage2.borrow_mut();
            Window::new(platform, stage2, WINDOW, WINDOW_BYTES)?
        };
        let shape = ContextShape::Single {
            walk: walk(),
            faults: Faults::Abort,
        };
        let contexts = Nesting {
            stage2: &mut bench.stage2.borrow_mut(),
            window: &mut window,
            smmus: &[&bench.smmu],
        }
        .attach(&bench.smmu, &[stream], &shape)?;
        Ok(Self {
            bench,
            window: RefCell::new(window),
            tables,
            contexts,
        })
    }

    /// Maps the guest's page number `number` to `to`, where nothing was.
    pub(super) fn map(&self, number: u64, to: Ipa, access: PageAccess) {
        let descriptor = Stage1Descriptor::page(to, access);
        put(
            self.bench.platform,
            &self.tables[2],
            number as usize,
            descriptor,
        );
    }

    /// Gives the guest `page` as its memory at `ipa`, and maps page number `number` to it.
    pub(super) fn give(&self, number: u64, ipa: Ipa, page: &Page<'_, P>) -> Result<(), Failure> {
        self.bench.map(ipa, page)?;
        self.map(number, ipa, PageAccess::ReadWrite);
        Ok(())
    }

    /// Lets the device use the address space again, after it was taken away.
    pub(super) fn publish(&self) -> Result<(), Failure> {
        let no_leaf = |_| None;
        let how = (&walk(), Faults::Abort);
        Ok(self
            .bench
            .smmu
            .publish_context(&self.contexts, Context::WholeStream, how, no_leaf)?)
    }

    /// The CD by which the device's traffic is translated.
    pub(super) fn cd(&self) -> Result<Cd, Failure> {
        Ok(self.bench.smmu.features().cd(&walk(), Faults::Abort)?)
    }

    /// Where the window has its first page, in which that CD lies.
    pub(super) const fn cd_at() -> Ipa {
        WINDOW
    }

    /// Detaches the device and gives everything back.
    pub(super) fn close(self) -> Result<(), Failure> {
        let Self {
            bench,
            window,
            tables,
            contexts,
        } = self;
        let mut window = window.into_inner();
        {
            let stage2 = &mut bench.stage2.borrow_mut();
            Nesting {
                stage2,
                window: &mut window,
                smmus: &[&bench.smmu],
            }
            .detach(&bench.smmu, contexts)?;
            if window.close(stage2).is_err() {
                return Err(Failure::Not("the window is empty at the end"));
            }
        }
        bench.close(&[])?;
        for page in tables {
            page.free();
        }
        Ok(())
    }
}

/// The guest's address space.
const fn walk() -> Stage1Walk {
    Stage1Walk {
        asid: ASID,
        low: Some(Half {
            root: L1,
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

fn put<P: Platform>(platform: &P, table: &Page<'_, P>, index: usize, descriptor: Stage1Descriptor) {
    if let Some(word) = table.frames().words(platform).get(index) {
        platform.store(word, descriptor.as_u64());
        platform.barrier(Barrier::Publish);
    }
}
