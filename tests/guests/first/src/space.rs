//! An address space of our own for a device: three tables that map pages to themselves, moved up.

use portcullis_guest::TableRegisters;

use crate::memory::Page;

/// Where the device finds a page: so far above where it is.
pub(crate) const MOVED: u64 = 0x10_0000_0000;

/// 39 bits from TTBR0, walks write-back and inner shareable; TTBR1 off; addresses of 40 bits.
const TCR: u64 = 25 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12 | 1 << 23 | 2 << 32;
const MAIR: u64 = 0xff;
const TABLE: u64 = 0b11;
/// A page: read and write at EL0, inner shareable, accessed, not global, never executed.
const LEAF: u64 = 0b11 | 0b01 << 6 | 0b11 << 8 | 1 << 10 | 1 << 11 | 0b11 << 53;

/// Tables under construction.
pub(crate) struct Tables {
    root: Page,
    /// The second and the third level, and the 2 MiB that these are for.
    below: Page,
    last: Page,
    region: Option<u64>,
}

impl Tables {
    pub(crate) fn new() -> Result<Self, &'static str> {
        Ok(Self {
            root: Page::new()?,
            below: Page::new()?,
            last: Page::new()?,
            region: None,
        })
    }

    /// Maps `page` at its address and [`MOVED`], modulo 39 bits.
    pub(crate) fn map(&mut self, page: Page) -> Result<(), &'static str> {
        let at = address(page);
        if *self.region.get_or_insert(at >> 21) != at >> 21 {
            return Err("pages lie within 2 MiB");
        }
        self.root
            .put((at >> 30 & 511) as usize, self.below.0 | TABLE);
        self.below
            .put((at >> 21 & 511) as usize, self.last.0 | TABLE);
        self.last.put((at >> 12 & 511) as usize, page.0 | LEAF);
        Ok(())
    }

    pub(crate) fn registers(&self) -> TableRegisters {
        TableRegisters {
            ttbr0: self.root.0,
            ttbr1: 0,
            tcr: TCR,
            mair: MAIR,
        }
    }
}

/// Where the device finds `page`.
pub(crate) fn address(page: Page) -> u64 {
    (page.0 + MOVED) & ((1 << 39) - 1)
}
