//! A check of leaves that change their size under DMA.
//!
//! QEMU's SMMU keeps translations, so that a page which was unmapped and not invalidated is still
//! reached; that is what the sabotage shows. It resolves what overlaps by itself, as BBML 2
//! promises: a split that breaks the rules of a lower level does not show on it. That is for the
//! host tests and the model.

use super::bench::Bench;
use super::dma::Dma;
use super::page::UNTOUCHED;
use super::{Failure, Rig};
use crate::addr::{Iova, Ipa, Pa};
use crate::hw::{Frames, Platform};
use crate::smmu::Explanation;
use crate::space::stage2::PageSizes;
use crate::spec::event::EventKind;
use crate::spec::vmsa::Attributes;

const LOG2_BLOCK_BYTES: u8 = 21;
const BLOCK_BYTES: u64 = 1 << LOG2_BLOCK_BYTES;
const PAGE_BYTES: u64 = 4096;
const BASE: Ipa = Ipa::new(0x2_4000_0000);
/// The page that goes, and those that DMA goes on into: its neighbours, and both ends.
const GOES: u64 = 77;
const STAY: [u64; 4] = [0, GOES - 1, GOES + 1, BLOCK_BYTES / PAGE_BYTES - 1];

/// Memory of a block, and the device that writes into it.
struct Target<'a, 'p, P: Platform> {
    bench: &'a Bench<'p, P>,
    device: &'a dyn Dma<P>,
    frames: &'a Frames,
    /// What was written last, so that each write is another.
    last: u16,
}

const fn at(page: u64) -> Ipa {
    Ipa::new(BASE.as_u64() + page * PAGE_BYTES)
}

impl<P: Platform<Registers: Clone>> Target<'_, '_, P> {
    fn memory(&self, page: u64) -> (Pa, u64) {
        let place = Pa::new(self.frames.base().as_u64() + page * PAGE_BYTES);
        let words = self.frames.words(self.bench.platform);
        let word = words.get((page * PAGE_BYTES / 8) as usize);
        (place, word.map_or(0, |word| self.bench.platform.load(word)))
    }

    fn write(&mut self, page: u64) -> Result<(), Failure> {
        self.last = self.last.wrapping_add(1);
        let place = Iova::new(at(page).as_u64()).into();
        self.device.write(self.bench.platform, place, self.last)
    }

    fn lands(&mut self, page: u64) -> Result<(), Failure> {
        self.write(page)?;
        match self.memory(page) {
            (_, found) if found & 0xffff_ffff == u64::from(self.last) => Ok(()),
            (at, found) => Err(Failure::DidNotReach {
                at,
                found,
                because: self.explain(page),
            }),
        }
    }

    fn explain(&self, page: u64) -> Explanation {
        let iova = Iova::new(at(page).as_u64());
        self.bench.explain(self.device.stream(), iova)
    }

    /// DMA into every page that stays lands, and nothing faults.
    fn goes_on(&mut self) -> Result<(), Failure> {
        STAY.into_iter().try_for_each(|page| self.lands(page))?;
        self.bench.no_event()
    }

    /// DMA into the page that went is blocked, and the event says so.
    fn is_blocked(&mut self) -> Result<(), Failure> {
        let (place, before) = self.memory(GOES);
        self.write(GOES)?;
        if self.memory(GOES).1 != before {
            return Err(Failure::Reached {
                at: place,
                because: self.explain(GOES),
            });
        }
        let wanted = "F_TRANSLATION of stage 2 by a write";
        self.bench.event(self.device.stream(), wanted, |event| {
            matches!(event.kind, EventKind::Translation(fault)
                if !fault.access.is_read && fault.stage2_ipa == Some(at(GOES)))
        })
    }
}

/// While DMA goes on into a block of 2 MiB, one page of it is unmapped and mapped again, and the
/// block made whole: no other page ever faults.
pub(super) fn block_split<P: Platform<Registers: Clone>>(
    rig: &Rig<'_, '_, '_, P>,
    device: &dyn Dma<P>,
) -> Result<(), Failure> {
    let bench = Bench::new(rig)?;
    let platform = rig.platform();
    let frames = platform
        .allocate(LOG2_BLOCK_BYTES)
        .ok_or(Failure::NoMemory)?;
    frames.fill(platform, UNTOUCHED);
    let mut target = Target {
        bench: &bench,
        device,
        frames: &frames,
        last: 0x7000,
    };
    map(&bench, BASE, frames.base(), BLOCK_BYTES)?;
    expect_leaf(&bench, LOG2_BLOCK_BYTES)?;
    bench.publish(device.stream())?;
    target.goes_on()?;
    target.lands(GOES)?;
    unmap_one(&mut target)?;
    let page = Pa::new(frames.base().as_u64() + GOES * PAGE_BYTES);
    map(&bench, at(GOES), page, PAGE_BYTES)?;
    target.lands(GOES)?;
    join(&mut target)?;
    expect_leaf(&bench, LOG2_BLOCK_BYTES)?;
    target.lands(GOES)?;
    bench.close(&[device.stream()])?;
    platform.free(frames);
    Ok(())
}

fn map<P: Platform<Registers: Clone>>(
    bench: &Bench<'_, P>,
    ipa: Ipa,
    pa: Pa,
    size_bytes: u64,
) -> Result<(), Failure> {
    let mut stage2 = bench.stage2.borrow_mut();
    Ok(stage2.map(ipa, pa, size_bytes, Attributes::MEMORY, PageSizes::Largest)?)
}

/// Wants the leaf that translates the first page to be of this size.
fn expect_leaf<P: Platform<Registers: Clone>>(
    bench: &Bench<'_, P>,
    log2_bytes: u8,
) -> Result<(), Failure> {
    let found = bench.stage2.borrow().query(BASE);
    match found.map(|found| found.log2_bytes) {
        Some(found) if found == log2_bytes => Ok(()),
        _ => Err(Failure::Not("the pages are mapped by a block")),
    }
}

fn unmap_one<P: Platform<Registers: Clone>>(target: &mut Target<'_, '_, P>) -> Result<(), Failure> {
    let bench = target.bench;
    let mut stage2 = bench.stage2.borrow_mut();
    let split = stage2.split(at(GOES), PAGE_BYTES)?;
    target.goes_on()?;
    let splitting = bench.confirm(split)?;
    target.goes_on()?;
    let mut change = splitting.finish();
    target.goes_on()?;
    stage2.unmap_into(&mut change, at(GOES), PAGE_BYTES)?;
    target.goes_on()?;
    let tables = bench.confirm(change)?;
    target.goes_on()?;
    target.is_blocked()?;
    stage2.reclaim(tables).map_err(not_its_own)?;
    target.goes_on()
}

fn join<P: Platform<Registers: Clone>>(target: &mut Target<'_, '_, P>) -> Result<(), Failure> {
    let bench = target.bench;
    let mut stage2 = bench.stage2.borrow_mut();
    let join = stage2.join(BASE, BLOCK_BYTES)?;
    target.goes_on()?;
    let joining = bench.confirm(join)?;
    target.goes_on()?;
    let change = joining.finish();
    target.goes_on()?;
    let tables = bench.confirm(change)?;
    target.goes_on()?;
    stage2.reclaim(tables).map_err(not_its_own)
}

fn not_its_own<T>(_: T) -> Failure {
    Failure::Not("its own stage 2 takes the tables back")
}
