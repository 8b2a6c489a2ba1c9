//! Address spaces: tables of 4 KiB pages, 39 bits, shared by a process and its devices.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering};

use portcullis_guest::{Ask, Error, Globals, Space, TableRegisters};

use crate::arch;
use crate::calls::EL2;
use crate::pages::{self, PAGE};

/// Where processes have their pages.
pub(crate) const FIRST_VA: u64 = 0x10_0000_0000;

const TABLE: u64 = 3;
/// A page: unprivileged read and write, inner shareable, accessed, never executed, not global.
const USER_PAGE: u64 = 3 | 1 << 6 | 3 << 8 | 1 << 10 | NOT_GLOBAL | 3 << 53;
const NOT_GLOBAL: u64 = 1 << 11;
/// 39 bits below, nothing above, write-back, inner shareable, 40 bits out.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32;
const MAIR: u64 = 0x04ff;

/// How a page is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum As {
    /// To be read and written.
    Own,
    /// For all address spaces.
    Global,
}

/// CPUs' tags; a device's are EL2's.
static NEXT_ASID: AtomicU16 = AtomicU16::new(1);

/// An address space.
pub(crate) struct Memory {
    root: u64,
    tables: Vec<u64>,
    pages: BTreeMap<u64, u64>,
    asid: u16,
    space: Option<Space>,
    is_released: bool,
}

impl Memory {
    /// One with nothing in it.
    pub(crate) fn new() -> Self {
        let root = pages::take();
        Self {
            root,
            tables: [root].into(),
            pages: BTreeMap::new(),
            asid: NEXT_ASID.fetch_add(1, Ordering::Relaxed),
            space: None,
            is_released: false,
        }
    }

    /// The space that devices know it by, made when it is first asked for.
    pub(crate) fn space(&mut self) -> Result<Space, Error> {
        self.space_as(Ask::Any)
    }

    /// As [`space`](Self::space), with a wish for its number.
    pub(crate) fn space_as(&mut self, ask: Ask) -> Result<Space, Error> {
        if let Some(space) = self.space {
            return Ok(space);
        }
        let registers = TableRegisters {
            ttbr0: self.root,
            ttbr1: 0,
            tcr: TCR,
            mair: MAIR,
        };
        let space = EL2.space_create(&registers, ask, Globals::MayBe)?;
        self.space = Some(space);
        Ok(space)
    }

    /// Forgets what EL2 knows of it, as a kernel that was replaced does.
    pub(crate) fn forget_space(&mut self) {
        self.space = None;
    }

    /// The word that says where `va` is, with the tables on the way.
    fn entry(&mut self, va: u64) -> u64 {
        let mut table = self.root;
        for shift in [30, 21] {
            let at = table + (va >> shift & 511) * 8;
            let word = pages::load(at);
            table = if word & 1 != 0 {
                word & 0xffff_ffff_f000
            } else {
                let new = pages::take();
                self.tables.push(new);
                pages::store(at, new | TABLE);
                new
            };
        }
        table + (va >> 12 & 511) * 8
    }

    /// Maps a page of zeros at `va`, where nothing is; gives where it is in the guest's memory.
    pub(crate) fn map_new(&mut self, va: u64) -> u64 {
        let page = pages::take();
        self.map(va, page, As::Own);
        page
    }

    /// Maps `page`, which becomes this address space's, at `va`, where nothing is.
    pub(crate) fn map(&mut self, va: u64, page: u64, how: As) {
        let entry = self.entry(va);
        let word = match how {
            As::Own => USER_PAGE,
            As::Global => USER_PAGE & !NOT_GLOBAL,
        };
        pages::store(entry, word | page);
        arch::barrier();
        if let Some(old) = self.pages.insert(va, page) {
            pages::put_back(old);
        }
    }

    /// Takes the page at `va` out of the tables and out of this CPU; devices are not told. The page
    /// is the caller's.
    pub(crate) fn unmap(&mut self, va: u64) -> Option<u64> {
        let page = self.pages.remove(&va)?;
        let entry = self.entry(va);
        pages::store(entry, 0);
        arch::barrier();
        arch::forget(self.asid);
        Some(page)
    }

    /// Calls `act` while this CPU is in it.
    fn enter<T>(&self, act: impl FnOnce() -> T) -> T {
        arch::set_user(self.root, self.asid);
        let result = act();
        arch::set_user(0, 0);
        result
    }

    /// What the process reads at `va`.
    pub(crate) fn read(&self, va: u64) -> u64 {
        self.enter(|| arch::load_as_user(va))
    }

    /// Has the process write at `va`.
    pub(crate) fn write(&self, va: u64, value: u64) {
        self.enter(|| arch::store_as_user(va, value));
    }

    /// Takes it away from all devices.
    pub(crate) fn release(&mut self) -> Result<(), Error> {
        match self.space {
            Some(space) if !self.is_released => {
                self.is_released = true;
                EL2.release(space.id)
            }
            _ => Ok(()),
        }
    }

    /// Releases it and makes all of its memory nobody's, tables first; gives the pages.
    pub(crate) fn end(mut self) -> Result<Vec<u64>, Error> {
        self.release()?;
        Ok(self.free())
    }

    /// Makes all of its memory nobody's.
    fn free(&mut self) -> Vec<u64> {
        arch::forget(self.asid);
        for table in core::mem::take(&mut self.tables) {
            pages::put_back(table);
        }
        let pages: Vec<u64> = core::mem::take(&mut self.pages).into_values().collect();
        for page in &pages {
            pages::put_back(*page);
        }
        pages
    }
}

impl Drop for Memory {
    /// Of a story that failed on the way: whatever EL2 still has of it is taken back first.
    fn drop(&mut self) {
        if !self.tables.is_empty() && self.release().is_ok() {
            self.free();
        }
    }
}

/// An address space of 16 KiB pages, which some SMMUs cannot walk: its root, and its one page at 0.
pub(crate) struct Coarse {
    pub(crate) registers: TableRegisters,
    pub(crate) page: u64,
    run: u64,
}

impl Coarse {
    /// 36 bits: two levels of 2048 words each.
    pub(crate) fn new() -> Self {
        const PAGES: u64 = 4;
        let run = pages::take_run(PAGES * 4);
        let (root, last, page) = (run, run + PAGES * PAGE, run + 2 * PAGES * PAGE);
        pages::store(last, USER_PAGE | page);
        pages::store(root, TABLE | last);
        arch::barrier();
        Self {
            registers: TableRegisters {
                ttbr0: root,
                ttbr1: 0,
                tcr: TCR & !0x3f | 28 | 2 << 14,
                mair: MAIR,
            },
            page,
            run,
        }
    }

    /// Makes its memory nobody's.
    pub(crate) fn free(self) {
        for at in (self.run..self.run + 16 * PAGE).step_by(PAGE as usize) {
            pages::put_back(at);
        }
    }
}
