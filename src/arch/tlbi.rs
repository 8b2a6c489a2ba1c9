//! Making all CPUs forget translations of a stage 2.

use crate::addr::{Extent, Ipa};

/// More operations than this, and everything of the VMID goes: each is a message to every CPU.
const MAX_OPERATIONS: usize = 32;

/// One `TLBI` by intermediate physical address, with what its register says (DDI 0487, D8.16).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `IPAS2E1IS`: every entry for one address.
    One(u64),
    /// `RIPAS2E1IS`: every entry for a range of addresses.
    Range(u64),
}

/// Whether this CPU, and so all of them, have `RIPAS2E1IS` (FEAT_TLBIRANGE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ranges {
    /// They have.
    Supported,
    /// They have not.
    Missing,
}

/// The operations that forget some ranges; bounded.
#[derive(Clone, Copy, Debug)]
pub struct Operations {
    list: [Operation; MAX_OPERATIONS],
    count: usize,
}

impl Operations {
    /// What forgets `stale`, whole pages of `2^log2_page` bytes; `None` if that are too many.
    pub fn new(stale: &[Extent<Ipa>], log2_page: u8, ranges: Ranges) -> Option<Self> {
        let mut operations = Self {
            list: [Operation::One(0); MAX_OPERATIONS],
            count: 0,
        };
        for extent in stale {
            operations.forget(extent, log2_page, ranges)?;
        }
        Some(operations)
    }

    /// In the order in which they were asked for.
    pub fn iter(&self) -> impl Iterator<Item = Operation> {
        self.list.iter().copied().take(self.count)
    }

    fn push(&mut self, operation: Operation) -> Option<()> {
        *self.list.get_mut(self.count)? = operation;
        self.count += 1;
        Some(())
    }

    /// A range is `(NUM + 1) << (5 * SCALE + 1)` pages: an odd one goes alone, and the rest in
    /// digits of 5 bits.
    fn forget(&mut self, extent: &Extent<Ipa>, log2_page: u8, ranges: Ranges) -> Option<()> {
        let mut page = extent.base().as_u64() >> log2_page;
        let mut pages = extent.size_bytes() >> log2_page;
        if ranges == Ranges::Missing {
            let end = page + pages;
            return (page..end).try_for_each(|page| self.push(one(page, log2_page)));
        }
        if pages & 1 != 0 {
            self.push(one(page, log2_page))?;
            page += 1;
        }
        pages >>= 1;
        for scale in 0..4u64 {
            let digit = pages & 0x1f;
            if digit != 0 {
                self.push(range(page, digit - 1, scale, log2_page))?;
                page += digit << (5 * scale + 1);
            }
            pages >>= 5;
        }
        // More than 2^21 pages in one range.
        (pages == 0).then_some(())
    }
}

/// The register holds bits 51 to 12 of the address, whatever the size of a page.
const fn one(page: u64, log2_page: u8) -> Operation {
    Operation::One((page << log2_page) >> 12)
}

/// The register holds the page's number, and `TG` says of which size; `TTL` is 0, any level.
const fn range(page: u64, num: u64, scale: u64, log2_page: u8) -> Operation {
    let tg = match log2_page {
        12 => 1,
        14 => 2,
        _ => 3,
    };
    Operation::Range(tg << 46 | scale << 44 | num << 39 | page & ((1 << 37) - 1))
}

#[cfg(target_os = "none")]
pub use cpu::Tlbi;

#[cfg(target_os = "none")]
mod cpu {
    use core::arch::asm;

    use aarch64_cpu::asm::barrier;
    use aarch64_cpu::registers::{ID_AA64ISAR0_EL1, Readable, VTCR_EL2, VTTBR_EL2, Writeable};

    use super::{Operation, Operations, Ranges};
    use crate::addr::{Extent, Ipa};
    use crate::hw::{CpuTlb, CpuWalk};

    /// [`CpuTlb`] by instructions that reach every CPU of the Inner Shareable domain.
    ///
    /// Runs at EL2 with `HCR_EL2.TGE` = 0. The registers that say which VMID is meant are put back
    /// as they were: no EL1 or EL0 runs on this CPU meanwhile.
    #[derive(Clone, Copy, Debug)]
    pub struct Tlbi;

    impl CpuTlb for Tlbi {
        fn forget(&self, walk: &CpuWalk, stale: Option<&[Extent<Ipa>]>, log2_page: u8) {
            let operations = stale.and_then(|stale| Operations::new(stale, log2_page, supported()));
            // The stores to the tables are seen by every walker before anything is forgotten.
            barrier::dsb(barrier::ISHST);
            let (vtcr, vttbr) = (VTCR_EL2.get(), VTTBR_EL2.get());
            VTCR_EL2.set(walk.vtcr);
            VTTBR_EL2.set(walk.vttbr);
            barrier::isb(barrier::SY);
            match operations {
                Some(operations) => {
                    operations.iter().for_each(forget);
                    // What combines both stages is forgotten after stage 2 is, or a walk between
                    // could rebuild it.
                    barrier::dsb(barrier::ISH);
                    // SAFETY: forgetting translations of EL1 and EL0 changes no memory.
                    unsafe { asm!("tlbi vmalle1is", options(nostack)) };
                }
                None => {
                    // SAFETY: as above.
                    unsafe { asm!("tlbi vmalls12e1is", options(nostack)) };
                }
            }
            barrier::dsb(barrier::ISH);
            VTCR_EL2.set(vtcr);
            VTTBR_EL2.set(vttbr);
            barrier::isb(barrier::SY);
        }
    }

    fn supported() -> Ranges {
        const RANGES: u64 = 2;
        match ID_AA64ISAR0_EL1.get() >> 56 & 0xf {
            RANGES => Ranges::Supported,
            _ => Ranges::Missing,
        }
    }

    fn forget(operation: Operation) {
        match operation {
            Operation::One(value) => {
                // SAFETY: forgetting translations of EL1 and EL0 changes no memory.
                unsafe { asm!("tlbi ipas2e1is, {}", in(reg) value, options(nostack)) };
            }
            Operation::Range(value) => {
                // RIPAS2E1IS, which the assembler knows only for CPUs that all have it.
                // SAFETY: as above; `supported` found the instruction.
                unsafe { asm!("sys #4, c8, c0, #2, {}", in(reg) value, options(nostack)) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    fn extent(base: u64, size_bytes: u64) -> Extent<Ipa> {
        Extent::<Ipa>::new(Ipa::new(base), size_bytes).expect("it fits")
    }

    /// By the manual's field positions: which bytes an operation reaches.
    fn reach(operation: Operation) -> (u64, u64) {
        match operation {
            Operation::One(value) => (value << 12, 1),
            Operation::Range(value) => {
                let log2_page = [0, 12, 14, 16][(value >> 46 & 3) as usize];
                let (scale, num) = (value >> 44 & 3, value >> 39 & 0x1f);
                let pages = (num + 1) << (5 * scale + 1);
                ((value & 0x1f_ffff_ffff) << log2_page, pages << log2_page)
            }
        }
    }

    #[test]
    fn ranges_are_written_as_the_manual_says() {
        let stale = [extent(0x4020_0000, 0x20_0000)];
        let found = Operations::new(&stale, 12, Ranges::Supported).expect("few");
        // 512 pages: NUM 7 at SCALE 1, TG 1.
        let expected = 1 << 46 | 1 << 44 | 7 << 39 | 0x4_0200;
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            [Operation::Range(expected)]
        );
        let found = Operations::new(&[extent(0x7000, 0x1000)], 12, Ranges::Supported);
        let found: Vec<_> = found.expect("few").iter().collect();
        assert_eq!(found, [Operation::One(7)]);
    }

    #[test]
    fn every_page_of_every_range_is_reached_and_none_twice() {
        for (log2_page, pages) in [(12, 1), (12, 513), (14, 2047), (16, 0x1f_ffff), (12, 66)] {
            let base = 0x40_0000_0000;
            let stale = extent(base, pages << log2_page);
            let found = Operations::new(&[stale], log2_page, Ranges::Supported).expect("few");
            let mut at = base;
            for operation in found.iter() {
                let (first, size) = reach(operation);
                assert_eq!(first, at);
                at += size.max(1 << log2_page);
            }
            assert_eq!(at, base + (pages << log2_page));
        }
    }

    #[test]
    fn without_range_operations_each_page_takes_its_own() {
        let stale = [extent(0x1_0000, 0x8000), extent(0x40_0000, 0x4000)];
        let found = Operations::new(&stale, 14, Ranges::Missing).expect("few");
        let found: Vec<_> = found.iter().collect();
        let expected = [0x10, 0x14, 0x400].map(Operation::One);
        assert_eq!(found, expected);
    }

    #[test]
    fn too_many_operations_are_none() {
        let block = [extent(0, 0x20_0000)];
        assert!(Operations::new(&block, 12, Ranges::Missing).is_none());
        let all = [extent(0, 1 << 40)];
        assert!(Operations::new(&all, 12, Ranges::Supported).is_none());
    }
}
